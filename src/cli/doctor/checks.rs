//! The checks that need no service manager: binary, configuration, gateway, plugin, supervisor, store.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::config;
use crate::control::client::ClientError;
use crate::core::outbox::SendState;
use crate::gateway::launch::{self, EnvSnapshot};
use crate::gateway::plugin_install::{InstallOptions, prepare_install};
use crate::gateway::service::Call;
use crate::store::records::read_outbox;
use crate::store::{Directory, Place};

use super::super::context::Context;
use super::super::install_unit::is_passing;
use super::finding::Finding;

/// The oldest Node that any gateway we know runs on; newer gateways want a newer one and say so themselves.
const NODE_MIN: (u32, u32) = (22, 14);
/// Longest that Node may take to say its version, in milliseconds.
const VERSION_MS: u64 = 30_000;

/// Every check, in the order in which a person would look.
pub(super) fn all(context: &Context, env: &EnvSnapshot) -> Vec<Finding> {
    let loaded = configuration(env);
    let mut findings = vec![binary()];
    findings.push(configuration_finding(&loaded));
    findings.push(gateway_command(&loaded, env));
    findings.push(state_directory(context));
    findings.push(plugin(context));
    findings.extend(supervisor(context));
    findings.extend(store(context));
    findings.push(outbox(context));
    findings.extend(journal());
    findings
}

fn binary() -> Finding {
    let version = env!("CARGO_PKG_VERSION");
    match std::env::current_exe() {
        Ok(path) if is_passing(&path) => Finding::warn(
            "binary",
            format!("{} ({version}) is in a directory that may go away", path.display()),
            "install it for good: cargo install --path . (or the .deb)",
        ),
        Ok(path) => Finding::ok("binary", format!("{} ({version})", path.display())),
        Err(error) => Finding::note("binary", format!("version {version}, path unknown: {error}")),
    }
}

fn configuration(env: &EnvSnapshot) -> Option<config::Loaded> {
    let path = config::default_path(|name| env.get(std::ffi::OsStr::new(name)).cloned())?;
    Some(config::load(&path))
}

fn configuration_finding(loaded: &Option<config::Loaded>) -> Finding {
    let Some(loaded) = loaded else {
        return Finding::warn(
            "config",
            "neither XDG_CONFIG_HOME nor HOME is set: the defaults hold",
            "set HOME",
        );
    };
    match (&loaded.problem, &loaded.source) {
        (Some(problem), _) => Finding::fail(
            "config",
            format!("{problem}; the defaults hold"),
            "correct that line; then `tideover doctor` again",
        ),
        (None, Some(path)) => Finding::ok("config", path.display().to_string()),
        (None, None) => Finding::ok("config", "no file: the defaults hold"),
    }
}

fn gateway_command(loaded: &Option<config::Loaded>, env: &EnvSnapshot) -> Finding {
    let configured = loaded.as_ref().and_then(|loaded| loaded.settings.gateway.command.clone());
    let command = match launch::command(&["gateway".into()], configured.as_deref(), env) {
        Ok(command) => command,
        Err(error) => {
            return Finding::fail(
                "gateway",
                error.to_string(),
                "name node and entry script in [gateway] command of the configuration, or, where nothing is installed \
                 yet, run tideover install",
            );
        }
    };
    let shown = std::iter::once(command.program.display().to_string())
        .chain(command.args.iter().map(|arg| arg.to_string_lossy().into_owned()))
        .collect::<Vec<_>>()
        .join(" ");
    let is_node = command.program.file_name().is_some_and(|name| name == "node");
    match is_node.then(|| node_version(&command.program, env)).flatten() {
        Some(version) if version < NODE_MIN => Finding::fail(
            "gateway",
            format!("{shown}: Node {}.{} is too old", version.0, version.1),
            format!(
                "put Node {}.{} or newer into [gateway] command of the configuration",
                NODE_MIN.0, NODE_MIN.1
            ),
        ),
        Some(version) => {
            Finding::ok("gateway", format!("{shown} (Node {}.{})", version.0, version.1))
        }
        None if is_node => Finding::fail(
            "gateway",
            format!("{} does not say its version", command.program.display()),
            "name a Node that works in [gateway] command of the configuration",
        ),
        None => Finding::ok("gateway", shown),
    }
}

fn node_version(node: &Path, env: &EnvSnapshot) -> Option<(u32, u32)> {
    let call = Call {
        program: node.to_owned(),
        args: vec!["--version".into()],
        env: env.clone(),
        timeout_ms: VERSION_MS,
    };
    let said = call.run().ok()?.stdout;
    let mut parts = said.trim().strip_prefix('v')?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn state_directory(context: &Context) -> Finding {
    let path = &context.paths.state_dir;
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            Finding::fail("state", format!("{shown} is no directory"), format!("move {shown} away"))
        }
        Ok(found) if found.uid() != nix::unistd::geteuid().as_raw() => Finding::fail(
            "state",
            format!("{shown} belongs to uid {}, not to you", found.uid()),
            "run the gateway, tideover and this command as one user",
        ),
        Ok(_) => Finding::ok("state", shown.to_string()),
        Err(error) => Finding::fail(
            "state",
            format!("{shown}: {error}"),
            "set OpenClaw up first: openclaw onboard (or name the place: --state-dir DIR)",
        ),
    }
}

fn plugin(context: &Context) -> Finding {
    match prepare_install(&context.paths, InstallOptions { create_config: false }) {
        Ok(prepared) if prepared.files.is_empty() => {
            Finding::ok("plugin", "in place, as this version brings it")
        }
        Ok(prepared) => Finding::fail(
            "plugin",
            format!("{} file(s) are missing or of another version", prepared.files.len()),
            "tideover install (or, without a service, tideover install --no-unit), then restart the gateway",
        ),
        Err(error) => Finding::fail("plugin", error.to_string(), "tideover install"),
    }
}

fn supervisor(context: &Context) -> Vec<Finding> {
    let status = match context.ask(&json!({ "type": "status" })) {
        Ok(status) => status,
        Err(ClientError::NotRunning { path }) => {
            return vec![Finding::warn(
                "supervisor",
                format!("nobody answers on {}", path.display()),
                "systemctl --user start openclaw-gateway (or: tideover run -- openclaw gateway)",
            )];
        }
        Err(error) => {
            return vec![Finding::fail("supervisor", error.to_string(), "restart the gateway")];
        }
    };
    let text = |pointer: &str| status.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
    let mut findings = Vec::new();
    let running = text("/supervisor/version");
    let mine = env!("CARGO_PKG_VERSION");
    findings.push(if running == mine {
        Finding::ok(
            "supervisor",
            format!("{}; gateway {}", text("/phase"), text("/gateway/version")),
        )
    } else {
        Finding::warn(
            "supervisor",
            format!("version {running} runs, this is {mine}"),
            "restart the gateway: systemctl --user restart openclaw-gateway",
        )
    });
    if status["plugin"]["connected"] != true && text("/gateway/readiness") == "ready" {
        findings.push(Finding::fail(
            "journaling",
            "the gateway is ready and its plugin has not reported: nothing is journaled",
            "tideover install, then restart the gateway",
        ));
    }
    let stuck = status["queue"]["stuck"].as_array().map_or(0, Vec::len);
    let given_up = status["queue"]["given_up"].as_u64().unwrap_or(0);
    if stuck > 0 || given_up > 0 {
        findings.push(Finding::warn(
            "queue",
            format!(
                "{stuck} queued entries have waited long, {given_up} message(s) were given up by the gateway"
            ),
            "tideover queue list",
        ));
    }
    for (concern, why) in status["degraded"].as_object().into_iter().flatten() {
        findings.push(Finding::warn(
            "degraded",
            format!("{concern}: {}", why.as_str().unwrap_or_default()),
            "tideover status",
        ));
    }
    findings
}

fn store(context: &Context) -> Vec<Finding> {
    let path = context.layout.directory(Place::Checkpoints);
    let mut findings = Vec::new();
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            findings.push(Finding::ok("store", "no checkpoint yet"));
        }
        Err(error) => findings.push(Finding::fail(
            "store",
            format!("{}: {error}", path.display()),
            "check its owner and mode",
        )),
        Ok(found) if found.permissions().mode() & 0o077 != 0 => findings.push(Finding::fail(
            "store",
            format!("{} can be read by others", path.display()),
            format!("chmod 700 {}", path.display()),
        )),
        Ok(_) => findings.push(Finding::ok("store", path.display().to_string())),
    }
    let quarantine = context.layout.quarantine();
    let set_aside = std::fs::read_dir(&quarantine).map_or(0, Iterator::count);
    if set_aside > 0 {
        findings.push(Finding::warn(
            "quarantine",
            format!("{set_aside} unreadable checkpoint(s) were set aside"),
            format!("look at them in {}, then remove them", quarantine.display()),
        ));
    }
    findings
}

fn outbox(context: &Context) -> Finding {
    let Ok(directory) = Directory::open(&context.layout.directory(Place::Outbox)) else {
        return Finding::ok("outbox", "empty");
    };
    let (entries, problems) = read_outbox(&directory);
    let failed = entries.iter().filter(|entry| entry.state == SendState::Failed).count();
    if failed > 0 {
        return Finding::warn(
            "outbox",
            format!("{failed} notice(s) were given up"),
            "tideover outbox list shows why; tideover outbox retry tries them again",
        );
    }
    match problems.first() {
        Some(problem) => {
            Finding::warn("outbox", problem.clone(), "move that file away; nothing reads it")
        }
        None => Finding::ok("outbox", format!("{} notice(s) on record", entries.len())),
    }
}

/// A user reads its own records only where the journal is kept on disk.
fn journal() -> Option<Finding> {
    let booted = Path::new("/run/systemd/system").is_dir();
    let kept = Path::new("/var/log/journal").is_dir();
    booted.then(|| {
        if kept {
            Finding::ok("journal", "kept on disk")
        } else {
            Finding::warn(
                "journal",
                "the journal is kept in memory only: you cannot read your own services' records",
                "sudo mkdir -p /var/log/journal && sudo systemctl restart systemd-journald",
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_that_may_go_away_is_known_by_its_place() {
        for (path, passing) in [
            ("/tmp/tideover", true),
            ("/home/me/src/tideover/target/release/tideover", true),
            ("/home/me/.cargo/bin/tideover", false),
            ("/usr/bin/tideover", false),
        ] {
            assert_eq!(is_passing(Path::new(path)), passing, "{path}");
        }
    }
}
