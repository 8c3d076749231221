//! The checkpoint directory: reading it at a start, and which file belongs to which session.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use crate::core::checkpoint::{Checkpoint, SCHEMA, SCHEMA_PREFIX};
use crate::core::limits::CHECKPOINT_BYTES_MAX;

use super::directory::{Directory, ReadProblem, StoreError};
use super::names::{alternative, file_name};
use super::records::broken;

/// Which file name belongs to which session. Two sessions never share one.
#[derive(Debug, Default)]
pub struct FileNames {
    by_key: HashMap<String, String>,
    taken: HashSet<String>,
}

impl FileNames {
    /// The name of a session's file, given out on first use.
    pub fn of(&mut self, session_key: &str) -> String {
        if let Some(name) = self.by_key.get(session_key) {
            return name.clone();
        }
        let mut name = file_name(session_key);
        let mut number = 2;
        while self.taken.contains(&name) {
            name = alternative(session_key, number);
            number += 1;
        }
        self.taken.insert(name.clone());
        self.by_key.insert(session_key.to_owned(), name.clone());
        name
    }

    /// Gives a name to a session; returns the name it had before.
    fn claim(&mut self, session_key: &str, name: &str) -> Option<String> {
        self.taken.insert(name.to_owned());
        self.by_key.insert(session_key.to_owned(), name.to_owned())
    }

    fn occupy(&mut self, name: &str) {
        self.taken.insert(name.to_owned());
    }
}

/// What a file in the directory turned out to be, if not a checkpoint of this build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it and what was done, for people.
    pub what: String,
}

/// Everything found in the checkpoint directory.
#[derive(Debug, Default)]
pub struct Scan {
    /// The readable checkpoints.
    pub records: Vec<Checkpoint>,
    /// Which file is whose.
    pub names: FileNames,
    /// The others.
    pub findings: Vec<Finding>,
}

enum Found {
    Record(Box<Checkpoint>),
    /// Left where it is, never written.
    Leave(String),
    /// Moved to quarantine.
    SetAside(String),
}

/// Reads the whole directory. With `quarantine`, files that do not parse are moved there.
///
/// # Errors
/// When the directory cannot be listed.
pub fn scan(directory: &Directory, quarantine: Option<&Directory>) -> Result<Scan, StoreError> {
    let names = directory.names()?;
    let mut scan = Scan::default();
    if quarantine.is_some() {
        directory.sweep(&names);
    }
    let mut by_key: HashMap<String, usize> = HashMap::new();
    for name in names.iter().filter(|name| name.ends_with(".json")) {
        match look_at(directory, name) {
            Found::Record(record) => {
                let known =
                    by_key.get(&record.session_key).and_then(|at| scan.records.get_mut(*at));
                let older = match known {
                    None => {
                        by_key.insert(record.session_key.clone(), scan.records.len());
                        scan.names.claim(&record.session_key, name);
                        scan.records.push(*record);
                        continue;
                    }
                    // A copy that somebody kept must not pass for the record it was made of.
                    Some(known) if is_newer(&record, known) => {
                        let older = scan.names.claim(&record.session_key, name);
                        *known = *record;
                        older.unwrap_or_default()
                    }
                    Some(_) => {
                        scan.names.occupy(name);
                        name.clone()
                    }
                };
                let what = "an older file of a session that has another; left alone".to_owned();
                scan.findings.push(Finding { path: directory.path().join(older), what });
            }
            Found::Leave(what) => {
                scan.names.occupy(name);
                scan.findings.push(Finding { path: directory.path().join(name), what });
            }
            Found::SetAside(what) => {
                let finding = set_aside(directory, quarantine, name, &what, &mut scan.names);
                scan.findings.push(finding);
            }
        }
    }
    Ok(scan)
}

fn is_newer(record: &Checkpoint, than: &Checkpoint) -> bool {
    (record.updated_at, record.seq) > (than.updated_at, than.seq)
}

fn look_at(directory: &Directory, name: &str) -> Found {
    let bytes = match directory.read(name, CHECKPOINT_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(problem @ ReadProblem::TooLarge { .. }) => return Found::SetAside(problem.to_string()),
        Err(problem @ (ReadProblem::NotRegular | ReadProblem::Io(_) | ReadProblem::Missing)) => {
            return Found::Leave(format!("{problem}; left alone"));
        }
    };
    match serde_json::from_slice::<Checkpoint>(&bytes) {
        Ok(record) if record.schema == SCHEMA => Found::Record(Box::new(record)),
        Ok(record) => foreign(&record.schema),
        Err(error) => {
            // A newer schema need not have our fields: look at the schema alone before calling it broken.
            let schema = serde_json::from_slice::<serde_json::Value>(&bytes)
                .ok()
                .and_then(|value| value.get("schema")?.as_str().map(str::to_owned));
            match schema {
                Some(schema) if schema != SCHEMA => foreign(&schema),
                Some(_) | None => Found::SetAside(format!("not a checkpoint: {}", broken(&error))),
            }
        }
    }
}

fn foreign(schema: &str) -> Found {
    let shown: String = schema.chars().take(60).collect();
    if schema.starts_with(SCHEMA_PREFIX) {
        Found::Leave(format!("schema {shown:?} of a newer tideover; left alone and not rewritten"))
    } else {
        Found::SetAside(format!("field \"schema\": {shown:?} is not {SCHEMA:?}"))
    }
}

fn set_aside(
    directory: &Directory,
    quarantine: Option<&Directory>,
    name: &str,
    what: &str,
    names: &mut FileNames,
) -> Finding {
    let path = directory.path().join(name);
    let Some(quarantine) = quarantine else {
        return Finding { path, what: what.to_owned() };
    };
    match directory.set_aside(name, quarantine) {
        Ok(to) => Finding { path, what: format!("{what}; moved to {}", to.display()) },
        Err(error) => {
            names.occupy(name);
            Finding { path, what: format!("{what}; {error}") }
        }
    }
}
