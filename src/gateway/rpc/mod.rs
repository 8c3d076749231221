//! Calls to a running gateway over its WebSocket.
//!
//! Only the loopback interface is spoken to. The client presents itself as
//! `gateway-client`/`backend`: with the shared token or password both 2026.5.5 and 2026.9.6 then
//! grant the scopes asked for, without pairing and without device keys. It offers protocols 3 to 4
//! in one handshake: 2026.5.5 takes 3 and 2026.9.6 takes 4 (both measured), so that no version
//! string is looked at.
//!
//! From SIGTERM on nothing useful can be asked: 2026.9.6 answers every call with `UNAVAILABLE` and
//! refuses new connections while it drains.

mod channel_error;
mod client;
mod error;
mod frame;
mod secret;
mod send;
mod session;
mod turn;

pub use channel_error::{channel_answered, is_permanent};
pub use client::{Client, ConnectOptions, Hello};
pub use error::{GatewayError, RpcError};
pub use secret::{Credentials, Secret};
pub use send::{Redelivery, SendOutcome, SendRequest};
pub use session::Aborted;
pub use turn::{TurnOutcome, TurnRequest};

#[cfg(test)]
mod tests;
