//! `tideover doctor`: looks at everything tideover needs, and says for each finding what to do.

mod checks;
mod finding;
mod unit;

use serde_json::json;

use super::args::{Doctor, Global};
use super::context::environment;
use super::exit_code;
use super::install_unit::context_of_unit;
use super::output::{Failure, plain, print_json, print_line};
use finding::{Finding, Level};

/// Longest line about a finding.
const LINE_CHARS_MAX: usize = 400;

pub(super) fn run(global: &Global, doctor: &Doctor) -> Result<(), Failure> {
    let context = context_of_unit(global, doctor.unit.as_deref())?;
    let mut findings = checks::all(&context, &environment());
    findings.extend(unit::all(global, doctor.unit.as_deref()));
    let failures = findings.iter().filter(|finding| finding.level == Level::Fail).count();
    if global.json {
        print_json(&json!({
            "schema": "tideover.doctor/1",
            "state_dir": context.paths.state_dir,
            "findings": findings,
        }));
    } else {
        findings.iter().for_each(print);
    }
    if failures == 0 {
        return Ok(());
    }
    let what =
        if failures == 1 { "1 thing does".to_owned() } else { format!("{failures} things do") };
    Err(Failure::text(exit_code::FAILED, format!("{what} not work; the fixes are above")))
}

fn print(finding: &Finding) {
    let mark = match finding.level {
        Level::Ok => "ok  ",
        Level::Note => "note",
        Level::Warn => "WARN",
        Level::Fail => "FAIL",
    };
    let what = plain(&finding.what, LINE_CHARS_MAX);
    print_line(&format!("{mark} {:<12} {what}", finding.check));
    if let Some(fix) = &finding.fix {
        print_line(&format!("{:17} → {}", "", plain(fix, LINE_CHARS_MAX)));
    }
}
