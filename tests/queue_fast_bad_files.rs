//! What may stand in the gateway's file queue besides entries: nothing of it is lost, followed or sent, and
//! everything is named.

#![cfg(test)]

mod fast;
#[path = "fast/queue.rs"]
mod queue;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;

use fast::{Scratch, is_root, skip, until};
use queue::{DELIVERY, SESSION, asked, everything, message, now_ms, put, start_once, turn, verb};
use serde_json::{Value, json};

/// What becomes of a bad file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Aside,
    Left,
}

/// Every bad file: its queue, its name, what is said of it, and what becomes of it.
fn bad_files(scratch: &Scratch) -> Vec<(&'static str, Vec<u8>, &'static str, Fate)> {
    let delivery = queue::queue(scratch, DELIVERY);
    let session = queue::queue(scratch, SESSION);
    let mut bad: Vec<(&'static str, Vec<u8>, &'static str, Fate)> = Vec::new();
    let texts: [(&'static str, &str, String, &str, Fate); 14] = [
        (DELIVERY, "empty.json", String::new(), "not JSON", Fate::Aside),
        (
            DELIVERY,
            "half.json",
            message("half").to_string()[..90].to_owned(),
            "not JSON",
            Fate::Aside,
        ),
        (SESSION, "deep.json", "{\"a\":".repeat(100_000), "not JSON", Fate::Aside),
        (DELIVERY, "list.json", "[]".to_owned(), "not a JSON object", Fate::Aside),
        (SESSION, "other.json", turn("another", "s").to_string(), "its id", Fate::Aside),
        (DELIVERY, "noid.json", json!({ "to": "x" }).to_string(), "its id", Fate::Aside),
        (DELIVERY, "number.json", json!({ "id": 7 }).to_string(), "its id", Fate::Aside),
        (
            DELIVERY,
            "nofield.json",
            json!({ "id": "nofield", "to": "1" }).to_string(),
            "channel",
            Fate::Aside,
        ),
        (
            SESSION,
            "nokey.json",
            json!({ "id": "nokey", "kind": "agentTurn" }).to_string(),
            "sessionKey",
            Fate::Aside,
        ),
        (DELIVERY, ".json", message("").to_string(), "its id", Fate::Aside),
        (DELIVERY, ".hidden.json", "{".to_owned(), "not JSON", Fate::Aside),
        (SESSION, "line\nbreak\u{1b}[31m.json", "{".to_owned(), "not JSON", Fate::Aside),
        // A newer gateway may know it.
        (
            SESSION,
            "kind.json",
            {
                let mut t = turn("kind", "s");
                t["kind"] = json!("newThing");
                t.to_string()
            },
            "kind",
            Fate::Left,
        ),
        (
            DELIVERY,
            "huge.json",
            {
                let mut m = message("huge");
                m["payloads"][0]["text"] = json!("x".repeat(4 << 20));
                m.to_string()
            },
            "bytes",
            Fate::Left,
        ),
    ];
    for (queue, name, text, why, fate) in texts {
        std::fs::write(scratch.state().join(queue).join(name), text).unwrap();
        bad.push((queue, name.as_bytes().to_vec(), why, fate));
    }
    let target = scratch.path().join("target.json");
    std::fs::write(&target, message("link").to_string()).unwrap();
    symlink(&target, delivery.join("link.json")).unwrap();
    symlink("/nonexistent", session.join("dangling.json")).unwrap();
    std::fs::create_dir(delivery.join("directory.json")).unwrap();
    nix::unistd::mkfifo(&session.join("pipe.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (queue, name) in [
        (DELIVERY, "link.json"),
        (SESSION, "dangling.json"),
        (DELIVERY, "directory.json"),
        (SESSION, "pipe.json"),
    ] {
        bad.push((queue, name.as_bytes().to_vec(), "not a regular file", Fate::Aside));
    }
    let odd = b"odd\xff\xfe.json".to_vec();
    std::fs::write(delivery.join(OsStr::from_bytes(&odd)), message("odd").to_string()).unwrap();
    bad.push((DELIVERY, odd, "not UTF-8", Fate::Left));
    if is_root() {
        let file = delivery.join("foreign.json");
        std::fs::write(&file, message("foreign").to_string()).unwrap();
        chown(&file, Some(65_534), None).unwrap();
        bad.push((DELIVERY, b"foreign.json".to_vec(), "another user", Fate::Left));
    } else {
        skip("only root can make a file of another user's");
    }
    bad
}

/// Good entries beside them, and leftovers that are nobody's concern.
fn neighbours(scratch: &Scratch) {
    put(scratch, &message("good-1"));
    put(scratch, &turn("good-2", "agent:main:s"));
    let mut late = message("late");
    late["enqueuedAt"] = json!(now_ms() + 3_600_000);
    put(scratch, &late);
    for name in ["good-1.json.4242.tmp", "x.tmp", "README", "good-1.json.bak"] {
        std::fs::write(scratch.state().join(DELIVERY).join(name), name).unwrap();
    }
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// The list names every bad file with its reason.
fn all_named(
    scratch: &Scratch,
    bad: &[(&'static str, Vec<u8>, &'static str, Fate)],
    running: bool,
    started: bool,
) {
    let listed = asked(scratch, &["queue", "list"]);
    assert_eq!(listed["schema"], "tideover.queue/1");
    assert_eq!(listed["running"], running);
    let text = verb(scratch, &["queue", "list"], 0);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    for (queue, name, why, fate) in bad {
        let word = if *queue == SESSION { "session" } else { "delivery" };
        let is = |finding: &&Value| finding["name"] == lossy(name) && finding["queue"] == word;
        let found: Vec<&Value> = listed["findings"].as_array().unwrap().iter().filter(is).collect();
        assert_eq!(found.len(), 1, "{:?}: {}", lossy(name), listed["findings"]);
        assert!(
            found[0]["what"].as_str().unwrap().contains(why),
            "{:?}: {}",
            lossy(name),
            found[0]
        );
        assert_eq!(found[0]["quarantined"], started && *fate == Fate::Aside, "{}", found[0]);
        let shown: String =
            lossy(name).chars().map(|c| if c.is_control() { '·' } else { c }).collect();
        assert!(text.lines().any(|line| line.contains(&shown) && line.contains(why)), "{text}");
    }
    assert_eq!(listed["findings"].as_array().unwrap().len(), bad.len(), "{}", listed["findings"]);
    assert_eq!(listed["entries"].as_array().unwrap().len(), 3);
    verb(scratch, &["queue", "show", "half"], 4);
}

#[test]
fn bad_files_are_set_aside_or_left_and_always_named() {
    let scratch = Scratch::new();
    let bad = bad_files(&scratch);
    neighbours(&scratch);
    let before = everything(&scratch);
    all_named(&scratch, &bad, false, false);
    assert_eq!(everything(&scratch), before, "looking changes nothing");

    let running = scratch.start_with(&mut queue::run_gateway(&scratch));
    let why = until("the word", || {
        scratch.status()["degraded"]["queue files"].as_str().map(str::to_owned)
    });
    assert!(why.contains(&format!("{} file(s)", bad.len())), "{why}");
    all_named(&scratch, &bad, true, true);
    let after = everything(&scratch);
    assert_eq!(after.len(), before.len(), "nothing is lost, nothing is made");
    for (queue, name, _, fate) in &bad {
        let old = PathBuf::from(queue).join(OsStr::from_bytes(name));
        let aside = PathBuf::from("tideover/queue/quarantine").join(&old);
        let (there, gone) = if *fate == Fate::Aside { (&aside, &old) } else { (&old, &aside) };
        assert_eq!(after.get(there), before.get(&old), "{:?}", lossy(name));
        assert_eq!(after.get(gone), None, "{:?}", lossy(name));
    }
    let target = std::fs::read_to_string(scratch.path().join("target.json")).unwrap();
    assert!(target.contains("text of link") && !target.contains("tideover"));
    // The neighbours: the pause is taken away, and the future one waits.
    let good: Value =
        serde_json::from_slice(&after[&PathBuf::from(DELIVERY).join("good-1.json")]).unwrap();
    assert_eq!(good["lastAttemptAt"], 1);
    assert!(after.contains_key(&PathBuf::from(SESSION).join("good-2.json")));
    assert_eq!(
        after[&PathBuf::from(DELIVERY).join("late.json")],
        before[&PathBuf::from(DELIVERY).join("late.json")]
    );
    for name in ["good-1.json.4242.tmp", "x.tmp", "README", "good-1.json.bak"] {
        assert_eq!(after[&PathBuf::from(DELIVERY).join(name)], name.as_bytes());
    }
    let log = running.log();
    assert!(log.contains("event=queue-pass") && log.contains("found=3 due=2"), "{log}");
    running.ends_with(0);

    // Once more: what is set aside stays, what was left is told again.
    let settled = everything(&scratch);
    let log = start_once(&scratch);
    assert_eq!(everything(&scratch), settled, "{log}");
    all_named(&scratch, &bad, false, true);
    // The same name again does not replace what is there.
    std::fs::write(scratch.state().join(DELIVERY).join("half.json"), "second").unwrap();
    start_once(&scratch);
    let second = queue::quarantine(&scratch, DELIVERY).join("half.json.1");
    assert_eq!(std::fs::read_to_string(second).unwrap(), "second");
    assert_eq!(everything(&scratch).len(), settled.len() + 1);
}

#[test]
fn a_leftover_of_our_own_is_swept() {
    let scratch = Scratch::new();
    put(&scratch, &message("aaaa"));
    let ours = scratch.state().join(DELIVERY).join(".aaaa.json.tmp");
    let theirs = scratch.state().join(DELIVERY).join(".aaaa.tmp");
    for file in [&ours, &theirs] {
        std::fs::write(file, "{").unwrap();
    }
    std::fs::write(queue::shelf(&scratch, "claimed").join(".delivery~b.json.tmp"), "{").unwrap();
    start_once(&scratch);
    assert!(!ours.exists() && theirs.exists());
    assert_eq!(queue::temps(&scratch), [PathBuf::from(DELIVERY).join(".aaaa.tmp")]);
}

#[test]
fn many_bad_files_do_not_hold_the_gateway_up() {
    let scratch = Scratch::new();
    let dir = queue::queue(&scratch, SESSION);
    for number in 0..3_000 {
        std::fs::write(dir.join(format!("bad-{number}.json")), "{").unwrap();
    }
    let before = std::time::Instant::now();
    let log = start_once(&scratch);
    eprintln!("MEASURED: 3,000 bad files set aside in {:?}", before.elapsed());
    assert!(before.elapsed().as_secs() < 5, "{:?}", before.elapsed());
    assert_eq!(std::fs::read_dir(queue::quarantine(&scratch, SESSION)).unwrap().count(), 3_000);
    assert!(log.contains("3000 file(s)"), "{log}");
    let listed = asked(&scratch, &["queue"]);
    assert_eq!(listed["findings"].as_array().unwrap().len(), 3_000);
}

#[test]
fn an_entry_that_is_there_twice_is_not_delivered_twice() {
    let scratch = Scratch::new();
    let session = "agent:main:telegram:direct:7";
    queue::transcript(&scratch, &[(session, queue::answered("ran"))]);
    // Done, and queued again under its name: the settled one is in the way.
    put(&scratch, &turn("ran", session));
    queue::put_on(&scratch, "settled", &turn("ran", session));
    // Kept back, and queued again.
    put(&scratch, &turn("twin", session));
    queue::put_on(&scratch, "kept", &turn("twin", session));
    // In hand, and queued again.
    put(&scratch, &message("hand"));
    queue::put_on(&scratch, "claimed", &queue::marked(message("hand"), "claimed", "k"));
    let before = everything(&scratch).len();
    let log = start_once(&scratch);
    assert_eq!(everything(&scratch).len(), before, "nothing is lost\n{log}");
    let left: Vec<PathBuf> = everything(&scratch)
        .into_keys()
        .filter(|path| path.starts_with(SESSION) || path.starts_with(DELIVERY))
        .collect();
    let want =
        [PathBuf::from(DELIVERY).join("hand.json"), PathBuf::from(SESSION).join("twin.json")];
    assert_eq!(left, want, "{log}");
    assert!(
        queue::ids_in(&scratch, "claimed").is_empty() && queue::ids_in(&scratch, "kept").is_empty()
    );
}
