//! Where this command's gateway keeps its state, and on which socket its supervisor answers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::control::client::{ANSWER_TIMEOUT, ClientError, ask};
use crate::control::socket;
use crate::core::canonical::sha256_hex;
use crate::core::stamp::Stamp;
use crate::gateway::launch::EnvSnapshot;
use crate::gateway::paths::{GatewayPaths, PathsError};
use crate::store::lease::{Asked, Lease, ask as ask_lease};
use crate::store::{Layout, Place};

use super::args::Global;
use super::exit_code;
use super::output::Failure;

/// The places of one gateway.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) paths: GatewayPaths,
    pub(super) layout: Layout,
    runtime_dir: Option<PathBuf>,
    profile_dir: String,
}

impl Context {
    /// For a verb, from its options.
    pub(super) fn of(global: &Global) -> Result<Self, PathsError> {
        let mut env = environment();
        if let Some(state_dir) = &global.state_dir {
            env.insert("OPENCLAW_STATE_DIR".into(), state_dir.clone().into_os_string());
        }
        let words: Vec<OsString> = global
            .profile
            .iter()
            .flat_map(|name| [OsString::from("--profile"), OsString::from(name)])
            .collect();
        Self::resolve(&env, &words)
    }

    /// For a gateway started with `env` and `words`.
    pub(super) fn resolve(env: &EnvSnapshot, words: &[OsString]) -> Result<Self, PathsError> {
        let env = &with_home(env);
        let paths = GatewayPaths::resolve(env, words)?;
        Ok(Self {
            layout: Layout::new(&paths.state_dir),
            runtime_dir: runtime_dir(env),
            profile_dir: profile_dir(&paths, env),
            paths,
        })
    }

    /// Where the supervisor of this state directory binds.
    pub(super) fn socket(&self) -> PathBuf {
        socket::path(self.runtime_dir.as_deref(), &self.profile_dir, &self.paths.tideover_dir())
    }

    /// Asks the running supervisor. A supervisor that was started without a runtime directory is found too.
    pub(super) fn ask(&self, request: &Value) -> Result<Value, ClientError> {
        self.ask_within(request, ANSWER_TIMEOUT)
    }

    /// The same where the answer waits for others.
    pub(super) fn ask_within(
        &self,
        request: &Value,
        patience: Duration,
    ) -> Result<Value, ClientError> {
        let fallback = socket::path(None, &self.profile_dir, &self.paths.tideover_dir());
        match ask(&self.socket(), request.clone(), patience) {
            Err(ClientError::NotRunning { .. }) => {
                match ask(&fallback, request.clone(), patience) {
                    Err(ClientError::NotRunning { .. }) => {
                        Err(ClientError::NotRunning { path: self.socket() })
                    }
                    other => other,
                }
            }
            other => other,
        }
    }
}

impl Context {
    /// The lease of the state directory: without a supervisor its files are changed here, and none starts meanwhile.
    pub(super) fn lease(&self) -> Result<Lease, Failure> {
        match ask_lease(&self.layout.directory(Place::State))? {
            Asked::Held(lease) => Ok(lease),
            Asked::Taken => Err(Failure::text(
                exit_code::REFUSED,
                "a supervisor holds this state directory but does not answer; try again, or see its log",
            )),
        }
    }
}

/// The time, for the records that are changed here.
pub(super) fn now() -> Stamp {
    Stamp::from_ms(jiff::Timestamp::now().as_millisecond())
}

/// The environment as it is now.
pub(super) fn environment() -> EnvSnapshot {
    std::env::vars_os().collect()
}

/// The environment with a home in it. System services have none; the gateway then asks the user database, and
/// a home that is not there must not keep it down.
pub(super) fn with_home(env: &EnvSnapshot) -> EnvSnapshot {
    let mut env = env.clone();
    env.entry("HOME".into()).or_insert_with(|| {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        user.map_or_else(|| "/".into(), |user| user.dir.into_os_string())
    });
    env
}

/// `$XDG_RUNTIME_DIR` where it is a directory, else the one that a login would have made.
pub(super) fn runtime_dir(env: &EnvSnapshot) -> Option<PathBuf> {
    let named = env.get(&OsString::from("XDG_RUNTIME_DIR")).map(PathBuf::from);
    let usual = PathBuf::from(format!("/run/user/{}", nix::unistd::geteuid()));
    [named, Some(usual)].into_iter().flatten().find(|path| path.is_absolute() && path.is_dir())
}

/// The profile's name; with a hash where the state directory is not the profile's usual one, so that two
/// gateways of one user never meet on one socket.
fn profile_dir(paths: &GatewayPaths, env: &EnvSnapshot) -> String {
    let usual = env.get(&OsString::from("HOME")).map(Path::new).map(|home| {
        home.join(match paths.profile.as_str() {
            "default" => ".openclaw".to_owned(),
            profile => format!(".openclaw-{profile}"),
        })
    });
    if usual.as_deref() == Some(paths.state_dir.as_path()) {
        return paths.profile.clone();
    }
    let hash = sha256_hex(paths.state_dir.as_os_str().as_encoded_bytes());
    format!("{}-{}", paths.profile, &hash[..8])
}
