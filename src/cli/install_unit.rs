//! `tideover install` and `tideover uninstall` for the gateway's user unit.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use serde_json::json;

use crate::config;
use crate::gateway::launch::EnvSnapshot;
use crate::gateway::plugin_install::{
    InstallOptions, Prepared, prepare_install, prepare_uninstall,
};
use crate::gateway::service::{
    Actor, Content, Done, Found, Given, LookError, Manager, Plan, RECORD_NAME, Record, Refusal,
    Step, commands, describe, files_of, gateway_environment, look, may_change, plan_install,
    plan_uninstall, probe, read_file, unit_name,
};

use super::args::{Global, Install, Uninstall};
use super::context::{Context, environment, runtime_dir, with_home};
use super::exit_code;
use super::output::{Failure, print_json, print_line};

/// Everything that was looked at.
struct Scene {
    login: EnvSnapshot,
    manager: Manager,
    found: Found,
    context: Context,
    tideover: String,
    config_path: PathBuf,
    config: Option<Content>,
    record: Option<Record>,
    record_path: PathBuf,
}

pub(super) fn install(global: &Global, install: &Install) -> Result<(), Failure> {
    let scene = Scene::look(global, install.unit.as_deref())?;
    may_change(&scene.found).map_err(refused)?;
    let prepared = prepare_install(&scene.context.paths, InstallOptions { create_config: false })?;
    let mut plan = plan_install(scene.given(&prepared)).map_err(refused)?;
    if !plan.steps.is_empty() {
        plan.notes.extend(passing(&scene.tideover));
        plan.notes.extend(stays_down(&scene.found));
    }
    let env = gateway_environment(&scene.found, &scene.login);
    if !install.dry_run && plan.steps.iter().any(|step| matches!(step, Step::Gateway(_))) {
        probe(&plan.command, &env).map_err(refused)?;
    }
    scene.carry_out(global, "install", &plan, &prepared, install.dry_run)
}

/// Whether there was a unit to take out; the plugin is out with it then.
pub(super) fn uninstall(global: &Global, uninstall: &Uninstall) -> Result<bool, Failure> {
    let scene = match Scene::look(global, uninstall.unit.as_deref()) {
        Ok(scene) => scene,
        // Installed without a unit, and perhaps on a machine without a manager.
        Err(failure)
            if failure.code == exit_code::REFUSED
                && uninstall.unit.is_none()
                && !recorded(global)? =>
        {
            return Ok(false);
        }
        Err(failure) => return Err(failure),
    };
    let prepared = prepare_uninstall(&scene.context.paths)?;
    match plan_uninstall(scene.given(&prepared)).map_err(refused)? {
        Some(plan) => {
            scene.carry_out(global, "uninstall", &plan, &prepared, uninstall.dry_run).map(|()| true)
        }
        None => Ok(false),
    }
}

/// How the unit stands, for the doctor.
pub(super) struct Survey {
    pub(super) unit: String,
    /// This program, as the unit is to name it.
    pub(super) tideover: String,
    pub(super) under_tideover: bool,
    /// How many steps an installation would take.
    pub(super) changes_due: usize,
    pub(super) exec_start: String,
    pub(super) reload_needed: bool,
    /// `enabled`, `disabled`, …
    pub(super) enabled: String,
    /// `active`, `failed`, …
    pub(super) active: String,
}

/// The gateway's places as the named unit has them; those of the options where none is named or it cannot be
/// looked at.
pub(super) fn context_of_unit(global: &Global, unit: Option<&str>) -> Result<Context, Failure> {
    let Some(unit) = unit else { return Ok(Context::of(global)?) };
    let login = login();
    let home = text(&login, "HOME").unwrap_or_default();
    let unit = unit_name(Some(unit), "default").map_err(refused)?;
    match look(&Manager::new(login.clone()), &unit, &home) {
        Ok(found) => context_of(global, &login, &found),
        Err(_) => Ok(Context::of(global)?),
    }
}

/// Looks at the unit. Changes nothing.
pub(super) fn survey(global: &Global, unit: Option<&str>) -> Result<Survey, Failure> {
    let scene = Scene::look(global, unit)?;
    let prepared = prepare_install(&scene.context.paths, InstallOptions { create_config: false })?;
    let plan = plan_install(scene.given(&prepared)).map_err(refused)?;
    let state = &scene.found.state;
    Ok(Survey {
        unit: scene.found.unit.clone(),
        under_tideover: scene.found.drop_in.is_some(),
        changes_due: plan.steps.len(),
        exec_start: state.exec_start.clone(),
        reload_needed: state.reload_needed,
        enabled: state.file.clone(),
        active: state.active.clone(),
        tideover: scene.tideover,
    })
}

fn recorded(global: &Global) -> Result<bool, Failure> {
    Ok(Context::of(global)?.paths.tideover_dir().join(RECORD_NAME).exists())
}

fn refused(refusal: Refusal) -> Failure {
    Failure::new(exit_code::REFUSED, refusal)
}

impl Scene {
    fn look(global: &Global, unit: Option<&str>) -> Result<Self, Failure> {
        let login = login();
        let home = text(&login, "HOME").unwrap_or_default();
        let profile = Context::of(global)?.paths.profile;
        let named = unit.map(str::to_owned).or_else(|| text(&login, "OPENCLAW_SYSTEMD_UNIT"));
        let unit = unit_name(named.as_deref(), &profile).map_err(refused)?;
        let manager = Manager::new(login.clone());
        let found = look(&manager, &unit, &home).map_err(|error| match error {
            LookError::Refused(refusal) => refused(refusal),
            LookError::File(_) | LookError::Manager(_) => Failure::from(error),
        })?;
        let context = context_of(global, &login, &found)?;
        let lookup = |name: &str| {
            found
                .environment
                .get(name)
                .map(OsString::from)
                .or_else(|| (name == "HOME").then(|| home.clone().into()))
        };
        let config_path = config::default_path(lookup).unwrap_or_default();
        if let Some(problem) = config::load(&config_path).problem {
            return Err(Failure::new(exit_code::REFUSED, problem));
        }
        let record_path = context.paths.tideover_dir().join(RECORD_NAME);
        let record = match read_file(&record_path)? {
            Some(content) => {
                let broken = || refused(Refusal::Record { path: record_path.clone() });
                Some(Record::parse(&content.text).ok_or_else(broken)?)
            }
            None => None,
        };
        let config = read_file(&config_path)?;
        Ok(Self {
            tideover: own_path()?,
            login,
            manager,
            found,
            context,
            config_path,
            config,
            record,
            record_path,
        })
    }

    fn given(&self, prepared: &Prepared) -> Given<'_> {
        Given {
            found: &self.found,
            tideover: &self.tideover,
            config_path: &self.config_path,
            config: self.config.as_ref(),
            record: self.record.as_ref(),
            record_path: &self.record_path,
            plugin: !prepared.files.is_empty(),
        }
    }

    fn carry_out(
        &self,
        global: &Global,
        verb: &str,
        plan: &Plan,
        prepared: &Prepared,
        dry_run: bool,
    ) -> Result<(), Failure> {
        let tell = |line: &str| {
            if !global.json {
                print_line(&format!("… {line}"));
            }
        };
        let actor = Actor {
            manager: &self.manager,
            found: &self.found,
            plugin: prepared,
            gateway_env: gateway_environment(&self.found, &self.login),
            tideover: &self.tideover,
            tell: &tell,
        };
        if !dry_run && !plan.steps.is_empty() {
            outside_of(&self.found.unit)?;
        }
        let mut done = Done::default();
        if !dry_run && !plan.steps.is_empty() {
            // Half of it would leave the gateway stopped: it is finished, or taken back, first.
            let held = hold_back_signals();
            let carried_out = actor.carry_out(plan);
            drop(held);
            done = carried_out?;
        }
        let notes = [plan.notes.clone(), done.notes].concat();
        print(global, verb, plan, prepared, dry_run, &notes);
        Ok(())
    }
}

/// The unit is stopped on the way, and everything in it with it.
fn outside_of(unit: &str) -> Result<(), Failure> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let inside = groups.lines().any(|line| line.split('/').any(|part| part == unit));
    if !inside {
        return Ok(());
    }
    Err(Failure::text(
        exit_code::REFUSED,
        format!(
            "this command runs inside {unit}, which has to be stopped on the way; run it from a login shell, \
             or: systemd-run --user --pipe --wait {}",
            std::env::args().collect::<Vec<_>>().join(" ")
        ),
    ))
}

/// Signals that would end this program wait until it is dropped.
struct SignalsHeld(Option<SigSet>);

fn hold_back_signals() -> SignalsHeld {
    let held: SigSet = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    SignalsHeld(held.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok())
}

impl Drop for SignalsHeld {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            let _ = before.thread_set_mask();
        }
    }
}

fn print(
    global: &Global,
    verb: &str,
    plan: &Plan,
    prepared: &Prepared,
    dry_run: bool,
    notes: &[String],
) {
    let mut files = files_of(plan);
    files.extend(prepared.files.iter().map(|file| file.path.display().to_string()));
    if global.json {
        return print_json(&json!({
            "schema": format!("tideover.{verb}/1"),
            "dry_run": dry_run,
            "unit": plan.unit,
            "files": files,
            "commands": commands(plan),
            "changes": prepared.changes,
            "notes": notes,
        }));
    }
    if plan.steps.is_empty() {
        print_line("nothing to change");
    } else if dry_run {
        print_line(describe(plan, &prepared.describe()).trim_end());
    } else {
        for file in &files {
            print_line(&format!("changed {file}"));
        }
        for change in &prepared.changes {
            print_line(&format!("  {change}"));
        }
    }
    for note in notes {
        print_line(&format!("note: {note}"));
    }
    if verb == "install" && !dry_run && !plan.steps.is_empty() {
        print_line(&format!(
            "{} is under tideover now; see `tideover status` and `systemctl --user status {0}`",
            plan.unit
        ));
    }
}

/// The environment of a login session, also where a service or `su` left its runtime directory out.
fn login() -> EnvSnapshot {
    let mut env = with_home(&environment());
    if let Some(dir) = runtime_dir(&env) {
        env.insert("XDG_RUNTIME_DIR".into(), dir.into_os_string());
    }
    env
}

fn text(env: &EnvSnapshot, name: &str) -> Option<String> {
    let value = env.get(&OsString::from(name))?.to_str()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// The gateway's places as the unit has them, which is where the service will look.
fn context_of(global: &Global, login: &EnvSnapshot, found: &Found) -> Result<Context, Failure> {
    let named = Context::of(global)?;
    let mut env = login.clone();
    // What this shell says of a gateway is not what the unit says.
    env.retain(|name, _| !name.as_encoded_bytes().starts_with(b"OPENCLAW_"));
    env.extend(found.environment.iter().map(|(name, value)| (name.into(), value.into())));
    let none: [OsString; 0] = [];
    let context = Context::resolve(&env, &none)?;
    let chosen = global.state_dir.is_some() || global.profile.is_some();
    if chosen && named.paths.state_dir != context.paths.state_dir && found.fragment.is_some() {
        return Err(refused(Refusal::StateDir {
            unit: found.unit.clone(),
            unit_dir: context.paths.state_dir,
            named: named.paths.state_dir,
        }));
    }
    Ok(if found.fragment.is_some() { context } else { named })
}

/// This program's path, as the unit is to name it.
fn own_path() -> Result<String, Failure> {
    let path = std::env::current_exe()?;
    let fail = |why: &str| Failure::text(exit_code::FAILED, format!("{} {why}", path.display()));
    if !path.is_file() {
        return Err(fail("was replaced while it runs; try again"));
    }
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| fail("is not UTF-8, so that no unit can name it"))
}

/// Whether a path is in a build tree or in a directory that gets cleaned.
pub(super) fn is_passing(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "target")
        || ["/tmp", "/var/tmp", "/run", "/dev/shm"].iter().any(|dir| path.starts_with(dir))
}

/// A warning where this program will not be there for long.
fn passing(tideover: &str) -> Option<String> {
    is_passing(Path::new(tideover)).then(|| {
        format!("{tideover} is in a place that gets cleaned; without it the gateway does not start. Better: \
            `cargo install --path .`, or copy it to ~/.local/bin, and install again from there")
    })
}

fn stays_down(found: &Found) -> Option<String> {
    (!found.state.is_running()).then(|| {
        format!(
            "{} was not running and is left so; start it with `systemctl --user start {0}`",
            found.unit
        )
    })
}
