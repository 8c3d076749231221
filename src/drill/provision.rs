//! Finding or fetching a gateway: a Node that fits, and an OpenClaw package.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use tokio::process::Command;

use super::error::{DrillError, Result};
use super::npm;
use super::progress::Tell;

/// The version that is fetched when none is installed and none is named.
pub const DEFAULT_VERSION: &str = "2026.9.6";
/// The Node line that is fetched when none on `PATH` fits.
const NODE_PACKAGE: &str = "node@24";

/// Which OpenClaw to rehearse with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Wanted {
    /// The installed one, else [`DEFAULT_VERSION`].
    #[default]
    Any,
    /// A published version, fetched into the cache.
    Version(String),
    /// A package directory, or a launch file in it.
    Path(PathBuf),
}

impl FromStr for Wanted {
    type Err = DrillError;

    /// A text with a slash, or `.`, is a path; everything else must look like a version.
    fn from_str(text: &str) -> Result<Self> {
        if text.contains('/') || text == "." {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
        if text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(fits) {
            return Ok(Self::Version(text.to_owned()));
        }
        Err(DrillError::Usage {
            detail: format!("{text:?} is neither an OpenClaw version nor a path"),
            next: format!("use --openclaw {DEFAULT_VERSION} or --openclaw ./path/to/openclaw"),
        })
    }
}

/// A gateway that can be started: `node ENTRY gateway --port N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Version out of its package.json.
    pub version: String,
    /// The Node it runs on.
    pub node: PathBuf,
    /// Its launch file.
    pub entry: PathBuf,
    /// Where Node keeps compiled code between starts.
    pub compile_cache: PathBuf,
}

impl Gateway {
    /// The command line that starts it in the foreground.
    #[must_use]
    pub fn command(&self, port: u16) -> Vec<OsString> {
        let words = ["gateway".into(), "--port".into(), port.to_string().into()];
        [self.node.clone().into(), self.entry.clone().into()].into_iter().chain(words).collect()
    }

    /// `PATH` with this gateway's Node first.
    #[must_use]
    pub fn path(&self) -> OsString {
        path_with(self.node.parent())
    }
}

/// Finds or fetches what is wanted.
///
/// # Errors
/// Errors for which [`DrillError::is_unavailable`] holds when it cannot be had on this machine.
pub async fn provision(wanted: &Wanted, tell: &Tell) -> Result<Gateway> {
    let cache = npm::cache_dir()?;
    let node = node(&cache, tell).await?;
    let package = match wanted {
        Wanted::Path(path) => package_of(path)?,
        Wanted::Version(version) => fetch(&cache, version, &node, tell).await?,
        Wanted::Any => match on_path("openclaw").and_then(|found| package_of(&found).ok()) {
            Some(package) => package,
            None => fetch(&cache, DEFAULT_VERSION, &node, tell).await?,
        },
    };
    let version = version_of(&package)?;
    let entry = ["dist/index.js", "openclaw.mjs"].map(|file| package.join(file));
    let entry = entry.into_iter().find(|file| file.is_file()).ok_or_else(|| {
        let detail = format!("{} has neither dist/index.js nor openclaw.mjs", package.display());
        DrillError::Usage { detail, next: "name another OpenClaw with --openclaw".to_owned() }
    })?;
    let compile_cache = cache.join("compile");
    tell.note(format!("OpenClaw {version} on {}", node.display()));
    Ok(Gateway { version, node, entry, compile_cache })
}

async fn fetch(cache: &Path, version: &str, node: &Path, tell: &Tell) -> Result<PathBuf> {
    let (name, package) = (format!("openclaw-{version}"), format!("openclaw@{version}"));
    let dir = npm::install(cache, &name, &package, &path_with(node.parent()), tell).await?;
    package_of(&dir.join("node_modules/openclaw"))
}

/// A Node on `PATH` that the gateways accept, else one from npm.
async fn node(cache: &Path, tell: &Tell) -> Result<PathBuf> {
    if let Some(found) = on_path("node")
        && node_version(&found).await.is_some_and(fits)
    {
        return Ok(found);
    }
    let dir = npm::install(cache, "node-24", NODE_PACKAGE, &path_with(None), tell).await?;
    let node = dir.join("node_modules/node/bin/node");
    if node_version(&node).await.is_some_and(fits) {
        return Ok(node);
    }
    Err(DrillError::Missing {
        what: "Node.js".to_owned(),
        detail: format!("none >=24.16 <25 or >=26.1 on PATH, and {} does not run", node.display()),
        next: format!("put a fitting node on PATH, or remove {} and run it again", dir.display()),
    })
}

/// Whether OpenClaw 2026.9 accepts this Node: `>=24.16 <25 || >=26.1`.
fn fits((major, minor): (u32, u32)) -> bool {
    match major {
        24 => minor >= 16,
        26 => minor >= 1,
        _ => major > 26,
    }
}

async fn node_version(node: &Path) -> Option<(u32, u32)> {
    let asked = Command::new(node)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(20), asked).await.ok()?.ok()?;
    parse_version(std::str::from_utf8(&output.stdout).ok()?)
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().strip_prefix('v')?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The program `name` on `PATH`, links resolved (a launch file stands beside its package.json).
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .and_then(|file| file.canonicalize().ok())
}

fn path_with(first: Option<&Path>) -> OsString {
    let rest = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let dirs = first.map(Path::to_path_buf).into_iter().chain(std::env::split_paths(&rest));
    std::env::join_paths(dirs).unwrap_or(rest)
}

/// The package directory a path points to or into.
fn package_of(path: &Path) -> Result<PathBuf> {
    let path = path.canonicalize().map_err(DrillError::io("find", path))?;
    let is_package = |dir: &&Path| dir.join("package.json").is_file() && version_of(dir).is_ok();
    path.ancestors().take(4).find(is_package).map(Path::to_path_buf).ok_or_else(|| {
        let detail = format!("{} is not in an OpenClaw package", path.display());
        DrillError::Usage { detail, next: "name its directory with --openclaw".to_owned() }
    })
}

fn version_of(package: &Path) -> Result<String> {
    let file = package.join("package.json");
    let bytes = std::fs::read(&file).map_err(DrillError::io("read", &file))?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let named = value["name"] == "openclaw";
    let version = value["version"].as_str().filter(|_| named);
    version.map(str::to_owned).ok_or_else(|| DrillError::Usage {
        detail: format!("{} is not OpenClaw's", file.display()),
        next: "name an OpenClaw package with --openclaw".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_versions_are_judged_as_openclaw_judges_them() {
        let cases = [
            ("v20.20.2", false),
            ("v24.15.9", false),
            ("v24.16.0", true),
            ("v25.3.0", false),
            ("v26.0.0", false),
            ("v26.1.0", true),
            ("v28.0.0", true),
            ("nonsense", false),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_version(text).is_some_and(fits), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wanted_is_a_version_or_a_path() {
        assert_eq!("2026.5.5".parse::<Wanted>().ok(), Some(Wanted::Version("2026.5.5".into())));
        assert_eq!("./oc".parse::<Wanted>().ok(), Some(Wanted::Path("./oc".into())));
        assert!("latest; rm".parse::<Wanted>().is_err());
        assert!("..".parse::<Wanted>().is_err());
    }
}
