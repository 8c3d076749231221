//! One word, one permit, one call: whoever is in a hurry, cheats, or is killed in between.

#![cfg(test)]

mod fast;
#[path = "fast/resume.rs"]
mod resume;

use std::path::PathBuf;
use std::process::Stdio;

use fast::{Link, Running, Scratch, until};
use resume::{
    KEY, agents, arguments, begin, call, cut, cut_when, document, kill, only_run, over, result,
    says, serve,
};
use serde_json::{Value, json};

/// A word was said and the gateway has taken the turn.
fn granted(scratch: &Scratch) -> (Running, Link, String) {
    cut(scratch);
    let (running, plugin) = serve(scratch);
    says(scratch, &["resume", KEY, "--yes"], 0);
    let run = only_run(scratch);
    (running, plugin, run)
}

/// A call that must not run; the words that the model reads.
fn refused(plugin: &mut Link, run: &str, id: &str, name: &str, arguments: &Value) -> String {
    let answer = call(plugin, run, id, name, arguments);
    assert_eq!(answer["allow"], false, "{answer}");
    result(plugin, run, id, "blocked");
    answer["reason"].as_str().unwrap().to_owned()
}

/// From now on no checkpoint can be written. What still was under way when this came may have been.
fn break_disk(scratch: &Scratch) -> PathBuf {
    let sessions = scratch.state().join("sessions");
    until("a file in the directory's place", || {
        std::fs::remove_dir_all(&sessions).ok()?;
        std::fs::write(&sessions, "a file").ok()
    });
    sessions
}

#[test]
fn of_words_at_the_same_moment_one_counts() {
    let scratch = Scratch::new();
    cut(&scratch);
    let (running, _plugin) = serve(&scratch);
    let shells: Vec<_> = (0..4)
        .map(|_| {
            let mut shell = scratch.tideover();
            shell.args(["resume", KEY, "--yes", "--json"]);
            shell.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let mut codes = Vec::new();
    for shell in shells {
        let output = shell.wait_with_output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        if output.status.code() == Some(5) {
            assert_eq!(document["refusal"]["why"], "under_way", "{document}");
        }
        codes.push(output.status.code().unwrap());
    }
    codes.sort_unstable();
    assert_eq!(codes, [0, 5, 5, 5]);
    only_run(&scratch);
    running.ends_with(0);
}

#[test]
fn a_model_that_cheats_gets_the_recorded_call_once_and_nothing_beside_it() {
    let scratch = Scratch::new();
    let (running, mut plugin, run) = granted(&scratch);
    // Another run of the session is held as before.
    let other = call(&mut plugin, "other", "c0", "exec", &arguments());
    assert_eq!(other["allow"], false, "{other}");
    begin(&mut plugin, &run);
    let first = refused(&mut plugin, &run, "c1", "write", &json!({ "path": "/x", "content": "y" }));
    assert!(first.contains("Call `exec` now"), "{first}");
    let allowed = call(&mut plugin, &run, "c2", "exec", &json!({ "command": "./other.sh" }));
    assert_eq!((&allowed["allow"], &allowed["durable"]), (&json!(true), &json!(true)));
    assert_eq!(allowed["arguments"], arguments());
    let stored = scratch.record(KEY).unwrap()["last_tool_call"].clone();
    assert_eq!((&stored["arguments"], &stored["tool_call_id"]), (&arguments(), &json!("c2")));
    for (id, name) in [("c3", "exec"), ("c4", "read"), ("c2", "exec")] {
        let answer = call(&mut plugin, &run, id, name, &arguments());
        assert_eq!(answer["allow"], false, "{id}: {answer}");
        assert!(answer["reason"].as_str().unwrap().contains("still running"), "{answer}");
    }
    result(&mut plugin, &run, "c2", "ok");
    let again = refused(&mut plugin, &run, "c5", "exec", &arguments());
    assert!(again.contains("no further run of it"), "{again}");
    // The keys in another order are the same call.
    let turned = json!({ "n": 1.5, "command": arguments()["command"] });
    refused(&mut plugin, &run, "c6", "exec", &turned);
    // What comes after it in the task is the session's own affair: the hold is lifted.
    let next = call(&mut plugin, &run, "c7", "exec", &json!({ "command": "./next.sh" }));
    assert_eq!((&next["allow"], &next["arguments"]), (&json!(true), &Value::Null));
    result(&mut plugin, &run, "c7", "ok");
    plugin.end_turn(KEY, &run);
    over(&scratch, &run);
    cut_when(&scratch, "the end", |cut| cut["resume"]["stage"] == "ended");
    running.ends_with(0);
}

#[test]
fn the_gateways_own_tools_may_look_and_not_speak() {
    let scratch = Scratch::new();
    cut(&scratch);
    let (running, _plugin) = serve(&scratch);
    let before = scratch.record(KEY).unwrap();
    let ask = |choice: &str| {
        // Through the stand-in: the connection is the gateway's.
        let mut link = running.link();
        link.hello_cli();
        link.ask(json!({ "type": "resume", "key": KEY, "choice": choice }))
    };
    let shown = ask("show");
    assert_eq!((&shown["ok"], &shown["result"]["decision"]), (&json!(true), &json!("confirm")));
    for choice in ["ask", "yes", "done", "skip", "list"] {
        assert_eq!(ask(choice)["error"]["code"], "refused", "{choice}");
    }
    assert_eq!(scratch.record(KEY).unwrap(), before);
    assert_eq!(agents(&scratch), Vec::<Value>::new());
    running.ends_with(0);
}

#[test]
fn a_permit_that_is_not_on_disk_as_spent_runs_nothing() {
    let scratch = Scratch::new();
    let (running, mut plugin, run) = granted(&scratch);
    begin(&mut plugin, &run);
    let sessions = break_disk(&scratch);
    let answer = call(&mut plugin, &run, "c1", "exec", &arguments());
    assert_eq!((&answer["durable"], &answer["allow"]), (&json!(false), &json!(false)), "{answer}");
    // The disk is well again; what may have been let through is not let through once more.
    std::fs::remove_file(&sessions).unwrap();
    let answer = call(&mut plugin, &run, "c2", "exec", &arguments());
    assert_eq!(answer["allow"], false, "{answer}");
    running.ends_with(0);
}

#[test]
fn a_word_that_is_not_on_disk_starts_nothing() {
    let scratch = Scratch::new();
    cut(&scratch);
    let (running, _plugin) = serve(&scratch);
    break_disk(&scratch);
    let refused = document(&scratch, &["resume", KEY, "--yes"], 1);
    assert!(refused["error"].as_str().unwrap().contains("nothing was started"), "{refused}");
    assert_eq!(agents(&scratch), Vec::<Value>::new());
    running.ends_with(0);
}

/// What the next start makes of a kill: a new incident with a notice, a question, and nothing run by itself.
fn asks_again(scratch: &Scratch, attempt: u32, before: &Value) {
    let told = || {
        let text = std::fs::read_to_string(scratch.stand_in_dir().join("sends"));
        text.unwrap_or_default().lines().count()
    };
    let told_before = told();
    let (running, mut plugin) = serve(scratch);
    let cut = cut_when(scratch, "the notice", |cut| cut["notice"] == "sent");
    assert_eq!((&cut["status"], &cut["call"]["attempt"]), (&json!("held"), &json!(attempt)));
    assert_ne!(cut["id"], before["id"]);
    assert_eq!((&cut["resume"], &cut["settled"]), (&Value::Null, &Value::Null));
    until("the message", || (told() == told_before + 1).then_some(()));
    // The run that was started is not known any more.
    let old = only_run(scratch);
    begin(&mut plugin, &old);
    let stale = call(&mut plugin, &old, "stale", "exec", &arguments());
    assert_eq!(stale["allow"], false, "{stale}");
    plugin.end_turn(KEY, &old);
    assert_eq!(document(scratch, &["resume", KEY], 5)["decision"], "confirm");
    assert_eq!(agents(scratch).len(), 1, "nothing runs by itself");

    says(scratch, &["resume", KEY, "--yes"], 0);
    let run = agents(scratch)[1]["idempotencyKey"].as_str().unwrap().to_owned();
    assert_ne!(run, old);
    begin(&mut plugin, &run);
    let allowed = call(&mut plugin, &run, "c", "exec", &json!({}));
    assert_eq!((&allowed["allow"], &allowed["arguments"]), (&json!(true), &arguments()));
    running.ends_with(0);
}

#[test]
fn a_kill_between_the_word_and_the_turn_makes_it_void() {
    let scratch = Scratch::new();
    let (running, _plugin, _run) = granted(&scratch);
    kill(running);
    let before = scratch.record(KEY).unwrap()["interruption"].clone();
    assert_eq!(before["resume"]["stage"], "granted");
    asks_again(&scratch, 1, &before);
}

#[test]
fn a_kill_in_the_call_that_was_let_through_is_a_new_unknown() {
    let scratch = Scratch::new();
    let (running, mut plugin, run) = granted(&scratch);
    begin(&mut plugin, &run);
    assert_eq!(call(&mut plugin, &run, "c", "exec", &arguments())["allow"], true);
    kill(running);
    let before = scratch.record(KEY).unwrap()["interruption"].clone();
    assert_eq!(before["resume"]["stage"], "spent");
    asks_again(&scratch, 2, &before);
}
