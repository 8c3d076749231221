//! `/resume` on the real gateways: a person's word, the permit, the call, and nothing but the call.

#[path = "../support/mod.rs"]
mod support;

mod chapters;
mod kills;
mod people;
mod rotation;
mod story;
mod survivor;

use support::Outcome;
use support::incident::NATIVE_TO_MODEL;
use tideover::drill::mock_model::ModelRequest;
use tideover::drill::mock_telegram::SentMessage;
use tideover::drill::rig::{Rig, TURN_MAX};

/// A user writes a command; its answer, which holds `expected`.
async fn asks(rig: &Rig, chat: i64, command: &str, expected: &str) -> Outcome<SentMessage> {
    let sent = rig.telegram.mark();
    rig.send_user(chat, command);
    let answer = |m: &SentMessage| m.chat == chat && m.text.contains(expected);
    let what = format!("the answer to {command} with {expected:?} in {chat}");
    Ok(rig.telegram.wait_for(&what, sent, TURN_MAX, answer).await?)
}

/// Waits for the model's last word.
async fn replied(rig: &Rig, chat: i64, from: usize, text: &str) -> Outcome {
    let own = |m: &SentMessage| m.chat == chat && m.text.contains(text);
    rig.telegram.wait_for(&format!("{text:?} in {chat}"), from, TURN_MAX, own).await?;
    Ok(())
}

/// Whether a request belongs to the turn that a person's `/resume` started.
fn is_resumed_turn(request: &ModelRequest) -> bool {
    let text = request.turn_text();
    // 2026.5.5 merges the words of a turn that was cut, ours too, into its own recovery turn.
    text.contains("confirmed with /resume") && !text.contains(NATIVE_TO_MODEL)
}
