//! `/resume` on the real gateways: a person's word, the permit, the call, and nothing but the call.

#[path = "../support/mod.rs"]
mod support;

mod story;
