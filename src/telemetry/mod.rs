//! What tideover says about itself: journal records under a unit, lines on stderr elsewhere. Never arguments,
//! texts, tokens or session keys.
//!
//! A stopped journald blocks whoever sends to it (measured: after some 256 records), and stderr may be a pipe
//! that nobody reads. The loop must never wait for either: it only puts the finished record into a bounded
//! queue. A thread does the writing, and only that thread may block; a full queue drops records and counts them.

pub mod events;
mod journal;
mod record;

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use journal::Journal;
use record::Record;

/// Records that may wait for a slow reader.
const RECORDS_MAX: usize = 256;
/// How long the last records may take at the end.
const FINISH_WAIT: Duration = Duration::from_millis(200);
/// Pause between tries to get the last word into a full queue.
const FINISH_PAUSE: Duration = Duration::from_millis(5);

static QUEUE: OnceLock<Queue> = OnceLock::new();

enum Message {
    Record(Record),
    /// Answered when everything before it is written.
    Finish(SyncSender<()>),
}

/// Starts the log. `TIDEOVER_LOG` is `error`, `warn`, `info` (the default), `debug` or `trace`.
pub fn start() {
    let level = std::env::var("TIDEOVER_LOG")
        .ok()
        .and_then(|text| text.parse::<Level>().ok())
        .unwrap_or(Level::INFO);
    let (queue, receiver) = Queue::new();
    let dropped = queue.dropped.clone();
    let first = QUEUE.set(queue.clone()).is_ok();
    if !first || !spawn_writer(receiver, dropped, Journal::of_stderr()) {
        return;
    }
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry()
        .with(Targets::new().with_target("tideover", level))
        .with(queue)
        .try_init();
}

/// Gives the last records a moment to get out.
pub fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.finish();
    }
}

/// The way from the loop to the thread that writes.
#[derive(Clone)]
struct Queue {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    fn new() -> (Self, Receiver<Message>) {
        let (sender, receiver) = sync_channel(RECORDS_MAX);
        (Self { sender, dropped: Arc::default() }, receiver)
    }

    fn finish(&self) {
        let deadline = Instant::now() + FINISH_WAIT;
        let (done, written) = sync_channel(1);
        let mut last = Message::Finish(done);
        while let Err(TrySendError::Full(message)) = self.sender.try_send(last) {
            if Instant::now() >= deadline {
                return;
            }
            last = message;
            std::thread::sleep(FINISH_PAUSE);
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl<S: Subscriber> Layer<S> for Queue {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if self.sender.try_send(Message::Record(Record::of(event))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The thread takes no signal: whoever forwards them reads them elsewhere.
fn spawn_writer(
    receiver: Receiver<Message>,
    dropped: Arc<AtomicU64>,
    journal: Option<Journal>,
) -> bool {
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let thread = std::thread::Builder::new()
        .name("log".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || write_records(&receiver, &dropped, journal.as_ref()));
    if let Ok(mask) = mask {
        let _ = mask.thread_set_mask();
    }
    thread.is_ok()
}

fn write_records(receiver: &Receiver<Message>, dropped: &AtomicU64, journal: Option<&Journal>) {
    while let Ok(message) = receiver.recv() {
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            write(&Record::of_lost(lost), journal);
        }
        match message {
            Message::Record(record) => write(&record, journal),
            Message::Finish(done) => drop(done.send(())),
        }
    }
}

fn write(record: &Record, journal: Option<&Journal>) {
    if journal.is_some_and(|journal| journal.send(record).is_ok()) {
        return;
    }
    // A closed stderr is not worth a gateway: what cannot be said is not said.
    let _ = std::io::stderr().write_all(record.line().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    /// Logs under a journald of our own. Returns what `act` returns and the queue.
    fn under<T>(journal: Journal, act: impl FnOnce() -> T) -> (T, Queue) {
        let (queue, receiver) = Queue::new();
        assert!(spawn_writer(receiver, queue.dropped.clone(), Some(journal)));
        let subscriber = tracing_subscriber::registry().with(queue.clone());
        (tracing::subscriber::with_default(subscriber, act), queue)
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = vec![0; 100_000];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_record_reaches_the_journal_with_its_id_and_hint() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let ((), queue) = under(Journal::to(&path).unwrap(), || {
            tracing::info!(
                event = events::STOP_REQUESTED.name,
                signal = "SIGTERM",
                pid = 7,
                "stop"
            );
        });
        queue.finish();
        let text = received(&journald);
        for line in [
            "MESSAGE=stop signal=\"SIGTERM\" pid=7",
            &format!("MESSAGE_ID={}", events::STOP_REQUESTED.id),
            "PRIORITY=6",
            "SYSLOG_IDENTIFIER=tideover",
            "TIDEOVER_EVENT=stop-requested",
            &format!("TIDEOVER_HINT={}", events::STOP_REQUESTED.hint),
            "TIDEOVER_SIGNAL=SIGTERM",
            "TIDEOVER_PID=7",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in {text}");
        }
    }

    #[test]
    fn a_journald_that_does_not_read_blocks_nobody() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let (slowest, queue) = under(Journal::to(&path).unwrap(), || {
            let timed = |n: u32| {
                let begin = Instant::now();
                tracing::info!(n, "one more");
                begin.elapsed()
            };
            (0..5_000).map(timed).max().unwrap()
        });
        assert!(slowest < Duration::from_millis(100), "a caller waited {slowest:?}");
        let begin = Instant::now();
        queue.finish();
        let waited = begin.elapsed();
        assert!(waited < FINISH_WAIT + Duration::from_millis(300), "the end waited {waited:?}");

        // It reads again: what was kept arrives, and what was not is counted.
        journald.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (mut kept, mut lost) = (0, 0);
        while kept + lost < 5_000 {
            let text = received(&journald);
            match text.lines().find_map(|line| line.strip_prefix("TIDEOVER_COUNT=")) {
                Some(count) => lost += count.parse::<u64>().unwrap(),
                None => kept += 1,
            }
            // The count is said with the next word.
            let _ = queue.sender.try_send(Message::Finish(sync_channel(1).0));
        }
        assert_eq!(kept + lost, 5_000);
        assert!(lost > 0 && kept >= RECORDS_MAX as u64, "{kept} kept, {lost} lost");
    }
}
