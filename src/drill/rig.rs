//! The rig as a whole: a gateway in a scratch home, between a mock model and a mock Telegram.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use super::error::{DrillError, Result};
use super::gateway_proc::{GatewayProc, Launch};
use super::home::{DmScope, Home, Mocks};
use super::mock_model::MockModel;
use super::mock_telegram::{MockTelegram, SentMessage};
use super::progress::{Tell, tail};
use super::provision::{Gateway, Wanted, provision};
use super::stage::Stage;
use super::work::Work;

/// Longest that a gateway may take to start, on a slow and busy machine.
pub const START_MAX: Duration = Duration::from_secs(180);
/// Longest that a turn may take to show an effect; the first one loads tools and plugins.
pub const TURN_MAX: Duration = Duration::from_secs(90);
/// Longest that a command run in the home may take.
const COMMAND_MAX: Duration = Duration::from_secs(120);

/// What stands in front of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Front {
    /// Nothing.
    #[default]
    Bare,
    /// `tideover run -- node ENTRY gateway --port N`, after `tideover install --no-unit`.
    Tideover(PathBuf),
}

/// How to put a rig together.
#[derive(Debug, Clone)]
pub struct RigOptions {
    /// What stands in front of the gateway.
    pub front: Front,
    /// How chats become sessions.
    pub dm_scope: DmScope,
    /// Users who may write to the bot.
    pub chats: Vec<i64>,
    /// Merged over openclaw.json.
    pub config_patch: Value,
    /// tideover's config.toml.
    pub tideover_config: Option<String>,
    /// Commands run in the home before the first start. The default with tideover in front is
    /// `tideover install --no-unit`.
    pub prepare: Option<Vec<Vec<OsString>>>,
    /// Added to the gateway's environment.
    pub extra_env: Vec<(OsString, OsString)>,
    /// Whether the scratch home stays.
    pub keep: bool,
    /// Where progress goes.
    pub tell: Tell,
}

impl Default for RigOptions {
    fn default() -> Self {
        Self {
            front: Front::Bare,
            dm_scope: DmScope::PerChat,
            chats: vec![4242, 4343],
            config_patch: Value::Null,
            tideover_config: None,
            prepare: None,
            extra_env: Vec::new(),
            keep: false,
            tell: Tell::silent(),
        }
    }
}

/// A running rig. The processes end first when it is dropped, the scratch home last.
#[derive(Debug)]
pub struct Rig {
    /// The present start of the gateway; `None` between an end and the next start.
    pub proc: Option<GatewayProc>,
    /// The model.
    pub model: MockModel,
    /// The channel.
    pub telegram: MockTelegram,
    /// The gateway's program.
    pub gateway: Gateway,
    /// The scratch home.
    pub home: Home,
    /// How it was put together.
    pub options: RigOptions,
    boots: usize,
}

impl Rig {
    /// Provisions a gateway, makes a home for it and starts it; returns when it is ready.
    ///
    /// # Errors
    /// Errors for which [`DrillError::is_unavailable`] holds when there is no gateway to be had.
    pub async fn start(wanted: &Wanted, options: RigOptions) -> Result<Self> {
        let mut rig = Self::prepare(wanted, options).await?;
        rig.boot().await?;
        Ok(rig)
    }

    /// Everything but the start of the gateway.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn prepare(wanted: &Wanted, options: RigOptions) -> Result<Self> {
        let gateway = provision(wanted, &options.tell).await?;
        let home = Home::create(options.keep)?;
        let (model, telegram) = (MockModel::start()?, MockTelegram::start()?);
        let mocks = Mocks {
            model_url: &model.base_url(),
            telegram_url: &telegram.api_root(),
            chats: &options.chats,
            dm_scope: options.dm_scope,
        };
        home.write_config(&mocks, &options.config_patch)?;
        if let Some(text) = &options.tideover_config {
            home.write_tideover_config(text)?;
        }
        let rig = Self { proc: None, model, telegram, gateway, home, options, boots: 0 };
        for argv in rig.preparations() {
            rig.run(&argv).await?;
        }
        Ok(rig)
    }

    fn preparations(&self) -> Vec<Vec<OsString>> {
        match (&self.options.prepare, &self.options.front) {
            (Some(commands), _) => commands.clone(),
            (None, Front::Bare) => Vec::new(),
            (None, Front::Tideover(binary)) => {
                vec![vec![binary.clone().into(), "install".into(), "--no-unit".into()]]
            }
        }
    }

    /// The command line of a start.
    #[must_use]
    pub fn argv(&self) -> Vec<OsString> {
        let gateway = self.gateway.command(self.home.port);
        match &self.options.front {
            Front::Bare => gateway,
            Front::Tideover(binary) => {
                let front = [binary.clone().into(), "run".into(), "--".into()];
                front.into_iter().chain(gateway).collect()
            }
        }
    }

    /// The environment of every process in the home.
    #[must_use]
    pub fn env(&self) -> Vec<(OsString, OsString)> {
        let mut env = self.home.env(&self.gateway);
        env.extend(self.options.extra_env.iter().cloned());
        env
    }

    /// Starts the gateway (again, as a service manager would) and waits until it is ready.
    ///
    /// What an earlier start has left is killed first, as the service's cgroup would be.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn boot(&mut self) -> Result<Duration> {
        self.spawn()?;
        let tell = self.options.tell.clone();
        self.proc()?.ready(START_MAX, &tell).await
    }

    /// Starts the gateway without waiting for anything.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        if let Some(mut before) = self.proc.take() {
            before.kill_all();
        }
        self.boots += 1;
        let launch = Launch {
            argv: self.argv(),
            env: self.env(),
            cwd: self.home.home(),
            log: self.home.log(self.boots),
            port: self.home.port,
            scratch: self.home.root().to_path_buf(),
            node: self.gateway.node.clone(),
        };
        self.proc = Some(GatewayProc::spawn(launch)?);
        Ok(())
    }

    /// The present start.
    ///
    /// # Errors
    /// When the gateway has not been started.
    pub fn proc(&mut self) -> Result<&mut GatewayProc> {
        self.proc.as_mut().ok_or_else(|| DrillError::Usage {
            detail: "the gateway has not been started".to_owned(),
            next: "call boot() first".to_owned(),
        })
    }

    /// Runs a command in the home with the gateway's environment and returns its stdout.
    ///
    /// # Errors
    /// [`DrillError::Command`] with the end of its output when it fails.
    pub async fn run(&self, argv: &[OsString]) -> Result<String> {
        let shown: Vec<_> = argv.iter().map(|word| word.to_string_lossy()).collect();
        let shown = shown.join(" ");
        let Some((program, args)) = argv.split_first() else {
            return Ok(String::new());
        };
        let running = Command::new(program)
            .args(args)
            .env_clear()
            .envs(self.env())
            .current_dir(self.home.home())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(COMMAND_MAX, running).await;
        let output = output.map_err(|_| DrillError::Timeout {
            what: format!("the end of `{shown}`"),
            limit: COMMAND_MAX,
            detail: "it was killed".to_owned(),
        })?;
        let output =
            output.map_err(|source| DrillError::Spawn { program: program.into(), source })?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr),
        );
        if output.status.success() {
            return Ok(out);
        }
        let status = output.status.to_string();
        Err(DrillError::Command { command: shown, status, tail: tail(&format!("{out}{err}"), 15) })
    }

    /// What stories are played on.
    #[must_use]
    pub fn stage(&self) -> Stage<'_> {
        Stage {
            model: &self.model,
            telegram: &self.telegram,
            state: self.home.state(),
            work: self.home.work(),
            dm_scope: self.options.dm_scope,
        }
    }

    /// A user writes to the bot.
    pub fn send_user(&self, chat: i64, text: &str) {
        self.stage().send_user(chat, text);
    }

    /// As [`Stage::plain_turn`].
    ///
    /// # Errors
    /// When the reply does not arrive.
    pub async fn plain_turn(&self, chat: i64, text: &str, reply: &str) -> Result<SentMessage> {
        self.stage().plain_turn(chat, text, reply).await
    }

    /// Key of a chat's session.
    #[must_use]
    pub fn session_key(&self, chat: i64) -> String {
        self.stage().session_key(chat)
    }

    /// Where the checkpoint of a chat's session is.
    #[must_use]
    pub fn checkpoint_path(&self, chat: i64) -> PathBuf {
        self.stage().checkpoint_path(chat)
    }

    /// As [`Stage::work`].
    ///
    /// # Errors
    /// When its script cannot be written.
    pub fn work(&self, name: &str, chat: i64) -> Result<Work> {
        self.stage().work(name, chat)
    }
}

impl Drop for Rig {
    /// A kept home also keeps what the mocks have seen.
    fn drop(&mut self) {
        if !self.home.keep {
            return;
        }
        let line = |r: &super::mock_model::ModelRequest| {
            format!("{}\n", json!({"number": r.number, "tools": r.tools, "messages": r.messages}))
        };
        let requests: String = self.model.requests_from(0).iter().map(line).collect();
        let said = |m: &SentMessage| {
            let text = json!({"chat": m.chat, "id": m.message_id, "text": m.text,
                "edits": m.edits, "deleted": m.deleted, "answered": m.answered});
            format!("{text}\n")
        };
        let sent: String = self.telegram.sent().iter().map(said).collect();
        let logs = self.home.root().join("logs");
        // Help for a reader; a full disk must not become a panic here.
        drop(std::fs::write(logs.join("model-requests.jsonl"), requests));
        drop(std::fs::write(logs.join("telegram-sent.jsonl"), sent));
    }
}
