//! The queue while the gateway runs: when it is looked at, what each look leads to, one entry of each queue at a time.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tokio::task::spawn_local;

use crate::control::protocol::NativeEntry;
use crate::core::checkpoint::{Checkpoint, ReleasedBy, Route};
use crate::core::outbox;
use crate::core::queue::{
    AfterTry, Copy, Entry, Evidence, Hand, Queue, RunFacts, Running, STUCK_MS, Why, after_crash,
    while_running,
};
use crate::core::stamp::Stamp;
use crate::gateway::queue_files::kept_in_files;
use crate::telemetry::events;

use super::super::clock;
use super::super::engine::{Engine, Internal, Phase};
use super::super::said::name_of;
use super::super::tries::bare_address;
use super::apply::Claim;
use super::deliver::{deliver, look, relocate, resolve};
use super::given_up::GivenUp;
use super::says::{say_step, say_stuck};
use super::shelf::Shelf;

/// How long after something happened the queue is looked at, in milliseconds: what happened is then on disk.
const LOOK_AFTER_MS: i64 = 1_500;
/// How long after its start the gateway's own pass is waited for before the hand-off, in milliseconds: it stops
/// taking up entries then.
const OWN_PASS_MS: i64 = 60_000;
/// Pause between two looks while that pass is under way, in milliseconds.
const LOOK_AT_PASS_MS: i64 = 3_000;
/// How long a gateway surely knows a key that it was asked under, in milliseconds: it forgets answers after 5 min.
const KEY_KNOWN_MS: i64 = 4 * 60 * 1_000;
/// How long the word that lifted a hold may take to become a turn, in milliseconds: a voice message is transcribed
/// first.
const WORD_MS: i64 = 60_000;
/// Shortest pause between two looks for each entry that waits, in milliseconds: a long queue is not read all the time.
const LOOK_MS_PER_ENTRY: i64 = 2;
/// Longest such pause.
const LOOK_MS_MAX: i64 = 20_000;
/// Pause before an entry is looked at again that the gateway still tries, in milliseconds.
const LOOK_AGAIN_MS: i64 = 30_000;
/// Entries that are settled or resolved in one look; the next look goes on.
const STEPS_MAX: usize = 200;

/// Where the gateway keeps its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// Not looked at: no gateway, or `queue.retry = false`.
    #[default]
    Off,
    /// As files.
    Files,
    /// In its own database, which is never written.
    Native,
}

/// The queue as the supervisor knows it.
#[derive(Debug, Default)]
pub(in super::super) struct QueueState {
    kind: Kind,
    since: Option<Stamp>,
    look_at: Option<Stamp>,
    looking: bool,
    /// The entry of each queue that is being tried.
    in_hand: BTreeMap<Queue, String>,
    /// Entries that are being settled or put back: a look that began before must not do it once more.
    stepping: BTreeSet<(Queue, String)>,
    /// Entries of which a step ended since the look under way began: what it tells of them is not true any more.
    stepped: BTreeSet<(Queue, String)>,
    /// Whether there was something to do at the last look.
    ready: bool,
    /// Entries that wait, and those that have waited long, at the last look.
    pub(in super::super) waiting: usize,
    pub(in super::super) stuck: Vec<String>,
    /// The rows of a newer gateway's queue, as last told.
    pub(in super::super) native: Vec<NativeEntry>,
    /// What the gateway itself gave up.
    pub(in super::super) given_up: Vec<GivenUp>,
}

/// An entry at a look.
#[derive(Clone, Debug)]
pub(in super::super) struct Seen {
    pub(super) shelf: Shelf,
    pub(super) entry: Entry,
    pub(super) evidence: Evidence,
    pub(super) copy: Option<Copy>,
}

/// What a look found.
pub(in super::super) type Look = Vec<Seen>;

/// What became of one entry.
#[derive(Debug)]
pub(in super::super) struct Delivered {
    pub(super) queue: Queue,
    pub(super) id: String,
    /// The entry as it is now, where it was still there.
    pub(super) entry: Option<Entry>,
    /// What was done; `None` when nothing was.
    pub(super) then: Option<AfterTry>,
    pub(super) problem: Option<String>,
}

impl QueueState {
    /// The queue of this state directory, before the gateway starts.
    pub(in super::super) fn new(retry: bool, state_dir: &std::path::Path) -> Self {
        let kind = match (retry, kept_in_files(state_dir)) {
            (false, _) => Kind::Off,
            (true, true) => Kind::Files,
            (true, false) => Kind::Native,
        };
        Self { kind, ..Self::default() }
    }

    /// Whether it is kept as files that tideover may touch.
    pub(in super::super) fn in_files(&self) -> bool {
        self.kind == Kind::Files
    }

    /// Whether there is work in it that comes before the hand-off.
    pub(in super::super) fn has_work(&self) -> bool {
        self.in_files() && (self.ready || !self.in_hand.is_empty())
    }

    /// Whether the gateway keeps it in its own database.
    pub(in super::super) fn in_database(&self) -> bool {
        self.kind == Kind::Native
    }

    /// Its kind in a word, for `status`.
    pub(in super::super) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Off => "off",
            Kind::Files => "files",
            Kind::Native => "native",
        }
    }

    /// Since when the gateway serves.
    pub(in super::super) fn since(&self) -> Option<Stamp> {
        self.since
    }

    /// Whether an entry is being tried.
    pub(in super::super) fn is_in_hand(&self, id: &str) -> bool {
        self.in_hand.values().any(|in_hand| in_hand == id)
    }

    fn look_by(&mut self, at: Stamp) {
        self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
    }
}

impl Engine {
    /// The gateway serves: where its queue is shows now, and its own pass begins.
    pub(in super::super) fn queue_started(&mut self) {
        let retry = self.settings.queue.retry && self.queue.kind != Kind::Off;
        let since = clock::now();
        let given_up = std::mem::take(&mut self.queue.given_up);
        let (stepping, in_hand) =
            (std::mem::take(&mut self.queue.stepping), std::mem::take(&mut self.queue.in_hand));
        let fresh = QueueState::new(retry, self.layout.state_dir());
        self.queue = QueueState { given_up, stepping, in_hand, ..fresh };
        self.queue.since = Some(since);
        self.queue.ready = self.queue.in_files();
        self.queue.look_by(since.plus_ms(LOOK_AFTER_MS));
    }

    /// The gateway goes down, or restarts inside its process: nothing is taken in hand any more.
    pub(in super::super) fn queue_stops(&mut self) {
        self.queue.since = None;
        self.queue.look_at = None;
    }

    /// Something happened that may have left or freed an entry.
    pub(in super::super) fn queue_soon(&mut self) {
        if self.queue.in_files() && self.queue.since.is_some() {
            // Nothing is handed off before that look.
            self.queue.ready |= self.phase != Phase::HandedOff;
            self.queue.look_by(clock::now().plus_ms(LOOK_AFTER_MS));
        }
    }

    /// When the queue is to be looked at next.
    pub(in super::super) fn next_look_at_queue(&self) -> Option<Stamp> {
        let looks = self.queue.in_files() && !self.queue.looking && !self.supervisor.is_stopping();
        self.gateway.as_ref().filter(|_| looks)?;
        self.queue.look_at
    }

    /// Looks at the queue, off the loop.
    pub(in super::super) fn look_at_queue(&mut self) {
        self.queue.look_at = None;
        self.queue.looking = true;
        self.queue.stepped.clear();
        let (layout, to_loop) = (self.layout.clone(), self.to_loop.clone());
        spawn_local(async move {
            let seen = look(layout).await;
            let _ = to_loop.send(Internal::QueueSeen(seen)).await;
        });
    }

    /// Takes what a look found, and does what is due.
    pub(in super::super) fn queue_seen(&mut self, mut seen: Look) {
        self.queue.looking = false;
        if self.supervisor.is_stopping() || self.queue.since.is_none() {
            return;
        }
        let now = clock::now();
        seen.sort_by_key(|seen| seen.entry.enqueued_at);
        self.queue.waiting = seen.len();
        self.note_stuck(&seen, now);
        self.queue.ready = false;
        let mut steps = 0;
        for seen in &seen {
            let entry = (seen.entry.queue, seen.entry.id.clone());
            if self.queue.stepped.contains(&entry) {
                // The step has asked for another look.
                self.queue.ready = true;
                continue;
            }
            if self.queue.stepping.contains(&entry) || self.queue.is_in_hand(&seen.entry.id) {
                continue;
            }
            if steps >= STEPS_MAX {
                self.queue.look_by(now.plus_ms(LOOK_AFTER_MS));
                self.queue.ready = true;
                break;
            }
            steps += usize::from(self.step(seen, now));
        }
        self.settle_phase();
    }

    /// Does what is due for one entry; whether that was anything.
    fn step(&mut self, seen: &Seen, now: Stamp) -> bool {
        let (queue, id) = (seen.entry.queue, seen.entry.id.clone());
        let busy = self.is_busy(&seen.entry);
        if seen.shelf == Shelf::Claimed {
            let copy = seen.copy.clone();
            let at_it = copy.as_ref().is_some_and(|copy| copy.answered.is_none());
            if at_it || busy {
                self.queue.look_by(now.plus_ms(LOOK_AGAIN_MS));
                return false;
            }
            if self.knows_key(seen, now) {
                return self.take_in_hand(seen);
            }
            let then = after_crash(&seen.entry, seen.evidence, copy);
            self.queue.stepping.insert((queue, id.clone()));
            self.spawn_step(resolve(self.layout.clone(), queue, id, then));
            return true;
        }
        match while_running(&seen.entry, &self.run_facts(seen, now, busy)) {
            Running::Wait(until, why) => {
                self.queue.look_by(until);
                self.queue.ready |= why == Why::BehindNotice;
                let since = self.queue.since.unwrap_or(now);
                if why == Why::InHand && now.since_ms(since) < OWN_PASS_MS {
                    self.queue.ready = true;
                    self.queue.look_by(now.plus_ms(LOOK_AT_PASS_MS));
                }
            }
            Running::Leave(_) => {
                let stuck_at = seen.entry.enqueued_at.plus_ms(STUCK_MS + 1);
                if stuck_at > now {
                    self.queue.look_by(stuck_at);
                }
            }
            Running::Settle => return self.relocate(seen, Shelf::Settled),
            Running::Keep(_) => return self.relocate(seen, Shelf::Kept),
            Running::Return => return self.relocate(seen, Shelf::Queue),
            Running::GiveUp => return self.relocate(seen, Shelf::Failed),
            Running::Claim => return self.take_in_hand(seen),
        }
        false
    }

    /// Whether the gateway that was asked for this entry still runs and knows the key: its answer can be had by
    /// asking once more, without a second delivery.
    fn knows_key(&self, seen: &Seen, now: Stamp) -> bool {
        let mark = &seen.entry.mark;
        let asked_ms = mark.since.map_or(i64::MAX, |since| now.since_ms(since));
        mark.hand == Hand::Sending
            && seen.evidence == Evidence::None
            && seen.copy.is_none()
            && mark.asked_of.is_some()
            && mark.asked_of == self.incarnation
            && asked_ms < KEY_KNOWN_MS
    }

    fn relocate(&mut self, seen: &Seen, to: Shelf) -> bool {
        let (queue, id) = (seen.entry.queue, seen.entry.id.clone());
        self.queue.stepping.insert((queue, id.clone()));
        self.spawn_step(relocate(self.layout.clone(), seen.shelf, to, queue, id));
        true
    }

    /// Takes an entry in hand, unless one of its queue is; whether it did.
    fn take_in_hand(&mut self, seen: &Seen) -> bool {
        self.queue.ready = true;
        let (queue, id) = (seen.entry.queue, seen.entry.id.clone());
        let Some(link) = self.gateway.clone().filter(|_| !self.queue.in_hand.contains_key(&queue))
        else {
            return false;
        };
        self.queue.in_hand.insert(queue, id.clone());
        tracing::info!(
            event = events::QUEUE_CLAIMED.name,
            entry = id,
            queue = name_of(&queue),
            tries = seen.entry.retry_count,
            "a queued entry that stayed behind is delivered"
        );
        let since = self.queue.since.unwrap_or_else(clock::now);
        let claim = Claim {
            from: seen.shelf,
            queue,
            id,
            doubt: seen.entry.may_repeat(since, seen.shelf == Shelf::Kept),
            gateway: self.incarnation.clone(),
        };
        self.spawn_step(deliver(link, self.layout.clone(), claim));
        true
    }

    fn spawn_step(&self, step: impl Future<Output = Delivered> + 'static) {
        let to_loop = self.to_loop.clone();
        spawn_local(async move {
            let delivered = step.await;
            let _ = to_loop.send(Internal::QueueStepped(Box::new(delivered))).await;
        });
    }

    fn is_busy(&self, entry: &Entry) -> bool {
        let record = entry.session_key.as_deref().and_then(|key| self.ledger.get(key));
        record.is_some_and(|record| record.turn.is_some())
    }

    fn run_facts(&self, seen: &Seen, now: Stamp, busy: bool) -> RunFacts {
        let entry = &seen.entry;
        let record = entry.session_key.as_deref().and_then(|key| self.ledger.get(key));
        RunFacts {
            now,
            gateway_since: self.queue.since.unwrap_or(now),
            held: record.is_some_and(Checkpoint::is_held),
            busy,
            word_until: record.and_then(word_until),
            notice_open: entry
                .route
                .as_ref()
                .is_some_and(|route| notice_open(self.outbox.values(), route)),
            evidence: seen.evidence,
            kept: seen.shelf == Shelf::Kept,
        }
    }

    /// A step ended: the log hears of it, and the next one may begin.
    pub(in super::super) fn queue_stepped(&mut self, delivered: &Delivered) {
        if self.queue.in_hand.get(&delivered.queue) == Some(&delivered.id) {
            self.queue.in_hand.remove(&delivered.queue);
        }
        let entry = (delivered.queue, delivered.id.clone());
        self.queue.stepping.remove(&entry);
        if self.queue.looking {
            self.queue.stepped.insert(entry);
        }
        if let Some(problem) = &delivered.problem {
            self.degrade("queue", problem.clone());
            self.queue.look_by(clock::now().plus_ms(LOOK_AGAIN_MS));
            return;
        }
        self.restore("queue");
        if let (Some(entry), Some(then)) = (&delivered.entry, &delivered.then) {
            say_step(entry, then);
        }
        let pause = match &delivered.then {
            Some(AfterTry::AskAgain | AfterTry::PutBack) => LOOK_AGAIN_MS,
            Some(AfterTry::Settle | AfterTry::Retry { .. } | AfterTry::GiveUp { .. }) | None => {
                let waiting = i64::try_from(self.queue.waiting).unwrap_or(i64::MAX);
                waiting.saturating_mul(LOOK_MS_PER_ENTRY).min(LOOK_MS_MAX)
            }
        };
        self.queue.look_by(clock::now().plus_ms(pause));
    }

    fn note_stuck(&mut self, seen: &[Seen], now: Stamp) {
        let old = |seen: &&Seen| seen.entry.age_ms(now) > STUCK_MS;
        let stuck: Vec<&Entry> = seen.iter().filter(old).map(|seen| &seen.entry).collect();
        let known: HashSet<&str> = self.queue.stuck.iter().map(String::as_str).collect();
        for entry in stuck.iter().filter(|entry| !known.contains(entry.id.as_str())).take(20) {
            say_stuck(
                &entry.id,
                entry.session_key.as_deref(),
                entry.age_ms(now),
                entry.retry_count,
            );
        }
        self.queue.stuck = stuck.into_iter().map(|entry| entry.id.clone()).collect();
    }

    /// The rows of a newer gateway's queue: those that wait too long are named once.
    pub(in super::super) fn native_told(&mut self, entries: Vec<NativeEntry>) {
        let now = clock::now();
        let age = |entry: &NativeEntry| {
            entry.enqueued_at_ms.map_or(0, |at| now.since_ms(Stamp::from_ms(at)))
        };
        let stuck = |entry: &&NativeEntry| entry.status == "pending" && age(entry) > STUCK_MS;
        for entry in entries.iter().filter(stuck) {
            if !self.queue.stuck.contains(&entry.id) {
                say_stuck(&entry.id, entry.session_key.as_deref(), age(entry), entry.retry_count);
            }
        }
        self.queue.stuck = entries.iter().filter(stuck).map(|entry| entry.id.clone()).collect();
        self.queue.waiting = entries.iter().filter(|entry| entry.status == "pending").count();
        self.queue.native = entries;
    }
}

/// Until when the word of a user that has just lifted a hold is waited for: it becomes a turn of its own, and what the
/// gateway queued before must not come in front of it.
fn word_until(record: &Checkpoint) -> Option<Stamp> {
    let cut = record.interruption.as_ref()?;
    let heard = cut.model_told || cut.released_by != Some(ReleasedBy::Message);
    cut.released_at.filter(|_| !heard).map(|at| at.plus_ms(WORD_MS))
}

/// Whether a notice to a route is still on its way.
pub(in super::super) fn notice_open<'a>(
    mut outbox: impl Iterator<Item = &'a outbox::Entry>,
    route: &Route,
) -> bool {
    outbox.any(|entry| entry.is_open() && same_address(&entry.route, route))
}

/// Whether two routes reach the same person or group, whatever thread of it.
pub(in super::super) fn same_address(one: &Route, other: &Route) -> bool {
    let bare = |route: &Route| bare_address(&route.channel, &route.to).to_owned();
    one.channel == other.channel && bare(one) == bare(other)
}
