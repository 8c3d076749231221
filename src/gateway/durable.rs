//! Replacing a file so that a crash leaves either the old or the new content, whole.
//!
//! The store has its own writer, made for many small records; this one is for the few files that
//! an installation touches, and keeps their mode and owner.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// A file operation that failed, with the file and what was being done to it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}: {source}", path = path.display())]
pub struct FileError {
    /// What was being done: `read`, `write`, `replace`, `create`, `remove`.
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The operating system's reason.
    #[source]
    pub source: io::Error,
}

impl FileError {
    pub(super) fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_owned(), source }
    }
}

/// Replaces or creates `path`. An existing file keeps its mode and owner; a new one gets `mode`
/// and the owner of its directory. Durable when it returns.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let fail = |source| FileError::new("replace", path, source);
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(fail(io::Error::from(ErrorKind::InvalidInput)));
    };
    let old = fs::symlink_metadata(path).ok();
    let owner = match &old {
        Some(old) => (old.uid(), old.gid()),
        None => fs::metadata(dir).map(|dir| (dir.uid(), dir.gid())).map_err(fail)?,
    };
    let mode = old.map_or(mode, |old| old.permissions().mode() & 0o7777);
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".tideover-{}", std::process::id()));
    let temporary = dir.join(temporary_name);
    let written = write_whole(&temporary, bytes, mode, owner)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_dir(dir));
    if written.is_err() {
        fs::remove_file(&temporary).ok();
    }
    written.map_err(fail)
}

/// Removes a file, durably; a missing one is no error.
pub(super) fn remove(path: &Path) -> Result<(), FileError> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(()) => path.parent().map_or(Ok(()), sync_dir),
        Err(error) => Err(error),
    };
    removed.map_err(|source| FileError::new("remove", path, source))
}

/// Creates a directory of mode 0700 with its missing parents, each with the owner of the one above.
pub(super) fn create_private_dir(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    let fail = |source| FileError::new("create", path, source);
    if let Some(parent) = path.parent() {
        create_private_dir(parent)?;
        fs::DirBuilder::new().mode(0o700).create(path).map_err(fail)?;
        let above = fs::metadata(parent).map_err(fail)?;
        give_to(path, (above.uid(), above.gid())).map_err(fail)?;
        return sync_dir(parent).map_err(fail);
    }
    Err(fail(io::Error::from(ErrorKind::NotFound)))
}

fn write_whole(path: &Path, bytes: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<()> {
    // A leftover of a killed run under a recycled pid.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    give_to(path, owner)?;
    // After the change of owner, which may clear bits; and past the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Changes the owner only where it differs, so that an ordinary user needs no right to do so.
fn give_to(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    let now = fs::symlink_metadata(path)?;
    if (now.uid(), now.gid()) == (uid, gid) {
        return Ok(());
    }
    chown(path, Some(uid), Some(gid))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_is_kept_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        replace(&path, b"one", 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        let error = replace(&dir.path().join("none/x"), b"", 0o600).unwrap_err().to_string();
        assert!(error.contains("cannot replace") && error.contains("none/x"), "{error}");
    }
}
