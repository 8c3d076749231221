//! A gateway that restarts inside its own process: no process ends, and yet it is a restart.

mod support;

use std::time::Duration;

use serde_json::json;
use support::incident::{
    CHAT, NATIVE_TO_USER, behind_tideover, first_line, got, handed_off, is_native_turn, is_notice,
    notices, record, record_when, status,
};
use support::{Outcome, rig};
use tideover::drill::gateway_proc::Target;
use tideover::drill::mock_model::{ModelRequest, Script, Step};
use tideover::drill::mock_telegram::SentMessage;
use tideover::drill::processes::Signal;
use tideover::drill::progress::until;
use tideover::drill::rig::{Rig, RigOptions, START_MAX, TURN_MAX};

/// What tideover says of such a restart.
const SEEN: &str = "the gateway restarted inside its process";
/// How long nothing may follow. The gateway's own recovery begins 4 to 6 s after it is ready.
const SILENCE: Duration = Duration::from_secs(7);
/// How long the gateway lets work go on before it restarts all the same.
const DEFERRAL_MS: u64 = 1_000;

/// Only 2026.5.5 knows this setting; 2026.9.6 waits for as long as work goes on.
fn impatient() -> RigOptions {
    let reload = json!({"gateway": {"reload": {"deferralTimeoutMs": DEFERRAL_MS}}});
    RigOptions { config_patch: reload, ..behind_tideover("") }
}

/// Waits for the `count`-th restart, and for the hand-off after it.
async fn restarted(rig: &mut Rig, count: usize) -> Outcome {
    let proc = rig.proc()?;
    until("the restart inside the process", START_MAX, || async {
        let seen = proc.log_text().matches(SEEN).count();
        if seen >= count { Ok(()) } else { Err(format!("{seen} restarts")) }
    })
    .await?;
    handed_off(rig).await
}

async fn journaled_turn(rig: &Rig, name: &str) -> Outcome {
    let (work, task) = (rig.work(&name.replace(" ", "-"), CHAT)?, format!("Please do {name}."));
    work.open_gate()?;
    let done = format!("{name} is done.");
    rig.model.script(Script::marker(&task, [Step::call(work.call()), Step::text(&done)]));
    let sent = rig.telegram.mark();
    rig.send_user(CHAT, &task);
    rig.telegram.wait_for("the reply", sent, TURN_MAX, |m| m.text.contains(&done)).await?;
    let kept = record_when(rig, "the end of the turn", CHAT, |r| r["state"] == "idle").await?;
    assert_eq!(kept["last_tool_call"]["arguments"], work.call().arguments);
    assert!(kept["interruption"].is_null(), "{kept}");
    Ok(())
}

/// While nothing is under way: the same process, no word to anybody, and all goes on.
async fn idle(rig: &mut Rig, signal: Signal) -> Outcome {
    let pids = (rig.proc()?.command_pid(), rig.proc()?.gateway_pid()?);
    let (sent, asked) = (rig.telegram.mark(), rig.model.seen());
    rig.proc()?.signal(Target::Command, signal)?;
    restarted(rig, 1).await?;
    let said = rig.telegram.wait_for("silence", sent, SILENCE, |_| true).await;
    assert!(said.is_err(), "a restart that cut nothing says nothing: {said:?}");
    assert_eq!(rig.model.seen(), asked);
    let status = status(rig).await?;
    assert_eq!(status["supervisor"]["pid"], pids.0);
    assert_eq!(status["gateway"]["pid"], pids.1);
    assert_eq!(status["plugin"]["connected"], true);
    assert!(!rig.proc()?.ended(Target::Gateway));
    journaled_turn(rig, "a job after the restart").await
}

/// A tool that outlives the deferral is cut: one notice, held, told, and on at the user's word.
async fn cut(rig: &mut Rig, signal: Signal) -> Outcome {
    let pid = rig.proc()?.gateway_pid()?;
    let work = rig.work("cut", CHAT)?;
    rig.model.clear();
    rig.model.script(Script::marker("the long job", [Step::call(work.call())]));
    rig.send_user(CHAT, "please do the long job");
    work.await_effect(1).await?;
    rig.model.clear();
    rig.model.script(Script::when(is_native_turn, [Step::call(work.call())]).insisting());
    let (sent, asked) = (rig.telegram.mark(), rig.model.seen());
    rig.proc()?.signal(Target::Command, signal)?;
    restarted(rig, 2).await?;
    let notice = rig.telegram.wait_for("the notice", sent, TURN_MAX, is_notice).await?;
    assert!(notice.text.contains("the gateway restarted itself"), "{}", notice.text);
    let kept = record(rig, CHAT)?;
    assert_eq!(kept["interruption"]["cause"], "in_process_restart", "{kept}");
    assert_eq!(kept["interruption"]["call"]["outcome"], "unknown", "{kept}");
    let after = rig.telegram.mark();
    let more = rig.telegram.wait_for("silence", after, SILENCE, |_| true).await;
    assert!(more.is_err(), "{more:?}");
    let said = got(rig, sent, CHAT);
    assert!(!said.iter().any(|m| m.text.contains(NATIVE_TO_USER)), "{said:#?}");
    assert_eq!(work.runs(), 1, "an effect without the user's word");
    assert_eq!(rig.proc()?.gateway_pid()?, pid);

    work.open_gate()?;
    rig.model.clear();
    let steps = [Step::call(work.call()), Step::text("The long job is done.")];
    rig.model.script(Script::marker("yes, go on", steps));
    rig.send_user(CHAT, "yes, go on");
    let own = |r: &ModelRequest| r.turn_text().contains("yes, go on");
    let request = rig.model.wait_for("the user's turn", asked, TURN_MAX, own).await?;
    assert!(request.contains_line(&first_line(&work.call())), "{}", request.turn_text());
    let replied = |m: &SentMessage| m.text.contains("The long job is done.");
    rig.telegram.wait_for("the reply", sent, TURN_MAX, replied).await?;
    assert_eq!((work.runs(), notices(rig, sent, CHAT)), (2, 1));
    Ok(())
}

/// A gateway that waits for the turn to end cuts nothing, and nothing is said.
async fn deferred(rig: &mut Rig, signal: Signal) -> Outcome {
    let work = rig.work("deferred", CHAT)?;
    let steps = [Step::call(work.call()), Step::text("The patient job is done.")];
    rig.model.script(Script::marker("the patient job", steps));
    let sent = rig.telegram.mark();
    rig.send_user(CHAT, "please do the patient job");
    work.await_effect(1).await?;
    rig.proc()?.signal(Target::Command, signal)?;
    let replied = |m: &SentMessage| m.text.contains("patient job is done");
    let early = rig.telegram.wait_for("no reply yet", sent, Duration::from_secs(1), replied).await;
    assert!(early.is_err());
    work.open_gate()?;
    rig.telegram.wait_for("the reply", sent, TURN_MAX, replied).await?;
    // The gateway shows the turn live on this version: before the reply, other words of the model.
    let after = rig.telegram.mark();
    restarted(rig, 2).await?;
    let more = rig.telegram.wait_for("silence", after, SILENCE, |_| true).await;
    assert!(more.is_err(), "{more:?}");
    let said = got(rig, sent, CHAT);
    let of_a_cut = |m: &SentMessage| is_notice(m) || m.text.contains(NATIVE_TO_USER);
    assert!(!said.iter().any(of_a_cut), "{said:#?}");
    assert_eq!(said.iter().filter(|m| replied(m)).count(), 1, "{said:#?}");
    assert_eq!(work.runs(), 1);
    assert!(record(rig, CHAT)?["interruption"].is_null());
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn of_2026_5_5_by_sigusr1() -> Outcome {
    let Some((mut rig, _slot)) = rig("2026.5.5", impatient()).await? else { return Ok(()) };
    handed_off(&rig).await?;
    // A restart asked of this gateway within half a second of its start ends in EADDRINUSE.
    journaled_turn(&rig, "a job before the restart").await?;
    idle(&mut rig, Signal::USR1).await?;
    cut(&mut rig, Signal::USR1).await
}

#[tokio::test(flavor = "current_thread")]
async fn of_2026_9_6_by_sigusr2() -> Outcome {
    let Some((mut rig, _slot)) = rig("2026.9.6", behind_tideover("")).await? else { return Ok(()) };
    handed_off(&rig).await?;
    // There SIGUSR1 would open the debugger.
    rig.proc()?.signal(Target::Command, Signal::USR1)?;
    let proc = rig.proc()?;
    until("the word on SIGUSR1", Duration::from_secs(10), || async {
        let said = proc.log_text().contains("SIGUSR1 not passed on");
        said.then_some(()).ok_or_else(|| "nothing".to_owned())
    })
    .await?;
    idle(&mut rig, Signal::USR2).await?;
    let log = rig.proc()?.log_text();
    assert!(!log.contains("Debugger listening"), "{log}");
    deferred(&mut rig, Signal::USR2).await
}
