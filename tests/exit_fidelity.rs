//! tideover ends exactly as its child did, and says clearly when there was no child to start.

#![cfg(test)]

mod fast;

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;

use fast::{Scratch, skip};

/// The wait status of a script, run directly and under tideover.
fn both(scratch: &Scratch, script: &str) -> (std::process::ExitStatus, std::process::ExitStatus) {
    let words = ["sh", "-c", script];
    let direct = scratch.command("sh").args(&words[1..]).output().unwrap().status;
    let wrapped = scratch.run(&words).output().unwrap().status;
    (direct, wrapped)
}

#[test]
fn exit_codes_are_the_childs_own() {
    let scratch = Scratch::new();
    for code in [0, 1, 2, 64, 69, 78, 79, 127, 143, 255] {
        let (direct, wrapped) = both(&scratch, &format!("exit {code}"));
        assert_eq!(direct.code(), Some(code));
        assert_eq!(wrapped.into_raw(), direct.into_raw(), "code {code}");
    }
}

#[test]
fn deaths_by_signal_are_the_childs_own() {
    let scratch = Scratch::new();
    for signal in ["TERM", "KILL", "SEGV", "ABRT", "INT", "HUP", "QUIT", "USR1", "PIPE", "BUS"] {
        let (direct, wrapped) = both(&scratch, &format!("ulimit -c 0; kill -{signal} $$"));
        // A test run in the background or under nohup ignores these, and its children with it.
        let may_be_ignored = ["INT", "HUP", "QUIT"].contains(&signal);
        assert!(direct.signal().is_some() || may_be_ignored, "{signal}: {direct:?}");
        assert_eq!(wrapped.into_raw(), direct.into_raw(), "{signal}");
    }
}

#[test]
fn a_core_dump_is_written_once_and_by_the_child() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.trim() != "core" {
        skip("core files do not go to the working directory here");
        return;
    }
    let per_pid = std::fs::read_to_string("/proc/sys/kernel/core_uses_pid").unwrap_or_default();
    for signal in ["SEGV", "ABRT"] {
        let scratch = Scratch::new();
        // A limit that cannot be raised leaves no core, and nothing to double.
        let script = format!("ulimit -c unlimited 2>/dev/null; echo $$ >pid; kill -{signal} $$");
        let status = scratch.run(&["sh", "-c", &script]).output().unwrap().status;
        assert!(!status.core_dumped(), "the second core is tideover's: {status:?}");
        let pid = std::fs::read_to_string(scratch.path().join("pid")).unwrap();
        let cores: Vec<String> = std::fs::read_dir(scratch.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("core"))
            .collect();
        assert!(cores.len() <= 1, "{cores:?}");
        if per_pid.trim() == "1" && !cores.is_empty() {
            assert_eq!(cores, [format!("core.{}", pid.trim())]);
        }
    }
}

#[test]
fn a_command_that_cannot_be_started_gives_69_and_says_why() {
    let scratch = Scratch::new();
    let plain = scratch.path().join("plain.txt");
    std::fs::write(&plain, "no program\n").unwrap();
    for (program, reason) in [
        ("/nonexistent/gateway", "No such file"),
        (plain.to_str().unwrap(), "Permission denied"),
        (scratch.path().to_str().unwrap(), "Permission denied"),
        ("", ""),
    ] {
        let output = scratch.run(&[program]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(69), "{program:?}: {text}");
        assert!(text.contains("cannot start") && text.contains(reason), "{program:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
fn wrapper_mode_without_a_gateway_gives_69_and_says_why() {
    let scratch = Scratch::new();
    let empty = scratch.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let run = |words: &[&str]| {
        let output = scratch.tideover().env("PATH", &empty).args(words).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = run(&["gateway", "--port", "1"]);
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains("openclaw"), "{text}");
    let (code, text) = run(&["/nonexistent/dist/index.js", "gateway"]);
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains("/nonexistent/dist/index.js"), "{text}");
}

#[test]
fn without_home_the_gateway_still_runs() {
    // System services have no HOME; the gateway itself then asks the user database.
    let scratch = Scratch::new();
    let state = scratch.path().join("state");
    let output = scratch
        .run(&["sh", "-c", "exit 7"])
        .env_remove("HOME")
        .env("OPENCLAW_STATE_DIR", &state)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    if !fast::is_root() {
        skip("only root can run as a user without a home");
        return;
    }
    for uid in [65_534, 54_321] {
        let program = scratch.copy_program(env!("CARGO_BIN_EXE_tideover"), "tideover");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(scratch.path(), mode).unwrap();
        let output = scratch
            .command(&program)
            .args(["run", "--", "sh", "-c", "test -z \"${HOME+set}\" && exit 7"])
            .env_remove("HOME")
            .env_remove("XDG_RUNTIME_DIR")
            .uid(uid)
            .gid(65_534)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(7), "{text}");
        assert!(text.contains("degraded"), "{text}");
    }
}

#[test]
fn an_ignored_sigchld_does_not_cost_the_exit_status() {
    let scratch = Scratch::new();
    let ignoring = |program: &str, words: &[&str]| {
        let words = [&["--ignore-signal=CHLD", program], words].concat();
        scratch.command("env").args(words).output().unwrap()
    };
    if !ignoring("true", &[]).status.success() {
        skip("this env cannot ignore signals");
        return;
    }
    let output = ignoring(env!("CARGO_BIN_EXE_tideover"), &["run", "--", "sh", "-c", "exit 7"]);
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn nothing_of_the_run_is_left_behind() {
    let scratch = Scratch::new();
    assert!(scratch.run(&["true"]).output().unwrap().status.success());
    assert_eq!(scratch.boot()["phase"], "exited");
    assert_eq!(scratch.boot()["exit"]["code"], 0);
    // The next run must find no live socket of this one.
    assert!(std::os::unix::net::UnixStream::connect(scratch.socket()).is_err());
    assert!(!Path::new(&scratch.path().join("core")).exists());
}
