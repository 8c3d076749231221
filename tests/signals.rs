//! Signals reach the child as they should, and the child is what it would be without tideover.

#![cfg(test)]

mod fast;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fast::{Scratch, now_us, skip, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// What a busy machine may add to any latency, in microseconds.
const MARGIN_US: u128 = 400_000;

/// `sh` under another name: what `/proc/PID/exe` then tells.
fn shell_named(scratch: &Scratch, name: &str) -> PathBuf {
    scratch.copy_program("/bin/sh", name)
}

/// A shell script that logs SIGUSR1 and ends on SIGUSR2.
fn usr1_script(scratch: &Scratch) -> String {
    let log = scratch.path().join("usr1");
    format!(
        "trap 'echo USR1 >>{log}' USR1; trap 'exit 0' USR2; echo ready >>{log}; \
         while :; do sleep 1000 & wait $!; kill $! 2>/dev/null; done",
        log = log.display()
    )
}

fn usr1_log(scratch: &Scratch) -> String {
    std::fs::read_to_string(scratch.path().join("usr1")).unwrap_or_default()
}

#[test]
fn signals_are_forwarded() {
    let scratch = Scratch::new();
    let running = scratch.start();
    for (signal, name) in [
        (Signal::SIGUSR2, "USR2"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGTERM, "TERM"),
    ] {
        running.signal(signal);
        running.await_signal(name);
    }
    running.await_signal("CONT");
    let seen: Vec<String> = running.signals().into_iter().map(|(name, _)| name).collect();
    assert_eq!(seen.iter().filter(|name| *name == "TERM").count(), 1, "{seen:?}");
    running.ends_with(3);
}

#[test]
fn a_stopped_child_is_woken_to_receive_term() {
    let scratch = Scratch::new();
    let mut running = scratch.start_with(scratch.run_stand_in().env("STANDIN_ON_TERM", "4"));
    let child = Pid::from_raw(running.stand_in_pid());
    kill(child, Signal::SIGSTOP).unwrap();
    let stat = format!("/proc/{child}/stat");
    until("the stop", || std::fs::read_to_string(&stat).ok()?.contains(") T ").then_some(()));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code(), Some(4));
}

#[test]
fn usr1_goes_to_a_command_that_is_not_node() {
    let scratch = Scratch::new();
    let script = usr1_script(&scratch);
    let mut running = scratch.launch(&mut scratch.run(&["sh", "-c", &script]));
    until("the script", || usr1_log(&scratch).contains("ready").then_some(()));
    running.signal(Signal::SIGUSR1);
    until("USR1", || usr1_log(&scratch).contains("USR1").then_some(()));
    running.signal(Signal::SIGUSR2);
    assert_eq!(running.wait().code(), Some(0));
}

#[test]
fn usr1_never_goes_to_a_process_named_node() {
    let scratch = Scratch::new();
    let node = shell_named(&scratch, "node");
    let script = usr1_script(&scratch);
    let mut running =
        scratch.launch(&mut scratch.run(&[node.as_os_str(), "-c".as_ref(), script.as_ref()]));
    until("the script", || usr1_log(&scratch).contains("ready").then_some(()));
    running.signal(Signal::SIGUSR1);
    let log = until("the refusal", || Some(running.log()).filter(|log| log.contains("SIGUSR1")));
    assert!(log.contains("SIGUSR2") && log.contains("openclaw gateway restart"), "{log}");
    running.signal(Signal::SIGUSR2);
    assert_eq!(running.wait().code(), Some(0));
    assert!(!usr1_log(&scratch).contains("USR1"));
}

#[test]
fn usr1_never_goes_to_a_command_that_became_node_later() {
    // What `#!/usr/bin/env node` and every launcher script do.
    let scratch = Scratch::new();
    let node = shell_named(&scratch, "node");
    let script = usr1_script(&scratch);
    let launcher = "while [ ! -e go ]; do sleep 0.01; done; exec \"$0\" -c \"$1\"";
    let words = ["sh", "-c", launcher, node.to_str().unwrap(), &script];
    let mut running = scratch.launch(&mut scratch.run(&words));
    // tideover serves, so it has looked at its child already.
    fast::Link::open(&scratch.socket()).hello_cli();
    std::fs::write(scratch.path().join("go"), "").unwrap();
    until("the script", || usr1_log(&scratch).contains("ready").then_some(()));
    running.signal(Signal::SIGUSR1);
    until("the refusal", || running.log().contains("SIGUSR1").then_some(()));
    running.signal(Signal::SIGUSR2);
    assert_eq!(running.wait().code(), Some(0));
    assert!(!usr1_log(&scratch).contains("USR1"));
}

#[test]
fn what_the_plugin_says_of_usr1_counts() {
    let scratch = Scratch::new();
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.done(json!({
        "type": "gateway_start", "incarnation": "i", "signals": { "usr1": false, "usr2": true },
    }));
    running.signal(Signal::SIGUSR1);
    until("the refusal", || running.log().contains("SIGUSR1 not passed on").then_some(()));
    plugin.done(json!({
        "type": "gateway_start", "incarnation": "j", "signals": { "usr1": true, "usr2": false },
    }));
    running.signal(Signal::SIGUSR1);
    running.await_signal("USR1");
    assert_eq!(running.signals().iter().filter(|(name, _)| name == "USR1").count(), 1);
}

#[test]
fn term_with_nothing_in_flight_passes_at_once() {
    let mut latencies_us = Vec::new();
    for _ in 0..5 {
        let scratch = Scratch::new();
        let running = scratch.start();
        let mut plugin = running.plugin();
        plugin.turn("a", "r");
        plugin.end_turn("a", "r");
        let sent_us = now_us();
        running.signal(Signal::SIGTERM);
        latencies_us.push(running.await_signal("TERM").saturating_sub(sent_us));
    }
    latencies_us.sort_unstable();
    eprintln!("MEASURED: SIGTERM to the child's SIGTERM, nothing in flight: {latencies_us:?} us");
    assert!(latencies_us[2] < 50_000, "{latencies_us:?}");
}

#[test]
fn term_with_work_in_flight_passes_when_the_plugin_has_flushed() {
    let scratch = Scratch::new();
    scratch.configure("[checkpoint]\nflush_deadline_ms = 10000\n");
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn("a", "r");
    let sent_us = now_us();
    running.signal(Signal::SIGTERM);
    let flush =
        until("the flush request", || plugin.read().filter(|frame| frame["type"] == "flush"));
    assert_eq!(flush["deadline_ms"], 10_000);
    assert!(running.signals().is_empty(), "TERM before the flush was answered");
    // What the plugin still had is taken before its answer counts.
    plugin.post(fast::intent("a", "r", "late", &json!({ "n": 1 })));
    plugin.send_text(&format!("{}\n", json!({ "id": flush["id"], "ok": true, "result": {} })));
    let latency_us = running.await_signal("TERM").saturating_sub(sent_us);
    eprintln!("MEASURED: SIGTERM to the child's SIGTERM with a flush: {latency_us} us");
    assert!(latency_us < 5_000_000, "{latency_us}");
    assert_eq!(scratch.record("a").unwrap()["last_tool_call"]["tool_call_id"], "late");
    running.ends_with(0);
    let record = scratch.record("a").unwrap();
    assert_eq!(record["interruption"]["cause"], "sigterm");
    assert_eq!(record["interruption"]["call"]["tool_call_id"], "late");
}

#[test]
fn term_passes_within_the_deadline_though_the_plugin_hangs() {
    let deadline_us = 300_000;
    let scratch = Scratch::new();
    scratch.configure("[checkpoint]\nflush_deadline_ms = 300\n");
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn("a", "r");
    plugin.intent("a", "r", "c", &json!({ "command": "./deploy.sh" }));
    let sent_us = now_us();
    running.signal(Signal::SIGTERM);
    let latency_us = running.await_signal("TERM").saturating_sub(sent_us);
    eprintln!(
        "MEASURED: SIGTERM to the child's SIGTERM, plugin hangs, deadline 300 ms: {latency_us} us"
    );
    assert!(latency_us >= deadline_us - 20_000, "the flush was not waited for: {latency_us}");
    assert!(latency_us < deadline_us + MARGIN_US, "{latency_us}");
    // Reports of the drain are still taken.
    plugin.done(json!({
        "type": "tool_result", "session": { "key": "a" }, "run_id": "r", "tool_call_id": "c",
        "outcome": "ok",
    }));
    running.ends_with(0);
    let record = scratch.record("a").unwrap();
    assert_eq!(record["interruption"]["cause"], "sigterm");
    assert_eq!(record["interruption"]["call"]["outcome"], "ok");
}

#[test]
fn a_flood_on_the_socket_does_not_hold_term_back() {
    let scratch = Scratch::new();
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn("a", "r");
    let socket = scratch.socket();
    let flood = std::thread::spawn(move || {
        let mut link = fast::Link::open(&socket);
        link.hello_cli();
        for _ in 0..20_000 {
            if link.send_bytes(b"{\"id\":\"1\",\"type\":\"status\"}\n").is_err() {
                return;
            }
        }
    });
    let sent_us = now_us();
    running.signal(Signal::SIGTERM);
    let latency_us = running.await_signal("TERM").saturating_sub(sent_us);
    assert!(latency_us < 500_000 + MARGIN_US, "{latency_us}");
    running.ends_with(0);
    flood.join().unwrap();
}

#[test]
fn a_second_term_passes_at_once() {
    let scratch = Scratch::new();
    scratch.configure("[checkpoint]\nflush_deadline_ms = 10000\n");
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn("a", "r");
    running.signal(Signal::SIGTERM);
    until("the flush request", || plugin.read().filter(|frame| frame["type"] == "flush"));
    let sent_us = now_us();
    running.signal(Signal::SIGTERM);
    let latency_us = running.await_signal("TERM").saturating_sub(sent_us);
    assert!(latency_us < MARGIN_US, "{latency_us}");
    running.ends_with(0);
}

#[test]
fn kill_9_of_tideover_takes_the_child_with_it() {
    let scratch = Scratch::new();
    let mut running = scratch.start();
    let child = running.stand_in_pid();
    running.signal(Signal::SIGKILL);
    running.wait();
    fast::until_gone(child);
}

#[test]
fn the_sender_of_term_is_recorded() {
    let scratch = Scratch::new();
    let running = scratch.start();
    running.signal(Signal::SIGTERM);
    running.await_signal("TERM");
    let stop =
        until("the record", || Some(scratch.boot()["stop"].clone()).filter(|s| s.is_object()));
    assert_eq!(stop["signal"], "SIGTERM");
    assert_eq!(stop["pid"], std::process::id());
    assert_eq!(stop["uid"], nix::unistd::getuid().as_raw());
    let me = std::env::current_exe().unwrap();
    assert_eq!(stop["executable"], me.to_str().unwrap());
    assert_eq!(scratch.boot()["phase"], "stopping");
    running.ends_with(0);
    assert_eq!(scratch.boot()["phase"], "exited");
}

/// Runs a command directly and under tideover, both from a shell that has done `before`.
fn both(scratch: &Scratch, before: &str, words: &[&OsStr]) -> (Vec<u8>, Vec<u8>) {
    let run = |through: &[&OsStr]| {
        let script = format!("{before} \"$@\"");
        let output = scratch
            .command("sh")
            .args(["-c", &script, "sh"])
            .args(through)
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let tideover = OsStr::new(env!("CARGO_BIN_EXE_tideover"));
    (run(&[]), run(&[tideover, OsStr::new("run"), OsStr::new("--")]))
}

#[test]
fn the_signal_mask_and_dispositions_are_untouched() {
    let scratch = Scratch::new();
    let lines = |bytes: Vec<u8>| -> Vec<String> {
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .filter(|line| ["SigBlk", "SigIgn", "SigCgt"].iter().any(|name| line.starts_with(name)))
            .map(str::to_owned)
            .collect()
    };
    let can_block = scratch
        .command("env")
        .args(["--block-signal=TERM", "true"])
        .output()
        .is_ok_and(|output| output.status.success());
    let mut cases =
        vec!["exec", "trap '' HUP INT USR1; exec", "trap '' CHLD; exec", "trap '' PIPE; exec"];
    if can_block {
        cases.push("exec env --block-signal=TERM,USR2,CHLD");
        cases.push("exec env --ignore-signal=PIPE,CHLD,TERM --block-signal=PIPE");
    } else {
        skip("this env cannot block signals");
    }
    for before in cases {
        let (direct, wrapped) =
            both(&scratch, before, &["cat", "/proc/self/status"].map(OsStr::new));
        assert_eq!(lines(wrapped), lines(direct), "{before}");
    }
}

#[test]
fn argv_directory_and_descriptors_are_untouched() {
    let scratch = Scratch::new();
    let weird: [&[u8]; 7] =
        [b"", b"--", b"-x", b"a b\tc\n", b"\xff\xfe\x80", "ü☂".as_bytes(), b"--json"];
    let script =
        OsStr::new("cat /proc/$$/cmdline; pwd -P; cd /proc/$$/fd && echo *; umask; ulimit -a");
    let mut words = vec![OsStr::new("sh"), OsStr::new("-c"), script];
    words.extend(weird.map(OsStr::from_bytes));
    let (direct, wrapped) = both(&scratch, "exec 7</dev/null; exec", &words);
    assert_eq!(String::from_utf8_lossy(&wrapped), String::from_utf8_lossy(&direct));
}

#[test]
fn the_streams_are_the_very_same_files() {
    let scratch = Scratch::new();
    let file = |name: &str| {
        let path = scratch.path().join(name);
        std::fs::write(&path, b"\0\xff binary\n").unwrap();
        path
    };
    let (input, output, errors) = (file("in"), file("out"), file("err"));
    let open = |path: &Path| std::fs::File::options().read(true).append(true).open(path).unwrap();
    let script = "seen=$(stat -L -c %i /proc/$$/fd/[012]); echo \"$seen\" >inodes; cat";
    let status = scratch
        .run(&["sh", "-c", script])
        .stdin(Stdio::from(open(&input)))
        .stdout(open(&output))
        .stderr(open(&errors))
        .status()
        .unwrap();
    assert!(status.success());
    let want: String = [&input, &output, &errors]
        .map(|path| format!("{}\n", std::fs::metadata(path).unwrap().ino()))
        .concat();
    assert_eq!(std::fs::read_to_string(scratch.path().join("inodes")).unwrap(), want);
    assert_eq!(std::fs::read(&output).unwrap(), b"\0\xff binary\n\0\xff binary\n");
}

#[test]
fn the_environment_is_untouched_but_for_the_documented_variables() {
    let scratch = Scratch::new();
    let environment = |extra: &[(&str, &str)], wrapped: bool| {
        let mut command =
            if wrapped { scratch.run(&["env", "-0"]) } else { scratch.command("env") };
        if !wrapped {
            command.arg("-0");
        }
        command.env(OsStr::from_bytes(b"BY\xffTES"), OsStr::from_bytes(b"\xfe=\n"));
        let output = command.envs(extra.iter().copied()).output().unwrap();
        let mut lines: Vec<Vec<u8>> =
            output.stdout.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    let socket = format!("TIDEOVER_SOCKET={}", scratch.socket().display()).into_bytes();
    let systemd = [
        ("NOTIFY_SOCKET", "/nonexistent"),
        ("WATCHDOG_USEC", "1000000"),
        ("WATCHDOG_PID", "1"),
        ("TIDEOVER_SOCKET", "/stale"),
        ("LISTEN_FDS", "0"),
    ];
    for (extra, no_respawn) in [
        (&[][..], true),
        (&systemd[..], true),
        (&[("INVOCATION_ID", "x")][..], false),
        (&[("INVOCATION_ID", "")][..], true),
        (&[("OPENCLAW_SYSTEMD_UNIT", "u")][..], false),
        (&[("JOURNAL_STREAM", "1:2")][..], false),
        (&[("OPENCLAW_SUPERVISOR_MODE", "external")][..], false),
    ] {
        let mut want: Vec<Vec<u8>> = environment(extra, false)
            .into_iter()
            .filter(|line| {
                !["NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID=", "TIDEOVER_SOCKET="]
                    .iter()
                    .any(|name| line.starts_with(name.as_bytes()))
            })
            .collect();
        want.push(socket.clone());
        if no_respawn {
            want.push(b"OPENCLAW_NO_RESPAWN=1".to_vec());
        }
        want.sort();
        let text = |lines: &[Vec<u8>]| -> Vec<String> {
            lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
        };
        let found = environment(extra, true);
        assert_eq!(text(&found), text(&want), "{extra:?}");
        assert_eq!(found, want, "{extra:?}");
    }
}
