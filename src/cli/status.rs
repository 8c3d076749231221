//! `tideover status`: from the running supervisor, or from disk when none runs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::control::client::ClientError;
use crate::supervise::offline_status;

use super::args::{Global, Status};
use super::context::Context;
use super::output::{Failure, from_client, plain, print_json, print_line};

/// Pause between two prints of `--watch`.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

pub(super) fn run(global: &Global, status: &Status) -> Result<(), Failure> {
    let context = Context::of(global)?;
    loop {
        let document = match context.ask(&json!({ "type": "status" })) {
            Ok(document) => document,
            Err(ClientError::NotRunning { .. }) => offline_status(&context.layout),
            Err(error) => return Err(from_client(error)),
        };
        if global.json {
            print_json(&document);
        } else {
            print_line(&render(&document));
        }
        if !status.watch {
            return Ok(());
        }
        std::thread::sleep(WATCH_PAUSE);
    }
}

fn render(status: &Value) -> String {
    let text = |pointer: &str| {
        status.pointer(pointer).filter(|value| !value.is_null()).map_or_else(
            || "unknown".to_owned(),
            |value| plain(value.as_str().map_or(value.to_string(), str::to_owned).as_str(), 200),
        )
    };
    let mut lines = vec![format!("tideover: {}", text("/phase"))];
    if status["running"] == true {
        lines.push(format!(
            "gateway:  version {}, pid {}",
            text("/gateway/version"),
            text("/gateway/pid")
        ));
        let plugin =
            if status["plugin"]["connected"] == true { "connected" } else { "not connected" };
        lines.push(format!("plugin:   {plugin}"));
        lines.push(format!("last run: {}", text("/previous/detail")));
    } else {
        lines.push("last run: seen on disk; no supervisor answers (start one with `tideover run -- openclaw gateway`)".to_owned());
    }
    lines.push(format!("sessions: {} known", text("/sessions/known")));
    for (label, name) in
        [("in flight", "in_flight"), ("held", "held"), ("interrupted", "interrupted")]
    {
        for key in status["sessions"][name].as_array().into_iter().flatten() {
            lines.push(format!("  {label}: {}", plain(key.as_str().unwrap_or_default(), 120)));
        }
    }
    let unattended = status["sessions"]["unattended"].as_array().map_or(0, Vec::len);
    if unattended > 0 {
        lines.push(format!(
            "  {unattended} of the held have no user to ask; `tideover sessions release KEY` lifts a hold"
        ));
    }
    let unknown = status["sessions"]["no_route"].as_array().map_or(&[][..], Vec::as_slice);
    if !unknown.is_empty() {
        lines.push(format!(
            "notice:   nobody to tell of {} interrupted session(s); `[notice.owner]` names somebody",
            unknown.len()
        ));
    }
    for key in unknown {
        lines.push(format!("  not told: {}", plain(key.as_str().unwrap_or_default(), 120)));
    }
    for entry in status["outbox"].as_array().into_iter().flatten() {
        lines.push(format!(
            "notice:   {} on {}, tries {}{}",
            plain(entry["state"].as_str().unwrap_or_default(), 20),
            plain(entry["channel"].as_str().unwrap_or_default(), 40),
            entry["tries"],
            entry["last_error"]
                .as_str()
                .map_or(String::new(), |why| format!(", {}", plain(why, 160))),
        ));
    }
    if let Some(waiting) = status["queue"]["waiting"].as_u64().filter(|waiting| *waiting > 0) {
        let stuck = status["queue"]["stuck"].as_array().map_or(0, Vec::len);
        lines.push(format!(
            "queue:    {waiting} waiting, {stuck} of them long; see `tideover queue list`"
        ));
    }
    if let Some(gone) = status["queue"]["given_up"].as_u64().filter(|gone| *gone > 0) {
        lines.push(format!(
            "queue:    {gone} message(s) given up by the gateway; see `tideover queue list`"
        ));
    }
    for (concern, why) in status["degraded"].as_object().into_iter().flatten() {
        lines
            .push(format!("degraded: {concern}: {}", plain(why.as_str().unwrap_or_default(), 400)));
    }
    for problem in status["problems"].as_array().into_iter().flatten() {
        lines.push(format!("problem:  {}", plain(problem.as_str().unwrap_or_default(), 400)));
    }
    lines.join("\n")
}
