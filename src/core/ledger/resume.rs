//! The ledger's part of `/resume`: a person's word in, the record changed, and what has to be started out.

use super::{Answer, Ledger, SessionRef, Step};
use crate::core::checkpoint::{Checkpoint, ResumeKind, SettledHow};
use crate::core::reducer::{self, Intent};
use crate::core::resume::{self, Decision, Gate, Said};
use crate::core::session_kind::record_key;
use crate::core::stamp::Stamp;

/// A person's word about one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// What they say.
    pub said: Said,
    /// Id of the run that would be started.
    pub run_id: String,
}

/// What it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// What was decided.
    pub decision: Decision,
    /// Whether the record changed, and must be durable before anything is started.
    pub changed: bool,
    /// Whether a run is to be started under the word's run id.
    pub starts: bool,
}

impl Ledger {
    /// Takes a person's word about an interrupted session.
    pub fn resume(&mut self, now: Stamp, key: &str, word: &Word) -> Resumed {
        let Some(record) = self.sessions.get_mut(record_key(key)) else {
            let decision = Decision::Refuse(resume::Refusal::NothingCut);
            return Resumed { decision, changed: false, starts: false };
        };
        let decision = resume::decide(record, &word.said);
        let before = record.seq;
        let starts = match &decision {
            Decision::Rerun => {
                resume::grant(record, now, &word.run_id, ResumeKind::Rerun, word.said.from);
                true
            }
            Decision::GoOn => {
                resume::grant(record, now, &word.run_id, ResumeKind::GoOn, word.said.from);
                reducer::release(record, now, crate::core::checkpoint::ReleasedBy::Resume);
                true
            }
            Decision::Done => {
                resume::settle(record, now, SettledHow::Done);
                resume::grant(record, now, &word.run_id, ResumeKind::GoOn, word.said.from);
                true
            }
            Decision::Skip => {
                resume::settle(record, now, SettledHow::Skipped);
                false
            }
            Decision::Confirm | Decision::Refuse(_) => false,
        };
        Resumed { decision, changed: record.seq != before, starts }
    }

    /// Nothing came of a run that was to be started. Returns whether the record changed.
    pub fn resume_lapsed(&mut self, now: Stamp, key: &str, run_id: &str) -> bool {
        self.sessions.get_mut(key).is_some_and(|record| resume::lapse(record, now, run_id))
    }

    /// Whether a run was started for a person's `/resume` in this session.
    pub(super) fn is_resume(&self, key: &str, run_id: &str) -> bool {
        let resume = self.sessions.get(key).and_then(Checkpoint::resume);
        resume.is_some_and(|resume| resume.is_run(run_id))
    }

    /// What a resume has to say about a call, if it is of its run.
    pub(super) fn resume_intent(
        &mut self,
        now: Stamp,
        session: &SessionRef,
        intent: &Intent,
    ) -> Option<Step> {
        let record = self.sessions.get(&session.key)?;
        match resume::gate(record, intent) {
            Gate::Open => None,
            Gate::Stop(stopped) => {
                let call = record.interruption.as_ref().and_then(|cut| cut.call.as_ref());
                let reason = resume::gate_reason(stopped, call);
                Some(self.stopped(&session.key, &intent.run_id, reason))
            }
            Gate::Spend => {
                let record = self.sessions.get_mut(&session.key);
                let arguments = record
                    .and_then(|record| resume::spend(record, now, intent, &self.policy.rules));
                Some(Step {
                    persist: Some(session.key.clone()),
                    holds_changed: false,
                    answer: Answer::Permit { arguments: arguments? },
                })
            }
        }
    }

    /// Records of interrupted sessions whose action nobody has dealt with.
    pub fn unsettled(&self) -> impl Iterator<Item = &Checkpoint> {
        self.sessions
            .values()
            .filter(|record| record.interruption.as_ref().is_some_and(|cut| cut.settled.is_none()))
    }
}
