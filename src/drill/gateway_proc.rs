//! One start of a gateway, alone or behind tideover: readiness, signals, its end.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use super::error::{DrillError, Result};
use super::http;
use super::processes::{self, Held, Signal};
use super::progress::{POLL_INTERVAL, Tell, tail, until};

/// How often waiting for readiness is told about.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Longest that killing everything may take.
const KILL_MAX: Duration = Duration::from_secs(10);

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// The whole environment; `HOME` in it must be inside `scratch`.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Where stdout and stderr go.
    pub log: PathBuf,
    /// The gateway's port.
    pub port: u16,
    /// The scratch directory that marks every process of this start.
    pub scratch: PathBuf,
    /// The Node that the gateway runs on: that is how it is told from tideover.
    pub node: PathBuf,
}

/// Which process is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The started command (tideover, or the gateway when it was started alone).
    Command,
    /// The gateway.
    Gateway,
}

/// A started gateway; everything it started is killed when this is dropped.
#[derive(Debug)]
pub struct GatewayProc {
    launch: Launch,
    child: Child,
    command: Held,
    gateway: Option<Held>,
    status: Option<ExitStatus>,
    started: Instant,
}

impl GatewayProc {
    /// Starts the command line in a process group of its own.
    ///
    /// # Errors
    /// When the program cannot be started or the log cannot be written.
    pub fn spawn(launch: Launch) -> Result<Self> {
        let Some((program, args)) = launch.argv.split_first() else {
            let detail = "the command line is empty".to_owned();
            return Err(DrillError::Usage { detail, next: "name a program to start".to_owned() });
        };
        let out = File::create(&launch.log).map_err(DrillError::io("create", &launch.log))?;
        let err = out.try_clone().map_err(DrillError::io("open", &launch.log))?;
        let mut child = Command::new(program)
            .args(args)
            .env_clear()
            .envs(launch.env.iter().cloned())
            .current_dir(&launch.cwd)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| DrillError::Spawn { program: program.into(), source })?;
        let held = child.id().map_or_else(
            || {
                let detail = "it ended at once".to_owned();
                Err(DrillError::Process { operation: "start the gateway", detail })
            },
            Held::open,
        );
        let command = match held {
            Ok(command) => command,
            Err(error) => {
                drop(child.start_kill());
                return Err(error);
            }
        };
        let started = Instant::now();
        Ok(Self { launch, child, command, gateway: None, status: None, started })
    }

    /// Waits until the gateway says it has started, and takes hold of its process.
    ///
    /// # Errors
    /// [`DrillError::EndedEarly`] with the end of the log, or a timeout.
    pub async fn ready(&mut self, limit: Duration, tell: &Tell) -> Result<Duration> {
        const WHAT: &str = "the gateway's start";
        let mut told = Instant::now();
        tell.waiting(WHAT, self.started);
        loop {
            if let Some(status) = self.try_exit()? {
                let (log, tail) = (self.launch.log.clone(), self.log_tail(20));
                return Err(DrillError::EndedEarly { status: status.to_string(), log, tail });
            }
            let seen = match readiness(self.launch.port).await {
                Ok(()) => break,
                Err(seen) => seen,
            };
            if self.started.elapsed() > limit {
                let detail = format!("{seen}; its log ends with:\n{}", self.log_tail(10));
                return Err(DrillError::Timeout { what: WHAT.to_owned(), limit, detail });
            }
            if told.elapsed() > TELL_EVERY {
                tell.waiting(WHAT, self.started);
                told = Instant::now();
            }
            tokio::time::sleep(POLL_INTERVAL * 4).await;
        }
        let took = self.started.elapsed();
        self.hold_gateway()?;
        tell.done(WHAT, self.started);
        Ok(took)
    }

    /// Pid of the started command.
    #[must_use]
    pub fn command_pid(&self) -> u32 {
        self.command.pid()
    }

    /// Pid of the gateway: the command itself, or its child that runs on Node.
    ///
    /// # Errors
    /// When there is none (yet, or any more).
    pub fn gateway_pid(&mut self) -> Result<u32> {
        self.hold_gateway().map(Held::pid)
    }

    fn hold_gateway(&mut self) -> Result<&Held> {
        if self.gateway.is_none() {
            let node = self.launch.node.canonicalize();
            let node = node.map_err(DrillError::io("find", &self.launch.node))?;
            let command = self.command.pid();
            let runs_node = |pid: &u32| processes::executable(*pid).is_some_and(|exe| exe == node);
            let found =
                std::iter::once(command).chain(processes::children(command)).find(runs_node);
            let pid = found.ok_or_else(|| DrillError::Process {
                operation: "find the gateway's process",
                detail: format!("neither pid {command} nor a child of it runs {}", node.display()),
            })?;
            self.gateway = Some(Held::open(pid)?);
        }
        self.gateway.as_ref().ok_or_else(|| DrillError::Process {
            operation: "find the gateway's process",
            detail: "it is gone".to_owned(),
        })
    }

    /// Sends a signal to the process held, never to a name.
    ///
    /// # Errors
    /// When that process has ended.
    pub fn signal(&mut self, target: Target, signal: Signal) -> Result<()> {
        match target {
            Target::Command => self.command.signal(signal),
            Target::Gateway => self.hold_gateway()?.signal(signal),
        }
    }

    /// Whether the process has ended.
    #[must_use]
    pub fn ended(&self, target: Target) -> bool {
        match target {
            Target::Command => self.command.ended(),
            Target::Gateway => self.gateway.as_ref().is_none_or(Held::ended),
        }
    }

    /// Waits for the end of the started command.
    ///
    /// # Errors
    /// A timeout with the end of the log.
    pub async fn exited(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => {
                let status = status.map_err(DrillError::io("wait for", "the started command"))?;
                self.status = Some(status);
                Ok(status)
            }
            Err(_) => Err(DrillError::Timeout {
                what: "the end of the started command".to_owned(),
                limit,
                detail: format!("its log ends with:\n{}", self.log_tail(10)),
            }),
        }
    }

    /// Waits for the end of the gateway, whoever its parent is.
    ///
    /// # Errors
    /// A timeout.
    pub async fn gateway_ended(&self, limit: Duration) -> Result<()> {
        until("the end of the gateway", limit, || async {
            let ended = self.ended(Target::Gateway);
            ended.then_some(()).ok_or_else(|| "it still runs".to_owned())
        })
        .await
    }

    fn try_exit(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let status = self.child.try_wait();
            self.status = status.map_err(DrillError::io("wait for", "the started command"))?;
        }
        Ok(self.status)
    }

    /// What the command has written so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        let bytes = std::fs::read(&self.launch.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The log file.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.launch.log
    }

    fn log_tail(&self, lines: usize) -> String {
        tail(&self.log_text(), lines)
    }

    /// Kills everything this start has left: tideover, the gateway, its commands.
    ///
    /// Returns how many processes were killed.
    pub fn kill_all(&mut self) -> usize {
        let killed = processes::kill_all(&self.launch.scratch, KILL_MAX);
        // Reaps the command; its status is of no further interest when this fails.
        drop(self.try_exit());
        killed
    }
}

impl Drop for GatewayProc {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Whether the gateway on this port has started: by `/startupz` where it has it, else by `/readyz`.
///
/// # Errors
/// What was seen instead.
pub async fn readiness(port: u16) -> std::result::Result<(), String> {
    let (code, body) = http::get(port, "/startupz").await?;
    let value: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    if let Some(status) = value["status"].as_str() {
        let started = code == 200 && status == "started";
        return started.then_some(()).ok_or_else(|| format!("/startupz says {code} {status}"));
    }
    let (code, body) = http::get(port, "/readyz").await?;
    let value: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let ready = code == 200 && value["ready"] == true;
    ready.then_some(()).ok_or_else(|| format!("/readyz says {code} {}", value["failing"]))
}
