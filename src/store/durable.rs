//! What is made durable behind the answers: cached blobs by `syncfs` in batches, last uses in batches.
//!
//! A cached blob is served as soon as it is verified and renamed. Its row calls it durable only after a `syncfs` that began later, so after
//! an unclean stop exactly the blobs whose rows do not say so are hashed again before they are served (RELIABILITY D15, DECISIONS 9).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::Store;
use crate::oci::Digest;

/// How often pending work is written down.
pub(super) const UPKEEP_EVERY: Duration = Duration::from_secs(3);

/// Blobs that are on disk but perhaps not yet durable.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<Vec<Digest>>);

impl Pending {
    pub(super) fn add(&self, digest: Digest) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(digest);
    }

    fn take(&self) -> Vec<Digest> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store {
    /// Makes pending blobs durable and writes last uses down.
    pub(super) async fn upkeep(&self) {
        self.write_used().await;
        let pending = self.inner.durable.take();
        if pending.is_empty() {
            return;
        }
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || inner.layout.sync()).await {
            Ok(Ok(())) => {
                if let Err(error) = self.inner.index.mark_durable(pending).await {
                    warn!(%error, "cannot write down which blobs are durable");
                }
            }
            // Not tried again for these: they stay undurable, which costs a hash after an unclean stop and nothing else.
            failed => warn!(?failed, "syncfs failed"),
        }
    }

    pub(super) async fn write_used(&self) {
        let used = self.inner.hot.drain_used();
        if !used.is_empty()
            && let Err(error) = self.inner.index.touch(used).await
        {
            warn!(%error, "cannot write down last uses");
        }
    }
}
