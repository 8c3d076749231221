//! Entries as the real gateway writes them, and what is done to them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::core::checkpoint::Route;
use crate::core::queue::{Hand, Mark, Work};
use crate::core::stamp::Stamp;

const NOW: Stamp = Stamp::from_ms(1_795_363_900_000);
const TRIED: &str = "Call to 'sendMessage' failed! (500: Internal Server Error)";
const UNKNOWN: &str = "Network request for 'sendMessage' failed!";

/// As measured on 2026.5.5, but for the id.
fn turn() -> Value {
    json!({
        "kind": "agentTurn",
        "sessionKey": "agent:main:telegram:default:direct:4242",
        "message": " Lab continuation: verify ",
        "messageId": "restart-sentinel:s:agentTurn:1795363815345",
        "route": {"channel": "telegram", "to": "telegram:4242", "accountId": "default", "chatType": "direct"},
        "deliveryContext": {"channel": "telegram", "to": "telegram:4242", "accountId": "default"},
        "idempotencyKey": "restart-sentinel:s:agentTurn:1795363815345",
        "id": "e",
        "enqueuedAt": 1_795_363_824_194_i64,
        "retryCount": 1,
        "lastAttemptAt": 1_795_363_878_354_i64,
        "lastError": TRIED,
    })
}

fn reply() -> Value {
    json!({
        "id": "e",
        "enqueuedAt": 1_795_363_878_341_i64,
        "channel": "telegram",
        "to": "telegram:4242",
        "accountId": "default",
        "payloads": [{"text": "mock reply 22"}],
        "bestEffort": false,
        "session": {"key": "agent:main:main", "agentId": "main"},
        "retryCount": 1,
        "lastAttemptAt": 1_795_363_878_350_i64,
        "lastError": TRIED,
    })
}

/// `base` with the fields of `changes` in place; null takes one out.
fn with(mut base: Value, changes: Value) -> Value {
    let fields = base.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap().clone() {
        if value.is_null() {
            fields.shift_remove(&name);
        } else {
            fields.insert(name, value);
        }
    }
    base
}

fn parsed(queue: Queue, value: &Value) -> Result<Document, Malformed> {
    Document::parse(queue, "e.json", value.to_string().as_bytes())
}

fn document(queue: Queue, value: &Value) -> Document {
    parsed(queue, value).unwrap()
}

fn telegram() -> Route {
    Route {
        channel: "telegram".to_owned(),
        to: "telegram:4242".to_owned(),
        account_id: Some("default".to_owned()),
        thread_id: None,
    }
}

fn written(document: &Document) -> Value {
    serde_json::from_slice(&document.to_bytes()).unwrap()
}

#[test]
fn a_turn_is_read() {
    let document = document(Queue::Session, &turn());
    let entry = document.entry();
    assert_eq!(
        (entry.work, entry.session_key.as_deref(), entry.key.as_deref()),
        (
            Work::Turn,
            Some("agent:main:telegram:default:direct:4242"),
            Some("restart-sentinel:s:agentTurn:1795363815345")
        )
    );
    assert_eq!((entry.retry_count, entry.open_try), (1, false));
    assert_eq!(entry.route, Some(telegram()));
    let request = document.turn_request("k").unwrap();
    assert_eq!(request.message, "Lab continuation: verify");
    assert_eq!(
        (request.idempotency_key.as_str(), request.route.as_ref().unwrap().account_id.as_deref()),
        ("k", Some("default"))
    );
    assert!(document.send_request("k").is_none());
    let shown = format!("{document:?}");
    assert!(!shown.contains("Lab") && shown.contains("Turn"), "{shown}");
}

#[test]
fn what_a_session_entry_asks_for() {
    let event = with(turn(), json!({"kind": "systemEvent", "text": "t", "message": null}));
    let threaded = json!({"channel": "telegram", "to": "telegram:4242", "threadId": 7});
    for (value, work, thread, key) in [
        (
            with(turn(), json!({"route": null})),
            Work::Event,
            None,
            "restart-sentinel:s:agentTurn:1795363815345",
        ),
        (
            with(turn(), json!({"route": threaded, "idempotencyKey": null, "messageId": "m"})),
            Work::Turn,
            Some("7"),
            "m",
        ),
        (with(event, json!({"idempotencyKey": "i"})), Work::Event, None, "i"),
    ] {
        let document = document(Queue::Session, &value);
        let entry = document.entry();
        let found = entry.route.as_ref().and_then(|route| route.thread_id.as_deref());
        assert_eq!((entry.work, found, entry.key.as_deref()), (work, thread, Some(key)), "{value}");
        assert_eq!(document.turn_request("k").is_some(), work == Work::Turn);
    }
}

#[test]
fn a_reply_is_read() {
    let document = document(Queue::Delivery, &reply());
    let entry = document.entry();
    assert_eq!((entry.work, entry.key.as_deref()), (Work::Message, None));
    assert_eq!(entry.session_key.as_deref(), Some("agent:main:main"));
    let request = document.send_request("k").unwrap();
    assert_eq!((request.message.as_str(), request.media_urls.len()), ("mock reply 22", 0));
    assert!(document.turn_request("k").is_none());
    let mirror = json!({"sessionKey": "s", "text": "mock reply 22", "idempotencyKey": "i"});
    let entry = parsed(Queue::Delivery, &with(reply(), json!({"mirror": mirror}))).unwrap().entry;
    assert_eq!((entry.session_key.as_deref(), entry.key.as_deref()), (Some("s"), Some("i")));
}

#[test]
fn only_what_send_has_is_a_plain_message() {
    let part = |part: Value| json!({ "payloads": [part] });
    for (changes, plain) in [
        (json!({"silent": false, "forceDocument": false, "formatting": {}}), true),
        (json!({"silent": true}), false),
        (json!({"gifPlayback": true}), false),
        (json!({"formatting": {"parseMode": "HTML"}}), false),
        (json!({"replyToId": "5"}), true),
        (json!({"replyToId": "5", "replyToMode": "first"}), false),
        (json!({"replyToMode": "first", "threadId": 3}), true),
        (json!({"gatewayClientScopes": ["operator.write"]}), true),
        (json!({"payloads": []}), false),
        (json!({"payloads": [{"text": "a"}, {"text": "b"}]}), false),
        (part(json!({"text": "a", "audioAsVoice": false, "channelData": {}, "btw": []})), true),
        (part(json!({"text": "a", "audioAsVoice": true})), false),
        (part(json!({"text": "a", "channelData": {"telegram": {"buttons": []}}})), true),
        (part(json!({"text": "a", "channelData": {"telegram": {"buttons": [[1]]}}})), false),
        (part(json!({"text": " "})), false),
        (part(json!({"text": 7})), false),
        (part(json!({"text": "", "mediaUrl": "/a.png"})), true),
        (part(json!({"mediaUrls": ["/a.png", 7]})), false),
    ] {
        let document = document(Queue::Delivery, &with(reply(), changes.clone()));
        let work = if plain { Work::Message } else { Work::RichMessage };
        assert_eq!(
            (document.entry().work, document.send_request("k").is_some()),
            (work, plain),
            "{changes}"
        );
    }
    let media =
        part(json!({"text": "a", "mediaUrl": "/1", "mediaUrls": ["/1", "/2"], "replyToId": 5}));
    let request = document(Queue::Delivery, &with(reply(), media)).send_request("k").unwrap();
    assert_eq!(
        (request.media_urls, request.reply_to_id),
        (vec!["/1".to_owned(), "/2".to_owned()], Some("5".to_owned()))
    );
}

#[test]
fn malformed_files_name_what_is_wrong_and_nothing_else() {
    for (queue, value, want) in [
        (Queue::Session, json!([1]), "object"),
        (Queue::Session, with(turn(), json!({"id": "f"})), "id"),
        (Queue::Session, with(turn(), json!({"kind": "other"})), "kind"),
        (Queue::Session, with(turn(), json!({"sessionKey": null})), "sessionKey"),
        (Queue::Session, with(turn(), json!({"message": ["secret"]})), "message"),
        (Queue::Session, with(turn(), json!({"enqueuedAt": "now"})), "enqueuedAt"),
        (Queue::Session, with(turn(), json!({"retryCount": -1})), "retryCount"),
        (Queue::Delivery, with(reply(), json!({"channel": null})), "channel"),
        (Queue::Delivery, with(reply(), json!({"to": ""})), "to is"),
        (Queue::Delivery, with(reply(), json!({"payloads": "secret"})), "payloads"),
        (Queue::Delivery, with(reply(), json!({"payloads": ["secret"]})), "payloads"),
        (Queue::Delivery, with(reply(), json!({"enqueuedAt": null})), "enqueuedAt"),
    ] {
        let error = parsed(queue, &value).unwrap_err().to_string();
        assert!(error.contains(want) && !error.contains("secret"), "{error}");
    }
    let error = Document::parse(Queue::Session, "e.json", b"{\"secret").unwrap_err().to_string();
    assert!(error.contains("not JSON (line 1") && !error.contains("secret"), "{error}");
    assert_eq!(Document::parse(Queue::Session, "e.tmp", b"{}"), Err(Malformed::Name));
    let large = vec![b' '; usize::try_from(ENTRY_BYTES_MAX).unwrap() + 1];
    assert!(matches!(
        Document::parse(Queue::Session, "e.json", &large),
        Err(Malformed::TooLarge { .. })
    ));
}

#[test]
fn whether_a_try_may_have_got_through() {
    let parts = |parts: Value| json!({ "payloads": parts, "retryCount": 1 });
    for (changes, open) in [
        (json!({"retryCount": 0, "lastAttemptAt": null, "lastError": null}), true),
        (json!({"retryCount": 1}), false),
        (json!({"retryCount": 1, "lastError": null}), true),
        (json!({"retryCount": 2, "lastError": UNKNOWN}), true),
        (json!({"retryCount": 2, "lastError": "recovery time budget exceeded"}), false),
        (json!({"retryCount": 2, "lastError": "partial delivery failure (bestEffort)"}), true),
        (parts(json!([{"text": "a"}, {"text": "b"}])), true),
        (parts(json!([{"text": "a", "mediaUrl": "/a"}])), true),
        (parts(json!([{"mediaUrl": "/a"}])), false),
        (parts(json!([{"text": "x".repeat(4_001)}])), true),
    ] {
        let document = document(Queue::Delivery, &with(reply(), changes.clone()));
        assert_eq!(document.entry().open_try, open, "{:.80}", changes.to_string());
    }
}

#[test]
fn an_entry_is_made_due_once() {
    let mut document = document(Queue::Session, &turn());
    assert!(!document.needs_rewrite(Stamp::from_ms(1_795_363_883_354), false), "its pause is over");
    let early = Stamp::from_ms(1_795_363_883_353);
    assert!(document.needs_rewrite(early, true));
    document.make_due(early, true);
    let want = with(turn(), json!({"lastAttemptAt": 1}));
    assert_eq!(written(&document), want);
    assert!(!document.needs_rewrite(early, true));
    let order = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(order(&written(&document)), order(&turn()));
    assert_eq!(document.to_bytes(), serde_json::to_vec_pretty(&want).unwrap());

    let odd = with(
        turn(),
        json!({"retryCount": null, "lastAttemptAt": null, "enqueuedAt": NOW.as_ms() + 1}),
    );
    let mut odd = self::document(Queue::Session, &odd);
    odd.make_due(NOW, false);
    assert_eq!(
        (&written(&odd)["retryCount"], &written(&odd)["enqueuedAt"]),
        (&json!(0), &json!(NOW.as_ms()))
    );
    assert!(!odd.needs_rewrite(NOW, false));
}

#[test]
fn a_doubtful_message_says_so_once() {
    let mirror = json!({"sessionKey": "s", "text": "mock reply 22"});
    let mut document = document(Queue::Delivery, &with(reply(), json!({"mirror": mirror})));
    let mark = Mark {
        hand: Hand::Sending,
        key: Some("k".to_owned()),
        since: Some(NOW),
        asked: true,
        ..Mark::default()
    };
    document.set_mark(mark);
    for _ in 0..2 {
        document.make_due(NOW, true);
        let text = json!("mock reply 22\n(Possibly repeated.)");
        assert_eq!(written(&document).pointer("/payloads/0/text"), Some(&text));
        assert_eq!(written(&document).pointer("/mirror/text"), Some(&text));
        let mark = Mark { key: Some("k".to_owned()), doubt: true, ..Mark::default() };
        assert_eq!(document.entry().mark, mark);
    }
    assert!(!document.needs_rewrite(NOW, true) && !document.needs_rewrite(NOW, false));
    assert!(document.send_request("k").unwrap().message.matches("repeated").count() == 1);

    let mut unmarked = self::document(Queue::Delivery, &reply());
    unmarked.set_mark(Mark { doubt: true, ..Mark::default() });
    assert_eq!(unmarked.send_request("k").unwrap().message, "mock reply 22\n(Possibly repeated.)");
    assert_eq!(written(&unmarked).pointer("/payloads/0/text"), Some(&json!("mock reply 22")));
    unmarked.set_mark(Mark::default());
    assert_eq!(written(&unmarked), reply());
}

#[test]
fn a_mark_comes_back_and_a_broken_one_is_none() {
    let mut document = document(Queue::Session, &turn());
    let mark = Mark { hand: Hand::Claimed, since: Some(NOW), ..Mark::default() };
    document.set_mark(mark.clone());
    let again = Document::parse(Queue::Session, "e.json", &document.to_bytes()).unwrap();
    assert_eq!((&again.entry().mark, &again), (&mark, &document));
    let broken = with(turn(), json!({"tideover": {"hand": "waving"}}));
    assert_eq!(self::document(Queue::Session, &broken).entry().mark, Mark::default());
}

#[test]
fn tries_are_noted_and_taken_back() {
    let mut document = document(Queue::Delivery, &reply());
    document.set_tries(4, NOW, UNKNOWN);
    assert!(document.entry().open_try && document.entry().last_attempt_at == Some(NOW));
    assert_eq!(written(&document)["lastError"], json!(UNKNOWN));
    document.reset(NOW);
    let want = json!({"retryCount": 0, "lastAttemptAt": null, "lastError": null, "tideover": {"hand": "none", "doubt": true, "asked": true}});
    assert_eq!(written(&document), with(reply(), want));
    assert!(!document.entry().open_try && document.entry().mark.asked);

    let mut answered = self::document(Queue::Delivery, &reply());
    answered.reset(NOW);
    assert!(!answered.entry().mark.doubt && !answered.entry().open_try);
    // Once the gateway has it, it may have begun.
    answered.make_due(NOW, false);
    assert!(answered.entry().open_try);
}

#[test]
fn where_the_queue_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    assert!(kept_in_files(dir.path()));
    std::fs::create_dir(dir.path().join("state")).unwrap();
    assert!(kept_in_files(dir.path()));
    std::fs::write(dir.path().join("state/openclaw.sqlite"), "").unwrap();
    assert!(!kept_in_files(dir.path()));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
        Document::parse(Queue::Session, "e.json", &bytes).ok();
    }

    #[test]
    fn what_was_made_due_is_due_and_stays_as_it_is(
        retry_count in 0..5_u32,
        tried in proptest::option::of(1..2_000_000_000_000_i64),
        doubt: bool,
        text in ".{0,20}",
    ) {
        let changes = json!({"retryCount": retry_count, "payloads": [{"text": text}]});
        let mut value = with(reply(), changes);
        match tried {
            Some(at) => value["lastAttemptAt"] = at.into(),
            None => { value.as_object_mut().unwrap().shift_remove("lastAttemptAt"); }
        }
        let mut document = document(Queue::Delivery, &value);
        document.make_due(NOW, doubt);
        prop_assert!(document.entry().due_at() <= NOW);
        prop_assert!(!document.needs_rewrite(NOW, doubt));
        let again = Document::parse(Queue::Delivery, "e.json", &document.to_bytes()).unwrap();
        prop_assert_eq!(again, document);
    }
}
