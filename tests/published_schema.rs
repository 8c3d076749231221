//! The published JSON Schema names every field that a checkpoint has, and requires none that it lacks.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use serde_json::Value;
use tideover::core::checkpoint::{Background, Checkpoint, Origin, Outcome, Route};
use tideover::core::ledger::{Ledger, Policy, SessionRef};
use tideover::core::reducer::{Intent, Report, Rules};
use tideover::core::stamp::Stamp;

fn schema() -> Value {
    let text = include_str!("../packaging/checkpoint.schema.json");
    serde_json::from_str(text).unwrap()
}

/// A checkpoint with every optional part filled in, made the way the program makes it.
fn full_checkpoint() -> Checkpoint {
    let now = Stamp::from_ms(1_800_000_000_000);
    let policy = Policy {
        notify: true,
        max_age_ms: 1_000,
        rules: Rules { redact: vec!["secret".to_owned()], ..Rules::default() },
        ..Policy::default()
    };
    let mut ledger = Ledger::new(policy, Vec::new(), "run", now);
    let session = SessionRef {
        key: "agent:main:main".to_owned(),
        id: Some("s".to_owned()),
        agent_id: Some("main".to_owned()),
    };
    let route = Route {
        channel: "telegram".to_owned(),
        to: "telegram:1".to_owned(),
        account_id: None,
        thread_id: None,
    };
    ledger.turn_started(now, &session, "r", Origin::User, Some("task".to_owned()), Some(route));
    let intent = |id: &str| Intent {
        run_id: "r".to_owned(),
        tool_call_id: id.to_owned(),
        name: "exec".to_owned(),
        arguments: Some(serde_json::json!({"command": "x", "secret": "y"})),
        too_large: None,
    };
    ledger.tool_intent(now, &session, intent("c1"));
    let background = Background {
        pid: Some(1),
        start_ticks: Some(2),
        id: Some("b".to_owned()),
        ..Background::default()
    };
    let finished = Report::ToolFinished {
        run_id: "r".to_owned(),
        tool_call_id: "c1".to_owned(),
        outcome: Outcome::Background,
        background: Some(background),
        stopping: false,
    };
    ledger.report(now, &session, &finished);
    ledger.tool_intent(now, &session, intent("c2"));
    ledger.interrupt_all(
        now,
        "incident",
        tideover::core::checkpoint::Cause::Sigterm,
        "why".to_owned(),
    );
    ledger.turn_started(now, &session, "r2", Origin::Recovery, None, None);
    ledger.session_ended(now, &session, Some("daily"), Some("t"));
    ledger.get("agent:main:main").unwrap().clone()
}

fn check(schema: &Value, root: &Value, value: &Value, at: &str) {
    let schema = match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
        let fitting = if value.is_null() { choices.last() } else { choices.first() };
        return check(fitting.unwrap(), root, value, at);
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
        assert!(allowed.contains(value), "{at}: {value} is not in the schema");
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (index, item) in values.iter().enumerate() {
            check(items, root, item, &format!("{at}[{index}]"));
        }
    }
    let (Some(properties), Some(object)) = (schema.get("properties"), value.as_object()) else {
        return;
    };
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(
            object.contains_key(required.as_str().unwrap()),
            "{at}: {required} is required and missing"
        );
    }
    for (name, member) in object {
        let property =
            properties.get(name).unwrap_or_else(|| panic!("{at}.{name} is not in the schema"));
        check(property, root, member, &format!("{at}.{name}"));
    }
}

#[test]
fn every_field_of_a_checkpoint_is_published() {
    let schema = schema();
    let value = serde_json::to_value(full_checkpoint()).unwrap();
    assert!(
        value["interruption"]["call"]["arguments_omitted"].is_object(),
        "the example is not full"
    );
    assert!(
        value["open_calls"].as_array().is_some_and(|calls| !calls.is_empty()),
        "the example is not full"
    );
    assert!(value["interruption"]["orphaned"].is_object(), "the example is not full");
    check(&schema, &schema, &value, "checkpoint");
}
