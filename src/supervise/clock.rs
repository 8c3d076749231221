//! The only clock: wall time for records, randomness for jitter.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::core::stamp::Stamp;

/// Now, as the records have it.
pub(super) fn now() -> Stamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A byte that differs from call to call, for jitter only.
pub(super) fn jitter() -> u8 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u8::try_from((since.subsec_nanos() >> 8) & 0xff).unwrap_or(0)
}
