//! What was asked for of late: a client that was told "I have that" is about to push a manifest that needs it.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use crate::oci::{Digest, Name};
use crate::recent::recent;

/// How many are remembered.
const TOUCHED_MAX: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();

/// When what was last asked for, by the monotonic clock.
#[derive(Debug)]
pub(super) struct Touched(Mutex<LruCache<String, Instant>>);

impl Default for Touched {
    fn default() -> Self {
        Self(Mutex::new(recent(TOUCHED_MAX)))
    }
}

fn key(repo: &str, name: &Name, digest: &Digest) -> String {
    format!("{repo}\0{name}\0{digest}")
}

impl Touched {
    /// Somebody was told that it is here.
    pub(super) fn note(&self, repo: &str, name: &Name, digest: &Digest) {
        let key = key(repo, name, digest);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(key, Instant::now());
    }

    /// Whether that is less than `age` ago.
    pub(super) fn within(&self, repo: &str, name: &Name, digest: &Digest, age: Duration) -> bool {
        let touched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = touched.peek(&key(repo, name, digest)).copied();
        at.is_some_and(|at| at.elapsed() < age)
    }
}
