//! What the log says of a session's interruption and hold, from the cut to the user's next word: each thing once.

#![cfg(test)]

mod fast;

use fast::{Running, Scratch, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

const KEY: &str = "agent:main:telegram:direct:4242";

fn lines(log: &str, event: &str) -> Vec<String> {
    let end = format!(" event={event}");
    log.lines().filter(|line| line.ends_with(&end)).map(str::to_owned).collect()
}

fn the_line(running: &Running, event: &str) -> String {
    until(event, || lines(&running.log(), event).pop())
}

#[test]
fn an_interruption_is_said_once_and_its_hold_from_arming_to_release() {
    let scratch = Scratch::new();
    let mut first = scratch.start();
    let mut plugin = first.plugin();
    plugin.turn(KEY, "r");
    plugin.intent(KEY, "r", "c", &json!({ "command": "deploy --token hunter2" }));
    kill(Pid::from_raw(first.stand_in_pid()), Signal::SIGKILL).unwrap();
    first.wait();
    let log = first.log();
    let found = lines(&log, "interruption-found");
    assert_eq!(found.len(), 1, "{log}");
    assert!(found[0].contains("cause=\"gateway_killed\" tool=\"exec\""), "{found:?}");
    assert_eq!(lines(&log, "gateway-exited").len(), 1, "{log}");
    assert!(lines(&log, "hold-armed").is_empty(), "{log}");

    // The log goes on in the same file.
    let second = scratch.start();
    the_line(&second, "hold-armed");
    let mut plugin = second.plugin();
    plugin.turn(KEY, "next");
    plugin.end_turn(KEY, "next");
    let released = the_line(&second, "hold-released");
    assert!(released.contains("by=\"message\""), "{released}");
    second.ends_with(0);
    let log = scratch.log();
    for (event, times) in [("interruption-found", 1), ("hold-armed", 1), ("hold-released", 1)] {
        assert_eq!(lines(&log, event).len(), times, "{event}: {log}");
    }
    for secret in ["4242", "hunter2", "deploy", "task of"] {
        assert!(!log.contains(secret), "{secret:?} is in the log: {log}");
    }
}
