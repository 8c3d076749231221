//! Why a file is no entry of the queue.

/// What is wrong with a file. It names fields, never their content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is larger than an entry may be.
    #[error("it has {bytes} bytes; an entry has at most {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// Its name is not `<id>.json`.
    #[error("its name does not end in .json")]
    Name,
    /// It is not JSON.
    #[error("it is not JSON (line {line}, column {column})")]
    NotJson {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// It is JSON, but no object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// The id in it is not the one that its name tells: the gateway passes such a file over.
    #[error("its id is missing or is not its file's name")]
    Id,
    /// The kind of session entry is not known.
    #[error("its kind is missing or not known")]
    Kind,
    /// A field is missing or has the wrong type.
    #[error("{field} is missing or is not {expected}")]
    Field {
        /// The field, as in the file.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}
