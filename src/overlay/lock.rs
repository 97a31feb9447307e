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
        let mut hasher = DefaultHasher::new();
        (key, name.as_str()).hash(&mut hasher);
        let shard = usize::try_from(hasher.finish() % SHARDS).unwrap_or(0);
        // There is one for every remainder.
        Some(self.0.get(shard)?.lock().await)
    }
}
