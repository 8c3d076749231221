//! The client side for the command line: one connection, one question, one answer.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

use super::protocol::{ErrorCode, VERSION};

/// How long a running supervisor may take to answer what it knows by itself.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer read, in bytes: a list of every session fits.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No supervisor runs for this state directory.
    #[error("no running tideover answers on {}", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// It answered with an error.
    #[error("{message}")]
    Answer {
        /// The protocol's code.
        code: Option<ErrorCode>,
        /// In words.
        message: String,
    },
    /// The connection broke or timed out.
    #[error("talking to {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It answered something that is no answer.
    #[error("{} answered something that is not protocol {VERSION}", path.display())]
    Garbled {
        /// The socket.
        path: PathBuf,
    },
}

/// Asks the supervisor on `path` one thing; its answer may take `patience`. `request` holds `type` and fields; ids
/// are added here.
///
/// # Errors
/// When nobody answers, or the answer is an error.
pub fn ask(path: &Path, mut request: Value, patience: Duration) -> Result<Value, ClientError> {
    let io = |source| ClientError::Io { path: path.to_owned(), source };
    let mut stream =
        UnixStream::connect(path).map_err(|_| ClientError::NotRunning { path: path.to_owned() })?;
    stream.set_read_timeout(Some(patience)).map_err(io)?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(io)?;
    request["id"] = json!("ask");
    let hello = json!({ "id": "hello", "type": "hello", "v": VERSION, "role": "cli" });
    // Whoever refuses us may have closed already; its answer can be read all the same.
    let written = stream.write_all(format!("{hello}\n{request}\n").as_bytes());
    let mut reader = BufReader::new(stream).take(ANSWER_BYTES_MAX);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).map_err(io)? == 0 {
            written.map_err(io)?;
            return Err(ClientError::Garbled { path: path.to_owned() });
        }
        let answer: Value = serde_json::from_str(&line)
            .map_err(|_| ClientError::Garbled { path: path.to_owned() })?;
        let ok = answer.get("ok") == Some(&Value::Bool(true));
        match answer.get("id").and_then(Value::as_str) {
            Some("hello") if ok => {}
            Some("ask") if ok => return Ok(answer.get("result").cloned().unwrap_or_default()),
            Some(_) | None => return Err(error_of(&answer)),
        }
    }
}

fn error_of(answer: &Value) -> ClientError {
    let error = answer.get("error");
    let message = error.and_then(|error| error.get("message")).and_then(Value::as_str);
    let code = error
        .and_then(|error| error.get("code"))
        .cloned()
        .and_then(|code| serde_json::from_value(code).ok());
    ClientError::Answer { code, message: message.unwrap_or("refused without a reason").to_owned() }
}
