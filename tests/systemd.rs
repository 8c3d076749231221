//! A stand-in gateway behind tideover in a user unit of a real systemd: it comes back from every cut, alone.

#![cfg(test)]

mod support;

use std::time::Duration;

use support::Outcome;
use support::lab::{Lab, LabOptions};
use support::unit::{CUTS, Cut, Run};

const UNIT: &str = "stand-in.service";
/// Longest that the unit may take to come back on a busy machine.
const BACK_MAX: Duration = Duration::from_secs(30);

/// A gateway that ends on SIGTERM, with a command that nobody but its cgroup ends.
const STAND_IN: &str = "#!/bin/sh
trap 'exit 0' TERM
setsid sleep 1000 &
while :; do sleep 1000 & wait $!; done
";

/// A lab with the stand-in's unit, enabled and started.
fn with_unit() -> Outcome<Option<(Lab, Run)>> {
    let Some(lab) = Lab::start(&LabOptions::default())? else { return Ok(None) };
    lab.write("stand-in", STAND_IN)?;
    lab.write_unit(
        UNIT,
        "[Service]\n\
         Type=simple\n\
         ExecStart=/opt/tideover/tideover run -- /bin/sh %h/stand-in\n\
         KillMode=mixed\n\
         Restart=always\n\
         RestartSec=100ms\n\
         [Install]\n\
         WantedBy=default.target\n",
    )?;
    lab.systemctl(&["enable", "--now", UNIT])?;
    let run = Run::of(&lab, UNIT, BACK_MAX)?;
    Ok(Some((lab, run)))
}

/// Waits until tideover says how the run before ended.
fn verdict(lab: &Lab, wanted: &str) -> Outcome {
    lab.until("the verdict", BACK_MAX, |lab| {
        let status = lab.status()?;
        if status["running"] == true && status["previous"]["kind"] == wanted {
            return Ok(());
        }
        Err(format!("{}, {}, wanted {wanted}", status["phase"], status["previous"]).into())
    })
}

fn comes_back_from(cuts: &[Cut]) -> Outcome {
    let Some((lab, mut run)) = with_unit()? else { return Ok(()) };
    verdict(&lab, "first")?;
    for cut in cuts {
        eprintln!("  {cut:?}");
        run = run.cut(&lab, UNIT, *cut, BACK_MAX)?;
        verdict(&lab, cut.verdict())?;
    }
    Ok(())
}

#[test]
fn it_comes_back_from_every_cut() -> Outcome {
    comes_back_from(&CUTS)
}

#[test]
fn nothing_of_a_lab_is_left() -> Outcome {
    let Some((lab, run)) = with_unit()? else { return Ok(()) };
    let (home, pid) = (lab.home(), run.gateway_pid());
    assert!(home.exists() && std::fs::exists(format!("/proc/{pid}"))?);
    lab.powercut()?;
    let groups = || -> Outcome<Vec<String>> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let of_lab = |line: &&str| line.contains("tideover-labs");
        Ok(mounts.lines().filter(of_lab).map(str::to_owned).collect())
    };
    assert_eq!(groups()?, Vec::<String>::new(), "the lab's mounts are its own");
    let group = lab.host_group()?;
    assert!(group.exists());
    let keep = lab.keep;
    drop(lab);
    assert!(!group.exists(), "{} is left", group.display());
    assert_eq!(home.exists(), keep);
    assert!(!std::fs::exists(format!("/proc/{pid}"))?);
    Ok(())
}

#[test]
fn the_user_reads_what_its_unit_wrote() -> Outcome {
    let Some((lab, _run)) = with_unit()? else { return Ok(()) };
    lab.until("the unit's own lines", BACK_MAX, |lab| {
        let lines = lab.journal(UNIT)?;
        let own = |line: &&serde_json::Value| line["_EXE"] == support::lab::TIDEOVER;
        if lines.iter().filter(own).count() > 0 {
            return Ok(());
        }
        Err(format!("{} lines, none of tideover", lines.len()).into())
    })
}
