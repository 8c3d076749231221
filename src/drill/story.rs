//! What a rehearsal tells: steps as they happen, checks with their evidence, a verdict.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::progress::Tell;

/// Schema name of a report as JSON.
pub const SCHEMA: &str = "tideover.drill/1";

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Milliseconds since the scenario began.
    pub at_ms: u64,
    /// What happened, in a few words.
    pub what: String,
    /// Whether it went as it should.
    pub ok: bool,
    /// Particulars; may be empty.
    pub detail: String,
}

/// One promise, judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name: one of the constants of [`checks`].
    pub name: &'static str,
    /// Which session it was judged for, when there are several.
    pub subject: String,
    /// Whether the promise was kept.
    pub ok: bool,
    /// The evidence.
    pub detail: String,
}

/// Names of the checks.
pub mod checks {
    /// The call was durable, with name and identical arguments, before it had its effect.
    pub const CHECKPOINT_BEFORE_EFFECT: &str = "checkpoint-before-effect";
    /// The call was still in the checkpoint when the gateway was down.
    pub const CHECKPOINT_SURVIVED: &str = "checkpoint-survived";
    /// SIGTERM reached the gateway.
    pub const SIGTERM_PASSED_ON: &str = "sigterm-passed-on";
    /// tideover ended as its gateway did.
    pub const SAME_EXIT: &str = "same-exit";
    /// Exactly one notice on the route, or none where nothing was cut.
    pub const NOTICES: &str = "notices";
    /// Nothing of the gateway's own recovery reached the user.
    pub const NATIVE_SILENT: &str = "native-silent";
    /// The model was not asked anything between the restart and the user's message.
    pub const MODEL_NOT_ASKED: &str = "model-not-asked";
    /// No effect between the restart and the user's message.
    pub const HELD: &str = "held-until-user";
    /// The model's next request has the exact first line, or none where nothing was cut.
    pub const MODEL_TOLD: &str = "model-told";
    /// After the user's message the effect was possible again, and the turn ended.
    pub const RELEASED: &str = "released-by-user";
    /// `/resume` was answered with what is known and with the words that confirm; nothing ran.
    pub const RESUME_ASKED_FIRST: &str = "resume-asked-first";
    /// The turn that the confirmation started opens with the line about the cut call.
    pub const RESUME_TOLD: &str = "resume-told";
    /// The confirmed call was durable before its effect, with name and identical arguments.
    pub const RESUME_IDENTICAL: &str = "resume-identical-call";
    /// It had its effect exactly once more, and nothing else ran in its place.
    pub const RESUME_ONCE: &str = "resume-once";
    /// The task went on from it to the model's last word.
    pub const RESUME_ENDED: &str = "resume-ended";
    /// The word was good for once: a further one found nothing left, and had no effect.
    pub const RESUME_SPENT: &str = "resume-spent";
    /// The scenario came to its end.
    pub const COMPLETED: &str = "completed";
}

/// A scenario's outcome.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// Name of the scenario.
    pub scenario: String,
    /// Version of the gateway.
    pub openclaw: String,
    /// Whether every check passed.
    pub ok: bool,
    /// How long it took, the gateway's starts included.
    pub duration_ms: u64,
    /// What happened.
    pub steps: Vec<Step>,
    /// What was promised, judged.
    pub checks: Vec<Check>,
    /// The scratch home, when it was kept.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// The checks that failed, one a line; empty when all passed.
    #[must_use]
    pub fn failures(&self) -> String {
        let failed = self.checks.iter().filter(|check| !check.ok);
        let line = |check: &Check| format!("{} {}: {}\n", check.name, check.subject, check.detail);
        failed.map(line).collect()
    }
}

/// A story while it is being told.
#[derive(Debug)]
pub struct Story {
    began: Instant,
    steps: Vec<Step>,
    checks: Vec<Check>,
    tell: Tell,
}

impl Story {
    /// Begins one; each step and check is also told as it comes.
    #[must_use]
    pub fn new(tell: Tell) -> Self {
        Self { began: Instant::now(), steps: Vec::new(), checks: Vec::new(), tell }
    }

    /// Something happened as it should.
    pub fn step(&mut self, what: impl Into<String>, detail: impl Into<String>) {
        self.push(true, what.into(), detail.into());
    }

    /// Something went wrong.
    pub fn trouble(&mut self, what: impl Into<String>, detail: impl Into<String>) {
        self.push(false, what.into(), detail.into());
    }

    fn push(&mut self, ok: bool, what: String, detail: String) {
        let step = Step { at_ms: millis(self.began.elapsed()), what, ok, detail };
        self.tell.step(&step);
        self.steps.push(step);
    }

    /// Judges a promise. A failed check is also a step, so that the story shows where it broke.
    pub fn check(
        &mut self,
        name: &'static str,
        subject: impl Into<String>,
        ok: bool,
        detail: impl Into<String>,
    ) {
        let check = Check { name, subject: subject.into(), ok, detail: detail.into() };
        if !ok {
            self.push(
                false,
                format!("check failed: {name} {}", check.subject),
                check.detail.clone(),
            );
        }
        self.tell.check(&check);
        self.checks.push(check);
    }

    /// Ends the story. A story without checks is no success.
    #[must_use]
    pub fn report(self, scenario: &str, openclaw: &str, kept: Option<PathBuf>) -> Report {
        Report {
            schema: SCHEMA,
            scenario: scenario.to_owned(),
            openclaw: openclaw.to_owned(),
            ok: !self.checks.is_empty() && self.checks.iter().all(|check| check.ok),
            duration_ms: millis(self.began.elapsed()),
            steps: self.steps,
            checks: self.checks,
            kept,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_checks_and_all_of_them() {
        assert!(!Story::new(Tell::silent()).report("s", "v", None).ok);
        let mut story = Story::new(Tell::silent());
        story.check(checks::HELD, "4242", true, "");
        story.check(checks::NOTICES, "4242", false, "two");
        let report = story.report("s", "v", None);
        assert!(!report.ok);
        assert_eq!(report.failures(), "notices 4242: two\n");
        assert_eq!(report.steps.len(), 1);
    }
}
