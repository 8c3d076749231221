//! What the log says of sessions: each interruption once, each hold when it is armed and when it is gone.
//!
//! Reports, starts and ends all change holds; comparing with what was said last catches each way they do.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::core::canonical::session_hash;
use crate::core::checkpoint::{Checkpoint, Interruption};
use crate::core::ledger::Ledger;
use crate::telemetry::events;

/// Most sessions that one change names; the log's queue must not overflow with them.
const SESSIONS_SAID_MAX: usize = 100;

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Interruptions by id.
    cuts: BTreeSet<String>,
    /// Held sessions and the interruption that holds each.
    held: BTreeMap<String, String>,
}

impl Said {
    /// Takes the interruptions that are known already as said. Holds are armed anew by each run.
    pub(super) fn before(ledger: &Ledger) -> Self {
        Self {
            cuts: cuts(ledger).map(|(_, cut)| first_id(cut).to_owned()).collect(),
            held: BTreeMap::new(),
        }
    }

    /// Says the interruptions that are new.
    pub(super) fn say_cuts(&mut self, ledger: &Ledger) {
        let new = cuts(ledger).filter(|(_, cut)| !self.cuts.contains(first_id(cut)));
        for (record, cut) in new.take(SESSIONS_SAID_MAX) {
            tracing::info!(
                event = events::INTERRUPTION_FOUND.name,
                session_hash = session_hash(&record.session_key),
                interruption = cut.id,
                cause = name_of(&cut.cause),
                tool = cut.call.as_ref().map(|call| call.name.as_str()),
                "a session was interrupted"
            );
        }
        self.cuts = cuts(ledger).map(|(_, cut)| first_id(cut).to_owned()).collect();
    }

    /// Says which holds are new and which are gone.
    pub(super) fn say_holds(&mut self, ledger: &Ledger) {
        let held: BTreeMap<String, String> = cuts(ledger)
            .filter(|(record, _)| record.is_held())
            .map(|(record, cut)| (record.session_key.clone(), first_id(cut).to_owned()))
            .collect();
        let armed = held.iter().filter(|(key, id)| self.held.get(*key) != Some(*id));
        for (key, id) in armed.take(SESSIONS_SAID_MAX) {
            tracing::info!(
                event = events::HOLD_ARMED.name,
                session_hash = session_hash(key),
                interruption = id,
                "effects are held until the user has spoken"
            );
        }
        let released = self.held.keys().filter(|key| !held.contains_key(*key));
        for key in released.take(SESSIONS_SAID_MAX) {
            let cut = ledger.get(key).and_then(|record| record.interruption.as_ref());
            tracing::info!(
                event = events::HOLD_RELEASED.name,
                session_hash = session_hash(key),
                by = cut
                    .and_then(|cut| cut.released_by)
                    .map_or("gone".to_owned(), |by| name_of(&by)),
                "a hold was released"
            );
        }
        self.held = held;
    }
}

fn cuts(ledger: &Ledger) -> impl Iterator<Item = (&Checkpoint, &Interruption)> {
    ledger.all().filter_map(|record| Some((record, record.interruption.as_ref()?)))
}

/// An interruption's first id: it gets another one with another notice, and is the same one all along.
fn first_id(cut: &Interruption) -> &str {
    cut.orphaned.as_ref().map_or(&cut.id, |orphaned| &orphaned.interruption_id)
}

/// A plain enum's name, as the checkpoint has it.
pub(super) fn name_of(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or("unknown").to_owned()
}
