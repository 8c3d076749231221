//! The only unsafe code of the package: what runs before main, the step between fork and exec, and descriptors
//! on the event loop.

#![expect(
    unsafe_code,
    reason = "pre_exec, AsyncFd and signal dispositions have no safe counterpart"
)]

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Pid, getpid, getppid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Whether this process was started with SIGPIPE ignored, as services of systemd are.
static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Runs before main: the standard library ignores SIGPIPE there, whatever it was.
#[used]
// SAFETY: the section holds pointers to functions of this type, which the C library calls one after the other.
#[unsafe(link_section = ".init_array")]
static NOTE_SIGPIPE: extern "C" fn() = note_sigpipe;

extern "C" fn note_sigpipe() {
    let mut found = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only asks; `found` is a whole sigaction, valid when zeroed.
    let ignored = unsafe {
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), found.as_mut_ptr()) == 0
            && found.assume_init().sa_sigaction == libc::SIG_IGN
    };
    PIPE_WAS_IGNORED.store(ignored, Ordering::Relaxed);
}

/// Whether this process was started with SIGCHLD ignored.
static CHLD_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Takes SIGCHLD back from whoever ignored it: the kernel would throw the child's exit status away.
pub(super) fn keep_exit_statuses() -> nix::Result<()> {
    // SAFETY: the default action has no handler that could be unsound.
    let found = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    CHLD_WAS_IGNORED.store(matches!(found, SigHandler::SigIgn), Ordering::Relaxed);
    Ok(())
}

/// Makes the child start with `mask` as its signal mask, with SIGPIPE and SIGCHLD as this process found them,
/// and die with this process.
///
/// SIGKILL, not SIGTERM: a gateway without its supervisor would run effects that no checkpoint records.
/// Must be called, and the child spawned, on the main thread: the kernel ties the parent-death signal to the
/// thread that forked.
pub(super) fn prepare(command: &mut Command, mask: SigSet) {
    let parent: Pid = getpid();
    let ignore_pipe = PIPE_WAS_IGNORED.load(Ordering::Relaxed);
    let ignore_chld = CHLD_WAS_IGNORED.load(Ordering::Relaxed);
    // SAFETY: the closure makes a few system calls and touches no memory but its own copies; it allocates
    // nothing and takes no lock, so it is safe between fork and exec even with other threads around.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if getppid() != parent {
                // The parent died before the line above: nobody would ever kill us.
                return Err(Errno::ESRCH.into());
            }
            if ignore_pipe {
                signal(Signal::SIGPIPE, SigHandler::SigIgn)?;
            }
            if ignore_chld {
                signal(Signal::SIGCHLD, SigHandler::SigIgn)?;
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
