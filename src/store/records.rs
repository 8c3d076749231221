//! tideover's own small records: the boot record, the outbox entries, the incidents.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::core::incident::{INCIDENT_SCHEMA, Incident};
use crate::core::outbox::{Entry, SCHEMA as OUTBOX_SCHEMA};
use crate::core::recovery::{BOOT_SCHEMA, BootRecord};

use super::directory::{Directory, ReadProblem, StoreError};

/// File name of the boot record under `tideover/`.
pub const BOOT_FILE: &str = "boot.json";
/// File name, under `tideover/`, of the record of what the gateway's own queue gave up.
pub const GIVEN_UP_FILE: &str = "given-up.json";
/// Largest boot record or outbox entry that is read, in bytes.
const RECORD_BYTES_MAX: u64 = 256 * 1024;
/// Largest incident that is read: 200 sessions with the longest keys fit.
const INCIDENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most outbox entries read at a start.
const OUTBOX_ENTRIES_MAX: usize = 10_000;
/// Incidents that are kept; older ones go when a new one comes.
pub const INCIDENTS_MAX: usize = 100;

/// Up to this size a record is written for people to read, with line breaks; indentation can make a longer one
/// many times as long.
const PRETTY_BYTES_MAX: usize = 16 * 1024;

/// A record's bytes as they go to disk.
#[must_use]
pub fn to_bytes<T: Serialize>(record: &T) -> Vec<u8> {
    // These types have string keys only, so serialization cannot fail; an empty file would be caught by the reader.
    let mut bytes = serde_json::to_vec(record).unwrap_or_default();
    if bytes.len() <= PRETTY_BYTES_MAX {
        bytes = serde_json::to_vec_pretty(record).unwrap_or_default();
    }
    bytes.push(b'\n');
    bytes
}

/// The boot record of the run before.
///
/// # Errors
/// A text that names what is wrong with the file.
pub fn read_boot(directory: &Directory) -> Result<Option<BootRecord>, String> {
    read(directory, BOOT_FILE, |record: &BootRecord| record.schema == BOOT_SCHEMA)
}

/// The record of what the gateway's own queue gave up; one that is not there or cannot be read is empty.
#[must_use]
pub fn read_given_up<T: DeserializeOwned>(directory: &Directory) -> Vec<T> {
    let bytes = directory.read(GIVEN_UP_FILE, RECORD_BYTES_MAX).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Every readable outbox entry, and a line for each that is not.
#[must_use]
pub fn read_outbox(directory: &Directory) -> (Vec<Entry>, Vec<String>) {
    let names = match directory.names() {
        Ok(names) => names,
        Err(error) => return (Vec::new(), vec![error.to_string()]),
    };
    directory.sweep(&names);
    let mut entries = Vec::new();
    let mut problems = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".json")).take(OUTBOX_ENTRIES_MAX) {
        match read(directory, name, |entry: &Entry| entry.schema == OUTBOX_SCHEMA) {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    (entries, problems)
}

/// The newest `count` incidents, newest first, and a line for each file that cannot be read.
///
/// # Errors
/// When the directory cannot be listed.
pub fn read_incidents(
    directory: &Directory,
    count: usize,
) -> Result<(Vec<Incident>, Vec<String>), StoreError> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for name in incident_names(directory)?.iter().rev().take(count) {
        match read_incident(directory, name) {
            Ok(incident) => found.extend(incident),
            Err(problem) => problems.push(problem),
        }
    }
    Ok((found, problems))
}

/// One incident by the name of its file.
///
/// # Errors
/// A text that names what is wrong with the file.
pub fn read_incident(directory: &Directory, name: &str) -> Result<Option<Incident>, String> {
    read_within(directory, name, INCIDENT_BYTES_MAX, |incident: &Incident| {
        incident.schema == INCIDENT_SCHEMA
    })
}

/// Removes the oldest incidents beyond those that are kept.
///
/// # Errors
/// When the directory cannot be listed or a file cannot be removed.
pub fn prune_incidents(directory: &Directory) -> Result<(), StoreError> {
    let names = incident_names(directory)?;
    let surplus = names.len().saturating_sub(INCIDENTS_MAX);
    names.iter().take(surplus).try_for_each(|name| directory.remove(name))
}

/// Their file names, oldest first.
fn incident_names(directory: &Directory) -> Result<Vec<String>, StoreError> {
    let mut names = directory.names()?;
    names.retain(|name| name.ends_with(".json") && !name.starts_with('.'));
    names.sort_unstable();
    Ok(names)
}

fn read<T: DeserializeOwned>(
    directory: &Directory,
    name: &str,
    is_ours: impl Fn(&T) -> bool,
) -> Result<Option<T>, String> {
    read_within(directory, name, RECORD_BYTES_MAX, is_ours)
}

fn read_within<T: DeserializeOwned>(
    directory: &Directory,
    name: &str,
    bytes_max: u64,
    is_ours: impl Fn(&T) -> bool,
) -> Result<Option<T>, String> {
    let path = directory.path().join(name);
    let bytes = match directory.read(name, bytes_max) {
        Ok(bytes) => bytes,
        Err(ReadProblem::Missing) => return Ok(None),
        Err(problem) => return Err(format!("{}: {problem}", path.display())),
    };
    let record: T = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{}: {}", path.display(), broken(&error)))?;
    if is_ours(&record) {
        Ok(Some(record))
    } else {
        Err(format!("{}: written by another version of tideover", path.display()))
    }
}

/// What is wrong with a file, without any of its content: serde's own words may quote a task or an argument.
pub(super) fn broken(error: &serde_json::Error) -> String {
    let place = format!("at line {} column {}", error.line(), error.column());
    match error.classify() {
        Category::Io => format!("cannot be read {place}"),
        Category::Syntax => format!("no JSON {place}"),
        Category::Eof => format!("cut off {place}"),
        Category::Data => {
            let text = error.to_string();
            let field =
                text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
            match field {
                Some(field) => format!("field {field:?} is missing {place}"),
                None => format!("a field of another type or value {place}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_without_the_content() {
        for (text, said) in [
            ("{ half", "no JSON"),
            ("{\"schema\": \"tideover.boot/1\"", "cut off"),
            ("{}", "field \"schema\" is missing"),
            ("{\"schema\": {\"secret\": 1}}", "a field of another type"),
        ] {
            let error = serde_json::from_str::<BootRecord>(text).unwrap_err();
            let told = broken(&error);
            assert!(told.contains(said) && !told.contains("secret"), "{text}: {told}");
        }
    }
}
