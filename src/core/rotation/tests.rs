use std::collections::BTreeSet;

use crate::core::checkpoint::{
    AskedFrom, Cause, Checkpoint, HoldStatus, NoticeStatus, Origin, SettledHow,
};
use crate::core::hold::ReleasePolicy;
use crate::core::ledger::{Answer, Ending, Ledger, Policy, SessionRef};
use crate::core::reducer::Intent;
use crate::core::resume::{Choice, Command, Confirm, Decision, Refusal, Said, decide, prompt};
use crate::core::rotation::SessionEnd;
use crate::core::stamp::Stamp;

const KEY: &str = "agent:main:main";

fn session(id: &str) -> SessionRef {
    SessionRef { key: KEY.to_owned(), id: Some(id.to_owned()), agent_id: None }
}

fn at(ms: i64) -> Stamp {
    Stamp::from_ms(ms)
}

fn policy() -> Policy {
    Policy { notify: true, max_age_ms: 100_000, ..Policy::default() }
}

/// A task of session `old` with its call open.
fn working(policy: Policy) -> Ledger {
    let mut ledger = Ledger::new(policy, Vec::new(), "run", at(0));
    let old = session("old");
    ledger.turn_started(at(1), &old, "r1", Origin::User, Some("deploy".to_owned()), None);
    let intent = Intent {
        run_id: "r1".to_owned(),
        tool_call_id: "c1".to_owned(),
        name: "exec".to_owned(),
        arguments: Some(serde_json::json!({ "command": "./deploy.sh" })),
        too_large: None,
    };
    ledger.tool_intent(at(2), &old, intent);
    ledger
}

/// The same cut by a restart, its user told.
fn cut(policy: Policy) -> Ledger {
    let mut ledger = working(policy);
    ledger.interrupt_all(at(10), "incident", Cause::GatewayKilled, String::new());
    let id = record(&ledger).interruption.as_ref().unwrap().id.clone();
    ledger.set_notice(at(11), KEY, &id, NoticeStatus::Sent);
    ledger
}

fn record(ledger: &Ledger) -> &Checkpoint {
    ledger.get(KEY).unwrap()
}

fn due(ledger: &Ledger) -> usize {
    ledger.pending_notices(&BTreeSet::new()).values().map(Vec::len).sum()
}

fn user_turn(ledger: &mut Ledger, ms: i64, id: &str, run: &str) -> Answer {
    let text = Some("what now".to_owned());
    ledger.turn_started(at(ms), &session(id), run, Origin::User, text, None).answer
}

#[test]
fn what_the_end_of_a_session_means() {
    for (reason, has_next, means) in [
        (Some("new"), true, SessionEnd::Closed),
        (Some("reset"), false, SessionEnd::Closed),
        (Some("idle"), true, SessionEnd::Replaced),
        (Some("daily"), true, SessionEnd::Replaced),
        (None, true, SessionEnd::Replaced),
        (None, false, SessionEnd::NotReplaced),
        (Some("compaction"), true, SessionEnd::CarriedOver),
        (Some("shutdown"), false, SessionEnd::NotReplaced),
        (Some("deleted"), false, SessionEnd::NotReplaced),
    ] {
        assert_eq!(SessionEnd::of(reason, has_next), means, "{reason:?} {has_next}");
    }
}

#[test]
fn an_open_task_is_kept_and_told_of_once() {
    let mut ledger = cut(policy());
    let before = record(&ledger).interruption.clone().unwrap();
    assert_eq!(due(&ledger), 0);
    let answer = user_turn(&mut ledger, 20, "new", "r2");
    let after = record(&ledger).interruption.clone().unwrap();
    assert_eq!(record(&ledger).session_id.as_deref(), Some("new"));
    assert_eq!((&after.call, &after.task, after.cause), (&before.call, &before.task, before.cause));
    let orphaned = after.orphaned.unwrap();
    assert_eq!((orphaned.session_id.as_str(), orphaned.new_session_id.as_str()), ("old", "new"));
    assert_eq!(orphaned.interruption_id, before.id);
    assert_ne!(after.id, before.id, "or the second notice would pass for the first");
    assert_eq!((due(&ledger), after.status), (1, HoldStatus::Released));
    let told = matches!(&answer, Answer::Turn { prepend: Some(text) } if text.contains("replaced"));
    assert!(told, "{answer:?}");

    ledger.set_notice(at(21), KEY, &after.id, NoticeStatus::Sent);
    // Its turn fails, so that the model has not answered yet when the session is replaced once more.
    let end = Ending { success: false, answered: false, told: true };
    ledger.turn_ended(at(22), &session("new"), "r2", end);
    user_turn(&mut ledger, 30, "newer", "r3");
    assert_eq!(due(&ledger), 0, "told twice");
    let orphaned = record(&ledger).interruption.as_ref().unwrap().orphaned.clone().unwrap();
    assert_eq!((orphaned.session_id.as_str(), orphaned.new_session_id.as_str()), ("old", "newer"));
}

#[test]
fn the_new_session_gets_the_task_and_the_whole_call() {
    let mut ledger = cut(policy());
    user_turn(&mut ledger, 20, "new", "r2");
    for decision in [Decision::Rerun, Decision::GoOn, Decision::Done] {
        let text = prompt(record(&ledger), &decision).unwrap();
        for part in ["deploy", r#"exec {"command":"./deploy.sh"}"#, "has replaced the session"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[test]
fn the_end_of_the_old_session_tells_as_well_even_under_one_id() {
    for (next, reason, orphaned) in [
        ("new", Some("daily"), true),
        ("old", Some("idle"), true),
        ("old", None, true),
        ("new", Some("compaction"), false),
        ("old", Some("shutdown"), false),
    ] {
        let mut ledger = cut(policy());
        let step = ledger.session_ended(at(20), &session("old"), reason, Some(next));
        let cut = record(&ledger).interruption.as_ref().unwrap();
        assert_eq!(cut.orphaned.is_some(), orphaned, "{reason:?}");
        assert_eq!(due(&ledger), usize::from(orphaned), "{reason:?}");
        assert_eq!(cut.status, HoldStatus::Held, "nobody has spoken");
        assert_eq!(record(&ledger).session_id.as_deref(), Some(next));
        assert_eq!(step.persist.is_some(), orphaned || next == "new");
        user_turn(&mut ledger, 30, next, "r2");
        assert_eq!(due(&ledger), usize::from(orphaned), "{reason:?}");
    }
}

#[test]
fn ids_of_anything_but_a_persons_turn_replace_nothing() {
    for origin in [Origin::Cron, Origin::Heartbeat, Origin::System, Origin::Recovery] {
        let mut ledger = cut(policy());
        ledger.turn_started(at(20), &session("other"), "r2", origin, None, None);
        assert_eq!(record(&ledger).session_id.as_deref(), Some("old"), "{origin:?}");
        assert_eq!(due(&ledger), 0, "{origin:?}");
    }
    let mut ledger = cut(policy());
    ledger.user_message(at(20), &session("made up"), Some("hi".to_owned()), None);
    assert_eq!(record(&ledger).session_id.as_deref(), Some("old"));
    assert_eq!(due(&ledger), 0);
}

#[test]
fn an_idle_session_changes_its_id_without_a_word() {
    let mut ledger = Ledger::new(policy(), Vec::new(), "run", at(0));
    user_turn(&mut ledger, 1, "old", "r1");
    let end = Ending { success: true, answered: true, told: false };
    ledger.turn_ended(at(2), &session("old"), "r1", end);
    user_turn(&mut ledger, 3, "new", "r2");
    assert!(record(&ledger).interruption.is_none());
    assert_eq!(record(&ledger).session_id.as_deref(), Some("new"));
}

#[test]
fn a_task_that_its_user_has_in_hand_is_marked_without_a_word() {
    let mut ledger = cut(policy());
    user_turn(&mut ledger, 20, "old", "r2");
    let end = Ending { success: true, answered: true, told: true };
    ledger.turn_ended(at(21), &session("old"), "r2", end);
    ledger.session_ended(at(30), &session("old"), Some("daily"), Some("new"));
    assert!(record(&ledger).interruption.as_ref().unwrap().orphaned.is_some());
    assert_eq!(due(&ledger), 0);
    assert!(ledger.interrupted().is_empty());
}

#[test]
fn a_turn_that_the_old_session_never_ended_is_cut() {
    for (release, held) in [(ReleasePolicy::AnyMessage, false), (ReleasePolicy::Explicit, true)] {
        let mut ledger = working(Policy { release, ..policy() });
        user_turn(&mut ledger, 20, "new", "r2");
        let cut = record(&ledger).interruption.as_ref().unwrap();
        assert_eq!(cut.cause, Cause::SessionReplaced);
        assert_eq!(cut.task.as_deref(), Some("deploy"));
        assert!(cut.orphaned.is_some() && cut.call.is_some());
        assert_eq!((due(&ledger), record(&ledger).is_held()), (1, held));
        assert_eq!(record(&ledger).turn.as_ref().unwrap().run_id, "r2");
    }
    // While it runs, the end of its session cuts nothing: the gateway lets it come to its end.
    let mut ledger = working(policy());
    ledger.session_ended(at(20), &session("old"), Some("idle"), Some("new"));
    assert!(record(&ledger).interruption.is_none() && record(&ledger).in_flight());
}

#[test]
fn a_person_who_begins_anew_hears_no_more_of_it() {
    for reason in ["new", "reset"] {
        let mut ledger = cut(policy());
        ledger.session_ended(at(20), &session("old"), Some(reason), Some("new"));
        let closed = record(&ledger).interruption.as_ref().unwrap();
        assert_eq!(closed.settled.map(|settled| settled.how), Some(SettledHow::Closed));
        assert!(ledger.interrupted().is_empty() && ledger.held().is_empty());
        let answer = user_turn(&mut ledger, 30, "new", "r2");
        assert_eq!(answer, Answer::Turn { prepend: None });
        assert_eq!(due(&ledger), 0);
        let record = record(&ledger);
        assert!(record.interruption.as_ref().unwrap().orphaned.is_none());
        let asked = decide(
            record,
            &Said {
                choice: Choice::Ask,
                code: None,
                from: AskedFrom::Chat,
                confirm: Confirm::Unknown,
                command: Command::NotFound,
            },
        );
        assert_eq!(asked, Decision::Refuse(Refusal::NothingCut));
    }
}
