//! The child: started on the main thread with its own streams and mask, signalled by the pid we hold.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::exit::ChildEnd;
use super::sys;

/// What to run.
#[derive(Clone, Debug)]
pub(super) struct ChildPlan {
    /// The program.
    pub(super) program: OsString,
    /// Its arguments.
    pub(super) args: Vec<OsString>,
    /// Variables that the child must not have.
    pub(super) env_remove: Vec<OsString>,
    /// Variables that the child gets.
    pub(super) env_set: Vec<(OsString, OsString)>,
}

/// A running child. Only this owns it: nobody else may reap it, so its pid stays ours.
#[derive(Debug)]
pub(super) struct Child {
    inner: tokio::process::Child,
    pid: u32,
}

impl Child {
    /// Starts it. `mask` is the signal mask it gets.
    pub(super) fn start(plan: &ChildPlan, mask: SigSet) -> std::io::Result<Self> {
        let mut command = Command::new(&plan.program);
        command
            .args(&plan.args)
            .stdin(Stdio::inherit())
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit());
        for name in &plan.env_remove {
            command.env_remove(name);
        }
        for (name, value) in &plan.env_set {
            command.env(name, value);
        }
        sys::prepare(&mut command, mask);
        let inner = tokio::process::Command::from(command).spawn()?;
        let pid = inner.id().unwrap_or_default();
        Ok(Self { inner, pid })
    }

    /// Its pid.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal; one that has just ended needs none.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(pid) = self.inner.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                tracing::error!(%error, signal = signal.as_str(), "cannot signal the gateway")
            }
        }
    }

    /// Waits for its end.
    pub(super) async fn wait(&mut self) -> std::io::Result<ChildEnd> {
        self.inner.wait().await.map(ChildEnd::of)
    }
}
