//! Rows that are asked for on every request, kept in memory in step with the database.
//!
//! Only a committed row enters, and a row that was read enters only if no write touched its shard in the meantime: the generation is
//! taken before the read and compared when the row is put in. A write bumps it after its commit, on the writer's thread.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

/// Shards of a cache; contention falls with their number.
const SHARDS: usize = 16;

/// A bounded cache of rows by key.
pub(super) struct Hot<V> {
    shards: [Mutex<Shard<V>>; SHARDS],
    hasher: RandomState,
}

struct Shard<V> {
    rows: LruCache<Box<str>, V>,
    generation: u64,
}

/// A shard's generation as it was before a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

impl<V: Clone> Hot<V> {
    /// A cache of about `rows` rows.
    pub(super) fn new(rows: usize) -> Self {
        let each = NonZeroUsize::new(rows / SHARDS).unwrap_or(NonZeroUsize::MIN);
        Self {
            shards: std::array::from_fn(|_| {
                Mutex::new(Shard {
                    rows: LruCache::new(each),
                    generation: 0,
                })
            }),
            hasher: RandomState::new(),
        }
    }

    /// The row, or the generation to hand to [`Self::fill`] after having read it.
    pub(super) fn get(&self, key: &str) -> Result<V, Generation> {
        let mut shard = self.shard(key);
        let found = shard.rows.get(key).cloned();
        found.ok_or(Generation(shard.generation))
    }

    /// Keeps a row that was read, unless something was written since.
    pub(super) fn fill(&self, key: &str, value: V, read_at: Generation) {
        let mut shard = self.shard(key);
        if shard.generation == read_at.0 {
            shard.rows.put(key.into(), value);
        }
    }

    /// Keeps a row that was written, or forgets the one that was there. To be called in the order of the commits.
    pub(super) fn written(&self, key: &str, value: Option<V>) {
        let mut shard = self.shard(key);
        shard.generation += 1;
        match value {
            Some(value) => drop(shard.rows.put(key.into(), value)),
            None => drop(shard.rows.pop(key)),
        }
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard<V>> {
        let hash = self.hasher.hash_one(key);
        // The remainder is below SHARDS; the first shard stands in for an index that cannot be.
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        let [first, ..] = &self.shards;
        self.shards
            .get(index)
            .unwrap_or(first)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> fmt::Debug for Hot<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hot").finish_non_exhaustive()
    }
}
