//! tideover as a service: what the manager hears, what is asked of it at a stop, and what is written down before
//! its watchdog may have a frozen gateway.

use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::core::checkpoint::NoticeStatus;
use crate::core::readiness::{Event as VitalEvent, Situation, Tell, status_line};
use crate::core::recovery::VerdictKind;
use crate::telemetry::events;

use super::engine::{Engine, Internal};
use super::exit::leave_no_core;
use super::manager::downfall;
use super::{clock, evidence, incidents};

/// How long the evidence of a frozen gateway may take to get durable.
const EVIDENCE_WAIT: Duration = Duration::from_secs(5);
/// Least pause between two status lines: each looks at every session.
const STATUS_PAUSE: Duration = Duration::from_millis(250);

impl Engine {
    /// A stop was asked for: the service manager hears of it, and is asked what else goes down.
    pub(super) fn begin_stop(&mut self) {
        self.vital(VitalEvent::StopBegun);
        self.tell_status();
        if !self.vitals.managed || self.downfall_asked {
            return;
        }
        self.downfall_asked = true;
        let to_loop = self.to_loop.clone();
        spawn_local(async move {
            let _ = to_loop.send(Internal::GoingDown(downfall().await)).await;
        });
    }

    /// Tells the service manager how it is, where that changed.
    pub(super) fn tell_status(&mut self) {
        if !self.vitals.notifier.is_active() {
            return;
        }
        let recovering = self.ledger.all().filter(|record| {
            record.interruption.as_ref().is_some_and(|cut| cut.notice == NoticeStatus::Pending)
        });
        let line = status_line(&Situation {
            stage: self.vitals.stage(),
            going_down: self.boot.stop.as_ref().is_some_and(|stop| stop.going_down.is_some()),
            recovering: recovering.count(),
            held: self.ledger.held().len(),
            in_flight: self.ledger.all().filter(|record| record.in_flight()).count(),
            degraded: self.degraded().keys().copied().collect(),
        });
        self.vitals.notifier.status(&line);
        self.vitals.status_told_at = Some(Instant::now());
    }

    /// Takes an event of the gateway's vital signs.
    pub(super) fn vital(&mut self, event: VitalEvent) {
        let tells = self.vitals.step(event);
        self.vital_signs(&tells);
    }

    /// Tells the service manager, and does what else the vital signs ask for.
    pub(super) fn vital_signs(&mut self, tells: &[Tell]) {
        if tells.contains(&Tell::LetGo) {
            // systemd ends this process with SIGABRT now; the gateway's state is the evidence, not ours.
            leave_no_core();
        }
        if tells.contains(&Tell::Ready) {
            // Whoever waited for the start reads the line next.
            self.tell_status();
        }
        self.vitals.tell(tells);
        for tell in tells {
            match tell {
                Tell::Ready => {
                    tracing::info!(
                        event = events::READY.name,
                        took_ms = self.vitals.uptime().as_millis(),
                        gateway_pid = self.boot.gateway.map(|gateway| gateway.pid),
                        gateway_version = self.gateway_version.as_deref(),
                        "the gateway is ready"
                    );
                }
                Tell::Unprobed => self.degrade(
                    "health",
                    "no health probe reaches the gateway on its port; the watchdog cannot judge it"
                        .to_owned(),
                ),
                Tell::Probed => self.restore("health"),
                Tell::KeepEvidence => self.keep_evidence(),
                Tell::Recovered => {
                    self.boot.frozen_at = None;
                    self.persist_boot();
                    self.evidence = None;
                    self.drop_incident();
                    tracing::info!(event = events::ANSWERS_AGAIN.name, "the gateway answers again");
                }
                Tell::LetGo => {
                    tracing::error!(
                        event = events::WATCHDOG_LETS_GO.name,
                        "the gateway is frozen; the watchdog ends it"
                    );
                }
                Tell::Stopping | Tell::Extend(_) | Tell::Alive => {}
            }
        }
    }

    /// Writes down how a frozen gateway looks, before the watchdog may have it.
    fn keep_evidence(&mut self) {
        let now = clock::now();
        self.boot.frozen_at = Some(now);
        self.persist_boot();
        let open: Vec<String> = self
            .ledger
            .all()
            .filter(|record| record.in_flight())
            .map(|record| record.session_key.clone())
            .collect();
        let end = incidents::End {
            kind: VerdictKind::GatewayFrozen,
            detail: "the gateway did not answer any more".to_owned(),
            at: now,
            exit: None,
            cut: &open,
        };
        let version = self.gateway_version.as_deref();
        let mut incident = incidents::of_run(&self.boot, &self.ledger, version, end);
        let pid = self.boot.gateway.map_or(0, |gateway| gateway.pid);
        let evidence = evidence::gather(pid, self.vitals.answers());
        let main = evidence.threads.first();
        tracing::error!(
            event = events::WATCHDOG_EVIDENCE.name,
            gateway_pid = pid,
            last_health = evidence::answers_in_words(&evidence),
            process_state = main.map(|thread| thread.state.as_str()),
            wait_channel = main.and_then(|thread| thread.waits_in.as_deref()),
            threads = evidence.threads.len(),
            memory_kib = evidence.resident_kib,
            open = open.len(),
            "the gateway does not answer any more; how it looks is written down"
        );
        incident.evidence = Some(evidence.clone());
        self.evidence = Some(evidence);
        self.persist_incident(&incident);
        let (kept, to_loop) = (self.barrier(), self.to_loop.clone());
        spawn_local(async move {
            let _ = tokio::time::timeout(EVIDENCE_WAIT, kept).await;
            let _ = to_loop.send(Internal::EvidenceKept).await;
        });
    }

    /// When the status line may be told again; `None` where nobody hears it.
    pub(super) fn status_due_at(&self) -> Option<Instant> {
        let told = self.vitals.status_told_at;
        self.vitals
            .notifier
            .is_active()
            .then(|| told.map_or_else(Instant::now, |at| at + STATUS_PAUSE))
    }
}
