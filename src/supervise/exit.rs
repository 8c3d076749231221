//! Leaving exactly as the child did: the same code, or the same signal without a second core file.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::getpid;

use crate::core::recovery::ExitFact;
use crate::core::stamp::Stamp;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEnd {
    /// By itself, with a code.
    Code(i32),
    /// By a signal.
    Signal {
        /// Its number.
        number: i32,
        /// Whether it left a core file.
        core: bool,
    },
}

impl ChildEnd {
    /// What a wait status says.
    #[must_use]
    pub fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(number)) => Self::Signal { number, core: status.core_dumped() },
            // A stopped child is not waited for, so this cannot be; a failure is the honest answer.
            (None, None) => Self::Code(1),
        }
    }

    /// The same, as the records have it.
    #[must_use]
    pub fn fact(self, at: Stamp, oom_kills: Option<u64>) -> ExitFact {
        let (code, signal, core) = match self {
            Self::Code(code) => (Some(code), None, false),
            Self::Signal { number, core } => (None, Some(number), core),
        };
        ExitFact { code, signal, core, oom_kills, at }
    }
}

/// Ends this process as the child ended. Returns the exit code to use where that is a code, or where the
/// signal would not end this process.
#[must_use]
pub fn leave_like(end: ChildEnd) -> i32 {
    match end {
        ChildEnd::Code(code) => code,
        ChildEnd::Signal { number, .. } => {
            die_of(number);
            128 + number
        }
    }
}

/// From here on this process leaves no core file.
pub(super) fn leave_no_core() {
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = prctl::set_dumpable(false);
}

fn die_of(number: i32) {
    // The child's core, if any, is the evidence; ours would only overwrite it.
    leave_no_core();
    let Ok(signal) = Signal::try_from(number) else { return };
    let mut only = SigSet::empty();
    only.add(signal);
    if signal == Signal::SIGKILL {
        let _ = kill(getpid(), signal);
        return;
    }
    // Blocked, the signal would wait for ever; its default must be back before it may arrive.
    let _ = only.thread_unblock();
    let _ = signal_hook::low_level::emulate_default_handler(number);
}
