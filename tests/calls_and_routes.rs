//! What the rehearsals leave out: two calls of one turn cut mid flight, and a session in a topic
//! of a Telegram forum, whose notice goes to that topic. One kill cuts both.

mod support;

use serde_json::{Value, json};
use support::incident::{
    CHAT, behind_tideover, first_line, handed_off, is_native_turn, is_notice, kill_gateway,
    notices, record, record_when, tideover,
};
use support::{Outcome, rig};
use tideover::drill::mock_model::{ModelRequest, Script, Step};
use tideover::drill::mock_telegram::SentMessage;
use tideover::drill::rig::{Rig, RigOptions, TURN_MAX};
use tideover::drill::work::Work;

const FORUM: i64 = -1_001_234_567;
const TOPIC: i64 = 77;

fn options() -> RigOptions {
    let group = json!({"requireMention": false});
    let telegram = json!({"groupPolicy": "open", "groups": {FORUM.to_string(): group}});
    let patch = json!({"channels": {"telegram": telegram}});
    RigOptions { config_patch: patch, ..behind_tideover("") }
}

/// The record of the topic's session, as a user sees it.
async fn topic_record(rig: &Rig) -> Outcome<Value> {
    let listed = tideover(rig, &["--json", "sessions", "list"]).await?;
    let listed: Value = serde_json::from_str(&listed)?;
    let sessions = listed["sessions"].as_array().cloned().unwrap_or_default();
    let of_topic = |s: &Value| s["session_key"].as_str().is_some_and(|k| k.contains(":topic:"));
    Ok(sessions.into_iter().find(of_topic).ok_or_else(|| format!("no topic in {listed}"))?)
}

/// Two calls of one turn in flight side by side.
async fn two_calls(rig: &Rig) -> Outcome<[Work; 2]> {
    let works = [rig.work("left", CHAT)?, rig.work("right", CHAT)?];
    let calls = works.iter().map(Work::call).collect();
    rig.model.script(Script::marker("both jobs", [Step::Calls(calls)]));
    rig.send_user(CHAT, "please do both jobs");
    for work in &works {
        work.await_effect(1).await?;
        let before = work.checkpoint_before_effect()?.ok_or("an effect without a checkpoint")?;
        assert!(of(&before, work), "an effect without its intent: {before}");
    }
    Ok(works)
}

/// Whether a record names a work's call among those it keeps.
fn of(record: &Value, work: &Work) -> bool {
    let is = |call: &Value| call["arguments"] == work.call().arguments;
    let beside = record["open_calls"].as_array().is_some_and(|calls| calls.iter().any(is));
    is(&record["last_tool_call"]) || beside
}

async fn one_call_in_topic(rig: &Rig) -> Outcome<Work> {
    let work = rig.work("topic", CHAT)?;
    rig.model.script(Script::marker("the forum's job", [Step::call(work.call())]));
    rig.telegram.user_says_in_topic(CHAT, FORUM, TOPIC, "please do the forum's job");
    work.await_effect(1).await?;
    Ok(work)
}

async fn goes_on_in_topic(rig: &Rig, work: &Work) -> Outcome {
    let asked = rig.model.seen();
    let steps = [Step::call(work.call()), Step::text("The forum's job is done.")];
    rig.model.script(Script::marker("yes, in the forum", steps));
    rig.telegram.user_says_in_topic(CHAT, FORUM, TOPIC, "yes, in the forum");
    let own = |r: &ModelRequest| r.turn_text().contains("yes, in the forum");
    let request = rig.model.wait_for("the topic's turn", asked, TURN_MAX, own).await?;
    assert!(request.contains_line(&first_line(&work.call())), "{}", request.turn_text());
    // Whether a group is shown a final text is the gateway's own affair.
    work.await_effect(2).await?;
    let result = |r: &ModelRequest| own(r) && !r.turn_tool_results().is_empty();
    rig.model.wait_for("the result", asked, TURN_MAX, result).await?;
    assert_eq!(work.runs(), 2);
    Ok(())
}

async fn goes_on_with_both(rig: &Rig, works: &[Work; 2]) -> Outcome {
    let (sent, asked) = (rig.telegram.mark(), rig.model.seen());
    let calls = works.iter().map(Work::call).collect();
    let steps = [Step::Calls(calls), Step::text("Both jobs are done.")];
    rig.model.script(Script::marker("yes, both", steps));
    rig.send_user(CHAT, "yes, both");
    let own = |r: &ModelRequest| r.turn_text().contains("yes, both");
    let request = rig.model.wait_for("the user's turn", asked, TURN_MAX, own).await?;
    let told = request.turn_text();
    let line = |work: &Work| request.contains_line(&first_line(&work.call()));
    assert!(works.iter().any(line), "{told}");
    assert!(told.contains("1 more call(s) were open beside it."), "{told}");
    let replied = |m: &SentMessage| m.text.contains("Both jobs are done");
    rig.telegram.wait_for("the reply", sent, TURN_MAX, replied).await?;
    assert_eq!(works.each_ref().map(Work::runs), [2, 2]);
    let idle = |r: &Value| r["state"] == "idle";
    record_when(rig, "the end of the turn", CHAT, idle).await?;
    Ok(())
}

async fn cut_side_by_side(version: &str) -> Outcome {
    let Some((mut rig, _slot)) = rig(version, options()).await? else { return Ok(()) };
    let works = two_calls(&rig).await?;
    let topic = one_call_in_topic(&rig).await?;
    let route = topic_record(&rig).await?["route"].clone();
    kill_gateway(&mut rig).await?;
    let kept = record(&rig, CHAT)?;
    assert!(works.iter().all(|work| of(&kept, work)), "both calls are kept: {kept}");
    assert_eq!(kept["interruption"]["other_open_calls"], 1);

    rig.model.clear();
    let insists = works.iter().chain([&topic]).map(|work| Step::call(work.call()));
    rig.model.script(Script::when(is_native_turn, insists).insisting());
    let sent = rig.telegram.mark();
    rig.boot().await?;
    handed_off(&rig).await?;
    let of_both = |m: &SentMessage| m.chat == CHAT && is_notice(m);
    let notice = rig.telegram.wait_for("the notice", sent, TURN_MAX, of_both).await?;
    assert!(notice.text.contains("1 more call(s) were open beside it."), "{}", notice.text);
    let in_topic = |m: &SentMessage| m.chat == FORUM && is_notice(m);
    let notice = rig.telegram.wait_for("the topic's notice", sent, TURN_MAX, in_topic).await?;
    assert_eq!(notice.thread, Some(TOPIC), "the notice is for the topic; its route is {route}");

    for work in works.iter().chain([&topic]) {
        work.open_gate()?;
        assert_eq!(work.runs(), 1, "an effect without the user's word");
    }
    goes_on_with_both(&rig, &works).await?;
    assert_eq!(topic.runs(), 1, "one user's word is not another's");
    goes_on_in_topic(&rig, &topic).await?;
    assert_eq!((notices(&rig, sent, CHAT), notices(&rig, sent, FORUM)), (1, 1));
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn two_calls_and_a_topic_on_2026_9_6() -> Outcome {
    cut_side_by_side("2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn two_calls_and_a_topic_on_2026_5_5() -> Outcome {
    cut_side_by_side("2026.5.5").await
}
