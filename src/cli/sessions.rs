//! `tideover sessions`: the checkpoints, from the running supervisor or from disk.

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::control::client::ClientError;
use crate::core::checkpoint::{Checkpoint, HoldStatus, Interruption, ReleasedBy, State};
use crate::core::notice::{cause_text, outcome_text, tool_call_text};
use crate::core::reducer;
use crate::core::session_kind::{kind_of, record_key};
use crate::gateway::left_transcript::Left;
use crate::store::checkpoints::scan;
use crate::store::records::to_bytes;
use crate::store::{Directory, Place};
use crate::supervise::{Liveness, liveness};

use super::args::{Global, Sessions, SessionsVerb};
use super::context::{Context, now};
use super::exit_code;
use super::output::{Failure, from_client, plain, print_json, print_line, quoted};

pub(super) fn run(global: &Global, sessions: &Sessions) -> Result<(), Failure> {
    let context = Context::of(global)?;
    match sessions.verb.as_ref().unwrap_or(&SessionsVerb::List) {
        SessionsVerb::List => list(global, &context),
        SessionsVerb::Show { key } => show(global, &context, record_key(key)),
        SessionsVerb::Release { key } => change(global, &context, record_key(key), Change::Release),
        SessionsVerb::Forget { key } => change(global, &context, record_key(key), Change::Forget),
    }
}

#[derive(Clone, Copy)]
enum Change {
    Release,
    Forget,
}

/// The records, and whether they come from a running supervisor.
fn records(context: &Context) -> Result<Vec<Checkpoint>, Failure> {
    match context.ask(&json!({ "type": "sessions" })) {
        Ok(answer) => Ok(serde_json::from_value(answer["sessions"].clone())?),
        Err(ClientError::NotRunning { .. }) => {
            match Directory::open(&context.layout.directory(Place::Checkpoints)) {
                Ok(directory) => {
                    let scan = scan(&directory, None)?;
                    for finding in &scan.findings {
                        eprintln!("tideover: {}: {}", finding.path.display(), finding.what);
                    }
                    Ok(scan.records)
                }
                Err(_) => Ok(Vec::new()),
            }
        }
        Err(error) => Err(from_client(error)),
    }
}

fn list(global: &Global, context: &Context) -> Result<(), Failure> {
    let mut records = records(context)?;
    records.sort_by(|a, b| {
        b.updated_at.cmp(&a.updated_at).then_with(|| a.session_key.cmp(&b.session_key))
    });
    if global.json {
        let sessions = records.iter().map(with_kind).collect::<Result<Vec<_>, _>>()?;
        print_json(&json!({ "schema": "tideover.sessions/1", "sessions": sessions }));
        return Ok(());
    }
    if records.is_empty() {
        print_line(
            "no checkpoints yet: they are written when a session's turn starts under tideover",
        );
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "SESSION",
        "KIND",
        "STATE",
        "LAST ACTION",
        "OUTCOME",
        "INTERRUPTED",
        "UPDATED",
    ]);
    for record in &records {
        let call = record.last_tool_call.as_ref();
        table.add_row([
            plain(&record.session_key, 60),
            kind_of(&record.session_key).name().to_owned(),
            word(&record.state),
            call.map_or("-".to_owned(), |call| plain(&call.name, 30)),
            call.map_or("-".to_owned(), |call| word(&call.outcome)),
            interrupted(record),
            record.updated_at.to_string(),
        ]);
    }
    print_line(&table.to_string());
    Ok(())
}

/// A record as the file has it, and what its key says of who is behind it.
fn with_kind(record: &Checkpoint) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(record)?;
    value["kind"] = json!(kind_of(&record.session_key).name());
    Ok(value)
}

/// How an interruption stands, in the table.
fn interrupted(record: &Checkpoint) -> String {
    let Some(cut) = &record.interruption else { return "-".to_owned() };
    if let Some(settled) = &cut.settled {
        return format!("settled: {}", word(&settled.how));
    }
    match &cut.resume {
        _ if record.state == State::Ended => word(&cut.status),
        Some(_) if record.resume_under_way() => {
            format!("{}, resume under way", word(&cut.status))
        }
        Some(_) | None => format!("{}, resume", word(&cut.status)),
    }
}

fn show(global: &Global, context: &Context, key: &str) -> Result<(), Failure> {
    let record = records(context)?
        .into_iter()
        .find(|record| record.session_key == key)
        .ok_or_else(|| not_found(key))?;
    if global.json {
        print_json(&json!({ "schema": "tideover.session/1", "session": record }));
    } else {
        print_line(&timeline(&record));
        if let Some(line) = left_transcript(context, &record) {
            print_line(&line);
        }
    }
    Ok(())
}

fn timeline(record: &Checkpoint) -> String {
    let mut lines = vec![
        format!("session  {}", plain(&record.session_key, 200)),
        format!("kind     {}", kind_of(&record.session_key).name()),
        format!("state    {} (record {}, {})", word(&record.state), record.seq, record.updated_at),
        format!(
            "task     {}",
            record.task.as_deref().map_or("-".to_owned(), |task| plain(task, 400))
        ),
        format!("next     {}", plain(&record.next_expected_action, 200)),
    ];
    if let Some(route) = &record.route {
        lines.push(format!("route    {} {}", plain(&route.channel, 40), plain(&route.to, 80)));
    }
    if let Some(turn) = &record.turn {
        lines.push(format!("{}  turn started ({})", turn.started_at, word(&turn.origin)));
    }
    for call in record.open_calls.iter().chain(&record.last_tool_call) {
        lines.push(format!("{}  {}", call.started_at, plain(&tool_call_text(Some(call)), 500)));
        if let Some(at) = call.finished_at {
            lines.push(format!("{at}  answered: {}", word(&call.outcome)));
        }
        if let Some(pid) = call.background.as_ref().and_then(|background| background.pid) {
            let ticks = call.background.as_ref().and_then(|background| background.start_ticks);
            let alive =
                if liveness(pid, ticks) == Liveness::Alive { "still runs" } else { "is gone" };
            lines.push(format!("{}  its command (pid {pid}) {alive}", " ".repeat(24)));
        }
    }
    if let Some(cut) = &record.interruption {
        lines.push(format!("{}  interrupted: {}", cut.at, cause_text(cut)));
        lines.extend(
            cut.detail.as_ref().map(|detail| format!("{}  {}", " ".repeat(24), plain(detail, 300))),
        );
        lines.push(format!(
            "{}  last action: {}",
            " ".repeat(24),
            plain(&tool_call_text(cut.call.as_ref()), 500)
        ));
        lines.push(format!("{}  outcome: {}", " ".repeat(24), outcome_text(cut.call.as_ref())));
        lines.push(format!(
            "{}  notice: {}, model told: {}",
            " ".repeat(24),
            word(&cut.notice),
            cut.model_told
        ));
        if let Some(orphaned) = &cut.orphaned {
            lines.push(format!(
                "{}  orphaned: session {} was replaced by {}; /resume carries the task over",
                orphaned.at,
                plain(&orphaned.session_id, 100),
                plain(&orphaned.new_session_id, 100)
            ));
        }
        match (cut.status, cut.released_at) {
            (HoldStatus::Held, _) => lines.push(format!(
                "{}  held{}; to lift it here: tideover sessions release '{}'",
                " ".repeat(24),
                if record.unattended().is_some() { "" } else { " until the user speaks" },
                plain(&record.session_key, 200)
            )),
            (HoldStatus::Released, Some(at)) => lines.push(format!(
                "{at}  released by {}",
                cut.released_by.as_ref().map_or("-".to_owned(), word)
            )),
            (HoldStatus::Released, None) | (HoldStatus::Expired, _) => {
                lines.push(format!("{}  {}", " ".repeat(24), word(&cut.status)));
            }
        }
        lines.extend(dealt_with(record, cut));
    }
    lines.join("\n")
}

/// What the gateway's own recovery and a person's `/resume` made of an interruption.
fn dealt_with(record: &Checkpoint, cut: &Interruption) -> Vec<String> {
    let blank = " ".repeat(24);
    let mut lines = Vec::new();
    if let Some(native) = &cut.native {
        lines.push(format!("{blank}  the gateway's own recovery: {}", word(native)));
    }
    if let Some(resume) = &cut.resume {
        let (kind, from) = (word(&resume.kind), word(&resume.from));
        lines.push(format!("{}  resume: {kind}, confirmed ({from})", resume.granted_at));
        lines.extend(resume.spent_at.map(|at| format!("{at}  resume: its call was let through")));
        lines.push(format!("{blank}  resume: {}", word(&resume.stage)));
    }
    match &cut.settled {
        Some(settled) => lines.push(format!("{}  settled: {}", settled.at, word(&settled.how))),
        None if record.state == State::Ended => {}
        None => lines.push(format!(
            "{blank}  to resume it: tideover resume {}",
            quoted(&record.session_key)
        )),
    }
    lines
}

/// Where the transcript of a replaced session still lies.
fn left_transcript(context: &Context, record: &Checkpoint) -> Option<String> {
    let path = Left::by(record)?.find(context.layout.state_dir())?;
    Some(format!("{}  its transcript: {}", " ".repeat(24), path.display()))
}

fn change(global: &Global, context: &Context, key: &str, change: Change) -> Result<(), Failure> {
    let (kind, done) = match change {
        Change::Release => ("release", "released"),
        Change::Forget => ("forget", "forgotten"),
    };
    let changed = match context.ask(&json!({ "type": kind, "key": key })) {
        Ok(answer) => answer[done] == true,
        Err(ClientError::NotRunning { .. }) => change_on_disk(context, key, change)?,
        Err(error) => return Err(from_client(error)),
    };
    if global.json {
        print_json(
            &json!({ "schema": format!("tideover.{kind}/1"), "session_key": key, done: changed }),
        );
    } else if changed {
        print_line(&format!("{done}: {}", plain(key, 200)));
    } else {
        print_line(&format!("not held: {}", plain(key, 200)));
    }
    Ok(())
}

/// Without a supervisor the file is changed here, under its lease, so that none starts meanwhile.
fn change_on_disk(context: &Context, key: &str, change: Change) -> Result<bool, Failure> {
    let _lease = context.lease()?;
    let (directory, name, mut record) = on_disk(context, key)?;
    match change {
        Change::Forget => {
            directory.remove(&name)?;
            Ok(true)
        }
        Change::Release => {
            let released = reducer::release(&mut record, now(), ReleasedBy::Shell);
            if released {
                directory.replace_one(&name, &to_bytes(&record))?;
            }
            Ok(released)
        }
    }
}

/// A session's record as the disk has it, with the place of its file.
pub(super) fn on_disk(
    context: &Context,
    key: &str,
) -> Result<(Directory, String, Checkpoint), Failure> {
    let directory = Directory::open(&context.layout.directory(Place::Checkpoints))
        .map_err(|_| not_found(key))?;
    let mut scan = scan(&directory, None)?;
    let record = scan
        .records
        .into_iter()
        .find(|record| record.session_key == key)
        .ok_or_else(|| not_found(key))?;
    Ok((directory, scan.names.of(key), record))
}

pub(super) fn not_found(key: &str) -> Failure {
    Failure::text(
        exit_code::NOT_FOUND,
        format!("no session {:?}; `tideover sessions list` prints the keys", plain(key, 200)),
    )
}

/// A value's own word, as the file has it.
fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word.replace('_', " "),
        Ok(_) | Err(_) => "?".to_owned(),
    }
}
