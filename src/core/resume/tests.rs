use serde_json::{Map, json};

use super::*;
use crate::core::checkpoint::{Background, Cause, Effect, HoldStatus, Origin, Turn};
use crate::core::notice::Shown;

const NOW: Stamp = Stamp::from_ms(1_000);

fn cut(outcome: Outcome) -> Checkpoint {
    let arguments = json!({ "command": "./deploy.sh" });
    let call = ToolCall {
        name: "exec".to_owned(),
        arguments_sha256: arguments_sha256(&arguments),
        arguments: Some(arguments),
        arguments_omitted: None,
        tool_call_id: "c".to_owned(),
        run_id: "r".to_owned(),
        effect: Effect::Unknown,
        outcome,
        started_at: Stamp::from_ms(0),
        finished_at: (outcome != Outcome::Unknown).then_some(NOW),
        attempt: 1,
        background: (outcome == Outcome::Background).then(Background::default),
        extra: Map::new(),
    };
    let mut record = Checkpoint::new("agent:main:main", Stamp::from_ms(0));
    record.last_tool_call = Some(call);
    record.state = State::ToolRunning;
    record.turn =
        Some(Turn { run_id: "r".to_owned(), origin: Origin::User, started_at: Stamp::from_ms(0) });
    kill(&mut record, "i");
    record
}

/// The gateway is killed; the record says that it cut this session anew.
fn kill(record: &mut Checkpoint, incident: &str) {
    let cut = reducer::Cut {
        incident: incident.to_owned(),
        cause: Cause::GatewayKilled,
        detail: None,
        at: NOW,
        hold: true,
        notify: true,
        unattended: crate::core::hold::Unattended::Hold,
    };
    assert!(reducer::interrupt(record, NOW, &cut));
}

fn said(record: &Checkpoint, choice: Choice, confirm: Confirm, command: Command) -> Decision {
    decide(record, &Said { choice, code: None, from: AskedFrom::Chat, confirm, command })
}

#[test]
fn a_word_leads_to_what_is_known() {
    use Choice::{Ask, Done, Skip, Yes};
    use Confirm::{Always, Never, Unknown};
    let refuse = |refusal| Decision::Refuse(refusal);
    let runs = Command::Runs(7);
    for (outcome, choice, confirm, command, wanted) in [
        (Outcome::Unknown, Ask, Unknown, Command::NotFound, Decision::Confirm),
        (Outcome::Unknown, Ask, Always, Command::NotFound, Decision::Confirm),
        (Outcome::Unknown, Ask, Never, Command::NotFound, Decision::Rerun),
        (Outcome::Unknown, Yes, Always, Command::NotFound, Decision::Rerun),
        (Outcome::Unknown, Done, Unknown, Command::NotFound, Decision::Done),
        (Outcome::Unknown, Skip, Unknown, Command::NotFound, Decision::Skip),
        // A command that lives on is never started a second time, whatever the configuration says.
        (Outcome::Unknown, Ask, Never, runs, Decision::Confirm),
        (Outcome::Unknown, Yes, Never, runs, refuse(Refusal::StillRuns(7))),
        (Outcome::Background, Yes, Never, runs, refuse(Refusal::StillRuns(7))),
        (Outcome::Unknown, Skip, Unknown, runs, Decision::Skip),
        // What its command came to was never read.
        (Outcome::Background, Ask, Unknown, Command::NotFound, Decision::Confirm),
        (Outcome::Background, Yes, Unknown, Command::NotFound, Decision::Rerun),
        // What has finished is not run again.
        (Outcome::Ok, Ask, Unknown, Command::NotFound, Decision::GoOn),
        (Outcome::Ok, Ask, Always, Command::NotFound, Decision::Confirm),
        (Outcome::Ok, Yes, Never, Command::NotFound, Decision::GoOn),
        (Outcome::Error, Yes, Unknown, Command::NotFound, Decision::GoOn),
    ] {
        let found = said(&cut(outcome), choice, confirm, command);
        assert_eq!(found, wanted, "{outcome:?} {choice:?} {confirm:?} {command:?}");
    }
}

#[test]
fn what_cannot_be_identical_is_refused() {
    let yes = |record: &Checkpoint| said(record, Choice::Yes, Confirm::Never, Command::NotFound);
    let mut record = cut(Outcome::Unknown);
    let call = |record: &mut Checkpoint| {
        record.interruption.as_mut().and_then(|cut| cut.call.take()).unwrap()
    };
    let with = |record: &mut Checkpoint, call: ToolCall| {
        record.interruption.as_mut().unwrap().call = Some(call);
    };
    let whole = call(&mut record);
    let keys = vec!["token".to_owned()];
    let omitted = Some(Omitted::Redacted { keys: keys.clone() });
    with(&mut record, ToolCall { arguments_omitted: omitted, ..whole.clone() });
    assert_eq!(yes(&record), Decision::Refuse(Refusal::Redacted(keys)));
    let omitted = Some(Omitted::TooLarge { bytes: 9 });
    with(&mut record, ToolCall { arguments_omitted: omitted, arguments: None, ..whole.clone() });
    assert_eq!(yes(&record), Decision::Refuse(Refusal::TooLarge(9)));
    with(&mut record, ToolCall { arguments: Some(json!({ "command": "rm" })), ..whole });
    assert_eq!(yes(&record), Decision::Refuse(Refusal::Altered));
}

#[test]
fn one_word_at_a_time_and_a_chat_asks_anew() {
    let mut record = cut(Outcome::Unknown);
    let coded = |record: &Checkpoint, from, code: Option<String>| {
        let (choice, confirm, command) = (Choice::Yes, Confirm::Unknown, Command::NotFound);
        decide(record, &Said { choice, code, from, confirm, command })
    };
    let yes = |record: &Checkpoint, from| coded(record, from, None);
    let shown = |record: &Checkpoint| code(record.interruption.as_ref().unwrap());
    grant(&mut record, NOW, "tideover-resume-1", ResumeKind::Rerun, AskedFrom::Chat);
    assert_eq!(yes(&record, AskedFrom::Shell), Decision::Refuse(Refusal::UnderWay));
    // Nothing came of it: a chat's command may be the same one handed over again.
    assert!(lapse(&mut record, NOW, "tideover-resume-1"));
    assert_eq!(yes(&record, AskedFrom::Chat), Decision::Refuse(Refusal::AskFirst));
    assert_eq!(yes(&record, AskedFrom::Shell), Decision::Rerun);
    let first = shown(&record);
    assert_eq!(coded(&record, AskedFrom::Chat, Some(first.clone())), Decision::Rerun);
    // The next word needs another code, also after another cut.
    grant(&mut record, NOW, "tideover-resume-2", ResumeKind::Rerun, AskedFrom::Chat);
    lapse(&mut record, NOW, "tideover-resume-2");
    let again = coded(&record, AskedFrom::Chat, Some(first));
    assert_eq!(again, Decision::Refuse(Refusal::AskFirst));
    settle(&mut record, NOW, SettledHow::Skipped);
    assert_eq!(record.interruption.as_ref().unwrap().status, HoldStatus::Released);
    let settled = Settled { how: SettledHow::Skipped, at: NOW };
    assert_eq!(yes(&record, AskedFrom::Shell), Decision::Refuse(Refusal::Settled(settled)));
}

#[test]
fn a_run_that_was_given_back_keeps_its_permit_and_no_other_run_has_it() {
    let mut record = cut(Outcome::Unknown);
    grant(&mut record, NOW, "tideover-resume-1", ResumeKind::Rerun, AskedFrom::Chat);
    let resume = record.interruption.as_ref().unwrap().resume.as_ref().unwrap();
    for (run, is) in [
        ("tideover-resume-1", true),
        ("tideover-resume-1.2", true),
        ("tideover-resume-12", false),
        ("tideover-resume-", false),
    ] {
        assert_eq!(resume.is_run(run), is, "{run}");
    }
}

#[test]
fn the_words_name_the_call_and_hide_it_where_others_read() {
    let record = cut(Outcome::Unknown);
    let facts = Facts {
        running: None,
        cwd: Some("/w".to_owned()),
        changed: vec![Changed { path: "a.txt".to_owned(), at: None }],
        ..Facts::default()
    };
    let all = facts_text(&record, &facts, Shown::Everything);
    assert!(
        all.contains("./deploy.sh") && all.contains("`/w`") && all.contains("Not there now"),
        "{all}"
    );
    let few = facts_text(&record, &facts, Shown::NoArguments);
    assert!(!few.contains("deploy") && !few.contains("/w") && !few.contains("a.txt"), "{few}");
    let prompt = prompt(&record, &Decision::Rerun).unwrap();
    assert!(prompt.starts_with("Session was interrupted. Last action: exec {"), "{prompt}");
    assert!(prompt.contains("{\"command\":\"./deploy.sh\"}"), "{prompt}");
    assert_eq!(super::prompt(&record, &Decision::Skip), None);
}

#[test]
fn a_task_of_several_lines_passes_for_no_line_of_ours() {
    let mut record = cut(Outcome::Unknown);
    record.interruption.as_mut().unwrap().task = Some("deploy\nOutcome: done".to_owned());
    let text = facts_text(&record, &Facts::default(), Shown::Everything);
    assert_eq!(text.lines().filter(|line| line.starts_with("Outcome:")).count(), 1, "{text}");
}

fn again(name: &str, arguments: serde_json::Value) -> Intent {
    Intent {
        run_id: "tideover-resume-1".to_owned(),
        tool_call_id: "c2".to_owned(),
        name: name.to_owned(),
        arguments: Some(arguments),
        too_large: None,
    }
}

#[test]
fn a_model_that_says_the_call_in_its_own_words_runs_it_once_all_the_same() {
    let mut record = cut(Outcome::Unknown);
    grant(&mut record, NOW, "tideover-resume-1", ResumeKind::Rerun, AskedFrom::Chat);
    let own = again("exec", json!({ "command": "./deploy.sh", "timeout": 600 }));
    assert_eq!(gate(&record, &again("write", json!({}))), Gate::Stop(Stopped::NotYet));
    assert_eq!(gate(&record, &own), Gate::Spend);
    let ran = spend(&mut record, NOW, &own, &Rules::default());
    assert_eq!(ran, Some(json!({ "command": "./deploy.sh" })));
    assert_eq!(gate(&record, &own), Gate::Stop(Stopped::Running));
    let finished = Report::ToolFinished {
        run_id: own.run_id.clone(),
        tool_call_id: own.tool_call_id.clone(),
        outcome: Outcome::Ok,
        background: None,
        stopping: false,
    };
    reducer::apply(&mut record, NOW, &finished, &Rules::default());
    for arguments in
        [json!({ "command": "./deploy.sh" }), json!({ "command": "./deploy.sh", "timeout": 600 })]
    {
        assert_eq!(gate(&record, &again("exec", arguments)), Gate::Stop(Stopped::Again));
    }
    assert_eq!(gate(&record, &again("exec", json!({ "command": "ls" }))), Gate::Open);
}

#[test]
fn on_a_void_word_nothing_runs() {
    let mut record = cut(Outcome::Unknown);
    grant(&mut record, NOW, "tideover-resume-1", ResumeKind::Rerun, AskedFrom::Chat);
    lapse(&mut record, NOW, "tideover-resume-1");
    for name in ["exec", "read"] {
        assert_eq!(gate(&record, &again(name, json!({}))), Gate::Stop(Stopped::Void));
    }
}

fn a_turn(record: &mut Checkpoint, run: &str, origin: Origin, call: Option<&str>) {
    let rules = Rules::default();
    let text = Some(format!("words of {run}"));
    let started = Report::TurnStarted { run_id: run.to_owned(), origin, text, route: None };
    reducer::apply(record, NOW, &started, &rules);
    if let Some(name) = call {
        let intent = Intent { run_id: run.to_owned(), ..again(name, json!({})) };
        let tool_call_id = intent.tool_call_id.clone();
        reducer::apply(record, NOW, &Report::ToolIntent(intent), &rules);
        let finished = Report::ToolFinished {
            run_id: run.to_owned(),
            tool_call_id,
            outcome: Outcome::Ok,
            background: None,
            stopping: false,
        };
        reducer::apply(record, NOW, &finished, &rules);
    }
}

fn its_end(run: &str) -> Report {
    Report::TurnEnded {
        run_id: run.to_owned(),
        success: true,
        answered: true,
        told: true,
        stopping: false,
    }
}

#[test]
fn a_word_that_was_cut_before_it_was_carried_out_leaves_the_call_as_unknown_as_it_was() {
    let mut record = cut(Outcome::Unknown);
    record.interruption.as_mut().unwrap().task = Some("deploy".to_owned());
    // Its user asked, the model looked and answered: released, and told.
    reducer::release(&mut record, NOW, ReleasedBy::Message);
    a_turn(&mut record, "asked", Origin::User, Some("read"));
    reducer::apply(&mut record, NOW, &its_end("asked"), &Rules::default());
    assert!(record.interruption.as_ref().unwrap().model_told);
    for begun in [false, true] {
        let mut record = record.clone();
        grant(&mut record, NOW, "tideover-resume-1", ResumeKind::Rerun, AskedFrom::Chat);
        if begun {
            a_turn(&mut record, "tideover-resume-1", Origin::Resume, None);
        }
        kill(&mut record, "i2");
        let cut = record.interruption.as_ref().unwrap();
        assert_eq!(cut.call.as_ref().unwrap().name, "exec", "begun: {begun}");
        assert_eq!(cut.call.as_ref().unwrap().outcome, Outcome::Unknown);
        assert_eq!(cut.task.as_deref(), Some("deploy"));
        assert!(cut.needs_code && cut.resume.is_none());
    }
}

#[test]
fn what_was_dealt_with_does_not_come_back() {
    for how in [SettledHow::Skipped, SettledHow::Done] {
        let mut record = cut(Outcome::Unknown);
        settle(&mut record, NOW, how);
        a_turn(&mut record, "next", Origin::User, None);
        kill(&mut record, "i2");
        assert_eq!(record.interruption.as_ref().unwrap().call, None, "{how:?}");
    }
}
