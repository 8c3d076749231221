//! Durable files: atomic replace, the checkpoint directory, the outbox, the lease.
//!
//! What is acknowledged here survives a power cut: temp file, fsync, rename, fsync of the directory.

pub mod checkpoints;
pub mod directory;
pub mod layout;
pub mod lease;
pub mod names;
pub mod records;
pub mod writer;

pub use directory::{Directory, StoreError};
pub use layout::{Layout, Place};
pub use writer::{Ack, Writer};
