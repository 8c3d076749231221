//! Nothing stays stuck and nothing is sent twice: the outbox and the gateway's own queue, on the real gateways. One
//! binary, so that gateways of all these tests run side by side.

#[path = "../support/mod.rs"]
mod support;

mod failing_channel;
mod queue_files;
mod unattended;
