//! What the fast tests of the gateway's file queue share: entries as 2026.5.5 writes them, and a look at every
//! place where one can be.

#![expect(dead_code, reason = "each test file uses its own part of this")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::fast::{Scratch, now_us, stand_in};

/// The queues' directories.
pub(crate) const SESSION: &str = "session-delivery-queue";
pub(crate) const DELIVERY: &str = "delivery-queue";
/// The places for entries of tideover's own.
const SHELVES: [&str; 4] = ["claimed", "kept", "settled", "dropped"];
/// A status that only the child can have given.
const OWN_STATUS: i32 = 43;

/// Keeps the expectation above true in a file that happens to use everything.
const fn unused() {}

/// Now, as the entries have it.
pub(crate) fn now_ms() -> i64 {
    i64::try_from(now_us() / 1_000).unwrap()
}

/// A reply that the channel has refused once.
pub(crate) fn message(id: &str) -> Value {
    json!({
        "id": id, "enqueuedAt": now_ms() - 60_000, "channel": "telegram", "to": "telegram:7",
        "accountId": "default", "payloads": [{ "text": format!("text of {id}") }], "bestEffort": false,
        "session": { "key": "agent:main:telegram:direct:7", "agentId": "main" }, "retryCount": 1,
        "lastAttemptAt": now_ms() - 1_000,
        "lastError": "Call to 'sendMessage' failed! (500: Internal Server Error)",
    })
}

/// A message that stands in the transcript of `session` under `key` once it is sent.
pub(crate) fn mirrored(id: &str, session: &str, key: &str) -> Value {
    let mut entry = message(id);
    entry["mirror"] =
        json!({ "sessionKey": session, "text": format!("text of {id}"), "idempotencyKey": key });
    entry
}

/// A turn that is to run in a session.
pub(crate) fn turn(id: &str, session: &str) -> Value {
    let route = json!({ "channel": "telegram", "to": "telegram:7", "accountId": "default" });
    json!({
        "id": id, "enqueuedAt": now_ms() - 60_000, "kind": "agentTurn", "sessionKey": session,
        "message": format!("message of {id}"), "messageId": format!("key-{id}"),
        "idempotencyKey": format!("key-{id}"), "route": route, "deliveryContext": route, "retryCount": 0,
    })
}

/// What tideover wrote into an entry that it had in hand.
pub(crate) fn marked(mut entry: Value, hand: &str, key: &str) -> Value {
    entry["tideover"] = json!({ "hand": hand, "key": key, "since": "2026-11-24T20:00:00.000Z" });
    entry
}

/// A gateway's queue.
pub(crate) fn queue(scratch: &Scratch, queue: &str) -> PathBuf {
    let dir = scratch.state().join(queue);
    std::fs::create_dir_all(dir.join("failed")).unwrap();
    dir
}

pub(crate) fn shelf(scratch: &Scratch, name: &str) -> PathBuf {
    let dir = scratch.state().join("tideover/queue").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

pub(crate) fn quarantine(scratch: &Scratch, queue: &str) -> PathBuf {
    scratch.state().join("tideover/queue/quarantine").join(queue)
}

fn write(file: &Path, entry: &Value) {
    std::fs::write(file, format!("{entry:#}")).unwrap();
}

fn queue_of(entry: &Value) -> (&'static str, &'static str) {
    if entry.get("kind").is_some() { (SESSION, "session~") } else { (DELIVERY, "delivery~") }
}

fn file_name(entry: &Value) -> String {
    format!("{}.json", entry["id"].as_str().unwrap())
}

/// Puts an entry into its queue.
pub(crate) fn put(scratch: &Scratch, entry: &Value) {
    write(&queue(scratch, queue_of(entry).0).join(file_name(entry)), entry);
}

/// Puts an entry to those that the gateway gave up.
pub(crate) fn put_failed(scratch: &Scratch, entry: &Value) {
    write(&queue(scratch, queue_of(entry).0).join("failed").join(file_name(entry)), entry);
}

/// Puts an entry on a shelf of tideover's.
pub(crate) fn put_on(scratch: &Scratch, name: &str, entry: &Value) {
    let file = format!("{}{}", queue_of(entry).1, file_name(entry));
    write(&shelf(scratch, name).join(file), entry);
}

/// A session with a transcript.
pub(crate) fn transcript(scratch: &Scratch, sessions: &[(&str, Vec<Value>)]) {
    let dir = scratch.state().join("agents/main/sessions");
    std::fs::create_dir_all(&dir).unwrap();
    let mut rows = serde_json::Map::new();
    for (number, (key, lines)) in sessions.iter().enumerate() {
        let file = dir.join(format!("s{number}.jsonl"));
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&file, text).unwrap();
        rows.insert(
            (*key).to_owned(),
            json!({ "sessionId": format!("s{number}"), "sessionFile": file }),
        );
    }
    std::fs::write(dir.join("sessions.json"), Value::Object(rows).to_string()).unwrap();
}

/// The lines of a turn that answered an entry of [`turn`].
pub(crate) fn answered(id: &str) -> Vec<Value> {
    let content =
        format!("Conversation info:\n```json\n{{\n  \"message_id\": \"key-{id}\"\n}}\n```");
    vec![
        json!({ "type": "message", "message": { "role": "user", "timestamp": now_ms(),
            "content": [{ "type": "text", "text": format!("[Tue] message of {id}") }] } }),
        json!({ "type": "custom_message", "customType": "openclaw.runtime-context", "content": content }),
        json!({ "type": "message", "message": { "role": "assistant", "stopReason": "stop",
            "provider": "mock", "model": "m", "content": [{ "type": "text", "text": "Done." }] } }),
    ]
}

/// The line of a message that was sent under a key.
pub(crate) fn receipt(key: &str) -> Value {
    json!({ "type": "message", "message": { "role": "assistant", "provider": "openclaw",
        "model": "delivery-mirror", "stopReason": "stop", "idempotencyKey": key,
        "content": [{ "type": "text", "text": "t" }] } })
}

/// Every file in every place of the queue, by its path below the state directory: what it is and what is in it.
/// Nothing is followed. Directories count where they are named like an entry.
pub(crate) fn everything(scratch: &Scratch) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs: Vec<PathBuf> =
        [SESSION, DELIVERY, "tideover/queue"].map(|part| scratch.state().join(part)).to_vec();
    while let Some(dir) = dirs.pop() {
        for file in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, kind) = (file.path(), file.file_type().unwrap());
            let what = if kind.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                [b"link:", target.as_os_str().as_encoded_bytes()].concat()
            } else if kind.is_file() {
                std::fs::read(&path).unwrap_or_default()
            } else if kind.is_fifo() {
                b"pipe".to_vec()
            } else if path.extension().is_some_and(|extension| extension == "json") {
                b"directory".to_vec()
            } else {
                dirs.push(path);
                continue;
            };
            found.insert(path.strip_prefix(scratch.state()).unwrap().to_owned(), what);
        }
    }
    found
}

/// The places of every entry by its id; each file must be whole.
pub(crate) fn places(scratch: &Scratch) -> BTreeMap<String, Vec<(String, Value)>> {
    let mut places: BTreeMap<String, Vec<(String, Value)>> = BTreeMap::new();
    for (path, bytes) in everything(scratch) {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let place = path.parent().unwrap().to_string_lossy().into_owned();
        let entry: Value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|error| panic!("{} is not whole: {error}", path.display()));
        let id = entry["id"].as_str().unwrap().to_owned();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let word = SHELVES.iter().any(|shelf| place.ends_with(shelf)).then(|| queue_of(&entry).1);
        assert_eq!(name, format!("{}{id}.json", word.unwrap_or_default()), "{}", path.display());
        places.entry(id).or_default().push((place, entry));
    }
    places
}

/// Where an entry is: in exactly one place.
pub(crate) fn place(scratch: &Scratch, id: &str) -> (String, Value) {
    let mut places = places(scratch).remove(id).unwrap_or_else(|| panic!("{id} is lost"));
    assert_eq!(places.len(), 1, "{id} is in {places:?}");
    places.remove(0)
}

/// The ids of a place.
pub(crate) fn ids_in(scratch: &Scratch, place: &str) -> BTreeSet<String> {
    places(scratch)
        .into_iter()
        .filter(|(_, found)| found.iter().any(|(where_, _)| where_.ends_with(place)))
        .map(|(id, _)| id)
        .collect()
}

/// Leftovers of a write that was cut off.
pub(crate) fn temps(scratch: &Scratch) -> Vec<PathBuf> {
    let is_temp = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "tmp");
    everything(scratch).into_keys().filter(is_temp).collect()
}

/// A gateway that ends at once: what is left is what the pass before the start made of the queue.
pub(crate) fn one_start(scratch: &Scratch) -> Command {
    scratch.run(&["sh", "-c", &format!("exit {OWN_STATUS}"), "gateway"])
}

/// Starts such a gateway; returns the log.
pub(crate) fn start_once(scratch: &Scratch) -> String {
    let output = one_start(scratch).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(OWN_STATUS), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// The stand-in, called a gateway.
pub(crate) fn run_gateway(scratch: &Scratch) -> Command {
    let mut words = stand_in::words();
    words.push("gateway".into());
    scratch.run(&words)
}

/// A verb that must end with a code; what it printed.
pub(crate) fn verb(scratch: &Scratch, words: &[&str], code: i32) -> String {
    let output = scratch.verb(words);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let short: String = format!("{words:?}: {error}").chars().take(600).collect();
    assert_eq!(output.status.code(), Some(code), "{short}");
    assert!(!error.contains("panicked"), "{short}");
    assert!(code == 0 || error.starts_with("tideover: "), "{short}");
    assert!(error.len() < 1_500, "{} bytes: {short}", error.len());
    String::from_utf8(output.stdout).unwrap() + &error
}

/// The same with `--json`.
pub(crate) fn asked(scratch: &Scratch, words: &[&str]) -> Value {
    let text = verb(scratch, &[&["--json"], words].concat(), 0);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}: {text}"))
}
