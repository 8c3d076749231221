//! A point in time: Unix milliseconds in memory, RFC 3339 with milliseconds on disk.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Unix time in milliseconds. The core never reads a clock; the shell hands stamps in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(i64);

impl Stamp {
    /// A stamp from Unix milliseconds.
    #[must_use]
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Unix milliseconds.
    #[must_use]
    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// Milliseconds from `earlier` to `self`; zero when the clock went backwards.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> i64 {
        let ms = self.0.saturating_sub(earlier.0);
        if ms < 0 { 0 } else { ms }
    }

    /// This stamp, `ms` milliseconds later.
    #[must_use]
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            // Outside jiff's range (years -9999..9999): still print something exact.
            Err(_) => write!(f, "@{}ms", self.0),
        }
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Stamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>().map(|at| Self(at.as_millisecond()))
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_rfc3339_with_milliseconds_and_reads_it_back() {
        for ms in [0, 1, 999, 1_795_362_624_362, -1] {
            let stamp = Stamp::from_ms(ms);
            assert_eq!(stamp.to_string().parse::<Stamp>().ok(), Some(stamp));
        }
        assert_eq!(Stamp::from_ms(1_795_362_624_362).to_string(), "2026-11-22T15:50:24.362Z");
    }

    #[test]
    fn a_clock_that_went_backwards_gives_zero() {
        assert_eq!(Stamp::from_ms(5).since_ms(Stamp::from_ms(9)), 0);
    }
}
