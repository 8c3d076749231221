//! Where an entry can be, and how it gets from one place to another.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

use crate::core::queue::{Hand, Queue};
use crate::core::stamp::Stamp;
use crate::gateway::queue_files::{
    Document, ENTRY_BYTES_MAX, FAILED_DIRECTORY, directory_name, kept_in_files,
};
use crate::store::directory::ReadProblem;
use crate::store::{Directory, Layout, Place, StoreError};

/// Most files of one shelf that are looked at.
const FILES_MAX: usize = 20_000;
/// Settled entries that are kept for a look; older ones go.
const SETTLED_MAX: usize = 200;
/// Shortest beginning of an id that is taken for it.
const PREFIX_CHARS_MIN: usize = 4;

/// A place for entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shelf {
    /// The gateway's queue.
    Queue,
    /// Where the gateway keeps what it gave up.
    Failed,
    /// tideover has it in hand.
    Claimed,
    /// Kept back from the gateway.
    Kept,
    /// Found done.
    Settled,
    /// Taken out by a person.
    Dropped,
    /// No entry at all.
    Quarantine,
}

impl Shelf {
    /// Every shelf of entries, in the order in which a reader wants them.
    pub(super) const ALL: [Self; 6] =
        [Self::Queue, Self::Claimed, Self::Kept, Self::Failed, Self::Dropped, Self::Settled];

    /// Whether it holds one queue only, so that files keep the names that the gateway gave them.
    fn is_of_one_queue(self) -> bool {
        match self {
            Self::Queue | Self::Failed | Self::Quarantine => true,
            Self::Claimed | Self::Kept | Self::Settled | Self::Dropped => false,
        }
    }

    fn path(self, layout: &Layout, queue: Queue) -> PathBuf {
        let gateways = layout.state_dir().join(directory_name(queue));
        match self {
            Self::Queue => gateways,
            Self::Failed => gateways.join(FAILED_DIRECTORY),
            Self::Claimed => layout.directory(Place::QueueClaimed),
            Self::Kept => layout.directory(Place::QueueKept),
            Self::Settled => layout.directory(Place::QueueSettled),
            Self::Dropped => layout.directory(Place::QueueDropped),
            Self::Quarantine => {
                layout.directory(Place::QueueQuarantine).join(directory_name(queue))
            }
        }
    }

    /// A file's name there; where both queues lie side by side it says which.
    fn name(self, queue: Queue, id: &str) -> String {
        if self.is_of_one_queue() {
            format!("{id}.json")
        } else {
            format!("{}{id}.json", word(queue))
        }
    }

    /// The id of a file there, if it is one of this queue.
    fn id(self, queue: Queue, name: &str) -> Option<String> {
        let id = name.strip_suffix(".json").filter(|id| !id.starts_with('.'))?;
        let id = if self.is_of_one_queue() { Some(id) } else { id.strip_prefix(word(queue)) };
        id.filter(|id| !id.is_empty()).map(str::to_owned)
    }
}

/// A queue's name in front of the names of our files.
fn word(queue: Queue) -> &'static str {
    match queue {
        Queue::Session => "session~",
        Queue::Delivery => "delivery~",
    }
}

/// A file in the gateway's queue that is no entry, or not ours to touch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The queue.
    pub queue: Queue,
    /// The file's name.
    pub name: String,
    /// What is wrong with it.
    pub what: String,
    /// Whether it is another user's, and hence stays where it is.
    pub foreign: bool,
    /// Whether it was moved to the quarantine.
    pub quarantined: bool,
}

/// The shelves of one state directory, opened as they are needed.
#[derive(Debug)]
pub(super) struct Shelves {
    layout: Layout,
    open: BTreeMap<(Shelf, Queue), Directory>,
}

/// What one shelf holds of one queue.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) documents: Vec<Document>,
    pub(super) findings: Vec<Finding>,
}

impl Shelves {
    pub(super) fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), open: BTreeMap::new() }
    }

    /// A shelf that is there, or is made where something is put on it.
    fn directory(
        &mut self,
        shelf: Shelf,
        queue: Queue,
        make: bool,
    ) -> Result<&Directory, StoreError> {
        match self.open.entry((shelf, queue)) {
            std::collections::btree_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let path = shelf.path(&self.layout, queue);
                let directory =
                    if make { Directory::open_or_create(&path)? } else { Directory::open(&path)? };
                Ok(vacant.insert(directory))
            }
        }
    }

    /// Everything that a shelf holds of a queue, the oldest first; a shelf that is not there holds nothing.
    pub(super) fn read(&mut self, shelf: Shelf, queue: Queue) -> Content {
        let mut content = Content::default();
        let Ok(directory) = self.directory(shelf, queue, false) else { return content };
        let names = directory.names().unwrap_or_default();
        let entries = names.iter().filter_map(|name| Some((name, shelf.id(queue, name)?)));
        for (name, id) in entries.take(FILES_MAX) {
            let read = if directory.is_foreign(name) {
                Err(("belongs to another user".to_owned(), true))
            } else {
                parse(directory, queue, name, &id)
            };
            match read {
                Ok(Some(document)) => content.documents.push(document),
                Ok(None) => {}
                Err((what, foreign)) => content.findings.push(Finding {
                    queue,
                    name: name.clone(),
                    what,
                    foreign,
                    quarantined: false,
                }),
            }
        }
        content.documents.sort_by(|a, b| {
            let key =
                |document: &Document| (document.entry().enqueued_at, document.entry().id.clone());
            key(a).cmp(&key(b))
        });
        content
    }

    /// One entry by its id.
    pub(super) fn get(&mut self, shelf: Shelf, queue: Queue, id: &str) -> Option<Document> {
        let directory = self.directory(shelf, queue, false).ok()?;
        parse(directory, queue, &shelf.name(queue, id), id).ok().flatten()
    }

    /// Moves entries; each is whole in one of the two places at any time. Returns how many were there to move, and
    /// the first error.
    pub(super) fn relocate(
        &mut self,
        from: Shelf,
        to: Shelf,
        queue: Queue,
        ids: &[String],
    ) -> Result<usize, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        self.directory(to, queue, true)?;
        self.directory(from, queue, false)?;
        let names: Vec<(String, String)> =
            ids.iter().map(|id| (from.name(queue, id), to.name(queue, id))).collect();
        let (Some(source), Some(target)) =
            (self.open.get(&(from, queue)), self.open.get(&(to, queue)))
        else {
            return Ok(0);
        };
        let mut moved = 0;
        for result in source.move_to(target, &names) {
            moved += usize::from(result?);
        }
        Ok(moved)
    }

    /// Replaces entries where they are.
    pub(super) fn rewrite(
        &mut self,
        shelf: Shelf,
        queue: Queue,
        documents: &[&Document],
    ) -> Result<(), StoreError> {
        if documents.is_empty() {
            return Ok(());
        }
        let files: Vec<(String, Vec<u8>)> = documents
            .iter()
            .map(|document| (shelf.name(queue, &document.entry().id), document.to_bytes()))
            .collect();
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        let directory = self.directory(shelf, queue, false)?;
        directory.replace(&files).into_iter().collect()
    }

    /// Removes an entry for good: only ever a copy of what is kept elsewhere.
    pub(super) fn remove(
        &mut self,
        shelf: Shelf,
        queue: Queue,
        id: &str,
    ) -> Result<(), StoreError> {
        let name = shelf.name(queue, id);
        self.directory(shelf, queue, false)?.remove(&name)
    }

    /// Sets a file aside that is no entry. A link itself is moved, never what it points to.
    pub(super) fn quarantine(&mut self, finding: &mut Finding) {
        let queue = finding.queue;
        let made = self.directory(Shelf::Quarantine, queue, true).is_ok();
        let (from, to) =
            (self.open.get(&(Shelf::Queue, queue)), self.open.get(&(Shelf::Quarantine, queue)));
        if let (false, true, Some(from), Some(to)) = (finding.foreign, made, from, to) {
            finding.quarantined = from.set_aside(&finding.name, to).is_ok();
        }
    }

    /// The files that were set aside, with what is wrong with each.
    pub(super) fn quarantined(&mut self, queue: Queue) -> Vec<Finding> {
        let Ok(directory) = self.directory(Shelf::Quarantine, queue, false) else {
            return Vec::new();
        };
        let names = directory.names().unwrap_or_default();
        let finding = |name: &String| {
            let id = name.strip_suffix(".json").unwrap_or(name);
            let what = match parse(directory, queue, name, id) {
                Err((what, _)) => what,
                Ok(_) => "set aside".to_owned(),
            };
            Finding { queue, name: name.clone(), what, foreign: false, quarantined: true }
        };
        names.iter().take(FILES_MAX).map(finding).collect()
    }

    /// Removes the oldest settled entries beyond those that are kept for a look.
    pub(super) fn prune_settled(&mut self) {
        for queue in [Queue::Session, Queue::Delivery] {
            let settled = self.read(Shelf::Settled, queue).documents;
            for old in settled.iter().rev().skip(SETTLED_MAX) {
                let _ = self.remove(Shelf::Settled, queue, &old.entry().id);
            }
        }
    }

    /// Where an entry with this id, or this beginning of one, is.
    fn find(&mut self, id: &str) -> Result<(Shelf, Document), ChangeError> {
        let mut found = Vec::new();
        for shelf in Shelf::ALL {
            for queue in [Queue::Session, Queue::Delivery] {
                for document in self.read(shelf, queue).documents {
                    let whole = document.entry().id == id;
                    let begins =
                        id.len() >= PREFIX_CHARS_MIN && document.entry().id.starts_with(id);
                    if whole || begins {
                        found.push((shelf, document));
                    }
                }
            }
        }
        if found.len() > 1 {
            return Err(ChangeError::Ambiguous { id: id.to_owned(), count: found.len() });
        }
        found.pop().ok_or_else(|| ChangeError::NotFound { id: id.to_owned() })
    }
}

/// Reads one file as an entry: `None` where it has gone meanwhile, or what is wrong with it and whether it is
/// another user's.
fn parse(
    directory: &Directory,
    queue: Queue,
    name: &str,
    id: &str,
) -> Result<Option<Document>, (String, bool)> {
    let bytes = match directory.read(name, ENTRY_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(ReadProblem::Missing) => return Ok(None),
        Err(problem) => return Err((problem.to_string(), false)),
    };
    Document::parse(queue, &format!("{id}.json"), &bytes)
        .map(Some)
        .map_err(|malformed| (malformed.to_string(), false))
}

/// Why an entry was not changed.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// There is no such entry.
    #[error("no queued entry {id:?}; `tideover queue list` prints the ids")]
    NotFound {
        /// What was asked for.
        id: String,
    },
    /// The beginning of an id fits several.
    #[error("{count} queued entries begin with {id:?}; give more of the id")]
    Ambiguous {
        /// What was asked for.
        id: String,
        /// How many.
        count: usize,
    },
    /// It may not be changed now.
    #[error("{0}")]
    Refused(String),
    /// A file operation failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was done to an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Its queue.
    pub queue: Queue,
    /// Its id.
    pub id: String,
    /// Where it was.
    pub from: Shelf,
    /// Where it is now.
    pub to: Shelf,
}

/// Where the gateway keeps its queue itself, nothing here is ours to change.
fn refuse_native(layout: &Layout) -> Result<(), ChangeError> {
    if kept_in_files(layout.state_dir()) {
        return Ok(());
    }
    let why = "this gateway keeps its queue in its own database and offers no way to retry or drop one entry: it \
        tries pending ones again by itself and at its next start (`openclaw gateway restart`); what it gave up \
        can only be sent anew";
    Err(ChangeError::Refused(why.to_owned()))
}

/// Makes an entry due at once, from wherever it is; counts its tries anew.
///
/// # Errors
/// See [`ChangeError`].
pub fn retry_entry(layout: &Layout, id: &str, now: Stamp) -> Result<Changed, ChangeError> {
    refuse_native(layout)?;
    let mut shelves = Shelves::new(layout);
    let (from, mut document) = shelves.find(id)?;
    let (queue, id) = (document.entry().queue, document.entry().id.clone());
    match from {
        Shelf::Claimed => return Err(in_hand()),
        Shelf::Settled => {
            let why = "what this entry asks for has happened already; retrying it would repeat it";
            return Err(ChangeError::Refused(why.to_owned()));
        }
        Shelf::Kept => {
            let why = "it is kept back until its session's user has spoken; `tideover sessions release KEY` lifts \
                the hold";
            return Err(ChangeError::Refused(why.to_owned()));
        }
        Shelf::Queue | Shelf::Failed | Shelf::Dropped | Shelf::Quarantine => {}
    }
    document.reset(now);
    shelves.rewrite(from, queue, &[&document])?;
    if from != Shelf::Queue {
        shelves.relocate(from, Shelf::Queue, queue, std::slice::from_ref(&id))?;
    }
    Ok(Changed { queue, id, from, to: Shelf::Queue })
}

/// Takes an entry out of the queue; it is moved aside, never deleted.
///
/// # Errors
/// See [`ChangeError`].
pub fn drop_entry(layout: &Layout, id: &str) -> Result<Changed, ChangeError> {
    refuse_native(layout)?;
    let mut shelves = Shelves::new(layout);
    let (from, document) = shelves.find(id)?;
    let (queue, id) = (document.entry().queue, document.entry().id.clone());
    if from == Shelf::Claimed || document.entry().mark.hand == Hand::Sending {
        return Err(in_hand());
    }
    if from != Shelf::Dropped {
        shelves.relocate(from, Shelf::Dropped, queue, std::slice::from_ref(&id))?;
    }
    Ok(Changed { queue, id, from, to: Shelf::Dropped })
}

fn in_hand() -> ChangeError {
    ChangeError::Refused("it is being tried right now; see `tideover queue list`".to_owned())
}
