//! The full story, as a user plays it.

use super::asks;
use crate::support::incident::{
    CHAT, behind_tideover, first_line, handed_off, is_notice, kill_both, record, record_when,
    tideover,
};
use crate::support::{Outcome, rig};
use tideover::drill::error::DrillError;
use tideover::drill::mock_model::{ModelRequest, Script, Step};
use tideover::drill::mock_telegram::SentMessage;
use tideover::drill::rig::{Rig, TURN_MAX};

async fn the_story(version: &str) -> Outcome {
    let options = behind_tideover("[recovery]\nrelease = \"explicit\"\n");
    let Some((mut rig, _slot)) = rig(version, options).await? else { return Ok(()) };
    let work = rig.work("deploy", CHAT)?;
    let task = "please do the deploy job";
    rig.model.script(Script::marker(task, [Step::call(work.call())]));
    rig.send_user(CHAT, task);
    work.await_effect(1).await?;
    kill_both(&mut rig).await?;
    rig.model.clear();
    work.open_gate()?;
    let sent = rig.telegram.mark();
    rig.boot().await?;
    rig.telegram.wait_for("the notice", sent, TURN_MAX, is_notice).await?;
    handed_off(&rig).await?;

    // The user asks; what the model tries in its answer is held.
    let asked = rig.model.seen();
    let tries = [Step::call(work.call()), Step::text("I was interrupted. Shall I go on?")];
    rig.model.script(Script::marker("what happened", tries));
    let sent = rig.telegram.mark();
    rig.send_user(CHAT, "what happened?");
    let answer = |m: &SentMessage| m.chat == CHAT && m.text.contains("Shall I go on?");
    rig.telegram.wait_for("the model's answer", sent, TURN_MAX, answer).await?;
    let told = |r: &ModelRequest| r.contains_line(&first_line(&work.call()));
    assert!(rig.model.requests_from(asked).iter().any(told), "the model was not told");
    let held = |r: &ModelRequest| r.contains("its user has not confirmed yet");
    assert!(rig.model.requests_from(asked).iter().any(held), "the model was not held");
    assert_eq!(work.runs(), 1, "an effect before the user's word");

    let asked = rig.model.seen();
    asks(&rig, CHAT, "/resume", "/resume yes").await?;
    // The same facts at a shell, which asks for a word, too.
    let key = rig.session_key(CHAT);
    let (status, tail) = refused(&rig, &["resume", &key]).await?;
    assert!(status.contains("exit status: 5"), "{status}");
    for words in ["Outcome: unknown", &format!("tideover resume '{key}' --yes")] {
        assert!(tail.contains(words), "{words}: {tail}");
    }
    assert_eq!(rig.model.seen(), asked, "looking starts no turn");
    rig.model.script(Script::marker(
        "confirmed with /resume",
        [Step::call(work.call()), Step::text("Deployed at last.")],
    ));
    let asked = rig.model.seen();
    let sent = rig.telegram.mark();
    asks(&rig, CHAT, "/resume yes", "Running it again").await?;
    let own = |m: &SentMessage| m.text.contains("Deployed at last.");
    rig.telegram.wait_for("the end", sent, TURN_MAX, own).await?;
    assert_eq!(work.runs(), 2);
    let request = &rig.model.requests_from(asked)[0];
    assert!(request.contains(&first_line(&work.call())), "{:?}", request.turn_text());
    let closed = record_when(&rig, "the end of the resume", CHAT, |record| {
        record["interruption"]["resume"]["stage"] == "ended"
    })
    .await?;
    assert_eq!(closed["interruption"]["settled"]["how"], "rerun", "{closed}");
    assert_eq!(closed["interruption"]["call"]["attempt"], 2, "{closed}");
    assert_eq!(record(&rig, CHAT)?["state"], "idle");
    asks(&rig, CHAT, "/resume yes", "Nothing is left to resume").await?;
    let (_, tail) = refused(&rig, &["resume", &key, "--yes"]).await?;
    assert!(tail.contains("Nothing is left to resume"), "{tail}");
    assert!(tideover(&rig, &["sessions"]).await?.contains("settled: rerun"));
    Ok(())
}

/// How a verb ended that must not succeed.
async fn refused(rig: &Rig, words: &[&str]) -> Outcome<(String, String)> {
    let Err(error) = tideover(rig, words).await else {
        return Err(format!("{words:?} was done").into());
    };
    let error = error.downcast::<DrillError>()?;
    let DrillError::Command { status, tail, .. } = *error else { return Err(error) };
    Ok((status, tail))
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_9_6() -> Outcome {
    the_story("2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_5_5() -> Outcome {
    the_story("2026.5.5").await
}
