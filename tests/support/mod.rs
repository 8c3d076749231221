//! What the end-to-end tests share: a rig on a real gateway, one at a time, or a clear skip.

#![allow(
    clippy::allow_attributes,
    clippy::print_stderr,
    dead_code,
    reason = "each test file uses a part of this"
)]

pub(crate) mod incident;
pub(crate) mod lab;
pub(crate) mod lab_gateway;
pub(crate) mod queue;
pub(crate) mod random;
pub(crate) mod unit;

use std::error::Error;
use std::fs::File;
use std::time::{Duration, Instant};

use tideover::drill::npm::cache_dir;
use tideover::drill::progress::{Progress, Tell};
use tideover::drill::provision::{Wanted, provision};
use tideover::drill::rig::{Rig, RigOptions};

/// Result of a test.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Both gateways that count.
pub(crate) const VERSIONS: [&str; 2] = ["2026.9.6", "2026.5.5"];

/// Longest that a test waits for the other tests' gateways.
const SLOT_MAX: Duration = Duration::from_secs(3600);

/// Most gateways at once, on however large a machine: each takes some 500 MB.
const SLOTS_MAX: usize = 4;

/// Progress on stderr, so that a slow start can be told from a hanging one.
pub(crate) fn tell() -> Tell {
    let last = std::sync::Mutex::new(Instant::now());
    Tell::new(move |progress| match progress {
        Progress::Note(text) => eprintln!("  {text}"),
        Progress::Done { what, elapsed } => eprintln!("  {what}: {:.1} s", elapsed.as_secs_f32()),
        Progress::Step(step) => eprintln!("  {:>6} ms {} {}", step.at_ms, step.what, step.detail),
        Progress::Check(check) => eprintln!(
            "  {} {} {}",
            if check.ok { "kept  " } else { "BROKEN" },
            check.name,
            check.subject
        ),
        Progress::Waiting { what, elapsed } => {
            let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if last.elapsed() > Duration::from_secs(10) {
                *last = Instant::now();
                eprintln!("  {what}: {:.0} s …", elapsed.as_secs_f32());
            }
        }
    })
}

/// The right to run a gateway on this machine: as many at once as it has cores. In a crowd they start several
/// times slower.
pub(crate) async fn slot() -> Outcome<File> {
    let dir = cache_dir()?;
    std::fs::create_dir_all(&dir)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let open = |number: usize| {
        let name = dir.join(format!("gateway-{number}.slot"));
        File::options().create(true).truncate(false).write(true).open(name)
    };
    let files = (0..cores.min(SLOTS_MAX)).map(open).collect::<Result<Vec<_>, _>>()?;
    let since = Instant::now();
    loop {
        for file in &files {
            match file.try_lock() {
                Ok(()) => return Ok(file.try_clone()?),
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        if since.elapsed() > SLOT_MAX {
            return Err("other tests have held the gateways' slots for an hour".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether this gateway can be had; `false` (with a message) where the test is to be skipped.
pub(crate) async fn available(wanted: &Wanted) -> Outcome<bool> {
    let Err(error) = provision(wanted, &tell()).await else {
        return Ok(true);
    };
    let required = std::env::var("TIDEOVER_REQUIRE").unwrap_or_default();
    if error.is_unavailable() && !required.split(',').any(|word| word.trim() == "gateway") {
        eprintln!("SKIPPED: the gateway {wanted:?} cannot be had here: {error}");
        return Ok(false);
    }
    Err(error.into())
}

/// A started rig and the slot it holds, or `None` (with a message) where no gateway can be had.
pub(crate) async fn rig(version: &str, options: RigOptions) -> Outcome<Option<(Rig, File)>> {
    let Some((mut rig, slot)) = prepared(version, options).await? else {
        return Ok(None);
    };
    rig.boot().await?;
    Ok(Some((rig, slot)))
}

/// The same before its first start.
pub(crate) async fn prepared(version: &str, options: RigOptions) -> Outcome<Option<(Rig, File)>> {
    let wanted = Wanted::Version(version.to_owned());
    if !available(&wanted).await? {
        return Ok(None);
    }
    let keep = options.keep || std::env::var_os("TIDEOVER_KEEP").is_some();
    let options = RigOptions { tell: tell(), keep, ..options };
    let slot = slot().await?;
    let rig = Rig::prepare(&wanted, options).await?;
    if rig.home.keep {
        eprintln!("  kept: {}", rig.home.root().display());
    }
    Ok(Some((rig, slot)))
}
