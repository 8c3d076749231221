//! Reading single fields of an entry as tolerantly as the gateway does.

use serde_json::{Map, Value};

use crate::core::checkpoint::Route;
use crate::core::stamp::Stamp;

use super::malformed::Malformed;

/// The fields of one entry.
pub(super) type Object = Map<String, Value>;

/// A text; `None` where it is missing or something else.
pub(super) fn text<'a>(object: &'a Object, field: &str) -> Option<&'a str> {
    object.get(field).and_then(Value::as_str)
}

/// A text that must be there.
pub(super) fn needed<'a>(object: &'a Object, field: &'static str) -> Result<&'a str, Malformed> {
    text(object, field).ok_or(Malformed::Field { field, expected: "a text" })
}

/// A text that must be there and hold something.
pub(super) fn needed_name<'a>(
    object: &'a Object,
    field: &'static str,
) -> Result<&'a str, Malformed> {
    let name = text(object, field).filter(|name| !name.trim().is_empty());
    name.ok_or(Malformed::Field { field, expected: "a text with something in it" })
}

/// A name that may be a number, such as a thread's; `None` where there is none.
pub(super) fn label(object: &Object, field: &str) -> Option<String> {
    match object.get(field)? {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

/// An object inside; `None` where there is none.
pub(super) fn object<'a>(object: &'a Object, field: &str) -> Option<&'a Object> {
    object.get(field).and_then(Value::as_object)
}

/// The address in `object`; `None` without channel or receiver.
pub(super) fn route(object: &Object) -> Option<Route> {
    Some(Route {
        channel: text(object, "channel").filter(|channel| !channel.is_empty())?.to_owned(),
        to: label(object, "to")?,
        account_id: label(object, "accountId"),
        thread_id: label(object, "threadId"),
    })
}

/// When the entry was queued. The gateway passes a session entry without it over for ever.
pub(super) fn enqueued_at(object: &Object) -> Result<Stamp, Malformed> {
    let field = "enqueuedAt";
    object
        .get(field)
        .and_then(whole_number)
        .map(Stamp::from_ms)
        .ok_or(Malformed::Field { field, expected: "a number from 0 on" })
}

/// Failed tries. The gateway reads a missing count and a null as some number that it never finds
/// to be five: such an entry is tried, so it counts from 0.
pub(super) fn retry_count(object: &Object) -> Result<u32, Malformed> {
    let field = "retryCount";
    match object.get(field) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => whole_number(value)
            .map(|count| u32::try_from(count).unwrap_or(u32::MAX))
            .ok_or(Malformed::Field { field, expected: "a number from 0 on" }),
    }
}

/// When the last try ended. As for the gateway, anything but a number above 0 is none; 1 is what
/// makes an entry due.
pub(super) fn last_attempt_at(object: &Object) -> Option<Stamp> {
    let at = object.get("lastAttemptAt").and_then(whole_number)?;
    (at > 0).then(|| Stamp::from_ms(at))
}

/// A number from 0 on, without its fraction.
fn whole_number(value: &Value) -> Option<i64> {
    let number = value.as_f64().filter(|number| number.is_finite() && *number >= 0.0)?;
    #[expect(clippy::cast_possible_truncation, reason = "a fraction of a millisecond is dropped")]
    let rounded = number as i64;
    Some(value.as_i64().unwrap_or(rounded))
}

/// Whether a field asks for nothing: what is false, empty or null is what the gateway's own default
/// does.
pub(super) fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(asks_for_nothing),
    }
}
