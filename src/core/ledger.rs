//! All sessions of one gateway: reports in; what to persist, what to answer and what to hold out.
//!
//! The ledger is pure. Whoever calls it writes the records it names and passes the answers on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::addressee::{Addressee, Described, addressee};
use super::checkpoint::{
    Cause, Checkpoint, Evidence, GatewayRef, HoldStatus, NativeRecovery, NoticeStatus, Origin,
    ReleasedBy, Route,
};
use super::hold::{HoldPolicy, ReleasePolicy, Unattended, effect_of, stops};
use super::limits::{BLOCKED_CALLS_PER_RUN_MAX, SESSIONS_MAX};
use super::notice::{hold_reason, model_text};
use super::recovery::{StartAction, start_action};
use super::reducer::{self, Cut, Intent, Report, Rules};
use super::session_kind::record_key;
use super::stamp::Stamp;
use super::unattended;

mod resume;
mod rotation;

pub use resume::{Resumed, Word};

/// Runs whose blocked calls are counted at once; beyond it the counts start anew.
const BLOCKED_RUNS_MAX: usize = 1_024;

/// A turn that failed this shortly before the gateway said that it goes down was cut by that, milliseconds.
/// 2026.5.5 aborts what outlives its drain 50 ms before it tells its plugins.
const CUT_BEFORE_STOP_MS: i64 = 2_000;

/// What to do about the gateway's own recovery (`recovery.native`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Native {
    /// Claim its recovery turn; the user is asked in its place.
    #[default]
    Ask,
    /// Let its recovery turn run with the interruption text in front and effects held.
    Ride,
    /// Leave it alone.
    Native,
}

/// The rules a ledger goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What is held.
    pub hold: HoldPolicy,
    /// What lifts a hold.
    pub release: ReleasePolicy,
    /// What to do about native recovery.
    pub native: Native,
    /// Older interruptions are kept, not acted on; milliseconds.
    pub max_age_ms: i64,
    /// Whether users are told.
    pub notify: bool,
    /// What its records depend on.
    pub rules: Rules,
    /// What becomes of sessions that have no person to ask.
    pub unattended: Unattended,
    /// Where their notices go.
    pub owner: Option<Route>,
}

impl Policy {
    /// A cut under this policy.
    fn cut(&self, incident: &str, cause: Cause, detail: Option<String>, at: Stamp) -> Cut {
        let acts = self.native != Native::Native;
        Cut {
            incident: incident.to_owned(),
            cause,
            detail,
            at,
            hold: acts && self.hold != HoldPolicy::Off,
            notify: acts && self.notify,
            unattended: self.unattended,
        }
    }
}

/// Which session a report is about.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SessionRef {
    /// The store key.
    pub key: String,
    /// The session id.
    pub id: Option<String>,
    /// The agent.
    pub agent_id: Option<String>,
}

/// What a report leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The record that changed and must be written.
    pub persist: Option<String>,
    /// Whether the sets of held or interrupted sessions changed.
    pub holds_changed: bool,
    /// The answer to whoever reported.
    pub answer: Answer,
}

/// The answer to a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Taken.
    Noted,
    /// A user's message was taken; whether it lifted a hold.
    Message {
        /// True if it did.
        released: bool,
    },
    /// A turn starts with this text in front of the model.
    Turn {
        /// The text, if any.
        prepend: Option<String>,
    },
    /// A tool may run, once its record is durable.
    Allow,
    /// The call that a person asked for with `/resume` may run, once its record is durable and not before.
    Permit {
        /// The parameters to run it with, whatever the model gave.
        arguments: Value,
    },
    /// A tool is held.
    Block {
        /// What the model reads.
        reason: String,
        /// Whether the model insists and the turn must end.
        end_turn: bool,
        /// Whether the user's own turn ends with this, so that the user must be asked.
        ask_user: bool,
    },
    /// Whether the gateway's recovery turn is claimed.
    Recovery {
        /// True if it is.
        claim: bool,
    },
    /// Not journaled: a limit was reached.
    Full,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Whether the gateway calls it a success.
    pub success: bool,
    /// Whether the model gave an answer.
    pub answered: bool,
    /// Whether the interruption text, if there was one, really was in front of the model.
    pub told: bool,
}

/// All sessions of one gateway.
#[derive(Clone, Debug)]
pub struct Ledger {
    policy: Policy,
    sessions: BTreeMap<String, Checkpoint>,
    blocked: HashMap<String, u32>,
    gateway: GatewayRef,
    stopping: bool,
    /// What the gateway said of sessions that it was asked about.
    told: BTreeMap<String, Described>,
    /// Records as they were before their turn failed just now, by key.
    failed: BTreeMap<String, (Stamp, Checkpoint)>,
    /// The restart that recovery turns of unmarked sessions are laid to.
    last_cut: Cut,
}

impl Ledger {
    /// A ledger over the records found on disk. `run` is tideover's id of this run.
    #[must_use]
    pub fn new(policy: Policy, records: Vec<Checkpoint>, run: &str, now: Stamp) -> Self {
        let sessions =
            records.into_iter().map(|record| (record.session_key.clone(), record)).collect();
        Self {
            last_cut: policy.cut(run, Cause::Unknown, None, now),
            policy,
            sessions,
            blocked: HashMap::new(),
            gateway: GatewayRef { version: None, boot: run.to_owned() },
            stopping: false,
            told: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Goes through the records after a start: marks what the run before left open, and drops what is too old.
    /// Returns the keys that changed.
    pub fn start(
        &mut self,
        now: Stamp,
        incident: &str,
        cause: Cause,
        detail: String,
        at: Stamp,
    ) -> Vec<String> {
        self.last_cut = self.policy.cut(incident, cause, Some(detail), at);
        let cut = self.last_cut.clone();
        let max_age_ms = self.policy.max_age_ms;
        let mut changed = Vec::new();
        for (key, record) in &mut self.sessions {
            let touched = match start_action(record, now, max_age_ms) {
                StartAction::Leave => false,
                StartAction::Continue => reducer::conform(record, now, &cut),
                StartAction::Interrupt => {
                    let too_old = now.since_ms(record.updated_at) > max_age_ms;
                    reducer::interrupt(record, now, &cut);
                    if too_old {
                        reducer::expire(record, now);
                    }
                    true
                }
                StartAction::Expire => reducer::expire(record, now),
            };
            if touched {
                changed.push(key.clone());
            }
        }
        changed
    }

    /// Marks everything in flight as cut. Returns the keys that changed.
    pub fn interrupt_all(
        &mut self,
        now: Stamp,
        incident: &str,
        cause: Cause,
        detail: String,
    ) -> Vec<String> {
        self.last_cut = self.policy.cut(incident, cause, Some(detail), now);
        let cut = self.last_cut.clone();
        let mut changed = Vec::new();
        for (key, record) in &mut self.sessions {
            if record.in_flight() {
                reducer::interrupt(record, now, &cut);
                changed.push(key.clone());
            }
        }
        changed
    }

    /// The gateway is going down: failed ends and errors are cuts from now on.
    pub fn set_stopping(&mut self, stopping: bool) {
        self.stopping = stopping;
    }

    /// Whether the gateway is going down.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// The gateway itself says that it goes down: what failed just before was cut by it, not ended. Returns the
    /// keys that changed.
    pub fn gateway_stops(&mut self, now: Stamp) -> Vec<String> {
        let failed = std::mem::take(&mut self.failed);
        self.stopping = true;
        let mut changed = Vec::new();
        for (key, (at, before)) in failed {
            let recent = now.since_ms(at) <= CUT_BEFORE_STOP_MS;
            let record =
                self.sessions.get_mut(&key).filter(|record| recent && record.turn.is_none());
            if record.is_some_and(|record| reducer::reopen(record, now, before)) {
                changed.push(key);
            }
        }
        changed
    }

    /// Learns the gateway's version.
    pub fn set_gateway_version(&mut self, version: Option<&str>) {
        self.gateway.version = version.map(str::to_owned);
    }

    /// A genuine message of a person.
    pub fn user_message(
        &mut self,
        now: Stamp,
        session: &SessionRef,
        text: Option<String>,
        route: Option<Route>,
    ) -> Step {
        let released = self.release_by_message(now, &session.key);
        let mut step = self.report(now, session, &Report::UserMessage { text, route });
        step.holds_changed |= released;
        if released {
            step.persist = Some(session.key.clone());
        }
        if step.answer == Answer::Noted {
            step.answer = Answer::Message { released };
        }
        step
    }

    /// A turn begins.
    pub fn turn_started(
        &mut self,
        now: Stamp,
        session: &SessionRef,
        run_id: &str,
        origin: Origin,
        text: Option<String>,
        route: Option<Route>,
    ) -> Step {
        let origin = if self.is_resume(&session.key, run_id) { Origin::Resume } else { origin };
        let replaced = self.follow_id(now, session, run_id, origin);
        let released = origin == Origin::User && self.release_by_message(now, &session.key);
        let started = origin == Origin::Recovery
            && (self.note_recovery(now, session)
                | self.note_native(now, &session.key, NativeRecovery::Ran));
        let report = Report::TurnStarted { run_id: run_id.to_owned(), origin, text, route };
        let mut step = self.report(now, session, &report);
        step.holds_changed |= replaced || released || started;
        if replaced || released || started {
            step.persist = Some(session.key.clone());
        }
        if step.answer == Answer::Noted {
            let text = self.prepend(&session.key);
            let prepend = match origin {
                Origin::User => text,
                Origin::Resume => None,
                Origin::Recovery | Origin::Heartbeat | Origin::Cron | Origin::System => {
                    text.map(on_its_own_line)
                }
            };
            step.answer = Answer::Turn { prepend };
        }
        step
    }

    /// A turn ended.
    pub fn turn_ended(
        &mut self,
        now: Stamp,
        session: &SessionRef,
        run_id: &str,
        end: Ending,
    ) -> Step {
        self.blocked.remove(run_id);
        let untold = self.is_untold(&session.key);
        if !end.success && !self.stopping {
            self.failed.retain(|_, (at, _)| now.since_ms(*at) <= CUT_BEFORE_STOP_MS);
            let of_run = |record: &&Checkpoint| {
                record.turn.as_ref().is_some_and(|turn| turn.run_id == run_id)
            };
            if let Some(record) = self.sessions.get(&session.key).filter(of_run) {
                self.failed.insert(session.key.clone(), (now, record.clone()));
            }
        }
        let report = Report::TurnEnded {
            run_id: run_id.to_owned(),
            success: end.success,
            answered: end.answered,
            told: end.told,
            stopping: self.stopping,
        };
        let mut step = self.report(now, session, &report);
        step.holds_changed |= untold != self.is_untold(&session.key);
        step
    }

    /// A tool is about to run: held, or noted and allowed.
    pub fn tool_intent(&mut self, now: Stamp, session: &SessionRef, intent: Intent) -> Step {
        if let Some(step) = self.resume_intent(now, session, &intent) {
            return step;
        }
        let effect =
            effect_of(&intent.name, intent.arguments.as_ref(), &self.policy.rules.read_only_tools);
        let held = self
            .sessions
            .get(&session.key)
            .filter(|record| record.is_held() && stops(self.policy.hold, effect))
            .and_then(|record| Some((record.unattended(), record.interruption.as_ref()?)))
            .map(|(kind, cut)| {
                kind.map_or_else(|| hold_reason(cut), |kind| unattended::hold_reason(kind, cut))
            });
        if let Some(reason) = held {
            return self.stopped(&session.key, &intent.run_id, reason);
        }
        let mut step = self.report(now, session, &Report::ToolIntent(intent));
        if step.answer == Answer::Noted {
            step.answer = Answer::Allow;
        }
        step
    }

    /// The answer to a call that is not run.
    fn stopped(&mut self, key: &str, run_id: &str, reason: String) -> Step {
        let count = self.count_block(run_id);
        // A resumed turn whose call has answered ends without another word; before that, its end says so.
        let settled = self
            .sessions
            .get(key)
            .and_then(|record| record.interruption.as_ref())
            .is_some_and(|cut| cut.settled.is_some());
        let user_turn = match self.turn_origin(key) {
            Some(Origin::User) => true,
            Some(Origin::Resume) => settled,
            Some(Origin::Recovery | Origin::Heartbeat | Origin::Cron | Origin::System) | None => {
                false
            }
        };
        let (end_turn, ends_now) =
            (count >= BLOCKED_CALLS_PER_RUN_MAX, count == BLOCKED_CALLS_PER_RUN_MAX);
        Step {
            persist: None,
            holds_changed: false,
            answer: Answer::Block { reason, end_turn, ask_user: ends_now && user_turn },
        }
    }

    /// Any other report: a result, the end of a background command, the end of a session.
    pub fn report(&mut self, now: Stamp, session: &SessionRef, report: &Report) -> Step {
        let Some(record) = self.record_of(now, session) else {
            return Step { persist: None, holds_changed: false, answer: Answer::Full };
        };
        let held = self.sessions.get(&record).is_some_and(Checkpoint::is_held);
        let changed = self
            .sessions
            .get_mut(&record)
            .is_some_and(|record| reducer::apply(record, now, report, &self.policy.rules));
        let holds_changed = held != self.sessions.get(&record).is_some_and(Checkpoint::is_held);
        Step { persist: changed.then_some(record), holds_changed, answer: Answer::Noted }
    }

    /// The gateway's own recovery turn is about to start.
    pub fn recovery_turn(&mut self, now: Stamp, session: &SessionRef) -> Step {
        let started = self.note_recovery(now, session);
        let unattended = |record: &Checkpoint| record.unattended().is_some();
        let left = self.policy.unattended == Unattended::Native
            && self.get(&session.key).is_some_and(unattended);
        let claim = self.policy.native == Native::Ask && !left;
        let noted = claim && self.note_native(now, &session.key, NativeRecovery::Claimed);
        Step {
            persist: (started || noted).then(|| session.key.clone()),
            holds_changed: started,
            answer: Answer::Recovery { claim },
        }
    }

    /// Notes what the gateway's own recovery does about an open interruption.
    fn note_native(&mut self, now: Stamp, key: &str, native: NativeRecovery) -> bool {
        self.sessions.get_mut(key).is_some_and(|record| reducer::set_native(record, now, native))
    }

    /// The gateway recovers a session that no open interruption speaks of: the restart cut it all the same.
    fn note_recovery(&mut self, now: Stamp, session: &SessionRef) -> bool {
        if self.policy.native == Native::Native || self.record_of(now, session).is_none() {
            return false;
        }
        let cut = self.last_cut.clone();
        let Some(record) = self.sessions.get_mut(&session.key) else { return false };
        let open = record.is_held() || record.is_untold();
        // An incident that was dealt with is over: its notice has been sent and would not be sent again.
        let id = reducer::interruption_id(&cut.incident, &session.key);
        let dealt_with = record.interruption.as_ref().is_some_and(|cut| {
            let before = cut.orphaned.as_ref().map(|orphaned| &orphaned.interruption_id);
            cut.id == id || before == Some(&id)
        });
        if open || dealt_with {
            return false;
        }
        if record.turn.is_none() && record.last_tool_call.is_none() {
            record.evidence = Evidence::Event;
        }
        reducer::interrupt(record, now, &cut)
    }

    /// Lifts a hold by hand. `None`: no such session; otherwise whether there was a hold.
    pub fn release(&mut self, now: Stamp, key: &str, by: ReleasedBy) -> Option<bool> {
        self.sessions.get_mut(key).map(|record| reducer::release(record, now, by))
    }

    /// Drops a record. Returns whether there was one.
    pub fn forget(&mut self, key: &str) -> bool {
        self.sessions.remove(key).is_some()
    }

    /// Notes what became of a notice. Returns whether the record changed.
    pub fn set_notice(
        &mut self,
        now: Stamp,
        key: &str,
        interruption_id: &str,
        status: NoticeStatus,
    ) -> bool {
        self.sessions
            .get_mut(key)
            .filter(|record| {
                record.interruption.as_ref().is_some_and(|cut| cut.id == interruption_id)
            })
            .is_some_and(|record| reducer::set_notice(record, now, status))
    }

    /// Learns the directory that a session's agent works in; written with the session's next record.
    pub fn set_workspace(&mut self, key: &str, workspace: String) {
        if let Some(record) = self.sessions.get_mut(key) {
            record.workspace = Some(workspace);
        }
    }

    /// Takes what the gateway says of a session. A route becomes that of its record, if it had none; not that of an
    /// unattended one, whose route is where its output goes and not who it works for.
    pub fn set_described(&mut self, key: &str, described: Described) {
        let record = self.sessions.get_mut(key).filter(|record| record.route.is_none());
        if let Some(record) = record.filter(|record| record.unattended().is_none()) {
            record.route.clone_from(&described.route);
        }
        self.told.insert(key.to_owned(), described);
    }

    /// Where the notice of a session goes.
    #[must_use]
    pub fn addressee(&self, record: &Checkpoint) -> Addressee {
        addressee(record, |key| self.get(key), &self.told, self.policy.owner.as_ref())
    }

    /// Interrupted sessions whose notice is still to be made, by route. `covered` are the interruptions that an
    /// outbox entry already speaks of.
    #[must_use]
    pub fn pending_notices(
        &self,
        covered: &BTreeSet<String>,
    ) -> BTreeMap<Option<Route>, Vec<&Checkpoint>> {
        let mut groups: BTreeMap<Option<Route>, Vec<&Checkpoint>> = BTreeMap::new();
        for record in self.sessions.values() {
            let pending = record.interruption.as_ref().is_some_and(|cut| {
                cut.notice == NoticeStatus::Pending
                    && cut.status != HoldStatus::Expired
                    && !covered.contains(&cut.id)
            });
            if pending {
                let route = match self.addressee(record) {
                    Addressee::Route { route, .. } => Some(route),
                    Addressee::Ask(_) | Addressee::Nobody => None,
                };
                groups.entry(route).or_default().push(record);
            }
        }
        groups
    }

    /// One record; that of the job, for a run of it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Checkpoint> {
        self.sessions.get(record_key(key))
    }

    /// Every record, by key.
    pub fn all(&self) -> impl Iterator<Item = &Checkpoint> {
        self.sessions.values()
    }

    /// Whether any session has work that an end of the gateway would cut.
    #[must_use]
    pub fn any_in_flight(&self) -> bool {
        self.sessions.values().any(Checkpoint::in_flight)
    }

    /// Sessions whose effects are held.
    #[must_use]
    pub fn held(&self) -> Vec<SessionRef> {
        self.select(Checkpoint::is_held)
    }

    /// Sessions whose interruption is still open in any way: held, or the model has not been told.
    #[must_use]
    pub fn interrupted(&self) -> Vec<SessionRef> {
        if self.policy.native == Native::Native {
            return Vec::new();
        }
        self.select(|record| record.is_held() || record.is_untold())
    }

    fn select(&self, keep: impl Fn(&Checkpoint) -> bool) -> Vec<SessionRef> {
        self.sessions
            .values()
            .filter(|record| keep(record))
            .map(|record| SessionRef {
                key: record.session_key.clone(),
                id: record.session_id.clone(),
                agent_id: record.agent_id.clone(),
            })
            .collect()
    }

    fn prepend(&self, key: &str) -> Option<String> {
        if self.policy.native == Native::Native {
            return None;
        }
        self.sessions
            .get(key)
            .filter(|record| record.is_untold())
            .and_then(|record| record.interruption.as_ref())
            .map(model_text)
    }

    fn is_untold(&self, key: &str) -> bool {
        self.sessions.get(key).is_some_and(Checkpoint::is_untold)
    }

    fn release_by_message(&mut self, now: Stamp, key: &str) -> bool {
        match self.policy.release {
            ReleasePolicy::AnyMessage => self
                .sessions
                .get_mut(key)
                .is_some_and(|record| reducer::release(record, now, ReleasedBy::Message)),
            ReleasePolicy::Explicit => false,
        }
    }

    fn turn_origin(&self, key: &str) -> Option<Origin> {
        self.sessions.get(key).and_then(|record| record.turn.as_ref()).map(|turn| turn.origin)
    }

    fn count_block(&mut self, run_id: &str) -> u32 {
        if self.blocked.len() >= BLOCKED_RUNS_MAX && !self.blocked.contains_key(run_id) {
            self.blocked.clear();
        }
        let count = self.blocked.entry(run_id.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
        *count
    }

    /// The key of a session's record, made if it is new; `None` when there are too many.
    fn record_of(&mut self, now: Stamp, session: &SessionRef) -> Option<String> {
        if !self.sessions.contains_key(&session.key) && self.sessions.len() >= SESSIONS_MAX {
            return None;
        }
        let gateway = self.gateway.clone();
        let record = self
            .sessions
            .entry(session.key.clone())
            // Later ids are followed where a turn begins, not from every report.
            .or_insert_with(|| Checkpoint {
                session_id: session.id.clone(),
                ..Checkpoint::new(&session.key, now)
            });
        if session.agent_id.is_some() {
            record.agent_id.clone_from(&session.agent_id);
        }
        record.gateway = gateway;
        record.evidence = Evidence::Plugin;
        Some(session.key.clone())
    }
}

/// Gateways stamp the prompts of turns that they start themselves ("[Sun 2026-11-22 20:15 UTC] …", measured on
/// 2026.9.6), and the stamp goes before our text: the promised first line stays a line.
fn on_its_own_line(text: String) -> String {
    format!("\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(native: Native, records: Vec<Checkpoint>) -> Ledger {
        let policy = Policy { native, max_age_ms: 1_000, notify: true, ..Policy::default() };
        Ledger::new(policy, records, "run", Stamp::from_ms(0))
    }

    #[test]
    fn a_turn_that_failed_just_before_the_gateway_stops_was_cut() {
        let session = SessionRef { key: "k".to_owned(), ..SessionRef::default() };
        for (failed_ms, stops_ms, success, cut) in
            [(100, 150, false, 1), (100, 5_000, false, 0), (100, 150, true, 0)]
        {
            let mut ledger = ledger(Native::Ask, Vec::new());
            let at = Stamp::from_ms;
            ledger.turn_started(at(0), &session, "r", Origin::User, None, None);
            let end = Ending { success, answered: success, told: true };
            ledger.turn_ended(at(failed_ms), &session, "r", end);
            assert!(!ledger.any_in_flight());
            assert_eq!(ledger.gateway_stops(at(stops_ms)).len(), cut);
            let cause = Cause::InProcessRestart;
            assert_eq!(ledger.interrupt_all(at(9_000), "i", cause, String::new()).len(), cut);
        }
    }

    #[test]
    fn the_first_line_stays_a_line_behind_the_gateways_stamp() {
        let now = Stamp::from_ms(0);
        let session = SessionRef { key: "k".to_owned(), ..SessionRef::default() };
        for (origin, start) in [(Origin::User, "Session was"), (Origin::Recovery, "\nSession was")]
        {
            let mut ledger = ledger(Native::Ride, Vec::new());
            ledger.turn_started(now, &session, "r", Origin::User, None, None);
            ledger.interrupt_all(now, "i", Cause::GatewayKilled, String::new());
            let answer = ledger.turn_started(now, &session, "next", origin, None, None).answer;
            let told =
                matches!(&answer, Answer::Turn { prepend: Some(text) } if text.starts_with(start));
            assert!(told, "{origin:?}: {answer:?}");
        }
    }

    #[test]
    fn a_hold_of_an_earlier_run_ends_with_the_policy_that_made_it() {
        let now = Stamp::from_ms(10);
        let session = SessionRef { key: "k".to_owned(), ..SessionRef::default() };
        let mut before = ledger(Native::Ask, Vec::new());
        before.turn_started(now, &session, "r", Origin::User, None, None);
        before.interrupt_all(now, "incident", Cause::GatewayKilled, String::new());
        assert_eq!(before.held(), std::slice::from_ref(&session));
        let records: Vec<Checkpoint> = before.all().cloned().collect();

        for (native, held, changed) in [(Native::Ask, 1, 0), (Native::Native, 0, 1)] {
            let mut after = ledger(native, records.clone());
            let keys = after.start(now, "next", Cause::Unknown, String::new(), now);
            assert_eq!(keys.len(), changed);
            assert_eq!(after.held().len(), held, "{native:?}");
            assert_eq!(after.pending_notices(&BTreeSet::new()).len(), held, "{native:?}");
        }
    }
}
