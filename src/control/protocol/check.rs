//! The limits on what a request holds, so that no record grows by what a peer calls itself.

use crate::core::checkpoint::Route;
use crate::core::limits::{IDENTIFIER_BYTES_MAX, SESSION_KEY_BYTES_MAX};

use super::{ErrorCode, MessageSent, NATIVE_ENTRIES_MAX, NativeEntry, Request, Session};

/// Longest error of the gateway's or of a channel's, in bytes: the 300 characters that the plugin leaves of it fit.
pub(super) const ERROR_BYTES_MAX: usize = 1_024;
/// Length of a SHA-256 in hexadecimal.
pub(super) const SHA256_HEX_BYTES: usize = 64;

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
pub(super) fn check(request: &Request) -> Checked {
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
        Request::RecoveryTurn { session: of } => session(of),
        Request::SessionEnd { session: of, next_session_id, .. } => {
            session(of)?;
            id("next_session_id", next_session_id.as_deref().unwrap_or(""))
        }
        Request::UserMessage { session: of, route: from, .. } => {
            session(of)?;
            route(from)
        }
        Request::TurnStart { session: of, run_id, route: from, workspace, .. } => {
            all_within(&[("workspace", workspace, SESSION_KEY_BYTES_MAX)])?;
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
        Request::ResumeAsked(asked) => {
            asked.session.as_ref().map_or(Ok(()), session)?;
            all_within(&[("code", &asked.code, IDENTIFIER_BYTES_MAX)])?;
            route(&asked.route)
        }
        Request::MessageSent(sent) => check_sent(sent),
        Request::NativeQueue { entries, .. } => check_entries(entries),
        Request::Release { key } | Request::Forget { key } | Request::Resume { key, .. } => {
            within("key", key, SESSION_KEY_BYTES_MAX)
        }
        Request::Queue { entry } => all_within(&[("entry", entry, IDENTIFIER_BYTES_MAX)]),
        Request::QueueRetry { entry } | Request::QueueDrop { entry } => id("entry", entry),
        Request::OutboxRetry { key } => all_within(&[("key", key, SESSION_KEY_BYTES_MAX)]),
    }
}
