//! Making room: a reservation is granted at once, or after letting go of what was used least recently, or refused.
//!
//! What is kept does not go. What may, in this order: quarantined files; blobs and parts by last use; manifests by last use. Nothing is let go where all of it
//! together would not make the room.

use std::sync::PoisonError;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::StageError;
use super::budget::Reservation;
use super::choice::{Victim, choose};
use super::shared::Shared;
use crate::oci::Digest;

/// How often to look again after having let something go: others take room at the same time, and a file that is being read frees its
/// bytes only when its reader ends.
const ROUNDS: usize = 4;
/// Candidates that are looked at first; the number grows until they suffice.
const CANDIDATES: u64 = 256;
/// How long a fill waits for the figures after the index was lost.
const FIGURES_PATIENCE: Duration = Duration::from_secs(5);

/// What stays free whatever the configuration says, so that the index can be written: letting something go is a write too.
pub(super) const INDEX_ROOM: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Blob(Digest),
    Part(Digest),
}

impl Shared {
    /// Sets `bytes` aside under both limits, letting go of other content where needed.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation, StageError> {
        self.wait_for_figures();
        match self.try_reserve(bytes) {
            Ok(reservation) => return Ok(reservation),
            Err(shortage) => debug!(bytes, shortage, "no room at once"),
        }
        let _alone = self
            .making_room
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for _round in 0..ROUNDS {
            match self.try_reserve(bytes) {
                Ok(reservation) => return Ok(reservation),
                Err(shortage) if self.let_go(shortage) => {}
                Err(_) => return Err(StageError::Full),
            }
        }
        self.try_reserve(bytes).map_err(|_short| StageError::Full)
    }

    /// After the index was lost, what is here is not known at once.
    pub(super) fn wait_for_figures(&self) {
        if self.rebuilt && !self.settled.get() {
            self.settled.wait(FIGURES_PATIENCE);
        }
    }

    /// Grants the reservation, or says how many bytes must go.
    fn try_reserve(&self, bytes: u64) -> Result<Reservation, u64> {
        let in_the_way = if bytes == 0 {
            0
        } else {
            self.shortage_on_disk(bytes)
        };
        match self.budget.reserve(bytes) {
            Ok(reservation) if in_the_way == 0 => Ok(reservation),
            Ok(_) => Err(in_the_way),
            Err(shortage) => Err(shortage.max(in_the_way)),
        }
    }

    fn shortage_on_disk(&self, bytes: u64) -> u64 {
        match self.layout.free() {
            Ok(free) => bytes
                .saturating_add(self.config.min_free.max(INDEX_ROOM))
                .saturating_sub(free),
            Err(error) => {
                warn!(%error, "the file system does not say how much is free");
                0
            }
        }
    }

    /// Lets go of at least `need` bytes; false where that cannot be.
    pub(super) fn let_go(&self, need: u64) -> bool {
        match self.try_let_go(need) {
            Ok(done) => done,
            Err(error) => {
                warn!(%error, "cannot choose what to evict");
                false
            }
        }
    }

    fn try_let_go(&self, need: u64) -> Result<bool, super::IndexError> {
        let books = self.budget.books();
        if books.used().saturating_sub(self.index.kept_bytes()) < need {
            return Ok(false);
        }
        let mut freed = 0;
        while freed < need
            && let Some((name, size)) = self.quarantine.pop()
        {
            freed += self.drop_quarantined(&name, size);
        }
        if freed >= need {
            return Ok(true);
        }
        self.flush_uses();
        let Some(chosen) = self.choose(need - freed)? else {
            return Ok(false);
        };
        let count = chosen.len();
        for victim in chosen {
            freed += match victim.what {
                What::Part(digest) => self.drop_part(&digest),
                What::Blob(digest) => self.evict(&digest, false).unwrap_or_else(|error| {
                    warn!(%digest, %error, "a blob cannot be evicted");
                    0
                }),
            };
        }
        info!(count, freed, need, "evicted");
        Ok(freed > 0)
    }

    fn choose(&self, need: u64) -> Result<Option<Vec<Victim<What>>>, super::IndexError> {
        let mut limit = CANDIDATES;
        loop {
            let blobs = self.index.eviction_candidates(limit)?;
            let all = u64::try_from(blobs.len()).unwrap_or(u64::MAX) < limit;
            // Parts beyond the horizon of the blobs looked at would be chosen too early.
            let horizon = if all {
                (true, i64::MAX)
            } else {
                blobs
                    .last()
                    .map_or((true, i64::MAX), |last| (last.manifest, last.last_use))
            };
            // What is held would be chosen and stay, again and again.
            let free = blobs.into_iter();
            let free = free.filter(|blob| !self.holds.is_held(&blob.digest));
            let blobs = free.map(|blob| Victim {
                what: What::Blob(blob.digest),
                size: blob.size,
                manifest: blob.manifest,
                last_use: blob.last_use,
            });
            let parts = self.parts.waiting().into_iter();
            let parts = parts
                .map(|(digest, waiting)| Victim {
                    what: What::Part(digest),
                    size: waiting.size,
                    manifest: false,
                    last_use: waiting.last_use,
                })
                .filter(|part| (part.manifest, part.last_use) <= horizon);
            let chosen = choose(blobs.chain(parts).collect(), need);
            if chosen.is_some() || all {
                return Ok(chosen);
            }
            limit = limit.saturating_mul(8);
        }
    }
}
