//! A kill at every step of the pass over the gateway's file queue: each entry stays in exactly one place, whole, and
//! the next start ends as if nothing had happened.

#![cfg(test)]

mod fast;
#[path = "fast/queue.rs"]
mod queue;

use std::collections::BTreeMap;
use std::process::Command;

use fast::{Scratch, skip, until_gone};
use nix::sys::signal::Signal;
use queue::{
    DELIVERY, answered, marked, mirrored, now_ms, places, put, put_failed, put_on, receipt,
    start_once, turn,
};
use serde_json::{Value, json};

/// The calls by which anything on disk changes.
const STEPS: [&str; 7] = ["renameat2", "unlinkat", "syncfs", "fsync", "mkdir", "renameat", "write"];
/// More calls of one kind than any pass makes over these entries.
const CALLS_MAX: usize = 400;
const HELD: &str = "agent:main:telegram:direct:1";
const CHAT: &str = "agent:main:telegram:direct:7";
/// The gateway's copies of messages that it was asked to send: they may go.
const COPIES: [&str; 6] =
    ["copy-answered", "copy-open", "copy-last", "copy-failed", "copy-sent", "copy-notice"];

fn has_strace() -> bool {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    let works = works.is_ok_and(|output| output.status.success());
    if !works {
        assert!(
            std::env::var_os("TIDEOVER_REQUIRE").is_none(),
            "strace is missing or may not trace"
        );
        skip("strace is missing or may not trace");
    }
    works
}

/// A session whose effects are held, as a kill in mid-turn leaves it.
fn hold(scratch: &Scratch) {
    let mut running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn(HELD, "r");
    plugin.intent(HELD, "r", "c", &json!({ "command": "./deploy.sh" }));
    let child = running.stand_in_pid();
    running.signal(Signal::SIGKILL);
    running.wait();
    until_gone(child);
    start_once(scratch);
    assert_eq!(scratch.record(HELD).unwrap()["interruption"]["status"], "held");
}

fn with(mut entry: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        entry[name] = value.clone();
    }
    entry
}

/// A message whose pause does not end while the test runs.
fn message(id: &str) -> Value {
    with(queue::message(id), json!({ "lastAttemptAt": now_ms() + 3_600_000 }))
}

fn copy(id: &str, key: &str, tries: u32) -> Value {
    let mut copy = with(mirrored(id, CHAT, key), json!({ "retryCount": tries }));
    if tries == 0 {
        copy.as_object_mut().unwrap().retain(|name, _| !name.starts_with("last"));
    }
    copy
}

/// Every kind of entry in every place.
fn fill(scratch: &Scratch) {
    let receipts = [receipt("k-done"), receipt("k-sent")].to_vec();
    let lines = [receipts, answered("t-done"), answered("c-turn-ran")].concat();
    queue::transcript(scratch, &[(CHAT, lines)]);
    put(scratch, &mirrored("d-done", CHAT, "k-done"));
    put(scratch, &message("d-due"));
    put(scratch, &with(message("d-doubt"), json!({ "retryCount": 0 })));
    put(scratch, &with(message("d-future"), json!({ "enqueuedAt": now_ms() + 3_600_000 })));
    put(scratch, &with(message("d-used"), json!({ "retryCount": 5 })));
    put(scratch, &with(message("d-behind"), json!({ "to": "telegram:1" })));
    put(scratch, &turn("t-done", CHAT));
    put(
        scratch,
        &with(
            turn("t-due", CHAT),
            json!({ "retryCount": 2, "lastAttemptAt": now_ms() + 3_600_000 }),
        ),
    );
    put(scratch, &turn("t-held", HELD));
    put_on(scratch, "kept", &turn("t-kept", HELD));
    put_on(scratch, "kept", &turn("t-freed", CHAT));
    put_on(scratch, "dropped", &message("x-dropped"));
    put_on(scratch, "settled", &message("x-settled"));
    put_failed(scratch, &message("x-failed"));
    for (id, hand, tries) in [
        ("c-none", "none", 1),
        ("c-claimed", "claimed", 1),
        ("c-failed", "failed", 2),
        ("c-alone", "sending", 1),
        ("c-answered", "sending", 1),
        ("c-open", "sending", 1),
        ("c-last", "sending", 4),
    ] {
        let entry = with(message(id), json!({ "retryCount": tries }));
        put_on(scratch, "claimed", &marked(entry, hand, &format!("k-{id}")));
    }
    put_on(scratch, "claimed", &marked(mirrored("c-sent", CHAT, "k-sent.0"), "sending", "k-sent"));
    put_on(scratch, "claimed", &marked(turn("c-turn", CHAT), "sending", "key-c-turn"));
    put_on(scratch, "claimed", &marked(turn("c-turn-ran", CHAT), "sending", "key-c-turn-ran"));
    put(scratch, &copy("copy-answered", "k-c-answered", 1));
    put(scratch, &copy("copy-open", "k-c-open", 0));
    put(scratch, &copy("copy-last", "k-c-last", 1));
    put(scratch, &copy("copy-failed", "k-c-failed", 1));
    put(scratch, &copy("copy-sent", "k-sent", 1));
    put(scratch, &copy("copy-notice", "tideover-notice", 1));
    let outbox = scratch.state().join("tideover/outbox");
    std::fs::create_dir_all(&outbox).unwrap();
    let notice = json!({
        "schema": "tideover.outbox/1", "key": "tideover-notice", "sessions": [], "text": "Interrupted.",
        "route": { "channel": "telegram", "to": "telegram:99" }, "state": "failed", "tries": 9,
        "created_at": "2026-11-24T20:00:00.000Z", "next_try_at": "2026-11-24T20:00:00.000Z",
    });
    std::fs::write(outbox.join("tideover-notice.json"), notice.to_string()).unwrap();
    std::fs::write(scratch.state().join(DELIVERY).join("bad.json"), "[]").unwrap();
}

/// Every entry's place and content, without the times of our own doing.
fn state(scratch: &Scratch) -> BTreeMap<String, (String, Value)> {
    let bad = "bad.json";
    let aside = queue::quarantine(scratch, DELIVERY).join(bad);
    let there = scratch.state().join(DELIVERY).join(bad);
    let bytes = std::fs::read(&aside).or_else(|_| std::fs::read(&there)).expect("the bad file");
    assert_eq!(bytes, b"[]");
    assert!(!(aside.exists() && there.exists()));
    let mut hidden = Vec::new();
    for file in [aside, there] {
        if file.exists() {
            let to = scratch.path().join("hidden");
            std::fs::rename(&file, &to).unwrap();
            hidden.push((to, file));
        }
    }
    let places = places(scratch);
    for (to, file) in hidden {
        std::fs::rename(to, file).unwrap();
    }
    let one = |(id, mut found): (String, Vec<(String, Value)>)| {
        assert_eq!(found.len(), 1, "{id} is in several places: {found:?}");
        let (place, mut entry) = found.remove(0);
        if entry["lastAttemptAt"].as_i64().is_some_and(|at| at > 1) {
            entry["lastAttemptAt"] = json!("lately");
        }
        if let Some(mark) = entry["tideover"].as_object_mut() {
            mark.remove("since");
        }
        (id, (place, entry))
    };
    places.into_iter().map(one).collect()
}

/// A copy of a home, so that each kill finds the same.
fn copy_of(template: &Scratch) -> Scratch {
    let scratch = Scratch::new();
    let from = template.home().join(".openclaw");
    assert!(
        scratch.command("cp").arg("-a").arg(from).arg(scratch.home()).status().unwrap().success()
    );
    scratch
}

/// Starts with a kill at the `number`th call; whether it was killed.
fn killed(scratch: &Scratch, call: &str, number: usize) -> bool {
    let plain = queue::one_start(scratch);
    let mut traced = scratch.command("strace");
    traced
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:signal=KILL:when={number}"))
        .arg("--")
        .arg(plain.get_program())
        .args(plain.get_args());
    let output = traced.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("panicked"), "{text}");
    output.status.code() != Some(43)
}

#[test]
fn a_kill_at_any_step_of_the_pass_is_made_good_by_the_next_start() {
    if !has_strace() {
        return;
    }
    let template = Scratch::new();
    hold(&template);
    fill(&template);
    let before = state(&template);
    let calm = copy_of(&template);
    let log = start_once(&calm);
    let want = state(&calm);
    check_end(&want, &log);
    assert_eq!(queue::temps(&calm), Vec::<std::path::PathBuf>::new());
    start_once(&calm);
    assert_eq!(state(&calm), want, "a second start changes nothing");

    std::thread::scope(|scope| {
        for part in 0..3 {
            let (template, before, want) = (&template, &before, &want);
            scope.spawn(move || {
                for call in STEPS.iter().skip(part).step_by(3) {
                    kill_at_each(template, call, before, want);
                }
            });
        }
    });
}

fn kill_at_each(
    template: &Scratch,
    call: &str,
    before: &BTreeMap<String, (String, Value)>,
    want: &BTreeMap<String, (String, Value)>,
) {
    for number in 1..CALLS_MAX {
        let scratch = copy_of(template);
        if !killed(&scratch, call, number) {
            eprintln!("MEASURED: killed at each of {} calls of {call}", number - 1);
            assert!(number > 1 || call == "mkdir", "{call} was never seen");
            assert_eq!(&state(&scratch), want, "{call}, traced");
            return;
        }
        let found = state(&scratch);
        for id in before.keys().filter(|id| !COPIES.contains(&id.as_str())) {
            assert!(found.contains_key(id), "{id} is lost by a kill at {call} {number}");
        }
        let log = start_once(&scratch);
        let end = state(&scratch);
        for (id, place) in want {
            assert_eq!(end.get(id), Some(place), "{id} after a kill at {call} {number}\n{log}");
        }
        assert_eq!(end.len(), want.len(), "after a kill at {call} {number}\n{log}");
        // What a replacement leaves is freed beside the start, and this gateway may end first.
        let temps: Vec<_> = queue::temps(&scratch)
            .into_iter()
            .filter(|path| !path.to_string_lossy().ends_with(".replaced.tmp"))
            .collect();
        assert!(temps.is_empty(), "{temps:?} after a kill at {call} {number}");
    }
    panic!("{call}: more than {CALLS_MAX} calls");
}

/// The state that every run must end in.
fn check_end(end: &BTreeMap<String, (String, Value)>, log: &str) {
    for (id, place) in [
        ("d-done", "tideover/queue/settled"),
        ("d-due", DELIVERY),
        ("d-doubt", DELIVERY),
        ("d-future", DELIVERY),
        ("d-used", DELIVERY),
        ("d-behind", "tideover/queue/kept"),
        ("t-done", "tideover/queue/settled"),
        ("t-due", queue::SESSION),
        ("t-held", "tideover/queue/kept"),
        ("t-kept", "tideover/queue/kept"),
        ("t-freed", queue::SESSION),
        ("x-dropped", "tideover/queue/dropped"),
        ("x-settled", "tideover/queue/settled"),
        ("x-failed", "delivery-queue/failed"),
        ("c-none", DELIVERY),
        ("c-claimed", DELIVERY),
        ("c-failed", DELIVERY),
        ("c-alone", DELIVERY),
        ("c-answered", DELIVERY),
        ("c-open", DELIVERY),
        ("c-last", "delivery-queue/failed"),
        ("c-sent", "tideover/queue/settled"),
        ("c-turn", queue::SESSION),
        ("c-turn-ran", "tideover/queue/settled"),
    ] {
        assert_eq!(end.get(id).map(|(place, _)| place.as_str()), Some(place), "{id}\n{log}");
    }
    let entry = |id: &str| &end[id].1;
    let text = |id: &str| entry(id)["payloads"][0]["text"].as_str().unwrap().to_owned();
    for (id, repeated) in [
        ("d-due", false),
        ("d-doubt", true),
        ("c-none", false),
        ("c-alone", true),
        ("c-answered", false),
        ("c-open", true),
    ] {
        assert_eq!(text(id).matches("(Possibly repeated.)").count(), usize::from(repeated), "{id}");
    }
    for (id, tries) in
        [("c-none", 1), ("c-failed", 2), ("c-alone", 2), ("c-answered", 2), ("c-last", 5)]
    {
        assert_eq!(entry(id)["retryCount"], tries, "{id}");
    }
    for id in COPIES {
        assert!(!end.contains_key(id), "{id}\n{log}");
    }
    assert_eq!(end.len(), 24);
}
