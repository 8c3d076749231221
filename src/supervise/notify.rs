//! Speaking to the service manager (sd_notify) without ever waiting for it.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

use crate::gateway::launch::EnvSnapshot;

/// Longest status line, in bytes; systemd shows one line.
const STATUS_BYTES_MAX: usize = 512;

/// The service manager's notification socket, if there is one.
///
/// The `sd-notify` crate words the messages; the socket is ours, because the crate's would block on a manager
/// that does not read and takes an abstract name for a path.
#[derive(Debug)]
pub(super) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    status: String,
}

impl Notifier {
    /// From the environment that tideover was started with.
    pub(super) fn of(env: &EnvSnapshot) -> Self {
        let to = env.get(&OsString::from("NOTIFY_SOCKET")).and_then(|name| {
            let address = match name.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
                _ => SocketAddr::from_pathname(name),
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address.ok()?))
        });
        Self { to, status: String::new() }
    }

    /// Whether anybody listens.
    pub(super) fn is_active(&self) -> bool {
        self.to.is_some()
    }

    /// Sends messages in one datagram. A manager that does not take it gets the next one.
    pub(super) fn send(&self, states: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.to else { return };
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        let _ = socket.send_to_addr(lines.join("\n").as_bytes(), address);
    }

    /// Tells the status line where it changed.
    pub(super) fn status(&mut self, line: &str) {
        if !self.is_active() || line == self.status {
            return;
        }
        self.status = line.to_owned();
        // A line break would begin another message.
        let clean: String =
            line.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        let end = (0..=STATUS_BYTES_MAX.min(clean.len()))
            .rev()
            .find(|at| clean.is_char_boundary(*at))
            .unwrap_or(0);
        self.send(&[NotifyState::Status(&clean[..end])]);
    }
}

/// Whether systemd started this very process.
pub(super) fn is_managed(env: &EnvSnapshot) -> bool {
    let of = |name: &str| env.get(&OsString::from(name)).and_then(|value| value.to_str());
    of("NOTIFY_SOCKET").is_some()
        || of("SYSTEMD_EXEC_PID").is_some_and(|pid| pid == std::process::id().to_string())
}

/// The watchdog's limit in milliseconds, where one is set for this process.
pub(super) fn watchdog_ms(env: &EnvSnapshot) -> Option<u64> {
    let number = |name: &str| env.get(&OsString::from(name))?.to_str()?.parse::<u64>().ok();
    let meant_for_us =
        number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|usec| meant_for_us && *usec > 0).map(|usec| usec / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(entries: &[(&str, &str)]) -> EnvSnapshot {
        entries.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn speaks_to_paths_and_to_abstract_names_and_keeps_a_status_on_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let abstract_name = format!("tideover-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let listeners = [
            (path.to_str().unwrap().to_owned(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{abstract_name}"), UnixDatagram::bind_addr(&address).unwrap()),
        ];
        for (name, listener) in listeners {
            let mut notifier = Notifier::of(&env(&[("NOTIFY_SOCKET", &name)]));
            let mut heard = [0; 1024];
            notifier.send(&[NotifyState::Ready, NotifyState::Watchdog]);
            let len = listener.recv(&mut heard).unwrap();
            assert_eq!(&heard[..len], b"READY=1\nWATCHDOG=1");
            notifier.status("a\nMAINPID=1");
            let len = listener.recv(&mut heard).unwrap();
            assert_eq!(&heard[..len], b"STATUS=a MAINPID=1");
            notifier.status("a\nMAINPID=1");
            listener.set_nonblocking(true).unwrap();
            assert!(listener.recv(&mut heard).is_err(), "said once");
        }
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _listener = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::of(&env(&[("NOTIFY_SOCKET", path.to_str().unwrap())]));
        for _ in 0..10_000 {
            notifier.send(&[NotifyState::Watchdog]);
        }
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let me = std::process::id().to_string();
        assert_eq!(watchdog_ms(&env(&[])), None);
        assert_eq!(watchdog_ms(&env(&[("WATCHDOG_USEC", "180000000")])), Some(180_000));
        let with = |pid| watchdog_ms(&env(&[("WATCHDOG_USEC", "2000"), ("WATCHDOG_PID", pid)]));
        assert_eq!((with(me.as_str()), with("1")), (Some(2), None));
    }
}
