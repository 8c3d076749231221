//! Carries out what is decided of an entry that tideover has in hand. Each step is one durable file operation, in
//! an order that a kill between any two leaves readable.

use crate::core::queue::{AfterTry, Hand, Mark, Queue};
use crate::core::stamp::Stamp;
use crate::gateway::queue_files::Document;
use crate::store::StoreError;

use super::copies;
use super::shelf::Shelf;
use super::shelves::Shelves;

/// Takes an entry in hand: out of the gateway's sight first, then marked with the key of the try.
///
/// `None` when it has gone meanwhile.
///
/// # Errors
/// When it cannot be moved or marked; it is then where the next look finds it.
pub(super) fn claim(
    shelves: &mut Shelves,
    from: Shelf,
    queue: Queue,
    id: &str,
    now: Stamp,
) -> Result<Option<Document>, StoreError> {
    if shelves.relocate(from, Shelf::Claimed, queue, &[id.to_owned()])? == 0 {
        return Ok(None);
    }
    let Some(mut document) = shelves.get(Shelf::Claimed, queue, id) else { return Ok(None) };
    let entry = document.entry();
    let mark = Mark {
        hand: Hand::Sending,
        key: Some(next_key(entry)),
        since: Some(now),
        doubt: entry.mark.doubt || entry.open_try,
        asked: entry.mark.asked,
    };
    document.set_mark(mark);
    Ok(shelves.rewrite_one(Shelf::Claimed, &document)?.then_some(document))
}

/// The idempotency key of the next try: the entry's own, and another one after each answer, since a gateway gives
/// the same answer to the same key.
fn next_key(entry: &crate::core::queue::Entry) -> String {
    let own = entry.key.clone().unwrap_or_else(|| format!("tideover-queue-{}", entry.id));
    match (&entry.mark.key, entry.retry_count) {
        (None, _) if entry.queue == Queue::Session => own,
        (_, tries) => format!("{own}.{tries}"),
    }
}

/// Carries out what becomes of an entry after a try.
///
/// # Errors
/// When a step fails; the entry is then still claimed, and the next look goes on from there.
pub(super) fn after(
    shelves: &mut Shelves,
    document: &mut Document,
    then: &AfterTry,
    now: Stamp,
) -> Result<(), StoreError> {
    match then {
        AfterTry::AskAgain => Ok(()),
        AfterTry::Settle => {
            remove_copy(shelves, document)?;
            put(shelves, document, Shelf::Settled)
        }
        AfterTry::PutBack => put_back(shelves, document),
        AfterTry::Retry { retry_count, reason, doubt } => {
            failed(shelves, document, *retry_count, reason, *doubt, now)?;
            put_back(shelves, document)
        }
        AfterTry::GiveUp { retry_count, reason } => {
            let doubt = document.entry().mark.doubt;
            failed(shelves, document, *retry_count, reason, doubt, now)?;
            unmark(shelves, document)?;
            put(shelves, document, Shelf::Failed)
        }
    }
}

/// Notes the failed try in the entry, then removes the gateway's copy of it: in this order a kill in between leaves
/// a copy that the next start still knows for one.
fn failed(
    shelves: &mut Shelves,
    document: &mut Document,
    retry_count: u32,
    reason: &str,
    doubt: bool,
    now: Stamp,
) -> Result<(), StoreError> {
    document.set_tries(retry_count, now, reason);
    let mark = Mark { hand: Hand::Failed, doubt, ..document.entry().mark.clone() };
    document.set_mark(mark);
    shelves.rewrite_one(Shelf::Claimed, document)?;
    remove_copy(shelves, document)
}

fn remove_copy(shelves: &mut Shelves, document: &Document) -> Result<(), StoreError> {
    match document.entry().mark.key.as_deref() {
        Some(key) => copies::remove(shelves, key),
        None => Ok(()),
    }
}

fn put_back(shelves: &mut Shelves, document: &mut Document) -> Result<(), StoreError> {
    remove_copy(shelves, document)?;
    unmark(shelves, document)?;
    put(shelves, document, Shelf::Queue)
}

/// Takes the try out of the mark; what must be remembered of it stays.
fn unmark(shelves: &mut Shelves, document: &mut Document) -> Result<(), StoreError> {
    let mark = document.entry().mark.clone();
    document.set_mark(Mark { hand: Hand::None, since: None, asked: false, ..mark });
    shelves.rewrite_one(Shelf::Claimed, document).map(|_| ())
}

fn put(shelves: &mut Shelves, document: &Document, to: Shelf) -> Result<(), StoreError> {
    let (queue, id) = (document.entry().queue, document.entry().id.clone());
    shelves.relocate(Shelf::Claimed, to, queue, &[id]).map(|_| ())
}
