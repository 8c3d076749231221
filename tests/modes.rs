//! Every setting that changes what an interruption leads to, on the gateways where it matters.
//!
//! A test plays several incidents on one rig: tideover reads its configuration at each start.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::incident::{
    CHAT, NATIVE_TO_USER, OURS_TO_MODEL, behind_tideover, first_line, got, handed_off,
    is_native_turn, is_notice, is_question, kill_both, notices, record, record_when, tideover,
};
use support::{Outcome, rig};
use tideover::drill::gateway_proc::Target;
use tideover::drill::mock_model::{Gate, ModelRequest, Script, Step};
use tideover::drill::mock_telegram::{Failure, SentMessage};
use tideover::drill::rig::{Rig, TURN_MAX};
use tideover::drill::work::Work;

/// The calls that a model may make in vain, and its requests for them, one more each.
const REQUESTS_MAX: usize = 5;
/// How long nothing may follow. The gateway's own recovery begins 4 to 6 s after it is ready.
const SILENCE: Duration = Duration::from_secs(7);
/// What the mock model says before each call.
const WORDS_BEFORE_A_CALL: &str = "Let me do that.";

/// A turn whose tool is in flight.
async fn tool_in_flight(rig: &Rig, name: &str) -> Outcome<Work> {
    let (work, task) = (rig.work(&name.replace(" ", "-"), CHAT)?, format!("Please do {name}."));
    rig.model.clear();
    rig.model.script(Script::marker(&task, [Step::call(work.call())]));
    rig.send_user(CHAT, &task);
    work.await_effect(1).await?;
    Ok(work)
}

/// A turn whose tool has finished while the model still thinks about the result.
async fn thinking_after_tool(rig: &Rig, name: &str) -> Outcome<Work> {
    let (work, task) = (rig.work(&name.replace(" ", "-"), CHAT)?, format!("Please do {name}."));
    work.open_gate()?;
    rig.model.clear();
    let hangs = Step::Hang(Gate::default(), Box::new(Step::text("never said")));
    rig.model.script(Script::marker(&task, [Step::call(work.call()), hangs]));
    let asked = rig.model.seen();
    rig.send_user(CHAT, &task);
    let with_result =
        |r: &ModelRequest| r.turn_text().contains(&task) && !r.turn_tool_results().is_empty();
    rig.model.wait_for("the model's second request", asked, TURN_MAX, with_result).await?;
    let finished = |r: &Value| {
        let call = &r["last_tool_call"];
        call["arguments"] == work.call().arguments && call["outcome"] == "ok"
    };
    record_when(rig, "the call's result", CHAT, finished).await?;
    Ok(work)
}

/// Gateway and tideover are killed and come back under another configuration. In its own recovered turn
/// the model does `then`. Returns the first message and the first request after it.
async fn cut_and_back(
    rig: &mut Rig,
    config: &str,
    then: Option<Script>,
) -> Outcome<(usize, usize)> {
    kill_both(rig).await?;
    rig.model.clear();
    if let Some(then) = then {
        rig.model.script(then);
    }
    rig.home.write_tideover_config(config)?;
    let from = (rig.telegram.mark(), rig.model.seen());
    rig.boot().await?;
    handed_off(rig).await?;
    Ok(from)
}

/// The same where the gateway's recovered turn comes before the notice: 2026.5.5 resumes no
/// session whose transcript ends with a message of the assistant, and a delivered notice is one.
async fn cut_and_resumed(rig: &mut Rig, config: &str, then: Script) -> Outcome<(usize, usize)> {
    kill_both(rig).await?;
    mark_as_2026_5_5_does(rig)?;
    rig.model.clear();
    rig.model.script(then);
    rig.home.write_tideover_config(config)?;
    let from = (rig.telegram.mark(), rig.model.seen());
    rig.telegram.set_failure(Failure::Hold);
    rig.boot().await?;
    rig.model.wait_for("the recovered turn", from.1, TURN_MAX, is_native_turn).await?;
    rig.telegram.set_failure(Failure::None);
    handed_off(rig).await?;
    Ok(from)
}

/// 2026.5.5 marks the sessions whose transcript was locked, and looks for marked ones once, 5 s after its start:
/// on a busy machine the look comes before the marks, and then it resumes nothing (measured). Here the mark of
/// that start is there before it.
fn mark_as_2026_5_5_does(rig: &Rig) -> Outcome {
    let file = rig.home.state().join("agents/main/sessions/sessions.json");
    if !file.exists() {
        return Ok(());
    }
    let mut sessions: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let entry = &mut sessions[rig.session_key(CHAT)];
    assert_eq!(entry["status"], "running", "{entry}");
    entry["abortedLastRun"] = true.into();
    std::fs::write(&file, sessions.to_string())?;
    Ok(())
}

/// In the gateway's own recovered turn the model calls the tool, over and over.
fn insists(work: &Work) -> Script {
    Script::when(is_native_turn, [Step::call(work.call())]).insisting()
}

/// Nothing is said to the chat but what has been said. The model's own words before a call do not count: whether
/// and for how long a gateway shows them differs.
async fn silence(rig: &Rig, from: usize, said: usize) -> Outcome {
    let waited = rig.telegram.wait_for("silence", from, SILENCE, |_| false).await;
    assert!(waited.is_err());
    let all: Vec<String> = got(rig, from, CHAT).into_iter().map(|m| m.text).collect();
    let ours = all.iter().filter(|text| !text.contains(WORDS_BEFORE_A_CALL)).count();
    assert!(ours == said, "{said} messages expected: {all:#?}");
    Ok(())
}

/// The user speaks; the model calls the tool again and answers.
async fn goes_on(rig: &Rig, work: &Work, word: &str) -> Outcome<ModelRequest> {
    let (sent, asked, runs) = (rig.telegram.mark(), rig.model.seen(), work.runs());
    let done = format!("{word} is done.");
    work.open_gate()?;
    rig.model.clear();
    rig.model.script(Script::marker(word, [Step::call(work.call()), Step::text(&done)]));
    rig.send_user(CHAT, word);
    let own = |r: &ModelRequest| !r.tools.is_empty() && r.turn_text().contains(word);
    let request = rig.model.wait_for("the user's turn", asked, TURN_MAX, own).await?;
    let replied = |m: &SentMessage| m.text.contains(&done);
    rig.telegram.wait_for("the reply", sent, TURN_MAX, replied).await?;
    assert_eq!(work.runs(), runs + 1);
    Ok(request)
}

/// The gateway's recovered turn of an insisting model: told, stopped within a few calls, without
/// an effect, and the user has one notice.
async fn told_and_stopped(rig: &mut Rig, work: &Work, from: (usize, usize)) -> Outcome {
    let (sent, asked) = from;
    let native = rig.model.wait_for("the recovered turn", asked, TURN_MAX, is_native_turn).await?;
    let line = first_line(&work.call());
    assert!(native.contains_line(&line), "{line:?} is not in {:#?}", native.turn_text());
    record_when(rig, "the end of the recovered turn", CHAT, |r| r["turn"].is_null()).await?;
    silence(rig, sent, 1).await?;
    let requests = rig.model.requests_from(asked).len();
    assert!(requests <= REQUESTS_MAX, "{requests} requests of a turn that is held");
    assert_eq!(work.runs(), 1, "an effect without the user's word");
    assert_eq!(notices(rig, sent, CHAT), 1);
    assert_eq!(record(rig, CHAT)?["interruption"]["status"], "held");
    Ok(())
}

/// `recovery.native = "native"`: nothing of ours but the checkpoints.
async fn left_alone(rig: &mut Rig, work: Work, native_speaks: bool) -> Outcome {
    work.open_gate()?;
    let steps = [Step::call(work.call()), Step::text("Recovered by the gateway.")];
    let then = Script::when(is_native_turn, steps);
    let (sent, asked) = cut_and_back(rig, "[recovery]\nnative = \"native\"\n", Some(then)).await?;
    work.await_effect(2).await?;
    let over = |r: &ModelRequest| is_native_turn(r) && !r.turn_tool_results().is_empty();
    rig.model.wait_for("the result", asked, TURN_MAX, over).await?;
    let kept =
        record_when(rig, "the end of the recovered turn", CHAT, |r| r["turn"].is_null()).await?;
    assert_eq!(kept["last_tool_call"]["outcome"], "ok", "the recovered turn is journaled");
    assert_eq!(kept["last_tool_call"]["arguments"], work.call().arguments);
    rig.plain_turn(CHAT, "and how are you?", "I am fine.").await?;
    // An earlier incident stays in the history.
    let ours = |r: &ModelRequest| r.turn_text().contains(OURS_TO_MODEL);
    assert!(!rig.model.requests_from(asked).iter().any(ours), "a text of ours to the model");
    let said = got(rig, sent, CHAT);
    assert!(!said.iter().any(is_notice), "{said:#?}");
    assert_eq!(said.iter().any(|m| m.text.contains(NATIVE_TO_USER)), native_speaks, "{said:#?}");
    Ok(())
}

/// `recovery.hold = "off"`: told, but nothing is held, and the notice promises no hold.
async fn told_not_held(rig: &mut Rig, work: Work) -> Outcome {
    work.open_gate()?;
    let steps = [Step::call(work.call()), Step::text("Recovered by the gateway.")];
    let config = "[recovery]\nnative = \"ride\"\nhold = \"off\"\n";
    let then = Script::when(is_native_turn, steps);
    let (sent, asked) = cut_and_resumed(rig, config, then).await?;
    let native = rig.model.wait_for("the recovered turn", asked, TURN_MAX, is_native_turn).await?;
    assert!(native.contains_line(&first_line(&work.call())));
    work.await_effect(2).await?;
    let said = got(rig, sent, CHAT);
    let [notice] = &said.iter().filter(|m| is_notice(m)).collect::<Vec<_>>()[..] else {
        return Err(format!("one notice expected: {said:#?}").into());
    };
    assert!(!notice.text.contains("Nothing with side effects"), "nothing is held: {}", notice.text);
    assert!(!said.iter().any(|m| m.text.contains(NATIVE_TO_USER)), "{said:#?}");
    Ok(())
}

/// `notice.enabled = false`: held and told, but the user gets no message.
async fn held_in_silence(rig: &mut Rig, work: Work) -> Outcome {
    let config = "[notice]\nenabled = false\n";
    let (sent, _) = cut_and_back(rig, config, Some(insists(&work))).await?;
    silence(rig, sent, 0).await?;
    assert_eq!(work.runs(), 1);
    let kept = record(rig, CHAT)?;
    assert_eq!(kept["interruption"]["notice"], "off");
    assert_eq!(kept["interruption"]["status"], "held");
    let request = goes_on(rig, &work, "yes, go on in silence").await?;
    assert!(request.contains_line(&first_line(&work.call())));
    assert_eq!(notices(rig, sent, CHAT), 0);
    Ok(())
}

/// `recovery.release = "explicit"`: the user's word does not lift the hold, the shell does.
async fn released_by_hand(rig: &mut Rig, work: Work) -> Outcome {
    let config = "[recovery]\nrelease = \"explicit\"\n";
    let (sent, _) = cut_and_back(rig, config, Some(insists(&work))).await?;
    assert_eq!(notices(rig, sent, CHAT), 1);
    work.open_gate()?;
    let word = "please do it now";
    rig.model.clear();
    rig.model.script(Script::marker(word, [Step::call(work.call())]).insisting());
    let asked = rig.model.seen();
    rig.send_user(CHAT, word);
    rig.telegram.wait_for("the question", sent, TURN_MAX, is_question).await?;
    record_when(rig, "the end of the turn", CHAT, |r| r["turn"].is_null()).await?;
    silence(rig, sent, 2).await?;
    let own = |r: &&ModelRequest| !r.tools.is_empty() && r.turn_text().contains(word);
    let requests = rig.model.requests_from(asked);
    let requests = requests.iter().filter(own).count();
    assert!(requests <= REQUESTS_MAX, "{requests} requests of a turn that is held");
    assert_eq!(work.runs(), 1, "an effect without a release");
    assert_eq!(record(rig, CHAT)?["interruption"]["status"], "held");

    let key = rig.session_key(CHAT);
    let out = tideover(rig, &["sessions", "release", &key]).await?;
    assert!(out.contains("released"), "{out}");
    assert_eq!(record(rig, CHAT)?["interruption"]["released_by"], "shell");
    goes_on(rig, &work, "once more").await?;
    let questions = got(rig, sent, CHAT).iter().filter(|m| is_question(m)).count();
    assert_eq!((notices(rig, sent, CHAT), questions), (1, 1));
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_9_6_ride_and_explicit_release() -> Outcome {
    let options = behind_tideover("[recovery]\nnative = \"ride\"\n");
    let Some((mut rig, _slot)) = rig("2026.9.6", options).await? else { return Ok(()) };
    let work = tool_in_flight(&rig, "the ride").await?;
    let ride = "[recovery]\nnative = \"ride\"\n";
    let from = cut_and_back(&mut rig, ride, Some(insists(&work))).await?;
    told_and_stopped(&mut rig, &work, from).await?;
    let request = goes_on(&rig, &work, "yes, ride on").await?;
    assert!(request.contains_line(&first_line(&work.call())));
    assert_eq!(notices(&rig, from.0, CHAT), 1);

    let work = tool_in_flight(&rig, "by hand").await?;
    released_by_hand(&mut rig, work).await
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_9_6_native_and_no_notice() -> Outcome {
    let Some((mut rig, _slot)) = rig("2026.9.6", behind_tideover("")).await? else {
        return Ok(());
    };
    let work = tool_in_flight(&rig, "the native way").await?;
    left_alone(&mut rig, work, true).await?;
    let work = tool_in_flight(&rig, "the silence").await?;
    held_in_silence(&mut rig, work).await
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_9_6_no_hold_and_a_finished_call() -> Outcome {
    let Some((mut rig, _slot)) = rig("2026.9.6", behind_tideover("")).await? else {
        return Ok(());
    };
    let work = tool_in_flight(&rig, "without a hold").await?;
    told_not_held(&mut rig, work).await?;
    let work = thinking_after_tool(&rig, "what finished").await?;
    finished_before_the_cut(&mut rig, work).await
}

/// The call had its result, the model had not answered: the user and the model are told so.
async fn finished_before_the_cut(rig: &mut Rig, work: Work) -> Outcome {
    let (sent, _) = cut_and_back(rig, "", Some(insists(&work))).await?;
    let notice = rig.telegram.wait_for("the notice", sent, TURN_MAX, is_notice).await?;
    assert!(notice.text.contains("finished without an error before"), "{}", notice.text);
    let request = goes_on(rig, &work, "yes, go on from there").await?;
    let told = request.turn_text();
    assert!(request.contains_line(&first_line(&work.call())), "{told}");
    assert!(told.contains("finished without an error before"), "{told}");
    assert_eq!(notices(rig, sent, CHAT), 1);
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_5_5_every_mode() -> Outcome {
    let Some((mut rig, _slot)) = rig("2026.5.5", behind_tideover("")).await? else {
        return Ok(());
    };
    // Only a turn whose tool had finished is resumed by this gateway.
    let work = thinking_after_tool(&rig, "the resumed job").await?;
    let from = cut_and_resumed(&mut rig, "", insists(&work)).await?;
    let said = got(&rig, from.0, CHAT);
    assert!(said.iter().any(|m| m.text.contains("finished without an error before")), "{said:#?}");
    told_and_stopped(&mut rig, &work, from).await?;
    let request = goes_on(&rig, &work, "yes, go on then").await?;
    assert!(request.contains_line(&first_line(&work.call())));
    assert_eq!(notices(&rig, from.0, CHAT), 1);

    let work = thinking_after_tool(&rig, "without a hold").await?;
    told_not_held(&mut rig, work).await?;
    let work = thinking_after_tool(&rig, "the native way").await?;
    left_alone(&mut rig, work, false).await?;
    let work = tool_in_flight(&rig, "the silence").await?;
    held_in_silence(&mut rig, work).await?;
    let work = tool_in_flight(&rig, "by hand").await?;
    released_by_hand(&mut rig, work).await?;
    assert!(!rig.proc()?.ended(Target::Gateway));
    Ok(())
}
