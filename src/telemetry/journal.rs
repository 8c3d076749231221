//! The journal's native protocol: fields in one datagram to a socket (systemd.io/JOURNAL_NATIVE_PROTOCOL).
//!
//! Why not the `tracing-journald` crate: it sends from inside the event, in the caller's thread, on a blocking
//! socket that cannot be reached from outside, and an event cannot be kept and played again in another thread.
//! What is left of the protocol, with bounded records, is this file.

use std::io::{Error, ErrorKind, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::sys::stat::fstat;
use tracing::Level;

use super::record::Record;

const SOCKET: &str = "/run/systemd/journal/socket";
/// journald ignores fields with longer names.
const NAME_BYTES_MAX: usize = 64;

/// The way to journald.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// The journal, if this process's stderr goes there already. Where stderr was sent elsewhere, so is the log.
    pub(super) fn of_stderr() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let found = fstat(std::io::stderr()).ok()?;
        (stream == format!("{}:{}", found.st_dev, found.st_ino)).then_some(())?;
        Self::to(Path::new(SOCKET)).ok()
    }

    /// A journal that listens at `path`, now or later: each record finds its own way there.
    pub(super) fn to(path: &Path) -> std::io::Result<Self> {
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned() })
    }

    /// Sends one record. Waits while journald does not read.
    pub(super) fn send(&self, record: &Record) -> std::io::Result<()> {
        let datagram = encode(record);
        match self.socket.send_to(&datagram, &self.path) {
            Ok(length) if length == datagram.len() => Ok(()),
            Ok(_) => Err(Error::from(ErrorKind::WriteZero)),
            Err(error) => Err(error),
        }
    }
}

/// A record as journald reads it. Records are bounded, so that one datagram always holds them.
fn encode(record: &Record) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(1_024);
    put(&mut datagram, "MESSAGE", &record.message());
    put(&mut datagram, "PRIORITY", priority(record.level));
    put(&mut datagram, "SYSLOG_IDENTIFIER", "tideover");
    put(&mut datagram, "TIDEOVER_TARGET", record.target);
    if let Some(kind) = record.kind {
        put(&mut datagram, "MESSAGE_ID", kind.id);
        put(&mut datagram, "TIDEOVER_EVENT", kind.name);
        put(&mut datagram, "TIDEOVER_HINT", kind.hint);
    }
    for field in &record.fields {
        put(&mut datagram, &journal_name(field.name), &field.value);
    }
    datagram
}

fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        // The only form in which a value may hold a newline: its length in front.
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    // Writing to a Vec cannot fail.
    let _ = datagram.write_all(value.as_bytes());
    datagram.push(b'\n');
}

/// A field's name in the journal: one prefix for all of ours, so that none passes for one of journald's.
pub(super) fn journal_name(name: &str) -> String {
    let plain =
        |char: char| if char.is_ascii_alphanumeric() { char.to_ascii_uppercase() } else { '_' };
    let mut long = String::from("TIDEOVER_");
    long.extend(name.chars().map(plain));
    long.truncate(NAME_BYTES_MAX);
    long
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::record::Field;

    /// Reads a datagram the way journald does.
    fn decode(mut rest: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| b"=\n".contains(byte)).unwrap();
            let (name, after) = (text(&rest[..end]), &rest[end + 1..]);
            let (start, length) = if rest[end] == b'=' {
                (0, after.iter().position(|byte| *byte == b'\n').unwrap())
            } else {
                let length = u64::from_le_bytes(after[..8].try_into().unwrap());
                (8, usize::try_from(length).unwrap())
            };
            fields.push((name, after[start..start + length].to_vec()));
            assert_eq!(after[start + length], b'\n');
            rest = &after[start + length + 1..];
        }
        fields
    }

    fn value_of(value: &str) -> Vec<u8> {
        let mut record = Record::of_lost(1);
        record.fields.push(Field::text("value", value));
        let fields = decode(&encode(&record));
        let found: Vec<_> = fields.iter().filter(|(name, _)| name == "TIDEOVER_VALUE").collect();
        assert_eq!(found.len(), 1, "{fields:?}");
        found[0].1.clone()
    }

    #[test]
    fn a_value_may_hold_anything() {
        for value in ["", "plain", "a=b", "\n", "two\nlines\nMESSAGE=forged", "\0\u{1}\u{7f}", "ü…"]
        {
            assert_eq!(value_of(value), value.as_bytes(), "{value:?}");
        }
    }

    #[test]
    fn the_largest_record_fits_one_datagram() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let mut record = Record::of_lost(1);
        // No event has more fields: that is the limit of `tracing`'s macros.
        record.fields = (0..32).map(|_| Field::text("value", &"x\n".repeat(40_000))).collect();
        Journal::to(&path).unwrap().send(&record).unwrap();
        let mut buffer = vec![0; 300_000];
        let length = journald.recv(&mut buffer).unwrap();
        assert!(length < 100_000, "{length}");
        assert_eq!(
            decode(&buffer[..length]).iter().filter(|(name, _)| name == "TIDEOVER_VALUE").count(),
            32
        );
    }

    #[test]
    fn names_are_ours_and_short_enough() {
        for (name, expected) in [
            ("session_hash", "TIDEOVER_SESSION_HASH"),
            ("user.id", "TIDEOVER_USER_ID"),
            ("_pid", "TIDEOVER__PID"),
            ("priority", "TIDEOVER_PRIORITY"),
        ] {
            assert_eq!(journal_name(name), expected);
        }
        assert_eq!(journal_name(&"n".repeat(100)).len(), NAME_BYTES_MAX);
    }

    #[test]
    fn an_absent_journald_is_an_error_and_no_wait() {
        let home = tempfile::tempdir().unwrap();
        let nobody = home.path().join("nobody");
        assert!(Journal::to(&nobody).unwrap().send(&Record::of_lost(1)).is_err());
        drop(UnixDatagram::bind(&nobody).unwrap());
        assert!(Journal::to(&nobody).unwrap().send(&Record::of_lost(1)).is_err());
    }
}
