//! `/resume` as the wire has it.

use serde::{Deserialize, Serialize};

use crate::core::checkpoint::Route;

use super::Session;

/// A person wrote `/resume`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ResumeAsked {
    /// The session of the conversation, as far as the gateway tells; a native command may name one of its own.
    #[serde(default)]
    pub session: Option<Session>,
    /// Where it came from.
    #[serde(default)]
    pub route: Option<Route>,
    /// Whether others read along.
    #[serde(default)]
    pub group: bool,
    /// What is said.
    pub choice: ResumeWord,
    /// The code behind a `yes`.
    #[serde(default)]
    pub code: Option<String>,
}

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeWord {
    /// The facts, and what they call for.
    Ask,
    /// Only the facts: nothing is run or changed.
    Show,
    /// Run it again.
    Yes,
    /// It has happened.
    Done,
    /// Drop it.
    Skip,
    /// Every interrupted session that the one who asks may see.
    List,
}
