//! The same by `tideover resume`: asked first, then run once, and the answer arrives in the chat.

use serde_json::Value;

use crate::support::incident::{
    CHAT, behind_tideover, first_line, handed_off, is_notice, kill_both, record_when, tideover,
};
use crate::support::{Outcome, rig};
use tideover::drill::error::DrillError;
use tideover::drill::mock_model::{Script, Step};
use tideover::drill::mock_telegram::SentMessage;
use tideover::drill::rig::TURN_MAX;

async fn at_the_shell(version: &str) -> Outcome {
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

    let listed: Value = serde_json::from_str(&tideover(&rig, &["sessions", "--json"]).await?)?;
    let key = listed["sessions"][0]["session_key"].as_str().ok_or("no session")?.to_owned();
    let asked = rig.model.seen();
    let Err(refused) = tideover(&rig, &["resume", &key]).await else {
        return Err("no word was asked for".into());
    };
    let refused = refused.downcast::<DrillError>()?;
    let DrillError::Command { status, tail, .. } = &*refused else { return Err(refused) };
    assert!(status.contains("exit status: 5"), "{status}");
    for words in ["Outcome: unknown", &format!("tideover resume '{key}' --yes")] {
        assert!(tail.contains(words), "{words}: {tail}");
    }
    assert_eq!(rig.model.seen(), asked, "looking starts no turn");

    rig.model.script(Script::marker(
        "confirmed with /resume",
        [Step::call(work.call()), Step::text("Deployed at last.")],
    ));
    let sent = rig.telegram.mark();
    let begun = tideover(&rig, &["resume", &key, "--yes"]).await?;
    assert!(begun.contains("Begun: it runs again, once"), "{begun}");
    let own = |m: &SentMessage| m.chat == CHAT && m.text.contains("Deployed at last.");
    rig.telegram.wait_for("the end", sent, TURN_MAX, own).await?;
    assert_eq!(work.runs(), 2, "one run before the kill, one after the word");
    let request = &rig.model.requests_from(asked)[0];
    assert!(request.contains(&first_line(&work.call())), "{:?}", request.turn_text());
    let closed = record_when(&rig, "the end of the resume", CHAT, |record| {
        record["interruption"]["resume"]["stage"] == "ended"
    })
    .await?;
    assert_eq!(closed["interruption"]["settled"]["how"], "rerun", "{closed}");
    assert_eq!(closed["interruption"]["resume"]["from"], "shell", "{closed}");
    assert!(tideover(&rig, &["sessions"]).await?.contains("settled: rerun"));
    let Err(over) = tideover(&rig, &["resume", &key, "--yes"]).await else {
        return Err("it could be run once more".into());
    };
    assert!(over.to_string().contains("Nothing is left to resume"), "{over}");
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn at_the_shell_on_2026_9_6() -> Outcome {
    at_the_shell("2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn at_the_shell_on_2026_5_5() -> Outcome {
    at_the_shell("2026.5.5").await
}
