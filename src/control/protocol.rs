//! Protocol 1 of the control socket: newline-delimited JSON, one frame a line, 1 MiB at most.
//!
//! A *request* has an `id` and a `type` and gets exactly one reply with that `id`: `ok` and `result`, or
//! `ok: false` and `error`. An *event* has a `type` and no `id`, and gets none. A frame with `ok` is a
//! reply. Unknown fields are ignored. The first frame of a connection is `hello`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::core::checkpoint::{Background, Origin, Outcome, Route};
use crate::core::ledger::SessionRef;
use crate::core::limits::{IDENTIFIER_BYTES_MAX, SESSION_KEY_BYTES_MAX};

/// The version this build speaks.
pub const VERSION: u32 = 1;
/// Most rows of the gateway's own queue in one report; the rest are counted.
pub const NATIVE_ENTRIES_MAX: usize = 500;
/// Longest error of the gateway's or of a channel's, in bytes: the 300 characters that the plugin leaves of it fit.
const ERROR_BYTES_MAX: usize = 1_024;
/// Length of a SHA-256 in hexadecimal.
const SHA256_HEX_BYTES: usize = 64;

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
    /// Plugin: a person closed the session.
    SessionEnd {
        /// Which session.
        session: Session,
        /// The gateway's own reason.
        #[serde(default)]
        reason: Option<String>,
    },
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
    /// The store key.
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

/// What became of a message of the gateway's. The text itself never leaves the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MessageSent {
    /// Its channel.
    #[serde(default)]
    pub channel: Option<String>,
    /// To whom.
    #[serde(default)]
    pub to: Option<String>,
    /// From which of our accounts there.
    #[serde(default)]
    pub account_id: Option<String>,
    /// The session it belongs to, where the gateway says so (2026.5.5 does not).
    #[serde(default)]
    pub session_key: Option<String>,
    /// Whether the channel took it. `false` is the end of it on 2026.9.6, and one failed try on 2026.5.5.
    pub success: bool,
    /// The channel's id of it.
    #[serde(default)]
    pub message_id: Option<String>,
    /// Why it failed, cut by the plugin.
    #[serde(default)]
    pub error: Option<String>,
    /// SHA-256 of its text as UTF-8, in lower-case hexadecimal.
    pub text_sha256: String,
    /// Length of that text in bytes.
    pub text_bytes: u64,
}

/// One row of the gateway's own queue, without what it is to deliver. Times are milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct NativeEntry {
    /// The gateway's name of the queue: `outbound-prepared-v1`, `session`, …
    pub queue: String,
    /// Its id, unique in its queue.
    pub id: String,
    /// `pending` or `failed`.
    pub status: String,
    /// What it asks for, in the gateway's words.
    #[serde(default)]
    pub kind: Option<String>,
    /// The session it belongs to.
    #[serde(default)]
    pub session_key: Option<String>,
    /// Its channel.
    #[serde(default)]
    pub channel: Option<String>,
    /// To whom.
    #[serde(default)]
    pub to: Option<String>,
    /// From which of our accounts there.
    #[serde(default)]
    pub account_id: Option<String>,
    /// Failed tries.
    #[serde(default)]
    pub retry_count: u32,
    /// When the last one ended.
    #[serde(default)]
    pub last_attempt_at_ms: Option<i64>,
    /// Why it failed, cut by the plugin.
    #[serde(default)]
    pub last_error: Option<String>,
    /// What the gateway holds of its fate: `send_attempt_started`, `unknown_after_send`, …
    #[serde(default)]
    pub recovery_state: Option<String>,
    /// When a try was handed to the channel; from then on it may have got through.
    #[serde(default)]
    pub platform_send_started_at_ms: Option<i64>,
    /// When it was queued.
    #[serde(default)]
    pub enqueued_at_ms: Option<i64>,
    /// When it was given up.
    #[serde(default)]
    pub failed_at_ms: Option<i64>,
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

/// Whether a request keeps the limits, or why it is refused.
type Checked = Result<(), (ErrorCode, String)>;

fn within(field: &str, text: &str, limit: usize) -> Checked {
    if text.len() <= limit {
        Ok(())
    } else {
        Err((ErrorCode::BadField, format!("{field} is over {limit} bytes")))
    }
}

/// The same for several fields; one that is missing keeps any limit.
fn all_within(fields: &[(&str, &Option<String>, usize)]) -> Checked {
    fields
        .iter()
        .try_for_each(|(field, text, limit)| within(field, text.as_deref().unwrap_or(""), *limit))
}

fn check_sent(sent: &MessageSent) -> Checked {
    within("text_sha256", &sent.text_sha256, SHA256_HEX_BYTES)?;
    all_within(&[
        ("channel", &sent.channel, IDENTIFIER_BYTES_MAX),
        ("to", &sent.to, SESSION_KEY_BYTES_MAX),
        ("account_id", &sent.account_id, IDENTIFIER_BYTES_MAX),
        ("session_key", &sent.session_key, SESSION_KEY_BYTES_MAX),
        ("message_id", &sent.message_id, IDENTIFIER_BYTES_MAX),
        ("error", &sent.error, ERROR_BYTES_MAX),
    ])
}

fn check_entry(entry: &NativeEntry) -> Checked {
    within("queue", &entry.queue, IDENTIFIER_BYTES_MAX)?;
    within("id", &entry.id, IDENTIFIER_BYTES_MAX)?;
    within("status", &entry.status, IDENTIFIER_BYTES_MAX)?;
    all_within(&[
        ("kind", &entry.kind, IDENTIFIER_BYTES_MAX),
        ("session_key", &entry.session_key, SESSION_KEY_BYTES_MAX),
        ("channel", &entry.channel, IDENTIFIER_BYTES_MAX),
        ("to", &entry.to, SESSION_KEY_BYTES_MAX),
        ("account_id", &entry.account_id, IDENTIFIER_BYTES_MAX),
        ("last_error", &entry.last_error, ERROR_BYTES_MAX),
        ("recovery_state", &entry.recovery_state, IDENTIFIER_BYTES_MAX),
    ])
}

fn check_entries(entries: &[NativeEntry]) -> Checked {
    if entries.len() > NATIVE_ENTRIES_MAX {
        let message = format!("entries are over {NATIVE_ENTRIES_MAX}");
        return Err((ErrorCode::BadField, message));
    }
    entries.iter().try_for_each(check_entry)
}

/// The limits on identifiers, so that no record grows by what a peer calls itself.
fn check(request: &Request) -> Checked {
    let session = |session: &Session| {
        within("session.key", &session.key, SESSION_KEY_BYTES_MAX)?;
        within("session.id", session.id.as_deref().unwrap_or(""), IDENTIFIER_BYTES_MAX)?;
        within("session.agent_id", session.agent_id.as_deref().unwrap_or(""), IDENTIFIER_BYTES_MAX)
    };
    let id = |field: &str, text: &str| within(field, text, IDENTIFIER_BYTES_MAX);
    let route = |route: &Option<Route>| {
        let Some(route) = route else { return Ok(()) };
        let thread = route.thread_id.as_deref().unwrap_or("");
        let account = route.account_id.as_deref().unwrap_or("");
        within("route.channel", &route.channel, IDENTIFIER_BYTES_MAX)?;
        within("route.to", &route.to, SESSION_KEY_BYTES_MAX)?;
        within("route.account_id", account, IDENTIFIER_BYTES_MAX)?;
        within("route.thread_id", thread, SESSION_KEY_BYTES_MAX)
    };
    match request {
        Request::Hello(_)
        | Request::GatewayStart(_)
        | Request::GatewayStop { .. }
        | Request::Status {}
        | Request::Sessions {}
        | Request::Flush {} => Ok(()),
        Request::RecoveryTurn { session: of } | Request::SessionEnd { session: of, .. } => {
            session(of)
        }
        Request::UserMessage { session: of, route: from, .. } => {
            session(of)?;
            route(from)
        }
        Request::TurnStart { session: of, run_id, route: from, .. } => {
            session(of)?;
            route(from)?;
            id("run_id", run_id)
        }
        Request::TurnEnd { session: of, run_id, .. } => {
            session(of)?;
            id("run_id", run_id)
        }
        Request::ToolIntent(intent) => {
            session(&intent.session)?;
            id("run_id", &intent.run_id)?;
            id("tool_call_id", &intent.tool_call_id)?;
            id("name", &intent.name)
        }
        Request::ToolResult { session: of, run_id, tool_call_id, background, .. } => {
            session(of)?;
            let background = background.as_ref().and_then(|background| background.id.as_deref());
            id("background.id", background.unwrap_or(""))?;
            id("run_id", run_id)?;
            id("tool_call_id", tool_call_id)
        }
        Request::BackgroundEnd { session: of, background_id } => {
            session(of)?;
            id("background_id", background_id)
        }
        Request::MessageSent(sent) => check_sent(sent),
        Request::NativeQueue { entries, .. } => check_entries(entries),
        Request::Release { key } | Request::Forget { key } => {
            within("key", key, SESSION_KEY_BYTES_MAX)
        }
        Request::Queue { entry } => all_within(&[("entry", entry, IDENTIFIER_BYTES_MAX)]),
        Request::QueueRetry { entry } | Request::QueueDrop { entry } => id("entry", entry),
        Request::OutboxRetry { key } => all_within(&[("key", key, SESSION_KEY_BYTES_MAX)]),
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
mod tests {
    use super::*;

    fn row() -> Value {
        json!({
            "queue": "outbound-prepared-v1", "id": "e-1", "status": "pending", "kind": null,
            "session_key": "agent:main:main", "channel": "telegram", "to": "4242",
            "account_id": "default", "retry_count": 2, "last_attempt_at_ms": 1,
            "last_error": "Network request for 'sendMessage' failed!", "recovery_state": null,
            "platform_send_started_at_ms": null, "enqueued_at_ms": 1, "failed_at_ms": null,
        })
    }

    fn asked(frame: &Value) -> Result<Request, ErrorCode> {
        match parse(frame.to_string().as_bytes()) {
            Ok(Frame::Request { request, .. }) => {
                request.map(|request| *request).map_err(|(code, _)| code)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_row_of_the_gateways_queue_is_passed_on_as_it_came() {
        let frame = json!({ "type": "native_queue", "entries": [row()], "total": 1 });
        let Ok(Request::NativeQueue { entries, total: 1 }) = asked(&frame) else {
            panic!("not understood: {frame}");
        };
        assert_eq!(serde_json::to_value(&entries[0]).unwrap(), row());
    }

    #[test]
    fn a_report_over_a_limit_is_refused() {
        let queue = |entries: Vec<Value>| {
            asked(&json!({ "type": "native_queue", "entries": entries, "total": 9_000 }))
        };
        assert!(queue(vec![row(); NATIVE_ENTRIES_MAX]).is_ok());
        assert_eq!(queue(vec![row(); NATIVE_ENTRIES_MAX + 1]).unwrap_err(), ErrorCode::BadField);
        for (field, limit) in [
            ("id", IDENTIFIER_BYTES_MAX),
            ("session_key", SESSION_KEY_BYTES_MAX),
            ("last_error", ERROR_BYTES_MAX),
        ] {
            let with = |bytes: usize| {
                let mut row = row();
                row[field] = json!("x".repeat(bytes));
                queue(vec![row])
            };
            assert!(with(limit).is_ok(), "{field}");
            assert_eq!(with(limit + 1).unwrap_err(), ErrorCode::BadField, "{field}");
        }
        let sent = |error: usize, sha256: usize| {
            asked(&json!({
                "type": "message_sent", "success": false, "error": "x".repeat(error),
                "text_sha256": "0".repeat(sha256), "text_bytes": 5,
            }))
        };
        assert!(sent(ERROR_BYTES_MAX, SHA256_HEX_BYTES).is_ok());
        assert_eq!(sent(ERROR_BYTES_MAX + 1, 64).unwrap_err(), ErrorCode::BadField);
        assert_eq!(sent(0, SHA256_HEX_BYTES + 1).unwrap_err(), ErrorCode::BadField);
    }

    #[test]
    fn a_shell_asks_for_one_entry_or_all() {
        let long = "x".repeat(SESSION_KEY_BYTES_MAX + 1);
        assert_eq!(asked(&json!({ "type": "queue" })), Ok(Request::Queue { entry: None }));
        assert_eq!(
            asked(&json!({ "type": "queue_retry", "id": "1", "entry": "e-1" })),
            Ok(Request::QueueRetry { entry: "e-1".to_owned() })
        );
        assert_eq!(
            asked(&json!({ "type": "queue_drop", "entry": long })),
            Err(ErrorCode::BadField)
        );
        assert_eq!(
            asked(&json!({ "type": "outbox_retry" })),
            Ok(Request::OutboxRetry { key: None })
        );
        assert_eq!(
            asked(&json!({ "type": "outbox_retry", "key": long })),
            Err(ErrorCode::BadField)
        );
    }
}
