//! The frames of the gateway's protocol (versions 3 and 4 are alike in what is used here).

use serde_json::{Map, Value, json};

use super::error::GatewayError;
use super::secret::Credentials;

/// Longest text that is kept of a gateway's error, in characters.
const ERROR_CHARS_MAX: usize = 300;
/// Oldest and newest protocol this client can speak.
const PROTOCOL_MIN: u32 = 3;
const PROTOCOL_MAX: u32 = 4;

/// One frame from the gateway.
#[derive(Debug)]
pub(super) enum Frame {
    /// The answer to request `id`.
    Response { id: String, result: Result<Value, GatewayError> },
    /// An event; only its name matters here.
    Event { name: String },
    /// Anything else.
    Other,
}

/// Reads one text message; `None` when it is not a JSON object.
pub(super) fn parse(text: &str) -> Option<Frame> {
    let Value::Object(mut frame) = serde_json::from_str(text).ok()? else {
        return None;
    };
    let kind = take_text(&mut frame, "type").unwrap_or_default();
    Some(match kind.as_str() {
        "res" => {
            let Some(id) = take_text(&mut frame, "id") else {
                return Some(Frame::Other);
            };
            let payload = frame.remove("payload").unwrap_or(Value::Null);
            let result = match frame.get("ok").and_then(Value::as_bool) {
                Some(true) => Ok(payload),
                Some(false) | None => Err(error(frame.get("error").unwrap_or(&Value::Null))),
            };
            Frame::Response { id, result }
        }
        "event" => Frame::Event { name: take_text(&mut frame, "event").unwrap_or_default() },
        _ => Frame::Other,
    })
}

/// A request frame as text.
pub(super) fn request(id: &str, method: &str, params: &Value) -> String {
    json!({ "type": "req", "id": id, "method": method, "params": params }).to_string()
}

/// The parameters of the first request on a connection.
pub(super) fn connect_params(credentials: &Credentials) -> Value {
    let mut params = json!({
        "minProtocol": PROTOCOL_MIN,
        "maxProtocol": PROTOCOL_MAX,
        "client": {
            "id": "gateway-client",
            "version": env!("CARGO_PKG_VERSION"),
            "platform": "linux",
            "mode": "backend",
        },
        "role": "operator",
        // No more than is needed: a turn that is asked for with `operator.admin` is the owner's, with the owner's
        // tools, and an agent may have written its text.
        "scopes": ["operator.read", "operator.write"],
        "caps": [],
    });
    if let (Some(auth), Some(params)) = (credentials.to_json(), params.as_object_mut()) {
        params.insert("auth".to_owned(), auth);
    }
    params
}

fn error(value: &Value) -> GatewayError {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(one_line);
    let details = value.get("details").unwrap_or(&Value::Null);
    GatewayError {
        code: text(value, "code").unwrap_or_else(|| "UNKNOWN".to_owned()),
        message: text(value, "message").unwrap_or_else(|| "no reason given".to_owned()),
        retryable: value.get("retryable").and_then(Value::as_bool).unwrap_or(false),
        retry_after_ms: value.get("retryAfterMs").and_then(Value::as_u64),
        detail_code: text(details, "code"),
        reason: text(details, "reason"),
    }
}

/// One line of bounded length, without control characters.
pub(super) fn one_line(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(ERROR_CHARS_MAX).collect()
}

fn take_text(object: &mut Map<String, Value>, name: &str) -> Option<String> {
    match object.remove(name) {
        Some(Value::String(text)) => Some(text),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::secret::Secret;
    use super::*;

    #[test]
    fn frames() {
        let text = r#"{"type":"res","id":"7","ok":false,"error":{"code":"UNAVAILABLE",
            "message":"gateway starting\nretry","retryable":true,"retryAfterMs":500,
            "details":{"reason":"startup-sidecars"}}}"#;
        let Some(Frame::Response { id, result: Err(error) }) = parse(text) else {
            unreachable!("an error response")
        };
        assert_eq!((id.as_str(), error.retry_after_ms), ("7", Some(500)));
        assert_eq!(error.message, "gateway starting retry");
        assert!(error.is_passing() && error.retryable);

        let table = [
            (r#"{"type":"event","event":"tick","payload":{}}"#, "Event"),
            (r#"{"type":"res","id":"1","ok":true,"payload":{"a":1}}"#, "Ok"),
            (r#"{"type":"res","id":"1"}"#, "Err"),
            (r#"{"type":"res","ok":true}"#, "Other"),
            (r#"{"type":7}"#, "Other"),
            ("[]", "None"),
            ("not json", "None"),
        ];
        for (text, want) in table {
            assert!(format!("{:?}", parse(text)).contains(want), "{text}");
        }
    }

    #[test]
    fn connect_carries_the_credentials_only_when_there_are_any() {
        let with = connect_params(&Credentials::Password(Secret::new("p")));
        assert_eq!(with.pointer("/auth/password"), Some(&json!("p")));
        assert_eq!(connect_params(&Credentials::None).get("auth"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            parse(&text);
        }
    }
}
