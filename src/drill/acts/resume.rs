//! The user's word is `/resume`: asked for first, then once, with the parameters of the cut call.

use crate::drill::checkpoint;
use crate::drill::error::Result;
use crate::drill::mock_model::{ModelRequest, Script, Step, ToolCall};
use crate::drill::mock_telegram::SentMessage;
use crate::drill::progress::until;
use crate::drill::rig::TURN_MAX;
use crate::drill::stage::Stage;
use crate::drill::story::{Story, checks};

use super::{Cast, Member, OURS_TO_MODEL};

/// How the turn begins that `/resume yes` starts.
const RESUMED_TO_MODEL: &str = "The user has confirmed with /resume.";
/// How a `/resume yes` is answered that runs something, and one that does not.
const RUNS_AGAIN: &str = "Running it again";
const NOTHING_LEFT: &str = "Nothing is left to resume";

impl Cast {
    /// The user asks what is left, confirms, and confirms once more; the model is given a chance to
    /// run something else, and to run it twice.
    ///
    /// # Errors
    /// When a command is not answered, or its turn does not begin.
    pub async fn act_resume(&self, stage: &Stage<'_>, story: &mut Story) -> Result<()> {
        stage.model.clear();
        for member in &self.members {
            member.asks_first(stage, story).await?;
            member.confirms(stage, story).await?;
            member.confirms_again(stage, story).await?;
        }
        Ok(())
    }
}

impl Member {
    /// The user writes a command; its answer, which holds `expected`.
    async fn says(&self, stage: &Stage<'_>, command: &str, expected: &str) -> Result<SentMessage> {
        let sent = stage.telegram.mark();
        stage.send_user(self.chat, command);
        let what = format!("the answer to {command} with {expected:?}");
        let answer = |m: &SentMessage| m.chat == self.chat && m.text.contains(expected);
        stage.telegram.wait_for(&what, sent, TURN_MAX, answer).await
    }

    async fn asks_first(&self, stage: &Stage<'_>, story: &mut Story) -> Result<()> {
        let (asked, runs) = (stage.model.seen(), self.work.runs());
        let answer = self.says(stage, "/resume", "Last action:").await?.text;
        story.step("the user asks: /resume", &answer);
        let task = format!("Task: {}", self.task());
        let facts = [&task, &self.call.name, "Outcome: unknown", "/resume yes"];
        let missing: Vec<_> = facts.into_iter().filter(|fact| !answer.contains(*fact)).collect();
        let (asked, ran) = (stage.model.seen() - asked, self.work.runs() - runs);
        let detail = format!("not named: {missing:?}; {asked} requests, {ran} effects");
        let ok = missing.is_empty() && asked == 0 && ran == 0;
        story.check(checks::RESUME_ASKED_FIRST, self.subject(), ok, detail);
        Ok(())
    }

    async fn confirms(&self, stage: &Stage<'_>, story: &mut Story) -> Result<()> {
        self.work.open_gate()?;
        self.work.forget_snapshot()?;
        let (runs, done, task) = (self.work.runs(), self.done(), self.task());
        let elsewhere = stage.work.join(format!("w{}.elsewhere", self.chat));
        let other = ToolCall::exec(format!("touch {}", elsewhere.display()));
        let steps = [Step::call(other), Step::call(self.call.clone()), Step::text(&done)];
        let own = move |r: &ModelRequest| {
            let said = r.turn_text();
            !r.tools.is_empty() && said.contains(RESUMED_TO_MODEL) && said.contains(&task)
        };
        stage.model.script(Script::when(own.clone(), steps));
        let (asked, sent) = (stage.model.seen(), stage.telegram.mark());
        let answer = self.says(stage, "/resume yes", RUNS_AGAIN).await?;
        story.step("the user confirms: /resume yes", answer.text);
        let request = stage.model.wait_for("the resumed turn", asked, TURN_MAX, own).await?;
        let (ok, detail) = self.judge_resumed(&request);
        story.check(checks::RESUME_TOLD, self.subject(), ok, detail);

        self.work.await_effect(runs + 1).await?;
        story.step("the call runs again", self.call_text());
        let found = self.work.checkpoint_before_effect()?;
        let (ok, detail) = self.judge(found.as_ref(), &["tool_running"]);
        story.check(checks::RESUME_IDENTICAL, self.subject(), ok, detail);

        let last = |m: &SentMessage| m.chat == self.chat && m.text.contains(&done);
        let reply = stage.telegram.wait_for("the model's last word", sent, TURN_MAX, last).await;
        let detail = reply.as_ref().map_or_else(ToString::to_string, |m| m.text.clone());
        story.check(checks::RESUME_ENDED, self.subject(), reply.is_ok(), detail);
        self.await_closed().await?;
        let (again, strange) = (self.work.runs() - runs, elsewhere.exists());
        let detail = format!("{again} more effects; the model's own command ran: {strange}");
        story.check(checks::RESUME_ONCE, self.subject(), again == 1 && !strange, detail);
        Ok(())
    }

    async fn confirms_again(&self, stage: &Stage<'_>, story: &mut Story) -> Result<()> {
        let (asked, runs) = (stage.model.seen(), self.work.runs());
        let answer = self.says(stage, "/resume yes", NOTHING_LEFT).await;
        let told = answer.as_ref().map_or_else(ToString::to_string, |m| m.text.clone());
        story.step("the user confirms once more: /resume yes", &told);
        let (asked, ran) = (stage.model.seen() - asked, self.work.runs() - runs);
        let detail = format!("{told}; {asked} requests, {ran} effects");
        let ok = answer.is_ok() && asked == 0 && ran == 0;
        story.check(checks::RESUME_SPENT, self.subject(), ok, detail);
        Ok(())
    }

    /// The line about the cut call opens the turn. It is a message to the gateway here, and before
    /// those the gateway puts the time: "[Sun 2026-11-22 18:46 UTC] ".
    fn judge_resumed(&self, request: &ModelRequest) -> (bool, String) {
        let wanted =
            format!("{OURS_TO_MODEL} {}. Continue only if user confirms.", self.call_text());
        let said = request.turn_text();
        let found = said.lines().find(|line| line.contains(OURS_TO_MODEL)).unwrap_or_default();
        let bare = found.strip_prefix('[').and_then(|rest| rest.split_once("] "));
        let bare = bare.map_or(found, |(_, bare)| bare);
        if bare == wanted { (true, wanted) } else { (false, format!("{wanted:?}, not {found:?}")) }
    }

    /// Waits until the turn is over for tideover, too: until then a word is answered with that.
    async fn await_closed(&self) -> Result<()> {
        until("the end of the resume in the checkpoint", TURN_MAX, || async {
            let found = checkpoint::read(&self.checkpoint).ok().flatten().unwrap_or_default();
            let (stage, state) = (&found["interruption"]["resume"]["stage"], &found["state"]);
            let closed = stage == "ended" && state == "idle";
            if closed { Ok(()) } else { Err(format!("resume {stage}, state {state}")) }
        })
        .await
    }
}
