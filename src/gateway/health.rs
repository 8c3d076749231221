//! Asking a gateway how it is, over its HTTP probes.
//!
//! Measured: 2026.9.6 answers `/startupz` (200 `started`, 503 `starting` or `draining`) and
//! `/readyz`; 2026.5.5 has no `/startupz` (404, or its web page when the control UI is on) and
//! answers `/readyz`. Both answer `/healthz` with 200 as soon as HTTP listens, also while they
//! drain, so that it tells only *alive*. The probes need no credentials on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest time one probe takes in all, in milliseconds, when the caller names none.
pub const PROBE_TIMEOUT_MS: u64 = 2_000;
/// Largest answer of a probe that is read, in bytes. Real ones are below 1 KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Most reasons that are kept of one answer.
const FAILING_MAX: usize = 32;

/// The state of a gateway as an outsider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It takes requests and nothing is reported as failing.
    Ready,
    /// It listens and is not yet ready.
    Starting,
    /// It finishes what runs and takes nothing new.
    Draining,
    /// It takes requests, and some part of it (a channel account, say) does not work.
    Degraded {
        /// The gateway's names for what fails.
        failing: Vec<String>,
    },
    /// Nothing usable answered in time.
    Down,
}

/// What a probe route said.
#[derive(Debug)]
enum Answer {
    /// A JSON object with this status code.
    Json(StatusCode, Value),
    /// Something that is not the probe: no such route, or a web page in its place.
    NoSuchRoute,
}

/// Probes the gateway on `port` of the loopback interface within `limit`. Never fails: what
/// cannot be asked is [`Health::Down`].
pub async fn probe(port: u16, limit: Duration) -> Health {
    timeout(limit, ask(port)).await.ok().flatten().unwrap_or(Health::Down)
}

/// Whether the gateway on `port` of the loopback interface answers `/healthz` within `limit`, whatever else it
/// is busy with.
pub async fn is_live(port: u16, limit: Duration) -> bool {
    matches!(timeout(limit, get(port, "/healthz")).await, Ok(Some(_)))
}

/// `None` when a connection or an exchange failed.
async fn ask(port: u16) -> Option<Health> {
    let startup = get(port, "/startupz").await?;
    if let Answer::Json(status, body) = &startup
        && !status.is_success()
    {
        return Some(not_started(body));
    }
    if let Answer::Json(status, body) = get(port, "/readyz").await? {
        return Some(readiness(status, &body, matches!(startup, Answer::Json(..))));
    }
    if matches!(startup, Answer::Json(..)) {
        return Some(Health::Ready);
    }
    match get(port, "/healthz").await? {
        Answer::Json(status, _) if status.is_success() => Some(Health::Ready),
        Answer::Json(..) | Answer::NoSuchRoute => None,
    }
}

/// Reads an unsuccessful `/startupz`.
fn not_started(body: &Value) -> Health {
    match body.get("status").and_then(Value::as_str) {
        Some("draining") => Health::Draining,
        Some(_) | None => Health::Starting,
    }
}

/// Reads `/readyz`. `started` tells that `/startupz` has already said so.
fn readiness(status: StatusCode, body: &Value, started: bool) -> Health {
    let ready = body.get("ready").and_then(Value::as_bool);
    if ready.unwrap_or(status.is_success()) {
        return Health::Ready;
    }
    let list = body.get("failing").and_then(Value::as_array);
    let names = list.into_iter().flatten().filter_map(Value::as_str);
    let failing: Vec<String> = names.take(FAILING_MAX).map(str::to_owned).collect();
    if failing.iter().any(|name| name == "gateway-draining") {
        Health::Draining
    } else if !started
        && (failing.is_empty() || failing.iter().any(|name| name.starts_with("startup")))
    {
        Health::Starting
    } else {
        Health::Degraded { failing }
    }
}

/// One GET on a connection of its own; `None` when the exchange failed.
async fn get(port: u16, path: &str) -> Option<Answer> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .ok()?;
    let exchange = async {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.ok()?;
        Some((status, body.to_bytes()))
    };
    // The connection is driven here and dropped with the exchange: no task outlives a probe.
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    let (status, body) = tokio::select! {
        answer = &mut exchange => answer?,
        _ = &mut connection => exchange.await?,
    };
    Some(match serde_json::from_slice::<Value>(&body) {
        // Anything but these two is no probe's answer: an access check, say, or a web page.
        Ok(value)
            if value.is_object()
                && (status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE) =>
        {
            Answer::Json(status, value)
        }
        Ok(_) | Err(_) => Answer::NoSuchRoute,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A gateway that answers each route with a fixed status and body, for `requests` requests.
    async fn probe_of(routes: &[(&str, u16, &str)]) -> Health {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let table: HashMap<String, (u16, String)> = routes
            .iter()
            .map(|(path, status, body)| ((*path).to_owned(), (*status, (*body).to_owned())))
            .collect();
        let server = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let len = stream.read(&mut head).await.unwrap();
                let text = String::from_utf8_lossy(&head[..len]).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                let (status, body) = table.get(&path).cloned().unwrap_or((404, "Not Found".into()));
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                // A probe may hang up on an answer that is too large.
                stream.write_all(answer.as_bytes()).await.ok();
            }
        };
        tokio::select! {
            health = probe(port, Duration::from_secs(5)) => health,
            () = server => Health::Down,
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_the_routes_mean() {
        let started = ("/startupz", 200, r#"{"ok":true,"status":"started"}"#);
        let ready = ("/readyz", 200, r#"{"ready":true,"failing":[]}"#);
        let page = ("/startupz", 200, "<!doctype html>");
        let broken = ("/readyz", 503, r#"{"ready":false,"failing":["telegram"]}"#);
        let live = ("/healthz", 200, r#"{"ok":true}"#);
        let huge = "x".repeat(ANSWER_BYTES_MAX + 1);
        let degraded = Health::Degraded { failing: vec!["telegram".into()] };
        type Row<'a> = (&'a [(&'a str, u16, &'a str)], Health);
        let table: &[Row<'_>] = &[
            (&[started, ready], Health::Ready),
            (&[started, broken], degraded.clone()),
            (&[started], Health::Ready),
            (&[("/startupz", 503, r#"{"status":"starting"}"#), ready], Health::Starting),
            (&[("/startupz", 503, r#"{"status":"draining"}"#), ready], Health::Draining),
            (&[ready], Health::Ready),
            (&[page, ready], Health::Ready),
            (&[broken], degraded),
            (
                &[("/readyz", 503, r#"{"ready":false,"failing":["startup-sidecars"]}"#)],
                Health::Starting,
            ),
            (
                &[("/readyz", 503, r#"{"ready":false,"failing":["gateway-draining"]}"#)],
                Health::Draining,
            ),
            (&[live], Health::Ready),
            (&[], Health::Down),
            (&[("/startupz", 200, &huge), live], Health::Down),
        ];
        for (routes, want) in table {
            assert_eq!(probe_of(routes).await, *want, "{:?}", routes.first().map(|route| route.0));
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_silent_or_missing_gateway_is_down_in_time() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(probe(port, Duration::from_millis(50)).await, Health::Down);
        drop(listener);
        assert_eq!(probe(port, Duration::from_millis(500)).await, Health::Down);
    }
}
