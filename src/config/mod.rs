//! TOML → validated settings.
//!
//! Two stages: a *fragment* is the file as written, every key optional; *settings* are complete
//! and within bounds. Loading never stops the program: a file that cannot be used gives the
//! defaults plus a problem to report, because a broken configuration must not keep a gateway down.

mod error;
mod fragment;
mod load;
mod settings;

pub use error::ConfigError;
pub use load::{CONFIG_BYTES_MAX, Loaded, default_path, load};
pub use settings::{
    AckPolicy, CheckpointSettings, FLUSH_DEADLINE_MS_MAX, GatewaySettings, HoldScope,
    MAX_AGE_MS_MAX, NativePolicy, NoticeSettings, OWNER_TEXT_BYTES_MAX, OwnerSettings,
    QueueSettings, REDACT_KEY_BYTES_MAX, REDACT_KEYS_MAX, RecoverySettings, ReleasePolicy,
    ResumeConfirm, ResumeSettings, Settings, UnattendedPolicy, duration_ms,
};
