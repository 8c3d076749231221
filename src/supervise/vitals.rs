//! The gateway's vital signs: looked at when the core wants to know, and told to the service manager.

use std::collections::VecDeque;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::core::incident::HealthAnswer;
use crate::core::readiness::{Answer, Event, Look, Readiness, Stage, Tell};
use crate::gateway::health::{self, Health};
use crate::gateway::launch::EnvSnapshot;

use super::engine::Internal;
use super::notify::{Notifier, is_managed, watchdog_ms};
use super::{clock, process};

/// How many answers are kept for the evidence.
const ANSWERS_MAX: usize = 16;

/// What one look brought.
#[derive(Debug)]
pub(super) struct Looked {
    look: Look,
    answered: HealthAnswer,
}

/// The machine with its clock, its probes and its listener.
#[derive(Debug)]
pub(super) struct Vitals {
    machine: Readiness,
    pub(super) notifier: Notifier,
    /// Whether systemd started this process, which then knows more about a stop.
    pub(super) managed: bool,
    /// When the status line was told last.
    pub(super) status_told_at: Option<Instant>,
    begun: Instant,
    pid: u32,
    port: u16,
    /// A child that is no gateway answers no probe: that it lives is all there is to know.
    is_gateway: bool,
    looking: bool,
    answers: VecDeque<HealthAnswer>,
    to_loop: mpsc::Sender<Internal>,
}

impl Vitals {
    pub(super) fn new(
        env: &EnvSnapshot,
        pid: u32,
        port: u16,
        is_gateway: bool,
        to_loop: mpsc::Sender<Internal>,
    ) -> Self {
        Self {
            machine: Readiness::new(watchdog_ms(env), 0),
            managed: is_managed(env),
            status_told_at: None,
            notifier: Notifier::of(env),
            begun: Instant::now(),
            pid,
            port,
            is_gateway,
            looking: false,
            answers: VecDeque::new(),
            to_loop,
        }
    }

    /// How far the gateway is.
    pub(super) fn stage(&self) -> Stage {
        self.machine.stage()
    }

    /// How long the child has been there.
    pub(super) fn uptime(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The last answers, oldest first.
    pub(super) fn answers(&self) -> Vec<HealthAnswer> {
        self.answers.iter().cloned().collect()
    }

    /// Learns the port from the gateway itself.
    pub(super) fn learn_port(&mut self, port: u16) {
        if self.port != port {
            self.port = port;
            self.step(Event::PortChanged);
        }
    }

    /// When [`Self::look`] is due.
    pub(super) fn next_look_at(&self) -> Option<Instant> {
        let at_ms = self.machine.next_look_ms().filter(|_| !self.looking)?;
        Some(self.begun + Duration::from_millis(at_ms))
    }

    /// Begins a look; [`Internal::Looked`] tells what it brought.
    pub(super) fn look(&mut self) {
        self.looking = true;
        let (pid, port, is_gateway) = (self.pid, self.port, self.is_gateway);
        let watching = matches!(self.stage(), Stage::Serving | Stage::Frozen);
        let limit = Duration::from_millis(self.machine.look_max_ms());
        let to_loop = self.to_loop.clone();
        spawn_local(async move {
            let since = Instant::now();
            let (answer, words) = match (is_gateway, watching) {
                (false, _) => (Answer::Serving, "no gateway".to_owned()),
                (true, true) => live(port, limit).await,
                (true, false) => whole(port, limit).await,
            };
            let took_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            let answered = HealthAnswer { at: clock::now(), answer: words, took_ms };
            let look = Look { answer, cpu_ticks: process::cpu_ticks(pid) };
            let _ = to_loop.send(Internal::Looked(Looked { look, answered })).await;
        });
    }

    /// Takes what a look brought.
    pub(super) fn looked(&mut self, looked: Looked) -> Vec<Tell> {
        self.looking = false;
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back(looked.answered);
        self.step(Event::Looked(looked.look))
    }

    /// Takes any other event.
    pub(super) fn step(&mut self, event: Event) -> Vec<Tell> {
        let now_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.machine.step(now_ms, event)
    }

    /// Tells the service manager its part.
    pub(super) fn tell(&self, tells: &[Tell]) {
        let mut states: Vec<NotifyState<'_>> =
            tells.iter().filter_map(|tell| state_of(*tell)).collect();
        if tells.contains(&Tell::Alive) && self.stage() == Stage::Serving {
            // A datagram can be lost; said again, it changes nothing.
            states.push(NotifyState::Ready);
        }
        if !states.is_empty() {
            self.notifier.send(&states);
        }
    }
}

/// What the service manager hears of it.
fn state_of(tell: Tell) -> Option<NotifyState<'static>> {
    match tell {
        Tell::Ready => Some(NotifyState::Ready),
        Tell::Stopping => Some(NotifyState::Stopping),
        Tell::Alive => Some(NotifyState::Watchdog),
        Tell::Extend(ms) => {
            let usec = u32::try_from(ms.saturating_mul(1_000)).unwrap_or(u32::MAX);
            Some(NotifyState::ExtendTimeoutUsec(usec))
        }
        Tell::LetGo => Some(NotifyState::WatchdogTrigger),
        Tell::Unprobed | Tell::Probed | Tell::KeepEvidence | Tell::Recovered => None,
    }
}

/// Whether it lives: `/healthz` only, which is all that a busy gateway must still answer.
async fn live(port: u16, limit: Duration) -> (Answer, String) {
    if health::is_live(port, limit).await {
        (Answer::Serving, "live".to_owned())
    } else {
        (Answer::Silent, "no answer".to_owned())
    }
}

/// How far it is.
async fn whole(port: u16, limit: Duration) -> (Answer, String) {
    match health::probe(port, limit).await {
        Health::Ready => (Answer::Serving, "ready".to_owned()),
        // A channel that does not work is the gateway's own business: it serves.
        Health::Degraded { failing } => {
            (Answer::Serving, format!("ready, failing: {}", failing.join(", ")))
        }
        Health::Starting => (Answer::Starting, "starting".to_owned()),
        Health::Draining => (Answer::Draining, "draining".to_owned()),
        Health::Down => (Answer::Silent, "no answer".to_owned()),
    }
}
