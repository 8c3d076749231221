//! The ways a supervised unit goes down and comes back in a [`Lab`], and what must be left of it: nothing.

use std::time::Duration;

use tideover::drill::processes::{self, Held, Signal};

use super::Outcome;
use super::lab::{Lab, TIDEOVER};

/// How the unit is taken down. Each of these ends with the unit started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// `systemctl restart`.
    Restart,
    /// `systemctl stop`, then `systemctl start`.
    StopStart,
    /// `kill -9` of the gateway; the unit's `Restart=` brings it back.
    KillGateway,
    /// `kill -9` of tideover; likewise.
    KillTideover,
    /// The host shuts down and boots.
    Reboot,
    /// The host dies and boots.
    Powercut,
}

/// All of them.
pub(crate) const CUTS: [Cut; 6] =
    [Cut::Restart, Cut::StopStart, Cut::KillGateway, Cut::KillTideover, Cut::Reboot, Cut::Powercut];

impl Cut {
    /// What tideover calls the end of a run that was cut so while its gateway still ended in time.
    pub(crate) fn verdict(self) -> &'static str {
        match self {
            Self::Restart | Self::StopStart => "clean_stop",
            Self::Reboot => "host_reboot",
            Self::KillGateway => "gateway_killed",
            Self::KillTideover => "tideover_killed",
            Self::Powercut => "power_cut",
        }
    }
}

/// One run of a unit, held: who ran in it is known after its end.
#[derive(Debug)]
pub(crate) struct Run {
    invocation: String,
    tideover: Held,
    gateway: Held,
    others: Vec<Held>,
}

impl Run {
    /// Takes hold of all processes of an active unit whose tideover has a gateway.
    pub(crate) fn of(lab: &Lab, unit: &str, limit: Duration) -> Outcome<Self> {
        let invocation = lab.active(unit, "", limit)?;
        lab.until("the processes of the unit", limit, |lab| {
            let tideover = lab.process(unit, TIDEOVER)?;
            let gateway = *processes::children(tideover).first().ok_or("no gateway yet")?;
            let others =
                lab.processes(unit)?.into_iter().filter(|p| ![tideover, gateway].contains(p));
            Ok(Self {
                invocation: invocation.clone(),
                tideover: Held::open(tideover)?,
                gateway: Held::open(gateway)?,
                others: others.filter_map(|pid| Held::open(pid).ok()).collect(),
            })
        })
    }

    /// Pid of the gateway, on the host.
    pub(crate) fn gateway_pid(&self) -> u32 {
        self.gateway.pid()
    }

    /// Sends the gateway a signal.
    pub(crate) fn signal_gateway(&self, signal: Signal) -> Outcome {
        Ok(self.gateway.signal(signal)?)
    }

    /// Takes the unit down, waits until it is active again, and makes sure that all of this run is gone.
    pub(crate) fn cut(self, lab: &Lab, unit: &str, cut: Cut, limit: Duration) -> Outcome<Self> {
        self.down(lab, unit, cut, limit)?;
        self.back(lab, unit, cut, limit)
    }

    /// Takes the unit down. When this returns the gateway has ended and the next one is not ready yet.
    pub(crate) fn down(&self, lab: &Lab, unit: &str, cut: Cut, limit: Duration) -> Outcome {
        match cut {
            Cut::Restart => drop(lab.systemctl(&["restart", "--no-block", unit])?),
            Cut::StopStart => {
                lab.systemctl(&["stop", unit])?;
                let left = lab.processes(unit)?;
                assert!(left.is_empty(), "{unit} is stopped and runs {left:?}");
            }
            Cut::KillGateway => self.gateway.signal(Signal::KILL)?,
            Cut::KillTideover => self.tideover.signal(Signal::KILL)?,
            Cut::Reboot => drop(lab.reboot()?),
            Cut::Powercut => drop(lab.powercut()?),
        }
        lab.until("the end of the gateway", limit, |_| {
            if self.gateway.ended() { Ok(()) } else { Err("it still runs".into()) }
        })
    }

    /// Waits until the unit is active again, and makes sure that all of this run is gone.
    pub(crate) fn back(self, lab: &Lab, unit: &str, cut: Cut, limit: Duration) -> Outcome<Self> {
        if cut == Cut::StopStart {
            lab.systemctl(&["start", "--no-block", unit])?;
        }
        lab.active(unit, &self.invocation, limit)?;
        let all = [&self.tideover, &self.gateway].into_iter().chain(&self.others);
        let left: Vec<u32> = all.filter(|process| !process.ended()).map(Held::pid).collect();
        assert!(left.is_empty(), "of the run before {cut:?} there is still {left:?}");
        Self::of(lab, unit, limit)
    }
}
