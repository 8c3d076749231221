//! Carries out what is decided of an entry that tideover has in hand. Each step is one durable file operation, in
//! an order that a kill between any two leaves readable.

use crate::core::queue::{AfterTry, Hand, Mark, Queue};
use crate::core::stamp::Stamp;
use crate::gateway::queue_files::Document;
use crate::store::StoreError;

use super::copies;
use super::shelf::Shelf;
use super::shelves::Shelves;

/// What a try needs to know of an entry.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// Where it is.
    pub(super) from: Shelf,
    pub(super) queue: Queue,
    pub(super) id: String,
    /// Whether the try may repeat a message.
    pub(super) doubt: bool,
    /// The start of the gateway that is asked.
    pub(super) gateway: Option<String>,
}

/// Takes an entry in hand: out of the gateway's sight first, then marked with the key of the try. One that is in hand
/// already keeps its key: the gateway that was asked knows it.
///
/// `None` when it has gone meanwhile.
///
/// # Errors
/// When it cannot be moved or marked; it is then where the next look finds it.
pub(super) fn claim(
    shelves: &mut Shelves,
    claim: &Claim,
    now: Stamp,
) -> Result<Option<Document>, StoreError> {
    let Claim { from, queue, id, .. } = claim;
    if *from == Shelf::Claimed {
        return Ok(shelves.get(Shelf::Claimed, *queue, id));
    }
    if shelves.relocate(*from, Shelf::Claimed, *queue, std::slice::from_ref(id))? == 0 {
        return Ok(None);
    }
    let Some(mut document) = shelves.get(Shelf::Claimed, *queue, id) else { return Ok(None) };
    let entry = document.entry();
    let mark = Mark {
        hand: Hand::Claimed,
        key: Some(next_key(entry)),
        since: Some(now),
        doubt: entry.mark.doubt || claim.doubt,
        asked_of: claim.gateway.clone(),
        ..entry.mark.clone()
    };
    document.set_mark(mark);
    Ok(shelves.rewrite_one(Shelf::Claimed, &document)?.then_some(document))
}

/// Notes that the request is about to leave.
///
/// # Errors
/// When that cannot be made durable; then it must not leave.
pub(super) fn sending(shelves: &mut Shelves, document: &mut Document) -> Result<bool, StoreError> {
    let mark = Mark { hand: Hand::Sending, ..document.entry().mark.clone() };
    document.set_mark(mark);
    shelves.rewrite_one(Shelf::Claimed, document)
}

/// The idempotency key of the next try: the entry's own, and another one after each answer, since a gateway gives
/// the same answer to the same key.
fn next_key(entry: &crate::core::queue::Entry) -> String {
    let own = entry.key.clone().unwrap_or_else(|| format!("tideover-queue-{}", entry.id));
    match (entry.queue, entry.mark.generation) {
        (Queue::Session, 0) => own,
        (Queue::Session | Queue::Delivery, generation) => format!("{own}.{generation}"),
    }
}

/// Carries out what becomes of an entry after a try. What was not tried at all goes `back`.
///
/// # Errors
/// When a step fails; the entry is then still claimed, and the next look goes on from there.
pub(super) fn after(
    shelves: &mut Shelves,
    document: &mut Document,
    then: &AfterTry,
    back: Shelf,
    now: Stamp,
) -> Result<(), StoreError> {
    match then {
        AfterTry::AskAgain => Ok(()),
        AfterTry::Settle => {
            remove_copy(shelves, document)?;
            put(shelves, document, Shelf::Settled)
        }
        AfterTry::PutBack => put_back(shelves, document, back),
        AfterTry::Retry { retry_count, reason, doubt } => {
            failed(shelves, document, *retry_count, reason, *doubt, now)?;
            put_back(shelves, document, Shelf::Queue)
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
    let before = document.entry().mark.clone();
    // Noted once, however often a crash has this step begin again.
    let answered = u32::from(before.hand == Hand::Sending);
    let generation = before.generation.saturating_add(answered);
    let mark = Mark { hand: Hand::Failed, doubt, generation, asked: false, ..before };
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

fn put_back(shelves: &mut Shelves, document: &mut Document, to: Shelf) -> Result<(), StoreError> {
    remove_copy(shelves, document)?;
    unmark(shelves, document)?;
    put(shelves, document, to)
}

/// Takes the try out of the mark; what must be remembered of it stays.
fn unmark(shelves: &mut Shelves, document: &mut Document) -> Result<(), StoreError> {
    let mark = document.entry().mark.clone();
    document.set_mark(Mark { hand: Hand::None, since: None, asked_of: None, ..mark });
    shelves.rewrite_one(Shelf::Claimed, document).map(|_| ())
}

fn put(shelves: &mut Shelves, document: &Document, to: Shelf) -> Result<(), StoreError> {
    let (queue, id) = (document.entry().queue, document.entry().id.clone());
    shelves.relocate(Shelf::Claimed, to, queue, &[id]).map(|_| ())
}
