//! How fast one upstream is asked and read: requests and bytes a second (`limits.requests_per_second`, `limits.bandwidth`).
//!
//! Requests take their turn before they are dialled, first come, first served, and wait a bounded time for it. Bytes are booked as they
//! come, and whoever took them reads on when all that was booked would have come at the configured rate: transfers that run at the same
//! time get their turns one chunk after the other, nothing is polled, and upstream is held back by not being read.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::{Instant, sleep, timeout};

use super::config::Allowance;
use super::endpoint::Origin;
use super::error::{Error, Kind};
use super::meter::{Meter, Wait};
use crate::bandwidth::{Bandwidth, PAUSE_MIN};

/// How long a request waits for its turn. Nobody who is kept longer is still there.
const TURN_PATIENCE: Duration = Duration::from_secs(10);

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
