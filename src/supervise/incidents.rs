//! Incidents on their way to disk: of this run, and of the one before that could not write its own.

use crate::core::incident::{INCIDENT_SCHEMA, Incident, cut_sessions, is_incident};
use crate::core::ledger::Ledger;
use crate::core::recovery::{BootRecord, ExitFact, Verdict, VerdictKind};
use crate::core::stamp::Stamp;
use crate::store::records::{prune_incidents, read_incident, to_bytes};
use crate::store::{Ack, Directory, Layout, Place, Writer};

use super::process;

/// The incident of the run before, if it was one; called once, before this run's own records are written.
///
/// What that run wrote itself before it was ended (a frozen gateway's evidence) is kept.
pub(super) fn of_run_before(
    layout: &Layout,
    previous: &BootRecord,
    before: &Verdict,
    ledger: &Ledger,
    marked: &[String],
) -> Option<Incident> {
    let ended_itself = previous.exit.is_some();
    if ended_itself || !is_incident(before.kind, marked.len()) {
        return None;
    }
    let name = Incident::file_name(previous.started_at, &previous.run);
    // An incident that it took back, or of a freeze that was survived, says nothing of its end.
    let written = previous
        .frozen_at
        .and_then(|_| Directory::open(&layout.directory(Place::Incidents)).ok())
        .and_then(|directory| read_incident(&directory, &name).ok().flatten());
    let (evidence, gateway_version) =
        written.map_or((None, None), |incident| (incident.evidence, incident.gateway_version));
    let end = End {
        kind: before.kind,
        detail: before.detail.clone(),
        at: before.at,
        exit: None,
        cut: marked,
    };
    Some(Incident { evidence, ..of_run(previous, ledger, gateway_version.as_deref(), end) })
}

/// What is known of a run's end.
#[derive(Debug)]
pub(super) struct End<'a> {
    pub(super) kind: VerdictKind,
    pub(super) detail: String,
    pub(super) at: Stamp,
    pub(super) exit: Option<&'a ExitFact>,
    pub(super) cut: &'a [String],
}

/// The incident of a run, without evidence.
pub(super) fn of_run(
    boot: &BootRecord,
    ledger: &Ledger,
    gateway_version: Option<&str>,
    end: End<'_>,
) -> Incident {
    Incident {
        schema: INCIDENT_SCHEMA.to_owned(),
        run: boot.run.clone(),
        kind: end.kind,
        detail: end.detail,
        started_at: boot.started_at,
        ended_at: end.at,
        stop: boot.stop.clone(),
        exit: end.exit.cloned(),
        gateway_version: gateway_version.map(str::to_owned),
        unit: process::unit(std::process::id()),
        evidence: None,
        sessions_cut: end.cut.len(),
        sessions: cut_sessions(end.cut.iter().filter_map(|key| ledger.get(key))),
    }
}

/// Writes one.
pub(super) fn write(store: &Writer, incident: &Incident) -> Ack {
    let name = Incident::file_name(incident.started_at, &incident.run);
    store.write(Place::Incidents, &name, to_bytes(incident))
}

/// Drops the oldest beyond those that are kept. What cannot be dropped stays.
pub(super) fn prune(layout: &Layout) {
    if let Ok(directory) = Directory::open(&layout.directory(Place::Incidents)) {
        let _ = prune_incidents(&directory);
    }
}
