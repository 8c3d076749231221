//! The rehearsal rig: a real gateway in a scratch home, a mock model, a mock Telegram, scenarios.
//!
//! `tideover drill` and the end-to-end tests drive the same rig, so that what a person sees in a
//! rehearsal is what the tests have proved. The rig never touches the user's own OpenClaw: the
//! gateway runs with a home, a temporary directory and ports of its own, and everything that was
//! started is found again by that home and killed when the rig goes away.
//!
//! Called by `cli` (the `drill` verb) and by `tests/`. It knows nothing of the other rooms: it
//! starts the `tideover` binary by its path and looks at what a user could see.

pub mod acts;
pub mod checkpoint;
pub mod cuts;
pub mod error;
pub mod gateway_proc;
pub mod home;
pub mod http;
pub mod mock_model;
mod mock_model_wire;
pub mod mock_telegram;
pub mod npm;
pub mod processes;
pub mod progress;
pub mod provision;
pub mod rig;
pub mod scenario;
pub mod stage;
pub mod story;
pub mod work;

pub use error::DrillError;
