//! `tideover drill`: the rehearsal, told while it happens, with a verdict at the end.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::drill::DrillError;
use crate::drill::progress::{Progress, Tell};
use crate::drill::provision::Wanted;
use crate::drill::scenario::{ALL, Scenario, Staging, find, play};
use crate::drill::story::{Report, SCHEMA};

use super::args::{Drill, Global};
use super::exit_code;
use super::output::{Failure, plain, print_json, print_line};

/// How often the spinner turns while the gateway starts.
const TICK: Duration = Duration::from_millis(120);
/// Longest detail shown with a step, in characters.
const DETAIL_CHARS_MAX: usize = 160;

pub(super) fn run(global: &Global, drill: &Drill) -> Result<(), Failure> {
    let scenarios = scenarios(drill)?;
    let wanted = match &drill.openclaw {
        Some(text) => text.parse::<Wanted>().map_err(usage)?,
        None => Wanted::Any,
    };
    let bar = spinner();
    let mut staging =
        Staging::new(std::env::current_exe()?, wanted, teller(bar.clone(), global.json));
    staging.keep = drill.keep;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reports = runtime.block_on(async {
        tokio::select! {
            reports = rehearse(&scenarios, &staging) => reports,
            // Dropping the rehearsal ends every process of it and removes its home.
            _ = tokio::signal::ctrl_c() => Err(Failure::text(exit_code::FAILED, "interrupted; everything it started is gone")),
        }
    });
    bar.finish_and_clear();
    tell_verdict(global, &reports?)
}

fn scenarios(drill: &Drill) -> Result<Vec<Scenario>, Failure> {
    if drill.scenario == "all" {
        return Ok(ALL.to_vec());
    }
    Ok(vec![find(&drill.scenario).map_err(usage)?])
}

fn usage(error: DrillError) -> Failure {
    Failure::new(exit_code::USAGE, error)
}

async fn rehearse(scenarios: &[Scenario], staging: &Staging) -> Result<Vec<Report>, Failure> {
    let mut reports = Vec::new();
    for scenario in scenarios {
        staging.tell.note(format!("scenario {}: {}", scenario.name, scenario.about));
        reports.push(play(scenario, staging).await?);
    }
    Ok(reports)
}

fn tell_verdict(global: &Global, reports: &[Report]) -> Result<(), Failure> {
    let ok = !reports.is_empty() && reports.iter().all(|report| report.ok);
    if global.json {
        print_json(&json!({ "schema": SCHEMA, "ok": ok, "scenarios": reports }));
    } else {
        for report in reports {
            let word = if report.ok { "ok" } else { "FAILED" };
            print_line(&format!(
                "{word}: {} on OpenClaw {}, {} checks, {:.1} s",
                report.scenario,
                report.openclaw,
                report.checks.len(),
                Duration::from_millis(report.duration_ms).as_secs_f32()
            ));
        }
        print_line(if ok { "verdict: success" } else { "verdict: FAILED" });
    }
    if ok {
        return Ok(());
    }
    let failures: String = reports
        .iter()
        .filter(|report| !report.ok)
        .map(|report| format!("{}: {}", report.scenario, report.failures()))
        .collect();
    Err(Failure::text(
        exit_code::FAILED,
        format!(
            "{}\nlook closer with `tideover drill --keep --scenario NAME`",
            failures.trim_end()
        ),
    ))
}

fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}

/// The story goes to stdout as it happens; with `--json` only the document does, and the story to stderr.
fn teller(bar: ProgressBar, json: bool) -> Tell {
    let line = move |bar: &ProgressBar, text: String| {
        bar.suspend(|| if json { eprintln!("{text}") } else { print_line(&text) });
    };
    Tell::new(move |progress| match progress {
        Progress::Note(text) => line(&bar, plain(&text, DETAIL_CHARS_MAX)),
        Progress::Waiting { what, elapsed } => {
            bar.set_message(format!("{}: {} s", plain(&what, 60), elapsed.as_secs()));
        }
        Progress::Done { .. } => bar.set_message(""),
        Progress::Step(step) => {
            let mark = if step.ok { ' ' } else { '!' };
            let seconds = Duration::from_millis(step.at_ms).as_secs_f32();
            let detail = plain(&step.detail, DETAIL_CHARS_MAX);
            line(&bar, format!("{mark} {seconds:>6.1} s  {}  {detail}", plain(&step.what, 80)));
        }
        Progress::Check(check) => {
            let word = if check.ok { "ok" } else { "FAILED" };
            line(&bar, format!("             {word}: {} {}", check.name, check.subject));
        }
    })
}
