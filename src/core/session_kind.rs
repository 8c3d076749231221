//! What a session key says of who is behind it: a person, a group, or the gateway itself.
//!
//! Read in both gateways' code (2026.5.5 and 2026.9.6): a scheduled job runs in `agent:A:cron:JOB:run:RUN`, with a new
//! run id each time; a sub-agent in `agent:A:subagent:ID`; a plugin's helper in `SESSION:subagent:…`; an isolated
//! heartbeat in `SESSION:heartbeat`; a webhook in `agent:A:hook:ID`.

use super::checkpoint::Checkpoint;

/// Who is behind a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// One person, or anything else whose key says nothing.
    Person,
    /// A group chat, a channel or a topic in one: several people read along.
    Group,
    /// A scheduled job.
    Cron,
    /// A sub-agent of another session.
    SubAgent,
    /// A heartbeat in a session of its own.
    Heartbeat,
    /// A webhook.
    Hook,
}

impl SessionKind {
    /// Whether no person writes in such a session, so that nobody can be asked there.
    #[must_use]
    pub fn is_unattended(self) -> bool {
        match self {
            Self::Person | Self::Group => false,
            Self::Cron | Self::SubAgent | Self::Heartbeat | Self::Hook => true,
        }
    }

    /// Its name in tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Group => "group",
            Self::Cron => "cron",
            Self::SubAgent => "sub-agent",
            Self::Heartbeat => "heartbeat",
            Self::Hook => "hook",
        }
    }
}

impl Checkpoint {
    /// The kind of a session that has nobody to ask. One in which a person has written after all (a sub-agent bound to
    /// a thread) has a route of its own, and that person is asked.
    #[must_use]
    pub fn unattended(&self) -> Option<SessionKind> {
        let kind = kind_of(&self.session_key);
        (kind.is_unattended() && self.route.is_none()).then_some(kind)
    }
}

/// What kind of session a store key names.
#[must_use]
pub fn kind_of(key: &str) -> SessionKind {
    let body = body(key);
    let first = body.split(':').next().unwrap_or_default();
    let has = |word| body.split(':').any(|part| part == word);
    if has("subagent") {
        SessionKind::SubAgent
    } else if first == "cron" {
        SessionKind::Cron
    } else if first == "hook" {
        SessionKind::Hook
    } else if first.starts_with("heartbeat") || has("heartbeat") {
        SessionKind::Heartbeat
    } else if is_group(key) {
        SessionKind::Group
    } else {
        SessionKind::Person
    }
}

/// Whether several people read along: a group or channel with its id behind it, topics and threads included.
#[must_use]
pub fn is_group(key: &str) -> bool {
    let mut parts = body(key).split(':');
    parts.any(|part| part == "group" || part == "channel") && parts.next().is_some()
}

/// The key that a session's record is kept under. Each run of a scheduled job has a key of its own; all of them are one
/// session here: the hold of a run that was cut is there for the next one, and a job that runs for years is one record.
#[must_use]
pub fn record_key(key: &str) -> &str {
    let job = |rest: &str| body(rest).strip_prefix("cron:").is_some_and(|id| !id.is_empty());
    let before_run = |key: &'_ str| key.rsplit_once(':').map(|(head, _)| head.len());
    before_run(key)
        .and_then(|end| key.get(..end))
        .and_then(|head| head.strip_suffix(":run"))
        .filter(|head| job(head))
        .unwrap_or(key)
}

/// The session in whose name an unattended one works, as far as its key tells; `None` where only the gateway knows it.
#[must_use]
pub fn parent_of(key: &str) -> Option<String> {
    match kind_of(key) {
        SessionKind::Person | SessionKind::Group => None,
        SessionKind::Cron | SessionKind::Hook => main_of(key),
        SessionKind::Heartbeat => {
            let base = key.trim_end_matches(":heartbeat");
            let of_session = base != key && kind_of(base) != SessionKind::Heartbeat;
            if of_session && base != agent_of(key).unwrap_or_default() {
                Some(base.to_owned())
            } else {
                main_of(key)
            }
        }
        SessionKind::SubAgent => {
            let (base, _) = key.rsplit_once(":subagent:")?;
            // "agent:main" is no session.
            (agent_of(key) != Some(base)).then(|| base.to_owned())
        }
    }
}

/// Whether a key is that of an agent's main session.
#[must_use]
pub fn is_main(key: &str) -> bool {
    main_of(key).as_deref() == Some(key)
}

/// The main session of a key's agent.
fn main_of(key: &str) -> Option<String> {
    agent_of(key).map(|agent| format!("{agent}:main"))
}

/// `agent:ID` at the head of a key.
fn agent_of(key: &str) -> Option<&str> {
    let id = key.strip_prefix("agent:")?.split(':').next().filter(|id| !id.is_empty())?;
    key.get(.."agent:".len() + id.len())
}

/// What follows the agent.
fn body(key: &str) -> &str {
    agent_of(key)
        .and_then(|agent| key.get(agent.len()..))
        .map_or(key, |rest| rest.strip_prefix(':').unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use SessionKind as K;

    #[test]
    fn keys_tell_who_is_behind_them() {
        for (key, kind, parent) in [
            ("agent:main:main", K::Person, None),
            ("agent:main:telegram:default:direct:4242", K::Person, None),
            ("agent:main:direct:4242", K::Person, None),
            ("agent:main:acp:0b1f", K::Person, None),
            ("agent:main:telegram:slash:4242", K::Person, None),
            ("agent:main:my-cron:x", K::Person, None),
            ("main", K::Person, None),
            ("", K::Person, None),
            ("agent::x", K::Person, None),
            ("agent:main:telegram:group:-100123", K::Group, None),
            ("agent:main:telegram:group:-100123:topic:7", K::Group, None),
            ("agent:main:slack:channel:c1:thread:171.2", K::Group, None),
            ("agent:main:discord:channel", K::Person, None),
            ("agent:main:cron:job1", K::Cron, Some("agent:main:main")),
            ("agent:main:cron:job1:run:9b40", K::Cron, Some("agent:main:main")),
            ("agent:ops:cron:job1:trigger", K::Cron, Some("agent:ops:main")),
            ("cron:job1", K::Cron, None),
            ("agent:main:hook:0b1f", K::Hook, Some("agent:main:main")),
            ("agent:main:subagent:0b1f", K::SubAgent, None),
            ("agent:main:subagent:a:subagent:b", K::SubAgent, Some("agent:main:subagent:a")),
            (
                "agent:main:telegram:default:direct:4242:subagent:memory",
                K::SubAgent,
                Some("agent:main:telegram:default:direct:4242"),
            ),
            (
                "agent:main:cron:job1:run:9b40:subagent:memory",
                K::SubAgent,
                Some("agent:main:cron:job1:run:9b40"),
            ),
            ("agent:main:heartbeat", K::Heartbeat, Some("agent:main:main")),
            ("agent:main:main:heartbeat", K::Heartbeat, Some("agent:main:main")),
            ("agent:main:main:heartbeat:heartbeat", K::Heartbeat, Some("agent:main:main")),
            (
                "agent:main:telegram:direct:4242:heartbeat",
                K::Heartbeat,
                Some("agent:main:telegram:direct:4242"),
            ),
            ("agent:main:heartbeat-recovered-1", K::Heartbeat, Some("agent:main:main")),
        ] {
            assert_eq!((kind_of(key), parent_of(key).as_deref()), (kind, parent), "{key}");
        }
    }

    #[test]
    fn all_runs_of_a_job_have_one_record() {
        for (key, record) in [
            ("agent:main:cron:job1:run:9b40", "agent:main:cron:job1"),
            ("agent:main:cron:a:b:run:9b40", "agent:main:cron:a:b"),
            ("cron:job1:run:9b40", "cron:job1"),
            ("agent:main:cron:job1", "agent:main:cron:job1"),
            ("agent:main:cron:run:9b40", "agent:main:cron:run:9b40"),
            (
                "agent:main:cron:job1:run:9b40:subagent:m",
                "agent:main:cron:job1:run:9b40:subagent:m",
            ),
            ("agent:main:telegram:group:run:7", "agent:main:telegram:group:run:7"),
            ("agent:main:cron::run:1", "agent:main:cron::run:1"),
            ("run:1", "run:1"),
            ("", ""),
        ] {
            assert_eq!(record_key(key), record, "{key}");
        }
    }
}
