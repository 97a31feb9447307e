//! Blobs that are open already, so that a hit asks neither the index nor the file system for a name.
//!
//! Sharded, bounded, least recently used first out. Uses that were not written down yet survive being pushed out.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::blob::Handle;
use crate::oci::Digest;

/// Files kept open; each costs a descriptor.
const OPEN_FILES: usize = 1024;
/// Shards; contention falls with their number.
const SHARDS: usize = 16;

type Shard = LruCache<Digest, Arc<Handle>>;

/// The open files.
pub(super) struct OpenFiles {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// Uses of files that are not open: pushed out, or answered from a memory of their content.
    spilled: Mutex<HashMap<Digest, i64>>,
}

impl OpenFiles {
    pub(super) fn new() -> Self {
        let each = NonZeroUsize::new(OPEN_FILES / SHARDS).unwrap_or(NonZeroUsize::MIN);
        Self {
            shards: std::array::from_fn(|_| Mutex::new(LruCache::new(each))),
            hasher: RandomState::new(),
            spilled: Mutex::default(),
        }
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<Arc<Handle>> {
        self.shard(digest).get(digest).map(Arc::clone)
    }

    /// Notes a use, of a file that may or may not be open.
    pub(super) fn touch(&self, digest: &Digest, stamp: i64) {
        match self.shard(digest).peek(digest) {
            Some(handle) => handle.touch(stamp),
            None => drop(locked(&self.spilled).insert(digest.clone(), stamp)),
        }
    }

    pub(super) fn put(&self, handle: Arc<Handle>) {
        let digest = handle.digest().clone();
        let pushed_out = self.shard(&digest).push(digest, handle);
        self.spill(pushed_out);
    }

    pub(super) fn remove(&self, digest: &Digest) {
        let removed = self.shard(digest).pop(digest);
        if let Some(handle) = removed {
            handle.condemn();
        }
    }

    /// Closes everything that is not being read, for when descriptors run out.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let all = std::mem::replace(
                &mut *locked(shard),
                LruCache::new(NonZeroUsize::new(OPEN_FILES / SHARDS).unwrap_or(NonZeroUsize::MIN)),
            );
            self.spill(all);
        }
    }

    /// The uses since the last call.
    pub(super) fn take_uses(&self) -> Vec<(Digest, i64)> {
        let mut uses: Vec<_> = std::mem::take(&mut *locked(&self.spilled))
            .into_iter()
            .collect();
        for shard in &self.shards {
            for (digest, handle) in locked(shard).iter() {
                uses.extend(handle.take_use().map(|stamp| (digest.clone(), stamp)));
            }
        }
        uses
    }

    fn spill(&self, handles: impl IntoIterator<Item = (Digest, Arc<Handle>)>) {
        for (digest, handle) in handles {
            if let Some(stamp) = handle.take_use() {
                locked(&self.spilled).insert(digest, stamp);
            }
        }
    }

    fn shard(&self, digest: &Digest) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(digest);
        // The remainder is below SHARDS; the first shard stands in for an index that cannot be.
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        let [first, ..] = &self.shards;
        locked(self.shards.get(index).unwrap_or(first))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for OpenFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFiles").finish_non_exhaustive()
    }
}
