//! The file as written: every key optional, no key unknown.

use serde::Deserialize;
use toml::Spanned;

use super::settings::{
    AckPolicy, HoldScope, NativePolicy, ReleasePolicy, ResumeConfirm, UnattendedPolicy,
};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fragment {
    pub(super) gateway: Option<GatewayFragment>,
    pub(super) checkpoint: Option<CheckpointFragment>,
    pub(super) recovery: Option<RecoveryFragment>,
    pub(super) notice: Option<NoticeFragment>,
    pub(super) resume: Option<ResumeFragment>,
    pub(super) queue: Option<QueueFragment>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GatewayFragment {
    pub(super) command: Option<Spanned<Vec<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointFragment {
    pub(super) flush_deadline_ms: Option<Spanned<i64>>,
    pub(super) ack: Option<AckPolicy>,
    pub(super) redact: Option<Spanned<Vec<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecoveryFragment {
    pub(super) native: Option<NativePolicy>,
    pub(super) max_age: Option<Spanned<String>>,
    pub(super) hold: Option<HoldScope>,
    pub(super) release: Option<ReleasePolicy>,
    pub(super) unattended: Option<UnattendedPolicy>,
    pub(super) read_only_tools: Option<Spanned<Vec<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoticeFragment {
    pub(super) enabled: Option<bool>,
    pub(super) owner: Option<OwnerFragment>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnerFragment {
    pub(super) channel: Spanned<String>,
    pub(super) to: Spanned<String>,
    pub(super) account_id: Option<Spanned<String>>,
    pub(super) thread_id: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResumeFragment {
    pub(super) confirm: Option<ResumeConfirm>,
    pub(super) group_arguments: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueFragment {
    pub(super) retry: Option<bool>,
}
