//! Notices through a channel that fails, on both gateways: each arrives once, or says that it may be a repeat, or
//! ends visibly failed; and what a newer gateway gives up by itself is reported.

use crate::support::incident::{
    CHAT, behind_tideover, handed_off, is_notice, kill_gateway, record_when, stop, tideover,
};
use crate::support::{Outcome, rig};
use serde_json::Value;
use tideover::drill::mock_model::{Script, Step};
use tideover::drill::mock_telegram::{Failure, SentMessage};
use tideover::drill::progress::until;
use tideover::drill::rig::{Rig, TURN_MAX};

const MARK: &str = "(Possibly repeated.)";

/// The newest notice as `tideover outbox list` shows it.
async fn newest(rig: &Rig) -> Outcome<Value> {
    let listed: Value = serde_json::from_str(&tideover(rig, &["outbox", "list", "--json"]).await?)?;
    let notices = listed["notices"].as_array().cloned().unwrap_or_default();
    let newest = notices.into_iter().max_by_key(|notice| notice["created_at"].to_string());
    Ok(newest.unwrap_or_default())
}

async fn newest_when(rig: &Rig, what: &str, wanted: impl Fn(&Value) -> bool) -> Outcome<Value> {
    until(what, TURN_MAX, || async {
        let notice = newest(rig).await.map_err(|error| error.to_string())?;
        if wanted(&notice) { Ok(()) } else { Err(notice.to_string()) }
    })
    .await?;
    newest(rig).await
}

/// A turn is cut in mid tool, and the gateway comes back to a channel that fails. Returns where the log of the
/// channel stood.
async fn cut_and_back(rig: &mut Rig, name: &str, failure: Failure) -> Outcome<usize> {
    let work = rig.work(name, CHAT)?;
    let task = format!("please do the {name} job");
    rig.model.script(Script::marker(&task, [Step::call(work.call())]));
    rig.send_user(CHAT, &task);
    work.await_effect(1).await?;
    kill_gateway(rig).await?;
    rig.model.clear();
    work.open_gate()?;
    let sent = rig.telegram.mark();
    rig.telegram.set_failure(failure);
    rig.boot().await?;
    Ok(sent)
}

/// The notices that the channel took since then.
fn taken(rig: &Rig, from: usize) -> Vec<SentMessage> {
    rig.telegram.sent().into_iter().skip(from).filter(is_notice).collect()
}

/// The user speaks, so that the next incident finds a session at rest.
async fn goes_on(rig: &Rig, name: &str) -> Outcome {
    rig.plain_turn(CHAT, &format!("thanks for {name}"), &format!("Welcome after {name}.")).await?;
    record_when(rig, "a session at rest", CHAT, |record| record["state"] == "idle").await?;
    Ok(())
}

/// The channel answers with an error: surely not sent, so it is sent again without a mark, once.
async fn refused_for_now(rig: &mut Rig) -> Outcome {
    let sent = cut_and_back(rig, "refused", Failure::Status(500)).await?;
    newest_when(rig, "a failed try", |notice| notice["tries"].as_u64() >= Some(1)).await?;
    rig.telegram.set_failure(Failure::None);
    newest_when(rig, "the delivery", |notice| notice["state"] == "delivered").await?;
    let taken = taken(rig, sent);
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert!(!taken[0].text.contains(MARK), "{}", taken[0].text);
    goes_on(rig, "refused").await
}

/// The channel takes it and its answer is lost: what comes later says that it may be a repeat.
async fn answer_lost(rig: &mut Rig) -> Outcome {
    let sent = cut_and_back(rig, "lost", Failure::AnswerLost).await?;
    rig.telegram.wait_for("the notice", sent, TURN_MAX, is_notice).await?;
    newest_when(rig, "a try without an answer", |notice| notice["state"] == "uncertain").await?;
    rig.telegram.set_failure(Failure::None);
    newest_when(rig, "the delivery", |notice| notice["state"] == "delivered").await?;
    let taken = taken(rig, sent);
    let marked = taken.iter().filter(|m| m.text.contains(MARK)).count();
    assert_eq!(marked, 1, "{taken:?}");
    assert!(taken.last().is_some_and(|last| last.text.contains(MARK)), "{taken:?}");
    goes_on(rig, "lost").await
}

/// The user has blocked the bot: failed, and said so; tried again when asked for.
async fn refused_for_good(rig: &mut Rig) -> Outcome {
    let sent = cut_and_back(rig, "blocked", Failure::Status(403)).await?;
    newest_when(rig, "the end of it", |notice| notice["state"] == "failed").await?;
    handed_off(rig).await?;
    rig.telegram.set_failure(Failure::None);
    assert!(taken(rig, sent).is_empty());
    tideover(rig, &["outbox", "retry"]).await?;
    newest_when(rig, "the delivery", |notice| notice["state"] == "delivered").await?;
    let taken = taken(rig, sent);
    assert_eq!(taken.len(), 1, "{taken:?}");
    goes_on(rig, "blocked").await
}

/// tideover ended between the channel's answer and its own record: the receipt tells, nothing is sent again.
async fn a_receipt_is_found(rig: &mut Rig) -> Outcome {
    let sent = cut_and_back(rig, "receipt", Failure::None).await?;
    let notice = newest_when(rig, "the delivery", |notice| notice["state"] == "delivered").await?;
    stop(rig).await?;
    let key = notice["key"].as_str().ok_or("a notice without a key")?;
    let file = rig.home.state().join(format!("tideover/outbox/{key}.json"));
    let mut entry: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    entry["state"] = "attempting".into();
    entry["open"] = 1.into();
    std::fs::write(&file, entry.to_string())?;
    rig.boot().await?;
    newest_when(rig, "the receipt", |notice| notice["state"] == "delivered").await?;
    let taken = taken(rig, sent);
    assert_eq!(taken.len(), 1, "{taken:?}");
    goes_on(rig, "receipt").await
}

/// The gateway's own queue takes it and delivers it: nothing is sent beside that.
async fn queued_by_the_gateway(rig: &mut Rig) -> Outcome {
    let sent = cut_and_back(rig, "queued", Failure::Refuse).await?;
    newest_when(rig, "a queued notice", |notice| notice["state"] == "uncertain").await?;
    let listed: Value = serde_json::from_str(&tideover(rig, &["queue", "--json"]).await?)?;
    assert_eq!(listed["kind"], "native", "{listed}");
    until("the row of the gateway's queue", TURN_MAX, || async {
        let listed =
            tideover(rig, &["queue", "--json"]).await.map_err(|error| error.to_string())?;
        if listed.contains("outbound-prepared-v1") { Ok(()) } else { Err(listed) }
    })
    .await?;
    rig.telegram.set_failure(Failure::None);
    newest_when(rig, "the delivery", |notice| notice["state"] == "delivered").await?;
    let taken = taken(rig, sent);
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert!(!taken[0].text.contains(MARK), "{}", taken[0].text);
    goes_on(rig, "queued").await
}

/// A reply that the gateway discards is named, with its session and the time.
async fn given_up_by_the_gateway(rig: &mut Rig) -> Outcome {
    rig.model.script(Script::marker("say something", [Step::text("Something that is lost.")]));
    rig.telegram.set_failure(Failure::Status(500));
    rig.send_user(CHAT, "say something");
    let session = rig.session_key(CHAT);
    until("the report", TURN_MAX, || async {
        let listed =
            tideover(rig, &["queue", "--json"]).await.map_err(|error| error.to_string())?;
        let listed: Value = serde_json::from_str(&listed).map_err(|error| error.to_string())?;
        let gone = |entry: &Value| {
            entry["place"] == "given_up"
                && entry["session_key"] == session.as_str()
                && entry["enqueued_at"].is_string()
        };
        let found = listed["entries"].as_array().is_some_and(|entries| entries.iter().any(gone));
        if found { Ok(()) } else { Err(listed.to_string()) }
    })
    .await?;
    rig.telegram.set_failure(Failure::None);
    let log = rig.proc()?.log_text();
    assert!(log.contains("the gateway gave a message up"), "{log}");
    assert!(!log.contains("Something that is lost."), "no text in the log");
    Ok(())
}

// 2026.9.6 leaves its channels off after three unclean boots within five minutes: two cuts a rig.

#[tokio::test(flavor = "current_thread")]
async fn on_2026_9_6_a_refusal_and_a_lost_answer() -> Outcome {
    let Some((mut rig, _slot)) = rig("2026.9.6", behind_tideover("")).await? else { return Ok(()) };
    refused_for_now(&mut rig).await?;
    answer_lost(&mut rig).await
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_9_6_a_blocked_bot_and_a_receipt() -> Outcome {
    let Some((mut rig, _slot)) = rig("2026.9.6", behind_tideover("")).await? else { return Ok(()) };
    refused_for_good(&mut rig).await?;
    a_receipt_is_found(&mut rig).await
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_9_6_what_its_own_queue_delivers_and_discards() -> Outcome {
    let Some((mut rig, _slot)) = rig("2026.9.6", behind_tideover("")).await? else { return Ok(()) };
    queued_by_the_gateway(&mut rig).await?;
    given_up_by_the_gateway(&mut rig).await
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_5_5() -> Outcome {
    let Some((mut rig, _slot)) = rig("2026.5.5", behind_tideover("")).await? else { return Ok(()) };
    refused_for_now(&mut rig).await?;
    answer_lost(&mut rig).await?;
    refused_for_good(&mut rig).await?;
    a_receipt_is_found(&mut rig).await
}
