//! The signals that tideover forwards, read with their sender from a signalfd.

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use tokio::io::unix::AsyncFd;

use crate::core::recovery::StopRequest;
use crate::core::supervisor::Signal;

use super::{clock, process, sys};

const FORWARDED: [(NixSignal, Signal); 6] = [
    (NixSignal::SIGTERM, Signal::Term),
    (NixSignal::SIGINT, Signal::Int),
    (NixSignal::SIGHUP, Signal::Hup),
    (NixSignal::SIGQUIT, Signal::Quit),
    (NixSignal::SIGUSR1, Signal::Usr1),
    (NixSignal::SIGUSR2, Signal::Usr2),
];

/// The name of a signal in the system's terms.
pub(super) fn to_nix(signal: Signal) -> NixSignal {
    match signal {
        Signal::Term => NixSignal::SIGTERM,
        Signal::Int => NixSignal::SIGINT,
        Signal::Hup => NixSignal::SIGHUP,
        Signal::Quit => NixSignal::SIGQUIT,
        Signal::Usr1 => NixSignal::SIGUSR1,
        Signal::Usr2 => NixSignal::SIGUSR2,
    }
}

/// Blocks the forwarded signals in this thread and all that it starts. Returns the mask as it was found, which
/// is what the child must get.
///
/// # Errors
/// When the mask cannot be set.
pub(super) fn block() -> nix::Result<SigSet> {
    let before = SigSet::thread_get_mask()?;
    wanted().thread_block()?;
    Ok(before)
}

fn wanted() -> SigSet {
    FORWARDED.iter().map(|(signal, _)| *signal).collect()
}

/// The stream of forwarded signals.
#[derive(Debug)]
pub(super) struct Signals {
    fd: AsyncFd<SignalFd>,
}

impl Signals {
    /// Opens the stream. [`block`] must have been called before any thread was made.
    pub(super) fn open() -> std::io::Result<Self> {
        let fd = SignalFd::with_flags(&wanted(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd: sys::watch_signals(fd)? })
    }

    /// The next signal and who sent it.
    pub(super) async fn next(&mut self) -> std::io::Result<(Signal, StopRequest)> {
        loop {
            let mut ready = self.fd.readable_mut().await?;
            match ready.get_inner_mut().read_signal() {
                Ok(Some(info)) => {
                    let found = FORWARDED
                        .iter()
                        .find(|(signal, _)| u32::try_from(*signal as i32) == Ok(info.ssi_signo));
                    if let Some((system, signal)) = found {
                        return Ok((*signal, sender(*system, &info)));
                    }
                }
                Ok(None) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// `si_code` of a signal that the kernel sent by itself, as a terminal's driver does for Ctrl-C.
const SI_KERNEL: i32 = 0x80;

fn sender(signal: NixSignal, info: &siginfo) -> StopRequest {
    let (pid, uid) = (info.ssi_pid, info.ssi_uid);
    StopRequest {
        signal: signal.as_str().to_owned(),
        pid,
        uid,
        from_terminal: info.ssi_code == SI_KERNEL,
        executable: process::executable(pid),
        unit: process::unit(pid),
        going_down: None,
        at: clock::now(),
    }
}
