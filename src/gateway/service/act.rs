//! Carrying a plan out, and taking it back where it fails in the middle.

use std::path::PathBuf;

use super::super::launch::EnvSnapshot;
use super::super::plugin_install::Prepared;
use super::command::{Call, CallError};
use super::files::{self, Change, Content};
use super::found::Found;
use super::manager::Manager;
use super::plan::{PRIVATE_MODE, Plan, Step, completed};
use super::refusal::Refusal;

/// Longest that the gateway's installer may take: it waits for the service to be ready.
const GATEWAY_MS: u64 = 15 * 60_000;
/// Longest that `--version` may take on a cold disk.
const VERSION_MS: u64 = 120_000;

/// Why a plan was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// It failed, and everything is as it was.
    #[error("{cause}; everything is as it was before{}", if *.running { ", and the gateway runs again" } else { "" })]
    TakenBack {
        /// What failed.
        cause: String,
        /// Whether the gateway was running and has been started again.
        running: bool,
    },
    /// It failed, and so did taking it back.
    #[error("{cause}; taking it back failed too: {also}; to get a working gateway: `{command}`")]
    Stuck {
        /// What failed first.
        cause: String,
        /// What failed then.
        also: String,
        /// What to run.
        command: String,
    },
}

/// What carries a plan out.
#[expect(missing_debug_implementations, reason = "holds a configuration with secrets")]
pub struct Actor<'a> {
    /// The service manager.
    pub manager: &'a Manager,
    /// What was found before.
    pub found: &'a Found,
    /// The gateway's own configuration and the plugin.
    pub plugin: &'a Prepared,
    /// The environment of the gateway's own commands.
    pub gateway_env: EnvSnapshot,
    /// This program.
    pub tideover: &'a str,
    /// Is told of each step as it begins.
    pub tell: &'a dyn Fn(&str),
}

/// The command line of the gateway itself for these words.
pub fn gateway_call(command: &[String], words: &[String], env: &EnvSnapshot) -> Call {
    let (program, rest) =
        command.split_first().map_or(("", [].as_slice()), |(first, rest)| (first.as_str(), rest));
    // The entry script alone: options such as the heap's size are for the service.
    let entry = rest.last().into_iter();
    Call {
        program: program.into(),
        args: entry.chain(words).map(Into::into).collect(),
        env: env.clone(),
        timeout_ms: GATEWAY_MS,
    }
}

/// Whether the gateway's own command runs here at all; its version.
pub fn probe(command: &[String], env: &EnvSnapshot) -> Result<String, Refusal> {
    let words = ["--version".to_owned()];
    let call = Call { timeout_ms: VERSION_MS, ..gateway_call(command, &words, env) };
    let ended = call.succeed().map_err(|error| Refusal::Unusable { reason: error.to_string() })?;
    Ok(ended.stdout.lines().next().unwrap_or_default().trim().to_owned())
}

/// What happened beside the plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Done {
    /// What is to be told.
    pub notes: Vec<String>,
}

impl Actor<'_> {
    /// Carries it out, or takes back what was done of it.
    pub fn carry_out(&self, plan: &Plan) -> Result<Done, ActError> {
        let mut done = Done::default();
        let dirs = new_dirs(plan);
        let earlier = files::read(&plan.record_path).ok().flatten();
        let mut taken = 0;
        let result = self.note_down(plan, &dirs).and_then(|()| {
            for step in &plan.steps {
                taken += 1;
                self.step(plan, step, &mut done)?;
            }
            self.check(plan)?;
            self.close(plan, &dirs)
        });
        let Err(cause) = result else { return Ok(done) };
        self.take_back(plan, taken, &dirs, earlier, cause)
    }

    fn step(&self, plan: &Plan, step: &Step, done: &mut Done) -> Result<(), String> {
        match step {
            Step::File(change) => change.make().map_err(|error| error.to_string()),
            Step::Plugin => self.plugin.apply().map_err(|error| error.to_string()),
            Step::Systemctl(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let call = self.manager.call(&words);
                (self.tell)(&call.line());
                call.succeed().map(drop).map_err(|error| error.to_string())
            }
            Step::Gateway(words) => {
                let call = gateway_call(&plan.command, words, &self.gateway_env);
                (self.tell)(&call.line());
                match call.succeed() {
                    Ok(_) => Ok(()),
                    Err(error) if plan.removal => self.without_installer(&error, done),
                    Err(error) => Err(error.to_string()),
                }
            }
        }
    }

    /// At a removal the unit works without its installer too, only not in its newest form.
    fn without_installer(&self, error: &CallError, done: &mut Done) -> Result<(), String> {
        done.notes.push(format!(
            "{error}; {} works as it is, bring it up to date with `openclaw gateway install --force`",
            self.found.unit
        ));
        if self.found.state.is_running() {
            self.systemctl("start")?;
        }
        Ok(())
    }

    fn systemctl(&self, verb: &str) -> Result<(), String> {
        let unit = self.found.unit.as_str();
        let words: &[&str] = if verb == "daemon-reload" { &[verb] } else { &[verb, unit] };
        self.manager.call(words).succeed().map(drop).map_err(|error| error.to_string())
    }

    /// Writes down what is there, before anything is changed.
    fn note_down(&self, plan: &Plan, dirs: &[PathBuf]) -> Result<(), String> {
        let Some(record) = plan.record.as_ref().filter(|_| !plan.removal) else { return Ok(()) };
        let mut record = record.clone();
        record.dirs.extend(
            dirs.iter().filter(|dir| !record.dirs.contains(dir)).cloned().collect::<Vec<_>>(),
        );
        write(plan, Some(record.text()))
    }

    /// After an installation: what systemd will run is what was meant.
    fn check(&self, plan: &Plan) -> Result<(), String> {
        if plan.removal || plan.steps.is_empty() {
            return Ok(());
        }
        let state = self.manager.show(&plan.unit).map_err(|error| error.to_string())?;
        let path = format!("path={} ;", self.tideover);
        if state.exec_start.contains(&path) && !state.reload_needed {
            return Ok(());
        }
        Err(format!(
            "systemd does not run {} with tideover after all: see `systemctl --user cat {0}`",
            plan.unit
        ))
    }

    /// The record: completed after an installation, gone after a removal.
    fn close(&self, plan: &Plan, dirs: &[PathBuf]) -> Result<(), String> {
        if plan.removal {
            write(plan, None)?;
            let dirs = plan.record.as_ref().map(|record| record.dirs.clone()).unwrap_or_default();
            files::remove_empty(&dirs);
            return Ok(());
        }
        let Some(record) = plan.record.clone() else { return Ok(()) };
        let read = |path: &PathBuf| files::read(path).map(|now| (path.clone(), now));
        let now: Result<Vec<_>, _> = plan.recorded.iter().map(read).collect();
        let mut record = completed(record, &now.map_err(|error| error.to_string())?);
        record.dirs.extend(
            dirs.iter().filter(|dir| !record.dirs.contains(dir)).cloned().collect::<Vec<_>>(),
        );
        write(plan, Some(record.text()))
    }

    fn take_back(
        &self,
        plan: &Plan,
        taken: usize,
        dirs: &[PathBuf],
        earlier: Option<Content>,
        cause: String,
    ) -> Result<Done, ActError> {
        (self.tell)("it failed: taking it back");
        let mut also = Vec::new();
        let mut tried = |result: Result<(), String>| also.extend(result.err());
        for step in plan.steps.iter().take(taken).rev() {
            match step {
                Step::File(change) => tried(change.take_back().map_err(|error| error.to_string())),
                Step::Plugin => tried(self.plugin.take_back().map_err(|error| error.to_string())),
                Step::Systemctl(_) | Step::Gateway(_) => {}
            }
        }
        for (path, content) in [
            (self.found.unit_path(), &self.found.fragment),
            (self.found.backup_path(), &self.found.backup),
        ] {
            tried(restored(path, content.clone()));
        }
        if taken > 0 {
            tried(self.systemctl("daemon-reload"));
            if self.found.state.file == "disabled" {
                tried(self.systemctl("disable"));
            }
            tried(self.systemctl(if self.found.state.is_running() { "start" } else { "stop" }));
        }
        let record = Change { path: plan.record_path.clone(), before: earlier, after: None };
        tried(record.take_back().map_err(|error| error.to_string()));
        if !plan.removal {
            files::remove_empty(dirs);
        }
        if also.is_empty() {
            let running = taken > 0 && self.found.state.is_running();
            return Err(ActError::TakenBack { cause, running });
        }
        let command =
            format!("systemctl --user daemon-reload && systemctl --user restart {}", plan.unit);
        Err(ActError::Stuck { cause, also: also.join("; "), command })
    }
}

fn write(plan: &Plan, text: Option<String>) -> Result<(), String> {
    let after = text.map(|text| Content { text, mode: PRIVATE_MODE });
    let change = Change { path: plan.record_path.clone(), before: None, after };
    change.make().map_err(|error| error.to_string())
}

fn restored(path: PathBuf, content: Option<Content>) -> Result<(), String> {
    let now = files::read(&path).map_err(|error| error.to_string())?;
    if now == content {
        return Ok(());
    }
    Change { path, before: None, after: content }.make().map_err(|error| error.to_string())
}

/// Directories that the plan's files need and that are not there, innermost first.
fn new_dirs(plan: &Plan) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = Vec::new();
    for step in &plan.steps {
        let Step::File(Change { path, after: Some(_), .. }) = step else { continue };
        let missing = path.ancestors().skip(1).take_while(|dir| !dir.exists());
        for dir in missing {
            if !dirs.iter().any(|there| there == dir) {
                dirs.push(dir.to_owned());
            }
        }
    }
    dirs.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
    dirs
}
