//! All that knows OpenClaw: where its files are, how it is launched, how it is asked about its
//! health, how it is called over its WebSocket, and how the companion plugin gets into it.
//!
//! What a gateway can do is probed (protocol offered, routes answered), never guessed from a
//! version string. The facts in the doc comments were measured on 2026.5.5 and 2026.9.6.

pub mod health;
pub mod launch;
pub mod left_transcript;
pub mod paths;
pub mod plugin_install;
pub mod queue_files;
pub mod restart_intent;
pub mod rpc;
pub mod service;

mod diff;
mod durable;

pub use durable::FileError;
