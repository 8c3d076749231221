//! A message that tideover takes out of the file queue while the gateway runs, with a kill at every step from the claim
//! to the settled entry. The stand-in answers `send`; turns of an agent are left to the tests on real gateways.

#![cfg(test)]

mod fast;
#[path = "fast/queue.rs"]
mod queue;

use std::process::Command;

use fast::{Running, Scratch, skip, until, until_gone};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queue::{DELIVERY, message, place, put, run_gateway, start_once};
use serde_json::{Value, json};

/// The calls by which a step of the running part changes anything on disk.
const STEPS: [&str; 3] = ["renameat2", "unlinkat", "fsync"];
/// More calls of one kind than one thread makes.
const CALLS_MAX: usize = 60;
const SETTLED: &str = "tideover/queue/settled";
const ID: &str = "aaaa1111-2222";

fn sends(scratch: &Scratch) -> Vec<Value> {
    let text = std::fs::read_to_string(scratch.stand_in_dir().join("sends")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Tells tideover that its gateway serves, the way the plugin does it; none where it is killed meanwhile.
fn serve(running: &Running) -> Option<()> {
    let mut link = running.link_unless_ended()?;
    link.send_bytes(b"!port\n").ok()?;
    let port = link.read()?;
    let mut plugin = running.link_unless_ended()?;
    let hello = json!({ "id": "1", "type": "hello", "v": 1, "role": "plugin", "plugin_version": "0",
        "gateway": { "version": "stand-in", "incarnation": "i" } });
    let start = json!({ "id": "2", "type": "gateway_start", "incarnation": "i", "port": port });
    plugin.send_bytes(format!("{hello}\n{start}\n").as_bytes()).ok()?;
    while plugin.read()?["id"] != "2" {}
    Some(())
}

/// Has a message delivered while the gateway runs, with a kill at a call; whether there was one.
fn delivered(scratch: &Scratch, inject: Option<(&str, usize)>) -> bool {
    let plain = run_gateway(scratch);
    let mut command = match inject {
        None => plain,
        Some((call, number)) => {
            let mut traced = scratch.command("strace");
            traced
                .args(["-f", "-qq", "-o", "/dev/null", "-e"])
                .arg(format!("trace={call}"))
                .arg("-e")
                .arg(format!("inject={call}:signal=KILL:when={number}"))
                .arg("--")
                .arg(plain.get_program())
                .args(plain.get_args());
            traced
        }
    };
    let mut running = scratch.launch(&mut command);
    until("the stand-in", || {
        let ready = std::fs::read_to_string(scratch.stand_in_dir().join("ready")).is_ok();
        (ready || running.has_ended()).then_some(())
    });
    if running.has_ended() {
        running.wait();
        return false;
    }
    let child = running.stand_in_pid();
    let _ = serve(&running);
    // Asked for by hand it is not left to the gateway's own pass.
    let _ = scratch.verb(&["queue", "retry", ID]);
    let settled = scratch.state().join(SETTLED).join(format!("delivery~{ID}.json"));
    let done = until("the message's end", || {
        (settled.exists() || running.has_ended()).then(|| !running.has_ended())
    });
    if done {
        // What follows the last step is nobody's concern here: it may be killed in it, too, so the stand-in is ended
        // without being asked.
        let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
    }
    running.wait();
    until_gone(child);
    done
}

#[test]
fn a_message_that_is_asked_for_is_sent_once_and_settled() {
    let scratch = Scratch::new();
    put(&scratch, &message(ID));
    assert!(delivered(&scratch, None));
    assert_eq!(place(&scratch, ID).0, SETTLED);
    let sent = sends(&scratch);
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0]["message"], format!("text of {ID}"));
    assert!(queue::temps(&scratch).is_empty());
}

#[test]
fn many_messages_are_each_sent_once() {
    let scratch = Scratch::new();
    let running = scratch.start_with(&mut run_gateway(&scratch));
    let ids: Vec<String> = (0..25).map(|number| format!("many-{number:02}")).collect();
    ids.iter().for_each(|id| put(&scratch, &message(id)));
    serve(&running).unwrap();
    for id in &ids {
        // One that is in hand by then is refused.
        let _ = scratch.verb(&["queue", "retry", id]);
        let _ = scratch.verb(&["queue", "list"]);
    }
    until("all of them", || (queue::ids_in(&scratch, "settled").len() == ids.len()).then_some(()));
    let mut sent: Vec<String> =
        sends(&scratch).iter().map(|send| send["message"].as_str().unwrap().to_owned()).collect();
    sent.sort();
    assert_eq!(sent, ids.iter().map(|id| format!("text of {id}")).collect::<Vec<_>>());
    assert_eq!(scratch.status()["degraded"].get("queue"), None);
    running.ends_with(0);
}

#[test]
fn a_kill_at_any_step_of_a_delivery_neither_loses_nor_hides_a_repeat() {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        assert!(
            std::env::var_os("TIDEOVER_REQUIRE").is_none(),
            "strace is missing or may not trace"
        );
        skip("strace is missing or may not trace");
        return;
    }
    std::thread::scope(|scope| {
        for call in STEPS {
            scope.spawn(move || kill_at_each(call));
        }
    });
}

fn kill_at_each(call: &str) {
    let (mut after_send, mut survived) = (0, 0);
    for number in 1..CALLS_MAX {
        let scratch = Scratch::new();
        put(&scratch, &message(ID));
        let done = delivered(&scratch, Some((call, number)));
        let why = format!("{call} {number}");
        // In one place, whole.
        let (at, _) = place(&scratch, ID);
        let sent = sends(&scratch);
        assert!(sent.len() <= 1, "{why}: {sent:?}");
        assert!(at != SETTLED || sent.len() == 1, "{why}: settled without being sent");
        if done {
            survived += 1;
            // The calls are spread over threads that come and go: one run says little of how many there are.
            if survived == 3 {
                eprintln!("MEASURED: {} kills at {call}, {after_send} after the send", number - 3);
                return;
            }
            continue;
        }
        survived = 0;
        let log = start_once(&scratch);
        let (at, entry) = place(&scratch, ID);
        assert!(at == SETTLED || at == DELIVERY, "{why}: {at}\n{log}");
        if !sent.is_empty() && at == DELIVERY {
            after_send += 1;
            let text = entry["payloads"][0]["text"].as_str().unwrap();
            assert!(text.ends_with("(Possibly repeated.)"), "{why}: {entry}\n{log}");
        }
        assert!(queue::temps(&scratch).is_empty(), "{why}");
        // And it goes out in the end: again only with the word that it may be a repeat.
        assert!(delivered(&scratch, None), "{why}");
        assert_eq!(place(&scratch, ID).0, SETTLED, "{why}");
        let sends = sends(&scratch);
        let plain = |send: &&Value| !send["message"].as_str().unwrap().contains("Possibly");
        assert!(sends.len() <= 2 && sends.iter().filter(plain).count() <= 1, "{why}: {sends:?}");
        assert!(!sends.is_empty(), "{why}");
    }
    panic!("{call}: more than {CALLS_MAX} calls");
}
