//! A scripted model behind an OpenAI-compatible chat-completions endpoint on loopback.
//!
//! A [`Script`] says which requests it is for (by a marker in the current user message, or by any
//! predicate) and which [`Step`]s it plays, one per request. Two sessions in parallel are kept
//! apart by their markers. Every request is recorded whole; [`MockModel::wait_for`] awaits one
//! without fixed sleeps.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hyper::{Method, Request, body::Bytes};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::error::{DrillError, Result};
use super::http::{Answer, Handler, MockServer, json as json_answer};
use super::mock_model_wire as wire;

/// Requests kept; older ones are dropped (a spinning model makes hundreds a minute).
const REQUESTS_MAX: usize = 4096;
/// Bytes of recorded requests kept.
const REQUEST_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Longest that a hanging step hangs when nobody opens its gate.
const HANG_MAX: Duration = Duration::from_secs(600);

/// A tool call the model makes.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// Name of the tool.
    pub name: String,
    /// Arguments, sent in exactly this key order.
    pub arguments: Value,
}

impl ToolCall {
    /// A call of `name` with `arguments`.
    pub fn new(name: impl Into<String>, arguments: Value) -> Self {
        Self { name: name.into(), arguments }
    }

    /// A call of `exec` that stays in flight (is not sent to the background) for two minutes.
    pub fn exec(command: impl Into<String>) -> Self {
        Self::new("exec", json!({"command": command.into(), "yieldMs": 120_000}))
    }
}

/// A door that a hanging step waits at.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }
}

impl Gate {
    /// Lets everything through from now on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        let mut opened = self.0.subscribe();
        // The sender lives in `self`, so an error cannot come; the limit ends a forgotten gate.
        drop(tokio::time::timeout(HANG_MAX, opened.wait_for(|open| *open)).await);
    }
}

/// What the model answers to one request.
#[derive(Debug, Clone)]
pub enum Step {
    /// A final text.
    Text(String),
    /// One call, or several in parallel, after a few words.
    Calls(Vec<ToolCall>),
    /// The stream begins, then nothing until the gate opens; then the step inside.
    Hang(Gate, Box<Step>),
    /// An HTTP error.
    Fail(u16, String),
}

impl Step {
    /// A final text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// One tool call.
    #[must_use]
    pub fn call(call: ToolCall) -> Self {
        Self::Calls(vec![call])
    }
}

/// One recorded request.
#[derive(Debug, Clone)]
pub struct ModelRequest {
    /// Its number since the mock started, from 0.
    pub number: usize,
    /// When its body had been read.
    pub at: SystemTime,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// All messages as sent.
    pub messages: Vec<Value>,
    /// Names of the tools offered. Side requests (titles, summaries) offer none.
    pub tools: Vec<String>,
}

impl ModelRequest {
    /// Texts of all messages, in order.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.messages.iter().map(wire::text_of).collect()
    }

    /// Whether any message contains `needle`.
    #[must_use]
    pub fn contains(&self, needle: &str) -> bool {
        self.messages.iter().any(|message| wire::text_of(message).contains(needle))
    }

    /// Whether any message contains `line` as a line of its own.
    #[must_use]
    pub fn contains_line(&self, line: &str) -> bool {
        self.messages.iter().any(|message| wire::text_of(message).lines().any(|l| l == line))
    }

    /// What the user side said in the turn that this request belongs to: the last block of
    /// consecutive user messages (a gateway may add its context as a message of its own).
    #[must_use]
    pub fn turn_text(&self) -> String {
        wire::turn_text(&self.messages)
    }

    /// Texts of the tool results in this turn, in order.
    #[must_use]
    pub fn turn_tool_results(&self) -> Vec<String> {
        let tail = wire::after_turn(&self.messages);
        tail.iter().filter(|m| wire::is_role(m, "tool")).map(wire::text_of).collect()
    }
}

type Predicate = Box<dyn Fn(&ModelRequest) -> bool + Send>;

/// Steps for the requests that match; one step per request.
pub struct Script {
    when: Predicate,
    steps: VecDeque<Step>,
    forever: bool,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script")
            .field("steps", &self.steps)
            .field("forever", &self.forever)
            .finish()
    }
}

impl Script {
    /// For turns whose user message contains `marker`.
    pub fn marker(marker: impl Into<String>, steps: impl IntoIterator<Item = Step>) -> Self {
        let marker = marker.into();
        Self::when(move |request| request.turn_text().contains(&marker), steps)
    }

    /// For requests that `when` accepts. Requests that offer no tools never match a script.
    pub fn when(
        when: impl Fn(&ModelRequest) -> bool + Send + 'static,
        steps: impl IntoIterator<Item = Step>,
    ) -> Self {
        Self { when: Box::new(when), steps: steps.into_iter().collect(), forever: false }
    }

    /// The last step is repeated for as long as the gateway asks: a model that insists.
    #[must_use]
    pub fn insisting(mut self) -> Self {
        self.forever = true;
        self
    }

    fn take(&mut self) -> Option<Step> {
        if self.forever && self.steps.len() == 1 {
            return self.steps.front().cloned();
        }
        self.steps.pop_front()
    }
}

#[derive(Debug, Default)]
struct State {
    scripts: Vec<Script>,
    default_reply: String,
    requests: VecDeque<ModelRequest>,
    sizes: VecDeque<usize>,
    bytes: usize,
    seen: usize,
    calls_made: usize,
}

impl State {
    fn record(&mut self, body: &Value, size: usize) -> ModelRequest {
        let request = wire::request(body, self.seen);
        self.seen += 1;
        self.bytes += size;
        self.sizes.push_back(size);
        self.requests.push_back(request.clone());
        while self.requests.len() > REQUESTS_MAX || self.bytes > REQUEST_BYTES_MAX {
            self.requests.pop_front();
            self.bytes -= self.sizes.pop_front().unwrap_or(0);
        }
        request
    }

    /// The newest script that matches and has a step left, else the default reply.
    fn choose(&mut self, request: &ModelRequest) -> Step {
        if !request.tools.is_empty() {
            for script in self.scripts.iter_mut().rev() {
                if !script.steps.is_empty()
                    && (script.when)(request)
                    && let Some(step) = script.take()
                {
                    return step;
                }
            }
        }
        Step::Text(self.default_reply.clone())
    }
}

/// The mock model; dropping it stops it.
#[derive(Debug)]
pub struct MockModel {
    server: MockServer,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<usize>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MockModel {
    /// Starts it on a free loopback port.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start() -> Result<Self> {
        let state = State { default_reply: "All is well.".to_owned(), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: watch::channel(0).0 });
        let for_handler = Arc::clone(&shared);
        let handler: Handler = Arc::new(move |request| {
            let shared = Arc::clone(&for_handler);
            Box::pin(async move { answer(&shared, &request).await })
        });
        Ok(Self { server: MockServer::start("mock-model", handler)?, shared })
    }

    /// What the gateway's provider configuration needs.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.server.addr())
    }

    /// Adds a script; a newer one goes before the older ones.
    pub fn script(&self, script: Script) {
        self.shared.lock().scripts.push(script);
    }

    /// Removes all scripts.
    pub fn clear(&self) {
        self.shared.lock().scripts.clear();
    }

    /// What is said when no script matches.
    pub fn set_default_reply(&self, text: impl Into<String>) {
        self.shared.lock().default_reply = text.into();
    }

    /// How many requests have come so far, dropped ones included.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.shared.lock().seen
    }

    /// The requests from number `from` on that are still kept.
    #[must_use]
    pub fn requests_from(&self, from: usize) -> Vec<ModelRequest> {
        self.shared.lock().requests.iter().filter(|r| r.number >= from).cloned().collect()
    }

    /// Awaits the first request from number `from` on that `wanted` accepts.
    ///
    /// # Errors
    /// [`DrillError::Timeout`], telling how many requests came instead.
    pub async fn wait_for(
        &self,
        what: &str,
        from: usize,
        limit: Duration,
        wanted: impl Fn(&ModelRequest) -> bool,
    ) -> Result<ModelRequest> {
        let mut changed = self.shared.changed.subscribe();
        let found = async {
            loop {
                changed.borrow_and_update();
                let hit = self
                    .shared
                    .lock()
                    .requests
                    .iter()
                    .find(|r| r.number >= from && wanted(r))
                    .cloned();
                if let Some(request) = hit {
                    return request;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(limit, found).await.map_err(|_| DrillError::Timeout {
            what: what.to_owned(),
            limit,
            detail: format!("the model got {} other requests", self.seen().saturating_sub(from)),
        })
    }
}

async fn answer(shared: &Shared, request: &Request<Bytes>) -> Answer {
    if request.method() == Method::GET {
        return Some(json_answer(
            200,
            &json!({"object": "list", "data": [{"id": "mock-1", "object": "model"}]}),
        ));
    }
    let Ok(body) = serde_json::from_slice::<Value>(request.body()) else {
        return Some(json_answer(400, &json!({"error": {"message": "the body is not JSON"}})));
    };
    let (recorded, step, first_call) = {
        let mut state = shared.lock();
        let recorded = state.record(&body, request.body().len());
        let step = state.choose(&recorded);
        let first_call = state.calls_made;
        state.calls_made += wire::calls_in(&step);
        (recorded, step, first_call)
    };
    shared.changed.send_modify(|count| *count += 1);
    let reply = wire::Reply { number: recorded.number, first_call };
    Some(if recorded.stream { reply.stream(step) } else { reply.whole(step).await })
}

/// Lets the wire format await a gate.
pub(super) async fn pass(gate: &Gate) {
    gate.passed().await;
}
