//! Every rehearsal, on both gateways, with the binary as a user has it.

mod support;

use support::{Outcome, VERSIONS, available, slot, tell};
use tideover::drill::provision::Wanted;
use tideover::drill::scenario::{Staging, find, play};

async fn rehearse(name: &str) -> Outcome {
    for version in VERSIONS {
        let wanted = Wanted::Version(version.to_owned());
        if !available(&wanted).await? {
            continue;
        }
        let _slot = slot().await?;
        let mut staging = Staging::new(env!("CARGO_BIN_EXE_tideover"), wanted, tell());
        staging.keep = std::env::var_os("TIDEOVER_KEEP").is_some();
        let report = play(&find(name)?, &staging).await?;
        assert!(report.ok, "{name} on {version}:\n{}", report.failures());
    }
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn sigterm_mid_tool() -> Outcome {
    rehearse("sigterm-mid-tool").await
}

#[tokio::test(flavor = "current_thread")]
async fn sigkill_gateway() -> Outcome {
    rehearse("sigkill-gateway").await
}

#[tokio::test(flavor = "current_thread")]
async fn sigkill_tideover() -> Outcome {
    rehearse("sigkill-tideover").await
}

#[tokio::test(flavor = "current_thread")]
async fn sigkill_both() -> Outcome {
    rehearse("sigkill-both").await
}

#[tokio::test(flavor = "current_thread")]
async fn idle_restart() -> Outcome {
    rehearse("idle-restart").await
}

#[tokio::test(flavor = "current_thread")]
async fn background_command() -> Outcome {
    rehearse("background-command").await
}

#[tokio::test(flavor = "current_thread")]
async fn two_sessions() -> Outcome {
    rehearse("two-sessions").await
}
