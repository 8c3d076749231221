//! The list of sessions, of which only the transcripts' names are read.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// What the list says of one session.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Its id, which names its transcript.
    pub(super) session_id: Option<String>,
    /// Its transcript, where the gateway names one.
    pub(super) session_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRow {
    #[serde(default)]
    session_id: MaybeText,
    #[serde(default)]
    session_file: MaybeText,
}

/// A text, or something that is none and is passed over.
#[derive(Deserialize)]
#[serde(untagged)]
enum MaybeText {
    Text(String),
    Other(IgnoredAny),
}

impl Default for MaybeText {
    fn default() -> Self {
        Self::Other(IgnoredAny)
    }
}

impl MaybeText {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            Self::Text(_) | Self::Other(_) => None,
        }
    }
}

/// The sessions by their keys; none where the list cannot be read.
pub(super) fn read(bytes: &[u8]) -> HashMap<String, Row> {
    let rows: HashMap<String, RawRow> = serde_json::from_slice(bytes).unwrap_or_default();
    rows.into_iter()
        .map(|(key, row)| {
            let row =
                Row { session_id: row.session_id.text(), session_file: row.session_file.text() };
            (key.trim().to_owned(), row)
        })
        .collect()
}
