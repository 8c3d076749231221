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
    let cut = reducer::Cut {
        incident: "i".to_owned(),
        cause: Cause::GatewayKilled,
        detail: None,
        at: NOW,
        hold: true,
        notify: true,
        unattended: crate::core::hold::Unattended::Hold,
    };
    reducer::interrupt(&mut record, NOW, &cut);
    record
}

fn said(record: &Checkpoint, choice: Choice, confirm: Confirm, command: Command) -> Decision {
    decide(record, choice, AskedFrom::Chat, confirm, command)
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
    let yes = |record: &Checkpoint, from| {
        decide(record, Choice::Yes, from, Confirm::Unknown, Command::NotFound)
    };
    grant(&mut record, NOW, "tideover-resume-1", ResumeKind::Rerun, AskedFrom::Chat);
    assert_eq!(yes(&record, AskedFrom::Shell), Decision::Refuse(Refusal::UnderWay));
    // Nothing came of it: a chat's command may be the same one handed over again.
    assert!(lapse(&mut record, NOW, "tideover-resume-1"));
    assert_eq!(yes(&record, AskedFrom::Chat), Decision::Refuse(Refusal::AskFirst));
    assert_eq!(yes(&record, AskedFrom::Shell), Decision::Rerun);
    assert!(asked_again(&mut record, NOW));
    assert_eq!(yes(&record, AskedFrom::Chat), Decision::Rerun);
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
