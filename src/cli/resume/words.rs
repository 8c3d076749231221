//! How `tideover resume` speaks: what has been done, why nothing was, and the exact commands that come next.

use crate::core::resume::{Choice, Decision, Refusal, refusal};

use super::super::args::Global;
use super::super::exit_code;
use super::super::output::quoted;

/// A command to give next, and what it does.
pub(super) struct Line {
    pub(super) command: String,
    does: Option<&'static str>,
}

impl Line {
    fn new(command: String) -> Self {
        Self { command, does: None }
    }

    fn that(command: String, does: &'static str) -> Self {
        Self { command, does: Some(does) }
    }

    /// For a person, to be copied as it is.
    pub(super) fn text(&self) -> String {
        let does = self.does.map_or(String::new(), |does| format!("   # {does}"));
        format!("{}{does}", self.command)
    }
}

/// The commands that a person may give next, for the same gateway.
pub(super) struct Next<'a> {
    pub(super) global: &'a Global,
    pub(super) key: &'a str,
}

impl Next<'_> {
    fn tideover(&self, words: &str) -> String {
        let profile = self.global.profile.as_ref();
        let profile = profile.map_or(String::new(), |name| format!(" --profile {}", quoted(name)));
        let state = self.global.state_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned());
        let state = state.map_or(String::new(), |dir| format!(" --state-dir {}", quoted(&dir)));
        format!("tideover{profile}{state} {words}")
    }

    /// Its record as a timeline.
    pub(super) fn show(&self) -> Line {
        Line::new(self.tideover(&format!("sessions show {}", quoted(self.key))))
    }

    /// The same choice again.
    pub(super) fn say(&self, choice: Choice) -> Line {
        let word = match choice {
            Choice::Ask => "",
            Choice::Yes => " --yes",
            Choice::Done => " --done",
            Choice::Skip => " --skip",
        };
        Line::new(self.tideover(&format!("resume {}{word}", quoted(self.key))))
    }

    /// The gateway's start, then the same choice again.
    pub(super) fn start_first(&self, profile: &str, choice: Choice) -> Vec<Line> {
        let unit = if profile == "default" { String::new() } else { format!("-{profile}") };
        let start = format!("systemctl --user start openclaw-gateway{unit}");
        vec![Line::that(start, "or: tideover run -- openclaw gateway"), self.say(choice)]
    }

    /// What can be said after a decision by which nothing was done. `yes` is what `--yes` would lead to.
    pub(super) fn after(&self, decision: &Decision, yes: &Decision) -> Vec<Line> {
        match decision {
            Decision::Confirm => self.choices(yes),
            Decision::Refuse(Refusal::NothingCut) => {
                vec![Line::new(self.tideover("sessions list"))]
            }
            Decision::Refuse(
                Refusal::Settled(_) | Refusal::Busy | Refusal::UnderWay | Refusal::AskFirst,
            ) => {
                vec![self.show()]
            }
            Decision::Refuse(
                Refusal::StillRuns(_)
                | Refusal::Redacted(_)
                | Refusal::TooLarge(_)
                | Refusal::Altered,
            ) => self.choices(decision),
            Decision::Rerun | Decision::GoOn | Decision::Done | Decision::Skip => Vec::new(),
        }
    }

    fn choices(&self, yes: &Decision) -> Vec<Line> {
        let say = |choice, does| Line::that(self.say(choice).command, does);
        let yes = match yes {
            Decision::GoOn => Some("go on from its result"),
            Decision::Rerun | Decision::Confirm | Decision::Done | Decision::Skip => {
                Some("run it again, once, with identical parameters")
            }
            Decision::Refuse(_) => None,
        };
        let rest = [(Choice::Done, "it has happened: go on from there"), (Choice::Skip, "drop it")];
        let yes = yes.map(|does| say(Choice::Yes, does));
        yes.into_iter().chain(rest.map(|(choice, does)| say(choice, does))).collect()
    }
}

/// What has been done; nothing where nothing was.
pub(super) fn began(decision: &Decision, started: bool) -> Option<String> {
    let text = match decision {
        Decision::Rerun => "Begun: it runs again, once, with identical parameters.",
        Decision::GoOn => "Begun: the task goes on from where it stopped; nothing is run again.",
        Decision::Done if started => "Recorded as done; the task goes on from there.",
        Decision::Done => {
            "Recorded as done, and the hold is lifted. No turn was started: the gateway does not run. Its user's next \
             message goes on from there."
        }
        Decision::Skip => {
            "Dropped: it will not be run again, and the hold is lifted. Its user's next message goes on."
        }
        Decision::Confirm | Decision::Refuse(_) => return None,
    };
    Some(text.to_owned())
}

/// Why nothing was done, and the exit code.
pub(super) fn nothing_done(decision: &Decision, choice: Choice, yes: &Decision) -> (i32, String) {
    let why = match decision {
        Decision::Refuse(Refusal::NothingCut) => {
            return (exit_code::NOT_FOUND, refused(&Refusal::NothingCut));
        }
        Decision::Refuse(why) => refused(why),
        Decision::Confirm => match (choice, yes) {
            (Choice::Yes | Choice::Done | Choice::Skip, _) => {
                "nothing was run: look at the facts and say it again".to_owned()
            }
            (Choice::Ask, Decision::Refuse(why)) => refused(why),
            (
                Choice::Ask,
                Decision::Confirm
                | Decision::Rerun
                | Decision::GoOn
                | Decision::Done
                | Decision::Skip,
            ) => "nothing was run: it is for you to say what is done about it".to_owned(),
        },
        Decision::Rerun | Decision::GoOn | Decision::Done | Decision::Skip => String::new(),
    };
    (exit_code::REFUSED, why)
}

/// A refusal for a shell, where there is no chat to say something in.
fn refused(why: &Refusal) -> String {
    match why {
        Refusal::StillRuns(pid) => format!(
            "its command still runs (pid {pid}): it is not started a second time; wait for its end or stop it, or say \
             what is done about it"
        ),
        Refusal::Busy => {
            "a turn is under way in this session; ask again when it has ended".to_owned()
        }
        // The commands follow behind a colon.
        Refusal::NothingCut | Refusal::Settled(_) | Refusal::UnderWay | Refusal::AskFirst => {
            refusal(why).trim_end_matches('.').to_owned()
        }
        Refusal::Redacted(_) | Refusal::TooLarge(_) | Refusal::Altered => {
            let text = refusal(why);
            format!("{}, or one of these", text.trim_end_matches('.'))
        }
    }
}
