//! Bytes a second: when all bytes that were booked would have come.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The least that can be configured, in bytes a second: less is no transfer but a stall.
pub const BANDWIDTH_MIN: u64 = 64 * 1024;
/// A shorter pause than this is not worth a timer; it is made up for with the next one.
pub const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Bytes that come after a pause are let through for so long a time of the configured rate.
const BURST: Duration = Duration::from_millis(50);

/// A rate, and until when it is booked. Pure but for the lock: `now` is an argument.
#[derive(Debug)]
pub struct Bandwidth {
    rate: NonZeroU64,
    due: Mutex<Instant>,
}

impl Bandwidth {
    /// `rate` bytes a second, from now on.
    pub const fn new(rate: NonZeroU64, now: Instant) -> Self {
        Self {
            rate,
            due: Mutex::new(now),
        }
    }

    /// Books bytes; says how long it is until they would have come.
    pub fn book(&self, bytes: u64, now: Instant) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate.get());
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not used before is not made up for, but for a moment's worth.
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        *due = (*due).max(earliest) + takes;
        due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_booked_one_after_the_other() {
        let start = Instant::now();
        let rate = NonZeroU64::new(1_000_000).unwrap();
        let bandwidth = Bandwidth::new(rate, start);
        let ms = Duration::from_millis;
        // Two transfers that take 100 kB each: the second's turn is behind the first's.
        assert_eq!(bandwidth.book(100_000, start), ms(100));
        assert_eq!(bandwidth.book(100_000, start), ms(200));
        assert_eq!(bandwidth.book(100_000, start + ms(200)), ms(100));
        // After an idle hour there is a moment's worth to spare and not an hour's.
        let later = start + Duration::from_secs(3600);
        assert_eq!(bandwidth.book(10_000, later), Duration::ZERO);
        assert_eq!(bandwidth.book(100_000, later), ms(60));
    }
}
