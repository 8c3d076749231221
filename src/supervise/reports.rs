//! What each request on the control socket means: one function a kind, all decisions the ledger's.

use serde_json::{Value, json};
use tokio::task::spawn_local;

use crate::control::protocol::{
    self, ErrorCode, GatewayStart, Hello, Request, ResumeWord, Role, Session, Signals, ToolIntent,
    reply,
};
use crate::control::server::Peer;
use crate::core::checkpoint::{Background, Cause, Outcome, ReleasedBy};
use crate::core::hold::ReleasePolicy;
use crate::core::ledger::{Answer, Ending, Native, SessionRef, Step};
use crate::core::readiness::Event as VitalEvent;
use crate::core::reducer::{Intent, Report};
use crate::core::supervisor::Usr1;
use crate::store::StoreError;
use crate::telemetry::events;

use super::clock;
use super::engine::{BackgroundCommand, Engine, GatewayLink, Phase, Plugin};
use super::process;

/// How long the plugin lets a tool wait for its acknowledgement, in milliseconds (design §8).
const PLUGIN_TIMEOUT_MS: u64 = 1_000;

/// What a peer gets back.
pub(super) enum Response {
    /// At once.
    Now(Value),
    /// An error.
    Error(ErrorCode, String),
    /// Nothing here: a task answers later.
    Later,
}

impl Engine {
    /// A peer greets.
    pub(super) fn hello(&mut self, peer: Peer, id: &str, hello: &Hello) {
        let result = match hello.role {
            Role::Cli => json!({ "v": protocol::VERSION, "tideover": env!("CARGO_PKG_VERSION") }),
            Role::Plugin => {
                if !self.is_gateway(&peer) {
                    peer.refuse(Some(id), ErrorCode::Refused, "not the supervised gateway");
                    return;
                }
                self.greet_plugin(peer.clone(), hello)
            }
        };
        peer.send(reply(id, &result));
    }

    /// The child itself, or a process it was started through (a shell script, say); never a second one beside it.
    fn is_gateway(&self, peer: &Peer) -> bool {
        let ours = self.is_of_gateway(peer);
        let other = self.plugin.as_ref().is_some_and(|plugin| plugin.peer.pid != peer.pid);
        ours && !other
    }

    /// Whether the gateway, or a process that it started, is at the other end.
    fn is_of_gateway(&self, peer: &Peer) -> bool {
        let pid = peer.pid.and_then(|pid| u32::try_from(pid).ok());
        pid.zip(self.boot.gateway)
            .is_some_and(|(pid, gateway)| process::descends_from(pid, gateway.pid))
    }

    fn release_name(&self) -> &'static str {
        match super::prepare::policy_of(&self.settings).release {
            ReleasePolicy::AnyMessage => "any-message",
            ReleasePolicy::Explicit => "explicit",
        }
    }

    fn greet_plugin(&mut self, peer: Peer, hello: &Hello) -> Value {
        self.plugin = Some(Plugin { peer, version: hello.plugin_version.clone() });
        let gateway = hello.gateway.as_ref();
        if let Some(gateway) = gateway {
            self.learn_incarnation(&gateway.incarnation);
        }
        self.learn_gateway(gateway.and_then(|gateway| gateway.version.clone()), hello.signals);
        self.vital(VitalEvent::PluginSeen);
        self.restore("plugin");
        tracing::info!(version = hello.plugin_version.as_deref(), "companion plugin connected");
        let mut result = self.holds();
        result["v"] = json!(protocol::VERSION);
        result["tideover"] = json!(env!("CARGO_PKG_VERSION"));
        result["state_dir"] = json!(self.layout.state_dir());
        result["policy"] = json!({
            "release": self.release_name(),
            "ack": if self.runs_without_ack() { "prefer" } else { "require" },
            "native": native_name(super::prepare::policy_of(&self.settings).native),
            "timeout_ms": PLUGIN_TIMEOUT_MS,
        });
        result
    }

    fn holds(&self) -> Value {
        json!({
            "held": protocol::sessions(&self.ledger.held()),
            "interrupted": protocol::sessions(&self.ledger.interrupted()),
        })
    }

    fn learn_gateway(&mut self, version: Option<String>, signals: Option<Signals>) {
        if version.is_some() {
            self.ledger.set_gateway_version(version.as_deref());
            self.gateway_version = version;
        }
        if let Some(signals) = signals {
            self.usr1_told = true;
            self.supervisor.set_usr1(if signals.usr1 {
                Usr1::Handled
            } else {
                Usr1::OpensDebugger
            });
        }
    }

    /// A peer asks; it gets exactly one reply if it gave an id.
    pub(super) fn request(&mut self, peer: &Peer, id: Option<&str>, request: Request) {
        let from_plugin =
            self.plugin.as_ref().is_some_and(|plugin| plugin.peer.connection == peer.connection);
        let response = match (peer.role, from_plugin) {
            (Role::Plugin, true) => self.plugin_request(peer, id, request),
            (Role::Plugin, false) => Response::Error(
                ErrorCode::Refused,
                "another connection speaks for the plugin now".to_owned(),
            ),
            (Role::Cli, _) => self.shell_request(peer, id, &request),
        };
        let Some(id) = id else { return };
        match response {
            Response::Now(result) => peer.send(reply(id, &result)),
            Response::Error(code, message) => peer.refuse(Some(id), code, &message),
            Response::Later => {}
        }
    }

    fn plugin_request(&mut self, peer: &Peer, id: Option<&str>, request: Request) -> Response {
        let now = clock::now();
        match request {
            Request::GatewayStart(start) => self.gateway_started(start),
            Request::GatewayStop { reason, .. } => {
                tracing::info!(
                    event = events::GATEWAY_STOPPING.name,
                    reason,
                    "the gateway goes down"
                );
                self.queue_stops();
                for key in self.ledger.gateway_stops(now) {
                    self.persist_soon(&key);
                }
                Response::Now(json!({}))
            }
            Request::UserMessage { session, route, text } => {
                let step = self.ledger.user_message(now, &(&session).into(), text, route);
                self.answered(&session, step)
            }
            Request::RecoveryTurn { session } => {
                let step = self.ledger.recovery_turn(now, &(&session).into());
                self.kick_notices();
                self.answered(&session, step)
            }
            Request::TurnStart { session, run_id, origin, text, route, workspace } => {
                let reference = SessionRef::from(&session);
                let step = self.ledger.turn_started(now, &reference, &run_id, origin, text, route);
                if let Some(workspace) = workspace {
                    self.ledger.set_workspace(&session.key, workspace);
                }
                self.kick_notices();
                self.answered(&session, step)
            }
            Request::TurnEnd { session, run_id, success, answered, told } => {
                let ending = Ending { success, answered, told: told.unwrap_or(true) };
                let lapses = self.lapses(&session.key, &run_id);
                let step = self.ledger.turn_ended(now, &(&session).into(), &run_id, ending);
                if !lapses && self.lapses(&session.key, &run_id) {
                    self.say_lapsed_soon(&session.key, &run_id);
                }
                self.queue_soon();
                self.answered(&session, step)
            }
            Request::ToolIntent(intent) => self.intent(peer, id, intent),
            Request::ToolResult { session, run_id, tool_call_id, outcome, background } => {
                let Some(outcome) = outcome.outcome() else {
                    let lapses = self.lapses(&session.key, &run_id);
                    let report = Report::ToolBlocked { run_id: run_id.clone(), tool_call_id };
                    let step = self.ledger.report(now, &(&session).into(), &report);
                    if !lapses && self.lapses(&session.key, &run_id) {
                        self.say_lapsed_soon(&session.key, &run_id);
                    }
                    return self.answered(&session, step);
                };
                self.result(&session, run_id, tool_call_id, outcome, background)
            }
            Request::BackgroundEnd { session, background_id } => {
                let command = self
                    .ledger
                    .get(&session.key)
                    .and_then(|record| record.command_named(&background_id))
                    .map(|call| BackgroundCommand {
                        session_key: session.key.clone(),
                        run_id: call.run_id.clone(),
                        tool_call_id: call.tool_call_id.clone(),
                    });
                if let Some(command) = command {
                    self.background_ended(&command);
                }
                Response::Now(json!({}))
            }
            Request::SessionEnd { session, reason, next_session_id } => {
                let reference = SessionRef::from(&session);
                let next = next_session_id.as_deref();
                let step = self.ledger.session_ended(now, &reference, reason.as_deref(), next);
                self.kick_notices();
                self.answered(&session, step)
            }
            Request::ResumeAsked(asked) => self.resume_asked(peer, id, &asked),
            Request::MessageSent(sent) => {
                self.message_told(&sent);
                Response::Now(json!({}))
            }
            Request::NativeQueue { entries, .. } => {
                self.native_told(entries);
                Response::Now(json!({}))
            }
            Request::Hello(_)
            | Request::Status {}
            | Request::Sessions {}
            | Request::Release { .. }
            | Request::Resume { .. }
            | Request::Forget { .. }
            | Request::Flush {}
            | Request::Queue { .. }
            | Request::QueueRetry { .. }
            | Request::QueueDrop { .. }
            | Request::OutboxRetry { .. } => {
                Response::Error(ErrorCode::Refused, "not for the plugin".to_owned())
            }
        }
    }

    /// Another start of the gateway in the same process: what was open before was cut by that restart.
    fn learn_incarnation(&mut self, incarnation: &str) {
        let before = self.incarnation.replace(incarnation.to_owned());
        let Some(before) = before.filter(|before| before != incarnation) else { return };
        let incident = format!("{}:{before}", self.boot.run);
        let detail = "the gateway restarted inside its process".to_owned();
        let now = clock::now();
        let cut = self.ledger.interrupt_all(now, &incident, Cause::InProcessRestart, detail);
        tracing::info!(
            event = events::RESTARTED_IN_PROCESS.name,
            interrupted = cut.len(),
            "the gateway restarted inside its process"
        );
        self.say_sessions();
        for key in cut {
            self.persist_soon(&key);
        }
    }

    fn gateway_started(&mut self, start: GatewayStart) -> Response {
        self.learn_incarnation(&start.incarnation);
        self.ledger.set_stopping(self.supervisor.is_stopping());
        self.learn_gateway(start.version, start.signals);
        if let Some(port) = start.port {
            self.vitals.learn_port(port);
            self.gateway = Some(GatewayLink { port, auth: start.auth.unwrap_or_default() });
        }
        self.vital(VitalEvent::Started);
        self.phase = Phase::Recovering;
        self.queue_started();
        self.kick_notices();
        Response::Now(self.holds())
    }

    fn intent(&mut self, peer: &Peer, id: Option<&str>, intent: ToolIntent) -> Response {
        let session = SessionRef::from(&intent.session);
        let name = intent.name.clone();
        let intent = Intent {
            run_id: intent.run_id,
            tool_call_id: intent.tool_call_id,
            name: intent.name,
            arguments: intent.arguments,
            too_large: intent.arguments_omitted.map(|omitted| (omitted.bytes, omitted.sha256)),
        };
        let step = self.ledger.tool_intent(clock::now(), &session, intent);
        match step.answer {
            Answer::Block { reason, end_turn, ask_user } => {
                if ask_user {
                    self.ask_user(&session.key);
                }
                tracing::info!(
                    event = events::TOOL_HELD.name,
                    tool = name,
                    end_turn,
                    "held a tool call until the user has spoken"
                );
                Response::Now(json!({
                    "durable": true, "allow": false, "reason": reason, "end_turn": end_turn,
                }))
            }
            Answer::Full => Response::Now(self.not_durable("the limit of sessions is reached")),
            Answer::Permit { arguments } => {
                self.say_rerun(&session.key, &name);
                // Nothing runs on a permit that is not on disk as spent: a crash could have it spent twice.
                let refusal = json!({
                    "durable": false, "allow": false, "end_turn": true,
                    "reason": "Not run: that it runs could not be made durable.",
                });
                self.allow_when_durable(peer, id, &session.key, Some(arguments), refusal)
            }
            Answer::Allow
            | Answer::Noted
            | Answer::Message { .. }
            | Answer::Turn { .. }
            | Answer::Recovery { .. } => {
                let refusal = self.not_durable("its checkpoint could not be made durable");
                self.allow_when_durable(peer, id, &session.key, None, refusal)
            }
        }
    }

    /// Lets a call through once its record is on disk; with these arguments where a person's word names them.
    fn allow_when_durable(
        &mut self,
        peer: &Peer,
        id: Option<&str>,
        key: &str,
        arguments: Option<Value>,
        refusal: Value,
    ) -> Response {
        let ack = self.persist(key);
        let to_loop = self.to_loop.clone();
        let (peer, id) = (peer.clone(), id.unwrap_or_default().to_owned());
        let key = key.to_owned();
        spawn_local(async move {
            let result = ack.await.unwrap_or(Err(StoreError::Stopped));
            let answer = match &result {
                Ok(()) => json!({
                    "durable": true, "allow": true, "reason": null, "end_turn": false,
                    "arguments": arguments,
                }),
                Err(_) => refusal,
            };
            peer.send(reply(&id, &answer));
            let stored =
                super::engine::Internal::Stored { what: "checkpoints", key: Some(key), result };
            let _ = to_loop.send(stored).await;
        });
        Response::Later
    }

    /// The answer for a call whose record is not on disk: the policy decides whether it runs.
    fn not_durable(&self, why: &str) -> Value {
        let allow = self.runs_without_ack();
        json!({
            "durable": false,
            "allow": allow,
            "reason": if allow { None } else { Some(format!("Not run: {why} (checkpoint.ack = \"require\").")) },
            "end_turn": false,
        })
    }

    fn result(
        &mut self,
        session: &Session,
        run_id: String,
        tool_call_id: String,
        outcome: Outcome,
        mut background: Option<Background>,
    ) -> Response {
        if let Some(background) = &mut background {
            background.start_ticks = background.pid.and_then(process::start_ticks);
            background.ended_at = None;
        }
        let watched = background
            .as_ref()
            .and_then(|background| background.pid)
            .filter(|_| outcome == Outcome::Background);
        let command = BackgroundCommand {
            session_key: session.key.clone(),
            run_id: run_id.clone(),
            tool_call_id: tool_call_id.clone(),
        };
        let stopping = self.ledger.is_stopping();
        let report = Report::ToolFinished { run_id, tool_call_id, outcome, background, stopping };
        let step = self.ledger.report(clock::now(), &session.into(), &report);
        if let Some(pid) = watched {
            self.watches.watch(pid, command, &self.to_loop);
        }
        self.answered(session, step)
    }

    fn answered(&mut self, session: &Session, step: Step) -> Response {
        if step.persist.is_some() {
            self.persist_soon(&session.key);
        }
        if step.holds_changed {
            self.announce_holds();
        }
        Response::Now(match step.answer {
            Answer::Noted | Answer::Allow | Answer::Permit { .. } | Answer::Block { .. } => {
                json!({})
            }
            Answer::Message { released } => json!({ "released": released }),
            Answer::Turn { prepend } => json!({ "prepend": prepend }),
            Answer::Recovery { claim } => json!({ "claim": claim, "reply": null }),
            Answer::Full => {
                self.degrade(
                    "sessions",
                    "the limit of sessions is reached; new ones are not journaled".to_owned(),
                );
                json!({})
            }
        })
    }

    fn shell_request(&mut self, peer: &Peer, id: Option<&str>, request: &Request) -> Response {
        let now = clock::now();
        let changes = matches!(
            request,
            Request::Release { .. }
                | Request::Forget { .. }
                | Request::QueueRetry { .. }
                | Request::QueueDrop { .. }
                | Request::OutboxRetry { .. }
        ) || matches!(request, Request::Resume { choice, .. } if *choice != ResumeWord::Show);
        if changes && self.is_of_gateway(peer) {
            let why = "this is not for the gateway or its tools to change; use a shell of your own";
            return Response::Error(ErrorCode::Refused, why.to_owned());
        }
        match request {
            Request::Status {} => Response::Now(self.status()),
            Request::Sessions {} => {
                Response::Now(json!({ "sessions": self.ledger.all().collect::<Vec<_>>() }))
            }
            Request::Release { key } => match self.ledger.release(now, key, ReleasedBy::Shell) {
                None => Response::Error(ErrorCode::NotFound, format!("no session {key:?}")),
                Some(was_held) => {
                    if was_held {
                        self.announce_holds();
                    }
                    self.reply_when_durable(peer, id, key, json!({ "released": was_held }))
                }
            },
            Request::Resume { key, choice } => self.resume_at_shell(peer, id, key, *choice),
            Request::Forget { key } => {
                match self.ledger.get(key).map(|record| record.in_flight()) {
                    None => Response::Error(ErrorCode::NotFound, format!("no session {key:?}")),
                    Some(true) => Response::Error(
                        ErrorCode::Refused,
                        "a turn of this session is under way; forget it when it has ended"
                            .to_owned(),
                    ),
                    Some(false) => {
                        self.ledger.forget(key);
                        self.announce_holds();
                        self.reply_when_durable(peer, id, key, json!({ "forgotten": true }))
                    }
                }
            }
            Request::Flush {} => {
                let keys: Vec<String> = self
                    .ledger
                    .all()
                    .filter(|record| record.in_flight())
                    .map(|record| record.session_key.clone())
                    .collect();
                let acks: Vec<_> = keys.iter().map(|key| self.persist(key)).collect();
                let open = acks.len();
                reply_when_all(peer, id, acks, json!({ "flushed": open }))
            }
            Request::Queue { entry } => self.list_queue(peer, id, entry.clone()),
            Request::QueueRetry { entry } => self.retry_queued(peer, id, entry),
            Request::QueueDrop { entry } => self.drop_queued(peer, id, entry),
            Request::OutboxRetry { key } => {
                Response::Now(json!({ "retried": self.retry_notices(key.as_deref()) }))
            }
            Request::Hello(_)
            | Request::GatewayStart(_)
            | Request::GatewayStop { .. }
            | Request::UserMessage { .. }
            | Request::RecoveryTurn { .. }
            | Request::TurnStart { .. }
            | Request::TurnEnd { .. }
            | Request::ToolIntent(_)
            | Request::ToolResult { .. }
            | Request::BackgroundEnd { .. }
            | Request::SessionEnd { .. }
            | Request::ResumeAsked(_)
            | Request::MessageSent(_)
            | Request::NativeQueue { .. } => {
                Response::Error(ErrorCode::Refused, "only the companion plugin reports".to_owned())
            }
        }
    }

    fn reply_when_durable(
        &mut self,
        peer: &Peer,
        id: Option<&str>,
        key: &str,
        answer: Value,
    ) -> Response {
        let ack = self.persist(key);
        reply_when_all(peer, id, vec![ack], answer)
    }
}

fn reply_when_all(
    peer: &Peer,
    id: Option<&str>,
    acks: Vec<crate::store::Ack>,
    answer: Value,
) -> Response {
    let (peer, id) = (peer.clone(), id.map(str::to_owned));
    spawn_local(async move {
        let mut failed = None;
        for ack in acks {
            if let Err(error) = ack.await.unwrap_or(Err(StoreError::Stopped)) {
                failed = Some(error);
            }
        }
        match (failed, id) {
            (None, Some(id)) => peer.send(reply(&id, &answer)),
            (Some(error), id) => {
                peer.refuse(id.as_deref(), ErrorCode::NotDurable, &error.to_string())
            }
            (None, None) => {}
        }
    });
    Response::Later
}

fn native_name(native: Native) -> &'static str {
    match native {
        Native::Ask => "ask",
        Native::Ride => "ride",
        Native::Native => "native",
    }
}
