//! A scratch home: everything a gateway writes lands in it, and it is gone afterwards.
//!
//! The directory's name is short, because a Unix socket's path must fit into 108 bytes.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, Permissions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::error::{DrillError, Result};
use super::mock_telegram::BOT_TOKEN;
use super::provision::Gateway;

/// The shared secret of the scratch gateway.
pub const GATEWAY_TOKEN: &str = "drill-token-0123456789";
/// A temporary directory with a longer name than this is passed over for /tmp.
const BASE_BYTES_MAX: usize = 40;
/// What the gateway inherits from the user's environment; everything else is left behind.
const INHERITED: [&str; 6] =
    ["LANG", "LC_ALL", "TZ", "TERM", "NODE_EXTRA_CA_CERTS", "LD_LIBRARY_PATH"];

/// How chats are mapped to sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DmScope {
    /// All chats in one session, `agent:main:main` (the gateway's default).
    Main,
    /// A session for each chat.
    #[default]
    PerChat,
}

impl DmScope {
    /// The key of a chat's session.
    #[must_use]
    pub fn session_key(self, chat: i64) -> String {
        match self {
            Self::Main => "agent:main:main".to_owned(),
            Self::PerChat => format!("agent:main:telegram:default:direct:{chat}"),
        }
    }

    fn as_config(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::PerChat => "per-account-channel-peer",
        }
    }
}

/// A scratch home; removed when dropped, unless kept.
#[derive(Debug)]
pub struct Home {
    root: PathBuf,
    /// The gateway's port.
    pub port: u16,
    /// Whether it stays when dropped.
    pub keep: bool,
}

impl Home {
    /// Makes a new one with a free port.
    ///
    /// # Errors
    /// When the directories cannot be made or no port is free.
    pub fn create(keep: bool) -> Result<Self> {
        let base = std::env::temp_dir();
        let base = if base.as_os_str().len() > BASE_BYTES_MAX { "/tmp".into() } else { base };
        let base = base.canonicalize().map_err(DrillError::io("find", &base))?;
        // Each RandomState has keys of its own, so the name cannot be guessed or met twice.
        let name = format!("td-{:011x}", RandomState::new().build_hasher().finish() >> 20);
        let root = base.join(name);
        private_dir(&root)?;
        let home = Self { root, port: free_port()?, keep };
        for dir in ["h", "h/.openclaw", "r", "t", "w", "logs", "work"] {
            private_dir(&home.root.join(dir))?;
        }
        Ok(home)
    }

    /// The scratch directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The gateway's `HOME`.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root.join("h")
    }

    /// The gateway's state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("h/.openclaw")
    }

    /// Where the mock tool's scripts, markers and gates are.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// `XDG_RUNTIME_DIR` of the gateway.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.root.join("r")
    }

    /// The log file of the `boot`-th start.
    #[must_use]
    pub fn log(&self, boot: usize) -> PathBuf {
        self.root.join(format!("logs/boot-{boot}.log"))
    }

    /// The gateway's configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.state().join("openclaw.json")
    }

    /// Writes openclaw.json, as [`gateway_config`] makes it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_config(&self, mocks: &Mocks<'_>, patch: &Value) -> Result<()> {
        let site = Site {
            port: self.port,
            workspace: &self.root.join("w"),
            log: &self.root.join("logs/gateway-file.log"),
        };
        let config = gateway_config(&site, mocks, patch);
        let file = self.config_file();
        let text = format!("{config:#}\n");
        std::fs::write(&file, text).map_err(DrillError::io("write", &file))?;
        let private = Permissions::from_mode(0o600);
        std::fs::set_permissions(&file, private).map_err(DrillError::io("protect", &file))
    }

    /// Writes tideover's own configuration into the scratch home.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_tideover_config(&self, text: &str) -> Result<()> {
        let dir = self.home().join(".config/tideover");
        std::fs::create_dir_all(&dir).map_err(DrillError::io("create", &dir))?;
        let file = dir.join("config.toml");
        std::fs::write(&file, text).map_err(DrillError::io("write", &file))
    }

    /// The whole environment of a process in this home: nothing of the user's own OpenClaw,
    /// tideover or systemd is in it.
    #[must_use]
    pub fn env(&self, gateway: &Gateway) -> Vec<(OsString, OsString)> {
        let home = self.home();
        let mut env: Vec<(OsString, OsString)> = INHERITED
            .iter()
            .filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)))
            .collect();
        let mut set = |name: &str, value: &OsStr| env.push((name.into(), value.into()));
        set("HOME", home.as_os_str());
        set("XDG_CONFIG_HOME", home.join(".config").as_os_str());
        set("XDG_STATE_HOME", home.join(".local/state").as_os_str());
        set("XDG_DATA_HOME", home.join(".local/share").as_os_str());
        set("XDG_CACHE_HOME", home.join(".cache").as_os_str());
        set("XDG_RUNTIME_DIR", self.runtime().as_os_str());
        set("TMPDIR", self.root.join("t").as_os_str());
        set("PATH", &gateway.path());
        set("SHELL", OsStr::new("/bin/sh"));
        set("OPENCLAW_DISABLE_BONJOUR", OsStr::new("1"));
        set("NODE_COMPILE_CACHE", gateway.compile_cache.as_os_str());
        env
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.keep {
            // A process that is just being killed may still add a file: a second try gets it.
            drop(
                std::fs::remove_dir_all(&self.root)
                    .or_else(|_| std::fs::remove_dir_all(&self.root)),
            );
        }
    }
}

/// What the gateway's configuration has to know of the mocks.
#[derive(Debug, Clone, Copy)]
pub struct Mocks<'a> {
    /// Base URL of the model.
    pub model_url: &'a str,
    /// `apiRoot` of Telegram.
    pub telegram_url: &'a str,
    /// Users who may write.
    pub chats: &'a [i64],
    /// How chats become sessions.
    pub dm_scope: DmScope,
}

/// What the gateway's configuration has to know of where it runs.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The gateway's port.
    pub port: u16,
    /// Where the agent works.
    pub workspace: &'a Path,
    /// The gateway's own log file.
    pub log: &'a Path,
}

/// The text of openclaw.json as a value: mock model, mock Telegram, `exec` without approvals, no heartbeat.
///
/// `patch` is merged over it (objects key by key, everything else replaced).
#[must_use]
pub fn gateway_config(site: &Site<'_>, mocks: &Mocks<'_>, patch: &Value) -> Value {
    let users: Vec<String> = mocks.chats.iter().map(i64::to_string).collect();
    let model = json!({
        "id": "mock-1", "name": "Mock", "reasoning": false, "input": ["text"],
        "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
        "contextWindow": 200_000, "maxTokens": 4096,
    });
    let mut config = json!({
        "gateway": {
            "mode": "local", "port": site.port, "bind": "loopback",
            "auth": {"mode": "token", "token": GATEWAY_TOKEN},
            "controlUi": {"enabled": false},
        },
        "models": {"mode": "merge", "providers": {"mock": {
            "baseUrl": mocks.model_url, "apiKey": "mock-key", "api": "openai-completions",
            "request": {"allowPrivateNetwork": true}, "models": [model],
        }}},
        "agents": {"defaults": {
            "model": {"primary": "mock/mock-1"}, "workspace": site.workspace,
            "skipBootstrap": true, "heartbeat": {"every": "0m"},
        }},
        "tools": {"exec": {"security": "full", "ask": "off"}},
        "session": {"dmScope": mocks.dm_scope.as_config()},
        "channels": {"telegram": {
            "enabled": true, "botToken": BOT_TOKEN, "apiRoot": mocks.telegram_url,
            "dmPolicy": "allowlist", "allowFrom": users,
            "network": {"dangerouslyAllowPrivateNetwork": true},
        }},
        "update": {"checkOnStart": false},
        "logging": {"file": site.log},
    });
    merge(&mut config, patch);
    config
}

/// Merges `patch` over `base`: objects key by key, everything else is replaced.
pub fn merge(base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (base, patch) => *base = patch.clone(),
    }
}

/// A port that was free a moment ago.
///
/// # Errors
/// When the loopback interface gives none.
pub fn free_port() -> Result<u16> {
    let failed = |source| DrillError::Io {
        operation: "find a free port on",
        path: "127.0.0.1".into(),
        source,
    };
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    Ok(listener.local_addr().map_err(failed)?.port())
}

fn private_dir(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).map_err(DrillError::io("create", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_home_is_private_short_and_gone_afterwards() -> Result<()> {
        let home = Home::create(false)?;
        let root = home.root().to_path_buf();
        let mode = std::fs::metadata(&root).map_err(DrillError::io("stat", &root))?;
        assert_eq!(mode.permissions().mode() & 0o777, 0o700);
        let socket = home.runtime().join("tideover/default/control.sock");
        assert!(socket.as_os_str().len() < 108, "{}", socket.display());
        drop(home);
        assert!(!root.exists());
        Ok(())
    }

    #[test]
    fn a_patch_is_merged_key_by_key() {
        let mut base = json!({"a": {"b": 1, "c": [1]}, "d": 2});
        merge(&mut base, &json!({"a": {"c": [2], "e": 3}, "d": null}));
        assert_eq!(base, json!({"a": {"b": 1, "c": [2], "e": 3}, "d": 2}));
    }
}
