//! Changes to a text, each with what is needed to take it back.

use serde::{Deserialize, Serialize};

/// One change: at byte `offset`, `removed` became `inserted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Edit {
    pub(super) offset: usize,
    pub(super) removed: String,
    pub(super) inserted: String,
}

impl Edit {
    /// The text after the change; `None` when the text is not the one the edit was made for.
    pub(super) fn apply(&self, text: &str) -> Option<String> {
        substitute(text, self.offset, &self.removed, &self.inserted)
    }

    /// The text before the change; `None` when `text` is not what the change left.
    pub(super) fn undo(&self, text: &str) -> Option<String> {
        substitute(text, self.offset, &self.inserted, &self.removed)
    }
}

fn substitute(text: &str, offset: usize, old: &str, new: &str) -> Option<String> {
    let head = text.get(..offset)?;
    let tail = text.get(offset..)?.strip_prefix(old)?;
    Some([head, new, tail].concat())
}

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style<'a> {
    /// The line ending.
    pub(super) newline: &'static str,
    /// One level of indentation; `None` for a document on one line.
    pub(super) indent: Option<&'a str>,
    /// Whether a blank follows a colon.
    pub(super) spaced: bool,
}

/// The blanks at the beginning of the line that holds `offset`.
pub(super) fn line_indent(text: &str, offset: usize) -> &str {
    let start = text.get(..offset).and_then(|head| head.rfind('\n')).map_or(0, |at| at + 1);
    let line = text.get(start..offset).unwrap_or_default();
    let blanks = line.len() - line.trim_start_matches([' ', '\t']).len();
    line.get(..blanks).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_taken_back_only_from_its_own_result() {
        let edit = Edit { offset: 1, removed: "b".into(), inserted: "xy".into() };
        assert_eq!(edit.apply("abc").as_deref(), Some("axyc"));
        assert_eq!(edit.undo("axyc").as_deref(), Some("abc"));
        for foreign in ["abc", "", "a", "äxyc"] {
            assert_eq!(edit.undo(foreign), None, "{foreign}");
        }
        assert_eq!(line_indent("{\n  \t\"a\": 1", 5), "  \t");
        assert_eq!(line_indent("{\"a\": 1", 5), "");
    }
}
