//! One try at a notice: durable first, a look at what became of the tries before, then the gateway's own `send`.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::{spawn_blocking, spawn_local};

use crate::control::protocol::{MessageSent, queue_request};
use crate::core::canonical::sha256_hex;
use crate::core::checkpoint::{Checkpoint, NoticeStatus};
use crate::core::notice::{possibly_repeated, user_text};
use crate::core::outbox::{Attempt, Entry, SendState};
use crate::core::queue::Copy;
use crate::core::stamp::Stamp;
use crate::gateway::rpc::{Client, Redelivery, SendOutcome, SendRequest};
use crate::telemetry::events;

use super::clock;
use super::engine::{Engine, GatewayLink, Internal};
use super::notices::{options, shown_to};
use super::queue::copies;

/// How long one attempt waits for the answer to `send`.
const SEND_TIMEOUT: Duration = Duration::from_secs(45);
/// How long the gateway may take to show a session's history.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long saying goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

impl Engine {
    /// Marks an entry as being tried, durably, before anything is sent.
    pub(super) fn begin_try(&mut self, key: &str, now: Stamp) {
        let sessions = self.sessions_of(key);
        let release = self.release();
        let in_groups = self.settings.resume.group_arguments;
        let gateway = self.incarnation.clone();
        let Some(entry) = self.outbox.get_mut(key) else { return };
        entry.begin(now, gateway.as_deref());
        if entry.doubt {
            // Sessions that were cut again since have nothing new to say about this incident.
            entry.text = match sessions.as_slice() {
                [] => possibly_repeated(&entry.text),
                _ => {
                    let shown = shown_to(entry.host.as_deref(), &entry.sessions, in_groups);
                    user_text(&sessions.iter().collect::<Vec<_>>(), release, true, shown)
                }
            };
        }
        let ack = self.persist_notice(key);
        let (key, to_loop) = (key.to_owned(), self.to_loop.clone());
        spawn_local(async move {
            // A notice that cannot be made durable is still sent: silence is worse than a repeat.
            let stored = ack.await.unwrap_or(Err(crate::store::StoreError::Stopped));
            let _ =
                to_loop.send(Internal::Stored { what: "outbox", key: None, result: stored }).await;
            let _ = to_loop.send(Internal::NoticeReady { key }).await;
        });
    }

    /// The sessions that a notice speaks of, as far as their incident is still the newest.
    fn sessions_of(&self, key: &str) -> Vec<Checkpoint> {
        let sessions = self.outbox.get(key).into_iter().flat_map(|entry| entry.sessions.iter());
        let of_incident = |(session, id): &(String, String)| {
            self.ledger
                .get(session)
                .filter(|record| record.interruption.as_ref().is_some_and(|cut| cut.id == *id))
                .cloned()
        };
        sessions.filter_map(of_incident).collect()
    }

    /// The entry is durable: sends it.
    pub(super) fn notice_ready(&mut self, key: &str) {
        let (Some(link), Some(entry)) = (self.gateway.clone(), self.outbox.get(key)) else {
            return;
        };
        let queue_files = self.queue.in_files().then(|| self.layout.state_dir().to_owned());
        let (entry, to_loop) = (entry.clone(), self.to_loop.clone());
        spawn_local(async move {
            let attempt = attempt(&link, &entry, queue_files).await;
            let _ = to_loop.send(Internal::NoticeTried { key: entry.key, attempt }).await;
        });
    }

    /// An attempt ended: the entry and the checkpoints it speaks of learn how.
    pub(super) fn notice_tried(&mut self, key: &str, attempt: &Attempt) {
        let now = clock::now();
        let Some(entry) = self.outbox.get_mut(key) else { return };
        if entry.state != SendState::Attempting {
            // Its end was told meanwhile.
            return;
        }
        entry.settle(now, attempt, clock::jitter());
        if entry.in_queue
            && let Some(plugin) = &self.plugin
        {
            // No hook tells of a message that was queued only just now.
            plugin.peer.send(queue_request(&format!("queue-{key}-{}", entry.tries)));
        }
        self.notice_changed(key);
    }

    /// A message was sent, or given up: by the gateway's own word. Of its own tries 2026.5.5 tells each failed one,
    /// which our own answer tells, too. Returns whether it was a notice of ours.
    pub(super) fn notice_told(&mut self, sent: &MessageSent) -> bool {
        let now = clock::now();
        let (Some(channel), Some(to)) = (&sent.channel, &sent.to) else { return false };
        let of = |entry: &&mut Entry| {
            let session = entry.conversation();
            entry.awaits_word()
                && sent.session_key.as_ref().is_none_or(|key| session.is_none_or(|own| own == key))
                && entry.route.channel == *channel
                && bare_address(channel, &entry.route.to) == bare_address(channel, to)
                && sha256_hex(entry.text.as_bytes()) == sent.text_sha256
        };
        let Some(entry) = self.outbox.values_mut().find(of) else { return false };
        match (sent.success, entry.in_queue) {
            (true, _) => entry.settle(now, &Attempt::Delivered, 0),
            (false, true) => {
                entry.given_up(now, sent.error.as_deref().unwrap_or("given up"), clock::jitter());
            }
            // Told of a single try; its answer tells more.
            (false, false) => return true,
        }
        let key = entry.key.clone();
        self.notice_changed(&key);
        true
    }

    /// A person asks for failed notices to be tried again. Returns their keys.
    pub(super) fn retry_notices(&mut self, key: Option<&str>) -> Vec<String> {
        let now = clock::now();
        let asked: Vec<String> = self
            .outbox
            .values_mut()
            .filter(|entry| key.is_none_or(|key| entry.key == key))
            .filter_map(|entry| entry.ask_again(now).then(|| entry.key.clone()))
            .collect();
        for key in &asked {
            self.notice_changed(key);
        }
        self.kick_notices();
        asked
    }

    /// Writes a changed entry, says what became of it, and tells the checkpoints that it speaks of.
    fn notice_changed(&mut self, key: &str) {
        let now = clock::now();
        let Some(entry) = self.outbox.get(key) else { return };
        say(entry);
        // The reason may hold an address, so it stays in the entry and out of the log.
        let (status, sessions) = (entry.notice_status(), entry.sessions.clone());
        let ack = self.persist_notice(key);
        self.watch_ack("outbox", ack);
        for (session, id) in sessions {
            if self.ledger.set_notice(now, &session, &id, status) {
                self.persist_soon(&session);
            }
        }
        if status != NoticeStatus::Pending {
            // Messages to the same route have waited for it.
            self.queue_soon();
        }
        self.settle_phase();
    }
}

fn say(entry: &Entry) {
    let (notice, tries) = (entry.key.as_str(), entry.tries);
    match entry.state {
        SendState::Delivered => {
            tracing::info!(event = events::NOTICE_SENT.name, notice, tries, "notice sent");
        }
        SendState::Failed => tracing::error!(
            event = events::NOTICE_GIVEN_UP.name,
            notice,
            tries,
            "notice given up; see `tideover status`"
        ),
        SendState::Pending | SendState::Attempting | SendState::Uncertain => tracing::warn!(
            event = events::NOTICE_UNCERTAIN.name,
            notice,
            tries,
            "notice not known to be sent yet; see `tideover status`"
        ),
    }
}

/// An address without the channel's name in front: the gateway writes it both ways.
pub(super) fn bare_address<'a>(channel: &str, to: &'a str) -> &'a str {
    to.strip_prefix(channel).and_then(|rest| rest.strip_prefix(':')).unwrap_or(to)
}

async fn attempt(link: &GatewayLink, entry: &Entry, queue_files: Option<PathBuf>) -> Attempt {
    let mut client = match Client::connect(&options(link)).await {
        Ok(client) => client,
        Err(error) => return Attempt::NotTaken(error.to_string()),
    };
    let attempt = match before_sending(&mut client, entry, queue_files.clone()).await {
        Some(known) => known,
        None => send(&mut client, entry, queue_files).await,
    };
    client.close(CLOSE_TIMEOUT).await;
    attempt
}

/// What became of the tries before, where that can be known: then nothing is sent.
async fn before_sending(
    client: &mut Client,
    entry: &Entry,
    queue_files: Option<PathBuf>,
) -> Option<Attempt> {
    if !entry.doubt && entry.open <= 1 {
        return None;
    }
    if let Some(session) = entry.conversation() {
        let found = client.has_receipt(session, &entry.keys(), RECEIPT_TIMEOUT).await;
        if found.unwrap_or(false) {
            return Some(Attempt::Delivered);
        }
    }
    let copy = remove_copy(queue_files?, entry).await?;
    match copy.answered {
        None => Some(Attempt::NoAnswer("the gateway is still at it".to_owned())),
        // The answer to the present key: it has its pause like any other.
        Some(answered) => Some(ended(copy.reason, answered)),
    }
}

async fn send(client: &mut Client, entry: &Entry, queue_files: Option<PathBuf>) -> Attempt {
    let request = SendRequest {
        channel: entry.route.channel.clone(),
        to: entry.route.to.clone(),
        message: entry.text.clone(),
        account_id: entry.route.account_id.clone(),
        thread_id: entry.route.thread_id.clone(),
        reply_to_id: None,
        media_urls: Vec::new(),
        idempotency_key: entry.try_key(),
        session_key: entry.conversation().map(str::to_owned),
    };
    let outcome = client.send(&request, SEND_TIMEOUT).await;
    let attempt = match outcome {
        SendOutcome::Delivered { .. } => return Attempt::Delivered,
        SendOutcome::Uncertain { reason } => return Attempt::NoAnswer(reason),
        SendOutcome::Queued { redelivery: Redelivery::WhileRunning, reason, answered } => {
            return Attempt::Queued { reason, answered };
        }
        SendOutcome::Failed { retryable: true, reason, .. } => return Attempt::NotTaken(reason),
        SendOutcome::Queued { redelivery: Redelivery::AtNextStart, reason, answered } => {
            ended(reason, answered)
        }
        // What no queue took and nobody calls passing may be half delivered ("CHANNEL_PARTIAL_DELIVERY"): a person
        // decides about a repeat.
        SendOutcome::Refused { reason } | SendOutcome::Failed { retryable: false, reason, .. } => {
            Attempt::Refused(reason)
        }
    };
    if let Some(state_dir) = queue_files {
        // The gateway would send its copy at its next start, and the notice is ours to send.
        remove_copy(state_dir, entry).await;
    }
    attempt
}

fn ended(reason: String, answered: bool) -> Attempt {
    if answered { Attempt::Rejected(reason) } else { Attempt::Unclear(reason) }
}

/// Removes the copies of a notice that an old gateway keeps as files after a failed try, and tells what the one
/// of the present key says. One that is still being tried stays.
async fn remove_copy(state_dir: PathBuf, entry: &Entry) -> Option<Copy> {
    let entry = entry.clone();
    spawn_blocking(move || copies::take_out(&state_dir, &entry)).await.ok().flatten()
}
