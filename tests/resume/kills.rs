//! A kill at each step of a resume: the call never runs more often than it was confirmed, and never by itself. At the
//! end the story without a kill.

use std::time::Duration;

use serde_json::Value;
use tideover::drill::mock_model::{Gate, ModelRequest, Script, Step};
use tideover::drill::mock_telegram::SentMessage;
use tideover::drill::rig::{Rig, TURN_MAX};
use tideover::drill::work::Work;

use super::{asks, is_resumed_turn, replied, story};
use crate::support::incident::{
    CHAT, behind_tideover, boots_were_long_ago, is_notice, kill_both, kill_gateway, record,
    record_when,
};
use crate::support::{Outcome, rig};

/// How the answer to a word begins that has the call run.
const AGAIN: &str = "Running it again";

/// Within this time the gateway's own recovery has begun.
const RECOVERY: Duration = Duration::from_secs(7);

/// The gateway comes back after a kill; its user gets one notice for it.
async fn back(rig: &mut Rig, work: &Work) -> Outcome {
    let runs = work.runs();
    boots_were_long_ago(rig).await?;
    let sent = rig.telegram.mark();
    rig.boot().await?;
    let own = |m: &SentMessage| m.chat == CHAT && is_notice(m);
    rig.telegram.wait_for("the notice", sent, TURN_MAX, own).await?;
    // What the gateway's own recovery does, where it does anything, begins 4 to 6 s after its start; and 2026.5.5
    // merges the words of a turn that was cut into it, ours too.
    tokio::time::sleep(RECOVERY).await;
    record_when(rig, "a session at rest", CHAT, |found| found["turn"].is_null()).await?;
    assert_eq!(work.runs(), runs, "a call ran by itself");
    Ok(())
}

/// What a model does that nobody asked: the call, whatever turn it is in.
fn insists(rig: &Rig, work: &Work) {
    rig.model.clear();
    let call = [Step::call(work.call())];
    rig.model.script(Script::when(|request| !request.tools.is_empty(), call).insisting());
}

/// Asks for the facts and says the word that they show.
async fn confirms(rig: &Rig, expected: &str, answer: &str) -> Outcome {
    let facts = asks(rig, CHAT, "/resume", expected).await?.text;
    let shown =
        facts.lines().find_map(|line| Some(line.strip_prefix("/resume yes ")?.split_once(" –")?.0));
    let word = format!("/resume yes {}", shown.ok_or_else(|| format!("no code: {facts}"))?);
    asks(rig, CHAT, &word, answer).await?;
    Ok(())
}

fn script(rig: &Rig, steps: Vec<Step>) {
    rig.model.clear();
    rig.model.script(Script::when(is_resumed_turn, steps));
}

/// The permit is on disk and nothing has run: it is void after the kill, and the person is asked again.
async fn before_it_is_spent(rig: &mut Rig, work: &Work) -> Outcome {
    script(rig, vec![Step::Hang(Gate::default(), Box::new(Step::call(work.call())))]);
    asks(rig, CHAT, "/resume", "/resume yes").await?;
    let asked = rig.model.seen();
    asks(rig, CHAT, "/resume yes", "Running it again").await?;
    rig.model.wait_for("the resumed turn", asked, TURN_MAX, is_resumed_turn).await?;
    assert_eq!(record(rig, CHAT)?["interruption"]["resume"]["stage"], "granted");
    kill_both(rig).await?;
    insists(rig, work);
    back(rig, work).await?;
    let found = record(rig, CHAT)?;
    assert_eq!(found["interruption"]["status"], "held", "{found}");
    assert_eq!(found["interruption"].get("resume"), None, "{found}");
    assert_eq!(work.runs(), 1);
    Ok(())
}

/// The permit is spent and the call runs: its outcome is unknown after the kill.
async fn while_it_runs(rig: &mut Rig, work: &Work) -> Outcome {
    script(rig, vec![Step::call(work.call())]);
    // The word of before the kill, which a gateway may hand over again, is none about this.
    asks(rig, CHAT, "/resume yes", "confirmed once before").await?;
    confirms(rig, "/resume yes", AGAIN).await?;
    work.await_effect(2).await?;
    let found = record(rig, CHAT)?;
    assert_eq!(found["interruption"]["resume"]["stage"], "spent", "{found}");
    assert_eq!(found["last_tool_call"]["attempt"], 2, "{found}");
    kill_gateway(rig).await?;
    insists(rig, work);
    back(rig, work).await?;
    let found = record(rig, CHAT)?;
    assert_eq!(found["interruption"]["status"], "held", "{found}");
    assert_eq!(found["interruption"]["call"]["outcome"], "unknown", "{found}");
    assert_eq!(work.runs(), 2);
    Ok(())
}

/// The call has answered and the model has not gone on: nothing is left to run again.
async fn after_its_answer(rig: &mut Rig, work: &Work) -> Outcome {
    let hangs = Step::Hang(Gate::default(), Box::new(Step::text("never said")));
    script(rig, vec![Step::call(work.call()), hangs]);
    work.open_gate()?;
    let asked = rig.model.seen();
    confirms(rig, ", run 2", AGAIN).await?;
    let answered = |r: &ModelRequest| is_resumed_turn(r) && !r.turn_tool_results().is_empty();
    rig.model.wait_for("the call's answer", asked, TURN_MAX, answered).await?;
    let settled = |found: &Value| found["interruption"]["settled"]["how"] == "rerun";
    record_when(rig, "a settled action", CHAT, settled).await?;
    kill_both(rig).await?;
    insists(rig, work);
    back(rig, work).await?;
    script(rig, vec![Step::call(work.call()), Step::text("On from its result.")]);
    let sent = rig.telegram.mark();
    // It goes on from its result; after the words before the kill that needs its code, too.
    confirms(rig, "go on from its result", "nothing is run again").await?;
    replied(rig, CHAT, sent, "On from its result.").await?;
    assert_eq!(work.runs(), 3);
    Ok(())
}

async fn kills(version: &str) -> Outcome {
    let Some((mut rig, _slot)) =
        rig(version, behind_tideover("[recovery]\nrelease = \"explicit\"\n")).await?
    else {
        return Ok(());
    };
    let work = rig.work("deploy", CHAT)?;
    let task = "please do the deploy job";
    rig.model.script(Script::marker(task, [Step::call(work.call())]));
    rig.send_user(CHAT, task);
    work.await_effect(1).await?;
    kill_both(&mut rig).await?;
    insists(&rig, &work);
    back(&mut rig, &work).await?;
    before_it_is_spent(&mut rig, &work).await?;
    while_it_runs(&mut rig, &work).await?;
    after_its_answer(&mut rig, &work).await?;
    // And now without a kill.
    let work = rig.work("story", CHAT)?;
    let task = "please do the other job";
    rig.model.clear();
    rig.model.script(Script::marker(task, [Step::call(work.call())]));
    rig.send_user(CHAT, task);
    work.await_effect(1).await?;
    kill_both(&mut rig).await?;
    work.open_gate()?;
    insists(&rig, &work);
    back(&mut rig, &work).await?;
    story::play(&rig, &work).await
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_9_6() -> Outcome {
    kills("2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_5_5() -> Outcome {
    kills("2026.5.5").await
}
