//! The checkpoint reducer: one report in, one changed record out. Total: no report is refused.

use serde_json::Value;

use super::canonical::{arguments_sha256, canonical_json, sha256_hex};
use super::checkpoint::{
    Background, Cause, Checkpoint, Effect, HoldStatus, Interruption, NativeRecovery, NoticeStatus,
    Omitted, Origin, Outcome, ReleasedBy, ResumeStage, Route, Settled, SettledHow, State, ToolCall,
    Turn,
};
use super::hold::{Unattended, effect_of};
use super::limits::{ARGUMENTS_BYTES_MAX, ARGUMENTS_DEPTH_MAX, OPEN_CALLS_MAX, TASK_CHARS_MAX};
use super::resume;
use super::stamp::Stamp;
use super::unattended;

/// One fact about one session.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A person wrote.
    UserMessage {
        /// The bare text.
        text: Option<String>,
        /// Where it came from.
        route: Option<Route>,
    },
    /// A turn began.
    TurnStarted {
        /// The gateway's id of the run.
        run_id: String,
        /// Who started it.
        origin: Origin,
        /// The user's words, if any.
        text: Option<String>,
        /// Where the user is reached.
        route: Option<Route>,
    },
    /// A turn ended.
    TurnEnded {
        /// The gateway's id of the run.
        run_id: String,
        /// Whether the gateway calls it a success.
        success: bool,
        /// Whether the model gave an answer.
        answered: bool,
        /// Whether the interruption text really was in front of the model.
        told: bool,
        /// Whether the gateway was going down: a failed end is then a cut, not an end.
        stopping: bool,
    },
    /// A tool is about to run.
    ToolIntent(Intent),
    /// A tool answered.
    ToolFinished {
        /// The gateway's id of the run.
        run_id: String,
        /// The model's id of the call.
        tool_call_id: String,
        /// How it answered.
        outcome: Outcome,
        /// The command that outlived it.
        background: Option<Background>,
        /// Whether the gateway was going down: an error is then a cut, not a result.
        stopping: bool,
    },
    /// A tool that was announced did not run: something else stopped it.
    ToolBlocked {
        /// The gateway's id of the run.
        run_id: String,
        /// The model's id of the call.
        tool_call_id: String,
    },
    /// A background command ended by itself.
    BackgroundEnded {
        /// The gateway's id of the run that started it.
        run_id: String,
        /// The model's id of the call that started it.
        tool_call_id: String,
    },
    /// The user closed the session.
    SessionEnded,
}

/// A tool call as it was announced.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// The gateway's id of the run.
    pub run_id: String,
    /// The model's id of the call.
    pub tool_call_id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, unless they were too long to send.
    pub arguments: Option<Value>,
    /// Length and SHA-256 of arguments that were too long to send.
    pub too_large: Option<(u64, String)>,
}

/// What is known of one cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Id of the incident, the same for every session it cut.
    pub incident: String,
    /// Why.
    pub cause: Cause,
    /// Why, in words.
    pub detail: Option<String>,
    /// When.
    pub at: Stamp,
    /// Whether `recovery.hold` arms holds at all.
    pub hold: bool,
    /// Whether notices are on.
    pub notify: bool,
    /// Whether sessions that have no person to ask are held.
    pub unattended: Unattended,
}

impl Cut {
    /// Whether this cut arms a hold in that session.
    fn holds(&self, record: &Checkpoint) -> bool {
        self.hold && (self.unattended == Unattended::Hold || record.unattended().is_none())
    }
}

/// What of the configuration a record depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Argument keys that are never stored.
    pub redact: Vec<String>,
    /// Tools that only read, beside those that are known to.
    pub read_only_tools: Vec<String>,
}

/// Applies one report. Returns whether the record changed.
pub fn apply(record: &mut Checkpoint, now: Stamp, report: &Report, rules: &Rules) -> bool {
    let before = record.clone();
    match report {
        Report::UserMessage { text, route } => {
            set_task(record, text.as_deref());
            set_route(record, route.as_ref());
        }
        Report::TurnStarted { run_id, origin, text, route } => {
            start_turn(record, now, run_id, *origin);
            match origin {
                Origin::User => set_task(record, text.as_deref()),
                // Its words are ours.
                Origin::Resume => {}
                // All runs of a job are one record: what this one is to do counts.
                Origin::Cron if record.unattended().is_some() => {
                    set_task(record, text.as_deref());
                }
                Origin::Recovery | Origin::Heartbeat | Origin::Cron | Origin::System => {
                    if record.task.is_none() {
                        set_task(record, text.as_deref());
                    }
                }
            }
            set_route(record, route.as_ref());
        }
        Report::TurnEnded { run_id, success, answered, told, stopping } => {
            let heard = (*answered, *told);
            end_turn(record, run_id, *success, heard, *stopping);
        }
        Report::ToolIntent(intent) => announce(record, now, intent, rules),
        Report::ToolFinished { run_id, tool_call_id, outcome, background, stopping } => {
            let cut_short = *stopping && *outcome == Outcome::Error;
            if !cut_short {
                finish(record, now, run_id, tool_call_id, *outcome, background.as_ref());
            }
        }
        Report::ToolBlocked { run_id, tool_call_id } => {
            // It had no effect, and the model read an error in place of a result.
            finish(record, now, run_id, tool_call_id, Outcome::Error, None);
        }
        Report::BackgroundEnded { run_id, tool_call_id } => {
            end_background(record, now, run_id, tool_call_id);
        }
        Report::SessionEnded => close(record, now),
    }
    resume::follow(record, now, report);
    touch_if_changed(record, &before, now)
}

/// The id of one incident in one session.
#[must_use]
pub fn interruption_id(incident: &str, session_key: &str) -> String {
    sha256_hex(format!("{incident}\0{session_key}").as_bytes())[..24].to_owned()
}

/// Marks a session as cut. Returns the incident that needs a notice, if this is a new one.
pub fn interrupt(record: &mut Checkpoint, now: Stamp, cut: &Cut) -> bool {
    let before = record.clone();
    let asked_for = |turn: &Turn| matches!(turn.origin, Origin::User | Origin::Resume);
    let cut_user_turn = record.awaits_resume() || record.turn.as_ref().is_some_and(asked_for);
    let cut_run = record.turn.take().map(|turn| turn.run_id);
    let still_held = record.interruption.as_mut().filter(|old| old.status == HoldStatus::Held);
    if let Some(old) = still_held.filter(|_| !cut_user_turn) {
        // Its user was told and has not spoken: the same incident goes on, no second notice.
        old.repeated = old.repeated.saturating_add(1);
        touch_if_changed(record, &before, now);
        return false;
    }
    let hold = cut.holds(record);
    let carried = unresolved_call(record, cut_run.as_deref());
    let orphaned =
        carried.as_ref().and(record.interruption.as_ref()).and_then(|old| old.orphaned.clone());
    let old = record.interruption.as_ref();
    let needs_code = old.is_some_and(|old| old.needs_code);
    // With the call comes what it was for: its user's words since then were about it.
    let task = carried.as_ref().and(old).map_or(&record.task, |old| &old.task).clone();
    let (call, others) = carried.unwrap_or_else(|| cut_call(record));
    record.interruption = Some(Interruption {
        id: interruption_id(&cut.incident, &record.session_key),
        cause: cut.cause,
        detail: cut.detail.clone(),
        at: cut.at,
        status: if hold { HoldStatus::Held } else { HoldStatus::Released },
        notice: if cut.notify { NoticeStatus::Pending } else { NoticeStatus::Off },
        call,
        other_open_calls: others,
        task,
        model_told: false,
        repeated: 0,
        released_at: if hold { None } else { Some(now) },
        released_by: if hold { None } else { Some(ReleasedBy::Policy) },
        native: None,
        orphaned,
        resume: None,
        needs_code,
        settled: None,
        extra: serde_json::Map::new(),
    });
    for call in record.last_tool_call.iter_mut().chain(record.open_calls.iter_mut()) {
        if let Some(background) = call.background.as_mut() {
            background.reported = true;
        }
    }
    record.next_expected_action = unattended::after_cut(record, hold);
    touch_if_changed(record, &before, now);
    true
}

/// Takes back the end of a turn: `before` is the record as it was. Returns whether it changed.
pub fn reopen(record: &mut Checkpoint, now: Stamp, before: Checkpoint) -> bool {
    let ended = record.clone();
    record.turn = before.turn;
    record.state = before.state;
    record.open_calls = before.open_calls;
    // A resume that its end let lapse goes on, too.
    record.interruption = before.interruption;
    record.next_expected_action = before.next_expected_action;
    touch_if_changed(record, &ended, now)
}

/// Lifts a hold. Returns whether there was one.
pub fn release(record: &mut Checkpoint, now: Stamp, by: ReleasedBy) -> bool {
    let before = record.clone();
    if let Some(cut) = record.interruption.as_mut().filter(|cut| cut.status == HoldStatus::Held) {
        cut.status = HoldStatus::Released;
        cut.released_at = Some(now);
        cut.released_by = Some(by);
        record.next_expected_action = unattended::after_release(record);
    }
    touch_if_changed(record, &before, now)
}

/// Brings an interruption that still waits under the policy in force, which may have changed since
/// it was marked. Returns whether it changed.
pub fn conform(record: &mut Checkpoint, now: Stamp, cut: &Cut) -> bool {
    let before = record.clone();
    if !cut.holds(record) && release(record, now, ReleasedBy::Policy) {
        record.next_expected_action = unattended::when_idle(record);
    }
    if !cut.notify
        && let Some(waiting) =
            record.interruption.as_mut().filter(|cut| cut.notice == NoticeStatus::Pending)
    {
        waiting.notice = NoticeStatus::Off;
    }
    touch_if_changed(record, &before, now)
}

/// Changes what the record says of its notice. Returns whether it changed.
pub fn set_notice(record: &mut Checkpoint, now: Stamp, status: NoticeStatus) -> bool {
    let before = record.clone();
    if let Some(cut) = record.interruption.as_mut() {
        cut.notice = status;
    }
    touch_if_changed(record, &before, now)
}

/// Notes what the gateway's own recovery did about an interruption that nobody has dealt with. Returns whether it
/// changed.
pub fn set_native(record: &mut Checkpoint, now: Stamp, native: NativeRecovery) -> bool {
    let before = record.clone();
    if let Some(cut) = record.interruption.as_mut().filter(|cut| cut.settled.is_none()) {
        cut.native = Some(native);
    }
    touch_if_changed(record, &before, now)
}

/// Marks an interruption as too old to act on. Returns whether it changed.
pub fn expire(record: &mut Checkpoint, now: Stamp) -> bool {
    let before = record.clone();
    if let Some(cut) = record.interruption.as_mut() {
        cut.status = HoldStatus::Expired;
        cut.notice = NoticeStatus::Off;
    }
    touch_if_changed(record, &before, now)
}

pub(super) fn touch_if_changed(record: &mut Checkpoint, before: &Checkpoint, now: Stamp) -> bool {
    let changed = record != before;
    if changed {
        record.seq = record.seq.saturating_add(1);
        record.updated_at = now;
    }
    changed
}

fn set_task(record: &mut Checkpoint, text: Option<&str>) {
    if let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) {
        record.task = Some(text.chars().take(TASK_CHARS_MAX).collect());
    }
}

fn set_route(record: &mut Checkpoint, route: Option<&Route>) {
    if let Some(route) = route {
        record.route = Some(route.clone());
    }
}

fn start_turn(record: &mut Checkpoint, now: Stamp, run_id: &str, origin: Origin) {
    if record.turn.as_ref().is_some_and(|turn| turn.run_id == run_id) {
        return;
    }
    // Turns of one session run one after the other: what an earlier one left open gets no result.
    record.open_calls.retain(|call| !call.is_open());
    record.turn = Some(Turn { run_id: run_id.to_owned(), origin, started_at: now });
    record.state = State::Thinking;
    record.next_expected_action = "the model answers".to_owned();
}

fn end_turn(
    record: &mut Checkpoint,
    run_id: &str,
    success: bool,
    (answered, told): (bool, bool),
    stopping: bool,
) {
    let Some(turn) = record.turn.clone().filter(|turn| turn.run_id == run_id) else { return };
    if stopping && !success {
        return;
    }
    record.turn = None;
    record
        .open_calls
        .retain(|call| call.outcome == Outcome::Background && call.ended_at().is_none());
    settle(record);
    // The words that began a resume say all there is to tell.
    let heard = (turn.origin == Origin::User && answered && told)
        || (turn.origin == Origin::Resume && answered);
    if let Some(cut) = record.interruption.as_mut().filter(|_| success && heard) {
        cut.model_told = true;
    }
}

/// The state of a session with no turn: idle, or background while a command of it still runs.
pub(super) fn settle(record: &mut Checkpoint) {
    if record.background_call().is_some() {
        record.state = State::Background;
        record.next_expected_action = "its background command ends".to_owned();
    } else {
        record.state = State::Idle;
        record.next_expected_action = "the user's next message".to_owned();
    }
}

pub(super) fn announce(record: &mut Checkpoint, now: Stamp, intent: &Intent, rules: &Rules) {
    let announced = new_call(now, intent, rules);
    // Ids alone do not make a repeat: what runs must be what is on disk.
    let is_same = |call: &ToolCall| {
        call.run_id == announced.run_id
            && call.tool_call_id == announced.tool_call_id
            && call.name == announced.name
            && call.arguments_sha256 == announced.arguments_sha256
            && call.is_open()
    };
    let in_turn = record.turn.as_ref().is_some_and(|turn| turn.run_id == intent.run_id);
    let runs = in_turn && record.state == State::ToolRunning;
    if runs && record.last_tool_call.as_ref().is_some_and(is_same) {
        return;
    }
    if !in_turn {
        // A call whose turn was not reported (a runtime that fires fewer hooks) is still a turn.
        start_turn(record, now, &intent.run_id, Origin::System);
    }
    if let Some(previous) = record.last_tool_call.take() {
        let runs_on = previous.outcome == Outcome::Background && previous.ended_at().is_none();
        let open_beside =
            previous.is_open() && previous.run_id == intent.run_id && !is_same(&previous);
        if runs_on || open_beside {
            if record.open_calls.len() >= OPEN_CALLS_MAX {
                record.open_calls.remove(0);
            }
            record.open_calls.push(previous);
        }
    }
    record.next_expected_action =
        format!("the result of {}, then the model continues", intent.name);
    record.last_tool_call = Some(announced);
    record.state = State::ToolRunning;
}

fn new_call(now: Stamp, intent: &Intent, rules: &Rules) -> ToolCall {
    let (arguments, sha256, omitted) = stored_arguments(intent, &rules.redact);
    ToolCall {
        name: intent.name.clone(),
        effect: effect_of(&intent.name, intent.arguments.as_ref(), &rules.read_only_tools),
        arguments,
        arguments_sha256: sha256,
        arguments_omitted: omitted,
        tool_call_id: intent.tool_call_id.clone(),
        run_id: intent.run_id.clone(),
        outcome: Outcome::Unknown,
        started_at: now,
        finished_at: None,
        attempt: 1,
        background: None,
        extra: serde_json::Map::new(),
    }
}

fn stored_arguments(
    intent: &Intent,
    redact: &[String],
) -> (Option<Value>, String, Option<Omitted>) {
    let arguments = match (&intent.arguments, &intent.too_large) {
        (Some(arguments), _) => arguments,
        (None, Some((bytes, sha256))) => {
            return (None, sha256.clone(), Some(Omitted::TooLarge { bytes: *bytes }));
        }
        // The call has none.
        (None, None) => return (None, arguments_sha256(&Value::Null), None),
    };
    let sha256 = arguments_sha256(arguments);
    let length = canonical_json(arguments).len();
    if length > ARGUMENTS_BYTES_MAX || is_deeper(arguments, ARGUMENTS_DEPTH_MAX) {
        let bytes = u64::try_from(length).unwrap_or(u64::MAX);
        return (None, sha256, Some(Omitted::TooLarge { bytes }));
    }
    let mut kept = arguments.clone();
    let mut keys = Vec::new();
    redact_keys(&mut kept, redact, &mut keys);
    let omitted = if keys.is_empty() { None } else { Some(Omitted::Redacted { keys }) };
    (Some(kept), sha256, omitted)
}

/// Whether a value has more than `levels` arrays and objects, one in the other.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let inner = |item: &Value| levels == 0 || is_deeper(item, levels - 1);
    match value {
        Value::Object(map) => levels == 0 || map.values().any(inner),
        Value::Array(items) => levels == 0 || items.iter().any(inner),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn redact_keys(value: &mut Value, redact: &[String], removed: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for key in redact {
                if map.shift_remove(key).is_some() && !removed.contains(key) {
                    removed.push(key.clone());
                }
            }
            for item in map.values_mut() {
                redact_keys(item, redact, removed);
            }
        }
        Value::Array(items) => {
            for item in items {
                redact_keys(item, redact, removed);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn finish(
    record: &mut Checkpoint,
    now: Stamp,
    run_id: &str,
    tool_call_id: &str,
    outcome: Outcome,
    background: Option<&Background>,
) {
    let matches = |call: &&mut ToolCall| {
        call.run_id == run_id && call.tool_call_id == tool_call_id && call.is_open()
    };
    let found = record.last_tool_call.iter_mut().chain(record.open_calls.iter_mut()).find(matches);
    let Some(call) = found else { return };
    call.outcome = outcome;
    call.finished_at = Some(now);
    call.background = background.cloned();
    if outcome == Outcome::Background {
        call.background.get_or_insert_default();
    }
    record.open_calls.retain(|call| {
        call.is_open() || (call.outcome == Outcome::Background && call.ended_at().is_none())
    });
    let still_open = record.last_tool_call.iter().chain(&record.open_calls).any(ToolCall::is_open);
    if record.turn.is_none() {
        settle(record);
    } else if !still_open {
        record.state = State::Thinking;
        record.next_expected_action = "the model continues".to_owned();
    }
}

fn end_background(record: &mut Checkpoint, now: Stamp, run_id: &str, tool_call_id: &str) {
    for call in record.last_tool_call.iter_mut().chain(record.open_calls.iter_mut()) {
        let this = call.run_id == run_id && call.tool_call_id == tool_call_id;
        if this && call.outcome == Outcome::Background {
            call.background.get_or_insert_default().ended_at.get_or_insert(now);
        }
    }
    record.open_calls.retain(|call| call.is_open() || call.ended_at().is_none());
    if record.state == State::Background {
        settle(record);
    }
}

fn close(record: &mut Checkpoint, now: Stamp) {
    if record.unattended().is_some() {
        // Nobody closes such a session: the gateway renews it by itself, perhaps when the next run has begun already.
        return;
    }
    record.turn = None;
    record.open_calls.clear();
    record.state = State::Ended;
    record.next_expected_action = "nothing: its user closed the session".to_owned();
    let Some(cut) = record.interruption.as_mut() else { return };
    if cut.status == HoldStatus::Held {
        cut.status = HoldStatus::Released;
        cut.released_at = Some(now);
        cut.released_by = Some(ReleasedBy::Message);
    }
    // Whoever begins anew wants to hear no more of it, and neither shall the new session's model.
    cut.model_told = true;
    cut.settled.get_or_insert(Settled { how: SettledHow::Closed, at: now });
    if cut.notice == NoticeStatus::Pending {
        cut.notice = NoticeStatus::Off;
    }
}

/// The call of an earlier interruption that nobody has dealt with, unless the turn that was cut now had effects
/// of its own: what the model only looked at meanwhile must not hide it.
fn unresolved_call(record: &Checkpoint, cut_run: Option<&str>) -> Option<(Option<ToolCall>, u32)> {
    let old = record
        .interruption
        .as_ref()
        .filter(|old| old.settled.is_none())
        // A word of its user that was never carried out leaves it as open as it was.
        .filter(|old| old.status == HoldStatus::Held || !old.model_told || is_granted(old))
        // Where nobody is asked, a lifted hold is the end of it.
        .filter(|old| old.status == HoldStatus::Held || record.unattended().is_none())?;
    let acted = record
        .last_tool_call
        .iter()
        .chain(&record.open_calls)
        .any(|call| Some(call.run_id.as_str()) == cut_run && call.effect == Effect::Unknown);
    let old_call = old.call.clone().filter(|_| !acted)?;
    Some((Some(old_call), old.other_open_calls))
}

fn is_granted(cut: &Interruption) -> bool {
    cut.resume.as_ref().is_some_and(|resume| resume.stage == ResumeStage::Granted)
}

/// The call to show as the last action, and how many more were open beside it.
///
/// An open call with effects says more about what may have happened than a finished one.
fn cut_call(record: &Checkpoint) -> (Option<ToolCall>, u32) {
    let settled = record.interruption.as_ref().filter(|old| old.settled.is_some());
    let dealt_with = settled.and_then(|old| old.call.as_ref());
    let is_dealt_with = |call: &&ToolCall| {
        dealt_with.is_some_and(|old| old.is_called(&call.run_id, &call.tool_call_id))
    };
    let all = || {
        let calls = record.last_tool_call.iter().chain(record.open_calls.iter().rev());
        calls.filter(|call| !(is_dealt_with(call) && call.is_open()))
    };
    let open = || all().filter(|call| call.is_open() && record.state == State::ToolRunning);
    let chosen = open()
        .find(|call| call.effect == Effect::Unknown)
        .or_else(|| open().next())
        .or_else(|| record.background_call())
        .or_else(|| all().next().filter(|call| Some(*call) == record.last_tool_call.as_ref()));
    let open_count = u32::try_from(open().count()).unwrap_or(u32::MAX);
    (chosen.cloned(), open_count.saturating_sub(1))
}
