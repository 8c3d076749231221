//! The facts of one transcript.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use crate::core::queue::Evidence;
use crate::core::stamp::Stamp;

use super::lines::{Line, parse};
use super::stronger;

/// How much earlier than it was taken in hand a turn of ours may bear its time, in milliseconds.
const CLOCK_SLACK_MS: i64 = 1_000;
/// Longest time in brackets that the gateway puts before what it tells an agent, in bytes.
const STAMP_BYTES_MAX: usize = 64;

/// A text's hash: texts themselves are not kept.
type TextHash = [u8; 32];

/// What happened from one line of a user's to the next.
#[derive(Debug, Default)]
struct Turn {
    text: Option<TextHash>,
    at: Option<Stamp>,
    called: bool,
    answered: bool,
    named: bool,
}

impl Turn {
    fn evidence(&self) -> Evidence {
        match (self.answered, self.called) {
            (true, _) => Evidence::Done,
            (false, true) => Evidence::Cut,
            (false, false) => Evidence::None,
        }
    }
}

/// What a transcript tells.
#[derive(Debug, Default)]
pub(super) struct Facts {
    turns: Vec<Turn>,
    /// Turns by the id of the message that they answer.
    ids: HashMap<String, Vec<usize>>,
    /// Turns by the text they begin with, with and without the time in front.
    texts: HashMap<TextHash, Vec<usize>>,
    /// Keys of messages that were sent.
    receipts: HashSet<String>,
}

impl Facts {
    /// Reads the lines of a transcript, oldest first.
    pub(super) fn read<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut facts = Self::default();
        for line in lines.filter_map(parse) {
            facts.take(line);
        }
        facts
    }

    /// What became of the turn on the message `id`: the best of its runs.
    pub(super) fn of_id(&self, id: &str) -> Evidence {
        self.best(self.ids.get(id).into_iter().flatten())
    }

    /// What became of a turn on `message` that began at `since` or later.
    pub(super) fn of_text(&self, message: &str, since: Stamp) -> Evidence {
        let since = since.plus_ms(-CLOCK_SLACK_MS);
        let turns = self.texts.get(&hash(message)).into_iter().flatten().rev();
        self.best(turns.take_while(|turn| {
            self.turns.get(**turn).and_then(|turn| turn.at).is_some_and(|at| at >= since)
        }))
    }

    /// Whether a message was sent under `key`.
    pub(super) fn has_receipt(&self, key: &str) -> bool {
        self.receipts.contains(key)
    }

    fn best<'a>(&self, turns: impl Iterator<Item = &'a usize>) -> Evidence {
        turns
            .filter_map(|turn| self.turns.get(*turn))
            .fold(Evidence::None, |best, turn| stronger(best, turn.evidence()))
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::User { text, at_ms } => self.begin(&text, at_ms),
            Line::MessageId(id) => self.name(id),
            Line::Agent { called, answered } => {
                if let Some(turn) = self.turns.last_mut() {
                    turn.called |= called;
                    turn.answered |= answered;
                }
            }
            Line::Receipt(key) => {
                self.receipts.insert(key);
            }
            // Torn by a power cut, say. A tool that may have run must not be run again on a guess.
            Line::Torn => {
                if let Some(turn) = self.turns.last_mut() {
                    turn.called = true;
                }
            }
        }
    }

    fn begin(&mut self, text: &str, at_ms: Option<f64>) {
        let whole = hash(text);
        #[expect(clippy::cast_possible_truncation, reason = "a fraction of a millisecond")]
        let at = at_ms.map(|ms| Stamp::from_ms(ms as i64));
        // The same words, with the same time in front: a model that failed is asked once more, or
        // another in its place.
        if let Some(turn) = self.turns.last_mut()
            && turn.text == Some(whole)
            && !turn.answered
        {
            turn.at = at;
            return;
        }
        let place = self.turns.len();
        self.turns.push(Turn { text: Some(whole), at, ..Turn::default() });
        self.texts.entry(whole).or_default().push(place);
        if let Some(rest) = without_stamp(text) {
            self.texts.entry(hash(rest)).or_default().push(place);
        }
    }

    /// The id comes after the line that it belongs to. Where that has an id, or the agent has
    /// spoken, a turn has begun of which the line was not read.
    fn name(&mut self, id: String) {
        let fresh = |turn: &Turn| !turn.named && !turn.called && !turn.answered;
        if !self.turns.last().is_some_and(fresh) {
            self.turns.push(Turn::default());
        }
        if let Some(turn) = self.turns.last_mut() {
            turn.named = true;
        }
        self.ids.entry(id).or_default().push(self.turns.len().saturating_sub(1));
    }
}

/// What follows `[Tue 2026-11-24 22:11 UTC] `; `None` where nothing like it is in front.
fn without_stamp(text: &str) -> Option<&str> {
    let (stamp, rest) = text.strip_prefix('[')?.split_once("] ")?;
    (stamp.len() <= STAMP_BYTES_MAX).then_some(rest)
}

fn hash(text: &str) -> TextHash {
    Sha256::digest(text.trim()).into()
}
