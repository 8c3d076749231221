//! What is found around an interrupted call when somebody asks: its command, its directory, its files, the model.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::core::checkpoint::{Checkpoint, ToolCall};
use crate::core::resume::{Changed, Facts};
use crate::core::stamp::Stamp;
use crate::gateway::left_transcript::Left;
use crate::gateway::rpc::{Client, ConnectOptions};

use super::super::engine::GatewayLink;
use super::super::notices::options;
use super::command;

/// How long the disk and /proc may take.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// How long the gateway may take to name the session's model.
const MODEL_MAX: Duration = Duration::from_secs(2);
/// Most files that are named.
const FILES_MAX: usize = 8;
/// Most words of a command that are looked at as files.
const WORDS_MAX: usize = 256;
/// Arguments that hold the path of a file.
const PATH_KEYS: [&str; 7] =
    ["path", "file_path", "filePath", "file", "filename", "target", "destination"];
/// Arguments that hold the directory that a call works in.
const CWD_KEYS: [&str; 3] = ["workdir", "cwd", "working_directory"];

/// Everything that can be found within its limits; what cannot is left out.
pub(super) async fn look(
    link: Option<GatewayLink>,
    session_key: String,
    record: Option<Checkpoint>,
) -> Facts {
    let disk = async {
        let Some(record) = record else { return Facts::default() };
        let found = spawn_blocking(move || gather(&record));
        timeout(LOOK_MAX, found).await.ok().and_then(Result::ok).unwrap_or_default()
    };
    let asked = async {
        let link = link?;
        timeout(MODEL_MAX, model(&link, &session_key)).await.ok().flatten()
    };
    let (mut facts, model) = tokio::join!(disk, asked);
    facts.model = model;
    facts
}

/// The transcript that a replaced session left behind.
pub(super) async fn transcript(left: Option<(PathBuf, Left)>) -> Option<String> {
    let (state_dir, left) = left?;
    let found = spawn_blocking(move || left.find(&state_dir));
    let path = timeout(LOOK_MAX, found).await.ok()?.ok()??;
    Some(path.to_string_lossy().into_owned())
}

async fn model(link: &GatewayLink, session_key: &str) -> Option<String> {
    let connect = ConnectOptions { patience: MODEL_MAX, ..options(link) };
    let mut client = Client::connect(&connect).await.ok()?;
    let model = client.session_model(session_key, MODEL_MAX).await.ok().flatten();
    client.close(MODEL_MAX).await;
    model
}

/// What disk and /proc say about an interrupted session's call.
pub(super) fn gather(record: &Checkpoint) -> Facts {
    let Some(cut) = &record.interruption else { return Facts::default() };
    let Some(call) = &cut.call else {
        return Facts { cwd: record.workspace.clone(), ..Facts::default() };
    };
    let running = command::find(call, cut.at);
    let text = |keys: &[&str]| {
        let arguments = call.arguments.as_ref()?;
        keys.iter().find_map(|key| arguments.get(*key)?.as_str()).map(str::to_owned)
    };
    let cwd = text(&CWD_KEYS).or_else(|| running.as_ref().and_then(|running| running.cwd.clone()));
    let cwd = cwd.or_else(|| record.workspace.clone());
    let changed = changed_files(call, cwd.as_deref());
    Facts { running, cwd, changed, ..Facts::default() }
}

fn changed_files(call: &ToolCall, cwd: Option<&str>) -> Vec<Changed> {
    let Some(arguments) = &call.arguments else { return Vec::new() };
    let mut changed: Vec<Changed> = Vec::new();
    for (name, is_path) in named(arguments) {
        if changed.len() >= FILES_MAX {
            break;
        }
        let Some(path) = absolute(&name, cwd) else { continue };
        let found = match std::fs::metadata(&path).and_then(|metadata| metadata.modified()) {
            Ok(at) => {
                let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                let at = Stamp::from_ms(i64::try_from(since).unwrap_or(i64::MAX));
                (at > call.started_at).then_some(Some(at))
            }
            Err(error) if is_path && error.kind() == std::io::ErrorKind::NotFound => Some(None),
            Err(_) => None,
        };
        if let Some(at) = found
            && changed.iter().all(|file| file.path != name)
        {
            changed.push(Changed { path: name, at });
        }
    }
    changed
}

/// What the arguments name that may be a file, and whether it surely is meant as one.
fn named(arguments: &Value) -> Vec<(String, bool)> {
    let text = |key: &str| arguments.get(key).and_then(Value::as_str);
    let paths = PATH_KEYS.iter().filter_map(|key| text(key)).map(|path| (path.to_owned(), true));
    let words = text("command").unwrap_or_default();
    let is_end = |c: char| c.is_whitespace() || "'\"`;|&<>()=".contains(c);
    let words = words
        .split(is_end)
        .filter(|word| word.contains('/') || word.contains('.'))
        .take(WORDS_MAX)
        .map(|word| (word.to_owned(), false));
    paths.chain(words).collect()
}

fn absolute(name: &str, cwd: Option<&str>) -> Option<PathBuf> {
    let path = Path::new(name);
    if name.is_empty() || name.len() > 4_096 {
        None
    } else if path.is_absolute() {
        Some(path.to_path_buf())
    } else {
        cwd.map(|cwd| Path::new(cwd).join(path)).filter(|path| path.is_absolute())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_are_named_by_key_or_by_word() {
        let found = named(&json!({"path": "a.txt", "command": "sh /x/y.sh >out.log; ls"}));
        let wanted = [("a.txt", true), ("/x/y.sh", false), ("out.log", false)];
        assert_eq!(found, wanted.map(|(name, is_path)| (name.to_owned(), is_path)));
    }

    #[test]
    fn a_relative_name_needs_a_directory() {
        assert_eq!(absolute("a", None), None);
        assert_eq!(absolute("a", Some("/w")), Some("/w/a".into()));
        assert_eq!(absolute("a", Some("w")), None);
        assert_eq!(absolute("/a", None), Some("/a".into()));
    }
}
