//! The hold: which tools may run in an interrupted session before its user has spoken.

use serde_json::Value;

use super::checkpoint::Effect;

/// What is held (`recovery.hold`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HoldPolicy {
    /// Every tool that is not known to be read-only.
    #[default]
    Effects,
    /// Every tool.
    All,
    /// Nothing.
    Off,
}

/// What lifts a hold (`recovery.release`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReleasePolicy {
    /// The user's next genuine message, or one of the explicit ways.
    #[default]
    AnyMessage,
    /// Only `/resume` and `tideover sessions release`.
    Explicit,
}

/// What becomes of a cut session that has no person to ask (`recovery.unattended`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Unattended {
    /// Its effects are held like any other's, until someone lifts that at a shell.
    #[default]
    Hold,
    /// It is marked and told of, and left to the gateway.
    Native,
}

/// Tools that only read, whatever their arguments are. A tool that is not here counts as an effect.
/// `web_fetch` is not here: a GET is enough to set off a deploy hook.
const READ_ONLY_TOOLS: &[&str] = &[
    "agents_list",
    "find",
    "glob",
    "grep",
    "image",
    "list",
    "ls",
    "memory_get",
    "memory_search",
    "read",
    "session_status",
    "sessions_history",
    "sessions_list",
    "web_search",
];

/// Actions of the `process` tool that only look.
const PROCESS_READ_ACTIONS: &[&str] = &["list", "log", "poll"];

/// Whether a call is known to have no side effects.
///
/// Names are compared as they are: a tool of another spelling is another tool, hence an effect. `read_only` names
/// further tools (`recovery.read_only_tools`).
#[must_use]
pub fn effect_of(tool: &str, arguments: Option<&Value>, read_only: &[String]) -> Effect {
    if READ_ONLY_TOOLS.contains(&tool) || read_only.iter().any(|name| name == tool) {
        return Effect::None;
    }
    let action = arguments.and_then(|value| value.get("action")).and_then(Value::as_str);
    match (tool, action) {
        ("process", Some(action)) if PROCESS_READ_ACTIONS.contains(&action) => Effect::None,
        (_, Some(_) | None) => Effect::Unknown,
    }
}

/// Whether the policy stops a call with this effect in a held session.
#[must_use]
pub fn stops(policy: HoldPolicy, effect: Effect) -> bool {
    match (policy, effect) {
        (HoldPolicy::Off, Effect::None | Effect::Unknown) | (HoldPolicy::Effects, Effect::None) => {
            false
        }
        (HoldPolicy::Effects, Effect::Unknown)
        | (HoldPolicy::All, Effect::None | Effect::Unknown) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_tools_are_effects() {
        for (tool, arguments, effect) in [
            ("read", None, Effect::None),
            ("my_look", None, Effect::None),
            ("my_looks", None, Effect::Unknown),
            ("exec", None, Effect::Unknown),
            ("Read", None, Effect::Unknown),
            ("message", None, Effect::Unknown),
            ("some_plugin_tool", None, Effect::Unknown),
            ("process", Some(json!({"action": "poll"})), Effect::None),
            ("process", Some(json!({"action": "kill"})), Effect::Unknown),
            ("process", Some(json!({"action": 3})), Effect::Unknown),
            ("process", None, Effect::Unknown),
            ("exec", Some(json!({"action": "poll"})), Effect::Unknown),
        ] {
            let found = effect_of(tool, arguments.as_ref(), &["my_look".to_owned()]);
            assert_eq!(found, effect, "{tool} {arguments:?}");
        }
    }

    #[test]
    fn the_policies_stop_what_they_say() {
        assert!(!stops(HoldPolicy::Off, Effect::Unknown));
        assert!(!stops(HoldPolicy::Effects, Effect::None));
        assert!(stops(HoldPolicy::Effects, Effect::Unknown));
        assert!(stops(HoldPolicy::All, Effect::None));
    }
}
