//! What can go wrong with a call.

use std::fmt;

/// The code of a turn that was given back before it began.
const START_CHANGED: &str = "SESSION_WORK_START_CHANGED";

/// Why a connection or a call failed.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// No connection came about before the deadline.
    #[error("cannot reach the gateway on 127.0.0.1:{port}: {reason}; is it running on that port?")]
    Unreachable {
        /// The port.
        port: u16,
        /// The last reason.
        reason: String,
    },
    /// The gateway listens and refused the connection for good.
    #[error("the gateway on 127.0.0.1:{port} refused the connection: {error}")]
    Refused {
        /// The port.
        port: u16,
        /// Its answer.
        error: GatewayError,
    },
    /// The gateway answered the call with an error.
    #[error("the gateway refused {method}: {error}")]
    Answered {
        /// The method.
        method: String,
        /// Its answer.
        error: GatewayError,
    },
    /// No answer came in time. The gateway may still carry the call out.
    #[error("the gateway did not answer {method} within {timeout_ms} ms")]
    Timeout {
        /// The method.
        method: String,
        /// The time waited, in milliseconds.
        timeout_ms: u64,
    },
    /// The connection broke.
    #[error("the connection to the gateway was lost during {method}: {reason}")]
    Lost {
        /// The method.
        method: String,
        /// What broke.
        reason: String,
        /// Whether the request may have reached the gateway before that.
        written: bool,
    },
    /// The request is larger than a gateway accepts.
    #[error("the request {method} has {bytes} bytes; at most {bytes_max} can be sent")]
    RequestTooLarge {
        /// The method.
        method: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The gateway said something that is no frame of the protocol.
    #[error("the gateway's answer to {method} cannot be read: {reason}")]
    Unreadable {
        /// The method.
        method: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl RpcError {
    /// The gateway's own error, where it gave one.
    pub fn answered(&self) -> Option<&GatewayError> {
        match self {
            Self::Refused { error, .. } | Self::Answered { error, .. } => Some(error),
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Lost { .. }
            | Self::RequestTooLarge { .. }
            | Self::Unreadable { .. } => None,
        }
    }
}

/// The error member of a gateway's answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatewayError {
    /// `INVALID_REQUEST`, `UNAVAILABLE` and the like.
    pub code: String,
    /// Its text, on one line and cut to a bounded length.
    pub message: String,
    /// Whether the gateway calls the failure passing.
    pub retryable: bool,
    /// The pause it asks for, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// `details.code`, such as `OUTBOUND_DELIVERY_QUEUED`.
    pub detail_code: Option<String>,
    /// `details.reason`, such as `gateway-restarting` or `startup-sidecars`.
    pub reason: Option<String>,
}

impl GatewayError {
    /// Whether the gateway is on its way up or down, and nothing was done.
    pub fn is_passing(&self) -> bool {
        let starting = |reason: &str| {
            reason.starts_with("startup")
                || reason == "gateway-restarting"
                || reason == "gateway-draining"
        };
        // 2026.9.6 takes a turn and gives it back when its own recovery touches the session meanwhile.
        let given_back = self.detail_code.as_deref() == Some(START_CHANGED)
            || self.message.contains(START_CHANGED);
        self.code == "UNAVAILABLE" && (given_back || self.reason.as_deref().is_some_and(starting))
    }
}

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.detail_code.as_deref().unwrap_or(&self.code);
        write!(f, "{} ({code})", self.message)
    }
}
