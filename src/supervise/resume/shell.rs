//! What `tideover resume` needs of us: the parts of an answer that it words itself, and the facts without a supervisor.

use crate::config::{ResumeConfirm, Settings};
use crate::core::checkpoint::Checkpoint;
use crate::core::resume::{Confirm, Decision, Facts, Refusal};

use super::facts::gather;

/// Why nothing happens, if nothing does.
pub(super) fn refusal_of(decision: &Decision) -> Option<&Refusal> {
    match decision {
        Decision::Refuse(why) => Some(why),
        Decision::Confirm | Decision::Rerun | Decision::GoOn | Decision::Done | Decision::Skip => {
            None
        }
    }
}

/// When a person is asked once more, as configured.
#[must_use]
pub fn confirm_of(settings: &Settings) -> Confirm {
    match settings.resume.confirm {
        ResumeConfirm::Unknown => Confirm::Unknown,
        ResumeConfirm::Always => Confirm::Always,
        ResumeConfirm::Never => Confirm::Never,
    }
}

/// The facts of one record as disk and /proc tell them.
#[must_use]
pub fn facts_offline(record: &Checkpoint) -> Facts {
    gather(record)
}
