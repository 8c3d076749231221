//! One entry file, whole.

use std::fmt;

use serde_json::Value;

use crate::core::queue::{Entry, Mark, Queue, Work};

use super::ENTRY_BYTES_MAX;
use super::fields::{self, Object};
use super::malformed::Malformed;
use super::requests::{can_be_sent, in_one_piece};
use crate::gateway::rpc::channel_answered;

/// The field that tideover writes into an entry. The gateway keeps fields it does not know.
pub(super) const MARK_FIELD: &str = "tideover";
/// What the gateway notes where its start ended its pass before an entry's turn came: that pass did
/// not try it. What a try before may have done was judged at that start, and is in the mark.
const NOT_TRIED: &str = "recovery time budget exceeded";

/// One entry of the queue with every field of its file, in the order they came in.
#[derive(Clone, PartialEq)]
pub struct Document {
    pub(super) object: Object,
    pub(super) entry: Entry,
}

impl Document {
    /// Reads the file `file_name` of `queue`.
    ///
    /// # Errors
    /// What the gateway itself could not deliver, or tideover does not understand.
    pub fn parse(queue: Queue, file_name: &str, bytes: &[u8]) -> Result<Self, Malformed> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if size > ENTRY_BYTES_MAX {
            return Err(Malformed::TooLarge { bytes: size, bytes_max: ENTRY_BYTES_MAX });
        }
        let id = file_name.strip_suffix(".json").ok_or(Malformed::Name)?;
        let value = serde_json::from_slice(bytes)
            .map_err(|error| Malformed::NotJson { line: error.line(), column: error.column() })?;
        let Value::Object(object) = value else { return Err(Malformed::NotAnObject) };
        if id.is_empty() || fields::text(&object, "id") != Some(id) {
            return Err(Malformed::Id);
        }
        let entry = match queue {
            Queue::Session => session_entry(&object, id)?,
            Queue::Delivery => delivery_entry(&object, id)?,
        };
        Ok(Self { object, entry })
    }

    /// What the decisions need of it.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The file's new content, laid out as the gateway does it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        format!("{:#}", Value::Object(self.object.clone())).into_bytes()
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = &self.entry;
        f.debug_struct("Document")
            .field("queue", &entry.queue)
            .field("id", &entry.id)
            .field("work", &entry.work)
            .finish_non_exhaustive()
    }
}

fn session_entry(object: &Object, id: &str) -> Result<Entry, Malformed> {
    let session_key = fields::needed_name(object, "sessionKey")?;
    let route = fields::object(object, "route").and_then(fields::route);
    let work = match fields::text(object, "kind") {
        Some("agentTurn") => {
            fields::needed(object, "message")?;
            // Without a route the gateway makes it an event, which wakes the agent some time.
            if route.is_some() { Work::Turn } else { Work::Event }
        }
        Some("systemEvent") => {
            fields::needed(object, "text")?;
            Work::Event
        }
        Some(_) | None => return Err(Malformed::Kind),
    };
    let context = || fields::object(object, "deliveryContext").and_then(fields::route);
    let key = fields::text(object, "idempotencyKey").or_else(|| fields::text(object, "messageId"));
    common(object, Queue::Session, id, work).map(|entry| Entry {
        session_key: Some(session_key.trim().to_owned()),
        route: route.or_else(context),
        key: key.map(str::to_owned),
        ..entry
    })
}

fn delivery_entry(object: &Object, id: &str) -> Result<Entry, Malformed> {
    fields::needed_name(object, "channel")?;
    fields::needed_name(object, "to")?;
    let payloads = object.get("payloads").and_then(Value::as_array);
    if !payloads.is_some_and(|payloads| payloads.iter().all(Value::is_object)) {
        return Err(Malformed::Field { field: "payloads", expected: "a list of objects" });
    }
    let work = if can_be_sent(object) { Work::Message } else { Work::RichMessage };
    let mirror = fields::object(object, "mirror");
    let session = fields::object(object, "session");
    let session_key = mirror
        .and_then(|mirror| fields::text(mirror, "sessionKey"))
        .or_else(|| session.and_then(|session| fields::text(session, "key")));
    let key = mirror.and_then(|mirror| fields::text(mirror, "idempotencyKey"));
    let mut entry = common(object, Queue::Delivery, id, work)?;
    entry.session_key = session_key.map(str::to_owned);
    entry.route = fields::route(object);
    entry.key = key.map(str::to_owned);
    entry.open_try = open_try(object, &entry);
    Ok(entry)
}

/// What both queues have.
fn common(object: &Object, queue: Queue, id: &str, work: Work) -> Result<Entry, Malformed> {
    Ok(Entry {
        queue,
        id: id.to_owned(),
        work,
        session_key: None,
        route: None,
        key: None,
        enqueued_at: fields::enqueued_at(object)?,
        retry_count: fields::retry_count(object)?,
        last_attempt_at: fields::last_attempt_at(object),
        last_error: fields::text(object, "lastError").map(str::to_owned),
        open_try: false,
        command: fields::text(object, "message")
            .is_some_and(|text| text.trim_start().starts_with('/')),
        mark: mark(object),
    })
}

/// What tideover wrote into it. One that cannot be read is as good as none: the entry itself is the
/// gateway's, and stays.
fn mark(object: &Object) -> Mark {
    let mark = object.get(MARK_FIELD).cloned();
    mark.and_then(|mark| serde_json::from_value(mark).ok()).unwrap_or_default()
}

/// Whether a try of a message may have got through. A session entry tells by the transcript.
pub(super) fn open_try(object: &Object, entry: &Entry) -> bool {
    match (entry.queue, entry.retry_count, &entry.last_error) {
        (Queue::Session, _, _) => false,
        // The gateway writes an entry when it is about to try it. One that was asked for by hand
        // has its doubt in the mark, and has not been tried since.
        (Queue::Delivery, 0, _) => !entry.mark.asked,
        (Queue::Delivery, _, None) => true,
        // An answer about one part says nothing of the parts before it.
        (Queue::Delivery, _, Some(error)) => {
            error != NOT_TRIED && !(channel_answered(error) && in_one_piece(object))
        }
    }
}
