//! Files before and after: the unit of every change, made and taken back the same way.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::durable::{self, FileError};

/// Largest file that is read, in bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// A file as it is at one moment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_debug_implementations, reason = "a unit can hold a token")]
pub struct Content {
    /// Its text.
    pub text: String,
    /// Its permissions.
    pub mode: u32,
}

/// One file to be written or removed.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "a unit can hold a token")]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// As it was found; `None` when there is none.
    pub before: Option<Content>,
    /// As it is to be.
    pub after: Option<Content>,
}

impl Change {
    /// Makes it.
    pub fn make(&self) -> Result<(), FileError> {
        put(&self.path, self.after.as_ref())
    }

    /// Takes it back.
    pub fn take_back(&self) -> Result<(), FileError> {
        put(&self.path, self.before.as_ref())
    }
}

/// The file as it is; `None` when there is none. Text only: all files here are.
pub fn read(path: &Path) -> Result<Option<Content>, FileError> {
    let fail = |source| FileError::new("read", path, source);
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if !metadata.is_file() {
        return Err(fail(std::io::Error::other("it is not a regular file")));
    }
    if metadata.len() > BYTES_MAX {
        return Err(fail(std::io::Error::other("it is too large")));
    }
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text))
        .map_err(fail)?;
    Ok(Some(Content { text, mode: metadata.permissions().mode() & 0o7777 }))
}

/// Makes a file so; durable when it returns.
fn put(path: &Path, content: Option<&Content>) -> Result<(), FileError> {
    let Some(content) = content else {
        return durable::remove(path);
    };
    if let Some(parent) = path.parent() {
        durable::create_private_dir(parent)?;
    }
    durable::replace(path, content.text.as_bytes(), content.mode)?;
    fs::set_permissions(path, Permissions::from_mode(content.mode))
        .map_err(|source| FileError::new("replace", path, source))
}

/// Removes directories that are empty; others stay.
pub(super) fn remove_empty(dirs: &[PathBuf]) {
    for dir in dirs {
        fs::remove_dir(dir).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_and_taken_back_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/a");
        let content = |text: &str, mode| Some(Content { text: text.to_owned(), mode });
        let first = Change { path: path.clone(), before: None, after: content("one", 0o644) };
        first.make().unwrap();
        assert!(read(&path).unwrap() == first.after);
        let second = Change {
            path: path.clone(),
            before: first.after.clone(),
            after: content("two", 0o600),
        };
        second.make().unwrap();
        assert!(read(&path).unwrap() == second.after);
        second.take_back().unwrap();
        assert!(read(&path).unwrap() == first.after);
        first.take_back().unwrap();
        assert!(read(&path).unwrap().is_none());
        remove_empty(&[dir.path().join("new"), dir.path().join("none")]);
        assert!(!dir.path().join("new").exists());
        assert!(read(dir.path()).is_err());
    }
}
