//! The wall clock, read in one place.
//!
//! Ages while running are measured with `tokio::time::Instant`; wall time is only what is written down (the index, logs), and it may
//! step: [`Wall::since`] never goes negative.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in wall time, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(i64);

impl Wall {
    /// From milliseconds since the Unix epoch.
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// Reads a time as in RFC 3339; without an offset it is in UTC, and without a time of day it is midnight.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Some(Self(time.as_millisecond()));
        }
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        let time = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(Self(time.timestamp().as_millisecond()))
    }

    /// So much earlier; not before the epoch.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        let ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(ms).max(0))
    }

    /// How long after `earlier` this is; zero where the clock went backwards.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Wall {
    /// As in RFC 3339, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

/// A duration as the configuration has it: `1500ms`, `30s`, `5m`, `72h`, `30d`.
pub fn parse_span(text: &str) -> Option<Duration> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    let factor: u64 = match unit.trim() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    // A century is longer than anything here means, and keeps all arithmetic with instants in range.
    let number: u64 = number.parse().ok()?;
    number
        .checked_mul(factor)
        .map(Duration::from_millis)
        .filter(|span| span.as_secs() <= 100 * 366 * 86_400)
}

/// Now, by the wall clock.
#[expect(clippy::disallowed_methods, reason = "the one home of the wall clock")]
pub fn now() -> Wall {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Wall(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::Wall;

    #[test]
    fn times_are_written_as_everywhere() {
        assert_eq!(Wall::from_ms(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            Wall::from_ms(1_795_251_418_123).to_string(),
            "2026-11-21T08:56:58.123Z"
        );
        for (text, ms) in [
            ("2026-11-21T08:56:58.123Z", Some(1_795_251_418_123)),
            ("2026-11-21T10:56:58.123+02:00", Some(1_795_251_418_123)),
            ("2026-11-21T08:56:58.123", Some(1_795_251_418_123)),
            ("1970-01-02", Some(86_400_000)),
            ("1970-01-02T25:00:00Z", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(Wall::parse(text).map(Wall::as_ms), ms, "{text}");
        }
    }
}
