//! What has to be asked of a running gateway to have an entry delivered.

use serde_json::Value;

use crate::core::queue::Work;
use crate::gateway::rpc::{SendRequest, TurnRequest};

use super::changes::marked_as_repeat;
use super::document::Document;
use super::fields::{self, Object};

/// Fields of a delivery that `send` has as well, makes by itself or has no need of. `bestEffort`
/// says that a failed part may be passed over, of which a single part has no use.
const CARRIED: [&str; 17] = [
    "id",
    "enqueuedAt",
    "channel",
    "to",
    "accountId",
    "payloads",
    "threadId",
    "replyToId",
    "replyToMode",
    "bestEffort",
    "mirror",
    "session",
    "gatewayClientScopes",
    "retryCount",
    "lastAttemptAt",
    "lastError",
    super::document::MARK_FIELD,
];
/// The same for a part.
const CARRIED_OF_PART: [&str; 4] = ["text", "mediaUrl", "mediaUrls", "replyToId"];
/// Longest text that the gateway sends as one message, in characters, where a channel has no other
/// limit (its default; Telegram's is the same).
const ONE_MESSAGE_CHARS: usize = 4_000;

/// Whether `send` can carry the message whole. Its schema in 2026.5.5 has one text, media, a
/// message that is answered and a thread; all else (`silent`, `formatting`, buttons, …) would be
/// lost.
pub(super) fn can_be_sent(object: &Object) -> bool {
    let Some(part) = only_part(object) else { return false };
    let whole = |object: &Object, carried: &[&str]| {
        object.iter().all(|(name, value)| {
            carried.contains(&name.as_str()) || fields::asks_for_nothing(value)
        })
    };
    let mode = object.get("replyToMode").is_some_and(|mode| !fields::asks_for_nothing(mode));
    let text = fields::text(part, "text");
    whole(object, &CARRIED)
        && whole(part, &CARRIED_OF_PART)
        // How a message that is answered is quoted cannot be said.
        && !(mode && reply_to(object, part).is_some())
        && part.get("text").is_none_or(|value| value.is_null() || value.is_string())
        && media(part).is_some_and(|media| {
            !media.is_empty() || text.is_some_and(|text| !text.trim().is_empty())
        })
}

/// Whether the channel takes it as one message, so that its answer is about all of it.
pub(super) fn in_one_piece(object: &Object) -> bool {
    only_part(object).is_some_and(|part| {
        let text = fields::text(part, "text").unwrap_or_default();
        let media = media(part).map_or(usize::MAX, |media| media.len());
        text.chars().count() <= ONE_MESSAGE_CHARS
            && media.saturating_add(usize::from(!text.is_empty())) <= 1
    })
}

/// The payload, where it is the only one.
fn only_part(object: &Object) -> Option<&Object> {
    match object.get("payloads").and_then(Value::as_array)?.as_slice() {
        [part] => part.as_object(),
        [] | [_, ..] => None,
    }
}

/// Its media; `None` where they are no texts. The gateway takes the list before the single one.
fn media(part: &Object) -> Option<Vec<String>> {
    let one = match part.get("mediaUrl") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(one)) if one.is_empty() => Vec::new(),
        Some(one) => vec![one.as_str()?.to_owned()],
    };
    match part.get("mediaUrls") {
        None | Some(Value::Null) => Some(one),
        Some(many) => {
            let many: Vec<String> = many
                .as_array()?
                .iter()
                .map(|url| url.as_str().map(str::to_owned))
                .collect::<Option<_>>()?;
            Some(if many.is_empty() { one } else { many })
        }
    }
}

fn reply_to(object: &Object, part: &Object) -> Option<String> {
    fields::label(part, "replyToId").or_else(|| fields::label(object, "replyToId"))
}

impl Document {
    /// The `send` for a [`Work::Message`], under the idempotency key `key`; `None` for all else.
    /// Where a try before may have got through, its text says so.
    #[must_use]
    pub fn send_request(&self, key: &str) -> Option<SendRequest> {
        if self.entry.work != Work::Message {
            return None;
        }
        let (part, route) = (only_part(&self.object)?, self.entry.route.clone()?);
        let text = fields::text(part, "text").unwrap_or_default();
        let message = marked_as_repeat(text).filter(|_| self.entry.mark.doubt);
        Some(SendRequest {
            channel: route.channel,
            to: route.to,
            message: message.unwrap_or_else(|| text.to_owned()),
            account_id: route.account_id,
            thread_id: route.thread_id,
            reply_to_id: reply_to(&self.object, part),
            media_urls: media(part)?,
            idempotency_key: key.to_owned(),
            session_key: self.entry.session_key.clone(),
        })
    }

    /// The `agent` call for a [`Work::Turn`], under the idempotency key `key`; `None` for all else.
    #[must_use]
    pub fn turn_request(&self, key: &str) -> Option<TurnRequest> {
        if self.entry.work != Work::Turn {
            return None;
        }
        let (route, message) = (self.entry.route.clone()?, fields::text(&self.object, "message")?);
        Some(TurnRequest {
            session_key: self.entry.session_key.clone()?,
            // As the gateway does it, so that the transcript holds the same text either way.
            message: message.trim().to_owned(),
            route: Some(route),
            idempotency_key: key.to_owned(),
        })
    }
}
