//! Where an entry can be, and how it gets from one place to another.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use serde::Serialize;

use crate::core::queue::{Copy, Queue};
use crate::gateway::queue_files::{Document, ENTRY_BYTES_MAX, Malformed};
use crate::store::directory::{REPLACED, ReadProblem};
use crate::store::{Directory, Layout, StoreError};

use super::shelf::Shelf;

/// Most files of one shelf that are looked at.
const FILES_MAX: usize = 20_000;
/// Settled entries that are kept for a look; older ones go.
const SETTLED_MAX: usize = 200;

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
    /// When reading ends, and whether it ended early.
    until: Option<Instant>,
    cut: bool,
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
        Self {
            layout: layout.clone(),
            open: BTreeMap::new(),
            until: None,
            cut: false,
            copies: None,
        }
    }

    /// The same, of which nothing is read any more after `until`.
    pub(super) fn until(layout: &Layout, until: Instant) -> Self {
        Self { until: Some(until), ..Self::new(layout) }
    }

    /// Notes that not everything was looked at.
    pub(super) fn cut(&mut self) {
        self.cut = true;
    }

    /// Whether not everything was looked at.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
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
        let until = self.until;
        let Ok(directory) = self.directory(shelf, queue, false) else { return content };
        let names = directory.names().unwrap_or_default();
        let entries = names.iter().filter_map(|name| Some((name, shelf.id(queue, name)?)));
        let mut cut = false;
        for (name, id) in entries.take(FILES_MAX) {
            if until.is_some_and(|until| Instant::now() >= until) {
                cut = true;
                break;
            }
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
        self.cut |= cut;
        content
    }

    /// The ids on a shelf, by the files' names alone.
    pub(super) fn ids(&mut self, shelf: Shelf, queue: Queue) -> Vec<String> {
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
        directory.replace_all_existing(&files).into_iter().try_for_each(|done| done.map(|_| ()))
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

    /// Removes what many rewrites have left.
    pub(super) fn sweep_replaced(&mut self) {
        self.sweep_ending(&format!(".json{REPLACED}"));
    }

    /// Removes what a write of ours that was cut off has left. Only where nobody else may be writing.
    pub(super) fn sweep(&mut self) {
        self.sweep_ending(".json.tmp");
    }

    fn sweep_ending(&mut self, end: &str) {
        for shelf in Shelf::ALL {
            for queue in [Queue::Session, Queue::Delivery] {
                let Ok(directory) = self.directory(shelf, queue, false) else { continue };
                let mut names = directory.names().unwrap_or_default();
                names.retain(|name| name.ends_with(end));
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
