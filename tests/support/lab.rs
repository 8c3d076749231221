//! A machine of its own for a test: a real systemd with journald and a user manager, in namespaces
//! that end with the test. `lab.sh` boots it; this is its remote control.
//!
//! Inside, `claw` (uid 1001) has a user manager from boot on; the binary under test is
//! [`TIDEOVER`]. The home of `claw` is also visible inside under its path on the host, so that a path
//! below [`Lab::home`] means the same file on both sides. The network is the host's: a mock on the
//! loopback interface of the test is reached from inside.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use nix::unistd::geteuid;
use serde_json::Value;
use tideover::drill::processes;

use super::Outcome;

/// The binary under test, inside.
pub(crate) const TIDEOVER: &str = "/opt/tideover/tideover";
/// The user inside.
pub(crate) const UID: u32 = 1001;
/// Longest that a command inside may take, unless a test says otherwise.
const COMMAND_MAX: Duration = Duration::from_secs(120);
/// Longest that a shutdown may take: the user manager itself is killed after 120 s.
const STOP_MAX: Duration = Duration::from_secs(180);
/// Longest that a boot may take on a busy machine.
const BOOT_MAX: Duration = Duration::from_secs(90);
/// How often a condition inside is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a lab gets of the host.
#[derive(Debug, Clone, Default)]
pub(crate) struct LabOptions {
    /// Files and directories, read-only: path on the host, path inside.
    pub(crate) bind_ro: Vec<(PathBuf, PathBuf)>,
    /// The same, writable.
    pub(crate) bind: Vec<(PathBuf, PathBuf)>,
}

/// How a command inside ended.
#[derive(Debug)]
pub(crate) struct Done {
    /// Its status: 124 when it took too long, 125 when the lab itself failed.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    shown: String,
}

impl Done {
    /// Its output, or an error with all that it said.
    pub(crate) fn ok(self) -> Outcome<String> {
        if self.code == Some(0) {
            return Ok(self.out);
        }
        Err(format!("`{}` ended with {:?}:\n{}{}", self.shown, self.code, self.out, self.err)
            .into())
    }
}

/// A running lab; nothing of it is left when it is dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    state: PathBuf,
    name: String,
    /// Whether its disk stays (`TIDEOVER_KEEP`).
    pub(crate) keep: bool,
}

impl Lab {
    /// Boots one, or says why there can be none here (a failure with `systemd` in `TIDEOVER_REQUIRE`).
    pub(crate) fn start(options: &LabOptions) -> Outcome<Option<Self>> {
        let state = match usable() {
            Ok(state) => state,
            Err(why) if required() => return Err(format!("no systemd lab here: {why}").into()),
            Err(why) => {
                eprintln!("SKIPPED: no systemd lab here; missing: {why}");
                return Ok(None);
            }
        };
        script(&state, &["gc"], COMMAND_MAX)?.ok()?;
        let name = format!("t{:012x}", RandomState::new().build_hasher().finish() >> 16);
        let keep = std::env::var_os("TIDEOVER_KEEP").is_some();
        let lab = Self { state, name, keep };
        let binary = (PathBuf::from(env!("CARGO_BIN_EXE_tideover")), PathBuf::from(TIDEOVER));
        let read_only = std::iter::once(&binary).chain(&options.bind_ro).map(|b| ("--bind-ro", b));
        let binds = read_only.chain(options.bind.iter().map(|b| ("--bind", b)));
        let mut words = vec!["up".to_owned(), lab.name.clone(), "--net".into(), "host".into()];
        for (option, (from, to)) in binds {
            words.extend([option.to_owned(), format!("{}:{}", from.display(), to.display())]);
        }
        script(&lab.state, &words, BOOT_MAX)?.ok()?;
        if keep {
            std::fs::write(lab.dir().join("run/keep"), "")?;
            eprintln!("  kept: {}", lab.dir().display());
        }
        Ok(Some(lab))
    }

    fn dir(&self) -> PathBuf {
        self.state.join(&self.name)
    }

    /// The user's home, on the host and inside; it survives reboots.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir().join("persist/home")
    }

    /// Runs a command as the user, in its home.
    pub(crate) fn user<S: AsRef<OsStr>>(&self, argv: &[S]) -> Outcome<Done> {
        self.enter(&[], argv, COMMAND_MAX)
    }

    /// The same with a time limit of its own.
    pub(crate) fn user_within<S: AsRef<OsStr>>(
        &self,
        limit: Duration,
        argv: &[S],
    ) -> Outcome<Done> {
        self.enter(&[], argv, limit)
    }

    /// Runs a command as root.
    pub(crate) fn root<S: AsRef<OsStr>>(&self, argv: &[S]) -> Outcome<Done> {
        self.enter(&["-r"], argv, COMMAND_MAX)
    }

    fn enter<S: AsRef<OsStr>>(&self, who: &[&str], argv: &[S], limit: Duration) -> Outcome<Done> {
        let seconds = limit.as_secs().max(1).to_string();
        let mut words: Vec<&OsStr> = vec!["enter".as_ref(), self.name.as_ref()];
        words.extend(who.iter().map(OsStr::new));
        words.extend(["-t".as_ref(), OsStr::new(&seconds), "--".as_ref()]);
        words.extend(argv.iter().map(AsRef::as_ref));
        script(&self.state, &words, limit + Duration::from_secs(10))
    }

    /// `systemctl --user WORDS…`, which must succeed.
    pub(crate) fn systemctl(&self, words: &[&str]) -> Outcome<String> {
        let argv = [&["systemctl", "--user"], words].concat();
        // A stop may take as long as a shutdown of the whole machine.
        self.user_within(STOP_MAX * 2, &argv)?.ok()
    }

    /// A property of a unit, as systemd shows it.
    pub(crate) fn show(&self, unit: &str, property: &str) -> Outcome<String> {
        Ok(self.systemctl(&["show", unit, "--value", "-p", property])?.trim().to_owned())
    }

    /// All that the journal has of a unit, of all boots, as the user reads it.
    pub(crate) fn journal(&self, unit: &str) -> Outcome<Vec<Value>> {
        let argv = ["journalctl", "--user", "-u", unit, "-o", "json", "--all", "--no-pager", "-q"];
        let text = self.user(&argv)?.ok()?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    /// The last lines of the user's journal, for a person.
    pub(crate) fn journal_tail(&self, lines: usize) -> String {
        let count = lines.to_string();
        let argv =
            ["journalctl", "--user", "-q", "--no-pager", "-o", "short-monotonic", "-n", &count];
        self.user(&argv).map_or_else(|error| error.to_string(), |done| done.out + &done.err)
    }

    /// `tideover status --json`, as the user asks for it.
    pub(crate) fn status(&self) -> Outcome<Value> {
        Ok(serde_json::from_str(&self.user(&[TIDEOVER, "status", "--json"])?.ok()?)?)
    }

    /// Shuts down in good order and boots again; the time of both.
    pub(crate) fn reboot(&self) -> Outcome<Duration> {
        let since = Instant::now();
        script(&self.state, &["reboot", &self.name], STOP_MAX + BOOT_MAX)?.ok()?;
        Ok(since.elapsed())
    }

    /// Ends everything at once and boots again.
    pub(crate) fn powercut(&self) -> Outcome<Duration> {
        let since = Instant::now();
        script(&self.state, &["powercut", &self.name], BOOT_MAX)?.ok()?;
        Ok(since.elapsed())
    }

    /// Its cgroup, on the host.
    pub(crate) fn host_group(&self) -> Outcome<PathBuf> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut roots =
            mounts.lines().map(fields).filter(|f| f.get(2).is_some_and(|t| t == "cgroup2"));
        let root = PathBuf::from(roots.next().and_then(|f| f.get(1).cloned()).ok_or("no cgroup2")?);
        let mut groups = std::fs::read_dir(root)?.flatten().map(|entry| entry.path());
        let ends = |path: &PathBuf| path.to_string_lossy().ends_with(&self.name);
        Ok(groups.find(ends).ok_or("the lab has no cgroup")?)
    }

    /// The processes of a unit by their pids on the host, where no pid comes twice in a test.
    pub(crate) fn processes(&self, unit: &str) -> Outcome<Vec<u32>> {
        let group = self.show(unit, "ControlGroup")?;
        if group.is_empty() {
            return Ok(Vec::new());
        }
        let init = std::fs::read_to_string(self.dir().join("run/host_pid"))?;
        // Read through PID 1's root: inside, the cgroup tree is the lab's own, and the pids in it are
        // shown in the reader's terms.
        let dir = format!("/proc/{}/root/sys/fs/cgroup{group}/cgroup.procs", init.trim());
        let text = match std::fs::read_to_string(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text?,
        };
        Ok(text.lines().map(str::parse).collect::<Result<_, _>>()?)
    }

    /// The process of a unit that runs a program, named by its path inside.
    pub(crate) fn process(&self, unit: &str, program: &str) -> Outcome<u32> {
        let runs =
            |pid: &u32| processes::executable(*pid).is_some_and(|exe| exe == Path::new(program));
        let found = self.processes(unit)?.into_iter().find(runs);
        Ok(found.ok_or_else(|| format!("{unit} runs no {program}"))?)
    }

    /// Waits until `look` finds something; the error says what was seen last.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Outcome<T>,
    ) -> Outcome<T> {
        let since = Instant::now();
        loop {
            let seen = match look(self) {
                Ok(found) => return Ok(found),
                Err(seen) => seen,
            };
            if since.elapsed() > limit {
                let tail = self.journal_tail(40);
                return Err(format!("gave up waiting for {what}: {seen}; journal:\n{tail}").into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until a unit is active in another invocation than `before` (empty: any).
    pub(crate) fn active(&self, unit: &str, before: &str, limit: Duration) -> Outcome<String> {
        self.until(&format!("{unit} to be active"), limit, |lab| {
            let (state, now) = (lab.show(unit, "ActiveState")?, lab.show(unit, "InvocationID")?);
            if state == "active" && now != before {
                return Ok(now);
            }
            Err(format!("it is {state} in invocation {now}").into())
        })
    }

    /// Writes a file below the home; it and its new directories belong to the user.
    pub(crate) fn write(&self, path: &str, text: &str) -> Outcome<PathBuf> {
        let file = self.home().join(path);
        let dirs: Vec<&Path> = file.ancestors().skip(1).take_while(|dir| !dir.exists()).collect();
        for dir in dirs.into_iter().rev() {
            std::fs::create_dir(dir)?;
            chown(dir, Some(UID), Some(UID))?;
        }
        std::fs::write(&file, text)?;
        chown(&file, Some(UID), Some(UID))?;
        Ok(file)
    }

    /// Writes a user unit (or a drop-in) and has it read.
    pub(crate) fn write_unit(&self, name: &str, text: &str) -> Outcome {
        self.write(&format!(".config/systemd/user/{name}"), text)?;
        self.systemctl(&["daemon-reload"])?;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the journal of the lab:\n{}", self.journal_tail(60));
        }
        let verb = if self.keep { "kill" } else { "destroy" };
        // Nobody is left to hear of a failure; the next `gc` tries again.
        drop(script(&self.state, &[verb, &self.name], COMMAND_MAX));
    }
}

fn required() -> bool {
    let required = std::env::var("TIDEOVER_REQUIRE").unwrap_or_default();
    required.split(',').any(|word| word.trim() == "systemd")
}

/// The directory of all labs, or what is missing for one.
fn usable() -> Result<PathBuf, String> {
    let missing = script(Path::new("/"), &["check"], COMMAND_MAX).map_err(|e| e.to_string())?;
    if !missing.out.is_empty() || missing.code != Some(0) {
        return Err(format!("{}{}", missing.out, missing.err).trim().replace('\n', "; "));
    }
    let candidates = [std::env::temp_dir(), env!("CARGO_TARGET_TMPDIR").into(), "/dev/shm".into()];
    let mut seen = Vec::new();
    for base in candidates {
        match state_below(&base) {
            Ok(state) => return Ok(state),
            Err(why) => seen.push(why),
        }
    }
    Err(format!("a directory for the lab's disk: {}", seen.join(", ")))
}

/// A directory below `base` that is root's alone and can be the upper layer of an overlay.
fn state_below(base: &Path) -> Result<PathBuf, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", base.display());
    let base = base.canonicalize().map_err(|e| failed(&e))?;
    if statfs(&base).map_err(|e| failed(&e))?.filesystem_type() == OVERLAYFS_SUPER_MAGIC {
        return Err(failed(&"is an overlay itself"));
    }
    let state = base.join("tideover-labs");
    match DirBuilder::new().mode(0o700).create(&state) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(failed(&error));
        }
        Ok(()) | Err(_) => {}
    }
    let found = std::fs::symlink_metadata(&state).map_err(|e| failed(&e))?;
    let ours = found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0;
    if ours { Ok(state) } else { Err(failed(&"tideover-labs in it is not private")) }
}

/// Runs `lab.sh`.
fn script<S: AsRef<OsStr>>(state: &Path, words: &[S], limit: Duration) -> Outcome<Done> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/lab.sh");
    let output: Output = Command::new("timeout")
        .args(["-k", "5", &limit.as_secs().max(1).to_string(), "bash", file])
        .args(words)
        .env("LAB_STATE", state)
        .env("LAB_OWNER", std::process::id().to_string())
        .env("LAB_STOP_TIMEOUT", (STOP_MAX.as_secs() - 20).to_string())
        .env("LAB_BOOT_TIMEOUT", (BOOT_MAX.as_secs() - 10).to_string())
        .stdin(Stdio::null())
        .output()?;
    let words: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    Ok(Done {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        shown: words.join(" "),
    })
}
