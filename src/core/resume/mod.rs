//! `/resume`: what a person may ask for about an interrupted action, the permit that it leads to, and how the permit
//! is spent. One confirmation, one permit; one permit, one call with identical parameters in one run.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::canonical::{arguments_sha256, sha256_hex};
use super::checkpoint::{
    AskedFrom, Checkpoint, Interruption, NoticeStatus, Omitted, Outcome, ReleasedBy, Resume,
    ResumeKind, ResumeStage, Settled, SettledHow, State, ToolCall,
};
use super::reducer::{self, Intent, Report, Rules};
use super::stamp::Stamp;

mod offline;
mod text;

pub use offline::{as_next_start, is_unmarked, settle_at_rest};
pub(super) use text::gate_reason;
pub use text::{
    Changed, Facts, Running, answer, facts_text, lapsed_text, list, prompt, refusal, stopped_text,
};

#[cfg(test)]
mod tests;

/// Length of a code.
const CODE_CHARS: usize = 4;

/// What a person says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// `/resume`: the facts, and what they call for.
    Ask,
    /// Run it.
    Yes,
    /// It has happened: go on.
    Done,
    /// Drop it.
    Skip,
}

/// When a person is asked once more (`resume.confirm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Confirm {
    /// Before a call whose outcome is unknown is run again.
    #[default]
    Unknown,
    /// Always.
    Always,
    /// Never: `/resume` itself is the confirmation.
    Never,
}

/// What is known of the command that the call started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Command {
    /// Nothing of it was found.
    #[default]
    NotFound,
    /// It still runs, under this pid.
    Runs(u32),
}

/// What a person says about an interrupted session, and what is known when they say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The word.
    pub choice: Choice,
    /// The code behind it, if there is one.
    pub code: Option<String>,
    /// Where they say it.
    pub from: AskedFrom,
    /// When they are asked once more.
    pub confirm: Confirm,
    /// What is known of the interrupted call's command.
    pub command: Command,
}

/// What a word of a person leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The facts are shown and one more word is waited for.
    Confirm,
    /// The call runs again, once.
    Rerun,
    /// The task goes on without running it again.
    GoOn,
    /// Recorded as done; the task goes on.
    Done,
    /// Dropped.
    Skip,
    /// Nothing happens.
    Refuse(Refusal),
}

/// Why nothing happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", content = "detail", rename_all = "snake_case")]
pub enum Refusal {
    /// Nothing was interrupted here.
    NothingCut,
    /// It was dealt with before.
    Settled(Settled),
    /// A turn is under way in this session.
    Busy,
    /// It was confirmed before and is under way.
    UnderWay,
    /// Its command still runs: it is not started a second time.
    StillRuns(u32),
    /// Arguments that are needed were never stored.
    Redacted(Vec<String>),
    /// The arguments were too long to be stored.
    TooLarge(u64),
    /// The stored arguments are not those whose hash was recorded.
    Altered,
    /// It was confirmed once, and that came to its end: the facts come first, then another word.
    AskFirst,
}

/// What a person's word leads to. Changes nothing.
#[must_use]
pub fn decide(record: &Checkpoint, said: &Said) -> Decision {
    let Said { choice, code, from, confirm, command } = said;
    let Some(cut) = &record.interruption else { return Decision::Refuse(Refusal::NothingCut) };
    if let Some(settled) = cut.settled {
        return Decision::Refuse(match settled.how {
            SettledHow::Closed => Refusal::NothingCut,
            SettledHow::Rerun | SettledHow::WentOn | SettledHow::Done | SettledHow::Skipped => {
                Refusal::Settled(settled)
            }
        });
    }
    if record.state == State::Ended {
        return Decision::Refuse(Refusal::NothingCut);
    }
    if record.resume_under_way() {
        return Decision::Refuse(Refusal::UnderWay);
    }
    let wanted = match (*choice, is_known(cut), *command) {
        (Choice::Skip, _, _) => return Decision::Skip,
        (Choice::Done, _, _) => Decision::Done,
        // It is running: all that can be done is to say so, or to go on beside it.
        (Choice::Ask, false, Command::Runs(_)) => return Decision::Confirm,
        (Choice::Yes, false, Command::Runs(pid)) => {
            return Decision::Refuse(Refusal::StillRuns(pid));
        }
        (Choice::Ask, true, _) => match confirm {
            Confirm::Always => return Decision::Confirm,
            Confirm::Unknown | Confirm::Never => Decision::GoOn,
        },
        (Choice::Yes, true, _) => Decision::GoOn,
        (Choice::Ask, false, Command::NotFound) => match confirm {
            Confirm::Always | Confirm::Unknown => return Decision::Confirm,
            Confirm::Never => Decision::Rerun,
        },
        (Choice::Yes, false, Command::NotFound) => Decision::Rerun,
    };
    if record.turn.is_some() {
        return Decision::Refuse(Refusal::Busy);
    }
    // 2026.9.6 hands a chat's command over again and again, also after a restart, while its answer cannot be sent;
    // nothing on it tells that from a new word. So after a first word another one names what it is about.
    let named = code.as_deref().is_some_and(|given| given == self::code(cut));
    let said_before = *from == AskedFrom::Chat && cut.needs_code && !named;
    match (&wanted, cut.call.as_ref().and_then(cannot_rerun)) {
        (Decision::Rerun, Some(refusal)) => Decision::Refuse(refusal),
        (Decision::Rerun | Decision::GoOn, _) if said_before => match choice {
            Choice::Ask => Decision::Confirm,
            Choice::Yes | Choice::Done | Choice::Skip => Decision::Refuse(Refusal::AskFirst),
        },
        (
            Decision::Rerun
            | Decision::Confirm
            | Decision::GoOn
            | Decision::Done
            | Decision::Skip
            | Decision::Refuse(_),
            _,
        ) => wanted,
    }
}

/// What a chat's word about this cut and this state of it is told by, once there was an earlier word.
#[must_use]
pub fn code(cut: &Interruption) -> String {
    let run = cut.resume.as_ref().map_or("", |resume| resume.run_id.as_str());
    sha256_hex(format!("{}\0{run}", cut.id).as_bytes()).chars().take(CODE_CHARS).collect()
}

/// Why a call cannot be run again with identical parameters, if it cannot.
#[must_use]
pub fn cannot_rerun(call: &ToolCall) -> Option<Refusal> {
    match &call.arguments_omitted {
        Some(Omitted::Redacted { keys }) => return Some(Refusal::Redacted(keys.clone())),
        Some(Omitted::TooLarge { bytes }) => return Some(Refusal::TooLarge(*bytes)),
        None => {}
    }
    // Only named arguments can be put in place of others.
    let whole = call.arguments.as_ref().is_some_and(|stored| {
        stored.is_object() && arguments_sha256(stored) == call.arguments_sha256
    });
    (!whole).then_some(Refusal::Altered)
}

/// Whether nothing is left unknown about the interrupted call: it answered, or there was none.
fn is_known(cut: &Interruption) -> bool {
    cut.call.as_ref().is_none_or(|call| match call.outcome {
        Outcome::Ok | Outcome::Error => true,
        // What its command came to was never read.
        Outcome::Unknown | Outcome::Background => false,
    })
}

/// Notes a person's word, with the run that will be started for it. Nothing has been started yet: the record must be
/// durable first.
pub(super) fn grant(
    record: &mut Checkpoint,
    now: Stamp,
    run_id: &str,
    kind: ResumeKind,
    from: AskedFrom,
) -> bool {
    let before = record.clone();
    if let Some(cut) = record.interruption.as_mut() {
        cut.resume = Some(Resume {
            run_id: run_id.to_owned(),
            kind,
            stage: ResumeStage::Granted,
            from,
            granted_at: now,
            spent_at: None,
            given_sha256: None,
        });
        cut.needs_code = true;
        record.next_expected_action = match kind {
            ResumeKind::Rerun => "the interrupted call runs again, as its user asked".to_owned(),
            ResumeKind::GoOn => "the task goes on, as its user asked".to_owned(),
        };
    }
    reducer::touch_if_changed(record, &before, now)
}

/// Notes that an interrupted action is dealt with, and lifts the hold.
pub(super) fn settle(record: &mut Checkpoint, now: Stamp, how: SettledHow) -> bool {
    let before = record.clone();
    if let Some(cut) = record.interruption.as_mut() {
        cut.settled = Some(Settled { how, at: now });
        if cut.notice == NoticeStatus::Pending {
            // It would offer what has been dealt with.
            cut.notice = NoticeStatus::Off;
        }
    }
    reducer::release(record, now, ReleasedBy::Resume);
    if record.turn.is_none() {
        reducer::settle(record);
    }
    record.seq = before.seq;
    reducer::touch_if_changed(record, &before, now)
}

/// Takes a word back of which nothing came. What was released stays so: the person did speak.
pub(super) fn lapse(record: &mut Checkpoint, now: Stamp, run_id: &str) -> bool {
    let before = record.clone();
    if let Some(resume) = resume_of(record, run_id)
        // While its turn goes on it is the turn's end that tells.
        && !before.is_in_turn_of(resume)
        && resume.stage == ResumeStage::Granted
    {
        resume.stage = ResumeStage::Lapsed;
        record.next_expected_action = "the user says whether to go on".to_owned();
    }
    reducer::touch_if_changed(record, &before, now)
}

fn resume_of<'a>(record: &'a mut Checkpoint, run_id: &str) -> Option<&'a mut Resume> {
    let resume = record.interruption.as_mut()?.resume.as_mut()?;
    resume.is_run(run_id).then_some(resume)
}

/// What a call in the run of a resume comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// No business of a resume.
    Open,
    /// It is the permitted one.
    Spend,
    /// It waits, or is not run at all.
    Stop(Stopped),
}

/// Why a call in the run of a resume is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Another call comes first.
    NotYet,
    /// The permitted one is running.
    Running,
    /// It is the same call again.
    Again,
    /// Nothing came of the person's word, and nothing runs on it any more.
    Void,
}

/// What becomes of a call, seen from the resume whose run it is in.
pub(super) fn gate(record: &Checkpoint, intent: &Intent) -> Gate {
    let Some(cut) = &record.interruption else { return Gate::Open };
    let Some(resume) = cut.resume.as_ref().filter(|resume| resume.is_run(&intent.run_id)) else {
        return Gate::Open;
    };
    let Some(call) = &cut.call else { return Gate::Open };
    match (resume.kind, resume.stage) {
        (ResumeKind::Rerun, ResumeStage::Granted) if intent.name == call.name => Gate::Spend,
        (ResumeKind::Rerun, ResumeStage::Granted) => Gate::Stop(Stopped::NotYet),
        (ResumeKind::Rerun, ResumeStage::Spent) if call.is_open() => Gate::Stop(Stopped::Running),
        (ResumeKind::Rerun, ResumeStage::Ended | ResumeStage::Lapsed) => Gate::Stop(Stopped::Void),
        (ResumeKind::Rerun, ResumeStage::Spent) | (ResumeKind::GoOn, _) => {
            // The model may not know that other arguments than its own were put in place.
            let sha256 = sha256_of(intent);
            let again = intent.name == call.name
                && (sha256 == call.arguments_sha256
                    || resume.given_sha256.as_ref() == Some(&sha256));
            if again { Gate::Stop(Stopped::Again) } else { Gate::Open }
        }
    }
}

fn sha256_of(intent: &Intent) -> String {
    match (&intent.arguments, &intent.too_large) {
        (Some(arguments), _) => arguments_sha256(arguments),
        (None, Some((_, sha256))) => sha256.clone(),
        (None, None) => arguments_sha256(&Value::Null),
    }
}

/// Spends the permit: the record now says that the call runs. Returns the parameters to run it with.
pub(super) fn spend(
    record: &mut Checkpoint,
    now: Stamp,
    intent: &Intent,
    rules: &Rules,
) -> Option<Value> {
    let before = record.clone();
    let call = before.interruption.as_ref()?.call.as_ref()?;
    let arguments = call.arguments.clone().unwrap_or(Value::Null);
    let pinned = Intent { arguments: call.arguments.clone(), too_large: None, ..intent.clone() };
    reducer::announce(record, now, &pinned, rules);
    if let Some(again) = record.last_tool_call.as_mut() {
        again.attempt = call.attempt.saturating_add(1);
    }
    let again = record.last_tool_call.clone();
    if let Some(cut) = record.interruption.as_mut() {
        cut.call = again;
        cut.other_open_calls = 0;
        if let Some(resume) = cut.resume.as_mut() {
            resume.stage = ResumeStage::Spent;
            resume.spent_at = Some(now);
            resume.given_sha256 = Some(sha256_of(intent));
        }
    }
    reducer::touch_if_changed(record, &before, now);
    Some(arguments)
}

/// Follows a report that may be about a resume: the end of its call, or of its turn.
pub(super) fn follow(record: &mut Checkpoint, now: Stamp, report: &Report) {
    match report {
        Report::ToolFinished { run_id, tool_call_id, .. } => {
            finished(record, now, run_id, tool_call_id);
        }
        Report::ToolBlocked { run_id, tool_call_id } => blocked(record, run_id, tool_call_id),
        Report::BackgroundEnded { run_id, tool_call_id } => {
            // The call that was cut may be the one whose command ends now.
            let ended = record.call_of(run_id, tool_call_id).cloned();
            let cut = record.interruption.as_mut().and_then(|cut| cut.call.as_mut());
            if let (Some(cut), Some(ended)) = (cut, ended)
                && cut.is_called(run_id, tool_call_id)
            {
                cut.background = ended.background;
            }
        }
        Report::TurnEnded { run_id, success, .. } => turn_ended(record, now, run_id, *success),
        Report::SessionEnded => {
            if let Some(resume) = record.interruption.as_mut().and_then(|cut| cut.resume.as_mut())
                && matches!(resume.stage, ResumeStage::Granted | ResumeStage::Spent)
            {
                resume.stage = ResumeStage::Lapsed;
            }
        }
        Report::UserMessage { .. } | Report::TurnStarted { .. } | Report::ToolIntent(_) => {}
    }
}

/// The call that was let through has answered: the interruption is dealt with and the session is free.
fn finished(record: &mut Checkpoint, now: Stamp, run_id: &str, tool_call_id: &str) {
    let answered = record
        .last_tool_call
        .iter()
        .chain(&record.open_calls)
        .find(|call| call.run_id == run_id && call.tool_call_id == tool_call_id && !call.is_open())
        .cloned();
    let (Some(answered), Some(cut)) = (answered, record.interruption.as_mut()) else { return };
    let spent = cut
        .resume
        .as_ref()
        .is_some_and(|resume| resume.is_run(run_id) && resume.stage == ResumeStage::Spent);
    let is_it =
        cut.call.as_ref().is_some_and(|call| call.tool_call_id == tool_call_id && call.is_open());
    if !(spent && is_it) {
        return;
    }
    cut.call = Some(answered);
    cut.settled = Some(Settled { how: SettledHow::Rerun, at: now });
    if cut.status == super::checkpoint::HoldStatus::Held {
        cut.status = super::checkpoint::HoldStatus::Released;
        cut.released_at = Some(now);
        cut.released_by = Some(ReleasedBy::Resume);
    }
}

/// The gateway itself did not run the call that was let through (an approval was denied): nothing has happened.
fn blocked(record: &mut Checkpoint, run_id: &str, tool_call_id: &str) {
    let Some(cut) = record.interruption.as_mut() else { return };
    let is_it = cut
        .call
        .as_ref()
        .is_some_and(|call| call.is_called(run_id, tool_call_id) && call.is_open());
    if let Some(resume) = cut.resume.as_mut().filter(|resume| is_it && resume.is_run(run_id)) {
        resume.stage = ResumeStage::Lapsed;
    }
}

fn turn_ended(record: &mut Checkpoint, now: Stamp, run_id: &str, success: bool) {
    // A turn that failed while the gateway goes down has not ended, it was cut.
    if record.turn.is_some() {
        return;
    }
    let Some(cut) = record.interruption.as_mut() else { return };
    let Some(resume) = cut.resume.as_mut().filter(|resume| resume.is_run(run_id)) else { return };
    match (resume.kind, resume.stage) {
        (ResumeKind::Rerun, ResumeStage::Granted) => resume.stage = ResumeStage::Lapsed,
        (ResumeKind::Rerun, ResumeStage::Spent) => resume.stage = ResumeStage::Ended,
        (ResumeKind::GoOn, ResumeStage::Granted) if success => {
            resume.stage = ResumeStage::Ended;
            cut.settled.get_or_insert(Settled { how: SettledHow::WentOn, at: now });
        }
        (ResumeKind::GoOn, ResumeStage::Granted) => resume.stage = ResumeStage::Lapsed,
        (_, ResumeStage::Ended | ResumeStage::Lapsed) | (ResumeKind::GoOn, ResumeStage::Spent) => {}
    }
}
