//! The gateway's service unit: what runs in it, and bringing tideover in and out of it.
//!
//! The gateway owns its unit and writes it anew at every update. tideover therefore goes in on two ways at once:
//! by the gateway's own `gateway install --wrapper`, which the unit remembers in `OPENCLAW_WRAPPER`, and by one
//! drop-in, which the gateway leaves alone. The drop-in names the entry script before `gateway`, because the
//! gateway's update looks for its installation there (2026.9.6 refuses a unit without it).
//!
//! `found` looks, `plan` decides (pure), `act` does it and takes it back where it fails.

mod act;
mod command;
mod files;
mod found;
mod launcher;
mod manager;
mod plan;
mod record;
mod refusal;
mod removal;
mod settings_edit;
mod show;
mod template;
mod unit_file;
mod words;

pub use act::{ActError, Actor, Done, gateway_call, probe};
pub use command::{Call, CallError, Ended};
pub use files::{Change, Content, read as read_file};
pub use found::{Found, LookError, gateway_environment, look, unit_name};
pub use manager::{Manager, UnitState};
pub use plan::{Given, Plan, Step, install as plan_install, may_change};
pub use record::{RECORD_NAME, Record};
pub use refusal::Refusal;
pub use removal::uninstall as plan_uninstall;
pub use show::{commands, describe, files_of};

#[cfg(test)]
mod tests;
