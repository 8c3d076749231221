//! Everything before the child starts: what the run before left, and what this one needs. Nothing in here can
//! keep the gateway from starting.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{
    HoldScope, NativePolicy, OwnerSettings, ReleasePolicy as ReleaseSetting, Settings,
    UnattendedPolicy,
};
use crate::control::socket;
use crate::core::checkpoint::{Checkpoint, Route};
use crate::core::hold::{HoldPolicy, ReleasePolicy, Unattended};
use crate::core::incident::Incident;
use crate::core::ledger::{Ledger, Native, Policy};
use crate::core::outbox::Entry;
use crate::core::recovery::{self, BootRecord, Verdict};
use crate::core::reducer::Rules;
use crate::core::supervisor::Signal;
use crate::store::checkpoints::{Scan, scan};
use crate::store::lease::{Asked, Lease, ask};
use crate::store::records::{read_boot, read_given_up, read_outbox};
use crate::store::{Directory, Layout, Place, Writer};
use crate::telemetry::events;

use super::engine::Start;
use super::process::{Liveness, boot_id, liveness, new_run_id};
use super::queue::{self, QueueState};
use super::run::RunPlan;
use super::said::{Said, name_of};
use super::signals::{Signals, to_nix};
use super::{boot, clock, incidents};

/// Set for a gateway that starts with interrupted sessions behind it.
const INTERRUPTED_VARIABLE: &str = "TIDEOVER_INTERRUPTED";
/// Most files that are named in the log; the rest are counted in `status`.
const FINDINGS_LOGGED_MAX: usize = 20;
/// How long a gateway of an earlier run that still dies may take, before this one starts beside it.
const OLD_GATEWAY_WAIT: Duration = Duration::from_secs(10);
/// How long a lease may outlive its supervisor: a child that was being started at its death holds it until it
/// dies too.
const OLD_LEASE_WAIT: Duration = Duration::from_millis(300);

/// The core's policy for some settings.
#[must_use]
pub(super) fn policy_of(settings: &Settings) -> Policy {
    Policy {
        hold: match settings.recovery.hold {
            HoldScope::Effects => HoldPolicy::Effects,
            HoldScope::All => HoldPolicy::All,
            HoldScope::Off => HoldPolicy::Off,
        },
        release: match settings.recovery.release {
            ReleaseSetting::AnyMessage => ReleasePolicy::AnyMessage,
            ReleaseSetting::Explicit => ReleasePolicy::Explicit,
        },
        native: match settings.recovery.native {
            NativePolicy::Ask => Native::Ask,
            NativePolicy::Ride => Native::Ride,
            NativePolicy::Native => Native::Native,
        },
        max_age_ms: i64::try_from(settings.recovery.max_age_ms).unwrap_or(i64::MAX),
        notify: settings.notice.enabled,
        rules: Rules {
            redact: settings.checkpoint.redact.clone(),
            read_only_tools: settings.recovery.read_only_tools.clone(),
        },
        unattended: match settings.recovery.unattended {
            UnattendedPolicy::Hold => Unattended::Hold,
            UnattendedPolicy::Native => Unattended::Native,
        },
        owner: settings.notice.owner.as_ref().map(route_of),
    }
}

fn route_of(owner: &OwnerSettings) -> Route {
    Route {
        channel: owner.channel.clone(),
        to: owner.to.clone(),
        account_id: owner.account_id.clone(),
        thread_id: owner.thread_id.clone(),
    }
}

/// Everything that is found or made before the child starts. Nothing in here can keep it from starting.
pub(super) struct Prepared {
    pub(super) start: Start,
    pub(super) listener: Option<std::os::unix::net::UnixListener>,
    pub(super) previous: Option<BootRecord>,
    pub(super) marked: Vec<String>,
    /// The incident that the run before could not write itself.
    pub(super) incident: Option<Incident>,
    _lease: Option<Lease>,
}

impl Prepared {
    /// Tells the plugin, before it can ask, that the gateway may have something to recover.
    pub(super) fn interrupted_variable(&self) -> Option<(OsString, OsString)> {
        let any = self.listener.is_some() && !self.start.ledger.interrupted().is_empty();
        any.then(|| (INTERRUPTED_VARIABLE.into(), "1".into()))
    }
}

pub(super) fn prepare(plan: &RunPlan) -> Prepared {
    let now = clock::now();
    let layout = Layout::new(&plan.state_dir);
    let mut degraded = BTreeMap::new();
    if let Some(problem) = &plan.config.problem {
        note(&mut degraded, "config", problem.to_string());
    }
    let (lease, supervises) = take_lease(&layout, &mut degraded);
    let listener = if supervises { bind(plan, &mut degraded) } else { None };
    let boot_id = boot_id();
    let found = if supervises { find(&layout, &mut degraded) } else { Found::default() };
    let run = new_run_id();
    let last_trace = found
        .scan
        .records
        .iter()
        .map(|record| record.updated_at)
        .chain(found.previous.as_ref().map(|record| record.started_at))
        .max()
        .unwrap_or(now);
    let before = recovery::verdict(found.previous.as_ref(), &boot_id, last_trace);
    let mut ledger = Ledger::new(policy_of(&plan.config.settings), found.scan.records, &run, now);
    let mut said = Said::before(&ledger);
    let incident = found.previous.as_ref().map_or(run.as_str(), |record| record.run.as_str());
    let cause = recovery::cause_after(&before, found.previous.as_ref());
    let marked = ledger.start(now, incident, cause, before.detail.clone(), before.at);
    tell(&before, &ledger, marked.len());
    said.say_cuts(&ledger);
    said.say_holds(&ledger);
    let previous = found.previous.as_ref();
    let incident = previous.and_then(|previous| {
        incidents::of_run_before(&layout, previous, &before, &ledger, &marked)
    });
    incidents::prune(&layout);
    let mut outbox = found.outbox;
    let queue = if supervises && plan.is_gateway {
        look_over_queue(plan, &layout, &ledger, &mut outbox, &mut degraded)
    } else {
        QueueState::default()
    };
    let store = if supervises { start_writer(layout.clone(), &mut degraded) } else { None };
    Prepared {
        start: Start {
            settings: plan.config.settings.clone(),
            ledger,
            said,
            boot: boot::begin(&run, &boot_id, now),
            before,
            names: found.scan.names,
            outbox,
            layout,
            queue,
            store,
            degraded,
        },
        listener,
        previous: found.previous,
        marked,
        incident,
        _lease: lease,
    }
}

fn note(degraded: &mut BTreeMap<&'static str, String>, concern: &'static str, why: String) {
    tracing::warn!(event = events::DEGRADED.name, concern, "degraded: {why}");
    degraded.insert(concern, why);
}

fn tell(before: &Verdict, ledger: &Ledger, marked: usize) {
    let open = ledger.interrupted().len();
    tracing::info!(
        event = events::START.name,
        previous = name_of(&before.kind),
        detail = before.detail,
        found = marked,
        open,
        "start"
    );
}

/// The lease, and whether this process may supervise. Without one that could be asked for it still does.
fn take_lease(
    layout: &Layout,
    degraded: &mut BTreeMap<&'static str, String>,
) -> (Option<Lease>, bool) {
    let mut asked = ask(&layout.directory(Place::State));
    let deadline = std::time::Instant::now() + OLD_LEASE_WAIT;
    while matches!(asked, Ok(Asked::Taken)) && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        asked = ask(&layout.directory(Place::State));
    }
    match asked {
        Ok(Asked::Held(lease)) => (Some(lease), true),
        Ok(Asked::Taken) => {
            let why = format!(
                "another tideover supervises {}; this gateway runs without checkpoints (see `tideover status`)",
                layout.state_dir().display()
            );
            note(degraded, "lease", why);
            (None, false)
        }
        Err(error) => {
            note(degraded, "lease", error.to_string());
            (None, true)
        }
    }
}

fn bind(
    plan: &RunPlan,
    degraded: &mut BTreeMap<&'static str, String>,
) -> Option<std::os::unix::net::UnixListener> {
    match socket::bind(&plan.socket) {
        Ok(listener) => Some(listener),
        Err(error) => {
            note(degraded, "socket", format!("{error}; nothing is journaled"));
            None
        }
    }
}

fn start_writer(layout: Layout, degraded: &mut BTreeMap<&'static str, String>) -> Option<Writer> {
    match Writer::start(layout) {
        Ok(writer) => Some(writer),
        Err(error) => {
            note(degraded, "checkpoints", format!("cannot start the writer: {error}"));
            None
        }
    }
}

/// The gateway's own queue, before it can touch it.
fn look_over_queue(
    plan: &RunPlan,
    layout: &Layout,
    ledger: &Ledger,
    outbox: &mut BTreeMap<String, Entry>,
    degraded: &mut BTreeMap<&'static str, String>,
) -> QueueState {
    let mut queue = QueueState::new(plan.config.settings.queue.retry, layout.state_dir());
    if let Ok(directory) = Directory::open(&layout.directory(Place::State)) {
        queue.given_up = read_given_up(&directory);
    }
    if !queue.in_files() {
        // What a run before kept back must not be forgotten here.
        let (count, problems) = queue::hand_back(layout, clock::now());
        if count > 0 {
            tracing::info!("{count} queued entries were put back into the gateway's queue");
        }
        if let Some(first) = problems.first() {
            note(degraded, "queue", first.clone());
        }
        return queue;
    }
    if TcpStream::connect((Ipv4Addr::LOCALHOST, plan.port)).is_ok() {
        let why =
            format!("port {} is in use; the queue was not looked over before the start", plan.port);
        note(degraded, "queue", why);
        return queue;
    }
    let covered =
        outbox.values().flat_map(|entry| entry.sessions.iter().map(|(_, id)| id.clone())).collect();
    let due = ledger.pending_notices(&covered);
    let held = |key: &str| ledger.get(key).is_some_and(Checkpoint::is_held);
    let notice_due = |route: &Route| {
        queue::notice_open(outbox.values(), route)
            || due.keys().flatten().any(|due| queue::same_address(due, route))
    };
    let facts = queue::Facts {
        now: clock::now(),
        held: &held,
        notice_open: &notice_due,
        ours: &|key| outbox.values().any(|entry| entry.owns_key(key)),
    };
    let pass = queue::before_start(layout, &facts);
    queue::say_pass(&pass);
    for key in &pass.answered {
        outbox.values_mut().for_each(|entry| entry.answered_before(key));
    }
    if let Some(first) = pass.problems.first() {
        note(degraded, "queue", first.clone());
    }
    if let Some(first) = pass.findings.first() {
        let why = format!(
            "{} file(s) in it are no entries; {}: {}",
            pass.findings.len(),
            first.name,
            first.what
        );
        note(degraded, "queue files", why);
    }
    queue
}

/// What the run before left on disk.
#[derive(Default)]
struct Found {
    previous: Option<BootRecord>,
    scan: Scan,
    outbox: BTreeMap<String, Entry>,
}

fn find(layout: &Layout, degraded: &mut BTreeMap<&'static str, String>) -> Found {
    let mut found = Found::default();
    match Directory::open_or_create(&layout.directory(Place::State))
        .map(|directory| read_boot(&directory))
    {
        Ok(Ok(previous)) => found.previous = previous,
        Ok(Err(problem)) => note(degraded, "boot record", problem),
        Err(error) => note(degraded, "boot record", error.to_string()),
    }
    match scan_checkpoints(layout) {
        Ok(scan) => {
            for finding in scan.findings.iter().take(FINDINGS_LOGGED_MAX) {
                let file = finding.path.display();
                tracing::warn!(file = %file, "checkpoint file not used: {}", finding.what);
            }
            if let Some(first) = scan.findings.first() {
                let (count, file) = (scan.findings.len(), first.path.display());
                let why = format!("{count} file(s) not used; {file}: {}", first.what);
                degraded.insert("checkpoint files", why);
            }
            found.scan = scan;
        }
        Err(error) => note(degraded, "checkpoints", error.to_string()),
    }
    if let Ok(directory) = Directory::open(&layout.directory(Place::Outbox)) {
        let (entries, problems) = read_outbox(&directory);
        for problem in problems.iter().take(FINDINGS_LOGGED_MAX) {
            tracing::warn!("outbox: {problem}; left alone");
        }
        if let Some(first) = problems.first() {
            let why = format!("{} file(s) left alone; {first}", problems.len());
            degraded.insert("outbox files", why);
        }
        found.outbox = entries
            .into_iter()
            .map(|mut entry| {
                entry.recover();
                (entry.key.clone(), entry)
            })
            .collect();
    }
    found
}

fn scan_checkpoints(layout: &Layout) -> Result<Scan, crate::store::StoreError> {
    let directory = Directory::open_or_create(&layout.directory(Place::Checkpoints))?;
    // On a read-only disk this fails, and every write after it says so.
    let _ = directory.make_private();
    let quarantine = Directory::open_or_create(&layout.quarantine()).ok();
    scan(&directory, quarantine.as_ref())
}

/// A gateway of the run before dies with its supervisor; two at once on one state would refuse each other.
///
/// Returns the number of a signal that asked to stop meanwhile: then no gateway is to be started at all.
pub(super) async fn await_old_gateway(
    previous: Option<&BootRecord>,
    signals: &mut Signals,
) -> Option<i32> {
    let old =
        previous.filter(|record| record.boot_id == boot_id()).and_then(|record| record.gateway)?;
    let deadline = Instant::now() + OLD_GATEWAY_WAIT;
    while liveness(old.pid, Some(old.start_ticks)) == Liveness::Alive {
        if Instant::now() >= deadline {
            tracing::warn!(
                pid = old.pid,
                "the gateway of the run before is still there; starting all the same"
            );
            return None;
        }
        tokio::select! {
            signal = signals.next() => match signal {
                Ok((Signal::Usr1 | Signal::Usr2, _)) | Err(_) => {}
                Ok((signal, who)) => {
                    tracing::info!(signal = who.signal, "stopped before the gateway was started");
                    return Some(to_nix(signal) as i32);
                }
            },
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    None
}
