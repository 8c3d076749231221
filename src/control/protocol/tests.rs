//! Limits and frames.

use super::check::{ERROR_BYTES_MAX, SHA256_HEX_BYTES};
use super::*;
use crate::core::limits::{IDENTIFIER_BYTES_MAX, SESSION_KEY_BYTES_MAX};

fn row() -> Value {
    json!({
        "queue": "outbound-prepared-v1", "id": "e-1", "status": "pending", "kind": null,
        "session_key": "agent:main:main", "channel": "telegram", "to": "4242",
        "account_id": "default", "retry_count": 2, "last_attempt_at_ms": 1,
        "last_error": "Network request for 'sendMessage' failed!", "recovery_state": null,
        "platform_send_started_at_ms": null, "enqueued_at_ms": 1, "failed_at_ms": null,
    })
}

fn asked(frame: &Value) -> Result<Request, ErrorCode> {
    match parse(frame.to_string().as_bytes()) {
        Ok(Frame::Request { request, .. }) => {
            request.map(|request| *request).map_err(|(code, _)| code)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_row_of_the_gateways_queue_is_passed_on_as_it_came() {
    let frame = json!({ "type": "native_queue", "entries": [row()], "total": 1 });
    let Ok(Request::NativeQueue { entries, total: 1 }) = asked(&frame) else {
        panic!("not understood: {frame}");
    };
    assert_eq!(serde_json::to_value(&entries[0]).unwrap(), row());
}

#[test]
fn a_report_over_a_limit_is_refused() {
    let queue = |entries: Vec<Value>| {
        asked(&json!({ "type": "native_queue", "entries": entries, "total": 9_000 }))
    };
    assert!(queue(vec![row(); NATIVE_ENTRIES_MAX]).is_ok());
    assert_eq!(queue(vec![row(); NATIVE_ENTRIES_MAX + 1]).unwrap_err(), ErrorCode::BadField);
    for (field, limit) in [
        ("id", IDENTIFIER_BYTES_MAX),
        ("session_key", SESSION_KEY_BYTES_MAX),
        ("last_error", ERROR_BYTES_MAX),
    ] {
        let with = |bytes: usize| {
            let mut row = row();
            row[field] = json!("x".repeat(bytes));
            queue(vec![row])
        };
        assert!(with(limit).is_ok(), "{field}");
        assert_eq!(with(limit + 1).unwrap_err(), ErrorCode::BadField, "{field}");
    }
    let sent = |error: usize, sha256: usize| {
        asked(&json!({
            "type": "message_sent", "success": false, "error": "x".repeat(error),
            "text_sha256": "0".repeat(sha256), "text_bytes": 5,
        }))
    };
    assert!(sent(ERROR_BYTES_MAX, SHA256_HEX_BYTES).is_ok());
    assert_eq!(sent(ERROR_BYTES_MAX + 1, 64).unwrap_err(), ErrorCode::BadField);
    assert_eq!(sent(0, SHA256_HEX_BYTES + 1).unwrap_err(), ErrorCode::BadField);
}

#[test]
fn a_shell_asks_for_one_entry_or_all() {
    let long = "x".repeat(SESSION_KEY_BYTES_MAX + 1);
    assert_eq!(asked(&json!({ "type": "queue" })), Ok(Request::Queue { entry: None }));
    assert_eq!(
        asked(&json!({ "type": "queue_retry", "id": "1", "entry": "e-1" })),
        Ok(Request::QueueRetry { entry: "e-1".to_owned() })
    );
    assert_eq!(asked(&json!({ "type": "queue_drop", "entry": long })), Err(ErrorCode::BadField));
    assert_eq!(asked(&json!({ "type": "outbox_retry" })), Ok(Request::OutboxRetry { key: None }));
    assert_eq!(asked(&json!({ "type": "outbox_retry", "key": long })), Err(ErrorCode::BadField));
}
