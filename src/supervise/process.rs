//! What /proc says: start times, executables, the kernel's boot id.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use crate::core::recovery::ProcessRef;
use crate::core::stamp::Stamp;

/// The kernel's boot id; `unknown` where it cannot be read.
#[must_use]
pub fn boot_id() -> String {
    read_trimmed("/proc/sys/kernel/random/boot_id").unwrap_or_else(|| "unknown".to_owned())
}

/// A new id for this run of the supervisor.
pub(super) fn new_run_id() -> String {
    read_trimmed("/proc/sys/kernel/random/uuid")
        .unwrap_or_else(|| format!("{}-{}", std::process::id(), super::clock::now().as_ms()))
}

/// A process with its start time; `None` when it is gone.
pub(super) fn process_ref(pid: u32) -> Option<ProcessRef> {
    Some(ProcessRef { pid, start_ticks: start_ticks(pid)? })
}

/// Start time of a process in clock ticks since boot: field 22 of its stat line.
pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    stat_after_name(pid)?.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// When the host booted, as the kernel's own clock has it.
pub(super) fn booted_at() -> Option<Stamp> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(Stamp::from_ms(line.trim().parse::<i64>().ok()?.checked_mul(1_000)?))
}

/// When a process began, to a second or so.
pub(super) fn started_at(pid: u32, booted_at: Stamp) -> Option<Stamp> {
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    let since_ms = start_ticks(pid)?.checked_mul(1_000)?.checked_div(per_second)?;
    Some(booted_at.plus_ms(i64::try_from(since_ms).ok()?))
}

/// The fields of a process's stat line from the third on, its state.
fn stat_after_name(pid: u32) -> Option<String> {
    let mut stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses itself: go by the last one.
    Some(stat.split_off(stat.rfind(')')? + 1))
}

/// Whether a process is `ancestor` or one of its descendants.
pub(super) fn descends_from(pid: u32, ancestor: u32) -> bool {
    const GENERATIONS_MAX: usize = 16;
    let parent = |pid: u32| -> Option<u32> {
        stat_after_name(pid)?.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    std::iter::successors(Some(pid), |pid| parent(*pid))
        .take(GENERATIONS_MAX)
        .any(|pid| pid == ancestor)
}

/// The executable of a process, while it can still be read.
pub(super) fn executable(pid: u32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(path.to_string_lossy().into_owned())
}

/// The systemd unit of a process: the last part of its control group that names one.
pub(super) fn unit(pid: u32) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    group.rsplit('/').find(is_unit).map(str::to_owned)
}

/// Processor time that a process has used, its ended children's included, in clock ticks.
pub(super) fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = stat_after_name(pid)?;
    let fields = stat.split_ascii_whitespace();
    Some(fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// How many processes of this process's control group the kernel has killed for want of memory.
pub(super) fn oom_kills() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let (path, file) = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        match (parts.next()?, parts.next()?) {
            ("", path) => Some((format!("/sys/fs/cgroup{path}"), "memory.events")),
            ("memory", path) => {
                Some((format!("/sys/fs/cgroup/memory{path}"), "memory.oom_control"))
            }
            _ => None,
        }
    })?;
    let text = fs::read_to_string(format!("{path}/{file}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Whether a process is a Node program, to which an unhandled SIGUSR1 opens a debugger.
pub(super) fn is_node(pid: u32) -> bool {
    executable(pid)
        .is_some_and(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with("node")))
}

/// Whether a recorded process still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// The very same process runs.
    Alive,
    /// It is gone, or its pid is another process now.
    Gone,
}

/// Whether the very process that was recorded still runs (a zombie does not count).
#[must_use]
pub fn liveness(pid: u32, ticks: Option<u64>) -> Liveness {
    let same = start_ticks(pid).is_some_and(|found| ticks.is_none_or(|ticks| ticks == found));
    let zombie = stat_after_name(pid)
        .and_then(|stat| stat.trim_start().chars().next())
        .is_some_and(|state| matches!(state, 'Z' | 'X'));
    if same && !zombie { Liveness::Alive } else { Liveness::Gone }
}

fn read_trimmed(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_itself_and_not_a_reused_pid() {
        let me = process_ref(std::process::id()).unwrap();
        assert_eq!(liveness(me.pid, Some(me.start_ticks)), Liveness::Alive);
        assert_eq!(liveness(me.pid, Some(me.start_ticks + 1)), Liveness::Gone);
        assert!(boot_id().len() > 30);
        assert!(cpu_ticks(me.pid).is_some() && cpu_ticks(u32::MAX).is_none());
    }
}
