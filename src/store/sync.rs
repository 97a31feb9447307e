//! Making commits durable behind the requests: one `syncfs` for many, then the rows that say so.

use std::sync::PoisonError;

use tracing::{error, warn};

use super::index::State;
use super::shared::Shared;

impl Shared {
    /// One round: sync, rows, and a second sync where somebody waits for the index too. True where all went well. Blocks.
    pub(super) fn sync_round(&self) -> bool {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(round) = self.unsettled.begin() else {
            return true;
        };
        let waited_for = !round.waiters.is_empty();
        let well = match self.layout.sync() {
            Ok(()) => {
                self.unsettled.end();
                self.mark_durable(round.blobs) && (!waited_for || self.sync_again())
            }
            Err(error) => {
                // Which of the bytes reached the disk is unknown, and a second sync would not tell: none of them can be trusted.
                error!(%error, blobs = round.blobs.len(), "a sync failed; the blobs since the last one are dropped");
                self.unsettled.fail();
                for digest in &round.blobs {
                    // What was pushed was synced by itself before anyone was told.
                    let row = self.index.blob(digest);
                    if row.is_ok_and(|row| row.is_some_and(|row| row.state == State::Durable)) {
                        continue;
                    }
                    if let Err(error) = self.evict(digest, true) {
                        error!(%digest, %error, "a blob that is not on disk cannot be dropped");
                    }
                }
                false
            }
        };
        for waiter in round.waiters {
            // Whoever asked may have gone away.
            let _gone = waiter.send(well);
        }
        well
    }

    fn mark_durable(&self, blobs: Vec<crate::oci::Digest>) -> bool {
        if blobs.is_empty() {
            return true;
        }
        match self.index.blobs_durable(blobs) {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, "durable blobs cannot be marked; after an unclean stop they are hashed before use");
                false
            }
        }
    }

    fn sync_again(&self) -> bool {
        match self.layout.sync() {
            Ok(()) => true,
            Err(error) => {
                error!(%error, "the index could not be synced");
                false
            }
        }
    }
}
