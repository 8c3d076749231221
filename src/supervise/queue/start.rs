//! The pass over the queue before the gateway starts: tideover is then its only owner. Nothing in here can keep the
//! gateway from starting.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::core::checkpoint::Route;
use crate::core::queue::{
    AfterTry, AtStart, Entry, Evidence, Hand, Queue, StartFacts, Why, after_crash, at_start,
};
use crate::core::stamp::Stamp;
use crate::gateway::queue_files::Transcripts;
use crate::gateway::queue_files::{Document, kept_in_files};
use crate::store::Layout;

use super::shelf::Shelf;
use super::shelves::{Finding, Shelves};
use super::{apply, copies};

/// Longest that the pass may take; what it has not come to by then is the gateway's own affair.
const PASS_MAX: Duration = Duration::from_secs(5);
/// Most entries whose pause is taken away in one pass: the gateway's own pass ends after 60 s, and each replaced file
/// costs. The others wait for the end of their pause.
const HURRIED_MAX: usize = 2_000;
/// Entries that are judged before their steps are carried out.
const BATCH: usize = 2_000;

/// What the pass must know of the sessions and of the notices.
pub(in super::super) struct Facts<'a> {
    pub(in super::super) now: Stamp,
    /// Whether effects are held in this session.
    pub(in super::super) held: &'a dyn Fn(&str) -> bool,
    /// Whether a notice to this route is still to be sent.
    pub(in super::super) notice_open: &'a dyn Fn(&Route) -> bool,
    /// Whether this idempotency key is one of a notice of ours.
    pub(in super::super) ours: &'a dyn Fn(&str) -> bool,
}

/// What the pass did.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(in super::super) struct Pass {
    /// Entries found.
    pub found: usize,
    /// Entries that the gateway tries in its own pass.
    pub due: usize,
    /// Entries whose work was found done.
    pub settled: usize,
    /// Entries that are kept back.
    pub kept: usize,
    /// Entries of a try that the run before did not finish.
    pub resumed: usize,
    /// The gateway's copies of notices of ours, removed.
    pub copies: usize,
    /// Entries that stay as they are.
    pub left: usize,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Files that are no entries.
    #[serde(skip)]
    pub findings: Vec<Finding>,
    /// What went wrong.
    #[serde(skip)]
    pub problems: Vec<String>,
    /// Keys of notices of ours whose copy bears the channel's answer: those tries did not get through.
    #[serde(skip)]
    pub answered: Vec<String>,
    /// What was settled and what is kept back, for the log.
    #[serde(skip)]
    pub said: Vec<(Entry, AtStart)>,
}

/// Goes over the queue.
pub(in super::super) fn before_start(layout: &Layout, facts: &Facts<'_>) -> Pass {
    let begun = Instant::now();
    let mut pass = Passing::new(layout, facts);
    pass.shelves.sweep();
    for queue in [Queue::Delivery, Queue::Session] {
        pass.finish_claimed(queue);
        pass.bring_back_kept(queue);
    }
    for queue in [Queue::Delivery, Queue::Session] {
        pass.judge(queue);
    }
    clean_up(layout.clone());
    if pass.shelves.is_cut() {
        let why = "the queue is too long for the time before the start; the rest is the gateway's own affair";
        pass.pass.problems.push(why.to_owned());
    }
    let mut pass = pass.pass;
    pass.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    pass
}

/// Puts everything that tideover has in hand or keeps back into the gateway's queue again: tideover leaves, or is to
/// leave the queue alone. What may have been sent says so. Returns how many entries that were, and what went wrong.
pub fn hand_back(layout: &Layout, now: Stamp) -> (usize, Vec<String>) {
    let mut shelves = Shelves::new(layout);
    let mut transcripts = Transcripts::open(layout.state_dir());
    let (mut count, mut problems) = (0, Vec::new());
    for shelf in [Shelf::Claimed, Shelf::Kept] {
        for queue in [Queue::Delivery, Queue::Session] {
            for mut document in shelves.read(shelf, queue).documents {
                if !kept_in_files(layout.state_dir()) {
                    problems.push(format!(
                        "{} stays in {}: this gateway keeps its queue in a database now; send it anew",
                        document.entry().id,
                        layout.state_dir().join("tideover/queue").display(),
                    ));
                    continue;
                }
                let happened = evidence_of(&mut transcripts, &document) != Evidence::None;
                let to = if happened { Shelf::Settled } else { Shelf::Queue };
                let entry = document.entry();
                let doubt = entry.mark.doubt || entry.open_try || entry.mark.hand == Hand::Sending;
                let id = entry.id.clone();
                document.make_due(now, doubt);
                let moved = shelves
                    .rewrite_one(shelf, &document)
                    .and_then(|_| shelves.relocate(shelf, to, queue, &[id]));
                match moved {
                    Ok(moved) => count += moved,
                    Err(error) => problems.push(error.to_string()),
                }
            }
        }
    }
    (count, problems)
}

/// Frees what is no longer needed, beside the gateway's start: for thousands of files that takes many seconds. What it
/// does not come to is left for the next start.
fn clean_up(layout: Layout) {
    let work = move || {
        let mut shelves = Shelves::new(&layout);
        shelves.sweep_replaced();
        shelves.prune_settled();
    };
    let thread = std::thread::Builder::new().name("queue".to_owned());
    if let Err(error) = thread.spawn(work) {
        tracing::warn!("what is no longer needed of the gateway's queue stays: {error}");
    }
}

struct Passing<'a> {
    shelves: Shelves,
    layout: &'a Layout,
    transcripts: Option<Transcripts>,
    facts: &'a Facts<'a>,
    until: Instant,
    /// Entries that were rewritten so that the gateway tries them.
    hurried: usize,
    pass: Pass,
}

/// Steps that are carried out together: one sync serves them all.
#[derive(Default)]
struct Steps {
    due: Vec<Document>,
    settle: Vec<String>,
    keep: Vec<String>,
    copies: Vec<String>,
}

impl<'a> Passing<'a> {
    fn new(layout: &'a Layout, facts: &'a Facts<'a>) -> Self {
        Self {
            shelves: Shelves::until(layout, Instant::now() + PASS_MAX),
            layout,
            transcripts: None,
            facts,
            until: Instant::now() + PASS_MAX,
            hurried: 0,
            pass: Pass::default(),
        }
    }

    fn evidence(&mut self, document: &Document) -> Evidence {
        let state_dir = self.layout.state_dir();
        let transcripts = self.transcripts.get_or_insert_with(|| Transcripts::open(state_dir));
        evidence_of(transcripts, document)
    }

    /// What the run before had in hand when it ended.
    fn finish_claimed(&mut self, queue: Queue) {
        for mut document in self.shelves.read(Shelf::Claimed, queue).documents {
            let evidence = self.evidence(&document);
            let key = document.entry().mark.key.clone();
            let copy = key.and_then(|key| copies::find(&mut self.shelves, &key));
            let then = after_crash(document.entry(), evidence, copy.map(|(_, copy)| copy));
            self.pass.resumed += 1;
            self.pass.settled += usize::from(then == AfterTry::Settle);
            let done =
                apply::after(&mut self.shelves, &mut document, &then, Shelf::Queue, self.facts.now);
            self.note(done);
        }
    }

    /// What was kept back is judged anew with the rest; what is to be kept on stays out of the gateway's sight.
    fn bring_back_kept(&mut self, queue: Queue) {
        let mut ids = Vec::new();
        for document in self.shelves.read(Shelf::Kept, queue).documents {
            let step = self.step_of(&document);
            if let AtStart::Keep(_) = step {
                self.pass.found += 1;
                self.pass.kept += 1;
                self.pass.said.push((document.entry().clone(), step));
            } else {
                ids.push(document.entry().id.clone());
            }
        }
        let moved = self.shelves.relocate(Shelf::Kept, Shelf::Queue, queue, &ids);
        self.note(moved.map(|_| ()));
    }

    fn step_of(&mut self, document: &Document) -> AtStart {
        let entry = document.entry();
        let facts = StartFacts {
            now: self.facts.now,
            held: entry.session_key.as_deref().is_some_and(self.facts.held),
            notice_open: entry.route.as_ref().is_some_and(self.facts.notice_open),
            evidence: self.evidence(document),
            ours: entry.key.as_deref().is_some_and(self.facts.ours),
        };
        at_start(entry, &facts)
    }

    fn judge(&mut self, queue: Queue) {
        let mut content = self.shelves.read(Shelf::Queue, queue);
        self.pass.found += content.documents.len();
        self.shelves.quarantine(queue, &mut content.findings);
        self.pass.findings.append(&mut content.findings);
        let mut documents = content.documents.into_iter();
        loop {
            let mut steps = Steps::default();
            let batch: Vec<Document> = documents.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return;
            }
            for document in batch {
                if Instant::now() >= self.until {
                    self.shelves.cut();
                    self.pass.left += 1;
                    continue;
                }
                self.judge_one(document, &mut steps);
            }
            self.carry_out(queue, &steps);
        }
    }

    fn judge_one(&mut self, mut document: Document, steps: &mut Steps) {
        let entry = document.entry().clone();
        let step = self.step_of(&document);
        match step {
            AtStart::Leave(_) => self.pass.left += 1,
            AtStart::MakeDue { doubt } => {
                let rewrite = document.needs_rewrite(self.facts.now, doubt);
                // A doubt must be in the text before the gateway can send it.
                if rewrite && !doubt && self.hurried >= HURRIED_MAX {
                    self.pass.left += 1;
                    return;
                }
                self.pass.due += 1;
                if rewrite {
                    self.hurried += 1;
                    document.make_due(self.facts.now, doubt);
                    steps.due.push(document);
                }
            }
            AtStart::Settle => {
                self.pass.settled += 1;
                steps.settle.push(entry.id.clone());
            }
            AtStart::Keep(_) => {
                self.pass.kept += 1;
                steps.keep.push(entry.id.clone());
            }
            AtStart::RemoveCopy => {
                self.pass.copies += 1;
                let told = copies::told_by(&document);
                self.pass
                    .answered
                    .extend(entry.key.clone().filter(|_| told.answered == Some(true)));
                steps.copies.push(entry.id.clone());
            }
        }
        match step {
            AtStart::Settle | AtStart::Keep(_) | AtStart::Leave(Why::Future | Why::TriesUsedUp) => {
                self.pass.said.push((entry, step));
            }
            AtStart::Leave(
                Why::Held
                | Why::BehindNotice
                | Why::InHand
                | Why::Pause
                | Why::Busy
                | Why::GatewayOnly,
            )
            | AtStart::MakeDue { .. }
            | AtStart::RemoveCopy => {}
        }
    }

    fn carry_out(&mut self, queue: Queue, steps: &Steps) {
        let settled = self.shelves.relocate(Shelf::Queue, Shelf::Settled, queue, &steps.settle);
        self.note(settled.map(|_| ()));
        let kept = self.shelves.relocate(Shelf::Queue, Shelf::Kept, queue, &steps.keep);
        self.note(kept.map(|_| ()));
        let removed = self.shelves.remove(Shelf::Queue, queue, &steps.copies);
        self.note(removed);
        let due: Vec<&Document> = steps.due.iter().collect();
        let due = self.shelves.rewrite(Shelf::Queue, queue, &due);
        self.note(due);
    }

    fn note(&mut self, result: Result<(), crate::store::StoreError>) {
        if let Err(error) = result {
            self.pass.problems.push(error.to_string());
        }
    }
}

/// What the transcripts tell of an entry: by its own key, and by that of a try of ours.
pub(super) fn evidence_of(transcripts: &mut Transcripts, document: &Document) -> Evidence {
    let entry = document.entry();
    let tried = entry.mark.hand != Hand::None || entry.mark.key.is_some();
    let since = entry.mark.since.or(Some(entry.enqueued_at)).filter(|_| tried);
    let evidence = transcripts.evidence(document, since);
    if evidence != Evidence::None {
        return evidence;
    }
    let receipt = entry
        .mark
        .key
        .as_deref()
        .zip(entry.session_key.as_deref())
        .is_some_and(|(key, session)| transcripts.has_receipt(session, key));
    if receipt && entry.queue == Queue::Delivery { Evidence::Done } else { Evidence::None }
}
