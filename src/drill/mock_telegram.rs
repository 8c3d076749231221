//! A Telegram Bot API on loopback: users write to the bot, and every accepted message is logged.
//!
//! `update_id` only ever grows, across restarts of the mock too (a gateway remembers the last one).
//! A message that is edited stays one message: its text is the last one. Failures can be switched
//! on to see what the gateway and tideover make of a channel that is down.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::error::{DrillError, Result};
use super::http::{Answer, Handler, MockServer, json as json_answer};

/// Messages and method calls kept.
const LOG_MAX: usize = 20_000;
/// Longest that a long poll is held.
const POLL_MAX: Duration = Duration::from_secs(25);
/// Longest that a hanging call is held.
const HANG_MAX: Duration = Duration::from_secs(600);

/// The bot token in the scratch configuration.
pub const BOT_TOKEN: &str = "123456:DRILLTOKENDRILLTOKENDRILLTOKENDRILL";

/// How the channel misbehaves. Polls for updates go on, except with [`Failure::Refuse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Failure {
    /// Not at all.
    #[default]
    None,
    /// Sending answers with this HTTP status (500, 401, 403, 429).
    Status(u16),
    /// The port is closed: every connection is refused.
    Refuse,
    /// Sending never answers.
    Hang,
    /// Sending waits until the failure is switched off, then goes on as if nothing had been.
    Hold,
    /// A message is accepted, but the connection breaks before the answer.
    AnswerLost,
}

/// One message that the bot sent and Telegram accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentMessage {
    /// Its id in the chat.
    pub message_id: i64,
    /// The chat.
    pub chat: i64,
    /// The topic inside it, in a forum.
    pub thread: Option<i64>,
    /// When it was first accepted.
    pub at: SystemTime,
    /// Its last text.
    pub text: String,
    /// How often it was edited.
    pub edits: u32,
    /// Whether the bot deleted it afterwards.
    pub deleted: bool,
    /// Whether the channel answered: the sender of one whose answer was lost cannot know that it is here.
    pub answered: bool,
}

#[derive(Debug, Default)]
struct State {
    next_update: i64,
    next_message: i64,
    updates: VecDeque<Value>,
    sent: Vec<SentMessage>,
    calls: VecDeque<String>,
    failure: Failure,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

/// The mock channel; dropping it stops it.
#[derive(Debug)]
pub struct MockTelegram {
    server: MockServer,
    shared: Arc<Shared>,
}

impl MockTelegram {
    /// Starts it on a free loopback port.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start() -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let state = State {
            next_update: i64::try_from(now.as_secs()).unwrap_or(1),
            next_message: 1,
            ..State::default()
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: watch::channel(0).0 });
        let for_handler = Arc::clone(&shared);
        let handler: Handler = Arc::new(move |request| {
            let shared = Arc::clone(&for_handler);
            Box::pin(async move { answer(&shared, &request).await })
        });
        Ok(Self { server: MockServer::start("mock-telegram", handler)?, shared })
    }

    /// The `apiRoot` of the scratch configuration.
    #[must_use]
    pub fn api_root(&self) -> String {
        format!("http://{}", self.server.addr())
    }

    /// A user writes `text` to the bot; a leading `/word` is marked as a command.
    pub fn user_says(&self, chat: i64, text: &str) {
        let place = json!({"id": chat, "type": "private", "first_name": format!("User{chat}")});
        self.says(chat, place, None, text);
    }

    /// A user writes `text` into a topic of a forum that the bot is in.
    pub fn user_says_in_topic(&self, user: i64, forum: i64, topic: i64, text: &str) {
        let place = json!({
            "id": forum, "type": "supergroup", "title": "Drill forum", "is_forum": true,
        });
        self.says(user, place, Some(topic), text);
    }

    fn says(&self, user: i64, chat: Value, topic: Option<i64>, text: &str) {
        {
            let mut state = self.shared.lock();
            let (update_id, message_id) = (state.next_update, state.next_message);
            state.next_update += 1;
            state.next_message += 1;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let person = format!("User{user}");
            let mut message = json!({
                "message_id": message_id, "date": now.as_secs(), "text": text, "chat": chat,
                "from": {"id": user, "is_bot": false, "first_name": person, "language_code": "en"},
            });
            if let Some(topic) = topic {
                message["message_thread_id"] = json!(topic);
                message["is_topic_message"] = json!(true);
            }
            if text.starts_with('/') {
                let word = text.split_whitespace().next().unwrap_or(text);
                let length = word.encode_utf16().count();
                message["entities"] =
                    json!([{"type": "bot_command", "offset": 0, "length": length}]);
            }
            state.updates.push_back(json!({"update_id": update_id, "message": message}));
        }
        self.shared.tell();
    }

    /// Switches a failure on, or off with [`Failure::None`].
    pub fn set_failure(&self, failure: Failure) {
        self.shared.lock().failure = failure;
        self.server.set_open(failure != Failure::Refuse);
        self.shared.tell();
    }

    /// Every message accepted so far, in order; deleted ones are marked, not removed.
    #[must_use]
    pub fn sent(&self) -> Vec<SentMessage> {
        self.shared.lock().sent.clone()
    }

    /// How many messages have been accepted; use it as `from` in [`Self::wait_for`].
    #[must_use]
    pub fn mark(&self) -> usize {
        self.shared.lock().sent.len()
    }

    /// The method calls so far (`getMe`, `sendMessage`, …), polls left out, the last 20,000.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.shared.lock().calls.iter().cloned().collect()
    }

    /// Awaits a message, from the `from`-th on, that `wanted` accepts with its present text.
    ///
    /// # Errors
    /// [`DrillError::Timeout`] with the texts that came instead.
    pub async fn wait_for(
        &self,
        what: &str,
        from: usize,
        limit: Duration,
        wanted: impl Fn(&SentMessage) -> bool,
    ) -> Result<SentMessage> {
        let mut changed = self.shared.changed.subscribe();
        let found = async {
            loop {
                changed.borrow_and_update();
                let hit = {
                    let state = self.shared.lock();
                    state.sent.iter().skip(from).find(|m| !m.deleted && wanted(m)).cloned()
                };
                if let Some(message) = hit {
                    return message;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(limit, found).await.map_err(|_| {
            let others: Vec<String> =
                self.sent().into_iter().skip(from).map(|m| format!("{:?}", m.text)).collect();
            DrillError::Timeout {
                what: what.to_owned(),
                limit,
                detail: format!("messages instead: [{}]", others.join(", ")),
            }
        })
    }
}

async fn answer(shared: &Shared, request: &Request<Bytes>) -> Answer {
    let path = request.uri().path();
    let method = path.rsplit('/').next().unwrap_or_default().to_owned();
    let body = serde_json::from_slice::<Value>(request.body()).unwrap_or(Value::Null);
    if method.eq_ignore_ascii_case("getUpdates") {
        return Some(ok(&long_poll(shared, &body).await));
    }
    let failure = {
        let mut state = shared.lock();
        if state.calls.len() >= LOG_MAX {
            state.calls.pop_front();
        }
        state.calls.push_back(method.clone());
        state.failure
    };
    let sending = method.starts_with("send") || method.starts_with("edit");
    if sending {
        match failure {
            Failure::None | Failure::AnswerLost => {}
            Failure::Hold => held_back(shared).await,
            Failure::Refuse => return None,
            Failure::Status(status) => return Some(refusal(status)),
            Failure::Hang => {
                tokio::time::sleep(HANG_MAX).await;
                return None;
            }
        }
    }
    let answered = !(sending && failure == Failure::AnswerLost);
    let result = accept(&mut shared.lock(), &method, &body, answered);
    shared.tell();
    answered.then(|| ok(&result))
}

async fn held_back(shared: &Shared) {
    let mut changed = shared.changed.subscribe();
    while shared.lock().failure == Failure::Hold {
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Updates from `offset` on; confirms the ones before it, as the real API does.
async fn long_poll(shared: &Shared, body: &Value) -> Value {
    let offset = body["offset"].as_i64().unwrap_or(0);
    let asked = Duration::from_secs(body["timeout"].as_u64().unwrap_or(0)).min(POLL_MAX);
    let mut changed = shared.changed.subscribe();
    let found = async {
        loop {
            changed.borrow_and_update();
            let ready: Vec<Value> = {
                let mut state = shared.lock();
                state.updates.retain(|u| u["update_id"].as_i64().unwrap_or(0) >= offset);
                state.updates.iter().take(100).cloned().collect()
            };
            if !ready.is_empty() {
                return ready;
            }
            if changed.changed().await.is_err() {
                return Vec::new();
            }
        }
    };
    Value::Array(tokio::time::timeout(asked, found).await.unwrap_or_default())
}

/// Does what the method says and gives its result; `answered` tells whether that goes out.
fn accept(state: &mut State, method: &str, body: &Value, answered: bool) -> Value {
    let chat = number(&body["chat_id"]);
    let text = body["text"].as_str().or_else(|| body["caption"].as_str()).unwrap_or_default();
    match method {
        "getMe" => json!({
            "id": 123_456, "is_bot": true, "first_name": "Drill", "username": "drill_bot",
            "can_join_groups": true, "can_read_all_group_messages": true,
            "supports_inline_queries": false,
        }),
        "getWebhookInfo" => json!({"url": "", "pending_update_count": 0}),
        "sendMessage" | "sendPhoto" | "sendDocument" => {
            let message_id = state.next_message;
            state.next_message += 1;
            if state.sent.len() < LOG_MAX {
                state.sent.push(SentMessage {
                    message_id,
                    chat,
                    thread: thread_of(body),
                    at: SystemTime::now(),
                    text: text.to_owned(),
                    edits: 0,
                    deleted: false,
                    answered,
                });
            }
            let mut answer = message(message_id, chat, text);
            if let Some(thread) = thread_of(body) {
                // A gateway checks that its message went to the topic that was meant.
                answer["message_thread_id"] = json!(thread);
                answer["is_topic_message"] = json!(true);
            }
            answer
        }
        "editMessageText" => {
            let message_id = number(&body["message_id"]);
            let edited =
                state.sent.iter_mut().find(|m| m.chat == chat && m.message_id == message_id);
            if let Some(sent) = edited {
                text.clone_into(&mut sent.text);
                sent.edits += 1;
                sent.answered &= answered;
            }
            message(message_id, chat, text)
        }
        "deleteMessage" => {
            let message_id = number(&body["message_id"]);
            for sent in &mut state.sent {
                sent.deleted |= sent.chat == chat && sent.message_id == message_id;
            }
            Value::Bool(true)
        }
        "getChat" if chat < 0 => {
            json!({"id": chat, "type": "supergroup", "title": "Drill forum", "is_forum": true})
        }
        "getChat" => json!({"id": chat, "type": "private", "first_name": format!("User{chat}")}),
        "getMyCommands" => json!([]),
        _ => Value::Bool(true),
    }
}

fn thread_of(body: &Value) -> Option<i64> {
    let thread = &body["message_thread_id"];
    (!thread.is_null()).then(|| number(thread))
}

/// Telegram takes ids as numbers or as text.
fn number(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

fn message(message_id: i64, chat: i64, text: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "message_id": message_id, "date": now.as_secs(), "text": text,
        "chat": {"id": chat, "type": "private", "first_name": format!("User{chat}")},
        "from": {"id": 123_456, "is_bot": true, "first_name": "Drill", "username": "drill_bot"},
    })
}

fn ok(result: &Value) -> hyper::Response<super::http::Body> {
    json_answer(200, &json!({"ok": true, "result": result}))
}

fn refusal(status: u16) -> hyper::Response<super::http::Body> {
    let description = match status {
        401 => "Unauthorized",
        403 => "Forbidden: bot was blocked by the user",
        429 => "Too Many Requests: retry after 1",
        _ => "Internal Server Error",
    };
    let mut body = json!({"ok": false, "error_code": status, "description": description});
    if status == 429 {
        body["parameters"] = json!({"retry_after": 1});
    }
    json_answer(status, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::http;

    async fn send(mock: &MockTelegram) -> std::result::Result<u16, String> {
        http::get(mock.server.addr().port(), "/botX/sendMessage").await.map(|(code, _)| code)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn each_failure_shows_and_ends() -> Result<()> {
        let mock = MockTelegram::start()?;
        assert_eq!(send(&mock).await, Ok(200));
        for status in [500, 401, 403, 429] {
            mock.set_failure(Failure::Status(status));
            assert_eq!(send(&mock).await, Ok(status));
        }
        assert_eq!(mock.mark(), 1, "a refused message must not be logged");
        mock.set_failure(Failure::AnswerLost);
        assert!(send(&mock).await.is_err());
        let answered: Vec<bool> = mock.sent().iter().map(|message| message.answered).collect();
        assert_eq!(answered, [true, false], "a message whose answer is lost was accepted");
        mock.set_failure(Failure::Refuse);
        let closed = |seen: std::result::Result<u16, String>| seen.err().ok_or("open".to_owned());
        crate::drill::progress::until("a closed port", Duration::from_secs(5), || async {
            closed(send(&mock).await).map(drop)
        })
        .await?;
        mock.set_failure(Failure::None);
        crate::drill::progress::until("an open port", Duration::from_secs(5), || async {
            send(&mock).await.map(drop)
        })
        .await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_edit_replaces_the_text_and_a_deletion_hides_the_message() -> Result<()> {
        let mock = MockTelegram::start()?;
        let act = |method: &str, body: Value| {
            accept(&mut mock.shared.lock(), method, &body, true);
            mock.shared.tell();
        };
        act("sendMessage", json!({"chat_id": "7", "text": "draft"}));
        act("editMessageText", json!({"chat_id": 7, "message_id": 1, "text": "final"}));
        let limit = Duration::from_millis(50);
        let found = mock.wait_for("the text", 0, limit, |m| m.text == "final").await?;
        assert_eq!((found.chat, found.edits), (7, 1));
        act("deleteMessage", json!({"chat_id": 7, "message_id": 1}));
        assert!(mock.wait_for("the text", 0, limit, |_| true).await.is_err());
        Ok(())
    }
}
