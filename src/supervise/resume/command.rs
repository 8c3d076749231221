//! Whether the command that an interrupted call started still runs.
//!
//! A command that went to the background is known by its pid. One that was cut in the middle of its call is not: the
//! gateway tells a command's pid only with its result. It is looked for among the processes that began while the call
//! was running, by what their command line says (measured: 2026.5.5 runs `sh -c COMMAND`, 2026.9.6 the
//! same with a line of its own before it; some shells replace themselves with a single program). Nothing in a command's
//! environment names its session or its call. 2026.9.6 ends its commands when it dies, 2026.5.5 does not.

use std::fs;

use serde_json::Value;

use crate::core::checkpoint::{Outcome, ToolCall};
use crate::core::resume::Running;
use crate::core::stamp::Stamp;

use super::super::process::{self, Liveness, liveness};

/// How far clocks may be apart: a process's start is known in ticks since boot.
const SLACK_MS: i64 = 2_000;
/// Shortest command that may stand inside a longer word of a command line.
const INSIDE_BYTES_MIN: usize = 8;
/// Longest command line that is read, in bytes.
const CMDLINE_BYTES_MAX: usize = 1024 * 1024;

/// The command of a call, where it still runs. `cut_at` is when the call was cut: what began later is another.
pub(super) fn find(call: &ToolCall, cut_at: Stamp) -> Option<Running> {
    match call.outcome {
        Outcome::Background => {
            let background = call.background.as_ref()?;
            let pid = background.pid.filter(|_| background.ended_at.is_none())?;
            (liveness(pid, background.start_ticks) == Liveness::Alive).then(|| running(pid))
        }
        Outcome::Unknown => {
            let command = call.arguments.as_ref()?.get("command").and_then(Value::as_str)?;
            search(command.trim(), call.started_at, cut_at).map(running)
        }
        Outcome::Ok | Outcome::Error => None,
    }
}

fn running(pid: u32) -> Running {
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).ok();
    Running { pid, cwd: cwd.map(|path| path.to_string_lossy().into_owned()) }
}

fn search(command: &str, from: Stamp, to: Stamp) -> Option<u32> {
    if command.is_empty() {
        return None;
    }
    let booted_at = process::booted_at()?;
    let began = |pid: u32| process::started_at(pid, booted_at);
    fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            began(*pid)
                .is_some_and(|at| at >= from.plus_ms(-SLACK_MS) && at <= to.plus_ms(SLACK_MS))
        })
        .filter(|pid| liveness(*pid, None) == Liveness::Alive)
        .filter(|pid| cmdline(*pid).is_some_and(|words| says(&words, command)))
        // The shell before the programs that it started.
        .min_by_key(|pid| (began(*pid), *pid))
}

fn cmdline(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let bytes = bytes.get(..bytes.len().min(CMDLINE_BYTES_MAX))?;
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// Whether a command line is that of a command: a shell that was given it, or the program that a shell became.
fn says(words: &[String], command: &str) -> bool {
    let given = |word: &String| {
        word.trim() == command
            || word.trim_end().ends_with(&format!("; {command}"))
            || (command.len() >= INSIDE_BYTES_MIN && word.contains(command))
    };
    words.iter().any(given) || words.join(" ") == command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_with_the_command_and_the_program_it_became_are_both_it() {
        let line = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert!(says(&line(&["/bin/bash", "-c", "sleep 300"]), "sleep 300"));
        assert!(says(&line(&["sleep", "300"]), "sleep 300"));
        assert!(says(&line(&["bash", "-c", "cd /w; ./deploy.sh --all"]), "./deploy.sh --all"));
        assert!(says(&line(&["/bin/sh", "-c", "export PATH=\"$A:$PATH\"; unset A; ls"]), "ls"));
        assert!(!says(&line(&["sleep", "3000"]), "sleep 300"));
        assert!(!says(&line(&["vi", "ls"]), "l"));
    }
}
