//! Whatever is broken around it, the gateway runs and ends with its own status, and it is said what is wrong.

#![cfg(test)]

mod fast;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use fast::{Link, Scratch, is_root, skip, until};
use serde_json::{Value, json};

/// A status that only the child can have given.
const OWN_STATUS: i32 = 43;

/// Runs a child that ends by itself; returns tideover's log.
fn gateway_runs(scratch: &Scratch) -> String {
    let output = scratch.run(&["sh", "-c", &format!("exit {OWN_STATUS}")]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(OWN_STATUS), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// Every verb, with the exit codes that it may end with. None may panic.
fn verbs_answer(scratch: &Scratch, online: bool) {
    let flush: &[i32] = if online { &[0, 1] } else { &[3] };
    for (words, codes) in [
        (&["status"][..], &[0][..]),
        (&["status", "--json"], &[0]),
        (&["sessions"], &[0]),
        (&["sessions", "list", "--json"], &[0]),
        (&["sessions", "show", "no such"], &[4]),
        (&["sessions", "release", "no such"], &[4, 1]),
        (&["sessions", "forget", "no such"], &[4, 1]),
        (&["resume", "no such"], &[4, 1]),
        (&["resume", "no such", "--yes"], &[4, 1]),
        (&["flush"], flush),
    ] {
        let output = scratch.verb(words);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(codes.contains(&output.status.code().unwrap()), "{words:?} {output:?}");
        assert!(!text.contains("panicked"), "{words:?}: {text}");
        assert!(output.status.success() || text.contains("tideover: "), "{words:?}: {text}");
    }
}

/// The reason for which a running tideover calls itself degraded.
fn degraded(scratch: &Scratch, concern: &str) -> String {
    until("the reason", || scratch.status()["degraded"][concern].as_str().map(str::to_owned))
}

fn good(key: &str) -> Value {
    json!({
        "schema": "tideover.checkpoint/1", "seq": 3, "session_key": key, "state": "idle",
        "next_expected_action": "", "updated_at": "2026-01-01T00:00:00.000Z",
        "gateway": { "boot": "x" }, "evidence": "plugin",
    })
}

#[test]
fn unreadable_checkpoints_are_set_aside_byte_for_byte() {
    let mut foreign = good("foreign");
    foreign["schema"] = json!("somebody.else/1");
    let whole = good("whole").to_string();
    let mut wrong_type = good("wrong");
    wrong_type["seq"] = json!("three");
    let mut unknown_state = good("state");
    unknown_state["state"] = json!("dancing");
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("empty.json", Vec::new(), "cut off"),
        ("truncated.json", whole.as_bytes()[..whole.len() / 2].to_vec(), "cut off"),
        ("binary.json", vec![0xff, 0, 0xfe, b'\n'], "no JSON"),
        ("array.json", b"[]".to_vec(), "checkpoint"),
        ("deep.json", "{\"a\":".repeat(100_000).into_bytes(), "no JSON"),
        ("foreign.json", foreign.to_string().into_bytes(), "somebody.else/1"),
        ("wrong.json", wrong_type.to_string().into_bytes(), "another type or value"),
        ("missing.json", br#"{"schema":"tideover.checkpoint/1"}"#.to_vec(), "seq"),
        ("state.json", unknown_state.to_string().into_bytes(), "another type or value"),
    ];
    let scratch = Scratch::new();
    let dir = scratch.make_checkpoints();
    std::fs::write(dir.join("whole.json"), &whole).unwrap();
    for (name, bytes, _) in &cases {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    // Without a supervisor nothing is moved, and everything is told.
    verbs_answer(&scratch, false);
    let problems = scratch.status()["problems"].to_string();
    for (name, bytes, why) in &cases {
        assert_eq!(std::fs::read(dir.join(name)).unwrap(), *bytes, "{name}");
        assert!(problems.contains(name) && problems.contains(why), "{name}: {problems}");
    }
    let log = gateway_runs(&scratch);
    for (name, bytes, why) in &cases {
        assert!(!dir.join(name).exists(), "{name}");
        assert_eq!(std::fs::read(scratch.quarantine().join(name)).unwrap(), *bytes, "{name}");
        let line = log.lines().find(|line| line.contains(name)).unwrap_or_default();
        assert!(line.contains(why), "{name}: {line:?}");
    }
    assert_eq!(std::fs::read_to_string(dir.join("whole.json")).unwrap(), whole);
    assert_eq!(scratch.status()["sessions"]["known"], 1);
    // The same name again does not replace what is there.
    std::fs::write(dir.join("empty.json"), "second").unwrap();
    gateway_runs(&scratch);
    assert_eq!(std::fs::read(scratch.quarantine().join("empty.json")).unwrap(), b"");
    assert_eq!(std::fs::read(scratch.quarantine().join("empty.json.1")).unwrap(), b"second");
    verbs_answer(&scratch, false);
}

#[test]
fn a_huge_checkpoint_is_set_aside_unread() {
    let scratch = Scratch::new();
    let dir = scratch.make_checkpoints();
    let file = std::fs::File::create(dir.join("huge.json")).unwrap();
    file.set_len(100 << 20).unwrap();
    verbs_answer(&scratch, false);
    let log = gateway_runs(&scratch);
    assert!(log.contains("huge.json") && log.contains("104857600 bytes"), "{log}");
    assert_eq!(std::fs::metadata(scratch.quarantine().join("huge.json")).unwrap().len(), 100 << 20);
}

#[test]
fn what_is_no_file_is_left_alone() {
    let scratch = Scratch::new();
    let dir = scratch.make_checkpoints();
    std::fs::create_dir(dir.join("directory.json")).unwrap();
    std::fs::write(scratch.path().join("target"), good("target").to_string()).unwrap();
    symlink(scratch.path().join("target"), dir.join("link.json")).unwrap();
    symlink("/nonexistent", dir.join("dangling.json")).unwrap();
    nix::unistd::mkfifo(&dir.join("pipe.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(dir.join("socket.json")).unwrap();
    let names = ["directory.json", "link.json", "dangling.json", "pipe.json", "socket.json"];
    verbs_answer(&scratch, false);
    let log = gateway_runs(&scratch);
    for name in names {
        let line = log.lines().find(|line| line.contains(name)).unwrap_or_default();
        assert!(line.contains("not a regular file"), "{name}: {log}");
        assert!(std::fs::symlink_metadata(dir.join(name)).is_ok(), "{name}");
    }
    // Sessions of those names get files of their own, and nothing is written through the link.
    let running = scratch.start();
    let mut plugin = running.plugin();
    for name in names {
        let key = name.trim_end_matches(".json");
        assert_eq!(plugin.intent(key, "r", "c", &json!({}))["durable"], true, "{name}");
        assert!(scratch.record(key).is_some(), "{name}");
    }
    assert_eq!(
        std::fs::read_to_string(scratch.path().join("target")).unwrap(),
        good("target").to_string()
    );
    running.ends_with(0);
    drop(socket);
}

#[test]
fn a_checkpoint_of_a_newer_schema_is_never_rewritten() {
    let scratch = Scratch::new();
    let dir = scratch.make_checkpoints();
    let newer = [
        r#"{"schema":"tideover.checkpoint/2","session_key":"a","all":"different"}"#.to_owned(),
        good("b").to_string().replace("checkpoint/1", "checkpoint/12"),
    ];
    std::fs::write(dir.join("a.json"), &newer[0]).unwrap();
    std::fs::write(dir.join("b.json"), &newer[1]).unwrap();
    let running = scratch.start();
    let log = running.log();
    assert!(log.contains("a.json") && log.contains("tideover.checkpoint/2"), "{log}");
    let mut plugin = running.plugin();
    for key in ["a", "b"] {
        plugin.turn(key, "r");
        assert_eq!(plugin.intent(key, "r", "c", &json!({}))["durable"], true);
        plugin.end_turn(key, "r");
    }
    verbs_answer(&scratch, true);
    assert_eq!(scratch.verb(&["sessions", "forget", "a"]).status.code(), Some(0));
    running.ends_with(0);
    gateway_runs(&scratch);
    assert_eq!(std::fs::read_to_string(dir.join("a.json")).unwrap(), newer[0]);
    assert_eq!(std::fs::read_to_string(dir.join("b.json")).unwrap(), newer[1]);
    assert_eq!(scratch.verb(&["sessions", "show", "b"]).status.code(), Some(0));
    verbs_answer(&scratch, false);
}

#[test]
fn a_checkpoint_that_may_not_be_read_is_left_alone() {
    let scratch = Scratch::new();
    let dir = scratch.make_checkpoints();
    std::fs::write(dir.join("secret.json"), good("secret").to_string()).unwrap();
    std::fs::set_permissions(dir.join("secret.json"), std::fs::Permissions::from_mode(0o000))
        .unwrap();
    let log = if is_root() {
        // To root nothing is unreadable: another user runs it, who owns all but that file's content.
        let Some(mut command) = as_nobody(&scratch) else { return };
        let output = command.args(["run", "--", "sh", "-c", "exit 43"]).output().unwrap();
        assert_eq!(output.status.code(), Some(OWN_STATUS), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    } else {
        gateway_runs(&scratch)
    };
    let line = log.lines().find(|line| line.contains("secret.json")).unwrap_or_default();
    assert!(line.contains("Permission denied") && line.contains("left alone"), "{log}");
    assert_eq!(
        std::fs::metadata(dir.join("secret.json")).unwrap().len(),
        good("secret").to_string().len() as u64
    );
}

/// tideover as another user who owns this scratch home.
fn as_nobody(scratch: &Scratch) -> Option<Command> {
    const NOBODY: u32 = 65_534;
    let program = scratch.copy_program(env!("CARGO_BIN_EXE_tideover"), "tideover");
    let owned = Command::new("chown").args(["-R", "65534"]).arg(scratch.path()).status();
    if !owned.is_ok_and(|status| status.success()) {
        skip("cannot give files away");
        return None;
    }
    let mut command = scratch.command(program);
    command.uid(NOBODY).gid(NOBODY);
    Some(command)
}

#[test]
fn a_checkpoint_directory_that_cannot_be_used_is_said_and_harms_nobody() {
    type Break = fn(&Scratch);
    let cases: [(&str, Break, &str); 5] = [
        (
            "a file in its place",
            |scratch| {
                std::fs::create_dir_all(scratch.state().join("sessions")).unwrap();
                std::fs::write(scratch.checkpoints(), "a file").unwrap();
            },
            "sessions/checkpoints: Not a directory",
        ),
        (
            "a file above it",
            |scratch| {
                std::fs::create_dir_all(scratch.state()).unwrap();
                std::fs::write(scratch.state().join("sessions"), "a file").unwrap();
            },
            "Not a directory",
        ),
        (
            "a dangling link",
            |scratch| {
                std::fs::create_dir_all(scratch.state().join("sessions")).unwrap();
                symlink("/nonexistent/deep", scratch.checkpoints()).unwrap();
            },
            "sessions/checkpoints",
        ),
        (
            "a link to itself",
            |scratch| {
                std::fs::create_dir_all(scratch.state().join("sessions")).unwrap();
                symlink("checkpoints", scratch.checkpoints()).unwrap();
            },
            "sessions/checkpoints",
        ),
        (
            "a file as the state directory",
            |scratch| std::fs::write(scratch.state(), "a file").unwrap(),
            ".openclaw",
        ),
    ];
    for (name, break_it, why) in cases {
        let scratch = Scratch::new();
        break_it(&scratch);
        verbs_answer(&scratch, false);
        let log = gateway_runs(&scratch);
        assert!(log.contains(why), "{name}: {log}");
        let running = scratch.start();
        let reason = degraded(&scratch, "checkpoints");
        assert!(reason.contains(why), "{name}: {reason}");
        let answer = running.plugin().intent("a", "r", "c", &json!({}));
        assert_eq!((&answer["durable"], &answer["allow"]), (&json!(false), &json!(true)), "{name}");
        verbs_answer(&scratch, true);
        running.ends_with(OWN_STATUS);
    }
}

#[test]
fn a_checkpoint_directory_that_vanishes_is_made_again() {
    let scratch = Scratch::new();
    let running = scratch.start();
    let mut plugin = running.plugin();
    assert_eq!(plugin.intent("a", "r", "c", &json!({}))["durable"], true);
    std::fs::remove_dir_all(scratch.state().join("sessions")).unwrap();
    assert_eq!(plugin.intent("a", "r", "d", &json!({}))["durable"], true);
    assert_eq!(scratch.record("a").unwrap()["last_tool_call"]["tool_call_id"], "d");
    running.ends_with(0);
}

#[test]
fn with_ack_require_a_call_that_is_not_durable_is_blocked() {
    let scratch = Scratch::new();
    scratch.configure("[checkpoint]\nack = \"require\"\n");
    std::fs::create_dir_all(scratch.state().join("sessions")).unwrap();
    std::fs::write(scratch.checkpoints(), "a file").unwrap();
    let running = scratch.start();
    let answer = running.plugin().intent("a", "r", "c", &json!({}));
    assert_eq!((&answer["durable"], &answer["allow"]), (&json!(false), &json!(false)));
    assert!(answer["reason"].as_str().unwrap().contains("checkpoint.ack"), "{answer}");
    running.ends_with(OWN_STATUS);
}

/// tideover with a file system of its own over the checkpoint directory, gone with the process.
fn on_a_tmpfs(scratch: &Scratch, options: &str, before: &str) -> Option<Command> {
    if !is_root() {
        skip("only root can mount a tmpfs");
        return None;
    }
    let dir = scratch.make_checkpoints();
    let probe = scratch.command("unshare").args(["-m", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        skip("no mount namespaces");
        return None;
    }
    let script = format!(
        "mount -t tmpfs -o {options} none '{dir}' && cd '{dir}' && {{ {before}; }}; cd '{home}' && exec \"$@\"",
        dir = dir.display(),
        home = scratch.path().display(),
    );
    let mut command = scratch.command("unshare");
    command.args(["-m", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_tideover"), "run", "--"]);
    command.args(fast::stand_in::words());
    Some(command)
}

#[test]
fn a_read_only_checkpoint_directory_is_said() {
    let scratch = Scratch::new();
    let before = "echo broken >x.json; mount -o remount,ro .";
    let Some(mut command) = on_a_tmpfs(&scratch, "size=64k", before) else { return };
    let running = scratch.start_with(&mut command);
    let answer = running.plugin().intent("a", "r", "c", &json!({}));
    assert_eq!((&answer["durable"], &answer["allow"]), (&json!(false), &json!(true)));
    let reason = degraded(&scratch, "checkpoints");
    assert!(reason.contains("checkpoints") && reason.contains("Read-only"), "{reason}");
    assert!(running.log().contains("x.json"), "{}", running.log());
    verbs_answer(&scratch, true);
    running.ends_with(OWN_STATUS);
}

#[test]
fn a_full_disk_is_said_and_its_end_too() {
    let scratch = Scratch::new();
    let before = "dd if=/dev/zero of=filler bs=4k count=100 2>/dev/null";
    let Some(mut command) = on_a_tmpfs(&scratch, "size=64k", before) else { return };
    let running = scratch.start_with(&mut command);
    let mut plugin = running.plugin();
    let answer = plugin.intent("a", "r", "c", &json!({}));
    assert_eq!((&answer["durable"], &answer["allow"]), (&json!(false), &json!(true)));
    let reason = degraded(&scratch, "checkpoints");
    assert!(reason.contains("checkpoints") && reason.contains("No space left"), "{reason}");
    assert_eq!(scratch.verb(&["flush"]).status.code(), Some(1));
    // Seen from here that directory is inside the other process only.
    let filler = format!("/proc/{}/root{}/filler", running.pid(), scratch.checkpoints().display());
    std::fs::remove_file(filler).unwrap();
    assert_eq!(plugin.intent("a", "r", "d", &json!({}))["durable"], true);
    until("the end of it", || scratch.status()["degraded"]["checkpoints"].is_null().then_some(()));
    running.ends_with(OWN_STATUS);
}

#[test]
fn an_invalid_configuration_means_defaults_and_is_said() {
    for (text, why) in [
        (&b"[checkpoint\n"[..], "line 1"),
        (b"\n[checkpoint]\nflush_deadline = 5\n", "flush_deadline"),
        (b"[recovery]\nmax_age = 5\n", "max_age"),
        (b"[recovery]\nnative = \"sometimes\"\n", "sometimes"),
        (b"[checkpoint]\nflush_deadline_ms = -1\n", "flush_deadline_ms"),
        (b"\xff\xfe\0binary", "UTF-8"),
        (b"[gateway]\ncommand = \"node\"\n", "command"),
    ] {
        let scratch = Scratch::new();
        let file = scratch.configure(text);
        let log = gateway_runs(&scratch);
        let file = file.to_str().unwrap();
        assert!(log.contains(file), "{log}");
        let running = scratch.start();
        let reason = degraded(&scratch, "config");
        assert!(reason.contains(file), "{reason}");
        let line = format!("{file}:");
        assert!(reason.contains(why) || (why == "line 1" && reason.contains(&line)), "{reason}");
        assert_eq!(running.plugin().intent("a", "r", "c", &json!({}))["durable"], true);
        verbs_answer(&scratch, true);
        running.ends_with(OWN_STATUS);
    }
    let scratch = Scratch::new();
    let file = scratch.configure("");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(gateway_runs(&scratch).contains(file.to_str().unwrap()));
}

#[test]
fn a_socket_path_over_the_limit_is_said() {
    let scratch = Scratch::new();
    let long = scratch.path().join("x".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let script = "test -z \"${TIDEOVER_SOCKET+set}\" && exit 43";
    let output = scratch
        .run(&["sh", "-c", script])
        .env("XDG_RUNTIME_DIR", &long)
        .env("TIDEOVER_SOCKET", "/stale")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(OWN_STATUS), "{text}");
    assert!(text.contains("over the limit of 107") && text.contains("XDG_RUNTIME_DIR"), "{text}");
    assert!(text.contains(long.to_str().unwrap()), "{text}");
    for words in [&["status"][..], &["sessions"], &["flush"]] {
        let output = scratch.tideover().env("XDG_RUNTIME_DIR", &long).args(words).output().unwrap();
        assert!([0, 3].contains(&output.status.code().unwrap()), "{output:?}");
    }
}

#[test]
fn a_socket_left_by_a_killed_tideover_is_taken_over_and_a_live_one_is_not() {
    let scratch = Scratch::new();
    let mut running = scratch.start();
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait();
    assert!(scratch.socket().exists());
    let running = scratch.start();
    let first = scratch.status()["supervisor"]["pid"].clone();
    assert_eq!(first, running.pid());
    // A second one beside it runs its gateway, and says that it does nothing else.
    let log = gateway_runs(&scratch);
    assert!(log.contains("another tideover supervises"), "{log}");
    assert_eq!(scratch.status()["supervisor"]["pid"], first);
    assert_eq!(running.plugin().intent("a", "r", "c", &json!({}))["durable"], true);
    running.ends_with(OWN_STATUS);
}

#[test]
fn something_else_at_the_sockets_place_is_said() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.socket()).unwrap();
    let log = gateway_runs(&scratch);
    assert!(log.contains("control.sock"), "{log}");
    let scratch = Scratch::new();
    std::fs::write(scratch.runtime().join("tideover"), "a file").unwrap();
    let log = gateway_runs(&scratch);
    assert!(log.contains("degraded") && log.contains("tideover"), "{log}");
    verbs_answer(&scratch, false);
}

#[test]
fn hostile_lines_are_answered_and_harm_nobody() {
    let scratch = Scratch::new();
    let running = scratch.start();
    let open = || Link::open(&scratch.socket());
    let hello = "{\"id\":\"1\",\"type\":\"hello\",\"v\":1,\"role\":\"cli\"}\n";
    // Before the greeting: an answer, then the end.
    for (line, code) in [
        ("not json\n", "bad_json"),
        ("[]\n", "bad_json"),
        ("\n", "bad_json"),
        ("{}\n", "bad_field"),
        ("{\"id\":\"1\",\"type\":\"status\"}\n", "hello_first"),
        ("{\"id\":\"1\",\"ok\":true}\n", "hello_first"),
        ("{\"id\":\"1\",\"type\":\"hello\",\"v\":2,\"role\":\"cli\"}\n", "unsupported_version"),
        ("{\"id\":\"1\",\"type\":\"hello\",\"v\":\"1\",\"role\":\"cli\"}\n", "bad_field"),
        ("{\"id\":\"1\",\"type\":\"hello\",\"v\":1,\"role\":\"king\"}\n", "bad_field"),
    ] {
        let mut link = open();
        link.send_text(line);
        let answer = link.read().unwrap_or_else(|| panic!("{line:?}: no answer"));
        assert!(
            [code, "hello_first"].contains(&answer["error"]["code"].as_str().unwrap()),
            "{line:?}: {answer}"
        );
        assert_eq!(link.read(), None, "{line:?}");
    }
    // After it: each request has its answer, and what is no request ends the connection.
    let mut link = open();
    link.send_text(hello);
    link.read().unwrap();
    for (line, code) in [
        ("{\"id\":\"2\",\"type\":\"dance\"}\n", "unknown_type"),
        ("{\"id\":\"2\"}\n", "bad_field"),
        ("{\"id\":\"2\",\"type\":\"release\"}\n", "bad_field"),
        ("{\"id\":\"2\",\"type\":\"release\",\"key\":7}\n", "bad_field"),
        ("{\"id\":\"2\",\"type\":\"forget\",\"key\":\"none\"}\n", "not_found"),
        ("{\"id\":\"2\",\"type\":\"user_message\",\"session\":{\"key\":\"a\"}}\n", "refused"),
        ("{\"id\":\"2\",\"type\":\"hello\",\"v\":1,\"role\":\"plugin\"}\n", "refused"),
    ] {
        link.send_text(line);
        let answer = link.read().unwrap();
        assert_eq!(answer["error"]["code"], code, "{line:?}: {answer}");
        assert_eq!(answer["id"], "2");
    }
    let oversized = format!("{{\"id\":\"3\",\"type\":\"{}\"}}\n", "x".repeat(2 << 20));
    let _ = link.send_bytes(oversized.as_bytes());
    assert_eq!(link.read().unwrap()["error"]["code"], "too_long");
    assert_eq!(link.read(), None);
    // Half a line, then nothing.
    let mut half = open();
    half.send_text(hello);
    half.read().unwrap();
    half.send_text("{\"id\":\"4\",\"type\":\"fl");
    drop(half);
    // A plugin that is not the supervised gateway.
    let mut link = open();
    link.send_text("{\"id\":\"1\",\"type\":\"hello\",\"v\":1,\"role\":\"plugin\"}\n");
    assert_eq!(link.read().unwrap()["error"]["code"], "refused");
    assert_eq!(running.plugin().intent("a", "r", "c", &json!({}))["durable"], true);
    assert_eq!(scratch.status()["sessions"]["known"], 1);
    verbs_answer(&scratch, true);
    running.ends_with(OWN_STATUS);
}

#[test]
fn a_thousand_silent_connections_do_not_keep_anybody_out() {
    let scratch = Scratch::new();
    let running = scratch.start();
    let mut plugin = running.plugin();
    let crowd: Vec<_> = (0..1_000)
        .filter_map(|_| std::os::unix::net::UnixStream::connect(scratch.socket()).ok())
        .collect();
    // Whoever was there goes on.
    assert_eq!(plugin.intent("a", "r", "c", &json!({}))["durable"], true);
    // A crowd that never says hello is sent away, so that the others get in again.
    until("a free place", || scratch.verb(&["status"]).status.success().then_some(()));
    drop(crowd);
    verbs_answer(&scratch, true);
    running.ends_with(OWN_STATUS);
}

#[test]
fn another_user_is_refused() {
    if !is_root() {
        skip("only root can be two users");
        return;
    }
    let scratch = Scratch::new();
    let Some(mut command) = as_nobody(&scratch) else { return };
    command.args([
        "run",
        "--",
        "sh",
        "-c",
        "trap 'exit 43' USR2; while :; do sleep 1000 & wait $!; done",
    ]);
    let mut running = scratch.launch(&mut command);
    // Root passes every permission bit; only the peer check is left.
    let mut link = Link::open(&scratch.socket());
    assert_eq!(std::fs::metadata(scratch.socket()).unwrap().mode() & 0o777, 0o600);
    let _ = link.send_bytes(b"{\"id\":\"1\",\"type\":\"hello\",\"v\":1,\"role\":\"cli\"}\n");
    assert_eq!(link.read().unwrap()["error"]["code"], "refused");
    assert_eq!(link.read(), None);
    let output = scratch.verb(&["status"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    running.signal(nix::sys::signal::Signal::SIGUSR2);
    assert_eq!(running.wait().code(), Some(OWN_STATUS));
}

#[test]
fn broken_records_of_its_own_are_said_and_left_alone() {
    let scratch = Scratch::new();
    let dir = scratch.state().join("tideover");
    std::fs::create_dir_all(dir.join("outbox")).unwrap();
    std::fs::write(dir.join("boot.json"), "{ half").unwrap();
    std::fs::write(dir.join("outbox/x.json"), "[1").unwrap();
    verbs_answer(&scratch, false);
    let log = gateway_runs(&scratch);
    assert!(log.contains("boot.json") && log.contains("x.json"), "{log}");
    assert_eq!(std::fs::read_to_string(dir.join("outbox/x.json")).unwrap(), "[1");
    assert_eq!(scratch.boot()["phase"], "exited");
}

#[test]
fn the_verbs_change_records_online_and_offline() {
    let scratch = Scratch::new();
    for offline in [false, true] {
        let running = scratch.start();
        running.plugin().turn("a", "r");
        running.ends_with(1);
        let running = (!offline).then(|| scratch.start());
        let code = |words: &[&str]| scratch.verb(words).status.code().unwrap();
        assert_eq!(scratch.status()["sessions"]["held"], json!(["a"]), "{offline}");
        assert_eq!(code(&["sessions", "show", "a"]), 0);
        assert_eq!(code(&["sessions", "release", "a"]), 0);
        assert_eq!(scratch.status()["sessions"]["held"], json!([]), "{offline}");
        assert_eq!(code(&["flush"]), if offline { 3 } else { 0 });
        assert_eq!(scratch.record("a").unwrap()["interruption"]["released_by"], "shell");
        assert_eq!(code(&["sessions", "forget", "a"]), 0);
        assert_eq!(scratch.record("a"), None);
        assert_eq!(code(&["sessions", "forget", "a"]), 4);
        if let Some(running) = running {
            let mut plugin = running.plugin();
            plugin.turn("busy", "r");
            assert_eq!(code(&["sessions", "forget", "busy"]), 5);
            plugin.end_turn("busy", "r");
            running.ends_with(0);
        }
    }
    assert!(Path::new(&scratch.state()).exists());
}
