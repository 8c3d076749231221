//! The queue of a gateway that keeps it as files (2026.5.5): what gets stuck there, and what native recovery repeats.

use std::ffi::OsString;
use std::time::Duration;

use crate::support::incident::{
    CHAT, behind_tideover, handed_off, is_notice, kill_gateway, record, tideover,
};
use crate::support::queue::{DELIVERY, SESSION, age, continuation, entries, put, reply, shelf};
use crate::support::{Outcome, prepared, rig};
use serde_json::{Value, json};
use tideover::drill::gateway_proc::Target;
use tideover::drill::mock_model::{Gate, ModelRequest, Script, Step, ToolCall};
use tideover::drill::mock_telegram::{Failure, SentMessage};
use tideover::drill::processes::Signal;
use tideover::drill::progress::until;
use tideover::drill::rig::{Front, Rig, RigOptions, TURN_MAX};
use tideover::drill::work::Work;

const VERSION: &str = "2026.5.5";
const GO_ON: &str = "Go on after the restart.";
const DONE: &str = "The continuation is done.";
/// How long nothing more may come.
const SILENCE: Duration = Duration::from_secs(8);

fn is_done(message: &SentMessage) -> bool {
    message.text.contains(DONE)
}

fn count(rig: &Rig, of: impl Fn(&SentMessage) -> bool) -> usize {
    rig.telegram.sent().iter().filter(|message| !message.deleted && of(message)).count()
}

/// The turn of the continuation calls a tool and answers, as often as it is run.
fn scripted(rig: &Rig, work: &Work) -> Outcome {
    work.open_gate()?;
    for _ in 0..4 {
        let steps = [Step::call(work.call()), Step::text(DONE)];
        rig.model.script(Script::marker(GO_ON, steps));
    }
    Ok(())
}

async fn stopped(rig: &mut Rig) -> Outcome {
    rig.proc()?.signal(Target::Command, Signal::TERM)?;
    rig.proc()?.exited(Duration::from_secs(40)).await?;
    Ok(())
}

/// A gateway has run a continuation whose reply the channel did not take, and has gone down with both in its queues.
async fn reply_left_behind(rig: &mut Rig, work: &Work) -> Outcome {
    let front = std::mem::replace(&mut rig.options.front, Front::Bare);
    rig.boot().await?;
    rig.plain_turn(CHAT, "hello there", "Hello to you.").await?;
    stopped(rig).await?;
    scripted(rig, work)?;
    put(rig, SESSION, &continuation(rig, CHAT, GO_ON))?;
    rig.telegram.set_failure(Failure::Status(500));
    rig.boot().await?;
    let tried = |entry: &Value| entry["retryCount"] == 1;
    until("the failed continuation", TURN_MAX, || async {
        let (turns, replies) = (entries(rig, SESSION), entries(rig, DELIVERY));
        // The words before the call are a message of their own.
        let answered = replies.iter().any(|entry| entry["payloads"][0]["text"] == DONE);
        let all = turns.iter().chain(&replies).all(tried);
        if turns.len() == 1 && answered && all {
            Ok(())
        } else {
            Err(format!("{turns:?} {replies:?}"))
        }
    })
    .await?;
    assert_eq!(work.runs(), 1);
    rig.proc()?.signal(Target::Command, Signal::KILL)?;
    rig.proc()?.exited(Duration::from_secs(10)).await?;
    rig.telegram.set_failure(Failure::None);
    age(rig)?;
    rig.options.front = front;
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn alone_the_gateway_delivers_the_reply_and_runs_the_turn_again() -> Outcome {
    let Some((mut rig, _slot)) = prepared(VERSION, RigOptions::default()).await? else {
        return Ok(());
    };
    let work = rig.work("again", CHAT)?;
    reply_left_behind(&mut rig, &work).await?;
    rig.boot().await?;
    work.await_effect(2).await?;
    until("two replies", TURN_MAX, || async {
        let count = count(&rig, is_done);
        if count == 2 { Ok(()) } else { Err(format!("{count}")) }
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn behind_tideover_one_delivery_one_turn() -> Outcome {
    let Some((mut rig, _slot)) = prepared(VERSION, behind_tideover("")).await? else {
        return Ok(());
    };
    let work = rig.work("once", CHAT)?;
    reply_left_behind(&mut rig, &work).await?;
    rig.boot().await?;
    rig.telegram.wait_for("the reply", 0, TURN_MAX, is_done).await?;
    handed_off(&rig).await?;
    let more = rig.telegram.wait_for("silence", rig.telegram.mark(), SILENCE, |_| true).await;
    assert!(more.is_err(), "{more:?}");
    assert_eq!((work.runs(), count(&rig, is_done)), (1, 1));
    assert_eq!((entries(&rig, SESSION).len(), entries(&rig, DELIVERY).len()), (0, 0));
    assert_eq!(shelf(&rig, "settled").len(), 1, "the continuation, for a look");
    let log = rig.proc()?.log_text();
    assert!(log.contains("a queued entry is settled"), "{log}");
    Ok(())
}

/// The agent asks for a restart with something to do after it, and the channel fails while it does that. The
/// gateway's notice of the restart still gets through: otherwise it is tried 45 times first, once a second.
async fn restart_through_a_failing_channel(rig: &mut Rig, work: &Work) -> Outcome {
    rig.plain_turn(CHAT, "hello there", "Hello to you.").await?;
    let gate = Gate::default();
    work.open_gate()?;
    let first = Step::Hang(gate.clone(), Box::new(Step::call(work.call())));
    rig.model.script(Script::marker(GO_ON, [first, Step::text(DONE)]));
    let restart = ToolCall::new(
        "gateway",
        json!({"action": "restart", "note": "Restarted.", "continuationMessage": GO_ON, "delayMs": 2_000}),
    );
    let steps = [Step::call(restart), Step::text("Restarting.")];
    rig.model.script(Script::marker("restart yourself", steps));
    let (sent, asked) = (rig.telegram.mark(), rig.model.seen());
    rig.send_user(CHAT, "restart yourself, please");
    rig.telegram.wait_for("the reply", sent, TURN_MAX, |m| m.text.contains("Restarting")).await?;
    let goes_on = |request: &ModelRequest| request.turn_text().contains(GO_ON);
    rig.model.wait_for("the continuation", asked, TURN_MAX, goes_on).await?;
    rig.telegram.wait_for("the notice", sent, TURN_MAX, |m| m.text.contains("Restarted.")).await?;
    rig.telegram.set_failure(Failure::Status(500));
    gate.open();
    Ok(())
}

fn in_process() -> Vec<(OsString, OsString)> {
    vec![("OPENCLAW_NO_RESPAWN".into(), "1".into())]
}

async fn continuation_failed(rig: &Rig) -> Outcome {
    let tried = |entry: &Value| entry["retryCount"].as_u64() > Some(0);
    Ok(until("the failed continuation", TURN_MAX, || async {
        let (turns, replies) = (entries(rig, SESSION), entries(rig, DELIVERY));
        let reply = |entry: &Value| tried(entry) && entry["payloads"][0]["text"] == DONE;
        // Behind tideover the continuation itself may be settled by now: its turn has run.
        let ran = turns.iter().any(tried) || !shelf(rig, "settled").is_empty();
        if ran && replies.iter().any(reply) {
            Ok(())
        } else {
            Err(format!("{turns:?} {replies:?}"))
        }
    })
    .await?)
}

#[tokio::test(flavor = "current_thread")]
async fn alone_the_gateway_leaves_a_continuation_stuck() -> Outcome {
    let options = RigOptions { extra_env: in_process(), ..RigOptions::default() };
    let Some((mut rig, _slot)) = rig(VERSION, options).await? else { return Ok(()) };
    let work = rig.work("stuck", CHAT)?;
    restart_through_a_failing_channel(&mut rig, &work).await?;
    continuation_failed(&rig).await?;
    let stuck = || (entries(&rig, SESSION), entries(&rig, DELIVERY));
    let before = stuck();
    rig.telegram.set_failure(Failure::None);
    rig.plain_turn(CHAT, "are you there?", "I am here.").await?;
    // Longer than the pauses of all of them.
    let more = rig.telegram.wait_for("the reply", 0, Duration::from_secs(40), is_done).await;
    assert!(more.is_err(), "{more:?}");
    assert_eq!(stuck(), before, "nobody retries them");
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn behind_tideover_it_is_delivered_without_a_further_restart() -> Outcome {
    let options = RigOptions { extra_env: in_process(), ..behind_tideover("") };
    let Some((mut rig, _slot)) = rig(VERSION, options).await? else { return Ok(()) };
    let work = rig.work("delivered", CHAT)?;
    restart_through_a_failing_channel(&mut rig, &work).await?;
    continuation_failed(&rig).await?;
    rig.telegram.set_failure(Failure::None);
    rig.telegram.wait_for("the reply", 0, TURN_MAX, is_done).await?;
    until("empty queues", TURN_MAX, || async {
        let left =
            (entries(&rig, SESSION).len(), entries(&rig, DELIVERY).len(), shelf(&rig, "claimed"));
        if left.0 + left.1 + left.2.len() == 0 { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await?;
    let more = rig.telegram.wait_for("silence", rig.telegram.mark(), SILENCE, |_| true).await;
    assert!(more.is_err(), "{more:?}");
    assert_eq!((work.runs(), count(&rig, is_done)), (1, 1));
    assert_eq!(count(&rig, |m| m.text.contains("Restarted.")), 1);
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn a_held_session_gets_its_continuation_after_its_user_has_spoken() -> Outcome {
    let Some((mut rig, _slot)) = rig(VERSION, behind_tideover("")).await? else { return Ok(()) };
    let cut = rig.work("cut", CHAT)?;
    rig.model.script(Script::marker("the long job", [Step::call(cut.call())]));
    rig.send_user(CHAT, "please do the long job");
    cut.await_effect(1).await?;
    kill_gateway(&mut rig).await?;
    rig.model.clear();
    let work = rig.work("held", CHAT)?;
    scripted(&rig, &work)?;
    put(&rig, SESSION, &continuation(&rig, CHAT, GO_ON))?;
    put(
        &rig,
        DELIVERY,
        &reply(&rig, CHAT, "0f5c7a52-aaaa-4bbb-8ccc-1234567890ab", "An old reply."),
    )?;
    let (sent, asked) = (rig.telegram.mark(), rig.model.seen());
    rig.boot().await?;
    handed_off(&rig).await?;
    let said: Vec<SentMessage> = rig.telegram.sent().into_iter().skip(sent).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(is_notice(&said[0]), "the notice first: {said:?}");
    assert_eq!(said[1].text, "An old reply.");
    assert_eq!((work.runs(), rig.model.seen()), (0, asked), "held");
    assert_eq!(shelf(&rig, "kept").len(), 1);
    let listed: Value = serde_json::from_str(&tideover(&rig, &["queue", "--json"]).await?)?;
    assert_eq!(listed["entries"][0]["place"], "kept", "{listed}");
    assert!(record(&rig, CHAT)?["interruption"]["status"] == "held");

    cut.open_gate()?;
    rig.plain_turn(CHAT, "yes, go ahead", "I go ahead.").await?;
    rig.telegram.wait_for("the continuation's reply", sent, TURN_MAX, is_done).await?;
    until("an empty shelf", TURN_MAX, || async {
        let left = [shelf(&rig, "kept"), shelf(&rig, "claimed")].concat();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await?;
    assert_eq!((work.runs(), count(&rig, is_done), cut.runs()), (1, 1, 1));
    Ok(())
}
