//! The gateway's delivery queue where it is kept as files: what stands in an entry, and what old
//! transcripts tell of it. Measured on 2026.5.5; 2026.9.6 keeps its queue in SQLite.
//!
//! Nothing here writes: a [`Document`] is changed in memory and its bytes are handed out. Texts stay
//! inside; neither an error nor a `Debug` output shows one.

use std::io::ErrorKind;
use std::path::Path;

use crate::core::queue::Queue;

mod changes;
mod document;
mod fields;
mod malformed;
mod requests;
mod transcript;

pub use document::Document;
pub use malformed::Malformed;
pub use transcript::Transcripts;

/// Where the gateway puts what it gave up, below a queue's directory.
pub const FAILED_DIRECTORY: &str = "failed";
/// Largest entry that is read, in bytes. A message's text and addresses of its media fit many times
/// over (media themselves are not in an entry); what is larger is left to the gateway.
pub const ENTRY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The name of a queue's directory below the state directory.
#[must_use]
pub const fn directory_name(queue: Queue) -> &'static str {
    match queue {
        Queue::Session => "session-delivery-queue",
        Queue::Delivery => "delivery-queue",
    }
}

/// Whether the gateway of this state directory keeps its queue in files. False as soon as its
/// database is there, or cannot be ruled out: then files that are left are for its own migration.
#[must_use]
pub fn kept_in_files(state_dir: &Path) -> bool {
    let database = state_dir.join("state").join("openclaw.sqlite");
    matches!(database.symlink_metadata(), Err(error) if error.kind() == ErrorKind::NotFound)
}

#[cfg(test)]
mod tests;
