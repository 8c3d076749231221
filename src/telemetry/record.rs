//! One event as it waits for the writer: owned, bounded, without the name of a session.

use std::fmt::{Debug, Write as _};

use tracing::field::{Field as Name, Visit};
use tracing::{Event, Level};

use super::events::{self, Kind};

/// Longest value that is kept, in bytes. `journalctl -o json` shows null from 4096 on.
const VALUE_BYTES_MAX: usize = 2_048;
/// Longest message with its fields, in bytes.
const MESSAGE_BYTES_MAX: usize = 3_072;
/// What a session's file is called in a path: its name would tell the session key, an address among others.
const UNNAMED: &str = "<session>";

/// One event.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) kind: Option<&'static Kind>,
    pub(super) fields: Vec<Field>,
    text: String,
}

/// A value under a name.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) value: String,
    /// Whether it was a string, which a line shows in quotes.
    quoted: bool,
}

impl Field {
    /// A bounded value that names no session.
    fn new(name: &'static str, value: String, quoted: bool) -> Self {
        Self { name, value: cut(without_session_names(value), VALUE_BYTES_MAX), quoted }
    }

    #[cfg(test)]
    pub(super) fn text(name: &'static str, value: &str) -> Self {
        Self::new(name, value.to_owned(), true)
    }
}

impl Record {
    /// What an event says.
    pub(super) fn of(event: &Event<'_>) -> Self {
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let mut record =
            Self { level, target, kind: None, fields: Vec::new(), text: String::new() };
        event.record(&mut record);
        record
    }

    /// What is said of records that were dropped.
    pub(super) fn of_lost(count: u64) -> Self {
        Self {
            level: Level::WARN,
            target: "tideover::telemetry",
            kind: Some(&events::RECORDS_DROPPED),
            fields: vec![Field::new("count", count.to_string(), false)],
            text: "records dropped".to_owned(),
        }
    }

    /// The message with its fields, on one line: what people read who do not look at fields.
    pub(super) fn message(&self) -> String {
        let mut message = one_line(&self.text);
        for Field { name, value, quoted } in &self.fields {
            // Writing to a String cannot fail.
            let _ = match quoted {
                true => write!(message, " {name}={value:?}"),
                false => write!(message, " {name}={}", one_line(value)),
            };
        }
        cut(message, MESSAGE_BYTES_MAX)
    }

    /// The same as a line for stderr.
    pub(super) fn line(&self) -> String {
        let event = self.kind.map(|kind| format!(" event={}", kind.name)).unwrap_or_default();
        format!("{:>5} {}: {}{event}\n", self.level, self.target, self.message())
    }

    fn take(&mut self, name: &'static str, value: String, quoted: bool) {
        let field = Field::new(name, value, quoted);
        match (name, events::named(&field.value)) {
            ("message", _) => self.text = field.value,
            ("event", Some(kind)) => self.kind = Some(kind),
            _ => self.fields.push(field),
        }
    }
}

impl Visit for Record {
    fn record_str(&mut self, name: &Name, value: &str) {
        self.take(name.name(), value.to_owned(), true);
    }

    fn record_debug(&mut self, name: &Name, value: &dyn Debug) {
        self.take(name.name(), format!("{value:?}"), false);
    }
}

/// A terminal must not obey a log, nor a line become two.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    line
}

fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let mut end = bytes_max - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Takes the names of sessions' files out of paths below `checkpoints/`: errors of the store speak of them. A name
/// without an encoded byte is left: a key that holds an address has `:`, `+` or `@` in it.
fn without_session_names(text: String) -> String {
    const ROOM: &str = "checkpoints/";
    if !text.contains(ROOM) {
        return text;
    }
    let (mut rest, mut clean) = (text.as_str(), String::with_capacity(text.len()));
    while let Some(at) = rest.find(ROOM) {
        let (before, after) = rest.split_at(at + ROOM.len());
        let of_path = |char: char| char.is_ascii_alphanumeric() || "._-%~/".contains(char);
        rest = after.trim_start_matches(of_path);
        let path = &after[..after.len() - rest.len()];
        let (rooms, name) = path.rsplit_once('/').unwrap_or(("", path));
        clean.push_str(before);
        if name.contains('%') {
            clean.push_str(rooms);
            clean.push_str(if rooms.is_empty() { "" } else { "/" });
            clean.push_str(UNNAMED);
        } else {
            clean.push_str(path);
        }
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &str, quoted: bool) -> Record {
        let mut record = Record::of_lost(1);
        record.fields.clear();
        record.kind = None;
        record.take("message", "said".to_owned(), false);
        record.take("value", value.to_owned(), quoted);
        record
    }

    #[test]
    fn a_line_is_one_line() {
        for (value, quoted, line) in [
            ("plain", false, "said value=plain"),
            ("two\nlines", false, "said value=two\\nlines"),
            ("two\n\"lines\"", true, "said value=\"two\\n\\\"lines\\\"\""),
            ("\u{1b}[31mred", false, "said value=\\u{1b}[31mred"),
        ] {
            let line = format!(" WARN tideover::telemetry: {line}\n");
            assert_eq!(record(value, quoted).line(), line);
        }
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let long = "ü".repeat(5_000);
        let record = record(&long, true);
        let value = &record.fields[0].value;
        assert!(value.len() <= VALUE_BYTES_MAX && value.ends_with("ü…"), "{}", value.len());
        assert!(record.message().len() <= MESSAGE_BYTES_MAX);
    }

    #[test]
    fn no_session_is_named_by_its_file() {
        let file = "agent%3Amain%3Atelegram%3Adirect%3A4242.json";
        for (text, clean) in [
            (
                format!("cannot write /s/checkpoints/{file}: EIO"),
                "cannot write /s/checkpoints/<session>: EIO",
            ),
            (format!("/s/checkpoints/quarantine/{file}"), "/s/checkpoints/quarantine/<session>"),
            (
                format!("checkpoints/{file}, checkpoints/{file}"),
                "checkpoints/<session>, checkpoints/<session>",
            ),
            ("cannot open /s/checkpoints: ENOENT".to_owned(), "cannot open /s/checkpoints: ENOENT"),
        ] {
            assert_eq!(without_session_names(text), clean);
        }
    }
}
