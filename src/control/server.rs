//! The server side: connections, peer check, framing. What a request means is decided elsewhere.

use std::os::unix::net::UnixListener as StdListener;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::core::limits::{CONTROL_CONNECTIONS_MAX, CONTROL_HELLO_MS_MAX};

use super::framing::{Line, next_line};
use super::protocol::{ErrorCode, Frame, Hello, Request, Role, VERSION, error_reply, parse};

/// Frames that may wait for the loop, all connections together.
const INCOMING_FRAMES_MAX: usize = 256;
/// Lines that may wait for one slow reader before it is given up.
const OUTGOING_LINES_MAX: usize = 1_024;

/// A connection's number, never used twice.
pub type ConnectionId = u64;

/// What comes in.
#[derive(Debug)]
pub enum Incoming {
    /// A peer greeted.
    Hello {
        /// The connection.
        peer: Peer,
        /// The id of the greeting.
        id: String,
        /// What it said.
        hello: Hello,
    },
    /// A peer asks.
    Request {
        /// The connection.
        peer: Peer,
        /// The request's id; missing for an event.
        id: Option<String>,
        /// What it asks.
        request: Box<Request>,
    },
    /// A peer answers a request of ours.
    Reply {
        /// The connection.
        connection: ConnectionId,
        /// The id that we gave.
        id: String,
    },
    /// A peer has gone.
    Closed {
        /// The connection.
        connection: ConnectionId,
    },
}

/// A connection that can be written to.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its number.
    pub connection: ConnectionId,
    /// The process at the other end.
    pub pid: Option<i32>,
    /// Who it said it is.
    pub role: Role,
    lines: mpsc::Sender<String>,
}

impl Peer {
    /// Queues one line. A reader that does not read is given up: its lines are dropped.
    pub fn send(&self, line: String) {
        let _ = self.lines.try_send(line);
    }

    /// Refuses what was asked; the writer closes once the peer has been told.
    pub fn refuse(&self, id: Option<&str>, code: ErrorCode, message: &str) {
        self.send(error_reply(id, code, message));
    }
}

/// Accepts connections from now on. Must be called inside a `LocalSet`.
///
/// # Errors
/// When the listener cannot be registered.
pub fn serve(listener: StdListener) -> std::io::Result<mpsc::Receiver<Incoming>> {
    let listener = UnixListener::from_std(listener)?;
    let (incoming, receiver) = mpsc::channel(INCOMING_FRAMES_MAX);
    spawn_local(accept(listener, incoming));
    Ok(receiver)
}

async fn accept(listener: UnixListener, incoming: mpsc::Sender<Incoming>) {
    let open = std::rc::Rc::new(());
    let mut next: ConnectionId = 0;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: give the others time to go.
                tracing::warn!(%error, "control socket: cannot accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        if std::rc::Rc::strong_count(&open) > CONTROL_CONNECTIONS_MAX {
            let message = format!("{CONTROL_CONNECTIONS_MAX} connections are open; try again");
            // The first line on a new connection always fits.
            let _ = stream.try_write(error_reply(None, ErrorCode::Full, &message).as_bytes());
            continue;
        }
        next += 1;
        let guard = std::rc::Rc::clone(&open);
        let incoming = incoming.clone();
        let connection = next;
        spawn_local(async move {
            let greeted = serve_one(stream, connection, &incoming).await;
            if greeted {
                let _ = incoming.send(Incoming::Closed { connection }).await;
            }
            drop(guard);
        });
    }
}

/// Serves one connection to its end. Returns whether it ever greeted.
async fn serve_one(
    stream: UnixStream,
    connection: ConnectionId,
    incoming: &mpsc::Sender<Incoming>,
) -> bool {
    let Ok(credentials) = stream.peer_cred() else { return false };
    let (read, write) = stream.into_split();
    let (lines, outgoing) = mpsc::channel(OUTGOING_LINES_MAX);
    spawn_local(write_lines(write, outgoing));
    if credentials.uid() != nix::unistd::geteuid().as_raw() {
        let _ =
            lines.try_send(error_reply(None, ErrorCode::Refused, "this socket is another user's"));
        return false;
    }
    let mut reader = BufReader::new(read);
    let mut peer = Peer { connection, pid: credentials.pid(), role: Role::Cli, lines };
    let patience = Duration::from_millis(CONTROL_HELLO_MS_MAX);
    let Ok(Some((id, hello))) = timeout(patience, greet(&mut reader, &peer)).await else {
        return false;
    };
    peer.role = hello.role;
    if incoming.send(Incoming::Hello { peer: peer.clone(), id, hello }).await.is_err() {
        return false;
    }
    pump(&mut reader, &peer, incoming).await;
    true
}

async fn greet(reader: &mut BufReader<OwnedReadHalf>, peer: &Peer) -> Option<(String, Hello)> {
    let (id, request) = match next_frame(reader, peer).await? {
        Frame::Request { id, request } => (id, request),
        Frame::Reply { .. } => (None, Err((ErrorCode::HelloFirst, "hello comes first".to_owned()))),
    };
    match request.map(|request| *request) {
        Ok(Request::Hello(hello)) if hello.v == VERSION => Some((id.unwrap_or_default(), hello)),
        Ok(Request::Hello(hello)) => {
            let message = format!("protocol {} is not spoken here; this is {VERSION}", hello.v);
            peer.refuse(id.as_deref(), ErrorCode::UnsupportedVersion, &message);
            None
        }
        Ok(_) => {
            peer.refuse(id.as_deref(), ErrorCode::HelloFirst, "hello comes first");
            None
        }
        Err((code, message)) => {
            peer.refuse(id.as_deref(), code, &message);
            None
        }
    }
}

async fn pump(
    reader: &mut BufReader<OwnedReadHalf>,
    peer: &Peer,
    incoming: &mpsc::Sender<Incoming>,
) {
    while let Some(frame) = next_frame(reader, peer).await {
        let message = match frame {
            Frame::Reply { id, result: _ } => Incoming::Reply { connection: peer.connection, id },
            Frame::Request { id, request: Ok(request) } => {
                Incoming::Request { peer: peer.clone(), id, request }
            }
            Frame::Request { id, request: Err((code, message)) } => {
                peer.refuse(id.as_deref(), code, &message);
                continue;
            }
        };
        if incoming.send(message).await.is_err() {
            return;
        }
    }
}

/// The next frame; `None` when the connection is over, told or untold.
async fn next_frame(reader: &mut BufReader<OwnedReadHalf>, peer: &Peer) -> Option<Frame> {
    match next_line(reader).await {
        Ok(Line::Whole(line)) => match parse(&line) {
            Ok(frame) => Some(frame),
            Err((code, message)) => {
                peer.refuse(None, code, &message);
                None
            }
        },
        Ok(Line::TooLong) => {
            peer.refuse(None, ErrorCode::TooLong, "a line is at most 1 MiB");
            None
        }
        Ok(Line::End) | Err(_) => None,
    }
}

async fn write_lines(mut write: OwnedWriteHalf, mut lines: mpsc::Receiver<String>) {
    while let Some(line) = lines.recv().await {
        if write.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}
