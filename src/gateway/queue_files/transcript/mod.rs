//! What the transcripts of an old gateway tell of an entry: whether its turn has begun and how far
//! it came, and whether its message was sent.
//!
//! Transcripts are read to their end once per [`Transcripts`]; kept are facts, never texts.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;

use crate::core::queue::{Evidence, Queue, Work};
use crate::core::stamp::Stamp;

use super::document::Document;
use super::fields;
use facts::Facts;
use store::Row;

mod facts;
mod lines;
mod store;

/// Most of a transcript that is read, from its end, in bytes: days of a busy session. What an entry
/// of the queue did is among its last turns.
const TRANSCRIPT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Largest list of sessions that is read, in bytes; a session takes some KiB in it.
const STORE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most agents whose sessions are looked up.
const AGENTS_MAX: usize = 1_000;

/// The transcripts of one gateway, as they were when each was first asked for.
#[derive(Debug)]
pub struct Transcripts {
    /// Every agent's directory of sessions.
    directories: Vec<PathBuf>,
    /// By session key: the place in `directories`, and what the list of sessions says.
    sessions: HashMap<String, (usize, Row)>,
    /// By file.
    read: HashMap<PathBuf, Facts>,
}

impl Transcripts {
    /// Reads the lists of sessions below `state_dir`. What is missing or cannot be read tells
    /// nothing, which is no error: there is then no evidence.
    #[must_use]
    pub fn open(state_dir: &Path) -> Self {
        let directories = directories(state_dir);
        let mut sessions = HashMap::new();
        for (place, directory) in directories.iter().enumerate() {
            let rows = last_bytes(&directory.join("sessions.json"), STORE_BYTES_MAX)
                .ok()
                .filter(|found| found.whole)
                .map(|found| store::read(&found.bytes));
            for (key, row) in rows.unwrap_or_default() {
                if owner(&key) == agent(directory) || !sessions.contains_key(&key) {
                    sessions.insert(key, (place, row));
                }
            }
        }
        Self { directories, sessions, read: HashMap::new() }
    }

    /// What is known of `document`. A turn that tideover had the gateway run leaves no id, only its
    /// text: it is looked for from `claimed_since` on, which is when it was taken in hand.
    pub fn evidence(&mut self, document: &Document, claimed_since: Option<Stamp>) -> Evidence {
        let entry = document.entry();
        let Some(session_key) = entry.session_key.as_deref() else { return Evidence::None };
        // What leaves no name in a transcript is not looked for: reading one takes long.
        let named = match (entry.queue, entry.work) {
            (Queue::Session, work) => work == Work::Turn,
            (Queue::Delivery, _) => entry.key.is_some() || entry.mark.key.is_some(),
        };
        if !named {
            return Evidence::None;
        }
        let Some(facts) = self.facts(session_key) else { return Evidence::None };
        match (entry.queue, entry.work) {
            (Queue::Session, Work::Turn) => {
                let object = &document.object;
                let id = fields::text(object, "messageId").or(entry.key.as_deref());
                let native = id.map_or(Evidence::None, |id| facts.of_id(id));
                match (claimed_since, fields::text(object, "message")) {
                    (Some(since), Some(message)) if native != Evidence::Done => {
                        stronger(native, facts.of_text(message, since))
                    }
                    (Some(_) | None, _) => native,
                }
            }
            // An event is told in some later turn, under no name.
            (Queue::Session, Work::Event | Work::Message | Work::RichMessage) => Evidence::None,
            (Queue::Delivery, _) => {
                let mut keys = entry.key.iter().chain(&entry.mark.key);
                if keys.any(|key| facts.has_receipt(key)) { Evidence::Done } else { Evidence::None }
            }
        }
    }

    /// Whether the session's transcript holds the copy of a message that was sent under `key`.
    pub fn has_receipt(&mut self, session_key: &str, key: &str) -> bool {
        self.facts(session_key).is_some_and(|facts| facts.has_receipt(key))
    }

    fn facts(&mut self, session_key: &str) -> Option<&Facts> {
        let key = session_key.trim();
        let (place, row) =
            self.sessions.get(key).or_else(|| self.sessions.get(&key.to_ascii_lowercase()))?;
        let path = self.transcript(*place, row)?;
        let facts = self.read.entry(path).or_insert_with_key(|path| {
            last_bytes(path, TRANSCRIPT_BYTES_MAX)
                .map(|found| Facts::read(found.lines()))
                .unwrap_or_default()
        });
        Some(facts)
    }

    /// The transcript's file: the one that is named, where it lies directly in some agent's
    /// directory of sessions, else the session's own.
    fn transcript(&self, place: usize, row: &Row) -> Option<PathBuf> {
        let beside = self.directories.get(place)?;
        let named = row.session_file.as_deref().map(Path::new).and_then(|file| {
            let name = file.file_name().filter(|name| is_plain(name))?;
            let directory = match file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                None => beside,
                Some(parent) => self.directories.iter().find(|known| *known == parent)?,
            };
            Some(directory.join(name))
        });
        let own = || {
            let name = format!("{}.jsonl", row.session_id.as_deref()?);
            is_plain(OsStr::new(&name)).then(|| beside.join(name))
        };
        named.or_else(own)
    }
}

/// The stronger of two findings on one entry: an answered turn counts for the one that was cut.
fn stronger(one: Evidence, other: Evidence) -> Evidence {
    match (one, other) {
        (Evidence::Done, _) | (_, Evidence::Done) => Evidence::Done,
        (Evidence::Cut, _) | (_, Evidence::Cut) => Evidence::Cut,
        (Evidence::None, Evidence::None) => Evidence::None,
    }
}

/// Every agent's directory of sessions, in the order of their names.
fn directories(state_dir: &Path) -> Vec<PathBuf> {
    let agents = fs::read_dir(state_dir.join("agents")).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = agents
        .take(AGENTS_MAX)
        .map(|agent| agent.path().join("sessions"))
        .filter(|sessions| sessions.is_dir())
        .collect();
    found.sort_unstable();
    found
}

/// The agent that a directory of sessions belongs to.
fn agent(sessions: &Path) -> Option<&str> {
    sessions.parent()?.file_name()?.to_str()
}

/// The agent that a session's key names.
fn owner(key: &str) -> Option<&str> {
    key.strip_prefix("agent:")?.split(':').next()
}

/// Whether a name is one step down and no more.
fn is_plain(name: &OsStr) -> bool {
    let mut components = Path::new(name).components();
    matches!(components.next(), Some(Component::Normal(only)) if only == name)
        && components.next().is_none()
}

/// What was read of a file.
struct Found {
    bytes: Vec<u8>,
    /// Whether it is the whole file.
    whole: bool,
}

impl Found {
    /// Its lines, without one whose beginning was not read.
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split(|byte| *byte == b'\n').skip(usize::from(!self.whole))
    }
}

/// The last `bytes_max` bytes of a regular file; a link in its place is not followed.
fn last_bytes(path: &Path, bytes_max: u64) -> io::Result<Found> {
    let mut file = open_regular(path)?;
    let start = file.metadata()?.len().saturating_sub(bytes_max);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(Found { bytes, whole: start == 0 })
}

fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(ErrorKind::InvalidInput.into()) }
}

#[cfg(test)]
mod tests;
