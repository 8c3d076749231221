//! The user's service manager, through `systemctl --user`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::launch::EnvSnapshot;
use super::command::{Call, CallError};

/// Longest that a question may take.
const ASK_MS: u64 = 30_000;
/// Longest that a stop or start may take: the gateway drains for up to 315 s, and a start that makes progress
/// extends its own time.
const ACT_MS: u64 = 15 * 60_000;

/// What the manager knows of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked`, `bad-setting`, …
    pub load: String,
    /// `active`, `activating`, `inactive`, `failed`, …
    pub active: String,
    /// `enabled`, `disabled`, …
    pub file: String,
    /// The unit's file.
    pub fragment: Option<PathBuf>,
    /// Its drop-ins.
    pub drop_ins: Vec<PathBuf>,
    /// Whether files have changed since they were read.
    pub reload_needed: bool,
    /// The command in force, as `systemctl show` prints it.
    pub exec_start: String,
}

impl UnitState {
    /// Whether a process of it runs or is about to.
    pub fn is_running(&self) -> bool {
        matches!(self.active.as_str(), "active" | "activating" | "reloading" | "deactivating")
    }

    fn parse(text: &str) -> Self {
        let values: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.split_once('=')).collect();
        let value = |name| values.get(name).copied().unwrap_or_default();
        Self {
            load: value("LoadState").to_owned(),
            active: value("ActiveState").to_owned(),
            file: value("UnitFileState").to_owned(),
            fragment: Some(value("FragmentPath"))
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            drop_ins: value("DropInPaths").split_whitespace().map(PathBuf::from).collect(),
            reload_needed: value("NeedDaemonReload") == "yes",
            exec_start: value("ExecStart").to_owned(),
        }
    }
}

/// The manager, as reached from an environment.
#[derive(Debug, Clone)]
pub struct Manager {
    env: EnvSnapshot,
}

impl Manager {
    /// With the environment of a login session.
    pub fn new(env: EnvSnapshot) -> Self {
        Self { env }
    }

    /// A `systemctl --user` command line.
    pub fn call(&self, args: &[&str]) -> Call {
        let asks = matches!(args, ["show" | "show-environment", ..]);
        Call {
            program: "systemctl".into(),
            args: std::iter::once("--user").chain(args.iter().copied()).map(Into::into).collect(),
            env: self.env.clone(),
            timeout_ms: if asks { ASK_MS } else { ACT_MS },
        }
    }

    /// The manager's own environment, which every unit gets; the error says that there is no manager.
    pub fn environment(&self) -> Result<BTreeMap<String, String>, CallError> {
        let ended = self.call(&["show-environment"]).succeed()?;
        let plain = |(name, value): (&str, &str)| {
            // `$'…'` is the shell's quoting of a value with special characters: not one that is used here.
            (!value.starts_with("$'")).then(|| (name.to_owned(), value.to_owned()))
        };
        Ok(ended.stdout.lines().filter_map(|line| line.split_once('=').and_then(plain)).collect())
    }

    /// What it knows of a unit. A unit that is not there is no error.
    pub fn show(&self, unit: &str) -> Result<UnitState, CallError> {
        const PROPERTIES: &str = "LoadState,ActiveState,UnitFileState,FragmentPath,DropInPaths,NeedDaemonReload,ExecStart";
        let ended = self.call(&["show", "--property", PROPERTIES, "--", unit]).succeed()?;
        Ok(UnitState::parse(&ended.stdout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_show_prints() {
        let state = UnitState::parse(
            "LoadState=loaded\nActiveState=activating\nUnitFileState=enabled\nFragmentPath=/h/a.service\n\
             DropInPaths=/h/a.service.d/1.conf /h/a.service.d/2.conf\nNeedDaemonReload=no\n\
             ExecStart={ path=/t ; argv[]=/t gateway ; ignore_errors=no }\n",
        );
        assert!(state.is_running() && !state.reload_needed);
        assert_eq!(state.fragment, Some("/h/a.service".into()));
        assert_eq!(state.drop_ins.len(), 2);
        assert!(state.exec_start.contains("path=/t ;"));
        assert_eq!(UnitState::parse("LoadState=not-found\nFragmentPath=\n").fragment, None);
    }
}
