//! What a person may do to one entry: have it tried now, or take it out.

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;

use crate::core::queue::{Hand, Queue, Work};
use crate::core::stamp::Stamp;
use crate::gateway::queue_files::{Document, kept_in_files};
use crate::store::{Layout, StoreError};

use super::shelf::Shelf;
use super::shelves::Shelves;

/// Shortest beginning of an id that is taken for it.
const PREFIX_CHARS_MIN: usize = 4;

/// Whether `beginning` may stand for the id.
#[must_use]
pub fn begins(id: &str, beginning: &str) -> bool {
    id == beginning || (beginning.len() >= PREFIX_CHARS_MIN && id.starts_with(beginning))
}

impl Shelves {
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
    let mut shelves = Shelves::new(layout);
    let (from, document) = shelves.find(id)?;
    let (queue, id) = (document.entry().queue, document.entry().id.clone());
    let gateways = matches!(from, Shelf::Queue | Shelf::Failed);
    let in_files = kept_in_files(layout.state_dir());
    if gateways {
        refuse_native(layout)?;
    }
    if in_files && (from == Shelf::Claimed || document.entry().mark.hand == Hand::Sending) {
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
