//! What a newer gateway's own queue gave up: it discards the message, so the word that it did is all that is left.

use serde::{Deserialize, Serialize};

use crate::control::protocol::MessageSent;
use crate::core::canonical::session_hash;
use crate::core::stamp::Stamp;
use crate::store::records::to_bytes;
use crate::telemetry::events;

use super::super::clock;
use super::super::engine::Engine;

/// Most that are kept, the newest.
const GIVEN_UP_MAX: usize = 200;

/// One message that the gateway gave up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// When that was told.
    pub at: Stamp,
    /// The session.
    pub session_key: Option<String>,
    /// The channel.
    pub channel: Option<String>,
    /// The address.
    pub to: Option<String>,
    /// The gateway's reason.
    pub error: Option<String>,
    /// The text's length, in bytes: the text itself is not kept.
    pub text_bytes: u64,
}

impl Engine {
    /// A message was sent or given up. What is given up is written down, with session and time.
    pub(in super::super) fn message_told(&mut self, sent: &MessageSent) {
        let ours = self.notice_told(sent);
        if sent.success {
            return;
        }
        self.queue_soon();
        // Where the queue is kept as files, this was a single try.
        if ours || !self.queue.in_database() {
            return;
        }
        tracing::error!(
            event = events::DELIVERY_GIVEN_UP.name,
            channel = sent.channel,
            session_hash = sent.session_key.as_deref().map(session_hash),
            "the gateway gave a message up; see `tideover queue list`"
        );
        let queue = &mut self.queue.given_up;
        queue.push(GivenUp {
            at: clock::now(),
            session_key: sent.session_key.clone(),
            channel: sent.channel.clone(),
            to: sent.to.clone(),
            error: sent.error.clone(),
            text_bytes: sent.text_bytes,
        });
        let surplus = queue.len().saturating_sub(GIVEN_UP_MAX);
        queue.drain(..surplus);
        let bytes = to_bytes(&self.queue.given_up);
        if let Some(ack) = self.write_given_up(bytes) {
            self.watch_ack("queue record", ack);
        }
    }
}
