//! What is not done, why, and what to do instead.

use std::path::PathBuf;

/// Why a unit is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A name that systemd would not take.
    #[error(
        "{name:?} is not the name of a service unit; `systemctl --user list-unit-files '*openclaw*'` lists them"
    )]
    UnitName {
        /// The name.
        name: String,
    },
    /// No user manager answers.
    #[error(
        "no user service manager answers ({reason}); log in as the user itself (not with su or sudo) or run \
         `loginctl enable-linger` and `export XDG_RUNTIME_DIR=/run/user/$(id -u)`; without a unit: `tideover install --no-unit`"
    )]
    NoManager {
        /// What systemctl said.
        reason: String,
    },
    /// No such unit.
    #[error(
        "there is no unit {unit}; run `openclaw gateway install` first, name another with --unit, or go without a \
         unit: `tideover install --no-unit`"
    )]
    NoUnit {
        /// The unit.
        unit: String,
    },
    /// It is masked, broken, or not the user's own.
    #[error("{unit} {reason}; run `{command}` and try again")]
    Sealed {
        /// The unit.
        unit: String,
        /// Why.
        reason: String,
        /// What to do.
        command: String,
    },
    /// Somebody's drop-in stands against ours.
    #[error(
        "{path} sets {key}=, which is tideover's to set; remove it there (`systemctl --user edit --full {unit}` \
         shows the unit, `rm {path}` removes the file), run `systemctl --user daemon-reload` and try again",
        path = path.display()
    )]
    DropIn {
        /// The unit.
        unit: String,
        /// The drop-in.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A file of ours is not ours.
    #[error("{path} is not tideover's own; move it away: `mv {path} {path}.old`", path = path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The unit's command is not understood.
    #[error(
        "the ExecStart= of {unit} {reason}; write the unit anew: `openclaw gateway install --force`"
    )]
    Command {
        /// The unit.
        unit: String,
        /// Why.
        reason: String,
    },
    /// A wrapper's unit names neither node nor entry script, and neither does the configuration.
    #[error(
        "{unit} runs the wrapper {wrapper}, so that neither node nor OpenClaw's entry script can be told from it; \
         name them in {config}: [gateway] command = [\"/path/to/node\", \"/path/to/openclaw/dist/index.js\"]",
        config = config.display()
    )]
    NoCommand {
        /// The unit.
        unit: String,
        /// The wrapper.
        wrapper: String,
        /// tideover's configuration.
        config: PathBuf,
    },
    /// Node or entry script do not run.
    #[error(
        "the gateway's own command does not run: {reason}; run `openclaw gateway install --force` with a node that \
         OpenClaw supports, and try again"
    )]
    Unusable {
        /// What happened.
        reason: String,
    },
    /// The gateway's state is not where the options say.
    #[error("{unit} keeps its state in {unit_dir}, not in {named}; leave --state-dir and --profile away, or name the unit with --unit",
        unit_dir = unit_dir.display(), named = named.display())]
    StateDir {
        /// The unit.
        unit: String,
        /// What the unit says.
        unit_dir: PathBuf,
        /// What the options say.
        named: PathBuf,
    },
    /// A record that is not understood.
    #[error("{path} is not a record of this version; move it away: `mv {path} {path}.old`", path = path.display())]
    Record {
        /// The record.
        path: PathBuf,
    },
}
