//! The rehearsals that nothing else plays, on both gateways, with the binary as a user has it.
//!
//! Not here: `sigterm-mid-tool`, which `.ci/run` plays on both gateways right after the tests;
//! `sigkill-gateway`, which is how `resume` begins; `sigkill-tideover` and `sigkill-both`, since
//! `tests/kills.rs` cuts in the same way, at random moments.

mod support;

use support::{Outcome, available, slot, tell};
use tideover::drill::provision::Wanted;
use tideover::drill::scenario::{Staging, find, play};

async fn rehearse(name: &str, version: &str) -> Outcome {
    let wanted = Wanted::Version(version.to_owned());
    if !available(&wanted).await? {
        return Ok(());
    }
    let _slot = slot().await?;
    let mut staging = Staging::new(env!("CARGO_BIN_EXE_tideover"), wanted, tell());
    staging.keep = std::env::var_os("TIDEOVER_KEEP").is_some();
    let report = play(&find(name)?, &staging).await?;
    assert!(report.ok, "{name} on {version}:\n{}", report.failures());
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn resume_on_2026_9_6() -> Outcome {
    rehearse("resume", "2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn resume_on_2026_5_5() -> Outcome {
    rehearse("resume", "2026.5.5").await
}

#[tokio::test(flavor = "current_thread")]
async fn idle_restart_on_2026_9_6() -> Outcome {
    rehearse("idle-restart", "2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn idle_restart_on_2026_5_5() -> Outcome {
    rehearse("idle-restart", "2026.5.5").await
}

#[tokio::test(flavor = "current_thread")]
async fn background_command_on_2026_9_6() -> Outcome {
    rehearse("background-command", "2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn background_command_on_2026_5_5() -> Outcome {
    rehearse("background-command", "2026.5.5").await
}

#[tokio::test(flavor = "current_thread")]
async fn two_sessions_on_2026_9_6() -> Outcome {
    rehearse("two-sessions", "2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn two_sessions_on_2026_5_5() -> Outcome {
    rehearse("two-sessions", "2026.5.5").await
}
