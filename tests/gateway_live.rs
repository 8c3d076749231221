//! Asks a real gateway. Ignored unless one is running:
//! `TIDEOVER_TEST_PORT=… TIDEOVER_TEST_TOKEN=… cargo test --test gateway_live -- --ignored`.
//! `TIDEOVER_TEST_TO` names a Telegram chat of a mock to send to.

use std::time::Duration;

use serde_json::json;
use tideover::gateway::health::{Health, probe};
use tideover::gateway::launch::EnvSnapshot;
use tideover::gateway::paths::GatewayPaths;
use tideover::gateway::plugin_install::{InstallOptions, prepare_install, prepare_uninstall};
use tideover::gateway::rpc::{
    Aborted, Client, ConnectOptions, Credentials, RpcError, Secret, SendOutcome, SendRequest,
};

const PATIENCE: Duration = Duration::from_secs(60);
const CALL: Duration = Duration::from_secs(30);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn port() -> u16 {
    variable("TIDEOVER_TEST_PORT").parse().unwrap()
}

fn options(token: &str) -> ConnectOptions {
    ConnectOptions {
        port: port(),
        credentials: Credentials::Token(Secret::new(token)),
        patience: PATIENCE,
    }
}

fn message(key: &str) -> SendRequest {
    SendRequest {
        channel: "telegram".into(),
        to: variable("TIDEOVER_TEST_TO"),
        message: format!("text of {key}"),
        account_id: None,
        thread_id: None,
        idempotency_key: key.into(),
        session_key: None,
    }
}

#[tokio::test(flavor = "current_thread")]
#[ignore = "needs a running gateway"]
async fn the_handshake_the_probes_and_the_session_calls() {
    let mut client = Client::connect(&options(&variable("TIDEOVER_TEST_TOKEN"))).await.unwrap();
    println!("protocol {} version {:?}", client.hello().protocol, client.hello().server_version);
    assert!(client.hello().offers("send") && !client.hello().offers("no.such.method"));
    let health = probe(port(), Duration::from_secs(5)).await;
    assert!(matches!(health, Health::Ready | Health::Degraded { .. }), "{health:?}");

    let missing = client.describe_session("agent:main:nobody", CALL).await;
    assert!(matches!(missing, Ok(None)), "{missing:?}");
    let none = client.abort_session("agent:main:main", None, CALL).await;
    println!("abort: {none:?}");
    assert!(matches!(none, Ok(Aborted::NothingRan)), "{none:?}");
    let wrong = client.call("no.such.method", &json!({}), CALL).await;
    assert!(matches!(wrong, Err(RpcError::Answered { .. })), "{wrong:?}");

    let refused = Client::connect(&options("wrong")).await.unwrap_err();
    assert!(matches!(refused, RpcError::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("AUTH_TOKEN_MISMATCH"), "{refused}");
    client.close(CALL).await;
}

#[tokio::test(flavor = "current_thread")]
#[ignore = "needs a running gateway and a mock channel"]
async fn sends() {
    let key = variable("TIDEOVER_TEST_KEY");
    let token = variable("TIDEOVER_TEST_TOKEN");
    let mut client = Client::connect(&options(&token)).await.unwrap();
    if variable("TIDEOVER_TEST_TWICE").is_empty() {
        println!("send: {:?}", client.send(&message(&key), CALL).await);
        println!("route: {:?}", client.describe_session("agent:main:main", CALL).await);
        return;
    }
    // Two requests with one key, the second while the first is under way.
    let mut other = Client::connect(&options(&token)).await.unwrap();
    let request = message(&key);
    let (first, second) = tokio::join!(client.send(&request, CALL), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        other.send(&request, CALL).await
    });
    println!("first: {first:?}\nsecond: {second:?}");
    let short = client.send(&message(&format!("{key}-short")), Duration::from_millis(100)).await;
    assert!(matches!(short, SendOutcome::Uncertain { .. }), "{short:?}");
}

/// Installs into, or with `TIDEOVER_TEST_OUT` removes from, the home `TIDEOVER_TEST_HOME`.
#[test]
#[ignore = "needs a scratch home"]
fn the_plugin() {
    let env = EnvSnapshot::from([("HOME".into(), variable("TIDEOVER_TEST_HOME").into())]);
    let none: [&str; 0] = [];
    let paths = GatewayPaths::resolve(&env, &none).unwrap();
    let prepared = if variable("TIDEOVER_TEST_OUT").is_empty() {
        prepare_install(&paths, InstallOptions::default()).unwrap()
    } else {
        prepare_uninstall(&paths).unwrap()
    };
    println!("{}", prepared.describe());
    prepared.apply().unwrap();
}
