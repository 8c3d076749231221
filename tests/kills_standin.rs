//! `kill -9` at random moments of a turn: of the gateway, of tideover, of both. Nothing acknowledged is lost,
//! nothing unreadable is left, nobody is told twice.
//!
//! `TIDEOVER_SEED` repeats a run, `TIDEOVER_KILLS` sets how many kills it makes.

#![cfg(test)]

mod fast;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use fast::{Link, Scratch, until, until_gone};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const KILLS: u64 = 520;
const LANES: u64 = 4;
const SESSIONS: &str = "3";
/// Latest moment of a kill after the start, in milliseconds.
const MOMENT_MS_MAX: u64 = 90;

/// A small generator: the same seed gives the same kills.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Gateway,
    Tideover,
    Both,
}

impl Victim {
    fn causes(self) -> &'static [&'static str] {
        match self {
            Self::Gateway => &["gateway_killed"],
            Self::Tideover => &["tideover_killed"],
            Self::Both => &["gateway_killed", "tideover_killed"],
        }
    }
}

/// What must hold, as the gateway's own log of the wire tells it.
#[derive(Default)]
struct Expected {
    /// Every call that was announced, by session, in order.
    sent: HashMap<String, Vec<String>>,
    /// How many of them, counted from the first, must be known.
    acked: HashMap<String, usize>,
    /// Sessions that were surely cut, and by which kills.
    cut: BTreeMap<String, BTreeSet<Victim>>,
}

impl Expected {
    /// Reads what the stand-in logged until it was killed.
    fn learn(&mut self, scratch: &Scratch, victim: Victim) {
        let path = scratch.stand_in_dir().join("wire");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(&path);
        // By session: whether a call of a turn under way is acknowledged.
        let mut open: BTreeMap<String, bool> = BTreeMap::new();
        for line in text.lines() {
            // The last line may be half written.
            let (mark, rest) = line.split_at(line.len().min(2));
            let Ok(value) = serde_json::from_str::<Value>(rest) else { continue };
            let request = if mark == "> " { &value } else { &value["request"] };
            let Some(key) = request["session"]["key"].as_str().map(str::to_owned) else { continue };
            let call = request["tool_call_id"].as_str().unwrap_or_default().to_owned();
            match (mark, request["type"].as_str().unwrap()) {
                _ if request["run_id"] == "probe" => {}
                ("> ", "tool_intent") => self.sent.entry(key).or_default().push(call),
                ("> ", "turn_end" | "turn_start") => {
                    open.insert(key, false);
                }
                ("< ", "tool_intent") => {
                    assert_eq!(value["result"]["durable"], true, "{value}");
                    assert_eq!(value["result"]["allow"], true, "{value}");
                    self.acked.insert(key.clone(), self.sent[&key].len());
                    open.insert(key, true);
                }
                _ => {}
            }
        }
        for (key, surely_open) in open {
            if surely_open {
                self.cut.insert(key, BTreeSet::from([victim]));
            } else if let Some(victims) = self.cut.get_mut(&key) {
                victims.insert(victim);
            }
        }
    }

    /// The place of a call among those announced, counted from one; none for one of the run under way.
    fn place(&self, key: &str, call: &Value) -> Option<usize> {
        let id = &call["tool_call_id"];
        assert_eq!(call["arguments"], json!({ "command": "./deploy.sh", "order": id }), "{key}");
        self.sent[key].iter().rposition(|sent| id == sent.as_str()).map(|at| at + 1)
    }

    /// With `under_way`, the gateway may already have made calls that are not learned yet.
    fn check_calls(&self, records: &[Value], under_way: bool, why: &str) {
        for (key, acked) in &self.acked {
            let call = &find(records, key, why)["last_tool_call"];
            match self.place(key, call) {
                Some(known) => {
                    assert!(known >= *acked, "{key}: call {acked} is lost, not {known}; {why}");
                }
                None => assert!(under_way, "{key}: a call that was never made: {call}; {why}"),
            }
        }
    }

    fn check_cuts(&self, records: &[Value], why: &str) {
        for (key, victims) in &self.cut {
            let cut = &find(records, key, why)["interruption"];
            let causes: Vec<&str> =
                victims.iter().flat_map(|victim| victim.causes()).copied().collect();
            let cause =
                cut["cause"].as_str().unwrap_or_else(|| panic!("{key} is not marked; {why}"));
            assert!(causes.contains(&cause), "{key}: {cause}, not {causes:?}; {why}");
            assert!(cut["call"].is_object(), "{key}: {cut}; {why}");
        }
    }
}

fn find<'a>(records: &'a [Value], key: &str, why: &str) -> &'a Value {
    let found = records.iter().find(|record| record["session_key"] == key);
    found.unwrap_or_else(|| panic!("{key} has no record; {why}"))
}

/// The gateway that a tideover has started, if it has.
fn child_of(pid: i32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// The end of a log, which says why.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn kill_9(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

fn lane(seed: u64, kills: u64) {
    let scratch = Scratch::new();
    let mut random = Random(seed);
    let mut expected = Expected::default();
    for round in 0..kills {
        let start = Instant::now();
        let mut running = scratch.launch(scratch.run_stand_in().env("STANDIN_BUSY", SESSIONS));
        let early = random.below(4) == 0;
        let moment = Duration::from_micros(random.below(MOMENT_MS_MAX * 1_000));
        let victim = [Victim::Gateway, Victim::Tideover, Victim::Both]
            [usize::try_from(random.below(3)).unwrap()];
        let gateway_first = random.below(2) == 0;
        let why = format!("seed {seed}, kill {round} of {victim:?}");
        if !early {
            // What the new run makes of the cuts before.
            let mut link = Link::open(&scratch.socket());
            link.hello_cli();
            let sessions = link.done(json!({ "type": "sessions" }))["sessions"].clone();
            let records = sessions.as_array().unwrap();
            expected.check_calls(records, true, &why);
            expected.check_cuts(records, &why);
        }
        let due = if early { start + moment } else { Instant::now() + moment };
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let tideover = running.pid();
        let gateway = child_of(tideover);
        let victim = match gateway {
            Some(gateway) => {
                match (victim, gateway_first) {
                    (Victim::Gateway, _) => kill_9(gateway),
                    (Victim::Tideover, _) => kill_9(tideover),
                    (Victim::Both, true) => [gateway, tideover].into_iter().for_each(kill_9),
                    (Victim::Both, false) => [tideover, gateway].into_iter().for_each(kill_9),
                }
                victim
            }
            None => {
                kill_9(tideover);
                Victim::Tideover
            }
        };
        let status = running.wait();
        assert_eq!(status.signal(), Some(9), "{status:?}; {why}\n{}", tail(&running.log()));
        gateway.into_iter().for_each(until_gone);
        expected.learn(&scratch, victim);
        // Whole files only: this panics at one that does not parse.
        let records = scratch.records();
        expected.check_calls(&records, false, &why);
        let set_aside = std::fs::read_dir(scratch.quarantine()).map_or(0, Iterator::count);
        assert_eq!(set_aside, 0, "{why}");
    }
    last_run(&scratch, &expected, &format!("seed {seed}, the last run"));
}

/// One more run in peace: everybody is told what is still to be told, and nobody twice.
fn last_run(scratch: &Scratch, expected: &Expected, why: &str) {
    let running = scratch.start();
    let mut plugin = running.plugin();
    let port: u16 = {
        let mut link = running.link();
        link.send_text("!port\n");
        serde_json::from_value(link.read().unwrap()).unwrap()
    };
    plugin.done(json!({ "type": "gateway_start", "incarnation": "i", "port": port }));
    let status = until("everybody to be told", || {
        Some(scratch.status()).filter(|status| status["phase"] == "handed off")
    });
    assert_eq!(status["degraded"], json!({}), "{why}");
    // What it knows, its files tell a moment later.
    let records = until("every note of it", || {
        let told = |record: &Value| {
            let cut = &record["interruption"];
            cut.is_null() || cut["notice"] == "sent"
        };
        Some(scratch.records()).filter(|records| records.iter().all(told))
    });
    expected.check_calls(&records, false, why);
    expected.check_cuts(&records, why);
    check_notices(scratch, why);
    running.ends_with(0);
    assert!(!scratch.log().contains("panicked"), "{}", scratch.log());
}

fn check_notices(scratch: &Scratch, why: &str) {
    let text = std::fs::read_to_string(scratch.stand_in_dir().join("sends")).unwrap_or_default();
    let sends: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut texts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for send in &sends {
        let key = send["idempotencyKey"].as_str().unwrap();
        texts.entry(key).or_default().push(send["message"].as_str().unwrap());
    }
    let mut told: BTreeMap<String, &str> = BTreeMap::new();
    for (key, texts) in &texts {
        let file = scratch.state().join(format!("tideover/outbox/{key}.json"));
        let entry: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for session in entry["sessions"].as_array().unwrap() {
            let before = told.insert(session.to_string(), key);
            assert_eq!(before, None, "{session} was told of by two notices; {why}");
        }
        for text in &texts[1..] {
            assert!(text.starts_with("(Possibly repeated.)"), "{key}: {texts:?}; {why}");
        }
    }
    eprintln!(
        "{} notices for {} interruptions, {} with repeats",
        texts.len(),
        told.len(),
        sends.len()
    );
}

#[test]
fn no_kill_loses_doubles_or_breaks_anything() {
    let seed = number("TIDEOVER_SEED").unwrap_or_else(|| u64::try_from(fast::now_us()).unwrap());
    let kills = number("TIDEOVER_KILLS").unwrap_or(KILLS);
    eprintln!("TIDEOVER_SEED={seed} TIDEOVER_KILLS={kills}");
    let before = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..LANES {
            let share = kills / LANES + u64::from(number < kills % LANES);
            scope.spawn(move || lane(seed.wrapping_add(number), share));
        }
    });
    eprintln!("MEASURED: {kills} kills in {:?}", before.elapsed());
}

/// Kills at the edges that chance seldom hits: between a delivered notice and the note of it.
#[test]
fn a_notice_that_was_delivered_before_a_kill_is_settled_after_it() {
    let scratch = Scratch::new();
    let running = scratch.start();
    running.plugin().turn("a", "r");
    running.ends_with(1);
    let running = scratch.start();
    let mut plugin = running.plugin();
    let port = {
        let mut link = running.link();
        link.send_text("!port\n");
        link.read().unwrap()
    };
    plugin.done(json!({ "type": "gateway_start", "incarnation": "i", "port": port }));
    let is_sent =
        || Some(scratch.record("a")?["interruption"]["notice"] == "sent").filter(|is| *is);
    until("the notice", is_sent);
    running.ends_with(0);
    // The checkpoint as it was before the outbox entry was settled.
    let path = scratch.checkpoints().join("a.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"notice\": \"sent\"", "\"notice\": \"pending\"")).unwrap();
    let running = scratch.start();
    running.plugin().done(json!({ "type": "gateway_start", "incarnation": "i", "port": port }));
    until("the hand-off", || (scratch.status()["phase"] == "handed off").then_some(()));
    until("the note", is_sent);
    let sends = std::fs::read_to_string(scratch.stand_in_dir().join("sends")).unwrap();
    assert_eq!(sends.lines().count(), 1, "{sends}");
    running.ends_with(0);
}
