//! `/resume` where no gateway runs: what the record will say at the next start, and what can be noted until then.

use super::settle;
use crate::core::checkpoint::{Cause, Checkpoint, SettledHow};
use crate::core::hold::Unattended;
use crate::core::reducer::{self, Cut};
use crate::core::stamp::Stamp;

/// Whether the run before was killed with this session under way: nothing runs now, and no start has marked it yet.
#[must_use]
pub fn is_unmarked(record: &Checkpoint) -> bool {
    record.in_flight()
}

/// The record as the next start makes it, as far as that can be told: its cause is found then. For looking at only.
#[must_use]
pub fn as_next_start(record: &Checkpoint, now: Stamp) -> Checkpoint {
    let mut seen = record.clone();
    if is_unmarked(record) {
        let cut = Cut {
            incident: String::new(),
            cause: Cause::Unknown,
            detail: None,
            at: record.updated_at,
            hold: true,
            notify: true,
            unattended: Unattended::Hold,
        };
        reducer::interrupt(&mut seen, now, &cut);
    }
    seen
}

/// Notes how an interrupted action is dealt with and lifts the hold; no turn begins. Returns whether it changed.
pub fn settle_at_rest(record: &mut Checkpoint, now: Stamp, how: SettledHow) -> bool {
    settle(record, now, how)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::checkpoint::{AskedFrom, HoldStatus, Origin};
    use crate::core::resume::{Choice, Command, Confirm, Decision, Refusal, Said, decide};

    const NOW: Stamp = Stamp::from_ms(1_000);

    fn ask(record: &Checkpoint, choice: Choice) -> Decision {
        let said = Said {
            choice,
            code: None,
            from: AskedFrom::Shell,
            confirm: Confirm::Unknown,
            command: Command::NotFound,
        };
        decide(record, &said)
    }

    #[test]
    fn a_session_that_a_kill_left_open_is_shown_as_cut_and_stays_as_it_is() {
        let mut record = Checkpoint::new("k", Stamp::from_ms(0));
        let started = reducer::Report::TurnStarted {
            run_id: "r".to_owned(),
            origin: Origin::User,
            text: Some("task".to_owned()),
            route: None,
        };
        reducer::apply(&mut record, Stamp::from_ms(0), &started, &reducer::Rules::default());
        assert!(is_unmarked(&record));
        assert_eq!(ask(&record, Choice::Yes), Decision::Refuse(Refusal::NothingCut));
        let seen = as_next_start(&record, NOW);
        assert_eq!(ask(&seen, Choice::Yes), Decision::GoOn);
        assert!(!is_unmarked(&seen) && record.interruption.is_none());

        let mut settled = seen.clone();
        assert!(settle_at_rest(&mut settled, NOW, SettledHow::Done));
        assert_eq!(settled.seq, seen.seq + 1);
        let cut = settled.interruption.as_ref();
        assert_eq!(cut.map(|cut| cut.status), Some(HoldStatus::Released));
        assert!(matches!(ask(&settled, Choice::Skip), Decision::Refuse(Refusal::Settled(_))));
        assert_eq!(as_next_start(&settled, NOW), settled);
    }
}
