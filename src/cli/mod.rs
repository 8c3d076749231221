//! The command line: one file per verb. Errors are told here, with the next command in each.

mod args;
mod context;
mod doctor;
mod drill;
mod flush;
mod install;
mod install_unit;
mod output;
mod queue;
mod report;
mod resume;
mod sessions;
mod shell;
mod status;
mod wrapper;

use std::ffi::OsString;

use clap::Parser as _;

use args::{Cli, Verb};
use output::Failure;

/// Exit codes (design §4). In `gateway` and `run` the child's own status is the only other answer.
pub mod exit_code {
    /// Done.
    pub const OK: i32 = 0;
    /// Failed.
    pub const FAILED: i32 = 1;
    /// The command line is wrong.
    pub const USAGE: i32 = 2;
    /// No supervisor runs.
    pub const NOT_RUNNING: i32 = 3;
    /// No such session.
    pub const NOT_FOUND: i32 = 4;
    /// It needs a confirmation, or may not be done now.
    pub const REFUSED: i32 = 5;
    /// `gateway` or `run`: nothing could be started.
    pub const NO_CHILD: i32 = 69;
}

/// Runs one command line to its exit code.
#[must_use]
pub fn main(argv: Vec<OsString>) -> i32 {
    let words = argv.get(1..).unwrap_or_default();
    if wrapper::is_wrapper_argv(words) {
        return wrapper::gateway(words);
    }
    let cli = match Cli::try_parse_from(&argv) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { exit_code::USAGE } else { exit_code::OK };
            // Help and version are answers; a closed pipe is not worth a complaint.
            let _ = error.print();
            return code;
        }
    };
    let misplaced = cli.global.profile.is_some() || cli.global.state_dir.is_some();
    if misplaced && matches!(cli.verb, Verb::Run(_) | Verb::Gateway { .. }) {
        eprintln!(
            "tideover: --profile and --state-dir are for the other verbs; give the gateway its own: \
             tideover run -- openclaw --profile NAME gateway, or OPENCLAW_STATE_DIR=DIR tideover run -- …"
        );
        return exit_code::USAGE;
    }
    let done = match cli.verb {
        Verb::Run(run) => return wrapper::run(run.command),
        Verb::Gateway { words } => {
            return wrapper::gateway(&[vec!["gateway".into()], words].concat());
        }
        Verb::Status(status) => status::run(&cli.global, &status),
        Verb::Sessions(sessions) => sessions::run(&cli.global, &sessions),
        Verb::Resume(resume) => resume::run(&cli.global, &resume),
        Verb::Drill(drill) => drill::run(&cli.global, &drill),
        Verb::Doctor(doctor) => doctor::run(&cli.global, &doctor),
        Verb::Report(report) => report::run(&cli.global, &report),
        Verb::Queue(queue) => queue::run(&cli.global, &queue),
        Verb::Outbox(outbox) => queue::outbox(&cli.global, &outbox),
        Verb::Flush => flush::run(&cli.global),
        Verb::Install(install) => install::install(&cli.global, &install),
        Verb::Uninstall(uninstall) => install::uninstall(&cli.global, &uninstall),
        Verb::Completions { shell } => shell::completions(shell),
        Verb::Man { out } => shell::man(out.as_deref()),
    };
    match done {
        Ok(()) => exit_code::OK,
        Err(failure) => report(&failure, cli.global.json),
    }
}

fn report(failure: &Failure, json: bool) -> i32 {
    if json {
        output::print_json(&failure.document());
    }
    eprintln!("tideover: {}", failure.message());
    failure.code
}
