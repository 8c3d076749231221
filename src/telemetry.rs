//! What tideover says about itself: lines on stderr. Never arguments, texts or tokens: names, ids, counts.

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts the log. `TIDEOVER_LOG` is `error`, `warn`, `info` (the default), `debug` or `trace`.
///
/// stderr is the gateway's too, so each line says whose it is and no line is ever an error of ours: a closed
/// stderr is not worth a gateway.
pub fn start() {
    let level = std::env::var("TIDEOVER_LOG")
        .ok()
        .and_then(|text| text.parse::<Level>().ok())
        .unwrap_or(Level::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .log_internal_errors(false);
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry()
        .with(Targets::new().with_target("tideover", level))
        .with(lines)
        .try_init();
}
