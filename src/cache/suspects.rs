//! URLs of foreign layers that were first to give bytes of content that turned out to be wrong. In memory only, and only for the order in
//! which places are asked: they are asked after all others, so that a suspicion that does no justice costs nothing.

use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use crate::oci::Digest;
use crate::recent::recent;
use crate::upstream::ForeignUrl;

/// How many are remembered at most.
const SUSPECTS_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// A bounded memory of who lied about which layer. By hash, since a URL may be long.
#[derive(Debug, Clone)]
pub(super) struct Suspects {
    seen: Arc<Mutex<LruCache<u64, ()>>>,
    hashes: RandomState,
}

impl Suspects {
    pub(super) fn new() -> Self {
        Self {
            seen: Arc::new(Mutex::new(recent(SUSPECTS_MAX))),
            hashes: RandomState::new(),
        }
    }

    /// Remembers that `url` gave other content than `digest`.
    pub(super) fn note(&self, digest: &Digest, url: &ForeignUrl) {
        let hash = self.hashes.hash_one((digest, url));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.put(hash, ());
    }

    /// Whether it did so before.
    pub(super) fn holds(&self, digest: &Digest, url: &ForeignUrl) -> bool {
        let hash = self.hashes.hash_one((digest, url));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&hash).is_some()
    }
}
