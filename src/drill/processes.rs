//! Finding and ending processes of a scratch home, by what they are and never by a name.
//!
//! A gateway's commands leave its session and its process group and outlive it, so neither a group
//! nor the parent chain finds them all. Every one of them has the scratch home in its environment:
//! that is how they are found. A pid is signalled through a pidfd that was opened before the
//! environment was looked at, so a reused pid is never hit.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

pub use rustix::process::Signal;

use super::error::{DrillError, Result};

/// Environments larger than this are not searched to their end by the kernel anyway.
const ENVIRON_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A process that is held: it cannot be mistaken for another one.
#[derive(Debug)]
pub struct Held {
    pid: u32,
    fd: OwnedFd,
}

impl Held {
    /// Takes hold of a process.
    ///
    /// # Errors
    /// When there is none with this pid.
    pub fn open(pid: u32) -> Result<Self> {
        let failed = |why: &dyn std::fmt::Display| DrillError::Process {
            operation: "take hold of a process",
            detail: format!("pid {pid}: {why}"),
        };
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or_else(|| failed(&"not a pid"))?;
        let fd = pidfd_open(raw, PidfdFlags::empty()).map_err(|e| failed(&e))?;
        Ok(Self { pid, fd })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended and has been reaped.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.fd, signal).map_err(|error| DrillError::Process {
            operation: "signal a process",
            detail: format!("pid {}: {error}", self.pid),
        })
    }

    /// Whether it has ended (a zombie has).
    #[must_use]
    pub fn ended(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

/// How often a process without an environment is looked at, a millisecond apart.
const EXEC_LOOKS_MAX: u32 = 20;

/// All pids at this moment.
fn pids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// Parent pid and state letter out of `/proc/PID/stat`.
fn parent(pid: u32) -> Option<(u32, char)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, a parenthesis too.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// The living children of a process.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let is_child = |p: &u32| parent(*p).is_some_and(|(pp, state)| pp == pid && state != 'Z');
    pids().into_iter().filter(is_child).collect()
}

/// The program a process runs.
#[must_use]
pub fn executable(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

fn belongs(pid: u32, scratch: &Path) -> bool {
    let environ = environ(pid);
    let home = [b"HOME=".as_slice(), scratch.as_os_str().as_bytes(), b"/"].concat();
    environ.split(|byte| *byte == 0).any(|entry| entry.starts_with(&home))
}

/// The environment a process was started with; empty for what is none of ours.
///
/// A process in the middle of its exec shows an empty one although its parent runs on already: that
/// is waited out, or a process that was only just started would be taken for a stranger.
fn environ(pid: u32) -> Vec<u8> {
    for _ in 0..EXEC_LOOKS_MAX {
        let Ok(mut environ) = std::fs::read(format!("/proc/{pid}/environ")) else {
            return Vec::new();
        };
        let in_exec = environ.is_empty() && executable(pid).is_some();
        if !in_exec {
            environ.truncate(ENVIRON_BYTES_MAX);
            return environ;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Vec::new()
}

/// The living processes whose `HOME` is inside `scratch`, this process left out.
#[must_use]
pub fn of_scratch(scratch: &Path) -> Vec<Held> {
    if scratch.as_os_str() == OsStr::new("") {
        return Vec::new();
    }
    let own = std::process::id();
    let held = |pid: u32| {
        if pid == own {
            return None;
        }
        let held = Held::open(pid).ok()?;
        (belongs(pid, scratch) && !held.ended()).then_some(held)
    };
    pids().into_iter().filter_map(held).collect()
}

/// Kills every process of `scratch`, newcomers too, and waits for their end.
///
/// Returns how many were killed. Blocks for at most `limit`; fit for `Drop`.
pub fn kill_all(scratch: &Path, limit: Duration) -> usize {
    let since = Instant::now();
    let mut killed = 0;
    loop {
        let left = of_scratch(scratch);
        if left.is_empty() || since.elapsed() > limit {
            return killed;
        }
        for process in &left {
            killed += usize::from(process.signal(Signal::KILL).is_ok());
        }
        while since.elapsed() <= limit && !left.iter().all(Held::ended) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_processes_of_the_scratch_home_are_found_and_killed() -> Result<()> {
        // Named by pid: another run of this test must not meet this one's processes.
        let scratch = PathBuf::from(format!("/nonexistent/td-{}", std::process::id()));
        let (inside, beside) = (scratch.join("h"), scratch.with_extension("other").join("h"));
        let spawn = |home: &Path| {
            let mut command = std::process::Command::new("sleep");
            command.arg("60").env("HOME", home);
            command.spawn().map_err(DrillError::io("start", "sleep"))
        };
        let mut ours = spawn(&inside)?;
        let mut other = spawn(&beside)?;
        let killed = kill_all(&scratch, Duration::from_secs(5));
        let spared = other.try_wait().ok().flatten().is_none();
        drop((other.kill(), other.wait(), ours.wait()));
        assert_eq!(killed, 1);
        assert!(spared);
        Ok(())
    }
}
