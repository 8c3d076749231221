//! What the plugin tells of messages: each that was sent or was not, and what stands in the gateway's own queue.

use serde::{Deserialize, Serialize};

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
