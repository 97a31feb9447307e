//! How much the store holds and may hold. Pure bookkeeping: what it says happened has happened on disk under the lock of that digest.
//!
//! Invariant: every reservation is refused that would bring `used + reserved` above the limit, where used is blobs, parts that wait and
//! quarantined files. What a fill writes lies inside its reservation, so the disk never holds more than the two together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::index::Counted;

/// The books. Shared by everyone who writes.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    books: Mutex<Books>,
}

/// The figures at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Books {
    pub(super) cached: u64,
    pub(super) blobs: u64,
    /// Bytes of what was pushed, which no limit of the cache concerns.
    pub(super) pushed: u64,
    pub(super) pushed_blobs: u64,
    pub(super) parts: u64,
    pub(super) quarantined: u64,
    pub(super) reserved: u64,
}

impl Books {
    /// Bytes that lie on disk outside of running fills.
    pub(super) const fn used(&self) -> u64 {
        self.cached
            .saturating_add(self.parts)
            .saturating_add(self.quarantined)
    }

    fn enter(&mut self, blob: Counted) {
        if blob.pushed {
            self.pushed += blob.size;
            self.pushed_blobs += 1;
        } else {
            self.cached += blob.size;
            self.blobs += 1;
        }
    }

    fn leave(&mut self, blob: Counted) {
        let (bytes, blobs) = if blob.pushed {
            (&mut self.pushed, &mut self.pushed_blobs)
        } else {
            (&mut self.cached, &mut self.blobs)
        };
        *bytes = bytes.saturating_sub(blob.size);
        *blobs = blobs.saturating_sub(1);
    }

    const fn committed(&self) -> u64 {
        self.used().saturating_add(self.reserved)
    }
}

impl Budget {
    pub(super) fn new(limit: u64, books: Books) -> Arc<Self> {
        Arc::new(Self {
            limit,
            books: Mutex::new(books),
        })
    }

    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn books(&self) -> Books {
        *self.open()
    }

    /// Sets `bytes` aside, or says how many bytes must go first.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, u64> {
        let mut books = self.open();
        let wanted = books.committed().saturating_add(bytes);
        let shortage = wanted.saturating_sub(self.limit);
        if shortage > 0 {
            return Err(shortage);
        }
        books.reserved += bytes;
        Ok(self.reservation(bytes))
    }

    /// A part that waited is taken up again: its bytes count as reserved from here on.
    pub(super) fn resume_part(self: &Arc<Self>, bytes: u64) -> Reservation {
        let mut books = self.open();
        books.parts = books.parts.saturating_sub(bytes);
        books.reserved += bytes;
        self.reservation(bytes)
    }

    /// Blobs were found that had no row.
    pub(super) fn blobs_adopted(&self, adopted: &[Counted]) {
        let mut books = self.open();
        for blob in adopted {
            books.enter(*blob);
        }
    }

    /// A blob's row is gone.
    pub(super) fn blob_dropped(&self, blob: Counted) {
        self.open().leave(blob);
    }

    /// Blobs changed sides: what was cached is pushed now, or the other way round.
    pub(super) fn blobs_changed(&self, now: &[Counted]) {
        let mut books = self.open();
        for blob in now {
            books.leave(Counted {
                pushed: !blob.pushed,
                ..*blob
            });
            books.enter(*blob);
        }
    }

    /// A part that waited is gone.
    pub(super) fn part_dropped(&self, bytes: u64) {
        let mut books = self.open();
        books.parts = books.parts.saturating_sub(bytes);
    }

    /// A file went into quarantine.
    pub(super) fn quarantine_entered(&self, bytes: u64) {
        self.open().quarantined += bytes;
    }

    /// A quarantined file is gone.
    pub(super) fn quarantine_dropped(&self, bytes: u64) {
        let mut books = self.open();
        books.quarantined = books.quarantined.saturating_sub(bytes);
    }

    fn reservation(self: &Arc<Self>, bytes: u64) -> Reservation {
        Reservation {
            budget: Arc::clone(self),
            bytes,
        }
    }

    fn open(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that are set aside for one fill; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Reservation {
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes another reservation in.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// The fill became a blob; its row had counted as `before` until now.
    pub(super) fn into_blob(mut self, before: Option<Counted>, blob: Counted) {
        let mut books = self.budget.open();
        books.reserved = books.reserved.saturating_sub(self.bytes);
        if let Some(before) = before {
            books.leave(before);
        }
        books.enter(blob);
        drop(books);
        self.bytes = 0;
    }

    /// The fill stopped and left a part of `size` bytes.
    pub(super) fn into_part(mut self, size: u64) {
        let mut books = self.budget.open();
        books.reserved = books.reserved.saturating_sub(self.bytes);
        books.parts += size;
        drop(books);
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let mut books = self.budget.open();
            books.reserved = books.reserved.saturating_sub(self.bytes);
        }
    }
}
