//! Where an entry can be, and how it gets from one place to another.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

use crate::core::queue::{Copy, Hand, Queue, Work};
use crate::core::stamp::Stamp;
use crate::gateway::queue_files::{
    Document, ENTRY_BYTES_MAX, FAILED_DIRECTORY, Malformed, directory_name, kept_in_files,
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
        let id = name.strip_suffix(".json")?;
        let id = if self.is_of_one_queue() { Some(id) } else { id.strip_prefix(word(queue)) };
        id.map(str::to_owned)
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
    /// Whether it is another user's.
    pub foreign: bool,
    /// Whether it stays where it is: the gateway may know what to do with it.
    #[serde(skip)]
    pub stays: bool,
    /// Whether it was moved to the quarantine.
    pub quarantined: bool,
}

/// The shelves of one state directory, opened as they are needed.
#[derive(Debug)]
pub(super) struct Shelves {
    layout: Layout,
    open: BTreeMap<(Shelf, Queue), Directory>,
    /// The gateway's copies of what it was asked to send, by key, once they were looked for.
    pub(super) copies: Option<HashMap<String, (String, Copy)>>,
}

/// What one shelf holds of one queue.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) documents: Vec<Document>,
    pub(super) findings: Vec<Finding>,
}

impl Shelves {
    pub(super) fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), open: BTreeMap::new(), copies: None }
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
            let foreign = directory.is_foreign(name);
            let read = if foreign {
                Err(NoEntry { what: "belongs to another user".to_owned(), stays: true })
            } else {
                parse(directory, queue, name, &id)
            };
            match read {
                Ok(Some(document)) => content.documents.push(document),
                Ok(None) => {}
                Err(NoEntry { what, stays }) => content.findings.push(Finding {
                    queue,
                    name: name.clone(),
                    what,
                    foreign,
                    stays,
                    quarantined: false,
                }),
            }
        }
        content.documents.sort_by(|a, b| {
            let (a, b) = (a.entry(), b.entry());
            a.enqueued_at.cmp(&b.enqueued_at).then_with(|| a.id.cmp(&b.id))
        });
        content
    }

    /// The ids on a shelf, by the files' names alone.
    fn ids(&mut self, shelf: Shelf, queue: Queue) -> Vec<String> {
        let directory = self.directory(shelf, queue, false).ok();
        let names = directory.and_then(|directory| directory.names().ok()).unwrap_or_default();
        names.iter().filter_map(|name| shelf.id(queue, name)).collect()
    }

    /// One entry by its id.
    pub(super) fn get(&mut self, shelf: Shelf, queue: Queue, id: &str) -> Option<Document> {
        let directory = self.directory(shelf, queue, false).ok()?;
        let name = shelf.name(queue, id);
        if directory.is_foreign(&name) {
            return None;
        }
        parse(directory, queue, &name, id).ok().flatten()
    }

    /// Moves entries; each is whole in one place at any time. One whose place is taken goes to the dropped ones: none
    /// is lost, and two of it must not both be delivered. Returns how many were there to move, or the first error.
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
        let (mut moved, mut taken, mut first) = (0, Vec::new(), Ok(()));
        for (result, (name, _)) in source.move_to(target, &names).into_iter().zip(&names) {
            match result {
                Ok(there) => moved += usize::from(there),
                Err(error) if error.is_taken() => taken.push(name.clone()),
                Err(error) => first = first.and(Err(error)),
            }
        }
        for name in taken {
            self.put_by(from, queue, &name)?;
            moved += 1;
        }
        first.map(|()| moved)
    }

    /// Moves a file to the dropped entries, or aside where it is taken there, too.
    fn put_by(&mut self, from: Shelf, queue: Queue, name: &str) -> Result<(), StoreError> {
        let Some(id) = from.id(queue, name) else { return Ok(()) };
        self.directory(Shelf::Dropped, queue, true)?;
        self.directory(Shelf::Quarantine, queue, true)?;
        let open = |shelf| self.open.get(&(shelf, queue));
        let (Some(source), Some(dropped), Some(aside)) =
            (open(from), open(Shelf::Dropped), open(Shelf::Quarantine))
        else {
            return Ok(());
        };
        let names = [(name.to_owned(), Shelf::Dropped.name(queue, &id))];
        match source.move_to(dropped, &names).pop() {
            Some(Err(error)) if error.is_taken() => {
                source.set_aside_as(name, aside, &Shelf::Quarantine.name(queue, &id)).map(|_| ())
            }
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Replaces one entry where it is. One that has gone meanwhile, because the gateway or another step of ours took
    /// it, does not come back by it. Returns whether it was there.
    pub(super) fn rewrite_one(
        &mut self,
        shelf: Shelf,
        document: &Document,
    ) -> Result<bool, StoreError> {
        let queue = document.entry().queue;
        let name = shelf.name(queue, &document.entry().id);
        self.directory(shelf, queue, false)?.replace_existing(&name, &document.to_bytes())
    }

    /// Replaces entries where they are, as long as nobody else can take one: before the gateway starts.
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

    /// Removes entries for good: only ever copies of what is kept elsewhere.
    pub(super) fn remove(
        &mut self,
        shelf: Shelf,
        queue: Queue,
        ids: &[String],
    ) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = ids.iter().map(|id| shelf.name(queue, id)).collect();
        self.directory(shelf, queue, false)?.remove_all(&names)
    }

    /// Sets files of a gateway's queue aside that are no entries. A link itself is moved, never what it points to.
    pub(super) fn quarantine(&mut self, queue: Queue, findings: &mut [Finding]) {
        let mut aside: Vec<&mut Finding> =
            findings.iter_mut().filter(|finding| !finding.stays).collect();
        if aside.is_empty() || self.directory(Shelf::Quarantine, queue, true).is_err() {
            return;
        }
        let (from, to) =
            (self.open.get(&(Shelf::Queue, queue)), self.open.get(&(Shelf::Quarantine, queue)));
        if let (Some(from), Some(to)) = (from, to) {
            let names: Vec<&str> = aside.iter().map(|finding| finding.name.as_str()).collect();
            let moved: Vec<bool> =
                from.set_all_aside(&names, to).iter().map(Result::is_ok).collect();
            for (finding, moved) in aside.iter_mut().zip(moved) {
                finding.quarantined = moved;
            }
        }
    }

    /// Removes what a write of ours that was cut off has left. Only where nobody else may be writing.
    pub(super) fn sweep(&mut self) {
        for shelf in Shelf::ALL {
            for queue in [Queue::Session, Queue::Delivery] {
                let Ok(directory) = self.directory(shelf, queue, false) else { continue };
                let mut names = directory.names().unwrap_or_default();
                names.retain(|name| name.ends_with(".json.tmp"));
                directory.sweep(&names);
            }
        }
    }

    /// The files that were set aside, with what is wrong with each.
    pub(super) fn quarantined(&mut self, queue: Queue) -> Vec<Finding> {
        let Ok(directory) = self.directory(Shelf::Quarantine, queue, false) else {
            return Vec::new();
        };
        let names = directory.names().unwrap_or_default();
        let finding = |name: &String| {
            // A number follows where the name was taken.
            let id = name.rsplit_once(".json").map_or(name.as_str(), |(id, _)| id);
            let what = match parse(directory, queue, name, id) {
                Err(NoEntry { what, .. }) => what,
                Ok(_) => "an entry with its id was there already".to_owned(),
            };
            let name = name.clone();
            Finding { queue, name, what, foreign: false, stays: true, quarantined: true }
        };
        names.iter().take(FILES_MAX).map(finding).collect()
    }

    /// Removes the oldest settled entries beyond those that are kept for a look.
    pub(super) fn prune_settled(&mut self) {
        for queue in [Queue::Session, Queue::Delivery] {
            if self.ids(Shelf::Settled, queue).len() <= SETTLED_MAX {
                continue;
            }
            let settled = self.read(Shelf::Settled, queue).documents;
            let old = settled.iter().rev().skip(SETTLED_MAX);
            let old: Vec<String> = old.map(|document| document.entry().id.clone()).collect();
            let _ = self.remove(Shelf::Settled, queue, &old);
        }
    }

    /// Where an entry with this id, or this beginning of one, is. A whole id counts before a beginning; of two places
    /// of one entry the first in a reader's order counts.
    fn find(&mut self, id: &str) -> Result<(Shelf, Document), ChangeError> {
        let (mut whole, mut beginnings) = (BTreeMap::new(), BTreeMap::new());
        for shelf in Shelf::ALL {
            for queue in [Queue::Session, Queue::Delivery] {
                for own in self.ids(shelf, queue) {
                    let found = match () {
                        () if own == id => &mut whole,
                        () if begins(&own, id) => &mut beginnings,
                        () => continue,
                    };
                    if found.contains_key(&(queue, own.clone())) {
                        continue;
                    }
                    if let Some(document) = self.get(shelf, queue, &own) {
                        found.insert((queue, own), (shelf, document));
                    }
                }
            }
        }
        let mut found = if whole.is_empty() { beginnings } else { whole };
        if found.len() > 1 {
            return Err(ChangeError::Ambiguous { id: id.to_owned(), count: found.len() });
        }
        let found = found.pop_first().map(|(_, found)| found);
        found.ok_or_else(|| ChangeError::NotFound { id: id.to_owned() })
    }
}

/// Whether `beginning` may stand for the id.
#[must_use]
pub fn begins(id: &str, beginning: &str) -> bool {
    id == beginning || (beginning.len() >= PREFIX_CHARS_MIN && id.starts_with(beginning))
}

/// What is wrong with a file.
struct NoEntry {
    what: String,
    /// Whether the gateway may know what to do with it, or the problem may pass.
    stays: bool,
}

/// Reads one file as an entry: `None` where it has gone meanwhile, or what is wrong with it.
fn parse(
    directory: &Directory,
    queue: Queue,
    name: &str,
    id: &str,
) -> Result<Option<Document>, NoEntry> {
    let bytes = match directory.read(name, ENTRY_BYTES_MAX) {
        Ok(bytes) => bytes,
        // Names come with a mark in place of what is no UTF-8.
        Err(ReadProblem::Missing) if name.contains(char::REPLACEMENT_CHARACTER) => {
            return Err(NoEntry { what: "its name is not UTF-8".to_owned(), stays: true });
        }
        Err(ReadProblem::Missing) => return Ok(None),
        Err(problem) => {
            let stays = match problem {
                ReadProblem::TooLarge { .. } | ReadProblem::Io(_) => true,
                ReadProblem::NotRegular | ReadProblem::Missing => false,
            };
            return Err(NoEntry { what: problem.to_string(), stays });
        }
    };
    Document::parse(queue, &format!("{id}.json"), &bytes).map(Some).map_err(|malformed| NoEntry {
        stays: matches!(malformed, Malformed::Kind | Malformed::TooLarge { .. }),
        what: malformed.to_string(),
    })
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
            let why = match document.entry().work {
                Work::Turn | Work::Event => {
                    "it is kept back until its session's user has spoken; `tideover sessions release KEY` lifts the \
                    hold"
                }
                Work::Message | Work::RichMessage => {
                    "it is kept back until a notice to the same person is sent; see `tideover outbox list`"
                }
            };
            return Err(ChangeError::Refused(why.to_owned()));
        }
        Shelf::Queue | Shelf::Failed | Shelf::Dropped | Shelf::Quarantine => {}
    }
    document.reset(now);
    let there = shelves.rewrite_one(from, &document)?
        && (from == Shelf::Queue
            || shelves.relocate(from, Shelf::Queue, queue, std::slice::from_ref(&id))? > 0);
    if !there {
        return Err(ChangeError::NotFound { id });
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
    if from != Shelf::Dropped
        && shelves.relocate(from, Shelf::Dropped, queue, std::slice::from_ref(&id))? == 0
    {
        return Err(ChangeError::NotFound { id });
    }
    Ok(Changed { queue, id, from, to: Shelf::Dropped })
}

fn in_hand() -> ChangeError {
    ChangeError::Refused("it is being tried right now; see `tideover queue list`".to_owned())
}
