//! What all handles of a store share, and the changes of a blob's state: open, commit, drop, quarantine.
//!
//! Everything here blocks and runs on blocking threads. Each change holds the digest's key from its first look at the file to the last
//! figure in the books, so row, file, open file and books of one digest change together. A change is never cut in half by a caller that
//! goes away, because no future is involved.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, warn};

use super::blob::{Blob, DamageReports, Handle};
use super::budget::{Budget, Reservation};
use super::holds::Holds;
use super::index::{Counted, Index, NewBlob, State};
use super::journal::Journal;
use super::keyed::Keyed;
use super::layout::{Layout, Place, Published};
use super::open_files::OpenFiles;
use super::parts::Parts;
use super::quarantine::Quarantine;
use super::stamp::Stamps;
use super::unsettled::Unsettled;
use super::{Config, IndexError, StoreError, read};
use crate::clock;
use crate::oci::{Digest, Hasher};

/// The insides of a store.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) index: Index,
    pub(super) budget: Arc<Budget>,
    pub(super) keys: Keyed,
    pub(super) files: OpenFiles,
    pub(super) parts: Parts,
    pub(super) quarantine: Quarantine,
    pub(super) unsettled: Arc<Unsettled>,
    pub(super) stamps: Stamps,
    pub(super) reports: DamageReports,
    pub(super) settled: Settled,
    /// Whether the index is new, so that the books are empty until files and rows have been compared.
    pub(super) rebuilt: bool,
    /// One thread at a time makes room.
    pub(super) making_room: Mutex<()>,
    /// One sync at a time.
    pub(super) syncing: Mutex<()>,
    /// Fills that run.
    pub(super) fills: watch::Sender<usize>,
    pub(super) counter: AtomicU64,
    pub(super) holds: Holds,
    pub(super) journal: Journal,
    /// Bytes that push sessions hold.
    pub(super) upload_bytes: AtomicU64,
    /// Blobs evicted since the start.
    pub(super) evictions: AtomicU64,
    /// Damaged blobs moved aside since the start.
    pub(super) quarantined: AtomicU64,
    /// Last, so that the lock goes after the index is closed.
    pub(super) layout: Layout,
}

/// Whether files and rows have been compared since an unclean stop.
#[derive(Debug, Default)]
pub(super) struct Settled {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Settled {
    pub(super) fn set(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(super) fn get(&self) -> bool {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for it, but not for long.
    pub(super) fn wait(&self, patience: Duration) {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.changed
                .wait_timeout_while(done, patience, |done| !*done),
        );
    }
}

/// What a blob is entered as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Class {
    /// A manifest, which is evicted after all blobs.
    pub(super) manifest: bool,
    /// Pushed, so that nothing but a deletion removes it.
    pub(super) pushed: bool,
}

/// What became of verified bytes that were to be kept.
#[derive(Debug)]
pub(super) enum Kept {
    /// They are under their name.
    Blob(Blob),
    /// They could not be; the open file still has them.
    Loose(Blob, io::Error),
}

impl Shared {
    /// A stamp for a use now.
    pub(super) fn stamp(&self) -> i64 {
        self.stamps.next(clock::now())
    }

    /// A blob that is open already; no disk, no index, no other thread.
    pub(super) fn open_hot(&self, digest: &Digest) -> Option<Blob> {
        let handle = self.files.get(digest)?;
        handle.is_sound().then(|| {
            handle.touch(self.stamp());
            Blob::new(handle)
        })
    }

    /// Notes a use without opening anything.
    pub(super) fn touch(&self, digest: &Digest) {
        self.files.touch(digest, self.stamp());
    }

    /// Opens a blob by its row and its file, and puts right what does not agree.
    pub(super) fn open_cold(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        let _key = self.keys.lock(digest);
        if let Some(blob) = self.open_hot(digest) {
            return Ok(Some(blob));
        }
        let row = self.index.blob(digest)?;
        let file = self.open_file(digest)?;
        let (row, file) = match (row, file) {
            (None, None) => return Ok(None),
            (Some(_), None) => {
                warn!(%digest, "a blob's file is missing; its row is dropped");
                self.drop_row(digest)?;
                return Ok(None);
            }
            (row, Some(file)) => (row, file),
        };
        let size = file.metadata()?.len();
        let trusted = match &row {
            Some(row) if row.size != size => {
                self.quarantine_held(digest, "its length is not what was recorded")?;
                return Ok(None);
            }
            Some(row) => row.state != State::Suspect,
            None => false,
        };
        if !trusted {
            let wrong = match hash_file(&file, digest) {
                Ok(found) if found == *digest => None,
                Ok(_) => Some("its bytes do not hash to its digest"),
                Err(error) => {
                    warn!(%digest, %error, "a blob cannot be read");
                    Some("its bytes cannot be read")
                }
            };
            if let Some(why) = wrong {
                self.quarantine_held(digest, why)?;
                return Ok(None);
            }
            if row.is_some() {
                self.index.blob_verified(digest)?;
            } else {
                let adopted = self.index.adopt_blobs(vec![self.new_blob(digest, size)])?;
                self.budget.blobs_adopted(&adopted);
            }
            self.unsettled.add(digest.clone(), size);
        }
        Ok(Some(self.enter(digest, size, Arc::new(file))))
    }

    /// Puts a verified file under its name and enters it. Whatever happens, nothing of it stays where it was written.
    pub(super) fn publish(
        &self,
        staged: (Place, &str),
        digest: &Digest,
        content: (Arc<File>, u64),
        class: Class,
        reservation: Reservation,
    ) -> Kept {
        let (file, size) = content;
        match self.try_publish(staged, digest, (&file, size), class, reservation) {
            Ok(blob) => Kept::Blob(blob),
            Err(error) => {
                warn!(%digest, %error, "a verified blob could not be kept");
                self.remove_file(staged);
                let handle = Handle::new(
                    digest.clone(),
                    size,
                    file,
                    self.reports.clone(),
                    self.stamp(),
                );
                Kept::Loose(Blob::new(handle), error)
            }
        }
    }

    fn try_publish(
        &self,
        staged: (Place, &str),
        digest: &Digest,
        (file, size): (&Arc<File>, u64),
        class: Class,
        reservation: Reservation,
    ) -> io::Result<Blob> {
        if self.unsettled.was_removed(digest) {
            file.sync_data()?;
        }
        let _key = self.keys.lock(digest);
        if self.layout.publish(staged, digest, false)? == Published::Taken {
            if let Some(winner) = self.existing(digest, size)? {
                self.remove_file(staged);
                return Ok(winner);
            }
            // What stands there has no row, or one that does not vouch for it; ours is verified.
            self.layout.publish(staged, digest, true)?;
        }
        let new = NewBlob {
            manifest: class.manifest,
            pushed: class.pushed,
            ..self.new_blob(digest, size)
        };
        match self.index.put_blob(new) {
            Ok(before) => {
                let pushed = class.pushed || before.is_some_and(|before| before.pushed);
                reservation.into_blob(before, Counted { size, pushed });
            }
            Err(error) => {
                self.unsettled.removed(digest.clone());
                self.layout.remove_blob(digest)?;
                return Err(io::Error::other(error));
            }
        }
        self.unsettled.add(digest.clone(), size);
        self.files.remove(digest);
        Ok(self.enter(digest, size, Arc::clone(file)))
    }

    /// The blob that is under this name already, if it is one to trust.
    fn existing(&self, digest: &Digest, size: u64) -> io::Result<Option<Blob>> {
        if let Some(blob) = self.open_hot(digest) {
            return Ok(Some(blob));
        }
        let row = self.index.blob(digest).map_err(io::Error::other)?;
        let trusted = row.is_some_and(|row| row.state != State::Suspect && row.size == size);
        let Some(file) = trusted
            .then(|| self.open_file(digest))
            .transpose()?
            .flatten()
        else {
            return Ok(None);
        };
        if file.metadata()?.len() != size {
            return Ok(None);
        }
        Ok(Some(self.enter(digest, size, Arc::new(file))))
    }

    /// What a blob's bytes hash to; none where there is no such file.
    pub(super) fn hash(&self, digest: &Digest) -> io::Result<Option<Digest>> {
        let Some(file) = self.layout.open_blob(digest)? else {
            return Ok(None);
        };
        hash_file(&file, digest).map(Some)
    }

    /// Lets a blob go. Answers the bytes that this frees; none where it is pinned, pushed, held by a push under way, or gone.
    pub(super) fn evict(&self, digest: &Digest, even_held: bool) -> Result<u64, StoreError> {
        let _key = self.keys.lock(digest);
        // Whoever looks from here on has to wait for the key; whoever looked before holds it.
        self.files.remove(digest);
        if !even_held && self.holds.is_held(digest) {
            return Ok(0);
        }
        let row = self.index.blob(digest)?;
        let mut dropped = self.index.drop_blob(digest, even_held);
        let stays = row.as_ref().is_none_or(|row| row.pinned || row.pushed) && !even_held;
        if dropped.as_ref().is_err_and(IndexError::is_full) && !stays {
            // On a full disk the row cannot change before the file has given its room.
            self.layout.remove_blob(digest)?;
            dropped = self.index.drop_blob(digest, even_held);
        }
        let Some(gone) = dropped? else {
            return Ok(0);
        };
        self.unsettled.removed(digest.clone());
        if let Err(error) = self.layout.remove_blob(digest) {
            // The bytes are still there: they must stay in the books.
            let state = row.map_or(State::Suspect, |row| row.state);
            self.index.put_blob(NewBlob {
                state,
                pushed: gone.pushed,
                ..self.new_blob(digest, gone.size)
            })?;
            return Err(error.into());
        }
        self.budget.blob_dropped(gone);
        self.evictions.fetch_add(1, Ordering::Relaxed);
        Ok(gone.size)
    }

    /// Takes a damaged blob out of use and keeps its file for a look; true where there was something.
    pub(super) fn quarantine(&self, digest: &Digest, why: &str) -> Result<bool, StoreError> {
        let _key = self.keys.lock(digest);
        self.quarantine_held(digest, why)
    }

    /// Quarantines a blob unless it hashes to its digest now: whoever looked before did so without its key, and it may be here afresh.
    pub(super) fn quarantine_if_wrong(&self, digest: &Digest) -> Result<bool, StoreError> {
        let _key = self.keys.lock(digest);
        match self.hash(digest) {
            Ok(found) if found.as_ref().is_none_or(|found| found == digest) => Ok(false),
            Ok(_) | Err(_) => self.quarantine_held(digest, "its bytes do not hash to its digest"),
        }
    }

    /// The same, for whoever holds the digest's key.
    fn quarantine_held(&self, digest: &Digest, why: &str) -> Result<bool, StoreError> {
        self.files.remove(digest);
        let name = Quarantine::name(digest, self.stamp());
        let moved = self.layout.quarantine_blob(digest, &name)?;
        self.unsettled.removed(digest.clone());
        let dropped = self.drop_row(digest)?;
        if let Some(size) = moved {
            error!(%digest, size, why, file = name, "a damaged blob was quarantined; it is fetched again when asked for");
            self.quarantined.fetch_add(1, Ordering::Relaxed);
            self.budget.quarantine_entered(size);
            for (old, size) in self.quarantine.enter(name, size) {
                self.drop_quarantined(&old, size);
            }
        }
        Ok(moved.is_some() || dropped)
    }

    /// Removes a quarantined file. Answers the bytes that this frees.
    pub(super) fn drop_quarantined(&self, name: &str, size: u64) -> u64 {
        if let Err(error) = self.layout.remove(Place::Quarantine, name) {
            warn!(name, %error, "a quarantined file cannot be removed");
            return 0;
        }
        self.budget.quarantine_dropped(size);
        size
    }

    /// Removes a part that waits. Answers the bytes that this frees; none where a fill took it up meanwhile.
    pub(super) fn drop_part(&self, digest: &Digest) -> u64 {
        let Some(waiting) = self.parts.take(digest) else {
            return 0;
        };
        self.remove_staged(&super::layout::part_name(digest));
        self.budget.part_dropped(waiting.size);
        self.parts.release(digest);
        waiting.size
    }

    /// Drops a row whose file is gone; for whoever holds the digest's key. True where there was one.
    pub(super) fn drop_row(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.files.remove(digest);
        let dropped = self.index.drop_blob(digest, true)?;
        if let Some(gone) = dropped {
            self.budget.blob_dropped(gone);
        }
        Ok(dropped.is_some())
    }

    /// Removes a staged file that is of no use any more.
    pub(super) fn remove_staged(&self, name: &str) {
        self.remove_file((Place::Staging, name));
    }

    /// The same for a file of any place.
    pub(super) fn remove_file(&self, (place, name): (Place, &str)) {
        if let Err(error) = self.layout.remove(place, name) {
            warn!(?place, name, %error, "a part cannot be removed; the next start tries again");
        }
    }

    /// A name in staging that no other fill uses and that is not taken up again.
    pub(super) fn scratch_name(&self, digest: &Digest) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!(
            "{}-{}-{number}.part",
            digest.algorithm().as_str(),
            digest.hex()
        )
    }

    /// Writes the uses since the last time into the index.
    pub(super) fn flush_uses(&self) {
        let uses = self.files.take_uses();
        if uses.is_empty() {
            return;
        }
        if let Err(error) = self.index.touch_blobs(uses) {
            warn!(%error, "the last uses of blobs cannot be written down; eviction will know less");
        }
    }

    fn enter(&self, digest: &Digest, size: u64, file: Arc<File>) -> Blob {
        let reports = self.reports.clone();
        let handle = Handle::new(digest.clone(), size, file, reports, self.stamp());
        self.files.put(Arc::clone(&handle));
        Blob::new(handle)
    }

    fn new_blob(&self, digest: &Digest, size: u64) -> NewBlob {
        NewBlob {
            digest: digest.clone(),
            size,
            manifest: false,
            pushed: false,
            state: State::Settling,
            last_use: self.stamp(),
            added: clock::now(),
        }
    }

    /// Opens a blob's file; where descriptors ran out, those that are only kept open for speed are closed first.
    fn open_file(&self, digest: &Digest) -> io::Result<Option<File>> {
        use rustix::io::Errno;

        match self.layout.open_blob(digest) {
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::MFILE | Errno::NFILE)
                ) =>
            {
                self.files.clear();
                self.layout.open_blob(digest)
            }
            other => other,
        }
    }
}

/// Hashes the first `length` bytes of a file into `hasher`.
pub(super) fn hash_prefix(file: &File, hasher: &mut Hasher, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; read::READ_MAX];
    let mut offset = 0;
    while offset < length {
        let wanted = usize::try_from(length - offset).unwrap_or(usize::MAX);
        let room = wanted.min(buffer.len());
        let room = buffer.get_mut(..room).unwrap_or_default();
        let count = read::blocking(file, room, offset)?;
        let got = room.get(..count).unwrap_or_default();
        if got.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(got);
        offset += u64::try_from(count).unwrap_or(0);
    }
    Ok(())
}

fn hash_file(file: &File, digest: &Digest) -> io::Result<Digest> {
    let mut hasher = digest.algorithm().hasher();
    hash_prefix(file, &mut hasher, file.metadata()?.len())?;
    Ok(hasher.finish())
}
