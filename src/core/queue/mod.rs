//! The gateway's own delivery queue where it is kept as files: what becomes of each entry, before the gateway
//! starts and while it runs. Pure: whoever reads the files brings the facts and carries the steps out.

use serde::{Deserialize, Serialize};

use super::checkpoint::Route;
use super::stamp::Stamp;

/// Tries after which the gateway itself gives an entry up (measured on 2026.5.5).
pub const TRIES_MAX: u32 = 5;
/// The gateway's pauses after the first, second, third and every further failed try, in milliseconds.
const PAUSES_MS: [i64; 4] = [5_000, 25_000, 120_000, 600_000];
/// How long an entry that no try is known of may still be in the gateway's hands, in milliseconds. The longest
/// seen is a channel that hangs: its client gives up after 500 s.
const IN_HAND_MS: i64 = 15 * 60 * 1_000;
/// Longest that a message is kept back behind a notice to the same route, in milliseconds.
pub const BEHIND_NOTICE_MS: i64 = 10 * 60 * 1_000;
/// An entry that waits longer than this is called stuck, in milliseconds.
pub const STUCK_MS: i64 = 15 * 60 * 1_000;

/// Which of the gateway's two queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// What is to be brought before an agent: continuations, events.
    Session,
    /// What is to be sent to a person: replies, messages.
    Delivery,
}

/// What an entry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A turn of an agent, with a route for its answer.
    Turn,
    /// An event for an agent, which wakes it; only the gateway itself can deliver that.
    Event,
    /// A message that the gateway's `send` can carry whole.
    Message,
    /// A message with parts that only the gateway itself can send.
    RichMessage,
}

/// What tideover wrote into an entry that it has, or had, in hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mark {
    /// How far its try is.
    pub hand: Hand,
    /// The idempotency key of that try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// When it was taken in hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Stamp>,
    /// Whether a try may have got through although no answer tells.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub doubt: bool,
    /// The start of the gateway that was asked: only that one knows the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_of: Option<String>,
    /// How many of its keys were answered with a failure; the next try takes another one.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: u32,
    /// Asked for by hand: the date it bears is not waited for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub asked: bool,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How far a try of ours is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hand {
    /// None under way.
    #[default]
    None,
    /// Taken out of the gateway's queue, not sent yet.
    Claimed,
    /// The request may be on its way.
    Sending,
    /// The request was answered: it did not get through. What is left is to put it back.
    Failed,
}

/// One entry, as the decisions need it. It never holds the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its queue.
    pub queue: Queue,
    /// Its id, which is its file's name.
    pub id: String,
    /// What it asks for.
    pub work: Work,
    /// The session it belongs to.
    pub session_key: Option<String>,
    /// Where its message, or its turn's answer, goes.
    pub route: Option<Route>,
    /// The idempotency key under which the gateway's transcript knows it.
    pub key: Option<String>,
    /// When it was queued.
    pub enqueued_at: Stamp,
    /// Failed tries.
    pub retry_count: u32,
    /// When the last one ended.
    pub last_attempt_at: Option<Stamp>,
    /// Why it failed.
    pub last_error: Option<String>,
    /// Whether a try of the gateway's may have got through: one was under way, or ended without the channel's answer.
    pub open_try: bool,
    /// Whether the gateway's `agent` call would take its text for a command ("/new …"), which its own delivery does
    /// not.
    pub command: bool,
    /// What tideover wrote into it.
    pub mark: Mark,
}

impl Entry {
    /// Whether a try of ours now may repeat a message. What another start of the gateway left may have been tried
    /// by this one's own pass without a trace.
    #[must_use]
    pub fn may_repeat(&self, gateway_since: Stamp, kept: bool) -> bool {
        let unseen = self.last_attempt_at.is_some_and(|at| at < gateway_since);
        self.queue == Queue::Delivery
            && (self.mark.doubt || self.open_try || (unseen && !kept && !self.mark.asked))
    }

    /// Pause before the next try, in milliseconds, by the gateway's own table: a delivery counts one try more.
    #[must_use]
    pub fn pause_ms(&self) -> i64 {
        let tries = match self.queue {
            Queue::Session => self.retry_count,
            Queue::Delivery => self.retry_count.saturating_add(1),
        };
        let index = usize::try_from(tries.saturating_sub(1)).unwrap_or(usize::MAX);
        let never_tried = self.retry_count == 0 && self.last_attempt_at.is_none();
        if tries == 0 || never_tried { 0 } else { PAUSES_MS[index.min(PAUSES_MS.len() - 1)] }
    }

    /// When the gateway's rules allow the next try.
    #[must_use]
    pub fn due_at(&self) -> Stamp {
        self.last_attempt_at.unwrap_or(self.enqueued_at).plus_ms(self.pause_ms())
    }

    /// How long it has waited, in milliseconds.
    #[must_use]
    pub fn age_ms(&self, now: Stamp) -> i64 {
        now.since_ms(self.enqueued_at)
    }
}

/// What the gateway's transcript tells of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Nothing: no turn has begun, no message has been mirrored.
    #[default]
    None,
    /// Its turn was answered, or its message was sent and mirrored.
    Done,
    /// Its turn has called tools and gave no answer: whether it is done is not known, and it is not run again.
    Cut,
}

/// What is known at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartFacts {
    /// The time.
    pub now: Stamp,
    /// Whether effects are held in its session.
    pub held: bool,
    /// Whether a notice to its route is still to be sent.
    pub notice_open: bool,
    /// What the transcript tells.
    pub evidence: Evidence,
    /// Whether it is the gateway's copy of a notice of ours.
    pub ours: bool,
}

/// What becomes of an entry before the gateway starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStart {
    /// It stays as it is.
    Leave(Why),
    /// It stays; its pause is taken away, so that the gateway tries it in its own pass. With doubt its text is
    /// marked as a possible repeat first.
    MakeDue {
        /// Whether a try may have got through.
        doubt: bool,
    },
    /// What it asks for has happened: it goes to the settled ones.
    Settle,
    /// It is kept back.
    Keep(Why),
    /// The outbox has the notice: the copy is removed.
    RemoveCopy,
}

/// What becomes of an entry while the gateway runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// Not yet.
    Wait(Stamp, Why),
    /// Not before something else happens.
    Leave(Why),
    /// tideover takes it and has the gateway deliver it.
    Claim,
    /// What it asks for has happened.
    Settle,
    /// It goes to the kept ones, so that a restart inside the gateway's process does not run it.
    Keep(Why),
    /// It goes back into the gateway's queue: only the gateway can deliver it.
    Return,
    /// The gateway's own number of tries is used up.
    GiveUp,
}

/// The reason for a step, for `tideover queue list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Its session waits for its user's word.
    Held,
    /// A notice to the same route goes first.
    BehindNotice,
    /// The gateway may have it in hand.
    InHand,
    /// It pauses after a failed try.
    Pause,
    /// Its session is busy.
    Busy,
    /// It is dated in the future: the gateway passes it over until then.
    Future,
    /// The gateway gives it up at its next start.
    TriesUsedUp,
    /// Only the gateway itself can deliver it, at its next start.
    GatewayOnly,
}

/// Decides what becomes of an entry before the gateway starts.
#[must_use]
pub fn at_start(entry: &Entry, facts: &StartFacts) -> AtStart {
    if facts.ours {
        return AtStart::RemoveCopy;
    }
    if facts.evidence != Evidence::None {
        return AtStart::Settle;
    }
    if entry.retry_count >= TRIES_MAX {
        return AtStart::Leave(Why::TriesUsedUp);
    }
    if entry.enqueued_at > facts.now && !entry.mark.asked {
        return AtStart::Leave(Why::Future);
    }
    match entry.work {
        Work::Turn | Work::Event if facts.held => AtStart::Keep(Why::Held),
        Work::Turn | Work::Message if facts.notice_open => AtStart::Keep(Why::BehindNotice),
        Work::Turn | Work::Event => AtStart::MakeDue { doubt: false },
        Work::Message | Work::RichMessage => {
            AtStart::MakeDue { doubt: entry.open_try || entry.mark.doubt }
        }
    }
}

/// What is known while the gateway runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunFacts {
    /// The time.
    pub now: Stamp,
    /// When the gateway began to serve, after its last start.
    pub gateway_since: Stamp,
    /// Whether effects are held in its session.
    pub held: bool,
    /// Whether a turn of its session is under way.
    pub busy: bool,
    /// Until when its user's word, which has just lifted a hold, is waited for to become a turn of its own.
    pub word_until: Option<Stamp>,
    /// Whether a notice to its route is still to be sent.
    pub notice_open: bool,
    /// What the transcript tells.
    pub evidence: Evidence,
    /// Whether tideover kept it back, so that the gateway does not know of it.
    pub kept: bool,
}

/// Decides what becomes of an entry while the gateway runs.
#[must_use]
pub fn while_running(entry: &Entry, facts: &RunFacts) -> Running {
    // A turn that is under way will be answered, or cut, by itself.
    if facts.evidence != Evidence::None && !facts.busy {
        return Running::Settle;
    }
    if entry.enqueued_at > facts.now && !entry.mark.asked {
        return Running::Wait(entry.enqueued_at, Why::Future);
    }
    let in_hand = in_hand_until(entry, facts).filter(|until| *until > facts.now && !facts.kept);
    match entry.work {
        Work::Event if facts.kept && !facts.held => return Running::Return,
        Work::RichMessage if facts.kept => return Running::Return,
        Work::Event | Work::RichMessage => return Running::Leave(Why::GatewayOnly),
        Work::Turn if facts.held && facts.kept => return Running::Leave(Why::Held),
        Work::Turn if facts.held => {
            return in_hand
                .map_or(Running::Keep(Why::Held), |until| Running::Wait(until, Why::Held));
        }
        Work::Turn if entry.command => return Running::Leave(Why::GatewayOnly),
        Work::Turn if facts.busy => return Running::Leave(Why::Busy),
        Work::Turn | Work::Message => {}
    }
    if let Some(until) = facts.word_until.filter(|until| *until > facts.now) {
        return Running::Wait(until, Why::Busy);
    }
    let since_start = facts.now.since_ms(facts.gateway_since);
    if facts.notice_open && since_start < BEHIND_NOTICE_MS {
        let until = facts.gateway_since.plus_ms(BEHIND_NOTICE_MS);
        return Running::Wait(until, Why::BehindNotice);
    }
    if entry.mark.asked {
        return Running::Claim;
    }
    if let Some(until) = in_hand {
        return Running::Wait(until, Why::InHand);
    }
    if entry.retry_count >= TRIES_MAX {
        return Running::GiveUp;
    }
    if facts.kept {
        return Running::Claim;
    }
    let due_at = entry.due_at();
    if due_at > facts.now { Running::Wait(due_at, Why::Pause) } else { Running::Claim }
}

/// Until when the gateway may have an entry in hand: its claims are in its memory and cannot be seen.
fn in_hand_until(entry: &Entry, facts: &RunFacts) -> Option<Stamp> {
    match entry.last_attempt_at {
        // Tried by this gateway, and failed: nothing in it comes back to it before its next start.
        Some(at) if entry.retry_count > 0 && at >= facts.gateway_since => None,
        Some(_) => Some(facts.gateway_since.plus_ms(IN_HAND_MS)),
        None => Some(entry.enqueued_at.max(facts.gateway_since).plus_ms(IN_HAND_MS)),
    }
}

/// How a try of ours ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It got through, or its turn ran.
    Done,
    /// The gateway did not take the request: nothing was tried.
    NotTaken(String),
    /// It did not get through; with `answered` the channel itself said so.
    Failed {
        /// Why.
        reason: String,
        /// Whether the channel's own answer was seen.
        answered: bool,
    },
    /// No answer came: the gateway may still be at it.
    NoAnswer,
    /// It will never be taken.
    Refused(String),
}

/// What becomes of an entry after a try of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterTry {
    /// It is settled.
    Settle,
    /// Back into the queue as it was.
    PutBack,
    /// Back into the queue with one more failed try.
    Retry {
        /// Failed tries now.
        retry_count: u32,
        /// Why.
        reason: String,
        /// Whether a try may have got through.
        doubt: bool,
    },
    /// It stays in hand and is looked at again: the gateway may still be at it.
    AskAgain,
    /// Given up, to where the gateway keeps what it gave up.
    GiveUp {
        /// Failed tries now.
        retry_count: u32,
        /// Why.
        reason: String,
    },
}

/// Decides what becomes of an entry after a try of ours.
#[must_use]
pub fn after_try(entry: &Entry, tried: Tried) -> AfterTry {
    let retry_count = entry.retry_count.saturating_add(1);
    match tried {
        Tried::Done => AfterTry::Settle,
        Tried::NotTaken(_) => AfterTry::PutBack,
        Tried::NoAnswer => AfterTry::AskAgain,
        Tried::Refused(reason) => AfterTry::GiveUp { retry_count, reason },
        Tried::Failed { reason, .. } if retry_count >= TRIES_MAX => {
            AfterTry::GiveUp { retry_count, reason }
        }
        Tried::Failed { reason, answered } => {
            AfterTry::Retry { retry_count, reason, doubt: entry.mark.doubt || !answered }
        }
    }
}

/// What becomes of an entry that a run before had in hand when it ended.
#[must_use]
pub fn after_crash(entry: &Entry, evidence: Evidence, copy: Option<Copy>) -> AfterTry {
    if evidence != Evidence::None {
        return AfterTry::Settle;
    }
    match (entry.mark.hand, copy) {
        // The last try was noted; what was left to do was to give it up.
        (Hand::None | Hand::Claimed | Hand::Failed, _) if entry.retry_count >= TRIES_MAX => {
            let reason = entry.last_error.clone().unwrap_or_default();
            AfterTry::GiveUp { retry_count: entry.retry_count, reason }
        }
        (Hand::None | Hand::Claimed | Hand::Failed, _) => AfterTry::PutBack,
        (Hand::Sending, Some(Copy { answered: Some(answered), reason })) => {
            after_try(entry, Tried::Failed { reason, answered })
        }
        (Hand::Sending, Some(Copy { answered: None, reason })) => {
            after_try(entry, Tried::Failed { reason, answered: false })
        }
        // A turn without a trace in the transcript has not begun. A message may have been sent.
        (Hand::Sending, None) => match entry.work {
            Work::Turn | Work::Event => AfterTry::PutBack,
            Work::Message | Work::RichMessage => {
                let reason = "tideover or the gateway ended during the try".to_owned();
                after_try(entry, Tried::Failed { reason, answered: false })
            }
        },
    }
}

/// What the gateway's own copy of a try of ours tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Whether the channel answered; `None` where the try was still under way.
    pub answered: Option<bool>,
    /// Why it failed.
    pub reason: String,
}

#[cfg(test)]
mod tests;
