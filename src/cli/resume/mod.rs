//! `tideover resume`: the facts of an interrupted action, then what a person says is done about it.

mod words;

use std::time::Duration;

use serde_json::{Value, json};

use crate::control::client::ClientError;
use crate::control::protocol::{ErrorCode, ResumeWord};
use crate::core::checkpoint::{AskedFrom, Checkpoint, SettledHow};
use crate::core::limits::SESSION_KEY_BYTES_MAX;
use crate::core::notice::Shown;
use crate::core::resume::{
    self, Choice, Decision, Facts, Refusal, Said, as_next_start, facts_text, is_unmarked,
    settle_at_rest,
};
use crate::core::session_kind::record_key;
use crate::store::records::to_bytes;
use crate::supervise::resume::{confirm_of, decision_name, facts_offline};

use super::args::{Global, Resume, ResumeChoice};
use super::context::{Context, environment, now};
use super::exit_code;
use super::output::{Failure, from_client, plain, print_json, print_line};
use super::sessions::{not_found, on_disk};
use super::wrapper::load;
use words::{Line, Next, began, nothing_done};

/// How long the supervisor may take: it looks at disk and /proc, and the gateway has to connect and take the turn.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest line of the facts.
const LINE_CHARS_MAX: usize = 1_000;

pub(super) fn run(global: &Global, resume: &Resume) -> Result<(), Failure> {
    let key = record_key(resume.key.as_str());
    if key.len() > SESSION_KEY_BYTES_MAX {
        return Err(not_found(key));
    }
    let context = Context::of(global)?;
    let asked = Asked { global, context: &context, key, choice: choice_of(&resume.choice) };
    match asked.ask(ResumeWord::Show) {
        Ok(shown) => asked.online(&shown),
        Err(ClientError::NotRunning { .. }) => asked.offline(),
        Err(error) => Err(from_client(error)),
    }
}

fn choice_of(choice: &ResumeChoice) -> Choice {
    match (choice.yes, choice.done, choice.skip) {
        (true, _, _) => Choice::Yes,
        (_, true, _) => Choice::Done,
        (_, _, true) => Choice::Skip,
        (false, false, false) => Choice::Ask,
    }
}

/// What one command line asks for.
struct Asked<'a> {
    global: &'a Global,
    context: &'a Context,
    key: &'a str,
    choice: Choice,
}

/// What is known before anything is done.
struct Known<'a> {
    asked: &'a Asked<'a>,
    running: bool,
    record: Checkpoint,
    facts: Facts,
    /// What `--yes` would lead to.
    yes: Decision,
}

impl Asked<'_> {
    fn ask(&self, word: ResumeWord) -> Result<Value, ClientError> {
        let request = json!({ "type": "resume", "key": self.key, "choice": word });
        self.context.ask_within(&request, PATIENCE)
    }

    /// With a supervisor: it alone decides.
    fn online(&self, shown: &Value) -> Result<(), Failure> {
        let known = Known {
            asked: self,
            running: true,
            record: serde_json::from_value(shown["session"].clone())?,
            facts: serde_json::from_value(shown["facts"].clone())?,
            yes: decided(&shown["yes"])?,
        };
        known.show();
        let word = match self.choice {
            Choice::Yes => ResumeWord::Yes,
            Choice::Done => ResumeWord::Done,
            Choice::Skip => ResumeWord::Skip,
            Choice::Ask => match decided(shown)? {
                Decision::Rerun | Decision::GoOn | Decision::Done | Decision::Skip => {
                    ResumeWord::Ask
                }
                asks @ (Decision::Confirm | Decision::Refuse(_)) => return known.tell(&asks, None),
            },
        };
        match self.ask(word) {
            Ok(answer) => known.tell(&decided(&answer)?, answer["run_id"].as_str()),
            Err(error) => Err(known.broken(error)),
        }
    }

    /// Without one: what can be read is shown, what can be recorded is recorded.
    fn offline(&self) -> Result<(), Failure> {
        let (_, _, record) = on_disk(self.context, self.key)?;
        let confirm = confirm_of(&load(&environment()).settings);
        let seen = as_next_start(&record, now());
        let facts = facts_offline(&seen);
        let said = |choice| Said {
            choice,
            code: None,
            from: AskedFrom::Shell,
            confirm,
            command: facts.command(),
        };
        let decide = |choice| resume::decide(&seen, &said(choice));
        let (decision, yes) = (decide(self.choice), decide(Choice::Yes));
        let known = Known { asked: self, running: false, record: seen, facts, yes };
        known.show();
        match decision {
            Decision::Confirm | Decision::Refuse(_) => known.tell(&decision, None),
            Decision::Rerun | Decision::GoOn => Err(known.needs_gateway(&decision)),
            Decision::Done => known.settle(&decision, SettledHow::Done),
            Decision::Skip => known.settle(&decision, SettledHow::Skipped),
        }
    }
}

/// A decision as the supervisor's answer names it.
fn decided(answer: &Value) -> Result<Decision, Failure> {
    let named =
        [Decision::Confirm, Decision::Rerun, Decision::GoOn, Decision::Done, Decision::Skip]
            .into_iter()
            .find(|decision| answer["decision"] == decision_name(decision));
    match named {
        Some(decision) => Ok(decision),
        None => Ok(Decision::Refuse(serde_json::from_value::<Refusal>(answer["refusal"].clone())?)),
    }
}

impl Known<'_> {
    fn text(&self) -> String {
        facts_text(&self.record, &self.facts, Shown::Everything)
    }

    /// The facts come before everything else; in a document they are a part of it.
    fn show(&self) {
        let text = self.text();
        if !self.asked.global.json {
            text.lines().for_each(|line| print_line(&plain(line, LINE_CHARS_MAX)));
        }
    }

    fn next(&self) -> Next<'_> {
        Next { global: self.asked.global, key: self.asked.key }
    }

    fn document(&self, decision: &Decision, run_id: Option<&str>) -> Value {
        let refusal = match decision {
            Decision::Refuse(refusal) => Some(refusal),
            Decision::Confirm
            | Decision::Rerun
            | Decision::GoOn
            | Decision::Done
            | Decision::Skip => None,
        };
        json!({
            "schema": "tideover.resume/1",
            "session_key": self.asked.key,
            "running": self.running,
            "decision": decision_name(decision),
            "refusal": refusal,
            "needs_confirmation": *decision == Decision::Confirm,
            "started": run_id.is_some(),
            "run_id": run_id,
            "text": self.text(),
            "facts": self.facts,
            "session": self.record,
            "next": [],
        })
    }

    /// Says what has come of it.
    fn tell(&self, decision: &Decision, run_id: Option<&str>) -> Result<(), Failure> {
        let Some(done) = began(decision, run_id.is_some()) else {
            let (code, why) = nothing_done(decision, self.asked.choice, &self.yes);
            let next = self.next().after(decision, &self.yes);
            return Err(self.failure(code, &why, &next, decision));
        };
        if self.asked.global.json {
            print_json(&self.document(decision, run_id));
            return Ok(());
        }
        print_line("");
        print_line(&done);
        if run_id.is_some() {
            let route = self.record.route.as_ref();
            print_line(&match route {
                Some(route) => format!("The answer goes to {}.", plain(&route.channel, 40)),
                None => "The answer stays in the session: it has no address.".to_owned(),
            });
            print_line(&format!("Follow it with: {}", self.next().show().command));
        }
        Ok(())
    }

    fn needs_gateway(&self, decision: &Decision) -> Failure {
        let why =
            "the gateway does not run, and only it can run a turn; start it, then say so again";
        let next = self.start_first();
        self.failure(exit_code::NOT_RUNNING, why, &next, decision)
    }

    fn start_first(&self) -> Vec<Line> {
        self.next().start_first(&self.asked.context.paths.profile, self.asked.choice)
    }

    /// Notes it on disk. Whoever starts meanwhile waits for the lease.
    fn settle(&self, decision: &Decision, how: SettledHow) -> Result<(), Failure> {
        let asked = self.asked;
        let _lease = asked.context.lease()?;
        let (directory, name, mut record) = on_disk(asked.context, asked.key)?;
        if is_unmarked(&record) {
            let why = "it was under way when the run before was killed, and is marked by the next start; start the \
                       gateway, then say so again";
            let next = self.start_first();
            return Err(self.failure(exit_code::REFUSED, why, &next, decision));
        }
        if record != self.record {
            let why = "it changed a moment ago; look again";
            let next = [self.next().say(Choice::Ask)];
            return Err(self.failure(exit_code::REFUSED, why, &next, decision));
        }
        settle_at_rest(&mut record, now(), how);
        directory.replace_one(&name, &to_bytes(&record))?;
        self.tell(decision, None)
    }

    /// The supervisor or the gateway did not do it.
    fn broken(&self, error: ClientError) -> Failure {
        let next = self.next();
        match &error {
            ClientError::Answer { code: Some(ErrorCode::NotDurable), message } => {
                let again = [next.say(self.asked.choice)];
                self.failure(exit_code::FAILED, message, &again, &self.yes)
            }
            ClientError::Io { .. } | ClientError::Garbled { .. } => {
                let why = format!("{error}; whether it was begun is not known");
                self.failure(exit_code::FAILED, &why, &[next.show()], &self.yes)
            }
            ClientError::NotRunning { .. } | ClientError::Answer { .. } => from_client(error),
        }
    }

    fn failure(&self, code: i32, why: &str, next: &[Line], decision: &Decision) -> Failure {
        let mut document = self.document(decision, None);
        document["next"] = next.iter().map(|line| line.command.as_str()).collect();
        document["error"] = json!(why);
        document["exit_code"] = json!(code);
        let colon = if next.is_empty() { "" } else { ":" };
        let lines: Vec<String> = next.iter().map(|line| format!("\n  {}", line.text())).collect();
        Failure::text(code, format!("{why}{colon}{}", lines.concat())).with(document)
    }
}
