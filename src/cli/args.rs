//! The words of the command line, and the help that teaches them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Carries OpenClaw agents over a gateway restart.
#[derive(Debug, Parser)]
#[command(
    name = "tideover",
    version,
    about = "Carries OpenClaw agents over a gateway restart",
    long_about = "Carries OpenClaw agents over a gateway restart.\n\n\
        tideover runs the gateway as its child. Before a tool runs, the session's task and the call with \
        its arguments are on disk. After a restart the interrupted sessions are found, their user is told \
        once, and nothing with side effects runs there until the user has spoken.",
    after_long_help = "Start here:\n  \
        tideover install --dry-run                       what it would change\n  \
        tideover install                                 put the gateway's user service under tideover\n  \
        tideover status                                  what it knows\n  \
        tideover drill                                   rehearse a restart in a scratch home\n\n\
        Exit codes: 0 ok, 1 failed, 2 usage, 3 not running, 4 not found, 5 refused.\n\
        `gateway` and `run` exit exactly as the gateway does; 69 when nothing could be started."
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Print JSON in place of text.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// The OpenClaw profile (its state is ~/.openclaw-NAME).
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) profile: Option<String>,
    /// The gateway's state directory, in place of $OPENCLAW_STATE_DIR or ~/.openclaw.
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run a command as the supervised gateway: `tideover run -- openclaw gateway --port 18789`.
    Run(Run),
    /// Wrapper mode, what a unit's ExecStart calls: `tideover [ENTRY] gateway [ARGS…]`.
    #[command(disable_help_flag = true)]
    Gateway {
        /// Passed on to the gateway unchanged.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Rehearse a restart on a real gateway in a scratch home, with a mock model and a mock Telegram.
    Drill(Drill),
    /// What the supervisor knows: gateway, sessions in flight, holds, notices, degraded reasons.
    Status(Status),
    /// The checkpoints: list, show one, lift a hold, drop one.
    Sessions(Sessions),
    /// Show what was interrupted in a session and, on your word, have the gateway run it again, once.
    Resume(Resume),
    /// What waits in the gateway's own delivery queue: list, show one, try it again, drop it.
    Queue(QueueCommand),
    /// Our own notices to users: list them, or try those again that have failed.
    Outbox(Outbox),
    /// Make every open checkpoint durable now.
    Flush,
    /// Check everything tideover needs; each finding comes with its fix.
    Doctor(Doctor),
    /// How the last runs ended that did not end in good order, or that left work cut.
    Report(Report),
    /// Put the gateway's user service under tideover: unit, drop-in, plugin and configuration.
    Install(Install),
    /// Take all of it out again; unit and configurations get their bytes back.
    Uninstall(Uninstall),
    /// Print a completion script: bash, zsh or fish.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write the pages of all verbs.
    Man {
        /// Write one page for each verb into this directory.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The command, after `--`.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Scenarios: sigterm-mid-tool, sigkill-gateway, resume, sigkill-tideover, sigkill-both, \
    idle-restart, background-command, two-sessions; `all` plays them one after the other.\n\
    Needs Node with npm; what is missing is fetched once into the cache ($TIDEOVER_CACHE, \
    $XDG_CACHE_HOME/tideover or ~/.cache/tideover)."
)]
pub(super) struct Drill {
    /// Which OpenClaw: a version from npm, or the path of an installed package. Default: the one on
    /// PATH, else 2026.9.6.
    #[arg(long, value_name = "VERSION|PATH")]
    pub(super) openclaw: Option<String>,
    /// What to rehearse, or `all`.
    #[arg(long, value_name = "NAME", default_value = "sigterm-mid-tool")]
    pub(super) scenario: String,
    /// Keep the scratch home, with logs and what model and channel saw.
    #[arg(long)]
    pub(super) keep: bool,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Print again every second until interrupted.
    #[arg(long)]
    pub(super) watch: bool,
}

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// The gateway's user unit, where it has a name of its own.
    #[arg(long, value_name = "NAME")]
    pub(super) unit: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Report {
    /// How many incidents, the newest first.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) last: usize,
    /// Only those of this unit.
    #[arg(long, value_name = "NAME")]
    pub(super) unit: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Sessions {
    #[command(subcommand)]
    pub(super) verb: Option<SessionsVerb>,
}

#[derive(Debug, Subcommand)]
pub(super) enum SessionsVerb {
    /// Every checkpoint as a table (the default).
    List,
    /// One checkpoint as a timeline.
    Show {
        /// The session key, as `list` prints it.
        key: String,
    },
    /// Lift a hold: the session's tools run again.
    Release {
        /// The session key.
        key: String,
    },
    /// Drop a checkpoint.
    Forget {
        /// The session key.
        key: String,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Without a choice the facts are shown. Where `resume.confirm` asks for one more word (by default where \
    the outcome of the interrupted call is not known) nothing else happens and the exit code is 5; else the task goes \
    on.\n\
    Without a running gateway --done and --skip are recorded, and the hold is lifted; everything else needs it.\n\n\
    Exit codes: 0 begun or recorded; 1 it failed, and nothing runs unless it says that this is not known; 3 it needs the gateway, which \
    does not run; 4 no such session, or nothing was interrupted there; 5 it needs a choice, or cannot be done now: \
    dealt with before, under way, its command still runs, its arguments are not known."
)]
pub(super) struct Resume {
    /// The session key, as `tideover sessions list` prints it.
    pub(super) key: String,
    #[command(flatten)]
    pub(super) choice: ResumeChoice,
}

/// At most one of them.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct ResumeChoice {
    /// Run the interrupted call again, once, with identical parameters; one that has answered is gone on from.
    #[arg(long)]
    pub(super) yes: bool,
    /// It has happened: go on from there without running it.
    #[arg(long)]
    pub(super) done: bool,
    /// Drop it.
    #[arg(long)]
    pub(super) skip: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "An older gateway keeps its queue as files: tideover tries entries that stay behind, and each can be \
    tried again or dropped by hand. A newer one keeps it in its own database and tries entries itself; what it has \
    given up is listed, and can only be sent anew."
)]
pub(super) struct QueueCommand {
    #[command(subcommand)]
    pub(super) verb: Option<QueueVerb>,
}

#[derive(Debug, Subcommand)]
pub(super) enum QueueVerb {
    /// Every entry with its age, its tries, and what becomes of it next (the default).
    List,
    /// One entry.
    Show {
        /// The entry's id, or its beginning.
        id: String,
    },
    /// Make an entry due now, and count its tries anew; one that was given up or dropped comes back.
    Retry {
        /// The entry's id, or its beginning.
        id: String,
    },
    /// Take an entry out of the queue; it is moved aside, never deleted.
    Drop {
        /// The entry's id, or its beginning.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Outbox {
    #[command(subcommand)]
    pub(super) verb: Option<OutboxVerb>,
}

#[derive(Debug, Subcommand)]
pub(super) enum OutboxVerb {
    /// Every notice with its state (the default).
    List,
    /// Try failed notices again.
    Retry {
        /// Which one, as `list` prints it; every failed one if it is left out.
        key: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Install {
    /// Plugin and configuration only; the service unit is left alone.
    #[arg(long, conflicts_with = "unit")]
    pub(super) no_unit: bool,
    /// The gateway's user unit, where it is not the profile's usual one (openclaw-gateway[-PROFILE].service).
    #[arg(long, value_name = "NAME")]
    pub(super) unit: Option<String>,
    /// Show each file as a diff and each command, and do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct Uninstall {
    /// The gateway's user unit, where it is not the profile's usual one.
    #[arg(long, value_name = "NAME")]
    pub(super) unit: Option<String>,
    /// Show each file as a diff and each command, and do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
}
