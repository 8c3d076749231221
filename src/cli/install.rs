//! `tideover install` and `tideover uninstall`. Here: the companion plugin alone, in and out; the unit is
//! `install_unit.rs`.

use serde_json::json;

use crate::gateway::plugin_install::{
    InstallOptions, Prepared, prepare_install, prepare_uninstall,
};

use super::args::{Global, Install, Uninstall};
use super::context::Context;
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
        return Ok(());
    }
    let context = Context::of(global)?;
    let prepared = prepare_uninstall(&context.paths)?;
    carry_out(global, "uninstall", &prepared, uninstall.dry_run)
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
