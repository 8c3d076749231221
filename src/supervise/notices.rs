//! The notices on their way: durable first, then sent through the gateway's own `send`.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::spawn_local;

use crate::core::addressee::{Addressee, Described};
use crate::core::checkpoint::{Checkpoint, NoticeStatus, Origin, Route};
use crate::core::hold::ReleasePolicy;
use crate::core::notice::{Shown, question_text, user_text};
use crate::core::outbox::{Entry, SendState, key_of};
use crate::core::resume::stopped_text;
use crate::core::stamp::Stamp;
use crate::gateway::rpc::{Client, ConnectOptions, Credentials, Secret};
use crate::telemetry::events;

use super::clock;
use super::engine::{Engine, GatewayLink, Internal, Phase};

/// How long one attempt waits for the gateway to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(90);
/// How long the gateway may take to describe a session.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before a session's route is asked for again, in milliseconds.
const ASK_AGAIN_MS: i64 = 10_000;

/// What the gateway says of a session.
#[derive(Debug)]
pub(super) enum Asked {
    /// Where its user is reached and who started it, as far as either is known.
    Described(Described),
    /// It could not be asked.
    NoAnswer,
}

impl Engine {
    /// Makes what notices are due and moves on those that are open. Cheap when there is nothing.
    pub(super) fn kick_notices(&mut self) {
        let Some(link) = self.gateway.clone() else { return };
        if self.supervisor.is_stopping() {
            return;
        }
        let now = clock::now();
        self.ask_again_at = self.ask_again_at.filter(|at| *at > now);
        self.make_notices(&link);
        let due: Vec<String> = self
            .outbox
            .values()
            .filter(|entry| matches!(entry.state, SendState::Pending | SendState::Uncertain))
            .filter(|entry| entry.next_try_at <= now)
            .map(|entry| entry.key.clone())
            .collect();
        for key in due {
            self.begin_try(&key, now);
        }
        self.settle_phase();
    }

    /// Drops settled notices of long ago.
    pub(super) fn forget_stale_notices(&mut self) {
        let now = clock::now();
        let stale: Vec<String> = self
            .outbox
            .values()
            .filter(|entry| entry.is_stale(now))
            .map(|entry| entry.key.clone())
            .collect();
        for key in stale {
            self.outbox.remove(&key);
            let ack = self.persist_notice(&key);
            self.watch_ack("outbox", ack);
        }
    }

    /// Has the checkpoints say what the outbox knows: a kill may have come between the two.
    pub(super) fn settle_notices(&mut self) {
        let now = clock::now();
        let known: Vec<(String, String, NoticeStatus)> = self
            .outbox
            .values()
            .flat_map(|entry| {
                let status = entry.notice_status();
                entry.sessions.iter().map(move |(key, id)| (key.clone(), id.clone(), status))
            })
            .collect();
        for (key, id, status) in known {
            let notice = self.ledger.get(&key).and_then(|record| record.interruption.as_ref());
            let waits = notice.is_some_and(|cut| {
                matches!(cut.notice, NoticeStatus::Pending | NoticeStatus::Uncertain)
            });
            if waits && self.ledger.set_notice(now, &key, &id, status) {
                self.persist_soon(&key);
            }
        }
    }

    /// When the next notice is due.
    pub(super) fn next_notice_at(&self) -> Option<Stamp> {
        self.gateway.as_ref().filter(|_| !self.supervisor.is_stopping())?;
        self.outbox
            .values()
            .filter(|entry| matches!(entry.state, SendState::Pending | SendState::Uncertain))
            .map(|entry| entry.next_try_at)
            .chain(self.ask_again_at)
            .min()
    }

    fn make_notices(&mut self, link: &GatewayLink) {
        let in_groups = self.settings.resume.group_arguments;
        let now = clock::now();
        let covered: BTreeSet<String> = self
            .outbox
            .values()
            .flat_map(|entry| entry.sessions.iter().map(|(_, id)| id.clone()))
            .collect();
        let (mut entries, mut unknown, mut nobodys) = (Vec::new(), Vec::new(), Vec::new());
        for records in self.ledger.pending_notices(&covered).into_values() {
            for record in &records {
                match self.ledger.addressee(record) {
                    Addressee::Route { .. } => {}
                    Addressee::Ask(key) => unknown.push(key),
                    Addressee::Nobody => nobodys.push(record.session_key.clone()),
                }
            }
            let hosts = records.iter().find_map(|record| match self.ledger.addressee(record) {
                Addressee::Route { route, session } => Some((route, session)),
                Addressee::Ask(_) | Addressee::Nobody => None,
            });
            if let Some((route, host)) = hosts {
                entries.push(new_entry(now, route, host, &records, self.release(), in_groups));
            }
        }
        for entry in entries {
            self.outbox.entry(entry.key.clone()).or_insert(entry);
        }
        for key in nobodys {
            self.note_no_route(&key);
        }
        self.ask_routes(link, unknown);
    }

    /// The user's own turn was ended because the model went on calling held tools: the user is asked.
    pub(super) fn ask_user(&mut self, session_key: &str) {
        let now = clock::now();
        let Some(record) = self.ledger.get(session_key) else { return };
        let (Some(cut), Some(route), Some(turn)) =
            (&record.interruption, &record.route, &record.turn)
        else {
            return;
        };
        let key = key_of(route, &[cut.id.clone(), turn.run_id.clone()]);
        let in_groups = self.settings.resume.group_arguments;
        let question = if turn.origin == Origin::Resume {
            stopped_text().to_owned()
        } else {
            question_text(cut, self.release(), Shown::to(session_key, in_groups))
        };
        let question = Entry::new(now, key, route.clone(), Vec::new(), question);
        self.outbox.entry(question.key.clone()).or_insert(question);
        self.kick_notices();
    }

    pub(super) fn release(&self) -> ReleasePolicy {
        super::prepare::policy_of(&self.settings).release
    }

    fn ask_routes(&mut self, link: &GatewayLink, keys: Vec<String>) {
        let unasked: Vec<String> =
            keys.into_iter().filter(|key| self.routes_asked.insert(key.clone())).collect();
        if unasked.is_empty() {
            return;
        }
        let (link, to_loop) = (link.clone(), self.to_loop.clone());
        spawn_local(async move {
            let found = describe(&link, &unasked).await;
            let _ = to_loop.send(Internal::Routes { found }).await;
        });
    }

    /// Takes what the gateway knows of sessions; one that could not be asked about is asked about again.
    pub(super) fn routes_found(&mut self, found: Vec<(String, Asked)>) {
        for (key, asked) in found {
            match asked {
                Asked::Described(described) => self.ledger.set_described(&key, described),
                Asked::NoAnswer => {
                    self.routes_asked.remove(&key);
                    self.ask_again_at = Some(clock::now().plus_ms(ASK_AGAIN_MS));
                }
            }
        }
        self.kick_notices();
    }

    fn note_no_route(&mut self, key: &str) {
        let id = self
            .ledger
            .get(key)
            .and_then(|record| record.interruption.as_ref())
            .map(|cut| cut.id.clone());
        let noted =
            id.filter(|id| self.ledger.set_notice(clock::now(), key, id, NoticeStatus::NoRoute));
        if let Some(id) = noted {
            tracing::warn!(
                event = events::NOTICE_NO_ROUTE.name,
                interruption = id,
                "an interrupted session has no route to a person; see `tideover status`"
            );
            self.persist_soon(key);
        }
    }

    /// Handed off once nothing is left to tell.
    pub(super) fn settle_phase(&mut self) {
        let open = self.outbox.values().any(Entry::is_open)
            || (self.phase != Phase::HandedOff && self.queue.has_work());
        let pending = self.ledger.all().any(|record| {
            record.interruption.as_ref().is_some_and(|cut| cut.notice == NoticeStatus::Pending)
        });
        let next = if open || pending { Phase::Recovering } else { Phase::HandedOff };
        if self.phase != next && next == Phase::HandedOff {
            tracing::info!(
                event = events::HANDED_OFF.name,
                held = self.ledger.held().len(),
                "handed off"
            );
        }
        self.phase = next;
    }
}

fn new_entry(
    now: Stamp,
    route: Route,
    host: Option<String>,
    records: &[&Checkpoint],
    release: ReleasePolicy,
    in_groups: bool,
) -> Entry {
    let sessions: Vec<(String, String)> = records
        .iter()
        .filter_map(|record| {
            record.interruption.as_ref().map(|cut| (record.session_key.clone(), cut.id.clone()))
        })
        .collect();
    let ids: Vec<String> = sessions.iter().map(|(_, id)| id.clone()).collect();
    let text = user_text(records, release, false, shown_to(host.as_deref(), &sessions, in_groups));
    Entry { host, ..Entry::new(now, key_of(&route, &ids), route, sessions, text) }
}

/// What may be shown in the conversation that a notice goes to: that of its host, else that of its sessions.
pub(super) fn shown_to(
    host: Option<&str>,
    sessions: &[(String, String)],
    in_groups: bool,
) -> Shown {
    let mut keys = host.into_iter().chain(sessions.iter().map(|(key, _)| key.as_str()));
    let hides = |key: &str| Shown::to(key, in_groups) == Shown::NoArguments;
    if keys.any(hides) { Shown::NoArguments } else { Shown::Everything }
}

/// How to log in to the gateway.
pub(super) fn options(link: &GatewayLink) -> ConnectOptions {
    let credentials = match (&link.auth.token, &link.auth.password) {
        (Some(token), _) => Credentials::Token(Secret::new(token.clone())),
        (None, Some(password)) => Credentials::Password(Secret::new(password.clone())),
        (None, None) => Credentials::None,
    };
    ConnectOptions { port: link.port, credentials, patience: CONNECT_PATIENCE }
}

/// Asks for each session by itself: one odd key must not cost the others their notice.
async fn describe(link: &GatewayLink, keys: &[String]) -> Vec<(String, Asked)> {
    let mut found = Vec::new();
    let mut client = Client::connect(&options(link)).await.ok();
    for key in keys {
        let asked = match &mut client {
            Some(client) => match client.describe_session(key, DESCRIBE_TIMEOUT).await {
                Ok(described) => Asked::Described(described),
                // The gateway knows no such session: there is nobody behind it.
                Err(error) if error.answered().is_some_and(|answer| !answer.is_passing()) => {
                    Asked::Described(Described::default())
                }
                Err(_) => Asked::NoAnswer,
            },
            None => Asked::NoAnswer,
        };
        found.push((key.clone(), asked));
    }
    if let Some(client) = client {
        client.close(DESCRIBE_TIMEOUT).await;
    }
    found
}
