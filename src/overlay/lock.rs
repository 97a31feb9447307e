//! One change of an image at a time, so that what was looked at is still so when it is written down.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, PoisonError};

use tokio::sync::{Mutex, OwnedMutexGuard, OwnedRwLockReadGuard, RwLock};

use crate::oci::Name;
use crate::store::Keep;

/// Locks for all images; two that share one only wait a little longer.
const SHARDS: u64 = 256;

/// Shares something with the record that is being written.
pub(super) fn keep<T: Send + Sync + 'static>(what: &Arc<T>) -> Keep {
    let shared: Arc<T> = Arc::clone(what);
    shared
}

/// The locks.
#[derive(Debug)]
pub(super) struct Locks(Vec<Arc<Mutex<()>>>);

/// The right to change an image, shared with the record that is being written: it ends when both are done.
pub(super) type Guard = Arc<Held>;

/// What a change of an image holds.
#[derive(Debug)]
pub(super) struct Held {
    _images: Vec<OwnedMutexGuard<()>>,
    _entered: Vec<Entered>,
}

/// One repository's door: who changes anything of it holds it open, who removes it closes it for good.
pub(super) type Gate = Arc<RwLock<Closed>>;
/// Whether a repository has been removed.
#[derive(Debug, Default)]
pub(super) struct Closed(pub(super) bool);
/// A repository that is not removed meanwhile.
pub(super) type Entered = OwnedRwLockReadGuard<Closed>;

/// The gates of all repositories. Two that are told different things under one key, before and after a reload, share theirs.
#[derive(Debug, Default)]
pub(super) struct Gates(std::sync::Mutex<HashMap<Arc<str>, Gate>>);

impl Gates {
    /// The gate of a repository.
    pub(super) fn of(&self, key: &Arc<str>) -> Gate {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(Arc::clone(key)).or_default())
    }

    /// The next repository of that key is another one.
    pub(super) fn forget(&self, key: &str) {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gates.remove(key);
    }
}

impl Default for Locks {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Arc::default()).collect())
    }
}

impl Locks {
    /// The locks of two images, which may be one and the same. Taken in one order by everybody.
    pub(super) async fn images(
        &self,
        one: (&str, &Name),
        other: (&str, &Name),
        entered: Vec<Entered>,
    ) -> Guard {
        let mut shards = [shard(one.0, one.1), shard(other.0, other.1)];
        shards.sort_unstable();
        let [first, second] = shards;
        let mut held = Vec::new();
        for shard in [Some(first), Some(second).filter(|second| *second != first)] {
            if let Some(lock) = shard.and_then(|shard| self.0.get(shard)) {
                held.push(Arc::clone(lock).lock_owned().await);
            }
        }
        Arc::new(Held {
            _images: held,
            _entered: entered,
        })
    }
}

fn shard(key: &str, name: &Name) -> usize {
    let mut hasher = DefaultHasher::new();
    (key, name.as_str()).hash(&mut hasher);
    // There is a lock for every remainder.
    usize::try_from(hasher.finish() % SHARDS).unwrap_or(0)
}
