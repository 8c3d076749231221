//! The parts of an incident that the tests beyond the rehearsals share: what stands in front, what
//! a user and a model are told, and when tideover has handed off.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tideover::drill::checkpoint;
use tideover::drill::gateway_proc::Target;
use tideover::drill::mock_model::{ModelRequest, ToolCall};
use tideover::drill::mock_telegram::SentMessage;
use tideover::drill::processes::Signal;
use tideover::drill::progress::until;
use tideover::drill::rig::{Front, Rig, RigOptions, TURN_MAX};

use super::Outcome;

/// The user of most tests.
pub(crate) const CHAT: i64 = 4242;
/// How the gateway's own recovery speaks to its user and to its model.
pub(crate) const NATIVE_TO_USER: &str = "continuing your interrupted request";
pub(crate) const NATIVE_TO_MODEL: &str = "[System] Your previous turn was interrupted";
/// What every text of ours to the model begins with.
pub(crate) const OURS_TO_MODEL: &str = "Session was interrupted. Last action:";
/// Longest that tideover may take to hand off once the gateway is ready.
const HANDED_OFF_MAX: Duration = Duration::from_secs(60);
/// Longest that a killed process may take to be gone.
const END_MAX: Duration = Duration::from_secs(10);

/// 2026.9.6 leaves its channels off after three unclean boots within five minutes: those of before were long ago.
const LONG_AGO: &str = "const {DatabaseSync} = require('node:sqlite'); new DatabaseSync(process.argv[1], {timeout: 15000}).exec(\
    'UPDATE gateway_boot_lifecycle SET started_at_ms = started_at_ms - 600000')";

/// Has the unclean boots so far forgotten, while the gateway is down.
pub(crate) async fn boots_were_long_ago(rig: &Rig) -> Outcome {
    let database = rig.home.state().join("state/openclaw.sqlite");
    if database.exists() {
        let node = rig.gateway.node.clone();
        rig.run(&[node.into(), "-e".into(), LONG_AGO.into(), database.into()]).await?;
    }
    Ok(())
}

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    env!("CARGO_BIN_EXE_tideover").into()
}

/// A rig with tideover in front, under this configuration of its own.
pub(crate) fn behind_tideover(config: &str) -> RigOptions {
    RigOptions {
        front: Front::Tideover(binary()),
        tideover_config: (!config.is_empty()).then(|| config.to_owned()),
        ..RigOptions::default()
    }
}

/// Runs a verb of tideover in the rig's home and returns its stdout.
pub(crate) async fn tideover(rig: &Rig, words: &[&str]) -> Outcome<String> {
    let argv: Vec<OsString> =
        std::iter::once(binary().into()).chain(words.iter().map(OsString::from)).collect();
    Ok(rig.run(&argv).await?)
}

/// What `tideover status` says.
pub(crate) async fn status(rig: &Rig) -> Outcome<Value> {
    Ok(serde_json::from_str(&tideover(rig, &["status", "--json"]).await?)?)
}

/// Waits until tideover is only a parent and a listener.
pub(crate) async fn handed_off(rig: &Rig) -> Outcome {
    Ok(until("the hand-off", HANDED_OFF_MAX, || async {
        match status(rig).await {
            Ok(status) if status["phase"] == "handed off" => Ok(()),
            Ok(status) => Err(format!("{} {}", status["phase"], status["outbox"])),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?)
}

/// A chat's checkpoint, which must be there.
pub(crate) fn record(rig: &Rig, chat: i64) -> Outcome<Value> {
    let path = rig.checkpoint_path(chat);
    Ok(checkpoint::read(&path)?.ok_or_else(|| format!("no {}", path.display()))?)
}

/// Waits until a chat's checkpoint looks as `wanted`.
pub(crate) async fn record_when(
    rig: &Rig,
    what: &str,
    chat: i64,
    wanted: impl Fn(&Value) -> bool,
) -> Outcome<Value> {
    let path = rig.checkpoint_path(chat);
    let look = || async {
        let found = checkpoint::read(&path).map_err(|error| error.to_string())?;
        let found = found.ok_or_else(|| "no checkpoint".to_owned())?;
        if wanted(&found) { Ok(found) } else { Err(found.to_string()) }
    };
    Ok(until(what, TURN_MAX, look).await?)
}

/// The promised first line about a call.
pub(crate) fn first_line(call: &ToolCall) -> String {
    format!("{OURS_TO_MODEL} {} {}. Continue only if user confirms.", call.name, call.arguments)
}

/// Whether a message is tideover's notice.
pub(crate) fn is_notice(message: &SentMessage) -> bool {
    message.text.contains("Your task was interrupted")
        || message.text.contains("tasks were interrupted")
}

/// Whether a message is the question after a model that went on calling held tools.
pub(crate) fn is_question(message: &SentMessage) -> bool {
    message.text.contains("I stopped here: this task was interrupted before")
}

/// What a chat has got since a mark, deleted messages left out.
pub(crate) fn got(rig: &Rig, from: usize, chat: i64) -> Vec<SentMessage> {
    let own = |m: &SentMessage| m.chat == chat && !m.deleted;
    rig.telegram.sent().into_iter().skip(from).filter(own).collect()
}

/// How many of them are notices.
pub(crate) fn notices(rig: &Rig, from: usize, chat: i64) -> usize {
    got(rig, from, chat).iter().filter(|m| is_notice(m)).count()
}

/// Whether a request belongs to the gateway's own recovery turn.
pub(crate) fn is_native_turn(request: &ModelRequest) -> bool {
    request.turn_text().contains(NATIVE_TO_MODEL)
}

/// `kill -9` of the gateway; returns when tideover, having seen it, is gone as well.
pub(crate) async fn kill_gateway(rig: &mut Rig) -> Outcome {
    let proc = rig.proc()?;
    proc.signal(Target::Gateway, Signal::KILL)?;
    proc.exited(END_MAX).await?;
    Ok(())
}

/// `kill -9` of both: what was cut is found and marked at the next start, under its configuration.
pub(crate) async fn kill_both(rig: &mut Rig) -> Outcome {
    let proc = rig.proc()?;
    proc.gateway_pid()?;
    proc.signal(Target::Command, Signal::KILL)?;
    proc.signal(Target::Gateway, Signal::KILL)?;
    proc.exited(END_MAX).await?;
    proc.kill_all();
    Ok(())
}

/// A stop in good order.
pub(crate) async fn stop(rig: &mut Rig) -> Outcome {
    let proc = rig.proc()?;
    proc.signal(Target::Command, Signal::TERM)?;
    proc.exited(Duration::from_secs(60)).await?;
    Ok(())
}
