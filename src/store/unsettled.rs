//! What was committed but is not known to be on disk yet, and who waits for it.
//!
//! A blob's durable row may only be believed after a crash if the bytes it speaks of were synced. One path around that must be closed: a
//! durable blob is evicted and fetched again, and the crash loses the two newest transactions but keeps the new name, so the old row would
//! vouch for unsynced bytes. Hence what was removed is remembered until a sync that began afterwards has ended; a blob that comes back
//! before that is synced by itself before it is renamed.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::oci::Digest;

/// So many blobs are synced without waiting for the interval.
const EAGER_BLOBS: usize = 256;
/// So many bytes are synced without waiting for the interval.
const EAGER_BYTES: u64 = 256 << 20;

/// The blobs between commit and sync.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    lists: Mutex<Lists>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Lists {
    pending: Vec<Digest>,
    pending_bytes: u64,
    removed: HashSet<Digest>,
    /// Removed before the sync that runs now.
    removed_before: HashSet<Digest>,
    waiters: Vec<Waiter>,
}

/// Who waits for a sync; told whether it went well.
pub(super) type Waiter = oneshot::Sender<bool>;

/// What one sync covers.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) blobs: Vec<Digest>,
    pub(super) waiters: Vec<Waiter>,
}

impl Unsettled {
    /// A blob was committed.
    pub(super) fn add(&self, digest: Digest, size: u64) {
        let mut lists = self.lists();
        lists.pending.push(digest);
        lists.pending_bytes = lists.pending_bytes.saturating_add(size);
        if lists.pending.len() >= EAGER_BLOBS || lists.pending_bytes >= EAGER_BYTES {
            self.wake.notify_one();
        }
    }

    /// A blob's file was removed.
    pub(super) fn removed(&self, digest: Digest) {
        self.lists().removed.insert(digest);
    }

    /// Whether a blob must be synced by itself before it is renamed.
    pub(super) fn was_removed(&self, digest: &Digest) -> bool {
        let lists = self.lists();
        lists.removed.contains(digest) || lists.removed_before.contains(digest)
    }

    /// Has the next round answer how it went.
    pub(super) fn ask(&self) -> oneshot::Receiver<bool> {
        let (waiter, answer) = oneshot::channel();
        self.lists().waiters.push(waiter);
        answer
    }

    /// Waits for a reason to sync before the interval is over.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Begins a sync; none where there is nothing to do. Rounds must not overlap.
    pub(super) fn begin(&self) -> Option<Round> {
        let mut lists = self.lists();
        if lists.pending.is_empty() && lists.waiters.is_empty() && lists.removed.is_empty() {
            return None;
        }
        lists.removed_before = std::mem::take(&mut lists.removed);
        lists.pending_bytes = 0;
        Some(Round {
            blobs: std::mem::take(&mut lists.pending),
            waiters: std::mem::take(&mut lists.waiters),
        })
    }

    /// Ends a sync that went well.
    pub(super) fn end(&self) {
        self.lists().removed_before.clear();
    }

    /// Ends a sync that failed: what was removed before it stays remembered.
    pub(super) fn fail(&self) {
        let mut lists = self.lists();
        let before = std::mem::take(&mut lists.removed_before);
        lists.removed.extend(before);
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
