//! What the service manager hears, and what it does, under a real systemd. The gateway is a stand-in whose
//! pace the test sets: the real ones are driven in `systemd_gateway.rs`.

#![cfg(test)]

mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::Outcome;
use support::lab::{Lab, LabOptions, TIDEOVER};
use support::unit::{Cut, Run};
use tideover::drill::processes::{Held, Signal};

const UNIT: &str = "stand-in.service";
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Answers the gateway's probes. `busy-ms` is how long its start keeps the processor busy, `drain-ms` how long
/// it drains after SIGTERM; both files are read when it starts.
const STAND_IN: &str = r#"
const fs = require("node:fs"), http = require("node:http");
const number = (name) => { try { return Number(fs.readFileSync(`${process.env.HOME}/${name}`)); } catch { return 0; } };
const end = Date.now() + number("busy-ms");
const drain = number("drain-ms");
let draining = false;
const server = http.createServer((request, response) => {
  const started = request.url !== "/startupz" || !draining;
  response.writeHead(started ? 200 : 503, { "content-type": "application/json" });
  response.end(JSON.stringify({ ok: started, ready: started, status: draining ? "draining" : "started" }));
});
process.on("SIGTERM", () => { draining = true; setTimeout(() => process.exit(0), drain); });
const serve = () => server.listen(Number(process.argv.at(-1)), "127.0.0.1");
const work = () => {
  for (let i = 0; i < 3e5; i += 1) Math.sqrt(i);
  if (Date.now() < end) setTimeout(work, 20); else serve();
};
work();
"#;

/// A lab with the stand-in's unit, not yet started.
fn lab(service: &str) -> Outcome<Option<Lab>> {
    let Some(lab) = Lab::start(&LabOptions::default())? else { return Ok(None) };
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    lab.write("stand-in.cjs", STAND_IN)?;
    let unit = format!(
        "[Service]\nType=notify\nNotifyAccess=main\nKillMode=mixed\nRestart=always\nRestartSec=100ms\n\
         {service}\n\
         ExecStart=/opt/tideover/tideover run -- node %h/stand-in.cjs gateway --port {port}\n\
         [Install]\nWantedBy=default.target\n"
    );
    lab.write_unit(UNIT, &unit)?;
    lab.systemctl(&["enable", UNIT])?;
    Ok(Some(lab))
}

fn incidents(lab: &Lab) -> Outcome<Vec<Value>> {
    let dir = lab.home().join(".openclaw/tideover/incidents");
    let mut files: Vec<_> =
        std::fs::read_dir(dir)?.map(|file| file.map(|f| f.path())).collect::<Result<_, _>>()?;
    files.sort();
    files.iter().map(|file| Ok(serde_json::from_slice(&std::fs::read(file)?)?)).collect()
}

#[test]
fn start_waits_until_it_serves_and_a_busy_start_may_take_longer_than_the_timeout() -> Outcome {
    let Some(lab) = lab("TimeoutStartSec=4")? else { return Ok(()) };
    lab.write("busy-ms", "12000")?;
    let since = Instant::now();
    lab.systemctl(&["start", UNIT])?;
    assert!(since.elapsed() >= Duration::from_secs(12), "{:?}", since.elapsed());
    assert_eq!(lab.show(UNIT, "StatusText")?, "ready");
    assert_eq!(lab.show(UNIT, "NRestarts")?, "0");
    assert_eq!(lab.status()?["gateway"]["readiness"], "ready");
    Ok(())
}

#[test]
fn a_start_that_stands_still_is_not_waited_for() -> Outcome {
    let Some(lab) = lab("TimeoutStartSec=3\nRestart=no")? else { return Ok(()) };
    lab.write("busy-ms", "600000")?;
    lab.systemctl(&["start", "--no-block", UNIT])?;
    let gateway = lab.until("the stand-in", WAIT_MAX, |lab| lab.process(UNIT, "/usr/bin/node"))?;
    Held::open(gateway)?.signal(Signal::STOP)?;
    // One extension of a minute may have been asked for before it stood still.
    lab.until("the start's timeout", WAIT_MAX + Duration::from_secs(30), |lab| {
        let result = lab.show(UNIT, "Result")?;
        if result == "timeout" { Ok(()) } else { Err(result.into()) }
    })
}

#[test]
fn a_frozen_gateway_is_evidenced_and_replaced_and_a_short_freeze_is_left_alone() -> Outcome {
    let Some(lab) = lab("WatchdogSec=24")? else { return Ok(()) };
    lab.systemctl(&["start", UNIT])?;
    let run = Run::of(&lab, UNIT, WAIT_MAX)?;
    let (invocation, gateway) = (lab.show(UNIT, "InvocationID")?, Held::open(run.gateway_pid())?);
    gateway.signal(Signal::STOP)?;
    // Less than five eighths of the limit: there is no condition to wait for, it is the time that counts.
    std::thread::sleep(Duration::from_secs(10));
    gateway.signal(Signal::CONT)?;
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(lab.show(UNIT, "InvocationID")?, invocation);

    gateway.signal(Signal::STOP)?;
    lab.active(UNIT, &invocation, WAIT_MAX)?;
    assert!(gateway.ended());
    let status = lab.until("the status", WAIT_MAX, Lab::status)?;
    assert_eq!(status["previous"]["kind"], "gateway_frozen");
    let incidents = incidents(&lab)?;
    let [incident] = incidents.as_slice() else { panic!("{incidents:#?}") };
    assert_eq!(incident["kind"], "gateway_frozen", "{incident:#}");
    let evidence = &incident["evidence"];
    assert_eq!(evidence["threads"][0]["state"], "T", "{evidence:#}");
    assert!(evidence["resident_kib"].as_u64() > Some(10_000), "{evidence:#}");
    let answers = evidence["health"].as_array().ok_or("no answers")?;
    assert!(answers.iter().any(|a| a["answer"] == "live"), "{evidence:#}");
    assert_eq!(answers.last().map(|a| &a["answer"]), Some(&"no answer".into()), "{evidence:#}");
    let report = lab.user(&[TIDEOVER, "report"])?.ok()?;
    assert!(report.contains("the gateway hung and the watchdog ended it"), "{report}");
    assert!(report.contains(UNIT) && report.lines().count() <= 24, "{report}");
    let json: Value =
        serde_json::from_str(&lab.user(&[TIDEOVER, "report", "--json", "--unit", UNIT])?.ok()?)?;
    assert_eq!(json["incidents"][0], *incident);
    Ok(())
}

#[test]
fn a_draining_gateway_is_left_alone_beyond_the_stop_timeout_and_the_watchdog() -> Outcome {
    let Some(lab) = lab("TimeoutStopSec=4\nWatchdogSec=6")? else { return Ok(()) };
    lab.write("drain-ms", "20000")?;
    lab.systemctl(&["start", UNIT])?;
    let run = Run::of(&lab, UNIT, WAIT_MAX)?;
    lab.systemctl(&["stop", "--no-block", UNIT])?;
    lab.until("the drain's line", WAIT_MAX, |lab| {
        let line = lab.show(UNIT, "StatusText")?;
        if line == "draining 0 sessions" { Ok(()) } else { Err(line.into()) }
    })?;
    let since = Instant::now();
    lab.systemctl(&["stop", UNIT])?;
    assert!(since.elapsed() > Duration::from_secs(15), "{:?}", since.elapsed());
    assert_eq!(lab.show(UNIT, "Result")?, "success");
    assert_eq!(lab.show(UNIT, "ExecMainStatus")?, "0");
    let boot: Value =
        serde_json::from_slice(&std::fs::read(lab.home().join(".openclaw/tideover/boot.json"))?)?;
    let stop = &boot["stop"];
    assert!(stop["executable"].as_str().is_some_and(|exe| exe.ends_with("/systemd")), "{stop}");
    assert_eq!(stop["going_down"], Value::Null, "{stop}");
    assert_eq!(stop["uid"], support::lab::UID, "{stop}");
    drop(run);
    Ok(())
}

#[test]
fn a_reboot_ends_a_long_drain_in_order_and_says_so() -> Outcome {
    let Some(lab) = lab("TimeoutStopSec=330")? else { return Ok(()) };
    // The user manager has 120 s for its own stop; 24 s tell the same in less.
    lab.root(&[
        "sh",
        "-c",
        "mkdir -p /etc/systemd/system/user@.service.d && \
         printf '[Service]\\nTimeoutStopSec=24\\n' >/etc/systemd/system/user@.service.d/t.conf && \
         systemctl daemon-reload",
    ])?
    .ok()?;
    lab.write("drain-ms", "300000")?;
    lab.systemctl(&["start", UNIT])?;
    let run = Run::of(&lab, UNIT, WAIT_MAX)?;
    let since = Instant::now();
    run.cut(&lab, UNIT, Cut::Reboot, WAIT_MAX)?;
    let took = since.elapsed();
    assert!(took > Duration::from_secs(10) && took < Duration::from_secs(24), "{took:?}");
    let status = lab.until("the status", WAIT_MAX, Lab::status)?;
    let previous = &status["previous"];
    assert_eq!(previous["kind"], "host_reboot", "{previous}");
    let detail = previous["detail"].as_str().unwrap_or_default();
    assert!(detail.starts_with("the host is going down: SIGTERM from pid"), "{detail}");
    assert!(detail.ends_with("the gateway ended with signal 9"), "{detail}");
    Ok(())
}
