//! Where the control socket is, and how a stale one is taken over.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Longest path that fits `sockaddr_un`, in bytes, without the closing zero.
const PATH_BYTES_MAX: usize = 107;
/// File name of the socket.
const SOCKET_FILE: &str = "control.sock";

/// Why there is no control socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The path does not fit into a socket address.
    #[error("control socket path is {bytes} bytes, over the limit of {PATH_BYTES_MAX}: {} (set XDG_RUNTIME_DIR to a shorter directory)", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Somebody answers on it.
    #[error("another supervisor answers on {} (see `tideover status`)", path.display())]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// The directory belongs to another user.
    #[error("{} belongs to uid {uid}, not to this user", path.display())]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The path of the control socket: under the user's runtime directory, else under the state directory.
#[must_use]
pub fn path(runtime_dir: Option<&Path>, profile: &str, tideover_dir: &Path) -> PathBuf {
    match runtime_dir {
        Some(runtime) => runtime.join("tideover").join(profile).join(SOCKET_FILE),
        None => tideover_dir.join(SOCKET_FILE),
    }
}

/// Binds the socket, 0600 in a 0700 directory. A dead one is replaced, a live one is not.
///
/// # Errors
/// Each way in which there can be no socket; the caller goes on without.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let bytes = path.as_os_str().len();
    if bytes > PATH_BYTES_MAX {
        return Err(SocketError::TooLong { path: path.to_owned(), bytes });
    }
    if let Some(directory) = path.parent() {
        own_directory(directory)?;
    }
    let failed =
        |operation| move |source| SocketError::Io { operation, path: path.to_owned(), source };
    match UnixStream::connect(path) {
        Ok(_) => return Err(SocketError::Taken { path: path.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // Nobody listens on it: a leftover of a supervisor that was killed.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed("remove stale socket"))?;
        }
        Err(error) => return Err(failed("try")(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed("bind"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(failed("chmod"))?;
    listener.set_nonblocking(true).map_err(failed("set up"))?;
    Ok(listener)
}

fn own_directory(directory: &Path) -> Result<(), SocketError> {
    let failed =
        |operation| move |source| SocketError::Io { operation, path: directory.to_owned(), source };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed("create"))?;
    let metadata = std::fs::metadata(directory).map_err(failed("look at"))?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(SocketError::ForeignDirectory {
            path: directory.to_owned(),
            uid: metadata.uid(),
        });
    }
    if metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
            .map_err(failed("chmod"))?;
    }
    Ok(())
}
