//! The copy that an old gateway keeps of each message that it was asked to send and could not.

use std::path::Path;

use crate::core::outbox;
use crate::core::queue::{Copy, Queue};
use crate::gateway::queue_files::Document;
use crate::store::{Layout, StoreError};

use super::shelf::Shelf;
use super::shelves::Shelves;

/// What a copy tells of the try that left it.
pub(super) fn told_by(document: &Document) -> Copy {
    let entry = document.entry();
    let over = entry.retry_count > 0;
    Copy {
        answered: over.then_some(!entry.open_try),
        reason: entry.last_error.clone().unwrap_or_default(),
    }
}

/// The copy of a try under `key`, and the id of its file. The queue is read once for each `shelves`, at the first
/// question: the gateway makes a copy before it sends.
pub(super) fn find(shelves: &mut Shelves, key: &str) -> Option<(String, Copy)> {
    if shelves.copies.is_none() {
        let queued = shelves.read(Shelf::Queue, Queue::Delivery).documents;
        let copies = queued.iter().rev().filter_map(|document| {
            let entry = document.entry();
            Some((entry.key.clone()?, (entry.id.clone(), told_by(document))))
        });
        shelves.copies = Some(copies.collect());
    }
    shelves.copies.as_ref()?.get(key).cloned()
}

/// Removes the copy of a try under `key`, if there is one.
pub(super) fn remove(shelves: &mut Shelves, key: &str) -> Result<(), StoreError> {
    let Some((id, _)) = find(shelves, key) else { return Ok(()) };
    shelves.remove(Shelf::Queue, Queue::Delivery, &[id])?;
    if let Some(copies) = &mut shelves.copies {
        copies.remove(key);
    }
    Ok(())
}

/// Removes every copy of a notice whose try is over, and tells what the one of its present key says.
pub(in super::super) fn take_out(state_dir: &Path, notice: &outbox::Entry) -> Option<Copy> {
    let mut shelves = Shelves::new(&Layout::new(state_dir));
    let mut told = None;
    for document in shelves.read(Shelf::Queue, Queue::Delivery).documents {
        let Some(key) = document.entry().key.clone().filter(|key| notice.owns_key(key)) else {
            continue;
        };
        let copy = told_by(&document);
        let over = copy.answered.is_some();
        if key == notice.try_key() {
            told = Some(copy);
        }
        if over
            && let Err(error) =
                shelves.remove(Shelf::Queue, Queue::Delivery, &[document.entry().id.clone()])
        {
            tracing::warn!("a copy of a notice stays in the gateway's queue: {error}");
        }
    }
    told
}
