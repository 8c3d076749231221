//! `tideover gateway …` and `tideover run -- …`: be the gateway's parent, then leave as it left.

use std::ffi::OsString;

use crate::config;
use crate::gateway::launch::{self, EnvSnapshot, GatewayCommand};
use crate::gateway::paths;
use crate::supervise::{RunPlan, leave_like, run as supervise};
use crate::telemetry;

use super::context::{Context, environment};
use super::exit_code;

/// Whether these words are a wrapper's: `gateway …`, or an entry script and `gateway …`.
pub(super) fn is_wrapper_argv(words: &[OsString]) -> bool {
    match words {
        [first, second, ..] => {
            first == "gateway" || (second == "gateway" && first.as_encoded_bytes().contains(&b'/'))
        }
        [first] => first == "gateway",
        [] => false,
    }
}

/// Wrapper mode.
pub(super) fn gateway(words: &[OsString]) -> i32 {
    telemetry::start();
    let env = environment();
    let config = load(&env);
    match launch::command(words, config.settings.gateway.command.as_deref(), &env) {
        Ok(command) => start(command, env, config),
        Err(error) => no_child(&error.to_string()),
    }
}

/// An explicit command.
pub(super) fn run(command: Vec<OsString>) -> i32 {
    telemetry::start();
    let env = environment();
    let config = load(&env);
    match command.split_first() {
        Some((program, args)) => {
            let command = GatewayCommand { program: program.into(), args: args.to_vec() };
            start(command, env, config)
        }
        None => no_child("no command after `--`; try `tideover run -- openclaw gateway`"),
    }
}

/// The configuration that a gateway started from this environment has.
pub(super) fn load(env: &EnvSnapshot) -> config::Loaded {
    match config::default_path(|name| env.get(&OsString::from(name)).cloned()) {
        Some(path) => config::load(&path),
        None => {
            config::Loaded { settings: config::Settings::default(), source: None, problem: None }
        }
    }
}

fn start(command: GatewayCommand, env: EnvSnapshot, config: config::Loaded) -> i32 {
    let context = match Context::resolve(&env, &command.args) {
        Ok(context) => context,
        Err(error) => return no_child(&error.to_string()),
    };
    let is_gateway = command.args.iter().any(|word| word == "gateway");
    let configured = || paths::configured_port(&context.paths.config_file);
    let plan = RunPlan {
        is_gateway,
        port: paths::port(&env, &command.args, configured),
        program: command.program.into_os_string(),
        args: command.args,
        socket: context.socket(),
        state_dir: context.paths.state_dir,
        env,
        config,
    };
    let end = supervise(plan);
    telemetry::finish();
    match end {
        Ok(end) => leave_like(end),
        Err(error) => no_child(&error.to_string()),
    }
}

fn no_child(why: &str) -> i32 {
    eprintln!("tideover: {why}");
    exit_code::NO_CHILD
}
