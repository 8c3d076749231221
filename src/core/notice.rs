//! The words of design §9: to the model, and to the user.

use super::checkpoint::{
    Cause, Checkpoint, HoldStatus, Interruption, Outcome, SettledHow, ToolCall,
};
use super::hold::ReleasePolicy;
use super::limits::{NOTICE_SESSIONS_MAX, NOTICE_TASK_CHARS_MAX, TOOL_CALL_CHARS_MAX};
use super::session_kind::is_group;
use super::unattended;

/// `name arguments-as-JSON`, cut at 500 characters; `none recorded` where no tool was called.
#[must_use]
pub fn tool_call_text(call: Option<&ToolCall>) -> String {
    let Some(call) = call else { return "none recorded".to_owned() };
    let full = match (&call.arguments, &call.arguments_omitted) {
        (Some(arguments), _) => format!("{} {arguments}", call.name),
        (None, Some(_)) => format!("{} (arguments not kept)", call.name),
        (None, None) => call.name.clone(),
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
    text.push_str(&others_text(cut));
    if let Some(settled) = cut.settled {
        text.push_str(settled_text(settled.how));
    }
    if let Some(task) = &cut.task {
        text.push_str("\nTask: ");
        text.push_str(&cut_at(task, TOOL_CALL_CHARS_MAX));
    }
    if cut.orphaned.is_some() {
        text.push_str(REPLACED_TO_MODEL);
    }
    text
}

/// What a person has already said about the action, for the model.
fn settled_text(how: SettledHow) -> &'static str {
    match how {
        SettledHow::Rerun => " The user has had it run again since; its result is in this session.",
        SettledHow::WentOn => " The user has had the task go on since.",
        SettledHow::Done => " The user says that it did take effect: do not run it again.",
        SettledHow::Closed => " Its user has closed that task.",
        SettledHow::Skipped => " The user has dropped it: do not run it again.",
    }
}

/// What a model reads that knows nothing of what was said in the session before.
pub(super) const REPLACED_TO_MODEL: &str = "\nThe gateway has replaced the session with a new one since: what was \
    said and done in the old one is not part of this conversation.";

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

/// What a notice begins with that may have arrived before.
const POSSIBLY_REPEATED: &str = "(Possibly repeated.) ";

/// A notice's text, marked as one that may have arrived before.
#[must_use]
pub fn possibly_repeated(text: &str) -> String {
    format!("{POSSIBLY_REPEATED}{}", text.strip_prefix(POSSIBLY_REPEATED).unwrap_or(text))
}

/// The notice to the user: several sessions on one route make one message.
#[must_use]
pub fn user_text(
    sessions: &[&Checkpoint],
    release: ReleasePolicy,
    possible_repeat: bool,
    shown: Shown,
) -> String {
    let cut: Vec<(&Checkpoint, &Interruption)> = sessions
        .iter()
        .filter_map(|record| record.interruption.as_ref().map(|cut| (*record, cut)))
        .collect();
    let mut text = String::new();
    if possible_repeat {
        text.push_str(POSSIBLY_REPEATED);
    }
    match cut.as_slice() {
        [] => {}
        [(_, cut)] if cut.orphaned.is_some() => {
            text.push_str(
                "⚠️ The gateway replaced this session with a new one, which knows nothing of your open task. It is \
                 kept.\n",
            );
            text.push_str(&facts(cut, shown));
        }
        [(record, cut)] => {
            let subject = unattended::subject(record.unattended());
            text.push_str(&format!("⚠️ {subject} was interrupted: {}.\n", cause_text(cut)));
            text.push_str(&facts_of(record, cut, shown));
            if record.unattended().is_some() {
                text.push_str(&unattended::what_to_do(record, cut));
            }
        }
        several => {
            let first = several.first().map_or(String::new(), |(_, cut)| cause_text(cut));
            let count = several.len();
            if several.iter().all(|(_, cut)| cut.orphaned.is_some()) {
                text.push_str(&format!(
                    "⚠️ The gateway replaced {count} sessions with new ones, which know nothing of your open tasks. \
                     They are kept.\n"
                ));
            } else {
                text.push_str(&format!("⚠️ {count} tasks were interrupted: {first}.\n"));
            }
            for (number, (record, cut)) in several.iter().take(NOTICE_SESSIONS_MAX).enumerate() {
                let number = number + 1;
                match record.unattended() {
                    None => text.push_str(&format!("{number}. {}", facts(cut, shown))),
                    kind @ Some(_) => {
                        let (what, facts) =
                            (unattended::subject(kind), facts_of(record, cut, shown));
                        text.push_str(&format!("{number}. {what}. {facts}"));
                        text.push_str(&unattended::what_to_do(record, cut));
                    }
                }
            }
            if several.len() > NOTICE_SESSIONS_MAX {
                text.push_str(&format!("…and {} more.\n", several.len() - NOTICE_SESSIONS_MAX));
            }
        }
    }
    let mut attended = cut.iter().filter(|(record, _)| record.unattended().is_none()).peekable();
    if attended.peek().is_none() {
        text.truncate(text.trim_end().len());
        return text;
    }
    if attended.any(|(_, cut)| cut.status == HoldStatus::Held) {
        text.push_str("Nothing with side effects runs until you ");
        text.push_str(match release {
            ReleasePolicy::AnyMessage => "answer. ",
            ReleasePolicy::Explicit => "say so. ",
        });
    }
    if cut.iter().any(|(_, cut)| cut.orphaned.is_some()) {
        text.push_str("Send /resume to carry the old task over here.");
    } else {
        text.push_str(what_to_do(release));
    }
    text
}

/// What the user reads when a turn was ended because the model went on calling held tools.
#[must_use]
pub fn question_text(cut: &Interruption, release: ReleasePolicy, shown: Shown) -> String {
    format!(
        "⏸ I stopped here: this task was interrupted before, and what I was about to do has side \
         effects.\n{}Shall I go on? {}",
        facts(cut, shown),
        what_to_do(release)
    )
}

fn what_to_do(release: ReleasePolicy) -> &'static str {
    match release {
        ReleasePolicy::AnyMessage => "Reply to go on, or send /resume to run that action again.",
        ReleasePolicy::Explicit => {
            "Send /resume to run that action again, or have the hold lifted with `tideover sessions \
             release`."
        }
    }
}

fn facts(cut: &Interruption, shown: Shown) -> String {
    facts_about(cut.task.as_deref(), cut, shown)
}

/// The same, where the task may stand between the gateway's own words.
fn facts_of(record: &Checkpoint, cut: &Interruption, shown: Shown) -> String {
    match (record.unattended(), &cut.task) {
        (Some(kind), Some(task)) => {
            facts_about(unattended::task_text(kind, task).as_deref(), cut, shown)
        }
        (Some(_), None) | (None, _) => facts(cut, shown),
    }
}

fn facts_about(task: Option<&str>, cut: &Interruption, shown: Shown) -> String {
    let mut text = String::new();
    if let Some(task) = task {
        text.push_str(&format!("Task: {}\n", cut_at(task, NOTICE_TASK_CHARS_MAX)));
    }
    text.push_str(&format!("Last action: {}\n", action_text(cut.call.as_ref(), shown)));
    text.push_str(&format!("Outcome: {}", outcome_text(cut.call.as_ref())));
    text.push_str(&others_text(cut));
    text.push('\n');
    text
}

/// How much those may see whom a text goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// All of it.
    Everything,
    /// No arguments and no files: others read along.
    NoArguments,
}

impl Shown {
    /// In the conversation of this session; `in_groups`: whether groups may see everything, too.
    #[must_use]
    pub fn to(session_key: &str, in_groups: bool) -> Self {
        if is_group(session_key) && !in_groups { Self::NoArguments } else { Self::Everything }
    }
}

/// The last action, for people.
pub(super) fn action_text(call: Option<&ToolCall>, shown: Shown) -> String {
    match (shown, call) {
        (Shown::Everything, call) => as_code(&tool_call_text(call)),
        (Shown::NoArguments, Some(call)) => {
            format!("{} (arguments are not shown in a group)", as_code(&call.name))
        }
        (Shown::NoArguments, None) => tool_call_text(None),
    }
}

/// What was open beside the last action.
fn others_text(cut: &Interruption) -> String {
    match cut.other_open_calls {
        0 => String::new(),
        count => format!(" {count} more call(s) were open beside it."),
    }
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
        Cause::GatewayFrozen => "the gateway hung and was restarted",
        Cause::TideoverKilled => "the gateway and its supervisor were killed",
        Cause::HostReboot => "the host was restarted",
        Cause::PowerCut => "the host went down without warning",
        Cause::SessionReplaced => "the session was replaced by a new one",
        Cause::Unknown => "the cause is not known",
    };
    what.to_owned()
}

/// Between backticks, so that a channel which reads Markdown shows the arguments as they are.
pub(super) fn as_code(text: &str) -> String {
    let longest_run = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest_run + 1);
    let pad = if longest_run > 0 { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// A text on one line and of bounded length: what a person or a model wrote must not pass for a line of ours.
pub(super) fn cut_at(text: &str, chars_max: usize) -> String {
    let text = &text.split(['\n', '\r']).map(str::trim).collect::<Vec<_>>().join(" ");
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::checkpoint::{Background, Effect, NoticeStatus};
    use crate::core::stamp::Stamp;
    use serde_json::{Map, json};

    fn cut(arguments: serde_json::Value, outcome: Outcome) -> Interruption {
        Interruption {
            id: "i".to_owned(),
            cause: Cause::Sigterm,
            detail: None,
            at: Stamp::from_ms(0),
            status: HoldStatus::Held,
            notice: NoticeStatus::Pending,
            call: Some(ToolCall {
                name: "exec".to_owned(),
                arguments: Some(arguments),
                arguments_sha256: String::new(),
                arguments_omitted: None,
                tool_call_id: "c".to_owned(),
                run_id: "r".to_owned(),
                effect: Effect::Unknown,
                outcome,
                started_at: Stamp::from_ms(0),
                finished_at: None,
                attempt: 1,
                background: Some(Background::default()),
                extra: Map::new(),
            }),
            other_open_calls: 0,
            task: Some("Deploy".to_owned()),
            model_told: false,
            repeated: 0,
            released_at: None,
            released_by: None,
            native: None,
            orphaned: None,
            resume: None,
            needs_code: false,
            settled: None,
            extra: Map::new(),
        }
    }

    #[test]
    fn the_first_line_is_the_promised_one() {
        assert_eq!(
            first_line(&cut(json!({"command": "./deploy.sh", "a": 1}), Outcome::Unknown)),
            "Session was interrupted. Last action: exec {\"command\":\"./deploy.sh\",\"a\":1}. \
             Continue only if user confirms."
        );
        let mut none = cut(json!({}), Outcome::Unknown);
        none.call = None;
        assert_eq!(
            first_line(&none),
            "Session was interrupted. Last action: none recorded. Continue only if user confirms."
        );
    }

    #[test]
    fn a_long_call_is_cut_at_500_characters() {
        let long = cut(json!({"command": "ü".repeat(2_000)}), Outcome::Unknown);
        assert_eq!(tool_call_text(long.call.as_ref()).chars().count(), TOOL_CALL_CHARS_MAX);
        assert_eq!(first_line(&long).lines().count(), 1);
    }

    #[test]
    fn a_finished_call_is_never_called_unknown() {
        for (outcome, word) in [
            (Outcome::Unknown, "unknown"),
            (Outcome::Ok, "finished without"),
            (Outcome::Error, "with an error"),
            (Outcome::Background, "background"),
        ] {
            let text = model_text(&cut(json!({}), outcome));
            assert!(text.lines().nth(1).is_some_and(|line| line.contains(word)), "{text}");
        }
    }

    #[test]
    fn a_notice_promises_a_hold_only_where_there_is_one() {
        let mut record = Checkpoint::new("k", Stamp::from_ms(0));
        let text =
            |record: &Checkpoint, release| user_text(&[record], release, false, Shown::Everything);
        record.interruption = Some(cut(json!({}), Outcome::Unknown));
        let held = text(&record, ReleasePolicy::AnyMessage);
        assert!(held.contains("Nothing with side effects runs until you answer."), "{held}");
        let explicit = text(&record, ReleasePolicy::Explicit);
        assert!(!explicit.contains("until you answer"), "{explicit}");
        let mut free = cut(json!({}), Outcome::Unknown);
        free.status = HoldStatus::Released;
        record.interruption = Some(free);
        let free = text(&record, ReleasePolicy::AnyMessage);
        assert!(!free.contains("Nothing with side effects"), "{free}");
    }

    #[test]
    fn arguments_are_shown_as_they_are() {
        assert_eq!(as_code("rm *a*"), "`rm *a*`");
        assert_eq!(as_code("echo `id`"), "`` echo `id` ``");
    }

    #[test]
    fn a_newline_in_the_arguments_stays_inside_the_line() {
        let text = first_line(&cut(json!({"command": "a\nb"}), Outcome::Unknown));
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("a\\nb"));
    }
}
