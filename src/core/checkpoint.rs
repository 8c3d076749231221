//! The checkpoint record: what one session was doing, as the file of design §6 holds it.
//!
//! Unknown fields of a newer writer are kept in `extra` and written back.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::stamp::Stamp;

/// The schema this build writes.
pub const SCHEMA: &str = "tideover.checkpoint/1";
/// What the schema field of every major version starts with.
pub const SCHEMA_PREFIX: &str = "tideover.checkpoint/";

/// One session's checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// `tideover.checkpoint/1`.
    pub schema: String,
    /// Grows by one with each change.
    pub seq: u64,
    /// The gateway's session store key, any bytes.
    pub session_key: String,
    /// The gateway's session id under that key.
    #[serde(default)]
    pub session_id: Option<String>,
    /// The agent that owns the session.
    #[serde(default)]
    pub agent_id: Option<String>,
    /// What the user asked for, bounded.
    #[serde(default)]
    pub task: Option<String>,
    /// Where the session stands.
    pub state: State,
    /// The newest tool call that was announced.
    #[serde(default)]
    pub last_tool_call: Option<ToolCall>,
    /// Calls announced before `last_tool_call` of which no result is known yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_calls: Vec<ToolCall>,
    /// The turn under way, if any.
    #[serde(default)]
    pub turn: Option<Turn>,
    /// One line for people: what should happen next.
    pub next_expected_action: String,
    /// When this record last changed.
    pub updated_at: Stamp,
    /// Where the session's user is reached.
    #[serde(default)]
    pub route: Option<Route>,
    /// The directory that its agent works in, as the gateway last named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// The gateway that the record speaks of.
    pub gateway: GatewayRef,
    /// Where the facts came from.
    pub evidence: Evidence,
    /// The last interruption of this session, if any.
    #[serde(default)]
    pub interruption: Option<Interruption>,
    /// Fields of a newer writer, kept as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No turn is under way.
    Idle,
    /// A turn is under way and no tool call is open.
    Thinking,
    /// At least one tool call is open.
    ToolRunning,
    /// The turn's tool yielded; its command still runs.
    Background,
    /// The session was closed by its user.
    Ended,
}

/// One tool call as it was announced before it ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// The arguments as given, or null where there were none or they were omitted.
    #[serde(default)]
    pub arguments: Option<Value>,
    /// SHA-256 of the canonical JSON of the arguments as they came, before any redaction.
    pub arguments_sha256: String,
    /// Why `arguments` is incomplete. Such a call cannot be run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments_omitted: Option<Omitted>,
    /// The model's id of the call.
    pub tool_call_id: String,
    /// The gateway's id of the run.
    pub run_id: String,
    /// Whether the tool is known to have no side effects.
    pub effect: Effect,
    /// What is known of the result. Results themselves are never stored.
    pub outcome: Outcome,
    /// When the intent arrived.
    pub started_at: Stamp,
    /// When the result arrived.
    #[serde(default)]
    pub finished_at: Option<Stamp>,
    /// 1 for the first run of this call, counted up by each confirmed re-run.
    pub attempt: u32,
    /// The command that outlived the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Background>,
    /// Fields of a newer writer, kept as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Why arguments are not in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Omitted {
    /// Keys named by `checkpoint.redact` were left out.
    Redacted {
        /// The keys that were left out.
        keys: Vec<String>,
    },
    /// The arguments were too long, or nested too deeply, to keep.
    TooLarge {
        /// Their length as JSON, in bytes.
        bytes: u64,
    },
}

/// Whether a tool is known to be free of side effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Known to read only.
    None,
    /// Not known to read only, hence taken for an effect.
    Unknown,
}

/// What is known of a call's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// No result was recorded. Neither done nor failed.
    Unknown,
    /// The tool answered without an error.
    Ok,
    /// The tool answered with an error.
    Error,
    /// The tool answered while its command still ran.
    Background,
}

/// A command that outlived its tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Background {
    /// Its process id on this host.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Start time of that process in clock ticks since boot, so that a reused pid is told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ticks: Option<u64>,
    /// The gateway's own name for it.
    #[serde(default)]
    pub id: Option<String>,
    /// True once an interruption has told of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reported: bool,
    /// When it was seen to end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Stamp>,
}

/// The turn under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The gateway's id of the run.
    pub run_id: String,
    /// Who started it.
    pub origin: Origin,
    /// When it was reported.
    pub started_at: Stamp,
}

/// Who started a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A genuine message of a person.
    User,
    /// The gateway's own recovery.
    Recovery,
    /// A heartbeat or wake.
    Heartbeat,
    /// A scheduled job.
    Cron,
    /// A person's `/resume`: tideover started it on that word.
    Resume,
    /// Anything else that no person asked for just now.
    System,
}

/// Where a session's user is reached, in the terms of the gateway's `send`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// The channel's name.
    pub channel: String,
    /// The address on that channel.
    pub to: String,
    /// The channel account.
    #[serde(default)]
    pub account_id: Option<String>,
    /// The thread or topic.
    #[serde(default)]
    pub thread_id: Option<String>,
}

/// The gateway a record speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayRef {
    /// Its version as it says itself.
    #[serde(default)]
    pub version: Option<String>,
    /// tideover's id of the run of the supervisor.
    pub boot: String,
}

/// Where the facts of a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The companion plugin, before the fact.
    Plugin,
    /// The gateway's event stream, after the fact.
    Event,
    /// The transcript of a gateway that is down.
    Transcript,
}

/// One interruption of one session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interruption {
    /// Stable id of the incident for this session; the notice's dedupe key is made of it.
    pub id: String,
    /// Why it was cut.
    pub cause: Cause,
    /// The cause in words with what is known of it: sender, code, signal.
    #[serde(default)]
    pub detail: Option<String>,
    /// When it was cut, as well as that is known.
    pub at: Stamp,
    /// Whether effects are held.
    pub status: HoldStatus,
    /// What became of the notice.
    pub notice: NoticeStatus,
    /// The action that was cut, kept here because the session's later calls move `last_tool_call` on.
    #[serde(default)]
    pub call: Option<ToolCall>,
    /// How many further calls were open beside it.
    #[serde(default)]
    pub other_open_calls: u32,
    /// The task that was cut.
    #[serde(default)]
    pub task: Option<String>,
    /// True once the model has answered a user's turn with the interruption text in front of it.
    #[serde(default)]
    pub model_told: bool,
    /// How often the session was cut again while its user had not spoken.
    #[serde(default)]
    pub repeated: u32,
    /// When the hold was lifted.
    #[serde(default)]
    pub released_at: Option<Stamp>,
    /// What lifted it.
    #[serde(default)]
    pub released_by: Option<ReleasedBy>,
    /// What the gateway's own recovery did about it, if it did anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeRecovery>,
    /// That the gateway has replaced the session since, if it did: the new one knows nothing of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphaned: Option<Orphaned>,
    /// What a person last asked for with `/resume`, and how far that came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// True once a person's word has been taken, also one before this cut: a chat's next word needs a code, since a
    /// gateway may hand the same command over again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_code: bool,
    /// How the interrupted action was dealt with: nothing is left to resume then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
    /// Fields of a newer writer, kept as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What the gateway's own recovery did about an interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NativeRecovery {
    /// It wanted to run a turn, and got the notice in its place.
    Claimed,
    /// It ran a turn of its own, with effects held.
    Ran,
}

/// A task whose session was replaced under its key before anybody had dealt with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphaned {
    /// The id of the session that the task was in; it names the old transcript.
    pub session_id: String,
    /// The id of the session that is there now. 2026.9.6 begins a session anew under the id it had.
    pub new_session_id: String,
    /// What the interruption was called before: its own notice went out under this id.
    pub interruption_id: String,
    /// When it was seen.
    pub at: Stamp,
}

/// A person's word on an interrupted action: one permit for one run of one call, or to go on without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The run that was started for it; the permit is good in that run only.
    pub run_id: String,
    /// What was asked for.
    pub kind: ResumeKind,
    /// How far it came.
    pub stage: ResumeStage,
    /// Where the person said it.
    pub from: AskedFrom,
    /// When it was confirmed.
    pub granted_at: Stamp,
    /// When the call was let through; written before it ran.
    #[serde(default)]
    pub spent_at: Option<Stamp>,
    /// SHA-256 of the arguments that the model gave to the call that was let through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_sha256: Option<String>,
}

impl Resume {
    /// Whether a run was started for this word. One that the gateway surely did not begin is started again, under the
    /// same name with a number behind it.
    #[must_use]
    pub fn is_run(&self, run_id: &str) -> bool {
        run_id
            .strip_prefix(&self.run_id)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// What a person asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeKind {
    /// The interrupted call again, once, with identical parameters.
    Rerun,
    /// To go on without running it again.
    GoOn,
}

/// How far a resume came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeStage {
    /// Confirmed; nothing has run for it.
    Granted,
    /// The call was let through.
    Spent,
    /// Its turn is over.
    Ended,
    /// Nothing came of it: it cannot be used any more.
    Lapsed,
}

/// Where a person spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskedFrom {
    /// `/resume` in a chat.
    Chat,
    /// `tideover resume`.
    Shell,
}

/// How an interrupted action was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// How.
    pub how: SettledHow,
    /// When.
    pub at: Stamp,
}

/// How an interrupted action was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettledHow {
    /// It was run again, and answered.
    Rerun,
    /// The task went on from its result.
    WentOn,
    /// A person said that it had happened.
    Done,
    /// A person dropped it.
    Skipped,
    /// A person closed the session.
    Closed,
}

/// Why a session was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// SIGTERM was asked for: a stop or restart of the service.
    Sigterm,
    /// SIGINT, SIGHUP or SIGQUIT ended it.
    OtherSignal,
    /// The gateway restarted itself.
    GatewayRestart,
    /// The gateway restarted inside its process.
    InProcessRestart,
    /// The gateway ended with an exit code of its own.
    GatewayExit,
    /// A signal that tideover did not send killed the gateway.
    GatewayKilled,
    /// The gateway did not answer any more and the watchdog ended it.
    GatewayFrozen,
    /// tideover itself was killed, and the gateway with it.
    TideoverKilled,
    /// The host went down in order while the gateway was stopping.
    HostReboot,
    /// The host went down without a stop: power cut, hard reset, kernel panic.
    PowerCut,
    /// The gateway replaced the session with a new one while a turn of the old one was open.
    SessionReplaced,
    /// Found interrupted, cause not known.
    Unknown,
}

/// Whether effects are held in an interrupted session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldStatus {
    /// Effects wait for the user.
    Held,
    /// The user, or someone at the shell, lifted the hold.
    Released,
    /// Older than `recovery.max_age` when it was found: kept and listed, not acted on.
    Expired,
}

/// What became of the notice of an interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeStatus {
    /// Not sent yet.
    Pending,
    /// The channel accepted it.
    Sent,
    /// An attempt was made whose end is not known.
    Uncertain,
    /// Given up after the stated tries.
    Failed,
    /// The session has no route to a person.
    NoRoute,
    /// Switched off by configuration, or too old to act on.
    Off,
}

/// What lifted a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleasedBy {
    /// The next genuine message of the user.
    Message,
    /// `tideover sessions release`.
    Shell,
    /// `/resume`.
    Resume,
    /// `recovery.hold = "off"`, or `recovery.unattended = "native"`.
    Policy,
}

impl Checkpoint {
    /// An empty, idle record of a session.
    #[must_use]
    pub fn new(session_key: &str, now: Stamp) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            seq: 0,
            session_key: session_key.to_owned(),
            session_id: None,
            agent_id: None,
            task: None,
            state: State::Idle,
            last_tool_call: None,
            open_calls: Vec::new(),
            turn: None,
            next_expected_action: String::new(),
            updated_at: now,
            route: None,
            workspace: None,
            gateway: GatewayRef::default(),
            evidence: Evidence::Plugin,
            interruption: None,
            extra: Map::new(),
        }
    }

    /// Whether work was under way that an end of the gateway would cut.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        if self.awaits_resume() {
            return true;
        }
        match self.state {
            State::Thinking | State::ToolRunning => self.turn.as_ref().is_some_and(|turn| {
                // A heartbeat that had called nothing yet is no work: the next one does the same.
                turn.origin != Origin::Heartbeat
                    || self.last_tool_call.as_ref().is_some_and(|call| call.run_id == turn.run_id)
            }),
            // A background command that an earlier interruption already reported is not cut twice.
            State::Background => self.running_commands().any(|background| !background.reported),
            State::Idle | State::Ended => false,
        }
    }

    /// The newest call whose command still runs in the background.
    #[must_use]
    pub fn background_call(&self) -> Option<&ToolCall> {
        self.last_tool_call
            .iter()
            .chain(self.open_calls.iter().rev())
            .find(|call| call.outcome == Outcome::Background && call.ended_at().is_none())
    }

    /// The call whose command the gateway calls `id`, while it runs.
    #[must_use]
    pub fn command_named(&self, id: &str) -> Option<&ToolCall> {
        self.last_tool_call.iter().chain(&self.open_calls).find(|call| {
            call.outcome == Outcome::Background
                && call.background.as_ref().is_some_and(|background| {
                    background.ended_at.is_none() && background.id.as_deref() == Some(id)
                })
        })
    }

    fn running_commands(&self) -> impl Iterator<Item = &Background> {
        self.last_tool_call
            .iter()
            .chain(&self.open_calls)
            .filter(|call| call.outcome == Outcome::Background)
            .filter_map(|call| call.background.as_ref())
            .filter(|background| background.ended_at.is_none())
    }

    /// Whether a person's `/resume` was confirmed and its turn has not begun.
    #[must_use]
    pub fn awaits_resume(&self) -> bool {
        self.turn.is_none()
            && self.resume().is_some_and(|resume| resume.stage == ResumeStage::Granted)
    }

    /// What a person last asked for about the present interruption.
    #[must_use]
    pub fn resume(&self) -> Option<&Resume> {
        self.interruption.as_ref()?.resume.as_ref()
    }

    /// Whether what a person last asked for may still do something.
    #[must_use]
    pub fn resume_under_way(&self) -> bool {
        self.resume().is_some_and(|resume| match resume.stage {
            ResumeStage::Granted => true,
            ResumeStage::Spent => self.is_in_turn_of(resume),
            ResumeStage::Ended | ResumeStage::Lapsed => false,
        })
    }

    /// Whether the turn under way was started for this word.
    #[must_use]
    pub fn is_in_turn_of(&self, resume: &Resume) -> bool {
        self.turn.as_ref().is_some_and(|turn| resume.is_run(&turn.run_id))
    }

    /// The call of a run by its id, where the record still has it.
    #[must_use]
    pub fn call_of(&self, run_id: &str, tool_call_id: &str) -> Option<&ToolCall> {
        self.last_tool_call
            .iter()
            .chain(&self.open_calls)
            .find(|call| call.is_called(run_id, tool_call_id))
    }

    /// Whether effects wait for the user.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.interruption.as_ref().is_some_and(|cut| cut.status == HoldStatus::Held)
    }

    /// Whether the model has still to be told of the interruption. Where no person ever confirms, "continue only if
    /// user confirms" must not outlive the hold.
    #[must_use]
    pub fn is_untold(&self) -> bool {
        self.interruption.as_ref().is_some_and(|cut| {
            !cut.model_told
                && match cut.status {
                    HoldStatus::Held => true,
                    HoldStatus::Released => self.unattended().is_none(),
                    HoldStatus::Expired => false,
                }
        })
    }
}

impl ToolCall {
    /// Whether a report of this run and id is about this call.
    #[must_use]
    pub fn is_called(&self, run_id: &str, tool_call_id: &str) -> bool {
        self.run_id == run_id && self.tool_call_id == tool_call_id
    }

    /// Whether no result is known, not even that its command went to the background.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.outcome == Outcome::Unknown && self.finished_at.is_none()
    }

    /// When the background command ended by itself, if it was seen.
    #[must_use]
    pub fn ended_at(&self) -> Option<Stamp> {
        self.background.as_ref().and_then(|background| background.ended_at)
    }
}
