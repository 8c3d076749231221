//! Looking at what is there: the unit, what stands beside it, tideover's configuration, an earlier record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::durable::FileError;
use super::super::launch::EnvSnapshot;
use super::command::CallError;
use super::files::{self, Content};
use super::manager::{Manager, UnitState};
use super::refusal::Refusal;
use super::template::{DROP_IN_NAME, REPORT_UNIT_NAME};
use super::unit_file::UnitFile;

/// Most drop-ins of one unit, and most units of one user, that are looked at.
const FILES_MAX: usize = 512;

/// Why it could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// There is nothing to work with.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The manager does not answer.
    #[error(transparent)]
    Manager(#[from] CallError),
}

/// What is there.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "a unit can hold a token")]
pub struct Found {
    /// The unit's name, `.service` included.
    pub unit: String,
    /// The user's home.
    pub home: String,
    /// What the manager knows of it.
    pub state: UnitState,
    /// Where the user's units are.
    pub dir: PathBuf,
    /// The unit's file.
    pub fragment: Option<Content>,
    /// The copy that the gateway keeps of it.
    pub backup: Option<Content>,
    /// Our drop-in.
    pub drop_in: Option<Content>,
    /// Our unit that reports.
    pub report: Option<Content>,
    /// Drop-ins of others, by path.
    pub foreign: BTreeMap<PathBuf, String>,
    /// Whether units can be written at all.
    pub writable: bool,
    /// Whether another unit of this user has our drop-in too.
    pub others: bool,
    /// The manager's environment with the unit's over it.
    pub environment: BTreeMap<String, String>,
}

impl Found {
    /// The unit's file.
    pub fn unit_path(&self) -> PathBuf {
        self.dir.join(&self.unit)
    }

    /// The copy that the gateway keeps of it.
    pub fn backup_path(&self) -> PathBuf {
        self.dir.join(format!("{}.bak", self.unit))
    }

    /// Our drop-in.
    pub fn drop_in_path(&self) -> PathBuf {
        self.dir.join(format!("{}.d", self.unit)).join(DROP_IN_NAME)
    }

    /// Our unit that reports.
    pub fn report_path(&self) -> PathBuf {
        self.dir.join(REPORT_UNIT_NAME)
    }

    /// The unit's own variables.
    pub fn unit_environment(&self) -> BTreeMap<String, String> {
        self.fragment
            .as_ref()
            .map(|content| UnitFile::parse(&content.text).environment(&self.home))
            .unwrap_or_default()
    }
}

/// The unit's name for a profile, as the gateway names it; `named` wins.
pub fn unit_name(named: Option<&str>, profile: &str) -> Result<String, Refusal> {
    let name = match named.map(str::trim).filter(|name| !name.is_empty()) {
        Some(name) if name.ends_with(".service") => name.to_owned(),
        Some(name) => format!("{name}.service"),
        None if profile.eq_ignore_ascii_case("default") => "openclaw-gateway.service".to_owned(),
        None => format!("openclaw-gateway-{profile}.service"),
    };
    let stem = name.trim_end_matches(".service");
    let valid = |c: char| c.is_ascii_alphanumeric() || "_-.:@\\".contains(c);
    if name.len() > 200 || stem.is_empty() || !stem.chars().all(valid) {
        return Err(Refusal::UnitName { name });
    }
    Ok(name)
}

/// Looks. Changes nothing.
pub fn look(manager: &Manager, unit: &str, home: &str) -> Result<Found, LookError> {
    let mut environment =
        manager.environment().map_err(|error| Refusal::NoManager { reason: error.to_string() })?;
    let state = manager.show(unit)?;
    // Where the gateway writes units: it does not look at XDG_CONFIG_HOME.
    let dir = Path::new(home).join(".config/systemd/user");
    let mut found = Found {
        unit: unit.to_owned(),
        home: home.to_owned(),
        state,
        dir,
        fragment: None,
        backup: None,
        drop_in: None,
        report: None,
        foreign: BTreeMap::new(),
        writable: false,
        others: false,
        environment: BTreeMap::new(),
    };
    own_file(&found)?;
    found.writable = nix::unistd::access(&found.dir, nix::unistd::AccessFlags::W_OK).is_ok();
    found.fragment = files::read(&found.unit_path())?;
    found.backup = files::read(&found.backup_path())?;
    found.drop_in = files::read(&found.drop_in_path())?;
    found.report = files::read(&found.report_path())?;
    found.others = others(&found);
    let own = found.drop_in_path();
    for path in found.state.drop_ins.iter().filter(|path| **path != own).take(FILES_MAX) {
        let text =
            std::fs::read_to_string(path).map_err(|source| FileError::new("read", path, source))?;
        found.foreign.insert(path.clone(), text);
    }
    environment.extend(found.unit_environment());
    found.environment = environment;
    Ok(found)
}

/// Refuses a unit that is a link: to nothing where it is masked, else into somebody's own arrangement of files.
fn own_file(found: &Found) -> Result<(), Refusal> {
    let path = found.unit_path();
    let sealed = |reason: String, command: String| {
        Err(Refusal::Sealed { unit: found.unit.clone(), reason, command })
    };
    match std::fs::read_link(&path) {
        Ok(to) if to == Path::new("/dev/null") => {
            sealed("is masked".to_owned(), format!("systemctl --user unmask {}", found.unit))
        }
        Ok(to) => sealed(
            format!("is a link to {}", to.display()),
            format!("cp --remove-destination {} {}", to.display(), path.display()),
        ),
        Err(_) => Ok(()),
    }
}

fn others(found: &Found) -> bool {
    let own = found.drop_in_path();
    let entries = std::fs::read_dir(&found.dir).into_iter().flatten().take(FILES_MAX).flatten();
    entries.map(|entry| entry.path().join(DROP_IN_NAME)).any(|path| path != own && path.is_file())
}

/// The environment in which the gateway's own commands are run for this unit: the login's bare necessities with the
/// unit's variables over them, so that what the gateway writes into the unit is what was there.
pub fn gateway_environment(found: &Found, login: &EnvSnapshot) -> EnvSnapshot {
    const LOGIN: [&str; 11] = [
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LC_ALL",
        "PATH",
        "TMPDIR",
        "XDG_CONFIG_HOME",
        "XDG_RUNTIME_DIR",
        "DBUS_SESSION_BUS_ADDRESS",
    ];
    // What marks a process as the service itself, and the wrapper, which is named by an option.
    const NOT: [&str; 4] = [
        "OPENCLAW_SERVICE_MARKER",
        "OPENCLAW_SERVICE_KIND",
        "OPENCLAW_SERVICE_VERSION",
        "OPENCLAW_WRAPPER",
    ];
    let mut env: EnvSnapshot = login
        .iter()
        .filter(|(name, _)| LOGIN.iter().any(|wanted| *name == wanted))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let unit = found.unit_environment();
    env.extend(
        unit.into_iter()
            .filter(|(name, _)| !NOT.contains(&name.as_str()))
            .map(|(k, v)| (k.into(), v.into())),
    );
    env.insert("OPENCLAW_SYSTEMD_UNIT".into(), found.unit.clone().into());
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_units() {
        for (named, profile, want) in [
            (None, "default", Some("openclaw-gateway.service")),
            (None, "work", Some("openclaw-gateway-work.service")),
            (Some("mine"), "work", Some("mine.service")),
            (Some("mine.service"), "default", Some("mine.service")),
            (Some("../x"), "default", None),
            (Some(".service"), "default", None),
            (Some("a b"), "default", None),
        ] {
            assert_eq!(unit_name(named, profile).ok().as_deref(), want, "{named:?} {profile}");
        }
    }
}
