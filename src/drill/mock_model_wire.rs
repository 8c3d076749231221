//! Chat-completions on the wire: requests taken apart, answers put together, whole or as a stream.

use std::convert::Infallible;
use std::time::SystemTime;

use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};

use super::http::{Body, json as json_answer};
use super::mock_model::{ModelRequest, Step, ToolCall, pass};

/// Whether a message has this role.
pub(super) fn is_role(message: &Value, role: &str) -> bool {
    message["role"] == role
}

/// The text of a message, whether its content is a string or a list of parts.
pub(super) fn text_of(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

/// Newer gateways move a block of their own context, in the user's role, to the end of every
/// request; it begins no turn.
fn is_context(message: &Value) -> bool {
    text_of(message).starts_with("<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>")
}

/// Whether somebody begins or continues a turn with this message.
fn is_turn(message: &Value) -> bool {
    is_role(message, "user") && !is_context(message)
}

/// The messages that answer the last user block: calls, results, context.
pub(super) fn after_turn(messages: &[Value]) -> &[Value] {
    let answered = messages.iter().rev().take_while(|message| !is_turn(message)).count();
    &messages[messages.len() - answered..]
}

/// The last block of consecutive user messages, joined.
pub(super) fn turn_text(messages: &[Value]) -> String {
    let asked = &messages[..messages.len() - after_turn(messages).len()];
    let from_user = |message: &&Value| is_role(message, "user");
    let mut block: Vec<String> = asked.iter().rev().take_while(from_user).map(text_of).collect();
    block.reverse();
    block.join("\n")
}

/// Takes a request apart for the record.
pub(super) fn request(body: &Value, number: usize) -> ModelRequest {
    let tools = body["tools"].as_array().map_or(&[][..], Vec::as_slice);
    ModelRequest {
        number,
        at: SystemTime::now(),
        stream: body["stream"] == true,
        messages: body["messages"].as_array().cloned().unwrap_or_default(),
        tools: tools
            .iter()
            .filter_map(|tool| tool["function"]["name"].as_str().map(str::to_owned))
            .collect(),
    }
}

/// How many tool calls a step makes.
pub(super) fn calls_in(step: &Step) -> usize {
    match step {
        Step::Calls(calls) => calls.len(),
        Step::Hang(_, then) => calls_in(then),
        Step::Text(_) | Step::Fail(..) => 0,
    }
}

/// The identity of one answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    /// Number of the request.
    pub(super) number: usize,
    /// Number of its first tool call.
    pub(super) first_call: usize,
}

impl Reply {
    fn envelope(self, object: &str, choice: Value) -> Value {
        json!({
            "id": format!("chatcmpl-{}", self.number), "object": object, "created": 1_700_000_000,
            "model": "mock-1", "choices": [choice],
        })
    }

    fn chunk(self, delta: Value, finish: Option<&str>) -> String {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        format!("data: {}\n\n", self.envelope("chat.completion.chunk", choice))
    }

    fn tool_calls(self, calls: &[ToolCall]) -> Vec<Value> {
        let one = |(index, call): (usize, &ToolCall)| {
            json!({
                "index": index, "id": format!("call_mock_{}", self.first_call + index + 1),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments.to_string()},
            })
        };
        calls.iter().enumerate().map(one).collect()
    }

    /// The stream's pieces for a step that neither hangs nor fails.
    fn pieces(self, step: &Step) -> Vec<String> {
        let mut pieces = Vec::new();
        let finish = match step {
            Step::Text(text) => {
                for part in text.split_inclusive(' ') {
                    pieces.push(self.chunk(json!({"content": part}), None));
                }
                "stop"
            }
            Step::Calls(calls) => {
                pieces.push(self.chunk(json!({"content": "Let me do that. "}), None));
                for call in self.tool_calls(calls) {
                    pieces.push(self.chunk(json!({"tool_calls": [call]}), None));
                }
                "tool_calls"
            }
            // A failure in the middle of a stream is an error event.
            Step::Fail(_, message) => {
                pieces.push(format!("data: {}\n\n", json!({"error": {"message": message}})));
                return pieces;
            }
            Step::Hang(_, then) => return self.pieces(then),
        };
        let mut last = self.envelope(
            "chat.completion.chunk",
            json!({"index": 0, "delta": {}, "finish_reason": finish}),
        );
        last["usage"] = usage();
        pieces.push(format!("data: {last}\n\n"));
        pieces.push("data: [DONE]\n\n".to_owned());
        pieces
    }

    /// The answer as server-sent events.
    pub(super) fn stream(self, step: Step) -> Response<Body> {
        if let Step::Fail(status, message) = &step {
            return failure(*status, message);
        }
        let first = self.chunk(json!({"role": "assistant", "content": ""}), None);
        let frame = |piece: String| Ok::<_, Infallible>(Frame::data(Bytes::from(piece)));
        let pieces = stream::unfold(
            (Some(first), Some(step), Vec::<String>::new().into_iter()),
            move |(first, step, mut rest)| async move {
                if let Some(first) = first {
                    return Some((frame(first), (None, step, rest)));
                }
                if let Some(step) = step {
                    opened(&step).await;
                    rest = self.pieces(&step).into_iter();
                }
                rest.next().map(|piece| (frame(piece), (None, None, rest)))
            },
        );
        let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
        response.headers_mut().insert(
            hyper::header::CONTENT_TYPE,
            hyper::header::HeaderValue::from_static("text/event-stream"),
        );
        response
    }

    /// The answer in one piece.
    pub(super) async fn whole(self, step: Step) -> Response<Body> {
        opened(&step).await;
        let mut inner = &step;
        while let Step::Hang(_, then) = inner {
            inner = then;
        }
        let (message, finish) = match inner {
            Step::Fail(status, message) => return failure(*status, message),
            Step::Calls(calls) => (
                json!({"role": "assistant", "content": null, "tool_calls": self.tool_calls(calls)}),
                "tool_calls",
            ),
            Step::Text(text) => (json!({"role": "assistant", "content": text}), "stop"),
            Step::Hang(..) => (Value::Null, "stop"),
        };
        let choice = json!({"index": 0, "message": message, "finish_reason": finish});
        let mut body = self.envelope("chat.completion", choice);
        body["usage"] = usage();
        json_answer(200, &body)
    }
}

/// Waits at every gate in front of a step.
async fn opened(step: &Step) {
    let mut inner = step;
    while let Step::Hang(gate, then) = inner {
        pass(gate).await;
        inner = then;
    }
}

fn failure(status: u16, message: &str) -> Response<Body> {
    json_answer(status, &json!({"error": {"message": message, "type": "mock", "code": status}}))
}

fn usage() -> Value {
    json!({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turn_is_the_last_block_of_user_messages() {
        let messages = [
            json!({"role": "user", "content": "first"}),
            json!({"role": "assistant", "tool_calls": []}),
            json!({"role": "tool", "content": "r1"}),
            json!({"role": "user", "content": [{"type": "text", "text": "second"}]}),
            json!({"role": "user", "content": "context"}),
            json!({"role": "assistant", "tool_calls": []}),
            json!({"role": "tool", "content": "r2"}),
            json!({"role": "user", "content": "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nx"}),
        ];
        assert_eq!(turn_text(&messages), "second\ncontext");
        let recorded = request(&json!({"messages": messages}), 0);
        assert_eq!(recorded.turn_tool_results(), ["r2"]);
        assert!(recorded.contains_line("second") && !recorded.contains_line("secon"));
    }

    #[test]
    fn arguments_keep_their_key_order_on_the_wire() {
        let step = Step::call(ToolCall::new("exec", json!({"z": 1, "a": 2})));
        let text = Reply { number: 0, first_call: 0 }.pieces(&step).concat();
        assert!(text.contains(r#"{\"z\":1,\"a\":2}"#), "{text}");
    }
}
