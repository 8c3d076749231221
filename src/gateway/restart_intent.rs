//! The restart intent of 2026.5.5: `openclaw gateway restart` names the service's main process in a file, so
//! that the SIGTERM that follows is taken for a restart, with a drain. Behind tideover the main process is
//! tideover; the gateway believes only its own pid and would stop without draining.
//!
//! 2026.9.6 keeps its intent in its database, under the gateway's own pid.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use serde_json::Value;

use super::durable::FileError;

/// The file's name in the state directory.
const NAME: &str = "gateway-restart-intent.json";
/// Largest intent that is read, in bytes. A real one is below 200.
const BYTES_MAX: u64 = 4 * 1024;

/// Hands an intent that names `supervisor` over to `gateway`; whether there was one.
///
/// Not made durable: it is worth nothing after a crash, and a SIGTERM waits for it.
///
/// # Errors
/// When the file is there and cannot be read or replaced; then the gateway stops without its drain.
pub fn hand_over(state_dir: &Path, supervisor: u32, gateway: u32) -> Result<bool, FileError> {
    let path = state_dir.join(NAME);
    let Some(text) = read(&path).map_err(|source| FileError::new("read", &path, source))? else {
        return Ok(false);
    };
    let Ok(Value::Object(mut intent)) = serde_json::from_slice(&text) else { return Ok(false) };
    let names_us = intent.get("pid").and_then(Value::as_u64) == Some(u64::from(supervisor));
    if intent.get("kind").and_then(Value::as_str) != Some("gateway-restart") || !names_us {
        return Ok(false);
    }
    intent.insert("pid".to_owned(), gateway.into());
    let replaced = replace(&path, &Value::Object(intent).to_string());
    replaced.map(|()| true).map_err(|source| FileError::new("replace", &path, source))
}

/// The file's bytes; `None` where there is none of our own.
fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = file.metadata()?;
    if !found.is_file() || found.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("tideover-{}", std::process::id()));
    // Left by a power cut under the same pid.
    let _ = fs::remove_file(&temporary);
    let mut file: File =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_intent_that_names_the_supervisor_changes_hands() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        assert!(!hand_over(dir.path(), 10, 20).unwrap(), "none there");
        let ours = r#"{"kind":"gateway-restart","pid":10,"createdAt":1795381766910,"waitMs":5}"#;
        for (text, handed) in [
            (ours, true),
            (r#"{"kind":"gateway-restart","pid":11,"createdAt":1}"#, false),
            (r#"{"kind":"other","pid":10}"#, false),
            ("[10]", false),
            ("{ half", false),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(hand_over(dir.path(), 10, 20).unwrap(), handed, "{text}");
            let after = fs::read_to_string(&path).unwrap();
            let expected = if handed { text.replace(":10,", ":20,") } else { text.to_owned() };
            assert_eq!(after, expected);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing left beside it");
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        let text = r#"{"kind":"gateway-restart","pid":10}"#;
        fs::write(&elsewhere, text).unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.path().join(NAME)).unwrap();
        assert!(hand_over(dir.path(), 10, 20).is_err());
        assert_eq!(fs::read_to_string(elsewhere).unwrap(), text);
    }
}
