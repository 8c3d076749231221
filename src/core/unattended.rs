//! Words about a session that has no person to ask: to its owner, to its model, and in its record.

use super::checkpoint::{Checkpoint, HoldStatus, Interruption};
use super::notice::{as_code, tool_call_text};
use super::session_kind::SessionKind;

/// What was interrupted, as the subject of a notice: `Your task`, `A scheduled job`.
#[must_use]
pub fn subject(kind: Option<SessionKind>) -> &'static str {
    kind.map_or("Your task", named)
}

/// What it was to do, without the words that the gateway puts around it; `None` where only those are there (2026.5.5
/// keeps a sub-agent's task in its system prompt).
#[must_use]
pub fn task_text(kind: SessionKind, task: &str) -> Option<String> {
    let text = match kind {
        SessionKind::Cron => {
            // "[cron:ID NAME] MESSAGE", and the time below it.
            let inside = task.strip_prefix("[cron:").and_then(|rest| rest.split_once("] "));
            let named = inside.and_then(|(head, rest)| Some((head.split_once(' ')?.1, rest)));
            let text = named.map_or(task.to_owned(), |(name, rest)| format!("{name}: {rest}"));
            text.split("\nCurrent time: ").next().unwrap_or_default().to_owned()
        }
        SessionKind::SubAgent => match task.split_once("[Subagent Task]\n") {
            Some((_, rest)) => rest.split("\n\nBegin.").next().unwrap_or_default().to_owned(),
            None if task.contains("[Subagent Context]") => String::new(),
            None => task.to_owned(),
        },
        SessionKind::Person | SessionKind::Group | SessionKind::Heartbeat | SessionKind::Hook => {
            task.to_owned()
        }
    };
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What the owner can do about it. An answer in the owner's chat lifts no hold but that chat's own, so it is not named.
#[must_use]
pub fn what_to_do(record: &Checkpoint, cut: &Interruption) -> String {
    let command = |verb: &str| as_code(&format!("tideover {verb} {}", quoted(&record.session_key)));
    match cut.status {
        HoldStatus::Held => format!(
            "Its effects are held, in later runs too. At a shell of the gateway's host, {} lifts that, and {} runs the \
             last action again.\n",
            command("sessions release"),
            command("resume"),
        ),
        HoldStatus::Released | HoldStatus::Expired => {
            "Nothing of it is held; the gateway goes on with it as it does by itself.\n".to_owned()
        }
    }
}

/// What a blocked model reads in place of a result, where nobody listens whom it could ask.
#[must_use]
pub fn hold_reason(kind: SessionKind, cut: &Interruption) -> String {
    let what = named(kind).to_lowercase();
    format!(
        "Not run: {what} was interrupted in this session, and its owner has not lifted the hold yet. Last action: {}. \
         Do not call further tools; say in one sentence that it is held, and end.",
        tool_call_text(cut.call.as_ref())
    )
}

/// What should happen next in a session that was cut.
#[must_use]
pub fn after_cut(record: &Checkpoint, held: bool) -> String {
    let text = match (record.unattended(), held) {
        (None, _) => "the user says whether to go on; until then side effects are held",
        (Some(_), true) => {
            "someone lifts the hold (tideover sessions release); it has no user to ask"
        }
        (Some(_), false) => "the gateway goes on by itself; it has no user to ask",
    };
    text.to_owned()
}

/// What should happen next once a hold is lifted.
#[must_use]
pub fn after_release(record: &Checkpoint) -> String {
    let text = match record.unattended() {
        None => "the model answers the user",
        Some(_) => "the gateway runs it again by itself",
    };
    text.to_owned()
}

/// What should happen next where nothing is held any more.
#[must_use]
pub fn when_idle(record: &Checkpoint) -> String {
    match record.unattended() {
        None => "the user's next message".to_owned(),
        Some(_) => after_release(record),
    }
}

fn named(kind: SessionKind) -> &'static str {
    match kind {
        SessionKind::Person | SessionKind::Group => "A task",
        SessionKind::Cron => "A scheduled job",
        SessionKind::SubAgent => "A sub-agent",
        SessionKind::Heartbeat => "A heartbeat",
        SessionKind::Hook => "A webhook's task",
    }
}

/// One word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::checkpoint::Cause;
    use crate::core::hold::ReleasePolicy;
    use crate::core::hold::Unattended;
    use crate::core::notice::{Shown, user_text};
    use crate::core::reducer::{self, Cut};
    use crate::core::stamp::Stamp;

    fn cut(key: &str, unattended: Unattended) -> Checkpoint {
        let now = Stamp::from_ms(0);
        let mut record = Checkpoint::new(key, now);
        let cut = Cut {
            incident: "i".to_owned(),
            cause: Cause::GatewayKilled,
            detail: None,
            at: now,
            hold: true,
            notify: true,
            unattended,
        };
        reducer::interrupt(&mut record, now, &cut);
        record
    }

    #[test]
    fn the_policy_holds_or_leaves_what_nobody_attends() {
        for (key, unattended, held) in [
            ("agent:main:cron:j", Unattended::Hold, true),
            ("agent:main:cron:j", Unattended::Native, false),
            ("agent:main:subagent:a", Unattended::Native, false),
            ("agent:main:main:heartbeat", Unattended::Native, false),
            ("agent:main:main", Unattended::Native, true),
            ("agent:main:telegram:group:-1", Unattended::Native, true),
        ] {
            let record = cut(key, unattended);
            assert_eq!(
                (record.is_held(), record.is_untold()),
                (held, held),
                "{key} {unattended:?}"
            );
        }
    }

    #[test]
    fn a_task_is_told_in_its_owners_words() {
        use SessionKind::{Cron, Heartbeat, SubAgent};
        let time = "\nCurrent time: Wednesday, November 25th, 2026 - 2:00 AM (UTC)";
        for (kind, task, want) in [
            (
                Cron,
                format!("[cron:j1 nightly build] build it{time}"),
                Some("nightly build: build it"),
            ),
            (Cron, "[cron:j1] build it".to_owned(), Some("[cron:j1] build it")),
            (Cron, time.to_owned(), None),
            (
                SubAgent,
                "[Subagent Context] You run.\n\n[Subagent Task]\n\ndig\ndeep\n\nBegin. Now."
                    .to_owned(),
                Some("dig\ndeep"),
            ),
            (
                SubAgent,
                "[Wed] [Subagent Context] You run.\n\nBegin. See the prompt.".to_owned(),
                None,
            ),
            (SubAgent, "dig".to_owned(), Some("dig")),
            (Heartbeat, "look".to_owned(), Some("look")),
        ] {
            assert_eq!(task_text(kind, &task).as_deref(), want, "{task}");
        }
    }

    #[test]
    fn a_notice_says_what_it_is_about_and_names_what_works() {
        let job = cut("agent:main:cron:it's", Unattended::Hold);
        let text = |records: &[&Checkpoint]| {
            user_text(records, ReleasePolicy::AnyMessage, false, Shown::Everything)
        };
        let one = text(&[&job]);
        assert!(one.starts_with("⚠️ A scheduled job was interrupted: "), "{one}");
        assert!(one.contains(r"`tideover sessions release 'agent:main:cron:it'\''s'`"), "{one}");
        assert!(!one.contains("eply") && !one.contains("until you answer"), "{one}");

        let person = cut("agent:main:main", Unattended::Hold);
        let two = text(&[&job, &person]);
        assert!(
            two.contains("2 tasks were interrupted") && two.contains("A scheduled job."),
            "{two}"
        );
        assert!(
            two.ends_with("Reply to go on, or send /resume to run that action again."),
            "{two}"
        );

        let free = text(&[&cut("agent:main:subagent:a", Unattended::Native)]);
        assert!(free.starts_with("⚠️ A sub-agent was interrupted: "), "{free}");
        assert!(free.contains("Nothing of it is held") && !free.contains("release"), "{free}");
    }
}
