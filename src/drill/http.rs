//! A small loopback HTTP server on a thread of its own, and a GET for health routes.
//!
//! The mocks answer from their own thread, so that a test may block its own (running the CLI, for
//! instance) while the gateway goes on talking to its model and its channel.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::error::{DrillError, Result};

/// Largest body a mock reads; a gateway's model request holds the whole transcript.
pub const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Body of a mock's answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a handler says: an answer, or nothing at all (the connection is dropped).
pub type Answer = Option<Response<Body>>;

/// A handler's future.
pub type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What a mock does with one request whose body was read.
pub type Handler = Arc<dyn Fn(Request<Bytes>) -> Answering + Send + Sync>;

/// A mock server; dropping it ends its thread.
#[derive(Debug)]
pub struct MockServer {
    addr: SocketAddr,
    open: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl MockServer {
    /// Binds a free loopback port and serves on it.
    ///
    /// # Errors
    /// When no port or no thread can be had.
    pub fn start(name: &'static str, handler: Handler) -> Result<Self> {
        let failed = |source| DrillError::Io { operation: "serve", path: name.into(), source };
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let (open, open_rx) = watch::channel(true);
        let (stop, stop_rx) = watch::channel(false);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(serve(listener, addr, handler, open_rx, stop_rx)))
            .map_err(failed)?;
        Ok(Self { addr, open, stop, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes the port (connections are refused, the open ones dropped) or opens it again.
    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // The thread ends with its runtime; a panic in it has been printed already.
            drop(thread.join());
        }
    }
}

async fn serve(
    first: std::net::TcpListener,
    addr: SocketAddr,
    handler: Handler,
    mut open: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let mut listener = TcpListener::from_std(first).ok();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if !*open.borrow_and_update() {
            listener = None;
            connections.abort_all();
        } else if listener.is_none() {
            listener = TcpListener::bind(addr).await.ok();
        }
        tokio::select! {
            _ = stop.wait_for(|stopped| *stopped) => return,
            changed = open.changed() => if changed.is_err() { return },
            stream = accept(listener.as_ref()) => {
                connections.spawn(serve_connection(stream, Arc::clone(&handler)));
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Out of descriptors, or the peer left at once: pause, so that it cannot spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn serve_connection(stream: TcpStream, handler: Handler) {
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = Arc::clone(&handler);
        async move {
            let (parts, body) = request.into_parts();
            let bytes = match Limited::new(body, BODY_BYTES_MAX).collect().await {
                Ok(collected) => collected.to_bytes(),
                Err(error) => return Err(io::Error::other(error.to_string())),
            };
            // An error from a service makes hyper drop the connection without an answer.
            handler(Request::from_parts(parts, bytes))
                .await
                .ok_or_else(|| io::Error::other("dropped on purpose"))
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // A gateway that is killed drops its connections: nothing to report.
    drop(served);
}

/// A whole JSON answer.
#[must_use]
pub fn json(status: u16, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    response
}

/// A body that is known as a whole.
#[must_use]
pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

/// `GET http://127.0.0.1:port/path`: the status code and at most 64 KiB of the body.
///
/// # Errors
/// What went wrong, as text: while a gateway starts, a refused connection is the normal case.
pub async fn get(port: u16, path: &str) -> std::result::Result<(u16, String), String> {
    const ANSWER_BYTES_MAX: usize = 64 * 1024;
    const LIMIT: Duration = Duration::from_secs(5);
    let call = async {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(|e| text(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| text(&e))?;
        let request = Request::get(path)
            .header(hyper::header::HOST, format!("127.0.0.1:{port}"))
            .body(Full::<Bytes>::default())
            .map_err(|e| text(&e))?;
        // The connection is driven beside the answer and dropped with it.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = sender.send_request(request).await.map_err(|e| text(&e))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|e| text(&e))?
            .to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(LIMIT, call).await.map_err(|_| "no answer in 5 s".to_owned())?
}
