//! What holds for every sequence of reports, whoever sends them in whatever order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::canonical::arguments_sha256;
use super::checkpoint::{
    AskedFrom, Background, Cause, Checkpoint, Effect, GatewayRef, HoldStatus, NoticeStatus, Origin,
    Outcome, ReleasedBy, ResumeStage, Route, State,
};
use super::hold::{HoldPolicy, ReleasePolicy, Unattended, effect_of};
use super::ledger::{Answer, Ending, Ledger, Native, Policy, SessionRef, Word};
use super::reducer::{Intent, Report, Rules};
use super::resume::{Choice, Command, Confirm, Decision, Said};
use super::stamp::Stamp;

/// One thing that happens to a ledger. Few names, so that they meet often.
#[derive(Clone, Debug)]
enum Op {
    Message { key: String, text: Option<String> },
    TurnStart { key: String, run: String, origin: Origin, id: Option<String> },
    TurnEnd { key: String, run: String, success: bool, answered: bool },
    Intent { key: String, run: String, call: String, tool: String, arguments: Value },
    Result { key: String, run: String, call: String, outcome: Outcome, stopping: bool },
    BackgroundEnded { key: String, run: String, call: String },
    SessionEnded { key: String },
    SessionReplaced { key: String, reason: Option<String>, next: String },
    Recovery { key: String },
    InterruptAll { incident: String, cause: Cause },
    Release { key: String },
    Notice { key: String, status: NoticeStatus },
    Stopping { stopping: bool },
    Restart { wait_ms: i64 },
    Resume { key: String, run: String, choice: Choice, runs: bool },
    Lapse { key: String, run: String },
}

fn name(prefix: &'static str, count: u8) -> impl Strategy<Value = String> {
    (0..count).prop_map(move |number| format!("{prefix}{number}"))
}

fn one_of<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(values.to_vec())
}

fn argument() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}|[\\x00-\\x7f]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((one_of(&["a", "b", "secret", "ü"]), inner), 0..4)
                .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

fn op() -> impl Strategy<Value = Op> {
    const ORIGINS: [Origin; 5] =
        [Origin::User, Origin::Recovery, Origin::Heartbeat, Origin::Cron, Origin::System];
    const OUTCOMES: [Outcome; 4] =
        [Outcome::Ok, Outcome::Error, Outcome::Background, Outcome::Unknown];
    const NOTICES: [NoticeStatus; 4] =
        [NoticeStatus::Sent, NoticeStatus::Uncertain, NoticeStatus::Failed, NoticeStatus::NoRoute];
    const CAUSES: [Cause; 3] = [Cause::Sigterm, Cause::GatewayKilled, Cause::InProcessRestart];
    let key = || one_of(&["s0", "agent:a:cron:j", "agent:a:main"]).prop_map(str::to_owned);
    let run = || name("r", 4);
    let call = || name("c", 4);
    let tool = one_of(&["exec", "read", "process", "message"]).prop_map(str::to_owned);
    prop_oneof![
        2 => (key(), prop::option::of("[a-z ]{0,8}")).prop_map(|(key, text)| Op::Message { key, text }),
        4 => (key(), run(), one_of(&ORIGINS), prop::option::of(name("id", 2)))
            .prop_map(|(key, run, origin, id)| Op::TurnStart { key, run, origin, id }),
        3 => (key(), run(), any::<bool>(), any::<bool>())
            .prop_map(|(key, run, success, answered)| Op::TurnEnd { key, run, success, answered }),
        5 => (key(), run(), call(), tool, argument())
            .prop_map(|(key, run, call, tool, arguments)| Op::Intent { key, run, call, tool, arguments }),
        4 => (key(), run(), call(), one_of(&OUTCOMES), any::<bool>())
            .prop_map(|(key, run, call, outcome, stopping)| Op::Result { key, run, call, outcome, stopping }),
        1 => (key(), run(), call()).prop_map(|(key, run, call)| Op::BackgroundEnded { key, run, call }),
        1 => key().prop_map(|key| Op::SessionEnded { key }),
        1 => (key(), prop::option::of(one_of(&["idle", "daily", "compaction"])), name("id", 2))
            .prop_map(|(key, reason, next)| Op::SessionReplaced { key, reason: reason.map(str::to_owned), next }),
        1 => key().prop_map(|key| Op::Recovery { key }),
        2 => (name("i", 3), one_of(&CAUSES)).prop_map(|(incident, cause)| Op::InterruptAll { incident, cause }),
        1 => key().prop_map(|key| Op::Release { key }),
        1 => (key(), one_of(&NOTICES)).prop_map(|(key, status)| Op::Notice { key, status }),
        1 => any::<bool>().prop_map(|stopping| Op::Stopping { stopping }),
        1 => (0_i64..5_000).prop_map(|wait_ms| Op::Restart { wait_ms }),
        3 => (key(), run(), one_of(&[Choice::Ask, Choice::Yes, Choice::Done, Choice::Skip]), any::<bool>())
            .prop_map(|(key, run, choice, runs)| Op::Resume { key, run, choice, runs }),
        1 => (key(), run()).prop_map(|(key, run)| Op::Lapse { key, run }),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    (
        one_of(&[HoldPolicy::Effects, HoldPolicy::All, HoldPolicy::Off]),
        one_of(&[ReleasePolicy::AnyMessage, ReleasePolicy::Explicit]),
        one_of(&[Native::Ask, Native::Ride, Native::Native]),
        any::<bool>(),
        one_of(&[Unattended::Hold, Unattended::Native]),
    )
        .prop_map(|(hold, release, native, notify, unattended)| Policy {
            hold,
            release,
            native,
            max_age_ms: 20_000,
            notify,
            rules: Rules { redact: vec!["secret".to_owned()], read_only_tools: Vec::new() },
            unattended,
            owner: None,
        })
}

/// A ledger with the disk that its caller keeps: what it names is written, nothing else.
struct World {
    ledger: Ledger,
    disk: BTreeMap<String, Checkpoint>,
    policy: Policy,
    now: Stamp,
    runs: u32,
    /// Runs that a person confirmed a call for, and how many calls were let through in each.
    permits: BTreeMap<String, u32>,
    /// The run that was last started for each session on a person's word.
    started: BTreeMap<String, String>,
}

impl World {
    fn new(policy: Policy) -> Self {
        let now = Stamp::from_ms(1_795_362_624_362);
        let ledger = Ledger::new(policy.clone(), Vec::new(), "run0", now);
        Self {
            ledger,
            disk: BTreeMap::new(),
            policy,
            now,
            runs: 0,
            permits: BTreeMap::new(),
            started: BTreeMap::new(),
        }
    }

    fn write(&mut self, keys: impl IntoIterator<Item = String>) {
        for key in keys {
            let record = self.ledger.get(&key).expect("a record that is to be written").clone();
            self.disk.insert(key, record);
        }
    }

    fn in_its_run(&self, op: &Op) -> Op {
        let mut op = op.clone();
        match &mut op {
            Op::TurnStart { key, run, .. }
            | Op::TurnEnd { key, run, .. }
            | Op::Intent { key, run, .. }
            | Op::Result { key, run, .. }
            | Op::BackgroundEnded { key, run, .. } => *run = self.run_of(key, run),
            Op::Message { .. }
            | Op::SessionEnded { .. }
            | Op::SessionReplaced { .. }
            | Op::Recovery { .. }
            | Op::InterruptAll { .. }
            | Op::Release { .. }
            | Op::Notice { .. }
            | Op::Stopping { .. }
            | Op::Restart { .. }
            | Op::Resume { .. }
            | Op::Lapse { .. } => {}
        }
        op
    }

    /// One of the few names of runs stands for the one that a person's word started, where there is one.
    fn run_of(&self, key: &str, run: &str) -> String {
        let started = self.started.get(key).filter(|_| run == "r0");
        started.map_or_else(|| run.to_owned(), Clone::clone)
    }

    /// Does one thing; returns the answer where there is one.
    fn step(&mut self, op: &Op) -> Option<Answer> {
        self.now = self.now.plus_ms(7);
        let now = self.now;
        let session = |key: &str| SessionRef { key: key.to_owned(), ..SessionRef::default() };
        let route = Route {
            channel: "telegram".to_owned(),
            to: "1".to_owned(),
            account_id: None,
            thread_id: None,
        };
        let op = &self.in_its_run(op);
        let ledger = &mut self.ledger;
        let step = match op {
            Op::Message { key, text } => {
                ledger.user_message(now, &session(key), text.clone(), Some(route))
            }
            Op::TurnStart { key, run, origin, id } => {
                let session = SessionRef { id: id.clone(), ..session(key) };
                ledger.turn_started(now, &session, run, *origin, None, None)
            }
            Op::TurnEnd { key, run, success, answered } => {
                let end = Ending { success: *success, answered: *answered, told: true };
                ledger.turn_ended(now, &session(key), run, end)
            }
            Op::Intent { key, run, call, tool, arguments } => {
                let intent = Intent {
                    run_id: run.clone(),
                    tool_call_id: call.clone(),
                    name: tool.clone(),
                    // As the wire gives it: null is none.
                    arguments: Some(arguments.clone()).filter(|value| !value.is_null()),
                    too_large: None,
                };
                ledger.tool_intent(now, &session(key), intent)
            }
            Op::Result { key, run, call, outcome, stopping } => {
                let report = Report::ToolFinished {
                    run_id: run.clone(),
                    tool_call_id: call.clone(),
                    outcome: *outcome,
                    background: (*outcome == Outcome::Background).then(Background::default),
                    stopping: *stopping,
                };
                ledger.report(now, &session(key), &report)
            }
            Op::BackgroundEnded { key, run, call } => {
                let report =
                    Report::BackgroundEnded { run_id: run.clone(), tool_call_id: call.clone() };
                ledger.report(now, &session(key), &report)
            }
            Op::SessionEnded { key } => ledger.report(now, &session(key), &Report::SessionEnded),
            Op::SessionReplaced { key, reason, next } => {
                ledger.session_ended(now, &session(key), reason.as_deref(), Some(next))
            }
            Op::Recovery { key } => ledger.recovery_turn(now, &session(key)),
            Op::InterruptAll { incident, cause } => {
                self.runs += 1;
                let incident = format!("{incident}-{}", self.runs);
                let changed = ledger.interrupt_all(now, &incident, *cause, "why".to_owned());
                self.write(changed);
                return None;
            }
            Op::Release { key } => {
                let released = ledger.release(now, key, ReleasedBy::Shell) == Some(true);
                self.write(released.then(|| key.clone()));
                return None;
            }
            Op::Notice { key, status } => {
                let id = ledger.get(key)?.interruption.as_ref()?.id.clone();
                let changed = ledger.set_notice(now, key, &id, *status);
                self.write(changed.then(|| key.clone()));
                return None;
            }
            Op::Stopping { stopping } => {
                ledger.set_stopping(*stopping);
                return None;
            }
            Op::Restart { wait_ms } => {
                self.restart(*wait_ms);
                return None;
            }
            Op::Resume { key, run, choice, runs } => {
                // A person's word names a run that there never was before.
                self.runs += 1;
                let word = Word {
                    said: Said {
                        choice: *choice,
                        code: None,
                        from: AskedFrom::Shell,
                        confirm: Confirm::Unknown,
                        command: if *runs { Command::Runs(7) } else { Command::NotFound },
                    },
                    run_id: format!("{run}-{}", self.runs),
                };
                let resumed = ledger.resume(now, key, &word);
                if resumed.decision == Decision::Rerun {
                    self.permits.insert(word.run_id.clone(), 0);
                }
                if resumed.starts {
                    self.started.insert(key.clone(), word.run_id);
                }
                self.write(resumed.changed.then(|| key.clone()));
                return None;
            }
            Op::Lapse { key, run } => {
                let run = self.run_of(key, run);
                let changed = self.ledger.resume_lapsed(now, key, &run);
                self.write(changed.then(|| key.clone()));
                return None;
            }
        };
        self.write(step.persist);
        Some(step.answer)
    }

    /// Everything in memory is lost; the disk is read as a start reads it.
    fn restart(&mut self, wait_ms: i64) {
        self.now = self.now.plus_ms(wait_ms);
        let incident = format!("run{}", self.runs);
        self.runs += 1;
        let records = self
            .disk
            .values()
            .map(|record| serde_json::from_slice(&serde_json::to_vec(record).unwrap()).unwrap())
            .collect();
        let run = format!("run{}", self.runs);
        self.ledger = Ledger::new(self.policy.clone(), records, &run, self.now);
        let detail = "killed".to_owned();
        let changed =
            self.ledger.start(self.now, &incident, Cause::TideoverKilled, detail, self.now);
        self.write(changed);
    }
}

/// A record without what is noted in memory only until the next change.
fn essence(record: &Checkpoint) -> Checkpoint {
    Checkpoint {
        gateway: GatewayRef::default(),
        evidence: super::checkpoint::Evidence::Plugin,
        ..record.clone()
    }
}

/// What an op asks a held session to run.
fn asked_effect(op: &Op) -> Option<(&str, Effect)> {
    match op {
        Op::Intent { key, tool, arguments, .. } => {
            Some((key, effect_of(tool, Some(arguments), &[])))
        }
        Op::Message { .. }
        | Op::TurnStart { .. }
        | Op::TurnEnd { .. }
        | Op::Result { .. }
        | Op::BackgroundEnded { .. }
        | Op::SessionEnded { .. }
        | Op::SessionReplaced { .. }
        | Op::Recovery { .. }
        | Op::InterruptAll { .. }
        | Op::Release { .. }
        | Op::Notice { .. }
        | Op::Stopping { .. }
        | Op::Restart { .. }
        | Op::Resume { .. }
        | Op::Lapse { .. } => None,
    }
}

/// Whether an op may lift a hold under a policy.
fn may_release(op: &Op, policy: &Policy) -> bool {
    let by_message = policy.release == ReleasePolicy::AnyMessage;
    match op {
        Op::Release { .. } | Op::SessionEnded { .. } => true,
        Op::Message { .. } | Op::TurnStart { origin: Origin::User, .. } => by_message,
        // Only by being too old to act on.
        Op::Restart { .. } => true,
        // A person's word, or the answer of the call that they asked for.
        Op::Resume { .. } | Op::Result { .. } => true,
        Op::Lapse { .. }
        | Op::TurnStart { .. }
        | Op::TurnEnd { .. }
        | Op::Intent { .. }
        | Op::BackgroundEnded { .. }
        | Op::SessionReplaced { .. }
        | Op::Recovery { .. }
        | Op::InterruptAll { .. }
        | Op::Notice { .. }
        | Op::Stopping { .. } => false,
    }
}

/// The same with one session, one tool and two runs, so that a person's word and its call meet often.
fn narrow_op() -> impl Strategy<Value = Op> {
    let key = || "s0".to_owned();
    let run = || one_of(&["r0", "r1"]).prop_map(str::to_owned);
    let call = || name("c", 3);
    let arguments = || one_of(&[1, 2]).prop_map(|number| json!({ "a": number }));
    prop_oneof![
        2 => run().prop_map(move |run| Op::TurnStart { key: key(), run, origin: Origin::User, id: None }),
        1 => (run(), any::<bool>())
            .prop_map(move |(run, success)| Op::TurnEnd { key: key(), run, success, answered: true }),
        6 => (run(), call(), one_of(&["exec", "exec", "write"]), arguments()).prop_map(
            move |(run, call, tool, arguments)| Op::Intent { key: key(), run, call, tool: tool.to_owned(), arguments }
        ),
        2 => (run(), call()).prop_map(
            move |(run, call)| Op::Result { key: key(), run, call, outcome: Outcome::Ok, stopping: false }
        ),
        3 => (1_i64..40_000).prop_map(|wait_ms| Op::Restart { wait_ms }),
        4 => run().prop_map(move |run| Op::Resume { key: key(), run, choice: Choice::Yes, runs: false }),
        1 => Just(Op::Message { key: key(), text: None }),
        1 => run().prop_map(move |run| Op::Lapse { key: key(), run }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_keeps_the_promises(policy in policy(), ops in prop::collection::vec(op(), 1..60)) {
        keeps_the_promises(&policy, &ops)?;
    }

    #[test]
    fn every_sequence_about_a_resume_keeps_them(
        policy in policy(), ops in prop::collection::vec(narrow_op(), 1..60)
    ) {
        let policy = Policy { max_age_ms: i64::MAX, ..policy };
        keeps_the_promises(&policy, &ops)?;
    }
}

fn keeps_the_promises(policy: &Policy, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut world = World::new(policy.clone());
    for op in ops {
        let before: BTreeMap<String, Checkpoint> =
            world.ledger.all().map(|record| (record.session_key.clone(), record.clone())).collect();
        let (op, played) = (&world.in_its_run(op), op);
        let answer = world.step(played);

        if let (Some((key, effect)), Some(answer)) = (asked_effect(op), &answer) {
            let held = before.get(key).is_some_and(Checkpoint::is_held);
            let stopped = match policy.hold {
                HoldPolicy::Effects => effect == Effect::Unknown,
                HoldPolicy::All => true,
                HoldPolicy::Off => false,
            };
            let blocked = matches!(answer, Answer::Block { .. });
            let permitted = matches!(answer, Answer::Permit { .. });
            let Op::Intent { run, .. } = op else { unreachable!() };
            let of_resume = before
                .get(key)
                .and_then(|record| record.interruption.as_ref()?.resume.as_ref())
                .is_some_and(|resume| resume.run_id == *run);
            // In the run of a person's word more is stopped, and one call goes through.
            prop_assert!(of_resume || blocked == (held && stopped), "{:?}", op);
            prop_assert!(of_resume || !permitted, "{:?}", op);
            prop_assert!(blocked || permitted || !(held && stopped), "{:?}", op);
        }

        for record in world.ledger.all() {
            let key = &record.session_key;
            let was = before.get(key);
            let fresh = Checkpoint::new(key, record.updated_at);
            let was = was.unwrap_or(&fresh);

            // A change is counted and written; what is not written did not change.
            prop_assert!(record.seq >= was.seq);
            prop_assert_eq!(record.seq > was.seq, essence(record) != essence(was), "{:?}", op);
            if let Some(disk) = world.disk.get(key) {
                prop_assert_eq!(essence(disk), essence(record), "not written: {:?}", op);
            } else {
                prop_assert_eq!(record.seq, 0, "never written: {:?}", op);
            }

            // An incident stays what it was until another one takes its place.
            if let (Some(old), Some(new)) = (&was.interruption, &record.interruption) {
                // That its session is replaced takes nothing away, and is told of once.
                if let (Some(was), Some(is)) = (&old.orphaned, &new.orphaned)
                    && was.at == is.at
                    && old.at == new.at
                {
                    prop_assert_eq!((&old.id, &was.session_id), (&new.id, &is.session_id));
                }
                let newly_orphaned = old.orphaned.is_none()
                    && new.orphaned.as_ref().is_some_and(|is| is.interruption_id == old.id);
                if newly_orphaned {
                    prop_assert_eq!((&old.call, &old.task), (&new.call, &new.task));
                    let waited = old.status == HoldStatus::Held || !old.model_told;
                    prop_assert!(new.id == old.id || waited, "told of what was dealt with");
                }
                if old.id == new.id && old.at == new.at {
                    let permitted = matches!(answer, Some(Answer::Permit { .. }));
                    let ends = matches!(op, Op::Result { .. } | Op::BackgroundEnded { .. });
                    prop_assert!(permitted || ends || old.call == new.call, "{:?}", op);
                    prop_assert!(new.settled.is_some() || old.settled.is_none());
                    prop_assert_eq!((old.cause, &old.task), (new.cause, &new.task));
                    prop_assert!(new.model_told || !old.model_told);
                    if old.status == HoldStatus::Held && new.status != HoldStatus::Held {
                        prop_assert!(may_release(op, policy), "{:?} lifted a hold", op);
                    }
                }
            } else {
                prop_assert!(was.interruption.is_none(), "an incident was forgotten: {:?}", op);
            }

            // What is read back is what was written, unknown fields included.
            let mut whole = record.clone();
            whole.extra.insert("new".to_owned(), json!({ "x": [1, null] }));
            if let Some(call) = &mut whole.last_tool_call {
                call.extra.insert("new".to_owned(), json!("kept"));
            }
            let text = serde_json::to_string(&whole).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Checkpoint>(&text).unwrap(), &whole);
            prop_assert!(!text.contains("\"secret\":"), "a redacted key was kept");
        }

        if let (Op::Intent { key, run, tool, .. }, Some(Answer::Permit { arguments })) =
            (op, &answer)
        {
            // One confirmation, one run; and what runs is what was cut.
            let spent = world.permits.get_mut(run).expect("a person's word");
            *spent += 1;
            prop_assert_eq!(*spent, 1, "a permit was spent twice");
            let cut = before[key].interruption.as_ref().unwrap().call.as_ref().unwrap();
            prop_assert_eq!(&arguments_sha256(arguments), &cut.arguments_sha256);
            prop_assert_eq!(tool, &cut.name);
            let disk = world.disk[key].interruption.as_ref().unwrap();
            prop_assert_eq!(disk.resume.as_ref().unwrap().stage, ResumeStage::Spent);
            prop_assert_eq!(disk.call.as_ref().unwrap().attempt, cut.attempt + 1);
        }

        match op {
            Op::Intent { key, run, call, tool, .. } if answer == Some(Answer::Allow) => {
                let record = world.ledger.get(key).unwrap();
                let last = record.last_tool_call.as_ref().unwrap();
                prop_assert_eq!((&last.tool_call_id, &last.run_id, &last.name), (call, run, tool));
                prop_assert!(last.is_open() && record.in_flight());
                prop_assert_eq!(record.state, State::ToolRunning);
            }
            Op::TurnEnd { key, run, success: true, .. } => {
                let was = before.get(key).and_then(|record| record.turn.as_ref());
                if was.is_some_and(|turn| turn.run_id == *run) {
                    let record = world.ledger.get(key).unwrap();
                    let waits = record.state == State::Background || record.awaits_resume();
                    prop_assert!(!record.in_flight() || waits);
                    prop_assert!(record.turn.is_none());
                }
            }
            Op::InterruptAll { .. } | Op::Restart { .. } => {
                for record in world.ledger.all() {
                    let cut = before.get(&record.session_key).is_some_and(Checkpoint::in_flight);
                    prop_assert!(!cut || record.interruption.is_some());
                    // A held session keeps its incident, also when a command of it is cut later.
                    let repeated = record.interruption.as_ref().is_some_and(|cut| cut.repeated > 0);
                    prop_assert!(!record.in_flight() || repeated, "cut, and still in flight");
                }
            }
            Op::Message { .. }
            | Op::TurnStart { .. }
            | Op::TurnEnd { .. }
            | Op::Intent { .. }
            | Op::Result { .. }
            | Op::BackgroundEnded { .. }
            | Op::SessionEnded { .. }
            | Op::SessionReplaced { .. }
            | Op::Recovery { .. }
            | Op::Release { .. }
            | Op::Notice { .. }
            | Op::Resume { .. }
            | Op::Lapse { .. }
            | Op::Stopping { .. } => {}
        }
    }
    Ok(())
}
