//! `tideover install` and `uninstall` on the real gateway's own user unit, under a real systemd: in with one restart,
//! kept by the gateway's own update, and out again to the byte.

#![cfg(test)]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use support::lab::{Lab, LabOptions, TIDEOVER};
use support::{Outcome, available, slot, tell};
use tideover::drill::home::free_port;
use tideover::drill::provision::{Gateway, Wanted, provision};

const UNIT: &str = "openclaw-gateway.service";
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Longest that one command of the gateway may take on a busy machine, a start included.
const COMMAND_MAX: Duration = Duration::from_secs(400);
/// Longest that a gateway may take until it serves.
const SERVES_MAX: Duration = Duration::from_secs(150);

/// A gateway that its own installer has put into the user's unit.
struct Installed {
    lab: Lab,
    node: String,
    entry: String,
    port: u16,
}

/// Binds a program's tree into the lab, from the last directory called `node_modules` on.
fn bound(path: &Path, at: &str, options: &mut LabOptions) -> Outcome<String> {
    let path = path.canonicalize()?;
    let tree = path.ancestors().find(|dir| dir.ends_with("node_modules")).ok_or("not from npm")?;
    let inside = PathBuf::from(at).join(path.strip_prefix(tree)?);
    options.bind_ro.push((tree.to_owned(), PathBuf::from(at)));
    Ok(inside.to_str().ok_or("not UTF-8")?.to_owned())
}

impl Installed {
    fn new(gateway: &Gateway) -> Outcome<Option<Self>> {
        let mut options = LabOptions::default();
        let node = bound(&gateway.node, "/opt/node/node_modules", &mut options)?;
        let entry = bound(&gateway.entry, "/opt/openclaw/node_modules", &mut options)?;
        let Some(lab) = Lab::start(&options)? else { return Ok(None) };
        let installed = Self { lab, node, entry, port: free_port()? };
        let config = format!(
            "{{\n  // kept as it is\n  \"gateway\": {{\"mode\": \"local\", \"port\": {}, \"bind\": \"loopback\",\n    \
             \"auth\": {{\"mode\": \"token\", \"token\": \"{}\"}}}},\n  \"update\": {{\"checkOnStart\": false}}\n}}\n",
            installed.port,
            "0123456789abcdef".repeat(2),
        );
        installed.lab.write(".openclaw/openclaw.json", &config)?;
        installed.lab.root(&["chmod", "-R", "go=", "/home/claw/.openclaw"])?.ok()?;
        let port = installed.port.to_string();
        installed.openclaw(&["gateway", "install", "--force", "--port", &port], false)?;
        // What the user has added of its own.
        let unit = std::fs::read_to_string(installed.unit_file())?;
        let unit = unit.replacen("Environment=", "Environment=\"MINE=a b\"\nEnvironment=", 1);
        std::fs::write(installed.unit_file(), unit)?;
        installed.lab.systemctl(&["daemon-reload"])?;
        installed.serves()?;
        Ok(Some(installed))
    }

    fn unit_file(&self) -> PathBuf {
        self.lab.home().join(".config/systemd/user").join(UNIT)
    }

    /// The gateway's command line, as its user would have it with this node first on PATH.
    fn openclaw(&self, words: &[&str], update: bool) -> Outcome<String> {
        let node_dir = self.node.rsplit_once('/').map_or("", |(dir, _)| dir);
        let path = format!("PATH={node_dir}:{PATH}");
        let update = if update { "OPENCLAW_UPDATE_IN_PROGRESS=1" } else { "LANG=C.UTF-8" };
        let mut argv = vec!["env", &path, update, &self.node, &self.entry];
        argv.extend(words);
        self.lab.user_within(COMMAND_MAX, &argv)?.ok()
    }

    fn tideover(&self, words: &[&str]) -> Outcome<String> {
        let mut argv = vec![TIDEOVER];
        argv.extend(words);
        self.lab.user_within(COMMAND_MAX, &argv)?.ok()
    }

    /// Waits until the gateway takes connections.
    fn serves(&self) -> Outcome {
        self.lab.until("the gateway", SERVES_MAX, |_| {
            TcpStream::connect(("127.0.0.1", self.port)).map(drop).map_err(Into::into)
        })
    }

    /// Waits until tideover says that its gateway runs with the plugin.
    fn supervised(&self) -> Outcome {
        self.lab.until("tideover with its plugin", SERVES_MAX, |lab| {
            let status = lab.status()?;
            if status["running"] == true && status["plugin"]["connected"] == true {
                return Ok(());
            }
            Err(status.to_string().into())
        })
    }

    fn run(&self) -> Outcome<String> {
        self.lab.show(UNIT, "InvocationID")
    }

    /// Everything that an installation can touch: bytes, modes and links.
    fn files(&self) -> Outcome<BTreeMap<PathBuf, (u32, Vec<u8>)>> {
        let home = self.lab.home();
        let mut found = BTreeMap::new();
        let mut left = vec![home.join(".config"), home.join(".openclaw/openclaw.json")];
        left.push(home.join(".openclaw/tideover"));
        while let Some(path) = left.pop() {
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
            let bytes = if metadata.is_dir() {
                for entry in std::fs::read_dir(&path)? {
                    left.push(entry?.path());
                }
                Vec::new()
            } else if metadata.is_symlink() {
                OsString::from(std::fs::read_link(&path)?).into_encoded_bytes()
            } else {
                std::fs::read(&path)?
            };
            // tideover's own records of its runs stay: they are the user's checkpoints and reports. So do the
            // copies that the gateway's update makes.
            let name = path.to_string_lossy().into_owned();
            let own =
                path.starts_with(home.join(".openclaw/tideover")) && !name.contains("install");
            if !own && !name.contains(".reconcile-") {
                found.insert(path, (mode, bytes));
            }
        }
        Ok(found)
    }

    /// The difference to an earlier state, by name only: a unit can hold a token.
    fn changed_since(&self, before: &BTreeMap<PathBuf, (u32, Vec<u8>)>) -> Outcome<Vec<String>> {
        let now = self.files()?;
        let names = before.keys().chain(now.keys());
        let changed = names.filter(|name| before.get(*name) != now.get(*name));
        let mut changed: Vec<String> = changed.map(|name| name.display().to_string()).collect();
        changed.dedup();
        Ok(changed)
    }
}

fn parsed(text: &str) -> Outcome<Value> {
    Ok(serde_json::from_str(text)?)
}

/// In: dry first, then once, then nothing more to do.
fn comes_in(gateway: &Installed) -> Outcome {
    let (lab, before, run) = (&gateway.lab, gateway.files()?, gateway.run()?);
    let planned = parsed(&gateway.tideover(&["--json", "install", "--dry-run"])?)?;
    let shown = gateway.tideover(&["install", "--dry-run"])?;
    assert!(
        shown.contains("gateway install --force --wrapper") && shown.contains("Type=notify"),
        "{shown}"
    );
    assert!(!shown.contains("0123456789abcdef") && !shown.contains("a b"), "secrets are shown");
    assert_eq!(gateway.changed_since(&before)?, Vec::<String>::new(), "a dry run writes nothing");
    assert_eq!(gateway.run()?, run, "and restarts nothing");

    let done = parsed(&gateway.tideover(&["--json", "install"])?)?;
    assert_eq!((&done["files"], &done["commands"]), (&planned["files"], &planned["commands"]));
    gateway.supervised()?;
    let exec = lab.show(UNIT, "ExecStart")?;
    assert!(exec.contains(&format!("argv[]={TIDEOVER} {} gateway", gateway.entry)), "{exec}");
    for (property, wanted) in [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("KillMode", "mixed"),
        ("SyslogIdentifier", "node"),
        ("ActiveState", "active"),
        ("NRestarts", "0"),
        ("NeedDaemonReload", "no"),
        ("UnitFileState", "enabled"),
    ] {
        assert_eq!(lab.show(UNIT, property)?, wanted, "{property}");
    }
    let environment = lab.show(UNIT, "Environment")?;
    assert!(environment.contains("MINE=a b"), "what the user has added stays: {environment}");
    let child = lab.process(UNIT, &gateway.node)?;
    let argv = std::fs::read_to_string(format!("/proc/{child}/cmdline"))?;
    assert!(argv.starts_with(&format!("{}\0", gateway.node)), "{argv:?}");
    let verify =
        ["systemd-analyze", "--user", "verify", &format!("/home/claw/.config/systemd/user/{UNIT}")];
    let verified = lab.user(&verify)?;
    assert!(verified.err.trim().is_empty() && verified.out.trim().is_empty(), "{verified:?}");
    verified.ok()?;

    doctor_is_content(gateway)?;
    let (installed, run) = (gateway.files()?, gateway.run()?);
    let again = parsed(&gateway.tideover(&["--json", "install"])?)?;
    assert_eq!((&again["files"], &again["commands"]), (&json!([]), &json!([])));
    assert_eq!(gateway.changed_since(&installed)?, Vec::<String>::new());
    assert_eq!(gateway.run()?, run, "a second time restarts nothing");
    Ok(())
}

/// The doctor finds nothing that does not work, and names the unit.
fn doctor_is_content(gateway: &Installed) -> Outcome {
    let seen = parsed(&gateway.tideover(&["--json", "doctor"])?)?;
    let findings = seen["findings"].as_array().ok_or("no findings")?;
    let level = |check: &str| {
        let of = findings.iter().find(|finding| finding["check"] == check);
        of.map(|finding| finding["level"].clone()).unwrap_or_default()
    };
    for check in ["config", "gateway", "state", "plugin", "supervisor", "store", "unit", "boot"] {
        assert_eq!(level(check), "ok", "{check}: {seen:#}");
    }
    Ok(())
}

/// The gateway's own commands go on working.
fn lives_with_it(gateway: &Installed) -> Outcome {
    gateway.openclaw(&["gateway", "restart"], false)?;
    gateway.supervised()?;
    // What `openclaw update` does for its service.
    gateway.openclaw(&["gateway", "install", "--force"], true)?;
    gateway.supervised()?;
    let exec = gateway.lab.show(UNIT, "ExecStart")?;
    assert!(exec.contains(&format!("argv[]={TIDEOVER} {} gateway", gateway.entry)), "{exec}");
    assert_eq!(gateway.lab.show(UNIT, "Type")?, "notify");
    let again = parsed(&gateway.tideover(&["--json", "install"])?)?;
    assert_eq!(again["commands"], json!([]), "the update has kept it");
    Ok(())
}

async fn in_and_out(version: &str) -> Outcome {
    let wanted = Wanted::Version(version.to_owned());
    if !available(&wanted).await? {
        return Ok(());
    }
    let _slot = slot().await?;
    let found = provision(&wanted, &tell()).await?;
    let Some(gateway) = Installed::new(&found)? else { return Ok(()) };
    let before = gateway.files()?;
    comes_in(&gateway)?;
    lives_with_it(&gateway)?;

    gateway.tideover(&["uninstall"])?;
    assert_eq!(gateway.changed_since(&before)?, Vec::<String>::new(), "everything as it was found");
    gateway.serves()?;
    let exec = gateway.lab.show(UNIT, "ExecStart")?;
    assert!(exec.contains(&format!("path={} ;", gateway.node)), "{exec}");
    assert_eq!(gateway.lab.show(UNIT, "NeedDaemonReload")?, "no");
    let again = gateway.tideover(&["uninstall"])?;
    assert_eq!(again.trim(), "nothing to change");
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn in_and_out_of_2026_9_6() -> Outcome {
    in_and_out("2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn in_and_out_of_2026_5_5() -> Outcome {
    in_and_out("2026.5.5").await
}
