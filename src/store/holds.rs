//! Content that a push is about to link: neither evicted nor collected until its link stands in the index.
//!
//! A blob that nothing links may go at any moment. Between the look at it and the link that will keep it, a push holds its digest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::oci::Digest;

/// How many pushes hold each digest.
#[derive(Debug, Clone, Default)]
pub(super) struct Holds(Arc<Mutex<HashMap<Digest, usize>>>);

/// Holds one digest until it is dropped.
#[derive(Debug)]
pub struct Hold {
    holds: Holds,
    digest: Digest,
}

impl Holds {
    /// Holds `digest`. To be called under the digest's key, so that no eviction is half way.
    pub(super) fn hold(&self, digest: &Digest) -> Hold {
        *self.lock().entry(digest.clone()).or_default() += 1;
        Hold {
            holds: self.clone(),
            digest: digest.clone(),
        }
    }

    pub(super) fn is_held(&self, digest: &Digest) -> bool {
        self.lock().contains_key(digest)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// What is held.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.holds.lock();
        if let Some(count) = held.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.digest);
            }
        }
    }
}
