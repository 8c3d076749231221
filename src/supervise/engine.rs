//! The engine: the pure ledger and supervisor, with the store, the plugin and the degraded reasons around them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use crate::config::{AckPolicy, Settings};
use crate::control::protocol::{GatewayAuth, flush_request, holds_event};
use crate::control::server::Peer;
use crate::core::incident::{Evidence, Incident};
use crate::core::ledger::{Ledger, SessionRef};
use crate::core::outbox::{Attempt, Entry};
use crate::core::recovery::{BootRecord, Verdict};
use crate::core::reducer::Report;
use crate::core::stamp::Stamp;
use crate::core::supervisor::Supervisor;
use crate::store::checkpoints::FileNames;
use crate::store::records::{BOOT_FILE, GIVEN_UP_FILE, to_bytes};
use crate::store::{Ack, Layout, Place, StoreError, Writer};
use crate::telemetry::events;

use super::manager::Downfall;
use super::notices::Asked;
use super::queue::{Delivered, Look, QueueState};
use super::resume::Resuming;
use super::said::Said;
use super::vitals::{Looked, Vitals};
use super::watch::Watches;
use super::{clock, incidents};

/// What the engine's own tasks report back to the loop.
#[derive(Debug)]
pub(super) enum Internal {
    /// Everything that was to be flushed is durable.
    FlushDone,
    /// A write went well or did not.
    Stored {
        /// What was written, for people.
        what: &'static str,
        /// The session, where it was a checkpoint.
        key: Option<String>,
        /// How it went.
        result: Result<(), StoreError>,
    },
    /// A background command ended by itself.
    BackgroundEnded(BackgroundCommand),
    /// A notice is durable and may be attempted now.
    NoticeReady {
        /// Its key.
        key: String,
    },
    /// An attempt at a notice ended.
    NoticeTried {
        /// Its key.
        key: String,
        /// How.
        attempt: Attempt,
    },
    /// Routes that the gateway knows of sessions that had none.
    Routes {
        /// Session key and what was found.
        found: Vec<(String, Asked)>,
    },
    /// The gateway serves without the plugin having said a word.
    PluginMissing,
    /// A look at the gateway brought something.
    Looked(Looked),
    /// The evidence of a frozen gateway is on disk, as well as that can be had.
    EvidenceKept,
    /// Whether more than this service is going down.
    GoingDown(Option<Downfall>),
    /// What a look at the gateway's queue found.
    QueueSeen(Look),
    /// A person may have changed it.
    QueueChanged,
    /// A step with one entry of it ended.
    QueueStepped(Box<Delivered>),
    /// A step of a person's `/resume`.
    Resuming(Resuming),
}

/// A command that outlived the tool call that started it.
#[derive(Clone, Debug)]
pub(super) struct BackgroundCommand {
    /// Whose.
    pub(super) session_key: String,
    /// The run and the call that started it.
    pub(super) run_id: String,
    pub(super) tool_call_id: String,
}

/// How to reach the gateway, as the plugin told it.
#[derive(Clone, Debug)]
pub(super) struct GatewayLink {
    /// Its port on loopback.
    pub(super) port: u16,
    /// How to log in.
    pub(super) auth: GatewayAuth,
}

/// The plugin's connection.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    pub(super) peer: Peer,
    pub(super) version: Option<String>,
}

/// Where the run stands, for `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Recovering,
    HandedOff,
}

/// Everything the loop owns.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) settings: Settings,
    pub(super) ledger: Ledger,
    pub(super) supervisor: Supervisor,
    pub(super) boot: BootRecord,
    pub(super) before: Verdict,
    pub(super) names: FileNames,
    pub(super) outbox: BTreeMap<String, Entry>,
    pub(super) layout: Layout,
    pub(super) queue: QueueState,
    pub(super) phase: Phase,
    pub(super) plugin: Option<Plugin>,
    pub(super) gateway: Option<GatewayLink>,
    pub(super) gateway_version: Option<String>,
    /// Which start of the gateway last reported; another one in the same process is a restart.
    pub(super) incarnation: Option<String>,
    /// Whether the plugin has said what SIGUSR1 means to its gateway.
    pub(super) usr1_told: bool,
    pub(super) watches: Watches,
    pub(super) vitals: Vitals,
    pub(super) said: Said,
    pub(super) to_loop: mpsc::Sender<Internal>,
    /// Sessions that the gateway was already asked about and knows no route of.
    pub(super) routes_asked: BTreeSet<String>,
    /// When those that could not be asked about are asked about again.
    pub(super) ask_again_at: Option<Stamp>,
    store: Option<Writer>,
    degraded: BTreeMap<&'static str, String>,
    /// Sessions whose newest record could not be written.
    not_on_disk: BTreeSet<String>,
    flushes: u64,
    /// Whether systemd still has to answer what goes down around the stop.
    pub(super) downfall_asked: bool,
    /// How the gateway looked when it was given up, until it answers again.
    pub(super) evidence: Option<Evidence>,
}

/// What an engine starts from.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) settings: Settings,
    pub(super) ledger: Ledger,
    pub(super) said: Said,
    pub(super) boot: BootRecord,
    pub(super) before: Verdict,
    pub(super) names: FileNames,
    pub(super) outbox: BTreeMap<String, Entry>,
    pub(super) layout: Layout,
    pub(super) queue: QueueState,
    pub(super) store: Option<Writer>,
    pub(super) degraded: BTreeMap<&'static str, String>,
}

impl Engine {
    pub(super) fn new(start: Start, vitals: Vitals, to_loop: mpsc::Sender<Internal>) -> Self {
        Self {
            settings: start.settings,
            ledger: start.ledger,
            supervisor: Supervisor::default(),
            boot: start.boot,
            before: start.before,
            names: start.names,
            outbox: start.outbox,
            layout: start.layout,
            queue: start.queue,
            phase: Phase::Starting,
            plugin: None,
            gateway: None,
            gateway_version: None,
            incarnation: None,
            usr1_told: false,
            watches: Watches::default(),
            vitals,
            said: start.said,
            to_loop,
            routes_asked: BTreeSet::new(),
            ask_again_at: None,
            store: start.store,
            degraded: start.degraded,
            not_on_disk: BTreeSet::new(),
            flushes: 0,
            downfall_asked: false,
            evidence: None,
        }
    }

    /// Why tideover does less than it should, by concern.
    pub(super) fn degraded(&self) -> &BTreeMap<&'static str, String> {
        &self.degraded
    }

    /// Notes a reason; said once in the log.
    pub(super) fn degrade(&mut self, concern: &'static str, why: String) {
        if self.degraded.get(concern) != Some(&why) {
            tracing::warn!(event = events::DEGRADED.name, concern, "degraded: {why}");
            self.degraded.insert(concern, why);
        }
    }

    /// Takes a reason back.
    pub(super) fn restore(&mut self, concern: &'static str) {
        if self.degraded.remove(concern).is_some() {
            tracing::info!(event = events::RESTORED.name, concern, "no longer degraded");
        }
    }

    /// Whether a tool may run although its record could not be made durable.
    pub(super) fn runs_without_ack(&self) -> bool {
        self.settings.checkpoint.ack == AckPolicy::Prefer
    }

    /// Asks for a session's record to be written. The receiver resolves when it is durable.
    pub(super) fn persist(&mut self, key: &str) -> oneshot::Receiver<Result<(), StoreError>> {
        let bytes = self.ledger.get(key).map(to_bytes);
        let name = self.names.of(key);
        match (&self.store, bytes) {
            (Some(store), Some(bytes)) => store.write(Place::Checkpoints, &name, bytes),
            (Some(store), None) => store.remove(Place::Checkpoints, &name),
            (None, _) => refused(),
        }
    }

    /// Writes a session's record without anyone waiting for it.
    pub(super) fn persist_soon(&mut self, key: &str) {
        let ack = self.persist(key);
        let (key, to_loop) = (Some(key.to_owned()), self.to_loop.clone());
        spawn_local(async move {
            let result = ack.await.unwrap_or(Err(StoreError::Stopped));
            let _ = to_loop.send(Internal::Stored { what: "checkpoints", key, result }).await;
        });
    }

    /// Writes the boot record.
    pub(super) fn persist_boot(&mut self) {
        if let Some(store) = &self.store {
            let ack = store.write(Place::State, BOOT_FILE, to_bytes(&self.boot));
            self.watch_ack("boot record", ack);
        }
    }

    /// Writes one outbox entry, or removes the file of one that is gone; the receiver resolves when it is durable.
    pub(super) fn persist_notice(
        &mut self,
        key: &str,
    ) -> oneshot::Receiver<Result<(), StoreError>> {
        let name = format!("{key}.json");
        match (&self.store, self.outbox.get(key)) {
            (Some(store), Some(entry)) => store.write(Place::Outbox, &name, to_bytes(entry)),
            (Some(store), None) => store.remove(Place::Outbox, &name),
            (None, _) => refused(),
        }
    }

    /// Has the loop hear how a write went.
    pub(super) fn watch_ack(
        &self,
        what: &'static str,
        ack: oneshot::Receiver<Result<(), StoreError>>,
    ) {
        let to_loop = self.to_loop.clone();
        spawn_local(async move {
            let result = ack.await.unwrap_or(Err(StoreError::Stopped));
            let _ = to_loop.send(Internal::Stored { what, key: None, result }).await;
        });
    }

    /// Takes note of how a write went. A record that is not on disk is written again as soon as one gets through.
    pub(super) fn stored(
        &mut self,
        what: &'static str,
        key: Option<String>,
        result: Result<(), StoreError>,
    ) {
        match (result, key) {
            (Ok(()), key) => {
                key.map(|key| self.not_on_disk.remove(&key));
                if what != "checkpoints" || self.not_on_disk.is_empty() {
                    self.restore(what);
                    return;
                }
                for key in self.not_on_disk.clone() {
                    self.persist_soon(&key);
                }
            }
            (Err(error), key) => {
                self.not_on_disk.extend(key);
                self.degrade(what, error.to_string());
            }
        }
    }

    /// A receiver that resolves when all that was written before is done.
    pub(super) fn barrier(&self) -> oneshot::Receiver<Result<(), StoreError>> {
        self.store.as_ref().map_or_else(refused, Writer::barrier)
    }

    /// Gives up on a disk that does not answer: leaving must not wait for it.
    pub(super) fn abandon_store(&mut self) {
        if let Some(store) = self.store.take() {
            store.abandon();
        }
    }

    /// Starts the final flush: the plugin first, so that what it still holds is written too, then the store.
    pub(super) fn start_flush(&mut self) {
        match &self.plugin {
            Some(plugin) => {
                self.flushes += 1;
                let deadline_ms = self.settings.checkpoint.flush_deadline_ms;
                plugin.peer.send(flush_request(&format!("flush-{}", self.flushes), deadline_ms));
            }
            None => self.plugin_flushed(),
        }
    }

    /// The plugin has nothing left, or is not there: everything taken so far must get durable.
    pub(super) fn plugin_flushed(&self) {
        let barrier = self.barrier();
        let to_loop = self.to_loop.clone();
        spawn_local(async move {
            let _ = barrier.await;
            let _ = to_loop.send(Internal::FlushDone).await;
        });
    }

    /// Says in the log which sessions were cut, held or released since it last did.
    pub(super) fn say_sessions(&mut self) {
        self.said.say_cuts(&self.ledger);
        self.said.say_holds(&self.ledger);
    }

    /// Tells the plugin which sessions are held or interrupted now.
    pub(super) fn announce_holds(&mut self) {
        self.say_sessions();
        self.queue_soon();
        if let Some(plugin) = &self.plugin {
            plugin.peer.send(holds_event(&self.ledger.held(), &self.ledger.interrupted()));
        }
    }

    /// Writes an incident.
    pub(super) fn persist_incident(&self, incident: &Incident) {
        tracing::info!(
            event = events::INCIDENT_WRITTEN.name,
            incident = incident.run,
            "incident written; see `tideover report`"
        );
        if let Some(store) = &self.store {
            self.watch_ack("incidents", incidents::write(store, incident));
        }
    }

    /// Writes what the gateway's own queue gave up.
    pub(super) fn write_given_up(&self, bytes: Vec<u8>) -> Option<Ack> {
        self.store.as_ref().map(|store| store.write(Place::State, GIVEN_UP_FILE, bytes))
    }

    /// Takes this run's incident back: what it told of was survived.
    pub(super) fn drop_incident(&self) {
        if let Some(store) = &self.store {
            let name = Incident::file_name(self.boot.started_at, &self.boot.run);
            self.watch_ack("incidents", store.remove(Place::Incidents, &name));
        }
    }

    /// A background command ended by itself. Not believed while the gateway goes down: it was ended then.
    pub(super) fn background_ended(&mut self, command: &BackgroundCommand) {
        if self.supervisor.is_stopping() {
            return;
        }
        let Some(record) = self.ledger.get(&command.session_key) else { return };
        let session = SessionRef {
            key: command.session_key.clone(),
            id: record.session_id.clone(),
            agent_id: record.agent_id.clone(),
        };
        let report = Report::BackgroundEnded {
            run_id: command.run_id.clone(),
            tool_call_id: command.tool_call_id.clone(),
        };
        if self.ledger.report(clock::now(), &session, &report).persist.is_some() {
            self.persist_soon(&command.session_key);
        }
    }

    /// Longest that SIGTERM is held.
    pub(super) fn flush_deadline(&self) -> Duration {
        Duration::from_millis(self.settings.checkpoint.flush_deadline_ms)
    }
}

fn refused() -> oneshot::Receiver<Result<(), StoreError>> {
    let (sender, receiver) = oneshot::channel();
    let _ = sender.send(Err(StoreError::Stopped));
    receiver
}
