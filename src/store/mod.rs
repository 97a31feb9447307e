//! The store: verified content on disk, what is known of it, and how much of it there may be.
//!
//! A blob has a file under its digest only after its bytes hashed to it. What is served from here was verified when it came, and every
//! open compares the length of the file with the record. Cached content is made durable behind the requests: a `syncfs` for many commits,
//! then the rows that say so; after an unclean stop what was not durable is hashed before its next use.
//!
//! Callers get readers, never a path or a file. The store knows nothing of upstreams, permissions or requests; a link in the index is
//! only a fact that others act on.

mod background;
mod blob;
mod budget;
mod change;
mod choice;
mod clean;
mod error;
mod fill;
mod frames;
mod holds;
pub mod index;
mod journal;
mod kept;
mod keyed;
mod layout;
mod lock;
mod open_files;
mod parts;
mod quarantine;
mod read;
mod reconcile;
mod room;
mod shared;
mod staged;
mod stamp;
mod start;
mod sync;
mod trim;
mod unsettled;
mod uploads;
mod verify;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tracing::warn;

pub use blob::Blob;
pub use change::{Change, Keeping};
pub use error::{CommitError, NoRoomToKeep, OpenError, StageError, StoreError};
pub use holds::Hold;
pub use index::{Index, IndexError};
pub use journal::Keep;
pub use lock::{Owner, owner};
pub use staged::{Part, Staged};
pub use trim::Trimmed;
pub use uploads::{FoundUpload, UploadFile};
pub use verify::Verified;

use crate::oci::manifest::{MANIFEST_MAX, Manifest};
use crate::oci::{Digest, MediaType, labels};
use crate::tasks::Tasks;
use index::ManifestRow;
use layout::Place;
use shared::{Class, Kept, Shared};

/// How long closing waits for fills to end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Where the store lives and how much it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The data directory. It is made where it is missing.
    pub path: PathBuf,
    /// The most bytes that blobs, parts and quarantined files may take together, reservations of running fills included.
    pub max_size: u64,
    /// The least bytes that must stay free on the file system.
    pub min_free: u64,
}

/// How full the store is. While no fill runs, `cached_bytes` are the bytes under `blobs/`, `part_bytes` those in `staging/` and
/// `quarantined_bytes` those in `quarantine/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of blobs.
    pub cached_bytes: u64,
    /// Bytes of parts that wait to be taken up again.
    pub part_bytes: u64,
    /// Bytes of damaged blobs that are kept for a look.
    pub quarantined_bytes: u64,
    /// Bytes set aside for fills that run.
    pub reserved_bytes: u64,
    /// Bytes of those blobs that are kept, whatever else is evicted.
    pub kept_bytes: u64,
    /// How many blobs.
    pub blobs: u64,
    /// Bytes of what was pushed; the limit does not concern it.
    pub pushed_bytes: u64,
    /// How many pushed blobs.
    pub pushed_blobs: u64,
    /// Bytes that push sessions hold.
    pub upload_bytes: u64,
    /// Blobs evicted since the start.
    pub evictions: u64,
    /// Damaged blobs moved aside since the start.
    pub quarantined: u64,
    /// The limit for all of them together.
    pub max_size: u64,
    /// False while files and index are being compared after an unclean stop.
    pub settled: bool,
}

/// The store. Clones share it; it goes, lock and all, with the last of them.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

impl Store {
    /// Opens the data directory: makes the layout, takes the lock, recovers, starts what runs in the background.
    pub async fn open(config: Config, tasks: &Tasks) -> Result<Self, OpenError> {
        let path = config.path.clone();
        let (reports, damage) = start::reports();
        let opened = spawn_blocking(move || start::open(config, reports)).await;
        let shared = opened.unwrap_or_else(|broken| {
            Err(OpenError::Io {
                path,
                source: io::Error::other(broken),
            })
        })?;
        let (shared, journal) = shared;
        let shared = Arc::new(shared);
        let path = shared.layout.root().to_owned();
        shared
            .journal
            .start(journal, &shared)
            .map_err(|source| OpenError::Io { path, source })?;
        background::start(&shared, tasks, damage);
        Ok(Self { shared })
    }

    /// Where the process before took commands that had the data directory.
    pub fn left_socket(&self) -> Option<PathBuf> {
        self.shared.layout.left_socket()
    }

    /// Writes into the lock file where this process takes commands. Blocks for a few bytes.
    pub fn name_socket(&self, socket: &std::path::Path) -> io::Result<()> {
        self.shared.layout.name_socket(socket)
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.shared.index
    }

    /// Opens a blob for reading. Counts as a use.
    ///
    /// What is open already is answered without leaving the thread. A blob whose file does not fit its record is quarantined and counts
    /// as absent.
    pub async fn open_blob(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        if let Some(blob) = self.shared.open_hot(digest) {
            return Ok(Some(blob));
        }
        let (shared, digest) = (Arc::clone(&self.shared), digest.clone());
        blocking(move || shared.open_cold(&digest)).await?
    }

    /// Notes a use of a blob that was answered from a memory of its content.
    pub fn touch(&self, digest: &Digest) {
        self.shared.touch(digest);
    }

    /// Begins to write a blob of `expected` bytes, or goes on with the part that an earlier fill left: see [`Staged::held`].
    ///
    /// Any number may stage the same digest at once; the first has the part, and the first to commit wins.
    pub async fn stage(
        &self,
        digest: &Digest,
        expected: Option<u64>,
    ) -> Result<Staged, StageError> {
        let (shared, digest) = (Arc::clone(&self.shared), digest.clone());
        blocking(move || Staged::begin(&shared, &digest, expected)).await?
    }

    /// Begins to write a blob of `expected` bytes that a local repository is about to link: the limit for the cache does not concern it. Until
    /// then it is cached content like any other, so that what is given up half way can be evicted; the caller holds it.
    pub async fn stage_to_link(
        &self,
        digest: &Digest,
        expected: Option<u64>,
    ) -> Result<Staged, StageError> {
        let (shared, digest) = (Arc::clone(&self.shared), digest.clone());
        blocking(move || Staged::begin_unlimited(&shared, &digest, expected)).await?
    }

    /// How many bytes may be pushed until the disk counts as full.
    pub async fn room_to_push(&self) -> Result<u64, StoreError> {
        let shared = Arc::clone(&self.shared);
        let free = blocking(move || shared.layout.free()).await??;
        Ok(free.saturating_sub(self.shared.config.min_free))
    }

    /// The data directory.
    pub fn root(&self) -> &std::path::Path {
        self.shared.layout.root()
    }

    /// Stores small content whole, as a manifest, which is evicted after all blobs.
    pub async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<Blob, StoreError> {
        if let Some(blob) = self.open_blob(digest).await? {
            return Ok(blob);
        }
        let (shared, digest) = (Arc::clone(&self.shared), digest.clone());
        blocking(move || put(&shared, &digest, &bytes)).await?
    }

    /// Takes a damaged blob out of use, so that it is fetched afresh; its file is kept for a look. True where there was one.
    pub async fn quarantine(&self, digest: &Digest, why: &str) -> Result<bool, StoreError> {
        let (shared, digest, why) = (Arc::clone(&self.shared), digest.clone(), why.to_owned());
        blocking(move || shared.quarantine(&digest, &why)).await?
    }

    /// Lets cached content go that nothing may read any more; what is kept, pushed or held stays.
    pub async fn drop_cached(&self, digests: Vec<Digest>) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            for digest in &digests {
                shared.evict(digest, false)?;
            }
            Ok(())
        })
        .await?
    }

    /// What is written down of a manifest of `size` bytes, with the labels of its configuration where that is here.
    pub async fn row_of(&self, manifest: &Manifest, size: usize) -> ManifestRow {
        ManifestRow {
            labels: self.labels(manifest).await,
            ..ManifestRow::of(manifest, size as u64)
        }
    }

    /// The labels of a manifest's configuration, where that is here and small enough to be one.
    async fn labels(&self, manifest: &Manifest) -> BTreeMap<String, String> {
        let Some(config) = manifest
            .config()
            .filter(|config| config.size() <= MANIFEST_MAX as u64)
            .filter(|config| {
                MediaType::parse(config.media_type()).is_some_and(|kind| labels::has_labels(&kind))
            })
        else {
            return BTreeMap::new();
        };
        match self.open_blob(config.digest()).await {
            Ok(Some(blob)) => blob
                .read_whole(MANIFEST_MAX)
                .await
                .map_or_else(|_unreadable| BTreeMap::new(), |bytes| labels::parse(&bytes)),
            Ok(None) | Err(_) => BTreeMap::new(),
        }
    }

    /// Waits until everything committed so far, blobs and index, is on disk.
    pub async fn durable_barrier(&self) -> Result<(), StoreError> {
        let answer = self.shared.unsettled.ask();
        let shared = Arc::clone(&self.shared);
        // Either this round answers, or one that began after the question did.
        let _told_by_the_answer = blocking(move || shared.sync_round()).await?;
        match answer.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::other("a sync failed").into()),
            Err(_broken_off) => Err(IndexError::Closed.into()),
        }
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let books = self.shared.budget.books();
        Usage {
            cached_bytes: books.cached,
            part_bytes: books.parts,
            quarantined_bytes: books.quarantined,
            reserved_bytes: books.reserved,
            kept_bytes: self.shared.index.kept_bytes(),
            blobs: books.blobs,
            pushed_bytes: books.pushed,
            pushed_blobs: books.pushed_blobs,
            upload_bytes: self.shared.upload_bytes.load(Ordering::Relaxed),
            evictions: self.shared.evictions.load(Ordering::Relaxed),
            quarantined: self.shared.quarantined.load(Ordering::Relaxed),
            max_size: self.shared.budget.limit(),
            settled: self.shared.settled.get(),
        }
    }

    /// Waits for fills to end, writes down what is only in memory, syncs, marks the stop as clean and lets go of the lock. Afterwards only
    /// blobs that are open can be read.
    pub async fn close(&self) {
        let mut fills = self.shared.fills.subscribe();
        let ended = tokio::time::timeout(CLOSE_PATIENCE, fills.wait_for(|fills| *fills == 0)).await;
        let quiet = matches!(ended, Ok(Ok(_)));
        drop(ended);
        if !quiet {
            warn!("fills are still running; the next start looks after them");
        }
        let shared = Arc::clone(&self.shared);
        if let Err(error) = blocking(move || start::close(&shared, quiet)).await {
            warn!(%error, "closing the store broke off");
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.shared.config.path)
            .field("usage", &self.usage())
            .finish()
    }
}

/// Verifies and stores content that is in memory. Blocks.
fn put(shared: &Shared, digest: &Digest, bytes: &[u8]) -> Result<Blob, StoreError> {
    use std::os::unix::fs::FileExt as _;

    let found = Digest::of_with(digest.algorithm(), bytes);
    if found != *digest {
        return Err(StoreError::Mismatch { found });
    }
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let reservation = shared.reserve(size).map_err(StoreError::from)?;
    let name = shared.scratch_name(digest);
    let written = shared
        .layout
        .open_staged(&name)
        .and_then(|file| file.write_all_at(bytes, 0).map(|()| file));
    let file = match written {
        Ok(file) => Arc::new(file),
        Err(error) => {
            shared.remove_staged(&name);
            return Err(StageError::from(error).into());
        }
    };
    let class = Class {
        manifest: true,
        pushed: false,
    };
    match shared.publish(
        (Place::Staging, &name),
        digest,
        (file, size),
        class,
        reservation,
    ) {
        Kept::Blob(blob) => Ok(blob),
        Kept::Loose(_blob, error) => Err(StageError::from(error).into()),
    }
}

/// Runs blocking work to its end, even where the caller goes away.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)
}
