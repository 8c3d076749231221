//! How a process looks from outside while it still is there: for the incident file.

use std::fs;

use crate::core::incident::{Evidence, HealthAnswer, ThreadState};

/// Most threads that are written down.
const THREADS_MAX: usize = 128;
/// Most answers that the log repeats; the incident file has them all.
const ANSWERS_SAID_MAX: usize = 4;

/// Gathers what /proc shows of a process. Reads only files that a hung process cannot hold up.
pub(super) fn gather(pid: u32, answers: Vec<HealthAnswer>) -> Evidence {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    Evidence {
        health: answers,
        threads: threads(pid),
        resident_kib: kib("VmRSS"),
        swapped_kib: kib("VmSwap"),
        peak_kib: kib("VmHWM"),
    }
}

/// The last answers to probes, for the log.
pub(super) fn answers_in_words(evidence: &Evidence) -> String {
    let last = evidence.health.len().saturating_sub(ANSWERS_SAID_MAX);
    let words = evidence.health[last..].iter();
    words.map(|it| format!("{} in {} ms", it.answer, it.took_ms)).collect::<Vec<_>>().join("; ")
}

fn threads(pid: u32) -> Vec<ThreadState> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut ids: Vec<u32> = tasks
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
        .take(THREADS_MAX)
        .collect();
    ids.sort_unstable();
    ids.into_iter().filter_map(|id| thread(pid, id)).collect()
}

fn thread(pid: u32, id: u32) -> Option<ThreadState> {
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/task/{id}/{file}")).ok();
    let stat = of("stat")?;
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let state = stat.get(close + 1..)?.split_whitespace().next()?;
    let wchan = of("wchan").filter(|name| !name.is_empty() && name != "0");
    Some(ThreadState {
        name: stat.get(open + 1..close)?.to_owned(),
        state: state.to_owned(),
        waits_in: wchan.or_else(|| top_of_stack(&of("stack")?)),
    })
}

/// The function on top of a kernel stack, which only root may read.
fn top_of_stack(stack: &str) -> Option<String> {
    let top = stack.lines().next()?.rsplit(' ').next()?;
    Some(top.split('+').next()?.to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_described_with_its_threads_and_memory() {
        let evidence = gather(std::process::id(), Vec::new());
        assert!(evidence.resident_kib.is_some_and(|kib| kib > 100));
        assert!(evidence.threads.iter().any(|thread| "RS".contains(&thread.state)));
        assert_eq!(gather(u32::MAX, Vec::new()), Evidence::default());
    }
}
