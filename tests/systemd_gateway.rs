//! A real gateway behind tideover in its own user unit, under a real systemd: a tool is cut, and only
//! what the user confirms goes on.

#![cfg(test)]

mod support;

use std::time::Duration;

use support::lab_gateway::{GatewayOptions, LabGateway, UNIT};
use support::unit::{Cut, Run};
use support::{Outcome, tell};
use tideover::drill::acts::Cast;
use tideover::drill::checkpoint;
use tideover::drill::scenario::Work;
use tideover::drill::story::{Story, checks};

const CHAT: i64 = 4242;
/// Longest that the unit may take to come back, a stop of [`SERVICE`] and `RestartSec=5` included.
const BACK_MAX: Duration = Duration::from_secs(90);

/// The stop timeout is short, so that a gateway that waits for its tool is cut in the test's time.
const SERVICE: &str = "Type=simple\nKillMode=mixed\nTimeoutStopSec=20";

/// The whole story of one cut.
async fn play(gateway: &LabGateway, cut: Cut, story: &mut Story) -> Outcome {
    let (lab, stage) = (&gateway.lab, gateway.stage());
    gateway.put_tideover_in_front(SERVICE)?;
    lab.systemctl(&["start", UNIT])?;
    gateway.ready().await?;
    story.step("the unit has started", &gateway.version);
    let run = Run::of(lab, UNIT, BACK_MAX)?;

    let cast = Cast::new(&stage, Work::Call, &[CHAT])?;
    cast.act_work(&stage, story).await?;
    run.down(lab, UNIT, cut, BACK_MAX)?;
    story.step("the gateway is down", format!("{cut:?}"));
    let scene = cast.before_restart(&stage);
    cast.act_after_cut(story)?;
    run.back(lab, UNIT, cut, BACK_MAX)?;
    gateway.ready().await?;
    story.step("the unit is back", lab.show(UNIT, "NRestarts")?);

    let status = lab.status()?;
    assert_eq!(status["previous"]["kind"], cut.verdict(), "{}", status["previous"]);
    cast.act_notices(&stage, story, &scene).await;
    let record = checkpoint::read(&stage.checkpoint_path(CHAT))?.unwrap_or_default();
    story.step("the record", record["interruption"].to_string());
    assert_eq!(record["interruption"]["cause"], cause(cut), "{record}");
    cast.act_silence(&stage, story, &scene).await;
    cast.act_user_speaks(&stage, story, &scene).await?;
    cast.act_count(&stage, story, &scene);
    Ok(())
}

/// Why the turn was cut, as its checkpoint tells it.
fn cause(cut: Cut) -> &'static str {
    match cut {
        Cut::Restart | Cut::StopStart | Cut::Reboot => "sigterm",
        Cut::KillGateway => "gateway_killed",
        Cut::KillTideover => "tideover_killed",
        Cut::Powercut => "power_cut",
    }
}

async fn survives(version: &str, cut: Cut) -> Outcome {
    let Some(gateway) = LabGateway::installed(version, &GatewayOptions::default()).await? else {
        return Ok(());
    };
    let mut story = Story::new(tell());
    let completed = play(&gateway, cut, &mut story).await;
    let detail = completed.as_ref().map_or_else(ToString::to_string, |()| String::new());
    story.check(checks::COMPLETED, "", completed.is_ok(), detail);
    let report = story.report(&format!("{cut:?}"), version, None);
    let tail = if report.ok { String::new() } else { gateway.lab.journal_tail(60) };
    assert!(report.ok, "{cut:?} on {version}:\n{}\n{tail}", report.failures());
    Ok(())
}

macro_rules! cuts {
    ($($name:ident: $cut:expr, $version:literal;)*) => {
        $(
            #[tokio::test(flavor = "current_thread")]
            async fn $name() -> Outcome {
                survives($version, $cut).await
            }
        )*
    };
}

cuts! {
    a_killed_gateway_2026_9_6: Cut::KillGateway, "2026.9.6";
    a_killed_gateway_2026_5_5: Cut::KillGateway, "2026.5.5";
    a_killed_tideover_2026_9_6: Cut::KillTideover, "2026.9.6";
    a_killed_tideover_2026_5_5: Cut::KillTideover, "2026.5.5";
    a_restart_2026_9_6: Cut::Restart, "2026.9.6";
    a_restart_2026_5_5: Cut::Restart, "2026.5.5";
    a_stop_and_start_2026_9_6: Cut::StopStart, "2026.9.6";
    a_stop_and_start_2026_5_5: Cut::StopStart, "2026.5.5";
    a_reboot_2026_9_6: Cut::Reboot, "2026.9.6";
    a_reboot_2026_5_5: Cut::Reboot, "2026.5.5";
    a_power_cut_2026_9_6: Cut::Powercut, "2026.9.6";
    a_power_cut_2026_5_5: Cut::Powercut, "2026.5.5";
}
