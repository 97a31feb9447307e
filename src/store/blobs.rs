//! Opening blobs: from the open files of late, else from disk, checked.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use tracing::{error, warn};

use super::{Inner, Store, StoreError};
use crate::clock::{self, Wall};
use crate::oci::Digest;

/// How many shards the table of open files has, so that no lock is global.
const SHARDS: usize = 16;
/// How many files one shard keeps open.
const OPEN_PER_SHARD: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// A blob that can be read. A reader that started always finishes: eviction only takes the name away.
#[derive(Debug, Clone)]
pub struct Blob {
    digest: Digest,
    size: u64,
    file: Arc<File>,
}

impl Blob {
    pub(super) const fn new(digest: Digest, size: u64, file: Arc<File>) -> Self {
        Self { digest, size, file }
    }

    /// Its digest.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its length in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// At most `max` bytes from `offset` on, never past the end. A file that is shorter than its record is an error.
    pub async fn read_at(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(max);
        if left == 0 || max == 0 {
            return Ok(Bytes::new());
        }
        let bytes = super::read::read_at(&self.file, offset, max.min(left)).await?;
        if bytes.is_empty() {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(bytes)
        }
    }
}

/// Open files, last uses that are not written down yet, and blobs that an unclean stop left in doubt.
#[derive(Debug)]
pub(super) struct Hot {
    shards: Vec<Mutex<Shard>>,
    suspects: Mutex<HashSet<Digest>>,
}

#[derive(Debug)]
struct Shard {
    open: LruCache<Digest, Blob>,
    used: HashMap<Digest, Wall>,
}

impl Hot {
    pub(super) fn new(suspects: HashSet<Digest>) -> Self {
        let shard = || {
            Mutex::new(Shard {
                open: LruCache::new(OPEN_PER_SHARD),
                used: HashMap::new(),
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            suspects: Mutex::new(suspects),
        }
    }

    fn shard(&self, digest: &Digest) -> Option<MutexGuard<'_, Shard>> {
        let mut hasher = DefaultHasher::new();
        digest.hash(&mut hasher);
        let shard = usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0);
        self.shards
            .get(shard)
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self, digest: &Digest) -> Option<Blob> {
        let mut shard = self.shard(digest)?;
        let blob = shard.open.get(digest).cloned()?;
        shard.used.insert(digest.clone(), clock::now());
        Some(blob)
    }

    pub(super) fn put(&self, blob: &Blob) {
        if let Some(mut shard) = self.shard(&blob.digest) {
            shard.open.put(blob.digest.clone(), blob.clone());
            shard.used.insert(blob.digest.clone(), clock::now());
        }
    }

    pub(super) fn close(&self, digest: &Digest) {
        if let Some(mut shard) = self.shard(digest) {
            shard.open.pop(digest);
            shard.used.remove(digest);
        }
    }

    fn touch(&self, digest: &Digest) {
        if let Some(mut shard) = self.shard(digest) {
            shard.used.insert(digest.clone(), clock::now());
        }
    }

    /// Takes the last uses that are not written down yet.
    pub(super) fn drain_used(&self) -> Vec<(Digest, Wall)> {
        self.shards
            .iter()
            .flat_map(|shard| {
                std::mem::take(&mut shard.lock().unwrap_or_else(PoisonError::into_inner).used)
            })
            .collect()
    }

    fn is_suspect(&self, digest: &Digest) -> bool {
        self.suspects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(digest)
    }

    fn clear_suspect(&self, digest: &Digest) {
        self.suspects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(digest);
    }
}

impl Store {
    /// Opens a blob; `None` when it is not here or was damaged.
    pub async fn open_blob(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        if let Some(blob) = self.inner.hot.get(digest) {
            // The length is compared every time: a file that was cut behind our back must not go out as a valid shorter one.
            if blob
                .file
                .metadata()
                .is_ok_and(|metadata| metadata.len() == blob.size)
            {
                return Ok(Some(blob));
            }
            self.quarantine(digest, "its length changed on disk")
                .await?;
            return Ok(None);
        }
        let (inner, wanted) = (Arc::clone(&self.inner), digest.clone());
        let found = tokio::task::spawn_blocking(move || inner.open_from_disk(&wanted))
            .await
            .map_err(|_died| StoreError::Refused("the opening thread died"))??;
        match found {
            Found::Blob(blob) => {
                self.inner.hot.put(&blob);
                Ok(Some(blob))
            }
            Found::Orphan(blob) => {
                // The fill that has just named the file may be writing its row; whoever is first counts the bytes.
                if self.inner.index.put_blob(digest, blob.size, false).await? {
                    self.inner.budget.adopt(blob.size);
                    self.show_usage();
                }
                self.inner.hot.put(&blob);
                Ok(Some(blob))
            }
            Found::Nothing => Ok(None),
            Found::Lost(size) => {
                self.forget_row(digest, size).await?;
                Ok(None)
            }
            Found::Damaged(why) => {
                self.quarantine(digest, why).await?;
                Ok(None)
            }
        }
    }

    /// Notes a use of a blob that was answered from memory.
    pub fn touch(&self, digest: &Digest) {
        self.inner.hot.touch(digest);
    }

    /// Moves a damaged blob aside, loudly, so that it is fetched again.
    pub async fn quarantine(&self, digest: &Digest, why: &'static str) -> Result<(), StoreError> {
        error!(%digest, why, "a blob on disk is damaged; it is moved to quarantine/ and will be fetched again");
        self.inner.metrics.quarantined.inc();
        let size = self.inner.index.blob_size(digest).await?;
        let (inner, wanted) = (Arc::clone(&self.inner), digest.clone());
        tokio::task::spawn_blocking(move || inner.layout.quarantine(&wanted))
            .await
            .map_err(|_died| StoreError::Refused("the moving thread died"))??;
        match size {
            Some(size) => self.forget_row(digest, size).await,
            None => Ok(()),
        }
    }

    async fn forget_row(&self, digest: &Digest, size: u64) -> Result<(), StoreError> {
        self.inner.hot.close(digest);
        self.inner.hot.clear_suspect(digest);
        if self.inner.index.drop_blob(digest).await? {
            self.inner.budget.release(size);
            self.show_usage();
        }
        Ok(())
    }
}

enum Found {
    Blob(Blob),
    /// On disk and sound, but not in the index.
    Orphan(Blob),
    Nothing,
    /// In the index, not on disk.
    Lost(u64),
    Damaged(&'static str),
}

impl Inner {
    fn open_from_disk(&self, digest: &Digest) -> Result<Found, StoreError> {
        let recorded = self.index.blob_size_now(digest)?;
        let mut open = File::options();
        // A link planted in the data directory is never followed.
        let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let file = match open
            .read(true)
            .custom_flags(flags)
            .open(self.layout.blob(digest))
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(recorded.map_or(Found::Nothing, |size| {
                    warn!(%digest, "a blob of the index is not on disk; it will be fetched again");
                    Found::Lost(size)
                }));
            }
            Err(error) => return Err(error.into()),
        };
        let size = file.metadata()?.len();
        if recorded.is_some_and(|recorded| recorded != size) {
            return Ok(Found::Damaged("its length is not the recorded one"));
        }
        let suspect = recorded.is_none() || self.hot.is_suspect(digest);
        if suspect {
            if !hashes_to(&file, digest)? {
                return Ok(Found::Damaged("it does not hash to its name"));
            }
            self.hot.clear_suspect(digest);
        }
        let blob = Blob::new(digest.clone(), size, Arc::new(file));
        if recorded.is_none() {
            return Ok(Found::Orphan(blob));
        }
        if suspect {
            self.durable.add(digest.clone());
        }
        Ok(Found::Blob(blob))
    }
}

fn hashes_to(mut file: &File, digest: &Digest) -> io::Result<bool> {
    let mut hasher = digest.algorithm().hasher();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finish() == *digest);
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}
