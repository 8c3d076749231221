//! How long work tells about itself while it lasts, and how conditions are awaited.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{DrillError, Result};
use super::story::{Check, Step};

/// One sign of life from the rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Something began or was found out.
    Note(String),
    /// Something is being waited for; sent again now and then.
    Waiting {
        /// What is awaited.
        what: String,
        /// How long so far.
        elapsed: Duration,
    },
    /// The wait is over.
    Done {
        /// What was awaited.
        what: String,
        /// How long it took.
        elapsed: Duration,
    },
    /// A step of a scenario's story.
    Step(Step),
    /// A promise, judged.
    Check(Check),
}

/// Where progress goes: a bar, a log, or nowhere.
#[derive(Clone)]
pub struct Tell(Arc<dyn Fn(Progress) + Send + Sync>);

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tell")
    }
}

impl Default for Tell {
    fn default() -> Self {
        Self::silent()
    }
}

impl Tell {
    /// Hands every sign of life to `sink`.
    pub fn new(sink: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Tells nobody.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    /// Something began or was found out.
    pub fn note(&self, text: impl Into<String>) {
        (self.0)(Progress::Note(text.into()));
    }

    /// A step of a scenario's story.
    pub fn step(&self, step: &Step) {
        (self.0)(Progress::Step(step.clone()));
    }

    /// A promise, judged.
    pub fn check(&self, check: &Check) {
        (self.0)(Progress::Check(check.clone()));
    }

    /// Still waiting.
    pub fn waiting(&self, what: &str, since: Instant) {
        (self.0)(Progress::Waiting { what: what.to_owned(), elapsed: since.elapsed() });
    }

    /// The wait is over.
    pub fn done(&self, what: &str, since: Instant) {
        (self.0)(Progress::Done { what: what.to_owned(), elapsed: since.elapsed() });
    }
}

/// How often a condition outside this process (a file, a pid, a port) is looked at.
pub const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Looks at a condition until it gives a value or the limit is over.
///
/// `look` returns the value, or what it saw instead (it goes into the error).
///
/// # Errors
/// [`DrillError::Timeout`] with the last thing seen.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = std::result::Result<T, String>>,
{
    let since = Instant::now();
    loop {
        let seen = match look().await {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if since.elapsed() >= limit {
            return Err(DrillError::Timeout { what: what.to_owned(), limit, detail: seen });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The last `lines` lines of a text, at most 8 KiB of it.
#[must_use]
pub fn tail(text: &str, lines: usize) -> String {
    const TAIL_BYTES_MAX: usize = 8 * 1024;
    let mut start = text.len().saturating_sub(TAIL_BYTES_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let all: Vec<&str> = text[start..].lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_whole_characters_and_the_last_lines() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        let long = "ä".repeat(10_000);
        assert!(tail(&long, 5).len() <= 8 * 1024);
        assert_eq!(tail("", 3), "");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_condition_that_never_comes_says_what_was_seen() {
        let out: Result<()> =
            until("the moon", Duration::from_millis(1), || async { Err("clouds".to_owned()) })
                .await;
        let text = out.map_or_else(|e| e.to_string(), |()| String::new());
        assert!(text.contains("the moon") && text.contains("clouds"), "{text}");
    }
}
