//! The scripted stand-in for a gateway: the test binary run again, as tideover's child.
//!
//! It logs the signals it gets, answers the gateway's WebSocket protocol as far as notices need it, and
//! relays control connections, so that a test speaks to tideover with the gateway's pid. Its orders come
//! from `STANDIN_*` variables and from lines that begin with `!`.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{LocalSet, spawn_local};
use tokio_tungstenite::tungstenite::Message;

use super::{now_us, turns};

/// The command line that makes this test binary the stand-in.
pub(crate) fn words() -> Vec<OsString> {
    let mut words = vec![std::env::current_exe().unwrap().into_os_string()];
    words.extend(["--exact", "fast::stand_in::stand_in", "--nocapture"].map(OsString::from));
    words
}

/// Not a test: the process that the tests supervise.
#[test]
fn stand_in() {
    let Some(dir) = std::env::var_os("STANDIN_DIR").map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, serve(dir));
}

async fn serve(dir: PathBuf) {
    for (name, kind) in [
        ("TERM", SignalKind::terminate()),
        ("INT", SignalKind::interrupt()),
        ("HUP", SignalKind::hangup()),
        ("QUIT", SignalKind::quit()),
        ("USR1", SignalKind::user_defined1()),
        ("USR2", SignalKind::user_defined2()),
        ("CONT", SignalKind::from_raw(nix::libc::SIGCONT)),
    ] {
        // Before anyone may send one: until then it would end this process.
        spawn_local(log_signals(dir.clone(), name, signal(kind).unwrap()));
    }
    let gateway = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = gateway.local_addr().unwrap().port();
    spawn_local(answer_gateway(dir.clone(), gateway));
    let control = dir.join("ctl");
    let _ = std::fs::remove_file(&control);
    let control = UnixListener::bind(&control).unwrap();
    // Whoever waits for this file may use everything else.
    std::fs::write(dir.join("ready.new"), format!("{}\n", std::process::id())).unwrap();
    std::fs::rename(dir.join("ready.new"), dir.join("ready")).unwrap();
    if let Some(sessions) = std::env::var("STANDIN_BUSY").ok().and_then(|text| text.parse().ok()) {
        spawn_local(work(dir.clone(), port, sessions));
    }
    loop {
        let (stream, _) = control.accept().await.unwrap();
        spawn_local(control_connection(stream, port));
    }
}

async fn log_signals(dir: PathBuf, name: &'static str, mut signals: Signal) {
    let exit: Option<i32> =
        std::env::var(format!("STANDIN_ON_{name}")).ok().and_then(|text| text.parse().ok());
    let log = open_log(&dir, "signals");
    loop {
        signals.recv().await;
        log_line(&log, &format!("{name} {}", now_us()));
        if let Some(code) = exit {
            std::process::exit(code);
        }
    }
}

/// One write a line: a kill never leaves half of one.
pub(super) fn log_line(mut log: &File, line: &str) {
    log.write_all(format!("{line}\n").as_bytes()).unwrap();
}

pub(super) fn open_log(dir: &Path, name: &str) -> File {
    File::options().create(true).append(true).open(dir.join(name)).unwrap()
}

/// A line with `!` is an order; everything else goes to tideover and back.
async fn control_connection(stream: UnixStream, port: u16) {
    let mut stream = BufReader::new(stream);
    let mut first = Vec::new();
    if stream.read_until(b'\n', &mut first).await.is_err() {
        return;
    }
    if let Some(order) = first.strip_prefix(b"!") {
        let order = String::from_utf8_lossy(order).trim().to_owned();
        let (word, number) = order.split_once(' ').unwrap_or((&order, "0"));
        let number: i32 = number.parse().unwrap();
        match word {
            "exit" => std::process::exit(number),
            "port" => stream.write_all(format!("{port}\n").as_bytes()).await.unwrap(),
            "measure" => {
                let text = measure(u32::try_from(number).unwrap()).await;
                std::fs::write(
                    PathBuf::from(std::env::var_os("STANDIN_DIR").unwrap()).join("measured"),
                    text,
                )
                .unwrap();
                stream.write_all(b"done\n").await.unwrap();
            }
            other => panic!("no such order: {other}"),
        }
        return;
    }
    let path = std::env::var_os("TIDEOVER_SOCKET").unwrap();
    let Ok(mut upstream) = UnixStream::connect(path).await else { return };
    if upstream.write_all(&first).await.is_ok() {
        let _ = copy_bidirectional(&mut stream, &mut upstream).await;
    }
}

/// The loopback gateway protocol, as far as a notice needs it.
async fn answer_gateway(dir: PathBuf, listener: TcpListener) {
    let log = Rc::new(open_log(&dir, "sends"));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        spawn_local(answer_client(stream, dir.clone(), Rc::clone(&log)));
    }
}

async fn answer_client(stream: TcpStream, dir: PathBuf, log: Rc<File>) -> Option<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
    let challenge =
        json!({ "type": "event", "event": "connect.challenge", "payload": { "nonce": "n" } });
    socket.send(Message::text(challenge.to_string())).await.ok()?;
    while let Some(Ok(message)) = socket.next().await {
        let Ok(text) = message.into_text() else { continue };
        let Ok(request) = serde_json::from_str::<Value>(&text) else { continue };
        if request["method"] == "agent" {
            turns::answer(&dir, &request, &mut socket).await?;
            continue;
        }
        let payload = match request["method"].as_str() {
            Some("connect") => json!({
                "type": "hello-ok", "protocol": 4, "server": { "version": "stand-in", "bootId": "b" },
                "features": { "methods": ["send", "agent"] },
            }),
            Some("send") => {
                let mut sent = request["params"].clone();
                sent["pid"] = json!(std::process::id());
                log_line(&log, &sent.to_string());
                json!({ "messageId": "1" })
            }
            _ => json!({}),
        };
        let answer = json!({ "type": "res", "id": request["id"], "ok": true, "payload": payload });
        socket.send(Message::text(answer.to_string())).await.ok()?;
    }
    None
}

/// A plugin of its own: one request, one reply, both logged in `wire` before anything follows from them.
pub(crate) struct Wire {
    stream: BufReader<UnixStream>,
    log: Option<File>,
    next: u64,
}

impl Wire {
    async fn open(log: Option<File>) -> Self {
        let path = std::env::var_os("TIDEOVER_SOCKET").unwrap();
        // As in `ask`: a tideover that is killed just now takes this process with it.
        let Ok(stream) = UnixStream::connect(path).await else { std::future::pending().await };
        Self { stream: BufReader::new(stream), log, next: 0 }
    }

    async fn ask(&mut self, mut request: Value) -> Value {
        self.next += 1;
        let id = self.next.to_string();
        request["id"] = json!(id);
        if let Some(log) = &self.log {
            log_line(log, &format!("> {request}"));
        }
        let mut bytes = request.to_string().into_bytes();
        bytes.push(b'\n');
        // Without tideover there is nothing left to do; it takes this process with it.
        if self.stream.write_all(&bytes).await.is_err() {
            std::future::pending::<()>().await;
        }
        loop {
            let mut line = String::new();
            match self.stream.read_line(&mut line).await {
                Ok(read) if read > 0 => {}
                Ok(_) | Err(_) => std::future::pending().await,
            }
            let reply: Value = serde_json::from_str(&line).unwrap();
            if reply.get("ok").is_none() || reply["id"] != id.as_str() {
                continue;
            }
            assert_eq!(reply["ok"], true, "{request} got {reply}");
            if let Some(log) = &self.log {
                let noted = json!({ "request": request, "result": reply["result"] });
                log_line(log, &format!("< {noted}"));
            }
            return reply["result"].clone();
        }
    }

    async fn greet(&mut self, port: u16) -> Value {
        let incarnation = std::process::id().to_string();
        let hello = self
            .ask(json!({
                "type": "hello", "v": 1, "role": "plugin", "plugin_version": "0",
                "gateway": { "version": "stand-in", "incarnation": incarnation },
            }))
            .await;
        self.ask(json!({ "type": "gateway_start", "incarnation": incarnation, "port": port }))
            .await;
        hello
    }
}

/// Turn after turn in some sessions until something kills us.
async fn work(dir: PathBuf, port: u16, sessions: u64) {
    let mut wire = Wire::open(Some(open_log(&dir, "wire"))).await;
    let hello = wire.greet(port).await;
    let me = std::process::id();
    for held in hello["held"].as_array().unwrap() {
        let answer = wire
            .ask(json!({
                "type": "tool_intent", "session": { "key": held["key"] }, "run_id": "probe",
                "tool_call_id": format!("probe-{me}"), "name": "exec", "arguments": {},
            }))
            .await;
        assert_eq!(answer["allow"], false, "a held session ran a tool");
    }
    let number = Cell::new(0_u64);
    for turn in 0_u64.. {
        let key = format!("agent:main:telegram:direct:{}", turn % sessions);
        let session = json!({ "key": key, "id": "s" });
        let run = format!("{me}-{turn}");
        // Each session has a person of its own, so that each interruption has a notice of its own.
        let route = json!({ "channel": "telegram", "to": format!("telegram:{}", turn % sessions) });
        wire.ask(json!({
            "type": "turn_start", "session": session, "run_id": run, "origin": "user",
            "text": format!("task {run}"), "route": route,
        }))
        .await;
        for _ in 0..3 {
            number.set(number.get() + 1);
            let call = format!("{me}-{}", number.get());
            wire.ask(json!({
                "type": "tool_intent", "session": session, "run_id": run, "tool_call_id": call,
                "name": "exec", "arguments": { "command": "./deploy.sh", "order": call },
            }))
            .await;
            wire.ask(json!({
                "type": "tool_result", "session": session, "run_id": run, "tool_call_id": call,
                "outcome": "ok",
            }))
            .await;
        }
        wire.ask(json!({
            "type": "turn_end", "session": session, "run_id": run, "success": true, "answered": true,
        }))
        .await;
    }
}

/// Times `count` acknowledgements one after the other; microseconds, one a line.
async fn measure(count: u32) -> String {
    let mut wire = Wire::open(None).await;
    wire.greet(1).await;
    let session = json!({ "key": "measured" });
    let mut text = String::new();
    for number in 0..count {
        let before = Instant::now();
        let answer = wire
            .ask(json!({
                "type": "tool_intent", "session": session, "run_id": "r",
                "tool_call_id": format!("c{number}"), "name": "exec",
                "arguments": { "command": "./deploy.sh" },
            }))
            .await;
        assert_eq!(answer["durable"], true);
        text.push_str(&format!("{}\n", before.elapsed().as_micros()));
        wire.ask(json!({
            "type": "tool_result", "session": session, "run_id": "r",
            "tool_call_id": format!("c{number}"), "outcome": "ok",
        }))
        .await;
    }
    text
}
