//! Where tideover's files are, under the gateway's state directory (design §6).

use std::path::{Path, PathBuf};

/// The directories that tideover writes, in the order of writing within a batch: the boot record comes before
/// the checkpoints that a later start judges by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// `tideover/`: boot record and lease.
    State,
    /// `sessions/checkpoints/`: one file a session.
    Checkpoints,
    /// `tideover/outbox/`: one file a notice.
    Outbox,
    /// `tideover/incidents/`: one file for each run that ended badly or left work cut.
    Incidents,
    /// `tideover/queue/claimed/`: entries of the gateway's queue that tideover has in hand.
    QueueClaimed,
    /// `tideover/queue/kept/`: entries that are kept back from the gateway.
    QueueKept,
    /// `tideover/queue/settled/`: entries whose work was found done; the newest are kept for a look.
    QueueSettled,
    /// `tideover/queue/dropped/`: entries that a person took out.
    QueueDropped,
    /// `tideover/queue/quarantine/`: files in the gateway's queue that are no entries.
    QueueQuarantine,
}

/// The paths of one state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    state_dir: PathBuf,
}

impl Layout {
    /// The layout under the gateway's state directory.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned() }
    }

    /// The gateway's state directory itself.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The directory of a place.
    #[must_use]
    pub fn directory(&self, place: Place) -> PathBuf {
        match place {
            Place::Checkpoints => self.state_dir.join("sessions").join("checkpoints"),
            Place::State => self.state_dir.join("tideover"),
            Place::Outbox => self.state_dir.join("tideover").join("outbox"),
            Place::Incidents => self.state_dir.join("tideover").join("incidents"),
            Place::QueueClaimed => self.queue("claimed"),
            Place::QueueKept => self.queue("kept"),
            Place::QueueSettled => self.queue("settled"),
            Place::QueueDropped => self.queue("dropped"),
            Place::QueueQuarantine => self.queue("quarantine"),
        }
    }

    fn queue(&self, name: &str) -> PathBuf {
        self.state_dir.join("tideover").join("queue").join(name)
    }

    /// Where unreadable checkpoints are set aside.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.directory(Place::Checkpoints).join("quarantine")
    }
}
