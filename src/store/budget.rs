//! Room: what is used, what is promised, and who goes when there is too little.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{debug, warn};

use super::{StageError, Store, Usage};
use crate::oci::Digest;

/// How many blobs are looked at in one round of eviction.
const ROUND: usize = 64;

/// The account of one store, in bytes.
#[derive(Debug)]
pub(super) struct Budget {
    account: Mutex<Account>,
    max_size: u64,
    pub(super) min_free: u64,
}

#[derive(Debug)]
struct Account {
    used: u64,
    reserved: u64,
    /// Parts that no fill is writing.
    parts: HashMap<Digest, u64>,
}

impl Account {
    fn total(&self) -> u64 {
        self.used
            .saturating_add(self.reserved)
            .saturating_add(self.parts.values().sum())
    }
}

impl Budget {
    pub(super) const fn new(
        max_size: u64,
        min_free: u64,
        used: u64,
        parts: HashMap<Digest, u64>,
    ) -> Self {
        Self {
            account: Mutex::new(Account {
                used,
                reserved: 0,
                parts,
            }),
            max_size,
            min_free,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        // Plain numbers: they stay valid whatever happens between lock and unlock.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn usage(&self) -> Usage {
        let account = self.lock();
        Usage {
            cached_bytes: account.used,
            reserved_bytes: account.total() - account.used,
            max_size: self.max_size,
        }
    }

    /// Promises `bytes`, or says how many are missing.
    fn reserve(&self, bytes: u64) -> Result<(), u64> {
        let mut account = self.lock();
        let over = account
            .total()
            .saturating_add(bytes)
            .saturating_sub(self.max_size);
        if over > 0 {
            return Err(over);
        }
        account.reserved += bytes;
        Ok(())
    }

    pub(super) fn unreserve(&self, bytes: u64) {
        let mut account = self.lock();
        account.reserved = account.reserved.saturating_sub(bytes);
    }

    /// A fill takes a part over; its bytes are the fill's reservation now.
    pub(super) fn take_part(&self, digest: &Digest) -> u64 {
        let mut account = self.lock();
        let held = account.parts.remove(digest).unwrap_or(0);
        account.reserved += held;
        held
    }

    /// A fill leaves its part behind.
    pub(super) fn leave_part(&self, digest: &Digest, reserved: u64, held: u64) {
        let mut account = self.lock();
        account.reserved = account.reserved.saturating_sub(reserved);
        if held > 0 {
            account.parts.insert(digest.clone(), held);
        }
    }

    /// A reservation became a blob.
    pub(super) fn settle(&self, reserved: u64, size: u64) {
        let mut account = self.lock();
        account.reserved = account.reserved.saturating_sub(reserved);
        account.used += size;
    }

    /// A blob was found that nobody had counted.
    pub(super) fn adopt(&self, size: u64) {
        self.lock().used += size;
    }

    /// A blob is gone.
    pub(super) fn release(&self, size: u64) {
        let mut account = self.lock();
        account.used = account.used.saturating_sub(size);
    }

    fn pop_part(&self) -> Option<(Digest, u64)> {
        let mut account = self.lock();
        let digest = account.parts.keys().next().cloned()?;
        let size = account.parts.remove(&digest)?;
        Some((digest, size))
    }
}

impl Store {
    /// Promises room for `bytes`, evicting what was used least recently where there is too little.
    pub(super) async fn reserve(&self, bytes: u64) -> Result<(), StageError> {
        let budget = &self.inner.budget;
        if bytes > budget.max_size {
            return Err(StageError::Full);
        }
        if self.inner.layout.free()? < budget.min_free.saturating_add(bytes) {
            return Err(StageError::Full);
        }
        loop {
            let Err(over) = budget.reserve(bytes) else {
                return Ok(());
            };
            if !self.make_room(over).await? {
                return Err(StageError::Full);
            }
        }
    }

    /// Removes at least `bytes`, or as much as there is; says whether anything went. Parts first, then blobs, then manifests.
    async fn make_room(&self, bytes: u64) -> Result<bool, StageError> {
        let mut freed = 0;
        while freed < bytes
            && let Some((digest, size)) = self.inner.budget.pop_part()
        {
            self.remove_file(digest, true).await;
            freed += size;
        }
        if freed < bytes {
            self.write_used().await;
        }
        while freed < bytes {
            let victims = self
                .inner
                .index
                .least_recently_used(ROUND)
                .await
                .map_err(refused)?;
            let chosen = choose(&victims, bytes - freed);
            if chosen.is_empty() {
                break;
            }
            for (digest, size) in chosen {
                // The row goes first: a crash in between leaves an orphan, which is adopted, and never a row without its file.
                if self.inner.index.drop_blob(&digest).await.map_err(refused)? {
                    debug!(%digest, size, "evicted");
                    self.inner.hot.close(&digest);
                    self.remove_file(digest, false).await;
                    self.inner.budget.release(size);
                    self.inner.metrics.evictions.inc();
                }
                freed += size.max(1);
            }
        }
        self.show_usage();
        Ok(freed > 0)
    }

    async fn remove_file(&self, digest: Digest, part: bool) {
        let inner = Arc::clone(&self.inner);
        let removed = tokio::task::spawn_blocking(move || {
            std::fs::remove_file(if part {
                inner.layout.part(&digest)
            } else {
                inner.layout.blob(&digest)
            })
        })
        .await;
        if let Ok(Err(error)) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(%error, "cannot remove an evicted file");
        }
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "map_err hands the error over"
)]
fn refused(error: super::StoreError) -> StageError {
    StageError::Io(std::io::Error::other(error.to_string()))
}

/// The first of `candidates` (in order of eviction) that together free `bytes`.
pub(super) fn choose(candidates: &[(Digest, u64)], bytes: u64) -> Vec<(Digest, u64)> {
    let mut freed = 0u64;
    candidates
        .iter()
        .take_while(|(_, size)| {
            let wanted = freed < bytes;
            freed = freed.saturating_add(*size);
            wanted
        })
        .cloned()
        .collect()
}
