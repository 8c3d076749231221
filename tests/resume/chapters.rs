//! One cut, ten users: each has another action interrupted, and each model cheats in its own way. Nothing but the
//! permitted call runs, once, with the bytes that it was cut with.

use std::path::PathBuf;

use serde_json::{Value, json};
use tideover::drill::checkpoint;
use tideover::drill::mock_model::{Gate, ModelRequest, Script, Step, ToolCall};
use tideover::drill::progress::until;
use tideover::drill::rig::{Rig, RigOptions, TURN_MAX};
use tideover::drill::work::Work;

use super::{asks, is_resumed_turn, replied};
use crate::support::incident::{behind_tideover, first_line, is_notice, kill_both, notices};
use crate::support::{Outcome, rig};

/// What is redacted.
const SECRET_KEY: &str = "secret";

/// One user, the work that is cut, and the words that tell its turns from others.
struct Person {
    chat: i64,
    name: &'static str,
    work: Work,
    call: ToolCall,
}

impl Person {
    fn new(rig: &Rig, chat: i64, name: &'static str) -> Outcome<Self> {
        let work = rig.work(name, chat)?;
        let call = work.call();
        Ok(Self { chat, name, work, call })
    }

    fn calling(mut self, call: ToolCall) -> Self {
        self.call = call;
        self
    }

    fn task(&self) -> String {
        format!("please do the {} job", self.name)
    }

    fn done(&self) -> String {
        format!("The {} story ends.", self.name)
    }

    fn asks_for_it(&self, rig: &Rig, then: impl IntoIterator<Item = Step>) {
        let steps = std::iter::once(Step::call(self.call.clone())).chain(then);
        rig.model.script(Script::marker(self.task(), steps));
        rig.send_user(self.chat, &self.task());
    }

    /// What the model does in the turn that `/resume` starts, and at last says.
    fn resumed(&self, rig: &Rig, steps: impl IntoIterator<Item = Step>) {
        let task = self.task();
        let own = move |r: &ModelRequest| is_resumed_turn(r) && r.turn_text().contains(&task);
        let end = Step::text(self.done());
        rig.model.script(Script::when(own, steps.into_iter().chain([end])));
    }

    async fn confirms(&self, rig: &Rig) -> Outcome {
        asks(rig, self.chat, "/resume", "/resume yes").await?;
        let sent = rig.telegram.mark();
        asks(rig, self.chat, "/resume yes", "Running it again").await?;
        replied(rig, self.chat, sent, &self.done()).await
    }

    /// Waits until the checkpoint says how it was dealt with.
    async fn settled(&self, rig: &Rig, how: &str) -> Outcome {
        let path = rig.checkpoint_path(self.chat);
        let look = || async {
            let found = checkpoint::read(&path).ok().flatten().unwrap_or_default();
            let cut = &found["interruption"];
            let ok = cut["settled"]["how"] == how
                && found["state"] == "idle"
                && cut["status"] == "released";
            if ok { Ok(()) } else { Err(format!("{}: {} {}", self.name, found["state"], cut)) }
        };
        Ok(until("a closed checkpoint", TURN_MAX, look).await?)
    }
}

/// A command that notes where it runs, then waits at a gate.
fn noting(rig: &Rig, name: &str) -> (ToolCall, PathBuf) {
    let dir = rig.home.work();
    let (notes, gate) = (dir.join(format!("{name}.notes")), dir.join(format!("{name}.gate")));
    let command = format!(
        "printf '%s|%s\\n' \"$PWD\" 'ü \"$x\"' >> '{}'; while [ ! -e '{}' ]; do sleep 0.05; done",
        notes.display(),
        gate.display()
    );
    (ToolCall::exec(command), notes)
}

/// No file makes a look last on both gateways: the report of its result is taken away, as a kill a moment earlier
/// would have.
fn without_its_result(path: &std::path::Path) -> Outcome {
    let mut record: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    record["state"] = json!("tool_running");
    record["last_tool_call"]["outcome"] = json!("unknown");
    record["last_tool_call"]["finished_at"] = Value::Null;
    Ok(std::fs::write(path, record.to_string())?)
}

async fn appears(path: &std::path::Path) -> Outcome {
    let look = || async { path.exists().then_some(()).ok_or_else(|| "not there".to_owned()) };
    Ok(until("the effect", TURN_MAX, look).await?)
}

fn lines(path: &std::path::Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

async fn all_chapters(version: &str) -> Outcome {
    let options = RigOptions {
        chats: (5001..=5010).collect(),
        config_patch: json!({"agents": {"defaults": {"maxConcurrent": 16}}}),
        ..behind_tideover(&format!("[checkpoint]\nredact = [\"{SECRET_KEY}\"]\n"))
    };
    let Some((mut rig, _slot)) = rig(version, options).await? else { return Ok(()) };
    let (noting_call, notes) = noting(&rig, "parameters");
    let fifo = |name: &str| rig.home.work().join(name);
    let (written, read) = (fifo("written.txt"), fifo("read.txt"));
    nix::unistd::mkfifo(&written, nix::sys::stat::Mode::S_IRWXU)?;
    std::fs::write(&read, "what was read at first")?;
    let content = "line 1\nü \"2\" \\ \u{2028} end";
    let write = ToolCall::new("write", json!({"path": written, "content": content}));
    let parameters = Person::new(&rig, 5001, "parameters")?.calling(noting_call.clone());
    let first = Person::new(&rig, 5002, "another-first")?;
    let twice = Person::new(&rig, 5003, "twice")?;
    let file = Person::new(&rig, 5004, "file")?.calling(write.clone());
    let reading = ToolCall::new("read", json!({"path": read}));
    let reader = Person::new(&rig, 5005, "reader")?.calling(reading.clone());
    let finished = Person::new(&rig, 5006, "finished")?;
    let died = Person::new(&rig, 5007, "died")?;
    let background = died.work.background_call();
    let died = died.calling(background);
    let redacted = Person::new(&rig, 5008, "redacted")?;
    let mut with_secret = redacted.call.clone();
    with_secret.arguments["env"] = json!({SECRET_KEY: "hunter2"});
    let redacted = redacted.calling(with_secret);
    let skipped = Person::new(&rig, 5009, "skipped")?;
    let anew = Person::new(&rig, 5010, "anew")?;

    // The cut.
    finished.work.open_gate()?;
    for person in [&parameters, &first, &twice, &file, &redacted, &skipped, &anew] {
        person.asks_for_it(&rig, []);
    }
    let hangs = || Step::Hang(Gate::default(), Box::new(Step::text("never said")));
    finished.asks_for_it(&rig, [hangs()]);
    reader.asks_for_it(&rig, [hangs()]);
    died.asks_for_it(&rig, [Step::text("It goes on in the background.")]);
    appears(&notes).await?;
    for person in [&first, &twice, &finished, &died, &redacted, &skipped, &anew] {
        person.work.await_effect(1).await?;
    }
    awaits(&rig, &file, |record| record["state"] == "tool_running").await?;
    for person in [&finished, &reader] {
        awaits(&rig, person, |record| record["last_tool_call"]["outcome"] == "ok").await?;
    }
    awaits(&rig, &died, |record| record["state"] == "background").await?;
    kill_both(&mut rig).await?;
    rig.model.clear();
    std::fs::remove_file(&written)?;
    without_its_result(&rig.checkpoint_path(reader.chat))?;
    std::fs::write(&read, "what was read at last")?;
    std::fs::write(rig.home.work().join("parameters.gate"), "")?;
    let people =
        [&parameters, &first, &twice, &file, &reader, &finished, &died, &redacted, &skipped, &anew];
    for person in people {
        person.work.open_gate()?;
    }
    let sent = rig.telegram.mark();
    rig.boot().await?;
    for person in people {
        let own =
            |m: &tideover::drill::mock_telegram::SentMessage| m.chat == person.chat && is_notice(m);
        rig.telegram
            .wait_for(&format!("the notice of {}", person.name), sent, TURN_MAX, own)
            .await?;
    }

    other_parameters(&rig, &parameters, &notes, &noting_call).await?;
    another_tool_first(&rig, &first).await?;
    the_call_twice(&rig, &twice).await?;
    file_is_written(&rig, &file, &written, content).await?;
    file_is_read(&rig, &reader).await?;
    a_finished_call(&rig, &finished).await?;
    a_command_that_died(&rig, &died).await?;
    a_redacted_call(&rig, &redacted).await?;
    a_dropped_call(&rig, &skipped).await?;
    begun_anew(&rig, &anew, sent).await
}

async fn awaits(rig: &Rig, person: &Person, wanted: impl Fn(&Value) -> bool) -> Outcome {
    let what = format!("the record of {}", person.name);
    crate::support::incident::record_when(rig, &what, person.chat, wanted).await?;
    Ok(())
}

/// The model gives other arguments, and one key more: what was cut runs.
async fn other_parameters(
    rig: &Rig,
    person: &Person,
    notes: &std::path::Path,
    cut: &ToolCall,
) -> Outcome {
    let other = rig.home.work().join("cheated");
    let mut cheat = cut.clone();
    cheat.arguments = json!({
        "command": format!("touch {}", other.display()), "workdir": "/", "yieldMs": 120_000,
    });
    person.resumed(rig, [Step::call(cheat)]);
    person.confirms(rig).await?;
    person.settled(rig, "rerun").await?;
    let lines = lines(notes);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], lines[1], "not the same bytes, or another directory");
    assert!(!other.exists(), "the model's own command ran");
    Ok(())
}

/// Another tool before the permitted one is held.
async fn another_tool_first(rig: &Rig, person: &Person) -> Outcome {
    let cheated = rig.home.work().join("cheated-first.txt");
    let write = ToolCall::new("write", json!({"path": cheated, "content": "x"}));
    // Its user has spoken before, and has been answered: the hold is lifted, and the call still unknown.
    rig.plain_turn(person.chat, "what happened?", "I was cut.").await?;
    awaits(rig, person, |record| record["interruption"]["model_told"] == true).await?;
    let asked = rig.model.seen();
    person.resumed(rig, [Step::call(write), Step::call(person.call.clone())]);
    person.confirms(rig).await?;
    person.settled(rig, "rerun").await?;
    assert_eq!(person.work.runs(), 2);
    assert!(!cheated.exists(), "a tool ran before the permitted one");
    let told = |r: &ModelRequest| r.contains("the user asked for the interrupted call of `exec`");
    assert!(rig.model.requests_from(asked).iter().any(told), "the model was not told why");
    Ok(())
}

/// The permitted call twice in parallel, and once more after it.
async fn the_call_twice(rig: &Rig, person: &Person) -> Outcome {
    // In its own words, too: those ran as the recorded ones before, for all that it knows.
    let mut own = person.call.clone();
    own.arguments["workdir"] = json!("/");
    let both = Step::Calls(vec![own.clone(), person.call.clone()]);
    person.resumed(rig, [both, Step::call(own)]);
    person.confirms(rig).await?;
    person.settled(rig, "rerun").await?;
    assert_eq!(person.work.runs(), 2, "a second call ran");
    Ok(())
}

async fn file_is_written(
    rig: &Rig,
    person: &Person,
    path: &std::path::Path,
    content: &str,
) -> Outcome {
    // The facts name the file, which is not there.
    asks(rig, person.chat, "/resume", "Not there now").await?;
    let other = ToolCall::new("write", json!({"path": path, "content": "something else"}));
    person.resumed(rig, [Step::call(other)]);
    person.confirms(rig).await?;
    person.settled(rig, "rerun").await?;
    assert_eq!(std::fs::read_to_string(path)?, content);
    Ok(())
}

async fn file_is_read(rig: &Rig, person: &Person) -> Outcome {
    asks(rig, person.chat, "/resume", "Changed since").await?;
    let asked = rig.model.seen();
    person.resumed(rig, [Step::call(person.call.clone())]);
    person.confirms(rig).await?;
    person.settled(rig, "rerun").await?;
    let result = |r: &ModelRequest| r.contains("what was read at last");
    assert!(rig.model.requests_from(asked).iter().any(result), "the model has no result");
    Ok(())
}

/// It has finished: the task goes on from its result, and a model that runs it again is refused.
async fn a_finished_call(rig: &Rig, person: &Person) -> Outcome {
    person.resumed(rig, [Step::call(person.call.clone())]);
    let sent = rig.telegram.mark();
    asks(rig, person.chat, "/resume", "nothing is run again").await?;
    replied(rig, person.chat, sent, &person.done()).await?;
    person.settled(rig, "went_on").await?;
    assert_eq!(person.work.runs(), 1, "a finished call ran again");
    asks(rig, person.chat, "/resume yes", "Nothing is left to resume").await?;
    Ok(())
}

async fn a_command_that_died(rig: &Rig, person: &Person) -> Outcome {
    person.resumed(rig, [Step::call(person.call.clone())]);
    person.confirms(rig).await?;
    until("a record that is settled", TURN_MAX, || async {
        let found =
            checkpoint::read(&rig.checkpoint_path(person.chat)).ok().flatten().unwrap_or_default();
        let how = found["interruption"]["settled"]["how"].to_string();
        if how == "\"rerun\"" { Ok(()) } else { Err(how) }
    })
    .await?;
    person.work.await_effect(2).await?;
    assert_eq!(person.work.runs(), 2);
    Ok(())
}

async fn a_redacted_call(rig: &Rig, person: &Person) -> Outcome {
    let asked = rig.model.seen();
    asks(rig, person.chat, "/resume", "was never stored (checkpoint.redact)").await?;
    asks(rig, person.chat, "/resume yes", "It cannot be run again").await?;
    assert!(!rig.model.requests_from(asked).iter().any(is_resumed_turn), "a turn was started");
    assert_eq!(person.work.runs(), 1);
    // It has happened: the task goes on.
    person.resumed(rig, []);
    let sent = rig.telegram.mark();
    asks(rig, person.chat, "/resume done", "Recorded as done").await?;
    replied(rig, person.chat, sent, &person.done()).await?;
    person.settled(rig, "done").await
}

async fn a_dropped_call(rig: &Rig, person: &Person) -> Outcome {
    asks(rig, person.chat, "/resume list", &person.task()).await?;
    asks(rig, person.chat, "/resume skip", "Dropped").await?;
    person.settled(rig, "skipped").await?;
    asks(rig, person.chat, "/resume list", "No session of yours is interrupted").await?;
    // The model learns of it with the user's next word.
    rig.model.script(Script::marker("what now", [Step::text("Dropped, I see.")]));
    let asked = rig.model.seen();
    rig.send_user(person.chat, "what now");
    let own = |r: &ModelRequest| r.turn_text().contains("what now") && !r.tools.is_empty();
    let request = rig.model.wait_for("the user's turn", asked, TURN_MAX, own).await?;
    assert!(request.contains("The user has dropped it: do not run it again."));
    assert_eq!(person.work.runs(), 1);
    Ok(())
}

/// A person who begins anew has said all there is to say.
async fn begun_anew(rig: &Rig, person: &Person, sent: usize) -> Outcome {
    asks(rig, person.chat, "/new", "New session started").await?;
    awaits(rig, person, |record| record["interruption"]["settled"]["how"] == "closed").await?;
    asks(rig, person.chat, "/resume", "Nothing was interrupted here").await?;
    let asked = rig.model.seen();
    rig.plain_turn(person.chat, "hello again", "All is new.").await?;
    for request in rig.model.requests_from(asked) {
        assert!(!request.contains(&first_line(&person.call)), "{:?}", request.turn_text());
    }
    asks(rig, person.chat, "/resume yes", "Nothing was interrupted here").await?;
    awaits(rig, person, |record| record["interruption"].get("orphaned").is_none()).await?;
    assert_eq!(notices(rig, sent, person.chat), 1, "a further notice");
    assert_eq!(person.work.runs(), 1);
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_9_6() -> Outcome {
    all_chapters("2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn on_2026_5_5() -> Outcome {
    all_chapters("2026.5.5").await
}
