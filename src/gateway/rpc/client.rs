//! The connection: handshake, retry while the gateway starts, one call at a time.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::error::RpcError;
use super::frame::{Frame, connect_params, one_line, parse, request};
use super::secret::Credentials;

/// Largest message taken from a gateway, in bytes; a hello of 2026.9.6 has some 100 KiB.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest single frame of a message, in bytes.
const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest request sent, in bytes.
const REQUEST_BYTES_MAX: usize = 512 * 1024;
/// Read and write buffers, in bytes; the write buffer's bound leaves room for one request.
const READ_BUFFER_BYTES: usize = 16 * 1024;
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
const WRITE_BUFFER_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;
/// Longest wait for one attempt at a handshake. A busy machine has taken seconds for it.
const HANDSHAKE_TIMEOUT_MS: u64 = 20_000;
/// Pause between attempts where the gateway names none, and the bounds of a pause that it names.
const RETRY_MS: u64 = 250;
const RETRY_MS_MIN: u64 = 50;
const RETRY_MS_MAX: u64 = 5_000;
/// Most method names kept of a hello (2026.5.5 has 155).
const METHODS_MAX: usize = 4_096;

/// The event that a gateway opens a connection with.
const CHALLENGE_EVENT: &str = "connect.challenge";

/// How to reach a gateway.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// How to prove oneself.
    pub credentials: Credentials,
    /// How long to go on trying while it is down or starting.
    pub patience: Duration,
}

/// What the gateway said of itself when the connection was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// The protocol it chose.
    pub protocol: u64,
    /// Its version, for display only.
    pub server_version: Option<String>,
    /// The identity of this boot, where it gives one (2026.9.6 does).
    pub boot_id: Option<String>,
    /// The methods it offers.
    methods: Vec<String>,
}

impl Hello {
    /// Whether the gateway offers `method`. True as well when it does not list its methods.
    pub fn offers(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|name| name == method)
    }

    fn read(payload: &Value) -> Self {
        let text = |pointer: &str| payload.pointer(pointer)?.as_str().map(one_line);
        let methods = payload.pointer("/features/methods").and_then(Value::as_array);
        Self {
            protocol: payload.get("protocol").and_then(Value::as_u64).unwrap_or_default(),
            server_version: text("/server/version"),
            boot_id: text("/server/bootId"),
            methods: methods
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .take(METHODS_MAX)
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// A connection on which the handshake is done. Calls go one at a time.
#[derive(Debug)]
pub struct Client {
    stream: WebSocketStream<TcpStream>,
    hello: Hello,
    requests: u64,
}

/// What one attempt at a connection ended with.
enum Attempt {
    /// Worth another attempt after a pause.
    Again { pause_ms: u64, reason: String },
    /// No attempt will change it.
    Never(Box<RpcError>),
}

impl Client {
    /// Connects, and tries again while the gateway is down, starting or draining, until
    /// `options.patience` is over. A wrong token or a foreign protocol fails at once.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, RpcError> {
        let deadline = Instant::now() + options.patience;
        loop {
            let reason = match Self::attempt(options, deadline).await {
                Ok(client) => return Ok(client),
                Err(Attempt::Never(error)) => return Err(*error),
                Err(Attempt::Again { pause_ms, reason }) => {
                    let pause = Duration::from_millis(pause_ms.clamp(RETRY_MS_MIN, RETRY_MS_MAX));
                    if Instant::now() + pause < deadline {
                        sleep(pause).await;
                        continue;
                    }
                    reason
                }
            };
            return Err(RpcError::Unreachable { port: options.port, reason });
        }
    }

    /// What the gateway said of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Calls `method` and waits for its answer. After a timeout the connection can be used
    /// further; a late answer is dropped.
    ///
    /// `agent` answers twice under one id, first `accepted` and then its result (2026.5.5): the
    /// second answer is the one returned.
    pub async fn call(
        &mut self,
        method: &str,
        params: &Value,
        timeout: Duration,
    ) -> Result<Value, RpcError> {
        self.call_telling(method, params, timeout, || {}).await
    }

    /// The same; `interim` is called when the answer that only announces another has come.
    pub(super) async fn call_telling(
        &mut self,
        method: &str,
        params: &Value,
        timeout: Duration,
        interim: impl FnMut(),
    ) -> Result<Value, RpcError> {
        self.requests += 1;
        let id = self.requests.to_string();
        let text = request(&id, method, params);
        if text.len() > REQUEST_BYTES_MAX {
            return Err(RpcError::RequestTooLarge {
                method: method.to_owned(),
                bytes: text.len(),
                bytes_max: REQUEST_BYTES_MAX,
            });
        }
        let deadline = Instant::now() + timeout;
        let mut written = false;
        let exchange = async {
            // A refused write is certain not to have left; a broken flush is not.
            self.stream
                .feed(Message::text(text))
                .await
                .map_err(|error| lost(method, &error, false))?;
            written = true;
            self.stream.flush().await.map_err(|error| lost(method, &error, true))?;
            self.answer(&id, method, interim).await
        };
        match timeout_at(deadline, exchange).await {
            Ok(result) => result,
            Err(_) if written => Err(RpcError::Timeout {
                method: method.to_owned(),
                timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            }),
            Err(_) => Err(RpcError::Lost {
                method: method.to_owned(),
                reason: "the gateway does not read".to_owned(),
                written: false,
            }),
        }
    }

    /// Says goodbye. Errors are of no interest: the connection is gone either way.
    pub async fn close(mut self, timeout: Duration) {
        timeout_at(Instant::now() + timeout, self.stream.close(None)).await.ok();
    }

    async fn attempt(options: &ConnectOptions, deadline: Instant) -> Result<Self, Attempt> {
        let again = |reason: String| Attempt::Again { pause_ms: RETRY_MS, reason };
        let limit = deadline.min(Instant::now() + Duration::from_millis(HANDSHAKE_TIMEOUT_MS));
        let handshake = async {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, options.port))
                .await
                .map_err(|error| again(error.to_string()))?;
            let url = format!("ws://127.0.0.1:{}/", options.port);
            let (stream, _) =
                tokio_tungstenite::client_async_with_config(url, stream, Some(limits()))
                    .await
                    .map_err(|error| again(one_line(&error.to_string())))?;
            let mut client = Self { stream, hello: Hello::default(), requests: 0 };
            client.introduce(options).await?;
            Ok(client)
        };
        timeout_at(limit, handshake)
            .await
            .unwrap_or_else(|_| Err(again("no answer to the handshake".to_owned())))
    }

    /// Waits for the challenge and answers it. Without device keys its nonce is not needed.
    async fn introduce(&mut self, options: &ConnectOptions) -> Result<(), Attempt> {
        let again =
            |error: RpcError| Attempt::Again { pause_ms: RETRY_MS, reason: error.to_string() };
        loop {
            match self.next_frame("connect").await.map_err(again)? {
                Frame::Event { name } if name == CHALLENGE_EVENT => break,
                Frame::Event { .. } | Frame::Response { .. } | Frame::Other => {}
            }
        }
        let params = connect_params(&options.credentials);
        let limit = Duration::from_millis(HANDSHAKE_TIMEOUT_MS);
        match self.call("connect", &params, limit).await {
            Ok(payload) => {
                self.hello = Hello::read(&payload);
                Ok(())
            }
            Err(RpcError::Answered { error, .. }) if error.is_passing() || error.retryable => {
                let pause_ms = error.retry_after_ms.unwrap_or(RETRY_MS);
                Err(Attempt::Again { pause_ms, reason: error.to_string() })
            }
            Err(RpcError::Answered { error, .. }) => {
                Err(Attempt::Never(Box::new(RpcError::Refused { port: options.port, error })))
            }
            Err(error) => Err(again(error)),
        }
    }

    async fn answer(
        &mut self,
        id: &str,
        method: &str,
        mut interim: impl FnMut(),
    ) -> Result<Value, RpcError> {
        loop {
            let Frame::Response { id: of, result } = self.next_frame(method).await? else {
                continue;
            };
            if of != id {
                continue;
            }
            match result {
                Ok(payload) if is_interim(method, &payload) => interim(),
                Ok(payload) => return Ok(payload),
                Err(error) => {
                    return Err(RpcError::Answered { method: method.to_owned(), error });
                }
            }
        }
    }

    async fn next_frame(&mut self, method: &str) -> Result<Frame, RpcError> {
        loop {
            let reason = match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    return parse(&text).ok_or(RpcError::Unreadable {
                        method: method.to_owned(),
                        reason: "it is not a JSON object",
                    });
                }
                Some(Ok(Message::Close(close))) => close.map_or_else(
                    || "it was closed".to_owned(),
                    |close| one_line(&format!("it was closed: {} {}", close.code, close.reason)),
                ),
                // Pings are answered by the library; the gateway sends no binary messages.
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(lost(method, &error, true)),
                None => "it was closed".to_owned(),
            };
            return Err(RpcError::Lost { method: method.to_owned(), reason, written: true });
        }
    }
}

/// Whether an answer only announces another under the same id.
fn is_interim(method: &str, payload: &Value) -> bool {
    method == "agent" && payload.get("status").and_then(Value::as_str) == Some("accepted")
}

fn lost(method: &str, error: &WsError, written: bool) -> RpcError {
    RpcError::Lost { method: method.to_owned(), reason: one_line(&error.to_string()), written }
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
}
