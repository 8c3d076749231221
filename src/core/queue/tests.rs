//! Each decision as a table, and what holds for every entry.

use proptest::prelude::*;

use super::*;

const NOW: Stamp = Stamp::from_ms(10_000_000);
const SINCE: Stamp = Stamp::from_ms(9_000_000);

fn entry(work: Work, retry_count: u32, tried_ms_ago: Option<i64>) -> Entry {
    let queue = match work {
        Work::Turn | Work::Event => Queue::Session,
        Work::Message | Work::RichMessage => Queue::Delivery,
    };
    Entry {
        queue,
        id: "e".to_owned(),
        work,
        session_key: Some("s".to_owned()),
        route: None,
        key: None,
        enqueued_at: Stamp::from_ms(8_000_000),
        retry_count,
        last_attempt_at: tried_ms_ago.map(|ago| NOW.plus_ms(-ago)),
        last_error: None,
        open_try: false,
        command: false,
        mark: Mark::default(),
    }
}

const START: StartFacts =
    StartFacts { now: NOW, held: false, notice_open: false, evidence: Evidence::None, ours: false };

const RUN: RunFacts = RunFacts {
    now: NOW,
    gateway_since: SINCE,
    held: false,
    busy: false,
    word_until: None,
    notice_open: false,
    evidence: Evidence::None,
    kept: false,
};

#[test]
fn before_the_gateway_starts() {
    let held = StartFacts { held: true, ..START };
    let noticed = StartFacts { notice_open: true, ..START };
    let due = AtStart::MakeDue { doubt: false };
    let open = |mut entry: Entry| {
        entry.open_try = true;
        entry
    };
    let future = Entry { enqueued_at: NOW.plus_ms(1), ..entry(Work::Turn, 0, None) };
    for (entry, facts, step) in [
        (entry(Work::Turn, 0, None), START, due),
        (entry(Work::Turn, 3, Some(1)), START, due),
        (entry(Work::Turn, 0, None), held, AtStart::Keep(Why::Held)),
        (entry(Work::Event, 0, None), held, AtStart::Keep(Why::Held)),
        (entry(Work::Turn, 0, None), noticed, AtStart::Keep(Why::BehindNotice)),
        (entry(Work::Message, 1, Some(1)), START, due),
        (entry(Work::Message, 1, Some(1)), held, due),
        (entry(Work::Message, 1, Some(1)), noticed, AtStart::Keep(Why::BehindNotice)),
        (entry(Work::RichMessage, 1, Some(1)), noticed, due),
        (open(entry(Work::Message, 0, None)), START, AtStart::MakeDue { doubt: true }),
        (open(entry(Work::Turn, 0, None)), START, due),
        (entry(Work::Turn, 5, Some(1)), START, AtStart::Leave(Why::TriesUsedUp)),
        (future, START, AtStart::Leave(Why::Future)),
        (
            entry(Work::Turn, 5, None),
            StartFacts { evidence: Evidence::Cut, ..held },
            AtStart::Settle,
        ),
        (
            entry(Work::Message, 0, None),
            StartFacts { ours: true, notice_open: true, ..START },
            AtStart::RemoveCopy,
        ),
    ] {
        assert_eq!(at_start(&entry, &facts), step, "{entry:?} {facts:?}");
    }
}

#[test]
fn while_the_gateway_runs() {
    let at = |ago: i64| NOW.plus_ms(-ago);
    let kept = RunFacts { kept: true, ..RUN };
    let asked = |mut entry: Entry| {
        entry.mark.asked = true;
        entry
    };
    for (entry, facts, step) in [
        // Tried by this gateway: the pause counts from there.
        (
            entry(Work::Turn, 1, Some(4_000)),
            RUN,
            Running::Wait(at(4_000).plus_ms(5_000), Why::Pause),
        ),
        (entry(Work::Turn, 1, Some(5_000)), RUN, Running::Claim),
        (
            entry(Work::Message, 1, Some(5_000)),
            RUN,
            Running::Wait(at(5_000).plus_ms(25_000), Why::Pause),
        ),
        (entry(Work::Message, 1, Some(25_000)), RUN, Running::Claim),
        // Tried before this gateway's start: its own pass may be at it.
        (entry(Work::Turn, 1, Some(1_100_000)), RUN, Running::Claim),
        (entry(Work::Turn, 5, Some(700_000)), RUN, Running::GiveUp),
        (entry(Work::Turn, 5, Some(700_000)), kept, Running::GiveUp),
        (
            entry(Work::Turn, 1, Some(700_000)),
            RunFacts { held: true, ..RUN },
            Running::Keep(Why::Held),
        ),
        (
            entry(Work::Event, 0, None),
            RunFacts { held: true, ..kept },
            Running::Leave(Why::GatewayOnly),
        ),
        (
            entry(Work::Turn, 0, None),
            RunFacts { word_until: Some(NOW.plus_ms(5)), ..kept },
            Running::Wait(NOW.plus_ms(5), Why::Busy),
        ),
        (
            Entry { command: true, ..entry(Work::Turn, 0, None) },
            kept,
            Running::Leave(Why::GatewayOnly),
        ),
        (
            entry(Work::Turn, 1, Some(1_100_000)),
            RunFacts { gateway_since: at(1_000), ..RUN },
            Running::Wait(at(1_000).plus_ms(IN_HAND_MS), Why::InHand),
        ),
        // Never tried: perhaps under way.
        (entry(Work::Turn, 0, None), RUN, Running::Claim),
        (
            entry(Work::Message, 0, None),
            RunFacts { gateway_since: at(1_000), ..RUN },
            Running::Wait(at(1_000).plus_ms(IN_HAND_MS), Why::InHand),
        ),
        (entry(Work::Turn, 0, None), kept, Running::Claim),
        (
            asked(entry(Work::Message, 0, None)),
            RunFacts { gateway_since: at(1_000), ..RUN },
            Running::Claim,
        ),
        (entry(Work::Turn, 0, None), RunFacts { held: true, ..kept }, Running::Leave(Why::Held)),
        (entry(Work::Turn, 0, None), RunFacts { busy: true, ..kept }, Running::Leave(Why::Busy)),
        (entry(Work::Event, 0, None), kept, Running::Return),
        (
            entry(Work::Message, 0, None),
            RunFacts { notice_open: true, gateway_since: at(5), ..kept },
            Running::Wait(at(5).plus_ms(BEHIND_NOTICE_MS), Why::BehindNotice),
        ),
        (entry(Work::Message, 0, None), RunFacts { notice_open: true, ..kept }, Running::Claim),
        (
            entry(Work::Turn, 1, Some(1)),
            RunFacts { evidence: Evidence::Done, ..RUN },
            Running::Settle,
        ),
    ] {
        assert_eq!(while_running(&entry, &facts), step, "{entry:?} {facts:?}");
    }
}

#[test]
fn after_a_try() {
    let failed = |answered| Tried::Failed { reason: "r".to_owned(), answered };
    let retry = |retry_count, doubt| AfterTry::Retry { retry_count, reason: "r".to_owned(), doubt };
    let give_up = |retry_count| AfterTry::GiveUp { retry_count, reason: "r".to_owned() };
    for (retries, tried, then) in [
        (0, Tried::Done, AfterTry::Settle),
        (0, Tried::NotTaken("x".to_owned()), AfterTry::PutBack),
        (0, Tried::NoAnswer, AfterTry::AskAgain),
        (0, failed(true), retry(1, false)),
        (3, failed(false), retry(4, true)),
        (4, failed(true), give_up(5)),
        (1, Tried::Refused("r".to_owned()), give_up(2)),
    ] {
        assert_eq!(
            after_try(&entry(Work::Message, retries, None), tried.clone()),
            then,
            "{tried:?}"
        );
    }
}

#[test]
fn after_a_crash() {
    let hand = |work, hand| {
        let mut entry = entry(work, 1, None);
        entry.mark.hand = hand;
        entry
    };
    let last = |mark| Entry { retry_count: TRIES_MAX, ..hand(Work::Message, mark) };
    let copy = |answered| Some(Copy { answered, reason: "r".to_owned() });
    let doubt = |then: &AfterTry| matches!(then, AfterTry::Retry { doubt: true, .. });
    for (at, evidence, copy, want) in [
        (hand(Work::Message, Hand::Claimed), Evidence::None, None, "put back"),
        (hand(Work::Message, Hand::Sending), Evidence::Done, None, "settle"),
        (hand(Work::Message, Hand::Sending), Evidence::None, copy(Some(true)), "retry"),
        (hand(Work::Message, Hand::Sending), Evidence::None, copy(Some(false)), "doubt"),
        (hand(Work::Message, Hand::Sending), Evidence::None, copy(None), "doubt"),
        (hand(Work::Message, Hand::Sending), Evidence::None, None, "doubt"),
        (hand(Work::Message, Hand::Failed), Evidence::None, copy(Some(true)), "put back"),
        (hand(Work::Turn, Hand::Sending), Evidence::None, None, "put back"),
        (last(Hand::Failed), Evidence::None, None, "give up"),
        (last(Hand::None), Evidence::None, None, "give up"),
        (last(Hand::Failed), Evidence::Done, None, "settle"),
        (hand(Work::Turn, Hand::Sending), Evidence::Cut, None, "settle"),
    ] {
        let then = after_crash(&at, evidence, copy.clone());
        let got = match &then {
            AfterTry::Settle => "settle",
            AfterTry::PutBack => "put back",
            AfterTry::Retry { .. } if doubt(&then) => "doubt",
            AfterTry::Retry { .. } => "retry",
            AfterTry::AskAgain => "ask again",
            AfterTry::GiveUp { .. } => "give up",
        };
        assert_eq!(got, want, "{at:?} {evidence:?} {copy:?}");
    }
}

fn works() -> impl Strategy<Value = Work> {
    prop_oneof![Just(Work::Turn), Just(Work::Event), Just(Work::Message), Just(Work::RichMessage)]
}

proptest! {
    /// Whatever else is known: no turn starts in a held session, and nothing that has happened happens again.
    #[test]
    fn a_held_session_gets_no_turn_and_what_happened_stays(
        work in works(), retries in 0_u32..8, ago in proptest::option::of(0_i64..2_000_000),
        held: bool, busy: bool, notice_open: bool, kept: bool, happened: bool, asked: bool,
        up_ms in 0_i64..2_000_000,
    ) {
        let mut entry = entry(work, retries, ago);
        entry.mark.asked = asked;
        let evidence = if happened { Evidence::Done } else { Evidence::None };
        let start = at_start(&entry, &StartFacts { held, notice_open, evidence, ..START });
        let facts =
            RunFacts { held, busy, notice_open, kept, evidence, gateway_since: NOW.plus_ms(-up_ms), ..RUN };
        let run = while_running(&entry, &facts);
        if happened {
            prop_assert_eq!(start, AtStart::Settle);
            prop_assert!(busy || run == Running::Settle);
        }
        if held && matches!(work, Work::Turn | Work::Event) && !happened {
            let starts_turn = matches!(start, AtStart::MakeDue { .. });
            prop_assert!(!starts_turn && run != Running::Claim && run != Running::Return);
        }
        if let Running::Wait(until, _) = run {
            prop_assert!(until > NOW);
        }
    }

    /// The gateway's own limit is neither shortened nor passed.
    #[test]
    fn a_message_is_given_up_after_the_gateways_own_tries(answers in proptest::collection::vec(any::<bool>(), 5)) {
        let mut entry = entry(Work::Message, 0, None);
        for (index, answered) in answers.into_iter().enumerate() {
            match after_try(&entry, Tried::Failed { reason: String::new(), answered }) {
                AfterTry::Retry { retry_count, doubt, .. } => {
                    prop_assert!(index < 4);
                    entry.retry_count = retry_count;
                    entry.mark.doubt = doubt;
                }
                AfterTry::GiveUp { retry_count, .. } => {
                    prop_assert_eq!((index, retry_count), (4, TRIES_MAX));
                }
                then @ (AfterTry::Settle | AfterTry::PutBack | AfterTry::AskAgain) => {
                    prop_assert!(false, "{:?}", then);
                }
            }
        }
    }
}
