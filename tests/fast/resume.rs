//! What the fast tests of `/resume` share: an interrupted session, a gateway that takes turns, and the plugin's part in
//! them.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::fast::turns::{AGENT_ENDED, AGENTS};
use super::fast::{Link, Running, Scratch, until, until_gone};

/// The interrupted session.
pub(crate) const KEY: &str = "agent:main:telegram:direct:7";

/// The interrupted call's arguments.
pub(crate) fn arguments() -> Value {
    json!({ "command": "./deploy-resume-fast.sh --all", "n": 1.5 })
}

/// A session that is cut in a call with these arguments; nothing runs afterwards.
pub(crate) fn cut_with(scratch: &Scratch, arguments: &Value) {
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn(KEY, "first");
    plugin.intent(KEY, "first", "call", arguments);
    running.ends_with(1);
    let cut = scratch.record(KEY).unwrap()["interruption"].clone();
    assert_eq!((&cut["status"], &cut["call"]["outcome"]), (&json!("held"), &json!("unknown")));
}

pub(crate) fn cut(scratch: &Scratch) {
    cut_with(scratch, &arguments());
}

/// tideover with a gateway that serves, and its plugin.
pub(crate) fn serve(scratch: &Scratch) -> (Running, Link) {
    serve_with(scratch, &mut scratch.run_stand_in())
}

pub(crate) fn serve_with(scratch: &Scratch, command: &mut Command) -> (Running, Link) {
    let running = scratch.start_with(command);
    let mut plugin = running.plugin();
    let mut link = running.link();
    link.send_text("!port\n");
    let port = link.read().unwrap();
    plugin.done(json!({ "type": "gateway_start", "incarnation": "i", "port": port }));
    until("the hand-off", || (scratch.status()["phase"] == "handed off").then_some(()));
    (running, plugin)
}

/// `kill -9` of tideover, and with it of its gateway.
pub(crate) fn kill(mut running: Running) {
    let gateway = running.stand_in_pid();
    running.signal(Signal::SIGKILL);
    running.wait();
    until_gone(gateway);
}

/// The turns that the gateway was asked for.
pub(crate) fn agents(scratch: &Scratch) -> Vec<Value> {
    let text = std::fs::read_to_string(scratch.stand_in_dir().join(AGENTS)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The id of the only run that was started.
pub(crate) fn only_run(scratch: &Scratch) -> String {
    let agents = agents(scratch);
    assert_eq!(agents.len(), 1, "{agents:?}");
    agents[0]["idempotencyKey"].as_str().unwrap().to_owned()
}

/// The gateway's answer to the request for a run: it is over.
pub(crate) fn over(scratch: &Scratch, run: &str) {
    std::fs::write(scratch.stand_in_dir().join(format!("{AGENT_ENDED}{run}")), "").unwrap();
}

/// A verb with `--json`, whatever it ends with: its only document.
pub(crate) fn document(scratch: &Scratch, words: &[&str], code: i32) -> Value {
    let output = scratch.verb(&[&["--json"], words].concat());
    assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// What a verb says as text, errors behind the rest.
pub(crate) fn says(scratch: &Scratch, words: &[&str], code: i32) -> String {
    let output = scratch.verb(words);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    assert!(code == 0 || error.starts_with("tideover: "), "{error}");
    String::from_utf8(output.stdout).unwrap() + &error
}

/// The turn of a resume begins.
pub(crate) fn begin(plugin: &mut Link, run: &str) -> Value {
    plugin.done(json!({
        "type": "turn_start", "session": { "key": KEY }, "run_id": run, "origin": "system",
        "text": "our own words",
    }))
}

/// A call in it.
pub(crate) fn call(plugin: &mut Link, run: &str, id: &str, name: &str, arguments: &Value) -> Value {
    plugin.done(json!({
        "type": "tool_intent", "session": { "key": KEY }, "run_id": run, "tool_call_id": id,
        "name": name, "arguments": arguments,
    }))
}

/// A call's result.
pub(crate) fn result(plugin: &mut Link, run: &str, id: &str, outcome: &str) {
    plugin.done(json!({
        "type": "tool_result", "session": { "key": KEY }, "run_id": run, "tool_call_id": id,
        "outcome": outcome,
    }));
}

/// What the disk says of the interruption, once it says so.
pub(crate) fn cut_when(scratch: &Scratch, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(what, || {
        let cut = scratch.record(KEY)?["interruption"].clone();
        wanted(&cut).then_some(cut)
    })
}
