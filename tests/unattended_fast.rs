//! Sessions with no user to ask, with a stand-in for the gateway: all runs of a scheduled job are one session, whose
//! hold is lifted at a shell and by nothing that a run or a session does.

#![cfg(test)]

mod fast;

use fast::{Link, Scratch, intent, until, until_gone};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const JOB: &str = "agent:main:cron:nightly";

/// A run of the job starts, as the plugin reports it.
fn start_run(plugin: &mut Link, run: &str) -> (String, Value) {
    let key = format!("{JOB}:run:{run}");
    let answer = plugin.done(json!({
        "type": "turn_start", "session": { "key": key }, "run_id": run, "origin": "cron",
        "text": format!("[cron:nightly] task of {run}"), "route": null,
    }));
    (key, answer)
}

/// Starts a gateway, has a run of the job cut in its tool, and starts the next gateway.
fn cut_and_back(scratch: &Scratch) -> fast::Running {
    let mut before = scratch.start();
    let mut plugin = before.plugin();
    let (key, _) = start_run(&mut plugin, "r1");
    assert_eq!(plugin.intent(&key, "r1", "c1", &json!({"command": "x"}))["allow"], true);
    let gateway = before.stand_in_pid();
    kill(Pid::from_raw(gateway), Signal::SIGKILL).unwrap();
    until_gone(gateway);
    before.wait();
    scratch.start()
}

fn sessions(scratch: &Scratch) -> Vec<Value> {
    let output = scratch.verb(&["sessions", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    listed["sessions"].as_array().unwrap().clone()
}

#[test]
fn a_hold_of_a_job_meets_its_next_run_and_ends_at_a_shell() {
    let scratch = Scratch::new();
    let running = cut_and_back(&scratch);
    let mut plugin = running.plugin();
    let (key, answer) = start_run(&mut plugin, "r2");
    let text = answer["prepend"].as_str().unwrap_or_default();
    assert!(text.contains("Continue only if user confirms."), "{answer}");
    let blocked = plugin.done(intent(&key, "r2", "c2", &json!({"command": "x"})));
    assert_eq!(blocked["allow"], false, "{blocked}");
    assert!(blocked["reason"].as_str().unwrap().contains("a scheduled job"), "{blocked}");
    plugin.end_turn(&key, "r2");
    // The gateway renews the session of a job by itself.
    plugin.done(json!({ "type": "session_end", "session": { "key": JOB }, "reason": "new" }));

    let all = sessions(&scratch);
    let shown: Vec<_> = all
        .iter()
        .map(|s| (&s["session_key"], &s["kind"], &s["interruption"]["status"], &s["task"]))
        .collect();
    let (job, kind, held) = (json!(JOB), json!("cron"), json!("held"));
    assert_eq!(shown, [(&job, &kind, &held, &json!("[cron:nightly] task of r2"))]);
    let listed = String::from_utf8(scratch.verb(&["sessions"]).stdout).unwrap();
    assert!(listed.contains("KIND") && listed.contains("cron"), "{listed}");
    assert_eq!(scratch.status()["sessions"]["unattended"], json!([JOB]));
    let status = String::from_utf8(scratch.verb(&["status"]).stdout).unwrap();
    assert!(status.contains("1 of the held have no user to ask"), "{status}");

    // The key of one run, as the gateway shows it, is as good.
    assert!(scratch.verb(&["sessions", "release", &key]).status.success());
    let (key, answer) = start_run(&mut plugin, "r3");
    assert_eq!(answer["prepend"], Value::Null, "{answer}");
    assert_eq!(plugin.intent(&key, "r3", "c3", &json!({"command": "x"}))["allow"], true);
    assert_eq!(scratch.status()["sessions"]["interrupted"], json!([]));
    running.ends_with(0);
}

#[test]
fn left_to_the_gateway_it_is_marked_and_not_held() {
    let scratch = Scratch::new();
    scratch.configure("[recovery]\nunattended = \"native\"\n");
    let running = cut_and_back(&scratch);
    let mut plugin = running.plugin();
    let cut =
        until("the mark", || scratch.record(JOB).map(|record| record["interruption"].clone()));
    assert_eq!(
        (&cut["status"], &cut["released_by"]),
        (&json!("released"), &json!("policy")),
        "{cut}"
    );
    let recovery = json!({ "type": "recovery_turn", "session": { "key": JOB } });
    assert_eq!(plugin.done(recovery)["claim"], false);
    let person = json!({ "type": "recovery_turn", "session": { "key": "agent:main:main" } });
    assert_eq!(plugin.done(person)["claim"], true);
    let (key, answer) = start_run(&mut plugin, "r2");
    assert_eq!(answer["prepend"], Value::Null, "{answer}");
    assert_eq!(plugin.intent(&key, "r2", "c2", &json!({"command": "x"}))["allow"], true);
    running.ends_with(0);
}
