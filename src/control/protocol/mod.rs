//! Protocol 1 of the control socket: newline-delimited JSON, one frame a line, 1 MiB at most.
//!
//! A *request* has an `id` and a `type` and gets exactly one reply with that `id`: `ok` and `result`, or
//! `ok: false` and `error`. An *event* has a `type` and no `id`, and gets none. A frame with `ok` is a
//! reply. Unknown fields are ignored. The first frame of a connection is `hello`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::core::checkpoint::{Background, Origin, Outcome, Route};
use crate::core::ledger::SessionRef;
use crate::core::session_kind::record_key;

mod check;
mod delivery;
mod resume;

pub use delivery::{MessageSent, NativeEntry};
pub use resume::{ResumeAsked, ResumeWord};

use check::check;

/// The version this build speaks.
pub const VERSION: u32 = 1;
/// Most rows of the gateway's own queue in one report; the rest are counted.
pub const NATIVE_ENTRIES_MAX: usize = 500;

/// What a peer may ask.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// First frame of every connection.
    Hello(Hello),
    /// Plugin: the gateway serves.
    GatewayStart(GatewayStart),
    /// Plugin: the gateway goes down, or restarts inside its process.
    GatewayStop {
        /// Which start of the gateway this ends.
        #[serde(default)]
        incarnation: Option<String>,
        /// The gateway's own reason.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Plugin: a person wrote.
    UserMessage {
        /// Which session.
        session: Session,
        /// Where it came from.
        #[serde(default)]
        route: Option<Route>,
        /// The bare text, cut by the plugin.
        #[serde(default)]
        text: Option<String>,
    },
    /// Plugin: the gateway's own recovery turn is about to start.
    RecoveryTurn {
        /// Which session.
        session: Session,
    },
    /// Plugin: a turn starts.
    TurnStart {
        /// Which session.
        session: Session,
        /// The gateway's id of the run.
        run_id: String,
        /// Who started it.
        origin: Origin,
        /// The user's words.
        #[serde(default)]
        text: Option<String>,
        /// Where the user is reached.
        #[serde(default)]
        route: Option<Route>,
        /// The directory that the agent works in.
        #[serde(default)]
        workspace: Option<String>,
    },
    /// Plugin: a turn ended.
    TurnEnd {
        /// Which session.
        session: Session,
        /// The gateway's id of the run.
        run_id: String,
        /// Whether the gateway calls it a success.
        success: bool,
        /// Whether the model answered.
        #[serde(default)]
        answered: bool,
        /// Whether the text of this turn's `turn_start` really went to the model.
        #[serde(default)]
        told: Option<bool>,
    },
    /// Plugin: a tool is about to run; it waits for the reply.
    ToolIntent(ToolIntent),
    /// Plugin: a tool answered.
    ToolResult {
        /// Which session.
        session: Session,
        /// The gateway's id of the run.
        run_id: String,
        /// The model's id of the call.
        tool_call_id: String,
        /// How it answered.
        outcome: ResultKind,
        /// The command that outlived it.
        #[serde(default)]
        background: Option<Background>,
    },
    /// Plugin: a background command ended, as a later tool result shows.
    BackgroundEnd {
        /// Which session.
        session: Session,
        /// The gateway's own name for the command.
        background_id: String,
    },
    /// Plugin: a session ended under its key: a person closed it, or the gateway begins it anew.
    SessionEnd {
        /// Which session, with the id it had.
        session: Session,
        /// The gateway's own reason.
        #[serde(default)]
        reason: Option<String>,
        /// The id of the session that takes its place.
        #[serde(default)]
        next_session_id: Option<String>,
    },
    /// Plugin: a person wrote `/resume`. The reply comes when it is durable and, where a turn begins, has begun.
    ResumeAsked(ResumeAsked),
    /// Plugin: the gateway sent a message, or did not get it through.
    MessageSent(MessageSent),
    /// Plugin: what stands in the gateway's own queue, where it is kept in SQLite. Sent when it has changed.
    NativeQueue {
        /// Its rows, oldest first.
        entries: Vec<NativeEntry>,
        /// How many there are, those beyond the limit included.
        total: u64,
    },
    /// Shell: what the supervisor knows.
    Status {},
    /// Shell: every checkpoint.
    Sessions {},
    /// Shell: lift a hold.
    Release {
        /// The session key.
        key: String,
    },
    /// Shell: resume an interrupted session.
    Resume {
        /// The session key.
        key: String,
        /// What is said.
        choice: ResumeWord,
    },
    /// Shell: drop a checkpoint.
    Forget {
        /// The session key.
        key: String,
    },
    /// Shell: make every open checkpoint durable now.
    Flush {},
    /// Shell: what waits to be delivered.
    Queue {
        /// Only what has this id, or one that begins like it; everything if it is missing.
        #[serde(default)]
        entry: Option<String>,
    },
    /// Shell: try an entry of the queue now.
    QueueRetry {
        /// The entry's id; `id` is that of the request.
        entry: String,
    },
    /// Shell: drop an entry of the queue.
    QueueDrop {
        /// The entry's id.
        entry: String,
    },
    /// Shell: try notices that failed again.
    OutboxRetry {
        /// Which one; every failed one if it is missing.
        #[serde(default)]
        key: Option<String>,
    },
}

/// The greeting.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Hello {
    /// Protocol version.
    pub v: u32,
    /// Who speaks.
    pub role: Role,
    /// The plugin's version.
    #[serde(default)]
    pub plugin_version: Option<String>,
    /// The gateway it runs in.
    #[serde(default)]
    pub gateway: Option<GatewayHello>,
    /// Which signals the gateway handles itself.
    #[serde(default)]
    pub signals: Option<Signals>,
}

/// Who speaks on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The companion plugin inside the supervised gateway.
    Plugin,
    /// A command line.
    Cli,
}

/// What the plugin says of its gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct GatewayHello {
    /// The gateway's version as it says itself.
    #[serde(default)]
    pub version: Option<String>,
    /// A new id for each start of the gateway, in-process restarts included.
    pub incarnation: String,
}

/// Which signals the gateway handles itself, probed in its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Signals {
    /// SIGUSR1; if not, Node would open its debugger.
    #[serde(default)]
    pub usr1: bool,
    /// SIGUSR2.
    #[serde(default)]
    pub usr2: bool,
}

/// The gateway serves.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct GatewayStart {
    /// Which start of the gateway.
    pub incarnation: String,
    /// Its port on loopback.
    #[serde(default)]
    pub port: Option<u16>,
    /// How to log in to it. Never logged, never stored.
    #[serde(default)]
    pub auth: Option<GatewayAuth>,
    /// Its version.
    #[serde(default)]
    pub version: Option<String>,
    /// Which signals it handles itself.
    #[serde(default)]
    pub signals: Option<Signals>,
}

/// How to log in to the gateway.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub struct GatewayAuth {
    /// The shared token.
    #[serde(default)]
    pub token: Option<String>,
    /// The shared password.
    #[serde(default)]
    pub password: Option<String>,
}

impl std::fmt::Debug for GatewayAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayAuth")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("password", &self.password.as_ref().map(|_| "…"))
            .finish()
    }
}

/// A session as the wire names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Session {
    /// The store key; that of the job, for a run of it.
    #[serde(deserialize_with = "of_record")]
    pub key: String,
    /// The session id.
    #[serde(default)]
    pub id: Option<String>,
    /// The agent.
    #[serde(default)]
    pub agent_id: Option<String>,
}

/// A tool is about to run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ToolIntent {
    /// Which session.
    pub session: Session,
    /// The gateway's id of the run.
    pub run_id: String,
    /// The model's id of the call.
    pub tool_call_id: String,
    /// The tool's name.
    pub name: String,
    /// Its arguments, unless they were too long to send.
    #[serde(default)]
    pub arguments: Option<Value>,
    /// Length and hash of arguments that were too long to send.
    #[serde(default)]
    pub arguments_omitted: Option<TooLong>,
}

/// Arguments that were too long to send.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TooLong {
    /// Their length as JSON, in bytes.
    pub bytes: u64,
    /// SHA-256 of that JSON.
    pub sha256: String,
}

/// How a tool answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultKind {
    /// Without an error.
    Ok,
    /// With an error.
    Error,
    /// While its command still runs.
    Background,
    /// Not at all: it was held.
    Blocked,
}

impl ResultKind {
    /// The outcome it means; `None` for a call that never ran.
    #[must_use]
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Ok => Some(Outcome::Ok),
            Self::Error => Some(Outcome::Error),
            Self::Background => Some(Outcome::Background),
            Self::Blocked => None,
        }
    }
}

fn of_record<'de, D: serde::Deserializer<'de>>(wire: D) -> Result<String, D::Error> {
    let key = String::deserialize(wire)?;
    Ok(record_key(&key).to_owned())
}

impl From<&Session> for SessionRef {
    fn from(session: &Session) -> Self {
        Self {
            key: session.key.clone(),
            id: session.id.clone(),
            agent_id: session.agent_id.clone(),
        }
    }
}

impl From<&SessionRef> for Session {
    fn from(session: &SessionRef) -> Self {
        Self {
            key: session.key.clone(),
            id: session.id.clone(),
            agent_id: session.agent_id.clone(),
        }
    }
}

/// Why a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The line is over 1 MiB; the connection is closed.
    TooLong,
    /// The line is not a JSON object; the connection is closed.
    BadJson,
    /// The first frame was not `hello`; the connection is closed.
    HelloFirst,
    /// Another protocol version; the connection is closed.
    UnsupportedVersion,
    /// The peer may not do this; the connection is closed.
    Refused,
    /// No such request.
    UnknownType,
    /// A field is missing, of the wrong type or over its limit.
    BadField,
    /// No such session.
    NotFound,
    /// It could not be made durable.
    NotDurable,
    /// A limit of tideover was reached.
    Full,
}

/// One frame, taken apart.
#[derive(Debug)]
pub enum Frame {
    /// A request, or an event where `id` is missing.
    Request {
        /// Its id.
        id: Option<String>,
        /// What is asked, or why it cannot be understood.
        request: Result<Box<Request>, (ErrorCode, String)>,
    },
    /// The answer to a request of ours.
    Reply {
        /// The id we gave.
        id: String,
        /// The result; `None` for an error.
        result: Option<Value>,
    },
}

/// Takes one line apart.
///
/// # Errors
/// When it is no JSON object at all.
pub fn parse(line: &[u8]) -> Result<Frame, (ErrorCode, String)> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|error| (ErrorCode::BadJson, format!("not JSON: {error}")))?;
    let Value::Object(map) = &value else {
        return Err((ErrorCode::BadJson, "not a JSON object".to_owned()));
    };
    let id = map.get("id").and_then(Value::as_str).map(str::to_owned);
    if let Some(ok) = map.get("ok") {
        let result =
            (ok == &Value::Bool(true)).then(|| map.get("result").cloned().unwrap_or_default());
        return Ok(Frame::Reply { id: id.unwrap_or_default(), result });
    }
    let kind = map.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let request = serde_json::from_value::<Request>(value)
        .map_err(|error| explain(&kind, &error))
        .and_then(|request| check(&request).map(|()| Box::new(request)));
    Ok(Frame::Request { id, request })
}

fn explain(kind: &str, error: &serde_json::Error) -> (ErrorCode, String) {
    let text = error.to_string();
    if text.contains("unknown variant") && text.contains(&format!("`{kind}`")) {
        (ErrorCode::UnknownType, format!("no request of type {kind:?}"))
    } else {
        (ErrorCode::BadField, format!("{kind}: {text}"))
    }
}

/// A good reply, as a line.
#[must_use]
pub fn reply(id: &str, result: &Value) -> String {
    line(&json!({ "id": id, "ok": true, "result": result }))
}

/// A bad reply, as a line.
#[must_use]
pub fn error_reply(id: Option<&str>, code: ErrorCode, message: &str) -> String {
    line(&json!({ "id": id, "ok": false, "error": { "code": code, "message": message } }))
}

/// A request of ours to the plugin, as a line.
#[must_use]
pub fn flush_request(id: &str, deadline_ms: u64) -> String {
    line(&json!({ "id": id, "type": "flush", "deadline_ms": deadline_ms }))
}

/// A request of ours to the plugin for a fresh look at the gateway's own queue, as a line.
#[must_use]
pub fn queue_request(id: &str) -> String {
    line(&json!({ "id": id, "type": "queue" }))
}

/// The event that replaces the plugin's idea of which sessions are held or interrupted.
#[must_use]
pub fn holds_event(held: &[SessionRef], interrupted: &[SessionRef]) -> String {
    line(&json!({ "type": "holds", "held": sessions(held), "interrupted": sessions(interrupted) }))
}

/// Sessions as the wire names them.
#[must_use]
pub fn sessions(list: &[SessionRef]) -> Value {
    list.iter().map(|session| json!({ "key": session.key, "id": session.id })).collect()
}

fn line(value: &Value) -> String {
    let mut text = value.to_string();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
