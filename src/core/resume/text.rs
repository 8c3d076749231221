//! The words of `/resume`: to the person who asks, and to the model that goes on.

use serde::{Deserialize, Serialize};

use super::{Command, Decision, Refusal, Stopped};
use crate::core::checkpoint::{
    Checkpoint, Interruption, NativeRecovery, Orphaned, ResumeKind, ResumeStage, Settled,
    SettledHow, ToolCall,
};
use crate::core::limits::{NOTICE_TASK_CHARS_MAX, PROMPT_ARGUMENTS_BYTES_MAX, RESUME_LIST_MAX};
use crate::core::notice::{
    REPLACED_TO_MODEL, Shown, action_text, as_code, cause_text, cut_at, first_line, outcome_text,
};
use crate::core::stamp::Stamp;

/// What was found around an interrupted call, at the time of asking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The command that the call started, where it still runs.
    pub running: Option<Running>,
    /// Where the call worked.
    pub cwd: Option<String>,
    /// Files named in its arguments that changed since it began.
    pub changed: Vec<Changed>,
    /// The session's model.
    pub model: Option<String>,
    /// The transcript of the session that was replaced, where it is still there.
    #[serde(default)]
    pub transcript: Option<String>,
}

impl Facts {
    /// What is known of the call's command.
    #[must_use]
    pub fn command(&self) -> Command {
        self.running.as_ref().map_or(Command::NotFound, |running| Command::Runs(running.pid))
    }
}

/// A command that outlived the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its process id.
    pub pid: u32,
    /// Its working directory, where that can be read.
    pub cwd: Option<String>,
}

/// A file that changed since the call began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// As the arguments name it.
    pub path: String,
    /// When it last changed; `None` when it is gone.
    pub at: Option<Stamp>,
}

/// The facts of one interruption, a line each.
#[must_use]
pub fn facts_text(record: &Checkpoint, facts: &Facts, shown: Shown) -> String {
    let Some(cut) = &record.interruption else { return String::new() };
    let call = cut.call.as_ref();
    let mut lines = Vec::new();
    if let Some(task) = &cut.task {
        lines.push(format!("Task: {}", cut_at(task, NOTICE_TASK_CHARS_MAX)));
    }
    lines.push(format!("Last action: {}", action_text(call, shown)));
    if let Some(call) = call {
        let again =
            if call.attempt > 1 { format!(", run {}", call.attempt) } else { String::new() };
        lines.push(format!("Started: {}{again}", call.started_at));
    }
    lines.push(format!("Cut: {}, {}", cut.at, cause_text(cut)));
    lines.push(format!("Outcome: {}", outcome_text(call)));
    lines.extend(running_text(facts, shown));
    if let Some(native) = native_text(cut) {
        lines.push(format!("The gateway's own recovery: {native}"));
    }
    lines.extend(cut.orphaned.as_ref().map(|orphaned| orphaned_text(orphaned, facts, shown)));
    if shown == Shown::Everything {
        lines.extend(facts.cwd.as_ref().map(|cwd| format!("Working directory: {}", as_code(cwd))));
        lines.extend(facts.changed.iter().map(changed_text));
    }
    lines.extend(facts.model.as_ref().map(|model| format!("Model: {model}")));
    lines.join("\n")
}

fn running_text(facts: &Facts, shown: Shown) -> Option<String> {
    let running = facts.running.as_ref()?;
    let place = running
        .cwd
        .as_ref()
        .filter(|_| shown == Shown::Everything)
        .map_or(String::new(), |cwd| format!(", in {}", as_code(cwd)));
    Some(format!(
        "Its command still runs: pid {}{place}. It is not started a second time.",
        running.pid
    ))
}

fn native_text(cut: &Interruption) -> Option<&'static str> {
    cut.native.map(|native| match native {
        NativeRecovery::Claimed => "it wanted to go on by itself and was answered with the notice.",
        NativeRecovery::Ran => "it ran a turn by itself; side effects were held in it.",
    })
}

fn orphaned_text(orphaned: &Orphaned, facts: &Facts, shown: Shown) -> String {
    let old = if orphaned.session_id == orphaned.new_session_id {
        String::new()
    } else {
        format!(" (the old one was {})", as_code(&orphaned.session_id))
    };
    let transcript = facts.transcript.as_ref().filter(|_| shown == Shown::Everything);
    let transcript = transcript
        .map_or(String::new(), |path| format!("; the old transcript is {}", as_code(path)));
    format!(
        "Session: replaced by a new one, seen at {}{old}{transcript}. This one knows nothing of the task but what is \
         here.",
        orphaned.at
    )
}

fn changed_text(changed: &Changed) -> String {
    match changed.at {
        Some(at) => format!("Changed since: {} at {at}", as_code(&changed.path)),
        None => format!("Not there now: {}", as_code(&changed.path)),
    }
}

/// What the person reads. `next` are the words that they can say now, as where they are they are said.
#[must_use]
pub fn answer(record: &Checkpoint, decision: &Decision, facts: &Facts, shown: Shown) -> String {
    let action = || {
        let call = record.interruption.as_ref().and_then(|cut| cut.call.as_ref());
        action_text(call, shown)
    };
    match decision {
        Decision::Confirm => {
            format!("⏸ {}\n\n{}", facts_text(record, facts, shown), choices(record, facts))
        }
        Decision::Rerun => {
            format!("▶️ Running it again, once, with identical parameters: {}", action())
        }
        Decision::GoOn => format!(
            "▶️ Going on from where it stopped; nothing is run again.\n{}",
            facts_text(record, facts, shown)
        ),
        Decision::Done => format!("✅ Recorded as done: {}\nGoing on from there.", action()),
        Decision::Skip => {
            format!("⏭ Dropped: {}\nIt will not be run again. Write to go on.", action())
        }
        Decision::Refuse(refusal) => self::refusal(refusal),
    }
}

fn choices(record: &Checkpoint, facts: &Facts) -> String {
    let cut = record.interruption.as_ref();
    let call = cut.and_then(|cut| cut.call.as_ref());
    let yes = match cut.filter(|cut| cut.needs_code) {
        Some(cut) => format!("/resume yes {}", super::code(cut)),
        None => "/resume yes".to_owned(),
    };
    let mut lines = Vec::new();
    if facts.running.is_some() {
        lines.push("It still runs, so it cannot be run again now.".to_owned());
    } else if let Some(refusal) = call.and_then(super::cannot_rerun) {
        lines.push(self::refusal(&refusal));
    } else if call.is_some_and(|call| call.finished_at.is_some() && call.background.is_none()) {
        lines.push(format!("{yes} – go on from its result"));
    } else if call.is_some() {
        lines.push(format!("{yes} – run it again, once, with identical parameters"));
    } else {
        lines.push(format!("{yes} – go on"));
    }
    lines.push("/resume done – it has happened: go on from there".to_owned());
    lines.push("/resume skip – drop it".to_owned());
    lines.join("\n")
}

/// Why nothing happens, with what can be done instead.
#[must_use]
pub fn refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NothingCut => "Nothing was interrupted here.".to_owned(),
        Refusal::Settled(settled) => format!("Nothing is left to resume: {}.", settled_text(*settled)),
        Refusal::Busy => "A turn is under way here. Ask again when it has ended; /stop ends it.".to_owned(),
        Refusal::UnderWay => "That was confirmed before and is under way.".to_owned(),
        Refusal::StillRuns(pid) => format!(
            "Its command still runs (pid {pid}): it is not started a second time. Wait for its end or stop it, or \
             say /resume done or /resume skip."
        ),
        Refusal::Redacted(keys) => format!(
            "It cannot be run again: {} {} never stored (checkpoint.redact), so its parameters are not known. Say \
             what to do in your own words.",
            keys.join(", "),
            if keys.len() == 1 { "was" } else { "were" }
        ),
        Refusal::TooLarge(bytes) => format!(
            "It cannot be run again: its arguments ({bytes} bytes) were too long to be stored. Say what to do in \
             your own words."
        ),
        Refusal::AskFirst => "That was confirmed once before. Send /resume for what is known now; it shows the word \
             that is needed."
            .to_owned(),
        Refusal::Altered => "It cannot be run again: its stored arguments are not the ones that it was called with. \
             Say what to do in your own words."
            .to_owned(),
    }
}

/// What the one who asked is told when the turn is over and the call did not run.
#[must_use]
pub fn lapsed_text(kind: ResumeKind) -> &'static str {
    match kind {
        ResumeKind::Rerun => {
            "⚠️ Nothing was run again: the turn ended without the interrupted action. Send /resume to try once more."
        }
        ResumeKind::GoOn => {
            "⚠️ The task did not go on: its turn failed. Send /resume to try once more."
        }
    }
}

/// What the user reads when a resumed turn was ended because the model went on calling what has been run.
#[must_use]
pub fn stopped_text() -> &'static str {
    "⏸ The action was run again, once. I stopped the turn there, since it went on calling it. Write to go on."
}

fn settled_text(settled: Settled) -> String {
    let how = match settled.how {
        SettledHow::Rerun => "it was run again",
        SettledHow::WentOn => "the task went on",
        SettledHow::Done => "it was recorded as done",
        SettledHow::Skipped => "it was dropped",
        SettledHow::Closed => "its session was closed",
    };
    format!("{how} at {}", settled.at)
}

/// The interrupted sessions that somebody may see.
#[must_use]
pub fn list(records: &[&Checkpoint], shown: Shown) -> String {
    if records.is_empty() {
        return "No session of yours is interrupted.".to_owned();
    }
    let mut lines: Vec<String> = records
        .iter()
        .take(RESUME_LIST_MAX)
        .filter_map(|record| record.interruption.as_ref().map(|cut| (record, cut)))
        .map(|(record, cut)| {
            let task = cut.task.as_deref().unwrap_or("no task recorded");
            let state = match cut.resume.as_ref().map(|resume| resume.stage) {
                Some(ResumeStage::Granted | ResumeStage::Spent) => ", under way",
                Some(ResumeStage::Ended | ResumeStage::Lapsed) | None => "",
            };
            format!(
                "• {} – cut {}{state}\n  {}\n  {}",
                cut_at(task, NOTICE_TASK_CHARS_MAX),
                cut.at,
                action_text(cut.call.as_ref(), shown),
                as_code(&record.session_key),
            )
        })
        .collect();
    if records.len() > RESUME_LIST_MAX {
        lines.push(format!("…and {} more.", records.len() - RESUME_LIST_MAX));
    }
    lines.join("\n")
}

/// What the model is told when the turn begins that a person's word started.
#[must_use]
pub fn prompt(record: &Checkpoint, decision: &Decision) -> Option<String> {
    let cut = record.interruption.as_ref()?;
    let call = cut.call.as_ref();
    let mut text = first_line(cut);
    if cut.orphaned.is_some() {
        text.push_str(REPLACED_TO_MODEL);
        text.push_str(&whole_action(call));
    }
    text.push_str("\nThe user has confirmed with /resume. ");
    match decision {
        Decision::Rerun => {
            let call = call?;
            text.push_str(&format!(
                "Run the last action again: call the tool `{}` now, before anything else. It runs once, with exactly \
                 the recorded arguments, whatever arguments you give; every other call is refused until it has \
                 answered. This word of the user is good for this turn only: if the turn is cut, ask again.",
                call.name
            ));
            let arguments = call.arguments.as_ref().map(ToString::to_string).unwrap_or_default();
            if !arguments.is_empty() && arguments.len() <= PROMPT_ARGUMENTS_BYTES_MAX {
                text.push_str(&format!(" The recorded arguments:\n{arguments}\n"));
            } else {
                text.push_str(" Give it the arguments of the interrupted call. ");
            }
            text.push_str("Then go on with the task from its result.");
        }
        Decision::GoOn => {
            text.push_str(&format!("Outcome of the last action: {} ", outcome_text(call)));
            text.push_str("Do not run it again; go on with the task from there.");
        }
        Decision::Done => {
            text.push_str(
                "The user says that the last action did take effect. Do not run it again; go on with the task from \
                 there.",
            );
        }
        Decision::Confirm | Decision::Skip | Decision::Refuse(_) => return None,
    }
    if let Some(task) = &cut.task {
        text.push_str(&format!("\nTask: {task}"));
    }
    Some(text)
}

/// The last action without a cut, for a model that cannot look it up in what came before.
fn whole_action(call: Option<&ToolCall>) -> String {
    let Some(call) = call else { return String::new() };
    let arguments = call.arguments.as_ref().map(ToString::to_string).unwrap_or_default();
    if arguments.is_empty() || arguments.len() > PROMPT_ARGUMENTS_BYTES_MAX {
        return String::new();
    }
    format!("\nThe last action in full: {} {arguments}", call.name)
}

/// What the model reads in place of the result of a call that is not run in a resumed turn.
#[must_use]
pub(in crate::core) fn gate_reason(stopped: Stopped, call: Option<&ToolCall>) -> String {
    let name = call.map_or("the interrupted tool", |call| call.name.as_str());
    match stopped {
        Stopped::NotYet => format!(
            "Not run: the user asked for the interrupted call of `{name}` to be run again first. Call `{name}` now; \
             its recorded arguments are put in place."
        ),
        Stopped::Running => format!(
            "Not run: the call of `{name}` that the user asked for is still running. Wait for its result."
        ),
        Stopped::Void => format!(
            "Not run: the user's word on the call of `{name}` is void. Call no further tools; tell the user that it \
             was not run."
        ),
        Stopped::Again => format!(
            "Not run: this is the interrupted call of `{name}` again, and the user asked for no further run of it. \
             Go on from what is known of it."
        ),
    }
}
