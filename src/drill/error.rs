//! What can go wrong in a rehearsal; each error names the path or the operation and the next step.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Result of a rig operation.
pub type Result<T> = std::result::Result<T, DrillError>;

/// Why the rig could not do what it was asked to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrillError {
    /// A file or directory operation failed.
    #[error("{operation} {}: {source}; check free space and permissions, then run it again", path.display())]
    Io {
        /// What was tried, as a verb: "create", "read".
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Neither a fitting Node nor npm to fetch one was found.
    #[error("{what} is missing: {detail}; {next}")]
    Missing {
        /// The program or the package.
        what: String,
        /// What was looked for and where.
        detail: String,
        /// What to run next.
        next: String,
    },
    /// npm could not install a package.
    #[error(
        "npm install {package} failed ({status}); its last lines:\n{tail}\ncheck the network and \
         run `npm install {package}` by hand in an empty directory to see all of it"
    )]
    Npm {
        /// Package and version.
        package: String,
        /// npm's exit status, or how it was stopped.
        status: String,
        /// The last lines npm wrote.
        tail: String,
    },
    /// A program could not be started.
    #[error("start {}: {source}; check that it exists and is executable", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The gateway (or tideover in front of it) ended before it was ready.
    #[error(
        "the gateway ended before it was ready ({status}); the end of {}:\n{tail}\nrun the drill \
         with --keep and start it again in the kept home to see all of it", log.display()
    )]
    EndedEarly {
        /// Exit status of the started command.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// A condition did not come true in time.
    #[error("{what} did not happen within {} s: {detail}; run the drill with --keep and read the gateway's log", limit.as_secs_f32())]
    Timeout {
        /// What was awaited.
        what: String,
        /// How long.
        limit: Duration,
        /// What was seen instead.
        detail: String,
    },
    /// A process could not be signalled or found.
    #[error(
        "{operation}: {detail}; the process may have ended, see the gateway's log in the kept home (--keep)"
    )]
    Process {
        /// What was tried.
        operation: &'static str,
        /// The pid and the reason.
        detail: String,
    },
    /// A command run in the scratch home failed.
    #[error(
        "`{command}` failed in the scratch home ({status}):\n{tail}\nrun it by hand in the kept home (--keep)"
    )]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The last lines it wrote.
        tail: String,
    },
    /// The request made no sense.
    #[error("{detail}; {next}")]
    Usage {
        /// What was wrong.
        detail: String,
        /// What would be right.
        next: String,
    },
}

impl DrillError {
    /// Wraps an I/O error with the operation and the path.
    pub fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    /// Whether the gateway could simply not be had here (no Node, no npm, no network).
    ///
    /// Tests skip on these and fail on everything else.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Npm { .. })
    }
}
