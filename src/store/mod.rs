//! Content on disk, keyed by digest, and the index of what is known about it.
//!
//! Knows nothing of upstreams, repositories' rules or HTTP. Hands out readers, never a path or a file. Invariants: a file exists under
//! `blobs/` only if its bytes hash to its name; a blob's length is compared with its record on every open; the bytes of blobs, parts and
//! reservations never exceed `max_size`; whatever is damaged or missing is treated as absent, and no loss of cached state stops a start.

mod blobs;
mod budget;
mod durable;
pub mod index;
mod layout;
mod read;
mod staged;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

pub use blobs::Blob;
pub use index::Index;
pub use layout::OpenError;
pub use staged::{CommitError, Part, StageError, Staged};

use crate::oci::Digest;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Where content is kept, and how much of it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory.
    pub path: PathBuf,
    /// The most bytes of cached content, parts and reservations included.
    pub max_size: u64,
    /// Free bytes on the file system below which the disk counts as full.
    pub min_free: u64,
}

/// The disk or the index failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room.
    #[error("no room in the store")]
    Full,
    /// The file system failed.
    #[error("the file system failed: {0}")]
    Io(#[from] io::Error),
    /// The index failed.
    #[error("the index failed: {0}")]
    Index(#[from] rusqlite::Error),
    /// The index is shut down, or the content is not what its digest says.
    #[error("{0}")]
    Refused(&'static str),
}

/// How full the store is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Blobs.
    pub cached_bytes: u64,
    /// Parts of interrupted fills, and room promised to running ones.
    pub reserved_bytes: u64,
    /// The limit on the sum of both.
    pub max_size: u64,
}

/// The store of one data directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: layout::Layout,
    index: Index,
    hot: blobs::Hot,
    budget: budget::Budget,
    durable: durable::Pending,
    metrics: Arc<Metrics>,
    closed: AtomicBool,
}

impl Store {
    /// Opens the data directory: makes it where it is missing, takes its lock, recovers from whatever ended the last process, and starts
    /// the background work.
    pub async fn open(
        config: Config,
        tasks: &Tasks,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let opened = Arc::clone(&metrics);
        let inner = tokio::task::spawn_blocking(move || Inner::open(&config, opened))
            .await
            .map_err(|_died| OpenError::Interrupted)??;
        let store = Self {
            inner: Arc::new(inner),
        };
        store.show_usage();
        // Weak, so that a store that everyone has let go of lets go of its lock.
        let (background, stopping) = (Arc::downgrade(&store.inner), tasks.stopping());
        tasks.spawn("store upkeep", async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(durable::UPKEEP_EVERY) => match background.upgrade() {
                        Some(inner) => Self { inner }.upkeep().await,
                        None => break,
                    },
                    () = stopping.cancelled() => break,
                }
            }
        });
        Ok(store)
    }

    /// What is known about content.
    pub fn index(&self) -> &Index {
        &self.inner.index
    }

    /// Stores small content whole: manifests. Verified before it is visible.
    pub async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<Blob, StoreError> {
        if Digest::of_with(digest.algorithm(), &bytes) != *digest {
            return Err(StoreError::Refused(
                "the content does not hash to its digest",
            ));
        }
        if let Some(blob) = self.open_blob(digest).await? {
            return Ok(blob);
        }
        let refuse = |error| match error {
            StageError::Full => StoreError::Full,
            StageError::Io(error) => StoreError::Io(error),
        };
        let mut staged = self
            .stage_small(digest, bytes.len() as u64)
            .await
            .map_err(refuse)?;
        if let Err(error) = staged.append(bytes).await {
            staged.discard().await;
            return Err(refuse(error));
        }
        match staged.commit_as(true).await {
            Ok(blob) => Ok(blob),
            Err(CommitError::Stage(error)) => Err(refuse(error)),
            Err(CommitError::Mismatch { .. } | CommitError::Length) => Err(StoreError::Refused(
                "the content was not written as it was given",
            )),
        }
    }

    /// How full the store is.
    pub fn usage(&self) -> Usage {
        self.inner.budget.usage()
    }

    /// Writes down what is pending and marks the store as cleanly closed.
    pub async fn close(&self) {
        if self.inner.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        self.upkeep().await;
        self.inner.index.stop().await;
        let inner = Arc::clone(&self.inner);
        let marked = tokio::task::spawn_blocking(move || inner.layout.mark_clean()).await;
        if !matches!(marked, Ok(Ok(()))) {
            tracing::warn!(
                "the store could not be marked as cleanly closed; undurable content will be verified at the next start"
            );
        }
    }

    fn show_usage(&self) {
        let usage = self.usage();
        let shown = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.inner
            .metrics
            .cached_bytes
            .set(shown(usage.cached_bytes));
        self.inner
            .metrics
            .cached_bytes_max
            .set(shown(usage.max_size));
    }
}

impl Inner {
    fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let layout = layout::Layout::open(&config.path)?;
        let (index, recovered) = Index::open(&layout)?;
        let parts = layout.recover_parts();
        let budget = budget::Budget::new(config.max_size, config.min_free, recovered.bytes, parts);
        Ok(Self {
            layout,
            index,
            hot: blobs::Hot::new(recovered.suspects),
            budget,
            durable: durable::Pending::default(),
            metrics,
            closed: AtomicBool::new(false),
        })
    }
}

#[cfg(test)]
mod tests;
