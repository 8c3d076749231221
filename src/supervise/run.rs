//! One run: prepare, start the gateway, serve until it ends, leave all durable.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config::Loaded;
use crate::control::server;
use crate::control::server::Incoming;
use crate::core::incident::is_incident;
use crate::core::recovery::{self, ExitFact};
use crate::core::stamp::Stamp;
use crate::core::supervisor::{Effect, Event, Signal, State, Usr1};
use crate::gateway::launch::{EnvSnapshot, env_plan};
use crate::gateway::restart_intent;
use crate::telemetry::events;

use super::child::{Child, ChildPlan};
use super::engine::{Engine, Internal};
use super::exit::ChildEnd;
use super::incidents;
use super::prepare::{Prepared, await_old_gateway, prepare};
use super::process::process_ref;
use super::said::name_of;
use super::signals::{Signals, block, to_nix};
use super::vitals::Vitals;
use super::{boot, clock, process};

/// What the engine's own tasks may have waiting for the loop.
const INTERNAL_MAX: usize = 1_024;
/// How long reports that were written before the gateway's end are still read.
const LAST_REPORTS_WAIT: Duration = Duration::from_millis(500);
/// How long the last records may take to get durable after the gateway's end.
const LAST_WRITES_WAIT: Duration = Duration::from_secs(2);
/// How long systemd may take to say what goes down, once the gateway has ended.
const DOWNFALL_WAIT: Duration = Duration::from_millis(500);
/// How long a gateway that serves may go without its plugin before that is called degraded.
const PLUGIN_WAIT: Duration = Duration::from_secs(180);

/// What to run and where its state is.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The environment as tideover found it.
    pub env: EnvSnapshot,
    /// The configuration.
    pub config: Loaded,
    /// The gateway's state directory.
    pub state_dir: PathBuf,
    /// Where the control socket goes.
    pub socket: PathBuf,
    /// Whether the command is a gateway: then it is asked about its health.
    pub is_gateway: bool,
    /// The port it will listen on, until the plugin tells another.
    pub port: u16,
}

/// Why no child was started.
#[derive(Debug, Error)]
pub enum RunError {
    /// The system refused something that nothing works without.
    #[error("cannot {operation}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The command cannot be started.
    #[error(
        "cannot start {program}: {source} (check the command with `tideover run -- {program} --version`)"
    )]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs the command to its end. Must be called on the main thread, before any other thread is made.
///
/// # Errors
/// Only when no child could be started; afterwards the child's end is the answer.
pub fn run(plan: RunPlan) -> Result<ChildEnd, RunError> {
    let system = |operation| move |source| RunError::System { operation, source };
    let mask = block().map_err(|error| system("block signals")(error.into()))?;
    super::sys::keep_exit_statuses().map_err(|error| system("watch children")(error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the event loop"))?;
    LocalSet::new().block_on(&runtime, async move {
        let mut signals = Signals::open().map_err(system("watch signals"))?;
        let prepared = prepare(&plan);
        let mut env =
            env_plan(&plan.env, prepared.listener.as_ref().map(|_| plan.socket.as_path()));
        env.set.extend(prepared.interrupted_variable());
        let child_plan = ChildPlan {
            program: plan.program.clone(),
            args: plan.args.clone(),
            env_remove: env.remove,
            env_set: env.set,
        };
        let previous = prepared.previous.as_ref();
        if let Some(signal) = await_old_gateway(previous, &mut signals).await {
            return Ok(ChildEnd::Signal { number: signal, core: false });
        }
        let mut child = Child::start(&child_plan, mask).map_err(|source| RunError::Spawn {
            program: plan.program.to_string_lossy().into_owned(),
            source,
        })?;
        serve(prepared, &mut child, &mut signals, &plan).await
    })
}

async fn serve(
    prepared: Prepared,
    child: &mut Child,
    signals: &mut Signals,
    plan: &RunPlan,
) -> Result<ChildEnd, RunError> {
    let (to_loop, mut internal) = mpsc::channel(INTERNAL_MAX);
    let vitals = Vitals::new(&plan.env, child.pid(), plan.port, plan.is_gateway, to_loop.clone());
    let mut engine = Engine::new(prepared.start, vitals, to_loop);
    if let Some(incident) = &prepared.incident {
        engine.persist_incident(incident);
    }
    for key in &prepared.marked {
        engine.persist_soon(key);
    }
    if !prepared.marked.is_empty() {
        // The marks speak of the run before: they must be on disk before this run's own boot record is.
        let _ = tokio::time::timeout(LAST_WRITES_WAIT, engine.barrier()).await;
    }
    engine.forget_stale_notices();
    engine.settle_notices();
    engine.boot.gateway = process_ref(child.pid());
    engine.persist_boot();
    let mut incoming = match prepared.listener.map(server::serve) {
        Some(Ok(incoming)) => Some(incoming),
        Some(Err(error)) => {
            engine.degrade("socket", error.to_string());
            None
        }
        None => None,
    };
    let plugin_deadline = Instant::now() + PLUGIN_WAIT;
    let mut plugin_waited = false;
    let mut deadlines = Deadlines::default();
    let oom_kills_before = process::oom_kills();
    let mut untold = true;
    let end = loop {
        let status_at = engine.status_due_at().filter(|_| untold);
        let notice_at = engine.next_notice_at().map(instant_of);
        let queue_at = engine.next_look_at_queue().map(instant_of);
        let look_at = engine.vitals.next_look_at();
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Ok((signal, who)) => {
                    if signal == Signal::Usr1 && !engine.usr1_told {
                        engine.supervisor.set_usr1(usr1_of(child, plan));
                    }
                    let effects = engine.supervisor.step(Event::Signal(signal, who), engine.ledger.any_in_flight());
                    perform(&mut engine, child, plan, &mut deadlines, effects);
                }
                Err(source) => return Err(RunError::System { operation: "read signals", source }),
            },
            end = child.wait() => match end {
                Ok(end) => break end,
                Err(source) => return Err(RunError::System { operation: "wait for the gateway", source }),
            },
            () = sleep_maybe(deadlines.flush) => {
                let effects = engine.supervisor.step(Event::FlushDeadline, true);
                perform(&mut engine, child, plan, &mut deadlines, effects);
            }
            () = sleep_maybe(deadlines.drain) => {
                deadlines.drain = None;
                let effects = engine.supervisor.step(Event::DrainDeadline, true);
                perform(&mut engine, child, plan, &mut deadlines, effects);
            }
            Some(message) = internal.recv() => {
                if let Some(event) = take_internal(&mut engine, &mut deadlines, message) {
                    let effects = engine.supervisor.step(event, true);
                    perform(&mut engine, child, plan, &mut deadlines, effects);
                }
            }
            Some(message) = recv_maybe(&mut incoming) => take_incoming(&mut engine, message),
            () = sleep_maybe(notice_at) => engine.kick_notices(),
            () = sleep_maybe(queue_at) => engine.look_at_queue(),
            () = sleep_maybe(look_at) => engine.vitals.look(),
            () = sleep_until(plugin_deadline), if !plugin_waited => {
                plugin_waited = true;
                take_internal(&mut engine, &mut deadlines, Internal::PluginMissing);
            }
            () = sleep_maybe(status_at) => {
                engine.tell_status();
                untold = false;
                continue;
            }
        }
        untold = true;
    };
    await_downfall(&mut engine, child, plan, &mut deadlines, &mut internal).await;
    let oom_kills =
        process::oom_kills().map(|now| now.saturating_sub(oom_kills_before.unwrap_or(now)));
    let exit = end.fact(clock::now(), oom_kills);
    engine.supervisor.step(Event::ChildEnded(exit.clone()), true);
    finish(&mut engine, &exit, &mut incoming, &mut internal).await;
    if incoming.is_some() {
        // The next start would take a stale one over; a tidy end leaves none.
        let _ = std::fs::remove_file(&plan.socket);
    }
    Ok(end)
}

/// What goes down around the stop is part of the cause of what was cut, so a quick end of the gateway waits a
/// moment for the answer.
async fn await_downfall(
    engine: &mut Engine,
    child: &Child,
    plan: &RunPlan,
    deadlines: &mut Deadlines,
    internal: &mut mpsc::Receiver<Internal>,
) {
    let until = Instant::now() + DOWNFALL_WAIT;
    while engine.downfall_asked {
        let Ok(Some(message)) = timeout_at(until, internal.recv()).await else { return };
        if let Some(event) = take_internal(engine, deadlines, message) {
            let effects = engine.supervisor.step(event, true);
            perform(engine, child, plan, deadlines, effects);
        }
    }
}

/// What SIGUSR1 means to the child while the plugin has not said. Asked when the signal is there: a launcher
/// script becomes Node after it was started.
fn usr1_of(child: &Child, plan: &RunPlan) -> Usr1 {
    let may_be_node =
        super::process::is_node(child.pid()) || plan.args.iter().any(|arg| arg == "gateway");
    if may_be_node { Usr1::OpensDebugger } else { Usr1::Handled }
}

/// When the loop acts although nothing happens.
#[derive(Debug, Default)]
struct Deadlines {
    /// The end of the final flush.
    flush: Option<Instant>,
    /// The end of the drain, when more than this service goes down.
    drain: Option<Instant>,
    /// When the stop began.
    stop_begun: Option<Instant>,
}

fn perform(
    engine: &mut Engine,
    child: &Child,
    plan: &RunPlan,
    deadlines: &mut Deadlines,
    effects: Vec<Effect>,
) {
    for effect in effects {
        match effect {
            Effect::Forward(signal) => {
                deadlines.flush = None;
                if signal == Signal::Term && plan.is_gateway {
                    hand_over_restart_intent(child, plan);
                }
                child.signal(to_nix(signal));
            }
            Effect::ForwardContinue => child.signal(nix::sys::signal::Signal::SIGCONT),
            Effect::RecordStop(who) => {
                tracing::info!(
                    event = events::STOP_REQUESTED.name,
                    signal = who.signal,
                    pid = who.pid,
                    uid = who.uid,
                    executable = who.executable.as_deref().unwrap_or("unknown"),
                    unit = who.unit.as_deref(),
                    "stop requested"
                );
                engine.ledger.set_stopping(true);
                boot::stopping(&mut engine.boot, who);
                engine.persist_boot();
                deadlines.stop_begun.get_or_insert_with(Instant::now);
                if engine.supervisor.state() != State::Running {
                    engine.begin_stop();
                }
            }
            Effect::RecordGoingDown(what) => {
                tracing::info!(
                    event = events::HOST_GOING_DOWN.name,
                    what = name_of(&what),
                    open = engine.ledger.all().filter(|record| record.in_flight()).count(),
                    "{}",
                    what.describe()
                );
                boot::going_down(&mut engine.boot, what);
                engine.persist_boot();
                engine.vital(crate::core::readiness::Event::GoingDown);
            }
            Effect::Kill => {
                tracing::warn!(
                    event = events::DRAIN_CUT.name,
                    "the drain took all the time there is; ending the gateway"
                );
                child.signal(nix::sys::signal::Signal::SIGKILL);
            }
            Effect::StartFlush => {
                deadlines.flush = Some(Instant::now() + engine.flush_deadline());
                engine.start_flush();
            }
            Effect::FlushMissed => tracing::warn!(
                event = events::FLUSH_MISSED.name,
                "the final flush was cut short; every acknowledged intent is on disk"
            ),
            Effect::RefuseUsr1 => tracing::warn!(
                "SIGUSR1 not passed on: it would open this gateway's debugger; send SIGUSR2, or use `openclaw gateway restart`"
            ),
            Effect::Finish(_) => {}
        }
    }
}

/// An old gateway drains on SIGTERM only where its restart intent names it.
fn hand_over_restart_intent(child: &Child, plan: &RunPlan) {
    match restart_intent::hand_over(&plan.state_dir, std::process::id(), child.pid()) {
        Ok(true) => tracing::info!("handed the restart intent over to the gateway"),
        Ok(false) => {}
        Err(error) => tracing::warn!("the gateway will stop without its drain: {error}"),
    }
}

/// Takes a message of the engine's own tasks; what the supervisor machine must hear of it.
fn take_internal(
    engine: &mut Engine,
    deadlines: &mut Deadlines,
    message: Internal,
) -> Option<Event> {
    match message {
        Internal::FlushDone => {
            tracing::info!(event = events::FLUSH_DONE.name, "flush done");
            return Some(Event::FlushDone);
        }
        Internal::GoingDown(downfall) => {
            engine.downfall_asked = false;
            let downfall = downfall?;
            let begun = deadlines.stop_begun.unwrap_or_else(Instant::now);
            deadlines.drain = Some(begun + Duration::from_millis(downfall.drain_ms));
            return Some(Event::GoingDown(downfall.what));
        }
        Internal::Looked(looked) => {
            let tells = engine.vitals.looked(looked);
            engine.vital_signs(&tells);
        }
        Internal::EvidenceKept => {
            engine.vital(crate::core::readiness::Event::EvidenceKept);
        }
        Internal::Stored { what, key, result } => engine.stored(what, key, result),
        Internal::BackgroundEnded(command) => engine.background_ended(&command),
        Internal::NoticeReady { key } => engine.notice_ready(&key),
        Internal::NoticeTried { key, attempt } => engine.notice_tried(&key, &attempt),
        Internal::Routes { found } => engine.routes_found(found),
        Internal::QueueSeen(seen) => engine.queue_seen(seen),
        Internal::QueueChanged => engine.queue_soon(),
        Internal::QueueStepped(stepped) => engine.queue_stepped(&stepped),
        Internal::Resuming(resuming) => engine.resuming(resuming),
        Internal::PluginMissing => {
            if engine.plugin.is_none() {
                let why = "the companion plugin has not reported; nothing is journaled (run `tideover install --no-unit`)";
                engine.degrade("plugin", why.to_owned());
            }
        }
    }
    None
}

fn take_incoming(engine: &mut Engine, message: Incoming) {
    match message {
        Incoming::Hello { peer, id, hello } => engine.hello(peer, &id, &hello),
        Incoming::Request { peer, id, request } => engine.request(&peer, id.as_deref(), *request),
        Incoming::Reply { connection, id } => {
            let ours =
                engine.plugin.as_ref().is_some_and(|plugin| plugin.peer.connection == connection);
            if ours && id.starts_with("flush-") {
                engine.plugin_flushed();
            }
        }
        Incoming::Closed { connection } => {
            let was_plugin =
                engine.plugin.as_ref().is_some_and(|plugin| plugin.peer.connection == connection);
            if was_plugin {
                engine.plugin = None;
                if !engine.supervisor.is_stopping() {
                    tracing::info!("companion plugin disconnected");
                }
                // Whatever it still had to flush went with it.
                if engine.supervisor.state() == State::Flushing {
                    engine.plugin_flushed();
                }
            }
        }
    }
}

/// The gateway has ended: read what it still said, mark what was cut, make all durable.
async fn finish(
    engine: &mut Engine,
    exit: &ExitFact,
    incoming: &mut Option<mpsc::Receiver<Incoming>>,
    internal: &mut mpsc::Receiver<Internal>,
) {
    let deadline = Instant::now() + LAST_REPORTS_WAIT;
    while engine.plugin.is_some() {
        match timeout_at(deadline, recv_maybe(incoming)).await {
            Ok(Some(message)) => take_incoming(engine, message),
            Ok(None) | Err(_) => break,
        }
    }
    let (cause, detail) = recovery::cause_of_exit(engine.boot.stop.as_ref(), exit);
    let run = engine.boot.run.clone();
    let said = detail.clone();
    let cut = engine.ledger.interrupt_all(clock::now(), &run, cause, detail);
    for key in &cut {
        engine.persist_soon(key);
    }
    tracing::info!(
        event = events::GATEWAY_EXITED.name,
        end = exit.describe(),
        code = exit.code,
        signal = exit.signal,
        core_dumped = exit.core,
        oom_kills = exit.oom_kills,
        uptime_ms = engine.vitals.uptime().as_millis(),
        interrupted = cut.len(),
        "gateway exited"
    );
    engine.said.say_cuts(&engine.ledger);
    let kind = recovery::kind_of_exit(cause, exit);
    if is_incident(kind, cut.len()) {
        let version = engine.gateway_version.as_deref();
        let end = incidents::End { kind, detail: said, at: exit.at, exit: Some(exit), cut: &cut };
        let mut incident = incidents::of_run(&engine.boot, &engine.ledger, version, end);
        incident.evidence = engine.evidence.take();
        engine.persist_incident(&incident);
    }
    let deadline = Instant::now() + LAST_WRITES_WAIT;
    // A record that says how this run ended must not be there before what the run before left to be marked.
    let _ = timeout_at(deadline, engine.barrier()).await;
    boot::exited(&mut engine.boot, exit);
    engine.persist_boot();
    let barrier = engine.barrier();
    if timeout_at(deadline, barrier).await.is_err() {
        tracing::error!("the last records are not durable after {LAST_WRITES_WAIT:?}");
        engine.abandon_store();
    }
    while let Ok(message) = internal.try_recv() {
        if let Internal::Stored { what, key, result } = message {
            engine.stored(what, key, result);
        }
    }
}

fn instant_of(at: Stamp) -> Instant {
    let wait_ms = u64::try_from(at.since_ms(clock::now())).unwrap_or(0);
    Instant::now() + Duration::from_millis(wait_ms)
}

async fn sleep_maybe(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

async fn recv_maybe(incoming: &mut Option<mpsc::Receiver<Incoming>>) -> Option<Incoming> {
    match incoming {
        Some(incoming) => incoming.recv().await,
        None => std::future::pending().await,
    }
}
