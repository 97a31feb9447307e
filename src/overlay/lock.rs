//! One change of an image at a time, so that what was looked at is still so when it is written down.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

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
pub(super) type Guard = Arc<Vec<OwnedMutexGuard<()>>>;

impl Default for Locks {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Arc::default()).collect())
    }
}

impl Locks {
    /// The lock of an image.
    pub(super) async fn image(&self, key: &str, name: &Name) -> Guard {
        self.images((key, name), (key, name)).await
    }

    /// The locks of two images, which may be one and the same. Taken in one order by everybody.
    pub(super) async fn images(&self, one: (&str, &Name), other: (&str, &Name)) -> Guard {
        let mut shards = [shard(one.0, one.1), shard(other.0, other.1)];
        shards.sort_unstable();
        let [first, second] = shards;
        let mut held = Vec::new();
        for shard in [Some(first), Some(second).filter(|second| *second != first)] {
            if let Some(lock) = shard.and_then(|shard| self.0.get(shard)) {
                held.push(Arc::clone(lock).lock_owned().await);
            }
        }
        Arc::new(held)
    }
}

fn shard(key: &str, name: &Name) -> usize {
    let mut hasher = DefaultHasher::new();
    (key, name.as_str()).hash(&mut hasher);
    // There is a lock for every remainder.
    usize::try_from(hasher.finish() % SHARDS).unwrap_or(0)
}
