//! Ten thousand entries in the gateway's file queue: how long its start waits for the look over them.
//!
//! `TIDEOVER_BIN` measures another build of tideover than the test's own, `TIDEOVER_RUNS` so many times.

#![cfg(test)]

mod fast;
#[path = "fast/queue.rs"]
mod queue;

use std::time::{Duration, Instant};

use fast::Scratch;
use queue::{DELIVERY, SESSION, answered, asked, ids_in, mirrored, now_ms, put_on, receipt, turn};
use serde_json::{Value, json};

const ENTRIES: usize = 10_000;
const SESSIONS: usize = 100;
/// A debug build on a busy machine is several times as slow as what a user has; what is quadratic, or syncs once for each
/// file, is slower still.
const BOUND: Duration = Duration::from_secs(8);
const RUNS: usize = 1;

/// Waits for what takes a slow disk long: freeing thousands of files.
fn slowly(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(180);
    while !look() {
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Writes entries fast.
fn fill(scratch: &Scratch, queue: &str, entries: impl Iterator<Item = Value>) {
    let dir = queue::queue(scratch, queue);
    for entry in entries {
        let file = dir.join(format!("{}.json", entry["id"].as_str().unwrap()));
        std::fs::write(file, format!("{entry:#}")).unwrap();
    }
}

fn session(number: usize) -> String {
    format!("agent:main:telegram:direct:{number}")
}

/// One start: what the pass tells, and the whole run's time.
fn start(scratch: &Scratch) -> (String, u64, Duration) {
    let mut command = queue::one_start(scratch);
    if let Some(program) = std::env::var_os("TIDEOVER_BIN") {
        let mut other = scratch.command(program);
        other.args(command.get_args());
        command = other;
    }
    let before = Instant::now();
    let output = command.output().unwrap();
    let took = before.elapsed();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(43), "{log}");
    let line = log.lines().find(|line| line.contains("event=queue-pass")).unwrap_or_default();
    let pass = line.split("before its start ").nth(1).unwrap_or_default().to_owned();
    let took_ms = pass.split("took_ms=").nth(1).and_then(|rest| rest.split(' ').next());
    (pass.clone(), took_ms.and_then(|ms| ms.parse().ok()).unwrap_or_default(), took)
}

/// Measures starts over states that `make` makes anew.
fn measure(what: &str, said: &str, make: impl Fn(&Scratch)) -> Scratch {
    let mut passes = Vec::new();
    let mut walls = Vec::new();
    let mut last = None;
    let runs = std::env::var("TIDEOVER_RUNS").ok().and_then(|runs| runs.parse().ok());
    for _ in 0..runs.unwrap_or(RUNS) {
        let scratch = Scratch::new();
        start(&scratch);
        let (_, _, bare) = start(&scratch);
        make(&scratch);
        // What the test itself has written is not the pass's to sync.
        assert!(scratch.command("sync").arg("-f").arg(scratch.path()).status().unwrap().success());
        let (pass, took_ms, wall) = start(&scratch);
        assert!(pass.contains(said), "{what}: {pass}");
        passes.push(took_ms);
        walls.push(wall.saturating_sub(bare).as_millis());
        last = Some(scratch);
    }
    passes.sort_unstable();
    walls.sort_unstable();
    eprintln!("MEASURED: {what}: took_ms {passes:?}, wall above an empty queue {walls:?} ms");
    assert!(u128::from(passes[passes.len() / 2]) < BOUND.as_millis(), "{what}: {passes:?}");
    last.unwrap()
}

/// Entries that pause after a failed try: each is written anew so that the gateway tries it at once.
fn pausing(n: usize) -> Value {
    let mut entry = queue::message(&format!("d-{n}"));
    entry["session"]["key"] = json!(session(n % SESSIONS));
    entry["retryCount"] = json!(3);
    entry
}

#[test]
fn ten_thousand_messages_that_pause() {
    let scratch = measure("10,000 pausing messages", "found=10000 due=", |scratch| {
        fill(scratch, DELIVERY, (0..ENTRIES).map(pausing));
    });
    // What a slow disk leaves of them within the limit of one pass is made due at the next start.
    slowly("every entry to be due", || start(&scratch).0.contains(" left=0 "));
    let all = queue::places(&scratch);
    assert!(all.values().all(|found| found[0].1["lastAttemptAt"] == 1 && found.len() == 1));
    assert_eq!(all.len(), ENTRIES);
    let (_, _, again) = start(&scratch);
    eprintln!("MEASURED: the same queue once more: {again:?}");
    // Every entry is found, also one that the list has no room for.
    let listed = asked(&scratch, &["queue", "list"]);
    assert_eq!(
        (listed["entries"].as_array().unwrap().len(), &listed["more"]),
        (1_000, &json!(9_000))
    );
    for id in ["d-0", "d-4711", "d-9999"] {
        assert_eq!(asked(&scratch, &["queue", "show", id])["entry"]["id"], id);
    }
    let before = Instant::now();
    asked(&scratch, &["queue", "drop", "d-9998"]);
    eprintln!("MEASURED: one of 10,000 is dropped in {:?}", before.elapsed());
    let running = scratch.start_with(&mut queue::run_gateway(&scratch));
    slowly("what was replaced to be swept", || {
        let names = std::fs::read_dir(queue::queue(&scratch, DELIVERY)).unwrap();
        let mut names = names.map(|file| file.unwrap().file_name());
        !names.any(|name| name.to_string_lossy().starts_with('.'))
    });
    running.ends_with(0);
}

#[test]
fn ten_thousand_turns_of_a_hundred_sessions() {
    let sessions: Vec<String> = (0..SESSIONS).map(session).collect();
    let of = |n: usize| turn(&format!("t-{n}"), &session(n % SESSIONS));
    // In each session half of them have run.
    let make = |scratch: &Scratch| {
        let lines = |own: usize| {
            let ran = (0..ENTRIES / 2).filter(move |n| n % SESSIONS == own);
            ran.flat_map(|n| answered(&format!("t-{n}"))).collect::<Vec<Value>>()
        };
        let rows: Vec<(&str, Vec<Value>)> =
            sessions.iter().enumerate().map(|(own, key)| (key.as_str(), lines(own))).collect();
        queue::transcript(scratch, &rows);
        fill(scratch, SESSION, (0..ENTRIES).map(of));
    };
    let what = "10,000 turns of 100 sessions, half of which ran";
    let scratch = measure(what, "found=10000 due=5000 settled=5000", make);
    assert_eq!(ids_in(&scratch, SESSION).len(), ENTRIES / 2);
    // Old ones go beside the gateway's start; the newest are kept for a look.
    let running = scratch.start_with(&mut queue::run_gateway(&scratch));
    slowly("the settled ones to be pruned", || {
        let files = std::fs::read_dir(queue::shelf(&scratch, "settled")).unwrap().count();
        files == 200
    });
    running.ends_with(0);
}

#[test]
fn ten_thousand_entries_with_nothing_to_do() {
    let scratch =
        measure("10,000 entries with nothing to do", "found=10000 due=10000", |scratch| {
            let ready = |n: usize| {
                let mut entry = pausing(n);
                entry["lastAttemptAt"] = json!(1);
                entry
            };
            fill(scratch, DELIVERY, (0..ENTRIES).map(ready));
        });
    assert!(queue::places(&scratch).values().all(|found| found[0].1["retryCount"] == 3));
}

#[test]
fn claimed_entries_beside_ten_thousand() {
    let make = |scratch: &Scratch| {
        let copies = |n: usize| {
            let mut entry =
                mirrored(&format!("c-{n}"), &session(n % SESSIONS), &format!("copy-{n}"));
            entry["enqueuedAt"] = json!(now_ms() - 5_000);
            entry
        };
        fill(scratch, DELIVERY, (0..ENTRIES).map(copies));
        queue::transcript(scratch, &[(&session(0), vec![receipt("copy-5")])]);
        for n in 0..20 {
            let entry = queue::message(&format!("h-{n}"));
            put_on(scratch, "claimed", &queue::marked(entry, "sending", &format!("copy-{n}")));
        }
    };
    let scratch = measure("20 claimed entries beside 10,000", "resumed=20", make);
    assert!(ids_in(&scratch, "claimed").is_empty());
}
