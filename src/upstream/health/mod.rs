//! Whether an upstream is asked at all (RELIABILITY P18, P25).
//!
//! Pure but for the lock: `now` is an argument. Transport failures, time-outs and 5xx in a row open the breaker; what an upstream says
//! about one image (404, 401, 429, or 5xx to nothing but that image) does not. An open breaker lets one request through after its pause;
//! its outcome decides.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open the breaker.
const FAILURES: u32 = 3;
/// The first pause; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Whether an upstream is asked at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// It works, as far as anyone knows.
    Closed,
    /// It failed too often a moment ago; it is left alone for this long.
    Open(Duration),
    /// Its pause is over; one request at a time is let through to try it.
    HalfOpen,
}

/// What the failures in a row had in common.
#[derive(Debug, Default, PartialEq, Eq)]
enum About {
    #[default]
    Nothing,
    OneImage(Box<str>),
    Everything,
}

/// The breaker of one upstream. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Breaker(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// The image that the failures were answers about, as long as there was no other and no failure to answer.
    about: About,
    /// Set while the breaker is not closed.
    until: Option<Instant>,
    pauses: u32,
    is_trying: bool,
}

impl Breaker {
    /// Lets a request through, or tells how long it is not worth asking.
    pub(super) fn admit(&self, now: Instant) -> Result<Admission, Duration> {
        let mut state = self.lock();
        let is_trial = match state.until {
            None => false,
            Some(until) if until > now => return Err(until - now),
            Some(_) if state.is_trying => return Err(Duration::from_secs(1)),
            Some(_) => true,
        };
        state.is_trying |= is_trial;
        Ok(Admission {
            breaker: self.clone(),
            is_trial,
        })
    }

    /// How it stands.
    pub(super) fn state(&self, now: Instant) -> BreakerState {
        let until = self.lock().until;
        match until {
            None => BreakerState::Closed,
            Some(until) if until > now => BreakerState::Open(until - now),
            Some(_) => BreakerState::HalfOpen,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was let through. Dropped without an outcome (its client left), it says nothing about the upstream.
#[derive(Debug)]
pub(super) struct Admission {
    breaker: Breaker,
    is_trial: bool,
}

impl Admission {
    /// The upstream answered as one that works.
    pub(super) fn worked(self) {
        let mut state = self.breaker.lock();
        // A request from before the breaker opened says nothing about now.
        if self.is_trial || state.until.is_none() {
            *state = State::default();
        }
    }

    /// The upstream failed: with an answer about this image, or (`None`) without any. True when this opened the breaker.
    pub(super) fn failed(self, now: Instant, image: Option<&str>) -> bool {
        let mut state = self.breaker.lock();
        state.failures = state.failures.saturating_add(1);
        state.about = match (std::mem::take(&mut state.about), image) {
            (About::Nothing, Some(image)) => About::OneImage(image.into()),
            (About::OneImage(known), Some(image)) if *known == *image => About::OneImage(known),
            _ => About::Everything,
        };
        let is_down = state.failures >= FAILURES && state.about == About::Everything;
        let opens = self.is_trial || (state.until.is_none() && is_down);
        if opens {
            let pause = PAUSE
                .saturating_mul(1 << state.pauses.min(8))
                .min(PAUSE_MAX);
            state.until = now.checked_add(pause);
            state.pauses = state.pauses.saturating_add(1);
        }
        opens
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.is_trial {
            self.breaker.lock().is_trying = false;
        }
    }
}

#[cfg(test)]
mod tests;
