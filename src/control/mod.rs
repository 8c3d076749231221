//! The control socket: the one way in for facts (design §7).

pub mod client;
pub mod framing;
pub mod protocol;
pub mod server;
pub mod socket;
