//! What an installation has to do, as a pure function of what is there.

use std::path::PathBuf;

use super::files::{Change, Content};
use super::found::Found;
use super::launcher::{self, Launcher, entry_of, is_tideover, port_of};
use super::record::{Record, fingerprint};
use super::refusal::Refusal;
use super::settings_edit;
use super::template;
use super::unit_file::UnitFile;
use super::words;

/// Private files: a command line can hold a token.
pub(super) const PRIVATE_MODE: u32 = 0o600;
/// The variable by which the gateway remembers its wrapper.
pub(super) const WRAPPER_VARIABLE: &str = "OPENCLAW_WRAPPER";

/// What is to be done, one after the other.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "a unit can hold a token")]
pub enum Step {
    /// Write or remove a file.
    File(Change),
    /// The plugin's files and the gateway's configuration.
    Plugin,
    /// `systemctl --user` with these words.
    Systemctl(Vec<String>),
    /// The gateway's own command line, from the entry script on; it restarts the service.
    Gateway(Vec<String>),
}

/// A plan.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "a unit can hold a token")]
pub struct Plan {
    /// The unit.
    pub unit: String,
    /// What is to be done; empty when all is in place.
    pub steps: Vec<Step>,
    /// The gateway's own command: node, its options, entry script.
    pub command: Vec<String>,
    /// What the gateway's own installer will change in the unit, as lines of a diff.
    pub unit_diff: String,
    /// What is to be kept in mind.
    pub notes: Vec<String>,
    /// What was there, to be written down before the first change and completed after the last.
    pub record: Option<Record>,
    /// Where the record is.
    pub record_path: PathBuf,
    /// Files whose state after the change goes into the record.
    pub recorded: Vec<PathBuf>,
    /// Whether this is a removal.
    pub removal: bool,
}

/// Everything a plan depends on.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "a unit can hold a token")]
pub struct Given<'g> {
    /// What was found.
    pub found: &'g Found,
    /// This program.
    pub tideover: &'g str,
    /// tideover's configuration file.
    pub config_path: &'g PathBuf,
    /// And what is in it.
    pub config: Option<&'g Content>,
    /// The record of an earlier installation.
    pub record: Option<&'g Record>,
    /// Where it is.
    pub record_path: &'g PathBuf,
    /// Whether the plugin has something to change.
    pub plugin: bool,
}

/// Plans an installation.
pub fn install(given: Given<'_>) -> Result<Plan, Refusal> {
    let found = given.found;
    let fragment = may_change(found)?;
    let launcher = launcher_of(found, fragment)?;
    let command = command_of(&given, &launcher)?;
    let entry = entry_of(&command).cloned().unwrap_or_default();
    let (gateway_words, path) = running_of(found, &launcher);
    let mut notes = Vec::new();
    let mut files = Vec::new();
    if let Some(change) = config_change(&given, &command, &mut notes)? {
        files.push(change);
    }
    let report = template::report_unit(given.tideover);
    files.extend(change(found.report_path(), found.report.as_ref(), &report)?);
    let drop_in = template::drop_in(given.tideover, &entry, &gateway_words, path.as_deref());
    let drop_in = change(found.drop_in_path(), found.drop_in.as_ref(), &drop_in)?;
    let units = files.len() + usize::from(drop_in.is_some());
    let wrapped = is_wrapped(found, &launcher, given.tideover);
    let restart = !wrapped || drop_in.is_some();
    files.extend(drop_in);
    let steps = install_steps(&given, files, wrapped, restart, units > 0, port_of(&gateway_words));
    let (mut record, mut recorded) = (None, Vec::new());
    if units > 0 || !wrapped {
        let (new, files) = record_of(&given, &launcher, &command, wrapped);
        (record, recorded) = (Some(new), files);
    }
    let unit_diff =
        if wrapped { String::new() } else { unit_diff(fragment, given.tideover, &gateway_words) };
    Ok(Plan {
        unit: found.unit.clone(),
        steps,
        command,
        unit_diff,
        notes,
        record,
        record_path: given.record_path.clone(),
        recorded,
        removal: false,
    })
}

/// The order: the gateway is stopped once, everything is put in place, and its own installer starts it again. It
/// never runs between two configurations, and nothing is restarted by a change that it notices by itself.
fn install_steps(
    given: &Given<'_>,
    files: Vec<Change>,
    wrapped: bool,
    restart: bool,
    reload: bool,
    port: Option<&str>,
) -> Vec<Step> {
    let found = given.found;
    let systemctl = |verb: &str| Step::Systemctl(vec![verb.to_owned(), found.unit.clone()]);
    let running = found.state.is_running();
    let mut steps = Vec::new();
    if running && restart {
        steps.push(systemctl("stop"));
    }
    steps.extend(files.into_iter().map(Step::File));
    if given.plugin {
        steps.push(Step::Plugin);
    }
    if wrapped {
        if reload || found.state.reload_needed {
            steps.push(Step::Systemctl(vec!["daemon-reload".to_owned()]));
        }
        if running && restart {
            steps.push(systemctl("start"));
        }
        return steps;
    }
    steps.push(Step::Gateway(gateway_install(Some(given.tideover), port)));
    // The gateway's installer enables and starts the unit.
    if !running {
        steps.push(systemctl("stop"));
    }
    if found.state.file == "disabled" {
        steps.push(systemctl("disable"));
    }
    steps
}

/// `gateway install …`
pub(super) fn gateway_install(wrapper: Option<&str>, port: Option<&str>) -> Vec<String> {
    let mut words = vec!["gateway", "install", "--force"];
    words.extend(wrapper.iter().flat_map(|wrapper| ["--wrapper", wrapper]));
    words.extend(port.iter().flat_map(|port| ["--port", port]));
    words.into_iter().map(str::to_owned).collect()
}

/// Refuses what cannot be changed, or not for long.
pub fn may_change(found: &Found) -> Result<&Content, Refusal> {
    let path = found.unit_path();
    let sealed = |reason: &str, command: String| {
        Err(Refusal::Sealed { unit: found.unit.clone(), reason: reason.to_owned(), command })
    };
    match found.state.load.as_str() {
        "loaded" => {}
        "not-found" if found.fragment.is_none() => {
            return Err(Refusal::NoUnit { unit: found.unit.clone() });
        }
        "masked" => return sealed("is masked", format!("systemctl --user unmask {}", found.unit)),
        // Written a moment ago, and the manager was not told.
        "not-found" => return sealed("is not loaded", "systemctl --user daemon-reload".to_owned()),
        other => {
            let reason = format!("is not usable ({other})");
            return sealed(&reason, format!("systemd-analyze --user verify {}", path.display()));
        }
    }
    if found.state.fragment.as_ref() != Some(&path) {
        let at = found
            .state
            .fragment
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        return sealed(
            &format!("is defined in {at}, which is not the user's own"),
            "openclaw gateway install".to_owned(),
        );
    }
    let Some(fragment) = &found.fragment else {
        return Err(Refusal::NoUnit { unit: found.unit.clone() });
    };
    if fragment.mode & 0o022 != 0 {
        return sealed(
            "can be written by others, which the gateway refuses",
            format!("chmod go-w {}", path.display()),
        );
    }
    if !found.writable {
        let dir = found.dir.display();
        return sealed(
            &format!("cannot be changed: {dir} is read-only"),
            format!("chmod u+w {dir}"),
        );
    }
    foreign_drop_ins(found)?;
    Ok(fragment)
}

fn foreign_drop_ins(found: &Found) -> Result<(), Refusal> {
    const WANTED: [(&str, &str); 3] =
        [("Type", "notify"), ("KillMode", "mixed"), ("NotifyAccess", "main")];
    for (path, text) in &found.foreign {
        let unit = UnitFile::parse(text);
        let refuse = |key: &str| {
            Err(Refusal::DropIn {
                unit: found.unit.clone(),
                path: path.clone(),
                key: key.to_owned(),
            })
        };
        if unit.assigns("Service", "ExecStart") {
            return refuse("ExecStart");
        }
        // One that sorts before ours is overridden by it.
        let behind = path.file_name().is_some_and(|name| name > template::DROP_IN_NAME);
        for (key, wanted) in WANTED {
            if behind
                && unit.assigns("Service", key)
                && unit.values("Service", key).last() != Some(&wanted)
            {
                return refuse(key);
            }
        }
    }
    Ok(())
}

/// What the unit's own file starts.
pub(super) fn launcher_of(found: &Found, fragment: &Content) -> Result<Launcher, Refusal> {
    let refuse = |reason: String| Refusal::Command { unit: found.unit.clone(), reason };
    let unit = UnitFile::parse(&fragment.text);
    let lines = unit.values("Service", "ExecStart");
    let [line] = lines[..] else {
        return Err(refuse(format!("has {} commands", lines.len())));
    };
    let exec = words::command(line, &found.home)
        .map_err(|error| refuse(format!("cannot be taken over: {error}")))?;
    match launcher::of(&exec) {
        Launcher::Foreign => {
            Err(refuse("is not that of a gateway (`node … entry.js gateway …`)".to_owned()))
        }
        known @ (Launcher::Plain { .. } | Launcher::Wrapper { .. }) => Ok(known),
    }
}

/// Node, its options and the entry script: from the unit; behind a wrapper, from the configuration.
pub(super) fn command_of(given: &Given<'_>, launcher: &Launcher) -> Result<Vec<String>, Refusal> {
    let (program, ours) = match launcher {
        Launcher::Plain { command, .. } => return Ok(command.clone()),
        Launcher::Wrapper { program, .. } => (program.clone(), is_tideover(program)),
        Launcher::Foreign => (String::new(), false),
    };
    let configured = given.config.and_then(|content| settings_edit::command(&content.text));
    let recorded = given.record.filter(|_| ours).map(|record| record.command.clone());
    // The configuration is all units': where there are several, each one's own record tells better.
    let (first, then) =
        if given.found.others { (recorded, configured) } else { (configured, recorded) };
    first
        .filter(|command| entry_of(command).is_some())
        .or(then)
        .filter(|command| entry_of(command).is_some())
        .ok_or_else(|| Refusal::NoCommand {
            unit: given.found.unit.clone(),
            wrapper: program,
            config: given.config_path.clone(),
        })
}

/// The words from `gateway` on, and PATH. Behind our wrapper the unit has only the port; the rest of what the user
/// once wrote, and the PATH of before, are in our drop-in.
fn running_of(found: &Found, launcher: &Launcher) -> (Vec<String>, Option<String>) {
    let (words, ours) = match launcher {
        Launcher::Plain { words, .. } => (words.clone(), false),
        Launcher::Wrapper { program, words } => (words.clone(), is_tideover(program)),
        Launcher::Foreign => (vec!["gateway".to_owned()], false),
    };
    let drop_in = found.drop_in.as_ref().filter(|content| ours && template::is_ours(&content.text));
    let Some(drop_in) = drop_in.map(|content| UnitFile::parse(&content.text)) else {
        return (words, found.unit_environment().remove("PATH"));
    };
    let line = drop_in.values("Service", "ExecStart").last().copied().unwrap_or_default();
    let earlier = match words::command(line, &found.home).map(|exec| launcher::of(&exec)) {
        Ok(Launcher::Wrapper { words: earlier, .. }) if port_of(&earlier) == port_of(&words) => {
            earlier
        }
        Ok(_) | Err(_) => words,
    };
    (earlier, drop_in.environment(&found.home).remove("PATH"))
}

fn is_wrapped(found: &Found, launcher: &Launcher, tideover: &str) -> bool {
    let remembered =
        found.unit_environment().get(WRAPPER_VARIABLE).is_some_and(|path| path == tideover);
    let runs = matches!(launcher, Launcher::Wrapper { program, .. } if program == tideover);
    remembered && runs
}

fn config_change(
    given: &Given<'_>,
    command: &[String],
    notes: &mut Vec<String>,
) -> Result<Option<Change>, Refusal> {
    let before = given.config.map(|content| content.text.as_str());
    if given.found.others
        && before.and_then(settings_edit::command).is_some_and(|there| there != command)
    {
        notes.push(format!(
            "{} names another gateway command, which another unit under tideover uses; it is kept",
            given.config_path.display()
        ));
        return Ok(None);
    }
    let after = settings_edit::with_command(before, command).map_err(|error| Refusal::Sealed {
        unit: given.config_path.display().to_string(),
        reason: format!("cannot be edited: {error}"),
        command: format!("$EDITOR {}", given.config_path.display()),
    })?;
    let mode = given.config.map_or(PRIVATE_MODE, |content| content.mode);
    Ok((before != Some(after.as_str())).then(|| Change {
        path: given.config_path.clone(),
        before: given.config.cloned(),
        after: Some(Content { text: after, mode }),
    }))
}

/// A file of ours, where it is not as it is to be.
fn change(path: PathBuf, before: Option<&Content>, text: &str) -> Result<Option<Change>, Refusal> {
    match before {
        Some(content) if content.text == text => return Ok(None),
        Some(content) if !template::is_ours(&content.text) => {
            return Err(Refusal::NotOurs { path });
        }
        Some(_) | None => {}
    }
    let after = Some(Content { text: text.to_owned(), mode: PRIVATE_MODE });
    Ok(Some(Change { path, before: before.cloned(), after }))
}

/// The record: that of the first installation, as long as it is still the one in force. And the files whose state
/// after this change it is to hold: the unit only where nobody else has written it since the first time.
fn record_of(
    given: &Given<'_>,
    launcher: &Launcher,
    command: &[String],
    wrapped: bool,
) -> (Record, Vec<PathBuf>) {
    let found = given.found;
    let ours = matches!(launcher, Launcher::Wrapper { program, .. } if is_tideover(program));
    // A run that was cut short wrote its record before it changed anything.
    let unchanged = |record: &Record| {
        record.before.get(&found.unit_path()).and_then(Option::as_ref).map(|content| &content.text)
            == found.fragment.as_ref().map(|content| &content.text)
    };
    let unit_path = found.unit_path();
    let mut whole = true;
    let mut record = match given.record {
        Some(record) if record.unit == found.unit && (ours || unchanged(record)) => {
            whole = unchanged(record) || record.left_so(&unit_path, found.fragment.as_ref());
            record.clone()
        }
        Some(_) | None => {
            let mut record = Record::new(&found.unit, &found.state.file, command);
            record.before.insert(found.unit_path(), found.fragment.clone());
            record.before.insert(found.backup_path(), found.backup.clone());
            record
        }
    };
    if !record.before.contains_key(given.config_path) {
        let earlier =
            given.record.filter(|earlier| earlier.left_so(given.config_path, given.config));
        let earlier = earlier.and_then(|earlier| earlier.before.get(given.config_path).cloned());
        record
            .before
            .insert(given.config_path.clone(), earlier.unwrap_or_else(|| given.config.cloned()));
    }
    record.command = command.to_vec();
    let mut recorded = vec![given.config_path.clone()];
    if whole && !wrapped {
        recorded.extend([unit_path, found.backup_path()]);
    } else if !whole {
        record.after.remove(&unit_path);
    }
    (record, recorded)
}

fn unit_diff(fragment: &Content, tideover: &str, gateway_words: &[String]) -> String {
    let unit = UnitFile::parse(&fragment.text);
    let old = unit
        .values("Service", "ExecStart")
        .last()
        .and_then(|line| words::split(line).ok())
        .unwrap_or_default();
    let port = port_of(gateway_words).map(|port| format!(" --port {port}")).unwrap_or_default();
    let new = words::join(&[tideover.to_owned()]);
    let mut text = format!(
        "-ExecStart={}\n+ExecStart={new} gateway{port}\n",
        words::join(&launcher::shown(&old))
    );
    if let Some(wrapper) = unit.environment("").get(WRAPPER_VARIABLE) {
        text.push_str(&format!("-Environment={WRAPPER_VARIABLE}={wrapper}\n"));
    }
    text.push_str(&format!("+Environment={WRAPPER_VARIABLE}={tideover}\n"));
    text
}

/// The record once everything is in place.
pub(super) fn completed(mut record: Record, now: &[(PathBuf, Option<Content>)]) -> Record {
    for (path, content) in now {
        record.after.insert(path.clone(), fingerprint(content.as_ref()));
    }
    record
}
