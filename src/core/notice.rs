//! The words of design §9: to the model, and to the user.

use super::checkpoint::{Cause, Checkpoint, Interruption, Outcome, ToolCall};
use super::limits::{NOTICE_SESSIONS_MAX, NOTICE_TASK_CHARS_MAX, TOOL_CALL_CHARS_MAX};

/// `name arguments-as-JSON`, cut at 500 characters; `none recorded` where no tool was called.
#[must_use]
pub fn tool_call_text(call: Option<&ToolCall>) -> String {
    let Some(call) = call else { return "none recorded".to_owned() };
    let full = match &call.arguments {
        Some(arguments) => format!("{} {arguments}", call.name),
        None => format!("{} (arguments not kept)", call.name),
    };
    cut_at(&full, TOOL_CALL_CHARS_MAX)
}

/// The first line to the model, exactly as promised.
#[must_use]
pub fn first_line(cut: &Interruption) -> String {
    format!(
        "Session was interrupted. Last action: {}. Continue only if user confirms.",
        tool_call_text(cut.call.as_ref())
    )
}

/// The whole text that is put before the model.
#[must_use]
pub fn model_text(cut: &Interruption) -> String {
    let mut text = first_line(cut);
    text.push_str("\nOutcome: ");
    text.push_str(&outcome_text(cut.call.as_ref()));
    if cut.other_open_calls > 0 {
        text.push_str(&format!(" {} more call(s) were open beside it.", cut.other_open_calls));
    }
    if let Some(task) = &cut.task {
        text.push_str("\nTask: ");
        text.push_str(&cut_at(task, TOOL_CALL_CHARS_MAX));
    }
    text
}

/// What a blocked model reads in place of a result.
#[must_use]
pub fn hold_reason(cut: &Interruption) -> String {
    format!(
        "Not run: this session was interrupted and its user has not confirmed yet. \
         Last action: {}. Do not call further tools; tell the user what was interrupted and ask \
         whether to go on.",
        tool_call_text(cut.call.as_ref())
    )
}

/// The notice to the user: several sessions on one route make one message.
#[must_use]
pub fn user_text(sessions: &[&Checkpoint], possible_repeat: bool) -> String {
    let cut: Vec<(&Checkpoint, &Interruption)> = sessions
        .iter()
        .filter_map(|record| record.interruption.as_ref().map(|cut| (*record, cut)))
        .collect();
    let mut text = String::new();
    if possible_repeat {
        text.push_str("(Possibly repeated.) ");
    }
    match cut.as_slice() {
        [] => {}
        [(_, cut)] => {
            text.push_str(&format!("⚠️ Your task was interrupted: {}.\n", cause_text(cut)));
            text.push_str(&facts(cut));
        }
        several => {
            let first = several.first().map_or(String::new(), |(_, cut)| cause_text(cut));
            text.push_str(&format!("⚠️ {} tasks were interrupted: {first}.\n", several.len()));
            for (number, (_, cut)) in several.iter().take(NOTICE_SESSIONS_MAX).enumerate() {
                text.push_str(&format!("{}. {}", number + 1, facts(cut)));
            }
            if several.len() > NOTICE_SESSIONS_MAX {
                text.push_str(&format!("…and {} more.\n", several.len() - NOTICE_SESSIONS_MAX));
            }
        }
    }
    text.push_str(
        "Nothing with side effects runs until you answer. Reply to go on, or send /resume to run \
         that action again.",
    );
    text
}

fn facts(cut: &Interruption) -> String {
    let mut text = String::new();
    if let Some(task) = &cut.task {
        text.push_str(&format!("Task: {}\n", cut_at(task, NOTICE_TASK_CHARS_MAX)));
    }
    text.push_str(&format!("Last action: {}\n", tool_call_text(cut.call.as_ref())));
    text.push_str(&format!("Outcome: {}\n", outcome_text(cut.call.as_ref())));
    text
}

/// The outcome of the cut call in a sentence.
#[must_use]
pub fn outcome_text(call: Option<&ToolCall>) -> String {
    let Some(call) = call else {
        return "no tool call was recorded in this task.".to_owned();
    };
    match call.outcome {
        Outcome::Unknown => {
            "unknown: it was started and no result was recorded, so it may or may not have taken \
             effect."
                .to_owned()
        }
        Outcome::Ok => "finished without an error before the interruption.".to_owned(),
        Outcome::Error => "finished with an error before the interruption.".to_owned(),
        Outcome::Background => match call.ended_at() {
            Some(_) => "its background command ended before the interruption; its result was not \
                        read."
                .to_owned(),
            None => "running in background when the interruption came; whether its command lives \
                     on is not known."
                .to_owned(),
        },
    }
}

/// The cause in words, for people.
#[must_use]
pub fn cause_text(cut: &Interruption) -> String {
    let what = match cut.cause {
        Cause::Sigterm => "the gateway was stopped or restarted",
        Cause::OtherSignal => "the gateway was ended by a signal",
        Cause::GatewayRestart => "the gateway restarted",
        Cause::InProcessRestart => "the gateway restarted itself",
        Cause::GatewayExit => "the gateway ended unexpectedly",
        Cause::GatewayKilled => "the gateway was killed or crashed",
        Cause::TideoverKilled => "the gateway and its supervisor were killed",
        Cause::HostReboot => "the host was restarted",
        Cause::PowerCut => "the host went down without warning",
        Cause::Unknown => "the cause is not known",
    };
    what.to_owned()
}

fn cut_at(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    short.push('…');
    short
}
