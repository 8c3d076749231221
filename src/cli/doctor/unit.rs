//! The checks of the gateway's user service: its unit under tideover, its start at boot, the explanations in the
//! journal.

use std::path::Path;

use super::super::args::Global;
use super::super::install_unit::{Survey, survey};
use super::finding::Finding;

/// Where a lingering user has a file.
const LINGER_DIR: &str = "/var/lib/systemd/linger";
/// Where the package puts the explanations of our journal entries.
const CATALOG: &str = "/usr/lib/systemd/catalog/tideover.catalog";

pub(super) fn all(global: &Global, named: Option<&str>) -> Vec<Finding> {
    if !Path::new("/run/systemd/system").is_dir() {
        return vec![Finding::note(
            "unit",
            "no systemd here: run the gateway with `tideover run -- openclaw gateway`",
        )];
    }
    match survey(global, named) {
        Ok(survey) => {
            let mut findings = unit(&survey);
            findings.extend(at_boot(&survey));
            findings.push(catalog());
            findings
        }
        Err(failure) => {
            vec![Finding::warn("unit", failure.message(), "tideover install (see what it says)")]
        }
    }
}

fn unit(survey: &Survey) -> Vec<Finding> {
    let unit = &survey.unit;
    let mut findings = Vec::new();
    findings.push(match (survey.under_tideover, survey.changes_due) {
        (false, _) => {
            Finding::warn("unit", format!("{unit} is not under tideover"), "tideover install")
        }
        (true, 0) => Finding::ok("unit", format!("{unit} is under tideover")),
        (true, due) => Finding::warn(
            "unit",
            format!("{unit} is under tideover, and {due} step(s) are due"),
            "tideover install --dry-run shows them; tideover install makes them",
        ),
    });
    if survey.under_tideover && !survey.exec_start.contains(&survey.tideover) {
        findings.push(Finding::fail(
            "exec",
            format!("another command is in force than {}", survey.tideover),
            format!("systemctl --user cat {unit} shows which file sets ExecStart="),
        ));
    }
    if survey.reload_needed {
        findings.push(Finding::warn(
            "reload",
            format!("the files of {unit} have changed since they were read"),
            "systemctl --user daemon-reload",
        ));
    }
    if survey.active == "failed" {
        findings.push(Finding::fail(
            "state",
            format!("{unit} has failed"),
            format!("tideover report; then systemctl --user reset-failed {unit} && systemctl --user start {unit}"),
        ));
    }
    findings
}

fn at_boot(survey: &Survey) -> Vec<Finding> {
    let mut findings = Vec::new();
    if survey.enabled != "enabled" {
        findings.push(Finding::warn(
            "boot",
            format!("{} is {} and does not start by itself", survey.unit, survey.enabled),
            format!("systemctl --user enable {}", survey.unit),
        ));
    }
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    let lingers = user.as_ref().is_some_and(|user| Path::new(LINGER_DIR).join(&user.name).exists());
    if !lingers {
        findings.push(Finding::warn(
            "linger",
            "your services end when you log out and do not start at boot",
            "loginctl enable-linger",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("boot", "starts at boot, without a login"));
    }
    findings
}

fn catalog() -> Finding {
    if Path::new(CATALOG).exists() {
        return Finding::ok("catalog", "journalctl -x explains our entries");
    }
    Finding::note(
        "catalog",
        "journalctl -x does not explain our entries (the .deb brings that); each has a TIDEOVER_HINT",
    )
}
