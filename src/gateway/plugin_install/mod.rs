//! Bringing the companion plugin into a gateway, and out again, without a unit.
//!
//! Two things are needed on both versions: the plugin's files in a directory, and three places of
//! OpenClaw's configuration that name it (`plugins.load.paths`, `plugins.entries.tideover` and,
//! where there is one, the list `plugins.allow`). The configuration belongs to the user and may hold
//! comments and secrets: it is edited by inserting text, every other byte stays, no copy of it is
//! kept, and nothing but our own lines is ever shown.
//!
//! A running gateway watches its configuration and restarts its plugins when this one changes.

mod document;
mod files;
mod manifest;
mod plan;
mod shell;
mod text;

pub use document::DocumentError;
pub use files::{PLUGIN_FILES, PLUGIN_ID, PluginFile};
pub use plan::{Plan, PlanError, plan};
pub use shell::{
    FileChange, InstallError, InstallOptions, Prepared, prepare_install, prepare_uninstall,
};

#[cfg(test)]
mod tests;
