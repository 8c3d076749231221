//! The mock tool's work: an effect that can be counted, kept in flight by a gate.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::checkpoint;
use super::error::{DrillError, Result};
use super::mock_model::ToolCall;
use super::progress::until;
use super::rig::TURN_MAX;

/// A shell script with an effect that can be counted, run by the model's `exec` calls.
///
/// It copies the checkpoint that is on disk at this moment, then has its effect (a line in the
/// marker file), then waits for the gate. So the copy proves what was durable before the effect.
#[derive(Debug, Clone)]
pub struct Work {
    script: PathBuf,
    snapshot: PathBuf,
    marker: PathBuf,
    gate: PathBuf,
}

impl Work {
    /// Ten minutes of waiting at the gate.
    const ROUNDS_MAX: u32 = 12_000;

    pub(super) fn create(dir: &Path, name: &str, checkpoint: &Path) -> Result<Self> {
        let file = |end: &str| dir.join(format!("{name}{end}"));
        let work = Self {
            script: file(".sh"),
            snapshot: file(".snapshot"),
            marker: file(".ran"),
            gate: file(".gate"),
        };
        let text = format!(
            "[ -e '{snapshot}' ] || cp '{checkpoint}' '{snapshot}' 2>/dev/null\n\
             echo ran >> '{marker}'\n\
             n=0\n\
             while [ ! -e '{gate}' ] && [ -d '{dir}' ] && [ $n -lt {rounds} ]; do\n\
             \x20 sleep 0.05; n=$((n+1))\n\
             done\n\
             echo done\n",
            snapshot = work.snapshot.display(),
            checkpoint = checkpoint.display(),
            marker = work.marker.display(),
            gate = work.gate.display(),
            dir = dir.display(),
            rounds = Self::ROUNDS_MAX,
        );
        std::fs::write(&work.script, text).map_err(DrillError::io("write", &work.script))?;
        Ok(work)
    }

    fn command(&self) -> String {
        format!("sh {}", self.script.display())
    }

    /// The call that stays in flight.
    #[must_use]
    pub fn call(&self) -> ToolCall {
        ToolCall::exec(self.command())
    }

    /// The call whose command goes on in the background while the tool returns.
    #[must_use]
    pub fn background_call(&self) -> ToolCall {
        let arguments = json!({"command": self.command(), "background": true});
        ToolCall::new("exec", arguments)
    }

    /// How often the effect has happened.
    #[must_use]
    pub fn runs(&self) -> usize {
        std::fs::read_to_string(&self.marker).map_or(0, |text| text.lines().count())
    }

    /// Waits for the `count`-th effect.
    ///
    /// # Errors
    /// A timeout with the number of effects.
    pub async fn await_effect(&self, count: usize) -> Result<()> {
        until("the tool's effect", TURN_MAX, || async {
            let runs = self.runs();
            if runs >= count { Ok(()) } else { Err(format!("{runs} of {count} effects")) }
        })
        .await
    }

    /// The checkpoint as it was on disk just before the first effect, or the first one since
    /// [`Self::forget_snapshot`].
    ///
    /// # Errors
    /// When the copy cannot be parsed.
    pub fn checkpoint_before_effect(&self) -> Result<Option<Value>> {
        checkpoint::read(&self.snapshot)
    }

    /// Has the next effect copy the checkpoint anew.
    ///
    /// # Errors
    /// When the copy cannot be removed.
    pub fn forget_snapshot(&self) -> Result<()> {
        remove(&self.snapshot)
    }

    /// Lets all runs, present and future ones, come to their end.
    ///
    /// # Errors
    /// When the gate's file cannot be made.
    pub fn open_gate(&self) -> Result<()> {
        std::fs::write(&self.gate, "").map_err(DrillError::io("create", &self.gate))
    }

    /// Closes the gate for further runs.
    ///
    /// # Errors
    /// When the gate's file cannot be removed.
    pub fn close_gate(&self) -> Result<()> {
        remove(&self.gate)
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DrillError::io("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
