//! What a unit's `ExecStart=` starts.

use std::path::Path;

use super::super::launch::is_entry;

/// The program behind a unit, as its words say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Launcher {
    /// `NODE [OPTIONS…] ENTRY gateway ARGS…`: what the gateway writes without a wrapper.
    Plain {
        /// Node program, its options, entry script: what goes into `[gateway] command`.
        command: Vec<String>,
        /// From `gateway` on.
        words: Vec<String>,
    },
    /// `WRAPPER [ENTRY] gateway ARGS…`.
    Wrapper {
        /// The wrapper.
        program: String,
        /// From `gateway` on.
        words: Vec<String>,
    },
    /// None of these.
    Foreign,
}

/// Reads the words of `ExecStart=`.
pub(super) fn of(exec: &[String]) -> Launcher {
    // `gateway` after an option is that option's value; the gateway's own update reads it the same way.
    let at = exec.windows(2).position(
        |pair| matches!(pair, [before, word] if word == "gateway" && !before.starts_with('-')),
    );
    let Some((command, words)) = at.and_then(|at| exec.split_at_checked(at + 1)) else {
        return Launcher::Foreign;
    };
    let words = words.to_vec();
    let entry = |word: &String| is_entry(word.as_ref());
    match command {
        [program] if Path::new(program).is_absolute() && !entry(program) => {
            Launcher::Wrapper { program: program.clone(), words }
        }
        [program, last] if entry(last) && is_tideover(program) => {
            Launcher::Wrapper { program: program.clone(), words }
        }
        [program, .., last] if entry(last) && Path::new(program).is_absolute() => {
            Launcher::Plain { command: command.to_vec(), words }
        }
        _ => Launcher::Foreign,
    }
}

/// Whether a program is a tideover, by its name.
pub(super) fn is_tideover(program: &str) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == "tideover")
}

/// The entry script at the end of a configured command.
pub(super) fn entry_of(command: &[String]) -> Option<&String> {
    let (last, before) = command.split_last()?;
    (!before.is_empty() && is_entry(last.as_ref())).then_some(last)
}

/// The value of `--port` in the words of a gateway.
pub(super) fn port_of(words: &[String]) -> Option<&str> {
    let mut found = None;
    let mut rest = words.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        if word == "--port" {
            found = rest.next();
        } else if let Some(value) = word.strip_prefix("--port=") {
            found = Some(value);
        }
    }
    found.filter(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Words as they may be shown: a value that an option marks as a secret is not.
pub(super) fn shown(words: &[String]) -> Vec<String> {
    const SECRET: [&str; 4] = ["token", "password", "secret", "key"];
    let secret =
        |name: &str| name.starts_with('-') && SECRET.iter().any(|word| name.contains(word));
    let mut hide = false;
    let one = |word: &String| {
        let hidden = std::mem::replace(&mut hide, secret(word) && !word.contains('='));
        match word.split_once('=') {
            _ if hidden => "***".to_owned(),
            Some((name, _)) if secret(name) => format!("{name}=***"),
            _ => word.clone(),
        }
    };
    words.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn launchers() {
        let plain = |command, rest| Launcher::Plain { command: words(command), words: words(rest) };
        let wrapper = |program: &str, rest| Launcher::Wrapper {
            program: program.to_owned(),
            words: words(rest),
        };
        for (exec, want) in [
            (
                "/n/node /o/dist/index.js gateway --port 1",
                plain("/n/node /o/dist/index.js", "gateway --port 1"),
            ),
            (
                "/n/node --max-old-space-size=9 /o/openclaw.mjs gateway",
                plain("/n/node --max-old-space-size=9 /o/openclaw.mjs", "gateway"),
            ),
            ("/w gateway --port 1", wrapper("/w", "gateway --port 1")),
            ("/b/tideover /o/dist/index.js gateway", wrapper("/b/tideover", "gateway")),
            (
                "/n/node --title gateway /o/dist/index.js gateway",
                plain("/n/node --title gateway /o/dist/index.js", "gateway"),
            ),
            ("/bin/sh -c x", Launcher::Foreign),
            ("node /o/dist/index.js gateway", Launcher::Foreign),
            ("/n/node /o/other.js gateway", Launcher::Foreign),
            ("gateway", Launcher::Foreign),
            ("", Launcher::Foreign),
        ] {
            assert_eq!(of(&words(exec)), want, "{exec}");
        }
    }

    #[test]
    fn ports_and_secrets() {
        assert_eq!(port_of(&words("gateway --port 1 --port=2")), Some("2"));
        assert_eq!(port_of(&words("gateway --port x")), None);
        let hidden = shown(&words("gateway --token abc --password=x --port 1"));
        assert_eq!(hidden.join(" "), "gateway --token *** --password=*** --port 1");
    }
}
