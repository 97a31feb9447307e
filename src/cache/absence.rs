//! 404s that are remembered for a short while. In memory only: a restart may ask again.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use crate::recent::recent;

/// How many 404s one remote remembers at most.
pub(super) const ABSENCES_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// A bounded memory of what upstream does not have.
#[derive(Debug)]
pub(super) struct Absences {
    seen: Mutex<LruCache<Box<str>, Instant>>,
    ttl: Duration,
}

impl Absences {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            seen: Mutex::new(recent(ABSENCES_MAX)),
            ttl,
        }
    }

    /// Remembers that `key` was absent just now.
    pub(super) fn note(&self, key: &str) {
        if !self.ttl.is_zero() {
            self.lock().put(key.into(), Instant::now());
        }
    }

    /// Whether `key` was absent less than the TTL ago.
    pub(super) fn holds(&self, key: &str) -> bool {
        self.lock()
            .get(key)
            .is_some_and(|noted| noted.elapsed() < self.ttl)
    }

    /// Forgets `key`: it has been seen.
    pub(super) fn forget(&self, key: &str) {
        self.lock().pop(key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<Box<str>, Instant>> {
        // The map stays valid whatever happens between lock and unlock.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_404_is_remembered_for_its_ttl() {
        let absences = Absences::new(Duration::from_secs(30));
        absences.note("a");
        assert!(absences.holds("a") && !absences.holds("b"));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(!absences.holds("a"));
        absences.note("a");
        absences.forget("a");
        assert!(!absences.holds("a"));
    }

    #[tokio::test]
    async fn a_ttl_of_zero_remembers_nothing() {
        let absences = Absences::new(Duration::ZERO);
        absences.note("a");
        assert!(!absences.holds("a"));
    }
}
