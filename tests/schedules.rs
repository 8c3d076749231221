//! Random schedules of channel failures, restarts and kills on the real gateways behind tideover.
//!
//! Whatever happens: every notice arrives or ends visibly failed, and so does every queued message where the gateway
//! keeps its queue as files; what the channel has answered is not sent again, and what may be a repeat says so; no
//! tool has its effect twice for one word; what a newer gateway gives up by itself is reported.
//!
//! `TIDEOVER_SCHEDULES=50` makes the long form, `TIDEOVER_SEED` replays a run, `TIDEOVER_SCHEDULE` one of its
//! schedules.

mod support;

use std::fs::File;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use support::incident::{
    behind_tideover, boots_were_long_ago, is_native_turn, is_notice, tideover,
};
use support::queue::{DELIVERY, SESSION, continuation, entries, put, reply, shelf};
use support::random::Random;
use support::{Outcome, rig};
use tideover::drill::gateway_proc::Target;
use tideover::drill::mock_model::{ModelRequest, Script, Step};
use tideover::drill::mock_telegram::{Failure, SentMessage};
use tideover::drill::processes::Signal;
use tideover::drill::progress::until;
use tideover::drill::rig::{Rig, RigOptions, TURN_MAX};
use tideover::drill::work::Work;

const MARK: &str = "(Possibly repeated.)";
/// Every way in which a channel can fail.
const FAILURES: [Failure; 8] = [
    Failure::Status(500),
    Failure::AnswerLost,
    Failure::Status(403),
    Failure::Refuse,
    Failure::Hang,
    Failure::Status(429),
    Failure::Hold,
    Failure::Status(401),
];
/// Schedules on one state.
const PER_STATE: usize = 4;
/// The first of the users; each schedule on one state has two of its own.
const CHATS: i64 = 5_000;
/// Longest pause before a kill.
const PAUSE_MS_MAX: u64 = 2_500;
/// What a service manager's `TimeoutStopSec=` is here.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Longest that a killed process may take to be gone.
const END_MAX: Duration = Duration::from_secs(20);
/// Longest that a further try of a notice may take while the channel fails.
const TRY_MAX: Duration = Duration::from_secs(90);
/// Longest from the channel's return to the end of everything.
const SETTLE_MAX: Duration = Duration::from_secs(240);
/// An entry that pauses longer than this is asked for by hand.
const PAUSE_MAX: Duration = Duration::from_secs(40);
/// How long before a kill an answer may have come that is in no record yet.
const RECORDED_MAX: Duration = Duration::from_secs(5);
/// Most requests that the gateway's own client makes of one message when the answers are lost, and how far they are
/// apart.
const CLIENT_TRIES: usize = 3;
const CLIENT_PAUSE_MAX: Duration = Duration::from_secs(15);

/// How all of it goes down.
#[derive(Debug, Clone, Copy)]
enum Down {
    Stop,
    Gateway,
    Tideover,
    Both,
}

const DOWNS: [Down; 4] = [Down::Stop, Down::Gateway, Down::Tideover, Down::Both];

/// One step of a schedule. Chats are counted from 0.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// A user writes and has the answer.
    Turn(usize),
    /// A user writes; the answer comes when it comes.
    Say(usize),
    /// A user asks for a job, whose tool is held in the middle of it.
    Job(usize),
    /// The channel fails so from now on, or no longer.
    Channel(Failure),
    Down(Down),
    /// While all is down: a reply in the gateway's queue, tried so often.
    Reply(usize, u64),
    /// While all is down: a turn in the gateway's queue.
    Continuation(usize),
    Boot,
    /// A try of a notice has begun.
    Begun,
    /// A try of a notice has ended.
    Tried,
    Pause(u64),
}

/// The steps of a schedule.
fn plan(number: usize, files: bool, random: &mut Random) -> Vec<Act> {
    let two = random.one_in(2);
    let other = usize::from(two);
    let mut acts = vec![Act::Turn(0)];
    acts.extend(two.then_some(Act::Turn(1)));
    acts.push(Act::Job(0));
    acts.extend((two && random.one_in(2)).then_some(Act::Job(1)));
    let failure = FAILURES[number % FAILURES.len()];
    let when = random.below(4);
    acts.extend((when == 0).then_some(Act::Channel(failure)));
    acts.push(Act::Down(random.pick(&DOWNS)));
    acts.extend((when == 1 || when == 2).then_some(Act::Channel(failure)));
    let mut continued = [false; 2];
    if files {
        for chat in [0, other] {
            acts.extend(random.one_in(2).then(|| Act::Reply(chat, random.below(2))));
            if random.one_in(3) && !continued[chat] {
                continued[chat] = true;
                acts.push(Act::Continuation(chat));
            }
        }
    }
    acts.push(Act::Boot);
    if when == 3 {
        acts.extend([Act::Pause(random.below(PAUSE_MS_MAX)), Act::Channel(failure)]);
    }
    // What hangs does not end.
    let waits = matches!(failure, Failure::Hang | Failure::Hold);
    acts.push(if waits || random.one_in(3) { Act::Begun } else { Act::Tried });
    // Beside a turn that its queue begins the gateway might take a message into that turn.
    let speaker = [other, 0].into_iter().find(|chat| !continued[*chat]);
    acts.extend(speaker.filter(|_| random.one_in(2)).map(Act::Say));
    let later = random.pick(&FAILURES);
    if later != Failure::Hang && random.one_in(3) {
        acts.push(Act::Channel(later));
    }
    acts.extend([Act::Pause(random.below(PAUSE_MS_MAX)), Act::Down(random.pick(&DOWNS))]);
    // What hangs does so for ten minutes, unless its gateway ends.
    let next = if random.one_in(2) { Failure::None } else { random.pick(&FAILURES) };
    if next != Failure::Hang && (failure == Failure::Hang || random.one_in(2)) {
        acts.push(Act::Channel(next));
    } else if failure == Failure::Hang {
        acts.push(Act::Channel(Failure::None));
    }
    acts.extend((files && random.one_in(3)).then_some(Act::Reply(other, 1)));
    acts.push(Act::Boot);
    acts.extend(random.one_in(2).then_some(Act::Begun));
    acts.extend(speaker.filter(|_| random.one_in(if files { 4 } else { 2 })).map(Act::Say));
    acts.push(Act::Channel(Failure::None));
    // And in the middle of what comes then: an answer that was seen may be in no record yet.
    if random.one_in(2) {
        let pause = Act::Pause(random.below(PAUSE_MS_MAX));
        acts.extend([pause, Act::Down(random.pick(&DOWNS)), Act::Boot]);
    }
    acts
}

/// What a user is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The answer to a plain message, the gateway's own affair at first.
    Answer,
    /// A reply that lay in the queue.
    Reply,
    /// The answer of a turn that lay in the queue.
    Continuation,
}

#[derive(Debug)]
struct Expected {
    kind: Kind,
    chat: i64,
    /// Stands in the message, and in nothing else.
    token: String,
    /// What begins the turn that gives the answer.
    asked: String,
    work: Option<Work>,
    /// How often all had gone down when it was asked for.
    run: usize,
    /// Whether it was seen in a queue of files, with everything down.
    queued: bool,
}

/// A message that the channel took.
#[derive(Debug, Clone)]
struct Taken {
    at: SystemTime,
    marked: bool,
    answered: bool,
    /// How often all had gone down before.
    run: usize,
}

/// A schedule that is being played.
struct Play<'a> {
    rig: &'a mut Rig,
    tag: String,
    files: bool,
    chats: [i64; 2],
    count: usize,
    expected: Vec<Expected>,
    jobs: Vec<(i64, Work)>,
    forbidden: Work,
    downs: Vec<SystemTime>,
    failure: Failure,
    blocked: bool,
    tries_at_boot: u64,
}

impl<'a> Play<'a> {
    fn new(rig: &'a mut Rig, number: usize, place: usize) -> Outcome<Self> {
        let first = CHATS + 2 * i64::try_from(place)?;
        let forbidden = rig.work(&format!("f{number}"), first)?;
        forbidden.open_gate()?;
        rig.model.clear();
        Ok(Self {
            files: is_old(rig),
            rig,
            tag: format!("k{number}"),
            chats: [first, first + 1],
            count: 0,
            expected: Vec::new(),
            jobs: Vec::new(),
            forbidden,
            downs: Vec::new(),
            failure: Failure::None,
            blocked: false,
            tries_at_boot: 0,
        })
    }

    /// A word that stands nowhere else.
    fn token(&mut self) -> String {
        self.count += 1;
        format!("{}n{}.", self.tag, self.count)
    }

    async fn act(&mut self, act: Act) -> Outcome {
        match act {
            Act::Turn(chat) => {
                let at = self.says(chat, Kind::Answer);
                self.rig.send_user(self.expected[at].chat, &self.expected[at].asked);
                self.arrived(at).await?;
            }
            Act::Say(chat) => {
                let at = self.says(chat, Kind::Answer);
                self.rig.send_user(self.expected[at].chat, &self.expected[at].asked);
            }
            Act::Job(chat) => self.job(self.chats[chat]).await?,
            Act::Channel(failure) => {
                self.failure = failure;
                self.blocked |= failure == Failure::Status(403);
                self.rig.telegram.set_failure(failure);
            }
            Act::Down(down) => self.down(down).await?,
            Act::Reply(chat, tries) => self.put_reply(self.chats[chat], tries)?,
            Act::Continuation(chat) => {
                let at = self.says(chat, Kind::Continuation);
                let Expected { chat, asked, .. } = &self.expected[at];
                put(self.rig, SESSION, &continuation(self.rig, *chat, asked))?;
            }
            Act::Boot => {
                self.tries_at_boot = self.tries();
                self.rig.boot().await?;
            }
            Act::Begun => self.tried(false).await?,
            Act::Tried => self.tried(true).await?,
            Act::Pause(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
        Ok(())
    }

    /// Has the model answer something that a user, or the queue, will say. Returns its place.
    fn says(&mut self, chat: usize, kind: Kind) -> usize {
        let chat = self.chats[chat];
        let (asked, token) = (format!("say {}", self.token()), self.token());
        let work = self.rig.work(&format!("w{}n{}", self.tag, self.count), chat).ok();
        let work = work.filter(|_| kind == Kind::Continuation);
        let run = self.downs.len();
        let queued = false;
        self.expected.push(Expected { kind, chat, token, asked, work, run, queued });
        self.script(self.expected.len() - 1);
        self.expected.len() - 1
    }

    fn script(&self, at: usize) {
        let Expected { token, asked, work, kind, .. } = &self.expected[at];
        if *kind == Kind::Reply {
            return;
        }
        let text = format!("Here is {token}");
        if let Some(work) = work {
            let _ = work.open_gate();
            let first = {
                let asked = asked.clone();
                move |r: &ModelRequest| is_asked(r, &asked) && r.turn_tool_results().is_empty()
            };
            self.rig.model.script(Script::when(first, [Step::call(work.call())]).insisting());
        }
        let (asked, tools) = (asked.clone(), work.is_some());
        let then = move |r: &ModelRequest| {
            is_asked(r, &asked) && (!tools || !r.turn_tool_results().is_empty())
        };
        self.rig.model.script(Script::when(then, [Step::text(text)]).insisting());
    }

    /// The token's message has arrived, unless it arrived before.
    async fn arrived(&self, at: usize) -> Outcome {
        let Expected { chat, token, .. } = &self.expected[at];
        let wanted = |m: &SentMessage| m.chat == *chat && m.text.contains(token.as_str());
        self.rig.telegram.wait_for(&format!("the answer {token}"), 0, TURN_MAX, wanted).await?;
        Ok(())
    }

    async fn job(&mut self, chat: i64) -> Outcome {
        let asked = format!("do job {}", self.token());
        let work = self.rig.work(&format!("j{}n{}", self.tag, self.count), chat)?;
        self.rig.model.script(Script::marker(&asked, [Step::call(work.call())]));
        self.rig.send_user(chat, &asked);
        work.await_effect(1).await?;
        self.jobs.push((chat, work));
        Ok(())
    }

    /// Takes everything down; what a kill leaves is swept, as a cgroup is.
    async fn down(&mut self, down: Down) -> Outcome {
        let proc = self.rig.proc()?;
        proc.gateway_pid()?;
        self.downs.push(SystemTime::now());
        match down {
            Down::Stop => {
                proc.signal(Target::Command, Signal::TERM)?;
                if proc.gateway_ended(STOP_MAX).await.is_err() {
                    proc.signal(Target::Gateway, Signal::KILL)?;
                }
            }
            Down::Gateway => proc.signal(Target::Gateway, Signal::KILL)?,
            Down::Tideover => proc.signal(Target::Command, Signal::KILL)?,
            Down::Both => {
                proc.signal(Target::Command, Signal::KILL)?;
                proc.signal(Target::Gateway, Signal::KILL)?;
            }
        }
        proc.exited(END_MAX).await?;
        proc.kill_all();
        boots_were_long_ago(self.rig).await?;
        let queued = self.queued();
        for expected in &mut self.expected {
            expected.queued |= queued.contains(&expected.token);
        }
        self.rig.model.clear();
        let insists = [Step::call(self.forbidden.call())];
        self.rig.model.script(Script::when(is_native_turn, insists).insisting());
        (0..self.expected.len()).for_each(|at| self.script(at));
        for (_, work) in &self.jobs {
            work.open_gate()?;
        }
        Ok(())
    }

    /// The messages in the gateway's queue of files, and in tideover's hands.
    fn queued(&self) -> String {
        let ours =
            ["claimed", "kept"].map(|name| self.rig.home.state().join("tideover/queue").join(name));
        let dirs = ours.into_iter().chain([self.rig.home.state().join(DELIVERY)]);
        let files = dirs.filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
        let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        texts.filter(|text| text.contains("payloads")).collect()
    }

    fn put_reply(&mut self, chat: i64, tries: u64) -> Outcome {
        let token = self.token();
        let id = format!("0f5c7a52-aaaa-4bbb-8ccc-{:06}{:06}", chat, self.count);
        let mut entry = reply(self.rig, chat, &id, &format!("An old reply: {token}"));
        entry["retryCount"] = tries.into();
        if tries == 0
            && let Some(entry) = entry.as_object_mut()
        {
            entry.remove("lastAttemptAt");
            entry.remove("lastError");
        }
        put(self.rig, DELIVERY, &entry)?;
        let (kind, asked, run) = (Kind::Reply, String::new(), self.downs.len());
        let (work, queued) = (None, true);
        self.expected.push(Expected { kind, chat, token, asked, work, run, queued });
        Ok(())
    }

    /// The notices to this schedule's users, as they are on disk.
    fn notices(&self) -> Vec<Value> {
        let dir = self.rig.home.state().join("tideover/outbox");
        let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let entries = files.filter(|file| file.path().extension().is_some_and(|end| end == "json"));
        entries
            .filter_map(|file| std::fs::read_to_string(file.path()).ok())
            .filter_map(|text| serde_json::from_str(&text).ok())
            .filter(|entry: &Value| self.chats.contains(&chat_of(entry)))
            .collect()
    }

    fn tries(&self) -> u64 {
        self.notices().iter().filter_map(|notice| notice["tries"].as_u64()).sum()
    }

    /// A notice has been tried since the start, or there is none that would be.
    async fn tried(&self, ended: bool) -> Outcome {
        Ok(until("a try", TRY_MAX, || async {
            let notices = self.notices();
            let over = |notice: &Value| {
                notice["in_queue"] == true
                    || ["delivered", "failed"].contains(&notice["state"].as_str().unwrap_or(""))
            };
            let none = !notices.is_empty() && notices.iter().all(over);
            let under_way = notices.iter().any(|notice| notice["state"] == "attempting");
            let tried = self.tries() > self.tries_at_boot && !(ended && under_way);
            if tried || none { Ok(()) } else { Err(format!("{notices:#?}")) }
        })
        .await?)
    }

    /// Everything comes to its end, with a person's help where that is due.
    async fn settle(&mut self) -> Outcome {
        let mut words = Vec::new();
        for chat in 0..2 {
            if self.jobs.iter().any(|(of, _)| *of == self.chats[chat]) {
                words.push(chat);
            }
        }
        let healed = Instant::now();
        self.end_of_notices(healed).await?;
        for chat in words {
            self.act(Act::Turn(chat)).await?;
        }
        let mut left = String::new();
        let mut told = Instant::now();
        while healed.elapsed() < SETTLE_MAX {
            left = self.left(healed).await?;
            if left.is_empty() {
                return Ok(());
            }
            if told.elapsed() > Duration::from_secs(20) {
                eprintln!("    still open: {left}");
                told = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Err(format!("still open: {left}").into())
    }

    /// Every notice is delivered; one that was refused says so first, and is asked for.
    async fn end_of_notices(&self, healed: Instant) -> Outcome {
        loop {
            let notices = self.notices();
            let of_state = |state: &str| notices.iter().filter(|n| n["state"] == state).count();
            if !notices.is_empty() && of_state("delivered") == notices.len() {
                return Ok(());
            }
            if of_state("failed") > 0 {
                let listed = tideover(self.rig, &["outbox", "list", "--json"]).await?;
                let refused = |n: &Value| {
                    n["last_error"].as_str().is_some_and(|error| error.contains("was blocked"))
                };
                let failed = notices.iter().filter(|n| n["state"] == "failed");
                if !self.blocked || !failed.clone().all(refused) {
                    return Err(format!("failed without a reason to: {notices:#?}").into());
                }
                for key in failed.filter_map(|n| n["key"].as_str()) {
                    if !listed.contains(key) || !listed.contains("\"failed\"") {
                        return Err(format!("{key} failed, and is not shown: {listed}").into());
                    }
                }
                tideover(self.rig, &["outbox", "retry"]).await?;
            }
            if healed.elapsed() > SETTLE_MAX {
                return Err(format!("notices without an end: {notices:#?}").into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What is not at its end yet. Entries that were given up, or pause for long, are asked for by hand.
    async fn left(&self, healed: Instant) -> Outcome<String> {
        let listed = tideover(self.rig, &["queue", "--json"]).await?;
        let listed: Value = serde_json::from_str(&listed)?;
        let all = listed["entries"].as_array().cloned().unwrap_or_default();
        let mut left = Vec::new();
        if self.files {
            let open = |entry: &&Value| {
                ["queue", "claimed", "kept", "failed"]
                    .contains(&entry["place"].as_str().unwrap_or(""))
            };
            for entry in all.iter().filter(open) {
                left.push(entry.to_string());
                let id = entry["id"].as_str().unwrap_or("");
                let pauses = entry["plan"].as_str().is_some_and(|plan| plan.contains("pauses"));
                if entry["place"] == "failed" {
                    tideover(self.rig, &["queue", "retry", id]).await?;
                } else if pauses && healed.elapsed() > PAUSE_MAX {
                    // Its pause may be over by now, and it in hand.
                    let _ = tideover(self.rig, &["queue", "retry", id]).await;
                }
            }
        }
        for expected in &self.expected {
            let arrived = !self.taken(expected.chat, &expected.token).is_empty();
            if !arrived && !self.is_explained(expected, &all) {
                left.push(format!("{expected:?}"));
            }
        }
        Ok(left.join("\n"))
    }

    /// Whether a person is told otherwise what became of an answer.
    fn is_explained(&self, expected: &Expected, queue: &[Value]) -> bool {
        let session = self.rig.session_key(expected.chat);
        // Its turn was cut, which a notice tells.
        let cut = || self.notices().iter().any(|n| says(n, &expected.asked));
        let given_up = || {
            queue.iter().any(|entry| {
                ["given_up"].contains(&entry["place"].as_str().unwrap_or(""))
                    && entry["session_key"] == session.as_str()
                    && entry["enqueued_at"].is_string()
            })
        };
        match expected.kind {
            Kind::Reply => false,
            Kind::Continuation | Kind::Answer if expected.queued => false,
            Kind::Continuation => cut(),
            // A kill may come between the end of a turn and the gateway's queue, or before the turn: what
            // is in no queue is not to be had back.
            Kind::Answer => cut() || (!self.files && given_up()) || self.downs.len() > expected.run,
        }
    }

    fn taken(&self, chat: i64, token: &str) -> Vec<Taken> {
        self.taken_if(|m| m.chat == chat && m.text.contains(token) && !is_notice(m))
    }

    fn taken_if(&self, wanted: impl Fn(&SentMessage) -> bool) -> Vec<Taken> {
        let messages = self.rig.telegram.sent().into_iter();
        let wanted = messages.filter(|message| !message.deleted && wanted(message));
        wanted
            .map(|message| Taken {
                at: message.at,
                marked: message.text.contains(MARK),
                answered: message.answered,
                run: self.downs.iter().filter(|down| **down < message.at).count(),
            })
            .collect()
    }

    /// The answers that never came.
    fn lost(&self) -> impl Iterator<Item = &Expected> {
        self.expected.iter().filter(|expected| {
            let (chat, token) = (expected.chat, expected.token.as_str());
            expected.kind == Kind::Answer && self.taken(chat, token).is_empty()
        })
    }

    /// Whether tideover has put a message away as one that was delivered.
    fn is_settled(&self, token: &str) -> bool {
        let dir = self.rig.home.state().join("tideover/queue/settled");
        let texts = shelf(self.rig, "settled").into_iter().map(|name| dir.join(name));
        texts
            .filter_map(|file| std::fs::read_to_string(file).ok())
            .any(|text| text.contains("payloads") && text.contains(token))
    }

    /// Judges by the channel's own log.
    fn judge(&self) -> Outcome {
        let mut wrong = Vec::new();
        for expected in &self.expected {
            let taken = self.taken(expected.chat, &expected.token);
            if let Err(why) = judge(&taken, &self.downs, 1) {
                wrong.push(format!("{expected:?}: {why}: {taken:#?}"));
            }
            let runs = expected.work.as_ref().map_or(0, Work::runs);
            if runs > 1 {
                wrong.push(format!("{expected:?}: its tool ran {runs} times"));
            }
        }
        let notices = self.notices();
        for notice in &notices {
            let (chat, text) = (chat_of(notice), plain(notice["text"].as_str().unwrap_or("")));
            let same = |other: &&Value| {
                chat_of(other) == chat && plain(other["text"].as_str().unwrap_or("")) == text
            };
            let count = notices.iter().filter(same).count();
            let taken = self.taken_if(|m| m.chat == chat && is_notice(m) && plain(&m.text) == text);
            if taken.is_empty() {
                wrong.push(format!("never arrived: {notice}"));
            } else if let Err(why) = judge(&taken, &self.downs, count) {
                wrong.push(format!("{notice:#}: {why}: {taken:#?}"));
            }
        }
        for message in self.rig.telegram.sent() {
            let text = plain(&message.text);
            let of_notice = |n: &Value| {
                chat_of(n) == message.chat && plain(n["text"].as_str().unwrap_or("")) == text
            };
            let ours = self.chats.contains(&message.chat) && is_notice(&message);
            if ours && !notices.iter().any(of_notice) {
                wrong.push(format!("a notice that no record knows: {message:?}"));
            }
        }
        for (chat, work) in &self.jobs {
            if work.runs() != 1 {
                wrong.push(format!("the job in {chat} ran {} times", work.runs()));
            }
        }
        if self.forbidden.runs() != 0 {
            wrong.push("a recovered turn had an effect".to_owned());
        }
        for lost in self.lost().filter(|lost| self.is_settled(&lost.token)) {
            wrong.push(format!("settled without having arrived: {lost:?}"));
        }
        let left = [shelf(self.rig, "claimed"), shelf(self.rig, "kept")].concat();
        let queued = entries(self.rig, SESSION).len() + entries(self.rig, DELIVERY).len();
        if self.files && (!left.is_empty() || queued > 0) {
            wrong.push(format!("left behind: {left:?}, {queued} in the queues"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    }
}

/// Whether the turn of a request begins with these words; what is told about an earlier turn does not count.
fn is_asked(request: &ModelRequest, asked: &str) -> bool {
    let text = request.turn_text();
    text.lines().any(|line| !line.contains("Task: ") && line.contains(asked))
}

fn is_old(rig: &Rig) -> bool {
    rig.gateway.version == "2026.5.5"
}

/// The chat that a notice goes to.
fn chat_of(notice: &Value) -> i64 {
    let to = notice["route"]["to"].as_str().unwrap_or("");
    to.rsplit(':').next().and_then(|chat| chat.parse().ok()).unwrap_or(0)
}

fn says(notice: &Value, words: &str) -> bool {
    !words.is_empty() && notice["text"].as_str().is_some_and(|text| text.contains(words))
}

/// A notice's text without what may change from one try to the next.
fn plain(text: &str) -> String {
    let text = text.replace(MARK, "");
    let text = text.replace("Nothing with side effects runs until you answer.", "");
    // The channel's own writing of code is not ours to judge.
    text.replace("<code>", "`").replace("</code>", "`").split_whitespace().collect()
}

/// Whether a message that is to come `count` times may have come so.
fn judge(taken: &[Taken], downs: &[SystemTime], count: usize) -> Result<(), String> {
    let mut fresh = 0;
    for (at, message) in taken.iter().enumerate() {
        let before = &taken[..at];
        // The gateway's own client asks again within one try, when it heard nothing.
        let client = before.last().is_some_and(|last| {
            let near = message.at.duration_since(last.at).unwrap_or_default() < CLIENT_PAUSE_MAX;
            !last.answered && last.run == message.run && last.marked == message.marked && near
        });
        let burst = before
            .iter()
            .rev()
            .take_while(|m| m.run == message.run && m.marked == message.marked)
            .count();
        if client && (message.marked || burst < CLIENT_TRIES * count) {
            continue;
        }
        if !message.marked {
            fresh += 1;
            if fresh > count {
                return Err(format!("number {} is an unmarked repeat", at + 1));
            }
            continue;
        }
        // The answer was seen, and what saw it lived to write it down.
        let known = |m: &&Taken| {
            let cut = |down: &SystemTime| {
                *down >= m.at && down.duration_since(m.at).unwrap_or_default() < RECORDED_MAX
            };
            m.answered && !downs.iter().any(cut)
        };
        if before.iter().filter(known).count() >= count {
            return Err(format!("number {} repeats what was answered", at + 1));
        }
    }
    Ok(())
}

fn variable<T: std::str::FromStr>(name: &str) -> Outcome<Option<T>>
where
    T::Err: std::error::Error + 'static,
{
    Ok(std::env::var(name).ok().map(|text| text.parse()).transpose()?)
}

async fn one(rig: &mut Rig, number: usize, place: usize, acts: &[Act]) -> Outcome {
    let mut play = Play::new(rig, number, place)?;
    let begun = Instant::now();
    for (at, act) in acts.iter().enumerate() {
        play.act(*act).await.map_err(|error| format!("step {at}, {act:?}: {error}"))?;
    }
    let healed = begun.elapsed();
    play.settle().await?;
    play.judge()?;
    let lost: Vec<&str> = play.lost().map(|expected| expected.token.as_str()).collect();
    eprintln!(
        "    kept; healed after {healed:.0?}, settled after {:.0?}, answers lost with their gateway: {lost:?}",
        begun.elapsed()
    );
    Ok(())
}

async fn schedules(version: &str) -> Outcome {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = variable("TIDEOVER_SEED")?.unwrap_or_else(|| u64::from(now.subsec_nanos()));
    let long = variable::<usize>("TIDEOVER_SCHEDULES")?;
    let only = variable::<usize>("TIDEOVER_SCHEDULE")?;
    let mut stage: Option<(Rig, File)> = None;
    let mut failed = Vec::new();
    let mut place = 0;
    for number in 0..long.unwrap_or(1) {
        if only.is_some_and(|only| only != number) {
            continue;
        }
        if place == PER_STATE {
            drop(stage.take());
        }
        if stage.is_none() {
            place = 0;
            let chats = i64::try_from(2 * PER_STATE)?;
            let options =
                RigOptions { chats: (CHATS..CHATS + chats).collect(), ..behind_tideover("") };
            stage = rig(version, options).await?;
        }
        let Some((rig, _slot)) = &mut stage else { return Ok(()) };
        let mut random = Random(seed.wrapping_add((number as u64) << 32));
        let first = usize::try_from(Random(seed).below(FAILURES.len() as u64))?;
        let acts = plan(first + number, is_old(rig), &mut random);
        let told = format!("{version} TIDEOVER_SEED={seed} schedule {number}: {acts:?}");
        eprintln!("  {told}");
        if let Err(error) = one(rig, number, place, &acts).await {
            rig.home.keep |= long.is_some();
            eprintln!("  FAILED {} {told}: {error}", rig.home.root().display());
            failed.push(format!("{told}: {error}"));
            drop(stage.take());
        }
        place += 1;
    }
    let count = failed.len();
    if failed.is_empty() { Ok(()) } else { Err(format!("{count}: {}", failed.join("\n")).into()) }
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_9_6() -> Outcome {
    schedules("2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_5_5() -> Outcome {
    schedules("2026.5.5").await
}

#[test]
fn the_judge_knows_a_repeat() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    // Seconds, whether it is marked, whether it was answered; the kill comes at 100 s.
    let verdict = |messages: &[(u64, bool, bool)]| {
        let taken: Vec<Taken> = messages
            .iter()
            .map(|&(seconds, marked, answered)| Taken {
                at: at(seconds),
                marked,
                answered,
                run: usize::from(seconds > 100),
            })
            .collect();
        judge(&taken, &[at(100)], 1).is_ok()
    };
    for (messages, good) in [
        (&[(1, false, true)][..], true),
        // The answer was seen.
        (&[(1, false, true), (2, false, true)], false),
        (&[(1, false, true), (2, true, true)], false),
        (&[(1, false, true), (120, true, true)], false),
        // It was seen, and what saw it was killed at once.
        (&[(99, false, true), (120, true, true)], true),
        (&[(99, false, true), (120, false, true)], false),
        // It was lost.
        (&[(1, false, false), (30, true, true)], true),
        (&[(1, false, false), (30, false, true)], false),
        (&[(99, false, false), (101, false, true)], false),
        (&[(1, false, false), (30, true, true), (60, true, true)], false),
        // The gateway's own client, within one try.
        (&[(1, false, false), (2, false, false), (4, false, false), (30, true, true)], true),
        (&[(1, false, false), (2, false, false), (4, false, false), (6, false, false)], false),
    ] {
        assert_eq!(verdict(messages), good, "{messages:?}");
    }
}
