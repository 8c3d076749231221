//! `tideover report`: the last incidents as post-mortems that one screen holds.

use serde_json::json;

use crate::core::incident::{Incident, Sessions};
use crate::store::records::{INCIDENTS_MAX, read_incidents};
use crate::store::{Directory, Place};

use super::args::{Global, Report};
use super::install_unit::context_of_unit;
use super::output::{Failure, plain, print_json, print_line};

/// Longest line of a report.
const LINE_CHARS_MAX: usize = 240;

pub(super) fn run(global: &Global, report: &Report) -> Result<(), Failure> {
    let context = context_of_unit(global, report.unit.as_deref())?;
    let path = context.layout.directory(Place::Incidents);
    let (incidents, problems) = if path.is_dir() {
        read_incidents(&Directory::open(&path)?, INCIDENTS_MAX)?
    } else {
        (Vec::new(), Vec::new())
    };
    let wanted = |incident: &&Incident| match (&report.unit, &incident.unit) {
        (Some(wanted), Some(unit)) => wanted == unit || format!("{wanted}.service") == *unit,
        (Some(_), None) => false,
        (None, _) => true,
    };
    let incidents: Vec<&Incident> = incidents.iter().filter(wanted).take(report.last).collect();
    if global.json {
        print_json(&json!({
            "schema": "tideover.report/1", "incidents": incidents, "problems": problems,
        }));
        return Ok(());
    }
    if incidents.is_empty() {
        print_line("no incident on record");
    }
    for (index, incident) in incidents.iter().enumerate() {
        if index > 0 {
            print_line("");
        }
        // A unit's report goes to the journal, where no session key may be.
        let sessions = if report.unit.is_some() { Sessions::Hashed } else { Sessions::Named };
        for line in incident.report(sessions).lines() {
            print_line(&plain(line, LINE_CHARS_MAX));
        }
        print_line(&format!("  next       {}", next(incident)));
    }
    for problem in problems {
        print_line(&format!("problem: {}", plain(&problem, LINE_CHARS_MAX)));
    }
    Ok(())
}

/// What a person does with it.
fn next(incident: &Incident) -> String {
    let journal = incident.unit.as_ref().map_or(String::new(), |unit| {
        // Both ends with a little around them, in whole seconds.
        let (from, to) = (incident.ended_at.plus_ms(-60_000), incident.ended_at.plus_ms(60_000));
        let at = |stamp: crate::core::stamp::Stamp| stamp.as_ms() / 1_000;
        format!("; journalctl --user -u {unit} -S @{} -U @{}", at(from), at(to))
    });
    format!("tideover sessions list{journal}")
}
