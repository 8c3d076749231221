//! `tideover queue` and `tideover outbox` on the gateway's file queue, with and without a supervisor.

#![cfg(test)]

mod fast;
#[path = "fast/queue.rs"]
mod queue;

use std::path::PathBuf;

use fast::{Scratch, until};
use queue::{
    DELIVERY, SESSION, asked, everything, marked, message, now_ms, place, put, put_failed, put_on,
    start_once, turn, verb,
};
use std::path::Path;

use serde_json::{Value, json};

const CHAT: &str = "agent:main:telegram:direct:7";

fn entries(scratch: &Scratch) {
    put(scratch, &message("aaaa1111"));
    put(scratch, &message("aaaa2222"));
    put(scratch, &turn("beef0000", CHAT));
    put(scratch, &turn("beef00001", CHAT));
    put_failed(scratch, &message("ffff1111"));
    let mut late = message("cccc1111");
    late["enqueuedAt"] = json!(now_ms() + 3_600_000);
    put(scratch, &late);
}

/// What the pass before a start would have changed.
fn shelves(scratch: &Scratch) {
    put_on(scratch, "claimed", &marked(message("0000claimed"), "sending", "k"));
    put_on(scratch, "kept", &turn("0001kept", CHAT));
    put_on(scratch, "settled", &turn("0002settled", CHAT));
}

fn plays_all_verbs(scratch: &Scratch) {
    for which in ["show", "retry", "drop"] {
        verb(scratch, &["queue", which, "aaaa"], 2);
        let long = "x".repeat(5_000);
        for garbage in [
            "aaa",
            "no such",
            "",
            ".",
            "..",
            "../../etc/passwd",
            "aaaa1111.json",
            "\u{1b}[31m\n",
            "%00",
            &long,
        ] {
            let said = verb(scratch, &["queue", which, "--", garbage], 4);
            assert!(!said.trim_end().contains(['\u{1b}', '\n']), "{said:?}");
        }
        assert_eq!(scratch.verb(&["queue", which]).status.code(), Some(2));
    }
    // A whole id counts before it counts as the beginning of another.
    assert_eq!(asked(scratch, &["queue", "show", "beef0000"])["entry"]["id"], "beef0000");
    let shown = asked(scratch, &["queue", "show", "aaaa1"]);
    assert_eq!(shown["schema"], "tideover.queue-entry/1");
    assert_eq!(shown["entry"]["place"], "queue");
    assert!(verb(scratch, &["queue", "show", "ffff"], 0).contains("given up"));

    // Dropped, and brought back.
    let dropped = asked(scratch, &["queue", "drop", "aaaa1"]);
    assert_eq!(
        dropped,
        json!({ "schema": "tideover.queue-drop/1", "id": "aaaa1111", "queue": "delivery", "from": "queue",
            "to": "dropped" })
    );
    assert_eq!(place(scratch, "aaaa1111").0, "tideover/queue/dropped");
    assert_eq!(asked(scratch, &["queue", "show", "aaaa1"])["entry"]["place"], "dropped");
    verb(scratch, &["queue", "drop", "aaaa1"], 0);
    let back = asked(scratch, &["queue", "retry", "aaaa1"]);
    assert_eq!(
        back,
        json!({ "schema": "tideover.queue-retry/1", "id": "aaaa1111", "queue": "delivery", "from": "dropped",
            "to": "queue" })
    );
    let (dir, entry) = place(scratch, "aaaa1111");
    assert_eq!(
        (dir.as_str(), &entry["retryCount"], &entry["lastError"]),
        (DELIVERY, &json!(0), &Value::Null)
    );
    assert_eq!(entry["tideover"]["asked"], true);

    // In place, out of `failed`, out of the future.
    assert!(verb(scratch, &["queue", "retry", "beef0000"], 0).contains("due now: beef0000"));
    assert_eq!(place(scratch, "beef0000").1["tideover"]["asked"], true);
    assert_eq!(place(scratch, "beef00001").1.get("tideover"), None);
    assert_eq!(asked(scratch, &["queue", "retry", "ffff"])["from"], "failed");
    assert_eq!(place(scratch, "ffff1111").0, DELIVERY);
    verb(scratch, &["queue", "retry", "cccc"], 0);
    let late = place(scratch, "cccc1111").1;
    assert!(late["enqueuedAt"].as_i64().unwrap() <= now_ms(), "{late}");
    assert!(verb(scratch, &["queue", "drop", "beef00001"], 0).contains("dropped: beef00001"));
    assert_eq!(queue::temps(scratch), Vec::<PathBuf>::new());

    // What may not be changed now.
    shelves(scratch);
    let before = everything(scratch);
    for (which, id) in [("retry", "0000"), ("drop", "0000"), ("retry", "0001"), ("retry", "0002")] {
        verb(scratch, &["queue", which, id], 5);
    }
    assert_eq!(everything(scratch), before);
    verb(scratch, &["queue", "drop", "0001"], 0);
    assert_eq!(place(scratch, "0001kept").0, "tideover/queue/dropped");

    // One of its name is there already: neither is lost.
    put(scratch, &turn("beef00001", CHAT));
    let count = everything(scratch).len();
    verb(scratch, &["queue", "drop", "beef00001"], 0);
    assert_eq!(everything(scratch).len(), count);
    assert!(!scratch.state().join(SESSION).join("beef00001.json").exists());
    assert_eq!(asked(scratch, &["queue"])["entries"].as_array().unwrap().len(), count - 1);
}

#[test]
fn every_verb_without_a_supervisor() {
    let scratch = Scratch::new();
    entries(&scratch);
    plays_all_verbs(&scratch);
    // The next start takes up what was asked for.
    std::fs::remove_dir_all(queue::shelf(&scratch, "claimed")).unwrap();
    start_once(&scratch);
    let entry = place(&scratch, "aaaa1111").1;
    assert_eq!(
        (&entry["retryCount"], &entry["lastAttemptAt"]),
        (&json!(0), &Value::Null),
        "{entry}"
    );
    assert!(entry["tideover"]["asked"].is_null(), "{entry}");
}

#[test]
fn every_verb_with_a_supervisor() {
    let scratch = Scratch::new();
    let running = scratch.start_with(&mut queue::run_gateway(&scratch));
    scratch.status();
    entries(&scratch);
    plays_all_verbs(&scratch);
    running.ends_with(0);
}

#[test]
fn a_database_of_the_gateways_means_hands_off() {
    let scratch = Scratch::new();
    entries(&scratch);
    shelves(&scratch);
    queue::queue(&scratch, DELIVERY);
    std::fs::write(scratch.state().join(DELIVERY).join("bad.json"), "{").unwrap();
    std::fs::create_dir(scratch.state().join("state")).unwrap();
    std::fs::write(scratch.state().join("state/openclaw.sqlite"), "").unwrap();
    let before = everything(&scratch);
    let refused = |scratch: &Scratch| {
        for which in ["retry", "drop"] {
            let said = verb(scratch, &["queue", which, "aaaa1111"], 5);
            assert!(said.contains("database"), "{said}");
        }
        assert_eq!(asked(scratch, &["queue", "list"])["kind"], "native");
    };
    refused(&scratch);
    let running = scratch.start_with(&mut queue::run_gateway(&scratch));
    assert_eq!(scratch.status()["queue"]["kind"], "native");
    refused(&scratch);
    assert!(!running.log().contains("queue-pass"));
    running.ends_with(0);
    assert_eq!(everything(&scratch), before);
}

/// Left alone, but for what a run before kept of it: that goes back to the gateway, which alone delivers now.
#[test]
fn without_retry_the_gateway_has_all_of_its_queue() {
    let scratch = Scratch::new();
    scratch.configure("[queue]\nretry = false\n");
    entries(&scratch);
    shelves(&scratch);
    std::fs::write(scratch.state().join(DELIVERY).join("bad.json"), "{").unwrap();
    let before = everything(&scratch);
    let running = scratch.start_with(&mut queue::run_gateway(&scratch));
    assert_eq!(scratch.status()["queue"]["kind"], "off");
    let listed = asked(&scratch, &["queue", "show", "aaaa1"]);
    assert!(listed["entry"]["plan"].as_str().unwrap().contains("queue.retry"), "{listed}");
    running.ends_with(0);
    let after = everything(&scratch);
    let in_hand = |path: &Path| {
        path.starts_with("tideover/queue/claimed") || path.starts_with("tideover/queue/kept")
    };
    for (path, bytes) in before.iter().filter(|(path, _)| !in_hand(path)) {
        assert!(after.get(path) == Some(bytes), "{} was touched", path.display());
    }
    assert!(!after.keys().any(|path| in_hand(path)));
    assert_eq!(after.len(), before.len(), "nothing is lost");
}

#[test]
fn a_child_that_is_no_gateway_leaves_the_queue_alone() {
    let scratch = Scratch::new();
    entries(&scratch);
    shelves(&scratch);
    let before = everything(&scratch);
    assert!(scratch.run(&["true"]).output().unwrap().status.success());
    assert_eq!(everything(&scratch), before);
}

#[test]
fn a_state_directory_that_is_not_there_holds_nothing() {
    let scratch = Scratch::new();
    let missing = scratch.path().join("missing");
    let at = missing.to_str().unwrap();
    let listed = asked(&scratch, &["--state-dir", at, "queue", "list"]);
    assert_eq!((&listed["entries"], &listed["running"]), (&json!([]), &json!(false)));
    let said = verb(&scratch, &["--state-dir", at, "queue"], 0);
    assert!(said.contains("nothing waits"), "{said}");
    for which in ["show", "retry", "drop"] {
        verb(&scratch, &["--state-dir", at, "queue", which, "aaaa1111"], 4);
    }
    assert!(verb(&scratch, &["--state-dir", at, "outbox"], 0).contains("no notices"));
    assert_eq!(asked(&scratch, &["--state-dir", at, "outbox", "retry"])["retried"], json!([]));
    verb(&scratch, &["--state-dir", at, "outbox", "retry", "key"], 4);
    assert!(!missing.exists(), "asking makes nothing");
}

/// A notice that was given up.
fn failed_notice(scratch: &Scratch, key: &str) {
    let dir = scratch.state().join("tideover/outbox");
    std::fs::create_dir_all(&dir).unwrap();
    let notice = json!({
        "schema": "tideover.outbox/1", "key": key, "route": { "channel": "telegram", "to": "telegram:7" },
        "sessions": [], "text": "Interrupted.", "state": "failed", "tries": 9,
        "created_at": "2026-11-24T20:00:00.000Z", "next_try_at": "2026-11-24T20:00:00.000Z",
        "last_error": "chat not found",
    });
    std::fs::write(dir.join(format!("{key}.json")), notice.to_string()).unwrap();
}

fn plays_the_outbox(scratch: &Scratch) {
    let state = |key: &str| {
        let listed = asked(scratch, &["outbox", "list"]);
        assert_eq!(listed["schema"], "tideover.outbox-list/1");
        let notices = listed["notices"].as_array().unwrap();
        notices.iter().find(|notice| notice["key"] == key).unwrap()["state"].clone()
    };
    let table = verb(scratch, &["outbox"], 0);
    assert!(table.contains("notice-1") && table.contains("chat not found"), "{table}");
    assert_eq!((state("notice-1"), state("notice-2")), (json!("failed"), json!("failed")));
    for garbage in ["no such", "", "notice", "../x", &"y".repeat(5_000)] {
        verb(scratch, &["outbox", "retry", "--", garbage], 4);
    }
    let retried = asked(scratch, &["outbox", "retry", "notice-1"]);
    assert_eq!(retried, json!({ "schema": "tideover.outbox-retry/1", "retried": ["notice-1"] }));
    until("the first", || (state("notice-1") == "pending").then_some(()));
    assert_eq!(state("notice-2"), "failed");
    assert_eq!(asked(scratch, &["outbox", "retry"])["retried"], json!(["notice-2"]));
    until("the second", || (state("notice-2") == "pending").then_some(()));
    verb(scratch, &["outbox", "retry", "notice-1"], 4);
    assert!(verb(scratch, &["outbox", "retry"], 0).contains("0 failed notice"));
}

#[test]
fn notices_are_listed_and_tried_again() {
    for with_supervisor in [false, true] {
        let scratch = Scratch::new();
        failed_notice(&scratch, "notice-1");
        failed_notice(&scratch, "notice-2");
        if with_supervisor {
            let running = scratch.start_with(&mut queue::run_gateway(&scratch));
            scratch.status();
            plays_the_outbox(&scratch);
            running.ends_with(0);
        } else {
            plays_the_outbox(&scratch);
        }
    }
}
