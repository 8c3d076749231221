//! `tideover resume` with and without a supervisor: what it says, what it does, and how it ends.

#![cfg(test)]

mod fast;
#[path = "fast/resume.rs"]
mod resume;

use std::process::{Command, Stdio};

use fast::Scratch;
use fast::turns::AGENT_REFUSED;
use resume::{
    KEY, agents, arguments, begin, call, cut, cut_when, cut_with, document, only_run, over, result,
    says, serve,
};
use serde_json::{Value, json};

/// The commands that come next, for [`KEY`].
fn next(words: &[&str]) -> Value {
    words.iter().map(|word| format!("tideover resume '{KEY}' --{word}")).collect()
}

#[test]
fn a_word_at_the_shell_runs_the_call_once() {
    let scratch = Scratch::new();
    cut(&scratch);
    let (running, mut plugin) = serve(&scratch);
    let said = says(&scratch, &["resume", KEY], 5);
    for words in [
        "Task: task of first",
        "Last action: `exec {\"command\":\"./deploy-resume-fast.sh --all\",\"n\":1.5}`",
        "Outcome: unknown",
        "the gateway ended unexpectedly",
        &format!("\n  tideover resume '{KEY}' --yes   # run it again, once"),
        &format!("\n  tideover resume '{KEY}' --done   # it has happened"),
        &format!("\n  tideover resume '{KEY}' --skip   # drop it"),
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let asked = document(&scratch, &["resume", KEY], 5);
    assert_eq!(asked["schema"], "tideover.resume/1");
    assert_eq!((&asked["session_key"], &asked["running"]), (&json!(KEY), &json!(true)));
    assert_eq!(
        (&asked["decision"], &asked["needs_confirmation"]),
        (&json!("confirm"), &json!(true))
    );
    assert_eq!((&asked["exit_code"], &asked["started"]), (&json!(5), &json!(false)));
    assert_eq!(asked["next"], next(&["yes", "done", "skip"]));
    assert_eq!(asked["session"]["interruption"]["call"]["arguments"], arguments());
    assert!(says(&scratch, &["sessions"], 0).contains("held, resume"));
    let shown = says(&scratch, &["sessions", "show", KEY], 0);
    assert!(shown.contains(&format!("tideover resume '{KEY}'")), "{shown}");
    assert_eq!(agents(&scratch), Vec::<Value>::new(), "looking does nothing");

    let begun = says(&scratch, &["resume", KEY, "--yes"], 0);
    assert!(
        begun.contains("Outcome: unknown") && begun.contains("Begun: it runs again"),
        "{begun}"
    );
    let run = only_run(&scratch);
    let asked = &agents(&scratch)[0];
    assert_eq!((&asked["sessionKey"], &asked["deliver"]), (&json!(KEY), &json!(true)));
    assert_eq!((&asked["channel"], &asked["to"]), (&json!("telegram"), &json!("telegram:1")));
    let message = asked["message"].as_str().unwrap();
    assert!(message.starts_with("Session was interrupted. Last action: exec {"), "{message}");
    assert!(says(&scratch, &["sessions"], 0).contains("resume under way"));
    let busy = document(&scratch, &["resume", KEY, "--yes"], 5);
    assert_eq!(busy["refusal"]["why"], "under_way", "{busy}");

    begin(&mut plugin, &run);
    let allowed = call(&mut plugin, &run, "again", "exec", &json!({ "command": "rm -rf /" }));
    assert_eq!((&allowed["allow"], &allowed["arguments"]), (&json!(true), &arguments()));
    let spent = &scratch.record(KEY).unwrap()["interruption"]["resume"];
    assert_eq!((&spent["stage"], &spent["from"]), (&json!("spent"), &json!("shell")));
    result(&mut plugin, &run, "again", "ok");
    plugin.end_turn(KEY, &run);
    over(&scratch, &run);
    let cut = cut_when(&scratch, "the end", |cut| cut["resume"]["stage"] == "ended");
    assert_eq!((&cut["settled"]["how"], &cut["call"]["attempt"]), (&json!("rerun"), &json!(2)));
    assert!(says(&scratch, &["sessions"], 0).contains("settled: rerun"));
    let shown = says(&scratch, &["sessions", "show", KEY], 0);
    assert!(shown.contains("settled: rerun") && !shown.contains("tideover resume"), "{shown}");
    let again = document(&scratch, &["resume", KEY, "--yes"], 5);
    assert_eq!(again["refusal"]["why"], "settled");
    assert_eq!(again["next"], json!([format!("tideover sessions show '{KEY}'")]));
    assert_eq!(agents(&scratch).len(), 1);
    running.ends_with(0);
}

#[test]
fn what_is_not_there_is_not_found_and_two_words_are_no_word() {
    let scratch = Scratch::new();
    for choice in ["--yes", "--done", "--skip"] {
        says(&scratch, &["resume", KEY, choice], 4);
    }
    assert!(!scratch.state().exists(), "asking makes nothing");
    assert_eq!(scratch.verb(&["resume", KEY, "--yes", "--skip"]).status.code(), Some(2));
    assert_eq!(scratch.verb(&["resume"]).status.code(), Some(2));
    let (running, mut plugin) = serve(&scratch);
    plugin.turn("idle", "r");
    plugin.end_turn("idle", "r");
    let none = document(&scratch, &["resume", "idle", "--yes"], 4);
    assert_eq!(none["refusal"]["why"], "nothing_cut");
    let unknown = document(&scratch, &["resume", "no such"], 4);
    assert_eq!(
        (&unknown["schema"], &unknown["exit_code"]),
        (&json!("tideover.error/1"), &json!(4))
    );
    says(&scratch, &["resume", "--", &"x".repeat(10_000)], 4);
    running.ends_with(0);
    says(&scratch, &["resume", "idle"], 4);
}

#[test]
fn without_a_gateway_a_word_is_recorded_or_waits_for_it() {
    for (choice, how, decision) in [("--done", "done", "done"), ("--skip", "skipped", "skip")] {
        let scratch = Scratch::new();
        cut(&scratch);
        let before = scratch.record(KEY).unwrap();
        let asked = document(&scratch, &["resume", KEY], 5);
        assert_eq!((&asked["running"], &asked["decision"]), (&json!(false), &json!("confirm")));
        assert_eq!(asked["next"], next(&["yes", "done", "skip"]));
        let needs = document(&scratch, &["resume", KEY, "--yes"], 3);
        assert_eq!(needs["next"][0], "systemctl --user start openclaw-gateway");
        assert_eq!(needs["next"][1], next(&["yes"])[0]);
        assert_eq!(scratch.record(KEY).unwrap(), before, "nothing was recorded");

        let done = document(&scratch, &["resume", KEY, choice], 0);
        assert_eq!((&done["decision"], &done["started"]), (&json!(decision), &json!(false)));
        let record = scratch.record(KEY).unwrap();
        let cut = &record["interruption"];
        assert_eq!((&cut["settled"]["how"], &cut["status"]), (&json!(how), &json!("released")));
        assert_eq!(cut["resume"], Value::Null);
        for again in ["--yes", "--done", "--skip"] {
            let why = &document(&scratch, &["resume", KEY, again], 5)["refusal"]["why"];
            assert_eq!(why, "settled");
        }
        let (running, _plugin) = serve(&scratch);
        assert_eq!(document(&scratch, &["resume", KEY], 5)["refusal"]["why"], "settled");
        assert_eq!(agents(&scratch), Vec::<Value>::new());
        running.ends_with(0);
    }
}

#[test]
fn what_a_kill_left_open_is_shown_and_marked_by_the_next_start_alone() {
    let scratch = Scratch::new();
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn(KEY, "first");
    plugin.intent(KEY, "first", "call", &arguments());
    resume::kill(running);
    let before = scratch.record(KEY).unwrap();
    assert!(says(&scratch, &["resume", KEY], 5).contains("deploy-resume-fast.sh"));
    says(&scratch, &["resume", KEY, "--yes"], 3);
    for choice in ["--done", "--skip"] {
        let said = says(&scratch, &["resume", KEY, choice], 5);
        assert!(said.contains("systemctl --user start openclaw-gateway"), "{said}");
    }
    assert_eq!(scratch.record(KEY).unwrap(), before);
    let (running, _plugin) = serve(&scratch);
    says(&scratch, &["resume", KEY, "--skip"], 0);
    assert!(says(&scratch, &["sessions"], 0).contains("settled: skipped"));
    running.ends_with(0);
}

#[test]
fn with_a_gateway_done_goes_on_and_skip_does_not() {
    let scratch = Scratch::new();
    cut(&scratch);
    let (running, mut plugin) = serve(&scratch);
    assert!(says(&scratch, &["resume", KEY, "--done"], 0).contains("the task goes on"));
    let run = only_run(&scratch);
    let message = agents(&scratch)[0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("did take effect. Do not run it again"), "{message}");
    begin(&mut plugin, &run);
    let refused = call(&mut plugin, &run, "again", "exec", &arguments());
    assert_eq!(refused["allow"], false, "{refused}");
    running.ends_with(0);

    let scratch = Scratch::new();
    cut(&scratch);
    let (running, _plugin) = serve(&scratch);
    let done = document(&scratch, &["resume", KEY, "--skip"], 0);
    assert_eq!((&done["decision"], &done["run_id"]), (&json!("skip"), &Value::Null));
    assert_eq!(agents(&scratch), Vec::<Value>::new());
    running.ends_with(0);
}

#[test]
fn the_configuration_says_when_one_more_word_is_needed() {
    // Never: to ask is to confirm.
    let scratch = Scratch::new();
    scratch.configure("[resume]\nconfirm = \"never\"\n");
    cut(&scratch);
    assert_eq!(document(&scratch, &["resume", KEY], 3)["decision"], "rerun");
    let (running, _plugin) = serve(&scratch);
    let begun = document(&scratch, &["resume", KEY], 0);
    assert_eq!((&begun["decision"], &begun["started"]), (&json!("rerun"), &json!(true)));
    assert_eq!(begun["run_id"], only_run(&scratch).as_str());
    running.ends_with(0);

    // A call that has answered is gone on from, unless `always` asks.
    for (confirm, code) in [("unknown", 0), ("always", 5)] {
        let scratch = Scratch::new();
        scratch.configure(format!("[resume]\nconfirm = \"{confirm}\"\n"));
        let running = scratch.start();
        let mut plugin = running.plugin();
        plugin.turn(KEY, "first");
        plugin.intent(KEY, "first", "call", &arguments());
        result(&mut plugin, "first", "call", "ok");
        running.ends_with(1);
        let (running, _plugin) = serve(&scratch);
        let said = says(&scratch, &["resume", KEY], code);
        let wanted = if code == 0 { "nothing is run again" } else { "--yes   # go on from its" };
        assert!(said.contains(wanted), "{said}");
        assert_eq!(agents(&scratch).len(), usize::from(code == 0));
        running.ends_with(0);
    }
}

#[test]
fn what_cannot_be_run_again_says_why_and_what_can_be_said_instead() {
    let scratch = Scratch::new();
    scratch.configure("[checkpoint]\nredact = [\"token\"]\n");
    cut_with(&scratch, &json!({ "command": "./deploy.sh", "token": "s3cret" }));
    let (running, _plugin) = serve(&scratch);
    for words in [&["resume", KEY][..], &["resume", KEY, "--yes"]] {
        let refused = document(&scratch, words, 5);
        assert_eq!(refused["next"], next(&["done", "skip"]), "{refused}");
        assert!(refused["error"].as_str().unwrap().contains("token was never stored"), "{refused}");
    }
    running.ends_with(0);

    let scratch = Scratch::new();
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn(KEY, "first");
    plugin.intent(KEY, "first", "call", &json!({ "command": "sleep 300.4711" }));
    let mut command = Command::new("sleep").arg("300.4711").stdin(Stdio::null()).spawn().unwrap();
    running.ends_with(1);
    let pid = command.id();
    let offline = document(&scratch, &["resume", KEY], 5);
    assert_eq!(offline["facts"]["running"]["pid"], pid, "{offline}");
    let (running, _plugin) = serve(&scratch);
    for words in [&["resume", KEY][..], &["resume", KEY, "--yes"]] {
        let refused = document(&scratch, words, 5);
        assert_eq!(refused["next"], next(&["done", "skip"]), "{refused}");
        assert!(refused["error"].as_str().unwrap().contains(&format!("(pid {pid})")), "{refused}");
    }
    assert_eq!(agents(&scratch), Vec::<Value>::new());
    command.kill().unwrap();
    command.wait().unwrap();
    says(&scratch, &["resume", KEY, "--yes"], 0);
    running.ends_with(0);
}

#[test]
fn a_turn_that_is_not_taken_runs_nothing_and_says_so() {
    let scratch = Scratch::new();
    scratch.configure("[resume]\nconfirm = \"never\"\n");
    cut(&scratch);
    let running = scratch.start();
    let before = scratch.record(KEY).unwrap()["interruption"].clone();
    for words in [&["resume", KEY][..], &["resume", KEY, "--yes"], &["resume", KEY, "--done"]] {
        assert!(says(&scratch, words, 1).contains("does not serve yet"));
    }
    assert_eq!(scratch.record(KEY).unwrap()["interruption"], before);
    running.ends_with(0);

    let (running, _plugin) = serve(&scratch);
    std::fs::write(scratch.stand_in_dir().join(AGENT_REFUSED), "").unwrap();
    let refused = document(&scratch, &["resume", KEY, "--yes"], 1);
    assert!(refused["error"].as_str().unwrap().contains("did not take the turn"), "{refused}");
    assert_eq!(refused["next"], next(&["yes"]));
    cut_when(&scratch, "the lapse", |cut| cut["resume"]["stage"] == "lapsed");
    // Who asked knows it by the answer; the chat, which did not ask, hears nothing.
    document(&scratch, &["resume", KEY, "--yes"], 1);
    let sends = std::fs::read_to_string(scratch.stand_in_dir().join("sends")).unwrap_or_default();
    assert!(!sends.contains("Nothing was run again"), "{sends}");
    running.ends_with(0);
}
