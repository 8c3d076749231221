//! What is acknowledged is on disk, whole, and stays readable, whatever the session is called.

#![cfg(test)]

mod fast;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fast::{Link, Running, Scratch, intent, skip, until, until_gone};
use serde_json::{Value, json};

/// The file of a session, read at this very moment.
fn file_of(scratch: &Scratch, key: &str) -> Option<(PathBuf, Value)> {
    std::fs::read_dir(scratch.checkpoints()).ok()?.find_map(|entry| {
        let path = entry.ok()?.path();
        let record: Value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        (record["session_key"] == key).then_some((path, record))
    })
}

/// Kills both and starts again; what was on disk must be understood.
fn kill_and_restart(scratch: &Scratch, mut running: Running) -> Running {
    let child = running.stand_in_pid();
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait();
    until_gone(child);
    scratch.start()
}

/// The session as a restarted tideover knows it.
fn known(scratch: &Scratch, key: &str) -> Value {
    let mut link = Link::open(&scratch.socket());
    link.hello_cli();
    let sessions = link.done(json!({ "type": "sessions" }))["sessions"].clone();
    let found = sessions.as_array().unwrap().iter().find(|record| record["session_key"] == key);
    found.unwrap_or_else(|| panic!("{key:?} is lost\n{}", scratch.log())).clone()
}

fn quarantined(scratch: &Scratch) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(scratch.quarantine()) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// `depth` arrays, one in the other.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

#[test]
fn an_acknowledged_intent_is_on_disk_with_identical_arguments() {
    let scratch = Scratch::new();
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn("a", "r");
    for (number, arguments) in [
        json!({ "command": "./deploy.sh --prod", "nested": { "b": [1, null, true], "a": "ü☂\u{0}\n" } }),
        json!({ "z": 1, "a": 0.1, "big": 9_007_199_254_740_993_u64, "tiny": 5e-324, "neg": -0.0 }),
        json!({}),
        json!([]),
        json!("text"),
        json!({ "long": "x".repeat(400_000) }),
        json!({ "numbers": vec![1; 200_000] }),
        nested(60),
    ]
    .iter()
    .enumerate()
    {
        let call = format!("c{number}");
        let answer = plugin.intent("a", "r", &call, arguments);
        let (_, record) = file_of(&scratch, "a").expect("the file, at the moment of the ack");
        assert_eq!(answer["durable"], true);
        assert_eq!(answer["allow"], true);
        let stored = &record["last_tool_call"];
        assert_eq!(stored["tool_call_id"], call);
        assert_eq!(stored["name"], "exec");
        assert_eq!(stored["arguments"].to_string(), arguments.to_string(), "key order counts too");
        assert_eq!(stored["outcome"], "unknown");
        assert!(stored.get("arguments_omitted").is_none());
    }
    running.ends_with(0);
}

#[test]
fn a_call_without_arguments_is_not_called_too_large() {
    let scratch = Scratch::new();
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn("a", "r");
    plugin.intent("a", "r", "c", &Value::Null);
    let stored = file_of(&scratch, "a").unwrap().1["last_tool_call"].clone();
    assert_eq!(stored["arguments"], Value::Null);
    assert!(stored.get("arguments_omitted").is_none(), "{stored}");
    assert_eq!(stored["arguments_sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn session_keys_of_any_bytes_have_files_of_their_own() {
    let scratch = Scratch::new();
    let running = scratch.start();
    let mut plugin = running.plugin();
    let long = "k".repeat(4_096);
    let longer = format!("{}x", &long[..4_095]);
    let keys = [
        "",
        ".",
        "..",
        "...",
        "/",
        "//",
        "a/b",
        "../../escape",
        "/absolute",
        "nul\0nul",
        "\u{1}\u{7f}\n\r\t",
        "ü☂𝄞",
        "u\u{308}",
        "A",
        "a",
        "%41",
        "a%2Fb",
        "agent:main:telegram:direct:1",
        "CON",
        ".a.json.tmp",
        "quarantine",
        "a.json",
        "~",
        "-",
        "\"quoted\\",
        " ",
        &long,
        &longer,
    ];
    for key in keys {
        let answer = plugin.intent(key, "r", "c", &json!({ "key": key }));
        assert_eq!(answer["durable"], true, "{key:?}");
        assert_eq!(file_of(&scratch, key).unwrap().1["last_tool_call"]["arguments"]["key"], key);
    }
    let files: BTreeSet<PathBuf> =
        keys.iter().map(|key| file_of(&scratch, key).unwrap().0).collect();
    assert_eq!(files.len(), keys.len());
    assert!(!scratch.state().join("escape").exists() && !scratch.path().join("escape").exists());
    drop(plugin);
    let running = kill_and_restart(&scratch, running);
    for key in keys {
        assert_eq!(known(&scratch, key)["interruption"]["call"]["arguments"]["key"], key);
        let shown = scratch.tideover().args(["--json", "sessions", "show", "--", key]).output();
        if !key.contains('\0') {
            assert!(shown.unwrap().status.success(), "{key:?}");
        }
    }
    assert_eq!(quarantined(&scratch), Vec::<PathBuf>::new());
    let list = scratch.verb(&["sessions", "list"]);
    let text = String::from_utf8(list.stdout).unwrap();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    running.ends_with(0);
}

#[test]
fn a_session_key_over_the_limit_is_refused_politely() {
    let scratch = Scratch::new();
    let running = scratch.start();
    let mut plugin = running.plugin();
    let reply = plugin.ask(intent(&"k".repeat(5_000), "r", "c", &json!({})));
    assert_eq!(reply["ok"], false);
    assert_eq!(reply["error"]["code"], "bad_field");
    assert!(reply["error"]["message"].as_str().unwrap().contains("session.key"), "{reply}");
    // The connection lives on.
    assert_eq!(plugin.intent("a", "r", "c", &json!({}))["durable"], true);
    running.ends_with(0);
}

#[test]
fn a_name_that_is_taken_by_another_session_is_left_to_it() {
    let scratch = Scratch::new();
    let dir = scratch.make_checkpoints();
    // Somebody else's record under the name that "a" would get.
    let theirs = r#"{"schema":"tideover.checkpoint/1","seq":1,"session_key":"b","state":"idle",
        "next_expected_action":"","updated_at":"2026-01-01T00:00:00.000Z","gateway":{"boot":"x"},"evidence":"plugin"}"#;
    std::fs::write(dir.join("a.json"), theirs).unwrap();
    let running = scratch.start();
    running.plugin().intent("a", "r", "c", &json!({ "of": "a" }));
    assert_eq!(std::fs::read_to_string(dir.join("a.json")).unwrap(), theirs);
    let (path, record) = file_of(&scratch, "a").unwrap();
    assert_eq!(record["last_tool_call"]["arguments"]["of"], "a");
    assert_ne!(path, dir.join("a.json"));
    let running = kill_and_restart(&scratch, running);
    assert_eq!(known(&scratch, "a")["last_tool_call"]["arguments"]["of"], "a");
    assert_eq!(known(&scratch, "b")["seq"], 1);
    running.ends_with(0);
}

#[test]
fn of_two_files_of_one_session_the_newer_record_counts() {
    for copy in ["0-backup.json", "copy of a.json", "zz.json", "a.json.bak.json"] {
        let scratch = Scratch::new();
        let running = scratch.start();
        let mut plugin = running.plugin();
        plugin.intent("a", "r", "old", &json!({}));
        let (path, _) = file_of(&scratch, "a").unwrap();
        let old = std::fs::read(&path).unwrap();
        plugin.intent("a", "r", "new", &json!({}));
        drop(plugin);
        // What a person does who wants to keep a record.
        std::fs::write(scratch.checkpoints().join(copy), &old).unwrap();
        let running = kill_and_restart(&scratch, running);
        assert_eq!(known(&scratch, "a")["last_tool_call"]["tool_call_id"], "new", "{copy}");
        assert_eq!(std::fs::read(scratch.checkpoints().join(copy)).unwrap(), old, "{copy}");
        running.ends_with(0);
    }
}

#[test]
fn sixty_four_sessions_at_once_are_all_durable() {
    let scratch = Scratch::new();
    let running = scratch.start();
    let mut plugin = running.plugin();
    let before = Instant::now();
    let posted: Vec<(String, String)> = (0..64)
        .map(|n| {
            let key = format!("agent:main:{n}");
            let id = plugin.post(intent(&key, "r", &format!("c{n}"), &json!({ "n": n })));
            (key, id)
        })
        .collect();
    for (key, id) in &posted {
        let reply = plugin.reply(id);
        assert_eq!(reply["result"]["durable"], true, "{reply}");
        assert!(file_of(&scratch, key).is_some());
    }
    eprintln!("MEASURED: 64 sessions acknowledged in {:?} (files read back too)", before.elapsed());
    drop(plugin);
    let running = kill_and_restart(&scratch, running);
    for (key, _) in &posted {
        assert_eq!(known(&scratch, key)["interruption"]["cause"], "tideover_killed");
    }
    running.ends_with(0);
}

#[test]
fn redacted_keys_are_never_stored() {
    let scratch = Scratch::new();
    scratch.configure("[checkpoint]\nredact = [\"password\", \"api_key\"]\n");
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn("a", "r");
    let arguments = json!({
        "password": "hunter2", "deep": [{ "api_key": { "value": "hunter2" }, "kept": 1 }], "kept": 2,
    });
    plugin.intent("a", "r", "c", &arguments);
    drop(plugin);
    let running = kill_and_restart(&scratch, running);
    let record = known(&scratch, "a");
    let call = &record["interruption"]["call"];
    assert_eq!(call["arguments"], json!({ "deep": [{ "kept": 1 }], "kept": 2 }));
    assert_eq!(call["arguments_omitted"]["why"], "redacted");
    assert_eq!(call["arguments_omitted"]["keys"], json!(["password", "api_key"]));
    running.ends_with(0);
    let mut dirs = vec![scratch.state()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
                assert!(!text.contains("hunter2"), "{}", path.display());
            }
        }
    }
    assert!(!scratch.log().contains("hunter2"));
}

#[test]
fn arguments_over_the_limit_are_omitted_and_said_so() {
    let scratch = Scratch::new();
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn("a", "r");
    assert_eq!(
        plugin.intent("a", "r", "c", &json!({ "data": "x".repeat(600_000) }))["durable"],
        true
    );
    let call = file_of(&scratch, "a").unwrap().1["last_tool_call"].clone();
    assert_eq!(call["arguments"], Value::Null);
    assert_eq!(call["arguments_omitted"], json!({ "why": "too_large", "bytes": 600_011 }));
    plugin.done(json!({
        "type": "tool_intent", "session": { "key": "a" }, "run_id": "r", "tool_call_id": "d",
        "name": "exec", "arguments_omitted": { "bytes": 5_000_000, "sha256": "ab" },
    }));
    let call = file_of(&scratch, "a").unwrap().1["last_tool_call"].clone();
    assert_eq!(call["arguments_omitted"], json!({ "why": "too_large", "bytes": 5_000_000 }));
    assert_eq!(call["arguments_sha256"], "ab");
    running.ends_with(0);
}

/// Acknowledges some calls, cuts them, and expects the record to be understood for two more starts.
fn survives(calls: &[Value]) {
    let scratch = Scratch::new();
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn("a", "r");
    for (number, arguments) in calls.iter().enumerate() {
        let answer = plugin.intent("a", "r", &format!("c{number}"), arguments);
        assert_eq!(answer["durable"], true);
    }
    drop(plugin);
    let last = format!("c{}", calls.len() - 1);
    let running = kill_and_restart(&scratch, running);
    assert_eq!(known(&scratch, "a")["last_tool_call"]["tool_call_id"], last);
    let running = kill_and_restart(&scratch, running);
    assert_eq!(known(&scratch, "a")["interruption"]["call"]["tool_call_id"], last);
    assert_eq!(quarantined(&scratch), Vec::<PathBuf>::new());
    running.ends_with(0);
}

#[test]
fn an_acknowledged_call_with_deep_arguments_can_be_read_back() {
    for depth in [64, 65, 122, 125] {
        survives(&[nested(depth)]);
    }
}

#[test]
fn an_acknowledged_call_with_many_small_arguments_can_be_read_back() {
    survives(&[json!({ "numbers": vec![1; 250_000] })]);
    survives(&[json!({ "lists": vec![nested(20); 10_000] })]);
}

#[test]
fn many_large_calls_side_by_side_can_be_read_back() {
    survives(&vec![json!({ "data": "\\\"".repeat(120_000) }); 12]);
}

#[test]
fn unknown_fields_of_a_newer_writer_survive_a_rewrite() {
    let scratch = Scratch::new();
    let dir = scratch.make_checkpoints();
    let call = json!({
        "name": "exec", "arguments": {}, "arguments_sha256": "x", "tool_call_id": "c", "run_id": "r",
        "effect": "unknown", "outcome": "unknown", "started_at": "2026-11-22T16:02:11.345Z",
        "attempt": 1, "new_in_call": [1],
    });
    let record = json!({
        "schema": "tideover.checkpoint/1", "seq": 7, "session_key": "a", "state": "tool_running",
        "last_tool_call": call, "turn": null, "next_expected_action": "", "gateway": { "boot": "x" },
        "updated_at": "2026-11-22T16:02:11.345Z", "evidence": "plugin", "new_at_top": { "x": [1, { "y": null }] },
        "interruption": {
            "id": "i", "cause": "sigterm", "at": "2026-11-22T16:02:11.345Z", "status": "released",
            "notice": "sent", "call": call, "model_told": true, "new_in_cut": "kept",
        },
    });
    std::fs::write(dir.join("a.json"), record.to_string()).unwrap();
    let running = scratch.start();
    let mut plugin = running.plugin();
    plugin.turn("a", "r2");
    plugin.end_turn("a", "r2");
    let record = until("the rewrite", || {
        file_of(&scratch, "a").map(|(_, record)| record).filter(|record| record["state"] == "idle")
    });
    assert_eq!(record["new_at_top"], json!({ "x": [1, { "y": null }] }));
    assert_eq!(record["last_tool_call"]["new_in_call"], json!([1]));
    assert_eq!(record["interruption"]["new_in_cut"], "kept");
    assert_eq!(record["interruption"]["call"]["new_in_call"], json!([1]));
    assert!(record["seq"].as_u64().unwrap() > 7);
    running.ends_with(0);
}

#[test]
fn ten_thousand_checkpoints_are_read_at_a_start() {
    let scratch = Scratch::new();
    let dir = scratch.make_checkpoints();
    for n in 0..10_000 {
        let record = json!({
            "schema": "tideover.checkpoint/1", "seq": n, "session_key": format!("agent:main:telegram:direct:{n}"),
            "session_id": "9b4038cd-0000-0000-0000-000000000000", "agent_id": "main",
            "task": "Deploy the docs site and report", "state": "idle", "turn": null,
            "next_expected_action": "the user's next message", "updated_at": "2026-11-22T16:02:11.345Z",
            "route": { "channel": "telegram", "to": format!("telegram:{n}") },
            "gateway": { "version": "2026.9.6", "boot": "x" }, "evidence": "plugin",
        });
        std::fs::write(
            dir.join(format!("agent%3Amain%3Atelegram%3Adirect%3A{n}.json")),
            record.to_string(),
        )
        .unwrap();
    }
    let run = || {
        let before = Instant::now();
        assert!(scratch.run(&["true"]).output().unwrap().status.success());
        before.elapsed()
    };
    let first = run();
    let second = run();
    eprintln!("MEASURED: a whole run over 10,000 checkpoints: {first:?}, then {second:?}");
    assert!(second < Duration::from_secs(8), "{second:?}");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 10_001, "the quarantine and nothing else");
    assert_eq!(scratch.status()["sessions"]["known"], 10_000);
}

#[test]
fn the_acknowledgement_is_as_fast_as_the_disk() {
    let scratch = Scratch::new();
    let running = scratch.start();
    running.order("measure 200");
    let text = std::fs::read_to_string(scratch.stand_in_dir().join("measured")).unwrap();
    let mut acks_us: Vec<u128> = text.lines().map(|line| line.parse().unwrap()).collect();
    acks_us.sort_unstable();
    let mut bare_us: Vec<u128> = (0..200)
        .map(|_| {
            let before = Instant::now();
            let temp = scratch.state().join(".bare.tmp");
            let file = std::fs::File::create(&temp).unwrap();
            std::io::Write::write_all(&mut &file, &[b'x'; 1_200]).unwrap();
            file.sync_all().unwrap();
            std::fs::rename(&temp, scratch.state().join("bare")).unwrap();
            std::fs::File::open(scratch.state()).unwrap().sync_all().unwrap();
            before.elapsed().as_micros()
        })
        .collect();
    bare_us.sort_unstable();
    eprintln!(
        "MEASURED: ack p50 {} us, a bare durable replace p50 {} us (debug build)",
        acks_us[100], bare_us[100]
    );
    assert!(acks_us[100] < bare_us[100] * 10 + 20_000, "{} {}", acks_us[100], bare_us[100]);
    running.ends_with(0);
}

#[test]
fn what_was_acknowledged_survives_an_instant_crash_of_the_disk() {
    if !fast::is_root() {
        skip("only root can mount a file system to crash");
        return;
    }
    let scratch = Scratch::new();
    let image = scratch.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    let made = scratch.command("mkfs.ext4").args(["-q", "-F"]).arg(&image).output();
    if !made.is_ok_and(|output| output.status.success()) {
        skip("no mkfs.ext4");
        return;
    }
    let disk = Mounted { at: scratch.state() };
    std::fs::create_dir(&disk.at).unwrap();
    let mount = |image: &Path| {
        let mut command = scratch.command("mount");
        command.args(["-o", "loop"]).arg(image).arg(scratch.state());
        command.output().is_ok_and(|output| output.status.success())
    };
    if !mount(&image) {
        skip("no loop mounts");
        return;
    }
    for round in 0..5 {
        let running = scratch.start();
        let mut plugin = running.plugin();
        let mut acked = Vec::new();
        for n in 0..8 {
            let call = format!("c{round}-{n}");
            let answer =
                plugin.intent(&format!("{round}-{}", n % 4), "r", &call, &json!({ "n": n }));
            assert_eq!(answer["durable"], true, "{}", scratch.log());
            acked.push((format!("{round}-{}", n % 4), call));
        }
        crash(&scratch.state());
        let child = running.stand_in_pid();
        drop((plugin, running));
        until_gone(child);
        disk.unmount();
        assert!(mount(&image));
        for (key, call) in &acked[4..] {
            let (_, record) = file_of(&scratch, key).unwrap_or_else(|| panic!("{key} is lost"));
            assert_eq!(record["last_tool_call"]["tool_call_id"], *call);
        }
        let boot: Value = scratch.boot();
        assert_eq!(boot["phase"], "running");
    }
}

/// A mount that does not outlive its test.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    fn unmount(&self) {
        until("the unmount", || {
            std::process::Command::new("umount")
                .arg(&self.at)
                .output()
                .ok()?
                .status
                .success()
                .then_some(())
        });
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

/// `FS_IOC_SHUTDOWN` without flushing the log: the disk stops as at a power cut.
#[expect(unsafe_code, reason = "no library has this ioctl")]
fn crash(mount: &Path) {
    const FS_IOC_SHUTDOWN: nix::libc::c_ulong = 0x8004_587d;
    let directory = std::fs::File::open(mount).unwrap();
    let no_log_flush: u32 = 2;
    // SAFETY: the ioctl reads one u32 through the pointer, which is valid for the call.
    let done = unsafe {
        nix::libc::ioctl(
            std::os::fd::AsRawFd::as_raw_fd(&directory),
            FS_IOC_SHUTDOWN as _,
            &no_log_flush,
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}
