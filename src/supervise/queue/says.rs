//! What the log says of the queue. Never a text, an address or an error of a channel.

use crate::core::canonical::session_hash;
use crate::core::queue::{AfterTry, AtStart, Entry, Why};
use crate::telemetry::events;

use super::super::said::name_of;
use super::start::Pass;

/// Most entries that one pass names in the log.
const SAID_MAX: usize = 50;

/// Says that an entry has waited long.
pub(super) fn say_stuck(id: &str, session: Option<&str>, age_ms: i64, tries: u32) {
    tracing::warn!(
        event = events::QUEUE_STUCK.name,
        entry = id,
        session_hash = session.map(session_hash),
        age_s = age_ms / 1_000,
        tries,
        "a queued entry has waited long; see `tideover queue list`"
    );
}

/// Says what became of an entry.
pub(super) fn say_step(entry: &Entry, then: &AfterTry) {
    let (id, queue, tries) = (entry.id.as_str(), name_of(&entry.queue), entry.retry_count);
    let session_hash = entry.session_key.as_deref().map(session_hash);
    match then {
        AfterTry::Settle => tracing::info!(
            event = events::QUEUE_SETTLED.name,
            entry = id,
            queue,
            session_hash,
            "a queued entry is settled"
        ),
        AfterTry::GiveUp { .. } => tracing::error!(
            event = events::QUEUE_GIVEN_UP.name,
            entry = id,
            queue,
            session_hash,
            tries,
            "a queued entry is given up; `tideover queue retry` tries it again"
        ),
        AfterTry::Retry { .. } | AfterTry::AskAgain | AfterTry::PutBack => tracing::warn!(
            event = events::QUEUE_RETRIED.name,
            entry = id,
            tries,
            "a queued entry was tried and waits for its next try"
        ),
    }
}

/// Says what the pass before the start did.
pub(in super::super) fn say_pass(pass: &Pass) {
    for finding in pass.findings.iter().take(SAID_MAX) {
        tracing::warn!(
            event = events::QUEUE_QUARANTINED.name,
            queue = name_of(&finding.queue),
            file = finding.name,
            quarantined = finding.quarantined,
            "a file in the gateway's queue is no entry: {}",
            finding.what
        );
    }
    for (entry, step) in pass.said.iter().take(SAID_MAX) {
        match step {
            AtStart::Settle => say_step(entry, &AfterTry::Settle),
            AtStart::Keep(why) | AtStart::Leave(why) => say_kept(entry, *why),
            AtStart::MakeDue { .. } | AtStart::RemoveCopy => {}
        }
    }
    tracing::info!(
        event = events::QUEUE_PASS.name,
        found = pass.found,
        due = pass.due,
        settled = pass.settled,
        kept = pass.kept,
        resumed = pass.resumed,
        copies = pass.copies,
        left = pass.left,
        took_ms = pass.took_ms,
        "the gateway's queue was looked over before its start"
    );
}

/// Says that an entry waits, and for what.
fn say_kept(entry: &Entry, why: Why) {
    tracing::info!(
        event = events::QUEUE_KEPT.name,
        entry = entry.id,
        queue = name_of(&entry.queue),
        session_hash = entry.session_key.as_deref().map(session_hash),
        why = name_of(&why),
        "a queued entry is kept back"
    );
}
