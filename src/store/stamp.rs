//! Stamps of use: near the wall clock, but only ever growing, so that a clock that steps back does not make the newest look oldest.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::Wall;

/// The latest stamp given out.
#[derive(Debug)]
pub(super) struct Stamps(AtomicI64);

impl Stamps {
    /// Goes on from the latest stamp of an earlier run.
    pub(super) const fn after(latest: i64) -> Self {
        Self(AtomicI64::new(latest))
    }

    /// A stamp for a use at `now`: later than all before.
    pub(super) fn next(&self, now: Wall) -> i64 {
        let step = |latest: i64| now.as_ms().max(latest.saturating_add(1));
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |latest| {
                Some(step(latest))
            })
            .unwrap_or_else(|latest| latest);
        step(before)
    }
}
