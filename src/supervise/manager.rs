//! What goes down around a stop: one service, the user's service manager, or the host. Asked of systemd, since
//! nothing else tells a `systemctl restart` from a reboot.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::config::duration_ms;
use crate::core::recovery::GoingDown;

/// How long systemd may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// What a user manager has for its own stop, when it cannot be asked (systemd's `user@.service`).
const USER_MANAGER_STOP_MS: u64 = 120_000;
/// What is kept of it for leaving in good order.
const RESERVE_MS: u64 = 15_000;

/// The stop that a service's stop is a part of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Downfall {
    /// What goes down.
    pub(super) what: GoingDown,
    /// How long the gateway may drain from the stop's begin on, in milliseconds.
    pub(super) drain_ms: u64,
}

/// Asks whether more than this service is going down.
pub(super) async fn downfall() -> Option<Downfall> {
    let (user, host) =
        tokio::join!(ask(&["--user", "is-system-running"]), ask(&["is-system-running"]),);
    let stopping = |answer: &Option<String>| answer.as_deref() == Some("stopping");
    let what = match (stopping(&user), stopping(&host)) {
        (_, true) => GoingDown::Host,
        (true, false) => GoingDown::UserManager,
        (false, false) => return None,
    };
    Some(Downfall { what, drain_ms: drain_ms(user_manager_stop_ms().await) })
}

async fn user_manager_stop_ms() -> u64 {
    let unit = format!("user@{}.service", nix::unistd::getuid());
    let answer = ask(&["show", &unit, "--property=TimeoutStopUSec", "--value"]).await;
    answer.and_then(|text| duration_ms(&text)).unwrap_or(USER_MANAGER_STOP_MS)
}

/// The reserve comes off; where there is little, half of it.
fn drain_ms(stop_ms: u64) -> u64 {
    stop_ms.saturating_sub(RESERVE_MS).max(stop_ms / 2)
}

async fn ask(words: &[&str]) -> Option<String> {
    let asked = Command::new("systemctl")
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(ANSWER_MAX, asked).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_ends_before_the_manager_does() {
        assert_eq!(drain_ms(120_000), 105_000);
        assert_eq!(drain_ms(20_000), 10_000);
        assert_eq!(duration_ms("2min"), Some(120_000));
        assert_eq!(duration_ms("1min 30s"), Some(90_000));
        assert_eq!(duration_ms("infinity"), None);
    }
}
