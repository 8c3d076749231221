//! The full story, as a user plays it: cut, told, asked, confirmed (in the chat and at a shell at the same moment), run
//! once, closed.

use serde_json::{Value, json};
use tideover::drill::error::DrillError;
use tideover::drill::mock_model::{ModelRequest, Script, Step};
use tideover::drill::rig::Rig;
use tideover::drill::work::Work;

use super::{asks, is_resumed_turn, replied};
use crate::support::Outcome;
use crate::support::incident::{CHAT, first_line, record_when, tideover};

/// From the notice on: the call of `work` was cut, and its gate is open.
pub(super) async fn play(rig: &Rig, work: &Work) -> Outcome {
    // The user asks; what the model tries in its answer is held.
    rig.model.clear();
    let asked = rig.model.seen();
    let tries = [Step::call(work.call()), Step::text("I was interrupted. Shall I go on?")];
    rig.model.script(Script::marker("what happened", tries));
    let sent = rig.telegram.mark();
    rig.send_user(CHAT, "what happened?");
    replied(rig, CHAT, sent, "Shall I go on?").await?;
    let told = |r: &ModelRequest| r.contains_line(&first_line(&work.call()));
    assert!(rig.model.requests_from(asked).iter().any(told), "the model was not told");
    let held = |r: &ModelRequest| r.contains("its user has not confirmed yet");
    assert!(rig.model.requests_from(asked).iter().any(held), "the model was not held");
    assert_eq!(work.runs(), 1, "an effect before the user's word");

    // The facts, in the chat and at a shell, which asks for a word, too.
    let asked = rig.model.seen();
    let facts = asks(rig, CHAT, "/resume", "/resume yes").await?.text;
    let word = facts.lines().find(|line| line.starts_with("/resume yes")).unwrap_or_default();
    let word = word.split_once(" –").unwrap_or_default().0;
    let key = rig.session_key(CHAT);
    let (status, tail) = refused(rig, &["resume", &key]).await?;
    assert!(status.contains("exit status: 5"), "{status}");
    for words in ["Outcome: unknown", &format!("tideover resume '{key}' --yes")] {
        assert!(tail.contains(words), "{words}: {tail}");
    }
    assert_eq!(rig.model.seen(), asked, "looking starts no turn");

    // Two words at the same moment: one of them has it run.
    let steps = [Step::call(work.call()), Step::text("Deployed at last.")];
    rig.model.script(Script::when(is_resumed_turn, steps));
    let sent = rig.telegram.mark();
    let words = ["resume", &key, "--yes", "--json"];
    let (chat, shell) = tokio::join!(asks(rig, CHAT, word, ""), tideover(rig, &words));
    let by_chat = chat?.text.contains("Running it again");
    let by_shell = shell.is_ok_and(|text| {
        let answer = serde_json::from_str::<Value>(&text).unwrap_or_default();
        answer["decision"] == json!("rerun")
    });
    assert!(by_chat != by_shell, "chat {by_chat}, shell {by_shell}");
    replied(rig, CHAT, sent, "Deployed at last.").await?;
    let closed = record_when(rig, "the end of the resume", CHAT, |record| {
        record["interruption"]["resume"]["stage"] == "ended" && record["state"] == "idle"
    })
    .await?;
    assert_eq!(work.runs(), 2, "chat {by_chat}, shell {by_shell}");
    assert_eq!(closed["interruption"]["settled"]["how"], "rerun", "{closed}");
    assert_eq!(closed["interruption"]["call"]["attempt"], 2, "{closed}");
    let request = &rig.model.requests_from(asked)[0];
    assert!(request.contains(&first_line(&work.call())), "{:?}", request.turn_text());

    asks(rig, CHAT, "/resume yes", "Nothing is left to resume").await?;
    let (_, tail) = refused(rig, &["resume", &key, "--yes"]).await?;
    assert!(tail.contains("Nothing is left to resume"), "{tail}");
    assert!(tideover(rig, &["sessions"]).await?.contains("settled: rerun"));
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
