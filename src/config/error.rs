//! What can be wrong with a configuration file, told so that it can be mended.

use std::path::PathBuf;

/// A configuration file that could not be used. The text names the file, and the line and key
/// where there are any, and says how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file exists and could not be read.
    #[error(
        "cannot read {path}: {reason}; make it a regular file this user can read, or remove it",
        path = path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
    },
    /// The path is a directory, a socket or another thing that holds no text.
    #[error(
        "{path} is not a regular file; put the settings in a file there, or point \
         TIDEOVER_CONFIG at one",
        path = path.display()
    )]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is larger than a configuration can be.
    #[error(
        "{path} is larger than {bytes_max} bytes; it is probably not a tideover configuration",
        path = path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit it breaks, in bytes.
        bytes_max: u64,
    },
    /// The file is not UTF-8 text.
    #[error("{path}:{line}: not valid UTF-8; save the file as UTF-8 text", path = path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line of the first bad byte, counted from 1.
        line: usize,
    },
    /// The text is not TOML, or a key is unknown or holds the wrong type.
    #[error(
        "{path}:{line}: {reason}{key}; correct that line or remove it",
        path = path.display(),
        key = key.as_deref().map(|key| format!(" (at `{key}`)")).unwrap_or_default()
    )]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// That line's text, which names the key.
        key: Option<String>,
        /// The parser's reason, on one line.
        reason: String,
    },
    /// A key holds a value of the right type that is not allowed.
    #[error("{path}:{line}: {key} {reason}", path = path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The key, with its table: `checkpoint.flush_deadline_ms`.
        key: &'static str,
        /// What is wrong and what is allowed.
        reason: String,
    },
}
