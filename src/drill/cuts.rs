//! How the gateway is taken down, and what tideover must do with it.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use super::error::Result;
use super::gateway_proc::Target;
use super::http;
use super::processes::Signal;
use super::progress::until;
use super::rig::Rig;
use super::scenario::Cut;
use super::story::{Story, checks};

/// What a service manager's `TimeoutStopSec=` is in a rehearsal.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest that an idle gateway may take to end.
const IDLE_STOP_MAX: Duration = Duration::from_secs(40);
/// Longest that tideover may outlive its gateway.
const EXIT_MAX: Duration = Duration::from_secs(10);

/// Takes the gateway down.
///
/// # Errors
/// When a process cannot be signalled, or does not end.
pub async fn cut(cut: Cut, rig: &mut Rig, story: &mut Story) -> Result<()> {
    match cut {
        Cut::Stop => {
            rig.proc()?.signal(Target::Command, Signal::TERM)?;
            story.step("SIGTERM to tideover", "nothing is in flight");
            same_exit(rig, story, None, IDLE_STOP_MAX).await
        }
        Cut::StopThenKill => stop_then_kill(rig, story).await,
        Cut::KillGateway => {
            rig.proc()?.signal(Target::Gateway, Signal::KILL)?;
            story.step("SIGKILL to the gateway", "");
            same_exit(rig, story, Some(9), EXIT_MAX).await
        }
        Cut::KillTideover | Cut::KillBoth => {
            let proc = rig.proc()?;
            // Held first: afterwards nobody is its parent any more.
            proc.gateway_pid()?;
            proc.signal(Target::Command, Signal::KILL)?;
            if cut == Cut::KillBoth {
                proc.signal(Target::Gateway, Signal::KILL)?;
            }
            proc.exited(EXIT_MAX).await?;
            let alone = proc.gateway_ended(STOP_TIMEOUT).await.is_err();
            let killed = proc.kill_all();
            let what = if cut == Cut::KillBoth { "SIGKILL to both" } else { "SIGKILL to tideover" };
            let end = if alone { "lived on and was killed" } else { "ended with it" };
            story.step(what, format!("the gateway {end}; {killed} processes swept"));
            Ok(())
        }
    }
}

async fn stop_then_kill(rig: &mut Rig, story: &mut Story) -> Result<()> {
    let (port, file_log) = (rig.home.port, rig.home.root().join("logs/gateway-file.log"));
    let proc = rig.proc()?;
    proc.gateway_pid()?;
    proc.signal(Target::Command, Signal::TERM)?;
    story.step("SIGTERM to tideover", "a tool is in flight");
    let proc = &*proc;
    let passed = until("SIGTERM at the gateway", STOP_TIMEOUT, || async {
        let drains = http::get(port, "/startupz").await.is_ok_and(|(_, b)| b.contains("draining"));
        let logged = std::fs::read(&file_log).unwrap_or_default();
        let logged = String::from_utf8_lossy(&logged).contains("SIGTERM");
        let seen = drains || logged || proc.ended(Target::Gateway);
        seen.then_some(()).ok_or_else(|| "the gateway shows no sign of it".to_owned())
    })
    .await;
    let detail = passed.as_ref().map_or_else(ToString::to_string, |()| "seen there".to_owned());
    story.check(checks::SIGTERM_PASSED_ON, "", passed.is_ok(), detail);
    if proc.gateway_ended(STOP_TIMEOUT).await.is_ok() {
        story.step("the gateway ended by itself", "it does not drain");
        return same_exit(rig, story, None, EXIT_MAX).await;
    }
    rig.proc()?.signal(Target::Gateway, Signal::KILL)?;
    story.step("the stop timeout is over: SIGKILL to the gateway", "it was draining");
    same_exit(rig, story, Some(9), EXIT_MAX).await
}

/// tideover ends as its gateway did: by this signal, or with code 0.
async fn same_exit(
    rig: &mut Rig,
    story: &mut Story,
    signal: Option<i32>,
    limit: Duration,
) -> Result<()> {
    let status = rig.proc()?.exited(limit).await?;
    let ok = match signal {
        Some(signal) => status.signal() == Some(signal),
        None => status.code() == Some(0),
    };
    story.check(checks::SAME_EXIT, "", ok, format!("tideover: {status}"));
    Ok(())
}
