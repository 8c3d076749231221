//! What `tideover status` shows: from the running supervisor, or from disk when none runs.

use serde_json::{Value, json};

use crate::core::checkpoint::{Checkpoint, HoldStatus, NoticeStatus, ReleasedBy};
use crate::core::outbox::Entry;
use crate::core::supervisor::State;
use crate::store::checkpoints::scan;
use crate::store::records::{read_boot, read_outbox};
use crate::store::{Directory, Layout, Place};

use super::engine::{Engine, Phase};

/// The schema of the status document.
pub const STATUS_SCHEMA: &str = "tideover.status/1";

impl Engine {
    /// The running supervisor's status.
    pub(super) fn status(&self) -> Value {
        json!({
            "schema": STATUS_SCHEMA,
            "running": true,
            "phase": self.phase_name(),
            "supervisor": {
                "pid": self.boot.supervisor.pid,
                "version": env!("CARGO_PKG_VERSION"),
                "run": self.boot.run,
                "started_at": self.boot.started_at,
            },
            "gateway": {
                "pid": self.boot.gateway.map(|process| process.pid),
                "version": self.gateway_version,
                "port": self.gateway.as_ref().map(|link| link.port),
                "readiness": self.vitals.stage().name(),
            },
            "plugin": {
                "connected": self.plugin.is_some(),
                "version": self.plugin.as_ref().and_then(|plugin| plugin.version.clone()),
            },
            "previous": self.before,
            "sessions": sessions(self.ledger.all()),
            "outbox": outbox(self.outbox.values()),
            "queue": {
                "kind": self.queue.kind_name(),
                "waiting": self.queue.waiting,
                "stuck": self.queue.stuck,
                "given_up": self.queue.given_up.len(),
            },
            "degraded": self.degraded(),
        })
    }

    fn phase_name(&self) -> &'static str {
        match (self.supervisor.state(), self.phase) {
            (State::Flushing, _) => "flushing",
            (State::Draining, _) => "draining",
            (State::Ended, _) => "ended",
            (State::Running, Phase::Starting) => "starting",
            (State::Running, Phase::Recovering) => "recovering",
            (State::Running, Phase::HandedOff) => "handed off",
        }
    }
}

/// The status as the files tell it when no supervisor runs.
#[must_use]
pub fn offline_status(layout: &Layout) -> Value {
    let mut problems = Vec::new();
    let boot = Directory::open(&layout.directory(Place::State))
        .ok()
        .map(|directory| read_boot(&directory))
        .and_then(|boot| boot.map_err(|problem| problems.push(problem)).ok())
        .flatten();
    let scan = Directory::open(&layout.directory(Place::Checkpoints))
        .ok()
        .and_then(|directory| {
            scan(&directory, None).map_err(|error| problems.push(error.to_string())).ok()
        })
        .unwrap_or_default();
    let (entries, unread) = Directory::open(&layout.directory(Place::Outbox))
        .ok()
        .map(|directory| read_outbox(&directory))
        .unwrap_or_default();
    problems.extend(unread);
    problems.extend(
        scan.findings.iter().map(|finding| format!("{}: {}", finding.path.display(), finding.what)),
    );
    json!({
        "schema": STATUS_SCHEMA,
        "running": false,
        "phase": "not running",
        "last_run": boot,
        "sessions": sessions(scan.records.iter()),
        "outbox": outbox(entries.iter()),
        "problems": problems,
    })
}

fn sessions<'a>(records: impl Iterator<Item = &'a Checkpoint>) -> Value {
    let (mut in_flight, mut held, mut interrupted) = (Vec::new(), Vec::new(), Vec::new());
    let (mut unattended, mut no_route) = (Vec::new(), Vec::new());
    let mut known = 0_usize;
    for record in records {
        known += 1;
        if record.in_flight() {
            in_flight.push(record.session_key.as_str());
        }
        if record.is_held() {
            held.push(record.session_key.as_str());
        }
        if record.is_held() || record.is_untold() {
            interrupted.push(record.session_key.as_str());
        }
        if record.is_held() && record.unattended().is_some() {
            unattended.push(record.session_key.as_str());
        }
        let untold = record.interruption.as_ref().is_some_and(|cut| {
            cut.notice == NoticeStatus::NoRoute && cut.status != HoldStatus::Expired
        });
        // Told by hand: whoever lifted the hold knows of it.
        if untold && (record.is_held() || !released_by_hand(record)) {
            no_route.push(record.session_key.as_str());
        }
    }
    json!({
        "known": known,
        "in_flight": in_flight,
        "held": held,
        "interrupted": interrupted,
        "unattended": unattended,
        "no_route": no_route,
    })
}

fn released_by_hand(record: &Checkpoint) -> bool {
    let by = record.interruption.as_ref().and_then(|cut| cut.released_by);
    match by {
        Some(ReleasedBy::Shell | ReleasedBy::Resume | ReleasedBy::Message) => true,
        Some(ReleasedBy::Policy) | None => false,
    }
}

fn outbox<'a>(entries: impl Iterator<Item = &'a Entry>) -> Value {
    entries
        .map(|entry| {
            json!({
                "key": entry.key,
                "channel": entry.route.channel,
                "state": entry.state,
                "tries": entry.tries,
                "created_at": entry.created_at,
                "possible_repeat": entry.doubt,
                "next_try_at": if entry.is_open() { Some(entry.next_try_at) } else { None },
                "last_error": entry.last_error,
            })
        })
        .collect()
}
