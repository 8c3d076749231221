//! The pure core: decides, never acts. No I/O, no clock, no async; time comes in with each event.
//!
//! `core` imports none of the other rooms. Every other room may import it.

pub mod addressee;
pub mod canonical;
pub mod checkpoint;
pub mod hold;
pub mod incident;
pub mod ledger;
pub mod limits;
pub mod notice;
pub mod outbox;
#[cfg(test)]
mod properties;
pub mod queue;
pub mod readiness;
pub mod recovery;
pub mod reducer;
pub mod resume;
pub mod retry;
pub mod rotation;
pub mod session_kind;
pub mod stamp;
pub mod supervisor;
pub mod unattended;
