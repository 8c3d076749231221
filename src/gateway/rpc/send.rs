//! Sending one message through a channel of the gateway.

use std::time::Duration;

use serde_json::{Value, json};

use super::channel_error::{channel_answered, is_permanent};
use super::client::Client;
use super::error::{GatewayError, RpcError};

/// A message to send. Its text and address are never logged: no `Debug`.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "holds a user's text and address")]
pub struct SendRequest {
    /// The channel's name.
    pub channel: String,
    /// The address on that channel.
    pub to: String,
    /// The text.
    pub message: String,
    /// The channel account; the gateway's default where none is named.
    pub account_id: Option<String>,
    /// A thread or topic (`threadId` in both versions' schema).
    pub thread_id: Option<String>,
    /// The message that this one answers, by the channel's own id (`replyToId` in both versions).
    pub reply_to_id: Option<String>,
    /// Pictures and files by address or path (`mediaUrls` in both versions). With one at least, the
    /// text may be empty.
    pub media_urls: Vec<String>,
    /// Recognises a repeat while the gateway runs; see [`Client::send`].
    pub idempotency_key: String,
    /// The session whose transcript gets a copy. The model never sees that copy.
    pub session_key: Option<String>,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// The channel took it.
    Delivered {
        /// The channel's own id of it.
        message_id: Option<String>,
    },
    /// The channel did not take it, and the gateway keeps it on disk. Sending it once more may
    /// deliver it twice; not sending it may lose it (see [`Client::send`]).
    Queued {
        /// When the gateway tries again.
        redelivery: Redelivery,
        /// The gateway's reason.
        reason: String,
        /// Whether the channel's own answer was seen: it did not take the message. Without one it
        /// may have.
        answered: bool,
    },
    /// It will never be taken: a wrong address, an unknown channel, a blocked bot.
    Refused {
        /// The gateway's reason. It may hold the address: for the user's eyes, not for a log.
        reason: String,
    },
    /// It was not sent.
    Failed {
        /// Whether the same request may succeed later.
        retryable: bool,
        /// The gateway's reason.
        reason: String,
        /// Whether the channel's own answer was seen. `false` says nothing where the request never
        /// left: then `retryable` is true.
        answered: bool,
    },
    /// It may or may not have been sent: the connection broke after the request was written, or no
    /// answer came in time.
    Uncertain {
        /// What happened.
        reason: String,
    },
}

/// When a gateway tries a queued message again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redelivery {
    /// While it runs (2026.9.6: after 5 s, 25 s, 120 s, 600 s), and at its next start.
    WhileRunning,
    /// Only at its next start (2026.5.5, which keeps failed messages as files).
    AtNextStart,
}

impl Client {
    /// Sends one message.
    ///
    /// Measured on 2026.5.5 and 2026.9.6, alike unless noted:
    ///
    /// * The same idempotency key again, within one run of the gateway, returns the first answer
    ///   and sends nothing. A failed first answer is returned again too, also after the channel has
    ///   healed.
    /// * Two requests with one key in flight, from two connections, send one message and get the
    ///   same answer.
    /// * After a *restart* the same key sends again: the memory of keys is not durable. Whoever must
    ///   not repeat a message has to keep the outcome himself.
    /// * A request whose client gave up after 100 ms was sent all the same.
    /// * The channel refusing the connection, hanging up or answering 500: 2026.5.5 answers a plain
    ///   `UNAVAILABLE` and keeps the message as a file for its next start; 2026.9.6 answers
    ///   `OUTBOUND_DELIVERY_QUEUED`. On 2026.9.6 that is no promise: what had reached the channel
    ///   (hung up, 500, `chat not found`) was dropped at the next start as `unknown_after_send`; only
    ///   what certainly was not sent is tried again.
    pub async fn send(&mut self, request: &SendRequest, timeout: Duration) -> SendOutcome {
        let protocol = self.hello().protocol;
        outcome(self.call("send", &params(request), timeout).await, protocol)
    }
}

fn params(request: &SendRequest) -> Value {
    let mut params = json!({
        "channel": request.channel,
        "to": request.to,
        "message": request.message,
        "idempotencyKey": request.idempotency_key,
    });
    let optional = [
        ("accountId", &request.account_id),
        ("threadId", &request.thread_id),
        ("replyToId", &request.reply_to_id),
        ("sessionKey", &request.session_key),
    ];
    if let Some(params) = params.as_object_mut() {
        for (name, value) in optional {
            if let Some(value) = value {
                params.insert(name.to_owned(), value.as_str().into());
            }
        }
        if !request.media_urls.is_empty() {
            params.insert("mediaUrls".to_owned(), request.media_urls.clone().into());
        }
    }
    params
}

fn outcome(result: Result<Value, RpcError>, protocol: u64) -> SendOutcome {
    match result {
        Ok(answer) => {
            let message_id = answer.get("messageId").and_then(|id| match id {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
            });
            SendOutcome::Delivered { message_id }
        }
        Err(RpcError::Answered { error, .. }) => answered(&error, protocol),
        Err(error @ (RpcError::Timeout { .. } | RpcError::Unreadable { .. })) => {
            SendOutcome::Uncertain { reason: error.to_string() }
        }
        Err(error @ RpcError::Lost { written: true, .. }) => {
            SendOutcome::Uncertain { reason: error.to_string() }
        }
        Err(error @ (RpcError::Lost { .. } | RpcError::Unreachable { .. })) => {
            SendOutcome::Failed { retryable: true, reason: error.to_string(), answered: false }
        }
        Err(error @ (RpcError::RequestTooLarge { .. } | RpcError::Refused { .. })) => {
            SendOutcome::Failed { retryable: false, reason: error.to_string(), answered: false }
        }
    }
}

fn answered(error: &GatewayError, protocol: u64) -> SendOutcome {
    let reason = error.to_string();
    let answered = channel_answered(&error.message);
    if error.is_passing() {
        return SendOutcome::Failed { retryable: true, reason, answered: false };
    }
    if is_permanent(&error.message) || error.code != "UNAVAILABLE" {
        return SendOutcome::Refused { reason };
    }
    if error.detail_code.as_deref() == Some("OUTBOUND_DELIVERY_QUEUED") {
        return SendOutcome::Queued { redelivery: Redelivery::WhileRunning, reason, answered };
    }
    if protocol <= 3 {
        return SendOutcome::Queued { redelivery: Redelivery::AtNextStart, reason, answered };
    }
    SendOutcome::Failed { retryable: error.retryable, reason, answered }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: &str, message: &str, detail: Option<&str>, reason: Option<&str>) -> RpcError {
        let error = GatewayError {
            code: code.to_owned(),
            message: message.to_owned(),
            detail_code: detail.map(str::to_owned),
            reason: reason.map(str::to_owned),
            ..GatewayError::default()
        };
        RpcError::Answered { method: "send".to_owned(), error }
    }

    fn kind(outcome: &SendOutcome) -> &'static str {
        match outcome {
            SendOutcome::Delivered { .. } => "delivered",
            SendOutcome::Queued { redelivery: Redelivery::WhileRunning, .. } => "queued",
            SendOutcome::Queued { redelivery: Redelivery::AtNextStart, .. } => {
                "queued for the start"
            }
            SendOutcome::Refused { .. } => "refused",
            SendOutcome::Failed { retryable: true, .. } => "failed, retryable",
            SendOutcome::Failed { .. } => "failed",
            SendOutcome::Uncertain { .. } => "uncertain",
        }
    }

    #[test]
    fn what_became_of_a_message() {
        let lost = |written| RpcError::Lost { method: "send".into(), reason: "x".into(), written };
        let timeout = RpcError::Timeout { method: "send".into(), timeout_ms: 1 };
        let unavailable = |message, detail, reason| answer("UNAVAILABLE", message, detail, reason);
        let queued = Some("OUTBOUND_DELIVERY_QUEUED");
        let table = [
            (Ok(json!({"messageId": 7})), 4, "delivered"),
            (Ok(json!({})), 3, "delivered"),
            (Err(unavailable("Network request failed", queued, None)), 4, "queued"),
            (Err(unavailable("Bad Request: chat not found", queued, None)), 4, "refused"),
            (Err(unavailable("GrammyError: (500)", None, None)), 3, "queued for the start"),
            (Err(unavailable("odd", None, None)), 4, "failed"),
            (Err(unavailable("x", None, Some("gateway-restarting"))), 4, "failed, retryable"),
            (Err(unavailable("x", None, Some("startup-sidecars"))), 3, "failed, retryable"),
            (Err(answer("INVALID_REQUEST", "unsupported channel: x", None, None)), 4, "refused"),
            (Err(timeout), 4, "uncertain"),
            (Err(lost(true)), 4, "uncertain"),
            (Err(lost(false)), 4, "failed, retryable"),
        ];
        for (result, protocol, want) in table {
            let shown = format!("{result:?}");
            assert_eq!(kind(&outcome(result, protocol)), want, "{shown}");
        }
    }

    #[test]
    fn only_what_is_known_is_sent() {
        let mut request = SendRequest {
            channel: "telegram".into(),
            to: "1".into(),
            message: "m".into(),
            account_id: None,
            thread_id: None,
            reply_to_id: None,
            media_urls: Vec::new(),
            idempotency_key: "k".into(),
            session_key: None,
        };
        let names = |value: &Value| value.as_object().map_or(0, serde_json::Map::len);
        assert_eq!(names(&params(&request)), 4);
        request.thread_id = Some("9".into());
        request.reply_to_id = Some("8".into());
        request.media_urls = vec!["https://x/a.png".into()];
        let all = params(&request);
        assert_eq!(all.get("threadId"), Some(&json!("9")));
        assert_eq!(all.get("replyToId"), Some(&json!("8")));
        assert_eq!(all.get("mediaUrls"), Some(&json!(["https://x/a.png"])));
    }

    #[test]
    fn what_the_channel_said_is_kept() {
        let told = |message| {
            let outcome = outcome(Err(answer("UNAVAILABLE", message, None, None)), 3);
            let SendOutcome::Queued { answered, reason, .. } = outcome else {
                unreachable!("{outcome:?}")
            };
            (answered, reason)
        };
        let (answered, reason) = told("Call to 'sendMessage' failed! (500: Internal Server Error)");
        assert!(answered && reason.contains("(500: Internal"), "{reason}");
        assert!(!told("Network request for 'sendMessage' failed!").0);
    }
}
