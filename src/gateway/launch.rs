//! From tideover's own argv and environment to the gateway's.
//!
//! A unit written by `openclaw gateway install --wrapper` calls the wrapper with
//! `gateway --port N` only: neither the node program nor OpenClaw's entry file is named, and the
//! unit's PATH may hold neither (measured on 2026.9.6). That is why the configuration can name them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The environment as it was at one moment.
pub type EnvSnapshot = BTreeMap<OsString, OsString>;

/// The variable that names tideover's control socket to the plugin.
pub const SOCKET_VARIABLE: &str = "TIDEOVER_SOCKET";

/// Variables of systemd's notification protocol. They are meant for tideover; a gateway that
/// answered them, or handed them to its own children, would speak in tideover's name.
const NOTIFY_VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Any of these tells a gateway that a supervisor starts it again after it exits. Without one it
/// restarts itself by a detached process that would leave tideover behind (2026.5.5).
const SUPERVISOR_VARIABLES: [&str; 5] = [
    "OPENCLAW_SYSTEMD_UNIT",
    "INVOCATION_ID",
    "SYSTEMD_EXEC_PID",
    "JOURNAL_STREAM",
    "OPENCLAW_SUPERVISOR_MODE",
];

/// Tells a gateway to restart inside its own process.
const NO_RESPAWN_VARIABLE: &str = "OPENCLAW_NO_RESPAWN";

/// Names of OpenClaw's entry file that a command line may hold.
const ENTRY_NAMES: [&str; 5] = ["index.js", "index.mjs", "openclaw.mjs", "entry.js", "entry.mjs"];

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayCommand {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Its arguments, without the program's own name.
    pub args: Vec<OsString>,
}

/// What to change in the environment before the gateway starts; the rest is passed on untouched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnvPlan {
    /// Names to remove; only those that are set.
    pub remove: Vec<OsString>,
    /// Names to set.
    pub set: Vec<(OsString, OsString)>,
}

/// Why no command can be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The command line is neither `gateway …` nor `ENTRY gateway …`.
    #[error(
        "expected `gateway` or `ENTRY gateway`, where ENTRY is OpenClaw's dist/index.js or \
         openclaw.mjs, not {word:?}; to run another command use `tideover run -- COMMAND`"
    )]
    NotAGateway {
        /// The first word that does not fit.
        word: String,
    },
    /// A program is on no directory of PATH.
    #[error(
        "cannot find {name} on PATH ({path:?}); install it there, or name it in [gateway] command \
         of the configuration (`tideover install` does that)"
    )]
    NotOnPath {
        /// The program's name.
        name: &'static str,
        /// The PATH that was searched.
        path: String,
    },
    /// The entry file named on the command line does not exist.
    #[error("no OpenClaw entry file at {path}; check the path in the unit, or run `tideover doctor`", path = path.display())]
    NoEntry {
        /// The path as given.
        path: PathBuf,
    },
    /// The configured program cannot be executed.
    #[error(
        "[gateway] command names {path}, which is not an executable file; name node and \
         OpenClaw's entry script there as they are now",
        path = path.display()
    )]
    NotExecutable {
        /// The configured program.
        path: PathBuf,
    },
}

/// Builds the gateway's command from the words after `tideover` (`[ENTRY] gateway [ARGS…]`).
///
/// `configured` is `[gateway] command`. With an ENTRY the node program is the configured one when
/// the configured command is `node … file`, else `node` on PATH. Without one the configured
/// command is used as it stands, else `openclaw` on PATH. The words from `gateway` on are passed
/// through unchanged.
pub fn command(
    argv: &[OsString],
    configured: Option<&[String]>,
    env: &EnvSnapshot,
) -> Result<GatewayCommand, LaunchError> {
    let (entry, rest) = match argv {
        [first, ..] if first == "gateway" => (None, argv),
        [entry, second, ..] if second == "gateway" && is_entry(entry) => {
            (Some(Path::new(entry)), argv.get(1..).unwrap_or_default())
        }
        [first, ..] => {
            return Err(LaunchError::NotAGateway { word: first.to_string_lossy().into_owned() });
        }
        [] => {
            return Err(LaunchError::NotAGateway { word: String::new() });
        }
    };
    let configured = configured.and_then(<[String]>::split_first);
    let (program, mut args) = match (entry, configured) {
        (Some(entry), configured) => with_entry(entry, configured, env)?,
        (None, Some((program, leading))) => {
            let program = PathBuf::from(program);
            if !is_executable(&program) {
                return Err(LaunchError::NotExecutable { path: program });
            }
            (program, leading.iter().map(OsString::from).collect())
        }
        (None, None) => (on_path("openclaw", env)?, Vec::new()),
    };
    args.extend(rest.iter().cloned());
    Ok(GatewayCommand { program, args })
}

fn with_entry(
    entry: &Path,
    configured: Option<(&String, &[String])>,
    env: &EnvSnapshot,
) -> Result<(PathBuf, Vec<OsString>), LaunchError> {
    if !entry.is_file() {
        return Err(LaunchError::NoEntry { path: entry.to_owned() });
    }
    // Node's own options (a heap size, say) stand between the program and its entry file.
    let node = configured.and_then(|(program, leading)| {
        let (last, options) = leading.split_last()?;
        is_entry(OsStr::new(last)).then(|| (PathBuf::from(program), options))
    });
    let (program, options) = match node {
        Some((program, options)) if is_executable(&program) => (program, options),
        Some((program, _)) => return Err(LaunchError::NotExecutable { path: program }),
        None => (on_path("node", env)?, [].as_slice()),
    };
    let mut args: Vec<OsString> = options.iter().map(OsString::from).collect();
    args.push(entry.into());
    Ok((program, args))
}

/// What to change in the environment `env` for a gateway whose plugin reports to `socket`;
/// `None` when there is no control socket, so that a stale inherited name is removed.
pub fn env_plan(env: &EnvSnapshot, socket: Option<&Path>) -> EnvPlan {
    let is_set = |name: &&str| env.get(OsStr::new(name)).is_some_and(|value| !value.is_empty());
    let present = |name: &&str| env.contains_key(OsStr::new(name));
    let mut plan = EnvPlan {
        remove: NOTIFY_VARIABLES.iter().filter(|name| present(name)).map(OsString::from).collect(),
        set: Vec::new(),
    };
    match socket {
        Some(path) => plan.set.push((SOCKET_VARIABLE.into(), path.into())),
        None if present(&SOCKET_VARIABLE) => plan.remove.push(SOCKET_VARIABLE.into()),
        None => {}
    }
    if !SUPERVISOR_VARIABLES.iter().any(is_set) {
        plan.set.push((NO_RESPAWN_VARIABLE.into(), "1".into()));
    }
    plan
}

/// Whether a word is a path to one of OpenClaw's entry files, judged by its name.
pub(super) fn is_entry(word: &OsStr) -> bool {
    let path = Path::new(word);
    let named = path.file_name().is_some_and(|name| ENTRY_NAMES.iter().any(|entry| name == *entry));
    named && word.as_encoded_bytes().contains(&b'/')
}

fn on_path(name: &'static str, env: &EnvSnapshot) -> Result<PathBuf, LaunchError> {
    let path = env.get(OsStr::new("PATH")).cloned().unwrap_or_default();
    std::env::split_paths(&path)
        // An empty or relative entry would make the program depend on the working directory.
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| LaunchError::NotOnPath { name, path: path.to_string_lossy().into_owned() })
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    /// A directory with executables `node`, `openclaw` and `node-22`, and an entry file.
    fn lab() -> (tempfile::TempDir, EnvSnapshot, String) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["node", "openclaw", "node-22"] {
            std::fs::write(dir.path().join(name), "#!/bin/sh\n").unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(dir.path().join(name), mode).unwrap();
        }
        std::fs::create_dir(dir.path().join("dist")).unwrap();
        std::fs::write(dir.path().join("dist/index.js"), "").unwrap();
        let root = dir.path().to_str().unwrap().to_owned();
        let env = EnvSnapshot::from([("PATH".into(), format!(":rel:/nowhere:{root}").into())]);
        (dir, env, root)
    }

    #[test]
    fn commands() {
        let (_dir, env, root) = lab();
        let at = |name: &str| format!("{root}/{name}");
        let entry = at("dist/index.js");
        let configured = vec![at("node-22"), "--max-old-space-size=9".to_owned(), entry.clone()];
        let wrapper = vec![at("openclaw")];
        type Row<'a> = (&'a [&'a str], Option<&'a [String]>, &'a str, &'a [&'a str]);
        let table: &[Row<'_>] = &[
            (&["gateway", "--port", "1"], None, "openclaw", &["gateway", "--port", "1"]),
            (
                &["gateway"],
                Some(&configured),
                "node-22",
                &["--max-old-space-size=9", &entry, "gateway"],
            ),
            (&[&entry, "gateway", "run"], None, "node", &[&entry, "gateway", "run"]),
            (
                &[&entry, "gateway"],
                Some(&configured),
                "node-22",
                &["--max-old-space-size=9", &entry, "gateway"],
            ),
            (&[&entry, "gateway"], Some(&wrapper), "node", &[&entry, "gateway"]),
        ];
        for (argv, configured, program, args) in table {
            let built = command(&words(argv), *configured, &env).unwrap();
            assert_eq!(built.program, Path::new(&root).join(program), "{argv:?}");
            assert_eq!(built.args, words(args), "{argv:?}");
        }
    }

    #[test]
    fn refusals_name_what_was_looked_for_and_the_next_step() {
        let (_dir, env, root) = lab();
        let missing = format!("{root}/other/index.js");
        let plain = vec![format!("{root}/dist/index.js")];
        type Row<'a> = (&'a [&'a str], Option<&'a [String]>, &'a EnvSnapshot, &'a str);
        let empty = EnvSnapshot::new();
        let table: &[Row<'_>] = &[
            (&[], None, &env, "ENTRY gateway"),
            (&["status"], None, &env, "\"status\""),
            (&["index.js", "gateway"], None, &env, "\"index.js\""),
            (&[&missing, "gateway"], None, &env, "tideover doctor"),
            (&["gateway"], None, &empty, "cannot find openclaw on PATH"),
            (&["gateway"], Some(&plain), &env, "not an executable file"),
        ];
        for (argv, configured, env, want) in table {
            let message = command(&words(argv), *configured, env).unwrap_err().to_string();
            assert!(message.contains(want), "{argv:?}: {message}");
        }
    }

    #[test]
    fn environment_rules() {
        let socket = ("TIDEOVER_SOCKET", "/s");
        let no_respawn = ("OPENCLAW_NO_RESPAWN", "1");
        type Row<'a> = (&'a [&'a str], bool, &'a [&'a str], &'a [(&'a str, &'a str)]);
        let table: &[Row<'_>] = &[
            (&[], true, &[], &[socket, no_respawn]),
            (&[], false, &[], &[no_respawn]),
            (&["TIDEOVER_SOCKET=/old"], false, &["TIDEOVER_SOCKET"], &[no_respawn]),
            (
                &["NOTIFY_SOCKET=/n", "WATCHDOG_USEC=1", "WATCHDOG_PID=2", "INVOCATION_ID=a"],
                true,
                &["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"],
                &[socket],
            ),
            (&["NOTIFY_SOCKET="], true, &["NOTIFY_SOCKET"], &[socket, no_respawn]),
            (&["OPENCLAW_SYSTEMD_UNIT=u"], true, &[], &[socket]),
            (&["SYSTEMD_EXEC_PID=1"], true, &[], &[socket]),
            (&["JOURNAL_STREAM=1:2"], true, &[], &[socket]),
            (&["OPENCLAW_SUPERVISOR_MODE=external"], true, &[], &[socket]),
            (&["INVOCATION_ID="], true, &[], &[socket, no_respawn]),
            (&["HOME=/h", "PATH=/bin"], true, &[], &[socket, no_respawn]),
        ];
        for (vars, with_socket, remove, set) in table {
            let split = |var: &&str| var.split_once('=').map(|(k, v)| (k.into(), v.into()));
            let env: EnvSnapshot = vars.iter().filter_map(split).collect();
            let plan = env_plan(&env, with_socket.then(|| Path::new("/s")));
            assert_eq!(plan.remove, words(remove), "{vars:?}");
            let set: Vec<_> = set.iter().map(|(k, v)| (k.into(), v.into())).collect();
            assert_eq!(plan.set, set, "{vars:?}");
        }
    }
}
