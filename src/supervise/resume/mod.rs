//! `/resume` from a chat and `tideover resume` from a shell: the facts are gathered off the loop, the ledger decides,
//! the permit is made durable, and only then is the gateway asked to run a turn.

mod command;
mod facts;
mod says;
mod shell;
mod start;

use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use crate::control::protocol::{ErrorCode, ResumeAsked, ResumeWord, reply};
use crate::control::server::Peer;
use crate::core::addressee::Addressee;
use crate::core::canonical::session_hash;
use crate::core::checkpoint::{AskedFrom, Checkpoint, ResumeStage, Route};
use crate::core::ledger::Word;
use crate::core::notice::Shown;
use crate::core::resume::{self, Choice, Decision, Facts, Said, answer};
use crate::gateway::left_transcript::Left;
use crate::store::StoreError;
use crate::telemetry::events;

use super::clock;
use super::engine::{Engine, Internal};
use super::process;
use super::reports::Response;
use shell::refusal_of;
use start::Begun;

pub use shell::{confirm_of, facts_offline};

/// One word of a person, on its way.
#[derive(Debug)]
pub(super) struct Asking {
    peer: Peer,
    id: String,
    key: String,
    word: ResumeWord,
    code: Option<String>,
    from: AskedFrom,
    shown: Shown,
}

/// What the resume's own tasks report back to the loop.
#[derive(Debug)]
pub(super) enum Resuming {
    /// The facts are there: decide.
    Facts(Box<Asking>, Box<Facts>),
    /// Is a word still to be carried out?
    Stands {
        /// Whose.
        key: String,
        /// Which run.
        run_id: String,
        /// Takes the answer.
        answer: oneshot::Sender<bool>,
    },
    /// The turn of a resume is over and nothing came of it.
    Lapsed {
        /// Whose.
        key: String,
        /// Which run.
        run_id: String,
    },
    /// The run that was to be started has not begun, or has ended.
    Over {
        /// Whose.
        key: String,
        /// Which run.
        run_id: String,
        /// Whether who asked for it has been told that it has not begun.
        told: bool,
    },
}

impl Engine {
    /// A person wrote `/resume` in a chat.
    pub(super) fn resume_asked(
        &mut self,
        peer: &Peer,
        id: Option<&str>,
        asked: &ResumeAsked,
    ) -> Response {
        let shown = if asked.group && !self.settings.resume.group_arguments {
            Shown::NoArguments
        } else {
            Shown::Everything
        };
        if asked.choice == ResumeWord::List {
            let route = asked.route.as_ref();
            let mine: Vec<&Checkpoint> = self
                .ledger
                .unsettled()
                .filter(|record| is_named(record, asked) || self.is_for(record, route))
                .collect();
            return Response::Now(json!({ "text": resume::list(&mine, shown) }));
        }
        let Some(key) = self.session_asked_for(asked) else {
            let none = resume::refusal(&resume::Refusal::NothingCut);
            return Response::Now(json!({ "text": none }));
        };
        let asking = Asking {
            peer: peer.clone(),
            id: id.unwrap_or_default().to_owned(),
            key,
            word: asked.choice,
            code: asked.code.clone(),
            from: AskedFrom::Chat,
            shown,
        };
        self.gather(asking)
    }

    /// The same from a shell.
    pub(super) fn resume_at_shell(
        &mut self,
        peer: &Peer,
        id: Option<&str>,
        key: &str,
        word: ResumeWord,
    ) -> Response {
        if self.ledger.get(key).is_none() {
            return Response::Error(ErrorCode::NotFound, format!("no session {key:?}"));
        }
        let asking = Asking {
            peer: peer.clone(),
            id: id.unwrap_or_default().to_owned(),
            key: key.to_owned(),
            word,
            code: None,
            from: AskedFrom::Shell,
            shown: Shown::Everything,
        };
        self.gather(asking)
    }

    /// Whether a session's notices go to this address: its own person's, or those of what works for them.
    fn is_for(&self, record: &Checkpoint, asked: Option<&Route>) -> bool {
        match self.ledger.addressee(record) {
            Addressee::Route { route, .. } => is_same_place(&route, asked),
            Addressee::Ask(_) | Addressee::Nobody => false,
        }
    }

    /// Which session a chat's `/resume` is about: the one that the gateway names, else the only interrupted one of
    /// that conversation.
    fn session_asked_for(&self, asked: &ResumeAsked) -> Option<String> {
        let named = self
            .ledger
            .all()
            .find(|record| is_named(record, asked))
            .map(|record| record.session_key.clone());
        named.or_else(|| {
            let route = asked.route.as_ref();
            let mut of_route = self.ledger.unsettled().filter(|record| is_of_route(record, route));
            let first = of_route.next()?;
            of_route.next().is_none().then(|| first.session_key.clone())
        })
    }

    fn gather(&self, asking: Asking) -> Response {
        let record = self.ledger.get(&asking.key).cloned();
        let (link, to_loop) = (self.gateway.clone(), self.to_loop.clone());
        let left = self.ledger.get(&asking.key).and_then(|record| {
            let left = Left::by(record)?;
            Some((self.layout.state_dir().to_owned(), left))
        });
        spawn_local(async move {
            let mut facts = facts::look(link, asking.key.clone(), record).await;
            facts.transcript = facts::transcript(left).await;
            let resuming = Resuming::Facts(Box::new(asking), Box::new(facts));
            let _ = to_loop.send(Internal::Resuming(resuming)).await;
        });
        Response::Later
    }

    /// Takes what the resume's tasks bring.
    pub(super) fn resuming(&mut self, resuming: Resuming) {
        match resuming {
            Resuming::Facts(asking, facts) => self.decide(*asking, &facts),
            Resuming::Stands { key, run_id, answer } => {
                let _ = answer.send(self.is_at(&key, &run_id, ResumeStage::Granted));
            }
            Resuming::Lapsed { key, run_id } => {
                // Unless the gateway went down just then: that cut it, and has a notice of its own.
                if self.lapses(&key, &run_id) && !self.ledger.is_stopping() {
                    self.say_lapsed(&key, &run_id);
                }
            }
            Resuming::Over { key, run_id, told } => {
                if self.ledger.resume_lapsed(clock::now(), &key, &run_id) {
                    if !told {
                        self.say_lapsed(&key, &run_id);
                    }
                    self.persist_soon(&key);
                }
            }
        }
    }

    fn decide(&mut self, asking: Asking, facts: &Facts) {
        let Some(choice) = choice_of(asking.word) else {
            self.show(&asking, facts);
            return;
        };
        let Some(record) = self.ledger.get(&asking.key) else {
            gone(&asking);
            return;
        };
        let now = clock::now();
        let said = self.said(&asking, choice, facts);
        let starts = match resume::decide(record, &said) {
            Decision::Rerun | Decision::GoOn | Decision::Done => true,
            Decision::Confirm | Decision::Skip | Decision::Refuse(_) => false,
        };
        if self.gateway.is_none() && starts {
            let why = "the gateway does not serve yet; try again in a moment";
            asking.peer.refuse(Some(&asking.id), ErrorCode::NotDurable, why);
            return;
        }
        let word = Word { said, run_id: format!("tideover-resume-{}", process::new_run_id()) };
        let resumed = self.ledger.resume(now, &asking.key, &word);
        let Some(record) = self.ledger.get(&asking.key) else { return };
        let text = answer(record, &resumed.decision, facts, asking.shown);
        let result = json!({
            "decision": decision_name(&resumed.decision),
            "refusal": refusal_of(&resumed.decision),
            "text": text,
            "run_id": resumed.starts.then_some(&word.run_id),
        });
        if !resumed.changed {
            asking.peer.send(reply(&asking.id, &result));
            return;
        }
        if resumed.decision != Decision::Confirm {
            tracing::info!(
                event = events::RESUMED.name,
                session_hash = session_hash(&asking.key),
                decision = decision_name(&resumed.decision),
                from = from_name(asking.from),
                "a person resumed an interrupted session"
            );
        }
        let prompt = resume::prompt(record, &resumed.decision).filter(|_| resumed.starts);
        let route = record.route.clone();
        let ack = self.persist(&asking.key);
        self.announce_holds();
        let (link, to_loop) = (self.gateway.clone(), self.to_loop.clone());
        spawn_local(async move {
            let stored = ack.await.unwrap_or(Err(StoreError::Stopped));
            if let Err(error) = stored {
                let so = if resumed.starts { ", so nothing was started" } else { "" };
                let why = format!("it could not be made durable{so}: {error}");
                asking.peer.refuse(Some(&asking.id), ErrorCode::NotDurable, &why);
                let _ = to_loop.send(over(&asking.key, &word.run_id, true)).await;
                return;
            }
            let (Some(prompt), Some(link)) = (prompt, link) else {
                asking.peer.send(reply(&asking.id, &result));
                return;
            };
            let stands = {
                let (to_loop, key, run) =
                    (to_loop.clone(), asking.key.clone(), word.run_id.clone());
                move || still_stands(to_loop.clone(), key.clone(), run.clone())
            };
            let begun = start::begin(&link, &asking.key, route, &word.run_id, prompt, stands).await;
            let told = matches!(begun, Begun::NotTaken(_));
            match begun {
                Begun::Accepted(end) => {
                    asking.peer.send(reply(&asking.id, &result));
                    let _ = end.await;
                }
                Begun::NotTaken(why) => {
                    let why = match resumed.decision {
                        Decision::Done => format!(
                            "it is recorded as done, but the gateway did not take the turn that goes on: {why}; write \
                             to go on"
                        ),
                        Decision::Rerun
                        | Decision::GoOn
                        | Decision::Confirm
                        | Decision::Skip
                        | Decision::Refuse(_) => {
                            format!("the gateway did not take the turn, so nothing runs: {why}")
                        }
                    };
                    asking.peer.refuse(Some(&asking.id), ErrorCode::NotDurable, &why);
                }
            }
            let _ = to_loop.send(over(&asking.key, &word.run_id, told)).await;
        });
    }

    fn show(&self, asking: &Asking, facts: &Facts) {
        let Some(record) = self.ledger.get(&asking.key) else {
            gone(asking);
            return;
        };
        let next = resume::decide(record, &self.said(asking, Choice::Ask, facts));
        let yes = resume::decide(record, &self.said(asking, Choice::Yes, facts));
        let result = json!({
            "decision": decision_name(&next),
            "refusal": refusal_of(&next),
            "yes": { "decision": decision_name(&yes), "refusal": refusal_of(&yes) },
            "text": resume::facts_text(record, facts, asking.shown),
            "facts": facts,
            "session": record,
        });
        asking.peer.send(reply(&asking.id, &result));
    }

    fn said(&self, asking: &Asking, choice: Choice, facts: &Facts) -> Said {
        Said {
            choice,
            code: asking.code.clone(),
            from: asking.from,
            confirm: confirm_of(&self.settings),
            command: facts.command(),
        }
    }
}

/// Asks the loop; a loop that is gone wants nothing.
async fn still_stands(to_loop: mpsc::Sender<Internal>, key: String, run_id: String) -> bool {
    let (answer, answered) = oneshot::channel();
    let asked = Internal::Resuming(Resuming::Stands { key, run_id, answer });
    to_loop.send(asked).await.is_ok() && answered.await.unwrap_or(false)
}

fn over(key: &str, run_id: &str, told: bool) -> Internal {
    Internal::Resuming(Resuming::Over { key: key.to_owned(), run_id: run_id.to_owned(), told })
}

fn is_named(record: &Checkpoint, asked: &ResumeAsked) -> bool {
    asked.session.as_ref().is_some_and(|session| {
        record.session_key == session.key
            || (session.id.is_some() && record.session_id == session.id)
    })
}

/// Whether a session's user is reached at this address.
fn is_of_route(record: &Checkpoint, asked: Option<&Route>) -> bool {
    record.route.as_ref().is_some_and(|own| is_same_place(own, asked))
}

fn is_same_place(own: &Route, asked: Option<&Route>) -> bool {
    let Some(asked) = asked else { return false };
    own.channel == asked.channel
        && own.to == asked.to
        && own.thread_id == asked.thread_id
        && (own.account_id == asked.account_id
            || own.account_id.is_none()
            || asked.account_id.is_none())
}

fn choice_of(word: ResumeWord) -> Option<Choice> {
    match word {
        ResumeWord::Ask => Some(Choice::Ask),
        ResumeWord::Yes => Some(Choice::Yes),
        ResumeWord::Done => Some(Choice::Done),
        ResumeWord::Skip => Some(Choice::Skip),
        ResumeWord::Show | ResumeWord::List => None,
    }
}

/// What a decision is called on the wire and in `--json`.
#[must_use]
pub fn decision_name(decision: &Decision) -> &'static str {
    match decision {
        Decision::Confirm => "confirm",
        Decision::Rerun => "rerun",
        Decision::GoOn => "go_on",
        Decision::Done => "done",
        Decision::Skip => "skip",
        Decision::Refuse(_) => "refused",
    }
}

fn from_name(from: AskedFrom) -> &'static str {
    match from {
        AskedFrom::Chat => "chat",
        AskedFrom::Shell => "shell",
    }
}

/// The record was dropped while its facts were looked for.
fn gone(asking: &Asking) {
    let why = format!("no session {:?}", asking.key);
    asking.peer.refuse(Some(&asking.id), ErrorCode::NotFound, &why);
}
