//! `install --no-unit` and `uninstall` on a real gateway's own configuration.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::incident::{CHAT, behind_tideover, handed_off, record, stop, tideover};
use support::{Outcome, prepared};
use tideover::drill::home::GATEWAY_TOKEN;
use tideover::drill::mock_telegram::BOT_TOKEN;
use tideover::drill::rig::{Rig, RigOptions};

/// Every file below `dir` with its bytes.
fn files_of(dir: &Path) -> Outcome<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            } else if entry.file_type()?.is_file() {
                found.insert(entry.path(), std::fs::read(entry.path())?);
            }
        }
    }
    Ok(found)
}

/// What the gateway's configuration names as plugin directories.
fn plugin_dirs(rig: &Rig) -> Outcome<Vec<PathBuf>> {
    let config: Value = serde_json::from_slice(&std::fs::read(rig.home.config_file())?)?;
    let paths = config["plugins"]["load"]["paths"].as_array().cloned().unwrap_or_default();
    Ok(paths.iter().filter_map(|path| path.as_str().map(PathBuf::from)).collect())
}

/// With the gateway down: dry runs write nothing, an install writes once, and all of it comes out.
async fn written_once_and_taken_back(rig: &Rig) -> Outcome {
    let found = files_of(rig.home.root())?;
    let config = std::fs::read(rig.home.config_file())?;

    let planned = tideover(rig, &["install", "--no-unit", "--dry-run"]).await?;
    assert!(planned.contains("openclaw.json"), "the plan names the file:\n{planned}");
    let planned_json = tideover(rig, &["--json", "install", "--no-unit", "--dry-run"]).await?;
    for secret in [GATEWAY_TOKEN, BOT_TOKEN, "mock-key"] {
        assert!(!planned.contains(secret) && !planned_json.contains(secret), "{secret} is shown");
    }
    assert_eq!(files_of(rig.home.root())?, found, "a dry run writes nothing");
    let planned: Value = serde_json::from_str(&planned_json)?;
    assert_eq!(planned["schema"], "tideover.install/1");
    assert_eq!(planned["dry_run"], true);

    let done = tideover(rig, &["--json", "install", "--no-unit"]).await?;
    let done: Value = serde_json::from_str(&done)?;
    assert_eq!(done["files"], planned["files"], "what was planned is what was done");
    assert_eq!(done["dry_run"], false);
    let installed = files_of(rig.home.root())?;
    let [dir] = &plugin_dirs(rig)?[..] else { return Err("one plugin directory expected".into()) };
    assert!(installed.contains_key(&dir.join("index.js")), "{}", dir.display());

    let again = tideover(rig, &["--json", "install", "--no-unit"]).await?;
    assert_eq!(serde_json::from_str::<Value>(&again)?["files"], json!([]));
    assert_eq!(files_of(rig.home.root())?, installed, "a second install changes no byte");

    let before = installed.clone();
    tideover(rig, &["uninstall", "--dry-run"]).await?;
    assert_eq!(files_of(rig.home.root())?, before, "a dry run removes nothing");
    let out = tideover(rig, &["--json", "uninstall"]).await?;
    assert_eq!(serde_json::from_str::<Value>(&out)?["schema"], "tideover.uninstall/1");
    assert_eq!(std::fs::read(rig.home.config_file())?, config, "openclaw.json as it was found");
    assert!(!dir.exists(), "{} is left", dir.display());
    assert_eq!(files_of(rig.home.root())?, found);
    Ok(())
}

/// The gateway runs with what is installed, and without it again afterwards.
async fn runs_with_it(rig: &mut Rig) -> Outcome {
    let config = std::fs::read(rig.home.config_file())?;
    tideover(rig, &["install", "--no-unit"]).await?;
    let installed = std::fs::read(rig.home.config_file())?;
    rig.boot().await?;
    handed_off(rig).await?;
    rig.plain_turn(CHAT, "Hello there", "Hello to you.").await?;
    assert_eq!(record(rig, CHAT)?["evidence"], "plugin");
    stop(rig).await?;
    assert_eq!(
        String::from_utf8_lossy(&std::fs::read(rig.home.config_file())?),
        String::from_utf8_lossy(&installed),
        "the gateway takes the configuration as it is"
    );
    tideover(rig, &["uninstall"]).await?;
    assert_eq!(std::fs::read(rig.home.config_file())?, config);
    Ok(())
}

async fn in_and_out(version: &str) -> Outcome {
    // Nothing is installed, and nothing runs, until the test says so.
    let options = RigOptions { prepare: Some(Vec::new()), ..behind_tideover("") };
    let Some((mut rig, _slot)) = prepared(version, options).await? else {
        return Ok(());
    };
    written_once_and_taken_back(&rig).await?;
    runs_with_it(&mut rig).await
}

#[tokio::test(flavor = "current_thread")]
async fn comes_in_and_out_of_2026_9_6() -> Outcome {
    in_and_out("2026.9.6").await
}

#[tokio::test(flavor = "current_thread")]
async fn comes_in_and_out_of_2026_5_5() -> Outcome {
    in_and_out("2026.5.5").await
}
