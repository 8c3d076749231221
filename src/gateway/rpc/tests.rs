//! The client against a scripted gateway.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::core::checkpoint::Route;

use super::*;

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(60);

type Peer = WebSocketStream<TcpStream>;

async fn say(peer: &mut Peer, frame: Value) {
    // A client that gave up is part of some scripts.
    peer.send(Message::text(frame.to_string())).await.ok();
}

/// The next request of the client, or `None` once it is gone.
async fn hear(peer: &mut Peer) -> Option<Value> {
    loop {
        match peer.next().await?.ok()? {
            Message::Text(text) => return serde_json::from_str(&text).ok(),
            Message::Close(_) => return None,
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

fn ok(id: &Value, payload: Value) -> Value {
    json!({"type": "res", "id": id, "ok": true, "payload": payload})
}

async fn greet(listener: &TcpListener) -> (Peer, Value) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut peer = tokio_tungstenite::accept_async(stream).await.unwrap();
    say(&mut peer, json!({"type": "event", "event": "connect.challenge", "payload": {}})).await;
    let request = hear(&mut peer).await.unwrap();
    (peer, request)
}

async fn accept(listener: &TcpListener) -> Peer {
    let (mut peer, request) = greet(listener).await;
    let hello = json!({"type": "hello-ok", "protocol": 4, "server": {"version": "1.2.3"},
        "features": {"methods": ["send", "agent"]}});
    say(&mut peer, ok(&request["id"], hello)).await;
    peer
}

async fn lab() -> (TcpListener, ConnectOptions) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let options = ConnectOptions {
        port: listener.local_addr().unwrap().port(),
        credentials: Credentials::Token(Secret::new("t")),
        patience: LONG,
    };
    (listener, options)
}

#[tokio::test(flavor = "current_thread")]
async fn it_tries_again_while_the_gateway_starts() {
    let (listener, options) = lab().await;
    let gateway = async {
        let (stream, _) = listener.accept().await.unwrap();
        drop(stream);
        let (mut peer, request) = greet(&listener).await;
        let error = json!({"code": "UNAVAILABLE", "message": "starting", "retryable": true,
            "retryAfterMs": 50, "details": {"reason": "startup-sidecars"}});
        say(&mut peer, json!({"type": "res", "id": request["id"], "ok": false, "error": error}))
            .await;
        drop(peer);
        let (mut peer, request) = greet(&listener).await;
        assert_eq!(request["params"]["auth"], json!({"token": "t"}));
        assert_eq!(
            (&request["params"]["minProtocol"], &request["params"]["maxProtocol"]),
            (&json!(3), &json!(4))
        );
        say(&mut peer, ok(&request["id"], json!({"protocol": 3}))).await;
        peer
    };
    let (client, _peer) = tokio::join!(Client::connect(&options), gateway);
    assert_eq!(client.unwrap().hello().protocol, 3);
}

#[tokio::test(flavor = "current_thread")]
async fn a_wrong_token_fails_at_once_and_an_absent_gateway_at_the_deadline() {
    let (listener, mut options) = lab().await;
    let gateway = async {
        let (mut peer, request) = greet(&listener).await;
        let error = json!({"code": "INVALID_REQUEST", "message": "unauthorized",
            "details": {"code": "AUTH_TOKEN_MISMATCH"}});
        say(&mut peer, json!({"type": "res", "id": request["id"], "ok": false, "error": error}))
            .await;
    };
    let (client, ()) = tokio::join!(Client::connect(&options), gateway);
    assert!(matches!(client, Err(RpcError::Refused { .. })));
    drop(listener);
    options.patience = SHORT;
    let error = Client::connect(&options).await.unwrap_err();
    assert!(matches!(error, RpcError::Unreachable { .. }), "{error}");
}

#[tokio::test(flavor = "current_thread")]
async fn answers_are_told_apart_by_their_ids() {
    let (listener, options) = lab().await;
    let gateway = async {
        let mut peer = accept(&listener).await;
        // The first call is answered too late, the second one twice, the third one never.
        let late = hear(&mut peer).await.unwrap();
        let agent = hear(&mut peer).await.unwrap();
        say(&mut peer, ok(&late["id"], json!("late"))).await;
        say(&mut peer, json!({"type": "event", "event": "tick"})).await;
        say(&mut peer, ok(&agent["id"], json!({"status": "accepted"}))).await;
        say(&mut peer, ok(&agent["id"], json!({"status": "ok"}))).await;
        hear(&mut peer).await.unwrap();
    };
    let caller = async {
        let mut client = Client::connect(&options).await.unwrap();
        assert!(client.hello().offers("send") && !client.hello().offers("wake"));
        let first = client.call("send", &json!({}), SHORT).await;
        assert!(matches!(first, Err(RpcError::Timeout { .. })), "{first:?}");
        let second = client.call("agent", &json!({}), LONG).await.unwrap();
        assert_eq!(second, json!({"status": "ok"}));
        let third = client.call("send", &json!({}), LONG).await;
        assert!(matches!(third, Err(RpcError::Lost { written: true, .. })), "{third:?}");
        let large = json!({ "message": "x".repeat(600 * 1024) });
        let fourth = client.call("send", &large, LONG).await;
        assert!(matches!(fourth, Err(RpcError::RequestTooLarge { .. })), "{fourth:?}");
    };
    tokio::join!(caller, gateway);
}

#[tokio::test(flavor = "current_thread")]
async fn an_answer_over_the_limit_ends_the_connection() {
    let (listener, options) = lab().await;
    let gateway = async {
        let mut peer = accept(&listener).await;
        let request = hear(&mut peer).await.unwrap();
        say(&mut peer, ok(&request["id"], json!("x".repeat(5 * 1024 * 1024)))).await;
    };
    let caller = async {
        let mut client = Client::connect(&options).await.unwrap();
        let answer = client.call("send", &json!({}), LONG).await;
        drop(client);
        assert!(matches!(answer, Err(RpcError::Lost { written: true, .. })), "{answer:?}");
    };
    tokio::join!(caller, gateway);
}

fn no(id: &Value, error: Value) -> Value {
    json!({"type": "res", "id": id, "ok": false, "error": error})
}

fn turn() -> TurnRequest {
    TurnRequest {
        session_key: "agent:main:main".into(),
        message: "m".into(),
        route: Some(Route {
            channel: "telegram".into(),
            to: "telegram:1".into(),
            account_id: Some("default".into()),
            thread_id: None,
        }),
        idempotency_key: "k".into(),
    }
}

#[tokio::test(flavor = "current_thread")]
async fn what_became_of_a_turn() {
    let (listener, options) = lab().await;
    let gateway = async {
        let mut peer = accept(&listener).await;
        let asked = hear(&mut peer).await.unwrap();
        let want = json!({"message": "m", "sessionKey": "agent:main:main", "idempotencyKey": "k",
            "deliver": true, "channel": "telegram", "to": "telegram:1", "accountId": "default"});
        assert_eq!((&asked["method"], &asked["params"]), (&json!("agent"), &want));
        say(&mut peer, ok(&asked["id"], json!({"runId": "k", "status": "accepted"}))).await;
        say(&mut peer, ok(&asked["id"], json!({"runId": "k", "status": "ok"}))).await;

        let asked = hear(&mut peer).await.unwrap();
        say(&mut peer, ok(&asked["id"], json!({"runId": "k", "status": "accepted"}))).await;
        let failed = "GrammyError: Call to 'sendMessage' failed! (500: Internal Server Error)";
        say(&mut peer, no(&asked["id"], json!({"code": "UNAVAILABLE", "message": failed}))).await;

        let asked = hear(&mut peer).await.unwrap();
        let draining = json!({"code": "UNAVAILABLE", "message": "restarting", "retryable": true,
            "details": {"reason": "gateway-restarting"}});
        say(&mut peer, no(&asked["id"], draining)).await;

        let asked = hear(&mut peer).await.unwrap();
        say(&mut peer, ok(&asked["id"], json!({"runId": "k", "status": "timeout"}))).await;

        // One is answered only with `accepted`, and during the last one the gateway dies.
        let asked = hear(&mut peer).await.unwrap();
        say(&mut peer, ok(&asked["id"], json!({"runId": "k", "status": "accepted"}))).await;
        hear(&mut peer).await.unwrap();
    };
    let caller = async {
        let mut client = Client::connect(&options).await.unwrap();
        assert_eq!(client.run_turn(&turn(), LONG).await, TurnOutcome::Ran);
        let failed = client.run_turn(&turn(), LONG).await;
        assert!(
            matches!(&failed, TurnOutcome::Failed { reason } if channel_answered(reason)),
            "{failed:?}"
        );
        let passing = client.run_turn(&turn(), LONG).await;
        assert!(matches!(passing, TurnOutcome::NotTaken { .. }), "{passing:?}");
        let broken_off = client.run_turn(&turn(), LONG).await;
        assert!(matches!(broken_off, TurnOutcome::Failed { .. }), "{broken_off:?}");
        let late = client.run_turn(&turn(), SHORT).await;
        assert!(matches!(late, TurnOutcome::NoAnswer { .. }), "{late:?}");
        let lost = client.run_turn(&turn(), LONG).await;
        assert!(matches!(lost, TurnOutcome::NoAnswer { .. }), "{lost:?}");
        let large = TurnRequest { message: "x".repeat(600 * 1024), ..turn() };
        let large = client.run_turn(&large, LONG).await;
        assert!(matches!(large, TurnOutcome::Failed { .. }), "{large:?}");
    };
    tokio::join!(caller, gateway);
}

#[tokio::test(flavor = "current_thread")]
async fn a_receipt_is_found_by_its_key() {
    let (listener, options) = lab().await;
    let gateway = async {
        let mut peer = accept(&listener).await;
        let asked = hear(&mut peer).await.unwrap();
        assert_eq!(asked["method"], json!("chat.history"));
        assert_eq!(asked["params"]["sessionKey"], json!("s"));
        let rows = json!({"messages": [{"role": "user"}, 7, {"role": "assistant",
            "provider": "openclaw", "model": "delivery-mirror", "idempotencyKey": "k-0"}]});
        say(&mut peer, ok(&asked["id"], rows.clone())).await;
        let asked = hear(&mut peer).await.unwrap();
        say(&mut peer, ok(&asked["id"], rows)).await;
        let asked = hear(&mut peer).await.unwrap();
        say(&mut peer, ok(&asked["id"], json!({}))).await;
        let asked = hear(&mut peer).await.unwrap();
        say(&mut peer, ok(&asked["id"], json!("x".repeat(5 * 1024 * 1024)))).await;
    };
    let caller = async {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let mut client = Client::connect(&options).await.unwrap();
        assert!(client.has_receipt("s", &keys(&["x", "k-0"]), LONG).await.unwrap());
        assert!(!client.has_receipt("s", &keys(&["k-1"]), LONG).await.unwrap());
        assert!(!client.has_receipt("s", &keys(&["k-0"]), LONG).await.unwrap());
        let large = client.has_receipt("s", &keys(&["k-0"]), LONG).await;
        assert!(matches!(large, Err(RpcError::Lost { .. })), "{large:?}");
    };
    tokio::join!(caller, gateway);
}
