//! Watching background commands end, without polling: one pidfd each.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::mpsc;
use tokio::task::spawn_local;

use super::engine::{BackgroundCommand, Internal};
use super::sys;

/// Most background commands watched at once.
const WATCHES_MAX: usize = 256;
/// A command that ends this shortly before the gateway was probably ended with it.
const SETTLE: Duration = Duration::from_millis(1_500);

/// The watches under way.
#[derive(Debug, Default)]
pub(super) struct Watches {
    open: std::rc::Rc<()>,
}

impl Watches {
    /// Watches one process and reports its end, unless it is gone already when it is asked for.
    pub(super) fn watch(&self, pid: u32, command: BackgroundCommand, to: &mpsc::Sender<Internal>) {
        if std::rc::Rc::strong_count(&self.open) > WATCHES_MAX {
            return;
        }
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
        let ended = Internal::BackgroundEnded(command);
        let to = to.clone();
        let guard = std::rc::Rc::clone(&self.open);
        spawn_local(async move {
            match pidfd_open(pid, PidfdFlags::NONBLOCK) {
                Ok(fd) => match sys::watch_fd(fd) {
                    Ok(fd) => drop(fd.readable().await),
                    Err(_) => return,
                },
                // Gone before it could be watched.
                Err(Errno::SRCH) => {}
                Err(_) => return,
            }
            tokio::time::sleep(SETTLE).await;
            let _ = to.send(ended).await;
            drop(guard);
        });
    }
}
