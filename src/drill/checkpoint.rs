//! Reading checkpoint files as an outsider: by their published name and format.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::{DrillError, Result};

/// Longest checkpoint the rig reads.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// File name of a session's checkpoint: every byte outside `[A-Za-z0-9._-]` percent-encoded.
///
/// The rig's keys are short, so the form for names over 200 bytes does not come up.
#[must_use]
pub fn file_name(session_key: &str) -> String {
    let mut name = String::new();
    for (index, byte) in session_key.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if plain || (byte == b'.' && index > 0) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    name + ".json"
}

/// Path of a session's checkpoint in a state directory.
#[must_use]
pub fn path(state: &Path, session_key: &str) -> PathBuf {
    state.join("sessions/checkpoints").join(file_name(session_key))
}

/// Reads a checkpoint; `None` when there is none.
///
/// # Errors
/// When it is no JSON object, or cannot be read.
pub fn read(path: &Path) -> Result<Option<Value>> {
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DrillError::io("read", path)(error)),
    };
    let bad = |why: String| DrillError::io("parse", path)(std::io::Error::other(why));
    if size > FILE_BYTES_MAX {
        return Err(bad(format!("{size} bytes are too many for a checkpoint")));
    }
    let bytes = std::fs::read(path).map_err(DrillError::io("read", path))?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
    if value.is_object() { Ok(Some(value)) } else { Err(bad("not a JSON object".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_as_published() {
        assert_eq!(file_name("agent:main:main"), "agent%3Amain%3Amain.json");
        assert_eq!(file_name(".a/ä.b"), "%2Ea%2F%C3%A4.b.json");
    }
}
