//! A real gateway in a [`Lab`], as its own installer sets it up: `openclaw gateway install` has written
//! and enabled the user unit. The mocks run in the test, on the host.

use std::fs::File;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tideover::drill::gateway_proc::readiness;
use tideover::drill::home::{DmScope, Mocks, Site, free_port, gateway_config};
use tideover::drill::mock_model::MockModel;
use tideover::drill::mock_telegram::MockTelegram;
use tideover::drill::npm::cache_dir;
use tideover::drill::progress::until;
use tideover::drill::provision::{Gateway, Wanted, provision};
use tideover::drill::rig::START_MAX;
use tideover::drill::stage::Stage;

use super::lab::{Lab, LabOptions, TIDEOVER, UID};
use super::{Outcome, available, slot, tell};

/// The unit that the gateways install.
pub(crate) const UNIT: &str = "openclaw-gateway.service";
/// The Node of the gateways, inside.
pub(crate) const NODE: &str = "/opt/node-24/bin/node";
/// Longest that an installation may take: a stop and a start of the gateway.
const INSTALL_MAX: Duration = Duration::from_secs(300);
/// Where Node keeps compiled code, inside and from lab to lab.
const COMPILE_CACHE: &str = "/opt/compile";

/// How to set a gateway up.
#[derive(Debug, Clone)]
pub(crate) struct GatewayOptions {
    /// Users who may write to the bot.
    pub(crate) chats: Vec<i64>,
    /// Merged over openclaw.json.
    pub(crate) config_patch: Value,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self { chats: vec![4242, 4343], config_patch: Value::Null }
    }
}

/// A gateway's unit in a lab, between a mock model and a mock Telegram. The lab ends first.
#[derive(Debug)]
pub(crate) struct LabGateway {
    pub(crate) lab: Lab,
    pub(crate) model: MockModel,
    pub(crate) telegram: MockTelegram,
    /// Version of the gateway.
    pub(crate) version: String,
    /// Its port, inside and on the host.
    pub(crate) port: u16,
    /// Its entry file, inside.
    pub(crate) entry: String,
    _slot: File,
}

impl LabGateway {
    /// Boots a lab and has the gateway install its unit, which starts it; or says why there is none here.
    pub(crate) async fn installed(
        version: &str,
        options: &GatewayOptions,
    ) -> Outcome<Option<Self>> {
        let wanted = Wanted::Version(version.to_owned());
        if !available(&wanted).await? {
            return Ok(None);
        }
        let gateway = provision(&wanted, &tell()).await?;
        let slot = slot().await?;
        let (binds, entry) = binds(&gateway)?;
        let Some(lab) = Lab::start(&binds)? else { return Ok(None) };
        let (model, telegram) = (MockModel::start()?, MockTelegram::start()?);
        let version = version.to_owned();
        let this = Self { lab, model, telegram, version, port: free_port()?, entry, _slot: slot };
        this.configure(options)?;
        this.openclaw(&["gateway", "install", "--port", &this.port.to_string()])?;
        // Not earlier: 2026.9.6 refuses to install a unit that has a drop-in already.
        this.lab.write_unit(
            &format!("{UNIT}.d/10-lab.conf"),
            &format!(
                "[Service]\n\
                 Environment=OPENCLAW_DISABLE_BONJOUR=1 NODE_COMPILE_CACHE={COMPILE_CACHE}\n"
            ),
        )?;
        Ok(Some(this))
    }

    fn configure(&self, options: &GatewayOptions) -> Outcome {
        let mocks = Mocks {
            model_url: &self.model.base_url(),
            telegram_url: &self.telegram.api_root(),
            chats: &options.chats,
            dm_scope: DmScope::PerChat,
        };
        // The paths that the gateway itself uses: the home as its user names it.
        let site = Site {
            port: self.port,
            workspace: Path::new("/home/claw/w"),
            log: Path::new("/home/claw/logs/gateway-file.log"),
        };
        let config = gateway_config(&site, &mocks, &options.config_patch);
        for dir in [".openclaw", "w", "logs", "work"] {
            let dir = self.lab.home().join(dir);
            std::fs::create_dir(&dir)?;
            chown(&dir, Some(UID), Some(UID))?;
        }
        self.lab.write(".openclaw/openclaw.json", &format!("{config:#}\n"))?;
        Ok(())
    }

    /// Runs a command of the gateway's CLI as the user; it must succeed.
    pub(crate) fn openclaw(&self, words: &[&str]) -> Outcome<String> {
        let argv = [&[NODE, self.entry.as_str()], words].concat();
        self.lab.user(&argv)?.ok()
    }

    /// Puts tideover in front, as a user does, and adds these lines for `[Service]` in a drop-in of their own.
    pub(crate) fn put_tideover_in_front(&self, service: &str) -> Outcome {
        self.lab.user_within(INSTALL_MAX, &[TIDEOVER, "install"])?.ok()?;
        self.lab.write_unit(&format!("{UNIT}.d/60-lab.conf"), &format!("[Service]\n{service}\n"))
    }

    /// What stories are played on.
    pub(crate) fn stage(&self) -> Stage<'_> {
        Stage {
            model: &self.model,
            telegram: &self.telegram,
            state: self.lab.home().join(".openclaw"),
            work: self.lab.home().join("work"),
            dm_scope: DmScope::PerChat,
        }
    }

    /// Waits until the gateway has started.
    pub(crate) async fn ready(&self) -> Outcome {
        let ready = until("the gateway's start", START_MAX, || readiness(self.port)).await;
        ready.map_err(|error| format!("{error}; journal:\n{}", self.lab.journal_tail(40)).into())
    }

    /// Waits until tideover is only a parent and a listener.
    pub(crate) fn handed_off(&self) -> Outcome {
        self.lab.until("the hand-off", Duration::from_secs(60), |lab| {
            let status = lab.status()?;
            if status["phase"] == "handed off" {
                return Ok(());
            }
            Err(format!("{} {}", status["phase"], status["outbox"]).into())
        })
    }
}

/// The gateway's package and its Node, at fixed places inside; and the gateway's entry file there.
fn binds(gateway: &Gateway) -> Outcome<(LabOptions, String)> {
    let prefix = gateway.entry.ancestors().find(|dir| dir.join("node_modules/openclaw").is_dir());
    let prefix =
        prefix.ok_or_else(|| format!("{} is in no npm prefix", gateway.entry.display()))?;
    let inside = Path::new("/opt/gateway").join(&gateway.version);
    let entry = inside.join(gateway.entry.strip_prefix(prefix)?);
    // Node names its files in it by user, so that root's and claw's do not meet.
    let compile = cache_dir()?.join("compile-lab");
    std::fs::create_dir_all(&compile)?;
    chown(&compile, Some(UID), Some(UID))?;
    let options = LabOptions {
        bind_ro: vec![
            (prefix.to_path_buf(), inside),
            (gateway.node.canonicalize()?, PathBuf::from(NODE)),
        ],
        bind: vec![(compile, PathBuf::from(COMPILE_CACHE))],
    };
    Ok((options, entry.display().to_string()))
}
