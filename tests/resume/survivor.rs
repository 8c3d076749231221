//! Commands that outlive their gateway: named, and not started a second time. Only 2026.5.5 leaves them alive
//! (measured: 2026.9.6 ends its commands within half a second of its own end).

use std::time::Duration;

use serde_json::Value;
use tideover::drill::gateway_proc::Target;
use tideover::drill::mock_model::{Script, Step};
use tideover::drill::processes::Signal;
use tideover::drill::progress::until;
use tideover::drill::rig::{Rig, TURN_MAX};
use tideover::drill::work::Work;

use super::{asks, is_resumed_turn, replied};
use crate::support::incident::{CHAT, behind_tideover, is_notice, record_when};
use crate::support::{Outcome, rig};

/// The user whose command runs in the background.
const OTHER: i64 = 4343;

/// Gateway and tideover are killed; unlike a service manager's, this end leaves their commands alone.
async fn killed_and_back(rig: &mut Rig) -> Outcome {
    let proc = rig.proc()?;
    proc.gateway_pid()?;
    proc.signal(Target::Command, Signal::KILL)?;
    proc.signal(Target::Gateway, Signal::KILL)?;
    proc.exited(Duration::from_secs(10)).await?;
    std::mem::forget(rig.proc.take());
    rig.model.clear();
    let sent = rig.telegram.mark();
    rig.boot().await?;
    for chat in [CHAT, OTHER] {
        let own = |m: &tideover::drill::mock_telegram::SentMessage| m.chat == chat && is_notice(m);
        rig.telegram.wait_for("the notice", sent, TURN_MAX, own).await?;
    }
    Ok(())
}

/// Named with its pid while it runs; once it has ended, its outcome is unknown and it can be run again.
async fn cut_in_its_call(rig: &Rig, work: &Work) -> Outcome {
    asks(rig, CHAT, "/resume", "Its command still runs: pid").await?;
    asks(rig, CHAT, "/resume yes", "it is not started a second time").await?;
    assert_eq!(work.runs(), 1);
    work.open_gate()?;
    until("the command's end", TURN_MAX, || async {
        let answer = asks(rig, CHAT, "/resume", "Outcome: unknown").await;
        let text = answer.map_err(|error| error.to_string())?.text;
        if text.contains("still runs") { Err(text) } else { Ok(()) }
    })
    .await?;
    let steps = [Step::call(work.call()), Step::text("Once more, then.")];
    rig.model.script(Script::when(is_resumed_turn, steps));
    let sent = rig.telegram.mark();
    asks(rig, CHAT, "/resume yes", "Running it again").await?;
    replied(rig, CHAT, sent, "Once more, then.").await?;
    assert_eq!(work.runs(), 2);
    Ok(())
}

/// The same for one that ran in the background; its person lets it go on.
async fn in_the_background(rig: &Rig, work: &Work) -> Outcome {
    asks(rig, OTHER, "/resume", "Its command still runs: pid").await?;
    asks(rig, OTHER, "/resume yes", "it is not started a second time").await?;
    rig.model.script(Script::when(is_resumed_turn, [Step::text("I let it run.")]));
    let sent = rig.telegram.mark();
    asks(rig, OTHER, "/resume done", "Recorded as done").await?;
    replied(rig, OTHER, sent, "I let it run.").await?;
    assert_eq!(work.runs(), 1);
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_5_5() -> Outcome {
    let Some((mut rig, _slot)) = rig("2026.5.5", behind_tideover("")).await? else {
        return Ok(());
    };
    let (called, behind) = (rig.work("called", CHAT)?, rig.work("behind", OTHER)?);
    rig.model.script(Script::marker("do the first job", [Step::call(called.call())]));
    let goes_on = [Step::call(behind.background_call()), Step::text("It goes on.")];
    rig.model.script(Script::marker("do the second job", goes_on));
    rig.send_user(CHAT, "please do the first job");
    rig.send_user(OTHER, "please do the second job");
    called.await_effect(1).await?;
    behind.await_effect(1).await?;
    let background = |record: &Value| record["state"] == "background";
    record_when(&rig, "a command in the background", OTHER, background).await?;
    killed_and_back(&mut rig).await?;
    in_the_background(&rig, &behind).await?;
    cut_in_its_call(&rig, &called).await
}
