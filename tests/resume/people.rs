//! Who may say it, who reads along, and what the gateway's own recovery does meanwhile.

use serde_json::json;
use tideover::drill::mock_model::{Script, Step};
use tideover::drill::mock_telegram::SentMessage;
use tideover::drill::rig::{Rig, RigOptions, TURN_MAX};

use super::{asks, is_resumed_turn, replied};
use crate::support::incident::{
    CHAT, OURS_TO_MODEL, behind_tideover, is_native_turn, is_notice, kill_both, notices,
    record_when,
};
use crate::support::{Outcome, rig};

const FORUM: i64 = -100_123;
const TOPIC: i64 = 7;
/// Somebody who may not write to the bot.
const STRANGER: i64 = 666;

/// A stranger's word is refused by the gateway itself.
async fn a_stranger(rig: &Rig) -> Outcome {
    let asked = rig.model.seen();
    asks(rig, STRANGER, "/resume yes", "You are not authorized to use this command.").await?;
    assert_eq!(rig.model.seen(), asked, "the model was asked");
    Ok(())
}

/// In a group neither the notice nor the command shows arguments.
async fn a_group(rig: &Rig, secret: &str, sent: usize) -> Outcome {
    let in_forum = |m: &SentMessage| m.chat == FORUM;
    let notice = |m: &SentMessage| in_forum(m) && is_notice(m);
    rig.telegram.wait_for("the group's notice", sent, TURN_MAX, notice).await?;
    let from = rig.telegram.mark();
    rig.telegram.user_says_in_topic(CHAT, FORUM, TOPIC, "/resume");
    let facts = |m: &SentMessage| in_forum(m) && m.text.contains("arguments are not shown");
    rig.telegram.wait_for("the facts", from, TURN_MAX, facts).await?;
    let told: Vec<String> = rig
        .telegram
        .sent()
        .into_iter()
        .skip(sent)
        .filter(in_forum)
        .map(|m| m.text)
        .filter(|text| text.contains(secret))
        .collect();
    assert!(told.is_empty(), "arguments in a group: {told:?}");
    Ok(())
}

async fn people(version: &str) -> Outcome {
    let options = RigOptions {
        config_patch: json!({"channels": {"telegram": {"groupPolicy": "open", "groups": {"*": {"requireMention": false}}}}}),
        ..behind_tideover("[recovery]\nnative = \"ride\"\n")
    };
    let Some((mut rig, _slot)) = rig(version, options).await? else { return Ok(()) };
    let (mine, ours) = (rig.work("mine", CHAT)?, rig.work("ours", CHAT)?);
    rig.model.script(Script::marker("do my job", [Step::call(mine.call())]));
    rig.model.script(Script::marker("do our job", [Step::call(ours.call())]));
    rig.send_user(CHAT, "please do my job");
    rig.telegram.user_says_in_topic(CHAT, FORUM, TOPIC, "please do our job");
    mine.await_effect(1).await?;
    ours.await_effect(1).await?;
    kill_both(&mut rig).await?;
    rig.model.clear();
    for work in [&mine, &ours] {
        work.open_gate()?;
    }
    // What the gateway's own recovery has the model do: the call again, and then a word.
    let insists = [Step::call(mine.call()), Step::text("I will ask first.")];
    rig.model.script(Script::when(is_native_turn, insists).insisting());
    let (sent, asked) = (rig.telegram.mark(), rig.model.seen());
    rig.boot().await?;
    let own = |m: &SentMessage| m.chat == CHAT && is_notice(m);
    rig.telegram.wait_for("the notice", sent, TURN_MAX, own).await?;
    a_group(&rig, "ours.sh", sent).await?;
    a_stranger(&rig).await?;
    if version == "2026.9.6" {
        let request =
            rig.model.wait_for("the native turn", asked, TURN_MAX, is_native_turn).await?;
        assert!(request.contains(OURS_TO_MODEL), "{}", request.turn_text());
        record_when(&rig, "the native turn in the record", CHAT, |found| {
            found["interruption"]["native"] == "ran" && found["turn"].is_null()
        })
        .await?;
        asks(&rig, CHAT, "/resume", "it ran a turn by itself").await?;
    } else {
        asks(&rig, CHAT, "/resume", "/resume yes").await?;
    }
    assert_eq!(mine.runs(), 1, "an effect in the gateway's own turn");
    rig.model.clear();
    rig.model.script(Script::when(
        is_resumed_turn,
        [Step::call(mine.call()), Step::text("Done at last.")],
    ));
    let from = rig.telegram.mark();
    asks(&rig, CHAT, "/resume yes", "Running it again").await?;
    replied(&rig, CHAT, from, "Done at last.").await?;
    assert_eq!((mine.runs(), ours.runs()), (2, 1));
    assert_eq!(notices(&rig, sent, CHAT), 1, "more than one notice");
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_9_6() -> Outcome {
    people("2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_5_5() -> Outcome {
    people("2026.5.5").await
}
