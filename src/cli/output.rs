//! How verbs speak: text or JSON on stdout, failures with an exit code and a next step.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::control::client::ClientError;
use crate::control::protocol::ErrorCode;

use super::exit_code;

/// Why a verb failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: i32,
    error: anyhow::Error,
    /// What `--json` prints in place of the bare error.
    document: Option<Value>,
}

impl Failure {
    pub(super) fn new(code: i32, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into(), document: None }
    }

    pub(super) fn text(code: i32, message: impl Into<String>) -> Self {
        Self { code, error: anyhow::Error::msg(message.into()), document: None }
    }

    /// The same with the verb's own document, where the verb has more to say than why it failed.
    pub(super) fn with(self, document: Value) -> Self {
        Self { document: Some(document), ..self }
    }

    /// What `--json` prints.
    pub(super) fn document(&self) -> Value {
        self.document.clone().unwrap_or_else(|| {
            json!({
                "schema": "tideover.error/1", "error": self.message(), "exit_code": self.code,
            })
        })
    }

    /// The whole chain in one line.
    pub(super) fn message(&self) -> String {
        let causes: Vec<String> = self.error.chain().map(ToString::to_string).collect();
        causes.join(": ")
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: exit_code::FAILED, error: error.into(), document: None }
    }
}

/// What the supervisor's refusal means for the exit code.
pub(super) fn from_client(error: ClientError) -> Failure {
    match &error {
        ClientError::NotRunning { .. } => Failure::text(
            exit_code::NOT_RUNNING,
            format!("{error}; start the gateway with `tideover run -- openclaw gateway`"),
        ),
        ClientError::Answer { code: Some(ErrorCode::NotFound), .. } => Failure::text(
            exit_code::NOT_FOUND,
            format!("{error}; `tideover sessions list` prints the keys"),
        ),
        ClientError::Answer { code: Some(ErrorCode::Refused), .. } => {
            Failure::new(exit_code::REFUSED, error)
        }
        ClientError::Answer { .. } | ClientError::Io { .. } | ClientError::Garbled { .. } => {
            Failure::new(exit_code::FAILED, error)
        }
    }
}

/// Prints a document. A reader that has gone away is not an error.
pub(super) fn print_json(value: &Value) {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    print_line(&text);
}

/// Prints a line, likewise.
pub(super) fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Text from elsewhere, safe for a terminal and for one line of it.
pub(super) fn plain(text: &str, chars_max: usize) -> String {
    let mut out: String =
        text.chars().map(|c| if c.is_control() { '·' } else { c }).take(chars_max).collect();
    if text.chars().count() > chars_max {
        out.push('…');
    }
    out
}

/// A word for a shell, in quotes.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", plain(word, 4_096).replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_is_one_word_and_one_line() {
        assert_eq!(quoted("agent:main:main"), "'agent:main:main'");
        assert_eq!(quoted("it's; $(x)\n"), r"'it'\''s; $(x)·'");
    }
}
