//! What the fast black-box tests share: a scratch home, tideover as a child, and a scripted stand-in
//! for the gateway. No real gateway is needed.

#![expect(dead_code, reason = "each test file uses its own part of this")]

pub(crate) mod stand_in;
pub(crate) mod turns;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Nothing here takes longer on a working machine, however busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps the expectation above true in a file that happens to use everything.
const fn unused() {}

/// Waits for a condition.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Unix time in microseconds.
pub(crate) fn now_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()
}

/// Waits until a process has ended, reaped or not.
pub(crate) fn until_gone(pid: i32) {
    until("a process's end", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ")).then_some(())
    });
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says why a part of a test does not run here.
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// A home of its own with a runtime directory, gone when dropped.
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("tt").tempdir().unwrap();
        let scratch = Self { dir };
        for part in ["h", "r", "s"] {
            std::fs::create_dir(scratch.path().join(part)).unwrap();
        }
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(scratch.path().join("r"), private).unwrap();
        scratch
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path().join("h")
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.path().join("r")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.home().join(".openclaw")
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.state().join("sessions/checkpoints")
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.checkpoints().join("quarantine")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime().join("tideover/default/control.sock")
    }

    pub(crate) fn stand_in_dir(&self) -> PathBuf {
        self.path().join("s")
    }

    pub(crate) fn make_checkpoints(&self) -> PathBuf {
        std::fs::create_dir_all(self.checkpoints()).unwrap();
        self.checkpoints()
    }

    pub(crate) fn configure(&self, text: impl AsRef<[u8]>) -> PathBuf {
        let dir = self.home().join(".config/tideover");
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("config.toml");
        std::fs::write(&file, text).unwrap();
        file
    }

    /// A program with this home's environment and nothing else of ours.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("XDG_RUNTIME_DIR", self.runtime())
            .env("STANDIN_DIR", self.stand_in_dir())
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn tideover(&self) -> Command {
        self.command(env!("CARGO_BIN_EXE_tideover"))
    }

    /// A copy of a program in this scratch. Made by another process: with the copy open for writing in this one,
    /// a fork of another test could keep it from being run.
    pub(crate) fn copy_program(&self, from: impl AsRef<OsStr>, name: &str) -> PathBuf {
        let to = self.path().join(name);
        assert!(self.command("cp").arg(from).arg(&to).status().unwrap().success());
        to
    }

    /// `tideover run -- WORDS…`
    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = self.tideover();
        command.args(["run", "--"]).args(words);
        command
    }

    /// `tideover run -- <the stand-in>`
    pub(crate) fn run_stand_in(&self) -> Command {
        self.run(&stand_in::words())
    }

    /// Starts the stand-in under tideover and waits until it listens.
    pub(crate) fn start(&self) -> Running {
        self.start_with(&mut self.run_stand_in())
    }

    pub(crate) fn start_with(&self, command: &mut Command) -> Running {
        let running = self.launch(command);
        let ready = self.stand_in_dir().join("ready");
        until("the stand-in", || {
            let pid: i32 = std::fs::read_to_string(&ready).ok()?.trim().parse().ok()?;
            Path::new(&format!("/proc/{pid}")).exists().then_some(())
        });
        running
    }

    /// Starts any command with its stderr kept.
    pub(crate) fn launch(&self, command: &mut Command) -> Running {
        let _ = std::fs::remove_file(self.stand_in_dir().join("ready"));
        let log = self.path().join("log");
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Running { child, log, stand_in_dir: self.stand_in_dir() }
    }

    /// One verb to its end.
    pub(crate) fn verb(&self, words: &[&str]) -> Output {
        self.tideover().args(words).output().unwrap()
    }

    /// `tideover status --json`
    pub(crate) fn status(&self) -> Value {
        let output = self.verb(&["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The boot record; the first one of a run is written while the child already starts.
    pub(crate) fn boot(&self) -> Value {
        let path = self.state().join("tideover/boot.json");
        let bytes = until("the boot record", || std::fs::read(&path).ok());
        serde_json::from_slice(&bytes).unwrap()
    }

    /// The record of a session, found by its key.
    pub(crate) fn record(&self, key: &str) -> Option<Value> {
        self.records().into_iter().find(|record| record["session_key"] == key)
    }

    /// Every file named `*.json` in the checkpoint directory, which must all be whole.
    pub(crate) fn records(&self) -> Vec<Value> {
        let Ok(entries) = std::fs::read_dir(self.checkpoints()) else { return Vec::new() };
        entries
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().extension() == Some(OsStr::new("json")))
            .filter(|entry| entry.file_type().unwrap().is_file())
            .filter_map(|entry| std::fs::read(entry.path()).ok())
            .map(|bytes| serde_json::from_slice(&bytes).expect("a whole checkpoint"))
            .collect()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }
}

/// tideover with its gateway; both are gone when dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
    stand_in_dir: PathBuf,
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    pub(crate) fn stand_in_pid(&self) -> i32 {
        let ready = std::fs::read_to_string(self.stand_in_dir.join("ready")).unwrap();
        ready.trim().parse().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for tideover's end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("tideover's end", || child.try_wait().unwrap())
    }

    /// A plugin's connection, through the stand-in so that it has the gateway's pid.
    pub(crate) fn link(&self) -> Link {
        Link::open(&self.stand_in_dir.join("ctl"))
    }

    /// The same where tideover may be killed at any moment: none then.
    pub(crate) fn link_unless_ended(&self) -> Option<Link> {
        let path = self.stand_in_dir.join("ctl");
        let stream = until("the socket or tideover's end", || match UnixStream::connect(&path) {
            Ok(stream) => Some(Some(stream)),
            Err(_) => self.has_ended().then_some(None),
        });
        stream.map(Link::over)
    }

    /// Whether tideover has ended, reaped or not.
    pub(crate) fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        stat.map_or(true, |stat| stat.contains(") Z "))
    }

    /// A plugin that has said hello and that its gateway serves.
    pub(crate) fn plugin(&self) -> Link {
        let mut link = self.link();
        link.hello();
        link
    }

    /// Tells the stand-in itself to do something.
    pub(crate) fn order(&self, order: &str) {
        let mut link = self.link();
        link.send_text(&format!("!{order}\n"));
        let mut answer = String::new();
        let _ = link.reader.read_line(&mut answer);
    }

    /// The signals that the stand-in saw, with the time in microseconds.
    pub(crate) fn signals(&self) -> Vec<(String, u128)> {
        let text = std::fs::read_to_string(self.stand_in_dir.join("signals")).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(name, at)| Some((name.to_owned(), at.parse().ok()?)))
            .collect()
    }

    pub(crate) fn await_signal(&self, name: &str) -> u128 {
        until(name, || Some(self.signals().into_iter().find(|(seen, _)| seen == name)?.1))
    }

    /// Ends the stand-in with a code and expects tideover to end the same.
    pub(crate) fn ends_with(mut self, code: i32) {
        self.order(&format!("exit {code}"));
        let status = self.wait();
        assert_eq!(status.code(), Some(code), "{status:?}\n{}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection to the control socket.
pub(crate) struct Link {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    next: u64,
    /// What came in that answers nothing.
    pub(crate) others: Vec<Value>,
}

impl Link {
    pub(crate) fn open(path: &Path) -> Self {
        Self::over(until("the socket", || UnixStream::connect(path).ok()))
    }

    fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader, next: 0, others: Vec::new() }
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).unwrap();
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next line; `None` when the other side has closed.
    pub(crate) fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// Sends a request without waiting; returns its id.
    pub(crate) fn post(&mut self, mut request: Value) -> String {
        self.next += 1;
        let id = self.next.to_string();
        request["id"] = json!(id);
        self.send_text(&format!("{request}\n"));
        id
    }

    /// The reply to an id; everything else is kept in `others`.
    pub(crate) fn reply(&mut self, id: &str) -> Value {
        let answers = |frame: &Value| frame.get("ok").is_some() && frame["id"] == id;
        if let Some(at) = self.others.iter().position(answers) {
            return self.others.remove(at);
        }
        loop {
            let frame = self.read().expect("an open connection");
            if answers(&frame) {
                return frame;
            }
            self.others.push(frame);
        }
    }

    /// Sends a request and returns its whole reply.
    pub(crate) fn ask(&mut self, request: Value) -> Value {
        let id = self.post(request);
        self.reply(&id)
    }

    /// Sends a request that must go well.
    pub(crate) fn done(&mut self, request: Value) -> Value {
        let reply = self.ask(request);
        assert_eq!(reply["ok"], true, "{reply}");
        reply["result"].clone()
    }

    pub(crate) fn hello(&mut self) -> Value {
        self.done(json!({
            "type": "hello", "v": 1, "role": "plugin", "plugin_version": "0",
            "gateway": { "version": "stand-in", "incarnation": "i" },
        }))
    }

    pub(crate) fn hello_cli(&mut self) -> Value {
        self.done(json!({ "type": "hello", "v": 1, "role": "cli" }))
    }

    pub(crate) fn turn(&mut self, key: &str, run: &str) -> Value {
        self.done(json!({
            "type": "turn_start", "session": { "key": key }, "run_id": run, "origin": "user",
            "text": format!("task of {run}"),
            "route": { "channel": "telegram", "to": "telegram:1" },
        }))
    }

    pub(crate) fn end_turn(&mut self, key: &str, run: &str) -> Value {
        self.done(json!({
            "type": "turn_end", "session": { "key": key }, "run_id": run, "success": true,
            "answered": true,
        }))
    }

    /// Announces a call and waits for the acknowledgement.
    pub(crate) fn intent(&mut self, key: &str, run: &str, call: &str, arguments: &Value) -> Value {
        self.done(intent(key, run, call, arguments))
    }
}

/// The request that announces a call of `exec`.
pub(crate) fn intent(key: &str, run: &str, call: &str, arguments: &Value) -> Value {
    json!({
        "type": "tool_intent", "session": { "key": key }, "run_id": run, "tool_call_id": call,
        "name": "exec", "arguments": arguments,
    })
}
