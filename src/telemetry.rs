//! What tideover says about itself: lines on stderr. Never arguments, texts, tokens or session keys.
//!
//! stderr may be a pipe that nobody reads. The loop must never wait for it, so a thread writes and a full queue
//! drops lines and counts them.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Lines that may wait for a slow reader.
const LINES_MAX: usize = 256;
/// How long the last lines may take at the end.
const FINISH_WAIT: Duration = Duration::from_millis(200);

static QUEUE: OnceLock<SyncSender<Message>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Message {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Finish(SyncSender<()>),
}

/// Starts the log. `TIDEOVER_LOG` is `error`, `warn`, `info` (the default), `debug` or `trace`.
pub fn start() {
    let level = std::env::var("TIDEOVER_LOG")
        .ok()
        .and_then(|text| text.parse::<Level>().ok())
        .unwrap_or(Level::INFO);
    let (sender, receiver) = sync_channel(LINES_MAX);
    if QUEUE.set(sender).is_err() || !spawn_writer(receiver) {
        return;
    }
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| Lines)
        .with_ansi(false)
        .without_time()
        .log_internal_errors(false);
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry()
        .with(Targets::new().with_target("tideover", level))
        .with(lines)
        .try_init();
}

/// Gives the last lines a moment to get out.
pub fn finish() {
    let (done, written) = sync_channel(1);
    if let Some(queue) = QUEUE.get()
        && queue.try_send(Message::Finish(done)).is_ok()
    {
        let _ = written.recv_timeout(FINISH_WAIT);
    }
}

/// The thread takes no signal: whoever forwards them reads them elsewhere.
fn spawn_writer(receiver: Receiver<Message>) -> bool {
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let thread = std::thread::Builder::new()
        .name("log".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || write_lines(&receiver));
    if let Ok(mask) = mask {
        let _ = mask.thread_set_mask();
    }
    thread.is_ok()
}

fn write_lines(receiver: &Receiver<Message>) {
    while let Ok(message) = receiver.recv() {
        // A closed stderr is not worth a gateway: what cannot be said is not said.
        match message {
            Message::Line(line) => {
                let dropped = DROPPED.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    let _ = writeln!(std::io::stderr(), " WARN tideover: {dropped} lines dropped");
                }
                let _ = std::io::stderr().write_all(&line);
            }
            Message::Finish(done) => drop(done.send(())),
        }
    }
}

/// Hands whole lines to the thread.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let sent = QUEUE.get().map(|queue| queue.try_send(Message::Line(line.to_vec())));
        if !matches!(sent, Some(Ok(()))) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
