//! Finding and reading the file.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::fragment::Fragment;
use super::settings::{Settings, validate};

/// Largest configuration file that is read, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// The outcome of loading: settings that can be used in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The settings in force.
    pub settings: Settings,
    /// The file they were read from; `None` for the defaults, also when a file was refused.
    pub source: Option<PathBuf>,
    /// Why an existing file was refused; reported as *degraded*.
    pub problem: Option<ConfigError>,
}

/// Where the configuration is looked for: `$TIDEOVER_CONFIG`, else
/// `$XDG_CONFIG_HOME/tideover/config.toml`, else `~/.config/tideover/config.toml`.
///
/// `env` looks a variable up. `None` when neither a configuration directory nor a home is known.
pub fn default_path(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set("TIDEOVER_CONFIG") {
        return Some(path);
    }
    // The base directory specification has relative values ignored.
    let base = set("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(base.join("tideover").join("config.toml"))
}

/// Reads `path`. A missing file gives the defaults; a file that cannot be used gives the defaults
/// and the problem. Never fails and never blocks on a pipe or device.
pub fn load(path: &Path) -> Loaded {
    let refused = |problem, settings| Loaded { settings, source: None, problem: Some(problem) };
    match read(path) {
        Ok(None) => Loaded { settings: Settings::default(), source: None, problem: None },
        Err(problem) => refused(problem, Settings::default()),
        Ok(Some(text)) => match parse(path, &text) {
            Ok(settings) => Loaded { settings, source: Some(path.to_owned()), problem: None },
            Err(problem) => refused(problem, command_alone(path, &text)),
        },
    }
}

/// The defaults, with the gateway's command where its own section is whole.
///
/// A unit's PATH may hold no `openclaw`: a slip anywhere else in the file must not keep the gateway down.
fn command_alone(path: &Path, text: &str) -> Settings {
    let is_header = |line: &&str| line.trim_start().starts_with('[');
    let mut lines = text.lines().skip_while(|line| line.trim() != "[gateway]");
    let Some(header) = lines.next() else { return Settings::default() };
    let section: Vec<&str> =
        std::iter::once(header).chain(lines.take_while(|line| !is_header(line))).collect();
    parse(path, &section.join("\n")).unwrap_or_default()
}

/// The text of the file, or `None` when there is no such file.
fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    let unreadable = |error: std::io::Error| ConfigError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    // Looked at before it is opened: opening a named pipe would wait for a writer.
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    if !metadata.is_file() {
        return Err(ConfigError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes_max: CONFIG_BYTES_MAX });
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = line_of(error.as_bytes(), good);
        ConfigError::NotUtf8 { path: path.to_owned(), line }
    })
}

fn parse(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let fragment: Fragment = toml::from_str(text).map_err(|error| {
        let line = line_of(text.as_bytes(), error.span().unwrap_or(0..0).start);
        // The parser points at the value where its type is wrong; the whole line names the key too.
        let key = text.lines().nth(line - 1).map(str::trim);
        ConfigError::Syntax {
            path: path.to_owned(),
            line,
            key: key.filter(|key| !key.is_empty()).map(shortened),
            reason: error.message().lines().collect::<Vec<_>>().join("; "),
        }
    })?;
    validate(fragment).map_err(|invalid| ConfigError::Value {
        path: path.to_owned(),
        line: line_of(text.as_bytes(), invalid.offset),
        key: invalid.key,
        reason: invalid.reason,
    })
}

/// The line of a byte offset, counted from 1.
fn line_of(bytes: &[u8], offset: usize) -> usize {
    1 + bytes.iter().take(offset).filter(|byte| **byte == b'\n').count()
}

/// An excerpt short enough for one message.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::super::settings::*;
    use super::*;

    #[test]
    fn a_slip_elsewhere_does_not_cost_the_gateway_its_command() {
        let command = Some(vec!["/usr/bin/node".to_owned(), "/opt/index.js".to_owned()]);
        let section = "[gateway]\ncommand = [\"/usr/bin/node\", \"/opt/index.js\"]\n";
        for (slip, kept) in [
            ("[recovery]\nnatve = \"ask\"\n", true),
            ("[recovery\n", true),
            ("[recovery]\nmax_age = 7\n", true),
            ("comand = 1\n", false),
        ] {
            let loaded = load_text(format!("{section}{slip}"));
            assert!(loaded.problem.is_some(), "{slip}");
            assert_eq!(loaded.settings.gateway.command, command.clone().filter(|_| kept), "{slip}");
            assert_eq!(loaded.settings.recovery, RecoverySettings::default(), "{slip}");
        }
    }

    fn load_text(text: impl AsRef<[u8]>) -> Loaded {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        load(&path)
    }

    #[test]
    fn a_missing_file_means_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let loaded = load(&dir.path().join("none.toml"));
        assert_eq!(loaded.settings, Settings::default());
        assert_eq!((loaded.source, loaded.problem), (None, None));
        assert_eq!(Settings::default().checkpoint.flush_deadline_ms, 500);
        assert_eq!(Settings::default().recovery.max_age_ms, 86_400_000);
    }

    #[test]
    fn every_key_is_read() {
        let loaded = load_text(
            r#"
[gateway]
command = ["/usr/bin/node", "/opt/openclaw/dist/index.js"]
[checkpoint]
flush_deadline_ms = 250
ack = "require"
redact = ["password"]
[recovery]
native = "ride"
max_age = "90m"
hold = "all"
release = "explicit"
read_only_tools = ["my_look"]
unattended = "native"
[notice]
enabled = false
[notice.owner]
channel = "telegram"
to = "telegram:4242"
thread_id = "7"
[resume]
confirm = "always"
[queue]
retry = false
"#,
        );
        assert_eq!(loaded.problem, None);
        assert!(loaded.source.is_some());
        let settings = loaded.settings;
        assert_eq!(settings.gateway.command.unwrap().len(), 2);
        assert_eq!(settings.checkpoint.flush_deadline_ms, 250);
        assert_eq!(settings.checkpoint.ack, AckPolicy::Require);
        assert_eq!(settings.checkpoint.redact, ["password"]);
        assert_eq!(settings.recovery.native, NativePolicy::Ride);
        assert_eq!(settings.recovery.max_age_ms, 5_400_000);
        assert_eq!(settings.recovery.hold, HoldScope::All);
        assert_eq!(settings.recovery.release, ReleasePolicy::Explicit);
        assert_eq!(settings.recovery.unattended, UnattendedPolicy::Native);
        let owner = settings.notice.owner.unwrap();
        assert_eq!((owner.channel.as_str(), owner.to.as_str()), ("telegram", "telegram:4242"));
        assert_eq!((owner.account_id, owner.thread_id.as_deref()), (None, Some("7")));
        assert!(!settings.notice.enabled && !settings.queue.retry);
        assert_eq!(settings.resume.confirm, ResumeConfirm::Always);
    }

    #[test]
    fn a_refused_file_names_line_and_key() {
        let many = format!("[checkpoint]\nredact = [{}]\n", "\"k\",".repeat(257));
        let table: &[(&str, &str, &str)] = &[
            ("unknown key", "[recovery]\nnative = \"ask\"\nhodl = \"all\"\n", ":3: .*hodl"),
            ("unknown table", "\n[recvery]\n", ":2: .*recvery"),
            ("wrong type", "[notice]\nenabled = 1\n", ":2: .*boolean"),
            ("wrong word", "[recovery]\nnative = \"asks\"\n", ":2: .*ask"),
            ("not toml", "[recovery\n", ":1: "),
            ("negative", "[checkpoint]\nflush_deadline_ms = -1\n", ":2: .*flush_deadline_ms"),
            ("too long", "[checkpoint]\nflush_deadline_ms = 10001\n", ":2: .*10000"),
            ("no unit", "[recovery]\n\nmax_age = \"24\"\n", ":3: .*max_age"),
            ("too old", "[recovery]\nmax_age = \"400d\"\n", ":2: .*366d"),
            ("zero age", "[recovery]\nmax_age = \"0h\"\n", ":2: .*max_age"),
            ("no words", "[gateway]\ncommand = []\n", ":2: .*gateway.command"),
            ("relative", "[gateway]\ncommand = [\"node\"]\n", ":2: .*absolute"),
            ("many keys", &many, ":2: .*redact"),
            ("half an owner", "[notice.owner]\nchannel = \"telegram\"\n", ":1: .*to"),
            (
                "an empty owner",
                "[notice.owner]\nchannel = \"telegram\"\nto = \" \"\n",
                ":3: .*notice.owner.to",
            ),
            ("unattended", "[recovery]\nunattended = \"off\"\n", ":2: .*hold"),
        ];
        for (name, text, want) in table {
            let loaded = load_text(text);
            assert_eq!(loaded.settings, Settings::default(), "{name}");
            assert_eq!(loaded.source, None, "{name}");
            let message = loaded.problem.unwrap().to_string();
            for part in want.split(".*") {
                assert!(message.contains(part), "{name}: {message} lacks {part}");
            }
            assert!(message.contains("config.toml"), "{name}: {message}");
        }
    }

    #[test]
    fn what_is_not_a_text_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let problem = load(dir.path()).problem.unwrap();
        assert!(matches!(problem, ConfigError::NotAFile { .. }), "{problem}");

        let problem = load_text(b"[notice]\nenabled = true # \xff\n").problem.unwrap();
        assert!(matches!(problem, ConfigError::NotUtf8 { line: 2, .. }), "{problem}");

        let problem = load_text(vec![b'#'; 1024 * 1024 + 1]).problem.unwrap();
        assert!(matches!(problem, ConfigError::TooLarge { .. }), "{problem}");

        let below_a_file = dir.path().join("file");
        std::fs::write(&below_a_file, "").unwrap();
        let problem = load(&below_a_file.join("config.toml")).problem.unwrap();
        assert!(matches!(problem, ConfigError::Unreadable { .. }), "{problem}");
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let loaded = load_text("\u{feff}[notice]\nenabled = false\n");
        assert!(!loaded.settings.notice.enabled);
    }

    #[test]
    fn where_the_file_is_looked_for() {
        type Row<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);
        let table: &[Row<'_>] = &[
            (
                &[("TIDEOVER_CONFIG", "/c.toml"), ("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")],
                Some("/c.toml"),
            ),
            (&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")], Some("/x/tideover/config.toml")),
            (
                &[("XDG_CONFIG_HOME", "rel"), ("HOME", "/h")],
                Some("/h/.config/tideover/config.toml"),
            ),
            (&[("TIDEOVER_CONFIG", ""), ("HOME", "/h")], Some("/h/.config/tideover/config.toml")),
            (&[], None),
        ];
        for (vars, want) in table {
            let env = |name: &str| {
                vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into())
            };
            assert_eq!(default_path(env), want.map(PathBuf::from), "{vars:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            load_text(bytes);
        }
    }
}
