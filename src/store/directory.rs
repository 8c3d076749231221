//! One directory of durable files. Only here are files written.

use std::fs::{DirBuilder, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use thiserror::Error;

/// From this many files in one batch a single `syncfs` is cheaper than one `fsync` each (measured).
const SYNCFS_BATCH_MIN: usize = 4;
/// From this many files in one batch what was replaced is left under its temp name, for a sweep later: freeing a
/// file can take a millisecond and more (measured on ext4 with `discard`).
const LEFT_BATCH_MIN: usize = 64;
/// What ends the names of files that were replaced and are to be swept.
pub const REPLACED: &str = ".replaced.tmp";
/// Most entries read from one directory.
const ENTRIES_MAX: usize = 200_000;

/// What can go wrong with a durable file.
#[derive(Debug, Error, Clone)]
pub enum StoreError {
    /// The file was surely not changed.
    #[error("cannot {operation} {}: {source}", path.display())]
    NotWritten {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The new file is visible, but it may not survive a power cut.
    #[error("cannot sync directory {}: {source} (the change may not survive a power cut)", path.display())]
    NotSynced {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The writer thread is gone.
    #[error("the store's writer has stopped")]
    Stopped,
}

impl StoreError {
    /// Whether a file of that name was in the way.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::NotWritten { source: Errno::EXIST, .. })
    }
}

/// Why a file could not be read as a record.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ReadProblem {
    /// It is not there.
    #[error("no such file")]
    Missing,
    /// It is a symbolic link, a directory, a pipe.
    #[error("not a regular file")]
    NotRegular,
    /// It is over the limit and was not read.
    #[error("{bytes} bytes, over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// It cannot be opened or read.
    #[error("{0}")]
    Io(Errno),
}

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens a directory, made with its parents (0700) where it is missing.
    ///
    /// # Errors
    /// When it cannot be made or opened, or is not a directory.
    pub fn open_or_create(path: &Path) -> Result<Self, StoreError> {
        match Self::open(path) {
            Ok(directory) => return Ok(directory),
            Err(StoreError::NotWritten { source: Errno::NOENT, .. }) => {}
            Err(error) => return Err(error),
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let parent = Self::open_or_create(parent)?;
            match DirBuilder::new().mode(0o700).create(path) {
                Ok(()) => parent.sync()?,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(not_written("create directory", path, errno(&error))),
            }
        }
        Self::open(path)
    }

    /// Opens a directory that is there.
    ///
    /// # Errors
    /// When it is not there, not a directory, or may not be opened.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path: path.to_owned() }),
            Err(error) => Err(not_written("open directory", path, error)),
        }
    }

    /// Takes every right from everybody else (0700). A directory that is not ours is left to its owner.
    ///
    /// # Errors
    /// When it is ours and cannot be changed.
    pub fn make_private(&self) -> Result<(), StoreError> {
        let failed = |error| not_written("make private", &self.path, error);
        let stat = rustix::fs::fstat(&self.fd).map_err(failed)?;
        let ours = stat.st_uid == rustix::process::geteuid().as_raw();
        if ours && stat.st_mode & 0o077 != 0 {
            rustix::fs::fchmod(&self.fd, Mode::RWXU).map_err(failed)?;
        }
        Ok(())
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces files so that each is whole, old or new, and new after this returns without an error.
    pub fn replace(&self, files: &[(&str, &[u8])]) -> Vec<Result<(), StoreError>> {
        let one_sync = files.len() >= SYNCFS_BATCH_MIN;
        let mut results: Vec<Result<(), StoreError>> = files
            .iter()
            .map(|(name, bytes)| self.write_temp(&temp_name(name), bytes, !one_sync))
            .collect();
        if one_sync {
            let synced = rustix::fs::syncfs(self.fd.as_fd());
            for (result, (name, _)) in results.iter_mut().zip(files) {
                if let (Ok(()), Err(error)) = (&result, synced) {
                    *result = Err(not_written("sync", &self.path.join(temp_name(name)), error));
                }
            }
        }
        for (result, (name, _)) in results.iter_mut().zip(files) {
            if result.is_ok() {
                *result = self.rename(&temp_name(name), self, name);
            }
            if result.is_err() {
                // The last good file stays; the half-written one goes.
                let _ = rustix::fs::unlinkat(self.fd.as_fd(), temp_name(name), AtFlags::empty());
            }
        }
        if results.iter().any(Result::is_ok)
            && let Err(error) = self.sync()
        {
            for result in results.iter_mut().filter(|result| result.is_ok()) {
                *result = Err(error.clone());
            }
        }
        results
    }

    /// Replaces one file.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub fn replace_one(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.replace(&[(name, bytes)]).pop().unwrap_or(Ok(()))
    }

    /// Removes one file; one that is not there is fine.
    ///
    /// # Errors
    /// When it could not be removed durably.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        match rustix::fs::unlinkat(self.fd.as_fd(), name, AtFlags::empty()) {
            Ok(()) => self.sync(),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(not_written("remove", &self.path.join(name), error)),
        }
    }

    /// Replaces a file that is there, and makes none: with one that is moved away meanwhile nothing happens. Returns
    /// whether it was there.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub fn replace_existing(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        let temp = temp_name(name);
        let written = self.write_temp(&temp, bytes, true).and_then(|()| self.exchange(&temp, name));
        // The old content, or what was not put in its place.
        let _ = rustix::fs::unlinkat(self.fd.as_fd(), temp.as_str(), AtFlags::empty());
        if matches!(written, Ok(true)) {
            self.sync()?;
        }
        written
    }

    /// The same for many files, made durable by one sync before and one after. Of a large batch the old files are left
    /// under names that end in [`REPLACED`].
    pub fn replace_all_existing(&self, files: &[(&str, &[u8])]) -> Vec<Result<bool, StoreError>> {
        let temp = |name: &str| format!(".{name}{REPLACED}");
        let mut written: Vec<Result<(), StoreError>> =
            files.iter().map(|(name, bytes)| self.write_temp(&temp(name), bytes, false)).collect();
        if let Err(error) = rustix::fs::syncfs(self.fd.as_fd()) {
            for result in written.iter_mut().filter(|result| result.is_ok()) {
                *result = Err(not_written("sync", &self.path, error));
            }
        }
        let mut results: Vec<Result<bool, StoreError>> = written
            .into_iter()
            .zip(files)
            .map(|(written, (name, _))| written.and_then(|()| self.exchange(&temp(name), name)))
            .collect();
        if let Err(error) = self.sync() {
            for result in results.iter_mut().filter(|result| matches!(result, Ok(true))) {
                *result = Err(error.clone());
            }
        }
        if files.len() < LEFT_BATCH_MIN {
            for (name, _) in files {
                let _ = rustix::fs::unlinkat(self.fd.as_fd(), temp(name), AtFlags::empty());
            }
        }
        results
    }

    /// Puts a temp file in the place of one that is there, and that one in its own.
    fn exchange(&self, temp: &str, name: &str) -> Result<bool, StoreError> {
        let (fd, flags) = (self.fd.as_fd(), RenameFlags::EXCHANGE);
        match rustix::fs::renameat_with(fd, temp, fd, name, flags) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            // A file system without it, such as NFS.
            Err(Errno::INVAL | Errno::NOSYS) => self.rename(temp, self, name).map(|()| true),
            Err(error) => Err(not_written("replace", &self.path.join(name), error)),
        }
    }

    /// Removes files, made durable by one sync; what is not there is fine.
    ///
    /// # Errors
    /// The first; the others are removed all the same.
    pub fn remove_all(&self, names: &[String]) -> Result<(), StoreError> {
        let mut result = Ok(());
        for name in names {
            match rustix::fs::unlinkat(self.fd.as_fd(), name.as_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) if result.is_ok() => {
                    result = Err(not_written("remove", &self.path.join(name), error));
                }
                Err(_) => {}
            }
        }
        if names.is_empty() { result } else { self.sync().and(result) }
    }

    /// Moves a file into another directory under the first free name; the file is never lost nor another replaced.
    ///
    /// # Errors
    /// When it could not be moved.
    pub fn set_aside(&self, name: &str, to: &Self) -> Result<PathBuf, StoreError> {
        let path = self.set_aside_as(name, to, name)?;
        to.sync()?;
        self.sync()?;
        Ok(path)
    }

    /// The same for several files, made durable by one sync of both directories.
    pub fn set_all_aside(&self, names: &[&str], to: &Self) -> Vec<Result<PathBuf, StoreError>> {
        let moved: Vec<_> = names.iter().map(|name| self.set_aside_as(name, to, name)).collect();
        if moved.iter().any(Result::is_ok) {
            let _ = to.sync();
            let _ = self.sync();
        }
        moved
    }

    /// The same under another name, not durable yet.
    ///
    /// # Errors
    /// When it could not be moved.
    pub fn set_aside_as(
        &self,
        name: &str,
        to: &Self,
        as_name: &str,
    ) -> Result<PathBuf, StoreError> {
        const TRIES_MAX: u32 = 1_000;
        for number in 0..TRIES_MAX {
            let new_name =
                if number == 0 { as_name.to_owned() } else { format!("{as_name}.{number}") };
            let moved = rustix::fs::renameat_with(
                self.fd.as_fd(),
                name,
                to.fd.as_fd(),
                new_name.as_str(),
                RenameFlags::NOREPLACE,
            );
            match moved {
                Ok(()) => return Ok(to.path.join(new_name)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(not_written("set aside", &self.path.join(name), error)),
            }
        }
        Err(not_written("set aside", &self.path.join(name), Errno::EXIST))
    }

    /// Moves files into another directory, each whole and in one step: a file is always in exactly one of the two,
    /// and none there is replaced. Made durable by one sync of both directories. A missing file is no error.
    ///
    /// # Errors
    /// For each file that could not be moved; it is where it was.
    pub fn move_to(&self, to: &Self, names: &[(String, String)]) -> Vec<Result<bool, StoreError>> {
        let moved: Vec<Result<bool, StoreError>> =
            names.iter().map(|(from, name)| self.move_one(from, to, name)).collect();
        if moved.iter().any(|moved| matches!(moved, Ok(true))) {
            // A move that a power cut takes back leaves the file where it was, and the next start sees it there.
            let _ = to.sync();
            let _ = self.sync();
        }
        moved
    }

    fn move_one(&self, from: &str, to: &Self, name: &str) -> Result<bool, StoreError> {
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(self.fd.as_fd(), from, to.fd.as_fd(), name, flags) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            // Some network file systems cannot tell: then what is there is looked for first.
            Err(Errno::INVAL | Errno::NOSYS) if to.is_free(name) => {
                self.rename(from, to, name).map(|()| true)
            }
            Err(error) => Err(not_written("move", &self.path.join(from), error)),
        }
    }

    fn is_free(&self, name: &str) -> bool {
        let found = rustix::fs::statat(self.fd.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW);
        found.is_err_and(|error| error == Errno::NOENT)
    }

    /// Whether a file belongs to somebody else. A missing one does not.
    #[must_use]
    pub fn is_foreign(&self, name: &str) -> bool {
        rustix::fs::statat(self.fd.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| stat.st_uid != rustix::process::geteuid().as_raw())
    }

    /// Reads a regular file of at most `limit` bytes. Links are not followed, pipes do not block.
    ///
    /// # Errors
    /// Each way in which it is not such a file.
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ReadProblem> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(self.fd.as_fd(), name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(ReadProblem::Missing),
            Err(Errno::LOOP | Errno::NXIO) => return Err(ReadProblem::NotRegular),
            Err(error) => return Err(ReadProblem::Io(error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(ReadProblem::Io)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ReadProblem::NotRegular);
        }
        let bytes = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if bytes > limit {
            return Err(ReadProblem::TooLarge { bytes, limit });
        }
        let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        File::from(fd)
            .take(limit)
            .read_to_end(&mut content)
            .map_err(|error| ReadProblem::Io(errno(&error)))?;
        Ok(content)
    }

    /// The names in it, without `.` and `..`, at most 200,000.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let failed = |error| not_written("list", &self.path, error);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(self.fd.as_fd()).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
            if names.len() >= ENTRIES_MAX {
                break;
            }
        }
        Ok(names)
    }

    /// Removes temp files that a crash left behind.
    pub fn sweep(&self, names: &[String]) {
        for name in names.iter().filter(|name| name.starts_with('.') && name.ends_with(".tmp")) {
            let _ = rustix::fs::unlinkat(self.fd.as_fd(), name.as_str(), AtFlags::empty());
        }
    }

    fn write_temp(&self, temp: &str, bytes: &[u8], sync: bool) -> Result<(), StoreError> {
        let failed = |operation, error| not_written(operation, &self.path.join(temp), error);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || rustix::fs::openat(self.fd.as_fd(), temp, flags, Mode::RUSR | Mode::WUSR);
        let fd = match create() {
            // A leftover is another inode's story: a failed fsync must not be retried on the same file.
            Err(Errno::EXIST) => {
                let _ = rustix::fs::unlinkat(self.fd.as_fd(), temp, AtFlags::empty());
                create()
            }
            other => other,
        };
        let fd = fd.map_err(|error| failed("create", error))?;
        let mut file = File::from(fd);
        file.write_all(bytes).map_err(|error| failed("write", errno(&error)))?;
        if sync {
            rustix::fs::fsync(&file).map_err(|error| failed("sync", error))?;
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &Self, name: &str) -> Result<(), StoreError> {
        rustix::fs::renameat(self.fd.as_fd(), from, to.fd.as_fd(), name)
            .map_err(|error| not_written("rename to", &to.path.join(name), error))
    }

    fn sync(&self) -> Result<(), StoreError> {
        rustix::fs::fsync(&self.fd)
            .map_err(|source| StoreError::NotSynced { path: self.path.clone(), source })
    }
}

fn temp_name(name: &str) -> String {
    format!(".{name}.tmp")
}

fn not_written(operation: &'static str, path: &Path, source: Errno) -> StoreError {
    StoreError::NotWritten { operation, path: path.to_owned(), source }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
