//! What the tests of the gateway's own queue share: entries as 2026.5.5 writes them, and a look at the disk.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tideover::core::canonical::sha256_hex;
use tideover::drill::rig::Rig;

use super::Outcome;

/// The queues of a gateway that keeps them as files.
pub(crate) const SESSION: &str = "session-delivery-queue";
pub(crate) const DELIVERY: &str = "delivery-queue";

/// Now, as the entries have it.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn route(chat: i64) -> Value {
    json!({"channel": "telegram", "to": format!("telegram:{chat}"), "accountId": "default"})
}

/// A continuation as the gateway's restart leaves it: a turn that is to run in a chat's session.
pub(crate) fn continuation(rig: &Rig, chat: i64, message: &str) -> Value {
    let session = rig.session_key(chat);
    let key = format!("restart-sentinel:{session}:agentTurn:{}", now_ms());
    let mut to = route(chat);
    to["chatType"] = json!("direct");
    json!({
        "kind": "agentTurn", "sessionKey": session, "message": message, "messageId": key,
        "route": to, "deliveryContext": route(chat), "idempotencyKey": key,
        "id": sha256_hex(key.as_bytes()), "enqueuedAt": now_ms() - 2_000, "retryCount": 0,
    })
}

/// A reply that could not be sent.
pub(crate) fn reply(rig: &Rig, chat: i64, id: &str, text: &str) -> Value {
    let mut entry = route(chat);
    entry["id"] = json!(id);
    entry["enqueuedAt"] = json!(now_ms() - 60_000);
    entry["payloads"] = json!([{"text": text}]);
    entry["bestEffort"] = json!(false);
    entry["session"] = json!({"key": rig.session_key(chat), "agentId": "main"});
    entry["retryCount"] = json!(1);
    entry["lastAttemptAt"] = json!(now_ms() - 50_000);
    entry["lastError"] = json!("Call to 'sendMessage' failed! (500: Internal Server Error)");
    entry
}

/// Puts an entry into a queue; returns its file.
pub(crate) fn put(rig: &Rig, queue: &str, entry: &Value) -> Outcome<PathBuf> {
    let dir = rig.home.state().join(queue);
    std::fs::create_dir_all(dir.join("failed"))?;
    let file = dir.join(format!("{}.json", entry["id"].as_str().ok_or("an entry without id")?));
    std::fs::write(&file, format!("{entry:#}"))?;
    Ok(file)
}

/// The entries of a queue, whatever tideover has in hand left out.
pub(crate) fn entries(rig: &Rig, queue: &str) -> Vec<Value> {
    let files = std::fs::read_dir(rig.home.state().join(queue)).into_iter().flatten().flatten();
    let of_entry = |file: std::fs::DirEntry| {
        let json = file.path().extension().is_some_and(|extension| extension == "json");
        json.then(|| std::fs::read_to_string(file.path()).ok())
            .flatten()
            .and_then(|text| serde_json::from_str(&text).ok())
    };
    files.filter_map(of_entry).collect()
}

/// Lets an hour pass for every entry, as far as the gateway's pauses are concerned.
pub(crate) fn age(rig: &Rig) -> Outcome {
    for queue in [SESSION, DELIVERY] {
        for mut entry in entries(rig, queue) {
            for stamp in ["enqueuedAt", "lastAttemptAt"] {
                if let Some(at) = entry[stamp].as_u64() {
                    entry[stamp] = json!(at - 3_600_000);
                }
            }
            put(rig, queue, &entry)?;
        }
    }
    Ok(())
}

/// The files in one of tideover's own places for entries.
pub(crate) fn shelf(rig: &Rig, name: &str) -> Vec<String> {
    let dir = rig.home.state().join("tideover/queue").join(name);
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
