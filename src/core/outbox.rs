//! A notice on its way: the record that outlives both sides, and what to do with it next.

use serde::{Deserialize, Serialize};

use super::canonical::sha256_hex;
use super::checkpoint::{NoticeStatus, Route};
use super::limits::{NOTICE_AGE_MS_MAX, NOTICE_KEPT_MS, NOTICE_TRIES_MAX};
use super::retry::pause_ms;
use super::stamp::Stamp;

/// The schema this build writes.
pub const SCHEMA: &str = "tideover.outbox/1";

/// One notice to one route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// `tideover.outbox/1`.
    pub schema: String,
    /// Idempotency key, and the file's name: the same incident and route always give the same.
    pub key: String,
    /// Where it goes.
    pub route: Route,
    /// The sessions it speaks of: session key and interruption id.
    pub sessions: Vec<(String, String)>,
    /// What it says.
    pub text: String,
    /// How far it is.
    pub state: SendState,
    /// Tries so far.
    pub tries: u32,
    /// When it was made.
    pub created_at: Stamp,
    /// Not before this.
    pub next_try_at: Stamp,
    /// Why the last try failed, without any text or token.
    #[serde(default)]
    pub last_error: Option<String>,
}

/// How far a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendState {
    /// Not tried, or the last try surely did not deliver.
    Pending,
    /// A try is under way; found after a crash it is uncertain.
    Attempting,
    /// The channel, or the gateway's own durable queue, has it.
    Delivered,
    /// A try ended without an answer.
    Uncertain,
    /// Given up.
    Failed,
}

/// How one try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The channel accepted it, or the gateway took it into its durable queue.
    Delivered,
    /// It surely was not sent, and a later try may succeed.
    NotSent(String),
    /// It will never be accepted.
    Refused(String),
    /// No answer: it may have been sent.
    NoAnswer(String),
}

/// The idempotency key of the notice on a set of incidents and one route.
#[must_use]
pub fn key_of(route: &Route, interruption_ids: &[String]) -> String {
    let mut ids: Vec<&str> = interruption_ids.iter().map(String::as_str).collect();
    ids.sort_unstable();
    let material = format!(
        "{}\0{}\0{}\0{}\0{}",
        route.channel,
        route.to,
        route.account_id.as_deref().unwrap_or(""),
        route.thread_id.as_deref().unwrap_or(""),
        ids.join("\0")
    );
    format!("tideover-{}", &sha256_hex(material.as_bytes())[..32])
}

impl Entry {
    /// Takes a finished try into the record.
    pub fn settle(&mut self, now: Stamp, attempt: &Attempt, jitter: u8) {
        match attempt {
            Attempt::Delivered => {
                self.state = SendState::Delivered;
                self.last_error = None;
            }
            Attempt::Refused(why) => {
                self.state = SendState::Failed;
                self.last_error = Some(why.clone());
            }
            Attempt::NotSent(why) => self.retry_later(now, SendState::Pending, why, jitter),
            Attempt::NoAnswer(why) => self.retry_later(now, SendState::Uncertain, why, jitter),
        }
    }

    fn retry_later(&mut self, now: Stamp, state: SendState, why: &str, jitter: u8) {
        self.last_error = Some(why.to_owned());
        let too_old = now.since_ms(self.created_at) > NOTICE_AGE_MS_MAX;
        if self.tries >= NOTICE_TRIES_MAX || too_old {
            self.state = SendState::Failed;
        } else {
            self.state = state;
            self.next_try_at = now.plus_ms(pause_ms(self.tries, jitter));
        }
    }

    /// What was found on disk after a start: a try that a crash cut is uncertain.
    pub fn recover(&mut self) {
        if self.state == SendState::Attempting {
            self.state = SendState::Uncertain;
        }
    }

    /// Whether there is still something to do.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self.state {
            SendState::Pending | SendState::Attempting | SendState::Uncertain => true,
            SendState::Delivered | SendState::Failed => false,
        }
    }

    /// Whether it is settled and old enough to be forgotten.
    #[must_use]
    pub fn is_stale(&self, now: Stamp) -> bool {
        !self.is_open() && now.since_ms(self.created_at) > NOTICE_KEPT_MS
    }

    /// What the checkpoints it speaks of should say.
    #[must_use]
    pub fn notice_status(&self) -> NoticeStatus {
        match self.state {
            SendState::Pending | SendState::Attempting => NoticeStatus::Pending,
            SendState::Delivered => NoticeStatus::Sent,
            SendState::Uncertain => NoticeStatus::Uncertain,
            SendState::Failed => NoticeStatus::Failed,
        }
    }
}
