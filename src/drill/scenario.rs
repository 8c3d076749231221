//! The rehearsals as data, and the order of events that they have in common.
//!
//! Every scenario is the same story with another cut: the user asks for something, the model calls
//! a tool, the gateway goes down in the middle of it, comes back, and only what the user confirms
//! goes on. The parts are in [`super::acts`] and [`super::cuts`].

use std::path::PathBuf;

use super::acts::Cast;
use super::cuts;
use super::error::{DrillError, Result};
use super::home::DmScope;
use super::progress::Tell;
use super::provision::Wanted;
use super::rig::{Front, Rig, RigOptions};
use super::story::{Report, Story, checks};

/// What is going on when the cut comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Nothing: the last turn is over.
    Idle,
    /// A tool call is in flight.
    Call,
    /// The tool has returned, its command goes on in the background.
    Background,
}

/// How the gateway goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// SIGTERM to tideover, and time to end.
    Stop,
    /// SIGTERM to tideover; SIGKILL to a gateway that still drains when the stop timeout is over,
    /// as a service manager does.
    StopThenKill,
    /// SIGKILL to the gateway.
    KillGateway,
    /// SIGKILL to tideover; what it leaves is killed before the restart, as a cgroup is.
    KillTideover,
    /// SIGKILL to both at once.
    KillBoth,
}

/// What the user says after the restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// A message, which the model answers.
    Message,
    /// `/resume`, then `/resume yes`: the call that was cut runs again.
    Resume,
}

/// One rehearsal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub about: &'static str,
    /// What is going on.
    pub work: Work,
    /// How it is cut.
    pub cut: Cut,
    /// The chats that take part, each a session of its own.
    pub chats: &'static [i64],
    /// What their users say in the end.
    pub word: Word,
}

/// All rehearsals, the main one first.
pub const ALL: [Scenario; 8] = [
    Scenario {
        name: "sigterm-mid-tool",
        about: "the service is stopped while a tool runs, and the stop timeout runs out",
        work: Work::Call,
        cut: Cut::StopThenKill,
        chats: &[4242],
        word: Word::Message,
    },
    Scenario {
        name: "sigkill-gateway",
        about: "the gateway is killed while a tool runs",
        work: Work::Call,
        cut: Cut::KillGateway,
        chats: &[4242],
        word: Word::Message,
    },
    Scenario {
        name: "resume",
        about: "the gateway is killed while a tool runs, and the user has it run again with /resume",
        work: Work::Call,
        cut: Cut::KillGateway,
        chats: &[4242],
        word: Word::Resume,
    },
    Scenario {
        name: "sigkill-tideover",
        about: "tideover is killed while a tool runs",
        work: Work::Call,
        cut: Cut::KillTideover,
        chats: &[4242],
        word: Word::Message,
    },
    Scenario {
        name: "sigkill-both",
        about: "gateway and tideover are killed at once while a tool runs",
        work: Work::Call,
        cut: Cut::KillBoth,
        chats: &[4242],
        word: Word::Message,
    },
    Scenario {
        name: "idle-restart",
        about: "a restart that cuts nothing says nothing",
        work: Work::Idle,
        cut: Cut::Stop,
        chats: &[4242],
        word: Word::Message,
    },
    Scenario {
        name: "background-command",
        about: "the gateway is killed while a command runs in the background",
        work: Work::Background,
        cut: Cut::KillGateway,
        chats: &[4242],
        word: Word::Message,
    },
    Scenario {
        name: "two-sessions",
        about: "the gateway is killed while two users' tools run",
        work: Work::Call,
        cut: Cut::KillGateway,
        chats: &[4242, 4343],
        word: Word::Message,
    },
];

/// The scenario of this name.
///
/// # Errors
/// [`DrillError::Usage`] with the names there are.
pub fn find(name: &str) -> Result<Scenario> {
    ALL.into_iter().find(|scenario| scenario.name == name).ok_or_else(|| DrillError::Usage {
        detail: format!("there is no scenario {name:?}"),
        next: format!("use one of {}", ALL.map(|scenario| scenario.name).join(", ")),
    })
}

/// What a run needs besides the scenario.
#[derive(Debug, Clone)]
pub struct Staging {
    /// The `tideover` binary.
    pub tideover: PathBuf,
    /// Which OpenClaw.
    pub openclaw: Wanted,
    /// Whether the scratch home stays.
    pub keep: bool,
    /// Added to the environment of tideover and the gateway.
    pub extra_env: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    /// Overrides how the home is prepared (see [`RigOptions::prepare`]).
    pub prepare: Option<Vec<Vec<std::ffi::OsString>>>,
    /// Merged over openclaw.json.
    pub config_patch: serde_json::Value,
    /// Where progress, steps and checks go.
    pub tell: Tell,
}

impl Staging {
    /// The usual staging: install the plugin, start tideover, remove everything afterwards.
    pub fn new(tideover: impl Into<PathBuf>, openclaw: Wanted, tell: Tell) -> Self {
        Self {
            tideover: tideover.into(),
            openclaw,
            keep: false,
            extra_env: Vec::new(),
            prepare: None,
            config_patch: serde_json::Value::Null,
            tell,
        }
    }

    fn options(&self, scenario: &Scenario) -> RigOptions {
        RigOptions {
            front: Front::Tideover(self.tideover.clone()),
            dm_scope: DmScope::PerChat,
            chats: scenario.chats.to_vec(),
            config_patch: self.config_patch.clone(),
            prepare: self.prepare.clone(),
            extra_env: self.extra_env.clone(),
            keep: self.keep,
            tell: self.tell.clone(),
            ..RigOptions::default()
        }
    }
}

/// Plays a scenario. Whatever breaks on the way is in the report, as a failed check.
///
/// Dropping the future (Ctrl-C) ends every process and removes the scratch home.
///
/// # Errors
/// Only when there is no stage: the gateway cannot be had, or the scratch home cannot be prepared.
pub async fn play(scenario: &Scenario, staging: &Staging) -> Result<Report> {
    let mut story = Story::new(staging.tell.clone());
    let mut rig = Rig::prepare(&staging.openclaw, staging.options(scenario)).await?;
    let version = rig.gateway.version.clone();
    let kept = staging.keep.then(|| rig.home.root().to_path_buf());
    story.step("a scratch home is ready", format!("OpenClaw {version}"));
    match acts_in_order(scenario, &mut rig, &mut story).await {
        Ok(()) => story.check(checks::COMPLETED, "", true, ""),
        Err(error) => story.check(checks::COMPLETED, "", false, error.to_string()),
    }
    if let Some(root) = &kept {
        story.step("the scratch home is kept", root.display().to_string());
    }
    drop(rig);
    Ok(story.report(scenario.name, &version, kept))
}

async fn acts_in_order(scenario: &Scenario, rig: &mut Rig, story: &mut Story) -> Result<()> {
    let took = rig.boot().await?;
    let by = format!("ready after {:.1} s behind tideover", took.as_secs_f32());
    story.step("the gateway has started", by);
    let cast = Cast::new(&rig.stage(), scenario.work, scenario.chats)?;
    cast.act_work(&rig.stage(), story).await?;
    cuts::cut(scenario.cut, rig, story).await?;
    cast.act_after_cut(story)?;
    if scenario.word == Word::Resume {
        // A command that outlived its gateway (on 2026.5.5 it does) ends now: while it runs, nobody
        // is offered a second run beside it.
        cast.open_gates()?;
    }
    let scene = cast.before_restart(&rig.stage());
    let took = rig.boot().await?;
    story.step("the gateway is back", format!("ready after {:.1} s", took.as_secs_f32()));
    let stage = rig.stage();
    cast.act_notices(&stage, story, &scene).await;
    cast.act_silence(&stage, story, &scene).await;
    match scenario.word {
        Word::Message => cast.act_user_speaks(&stage, story, &scene).await?,
        Word::Resume => cast.act_resume(&stage, story).await?,
    }
    cast.act_count(&stage, story, &scene);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_found_by_name_and_a_wrong_name_lists_them() {
        for scenario in ALL {
            assert_eq!(find(scenario.name).ok(), Some(scenario));
        }
        let text = find("nonsense").map_or_else(|e| e.to_string(), |s| s.name.to_owned());
        assert!(text.contains("sigkill-both"), "{text}");
    }
}
