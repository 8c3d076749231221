//! When to try again. Pure: the caller brings the time and the jitter.

/// Longest pause between two tries of one notice, in milliseconds (10 min).
const PAUSE_MS_MAX: i64 = 600_000;
/// Pause after the first failed try, in milliseconds.
const PAUSE_MS_MIN: i64 = 2_000;

/// Pause after `tries` failed tries, in milliseconds: doubling from 2 s to 10 min, plus up to a quarter of jitter.
///
/// `jitter` is a number from 0 to 255, so that the caller owns the randomness.
#[must_use]
pub fn pause_ms(tries: u32, jitter: u8) -> i64 {
    let doublings = tries.saturating_sub(1).min(20);
    let base = PAUSE_MS_MIN.saturating_mul(1_i64 << doublings).min(PAUSE_MS_MAX);
    base + base / 4 * i64::from(jitter) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_is_bounded() {
        assert_eq!(pause_ms(1, 0), 2_000);
        assert_eq!(pause_ms(2, 0), 4_000);
        assert_eq!(pause_ms(2, 255), 5_000);
        assert_eq!(pause_ms(u32::MAX, 0), PAUSE_MS_MAX);
        assert_eq!(pause_ms(0, 0), 2_000);
    }
}
