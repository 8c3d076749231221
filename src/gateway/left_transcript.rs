//! The transcript that a replaced session left behind, where the gateway keeps transcripts in files.
//!
//! 2026.5.5: `agents/<agent>/sessions/<session id>.jsonl`, and after a reset the same name with `.reset.<time>` behind
//! it. 2026.9.6 keeps them in a database under an id that the new session shares: nothing can be named there.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::core::checkpoint::Checkpoint;

/// Most files of a directory that are looked at.
const FILES_MAX: usize = 100_000;
/// Who owns a session whose key and record name nobody.
const DEFAULT_AGENT: &str = "main";

/// Which transcript is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    agent: String,
    session_id: String,
}

impl Left {
    /// The one that an orphaned task was in.
    #[must_use]
    pub fn by(record: &Checkpoint) -> Option<Self> {
        let orphaned = record.interruption.as_ref()?.orphaned.as_ref()?;
        let agent = record.agent_id.as_deref().unwrap_or(DEFAULT_AGENT);
        let of_one_step = is_plain(agent) && is_plain(&orphaned.session_id);
        let left = Self { agent: agent.to_owned(), session_id: orphaned.session_id.clone() };
        of_one_step.then_some(left)
    }

    /// Its file, if it is still there.
    #[must_use]
    pub fn find(&self, state_dir: &Path) -> Option<PathBuf> {
        let directory = state_dir.join("agents").join(&self.agent).join("sessions");
        let name = format!("{}.jsonl", self.session_id);
        let own = directory.join(&name);
        if own.is_file() {
            return Some(own);
        }
        let archived = format!("{name}.reset.");
        // Its time is written so that the latest one sorts last.
        fs::read_dir(&directory)
            .ok()?
            .take(FILES_MAX)
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.as_encoded_bytes().starts_with(archived.as_bytes()))
            })
            .max()
    }
}

/// Whether a name is one step down and no more: both come from what a gateway reported.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(components.next(), Some(Component::Normal(only)) if only == OsStr::new(name))
        && components.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::checkpoint::Orphaned;
    use crate::core::ledger::{Ledger, Policy, SessionRef};
    use crate::core::stamp::Stamp;

    fn left(agent: &str, session_id: &str) -> Option<Left> {
        let now = Stamp::from_ms(0);
        let session =
            SessionRef { key: "k".to_owned(), id: None, agent_id: Some(agent.to_owned()) };
        let mut ledger = Ledger::new(Policy::default(), Vec::new(), "run", now);
        ledger.recovery_turn(now, &session);
        let mut record = ledger.get("k")?.clone();
        record.interruption.as_mut()?.orphaned = Some(Orphaned {
            session_id: session_id.to_owned(),
            new_session_id: "new".to_owned(),
            interruption_id: "i".to_owned(),
            at: now,
        });
        Left::by(&record)
    }

    #[test]
    fn it_is_found_under_its_own_name_or_archived() {
        let state = tempfile::tempdir().unwrap();
        let directory = state.path().join("agents/main/sessions");
        fs::create_dir_all(&directory).unwrap();
        let find = || left("main", "old").and_then(|left| left.find(state.path()));
        assert_eq!(find(), None);
        for name in ["old.jsonl.reset.2026-01-01", "old.jsonl.reset.2026-02-02", "old.jsonl"] {
            fs::write(directory.join(name), "").unwrap();
            assert_eq!(find(), Some(directory.join(name)));
        }
    }

    #[test]
    fn no_name_leads_elsewhere() {
        for (agent, id) in [("..", "old"), ("main", "../../x"), ("a/b", "old"), ("main", "")] {
            assert_eq!(left(agent, id), None, "{agent} {id}");
        }
    }
}
