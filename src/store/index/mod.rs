//! The index: what is known of blobs, links, manifests and tags, in SQLite. The only SQL of the program is below this module.
//!
//! Commands are named async methods over owned values, so that another database can stand behind them; no caller sees a connection.
//! Writes go through one thread that commits in groups; reads run on a few connections on blocking threads; links, tags and manifest
//! rows that are asked for on every request are kept in memory in step with the commits. Nothing here is the only copy of anything that
//! cannot be fetched again, so the file may be lost: it is moved aside when unfit, and rebuilt.
//!
//! A row that cannot be read back (an unparsable digest) counts as absent.

mod admissions;
mod api_tokens;
mod apply;
mod blobs;
mod bounded;
mod connection;
mod convert;
mod damage;
mod hot;
pub mod items;
mod keeps;
mod links;
mod lists;
mod local;
mod manifests;
mod missing;
mod properties;
mod pulls;
mod quotas;
mod readers;
mod repositories;
mod rows;
mod schema;
mod tags;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::Semaphore;

pub use api_tokens::ApiTokenRow;
pub(super) use apply::Work;
pub(super) use blobs::{Counted, NewBlob, State, Totals};
pub use keeps::KeptRow;
pub use links::Forgot;
pub use local::{Holdings, ImageState, LocalLink};
pub use missing::{MissingKey, MissingRow, Served};
pub use properties::{Criterion, FoundImage};
pub use pulls::{Kept, PullPlace, PullRow, PulledRow, PullsWanted};
pub use quotas::{QuotaRow, quotas_in};
pub use repositories::RepositoryRow;
pub use rows::{EdgeRow, ForeignLayerRow, HistoryRow, ManifestRow, StandingRow, TagRow};

use crate::clock::Wall;
use damage::Damage;
use hot::Hot;
use readers::Readers;
use writer::Writer;

/// Links kept in memory.
const HOT_LINKS: usize = 16 * 1024;
/// Tags kept in memory.
const HOT_TAGS: usize = 4 * 1024;
/// Images of local repositories of which it is kept in memory whether they are there.
const HOT_IMAGES: usize = 16 * 1024;
/// Manifest rows kept in memory.
const HOT_MANIFESTS: usize = 4 * 1024;

/// Why the index did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IndexError {
    /// The store has been closed.
    #[error("the index is closed")]
    Closed,
    /// Another command in the same transaction met a full or failing disk, and took this one with it. It may be tried again.
    #[error("the index rolled the transaction back")]
    RolledBack,
    /// What was asked took more time than a question may.
    #[error("the index was asked too much at once")]
    TookTooLong,
    /// The database refused.
    #[error("the index failed")]
    Database(#[source] Arc<rusqlite::Error>),
}

impl IndexError {
    /// Whether the command failed for want of room on the disk.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Database(error) => error.sqlite_error_code() == Some(ErrorCode::DiskFull),
            // What a full disk does to the others of its group.
            Self::RolledBack => true,
            Self::Closed | Self::TookTooLong => false,
        }
    }
}

/// What the index answers.
pub type Result<T> = std::result::Result<T, IndexError>;

/// The index. Clones share it.
#[derive(Clone, Debug)]
pub struct Index {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    writer: Writer,
    readers: Arc<Readers>,
    /// Bytes that are kept, as of the last commit.
    kept: Arc<AtomicU64>,
    bounded: Arc<Semaphore>,
    damage: Arc<Damage>,
    hot: Arc<HotRows>,
}

/// Apart from [`Inner`], because commands on the writer's thread hold on to it.
#[derive(Debug)]
struct HotRows {
    links: Hot<()>,
    tags: Hot<TagRow>,
    manifests: Hot<ManifestRow>,
    images: Hot<ImageState>,
}

impl Index {
    /// Opens the index in `directory`; `suspect` has its file checked through first. True where it is new and must be filled from the
    /// blobs. Blocks.
    pub(super) fn open(directory: &Path, suspect: bool, now: Wall) -> io::Result<(Self, bool)> {
        let opened = connection::open(directory, suspect, now)?;
        let damage = Arc::new(Damage::new(directory.join(connection::DAMAGED)));
        let kept = keeps::bytes(&opened.connection).map_err(io::Error::other)?;
        let kept = Arc::new(AtomicU64::new(kept));
        let inner = Inner {
            writer: Writer::start(opened.connection, Arc::clone(&damage), Arc::clone(&kept))?,
            readers: Arc::new(Readers::new(Self::file(directory), Arc::clone(&damage))),
            kept,
            bounded: Arc::new(Semaphore::new(bounded::BOUNDED_READS)),
            damage,
            hot: Arc::new(HotRows {
                links: Hot::new(HOT_LINKS),
                tags: Hot::new(HOT_TAGS),
                manifests: Hot::new(HOT_MANIFESTS),
                images: Hot::new(HOT_IMAGES),
            }),
        };
        let index = Self {
            inner: Arc::new(inner),
        };
        Ok((index, opened.rebuilt))
    }

    /// Bytes of cached blobs that are kept, as of the last commit. Asks no database.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.inner.kept.load(Ordering::Relaxed)
    }

    /// Commits what is queued and closes the file; later commands fail with [`IndexError::Closed`]. Blocks.
    pub(super) fn close(&self) {
        self.inner.readers.close();
        self.inner.writer.close_blocking();
    }

    /// Where the database of a data directory is.
    pub(super) fn file(directory: &Path) -> PathBuf {
        directory.join(connection::FILE)
    }

    async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.write_then(work, |_value| {}).await
    }

    /// `after` runs in the order of the commits, before the answer.
    async fn write_then<T, F, A>(&self, work: F, after: A) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        A: FnOnce(&T) + Send + 'static,
    {
        let inner = &self.inner;
        inner.writer.write(&inner.damage, work, after).await
    }

    fn write_blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.inner.writer.write_blocking(&self.inner.damage, work)
    }

    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.inner.readers.read(work).await
    }

    fn read_blocking<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.inner.readers.read_blocking(work)
    }
}
