//! The ledger's part of a session that is replaced under its key.

use super::{Answer, Ledger, SessionRef, Step};
use crate::core::checkpoint::{Cause, Origin, State};
use crate::core::reducer::Report;
use crate::core::rotation::{self, SessionEnd};
use crate::core::stamp::Stamp;

impl Ledger {
    /// A session ended under its key; `next_id` is the one that takes its place.
    pub fn session_ended(
        &mut self,
        now: Stamp,
        session: &SessionRef,
        reason: Option<&str>,
        next_id: Option<&str>,
    ) -> Step {
        match (SessionEnd::of(reason, next_id.is_some()), next_id) {
            (SessionEnd::Closed, _) => {
                let step = self.report(now, session, &Report::SessionEnded);
                Step { holds_changed: step.persist.is_some(), ..step }
            }
            (SessionEnd::CarriedOver, Some(next)) => {
                let record = self.sessions.get_mut(&session.key);
                let changed = record.is_some_and(|record| rotation::rename(record, now, next));
                changed_step(session, changed)
            }
            (SessionEnd::Replaced, Some(next)) => {
                let recorded = self.get(&session.key).and_then(|record| record.session_id.clone());
                let from = session.id.clone().or(recorded);
                // A turn that runs goes on to its end: the gateway begins the new session's after it.
                let changed =
                    from.is_some_and(|from| self.replace(now, &session.key, (&from, next), false));
                changed_step(session, changed)
            }
            (SessionEnd::CarriedOver | SessionEnd::Replaced, None)
            | (SessionEnd::NotReplaced, _) => changed_step(session, false),
        }
    }

    /// The id under which a turn begins. Returns whether the record changed.
    ///
    /// Only turns count: what else is reported may bear an id of before, or one that the gateway made up for a
    /// command. And only those that a person began: jobs have a session for each run, and the person's next word
    /// comes soon enough for what is open.
    pub(super) fn follow_id(
        &mut self,
        now: Stamp,
        session: &SessionRef,
        run_id: &str,
        origin: Origin,
    ) -> bool {
        let Some(to) = session.id.as_deref() else { return false };
        let Some(record) = self.sessions.get_mut(&session.key) else { return false };
        let Some(from) = record.session_id.clone() else {
            return rotation::rename(record, now, to);
        };
        if from == to {
            return false;
        }
        match origin {
            Origin::User | Origin::Resume => {
                // Turns of a session follow one another: an open call of an earlier one gets no result any more. A
                // turn that only thought leaves nothing that anybody would have to be asked about.
                let lost = record.state == State::ToolRunning
                    && record.turn.as_ref().is_some_and(|turn| turn.run_id != run_id);
                self.replace(now, &session.key, (&from, to), lost)
            }
            Origin::Recovery | Origin::Heartbeat | Origin::Cron | Origin::System => {
                !rotation::is_open(record) && rotation::rename(record, now, to)
            }
        }
    }

    fn replace(&mut self, now: Stamp, key: &str, ids: (&str, &str), lost: bool) -> bool {
        let incident = format!("{}:{}:{}", self.gateway.boot, ids.0, ids.1);
        let detail = format!("session {} was replaced by {}", ids.0, ids.1);
        let cut = self.policy.cut(&incident, Cause::SessionReplaced, Some(detail), now);
        let Some(record) = self.sessions.get_mut(key) else { return false };
        rotation::replace(record, now, ids, lost, &cut)
    }
}

fn changed_step(session: &SessionRef, changed: bool) -> Step {
    Step {
        persist: changed.then(|| session.key.clone()),
        holds_changed: changed,
        answer: Answer::Noted,
    }
}
