//! Running other programs to their end, with a deadline and bounded output.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::launch::EnvSnapshot;

/// Most of a program's output that is kept, in bytes.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
const POLL: Duration = Duration::from_millis(20);

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: EnvSnapshot,
    /// Longest it may take, in milliseconds.
    pub timeout_ms: u64,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// A program that could not be run or did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It could not be started.
    #[error("cannot run {program}: {source}", program = program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("`{call}` did not end within {seconds} s and was killed")]
    Timeout {
        /// The command line.
        call: String,
        /// The limit.
        seconds: u64,
    },
    /// It said no.
    #[error("`{call}` failed ({status}): {said}")]
    Failed {
        /// The command line.
        call: String,
        /// Exit code, or that it was a signal.
        status: String,
        /// Its last words.
        said: String,
    },
}

impl Call {
    /// The command line, for people.
    pub fn line(&self) -> String {
        let program = self.program.display().to_string();
        let args = self.args.iter().map(|arg| arg.to_string_lossy().into_owned());
        let word = |word: String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=@:+,%".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                word
            } else {
                format!("'{}'", word.replace('\'', r"'\''"))
            }
        };
        std::iter::once(program).chain(args).map(word).collect::<Vec<_>>().join(" ")
    }

    /// Runs it to its end.
    pub fn run(&self) -> Result<Ended, CallError> {
        let fail = |source| CallError::Start { program: self.program.clone(), source };
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(fail)?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let deadline = Instant::now() + Duration::from_millis(self.timeout_ms);
        let Some(status) = wait(&mut child, deadline).map_err(fail)? else {
            child.kill().ok();
            child.wait().ok();
            return Err(CallError::Timeout { call: self.line(), seconds: self.timeout_ms / 1000 });
        };
        Ok(Ended { code: status, stdout: text(stdout, deadline), stderr: text(stderr, deadline) })
    }

    /// Runs it and takes any exit code but 0 for a failure.
    pub fn succeed(&self) -> Result<Ended, CallError> {
        let ended = self.run()?;
        if ended.code == Some(0) {
            return Ok(ended);
        }
        let status =
            ended.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit {code}"));
        Err(CallError::Failed { call: self.line(), status, said: ended.last_words() })
    }
}

impl Ended {
    /// The last lines that say something, in one.
    pub fn last_words(&self) -> String {
        const LINES_MAX: usize = 4;
        const CHARS_MAX: usize = 800;
        let from = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<&str> =
            from.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let tail = lines.get(lines.len().saturating_sub(LINES_MAX)..).unwrap_or_default();
        let text: String =
            tail.join(" / ").chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect();
        if text.is_empty() { "it said nothing".to_owned() } else { text }
    }
}

fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<Option<i32>>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.code()));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Reads to the end on a thread of its own, so that a full pipe never holds the program up.
fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut kept, mut buffer) = (Vec::new(), [0; 8192]);
        while let Ok(read) = from.read(&mut buffer) {
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
            kept.extend(bytes.iter().take(room));
        }
        kept
    })
}

/// What was collected. A grandchild that keeps the pipe open does not keep us.
fn text(collected: Option<JoinHandle<Vec<u8>>>, deadline: Instant) -> String {
    const GRACE: Duration = Duration::from_secs(2);
    let Some(thread) = collected else { return String::new() };
    let deadline = deadline.min(Instant::now() + GRACE);
    while !thread.is_finished() && Instant::now() < deadline {
        std::thread::sleep(POLL);
    }
    if !thread.is_finished() {
        return String::new();
    }
    String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout_ms: u64) -> Call {
        let args = ["-c", script].map(OsString::from).to_vec();
        Call { program: "/bin/sh".into(), args, env: EnvSnapshot::new(), timeout_ms }
    }

    #[test]
    fn ends_are_told_apart() {
        let ended = sh("echo out; echo err >&2; exit 3", 10_000).run().unwrap();
        assert_eq!(
            (ended.code, ended.stdout.as_str(), ended.stderr.as_str()),
            (Some(3), "out\n", "err\n")
        );
        let error = sh("echo why >&2; exit 3", 10_000).succeed().unwrap_err().to_string();
        assert!(error.contains("exit 3") && error.contains("why"), "{error}");
        assert!(matches!(sh("sleep 60", 50).run(), Err(CallError::Timeout { .. })));
        let much = sh("head -c 1000000 /dev/zero | tr '\\0' x", 10_000).run().unwrap();
        assert_eq!(much.stdout.len(), OUTPUT_BYTES_MAX);
        let nothing = Call { program: "/nowhere/x".into(), ..sh("", 1) };
        assert!(matches!(nothing.run(), Err(CallError::Start { .. })));
        assert_eq!(sh("a 'b'", 1).line(), r"/bin/sh -c 'a '\''b'\'''");
    }
}
