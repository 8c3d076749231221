//! What is said of a resume: in the log, and to who asked for it when nothing came of it.

use std::time::Duration;

use tokio::task::spawn_local;

use crate::core::canonical::session_hash;
use crate::core::checkpoint::{Checkpoint, ResumeStage};
use crate::core::outbox::{Entry, key_of};
use crate::core::resume;
use crate::telemetry::events;

use super::super::clock;
use super::super::engine::{Engine, Internal};
use super::Resuming;

/// A turn that failed this shortly before the gateway said that it goes down was cut by that.
const BEFORE_A_STOP: Duration = Duration::from_millis(2_500);

impl Engine {
    /// A permitted call is let through.
    pub(in super::super) fn say_rerun(&self, key: &str, tool: &str) {
        let attempt = self
            .ledger
            .get(key)
            .and_then(|record| record.last_tool_call.as_ref())
            .map_or(1, |call| call.attempt);
        tracing::info!(
            event = events::RERUN.name,
            session_hash = session_hash(key),
            tool,
            attempt,
            "an interrupted call runs again, as a person asked"
        );
    }

    /// Whether nothing came of the resume that a run was started for.
    pub(in super::super) fn lapses(&self, key: &str, run_id: &str) -> bool {
        self.is_at(key, run_id, ResumeStage::Lapsed)
    }

    /// Says so a moment later: a gateway that restarts itself aborts a turn before it says that it goes down.
    pub(in super::super) fn say_lapsed_soon(&self, key: &str, run_id: &str) {
        let lapsed = Resuming::Lapsed { key: key.to_owned(), run_id: run_id.to_owned() };
        let to_loop = self.to_loop.clone();
        spawn_local(async move {
            tokio::time::sleep(BEFORE_A_STOP).await;
            let _ = to_loop.send(Internal::Resuming(lapsed)).await;
        });
    }

    pub(super) fn is_at(&self, key: &str, run_id: &str, stage: ResumeStage) -> bool {
        let resume = self.ledger.get(key).and_then(Checkpoint::resume);
        resume.is_some_and(|resume| resume.is_run(run_id) && resume.stage == stage)
    }

    /// The turn of a resume is over and the call did not run: who asked for it is told.
    pub(in super::super) fn say_lapsed(&mut self, key: &str, run_id: &str) {
        tracing::warn!(
            event = events::RESUME_LAPSED.name,
            session_hash = session_hash(key),
            "nothing came of a resume"
        );
        let Some(record) = self.ledger.get(key) else { return };
        let kind = record.resume().map(|resume| resume.kind);
        let (Some(route), Some(kind)) = (record.route.clone(), kind) else {
            return;
        };
        let notice = key_of(&route, &[run_id.to_owned()]);
        let text = resume::lapsed_text(kind).to_owned();
        let entry = Entry::new(clock::now(), notice, route, Vec::new(), text);
        self.outbox.entry(entry.key.clone()).or_insert(entry);
        self.kick_notices();
    }
}
