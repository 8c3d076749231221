//! The lease: one supervisor for one state directory. The kernel drops it with the process.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::directory::{Directory, StoreError};

/// File name of the lease under `tideover/`.
const LEASE_FILE: &str = "lease.lock";

/// A held lease. Dropped, it is free.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

/// What came of asking for the lease.
#[derive(Debug)]
pub enum Asked {
    /// It is ours.
    Held(Lease),
    /// Another supervisor has it.
    Taken,
}

/// Asks for the lease of a state directory without waiting.
///
/// # Errors
/// When the lease file cannot be made or locked.
pub fn ask(tideover_dir: &Path) -> Result<Asked, StoreError> {
    let directory = Directory::open_or_create(tideover_dir)?;
    let path = directory.path().join(LEASE_FILE);
    let failed =
        |operation, source| StoreError::NotWritten { operation, path: path.clone(), source };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| failed("open lease", error))?;
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Asked::Held(Lease { _file: File::from(fd) })),
        Err(Errno::WOULDBLOCK) => Ok(Asked::Taken),
        Err(error) => Err(failed("lock lease", error)),
    }
}
