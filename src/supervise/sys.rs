//! The only unsafe code of the package: the step between fork and exec, and descriptors on the event loop.

#![expect(unsafe_code, reason = "pre_exec and AsyncFd have no safe counterpart")]

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Pid, getpid, getppid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Makes the child start with `mask` as its signal mask and die with this process.
///
/// SIGKILL, not SIGTERM: a gateway without its supervisor would run effects that no checkpoint records.
/// Must be called, and the child spawned, on the main thread: the kernel ties the parent-death signal to the
/// thread that forked.
pub(super) fn prepare(command: &mut Command, mask: SigSet) {
    let parent: Pid = getpid();
    // SAFETY: the closure makes three system calls and touches no memory but its own copies; it allocates
    // nothing and takes no lock, so it is safe between fork and exec even with other threads around.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if getppid() != parent {
                // The parent died before the line above: nobody would ever kill us.
                return Err(Errno::ESRCH.into());
            }
            mask.thread_set_mask()?;
            Ok(())
        });
    }
}

/// A signalfd on the event loop.
pub(super) fn watch_signals(fd: SignalFd) -> std::io::Result<AsyncFd<SignalFd>> {
    // SAFETY: a SignalFd owns its descriptor and never exchanges it, and the AsyncFd owns the SignalFd.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(watched?)
}

/// A pidfd on the event loop.
pub(super) fn watch_fd(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd owns its descriptor and never exchanges it, and the AsyncFd owns the OwnedFd.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(watched?)
}
