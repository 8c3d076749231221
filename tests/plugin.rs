//! The plugin's own tests, run with the Node that the gateways run on.

mod support;

use std::path::Path;
use std::process::Command;

use support::{Outcome, VERSIONS, available, tell};
use tideover::drill::provision::{Wanted, provision};

#[tokio::test(flavor = "current_thread")]
async fn the_plugin_passes_its_own_tests() -> Outcome {
    let wanted = Wanted::Version(VERSIONS[1].to_owned());
    if !available(&wanted).await? {
        return Ok(());
    }
    let node = provision(&wanted, &tell()).await?.node;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugin");
    let mut files: Vec<_> = std::fs::read_dir(&dir)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.to_string_lossy().ends_with(".test.js"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no tests in {}", dir.display());
    let output = Command::new(node).arg("--test").args(&files).output()?;
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    let ran = report
        .lines()
        .find_map(|line| line.trim_start_matches(['#', 'ℹ', ' ']).strip_prefix("pass "));
    assert!(ran.is_some_and(|count| count.trim() != "0"), "no test ran:\n{report}");
    Ok(())
}
