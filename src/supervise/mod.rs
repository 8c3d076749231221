//! The shell around the core: the child, its signals and its end, the reports, the notices.

mod boot;
mod child;
mod clock;
mod engine;
mod evidence;
mod exit;
mod incidents;
mod manager;
mod notices;
mod notify;
mod prepare;
mod process;
pub mod queue;
mod reports;
pub mod resume;
mod run;
mod said;
mod service;
mod signals;
mod status;
mod sys;
mod tries;
mod vitals;
mod watch;

pub use exit::{ChildEnd, leave_like};
pub use process::{Liveness, boot_id, liveness};
pub use run::{RunError, RunPlan, run};
pub use status::{STATUS_SCHEMA, offline_status};
