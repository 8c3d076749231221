//! What the doctor says: one finding a check, each with its fix.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing, nothing to do.
    Note,
    /// Works, and something is missing.
    Warn,
    /// Does not work.
    Fail,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at: `binary`, `plugin`, `unit`, …
    pub(super) check: &'static str,
    pub(super) level: Level,
    /// What was found.
    pub(super) what: String,
    /// The command to run, or what else to do.
    pub(super) fix: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, what: what.into(), fix: None }
    }

    pub(super) fn note(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, level: Level::Note, what: what.into(), fix: None }
    }

    pub(super) fn warn(
        check: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { check, level: Level::Warn, what: what.into(), fix: Some(fix.into()) }
    }

    pub(super) fn fail(
        check: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { check, level: Level::Fail, what: what.into(), fix: Some(fix.into()) }
    }
}
