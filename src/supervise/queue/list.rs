//! What `tideover queue list` shows: every entry with its age, its tries, and what becomes of it next.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::control::protocol::NativeEntry;
use crate::core::outbox;
use crate::core::queue::{
    Entry, Queue, RunFacts, Running, STUCK_MS, StartFacts, TRIES_MAX, Why, at_start, while_running,
};
use crate::core::stamp::Stamp;
use crate::gateway::queue_files::Transcripts;
use crate::gateway::queue_files::{Document, kept_in_files};
use crate::store::Layout;
use crate::store::records::read_given_up;
use crate::store::{Directory, Place};

use super::change::begins;
use super::given_up::GivenUp;
use super::running::notice_open;
use super::shelf::Shelf;
use super::shelves::{Finding, Shelves};
use super::start::evidence_of;

/// Most entries listed; the rest is counted.
const VIEWS_MAX: usize = 1_000;

/// One line of the list.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// Its id.
    pub id: String,
    /// Which queue it belongs to: `session`, `delivery`, or the name of a newer gateway's.
    pub queue: String,
    /// Where it is: a shelf of ours or of the gateway's, `native`, or `given_up`.
    pub place: String,
    /// What it asks for.
    pub work: String,
    /// Its session.
    pub session_key: Option<String>,
    /// Where its message goes.
    pub channel: Option<String>,
    /// The address.
    pub to: Option<String>,
    /// When it was queued.
    pub enqueued_at: Option<Stamp>,
    /// Failed tries.
    pub tries: u32,
    /// Why the last one failed.
    pub last_error: Option<String>,
    /// When it is tried next, where that is known.
    pub next_try_at: Option<Stamp>,
    /// Whether a try may have got through.
    pub possible_repeat: bool,
    /// Whether it has waited long.
    pub stuck: bool,
    /// What tideover will do.
    pub plan: String,
}

/// What is known around the queue.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The time.
    pub now: Stamp,
    /// Since when a supervised gateway serves.
    pub gateway_since: Option<Stamp>,
    /// Whether tideover tries entries at all.
    pub retries: bool,
    /// Sessions whose effects are held.
    pub held: BTreeSet<String>,
    /// Sessions in which a turn is under way.
    pub busy: BTreeSet<String>,
    /// The notices.
    pub outbox: BTreeMap<String, outbox::Entry>,
    /// The rows of a newer gateway's queue; `None` where they could not be read.
    pub native: Option<Vec<NativeEntry>>,
    /// What the gateway gave up.
    pub given_up: Vec<GivenUp>,
    /// Only entries with this id, or one that begins like it, are asked for.
    pub only: Option<String>,
}

/// The list.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Listing {
    /// `files`, `native`.
    pub kind: &'static str,
    /// The entries.
    pub entries: Vec<View>,
    /// How many more there are.
    pub more: usize,
    /// Files in the queue that are no entries.
    pub findings: Vec<Finding>,
}

/// The list as the disk tells it, without a supervisor. What the gateway gave up is read from our record of it.
#[must_use]
pub fn list_offline(layout: &Layout, mut around: Surroundings) -> Listing {
    if let Ok(directory) = Directory::open(&layout.directory(Place::State)) {
        around.given_up = read_given_up(&directory);
    }
    list(layout, &around)
}

/// The list.
#[must_use]
pub fn list(layout: &Layout, around: &Surroundings) -> Listing {
    let mut listing = Listing {
        kind: if kept_in_files(layout.state_dir()) { "files" } else { "native" },
        ..Listing::default()
    };
    let mut shelves = Shelves::new(layout);
    let mut transcripts = None;
    let only = around.only.as_deref();
    let asked = |document: &&Document| only.is_none_or(|only| begins(&document.entry().id, only));
    for shelf in Shelf::ALL {
        for queue in [Queue::Session, Queue::Delivery] {
            let content = shelves.read(shelf, queue);
            listing.findings.extend(content.findings);
            for document in content.documents.iter().filter(asked) {
                let view = view(shelf, document, layout, around, &mut transcripts);
                push(&mut listing, view);
            }
        }
    }
    for queue in [Queue::Session, Queue::Delivery] {
        let aside = shelves.quarantined(queue);
        listing.findings.extend(aside);
    }
    for row in around.native.iter().flatten() {
        if only.is_some_and(|only| !begins(&row.id, only)) {
            continue;
        }
        push(&mut listing, native(row, around.now));
    }
    for given_up in around.given_up.iter().filter(|_| only.is_none()) {
        push(&mut listing, gone(given_up));
    }
    listing
}

fn push(listing: &mut Listing, view: View) {
    if listing.entries.len() < VIEWS_MAX {
        listing.entries.push(view);
    } else {
        listing.more += 1;
    }
}

fn view(
    shelf: Shelf,
    document: &Document,
    layout: &Layout,
    around: &Surroundings,
    transcripts: &mut Option<Transcripts>,
) -> View {
    let entry = document.entry();
    let (next_try_at, plan) = match shelf {
        Shelf::Claimed => (None, "tideover has it in hand".to_owned()),
        Shelf::Failed => (None, "given up; `tideover queue retry ID` tries it again".to_owned()),
        Shelf::Settled => (None, "none: what it asks for has happened".to_owned()),
        Shelf::Dropped => {
            (None, "none: dropped; `tideover queue retry ID` brings it back".to_owned())
        }
        Shelf::Quarantine => (None, "none".to_owned()),
        Shelf::Queue | Shelf::Kept => {
            let transcripts =
                transcripts.get_or_insert_with(|| Transcripts::open(layout.state_dir()));
            plan(entry, shelf == Shelf::Kept, evidence_of(transcripts, document), layout, around)
        }
    };
    let waits = matches!(shelf, Shelf::Queue | Shelf::Kept | Shelf::Claimed);
    View {
        id: entry.id.clone(),
        queue: word(&entry.queue),
        place: word(&shelf),
        work: word(&entry.work),
        session_key: entry.session_key.clone(),
        channel: entry.route.as_ref().map(|route| route.channel.clone()),
        to: entry.route.as_ref().map(|route| route.to.clone()),
        enqueued_at: Some(entry.enqueued_at),
        tries: entry.retry_count,
        last_error: entry.last_error.clone(),
        next_try_at,
        possible_repeat: entry.mark.doubt || entry.open_try,
        stuck: waits && entry.age_ms(around.now) > STUCK_MS,
        plan,
    }
}

fn plan(
    entry: &Entry,
    kept: bool,
    evidence: crate::core::queue::Evidence,
    layout: &Layout,
    around: &Surroundings,
) -> (Option<Stamp>, String) {
    if kept && !kept_in_files(layout.state_dir()) {
        let plan = "none: this gateway keeps its queue in a database now; send it anew, then `tideover queue drop ID`";
        return (None, plan.to_owned());
    }
    if !around.retries {
        return (
            None,
            "none: `queue.retry` is false; the gateway tries it at its next start".to_owned(),
        );
    }
    let in_set = |set: &BTreeSet<String>| {
        entry.session_key.as_ref().is_some_and(|session| set.contains(session))
    };
    let held = in_set(&around.held);
    let notice_open =
        entry.route.as_ref().is_some_and(|route| notice_open(around.outbox.values(), route));
    let Some(gateway_since) = around.gateway_since else {
        let facts = StartFacts { now: around.now, held, notice_open, evidence, ours: false };
        let step = at_start(entry, &facts);
        return (None, format!("at the next start: {}", at_start_text(step)));
    };
    let facts = RunFacts {
        now: around.now,
        gateway_since,
        held,
        busy: in_set(&around.busy),
        notice_open,
        word_until: None,
        evidence,
        kept,
    };
    match while_running(entry, &facts) {
        Running::Wait(until, why) => (Some(until), format!("waits: {}", why_text(why))),
        Running::Leave(why) => (None, format!("waits: {}", why_text(why))),
        Running::Claim => (Some(around.now), "is tried next".to_owned()),
        Running::Settle => (None, "is settled: what it asks for has happened".to_owned()),
        Running::Keep(why) => (None, format!("is kept back: {}", why_text(why))),
        Running::Return => {
            (None, "goes back to the gateway, which delivers it at its next start".to_owned())
        }
        Running::GiveUp => (None, "is given up: its tries are used up".to_owned()),
    }
}

fn at_start_text(step: crate::core::queue::AtStart) -> String {
    use crate::core::queue::AtStart;
    match step {
        AtStart::Leave(why) => why_text(why),
        AtStart::MakeDue { doubt: false } => "the gateway tries it at once".to_owned(),
        AtStart::MakeDue { doubt: true } => {
            "the gateway tries it at once, marked as a possible repeat".to_owned()
        }
        AtStart::Settle => "settled: what it asks for has happened".to_owned(),
        AtStart::Keep(why) => format!("kept back: {}", why_text(why)),
        AtStart::RemoveCopy => "removed: the outbox has the notice".to_owned(),
    }
}

fn why_text(why: Why) -> String {
    match why {
        Why::Held => "its session's user has to speak first".to_owned(),
        Why::BehindNotice => "a notice to the same person goes first".to_owned(),
        Why::InHand => "the gateway may be at it".to_owned(),
        Why::Pause => "pauses after a failed try".to_owned(),
        Why::Busy => "a turn of its session is under way".to_owned(),
        Why::Future => {
            "dated in the future, and passed over until then; `tideover queue retry ID` makes it due".to_owned()
        }
        Why::TriesUsedUp => format!("given up by the gateway after {TRIES_MAX} tries"),
        Why::GatewayOnly => "only the gateway itself can deliver it, at its next start".to_owned(),
    }
}

fn native(row: &NativeEntry, now: Stamp) -> View {
    let enqueued_at = row.enqueued_at_ms.map(Stamp::from_ms);
    let pending = row.status == "pending";
    let stuck = pending && enqueued_at.is_some_and(|at| now.since_ms(at) > STUCK_MS);
    let plan = match (pending, row.recovery_state.as_deref()) {
        (true, Some("unknown_after_send")) => {
            "the gateway will give it up: it cannot tell whether it was sent"
        }
        (true, _) => "the gateway tries it again by itself, and at its next start",
        (false, _) => "none: given up by the gateway; it can only be sent anew",
    };
    View {
        id: row.id.clone(),
        queue: row.queue.clone(),
        place: if pending { "native" } else { "given_up" }.to_owned(),
        work: row.kind.clone().unwrap_or_default(),
        session_key: row.session_key.clone(),
        channel: row.channel.clone(),
        to: row.to.clone(),
        enqueued_at,
        tries: row.retry_count,
        last_error: row.last_error.clone(),
        next_try_at: None,
        possible_repeat: row.recovery_state.as_deref() == Some("unknown_after_send"),
        stuck,
        plan: plan.to_owned(),
    }
}

fn gone(given_up: &GivenUp) -> View {
    View {
        id: "-".to_owned(),
        queue: "native".to_owned(),
        place: "given_up".to_owned(),
        work: "message".to_owned(),
        session_key: given_up.session_key.clone(),
        channel: given_up.channel.clone(),
        to: given_up.to.clone(),
        enqueued_at: Some(given_up.at),
        tries: 0,
        last_error: given_up.error.clone(),
        next_try_at: None,
        possible_repeat: false,
        stuck: false,
        plan: "none: discarded by the gateway; it can only be sent anew".to_owned(),
    }
}

/// A plain enum's name, as the files have it.
fn word(value: &impl Serialize) -> String {
    super::super::said::name_of(value)
}
