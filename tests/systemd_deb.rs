//! The Debian package in a machine of its own: it installs, works for an ordinary user, and goes without a trace.

#![cfg(test)]

mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use support::Outcome;
use support::lab::{Lab, LabOptions};

/// Written by hand by somebody who has the package.
const UNIT: &str = "by-hand.service";
/// Longest that a started unit may take to end.
const END_MAX: Duration = Duration::from_secs(30);

/// Packs the binary under test into the user's home; the path is the same inside.
fn package(lab: &Lab) -> Outcome<String> {
    let done = Command::new("bash")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/deb/build.sh"))
        .arg(env!("CARGO_BIN_EXE_tideover"))
        .env("OUT_DIR", lab.home())
        .output()?;
    let (out, err) = (String::from_utf8(done.stdout)?, String::from_utf8_lossy(&done.stderr));
    if !done.status.success() {
        return Err(format!("build.sh: {err}").into());
    }
    Ok(out.lines().next_back().ok_or("build.sh names no package")?.to_owned())
}

/// Every name that a package could leave behind.
fn names(lab: &Lab) -> Outcome<BTreeSet<String>> {
    let found = lab.root(&["find", "/usr", "/etc", "/opt", "/var/lib/dpkg/info"])?.ok()?;
    Ok(found.lines().map(str::to_owned).collect())
}

/// The first entry of the catalog: its id and its subject.
fn entry() -> Outcome<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/journal/tideover.catalog");
    let text = std::fs::read_to_string(path)?;
    let first = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix));
    let id = first("-- ").ok_or("the catalog has no entry")?;
    Ok((id.to_owned(), first("Subject: ").ok_or("an entry without subject")?.to_owned()))
}

/// Whether a program is there; what needs it is skipped otherwise.
fn has(lab: &Lab, program: &str) -> Outcome<bool> {
    let found = lab.user(&["sh", "-c", &format!("command -v {program}")])?.code == Some(0);
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    Ok(found)
}

#[test]
fn the_package_installs_works_and_goes_without_a_trace() -> Outcome {
    let Some(lab) = Lab::start(&LabOptions::default())? else { return Ok(()) };
    if !has(&lab, "dpkg")? {
        return Ok(());
    }
    let package = package(&lab)?;
    let before = names(&lab)?;
    // An image may leave out what it takes for dispensable.
    lab.root(&["dpkg", "--path-include=/usr/share/*", "--install", &package])?.ok()?;
    let with: BTreeSet<_> = names(&lab)?.difference(&before).cloned().collect();
    assert!(
        with.contains("/usr/bin/tideover") && with.contains("/usr/share/man/man1/tideover.1.gz")
    );
    assert_eq!(lab.root(&["dpkg", "--verify", "tideover"])?.ok()?, "");

    let version = lab.user(&["tideover", "--version"])?.ok()?;
    assert_eq!(version.trim(), concat!("tideover ", env!("CARGO_PKG_VERSION")));
    the_manual_covers_the_verbs(&lab)?;
    the_shells_complete(&lab)?;
    a_unit_by_hand_reports(&lab)?;
    the_journal_explains(&lab, true)?;
    it_stays_while_a_unit_needs_it(&lab)?;

    lab.root(&["dpkg", "--purge", "tideover"])?.ok()?;
    let after = names(&lab)?;
    assert_eq!(after.symmetric_difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_ne!(lab.root(&["dpkg-query", "--status", "tideover"])?.code, Some(0));
    the_journal_explains(&lab, false)
}

fn the_manual_covers_the_verbs(lab: &Lab) -> Outcome {
    if !has(lab, "man")? {
        return Ok(());
    }
    for page in [&["tideover"][..], &["tideover", "status"], &["tideover-sessions-show"]] {
        let text = lab.user(&[&["man"], page].concat())?.ok()?;
        assert!(text.contains(&page.join("-")) && text.contains("--state-dir"), "{text}");
    }
    Ok(())
}

/// Each with the file where its own start-up files look for it.
fn the_shells_complete(lab: &Lab) -> Outcome {
    let bash = "set -e; . /usr/share/bash-completion/completions/tideover; complete -p tideover >&2
        COMP_WORDS=(tideover sess) COMP_CWORD=1; _tideover tideover sess tideover; echo ${COMPREPLY[*]}";
    let zsh = "autoload -Uz compinit; compinit -u -D; print -r -- $_comps[tideover]
        autoload +X _tideover && print -r -- $functions[_tideover]";
    let shells = [
        ("bash", vec!["--norc", "-c", bash], "sessions\n"),
        ("zsh", vec!["-fc", zsh], "_tideover\n"),
        ("fish", vec!["-c", "complete --do-complete 'tideover sess'"], "sessions\t"),
    ];
    for (shell, arguments, wanted) in shells {
        if has(lab, shell)? {
            let said = lab.user(&[vec![shell], arguments].concat())?.ok()?;
            assert!(said.starts_with(wanted), "{shell}: {said}");
            assert!(said.contains("sessions"), "{shell}: {said}");
        }
    }
    Ok(())
}

/// With the catalog, or without it again.
fn the_journal_explains(lab: &Lab, wanted: bool) -> Outcome {
    let (id, subject) = entry()?;
    let catalog = lab.user(&["journalctl", "-q", "--dump-catalog", &id])?;
    assert_eq!(catalog.out.contains(&subject), wanted, "{catalog:?}");
    let id = format!("MESSAGE_ID={id}");
    let read = ["journalctl", "--user", "--no-pager", "-q", "-x", "-u", UNIT, &id];
    let shown = lab.until("the record", END_MAX, |lab| {
        let shown = lab.user(&read)?.ok()?;
        if shown.is_empty() { Err("it is not there".into()) } else { Ok(shown) }
    })?;
    assert_eq!(shown.contains(&subject), wanted, "{shown}");
    Ok(())
}

/// The unit of the package that reports is found by a unit that names it.
fn a_unit_by_hand_reports(lab: &Lab) -> Outcome {
    let report = format!("tideover-report@{UNIT}.service");
    lab.write_unit(
        UNIT,
        "[Unit]\n\
         OnFailure=tideover-report@%n.service\n\
         [Service]\n\
         ExecStart=/usr/bin/tideover run -- /bin/false\n",
    )?;
    let verified = lab.user(&["systemd-analyze", "--user", "verify", UNIT, &report])?;
    assert_eq!((verified.code, verified.err.as_str()), (Some(0), ""));
    lab.systemctl(&["start", UNIT])?;
    lab.until("the report", END_MAX, |lab| {
        let ended = lab.show(&report, "ExecMainExitTimestampMonotonic")?;
        if ended.parse::<u64>().is_ok_and(|at| at > 0) {
            return Ok(());
        }
        Err(format!("{UNIT} is {}", lab.show(UNIT, "ActiveState")?).into())
    })?;
    assert_eq!(
        lab.show(&report, "FragmentPath")?,
        "/usr/lib/systemd/user/tideover-report@.service"
    );
    Ok(())
}

/// Without the program its unit could not start again, and the program that puts a unit back would be gone too.
fn it_stays_while_a_unit_needs_it(lab: &Lab) -> Outcome {
    let refused = lab.root(&["dpkg", "--purge", "tideover"])?;
    assert_ne!(refused.code, Some(0));
    assert!(
        refused.err.contains(&format!("  claw: /home/claw/.config/systemd/user/{UNIT}\n")),
        "{refused:?}"
    );
    assert!(refused.err.contains("\n  tideover uninstall\n"), "{refused:?}");
    let state = lab.root(&["dpkg-query", "-W", "-f", "${db:Status-Status}", "tideover"])?.ok()?;
    assert_eq!(state, "installed");
    lab.user(&["tideover", "--version"])?.ok()?;
    // Whoever insists is heard: this runs what dpkg would run.
    let forced = lab.root(&[
        "env",
        "TIDEOVER_FORCE_REMOVE=yes",
        "/var/lib/dpkg/info/tideover.prerm",
        "remove",
    ])?;
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert!(forced.err.contains("they fail at their next start"), "{forced:?}");
    lab.user(&["rm", &format!("/home/claw/.config/systemd/user/{UNIT}")])?.ok()?;
    lab.systemctl(&["daemon-reload"]).map(drop)
}
