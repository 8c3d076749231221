//! A turn that nothing interrupts is the same with tideover and its plugin as without: same
//! requests to the model, same messages to the user.

mod support;

use std::path::Path;

use support::incident::{CHAT, behind_tideover, binary, handed_off, record, stop};
use support::{Outcome, rig};
use tideover::drill::checkpoint;
use tideover::drill::mock_model::{Script, Step};
use tideover::drill::mock_telegram::SentMessage;
use tideover::drill::rig::{Front, Rig, RigOptions, TURN_MAX};

/// What one turn shows to the model and to the channel.
#[derive(Debug)]
struct Seen {
    requests: Vec<(Vec<String>, Vec<String>)>,
    sent: Vec<String>,
}

/// Without what differs from start to start: the home's path, and every word with a digit in it
/// or of the form that parts of an id have.
fn normal(text: &str, home: &Path) -> String {
    let text = text.replace(&home.display().to_string(), "HOME");
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_alphanumeric() {
            word.push(c);
            continue;
        }
        let of_an_id =
            matches!(word.len(), 4 | 8 | 12) && word.chars().all(|c| c.is_ascii_hexdigit());
        let counted = word.chars().any(|c| c.is_ascii_digit());
        out.push_str(if counted || of_an_id { "#" } else { &word });
        out.push(c);
        word.clear();
    }
    out
}

/// A turn with a tool in it, then one without.
async fn two_turns(rig: &Rig, name: &str) -> Outcome<Seen> {
    let (asked, sent) = (rig.model.seen(), rig.telegram.mark());
    let work = rig.work(name, CHAT)?;
    work.open_gate()?;
    let steps = [Step::call(work.call()), Step::text("The job is done.")];
    rig.model.script(Script::marker("please do the job", steps));
    rig.send_user(CHAT, "please do the job");
    let replied = |m: &SentMessage| m.text.contains("job is done");
    rig.telegram.wait_for("the reply", sent, TURN_MAX, replied).await?;
    rig.plain_turn(CHAT, "thank you", "You are welcome.").await?;
    assert_eq!(work.runs(), 1);
    let home = rig.home.root();
    let requests = rig.model.requests_from(asked);
    let request = |r: &tideover::drill::mock_model::ModelRequest| {
        let message = |m: &serde_json::Value| normal(&m.to_string(), home);
        (r.tools.clone(), r.messages.iter().map(message).collect())
    };
    let sent =
        rig.telegram.sent().into_iter().skip(sent).filter(|m| !m.deleted).map(|m| m.text).collect();
    Ok(Seen { requests: requests.iter().map(request).collect(), sent })
}

/// What was said, the gateway's live preview left out: whether the model's words before a call stay or are taken
/// back hangs on how fast the tool and the machine are, with tideover and without.
fn answers(seen: &Seen) -> Vec<&String> {
    seen.sent.iter().filter(|text| !text.contains("Let me do that.")).collect()
}

async fn untouched(version: &str) -> Outcome {
    let Some((bare, slot)) = rig(version, RigOptions::default()).await? else { return Ok(()) };
    let alone = two_turns(&bare, "job").await?;
    assert!(alone.sent.len() >= 2, "{:#?}", alone.sent);
    eprintln!("  {version}: {} requests, sent {:?}", alone.requests.len(), alone.sent);
    drop((bare, slot));

    let Some((mut rig, _slot)) = rig(version, behind_tideover("")).await? else { return Ok(()) };
    handed_off(&rig).await?;
    let behind = two_turns(&rig, "job").await?;
    let at = behind.requests.iter().zip(&alone.requests).position(|(a, b)| a != b);
    assert_eq!(at, None, "{version}: the prompt of this request is another one");
    assert_eq!(behind.requests.len(), alone.requests.len(), "{version}: requests");
    assert_eq!(answers(&behind), answers(&alone), "{version}");
    let journaled = record(&rig, CHAT)?;
    assert_eq!(journaled["last_tool_call"]["name"], "exec", "the same turn was journaled");
    stop(&mut rig).await?;

    // The plugin without tideover is inert: the same home, the same plugin, another front.
    let kept = checkpoint::read(&rig.checkpoint_path(CHAT))?;
    rig.options.front = Front::Bare;
    rig.boot().await?;
    let again = two_turns(&rig, "again").await?;
    assert_eq!(answers(&again), answers(&alone), "{version}: inert");
    assert_eq!(again.requests.len(), alone.requests.len());
    assert_eq!(checkpoint::read(&rig.checkpoint_path(CHAT))?, kept, "nothing is journaled");
    let log = rig.proc()?.log_text();
    assert!(log.contains("tideover"), "the plugin is loaded: {log}");
    rig.options.front = Front::Tideover(binary());
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn costs_no_message_no_call_no_changed_prompt_on_2026_9_6() -> Outcome {
    untouched("2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn costs_no_message_no_call_no_changed_prompt_on_2026_5_5() -> Outcome {
    untouched("2026.5.5").await
}
