//! Installing one npm package into the cache: once, whole, and by one process at a time.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;

use super::error::{DrillError, Result};
use super::progress::{Tell, tail};

/// Longest that an installation may take, and that another process's one is waited for.
const INSTALL_MAX: Duration = Duration::from_secs(15 * 60);
/// How often a wait is told about.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Where fetched packages are kept, outside any source tree.
///
/// # Errors
/// When neither `TIDEOVER_CACHE` nor `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("TIDEOVER_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("tideover")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/tideover")))
        .ok_or_else(|| DrillError::Missing {
            what: "a cache directory".to_owned(),
            detail: "HOME, XDG_CACHE_HOME and TIDEOVER_CACHE are all unset".to_owned(),
            next: "set TIDEOVER_CACHE to a directory that may grow to 2 GB".to_owned(),
        })
}

/// Installs `package` (`name@version`) as `<cache>/<name>` unless it is there; returns the path.
///
/// `path` is the `PATH` npm runs with: package scripts take the first `node` on it.
///
/// # Errors
/// [`DrillError::Missing`] without npm, [`DrillError::Npm`] with npm's last lines when it fails.
pub async fn install(
    cache: &Path,
    name: &str,
    package: &str,
    path: &OsString,
    tell: &Tell,
) -> Result<PathBuf> {
    let target = cache.join(name);
    if target.is_dir() {
        return Ok(target);
    }
    std::fs::create_dir_all(cache).map_err(DrillError::io("create", cache))?;
    let lock = cache.join(format!("{name}.lock"));
    let _held = lock_file(&lock, package, tell).await?;
    if target.is_dir() {
        return Ok(target);
    }
    let partial = cache.join(format!("{name}.partial"));
    if partial.exists() {
        // Left by an installation that was cut off; we hold the lock, so nobody is in it.
        std::fs::remove_dir_all(&partial).map_err(DrillError::io("remove", &partial))?;
    }
    std::fs::create_dir_all(&partial).map_err(DrillError::io("create", &partial))?;
    let result = run_npm(&partial, package, path, tell).await;
    if let Err(error) = result {
        drop(std::fs::remove_dir_all(&partial));
        return Err(error);
    }
    std::fs::rename(&partial, &target).map_err(DrillError::io("rename", &partial))?;
    Ok(target)
}

async fn lock_file(path: &Path, package: &str, tell: &Tell) -> Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(DrillError::io("open", path))?;
    let since = Instant::now();
    let mut told = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(DrillError::io("lock", path)(source)),
            Err(TryLockError::WouldBlock) => {}
        }
        if since.elapsed() > INSTALL_MAX {
            return Err(DrillError::Timeout {
                what: format!("the installation of {package} by another process"),
                limit: INSTALL_MAX,
                detail: format!("{} is still locked", path.display()),
            });
        }
        if told.elapsed() > TELL_EVERY {
            tell.waiting(&format!("another process installs {package}"), since);
            told = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn run_npm(dir: &Path, package: &str, path: &OsString, tell: &Tell) -> Result<()> {
    let log = dir.join("npm.log");
    let out = File::create(&log).map_err(DrillError::io("create", &log))?;
    let err = out.try_clone().map_err(DrillError::io("open", &log))?;
    let manifest = dir.join("package.json");
    std::fs::write(&manifest, "{\"private\":true}\n")
        .map_err(DrillError::io("write", &manifest))?;
    let mut child = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--loglevel=error", package])
        .current_dir(dir)
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| DrillError::Missing {
            what: "npm".to_owned(),
            detail: format!("it could not be started: {source}"),
            next: "install Node.js with npm and run it again".to_owned(),
        })?;
    let (what, since) = (format!("npm install {package}"), Instant::now());
    tell.waiting(&what, since);
    let status = loop {
        match tokio::time::timeout(TELL_EVERY, child.wait()).await {
            Ok(status) => {
                break status.map_err(DrillError::io("wait for", "npm"))?.to_string();
            }
            Err(_) if since.elapsed() > INSTALL_MAX => break "stopped after 15 minutes".to_owned(),
            Err(_) => tell.waiting(&what, since),
        }
    };
    if status == "exit status: 0" {
        tell.done(&what, since);
        return Ok(());
    }
    let text = std::fs::read(&log).map_err(DrillError::io("read", &log))?;
    let tail = tail(&String::from_utf8_lossy(&text), 15);
    Err(DrillError::Npm { package: package.to_owned(), status, tail })
}
