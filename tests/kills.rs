//! `kill -9` of the gateway, of tideover and of both, at random moments of a turn.
//!
//! After each kill: no effect without a durable intent, no acknowledged intent missing, no
//! unreadable checkpoint, one notice where a turn was cut and none where none was, no effect until
//! the user's word, and a turn that completes after it.
//!
//! `TIDEOVER_KILLS_EACH=25` makes the long form; `TIDEOVER_SEED` replays a run.

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use support::incident::{
    CHAT, behind_tideover, got, handed_off, is_native_turn, is_notice, is_question,
};
use support::random::Random;
use support::{Outcome, rig};
use tideover::drill::checkpoint;
use tideover::drill::gateway_proc::Target;
use tideover::drill::mock_model::{Gate, ModelRequest, Script, Step, ToolCall};
use tideover::drill::mock_telegram::SentMessage;
use tideover::drill::processes::Signal;
use tideover::drill::progress::until;
use tideover::drill::rig::{Rig, TURN_MAX};

/// 2026.9.6 leaves its channels off after three unclean boots within five minutes.
const KILLS_PER_STATE: usize = 2;
/// About as long as the scripted turn takes once the gateway is warm.
const TURN_MS_MAX: u64 = 1_500;
/// Longest pause after the hand-off before the user speaks; native recovery begins within it.
const WORD_MS_MAX: u64 = 6_000;
/// Longest that a killed process may take to be gone.
const END_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
enum Kill {
    Gateway,
    Tideover,
    Both,
}

/// Where in the turn the kill comes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after the user's message.
    After(Duration),
    /// While the model thinks about its first, second or third answer.
    Thinking(usize),
    /// The checkpoint names the first or second tool; it may or may not have had its effect.
    Announced(usize),
    /// The first or second tool has had its effect and runs on.
    Running(usize),
    /// So long after the first or second tool was let go.
    Finishing(usize, Duration),
    /// So long after the user has got the reply.
    Over(Duration),
}

impl Moment {
    /// The `turn`-th kill's moment: every kind in turn, the rest random.
    fn choose(turn: usize, random: &mut Random) -> Self {
        let which = random.pick(&[0, 1]);
        match turn % 6 {
            0 => Self::Running(which),
            1 => Self::After(random.pause(TURN_MS_MAX)),
            2 => Self::Announced(which),
            3 => Self::Thinking(random.pick(&[0, 1, 2])),
            4 => Self::Finishing(which, random.pause(120)),
            _ => Self::Over(random.pause(150)),
        }
    }
}

/// A command with an effect that can be counted, and a copy of the checkpoint from before each.
struct Tool {
    call: ToolCall,
    marker: PathBuf,
    snapshots: PathBuf,
    gate: PathBuf,
}

impl Tool {
    fn new(dir: &Path, name: &str, checkpoint: &Path, open: bool) -> Outcome<Self> {
        let file = |end: &str| dir.join(format!("{name}{end}"));
        let (script, marker, snapshots, gate) =
            (file(".sh"), file(".ran"), file(".snapshots"), file(".gate"));
        std::fs::create_dir(&snapshots)?;
        let text = format!(
            "cp '{}' '{}'/$$.json 2>/dev/null\necho $$ >> '{}'\nn=0\n\
             while [ ! -e '{}' ] && [ -d '{}' ] && [ $n -lt 2400 ]; do\n sleep 0.05; n=$((n+1))\n\
             done\necho done\n",
            checkpoint.display(),
            snapshots.display(),
            marker.display(),
            gate.display(),
            dir.display(),
        );
        std::fs::write(&script, text)?;
        let tool = Self {
            call: ToolCall::exec(format!("sh {}", script.display())),
            marker,
            snapshots,
            gate,
        };
        if open {
            tool.open()?;
        }
        Ok(tool)
    }

    fn open(&self) -> Outcome {
        Ok(std::fs::write(&self.gate, "")?)
    }

    fn runs(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.marker).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn has_run(&self) -> Outcome {
        Ok(until("the tool's effect", TURN_MAX, || async {
            if self.runs().is_empty() { Err("no effect".to_owned()) } else { Ok(()) }
        })
        .await?)
    }

    /// Every effect had its intent on disk before it, arguments and all.
    fn check_intents(&self) -> Outcome<u64> {
        let mut seq = 0;
        for run in self.runs() {
            let copy = self.snapshots.join(format!("{run}.json"));
            let found = checkpoint::read(&copy)?.ok_or("an effect without any checkpoint")?;
            assert!(names(&found, &self.call), "an effect without its intent: {found}");
            seq = seq.max(found["seq"].as_u64().unwrap_or(0));
        }
        Ok(seq)
    }
}

/// Whether a checkpoint knows of this very call.
fn names(record: &Value, call: &ToolCall) -> bool {
    let wanted = call.arguments.to_string();
    // As text: the order of the keys counts, too.
    let is = |c: &Value| {
        (c["name"].as_str(), c["arguments"].to_string())
            == (Some(call.name.as_str()), wanted.clone())
    };
    let beside = record["open_calls"].as_array().is_some_and(|calls| calls.iter().any(is));
    is(&record["last_tool_call"]) || is(&record["interruption"]["call"]) || beside
}

/// Whether a checkpoint, read while everything is down, says that a turn was cut.
fn says_cut(record: &Value) -> bool {
    let waits = record["interruption"]["notice"] == "pending";
    let running = matches!(record["state"].as_str(), Some("thinking" | "tool_running"));
    waits || (running && !record["turn"].is_null())
}

fn cut_id(record: Option<&Value>) -> Value {
    record.map_or(Value::Null, |record| record["interruption"]["id"].clone())
}

/// One turn with its two tools.
struct Turn {
    number: usize,
    tools: [Tool; 2],
    /// What nobody may run: the gateway's own recovered turn insists on it.
    forbidden: Tool,
    /// What runs after the user's word.
    allowed: Tool,
    gates: [Gate; 3],
    checkpoint: PathBuf,
}

impl Turn {
    fn prepare(rig: &Rig, number: usize, moment: Moment) -> Outcome<Self> {
        let checkpoint = rig.checkpoint_path(CHAT);
        let dir = rig.home.work();
        let stops_at = match moment {
            Moment::Running(at) | Moment::Finishing(at, _) => Some(at),
            Moment::After(_) | Moment::Thinking(_) | Moment::Announced(_) | Moment::Over(_) => None,
        };
        let tool =
            |name: &str, open| Tool::new(&dir, &format!("{name}{number}"), &checkpoint, open);
        let turn = Self {
            number,
            tools: [tool("a", stops_at != Some(0))?, tool("b", stops_at != Some(1))?],
            forbidden: tool("f", true)?,
            allowed: tool("z", true)?,
            gates: [Gate::default(), Gate::default(), Gate::default()],
            checkpoint,
        };
        let thinks_at = match moment {
            Moment::Thinking(at) => Some(at),
            Moment::After(_)
            | Moment::Announced(_)
            | Moment::Running(_)
            | Moment::Finishing(..)
            | Moment::Over(_) => None,
        };
        let mut steps = vec![
            Step::call(turn.tools[0].call.clone()),
            Step::call(turn.tools[1].call.clone()),
            Step::text(format!("Job {number} is done.")),
        ];
        if let Some(at) = thinks_at {
            let then = steps.remove(at);
            steps.insert(at, Step::Hang(turn.gates[at].clone(), Box::new(then)));
        }
        rig.model.clear();
        rig.model.script(Script::marker(turn.task(), steps));
        Ok(turn)
    }

    fn task(&self) -> String {
        format!("Please do job {}.", self.number)
    }

    /// Plays the turn up to the moment of the kill.
    async fn play(&self, rig: &Rig, moment: Moment) -> Outcome {
        let (asked, sent) = (rig.model.seen(), rig.telegram.mark());
        rig.send_user(CHAT, &self.task());
        match moment {
            Moment::After(pause) => tokio::time::sleep(pause).await,
            Moment::Thinking(at) => {
                let task = self.task();
                let wanted = move |r: &ModelRequest| {
                    !r.tools.is_empty()
                        && r.turn_text().contains(&task)
                        && r.turn_tool_results().len() == at
                };
                rig.model.wait_for("the model's request", asked, TURN_MAX, wanted).await?;
            }
            Moment::Announced(at) => {
                until("the intent", TURN_MAX, || async {
                    let found = checkpoint::read(&self.checkpoint).ok().flatten();
                    let announced =
                        found.is_some_and(|record| names(&record, &self.tools[at].call));
                    announced.then_some(()).ok_or_else(|| "not announced".to_owned())
                })
                .await?;
            }
            Moment::Running(at) => self.tools[at].has_run().await?,
            Moment::Finishing(at, pause) => {
                self.tools[at].has_run().await?;
                self.tools[at].open()?;
                tokio::time::sleep(pause).await;
            }
            Moment::Over(pause) => {
                let done = format!("Job {} is done", self.number);
                let replied = |m: &SentMessage| m.text.contains(&done);
                rig.telegram.wait_for("the reply", sent, TURN_MAX, replied).await?;
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }

    /// With everything down: what has had its effect is on disk, and the file is whole.
    fn check_disk(&self) -> Outcome<Option<Value>> {
        let after = checkpoint::read(&self.checkpoint)?;
        let mut last: Option<&Tool> = None;
        for tool in &self.tools {
            let seq = tool.check_intents()?;
            if !tool.runs().is_empty() {
                last = Some(tool);
                let kept = after.as_ref().ok_or("the checkpoint is gone")?;
                let kept_seq = kept["seq"].as_u64().unwrap_or(0);
                assert!(kept_seq >= seq, "an older checkpoint came back: {kept}");
            }
        }
        if let (Some(tool), Some(kept)) = (last, &after) {
            let both = names(kept, &tool.call) || names(kept, &self.tools[1].call);
            assert!(both, "an acknowledged intent is missing: {kept}");
        }
        Ok(after)
    }
}

fn check_no_quarantine(rig: &Rig) -> Outcome {
    let dir = rig.home.state().join("sessions/checkpoints/quarantine");
    if let Ok(entries) = std::fs::read_dir(&dir) {
        let left: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        assert!(left.is_empty(), "quarantined: {left:?}");
    }
    Ok(())
}

/// Takes down what is to be taken down; what the kill leaves is swept, as a cgroup is.
async fn kill(rig: &mut Rig, kill: Kill) -> Outcome {
    let proc = rig.proc()?;
    proc.gateway_pid()?;
    match kill {
        Kill::Gateway => proc.signal(Target::Gateway, Signal::KILL)?,
        Kill::Tideover => proc.signal(Target::Command, Signal::KILL)?,
        Kill::Both => {
            proc.signal(Target::Command, Signal::KILL)?;
            proc.signal(Target::Gateway, Signal::KILL)?;
        }
    }
    proc.exited(END_MAX).await?;
    proc.kill_all();
    Ok(())
}

/// One kill and all that comes after it.
async fn one(rig: &mut Rig, number: usize, how: Kill, moment: Moment, word: Duration) -> Outcome {
    let turn = Turn::prepare(rig, number, moment)?;
    let before = checkpoint::read(&turn.checkpoint)?;
    turn.play(rig, moment).await?;
    kill(rig, how).await?;
    let disk = turn.check_disk()?;
    let cut = disk.as_ref().is_some_and(says_cut);
    let runs_before: Vec<usize> = turn.tools.iter().map(|tool| tool.runs().len()).collect();

    rig.model.clear();
    let insists = [Step::call(turn.forbidden.call.clone())];
    rig.model.script(Script::when(is_native_turn, insists).insisting());
    let (sent, asked) = (rig.telegram.mark(), rig.model.seen());
    for tool in &turn.tools {
        tool.open()?;
    }
    rig.boot().await?;
    handed_off(rig).await?;
    tokio::time::sleep(word).await;
    if cut {
        let runs: Vec<usize> = turn.tools.iter().map(|tool| tool.runs().len()).collect();
        assert_eq!(runs, runs_before, "an effect between the restart and the user's word");
    }
    assert_eq!(turn.forbidden.runs().len(), 0, "a recovered turn had an effect");

    let (say, done) =
        (format!("Go on with {number}, please."), format!("All of {number} is done."));
    let steps = [Step::call(turn.allowed.call.clone()), Step::text(&done)];
    rig.model.script(Script::marker(&say, steps));
    rig.send_user(CHAT, &say);
    let replied = |m: &SentMessage| m.text.contains(&done);
    rig.telegram.wait_for("the reply to the user's word", sent, TURN_MAX, replied).await?;
    assert_eq!(turn.allowed.runs().len(), 1);
    turn.allowed.check_intents()?;
    assert_eq!(turn.forbidden.runs().len(), 0, "a recovered turn had an effect");

    let messages = got(rig, sent, CHAT);
    let notices = messages.iter().filter(|m| is_notice(m)).count();
    let after = checkpoint::read(&turn.checkpoint)?;
    let marked_later = cut_id(after.as_ref()) != cut_id(disk.as_ref());
    let told = rig.model.requests_from(asked).iter().any(|r| {
        r.turn_text().contains(&say) && r.contains("Session was interrupted. Last action:")
    });
    eprintln!("    cut {cut}, marked later {marked_later}, notices {notices}, model told {told}");
    let new = cut_id(disk.as_ref()) != cut_id(before.as_ref());
    let expected = usize::from(cut || (marked_later && !new));
    let texts: Vec<_> = messages.iter().map(|m| &m.text).collect();
    assert_eq!(
        notices, expected,
        "notices; all messages: {texts:#?}\non disk: {disk:?}\nafter: {after:?}"
    );
    assert_eq!(told, expected == 1, "the model is told what the user is told");
    assert!(!messages.iter().any(is_question), "no question beside the notice: {texts:#?}");
    check_no_quarantine(rig)
}

fn seed() -> Outcome<u64> {
    if let Ok(text) = std::env::var("TIDEOVER_SEED") {
        return Ok(text.parse()?);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(u64::from(now.subsec_nanos()))
}

fn each() -> Outcome<usize> {
    Ok(std::env::var("TIDEOVER_KILLS_EACH").ok().map_or(Ok(2), |text| text.parse())?)
}

/// All kinds of kills in a random order, on fresh state every so often.
async fn kills(version: &str, per_state: usize) -> Outcome {
    let seed = seed()?;
    let mut random = Random(seed);
    let mut plan: Vec<Kill> = [Kill::Gateway, Kill::Tideover, Kill::Both].repeat(each()?);
    for at in (1..plan.len()).rev() {
        plan.swap(at, usize::try_from(random.below(at as u64 + 1))?);
    }
    let mut stage: Option<(Rig, File)> = None;
    let first = usize::try_from(random.below(6))?;
    for (number, how) in plan.into_iter().enumerate() {
        if number % per_state == 0 {
            drop(stage.take());
            stage = rig(version, behind_tideover("")).await?;
            if let Some((rig, _)) = &mut stage {
                // The first turn of a gateway loads much; a random moment would fall into that.
                rig.plain_turn(CHAT, "Good morning", "Good morning to you.").await?;
            }
        }
        let Some((rig, _slot)) = &mut stage else { return Ok(()) };
        let moment = Moment::choose(first + number, &mut random);
        let word = random.pause(WORD_MS_MAX);
        let told = format!(
            "{version} TIDEOVER_SEED={seed} kill {number}: {how:?} at {moment:?}, word after {word:?}"
        );
        eprintln!("  {told}");
        if let Err(error) = one(rig, number, how, moment, word).await {
            return Err(format!("{told}: {error}").into());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn at_random_moments_on_2026_9_6() -> Outcome {
    kills("2026.9.6", KILLS_PER_STATE).await
}

#[tokio::test(flavor = "current_thread")]
async fn at_random_moments_on_2026_5_5() -> Outcome {
    kills("2026.5.5", usize::MAX).await
}
