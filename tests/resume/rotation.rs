//! A session that is replaced under its key while its task is open, on the real gateways.

use std::time::Duration;

use serde_json::{Value, json};
use tideover::drill::mock_model::{Script, Step};
use tideover::drill::mock_telegram::SentMessage;
use tideover::drill::rig::{Rig, RigOptions, TURN_MAX};
use tideover::drill::work::Work;

use super::asks;
use crate::support::incident::{
    CHAT, behind_tideover, first_line, got, handed_off, is_notice, kill_both, notices, record,
    record_when, tideover,
};
use crate::support::{Outcome, rig};

const TASK: &str = "please do the deploy job";
/// The session that a broken store points to.
const NEVER_CREATED: &str = "11111111-2222-4333-8444-555555555555";
/// How long after the notice the session counts as idle, with some room.
const IDLE: Duration = Duration::from_secs(65);

fn is_of_replacement(message: &SentMessage) -> bool {
    message.text.contains("replaced this session with a new one")
}

fn of_replacement(rig: &Rig, from: usize) -> usize {
    got(rig, from, CHAT).iter().filter(|m| is_of_replacement(m)).count()
}

/// The gateway is down, its task cut in the middle of a call.
async fn cut(rig: &mut Rig) -> Outcome<Work> {
    let work = rig.work("deploy", CHAT)?;
    rig.model.script(Script::marker(TASK, [Step::call(work.call())]));
    rig.send_user(CHAT, TASK);
    work.await_effect(1).await?;
    kill_both(rig).await?;
    rig.model.clear();
    work.open_gate()?;
    Ok(work)
}

async fn back(rig: &mut Rig) -> Outcome<usize> {
    let sent = rig.telegram.mark();
    rig.boot().await?;
    rig.telegram.wait_for("the notice", sent, TURN_MAX, is_notice).await?;
    handed_off(rig).await?;
    Ok(sent)
}

/// What the report of openclaw #75151 found: the key leads to a session without a transcript, the real one lies
/// beside it.
fn point_elsewhere(rig: &Rig) -> Outcome<String> {
    let sessions = rig.home.state().join("agents/main/sessions");
    let file = sessions.join("sessions.json");
    let mut store: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let row = &mut store[rig.session_key(CHAT)];
    let old = row["sessionId"].as_str().ok_or("the store names no session")?.to_owned();
    row["sessionId"] = json!(NEVER_CREATED);
    row["sessionFile"] = json!(sessions.join(format!("{NEVER_CREATED}.jsonl")));
    std::fs::write(&file, store.to_string())?;
    assert!(sessions.join(format!("{old}.jsonl")).is_file());
    Ok(old)
}

/// The user speaks in the new session; tells of its replacement once.
async fn speak(rig: &Rig, work: &Work, from: usize) -> Outcome<Value> {
    let asked = rig.model.seen();
    rig.plain_turn(CHAT, "hello, how does it go?", "All is well.").await?;
    rig.telegram.wait_for("word of it", from, TURN_MAX, is_of_replacement).await?;
    let request = rig.model.requests_from(asked).into_iter().find(|r| !r.tools.is_empty());
    let request = request.ok_or("the model was not asked")?;
    assert!(request.contains(&first_line(&work.call())), "{:?}", request.turn_text());
    assert!(request.contains("has replaced the session"), "{:?}", request.turn_text());
    handed_off(rig).await?;
    let kept = record_when(rig, "the model's answer", CHAT, |record| {
        record["interruption"]["model_told"] == true
    })
    .await?;
    let cut = &kept["interruption"];
    assert_eq!(cut["task"], TASK, "{kept}");
    assert_eq!(cut["call"]["arguments"], work.call().arguments, "{kept}");
    assert_eq!(cut["call"]["outcome"], "unknown", "{kept}");
    Ok(cut["orphaned"].clone())
}

/// `/resume` in the new session: the call runs once more, the model has the task.
async fn carry_over(rig: &Rig, work: &Work) -> Outcome {
    asks(rig, CHAT, "/resume", "replaced by a new one").await?;
    rig.model.script(Script::marker(
        "confirmed with /resume",
        [Step::call(work.call()), Step::text("Deployed at last.")],
    ));
    let (asked, sent) = (rig.model.seen(), rig.telegram.mark());
    asks(rig, CHAT, "/resume yes", "Running it again").await?;
    let own = |m: &SentMessage| m.text.contains("Deployed at last.");
    rig.telegram.wait_for("the end", sent, TURN_MAX, own).await?;
    assert_eq!(work.runs(), 2);
    let request = &rig.model.requests_from(asked)[0];
    assert!(request.contains(TASK) && request.contains("has replaced the session"));
    let closed = record_when(rig, "the end of the resume", CHAT, |record| {
        record["interruption"]["resume"]["stage"] == "ended"
    })
    .await?;
    let cut = &closed["interruption"];
    assert_eq!(cut["settled"]["how"], "rerun", "{closed}");
    assert_eq!(cut["call"]["arguments"], work.call().arguments, "{closed}");
    assert!(cut["orphaned"].is_object(), "{closed}");
    Ok(())
}

/// The state that openclaw #75151 reports.
#[tokio::test(flavor = "current_thread")]
async fn a_key_that_leads_to_a_session_that_never_was() -> Outcome {
    let Some((mut rig, _slot)) = rig("2026.5.5", behind_tideover("")).await? else {
        return Ok(());
    };
    let work = cut(&mut rig).await?;
    let old = point_elsewhere(&rig)?;
    let sent = back(&mut rig).await?;
    let orphaned = speak(&rig, &work, sent).await?;
    assert_eq!(orphaned["session_id"], old);
    assert_eq!(orphaned["new_session_id"], NEVER_CREATED);
    let shown = tideover(&rig, &["sessions", "show", &rig.session_key(CHAT)]).await?;
    assert!(shown.contains(&format!("agents/main/sessions/{old}.jsonl")), "{shown}");
    carry_over(&rig, &work).await?;
    rig.plain_turn(CHAT, "and what now?", "All is well.").await?;
    handed_off(&rig).await?;
    assert_eq!((notices(&rig, sent, CHAT), of_replacement(&rig, sent)), (1, 1));
    Ok(())
}

/// The same without a word in between: `/resume` is the first thing that the new session hears.
#[tokio::test(flavor = "current_thread")]
async fn resumed_at_once_in_a_session_that_never_was() -> Outcome {
    let Some((mut rig, _slot)) = rig("2026.5.5", behind_tideover("")).await? else {
        return Ok(());
    };
    let work = cut(&mut rig).await?;
    let old = point_elsewhere(&rig)?;
    let sent = back(&mut rig).await?;
    rig.model.script(Script::marker(
        "confirmed with /resume",
        [Step::call(work.call()), Step::text("Deployed at last.")],
    ));
    let asked = rig.model.seen();
    asks(&rig, CHAT, "/resume yes", "Running it again").await?;
    let own = |m: &SentMessage| m.text.contains("Deployed at last.");
    rig.telegram.wait_for("the end", sent, TURN_MAX, own).await?;
    assert_eq!(work.runs(), 2);
    let request = &rig.model.requests_from(asked)[0];
    assert!(request.contains(TASK), "{:?}", request.turn_text());
    assert!(!request.contains("Let me do that."), "the new session knows nothing of the old one");
    assert_eq!(record(&rig, CHAT)?["interruption"]["orphaned"]["session_id"], old);
    // Who has it in hand needs no word about it.
    handed_off(&rig).await?;
    assert_eq!((notices(&rig, sent, CHAT), of_replacement(&rig, sent)), (1, 0));
    Ok(())
}

/// The gateway's own idle reset.
async fn gone_idle(version: &str, same_id: bool) -> Outcome {
    let reset = json!({"session": {"reset": {"mode": "idle", "idleMinutes": 1}}});
    let options = RigOptions { config_patch: reset, ..behind_tideover("") };
    let Some((mut rig, _slot)) = rig(version, options).await? else { return Ok(()) };
    let work = cut(&mut rig).await?;
    let sent = back(&mut rig).await?;
    let before = record(&rig, CHAT)?;
    // That is what is waited for: a minute in which nothing happens.
    tokio::time::sleep(IDLE).await;
    let orphaned = speak(&rig, &work, sent).await?;
    assert_eq!(orphaned["session_id"], before["session_id"]);
    assert_eq!(orphaned["new_session_id"] == orphaned["session_id"], same_id, "{orphaned}");
    let shown = tideover(&rig, &["sessions", "show", &rig.session_key(CHAT)]).await?;
    assert_eq!(shown.contains("its transcript: "), !same_id, "{shown}");
    carry_over(&rig, &work).await?;
    assert_eq!((notices(&rig, sent, CHAT), of_replacement(&rig, sent)), (1, 1));
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn an_idle_reset_on_2026_9_6() -> Outcome {
    gone_idle("2026.9.6", true).await
}

#[tokio::test(flavor = "current_thread")]
async fn an_idle_reset_on_2026_5_5() -> Outcome {
    gone_idle("2026.5.5", false).await
}
