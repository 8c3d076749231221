//! What was there before the installation, so that it can be put back to the byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files::Content;

/// The record's name in tideover's own directory. The plugin's record stands beside it.
pub const RECORD_NAME: &str = "install-unit.json";

const SCHEMA: &str = "tideover.install-unit/1";

/// The record of one unit. It can hold what the unit holds, tokens included: mode 0600, in a directory of 0700.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_debug_implementations, reason = "a unit can hold a token")]
pub struct Record {
    schema: String,
    /// The unit.
    pub unit: String,
    /// Its `is-enabled` state as found.
    pub enabled: String,
    /// Files as they were found; `None` for those that were not there.
    pub before: BTreeMap<PathBuf, Option<Content>>,
    /// Hashes of the files as the installation left them; empty until it is complete.
    pub after: BTreeMap<PathBuf, String>,
    /// Directories that were created.
    pub dirs: Vec<PathBuf>,
    /// The gateway's command as it was found.
    pub command: Vec<String>,
}

impl Record {
    /// A new record.
    pub fn new(unit: &str, enabled: &str, command: &[String]) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            unit: unit.to_owned(),
            enabled: enabled.to_owned(),
            before: BTreeMap::new(),
            after: BTreeMap::new(),
            dirs: Vec::new(),
            command: command.to_vec(),
        }
    }

    /// Reads one; `None` for what is not a record of this version.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|record: &Self| record.schema == SCHEMA)
    }

    /// As it is written.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Whether a file is as the installation left it.
    pub fn left_so(&self, path: &Path, now: Option<&Content>) -> bool {
        self.after.get(path).is_some_and(|hash| *hash == fingerprint(now))
    }
}

/// What tells one state of a file from another.
pub(super) fn fingerprint(content: Option<&Content>) -> String {
    let Some(content) = content else { return "none".to_owned() };
    Sha256::digest(&content.text).iter().map(|byte| format!("{byte:02x}")).collect()
}
