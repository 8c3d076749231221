//! A control socket that nobody answers on costs a tool its timeout at most, and keeps none from
//! running.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::incident::{CHAT, binary, stop};
use support::{Outcome, prepared};
use tempfile::TempDir;
use tideover::drill::mock_model::{ModelRequest, Script, Step, ToolCall};
use tideover::drill::mock_telegram::SentMessage;
use tideover::drill::progress::until;
use tideover::drill::rig::{Rig, RigOptions, TURN_MAX};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// What the plugin lets a tool wait, and some slack for a busy machine.
const DELAY_MAX: Duration = Duration::from_millis(1_000 + 600);
/// Calls in one turn; after three timeouts in a row the peer counts as hung.
const CALLS: usize = 4;

/// A tideover that hangs: it takes every connection and every line, and answers nothing but,
/// if so told, the greeting.
struct Hung {
    greets: Arc<AtomicBool>,
    heard: Arc<AtomicBool>,
}

impl Hung {
    fn listen(path: &Path) -> Outcome<Self> {
        let listener = UnixListener::bind(path)?;
        let hung = Self { greets: Arc::default(), heard: Arc::default() };
        let (greets, heard) = (Arc::clone(&hung.greets), Arc::clone(&hung.heard));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(hang(stream, Arc::clone(&greets), Arc::clone(&heard)));
            }
        });
        Ok(hung)
    }
}

async fn hang(stream: UnixStream, greets: Arc<AtomicBool>, heard: Arc<AtomicBool>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        heard.store(true, Ordering::SeqCst);
        let frame: Value = serde_json::from_str(&line).unwrap_or_default();
        if frame["type"] == "hello" && greets.load(Ordering::SeqCst) {
            let policy = json!({"ack": "prefer", "native": "ask", "timeout_ms": 1000});
            let result = json!({"v": 1, "tideover": "0", "policy": policy, "held": [],
                "interrupted": []});
            let reply = json!({"id": frame["id"], "ok": true, "result": result});
            // A peer that has gone is the plugin's business.
            drop(write.write_all(format!("{reply}\n").as_bytes()).await);
        }
    }
}

/// A turn of several calls, one after the other. Returns how long after the model's word each of
/// them had its effect.
async fn delays(rig: &Rig, name: &str) -> Outcome<Vec<Duration>> {
    let task = format!("Please do {name}.");
    let marker = |n: usize| rig.home.work().join(format!("{name}-{n}"));
    let call = |n: usize| Step::call(ToolCall::exec(format!("echo ran > {}", marker(n).display())));
    let done = format!("{name} is done.");
    let steps = (0..CALLS).map(call).chain([Step::text(&done)]);
    rig.model.script(Script::marker(&task, steps));
    let (asked, sent) = (rig.model.seen(), rig.telegram.mark());
    rig.send_user(CHAT, &task);
    let replied = |m: &SentMessage| m.text.contains(&done);
    rig.telegram.wait_for("the reply", sent, TURN_MAX, replied).await?;
    let own = |r: &ModelRequest| !r.tools.is_empty() && r.turn_text().contains(&task);
    let said: Vec<SystemTime> =
        rig.model.requests_from(asked).iter().filter(|r| own(r)).map(|r| r.at).collect();
    let mut delays = Vec::new();
    for (number, said) in said.iter().take(CALLS).enumerate() {
        let ran = std::fs::metadata(marker(number))?.modified()?;
        delays.push(ran.duration_since(*said).unwrap_or_default());
    }
    assert_eq!(delays.len(), CALLS);
    Ok(delays)
}

fn median(delays: &[Duration]) -> Duration {
    let mut sorted = delays.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

async fn never_held_up(version: &str) -> Outcome {
    let dir = TempDir::new()?;
    let socket = dir.path().join("control.sock");
    let install = vec![binary().into(), "install".into(), "--no-unit".into()];
    let options = RigOptions {
        prepare: Some(vec![install]),
        extra_env: vec![("TIDEOVER_SOCKET".into(), socket.clone().into())],
        ..RigOptions::default()
    };
    let Some((mut rig, _slot)) = prepared(version, options).await? else { return Ok(()) };
    rig.boot().await?;
    // The first turn loads much of the gateway.
    rig.plain_turn(CHAT, "Good morning", "Good morning to you.").await?;
    let absent = delays(&rig, "with-no-socket").await?;
    stop(&mut rig).await?;

    let hung = Hung::listen(&socket)?;
    rig.boot().await?;
    until("the plugin's greeting", TURN_MAX, || async {
        hung.heard.load(Ordering::SeqCst).then_some(()).ok_or_else(|| "nothing".to_owned())
    })
    .await?;
    rig.plain_turn(CHAT, "Good evening", "Good evening to you.").await?;
    let mute = delays(&rig, "with-a-mute-socket").await?;
    hung.greets.store(true, Ordering::SeqCst);
    let greeting = delays(&rig, "with-a-hanging-socket").await?;

    eprintln!("  {version}: absent {absent:?}, mute {mute:?}, hanging {greeting:?}");
    let usual = median(&absent);
    for (what, delays) in [("absent", &absent), ("mute", &mute), ("hanging", &greeting)] {
        for delay in delays {
            assert!(*delay <= usual + DELAY_MAX, "{what} socket: {delays:?}, usually {usual:?}");
        }
    }
    // Nobody there is known at once, so that no call waits.
    assert!(absent.iter().all(|delay| *delay <= usual * 2 + DELAY_MAX / 3), "absent: {absent:?}");
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn no_tool_waits_longer_than_the_timeout_on_2026_9_6() -> Outcome {
    never_held_up("2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn no_tool_waits_longer_than_the_timeout_on_2026_5_5() -> Outcome {
    never_held_up("2026.5.5").await
}
