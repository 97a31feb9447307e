//! Whether it makes sense to ask: the breaker after failures, the wait that upstream asked for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::error::{Error, Kind};

/// How many failures in a row open the breaker.
pub(super) const FAILURES_TO_OPEN: u32 = 3;
/// How long it stays open the first time; each further time twice as long.
pub(super) const OPEN_FIRST: Duration = Duration::from_secs(2);
/// How long it stays open at most.
pub(super) const OPEN_MAX: Duration = Duration::from_secs(60);
/// The bounds of a `Retry-After` that is obeyed.
pub(super) const RETRY_AFTER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

/// The health of one upstream.
#[derive(Debug)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
    open_for: Duration,
    probing: bool,
    limited_until: Option<Instant>,
}

/// The right to send one request; says how it went, or counts for nothing when dropped.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    health: &'a Health,
    probe: bool,
    reported: bool,
}

impl Health {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain numbers: they stay valid whatever happens between lock and unlock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request may be sent now. While the breaker is open one probe at a time goes through once its wait is over.
    pub(super) fn admit(&self) -> Result<Admitted<'_>, Error> {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(left) = state
            .limited_until
            .and_then(|until| until.checked_duration_since(now))
            .filter(|left| !left.is_zero())
        {
            return Err(Error::new(
                Kind::RateLimited,
                "upstream asked to be left alone for a while",
            )
            .with_retry_after(Some(left)));
        }
        let Some(until) = state.open_until else {
            return Ok(Admitted {
                health: self,
                probe: false,
                reported: false,
            });
        };
        let left = until.saturating_duration_since(now);
        if !left.is_zero() || state.probing {
            let wait = left.max(Duration::from_secs(1));
            return Err(Error::new(
                Kind::BreakerOpen,
                "upstream failed several times in a row and is not asked for a moment",
            )
            .with_retry_after(Some(wait)));
        }
        state.probing = true;
        Ok(Admitted {
            health: self,
            probe: true,
            reported: false,
        })
    }

    /// Upstream asked to wait.
    pub(super) fn limited(&self, wait: Duration) {
        self.lock().limited_until = Some(Instant::now() + wait);
    }
}

impl Admitted<'_> {
    /// Upstream answered, whatever it said.
    pub(super) fn answered(mut self) {
        self.reported = true;
        let mut state = self.health.lock();
        if state.open_until.is_some() {
            info!("upstream answers again");
        }
        *state = State {
            limited_until: state.limited_until,
            ..State::default()
        };
    }

    /// It could not be reached, took too long, or said 5xx.
    pub(super) fn failed(mut self) {
        self.reported = true;
        let mut state = self.health.lock();
        state.failures = state.failures.saturating_add(1);
        if self.probe || state.failures >= FAILURES_TO_OPEN {
            state.open_for = if state.open_for.is_zero() {
                OPEN_FIRST
            } else {
                (state.open_for * 2).min(OPEN_MAX)
            };
            state.open_until = Some(Instant::now() + state.open_for);
            state.probing = false;
            warn!(
                failures = state.failures,
                seconds = state.open_for.as_secs(),
                "upstream keeps failing; it is not asked for a while"
            );
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if self.probe && !self.reported {
            self.health.lock().probing = false;
        }
    }
}

/// A `Retry-After` in seconds or as a date, clamped into [`RETRY_AFTER`]; `None` where it is neither.
pub(super) fn retry_after(value: &str, now: crate::clock::Wall) -> Option<Duration> {
    let wait = if let Ok(seconds) = value.trim().parse::<i128>() {
        Duration::from_secs(u64::try_from(seconds.clamp(0, 1 << 40)).unwrap_or(0))
    } else {
        let until = httpdate::parse_http_date(value.trim())
            .ok()?
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        until.saturating_sub(Duration::from_millis(
            u64::try_from(now.as_ms()).unwrap_or(0),
        ))
    };
    Some(wait.clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end()))
}
