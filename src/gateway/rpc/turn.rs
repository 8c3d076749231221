//! Running a turn of an agent, and looking for what a message left in its session.

use std::time::Duration;

use serde_json::{Value, json};

use crate::core::checkpoint::Route;

use super::client::Client;
use super::error::RpcError;

/// Messages that [`Client::has_receipt`] looks through. The receipt of a message sent moments ago
/// is among the last; and though texts are cut, results of tools come whole, up to 128 KiB each:
/// with 100 rows an answer above the 4 MiB that are taken would need 40 KiB a row on average.
const HISTORY_ROWS: u32 = 100;
/// Where the texts of those messages are cut, in characters: they are not read.
const HISTORY_TEXT_CHARS: u32 = 100;

/// A turn to run. Its text and address are never logged: no `Debug`.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "holds a user's text and address")]
pub struct TurnRequest {
    /// The session.
    pub session_key: String,
    /// What the agent is told.
    pub message: String,
    /// Where its answer goes; without one the answer stays in the session.
    pub route: Option<Route>,
    /// Recognises a repeat while the gateway runs; see [`Client::run_turn`].
    pub idempotency_key: String,
}

/// What became of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnOutcome {
    /// It ran, and its answer went out.
    Ran,
    /// It has surely not begun.
    NotTaken {
        /// Why.
        reason: String,
    },
    /// The gateway answered with an error, or the turn was broken off. Whether it ran is in the
    /// session's transcript: an answer that could not be sent is reported the same way.
    Failed {
        /// The gateway's reason.
        reason: String,
    },
    /// No answer came: the turn may be under way.
    NoAnswer {
        /// What happened.
        reason: String,
    },
}

impl Client {
    /// Runs a turn and has its answer delivered. Returns when it has ended, or after `timeout`.
    ///
    /// Measured on 2026.5.5: the same key again, within one run of the gateway, runs nothing and
    /// gives the first outcome. A channel that does not take the answer makes the outcome an error
    /// although the turn ran; the answer then waits in the gateway's delivery queue.
    pub async fn run_turn(&mut self, request: &TurnRequest, timeout: Duration) -> TurnOutcome {
        self.run_turn_telling(request, timeout, || {}).await
    }

    /// As [`Client::run_turn`]; `accepted` is called once the gateway has taken the turn.
    pub async fn run_turn_telling(
        &mut self,
        request: &TurnRequest,
        timeout: Duration,
        accepted: impl FnMut(),
    ) -> TurnOutcome {
        outcome(self.call_telling("agent", &params(request), timeout, accepted).await)
    }

    /// Whether session `session_key` holds the copy of a message that was sent under one of `keys`
    /// (both 2026.5.5 and 2026.9.6 put the key of a `send` on that copy). `false` is no proof: only
    /// the last messages are looked through.
    ///
    /// # Errors
    /// As [`Client::call`]; an answer above the limit ends the connection.
    pub async fn has_receipt(
        &mut self,
        session_key: &str,
        keys: &[String],
        timeout: Duration,
    ) -> Result<bool, RpcError> {
        let params = json!({
            "sessionKey": session_key,
            "limit": HISTORY_ROWS,
            "maxChars": HISTORY_TEXT_CHARS,
        });
        let answer = self.call("chat.history", &params, timeout).await?;
        let messages = answer.get("messages").and_then(Value::as_array);
        Ok(messages.into_iter().flatten().any(|message| {
            let key = message.get("idempotencyKey").and_then(Value::as_str);
            key.is_some_and(|key| keys.iter().any(|wanted| wanted == key))
        }))
    }
}

fn params(request: &TurnRequest) -> Value {
    let mut params = json!({
        "message": request.message,
        "sessionKey": request.session_key,
        "idempotencyKey": request.idempotency_key,
        "deliver": request.route.is_some(),
    });
    let (Some(route), Some(object)) = (&request.route, params.as_object_mut()) else {
        return params;
    };
    object.insert("channel".to_owned(), route.channel.as_str().into());
    object.insert("to".to_owned(), route.to.as_str().into());
    for (name, value) in [("accountId", &route.account_id), ("threadId", &route.thread_id)] {
        if let Some(value) = value {
            object.insert(name.to_owned(), value.as_str().into());
        }
    }
    params
}

fn outcome(result: Result<Value, RpcError>) -> TurnOutcome {
    match result {
        Ok(answer) => match answer.get("status").and_then(Value::as_str) {
            Some("ok") => TurnOutcome::Ran,
            // `timeout`: the turn was broken off, by a person or by its own limit.
            Some(_) | None => TurnOutcome::Failed { reason: "the turn was broken off".to_owned() },
        },
        Err(RpcError::Answered { error, .. }) if error.is_passing() => {
            TurnOutcome::NotTaken { reason: error.to_string() }
        }
        Err(error @ (RpcError::Answered { .. } | RpcError::RequestTooLarge { .. })) => {
            let reason =
                error.answered().map_or_else(|| error.to_string(), |answer| answer.to_string());
            TurnOutcome::Failed { reason }
        }
        Err(error @ (RpcError::Timeout { .. } | RpcError::Unreadable { .. })) => {
            TurnOutcome::NoAnswer { reason: error.to_string() }
        }
        Err(error @ RpcError::Lost { written: true, .. }) => {
            TurnOutcome::NoAnswer { reason: error.to_string() }
        }
        Err(
            error @ (RpcError::Lost { .. }
            | RpcError::Unreachable { .. }
            | RpcError::Refused { .. }),
        ) => TurnOutcome::NotTaken { reason: error.to_string() },
    }
}
