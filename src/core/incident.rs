//! One incident: a run of the gateway that ended otherwise than in good order, or that left work cut.

use serde::{Deserialize, Serialize};

use super::canonical::session_hash;
use super::checkpoint::{Checkpoint, Outcome};
use super::recovery::{ExitFact, StopRequest, VerdictKind};
use super::stamp::Stamp;

/// The schema of the incident file this build writes.
pub const INCIDENT_SCHEMA: &str = "tideover.incident/1";
/// Most sessions that one incident lists; the rest are counted.
const SESSIONS_MAX: usize = 200;
/// Most sessions and answers that the report shows: it must fit a screen.
const SESSIONS_SHOWN_MAX: usize = 6;
const THREADS_SHOWN_MAX: usize = 4;

/// One incident, as on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// `tideover.incident/1`.
    pub schema: String,
    /// The run of the supervisor that it ended.
    pub run: String,
    /// What kind of end it was.
    pub kind: VerdictKind,
    /// In words.
    pub detail: String,
    /// When the run began.
    pub started_at: Stamp,
    /// When it ended, as well as that is known.
    pub ended_at: Stamp,
    /// Who asked for a stop.
    #[serde(default)]
    pub stop: Option<StopRequest>,
    /// How the gateway ended, where tideover saw it.
    #[serde(default)]
    pub exit: Option<ExitFact>,
    /// The gateway's version, where it was known.
    #[serde(default)]
    pub gateway_version: Option<String>,
    /// The service's unit.
    #[serde(default)]
    pub unit: Option<String>,
    /// How the gateway looked, where there was time to look.
    #[serde(default)]
    pub evidence: Option<Evidence>,
    /// How many sessions it cut.
    pub sessions_cut: usize,
    /// The sessions it cut.
    #[serde(default)]
    pub sessions: Vec<CutSession>,
}

/// One session that was cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutSession {
    /// Its key.
    pub session_key: String,
    /// The tool that was running, if one was.
    #[serde(default)]
    pub tool: Option<String>,
    /// Whether that tool's outcome is known.
    #[serde(default)]
    pub outcome: Option<Outcome>,
}

/// How the gateway looked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its last answers to probes, oldest first.
    #[serde(default)]
    pub health: Vec<HealthAnswer>,
    /// Its threads, and what each waits for.
    #[serde(default)]
    pub threads: Vec<ThreadState>,
    /// Resident memory in KiB.
    #[serde(default)]
    pub resident_kib: Option<u64>,
    /// Swapped memory in KiB.
    #[serde(default)]
    pub swapped_kib: Option<u64>,
    /// Most resident memory it ever had, in KiB.
    #[serde(default)]
    pub peak_kib: Option<u64>,
}

/// One answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthAnswer {
    /// When it was asked.
    pub at: Stamp,
    /// What it said.
    pub answer: String,
    /// How long that took, in milliseconds.
    pub took_ms: u64,
}

/// One thread, as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadState {
    /// Its name.
    pub name: String,
    /// `R`, `S`, `D`, `T`, `Z`.
    pub state: String,
    /// The kernel function it waits in, where that can be read.
    #[serde(default)]
    pub waits_in: Option<String>,
}

/// How a report names sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// By their keys.
    Named,
    /// By a hash of the key, as the log does.
    Hashed,
}

/// Whether such an end is worth an incident.
#[must_use]
pub fn is_incident(kind: VerdictKind, sessions_cut: usize) -> bool {
    match kind {
        VerdictKind::First => false,
        VerdictKind::CleanStop | VerdictKind::SelfRestart | VerdictKind::HostReboot => {
            sessions_cut > 0
        }
        VerdictKind::GatewayExit
        | VerdictKind::GatewayKilled
        | VerdictKind::GatewayFrozen
        | VerdictKind::TideoverKilled
        | VerdictKind::PowerCut
        | VerdictKind::Unreadable => true,
    }
}

/// The sessions that are marked as cut, shortened to what an incident keeps.
#[must_use]
pub fn cut_sessions<'a>(records: impl Iterator<Item = &'a Checkpoint>) -> Vec<CutSession> {
    records
        .take(SESSIONS_MAX)
        .map(|record| {
            let call = match &record.interruption {
                Some(cut) => cut.call.as_ref(),
                None => record.last_tool_call.as_ref().filter(|_| record.in_flight()),
            };
            CutSession {
                session_key: record.session_key.clone(),
                tool: call.map(|call| call.name.clone()),
                outcome: call.map(|call| call.outcome),
            }
        })
        .collect()
}

impl Incident {
    /// The name of its file: sorts by time, and is the same for all that is written of one run.
    #[must_use]
    pub fn file_name(started_at: Stamp, run: &str) -> String {
        let run: String = run.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        format!("{:014}-{run}.json", started_at.as_ms().max(0))
    }

    /// The post-mortem: one screen.
    #[must_use]
    pub fn report(&self, sessions: Sessions) -> String {
        let mut lines = vec![format!("{}  {}", self.ended_at, headline(self.kind))];
        let mut line = |name: &str, text: String| lines.push(format!("  {name:<10} {text}"));
        line("what", self.detail.clone());
        let up = self.ended_at.since_ms(self.started_at);
        line("run", format!("began {}, up {}", self.started_at, duration(up)));
        let version = self.gateway_version.as_deref().unwrap_or("version not known");
        let unit = self.unit.as_deref().unwrap_or("no unit");
        line("gateway", format!("{version}, {unit}"));
        if let Some(stop) = &self.stop {
            line("asked by", stop.describe());
        }
        if let Some(exit) = &self.exit {
            line("end", format!("{} at {}", exit.describe(), exit.at));
        }
        if let Some(evidence) = &self.evidence {
            evidence.report(&mut line);
        }
        line("cut", sessions_line(self.sessions_cut));
        for session in self.sessions.iter().take(SESSIONS_SHOWN_MAX) {
            line("", session.describe(sessions));
        }
        if self.sessions_cut > SESSIONS_SHOWN_MAX {
            line("", format!("… and {} more", self.sessions_cut - SESSIONS_SHOWN_MAX));
        }
        lines.join("\n")
    }
}

impl Evidence {
    fn report(&self, line: &mut impl FnMut(&str, String)) {
        if let Some(last) = self.health.last() {
            let live = self.health.iter().rev().find(|answer| answer.answer != "no answer");
            let live = live.map_or("never answered".to_owned(), |live| {
                format!("last answered at {} in {} ms", live.at, live.took_ms)
            });
            line("health", format!("{} at {}; {live}", last.answer, last.at));
        }
        let mib = |kib: Option<u64>| kib.map_or("?".to_owned(), |kib| (kib / 1024).to_string());
        line(
            "memory",
            format!(
                "{} MiB resident, {} MiB swapped, {} MiB at most",
                mib(self.resident_kib),
                mib(self.swapped_kib),
                mib(self.peak_kib)
            ),
        );
        for thread in self.threads.iter().take(THREADS_SHOWN_MAX) {
            let waits = thread.waits_in.as_deref().unwrap_or("not known");
            line("thread", format!("{} {} waits in {waits}", thread.name, thread.state));
        }
    }
}

impl CutSession {
    fn describe(&self, sessions: Sessions) -> String {
        let name = match sessions {
            Sessions::Named => self.session_key.clone(),
            Sessions::Hashed => session_hash(&self.session_key),
        };
        let outcome = match self.outcome {
            Some(Outcome::Ok) => "finished",
            Some(Outcome::Error) => "finished with an error",
            Some(Outcome::Background) => "in the background",
            Some(Outcome::Unknown) | None => "outcome unknown",
        };
        match &self.tool {
            Some(tool) => format!("{name}: {tool}, {outcome}"),
            None => format!("{name}: no tool was running"),
        }
    }
}

fn headline(kind: VerdictKind) -> &'static str {
    match kind {
        VerdictKind::First => "first start",
        VerdictKind::CleanStop => "stopped on request",
        VerdictKind::SelfRestart => "the gateway restarted itself",
        VerdictKind::GatewayExit => "the gateway ended by itself",
        VerdictKind::GatewayKilled => "the gateway was killed or crashed",
        VerdictKind::GatewayFrozen => "the gateway hung and the watchdog ended it",
        VerdictKind::TideoverKilled => "tideover was killed, and the gateway with it",
        VerdictKind::HostReboot => "the host went down in order",
        VerdictKind::PowerCut => "the host went down without warning",
        VerdictKind::Unreadable => "the record of the run cannot be read",
    }
}

fn sessions_line(count: usize) -> String {
    match count {
        0 => "no session".to_owned(),
        1 => "1 session".to_owned(),
        count => format!("{count} sessions"),
    }
}

/// `3 h 12 min`, `4 min 2 s`, `7 s`.
fn duration(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, min, s) => format!("{min} min {s} s"),
        (h, min, _) => format!("{h} h {min} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident() -> Incident {
        Incident {
            schema: INCIDENT_SCHEMA.to_owned(),
            run: "0f8c-11".to_owned(),
            kind: VerdictKind::GatewayFrozen,
            detail: "the gateway did not answer any more".to_owned(),
            started_at: Stamp::from_ms(0),
            ended_at: Stamp::from_ms(11_523_000),
            stop: None,
            exit: None,
            gateway_version: Some("2026.9.6".to_owned()),
            unit: Some("openclaw-gateway.service".to_owned()),
            evidence: Some(Evidence {
                health: vec![
                    HealthAnswer { at: Stamp::from_ms(1), answer: "live".into(), took_ms: 3 },
                    HealthAnswer { at: Stamp::from_ms(9), answer: "no answer".into(), took_ms: 9 },
                ],
                threads: (0..40)
                    .map(|i| ThreadState {
                        name: format!("t{i}"),
                        state: "T".into(),
                        waits_in: Some("do_signal_stop".into()),
                    })
                    .collect(),
                resident_kib: Some(400 * 1024),
                ..Evidence::default()
            }),
            sessions_cut: 30,
            sessions: (0..30)
                .map(|i| CutSession {
                    session_key: format!("agent:main:{i}"),
                    tool: Some("exec".into()),
                    outcome: Some(Outcome::Unknown),
                })
                .collect(),
        }
    }

    #[test]
    fn the_report_says_it_all_on_one_screen() {
        let hashed = incident().report(Sessions::Hashed);
        assert!(!hashed.contains("agent:main") && hashed.contains("exec, outcome"), "{hashed}");
        let report = incident().report(Sessions::Named);
        assert!(report.lines().count() <= 24, "{report}");
        for said in [
            "the gateway hung",
            "up 3 h 12 min",
            "2026.9.6, openclaw-gateway.service",
            "no answer at",
            "last answered at",
            "400 MiB resident",
            "waits in do_signal_stop",
            "30 sessions",
            "agent:main:0: exec, outcome unknown",
            "and 24 more",
        ] {
            assert!(report.contains(said), "{said}: {report}");
        }
    }

    #[test]
    fn names_sort_by_time_and_tell_runs_apart() {
        let name = |ms, run| Incident::file_name(Stamp::from_ms(ms), run);
        assert_eq!(name(1_795_381_766_910, "0f8c-1122-33"), "01795381766910-0f8c1122.json");
        assert!(name(9, "b") < name(10, "a"));
    }
}
