//! Where OpenClaw keeps its state and its configuration.
//!
//! The order below is what both 2026.5.5 and 2026.9.6 do (their `config/paths` and
//! `cli/profile` modules):
//!
//! * `--profile NAME` (or `--dev`) on the command line sets `OPENCLAW_STATE_DIR` to
//!   `~/.openclaw-NAME` unless that variable is already set. `OPENCLAW_PROFILE` in the environment
//!   alone names services and does *not* move the state directory; a unit that
//!   `gateway install --profile` wrote therefore carries `OPENCLAW_STATE_DIR` as well.
//! * The state directory is `OPENCLAW_STATE_DIR`, else `.openclaw` in the home, else an existing
//!   `.clawdbot` there (the program's former name).
//! * The home is `OPENCLAW_HOME` (a leading `~` means `HOME`), else `HOME`.
//! * The configuration is `OPENCLAW_CONFIG_PATH`, else `openclaw.json` in the state directory,
//!   else an existing `clawdbot.json` there.

use std::ffi::OsStr;
use std::path::{Path, PathBuf, absolute};

use super::launch::EnvSnapshot;

/// The port a gateway listens on when nothing names another.
pub const PORT_DEFAULT: u16 = 18789;
/// The name of OpenClaw's configuration file.
pub const CONFIG_NAME: &str = "openclaw.json";

const STATE_NAME: &str = ".openclaw";
const STATE_NAME_LEGACY: &str = ".clawdbot";
const CONFIG_NAME_LEGACY: &str = "clawdbot.json";
/// Largest configuration that is read for its port, in bytes.
const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Longest profile name that OpenClaw accepts.
const PROFILE_BYTES_MAX: usize = 64;

/// The places of one OpenClaw profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayPaths {
    /// The directory of mutable state; absolute, and it may not exist yet.
    pub state_dir: PathBuf,
    /// The configuration file; absolute, and it may not exist yet.
    pub config_file: PathBuf,
    /// The profile's name, `default` when none is selected. Safe as a file name.
    pub profile: String,
}

/// Why the places cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathsError {
    /// Neither a home nor a state directory is known.
    #[error("no home directory is known; set HOME or OPENCLAW_STATE_DIR")]
    NoHome,
    /// A relative path cannot be made absolute, because the working directory is gone.
    #[error("cannot make {path} absolute: the working directory is gone; give an absolute path", path = path.display())]
    NoWorkingDirectory {
        /// The relative path.
        path: PathBuf,
    },
}

impl GatewayPaths {
    /// Resolves the places for a gateway started with `env` and `args` (the words after the
    /// program, for `--profile NAME`, `--profile=NAME` and `--dev`).
    ///
    /// Looks at the disk only to prefer an existing directory or file of the former name.
    pub fn resolve(env: &EnvSnapshot, args: &[impl AsRef<OsStr>]) -> Result<Self, PathsError> {
        let selected = profile_argument(args);
        let state_dir = match (text(env, "OPENCLAW_STATE_DIR"), &selected) {
            (Some(path), _) => user_path(&path, env)?,
            (None, Some(profile)) => home(env)?.join(state_name(profile)),
            (None, None) => {
                let home = home(env)?;
                existing([home.join(STATE_NAME), home.join(STATE_NAME_LEGACY)])
            }
        };
        let config_file = match text(env, "OPENCLAW_CONFIG_PATH") {
            Some(path) => user_path(&path, env)?,
            None if selected.is_some() => state_dir.join(CONFIG_NAME),
            None => existing([state_dir.join(CONFIG_NAME), state_dir.join(CONFIG_NAME_LEGACY)]),
        };
        let profile = selected
            .or_else(|| text(env, "OPENCLAW_PROFILE").filter(|name| is_profile_name(name)))
            .unwrap_or_else(|| "default".to_owned());
        Ok(Self { state_dir, config_file, profile })
    }

    /// tideover's own directory below the state directory.
    pub fn tideover_dir(&self) -> PathBuf {
        self.state_dir.join("tideover")
    }
}

/// The port the gateway will listen on: `--port` in `args`, else `OPENCLAW_GATEWAY_PORT`, else
/// `configured` (`gateway.port` of the configuration, read only then), else the default.
pub fn port(
    env: &EnvSnapshot,
    args: &[impl AsRef<OsStr>],
    configured: impl FnOnce() -> Option<u16>,
) -> u16 {
    argument(args, "--port")
        .and_then(|value| value.parse().ok())
        .or_else(|| text(env, "OPENCLAW_GATEWAY_PORT").and_then(|value| port_value(&value)))
        .or_else(configured)
        .filter(|port| *port > 0)
        .unwrap_or(PORT_DEFAULT)
}

/// `gateway.port` of OpenClaw's configuration; `None` where it names none or cannot be read.
pub fn configured_port(config_file: &Path) -> Option<u16> {
    let file = std::fs::File::open(config_file).ok()?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(file, CONFIG_BYTES_MAX), &mut text)
        .ok()?;
    let config: serde_json::Value =
        jsonc_parser::parse_to_serde_value(&text, &jsonc_parser::ParseOptions::default()).ok()?;
    config.get("gateway")?.get("port")?.as_u64().and_then(|port| u16::try_from(port).ok())
}

/// A port as OpenClaw reads it from the environment: `18789`, `host:18789` or `[::1]:18789`.
fn port_value(value: &str) -> Option<u16> {
    let digits = value.rsplit_once(':').map_or(value, |(_, port)| port);
    digits.parse().ok().filter(|port| *port > 0)
}

/// The profile that the command line selects; later words win, as in OpenClaw.
fn profile_argument(args: &[impl AsRef<OsStr>]) -> Option<String> {
    let dev = args.iter().any(|arg| arg.as_ref() == "--dev").then(|| "dev".to_owned());
    argument(args, "--profile")
        .map(|name| name.trim().to_owned())
        .or(dev)
        .filter(|name| is_profile_name(name))
}

/// The value of `--name VALUE` or `--name=VALUE`, up to a `--`.
fn argument(args: &[impl AsRef<OsStr>], name: &str) -> Option<String> {
    let mut found = None;
    let mut words = args.iter().map(|arg| arg.as_ref().to_string_lossy());
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        if word == name {
            found = words.next().map(|value| value.into_owned());
        } else if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('='))
        {
            found = Some(value.to_owned());
        }
    }
    found
}

fn state_name(profile: &str) -> String {
    if profile.eq_ignore_ascii_case("default") {
        STATE_NAME.to_owned()
    } else {
        format!("{STATE_NAME}-{profile}")
    }
}

fn is_profile_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= PROFILE_BYTES_MAX
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The home that OpenClaw uses. The words `undefined` and `null` count as unset: they are what a
/// careless script puts there.
fn home(env: &EnvSnapshot) -> Result<PathBuf, PathsError> {
    let set = |name| text(env, name).filter(|value| value != "undefined" && value != "null");
    let os_home = set("HOME").or_else(|| set("USERPROFILE"));
    let home = match (set("OPENCLAW_HOME"), os_home) {
        (Some(path), os_home) => match (tilde_rest(&path), os_home) {
            (Some(rest), Some(os_home)) => format!("{os_home}{rest}"),
            (Some(_), None) => return Err(PathsError::NoHome),
            (None, _) => path,
        },
        (None, Some(os_home)) => os_home,
        (None, None) => return Err(PathsError::NoHome),
    };
    make_absolute(Path::new(&home))
}

fn user_path(path: &str, env: &EnvSnapshot) -> Result<PathBuf, PathsError> {
    match tilde_rest(path) {
        Some(rest) => Ok(home(env)?.join(rest.trim_start_matches(['/', '\\']))),
        None => make_absolute(Path::new(path)),
    }
}

/// What follows a leading `~` that stands for the home.
fn tilde_rest(path: &str) -> Option<&str> {
    path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with(['/', '\\']))
}

fn make_absolute(path: &Path) -> Result<PathBuf, PathsError> {
    absolute(path).map_err(|_| PathsError::NoWorkingDirectory { path: path.to_owned() })
}

/// The first of two paths unless only the second exists.
fn existing([preferred, legacy]: [PathBuf; 2]) -> PathBuf {
    if !preferred.exists() && legacy.exists() { legacy } else { preferred }
}

/// A variable as OpenClaw reads it: trimmed, and unset when empty.
fn text(env: &EnvSnapshot, name: &str) -> Option<String> {
    let value = env.get(OsStr::new(name))?.to_string_lossy();
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> EnvSnapshot {
        vars.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn state_configuration_and_profile() {
        type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], [&'a str; 3]);
        let h = ("HOME", "/nowhere");
        let table: &[Row<'_>] = &[
            (&[h], &[], ["/nowhere/.openclaw", "/nowhere/.openclaw/openclaw.json", "default"]),
            (&[h, ("OPENCLAW_STATE_DIR", "/s")], &[], ["/s", "/s/openclaw.json", "default"]),
            (
                &[h, ("OPENCLAW_STATE_DIR", "~/s ")],
                &[],
                ["/nowhere/s", "/nowhere/s/openclaw.json", "default"],
            ),
            (
                &[h, ("OPENCLAW_STATE_DIR", " ")],
                &[],
                ["/nowhere/.openclaw", "/nowhere/.openclaw/openclaw.json", "default"],
            ),
            (
                &[h, ("OPENCLAW_HOME", "/o")],
                &[],
                ["/o/.openclaw", "/o/.openclaw/openclaw.json", "default"],
            ),
            (
                &[h, ("OPENCLAW_HOME", "~/o")],
                &[],
                ["/nowhere/o/.openclaw", "/nowhere/o/.openclaw/openclaw.json", "default"],
            ),
            (
                &[h, ("OPENCLAW_HOME", "undefined")],
                &[],
                ["/nowhere/.openclaw", "/nowhere/.openclaw/openclaw.json", "default"],
            ),
            (
                &[h, ("OPENCLAW_CONFIG_PATH", "/c/x.json")],
                &[],
                ["/nowhere/.openclaw", "/c/x.json", "default"],
            ),
            (
                &[h, ("OPENCLAW_PROFILE", "work")],
                &[],
                ["/nowhere/.openclaw", "/nowhere/.openclaw/openclaw.json", "work"],
            ),
            (
                &[h],
                &["gateway", "--profile", "work"],
                ["/nowhere/.openclaw-work", "/nowhere/.openclaw-work/openclaw.json", "work"],
            ),
            (
                &[h],
                &["--profile=Default", "gateway"],
                ["/nowhere/.openclaw", "/nowhere/.openclaw/openclaw.json", "Default"],
            ),
            (
                &[h],
                &["--dev", "gateway"],
                ["/nowhere/.openclaw-dev", "/nowhere/.openclaw-dev/openclaw.json", "dev"],
            ),
            (
                &[h, ("OPENCLAW_STATE_DIR", "/s")],
                &["--profile", "work"],
                ["/s", "/s/openclaw.json", "work"],
            ),
            (
                &[h],
                &["--profile", "../x"],
                ["/nowhere/.openclaw", "/nowhere/.openclaw/openclaw.json", "default"],
            ),
            (
                &[h],
                &["--", "--profile", "work"],
                ["/nowhere/.openclaw", "/nowhere/.openclaw/openclaw.json", "default"],
            ),
        ];
        for (vars, args, [state, config, profile]) in table {
            let paths = GatewayPaths::resolve(&env(vars), args).unwrap();
            let want = GatewayPaths {
                state_dir: state.into(),
                config_file: config.into(),
                profile: (*profile).to_owned(),
            };
            assert_eq!(paths, want, "{vars:?} {args:?}");
        }
        let none: [&str; 0] = [];
        assert_eq!(GatewayPaths::resolve(&env(&[]), &none), Err(PathsError::NoHome));
    }

    #[test]
    fn a_former_name_counts_only_where_the_new_one_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path();
        std::fs::create_dir(home.join(".clawdbot")).unwrap();
        std::fs::write(home.join(".clawdbot/clawdbot.json"), "{}").unwrap();
        let none: [&str; 0] = [];
        let vars = env(&[("HOME", home.to_str().unwrap())]);
        let paths = GatewayPaths::resolve(&vars, &none).unwrap();
        assert_eq!(paths.config_file, home.join(".clawdbot/clawdbot.json"));
        std::fs::create_dir(home.join(".openclaw")).unwrap();
        let paths = GatewayPaths::resolve(&vars, &none).unwrap();
        assert_eq!(paths.config_file, home.join(".openclaw/openclaw.json"));
    }

    #[test]
    fn the_port() {
        let none: &[&str] = &[];
        let with = [("OPENCLAW_GATEWAY_PORT", "127.0.0.1:3")];
        assert_eq!(port(&env(&[]), none, || None), PORT_DEFAULT);
        assert_eq!(port(&env(&[]), none, || Some(2)), 2);
        assert_eq!(port(&env(&with), none, || Some(2)), 3);
        assert_eq!(port(&env(&with), &["gateway", "--port", "4"], || Some(2)), 4);
        assert_eq!(port(&env(&[]), &["--port=0"], || None), PORT_DEFAULT);
    }
}
