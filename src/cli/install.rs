//! `tideover install` and `tideover uninstall`. Here: the companion plugin alone, in and out; the unit is
//! `install_unit.rs`.

use serde_json::json;

use crate::gateway::plugin_install::{
    InstallOptions, Prepared, prepare_install, prepare_uninstall,
};

use crate::store::Place;
use crate::store::lease::{Asked, ask as ask_lease};
use crate::supervise::queue::hand_back;

use super::args::{Global, Install, Uninstall};
use super::context::{Context, now};
use super::install_unit;
use super::output::{Failure, print_json, print_line};

pub(super) fn install(global: &Global, install: &Install) -> Result<(), Failure> {
    if !install.no_unit {
        return install_unit::install(global, install);
    }
    let context = Context::of(global)?;
    let prepared = prepare_install(&context.paths, InstallOptions { create_config: false })?;
    carry_out(global, "install", &prepared, install.dry_run)?;
    if !global.json && !install.dry_run && !prepared.files.is_empty() {
        print_line("Start the gateway under tideover now: tideover run -- openclaw gateway");
    }
    Ok(())
}

pub(super) fn uninstall(global: &Global, uninstall: &Uninstall) -> Result<(), Failure> {
    if install_unit::uninstall(global, uninstall)? {
        if !uninstall.dry_run {
            give_back_queue(&install_unit::context_of_unit(global, uninstall.unit.as_deref())?);
        }
        return Ok(());
    }
    let context = Context::of(global)?;
    let prepared = prepare_uninstall(&context.paths)?;
    carry_out(global, "uninstall", &prepared, uninstall.dry_run)?;
    if !uninstall.dry_run {
        give_back_queue(&context);
    }
    Ok(())
}

/// Entries of the gateway's own queue that tideover keeps back must not stay behind with it.
fn give_back_queue(context: &Context) {
    // Without one of its own nothing was ever kept, and nothing is to be left behind.
    let kept = [Place::QueueClaimed, Place::QueueKept].map(|place| context.layout.directory(place));
    if !kept.iter().any(|shelf| shelf.is_dir()) {
        return;
    }
    let state = context.layout.directory(Place::State);
    // A supervisor that still runs owns them; it hands them back to nobody.
    let Ok(Asked::Held(_lease)) = ask_lease(&state) else {
        eprintln!(
            "tideover: a supervisor still runs; what it keeps of the gateway's queue (`tideover queue list`) comes \
             back with `tideover uninstall` once it has ended"
        );
        return;
    };
    let (count, problems) = hand_back(&context.layout, now());
    if count > 0 {
        eprintln!(
            "tideover: {count} queued entries were put back into the gateway's queue; it takes them up at its next start"
        );
    }
    for problem in problems {
        eprintln!("tideover: {problem}");
    }
}

fn carry_out(
    global: &Global,
    verb: &str,
    prepared: &Prepared,
    dry_run: bool,
) -> Result<(), Failure> {
    if !dry_run {
        prepared.apply()?;
    }
    let files: Vec<String> =
        prepared.files.iter().map(|file| file.path.display().to_string()).collect();
    if global.json {
        print_json(&json!({
            "schema": format!("tideover.{verb}/1"),
            "dry_run": dry_run,
            "files": files,
            "changes": prepared.changes,
        }));
    } else if files.is_empty() {
        print_line("nothing to change");
    } else if dry_run {
        print_line(&prepared.describe());
    } else {
        for file in files {
            print_line(&format!("changed {file}"));
        }
        for change in &prepared.changes {
            print_line(&format!("  {change}"));
        }
    }
    Ok(())
}
