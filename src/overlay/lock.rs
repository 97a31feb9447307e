//! One change of an image at a time, so that what was looked at is still so when it is written down.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use tokio::sync::{Mutex, MutexGuard};

use crate::oci::Name;

/// Locks for all images; two that share one only wait a little longer.
const SHARDS: u64 = 256;

/// The locks.
#[derive(Debug)]
pub(super) struct Locks(Vec<Mutex<()>>);

impl Default for Locks {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::new(())).collect())
    }
}

impl Locks {
    /// The lock of an image.
    pub(super) async fn image(&self, key: &str, name: &Name) -> Option<MutexGuard<'_, ()>> {
        Some(self.0.get(shard(key, name))?.lock().await)
    }

    /// The locks of two images, which may be one and the same. Taken in one order by everybody.
    pub(super) async fn images(
        &self,
        one: (&str, &Name),
        other: (&str, &Name),
    ) -> [Option<MutexGuard<'_, ()>>; 2] {
        let (one, other) = (shard(one.0, one.1), shard(other.0, other.1));
        let (first, second) = (one.min(other), one.max(other));
        let first_held = match self.0.get(first) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        let second_held = match self.0.get(second) {
            Some(lock) if second != first => Some(lock.lock().await),
            _ => None,
        };
        [first_held, second_held]
    }
}

fn shard(key: &str, name: &Name) -> usize {
    let mut hasher = DefaultHasher::new();
    (key, name.as_str()).hash(&mut hasher);
    // There is a lock for every remainder.
    usize::try_from(hasher.finish() % SHARDS).unwrap_or(0)
}
