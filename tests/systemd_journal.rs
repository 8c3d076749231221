//! What the journal of a real systemd has of tideover, as the ordinary user reads it, and that a journald that is
//! stopped or absent stalls nothing.

#![cfg(test)]

mod support;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use support::Outcome;
use support::lab::{Lab, LabOptions, TIDEOVER};
use tideover::core::canonical::sha256_hex;
use tideover::core::checkpoint::Origin;
use tideover::core::ledger::{Ledger, Policy, SessionRef};
use tideover::core::reducer::Intent;
use tideover::core::stamp::Stamp;
use tideover::drill::processes::{Held, Signal};
use tideover::store::names::file_name;
use tideover::telemetry::events::{self, Kind};

const UNIT: &str = "stand-in.service";
/// The session that the run before left in the middle of a call; its key holds an address.
const KEY: &str = "agent:main:telegram:direct:4242";
/// Longest that anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Signals that are each answered with a record, well more than the socket and the queue hold together.
const MANY: u32 = 1_500;

/// A gateway that writes down when SIGTERM reached it.
const STAND_IN: &str = "#!/bin/bash
trap 'echo $EPOCHREALTIME >~/terminated; exit 3' TERM
echo $$ >~/ready
while :; do sleep 1000 & wait $!; done
";

/// A lab with the stand-in behind tideover. Its word `gateway` makes tideover refuse SIGUSR1, with a record.
fn with_unit(more: &str) -> Outcome<Option<Lab>> {
    let Some(lab) = Lab::start(&LabOptions::default())? else { return Ok(None) };
    lab.write("stand-in", STAND_IN)?;
    let unit = format!(
        "[Service]\n\
         ExecStart=/opt/tideover/tideover run -- /bin/bash %h/stand-in gateway\n\
         KillMode=mixed\n\
         {more}"
    );
    lab.write_unit(UNIT, &unit)?;
    Ok(Some(lab))
}

fn start(lab: &Lab) -> Outcome<Held> {
    drop(std::fs::remove_file(lab.home().join("ready")));
    lab.systemctl(&["start", UNIT])?;
    lab.until("the stand-in", PATIENCE, |lab| {
        std::fs::read(lab.home().join("ready"))?;
        Ok(Held::open(lab.process(UNIT, TIDEOVER)?)?)
    })
}

/// A session that a run before left with a call under way.
fn leave_a_session(lab: &Lab) -> Outcome {
    let now =
        Stamp::from_ms(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?);
    let mut ledger = Ledger::new(Policy::default(), Vec::new(), "run", now);
    let session = SessionRef { key: KEY.to_owned(), ..SessionRef::default() };
    ledger.turn_started(now, &session, "r", Origin::User, Some("a task".to_owned()), None);
    let arguments = serde_json::json!({ "command": "deploy --token hunter2" });
    let intent = Intent {
        run_id: "r".to_owned(),
        tool_call_id: "c".to_owned(),
        name: "exec".to_owned(),
        arguments: Some(arguments),
        too_large: None,
    };
    ledger.tool_intent(now, &session, intent);
    let record = serde_json::to_string(ledger.get(KEY).unwrap())?;
    lab.write(&format!(".openclaw/sessions/checkpoints/{}", file_name(KEY)), &record)?;
    Ok(())
}

/// The records of one kind, as the user asks for them.
fn of_kind(lab: &Lab, kind: &Kind) -> Outcome<Vec<Value>> {
    let id = format!("MESSAGE_ID={}", kind.id);
    let argv = ["journalctl", "--user", "-u", UNIT, "-o", "json", "--no-pager", "-q", &id];
    let text = lab.user(&argv)?.ok()?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// The only record of one kind, once it is there, with what every record of that kind has.
fn the_one(lab: &Lab, kind: &Kind) -> Outcome<Value> {
    let records = lab.until(kind.name, PATIENCE, |lab| {
        let found = of_kind(lab, kind)?;
        if found.is_empty() { Err("no such record".into()) } else { Ok(found) }
    })?;
    assert_eq!(records.len(), 1, "{records:#?}");
    for (field, value) in [
        ("SYSLOG_IDENTIFIER", "tideover"),
        ("TIDEOVER_EVENT", kind.name),
        ("TIDEOVER_HINT", kind.hint),
        ("_SYSTEMD_USER_UNIT", UNIT),
        ("_TRANSPORT", "journal"),
    ] {
        assert_eq!(records[0][field], value, "{field} of {:#}", records[0]);
    }
    Ok(records[0].clone())
}

#[test]
fn the_user_finds_each_event_by_its_id() -> Outcome {
    let Some(lab) = with_unit("")? else { return Ok(()) };
    let catalog = include_str!("../packaging/journal/tideover.catalog");
    let catalog = lab.write("tideover.catalog", catalog)?;
    lab.root(&[
        "install",
        "-Dm644",
        catalog.to_str().unwrap(),
        "/usr/lib/systemd/catalog/tideover.catalog",
    ])?
    .ok()?;
    lab.root(&["journalctl", "--update-catalog"])?.ok()?;
    leave_a_session(&lab)?;
    let tideover = start(&lab)?;

    let hash = &sha256_hex(KEY.as_bytes())[..16];
    let begun = the_one(&lab, &events::START)?;
    assert_eq!((&begun["PRIORITY"], &begun["TIDEOVER_FOUND"]), (&"6".into(), &"1".into()));
    let found = the_one(&lab, &events::INTERRUPTION_FOUND)?;
    assert_eq!(found["TIDEOVER_SESSION_HASH"], hash, "{found:#}");
    assert_eq!(found["TIDEOVER_TOOL"], "exec", "{found:#}");
    assert_eq!(the_one(&lab, &events::HOLD_ARMED)?["TIDEOVER_SESSION_HASH"], hash);

    lab.user(&[TIDEOVER, "sessions", "release", KEY])?.ok()?;
    let released = the_one(&lab, &events::HOLD_RELEASED)?;
    assert_eq!(released["TIDEOVER_SESSION_HASH"], hash);
    assert_eq!(released["TIDEOVER_BY"], "shell");

    tideover.signal(Signal::USR1)?;
    lab.systemctl(&["stop", UNIT])?;
    let stop = the_one(&lab, &events::STOP_REQUESTED)?;
    assert_eq!(stop["TIDEOVER_SIGNAL"], "SIGTERM");
    assert_eq!(stop["TIDEOVER_UID"], "1001");
    let by = stop["TIDEOVER_EXECUTABLE"].as_str().unwrap();
    assert!(by.ends_with("/systemd"), "{stop:#}");
    let message = stop["MESSAGE"].as_str().unwrap();
    assert!(message.starts_with("stop requested signal=\"SIGTERM\" pid="), "{message}");
    let end = the_one(&lab, &events::GATEWAY_EXITED)?;
    assert_eq!((&end["TIDEOVER_CODE"], &end["TIDEOVER_END"]), (&"3".into(), &"exit code 3".into()));
    assert!(end["TIDEOVER_UPTIME_MS"].as_str().unwrap().parse::<u64>()? > 0);

    // A record without an id has its priority too, and none is said twice, on stderr as well.
    let all = lab.journal(UNIT)?;
    let ours: Vec<_> =
        all.iter().filter(|record| record["SYSLOG_IDENTIFIER"] == "tideover").collect();
    assert!(ours.iter().all(|record| record["_TRANSPORT"] == "journal"), "{ours:#?}");
    assert!(ours.iter().any(|record| record["PRIORITY"] == "4"), "no warning: {ours:#?}");
    let text = serde_json::to_string(&all)?;
    for secret in [KEY, "4242", "hunter2", "deploy", "a task"] {
        assert!(!text.contains(secret), "{secret:?} is in the journal: {text}");
    }

    let id = format!("MESSAGE_ID={}", events::STOP_REQUESTED.id);
    let explained =
        lab.user(&["journalctl", "--user", "-x", "-u", UNIT, "--no-pager", &id])?.ok()?;
    assert!(explained.contains("Subject: SIGTERM asked for a stop"), "{explained}");
    assert!(explained.contains(&format!("({by}) sent SIGTERM")), "{explained}");
    Ok(())
}

fn many(tideover: &Held) -> Outcome {
    for _ in 0..MANY {
        tideover.signal(Signal::USR1)?;
        // Signals of one kind that are not read yet are one.
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The time from SIGTERM to the gateway's SIGTERM and to tideover's end.
fn terminate(lab: &Lab, tideover: &Held) -> Outcome<(Duration, Duration)> {
    let (wall, since) = (SystemTime::now(), Instant::now());
    tideover.signal(Signal::TERM)?;
    while !tideover.ended() {
        assert!(since.elapsed() < PATIENCE, "tideover is still there");
        std::thread::sleep(Duration::from_millis(1));
    }
    let ended = since.elapsed();
    let text = std::fs::read_to_string(lab.home().join("terminated"))?;
    let (seconds, micros) = text.trim().split_once('.').unwrap();
    let at = Duration::from_secs(seconds.parse()?) + Duration::from_micros(micros.parse()?);
    Ok((at.saturating_sub(wall.duration_since(UNIX_EPOCH)?), ended))
}

#[test]
fn a_stopped_journald_stalls_nothing() -> Outcome {
    let Some(lab) = with_unit("")? else { return Ok(()) };
    let tideover = start(&lab)?;
    the_one(&lab, &events::START)?;
    let pid = ["systemctl", "show", "systemd-journald.service", "--value", "-p", "MainPID"];
    let journald = lab.root(&pid)?.ok()?;
    let journald = |signal: &str| lab.root(&["kill", signal, journald.trim()])?.ok();

    journald("-STOP")?;
    many(&tideover)?;
    let asked = Instant::now();
    assert_eq!(lab.status()?["running"], true);
    eprintln!("  status with a stopped journald: {:?}", asked.elapsed());
    journald("-CONT")?;
    let dropped = lab.until("the count of what was dropped", PATIENCE, |lab| {
        tideover.signal(Signal::USR1)?;
        let found = of_kind(lab, &events::RECORDS_DROPPED)?.pop().ok_or("none yet")?;
        Ok(found["TIDEOVER_COUNT"].as_str().unwrap().parse::<u32>()?)
    })?;
    assert!(dropped > 0);

    journald("-STOP")?;
    many(&tideover)?;
    let (forwarded, ended) = terminate(&lab, &tideover)?;
    eprintln!(
        "  {dropped} dropped; SIGTERM passed on after {forwarded:?}, the end after {ended:?}"
    );
    assert!(forwarded < Duration::from_millis(250), "SIGTERM was held for {forwarded:?}");
    assert!(ended < Duration::from_secs(2), "leaving took {ended:?}");
    journald("-CONT")?;
    Ok(())
}

#[test]
fn without_journald_there_are_plain_lines() -> Outcome {
    let Some(lab) = with_unit("")? else { return Ok(()) };
    let journald =
        ["systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald.service"];
    let all = |verb: &'static str| lab.root(&[&["systemctl", verb], &journald[..]].concat())?.ok();

    // Gone under a running tideover, and back.
    let tideover = start(&lab)?;
    the_one(&lab, &events::START)?;
    all("stop")?;
    tideover.signal(Signal::USR1)?;
    assert_eq!(lab.status()?["running"], true);
    all("start")?;
    lab.until("a record after journald is back", PATIENCE, |lab| {
        tideover.signal(Signal::USR1)?;
        let refused =
            |record: &Value| record["MESSAGE"].as_str().is_some_and(|m| m.contains("SIGUSR1"));
        if lab.journal(UNIT)?.iter().any(refused) { Ok(()) } else { Err("none yet".into()) }
    })?;

    // Not there at all.
    all("stop")?;
    let (forwarded, ended) = terminate(&lab, &tideover)?;
    eprintln!("  SIGTERM passed on after {forwarded:?}, the end after {ended:?}");
    lab.write_unit(&format!("{UNIT}.d/log.conf"), "[Service]\nStandardError=append:%h/log\n")?;
    let tideover = start(&lab)?;
    terminate(&lab, &tideover)?;
    let log = std::fs::read_to_string(lab.home().join("log"))?;
    assert!(log.starts_with(" INFO tideover::supervise::"), "{log}");
    for kind in [events::START, events::STOP_REQUESTED, events::GATEWAY_EXITED] {
        assert!(log.contains(&format!("event={}\n", kind.name)), "no {}: {log}", kind.name);
    }
    Ok(())
}
