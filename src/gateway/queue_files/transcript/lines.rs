//! One line of a transcript, of which only what tells of turns is read.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

/// The part that a call of a tool is, as it stands in a line that cannot be read whole.
const TOOL_CALL: &str = "toolCall";
/// The line in which a turn's origin is told to the model, up to the id of its message.
const MESSAGE_ID: &str = "\"message_id\": ";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLine<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    custom_type: Option<String>,
    #[serde(default)]
    content: Content,
    #[serde(default)]
    message: Option<RawMessage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMessage {
    role: String,
    #[serde(default)]
    content: Content,
    #[serde(default)]
    timestamp: Option<f64>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    provider: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// What a line tells.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// Somebody spoke to the agent.
    User {
        /// The text.
        text: String,
        /// When, in Unix milliseconds.
        at_ms: Option<f64>,
    },
    /// The message that the turn answers has this id.
    MessageId(String),
    /// The agent spoke.
    Agent {
        /// Whether it called a tool.
        called: bool,
        /// Whether that was its answer, after which nothing comes.
        answered: bool,
    },
    /// The copy of a message that was sent under this key.
    Receipt(String),
    /// It cannot be read, and a tool may have been called in it.
    Torn,
}

/// Reads one line; `None` where it tells nothing.
pub(super) fn parse(line: &[u8]) -> Option<Line> {
    match serde_json::from_slice::<RawLine<'_>>(line) {
        Ok(raw) => read(raw),
        Err(_) => {
            let torn = line.windows(TOOL_CALL.len()).any(|part| part == TOOL_CALL.as_bytes());
            torn.then_some(Line::Torn)
        }
    }
}

fn read(line: RawLine<'_>) -> Option<Line> {
    match (line.kind.as_ref(), line.message) {
        ("message", Some(message)) => read_message(message),
        ("custom_message", _)
            if line.custom_type.as_deref() == Some("openclaw.runtime-context") =>
        {
            message_id(&line.content.text).map(Line::MessageId)
        }
        _ => None,
    }
}

fn read_message(message: RawMessage) -> Option<Line> {
    let Content { text, called } = message.content;
    match message.role.as_str() {
        "user" => Some(Line::User { text, at_ms: message.timestamp }),
        // What the gateway itself noted there, and no model said.
        "assistant" if message.provider.as_deref() == Some("openclaw") => {
            let mirrored = message.model.as_deref() == Some("delivery-mirror");
            message.idempotency_key.filter(|_| mirrored).map(Line::Receipt)
        }
        "assistant" => {
            let answered = !text.trim().is_empty()
                && match message.stop_reason.as_deref() {
                    Some("stop") => true,
                    Some("error" | "aborted") => false,
                    Some(_) | None => !called,
                };
            Some(Line::Agent { called, answered })
        }
        _ => None,
    }
}

/// The id in what the model is told of a message's origin. It stands on a line of its own in JSON
/// that is laid out, so that no name or text in there can pass for it.
fn message_id(context: &str) -> Option<String> {
    let value = context.lines().find_map(|line| line.trim_start().strip_prefix(MESSAGE_ID))?;
    serde_json::Deserializer::from_str(value).into_iter::<String>().next()?.ok()
}

/// A message's content: its texts, and whether a tool is called in it.
#[derive(Default)]
struct Content {
    text: String,
    called: bool,
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of parts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content { text: text.to_owned(), called: false })
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
        let mut content = Content::default();
        while let Some(part) = parts.next_element::<Part>()? {
            match part.kind.as_str() {
                "text" => content.text.push_str(part.text.as_deref().unwrap_or_default()),
                TOOL_CALL => content.called = true,
                _ => {}
            }
        }
        Ok(content)
    }
}
