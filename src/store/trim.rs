//! Cutting a store down before somebody packs it up.

use std::sync::{Arc, PoisonError};

use tracing::warn;

use super::shared::Shared;
use super::{Store, StoreError, blocking};

/// What cutting it down came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// How many bytes went.
    pub gone: u64,
    /// How many bytes of blobs stay.
    pub cached: u64,
}

impl Store {
    /// Lets go of parts and of what is in quarantine, and of cached content, the least recently used first, until it is at most `most`
    /// bytes. What is kept or pushed stays.
    pub async fn trim(&self, most: u64) -> Result<Trimmed, StoreError> {
        let shared = Arc::clone(&self.shared);
        Ok(blocking(move || shared.trim(most)).await?)
    }
}

impl Shared {
    fn trim(&self, most: u64) -> Trimmed {
        self.wait_for_figures();
        let _alone = self
            .making_room
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = self.budget.books().used();
        while let Some((name, size)) = self.quarantine.pop() {
            self.drop_quarantined(&name, size);
        }
        for (digest, _) in self.parts.waiting() {
            self.drop_part(&digest);
        }
        loop {
            // What stays whatever is done must not keep the rest here.
            let used = self.budget.books().used();
            let evictable = used.saturating_sub(self.index.kept_bytes());
            let need = used.saturating_sub(most).min(evictable);
            if need == 0 || !self.let_go(need) {
                break;
            }
        }
        let used = self.budget.books().used();
        if used > most {
            warn!(
                bytes = used,
                most, "pinned images keep the cache larger than it should be"
            );
        }
        Trimmed {
            gone: before.saturating_sub(used),
            cached: used,
        }
    }
}
