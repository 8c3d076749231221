//! What a removal has to do, as a pure function of what is there.

use std::path::{Path, PathBuf};

use super::files::{Change, Content};
use super::launcher::{Launcher, is_tideover, port_of};
use super::plan::{Given, Plan, Step, WRAPPER_VARIABLE, command_of, gateway_install, launcher_of};
use super::refusal::Refusal;
use super::settings_edit;
use super::template;
use super::unit_file;
use super::words;

/// Plans a removal; `None` where neither a unit of ours nor a record is there.
pub fn uninstall(given: Given<'_>) -> Result<Option<Plan>, Refusal> {
    let found = given.found;
    let launcher = found.fragment.as_ref().and_then(|fragment| launcher_of(found, fragment).ok());
    let ours = matches!(&launcher, Some(Launcher::Wrapper { program, .. }) if is_tideover(program));
    let has_drop_in =
        found.drop_in.as_ref().is_some_and(|content| template::is_ours(&content.text));
    if given.record.is_none() && !ours && !has_drop_in {
        return Ok(None);
    }
    let command =
        command_of(&given, launcher.as_ref().unwrap_or(&Launcher::Foreign)).unwrap_or_default();
    let mut notes = Vec::new();
    let (mut files, regenerate) = unit_back(&given, launcher.as_ref(), ours, &command, &mut notes)?;
    files.extend(config_back(&given));
    files.extend(removed(found.drop_in_path(), found.drop_in.as_ref()));
    if !found.others {
        files.extend(removed(found.report_path(), found.report.as_ref()));
    }
    let port = launcher.as_ref().and_then(|launcher| match launcher {
        Launcher::Plain { words, .. } | Launcher::Wrapper { words, .. } => port_of(words),
        Launcher::Foreign => None,
    });
    let steps = uninstall_steps(&given, files, regenerate.then(|| gateway_install(None, port)));
    Ok(Some(Plan {
        unit: found.unit.clone(),
        steps,
        command,
        unit_diff: String::new(),
        notes,
        record: given.record.cloned(),
        record_path: given.record_path.clone(),
        recorded: Vec::new(),
        removal: true,
    }))
}

fn uninstall_steps(
    given: &Given<'_>,
    files: Vec<Change>,
    gateway: Option<Vec<String>>,
) -> Vec<Step> {
    let found = given.found;
    let systemctl = |verb: &str| Step::Systemctl(vec![verb.to_owned(), found.unit.clone()]);
    let running = found.state.is_running();
    let disable = given.record.is_some_and(|record| record.enabled == "disabled")
        && found.state.file == "enabled";
    let mut steps = Vec::new();
    if running && (!files.is_empty() || given.plugin) {
        steps.push(systemctl("stop"));
    }
    let restart = !steps.is_empty();
    let reload = !files.is_empty() || found.state.reload_needed;
    // The plugin first: the gateway's configuration never names one that is not there.
    if given.plugin {
        steps.push(Step::Plugin);
    }
    steps.extend(files.into_iter().map(Step::File));
    if reload {
        steps.push(Step::Systemctl(vec!["daemon-reload".to_owned()]));
    }
    match gateway {
        Some(words) => {
            steps.push(Step::Gateway(words));
            if !running {
                steps.push(systemctl("stop"));
            }
        }
        None if restart => steps.push(systemctl("start")),
        None => {}
    }
    if disable {
        steps.push(systemctl("disable"));
    }
    steps
}

/// The unit as it was; and whether the gateway is to write it anew, because it has done so since.
fn unit_back(
    given: &Given<'_>,
    launcher: Option<&Launcher>,
    ours: bool,
    command: &[String],
    notes: &mut Vec<String>,
) -> Result<(Vec<Change>, bool), Refusal> {
    let found = given.found;
    let (path, now) = (found.unit_path(), found.fragment.as_ref());
    let mut files = Vec::new();
    if let Some(record) = given.record
        && record.left_so(&path, now)
        && let Some(before) = record.before.get(&path)
    {
        files.extend(back(&path, now, before.as_ref()));
        let backup = found.backup_path();
        // The gateway makes a new copy at every refresh; one of our unit is of no use any more.
        let ours =
            |copy: &Content| copy.text.contains(&format!("{WRAPPER_VARIABLE}={}", given.tideover));
        if let Some(before) = record.before.get(&backup)
            && (record.left_so(&backup, found.backup.as_ref())
                || found.backup.as_ref().is_some_and(ours))
        {
            files.extend(back(&backup, found.backup.as_ref(), before.as_ref()));
        }
        return Ok((files, false));
    }
    let (Some(now), true) = (now, ours) else {
        notes.push(format!("{} does not run tideover any more and is left as it is", found.unit));
        return Ok((files, false));
    };
    let Some(Launcher::Wrapper { words, .. }) = launcher else {
        return Ok((files, false));
    };
    if command.is_empty() {
        return Err(Refusal::NoCommand {
            unit: found.unit.clone(),
            wrapper: given.tideover.to_owned(),
            config: given.config_path.clone(),
        });
    }
    notes.push(format!(
        "{} was written anew since the installation (an update does that): tideover is taken out of it and the \
         gateway's own installer brings it up to date; its bytes are not those of before",
        found.unit
    ));
    let exec = words::join(&[command, words].concat());
    let text = unit_file::with_command(&now.text, &exec, WRAPPER_VARIABLE);
    let after = Content { text, mode: now.mode };
    files.extend(back(&path, Some(now), Some(&after)));
    Ok((files, true))
}

fn config_back(given: &Given<'_>) -> Option<Change> {
    let record = given.record.filter(|_| !given.found.others)?;
    let before = record.before.get(given.config_path)?;
    if record.left_so(given.config_path, given.config) {
        return back(given.config_path, given.config, before.as_ref());
    }
    // Edited since: only our key goes.
    let now = given.config?;
    let earlier = before.as_ref().and_then(|content| settings_edit::command(&content.text));
    if settings_edit::command(&now.text).as_ref() != Some(&record.command) {
        return None;
    }
    let text = match earlier {
        Some(earlier) => settings_edit::with_command(Some(&now.text), &earlier).ok()?,
        None => settings_edit::without_command(&now.text)?,
    };
    back(given.config_path, Some(now), Some(&Content { text, mode: now.mode }))
}

fn back(path: &Path, now: Option<&Content>, before: Option<&Content>) -> Option<Change> {
    (now != before).then(|| Change {
        path: path.to_owned(),
        before: now.cloned(),
        after: before.cloned(),
    })
}

fn removed(path: PathBuf, now: Option<&Content>) -> Option<Change> {
    let now = now.filter(|content| template::is_ours(&content.text))?;
    Some(Change { path, before: Some(now.clone()), after: None })
}
