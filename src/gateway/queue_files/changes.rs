//! What tideover changes in an entry.

use serde_json::Value;

use crate::core::queue::{Hand, Mark, Queue};
use crate::core::stamp::Stamp;

use super::document::{Document, MARK_FIELD, open_try};
use super::fields::Object;

/// What a message ends with that may have arrived before: at its end, on a line of its own, because
/// the text may begin with what must stand first (a code block, a directive of the gateway's).
const POSSIBLY_REPEATED: &str = "\n(Possibly repeated.)";
/// The time of a last try that lets the gateway try again at once, whatever the count.
const LONG_AGO: Stamp = Stamp::from_ms(1);

/// `text` marked as one that may have arrived before; `None` where it is so already, or empty.
pub(super) fn marked_as_repeat(text: &str) -> Option<String> {
    let open = !text.trim().is_empty() && !text.ends_with(POSSIBLY_REPEATED);
    open.then(|| format!("{text}{POSSIBLY_REPEATED}"))
}

/// What has to change so that the gateway's next pass takes an entry up.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    count: bool,
    pause: bool,
    date: bool,
    mark: bool,
    text: bool,
}

impl Document {
    /// Makes the gateway's next pass take the entry up, with its count of failed tries kept. With
    /// `doubt` a message says that it may have arrived before. What tideover had in hand it has no
    /// longer, and what was asked for by hand is on its way: from here on the gateway may have it.
    pub fn make_due(&mut self, now: Stamp, doubt: bool) {
        let due = self.due(now, doubt);
        if due.count {
            self.object.insert("retryCount".to_owned(), self.entry.retry_count.into());
        }
        if due.pause {
            self.put_last_attempt_at(LONG_AGO);
        }
        if due.date {
            self.put_enqueued_at(now);
        }
        if due.text {
            mark_payload(&mut self.object);
        }
        if due.mark {
            self.set_mark(self.mark_when_due(doubt));
        }
        self.entry.open_try = open_try(&self.object, &self.entry);
    }

    /// Whether [`Self::make_due`] would change anything.
    #[must_use]
    pub fn needs_rewrite(&self, now: Stamp, doubt: bool) -> bool {
        let Due { count, pause, date, mark, text } = self.due(now, doubt);
        count || pause || date || mark || text
    }

    fn due(&self, now: Stamp, doubt: bool) -> Due {
        let entry = &self.entry;
        let counted = self.object.get("retryCount").is_some_and(Value::is_number);
        // A delivery with a date of a last try pauses even where none is counted.
        let pauses = entry.retry_count > 0 || self.object.contains_key("lastAttemptAt");
        Due {
            count: !counted,
            pause: pauses && entry.due_at() > now && entry.last_attempt_at != Some(LONG_AGO),
            date: entry.enqueued_at > now,
            mark: self.mark_when_due(doubt) != entry.mark,
            text: self.is_doubtful(doubt) && payload_to_mark(&self.object).is_some(),
        }
    }

    fn mark_when_due(&self, doubt: bool) -> Mark {
        let mark = &self.entry.mark;
        Mark {
            hand: Hand::None,
            key: mark.key.clone(),
            since: None,
            doubt: mark.doubt || self.is_doubtful(doubt),
            asked_of: None,
            generation: mark.generation,
            asked: false,
        }
    }

    fn is_doubtful(&self, doubt: bool) -> bool {
        doubt
            && match self.entry.queue {
                Queue::Delivery => true,
                Queue::Session => false,
            }
    }

    /// Writes what tideover has to remember of it. A mark that says nothing is taken out.
    pub fn set_mark(&mut self, mark: Mark) {
        if mark == Mark::default() {
            self.object.shift_remove(MARK_FIELD);
        } else if let Ok(value) = serde_json::to_value(&mark) {
            self.object.insert(MARK_FIELD.to_owned(), value);
        }
        self.entry.mark = mark;
        self.entry.open_try = open_try(&self.object, &self.entry);
    }

    /// Notes a failed try, which ended at `at`, as the gateway does it.
    pub fn set_tries(&mut self, retry_count: u32, at: Stamp, reason: &str) {
        self.object.insert("retryCount".to_owned(), retry_count.into());
        self.put_last_attempt_at(at);
        self.object.insert("lastError".to_owned(), reason.into());
        self.entry.retry_count = retry_count;
        self.entry.last_error = Some(reason.to_owned());
        self.entry.open_try = open_try(&self.object, &self.entry);
    }

    /// Makes it as if it had just been queued, because a person asked for it: no failed tries, and
    /// its date has come. A doubt stays: what may have got through may still have.
    pub fn reset(&mut self, now: Stamp) {
        let doubt = self.entry.mark.doubt || self.entry.open_try;
        self.object.insert("retryCount".to_owned(), 0.into());
        self.object.shift_remove("lastAttemptAt");
        self.object.shift_remove("lastError");
        self.entry.retry_count = 0;
        self.entry.last_attempt_at = None;
        self.entry.last_error = None;
        if self.entry.enqueued_at > now {
            self.put_enqueued_at(now);
        }
        // Keys that were answered stay answered for some minutes.
        let (key, generation) = (self.entry.mark.key.clone(), self.entry.mark.generation);
        self.set_mark(Mark { asked: true, doubt, key, generation, ..Mark::default() });
    }

    fn put_last_attempt_at(&mut self, at: Stamp) {
        self.object.insert("lastAttemptAt".to_owned(), at.as_ms().into());
        self.entry.last_attempt_at = Some(at);
    }

    fn put_enqueued_at(&mut self, at: Stamp) {
        self.object.insert("enqueuedAt".to_owned(), at.as_ms().into());
        self.entry.enqueued_at = at;
    }
}

/// The first part with a text, where that is not marked yet: its place, its text and the marked one.
fn payload_to_mark(object: &Object) -> Option<(usize, String, String)> {
    let payloads = object.get("payloads").and_then(Value::as_array)?;
    let texts = payloads.iter().enumerate().filter_map(|(place, payload)| {
        let text = payload.get("text").and_then(Value::as_str)?;
        (!text.trim().is_empty()).then_some((place, text))
    });
    let (place, text) = texts.into_iter().next()?;
    Some((place, text.to_owned(), marked_as_repeat(text)?))
}

/// Marks that part, and the transcript's copy where it has the same text.
fn mark_payload(object: &mut Object) {
    let Some((place, text, marked)) = payload_to_mark(object) else { return };
    let payloads = object.get_mut("payloads").and_then(Value::as_array_mut);
    let payload = payloads.and_then(|payloads| payloads.get_mut(place));
    if let Some(slot) = payload.and_then(|payload| payload.get_mut("text")) {
        *slot = marked.clone().into();
    }
    if let Some(copy) = object.get_mut("mirror").and_then(|mirror| mirror.get_mut("text"))
        && copy.as_str() == Some(text.as_str())
    {
        *copy = marked.into();
    }
}
