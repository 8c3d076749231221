//! A notice on its way: the record that outlives both sides, and what to do with it next.

use serde::{Deserialize, Serialize};

use super::canonical::sha256_hex;
use super::checkpoint::{NoticeStatus, Route};
use super::limits::{NOTICE_AGE_MS_MAX, NOTICE_KEPT_MS, NOTICE_TRIES_MAX};
use super::retry::pause_ms;
use super::session_kind::kind_of;
use super::stamp::Stamp;

/// How long a newer gateway's own queue may be at a message, in milliseconds: its pauses of 5 s, 25 s, 2 min and
/// twice 10 min, and some more.
pub const NATIVE_QUEUE_MS: i64 = 30 * 60 * 1_000;
/// Most keys that a receipt is looked for, the newest ones.
const KEYS_LOOKED_FOR_MAX: u32 = 50;

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
    /// Whose conversation it goes to, where that is none of the sessions it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
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
    /// How many keys were answered with a failure and left behind.
    #[serde(default)]
    pub generation: u32,
    /// Whether a try may have got through that can no longer be asked about.
    #[serde(default)]
    pub doubt: bool,
    /// How often the present key was asked for without an answer yet.
    #[serde(default)]
    pub open: u32,
    /// The start of the gateway that the present key was last asked of.
    #[serde(default)]
    pub asked_of: Option<String>,
    /// Whether the gateway's own queue has it and will tell its end.
    #[serde(default)]
    pub in_queue: bool,
    /// When a person last asked for it to be tried again.
    #[serde(default)]
    pub asked_at: Option<Stamp>,
}

impl Entry {
    /// A notice that is yet to be sent.
    #[must_use]
    pub fn new(
        now: Stamp,
        key: String,
        route: Route,
        sessions: Vec<(String, String)>,
        text: String,
    ) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            key,
            route,
            sessions,
            host: None,
            text,
            state: SendState::Pending,
            tries: 0,
            created_at: now,
            next_try_at: now,
            last_error: None,
            generation: 0,
            doubt: false,
            open: 0,
            asked_of: None,
            in_queue: false,
            asked_at: None,
        }
    }
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
    /// The channel accepted it, or a receipt of an earlier try was found.
    Delivered,
    /// The gateway did not take it: nothing was tried.
    NotTaken(String),
    /// The channel itself answered that it does not take it now.
    Rejected(String),
    /// It was tried and nobody knows whether the channel took it.
    Unclear(String),
    /// The gateway's own queue has it and goes on trying; its end will be told. With `answered` the channel
    /// itself did not take it so far.
    Queued {
        /// Why it was not sent at once.
        reason: String,
        /// Whether the channel's own answer was seen.
        answered: bool,
    },
    /// No answer of the gateway: it may still be at it.
    NoAnswer(String),
    /// It will never be accepted.
    Refused(String),
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
    /// The idempotency key of the present try. A gateway that answered a key with a failure gives the same answer
    /// again, so each try that was answered leaves its key behind.
    #[must_use]
    pub fn try_key(&self) -> String {
        match self.generation {
            0 => self.key.clone(),
            generation => format!("{}.{generation}", self.key),
        }
    }

    /// The session whose conversation it becomes a part of, where that is known: the gateway notes it in that
    /// history, where its receipt is looked for. A scheduled job's history is nobody's conversation.
    #[must_use]
    pub fn conversation(&self) -> Option<&str> {
        let attended = |key: &&str| !kind_of(key).is_unattended();
        let own = self.sessions.iter().map(|(key, _)| key.as_str()).find(attended);
        own.or(self.host.as_deref())
    }

    /// Whether a key of the gateway's belongs to this notice.
    #[must_use]
    pub fn owns_key(&self, key: &str) -> bool {
        key.strip_prefix(self.key.as_str()).is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix('.').is_some_and(|n| n.parse::<u32>().is_ok())
        })
    }

    /// Every key that was used, for a look at receipts.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let first = self.generation.saturating_sub(KEYS_LOOKED_FOR_MAX);
        (first..=self.generation)
            .map(|generation| Self { generation, ..self.clone() }.try_key())
            .collect()
    }

    /// Whether what is sent next may be a repeat. While the gateway that was asked still runs, the same key is
    /// never sent twice by it.
    #[must_use]
    pub fn may_repeat(&self, gateway: Option<&str>) -> bool {
        self.doubt || (self.open > 0 && self.asked_of.as_deref() != gateway)
    }

    /// Begins a try at the gateway `gateway`.
    pub fn begin(&mut self, now: Stamp, gateway: Option<&str>) {
        if self.in_queue {
            // Its end was to be told and was not; the key would only get its old answer.
            self.leave_key(true);
        }
        self.doubt = self.may_repeat(gateway);
        self.open = self.open.saturating_add(1);
        self.asked_of = gateway.map(str::to_owned);
        self.state = SendState::Attempting;
        self.in_queue = false;
        self.tries = self.tries.saturating_add(1);
        self.next_try_at = now;
    }

    /// Takes a finished try into the record.
    pub fn settle(&mut self, now: Stamp, attempt: &Attempt, jitter: u8) {
        match attempt {
            Attempt::Delivered => {
                self.state = SendState::Delivered;
                self.open = 0;
                self.in_queue = false;
                self.last_error = None;
            }
            Attempt::Refused(why) => {
                self.leave_key(false);
                self.state = SendState::Failed;
                self.in_queue = false;
                self.last_error = Some(why.clone());
            }
            Attempt::NotTaken(why) => {
                self.open = self.open.saturating_sub(1);
                self.retry_later(now, why, jitter);
            }
            Attempt::Rejected(why) => {
                self.leave_key(false);
                self.retry_later(now, why, jitter);
            }
            Attempt::Unclear(why) => {
                self.leave_key(true);
                self.retry_later(now, why, jitter);
            }
            Attempt::NoAnswer(why) => self.retry_later(now, why, jitter),
            Attempt::Queued { reason, answered } => {
                self.open = u32::from(!answered);
                self.in_queue = true;
                self.state = SendState::Uncertain;
                self.last_error = Some(reason.clone());
                self.next_try_at = now.plus_ms(NATIVE_QUEUE_MS);
            }
        }
    }

    /// The gateway's copy of a try under `key` was found, with the channel's answer in it: that try did not get
    /// through.
    pub fn answered_before(&mut self, key: &str) {
        if self.open > 0 && key == self.try_key() {
            self.leave_key(false);
            if self.state == SendState::Uncertain && !self.doubt {
                self.state = SendState::Pending;
            }
        }
    }

    /// Whether a word of the gateway's about a message may be about this one: it was asked for, and its answer is
    /// not awaited any more.
    #[must_use]
    pub fn awaits_word(&self) -> bool {
        self.state == SendState::Uncertain && (self.in_queue || self.open > 0)
    }

    /// The gateway tells that its own queue has given it up.
    pub fn given_up(&mut self, now: Stamp, why: &str, jitter: u8) {
        self.in_queue = false;
        let unclear = self.open > 0;
        self.leave_key(unclear);
        self.retry_later(now, why, jitter);
    }

    /// The present key has its answer; the next try takes another one.
    fn leave_key(&mut self, unclear: bool) {
        self.open = 0;
        self.doubt |= unclear;
        self.generation = self.generation.saturating_add(1);
    }

    fn retry_later(&mut self, now: Stamp, why: &str, jitter: u8) {
        self.last_error = Some(why.to_owned());
        let since = self.asked_at.unwrap_or(self.created_at);
        if self.tries >= NOTICE_TRIES_MAX || now.since_ms(since) > NOTICE_AGE_MS_MAX {
            self.state = SendState::Failed;
            return;
        }
        self.state =
            if self.doubt || self.open > 0 { SendState::Uncertain } else { SendState::Pending };
        self.next_try_at = now.plus_ms(pause_ms(self.tries, jitter));
    }

    /// What was found on disk after a start: a try that a crash cut is uncertain.
    pub fn recover(&mut self) {
        if self.state == SendState::Attempting {
            self.state = SendState::Uncertain;
        }
    }

    /// A person asks for a failed notice to be tried again. Returns whether it was a failed one.
    pub fn ask_again(&mut self, now: Stamp) -> bool {
        if self.state != SendState::Failed {
            return false;
        }
        self.asked_at = Some(now);
        self.tries = 0;
        self.next_try_at = now;
        self.state =
            if self.doubt || self.open > 0 { SendState::Uncertain } else { SendState::Pending };
        true
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Stamp = Stamp::from_ms(1_000_000);

    fn entry() -> Entry {
        let route = Route {
            channel: "telegram".to_owned(),
            to: "1".to_owned(),
            account_id: None,
            thread_id: None,
        };
        Entry::new(NOW, "tideover-k".to_owned(), route, Vec::new(), "text".to_owned())
    }

    fn tried(attempts: &[Attempt]) -> Entry {
        attempts.iter().fold(entry(), |mut entry, attempt| {
            entry.begin(NOW, Some("a"));
            entry.settle(NOW, attempt, 0);
            entry
        })
    }

    #[test]
    fn each_end_of_a_try() {
        let why = || "why".to_owned();
        let queued = |answered| Attempt::Queued { reason: why(), answered };
        for (attempts, state, key, doubt) in [
            (vec![Attempt::Delivered], SendState::Delivered, "tideover-k", false),
            (vec![Attempt::NotTaken(why())], SendState::Pending, "tideover-k", false),
            (vec![Attempt::Rejected(why())], SendState::Pending, "tideover-k.1", false),
            (vec![Attempt::Unclear(why())], SendState::Uncertain, "tideover-k.1", true),
            (
                vec![Attempt::Unclear(why()), Attempt::Rejected(why())],
                SendState::Uncertain,
                "tideover-k.2",
                true,
            ),
            (vec![Attempt::NoAnswer(why())], SendState::Uncertain, "tideover-k", false),
            // The same gateway answers the same key: what it says settles the try before, too.
            (
                vec![Attempt::NoAnswer(why()), Attempt::Rejected(why())],
                SendState::Pending,
                "tideover-k.1",
                false,
            ),
            (vec![queued(true)], SendState::Uncertain, "tideover-k", false),
            (vec![Attempt::Refused(why())], SendState::Failed, "tideover-k.1", false),
        ] {
            let entry = tried(&attempts);
            let got = (entry.state, entry.try_key(), entry.may_repeat(Some("a")));
            assert_eq!(got, (state, key.to_owned(), doubt), "{attempts:?}");
            assert!(entry.owns_key(key) && !entry.owns_key("tideover-kk"));
        }
    }

    #[test]
    fn another_gateway_may_send_an_open_key_again() {
        let mut entry = tried(&[Attempt::NoAnswer("why".to_owned())]);
        assert!(!entry.may_repeat(Some("a")) && entry.may_repeat(Some("b")));
        entry.begin(NOW, Some("b"));
        assert!(entry.doubt, "and from then on that is known for good");
    }

    #[test]
    fn a_copy_with_the_channels_answer_takes_the_doubt_away() {
        let mut entry = entry();
        entry.begin(NOW, Some("a"));
        entry.recover();
        entry.answered_before("tideover-k.7");
        assert!(entry.may_repeat(Some("b")), "another try's");
        entry.answered_before("tideover-k");
        assert!(!entry.may_repeat(Some("b")));
        assert_eq!((entry.state, entry.try_key()), (SendState::Pending, "tideover-k.1".to_owned()));
    }

    #[test]
    fn a_queue_that_never_tells_leaves_a_doubt() {
        let mut entry = tried(&[Attempt::Queued { reason: String::new(), answered: true }]);
        assert!(entry.awaits_word());
        entry.begin(NOW, Some("a"));
        assert!(entry.doubt && !entry.awaits_word());
        assert_eq!(entry.try_key(), "tideover-k.1");
    }

    #[test]
    fn what_the_gateway_gives_up_is_tried_again_by_us() {
        for (answered, state) in [(true, SendState::Pending), (false, SendState::Uncertain)] {
            let mut entry = tried(&[Attempt::Queued { reason: String::new(), answered }]);
            assert!(entry.in_queue && entry.next_try_at == NOW.plus_ms(NATIVE_QUEUE_MS));
            entry.given_up(NOW, "given up", 0);
            assert_eq!((entry.state, entry.in_queue), (state, false));
            assert_eq!(entry.next_try_at, NOW.plus_ms(pause_ms(1, 0)));
        }
    }

    #[test]
    fn a_failed_one_is_tried_again_when_asked_for_however_old() {
        let mut entry = tried(&[Attempt::Refused("why".to_owned())]);
        let later = NOW.plus_ms(10 * NOTICE_AGE_MS_MAX);
        assert!(entry.ask_again(later) && !entry.ask_again(later));
        entry.begin(later, Some("b"));
        entry.settle(later, &Attempt::Rejected("why".to_owned()), 0);
        assert_eq!(entry.state, SendState::Pending);
    }

    fn attempts() -> impl Strategy<Value = Attempt> {
        let why = String::new;
        prop_oneof![
            Just(Attempt::NotTaken(why())),
            Just(Attempt::Rejected(why())),
            Just(Attempt::Unclear(why())),
            Just(Attempt::NoAnswer(why())),
            any::<bool>().prop_map(move |answered| Attempt::Queued { reason: why(), answered }),
        ]
    }

    proptest! {
        /// Whatever went before: a try that may have got through is never followed by an unmarked one at a
        /// gateway that does not know its key, and a key that was answered is not used again.
        #[test]
        fn no_repeat_goes_unmarked(tries in proptest::collection::vec((attempts(), 0_u8..3), 1..12)) {
            let mut entry = entry();
            let mut unsettled: std::collections::BTreeMap<String, u8> = std::collections::BTreeMap::new();
            for (attempt, gateway) in tries {
                let name = gateway.to_string();
                let may_repeat = entry.may_repeat(Some(&name));
                let key = entry.try_key();
                let open = unsettled.iter().any(|(of, at)| *of != key || *at != gateway);
                prop_assert!(!open || may_repeat, "{:?}", unsettled);
                entry.begin(NOW, Some(&name));
                entry.settle(NOW, &attempt, 0);
                match attempt {
                    Attempt::NotTaken(_) => {}
                    Attempt::Rejected(_) | Attempt::Queued { answered: true, .. } => {
                        if unsettled.get(&key) == Some(&gateway) { unsettled.remove(&key); }
                    }
                    Attempt::Unclear(_) | Attempt::NoAnswer(_) | Attempt::Queued { answered: false, .. } => {
                        unsettled.insert(key, gateway);
                    }
                    Attempt::Delivered | Attempt::Refused(_) => {}
                }
            }
        }
    }
}
