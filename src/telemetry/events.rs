//! Every kind of event that has an id: what it says, which fields it has, what to do next.
//!
//! A call site names its kind with `event = events::START.name`; the writer adds id and hint. The ids are for
//! ever: a kind that changes its meaning gets a new one. `packaging/journal/` explains each to people, and the
//! tests below hold code, catalog and table together.

/// One kind of event.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name, `TIDEOVER_EVENT`.
    pub name: &'static str,
    /// Its `MESSAGE_ID`.
    pub id: &'static str,
    /// What has happened.
    pub says: &'static str,
    /// The next command, `TIDEOVER_HINT`: a catalog needs root, this does not.
    pub hint: &'static str,
    /// Its fields as a call site writes them, with their meaning.
    pub fields: &'static [(&'static str, &'static str)],
}

/// The kind of that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Kind> {
    ALL.iter().copied().find(|kind| kind.name == name)
}

macro_rules! kinds {
    ($(
        #[doc = $says:literal]
        $constant:ident: $name:literal $id:literal, hint $hint:literal $(, $field:ident: $meaning:literal)*;
    )*) => {
        $(
            #[doc = $says]
            pub const $constant: Kind = Kind {
                name: $name,
                id: $id,
                says: $says.trim_ascii_start(),
                hint: $hint,
                fields: &[$((stringify!($field), $meaning)),*],
            };
        )*
        /// All of them.
        pub const ALL: &[&Kind] = &[$(&$constant),*];
    };
}

kinds! {
    /// tideover starts and has read what the run before left.
    START: "start" "b5098487b6af48bb9b884993287f248f", hint "tideover status",
        previous: "how the run before ended",
        detail: "the same in words",
        found: "sessions found interrupted by this start",
        open: "sessions whose interruption is still open";
    /// The gateway serves.
    READY: "ready" "7723b193b1164df1b6ca83690392e8b9", hint "tideover status",
        gateway_pid: "the gateway's process",
        gateway_version: "its version as it says itself",
        took_ms: "time from tideover's start";
    /// A signal asked for a stop.
    STOP_REQUESTED: "stop-requested" "94096b78da254860b79c4cc791b95c93", hint "tideover status",
        signal: "the signal",
        pid: "the sender's process, 0 for the kernel",
        uid: "the sender's user",
        executable: "the sender's program",
        unit: "the sender's unit";
    /// All that was reported is on disk; the signal goes on to the gateway.
    FLUSH_DONE: "flush-done" "a5c02cdcd654496e859a4079408c7e25", hint "tideover sessions list";
    /// The final flush took too long and the signal went on to the gateway.
    FLUSH_MISSED: "flush-missed" "2ab3fc6a58a6471d8d780bb028333dde", hint "tideover sessions list";
    /// The user's service manager or the host goes down, and the gateway with it.
    HOST_GOING_DOWN: "host-going-down" "bcd505b2f63f44b590ae4bd83258fd1c", hint "tideover sessions list",
        what: "user_manager or host",
        open: "sessions with work under way";
    /// The gateway did not end in the time that a shutdown leaves, and is killed.
    DRAIN_CUT: "drain-cut" "45e26de14276417f9351a8abcdade8f5", hint "tideover sessions list";
    /// The gateway says that it goes down.
    GATEWAY_STOPPING: "gateway-stopping" "c8defd6e852a4e34a22b575e7fb290b2", hint "tideover sessions list",
        reason: "the gateway's own word";
    /// The gateway's process ended.
    GATEWAY_EXITED: "gateway-exited" "015e4a1748f24bb0958323b8d5042e9b", hint "tideover report --last 1",
        end: "exit code or signal, in words",
        code: "its exit code",
        signal: "the signal's number that ended it",
        core_dumped: "whether it left a core",
        oom_kills: "kills for memory in its control group during the run",
        uptime_ms: "how long it ran",
        interrupted: "sessions that this cut";
    /// The gateway restarted inside its process.
    RESTARTED_IN_PROCESS: "restarted-in-process" "f77e805ba7d1434bbff91382d49e23e0", hint "tideover sessions list",
        interrupted: "sessions that this cut";
    /// A session was cut in its work; one record for each.
    INTERRUPTION_FOUND: "interruption-found" "2eb336326fac4643a427643301f92908", hint "tideover sessions list",
        session_hash: "the session: the first 16 digits of its key's SHA-256",
        interruption: "the interruption's id",
        cause: "why, as in the checkpoint",
        tool: "the tool that was running";
    /// Effects are held in a session until its user has spoken.
    HOLD_ARMED: "hold-armed" "87282416ea294c3f88736c5731998ea3", hint "tideover sessions list",
        session_hash: "the session: the first 16 digits of its key's SHA-256",
        interruption: "the interruption's id";
    /// A tool call was held.
    TOOL_HELD: "tool-held" "f8b062a955b942bd9192ee3349d894bf", hint "tideover sessions list",
        tool: "the tool's name",
        end_turn: "whether the turn was ended with it";
    /// A hold was lifted.
    HOLD_RELEASED: "hold-released" "96b1f7e5b8ca47b2b1fac71c5155d9c2", hint "tideover sessions list",
        session_hash: "the session: the first 16 digits of its key's SHA-256",
        by: "what lifted it: message, shell, resume, policy, or gone with its session";
    /// The channel took a notice.
    NOTICE_SENT: "notice-sent" "dd3cfb6318cd4933aa1c51f9ce8bea46", hint "tideover status",
        notice: "the notice's key, a hash",
        tries: "tries so far";
    /// A try at a notice ended without a delivery that is known of; it is tried again.
    NOTICE_UNCERTAIN: "notice-uncertain" "65deedc0d79e452190760f2a7480ef42", hint "tideover status",
        notice: "the notice's key, a hash",
        tries: "tries so far";
    /// A notice will not be sent.
    NOTICE_GIVEN_UP: "notice-given-up" "646f8b77c4af40d7a844d122ff04b214", hint "tideover status",
        notice: "the notice's key, a hash",
        tries: "tries so far";
    /// An interrupted session has no route to a person.
    NOTICE_NO_ROUTE: "notice-no-route" "26ff5c4b11f14b76a8cd5edb3dc74131", hint "tideover sessions list",
        interruption: "the interruption's id";
    /// Nothing is left to tell after a start.
    HANDED_OFF: "handed-off" "eb7a67ef68b44c3f87eeaa404e232d48", hint "tideover status",
        held: "sessions whose effects are held";
    /// A queued entry was tried and waits for its next try.
    QUEUE_RETRIED: "queue-retried" "f03241fb18974ea78ddc023ed7b78d73", hint "tideover queue list",
        entry: "the entry's id",
        tries: "tries so far";
    /// The gateway's queue was looked over before the gateway starts.
    QUEUE_PASS: "queue-pass" "a67de2696ddd460ab43a964806978194", hint "tideover queue list",
        found: "entries found",
        due: "entries that the gateway tries in its own pass",
        settled: "entries whose work has happened",
        kept: "entries that are kept back",
        resumed: "entries of a try that the run before did not finish",
        copies: "copies of notices of ours, removed",
        left: "entries that stay as they are",
        took_ms: "how long it took";
    /// A queued entry is settled: it was delivered, or what it asks for has happened.
    QUEUE_SETTLED: "queue-settled" "2cd07e11669e49f29864ffbaa7268fbc", hint "tideover queue list",
        entry: "the entry's id",
        queue: "session or delivery",
        session_hash: "the session: the first 16 digits of its key's SHA-256";
    /// A queued entry is kept back, or left, and waits for something.
    QUEUE_KEPT: "queue-kept" "c0c911b01680417f85a6b84a6e65a3cd", hint "tideover queue list",
        entry: "the entry's id",
        queue: "session or delivery",
        session_hash: "the session: the first 16 digits of its key's SHA-256",
        why: "held, behind_notice, future, tries_used_up";
    /// A queued entry stayed behind and is delivered by way of the gateway's own calls.
    QUEUE_CLAIMED: "queue-claimed" "fc7e3f2ee2114416b2559ae1f2cda93c", hint "tideover queue list",
        entry: "the entry's id",
        queue: "session or delivery",
        tries: "failed tries so far";
    /// A queued entry is given up after the gateway's own number of tries, or for good reason.
    QUEUE_GIVEN_UP: "queue-given-up" "dcce55e197c1428581c29a5432ae0a64", hint "tideover queue list",
        entry: "the entry's id",
        queue: "session or delivery",
        session_hash: "the session: the first 16 digits of its key's SHA-256",
        tries: "failed tries";
    /// A file in the gateway's queue is no entry; it was set aside, or left where it belongs to somebody else.
    QUEUE_QUARANTINED: "queue-quarantined" "31076fb0a7864df8898c5745f6544d54", hint "tideover queue list",
        queue: "session or delivery",
        file: "the file's name",
        quarantined: "whether it was set aside";
    /// A queued entry has waited long.
    QUEUE_STUCK: "queue-stuck" "cde3d7afe5174a0eac4b10e3e9faedac", hint "tideover queue list",
        entry: "the entry's id",
        session_hash: "the session: the first 16 digits of its key's SHA-256",
        age_s: "how long, in seconds",
        tries: "failed tries so far";
    /// The gateway's own queue gave a message up and discarded it.
    DELIVERY_GIVEN_UP: "delivery-given-up" "437a640f63ba470ba7ee74fbeefc14b5", hint "tideover queue list",
        channel: "the channel",
        session_hash: "the session: the first 16 digits of its key's SHA-256";
    /// A person said what is to become of an interrupted action.
    RESUMED: "resumed" "b27970d61c834ab08c354ddf0fe71bde", hint "tideover sessions list",
        session_hash: "the session: the first 16 digits of its key's SHA-256",
        decision: "what it led to: rerun, go_on, done or skip",
        from: "where it was said: chat or shell";
    /// A re-run was confirmed and the call did not run.
    RESUME_LAPSED: "resume-lapsed" "790d6cdf0637467aad25314db99fccd4", hint "tideover sessions list",
        session_hash: "the session: the first 16 digits of its key's SHA-256";
    /// An interrupted call was run once more on a person's word.
    RERUN: "rerun" "ed37e958628446c18803e0b766afd806", hint "tideover sessions list",
        session_hash: "the session: the first 16 digits of its key's SHA-256",
        tool: "the tool's name",
        attempt: "1 for the first run of the call";
    /// tideover does less than it should.
    DEGRADED: "degraded" "8188b61618af49349fb013c789ebbda3", hint "tideover doctor",
        concern: "what it is about; the message says why";
    /// A reason for being degraded is gone.
    RESTORED: "restored" "7a6cd071c7ba411e845f5f32229ea723", hint "tideover status",
        concern: "what it was about";
    /// The gateway does not answer any more: what was seen before the watchdog lets go.
    WATCHDOG_EVIDENCE: "watchdog-evidence" "f3165adb0a674b5795f36710a781236b", hint "tideover report --last 1",
        gateway_pid: "the gateway's process",
        last_health: "its last answers to probes",
        process_state: "the state of its main thread: R, S, D, T, Z",
        wait_channel: "where in the kernel that thread waits",
        threads: "how many threads it has",
        memory_kib: "its resident memory",
        open: "sessions with work under way";
    /// The gateway answers again after evidence was taken.
    ANSWERS_AGAIN: "answers-again" "6554e04378fc4a06968052fa46340d79", hint "tideover status";
    /// The watchdog's sign of life ends, so that systemd replaces the gateway.
    WATCHDOG_LETS_GO: "watchdog-lets-go" "b25e30e61aea4e80a4b4fe0bbf36bffa", hint "tideover report --last 1";
    /// An incident was written down.
    INCIDENT_WRITTEN: "incident-written" "c1663c7944ff4cc6ad046e5289a6aa8a", hint "tideover report --last 1",
        incident: "the run that it ended";
    /// The log was read too slowly, or not at all, and records were dropped.
    RECORDS_DROPPED: "records-dropped" "03c6fc340b864ab9b1c50cc455adfb29", hint "journalctl --header",
        count: "how many";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::journal::journal_name;
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;
    use std::path::{Path, PathBuf};

    const CATALOG: &str = include_str!("../../packaging/journal/tideover.catalog");
    const DOCS: &str = include_str!("../../packaging/journal/README.md");
    const MARK: &str = "<!-- kinds:";

    #[test]
    fn ids_and_names_are_unique_and_well_formed() {
        let ids: BTreeSet<_> = ALL.iter().map(|kind| kind.id).collect();
        let names: BTreeSet<_> = ALL.iter().map(|kind| kind.name).collect();
        assert_eq!((ids.len(), names.len()), (ALL.len(), ALL.len()));
        for kind in ALL {
            let hex = |char: char| matches!(char, '0'..='9' | 'a'..='f');
            assert!(kind.id.len() == 32 && kind.id.chars().all(hex), "{}", kind.name);
            assert_eq!(named(kind.name), Some(*kind));
        }
    }

    /// The catalog's entries: id and text.
    fn catalog() -> BTreeMap<&'static str, &'static str> {
        let entries = CATALOG.split("\n-- ").skip(1);
        entries.map(|entry| entry.split_once('\n').unwrap()).collect()
    }

    #[test]
    fn the_catalog_explains_every_kind_and_no_other() {
        let catalog = catalog();
        let ids: BTreeSet<_> = ALL.iter().map(|kind| kind.id).collect();
        assert_eq!(catalog.keys().copied().collect::<BTreeSet<_>>(), ids);
        for kind in ALL {
            let text = catalog[kind.id];
            let head: Vec<_> = text.lines().take(3).collect();
            assert!(head[0].starts_with("Subject: "), "{}: {head:?}", kind.name);
            assert_eq!(head[1..], ["Defined-By: tideover", ""], "{}", kind.name);
            assert!(text.trim_end().split("\n\n").count() >= 3, "{}: what to do?", kind.name);
            let fields: BTreeSet<_> =
                kind.fields.iter().map(|(name, _)| journal_name(name)).collect();
            // Between two at signs, every other piece.
            for used in text.split('@').skip(1).step_by(2) {
                assert!(fields.contains(used), "{}: no field {used:?}", kind.name);
            }
        }
    }

    fn table() -> String {
        let mut table = String::new();
        for kind in ALL {
            let says = kind.says.trim_end_matches('.');
            let hint = kind.hint;
            let _ = write!(table, "\n### `{}`\n{says}. Next: `{hint}`.\n\n", kind.name);
            let _ =
                writeln!(table, "| field | value |\n|---|---|\n| `MESSAGE_ID` | `{}` |", kind.id);
            for (name, meaning) in kind.fields {
                let _ = writeln!(table, "| `{}` | {meaning} |", journal_name(name));
            }
        }
        table
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let head = &DOCS[..DOCS.find(MARK).unwrap()];
        let line = DOCS.lines().find(|line| line.starts_with(MARK)).unwrap();
        let docs = format!("{head}{line}\n{}", table());
        if std::env::var_os("TIDEOVER_WRITE_DOCS").is_some() {
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/journal/README.md");
            std::fs::write(file, &docs).unwrap();
            return;
        }
        assert_eq!(DOCS, docs, "run `TIDEOVER_WRITE_DOCS=1 cargo test --lib events`");
    }

    fn sources(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => found.extend(sources(&path)),
                Some(extension) if extension == "rs" => found.push(path),
                _ => {}
            }
        }
        found
    }

    /// The names of the fields in a macro's arguments: what stands before the message, at the outermost level.
    fn fields_of(arguments: &str) -> Vec<String> {
        let (mut depth, mut names, mut part) = (0_i32, Vec::new(), String::new());
        for char in arguments.chars() {
            match char {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                '"' if depth == 0 && part.trim().is_empty() => break,
                _ => {}
            }
            if depth < 0 {
                break;
            }
            if char == ',' && depth == 0 {
                let name = part.split('=').next().unwrap_or_default();
                names.push(name.trim().trim_start_matches(['%', '?']).to_owned());
                part.clear();
            } else {
                part.push(char);
            }
        }
        names
    }

    #[test]
    fn a_call_site_uses_the_fields_of_its_kind() {
        let mut seen = 0;
        for file in sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
            let text = std::fs::read_to_string(&file).unwrap();
            for (at, _) in text.match_indices("event = events::") {
                let rest = &text[at + "event = events::".len()..];
                let Some((constant, arguments)) = rest.split_once(".name,") else { continue };
                let Some(kind) = named(&constant.to_lowercase().replace('_', "-")) else {
                    assert!(file.ends_with("events.rs"), "{}: {constant}", file.display());
                    continue;
                };
                seen += 1;
                let declared: BTreeSet<_> = kind.fields.iter().map(|(name, _)| *name).collect();
                for field in fields_of(arguments) {
                    let known = declared.contains(field.as_str());
                    assert!(known, "{}: {constant} has no field {field:?}", file.display());
                }
            }
        }
        assert!(seen > 15, "found {seen} call sites");
    }
}
