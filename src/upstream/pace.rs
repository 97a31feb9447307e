//! How fast one upstream is asked and read: requests and bytes a second (`limits.requests_per_second`, `limits.bandwidth`).
//!
//! Requests take their turn before they are dialled, first come, first served, and wait a bounded time for it. Bytes are booked as they
//! come, and whoever took them reads on when all that was booked would have come at the configured rate: transfers that run at the same
//! time get their turns one chunk after the other, nothing is polled, and upstream is held back by not being read.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::{Instant, sleep, timeout};

use super::config::Allowance;
use super::endpoint::Origin;
use super::error::{Error, Kind};
use super::meter::{Meter, Wait};

/// How long a request waits for its turn. Nobody who is kept longer is still there.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that come after a pause are let through for so long a time of the configured rate.
const BURST: Duration = Duration::from_millis(50);
/// A shorter pause than this is not worth a timer; it is made up for with the next one.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// The pace of one upstream.
#[derive(Debug)]
pub(super) struct Pace {
    own: Origin,
    turns: Option<Turns>,
    bytes: Option<Bandwidth>,
    meter: Meter,
}

#[derive(Debug)]
struct Turns {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
    /// Whose turn is next. Hands itself on in the order of asking.
    queue: tokio::sync::Mutex<()>,
}

impl Pace {
    /// `own` is whom requests are counted for.
    pub(super) fn new(own: Origin, allowance: &Allowance, meter: Meter) -> Self {
        Self {
            own,
            turns: allowance.requests_per_second.map(Turns::new),
            bytes: allowance
                .bandwidth
                .map(|rate| Bandwidth::new(rate, Instant::now())),
            meter,
        }
    }

    /// Waits for the turn of a request to `origin`. Only the upstream itself is counted.
    pub(super) async fn turn(&self, origin: &Origin) -> Result<(), Error> {
        let Some(turns) = self.turns.as_ref().filter(|_| *origin == self.own) else {
            return Ok(());
        };
        let start = Instant::now();
        let come = timeout(TURN_PATIENCE, turns.next()).await;
        self.meter.waited(Wait::Turn, start.elapsed());
        come.map_err(|_elapsed| {
            let sentence = format!(
                "{origin} is asked no more often than limits.requests_per_second lets it, and others were first"
            );
            Error::new(Kind::Throttled, sentence).with_retry_after(Some(TURN_PATIENCE))
        })
    }

    /// Books bytes that came; says from when on more may be read.
    pub(super) fn book(&self, bytes: usize) -> Option<Instant> {
        let (now, bandwidth) = (Instant::now(), self.bytes.as_ref()?);
        let pause = bandwidth.book(bytes as u64, now);
        (pause >= PAUSE_MIN).then(|| {
            self.meter.paced(bytes);
            now + pause
        })
    }

    /// Waits until then.
    pub(super) async fn pause(&self, until: Instant) {
        let start = Instant::now();
        tokio::time::sleep_until(until).await;
        self.meter.waited(Wait::Bandwidth, start.elapsed());
    }
}

impl Turns {
    fn new(rate: NonZeroU32) -> Self {
        // What a second allows is spread over it: an upstream that counts by the second is not met with two seconds' worth at once.
        let burst = NonZeroU32::new(rate.get() / 10).unwrap_or(NonZeroU32::MIN);
        Self {
            limiter: RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)),
            clock: DefaultClock::default(),
            queue: tokio::sync::Mutex::default(),
        }
    }

    async fn next(&self) {
        let _first = self.queue.lock().await;
        while let Err(early) = self.limiter.check() {
            sleep(early.wait_time_from(self.clock.now())).await;
        }
    }
}

/// When all bytes that were booked would have come. Pure but for the lock: `now` is an argument.
#[derive(Debug)]
struct Bandwidth {
    rate: NonZeroU64,
    due: Mutex<Instant>,
}

impl Bandwidth {
    const fn new(rate: NonZeroU64, now: Instant) -> Self {
        Self {
            rate,
            due: Mutex::new(now),
        }
    }

    /// Books bytes; says how long it is until they would have come.
    fn book(&self, bytes: u64, now: Instant) -> Duration {
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
