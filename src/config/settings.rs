//! Complete settings within bounds, and their validation.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::fragment::{Fragment, OwnerFragment};

/// Longest allowed hold of SIGTERM for the final flush: systemd's own stop timeout of older
/// gateway units is 30 s and the gateway needs most of it.
pub const FLUSH_DEADLINE_MS_MAX: u64 = 10_000;
/// Longest allowed age of a checkpoint that is still acted on: one year.
pub const MAX_AGE_MS_MAX: u64 = 366 * DAY_MS;
/// Most entries of `checkpoint.redact` and `recovery.read_only_tools`.
pub const REDACT_KEYS_MAX: usize = 256;
/// Longest entry of them, in bytes.
pub const REDACT_KEY_BYTES_MAX: usize = 256;
/// Longest text in `[notice.owner]`, in bytes.
pub const OWNER_TEXT_BYTES_MAX: usize = 512;
/// Most words of `gateway.command`, and longest of them in bytes.
const COMMAND_WORDS_MAX: usize = 256;
const COMMAND_WORD_BYTES_MAX: usize = 4096;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Everything that can be configured, validated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// The gateway to supervise.
    pub gateway: GatewaySettings,
    /// How checkpoints are written.
    pub checkpoint: CheckpointSettings,
    /// What is done after an interruption.
    pub recovery: RecoverySettings,
    /// The notice to the user.
    pub notice: NoticeSettings,
    /// Re-running an interrupted call.
    pub resume: ResumeSettings,
    /// The gateway's own delivery queues.
    pub queue: QueueSettings,
}

/// `[gateway]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatewaySettings {
    /// Program and leading arguments of the gateway; `None` means `openclaw` on PATH. Never empty,
    /// and the program is an absolute path.
    pub command: Option<Vec<String>>,
}

/// `[checkpoint]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// Longest time SIGTERM is held for the final flush, in milliseconds.
    pub flush_deadline_ms: u64,
    /// What happens to a tool call whose checkpoint could not be made durable.
    pub ack: AckPolicy,
    /// Argument keys that are never stored.
    pub redact: Vec<String>,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { flush_deadline_ms: 500, ack: AckPolicy::Prefer, redact: Vec::new() }
    }
}

/// `[recovery]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverySettings {
    /// What is done with the gateway's own recovery turn.
    pub native: NativePolicy,
    /// Age beyond which a checkpoint is listed and not acted on, in milliseconds.
    pub max_age_ms: u64,
    /// Which tools are held in an interrupted session.
    pub hold: HoldScope,
    /// What lifts a hold.
    pub release: ReleasePolicy,
    /// What becomes of cut sessions that have no person to ask.
    pub unattended: UnattendedPolicy,
    /// Tools that only read, beside those that are known to; their calls are not held.
    pub read_only_tools: Vec<String>,
}

impl Default for RecoverySettings {
    fn default() -> Self {
        Self {
            native: NativePolicy::Ask,
            max_age_ms: DAY_MS,
            hold: HoldScope::Effects,
            release: ReleasePolicy::AnyMessage,
            unattended: UnattendedPolicy::Hold,
            read_only_tools: Vec::new(),
        }
    }
}

/// `[notice]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeSettings {
    /// Whether the user is told of an interruption.
    pub enabled: bool,
    /// Who is told of sessions that have no person to ask.
    pub owner: Option<OwnerSettings>,
}

/// `[notice.owner]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerSettings {
    /// The channel's name.
    pub channel: String,
    /// The address on that channel.
    pub to: String,
    /// The channel account; `None` for the channel's default one.
    pub account_id: Option<String>,
    /// The thread or topic.
    pub thread_id: Option<String>,
}

impl Default for NoticeSettings {
    fn default() -> Self {
        Self { enabled: true, owner: None }
    }
}

/// `[resume]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResumeSettings {
    /// When a re-run is asked for a second time.
    pub confirm: ResumeConfirm,
    /// Whether `/resume` shows the arguments of a call where others read along.
    pub group_arguments: bool,
}

/// `[queue]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    /// Whether deliveries that the gateway left behind are tried again.
    pub retry: bool,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self { retry: true }
    }
}

/// What happens to a tool call whose checkpoint could not be made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AckPolicy {
    /// The tool runs, and tideover reports itself degraded.
    Prefer,
    /// The tool is blocked.
    Require,
}

/// What is done with the gateway's own recovery turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NativePolicy {
    /// It is claimed and answered with the notice: no model call.
    Ask,
    /// It runs, with the interruption in front of the model and effects held.
    Ride,
    /// It is left alone.
    Native,
}

/// Which tools are held in an interrupted session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldScope {
    /// Tools with side effects.
    Effects,
    /// Every tool.
    All,
    /// None.
    Off,
}

/// What lifts a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleasePolicy {
    /// Any message of the user.
    AnyMessage,
    /// Only an explicit command.
    Explicit,
}

/// What becomes of cut sessions that have no person to ask: scheduled jobs, sub-agents, heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnattendedPolicy {
    /// They are held until someone lifts that at a shell.
    Hold,
    /// They are told of and left to the gateway.
    Native,
}

/// When a re-run is asked for a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResumeConfirm {
    /// When the outcome of the first run is unknown.
    #[default]
    Unknown,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A value that is not allowed: where in the file, which key, and why.
#[derive(Debug)]
pub(super) struct Invalid {
    /// Byte offset of the value in the file.
    pub(super) offset: usize,
    pub(super) key: &'static str,
    pub(super) reason: String,
}

impl Invalid {
    fn new<T>(value: &Spanned<T>, key: &'static str, reason: String) -> Self {
        Self { offset: value.span().start, key, reason }
    }
}

/// Fills a fragment up with the defaults and checks every bound.
pub(super) fn validate(fragment: Fragment) -> Result<Settings, Invalid> {
    let mut settings = Settings::default();
    if let Some(command) = fragment.gateway.unwrap_or_default().command {
        settings.gateway.command = Some(command_words(command)?);
    }
    let checkpoint = fragment.checkpoint.unwrap_or_default();
    if let Some(value) = checkpoint.flush_deadline_ms {
        settings.checkpoint.flush_deadline_ms = flush_deadline_ms(&value)?;
    }
    settings.checkpoint.ack = checkpoint.ack.unwrap_or(settings.checkpoint.ack);
    if let Some(keys) = checkpoint.redact {
        settings.checkpoint.redact = names_of(keys, "checkpoint.redact")?;
    }
    let recovery = fragment.recovery.unwrap_or_default();
    settings.recovery.native = recovery.native.unwrap_or(settings.recovery.native);
    settings.recovery.hold = recovery.hold.unwrap_or(settings.recovery.hold);
    settings.recovery.release = recovery.release.unwrap_or(settings.recovery.release);
    settings.recovery.unattended = recovery.unattended.unwrap_or(settings.recovery.unattended);
    if let Some(names) = recovery.read_only_tools {
        settings.recovery.read_only_tools = names_of(names, "recovery.read_only_tools")?;
    }
    if let Some(value) = recovery.max_age {
        settings.recovery.max_age_ms = max_age_ms(&value)?;
    }
    let notice = fragment.notice.unwrap_or_default();
    settings.notice.enabled = notice.enabled.unwrap_or(settings.notice.enabled);
    settings.notice.owner = notice.owner.map(owner).transpose()?;
    let resume = fragment.resume.unwrap_or_default();
    settings.resume.confirm = resume.confirm.unwrap_or(settings.resume.confirm);
    settings.resume.group_arguments =
        resume.group_arguments.unwrap_or(settings.resume.group_arguments);
    let queue = fragment.queue.unwrap_or_default();
    settings.queue.retry = queue.retry.unwrap_or(settings.queue.retry);
    Ok(settings)
}

fn command_words(value: Spanned<Vec<String>>) -> Result<Vec<String>, Invalid> {
    const KEY: &str = "gateway.command";
    let words = value.get_ref();
    let Some(program) = words.first() else {
        let reason = "is empty; name the program, or remove the key to use openclaw on PATH";
        return Err(Invalid::new(&value, KEY, reason.to_owned()));
    };
    if !Path::new(program).is_absolute() {
        let reason = format!("must begin with an absolute path to a program, not {program:?}");
        return Err(Invalid::new(&value, KEY, reason));
    }
    let broken = |word: &String| word.contains('\0') || word.len() > COMMAND_WORD_BYTES_MAX;
    if words.len() > COMMAND_WORDS_MAX || words.iter().any(broken) {
        let reason = format!(
            "may hold {COMMAND_WORDS_MAX} words of {COMMAND_WORD_BYTES_MAX} bytes without NUL"
        );
        return Err(Invalid::new(&value, KEY, reason));
    }
    Ok(value.into_inner())
}

fn flush_deadline_ms(value: &Spanned<i64>) -> Result<u64, Invalid> {
    let number = *value.get_ref();
    u64::try_from(number).ok().filter(|ms| *ms <= FLUSH_DEADLINE_MS_MAX).ok_or_else(|| {
        let reason = format!("must be within 0..={FLUSH_DEADLINE_MS_MAX}, not {number}");
        Invalid::new(value, "checkpoint.flush_deadline_ms", reason)
    })
}

fn names_of(value: Spanned<Vec<String>>, key: &'static str) -> Result<Vec<String>, Invalid> {
    let keys = value.get_ref();
    let broken = |key: &String| key.is_empty() || key.len() > REDACT_KEY_BYTES_MAX;
    if keys.len() > REDACT_KEYS_MAX || keys.iter().any(broken) {
        let reason =
            format!("may hold {REDACT_KEYS_MAX} names of 1 to {REDACT_KEY_BYTES_MAX} bytes each");
        return Err(Invalid::new(&value, key, reason));
    }
    Ok(value.into_inner())
}

fn owner(owner: OwnerFragment) -> Result<OwnerSettings, Invalid> {
    let text = |value: Spanned<String>, key| {
        let given = value.get_ref();
        if given.trim().is_empty() || given.len() > OWNER_TEXT_BYTES_MAX {
            let reason = format!("must be a text of 1 to {OWNER_TEXT_BYTES_MAX} bytes");
            return Err(Invalid::new(&value, key, reason));
        }
        Ok(value.into_inner())
    };
    Ok(OwnerSettings {
        channel: text(owner.channel, "notice.owner.channel")?,
        to: text(owner.to, "notice.owner.to")?,
        account_id: owner
            .account_id
            .map(|value| text(value, "notice.owner.account_id"))
            .transpose()?,
        thread_id: owner
            .thread_id
            .map(|value| text(value, "notice.owner.thread_id"))
            .transpose()?,
    })
}

fn max_age_ms(value: &Spanned<String>) -> Result<u64, Invalid> {
    let text = value.get_ref();
    duration_ms(text).filter(|ms| (1..=MAX_AGE_MS_MAX).contains(ms)).ok_or_else(|| {
        let reason = format!(
            "must be a whole number with a unit (ms, s, m, h, d) of at most 366d, such as \
             \"24h\", not {text:?}"
        );
        Invalid::new(value, "recovery.max_age", reason)
    })
}

/// Reads `24h`, `90m`, `1h30m`, `1500ms`, and what systemd prints (`1min 30s`), in milliseconds. `None` for
/// anything else and on overflow.
#[must_use]
pub fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => SECOND_MS,
            "m" | "min" => MINUTE_MS,
            "h" => HOUR_MS,
            "d" => DAY_MS,
            _ => return None,
        };
        total_ms = total_ms.checked_add(number.parse::<u64>().ok()?.checked_mul(unit_ms)?)?;
        rest = tail.trim_start();
    }
    Some(total_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let table: &[(&str, Option<u64>)] = &[
            ("24h", Some(86_400_000)),
            (" 1h30m ", Some(5_400_000)),
            ("1h 30min", Some(5_400_000)),
            ("1500ms", Some(1_500)),
            ("2d", Some(172_800_000)),
            ("0s", Some(0)),
            ("", None),
            ("24", None),
            ("h", None),
            ("-1h", None),
            ("1.5h", None),
            ("1w", None),
            ("99999999999999999999h", None),
            ("18446744073709551615d", None),
        ];
        for (text, want) in table {
            assert_eq!(duration_ms(text), *want, "{text:?}");
        }
    }
}
