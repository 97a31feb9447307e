//! One change of a digest's state at a time: commit, first open, eviction, quarantine, adoption.
//!
//! Held by blocking threads for the time of a rename and a row, or of a re-hash. Whoever holds one waits for nothing but the index, so
//! holding several at once (as reconciliation does) cannot deadlock.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::oci::Digest;

/// The digests that are being changed.
#[derive(Debug, Default)]
pub(super) struct Keyed {
    busy: Mutex<HashSet<Digest>>,
    freed: Condvar,
}

impl Keyed {
    /// Waits until nobody else changes `digest`.
    pub(super) fn lock(&self, digest: &Digest) -> Key<'_> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut busy = self
            .freed
            .wait_while(busy, |busy| busy.contains(digest))
            .unwrap_or_else(PoisonError::into_inner);
        busy.insert(digest.clone());
        Key {
            keyed: self,
            digest: digest.clone(),
        }
    }
}

/// The right to change one digest's state.
#[derive(Debug)]
pub(super) struct Key<'a> {
    keyed: &'a Keyed,
    digest: Digest,
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        self.keyed
            .busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.digest);
        self.keyed.freed.notify_all();
    }
}
