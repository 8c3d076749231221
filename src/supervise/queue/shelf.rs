//! One place for entries, and what their files are called there.

use std::path::PathBuf;

use serde::Serialize;

use crate::core::queue::Queue;
use crate::gateway::queue_files::{FAILED_DIRECTORY, directory_name};
use crate::store::{Layout, Place};

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

    pub(super) fn path(self, layout: &Layout, queue: Queue) -> PathBuf {
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
    pub(super) fn name(self, queue: Queue, id: &str) -> String {
        if self.is_of_one_queue() {
            format!("{id}.json")
        } else {
            format!("{}{id}.json", word(queue))
        }
    }

    /// The id of a file there, if it is one of this queue.
    pub(super) fn id(self, queue: Queue, name: &str) -> Option<String> {
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
