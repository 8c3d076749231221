//! The gateway's own delivery queue: what is done to it before the gateway starts, while it runs, and by hand.
//!
//! Where the queue is kept as files, an entry is always in exactly one place, a *shelf*: every step is one rename
//! or the replacement of one file, so that a kill at any point leaves a state that the next start can read.

mod apply;
mod asked;
mod change;
pub(super) mod copies;
mod deliver;
mod given_up;
mod list;
mod running;
mod says;
mod shelf;
mod shelves;
mod start;

pub use change::{ChangeError, Changed, begins, drop_entry, retry_entry};
pub use given_up::GivenUp;
pub use list::{Listing, Surroundings, View, list, list_offline};
pub(super) use running::{Delivered, Look, QueueState, notice_open, same_address};
pub(super) use says::say_pass;
pub use shelf::Shelf;
pub use shelves::Finding;
pub use start::hand_back;
pub(super) use start::{Facts, before_start};
