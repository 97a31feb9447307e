//! Parts: what interrupted fills left behind, by digest. One fill at a time may write a digest's part.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Wall;
use crate::oci::Digest;

/// A part that nobody took up again for so long is removed.
pub(super) const PART_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The parts of a store.
#[derive(Debug, Default)]
pub(super) struct Parts {
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    waiting: HashMap<Digest, Waiting>,
    active: HashSet<Digest>,
}

/// A part that waits to be taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) size: u64,
    pub(super) last_use: i64,
    pub(super) since: Wall,
}

/// What a fill may do with the part of its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is this fill's alone; so many bytes are there already.
    Own(u64),
    /// Another fill writes it; this one needs a name of its own.
    Taken,
}

impl Parts {
    /// Claims a digest's part until [`Self::release`] or [`Self::keep`].
    pub(super) fn claim(&self, digest: &Digest) -> Claim {
        let mut lists = self.lists();
        if !lists.active.insert(digest.clone()) {
            return Claim::Taken;
        }
        Claim::Own(
            lists
                .waiting
                .remove(digest)
                .map_or(0, |waiting| waiting.size),
        )
    }

    /// The fill ended and left nothing.
    pub(super) fn release(&self, digest: &Digest) {
        self.lists().active.remove(digest);
    }

    /// The fill ended, or an earlier run did, and left a part.
    pub(super) fn keep(&self, digest: Digest, waiting: Waiting) {
        let mut lists = self.lists();
        lists.active.remove(&digest);
        lists.waiting.insert(digest, waiting);
    }

    /// The parts that wait.
    pub(super) fn waiting(&self) -> Vec<(Digest, Waiting)> {
        let lists = self.lists();
        lists
            .waiting
            .iter()
            .map(|(digest, waiting)| (digest.clone(), *waiting))
            .collect()
    }

    /// Takes a waiting part out, to remove its file; the digest is claimed until [`Self::release`]. None where a fill has it by now.
    pub(super) fn take(&self, digest: &Digest) -> Option<Waiting> {
        let mut lists = self.lists();
        let waiting = lists.waiting.remove(digest)?;
        lists.active.insert(digest.clone());
        Some(waiting)
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a part that waits since `since` is to be removed at `now`.
pub(super) fn is_stale(since: Wall, now: Wall) -> bool {
    now.since(since) >= PART_AGE_MAX
}
