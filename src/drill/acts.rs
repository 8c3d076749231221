//! The parts of a scenario: the work, the restart, the silence, the user's word.

mod resume;

use std::time::{Duration, Instant};

use serde_json::Value;

use super::checkpoint;
use super::error::Result;
use super::mock_model::{ModelRequest, Script, Step, ToolCall};
use super::mock_telegram::SentMessage;
use super::progress::until;
use super::rig::TURN_MAX;
use super::scenario::Work;
use super::stage::Stage;
use super::story::{Story, checks};
use super::work;

/// Longest that the notices may take after the gateway is ready, all of them together.
const NOTICES_MAX: Duration = Duration::from_secs(45);
/// How long the silence after a restart is watched. The gateway's own recovery begins 4 to 6 s
/// after it is ready.
const SILENCE: Duration = Duration::from_secs(12);
/// How the gateway's own recovery speaks to its user and to its model.
const NATIVE_TO_USER: &str = "continuing your interrupted request";
const NATIVE_TO_MODEL: &str = "[System] Your previous turn was interrupted";
/// What every text of ours to the model begins with.
const OURS_TO_MODEL: &str = "Session was interrupted. Last action:";

/// The chats of a scenario, each with its work.
#[derive(Debug)]
pub struct Cast {
    work: Work,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    chat: i64,
    work: work::Work,
    call: ToolCall,
    checkpoint: std::path::PathBuf,
}

/// Where the records stood when the gateway came back.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// Telegram messages before it.
    sent: usize,
    /// Model requests before it.
    asked: usize,
}

impl Cast {
    /// Gives every chat its work, a kind for all of them.
    ///
    /// # Errors
    /// When the work's script cannot be written.
    pub fn new(stage: &Stage<'_>, kind: Work, chats: &[i64]) -> Result<Self> {
        let member = |chat: &i64| {
            let work = stage.work(&format!("w{chat}"), *chat)?;
            let call = match kind {
                Work::Background => work.background_call(),
                Work::Call | Work::Idle => work.call(),
            };
            Ok(Member { chat: *chat, work, call, checkpoint: stage.checkpoint_path(*chat) })
        };
        let members = chats.iter().map(member).collect::<Result<_>>()?;
        Ok(Self { work: kind, members })
    }

    /// The users ask, the model calls the tool, the tool has its effect (and is in flight).
    ///
    /// # Errors
    /// When the effect does not come.
    pub async fn act_work(&self, stage: &Stage<'_>, story: &mut Story) -> Result<()> {
        if self.work == Work::Idle {
            for member in &self.members {
                let chat = member.chat;
                stage.plain_turn(chat, &format!("Hello from {chat}"), "Hello to you.").await?;
                story.step("a turn is over", format!("chat {chat} has its reply"));
            }
            return Ok(());
        }
        for member in &self.members {
            let task = member.task();
            let said = format!("Deployment of {} goes on.", member.chat);
            let steps = [Step::call(member.call.clone()), Step::text(said)];
            stage.model.script(Script::marker(&task, steps));
            stage.send_user(member.chat, &task);
        }
        for member in &self.members {
            member.work.await_effect(1).await?;
            story.step("the tool has had its effect", member.call_text());
            let found = member.work.checkpoint_before_effect()?;
            let (ok, detail) = member.judge(found.as_ref(), &["tool_running"]);
            story.check(checks::CHECKPOINT_BEFORE_EFFECT, member.subject(), ok, detail);
            if self.work == Work::Background {
                member.await_background(stage, story).await?;
            }
        }
        Ok(())
    }

    /// Lets every tool end.
    ///
    /// # Errors
    /// When a gate's file cannot be made.
    pub fn open_gates(&self) -> Result<()> {
        self.members.iter().try_for_each(|member| member.work.open_gate())
    }

    /// With the gateway down: the call is still on disk.
    ///
    /// # Errors
    /// When a checkpoint is no JSON object.
    pub fn act_after_cut(&self, story: &mut Story) -> Result<()> {
        if self.work == Work::Idle {
            return Ok(());
        }
        for member in &self.members {
            let found = checkpoint::read(&member.checkpoint)?;
            let (ok, detail) = member.judge(found.as_ref(), &["tool_running", "background"]);
            story.check(checks::CHECKPOINT_SURVIVED, member.subject(), ok, detail);
        }
        Ok(())
    }

    /// With the gateway down: from now on all is counted. The model would call the tool at once if
    /// it were asked.
    #[must_use]
    pub fn before_restart(&self, stage: &Stage<'_>) -> Scene {
        stage.model.clear();
        for member in &self.members {
            // A native recovery turn names no chat, but the transcript before it does.
            let (call, own) = (member.call.clone(), member.task());
            let resumed = move |request: &ModelRequest| {
                request.turn_text().contains(NATIVE_TO_MODEL) && request.contains(&own)
            };
            stage.model.script(Script::when(resumed, [Step::call(call)]).insisting());
        }
        Scene { sent: stage.telegram.mark(), asked: stage.model.seen() }
    }

    /// The gateway is back, and the notices come.
    pub async fn act_notices(&self, stage: &Stage<'_>, story: &mut Story, scene: &Scene) {
        if self.work == Work::Idle {
            return;
        }
        let since = Instant::now();
        for member in &self.members {
            let left = NOTICES_MAX.saturating_sub(since.elapsed());
            let wanted = |m: &SentMessage| m.chat == member.chat && is_notice(m, &member.call);
            match stage.telegram.wait_for("the notice", scene.sent, left, wanted).await {
                Ok(notice) => story.step("the user was told", notice.text),
                Err(error) => story.trouble("the user was not told", error.to_string()),
            }
        }
    }

    /// A while in which nothing may happen; ends early when something does.
    pub async fn act_silence(&self, stage: &Stage<'_>, story: &mut Story, scene: &Scene) {
        let mut expected: Vec<SentMessage> = Vec::new();
        if self.work != Work::Idle {
            for member in &self.members {
                expected.extend(notices(stage, scene, member).into_iter().take(1));
            }
        }
        let is_other = |m: &SentMessage| !expected.iter().any(|e| e.message_id == m.message_id);
        let broken =
            stage.telegram.wait_for("another message", scene.sent, SILENCE, is_other).await;
        match broken {
            Ok(message) => story.trouble("the silence was broken", message.text),
            Err(_) => story.step("silence until the user speaks", format!("{SILENCE:?} watched")),
        }
        for member in &self.members {
            let runs = member.work.runs();
            let before = usize::from(self.work != Work::Idle);
            let detail = format!("{runs} effects, {before} of them before the restart");
            story.check(checks::HELD, member.subject(), runs == before, detail);
        }
        let asked = stage.model.requests_from(scene.asked);
        let detail = format!("{} requests", asked.len());
        story.check(checks::MODEL_NOT_ASKED, "", asked.is_empty(), detail);
    }

    /// The user speaks: the model learns what happened, and the tool may run again.
    ///
    /// # Errors
    /// When the model is not asked at all.
    pub async fn act_user_speaks(
        &self,
        stage: &Stage<'_>,
        story: &mut Story,
        scene: &Scene,
    ) -> Result<()> {
        stage.model.clear();
        for member in &self.members {
            member.work.open_gate()?;
            let (word, done) = (member.word(), member.done());
            let steps = [Step::call(member.work.call()), Step::text(&done)];
            stage.model.script(Script::marker(&word, steps));
            let (asked, runs) = (stage.model.seen(), member.work.runs());
            stage.send_user(member.chat, &word);
            story.step("the user speaks", &word);
            let own = |r: &ModelRequest| !r.tools.is_empty() && r.turn_text().contains(&word);
            let request = stage.model.wait_for("the user's turn", asked, TURN_MAX, own).await?;
            let (ok, detail) = self.judge_told(member, &request);
            story.check(checks::MODEL_TOLD, member.subject(), ok, detail);
            let effect = member.work.await_effect(runs + 1).await;
            let replied = |m: &SentMessage| m.chat == member.chat && m.text.contains(&done);
            let reply = match effect {
                Ok(()) => stage.telegram.wait_for("the reply", scene.sent, TURN_MAX, replied).await,
                Err(error) => Err(error),
            };
            let detail = reply.as_ref().map_or_else(ToString::to_string, |m| m.text.clone());
            story.check(checks::RELEASED, member.subject(), reply.is_ok(), detail);
        }
        Ok(())
    }

    fn judge_told(&self, member: &Member, request: &ModelRequest) -> (bool, String) {
        if self.work == Work::Idle {
            let told = request.contains(OURS_TO_MODEL);
            return (!told, if told { "told of nothing" } else { "not told, rightly" }.to_owned());
        }
        let line =
            format!("{OURS_TO_MODEL} {}. Continue only if user confirms.", member.call_text());
        if request.contains_line(&line) {
            return (true, line);
        }
        let whole = |text: &String| text.contains(&line);
        if request.texts().iter().any(whole) {
            return (false, format!("in the request, but not as a line of its own: {line}"));
        }
        let near = request.texts().into_iter().find(|text| text.contains("was interrupted"));
        (false, format!("expected {line:?}, found {near:?}"))
    }

    /// At the end: the notices and the gateway's own messages are counted.
    pub fn act_count(&self, stage: &Stage<'_>, story: &mut Story, scene: &Scene) {
        for member in &self.members {
            let found = notices(stage, scene, member);
            let wanted = usize::from(self.work != Work::Idle);
            let detail = format!("{} notices, {wanted} expected", found.len());
            story.check(checks::NOTICES, member.subject(), found.len() == wanted, detail);
        }
        let native: Vec<String> = stage
            .telegram
            .sent()
            .into_iter()
            .filter(|m| !m.deleted && m.text.contains(NATIVE_TO_USER))
            .map(|m| m.text)
            .collect();
        story.check(checks::NATIVE_SILENT, "", native.is_empty(), format!("{native:?}"));
    }
}

impl Member {
    fn subject(&self) -> String {
        format!("chat {}", self.chat)
    }

    fn task(&self) -> String {
        format!("Please deploy for {}", self.chat)
    }

    fn word(&self) -> String {
        format!("Yes, {} says go on", self.chat)
    }

    fn done(&self) -> String {
        format!("All done for {}.", self.chat)
    }

    fn call_text(&self) -> String {
        format!("{} {}", self.call.name, self.call.arguments)
    }

    /// Whether a checkpoint holds exactly this call, unfinished.
    fn judge(&self, found: Option<&Value>, states: &[&str]) -> (bool, String) {
        let Some(found) = found else {
            return (false, format!("no {}", self.checkpoint.display()));
        };
        let last = &found["last_tool_call"];
        let state = found["state"].as_str().unwrap_or_default();
        // As text: the order of the keys counts, the model and the user read it.
        let (kept, made) = (last["arguments"].to_string(), self.call.arguments.to_string());
        let ok = last["name"] == self.call.name.as_str() && kept == made && states.contains(&state);
        (ok, format!("seq {}, state {state}, {} {}", found["seq"], last["name"], last["arguments"]))
    }

    async fn await_background(&self, stage: &Stage<'_>, story: &mut Story) -> Result<()> {
        let replied = |m: &SentMessage| m.chat == self.chat && m.text.contains("goes on");
        stage.telegram.wait_for("the reply", 0, TURN_MAX, replied).await?;
        until("the checkpoint's state background", TURN_MAX, || async {
            let found = checkpoint::read(&self.checkpoint).ok().flatten().unwrap_or_default();
            let state = found["state"].as_str().unwrap_or("missing").to_owned();
            if state == "background" { Ok(()) } else { Err(state) }
        })
        .await?;
        story.step("the command goes on in the background", self.subject());
        Ok(())
    }
}

fn is_notice(message: &SentMessage, call: &ToolCall) -> bool {
    // The answer to `/resume` has all of it but the first word.
    ["interrupted", "/resume", &call.name].iter().all(|word| message.text.contains(word))
}

fn notices(stage: &Stage<'_>, scene: &Scene, member: &Member) -> Vec<SentMessage> {
    let own = |m: &SentMessage| !m.deleted && m.chat == member.chat && is_notice(m, &member.call);
    stage.telegram.sent().into_iter().skip(scene.sent).filter(own).collect()
}
