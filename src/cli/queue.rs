//! `tideover queue` and `tideover outbox`: what waits to be delivered, the gateway's and our own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::control::client::ClientError;
use crate::control::protocol::{ErrorCode, NativeEntry};
use crate::core::checkpoint::Checkpoint;
use crate::core::limits::{IDENTIFIER_BYTES_MAX, SESSION_KEY_BYTES_MAX};
use crate::gateway::queue_files::kept_in_files;
use crate::store::checkpoints::scan;
use crate::store::records::{read_outbox, to_bytes};
use crate::store::{Directory, Place};
use crate::supervise::queue::{
    ChangeError, Surroundings, begins, drop_entry, list_offline, retry_entry,
};

use super::args::{Global, Outbox, OutboxVerb, QueueCommand, QueueVerb};
use super::context::{Context, environment, now};
use super::exit_code;
use super::output::{Failure, from_client, plain, print_json, print_line};
use super::wrapper::load;

/// Largest answer that is taken of the look into a newer gateway's queue, in bytes.
const LOOK_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) fn run(global: &Global, queue: &QueueCommand) -> Result<(), Failure> {
    let context = Context::of(global)?;
    match queue.verb.as_ref().unwrap_or(&QueueVerb::List) {
        QueueVerb::List => {
            let listing = listing(&context, None)?;
            if global.json {
                print_json(&listing)
            } else {
                print_line(&table(&listing))
            }
            Ok(())
        }
        QueueVerb::Show { id } | QueueVerb::Retry { id } | QueueVerb::Drop { id }
            if id.len() > IDENTIFIER_BYTES_MAX =>
        {
            Err(not_found(id))
        }
        QueueVerb::Show { id } => show(global, &listing(&context, Some(id))?, id),
        QueueVerb::Retry { id } => change(global, &context, id, "queue_retry"),
        QueueVerb::Drop { id } => change(global, &context, id, "queue_drop"),
    }
}

/// The list, or what of it has an id that begins like `only`.
fn listing(context: &Context, only: Option<&str>) -> Result<Value, Failure> {
    match context.ask(&json!({ "type": "queue", "entry": only })) {
        Ok(answer) => Ok(answer),
        Err(ClientError::NotRunning { .. }) => Ok(offline(context, only)?),
        Err(error) => Err(from_client(error)),
    }
}

/// The list as the disk tells it.
fn offline(context: &Context, only: Option<&str>) -> Result<Value, Failure> {
    let layout = &context.layout;
    let records = Directory::open(&layout.directory(Place::Checkpoints))
        .ok()
        .and_then(|directory| scan(&directory, None).ok())
        .map(|scan| scan.records)
        .unwrap_or_default();
    let outbox = Directory::open(&layout.directory(Place::Outbox))
        .map(|directory| read_outbox(&directory).0)
        .unwrap_or_default();
    let settings = load(&environment()).settings;
    let around = Surroundings {
        now: now(),
        gateway_since: None,
        retries: settings.queue.retry,
        held: keys_of(&records, Checkpoint::is_held),
        busy: std::collections::BTreeSet::new(),
        outbox: outbox.into_iter().map(|entry| (entry.key.clone(), entry)).collect(),
        native: if kept_in_files(layout.state_dir()) {
            None
        } else {
            look(context, settings.gateway.command.as_deref())
        },
        given_up: Vec::new(),
        only: only.map(str::to_owned),
    };
    let listing = list_offline(layout, around);
    let mut document = serde_json::to_value(&listing)?;
    document["schema"] = json!("tideover.queue/1");
    document["running"] = json!(false);
    Ok(document)
}

fn keys_of(
    records: &[Checkpoint],
    wanted: impl Fn(&Checkpoint) -> bool,
) -> std::collections::BTreeSet<String> {
    let wanted = records.iter().filter(|record| wanted(record));
    wanted.map(|record| record.session_key.clone()).collect()
}

/// A look into a newer gateway's queue, with the gateway's own Node and the plugin's own script: read-only.
fn look(context: &Context, command: Option<&[String]>) -> Option<Vec<NativeEntry>> {
    let script = context.paths.tideover_dir().join("plugin").join("native-queue.js");
    let node = command.and_then(|words| words.first()).map_or("node".into(), PathBuf::from);
    let output = Command::new(node)
        .arg(script)
        .arg(context.layout.state_dir())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.stdout.len() <= LOOK_BYTES_MAX)?;
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    serde_json::from_value(answer["entries"].clone()).ok()
}

fn table(listing: &Value) -> String {
    let entries = listing["entries"].as_array().cloned().unwrap_or_default();
    let findings = listing["findings"].as_array().cloned().unwrap_or_default();
    let mut lines = Vec::new();
    if entries.is_empty() {
        lines.push("nothing waits in the gateway's queue".to_owned());
    } else {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "ID",
            "QUEUE",
            "PLACE",
            "SESSION",
            "QUEUED",
            "TRIES",
            "LAST ERROR",
            "NEXT",
        ]);
        for entry in &entries {
            let text = |name: &str, chars| plain(entry[name].as_str().unwrap_or("-"), chars);
            table.add_row([
                text("id", 12).trim_end_matches('…').to_owned(),
                text("queue", 24),
                text("place", 12),
                text("session_key", 50),
                text("enqueued_at", 24),
                entry["tries"].to_string(),
                text("last_error", 60),
                format!(
                    "{}{}",
                    text("plan", 90),
                    if entry["stuck"] == true { " (stuck)" } else { "" }
                ),
            ]);
        }
        lines.push(table.to_string());
    }
    if let Some(more) = listing["more"].as_u64().filter(|more| *more > 0) {
        lines.push(format!("and {more} more"));
    }
    for finding in &findings {
        let aside = if finding["quarantined"] == true { "set aside" } else { "no entry" };
        lines.push(format!(
            "{aside}: {} in the {} queue: {}",
            plain(finding["name"].as_str().unwrap_or_default(), 120),
            plain(finding["queue"].as_str().unwrap_or_default(), 20),
            plain(finding["what"].as_str().unwrap_or_default(), 200),
        ));
    }
    lines.join("\n")
}

fn show(global: &Global, listing: &Value, id: &str) -> Result<(), Failure> {
    let named = |is: &dyn Fn(&str) -> bool| -> Vec<&Value> {
        let entries = listing["entries"].as_array().into_iter().flatten();
        entries.filter(|entry| entry["id"].as_str().is_some_and(is)).collect()
    };
    // A whole id counts before a beginning; of two places of one entry the first counts.
    let mut found = named(&|own| own == id);
    if found.is_empty() {
        found = named(&|own| begins(own, id));
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|entry| seen.insert((entry["id"].as_str(), entry["queue"].as_str())));
    match found.as_slice() {
        [] => Err(not_found(id)),
        [entry] => {
            if global.json {
                print_json(&json!({ "schema": "tideover.queue-entry/1", "entry": entry }));
            } else {
                for (name, value) in entry.as_object().into_iter().flatten() {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    print_line(&format!("{name:<16} {}", plain(&text, 400)));
                }
            }
            Ok(())
        }
        several => Err(Failure::text(
            exit_code::USAGE,
            format!(
                "{} queued entries begin with {:?}; give more of the id",
                several.len(),
                plain(id, 120)
            ),
        )),
    }
}

fn not_found(id: &str) -> Failure {
    Failure::text(
        exit_code::NOT_FOUND,
        format!("no queued entry {:?}; `tideover queue list` prints the ids", plain(id, 120)),
    )
}

fn change(global: &Global, context: &Context, id: &str, kind: &str) -> Result<(), Failure> {
    let changed = match context.ask(&json!({ "type": kind, "entry": id })) {
        Ok(answer) => answer,
        Err(ClientError::NotRunning { .. }) if !context.layout.state_dir().exists() => {
            return Err(not_found(id));
        }
        Err(ClientError::NotRunning { .. }) => {
            let _lease = context.lease()?;
            let changed = if kind == "queue_drop" {
                drop_entry(&context.layout, id)
            } else {
                retry_entry(&context.layout, id, now())
            };
            serde_json::to_value(changed.map_err(|error| refusal(&error))?)?
        }
        Err(ClientError::Answer { code: Some(ErrorCode::NotFound), message }) => {
            return Err(Failure::text(exit_code::NOT_FOUND, message));
        }
        // The beginning of several ids.
        Err(ClientError::Answer { code: Some(ErrorCode::BadField), message }) => {
            return Err(Failure::text(exit_code::USAGE, message));
        }
        Err(error) => return Err(from_client(error)),
    };
    if global.json {
        let mut document = changed.clone();
        document["schema"] = json!(format!("tideover.{}/1", kind.replace('_', "-")));
        print_json(&document);
    } else {
        let done = if kind == "queue_drop" { "dropped" } else { "due now" };
        print_line(&format!("{done}: {}", plain(changed["id"].as_str().unwrap_or(id), 120)));
    }
    Ok(())
}

fn refusal(error: &ChangeError) -> Failure {
    let code = match error {
        ChangeError::NotFound { .. } => exit_code::NOT_FOUND,
        ChangeError::Ambiguous { .. } => exit_code::USAGE,
        ChangeError::Refused(_) => exit_code::REFUSED,
        ChangeError::Store(_) => exit_code::FAILED,
    };
    Failure::text(code, error.to_string())
}

pub(super) fn outbox(global: &Global, outbox: &Outbox) -> Result<(), Failure> {
    let context = Context::of(global)?;
    match outbox.verb.as_ref().unwrap_or(&OutboxVerb::List) {
        OutboxVerb::List => list_notices(global, &context),
        OutboxVerb::Retry { key } => retry_notices(global, &context, key.as_deref()),
    }
}

fn list_notices(global: &Global, context: &Context) -> Result<(), Failure> {
    let notices = match context.ask(&json!({ "type": "status" })) {
        Ok(status) => status["outbox"].clone(),
        Err(ClientError::NotRunning { .. }) => {
            crate::supervise::offline_status(&context.layout)["outbox"].clone()
        }
        Err(error) => return Err(from_client(error)),
    };
    if global.json {
        print_json(&json!({ "schema": "tideover.outbox-list/1", "notices": notices }));
        return Ok(());
    }
    let notices = notices.as_array().cloned().unwrap_or_default();
    if notices.is_empty() {
        print_line("no notices: they are made when a restart has cut a session's work");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NOTICE", "STATE", "CHANNEL", "TRIES", "MADE", "NEXT TRY", "LAST ERROR"]);
    for notice in &notices {
        let text = |name: &str, chars| plain(notice[name].as_str().unwrap_or("-"), chars);
        table.add_row([
            text("key", 50),
            text("state", 12),
            text("channel", 20),
            notice["tries"].to_string(),
            text("created_at", 24),
            text("next_try_at", 24),
            text("last_error", 80),
        ]);
    }
    print_line(&table.to_string());
    Ok(())
}

fn retry_notices(global: &Global, context: &Context, key: Option<&str>) -> Result<(), Failure> {
    let no_notice = |key: &str| {
        let why = "no failed notice";
        let next = "`tideover outbox list` prints them";
        Failure::text(exit_code::NOT_FOUND, format!("{why} {:?}; {next}", plain(key, 120)))
    };
    if let Some(key) = key.filter(|key| key.len() > SESSION_KEY_BYTES_MAX) {
        return Err(no_notice(key));
    }
    let retried = match context.ask(&json!({ "type": "outbox_retry", "key": key })) {
        Ok(answer) => answer["retried"].clone(),
        Err(ClientError::NotRunning { .. }) => json!(retry_on_disk(context, key)?),
        Err(error) => return Err(from_client(error)),
    };
    let count = retried.as_array().map_or(0, Vec::len);
    if let Some(key) = key.filter(|_| count == 0) {
        return Err(no_notice(key));
    }
    if global.json {
        print_json(&json!({ "schema": "tideover.outbox-retry/1", "retried": retried }));
    } else {
        print_line(&format!("{count} failed notice(s) are tried again"));
    }
    Ok(())
}

fn retry_on_disk(context: &Context, key: Option<&str>) -> Result<Vec<String>, Failure> {
    let Ok(directory) = Directory::open(&context.layout.directory(Place::Outbox)) else {
        return Ok(Vec::new());
    };
    let _lease = context.lease()?;
    let mut retried = Vec::new();
    for mut entry in read_outbox(&directory).0 {
        if key.is_none_or(|key| entry.key == key) && entry.ask_again(now()) {
            directory.replace_one(&format!("{}.json", entry.key), &to_bytes(&entry))?;
            retried.push(entry.key);
        }
    }
    Ok(retried)
}
