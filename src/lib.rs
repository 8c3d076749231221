//! tideover carries OpenClaw agents over a gateway restart.
//!
//! The map of the rooms is `ARCHITECTURE.md`. `core` decides and never acts; the other rooms act and
//! never decide.

pub mod cli;
pub mod config;
pub mod control;
pub mod core;
pub mod drill;
pub mod gateway;
pub mod store;
pub mod supervise;
pub mod telemetry;
