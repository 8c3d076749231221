//! Sessions with no user to ask, cut on both gateways: marked, told of once to whom they work for, and held until that
//! is lifted at a shell, or left to the gateway.

use std::ffi::OsString;

use crate::support::incident::{
    CHAT, behind_tideover, got, handed_off, kill_both, kill_gateway, record_when, status, tideover,
};
use crate::support::{Outcome, rig};
use serde_json::{Value, json};
use tideover::drill::home::DmScope;
use tideover::drill::mock_model::{ModelRequest, Script, Step, ToolCall};
use tideover::drill::mock_telegram::SentMessage;
use tideover::drill::progress::until;
use tideover::drill::rig::{Rig, RigOptions, TURN_MAX};
use tideover::drill::work::Work;

/// Whom the configuration names as the owner.
const OWNER: i64 = 4343;
/// What the scheduled job is to do.
const TASK: &str = "please do the nightly job";

/// The gateway's own command line, with its JSON.
async fn gateway_cli(rig: &Rig, words: &[&str]) -> Outcome<Value> {
    let program: [OsString; 2] =
        [rig.gateway.node.clone().into(), rig.gateway.entry.clone().into()];
    let argv: Vec<OsString> = program.into_iter().chain(words.iter().map(OsString::from)).collect();
    let out = rig.run(&argv).await?;
    let json = out.find('{').and_then(|at| out.get(at..)).unwrap_or_default();
    Ok(serde_json::from_str(json).map_err(|error| format!("{error}: {out}"))?)
}

/// A job that only a run by hand starts. Returns its id.
async fn add_job(rig: &Rig) -> Outcome<String> {
    let words = [
        "cron",
        "add",
        "--name",
        "nightly",
        "--every",
        "24h",
        "--session",
        "isolated",
        "--message",
        TASK,
        "--no-deliver",
        "--json",
    ];
    let job = gateway_cli(rig, &words).await?;
    Ok(job["id"].as_str().ok_or_else(|| format!("no id: {job}"))?.to_owned())
}

async fn run_job(rig: &Rig, job: &str) -> Outcome {
    let answer = gateway_cli(rig, &["cron", "run", job]).await?;
    assert_eq!(answer["ok"], true, "{answer}");
    Ok(())
}

/// The session of the job as `tideover sessions list` shows it.
async fn listed(rig: &Rig, key: &str) -> Outcome<Value> {
    let listed: Value =
        serde_json::from_str(&tideover(rig, &["sessions", "list", "--json"]).await?)?;
    let all = listed["sessions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|session| session["session_key"] == key).cloned();
    let keys: Vec<&Value> = all.iter().map(|session| &session["session_key"]).collect();
    Ok(found.ok_or_else(|| format!("no {key} among {keys:?}"))?)
}

async fn listed_when(
    rig: &Rig,
    what: &str,
    key: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Outcome<Value> {
    let look = || async {
        let session = listed(rig, key).await.map_err(|error| error.to_string())?;
        if wanted(&session) { Ok(session) } else { Err(session.to_string()) }
    };
    Ok(until(what, TURN_MAX, look).await?)
}

fn is_about_the_job(message: &SentMessage) -> bool {
    message.text.contains("A scheduled job was interrupted")
}

fn of_the_job(request: &ModelRequest) -> bool {
    request.turn_text().contains(TASK)
}

/// The job runs, and is in its tool.
async fn in_its_tool(rig: &Rig, job: &str, work: &Work) -> Outcome {
    rig.model.clear();
    rig.model.script(Script::when(of_the_job, [Step::call(work.call())]));
    let runs = work.runs();
    run_job(rig, job).await?;
    work.await_effect(runs + 1).await?;
    Ok(())
}

/// A run of the job to its end. Returns what the model read in its last request.
async fn to_its_end(rig: &Rig, job: &str, work: &Work) -> Outcome<ModelRequest> {
    rig.model.clear();
    work.open_gate()?;
    let steps = [Step::call(work.call()), Step::text("That was it.")];
    rig.model.script(Script::when(of_the_job, steps));
    let seen = rig.model.seen();
    run_job(rig, job).await?;
    let answered = |r: &ModelRequest| of_the_job(r) && !r.turn_tool_results().is_empty();
    Ok(rig.model.wait_for("the tool's answer", seen, TURN_MAX, answered).await?)
}

/// The default: held over the next run, told of where the main session's person is, released at a shell.
async fn a_cut_job_is_held(rig: &mut Rig, job: &str, key: &str) -> Outcome {
    let work = rig.work("held", CHAT)?;
    in_its_tool(rig, job, &work).await?;
    kill_gateway(rig).await?;
    rig.model.clear();
    let sent = rig.telegram.mark();
    rig.boot().await?;
    let notice = rig.telegram.wait_for("the notice", sent, TURN_MAX, is_about_the_job).await?;
    assert_eq!(notice.chat, CHAT);
    assert!(notice.text.contains(&format!("tideover sessions release '{key}'")), "{}", notice.text);
    assert!(!notice.text.contains("Reply to go on"), "{}", notice.text);
    assert!(notice.text.contains(&format!("Task: nightly: {TASK}\n")), "{}", notice.text);
    handed_off(rig).await?;

    let session = listed(rig, key).await?;
    assert_eq!(session["kind"], "cron", "{session}");
    assert_eq!(session["interruption"]["status"], "held", "{session}");
    assert_eq!(session["interruption"]["notice"], "sent", "{session}");
    assert_eq!(status(rig).await?["sessions"]["unattended"][0], key);

    // What a person says elsewhere is no word about the job.
    rig.plain_turn(CHAT, "are you there?", "I am here.").await?;
    let runs = work.runs();
    let held = to_its_end(rig, job, &work).await?;
    assert!(held.turn_tool_results().iter().any(|text| text.contains("Not run:")), "{held:?}");
    assert_eq!(work.runs(), runs, "an effect of a held job");
    let at_rest = |session: &Value| session["state"] == "idle";
    let session = listed_when(rig, "the end of the held run", key, at_rest).await?;
    assert_eq!(session["interruption"]["status"], "held", "{session}");

    tideover(rig, &["sessions", "release", key]).await?;
    let free = to_its_end(rig, job, &work).await?;
    assert!(free.turn_tool_results().iter().any(|text| text.contains("done")), "{free:?}");
    assert!(!free.contains("Continue only if user confirms"), "{free:?}");
    assert_eq!(work.runs(), runs + 1);
    listed_when(rig, "the end of the free run", key, at_rest).await?;
    let notices = got(rig, sent, CHAT).iter().filter(|m| is_about_the_job(m)).count();
    assert_eq!(notices, 1);
    Ok(())
}

/// `unattended = "native"`, and an owner by configuration.
async fn a_cut_job_is_left_to_the_gateway(rig: &mut Rig, job: &str, key: &str) -> Outcome {
    let work = rig.work("left", CHAT)?;
    in_its_tool(rig, job, &work).await?;
    rig.home.write_tideover_config(&format!(
        "[recovery]\nunattended = \"native\"\n[notice.owner]\nchannel = \"telegram\"\nto = \"{OWNER}\"\n"
    ))?;
    kill_both(rig).await?;
    rig.model.clear();
    let sent = rig.telegram.mark();
    rig.boot().await?;
    let notice = rig.telegram.wait_for("the notice", sent, TURN_MAX, is_about_the_job).await?;
    assert_eq!(notice.chat, OWNER);
    assert!(notice.text.contains("Nothing of it is held"), "{}", notice.text);
    handed_off(rig).await?;
    let session = listed(rig, key).await?;
    assert_eq!(session["interruption"]["status"], "released", "{session}");
    assert_eq!(session["interruption"]["released_by"], "policy", "{session}");
    let runs = work.runs();
    let free = to_its_end(rig, job, &work).await?;
    assert!(free.turn_tool_results().iter().any(|text| text.contains("done")), "{free:?}");
    assert_eq!(work.runs(), runs + 1);
    for (chat, count) in [(OWNER, 1), (CHAT, 0)] {
        let notices = got(rig, sent, chat).iter().filter(|m| is_about_the_job(m)).count();
        assert_eq!(notices, count, "{chat}");
    }
    Ok(())
}

async fn a_scheduled_job(version: &str) -> Outcome {
    let options = RigOptions { dm_scope: DmScope::Main, ..behind_tideover("") };
    let Some((mut rig, _slot)) = rig(version, options).await? else { return Ok(()) };
    rig.plain_turn(CHAT, "hello", "Hello to you.").await?;
    let job = add_job(&rig).await?;
    let key = format!("agent:main:cron:{job}");
    a_cut_job_is_held(&mut rig, &job, &key).await?;
    // Nothing in it is the gateway's: once is enough, on the one that starts faster.
    if version == "2026.5.5" {
        a_cut_job_is_left_to_the_gateway(&mut rig, &job, &key).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn a_scheduled_job_on_2026_9_6() -> Outcome {
    a_scheduled_job("2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn a_scheduled_job_on_2026_5_5() -> Outcome {
    a_scheduled_job("2026.5.5").await
}

/// A sub-agent of one user's session: told to that user alone, held whatever the gateway does with it by itself. A job
/// beside it works for neither of the two users, so neither is told.
async fn a_sub_agent(version: &str, config_patch: Value) -> Outcome {
    let options = RigOptions { config_patch, ..behind_tideover("") };
    let Some((mut rig, _slot)) = rig(version, options).await? else { return Ok(()) };
    rig.plain_turn(OWNER, "hello", "Hello to you.").await?;
    let work = rig.work("dig", CHAT)?;
    let of_the_child = |request: &ModelRequest| request.contains("dig the tunnel");
    rig.model.script(Script::when(of_the_child, [Step::call(work.call())]));
    let spawn = ToolCall::new("sessions_spawn", json!({"task": "dig the tunnel"}));
    let steps = [Step::call(spawn), Step::text("It is being dug.")];
    rig.model.script(Script::marker("have it dug", steps));
    rig.send_user(CHAT, "have it dug");
    work.await_effect(1).await?;
    rig.telegram
        .wait_for("the answer", 0, TURN_MAX, |m| m.text.contains("It is being dug."))
        .await?;
    record_when(&rig, "a session at rest", CHAT, |record| record["state"] == "idle").await?;
    let (job, nightly) = (add_job(&rig).await?, rig.work("nightly", CHAT)?);
    in_its_tool(&rig, &job, &nightly).await?;
    kill_gateway(&mut rig).await?;

    // Whoever runs it again would dig again.
    rig.model.clear();
    rig.model.script(Script::when(of_the_child, [Step::call(work.call())]).insisting());
    work.open_gate()?;
    let sent = rig.telegram.mark();
    rig.boot().await?;
    let is_about_it = |m: &SentMessage| m.text.contains("A sub-agent was interrupted");
    let notice = rig.telegram.wait_for("the notice", sent, TURN_MAX, is_about_it).await?;
    assert_eq!(notice.chat, CHAT);
    handed_off(&rig).await?;
    let sessions = status(&rig).await?["sessions"].clone();
    let job = format!("agent:main:cron:{job}");
    assert_eq!(sessions["no_route"], json!([job]), "{sessions}");
    assert_eq!(sessions["unattended"][0], job.as_str(), "{sessions}");
    assert_eq!(listed(&rig, &job).await?["interruption"]["notice"], "no_route");
    let log = rig.proc()?.log_text();
    assert!(log.contains("has no route to a person"), "{log}");
    let key = sessions["unattended"][1].as_str().ok_or_else(|| sessions.to_string())?.to_owned();
    assert!(key.contains(":subagent:"), "{key}");
    assert_eq!(listed(&rig, &key).await?["kind"], "sub-agent");

    // The user's own word goes to the session that the sub-agent works for, and is none about its hold.
    rig.plain_turn(CHAT, "how far is it?", "Not very far.").await?;
    assert_eq!(listed(&rig, &key).await?["interruption"]["status"], "held");
    assert_eq!(work.runs(), 1, "an effect of a held sub-agent");
    tideover(&rig, &["sessions", "release", &key]).await?;
    assert_eq!(status(&rig).await?["sessions"]["unattended"], json!([job]));
    for (chat, count) in [(CHAT, 1), (OWNER, 0)] {
        let all = got(&rig, sent, chat);
        assert_eq!(all.iter().filter(|m| is_about_it(m)).count(), count, "{chat}");
        assert_eq!(all.iter().filter(|m| is_about_the_job(m)).count(), 0, "{chat}");
    }
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn a_sub_agent_on_2026_9_6() -> Outcome {
    // It offers most tools behind a search else.
    a_sub_agent("2026.9.6", json!({"tools": {"toolSearch": false}})).await
}

#[tokio::test(flavor = "current_thread")]
async fn a_sub_agent_on_2026_5_5() -> Outcome {
    a_sub_agent("2026.5.5", Value::Null).await
}
