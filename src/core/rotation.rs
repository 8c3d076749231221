//! A session that is replaced under its key while its task is open: what the gateway says of it, and what the record
//! keeps.
//!
//! Measured: 2026.5.5 gives the new session a new id, 2026.9.6 begins anew under the id it had, and then only the end
//! of the old one tells. A store that points to a session which never was (openclaw #75151) tells by its id alone.

use super::checkpoint::{Checkpoint, HoldStatus, NoticeStatus, Orphaned, ResumeStage, State};
use super::reducer::{self, Cut, interruption_id};
use super::stamp::Stamp;

/// What the end of a session under its key means for its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// A person closed it: the task is over.
    Closed,
    /// A compaction: the conversation goes on under another id.
    CarriedOver,
    /// A new one takes its place, and nobody asked for that.
    Replaced,
    /// It stays what it was, or is gone for good.
    NotReplaced,
}

impl SessionEnd {
    /// From the gateway's own reason. For some replacements it names none.
    #[must_use]
    pub fn of(reason: Option<&str>, has_next: bool) -> Self {
        match reason {
            Some("new" | "reset") => Self::Closed,
            Some("shutdown" | "restart" | "deleted") => Self::NotReplaced,
            Some("compaction") if has_next => Self::CarriedOver,
            Some(_) | None if has_next => Self::Replaced,
            Some(_) | None => Self::NotReplaced,
        }
    }
}

/// Whether a replaced session would take something along that nobody has dealt with.
#[must_use]
pub fn is_open(record: &Checkpoint) -> bool {
    let interrupted = record.interruption.as_ref().is_some_and(|cut| {
        cut.settled.is_none() && cut.status != HoldStatus::Expired && record.state != State::Ended
    });
    interrupted || record.in_flight()
}

/// The conversation goes on under another id. Returns whether the record changed.
pub fn rename(record: &mut Checkpoint, now: Stamp, to: &str) -> bool {
    let before = record.clone();
    record.session_id = Some(to.to_owned());
    reducer::touch_if_changed(record, &before, now)
}

/// The session `from` was replaced by `to`. Where a turn of the old one is `lost`, that turn was cut by it. Returns
/// whether the record changed.
pub fn replace(
    record: &mut Checkpoint,
    now: Stamp,
    (from, to): (&str, &str),
    lost: bool,
    cut: &Cut,
) -> bool {
    let before = record.clone();
    record.session_id = Some(to.to_owned());
    let newly_cut = lost && record.turn.is_some() && reducer::interrupt(record, now, cut);
    orphan(record, now, (from, to), newly_cut, cut.notify);
    record.seq = before.seq;
    record.updated_at = before.updated_at;
    reducer::touch_if_changed(record, &before, now)
}

fn orphan(
    record: &mut Checkpoint,
    now: Stamp,
    (from, to): (&str, &str),
    newly_cut: bool,
    notify: bool,
) {
    let open = record.state != State::Ended;
    let route_known = record.route.is_some();
    let Some(cut) = record
        .interruption
        .as_mut()
        .filter(|cut| open && cut.settled.is_none() && cut.status != HoldStatus::Expired)
    else {
        return;
    };
    if let Some(orphaned) = &mut cut.orphaned {
        // Told once; that the new one was replaced in turn changes nothing for its user.
        to.clone_into(&mut orphaned.new_session_id);
        return;
    }
    cut.orphaned = Some(Orphaned {
        session_id: from.to_owned(),
        new_session_id: to.to_owned(),
        interruption_id: cut.id.clone(),
        at: now,
    });
    let waits = cut.status == HoldStatus::Held || !cut.model_told;
    let resumes = cut.resume.as_ref().is_some_and(|resume| match resume.stage {
        ResumeStage::Granted | ResumeStage::Spent => true,
        ResumeStage::Ended | ResumeStage::Lapsed => false,
    });
    // Whoever has spoken to a model that was told, or resumes it just now, has the task in hand: no word about it.
    if newly_cut || !waits || resumes {
        return;
    }
    // A notice goes out once under its id, so that this one needs an id of its own.
    cut.id = interruption_id(&format!("{}\0{from}\0{to}", cut.id), &record.session_key);
    cut.model_told = false;
    cut.notice = match cut.notice {
        NoticeStatus::NoRoute if !route_known => NoticeStatus::NoRoute,
        NoticeStatus::Pending
        | NoticeStatus::Sent
        | NoticeStatus::Uncertain
        | NoticeStatus::Failed
        | NoticeStatus::NoRoute
        | NoticeStatus::Off => {
            if notify {
                NoticeStatus::Pending
            } else {
                NoticeStatus::Off
            }
        }
    };
}

#[cfg(test)]
mod tests;
