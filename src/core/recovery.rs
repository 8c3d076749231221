//! After a start: how the run before ended, which sessions it cut, and what each of them gets.

use serde::{Deserialize, Serialize};

use super::checkpoint::{Cause, Checkpoint, HoldStatus, NoticeStatus};
use super::stamp::Stamp;

/// The schema of the boot record this build writes.
pub const BOOT_SCHEMA: &str = "tideover.boot/1";

/// What one run of the supervisor leaves on disk about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRecord {
    /// `tideover.boot/1`.
    pub schema: String,
    /// Id of this run of the supervisor.
    pub run: String,
    /// The kernel's boot id: another one means that the host went down in between.
    pub boot_id: String,
    /// The supervisor's process.
    pub supervisor: ProcessRef,
    /// The gateway's process, once it was started.
    #[serde(default)]
    pub gateway: Option<ProcessRef>,
    /// When the run began.
    pub started_at: Stamp,
    /// How far it came.
    pub phase: Phase,
    /// Who asked it to stop.
    #[serde(default)]
    pub stop: Option<StopRequest>,
    /// Since when the gateway was given up as frozen, if it was: the watchdog then ends both.
    #[serde(default)]
    pub frozen_at: Option<Stamp>,
    /// How the gateway ended.
    #[serde(default)]
    pub exit: Option<ExitFact>,
}

/// A process that a reused pid cannot pass for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since the kernel's boot.
    pub start_ticks: u64,
}

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The gateway runs, or is about to.
    Running,
    /// A stop was asked for and the gateway has not ended yet.
    Stopping,
    /// The gateway ended and tideover saw it.
    Exited,
}

/// Who asked for the stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// The signal's name, `SIGTERM`.
    pub signal: String,
    /// The sender's process, 0 for the kernel.
    pub pid: u32,
    /// The sender's user.
    pub uid: u32,
    /// Whether the terminal sent it to its whole foreground group, the child included.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_terminal: bool,
    /// The sender's executable, where it could still be read.
    #[serde(default)]
    pub executable: Option<String>,
    /// The sender's unit or scope, where it could still be read.
    #[serde(default)]
    pub unit: Option<String>,
    /// Whether the service manager or the whole host was going down when it was asked.
    #[serde(default)]
    pub going_down: Option<GoingDown>,
    /// When it arrived.
    pub at: Stamp,
}

/// What goes down around a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoingDown {
    /// The user's service manager: a logout without lingering, or a restart of it.
    UserManager,
    /// The host.
    Host,
}

impl GoingDown {
    /// In words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::UserManager => "the user's service manager is going down",
            Self::Host => "the host is going down",
        }
    }
}

/// How a gateway process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitFact {
    /// Its exit code, if it ended by itself.
    #[serde(default)]
    pub code: Option<i32>,
    /// The signal's number that killed it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Whether it left a core file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub core: bool,
    /// Processes that the kernel killed in the unit's control group for want of memory, where that is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// When tideover saw it.
    pub at: Stamp,
}

impl StopRequest {
    /// `SIGTERM from pid 1 (/usr/lib/systemd/systemd, init.scope), uid 0`.
    #[must_use]
    pub fn describe(&self) -> String {
        let who = self.executable.as_deref().unwrap_or("executable unknown");
        let unit = self.unit.as_ref().map_or(String::new(), |unit| format!(", {unit}"));
        let asked =
            format!("{} from pid {} ({who}{unit}), uid {}", self.signal, self.pid, self.uid);
        match self.going_down {
            Some(going_down) => format!("{}: {asked}", going_down.describe()),
            None => asked,
        }
    }
}

impl StopRequest {
    /// Whether the whole host was going down.
    #[must_use]
    pub fn host_goes_down(&self) -> bool {
        self.going_down == Some(GoingDown::Host)
    }
}

impl ExitFact {
    /// `exit code 1`, `signal 9 (out of memory)`.
    #[must_use]
    pub fn describe(&self) -> String {
        let end = match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "end not known".to_owned(),
        };
        let core = if self.core { ", core dumped" } else { "" };
        // The count is the whole group's over the whole run: it may have been a tool.
        let starved = self.signal == Some(9) && self.oom_kills.is_some_and(|kills| kills > 0);
        let memory = if starved { " (out of memory)" } else { "" };
        format!("{end}{core}{memory}")
    }
}

/// Why work that was open when a gateway ended was cut, seen by the parent that saw the end.
#[must_use]
pub fn cause_of_exit(stop: Option<&StopRequest>, exit: &ExitFact) -> (Cause, String) {
    match stop {
        Some(stop) if stop.host_goes_down() => (
            Cause::HostReboot,
            format!("{}; the gateway ended with {}", stop.describe(), exit.describe()),
        ),
        Some(stop) if stop.signal == "SIGTERM" => (
            Cause::Sigterm,
            format!("{}; the gateway ended with {}", stop.describe(), exit.describe()),
        ),
        Some(stop) => (
            Cause::OtherSignal,
            format!("{}; the gateway ended with {}", stop.describe(), exit.describe()),
        ),
        None => match (exit.code, exit.signal) {
            (None, Some(_)) => (Cause::GatewayKilled, exit.describe()),
            (Some(0), _) => {
                (Cause::GatewayRestart, "the gateway ended by itself with code 0".to_owned())
            }
            (Some(_), _) | (None, None) => (Cause::GatewayExit, exit.describe()),
        },
    }
}

/// How the run before ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What kind of end it was.
    pub kind: VerdictKind,
    /// In words.
    pub detail: String,
    /// When it ended, as well as that is known.
    pub at: Stamp,
}

/// What kind of end a run had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// There was no run before.
    First,
    /// Stopped on request.
    CleanStop,
    /// The gateway restarted itself.
    SelfRestart,
    /// The gateway ended with a code of its own.
    GatewayExit,
    /// The gateway was killed by a signal nobody asked tideover for.
    GatewayKilled,
    /// The gateway did not answer any more and the watchdog ended it.
    GatewayFrozen,
    /// tideover was killed.
    TideoverKilled,
    /// The host went down while a stop was under way.
    HostReboot,
    /// The host went down without a stop.
    PowerCut,
    /// The record of the run before cannot be read.
    Unreadable,
}

/// Tells the end of the run before apart. `last_trace` is the newest stamp any file bears.
#[must_use]
pub fn verdict(before: Option<&BootRecord>, boot_id: &str, last_trace: Stamp) -> Verdict {
    let Some(before) = before else {
        return Verdict {
            kind: VerdictKind::First,
            detail: "first start".to_owned(),
            at: last_trace,
        };
    };
    let another_boot = before.boot_id != boot_id;
    let (kind, detail, at) = match (before.phase, &before.exit) {
        (Phase::Exited, Some(exit)) => {
            let (cause, detail) = cause_of_exit(before.stop.as_ref(), exit);
            (kind_of_exit(cause, exit), detail, exit.at)
        }
        (Phase::Stopping | Phase::Exited, _) => {
            let asked = before.stop.as_ref().map_or(String::new(), StopRequest::describe);
            if another_boot {
                (
                    VerdictKind::HostReboot,
                    format!("{asked}; the host went down before the gateway ended"),
                    last_trace,
                )
            } else {
                (
                    VerdictKind::TideoverKilled,
                    format!("{asked}; then tideover was killed"),
                    last_trace,
                )
            }
        }
        (Phase::Running, _) if before.frozen_at.is_some() => {
            let detail = "the gateway did not answer any more; the watchdog ended it";
            (VerdictKind::GatewayFrozen, detail.to_owned(), before.frozen_at.unwrap_or(last_trace))
        }
        (Phase::Running, _) if another_boot => {
            (VerdictKind::PowerCut, "the host went down without a stop".to_owned(), last_trace)
        }
        (Phase::Running, _) => (
            VerdictKind::TideoverKilled,
            "tideover was killed without a stop".to_owned(),
            last_trace,
        ),
    };
    Verdict { kind, detail, at: at.max(before.started_at) }
}

/// What kind of end a run had whose gateway ended for this cause.
#[must_use]
pub fn kind_of_exit(cause: Cause, exit: &ExitFact) -> VerdictKind {
    match cause {
        Cause::Sigterm | Cause::OtherSignal => VerdictKind::CleanStop,
        Cause::GatewayRestart => VerdictKind::SelfRestart,
        Cause::GatewayKilled => VerdictKind::GatewayKilled,
        Cause::HostReboot => VerdictKind::HostReboot,
        Cause::GatewayFrozen => VerdictKind::GatewayFrozen,
        Cause::GatewayExit
        | Cause::InProcessRestart
        | Cause::TideoverKilled
        | Cause::PowerCut
        | Cause::SessionReplaced
        | Cause::Unknown => {
            if exit.signal.is_some() {
                VerdictKind::GatewayKilled
            } else {
                VerdictKind::GatewayExit
            }
        }
    }
}

/// The cause that sessions get which the run before could not mark itself.
#[must_use]
pub fn cause_after(verdict: &Verdict, before: Option<&BootRecord>) -> Cause {
    let stop = before.and_then(|record| record.stop.as_ref());
    let asked_to_stop = stop.is_some();
    let stop_cause = if stop.is_some_and(|stop| stop.signal != "SIGTERM") {
        Cause::OtherSignal
    } else {
        Cause::Sigterm
    };
    match verdict.kind {
        VerdictKind::First | VerdictKind::Unreadable => Cause::Unknown,
        VerdictKind::CleanStop => stop_cause,
        VerdictKind::SelfRestart => Cause::GatewayRestart,
        VerdictKind::GatewayExit => Cause::GatewayExit,
        VerdictKind::GatewayKilled => Cause::GatewayKilled,
        VerdictKind::GatewayFrozen => Cause::GatewayFrozen,
        VerdictKind::TideoverKilled if stop.is_some_and(StopRequest::host_goes_down) => {
            Cause::HostReboot
        }
        // Killed while a stop was under way: the stop is why the work was cut.
        VerdictKind::TideoverKilled if asked_to_stop => stop_cause,
        VerdictKind::TideoverKilled => Cause::TideoverKilled,
        VerdictKind::HostReboot => Cause::HostReboot,
        VerdictKind::PowerCut => Cause::PowerCut,
    }
}

/// What a start does with one checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAction {
    /// Nothing was cut, or it was dealt with.
    Leave,
    /// It was in flight when the run before ended and nobody marked it.
    Interrupt,
    /// It is marked and still waits: hold, text and notice go on.
    Continue,
    /// It waits, but is older than `max_age`.
    Expire,
}

/// Decides what a start does with one checkpoint.
#[must_use]
pub fn start_action(record: &Checkpoint, now: Stamp, max_age_ms: i64) -> StartAction {
    let age_ms = now.since_ms(record.updated_at);
    if record.in_flight() {
        return StartAction::Interrupt;
    }
    match &record.interruption {
        Some(cut) if cut.status == HoldStatus::Expired => StartAction::Leave,
        Some(cut) => {
            let waits = cut.status == HoldStatus::Held
                || record.is_untold()
                || matches!(cut.notice, NoticeStatus::Pending | NoticeStatus::Uncertain);
            match (waits, age_ms > max_age_ms) {
                (false, _) => StartAction::Leave,
                (true, false) => StartAction::Continue,
                (true, true) => StartAction::Expire,
            }
        }
        None => StartAction::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Stamp = Stamp::from_ms(1_000);
    const T1: Stamp = Stamp::from_ms(2_000);

    fn record(phase: Phase, stop: bool, exit: Option<(Option<i32>, Option<i32>)>) -> BootRecord {
        let me = ProcessRef { pid: 7, start_ticks: 9 };
        BootRecord {
            schema: BOOT_SCHEMA.to_owned(),
            run: "r".to_owned(),
            boot_id: "A".to_owned(),
            supervisor: me,
            gateway: Some(me),
            started_at: T0,
            phase,
            stop: stop.then(|| StopRequest {
                signal: "SIGTERM".to_owned(),
                pid: 1,
                uid: 0,
                from_terminal: false,
                executable: None,
                unit: None,
                going_down: None,
                at: T1,
            }),
            frozen_at: None,
            exit: exit.map(|(code, signal)| ExitFact {
                code,
                signal,
                core: false,
                oom_kills: None,
                at: T1,
            }),
        }
    }

    fn down(mut record: BootRecord) -> BootRecord {
        if let Some(stop) = &mut record.stop {
            stop.going_down = Some(GoingDown::Host);
        }
        record
    }

    #[test]
    fn the_ends_are_told_apart() {
        use VerdictKind as K;
        for (before, boot, kind, cause) in [
            (None, "A", K::First, Cause::Unknown),
            (
                Some(record(Phase::Exited, true, Some((Some(0), None)))),
                "A",
                K::CleanStop,
                Cause::Sigterm,
            ),
            (
                Some(record(Phase::Exited, true, Some((Some(0), None)))),
                "B",
                K::CleanStop,
                Cause::Sigterm,
            ),
            (
                Some(record(Phase::Exited, false, Some((Some(0), None)))),
                "A",
                K::SelfRestart,
                Cause::GatewayRestart,
            ),
            (
                Some(record(Phase::Exited, false, Some((Some(1), None)))),
                "A",
                K::GatewayExit,
                Cause::GatewayExit,
            ),
            (
                Some(record(Phase::Exited, false, Some((None, Some(9))))),
                "A",
                K::GatewayKilled,
                Cause::GatewayKilled,
            ),
            (
                Some(record(Phase::Running, false, None)),
                "A",
                K::TideoverKilled,
                Cause::TideoverKilled,
            ),
            (Some(record(Phase::Running, false, None)), "B", K::PowerCut, Cause::PowerCut),
            (Some(record(Phase::Stopping, true, None)), "A", K::TideoverKilled, Cause::Sigterm),
            (Some(record(Phase::Stopping, true, None)), "B", K::HostReboot, Cause::HostReboot),
            (
                Some(BootRecord { frozen_at: Some(T1), ..record(Phase::Running, false, None) }),
                "A",
                K::GatewayFrozen,
                Cause::GatewayFrozen,
            ),
            (
                Some(down(record(Phase::Exited, true, Some((Some(0), None))))),
                "B",
                K::HostReboot,
                Cause::HostReboot,
            ),
            (
                Some(down(record(Phase::Stopping, true, None))),
                "A",
                K::TideoverKilled,
                Cause::HostReboot,
            ),
        ] {
            let verdict = verdict(before.as_ref(), boot, T1);
            assert_eq!(verdict.kind, kind, "{before:?} {boot}");
            assert_eq!(cause_after(&verdict, before.as_ref()), cause, "{before:?} {boot}");
        }
    }
}
