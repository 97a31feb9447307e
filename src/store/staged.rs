//! Content on its way in: a part that grows, is read by followers meanwhile, and becomes a blob if it hashes to its digest.
//!
//! Bytes go through a short channel to one blocking thread that writes, publishes how far it is, and hashes. Blocking `std` files on
//! purpose: an error of the disk is seen here and not swallowed (RELIABILITY D35).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use super::blobs::Blob;
use super::{Inner, Store};
use crate::oci::{Digest, Hasher};

/// How many chunks wait for the disk at most.
const QUEUE: usize = 4;
/// How many written bytes are published at once while more are waiting.
const PUBLISH: u64 = 128 * 1024;
/// How much room is promised at a time where the length is not known.
const STEP: u64 = 1024 * 1024;

/// Why content cannot be staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// There is no room: `max_size`, `min_free`, ENOSPC or a quota.
    #[error("no room on the disk")]
    Full,
    /// The file system failed.
    #[error("the file system failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for StageError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
            Self::Full
        } else {
            Self::Io(error)
        }
    }
}

/// Why staged content did not become a blob. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It hashes to something else.
    #[error("the content hashes to {found}")]
    Mismatch {
        /// What it hashes to.
        found: Digest,
    },
    /// The file does not have the length that was written or announced.
    #[error("the content does not have the announced length")]
    Length,
    /// The disk failed.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// A part as followers see it.
#[derive(Debug, Clone)]
pub struct Part {
    file: Arc<File>,
    written: watch::Receiver<u64>,
}

impl Part {
    /// How many bytes can be read; changes as the part grows, closes when the writer is done.
    pub fn written(&self) -> watch::Receiver<u64> {
        self.written.clone()
    }

    /// At most `max` of the bytes that are written, from `offset` on.
    pub async fn read_at(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        let written = *self.written.borrow();
        let left = usize::try_from(written.saturating_sub(offset)).unwrap_or(max);
        if left == 0 {
            Ok(Bytes::new())
        } else {
            super::read::read_at(&self.file, offset, max.min(left)).await
        }
    }
}

/// Content on its way in. There is one for a digest at a time; the caller sees to that.
#[derive(Debug)]
pub struct Staged {
    store: Store,
    digest: Digest,
    part: Part,
    held: u64,
    reserved: u64,
    total: Option<u64>,
    queue: Option<mpsc::Sender<Bytes>>,
    writer: Option<JoinHandle<Result<Written, io::Error>>>,
}

#[derive(Debug)]
struct Written {
    hasher: Hasher,
    length: u64,
}

impl Store {
    /// Begins to stage `digest`, or goes on where an interrupted fill left it (its part is hashed again first).
    pub async fn stage(
        &self,
        digest: &Digest,
        expected: Option<u64>,
    ) -> Result<Staged, StageError> {
        let held = self.inner.budget.take_part(digest);
        let more = expected.unwrap_or(STEP).saturating_sub(held);
        if let Err(error) = self.reserve(more).await {
            self.inner.budget.leave_part(digest, held, held);
            return Err(error);
        }
        let reserved = held + more;
        let (inner, wanted) = (Arc::clone(&self.inner), digest.clone());
        let opened = tokio::task::spawn_blocking(move || inner.open_part(&wanted, expected))
            .await
            .map_err(|_died| StageError::Io(io::Error::other("the staging thread died")));
        let (file, hasher, held) = match opened.and_then(|opened| opened.map_err(StageError::from))
        {
            Ok(opened) => opened,
            Err(error) => {
                self.inner.budget.unreserve(reserved);
                return Err(error);
            }
        };
        let (published, written) = watch::channel(held);
        let (queue, chunks) = mpsc::channel(QUEUE);
        let part = Part {
            file: Arc::clone(&file),
            written,
        };
        let writer =
            tokio::task::spawn_blocking(move || write(&file, hasher, held, chunks, &published));
        Ok(Staged {
            store: self.clone(),
            digest: digest.clone(),
            part,
            held,
            reserved,
            total: expected,
            queue: Some(queue),
            writer: Some(writer),
        })
    }

    /// Stages small content whose length is known, from nothing.
    pub(super) async fn stage_small(
        &self,
        digest: &Digest,
        length: u64,
    ) -> Result<Staged, StageError> {
        self.stage(digest, Some(length)).await
    }
}

impl Inner {
    fn open_part(
        &self,
        digest: &Digest,
        expected: Option<u64>,
    ) -> io::Result<(Arc<File>, Hasher, u64)> {
        let mut open = File::options();
        let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let mut file = open
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(flags)
            .open(self.layout.part(digest))?;
        let mut hasher = digest.algorithm().hasher();
        let mut held = 0;
        // A part that is as long as the whole or longer was preallocated or is not of this blob: it starts anew.
        let length = file.metadata()?.len();
        if length > 0 && expected.is_none_or(|expected| length < expected) {
            let mut buffer = vec![0; 256 * 1024];
            loop {
                let read = file.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                hasher.update(buffer.get(..read).unwrap_or_default());
                held += read as u64;
            }
        } else {
            file.set_len(0)?;
        }
        Ok((Arc::new(file), hasher, held))
    }
}

/// The writing thread: write, publish, hash. Ends when the queue closes or the disk fails.
fn write(
    file: &File,
    mut hasher: Hasher,
    held: u64,
    mut chunks: mpsc::Receiver<Bytes>,
    published: &watch::Sender<u64>,
) -> Result<Written, io::Error> {
    let mut length = held;
    let mut shown = held;
    let mut waiting = Vec::with_capacity(QUEUE);
    while chunks.blocking_recv_many(&mut waiting, QUEUE) > 0 {
        for chunk in &waiting {
            file.write_all_at(chunk, length)?;
            length += chunk.len() as u64;
            if length - shown >= PUBLISH {
                published.send_replace(length);
                shown = length;
            }
            hasher.update(chunk);
        }
        waiting.clear();
        if shown < length {
            published.send_replace(length);
            shown = length;
        }
    }
    published.send_replace(length);
    Ok(Written { hasher, length })
}

impl Staged {
    /// How many bytes it has: kept from before, and given to it since.
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// The part, for followers.
    pub fn part(&self) -> Part {
        self.part.clone()
    }

    /// Promises room for the whole once its length is known, on the disk too, so that a full disk shows before the first byte.
    pub async fn expect(&mut self, total: u64) -> Result<(), StageError> {
        let missing = total.saturating_sub(self.reserved);
        if missing > 0 {
            self.store.reserve(missing).await?;
            self.reserved += missing;
        }
        self.total = Some(total);
        let (file, held) = (Arc::clone(&self.part.file), self.held);
        let allocated = tokio::task::spawn_blocking(move || allocate(&file, held, total)).await;
        allocated
            .map_err(|_died| StageError::Io(io::Error::other("the allocating thread died")))?
            .map_err(StageError::from)
    }

    /// Takes the next bytes. Waits while the disk is behind.
    pub async fn append(&mut self, chunk: Bytes) -> Result<(), StageError> {
        let length = chunk.len() as u64;
        if self.held + length > self.reserved {
            let step = STEP.max(length);
            self.store.reserve(step).await?;
            self.reserved += step;
        }
        self.held += length;
        let Some(queue) = &self.queue else {
            return Err(StageError::Io(io::Error::other(
                "nothing can be appended any more",
            )));
        };
        if queue.send(chunk).await.is_ok() {
            return Ok(());
        }
        // The thread has ended before its queue: its result says why.
        Err(self
            .finish_writing()
            .await
            .err()
            .unwrap_or_else(|| StageError::Io(io::Error::other("the writing thread ended early"))))
    }

    /// Verifies and publishes the content.
    pub async fn commit(self) -> Result<Blob, CommitError> {
        self.commit_as(false).await
    }

    pub(super) async fn commit_as(mut self, manifest: bool) -> Result<Blob, CommitError> {
        let written = match self.finish_writing().await {
            Ok(written) => written,
            Err(error) => {
                self.discard().await;
                return Err(error.into());
            }
        };
        let found = written.hasher.finish();
        if found != self.digest {
            self.discard().await;
            return Err(CommitError::Mismatch { found });
        }
        let file = Arc::clone(&self.part.file);
        let on_disk = file.metadata().map(|metadata| metadata.len());
        if !matches!(on_disk, Ok(length) if length == written.length)
            || self.total.is_some_and(|total| total != written.length)
        {
            self.discard().await;
            return Err(CommitError::Length);
        }
        let (inner, digest) = (Arc::clone(&self.store.inner), self.digest.clone());
        let published = tokio::task::spawn_blocking(move || inner.layout.publish(&digest)).await;
        if let Err(error) =
            published.unwrap_or_else(|_died| Err(io::Error::other("the publishing thread died")))
        {
            self.discard().await;
            return Err(StageError::from(error).into());
        }
        let blob = Blob::new(self.digest.clone(), written.length, file);
        let Inner {
            index,
            hot,
            budget,
            durable,
            ..
        } = &*self.store.inner;
        match index.put_blob(&self.digest, written.length, manifest).await {
            Ok(true) => budget.settle(self.reserved, written.length),
            Ok(false) => budget.unreserve(self.reserved),
            Err(error) => {
                // On disk and sound: without a row it is adopted at its next open.
                warn!(%error, digest = %self.digest, "cannot write down a new blob");
                budget.settle(self.reserved, written.length);
            }
        }
        self.reserved = 0;
        durable.add(self.digest.clone());
        hot.put(&blob);
        self.store.show_usage();
        Ok(blob)
    }

    /// Stops and leaves the part for a later fill.
    pub async fn keep(mut self) {
        let length = match self.finish_writing().await {
            Ok(written) => written.length,
            Err(_) => 0,
        };
        // What was preallocated beyond the written bytes goes back to the file system.
        let cut = self.part.file.set_len(length);
        if length == 0 || cut.is_err() {
            self.discard().await;
            return;
        }
        let digest = self.digest.clone();
        self.store
            .inner
            .budget
            .leave_part(&digest, self.reserved, length);
        self.reserved = 0;
    }

    /// Stops and leaves nothing behind.
    pub async fn discard(mut self) {
        // Whatever the disk said does not matter any more.
        drop(self.finish_writing().await);
        let (inner, digest) = (Arc::clone(&self.store.inner), self.digest.clone());
        let removed =
            tokio::task::spawn_blocking(move || std::fs::remove_file(inner.layout.part(&digest)))
                .await;
        if let Ok(Err(error)) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, digest = %self.digest, "cannot remove a part");
        }
        self.store.inner.budget.unreserve(self.reserved);
        self.reserved = 0;
    }

    async fn finish_writing(&mut self) -> Result<Written, StageError> {
        self.queue = None;
        match self.writer.take() {
            Some(writer) => Ok(writer
                .await
                .map_err(|_died| StageError::Io(io::Error::other("the writing thread died")))??),
            None => Err(StageError::Io(io::Error::other(
                "the writing thread has ended",
            ))),
        }
    }
}

impl Drop for Staged {
    /// A fill that died keeps its room no longer; the part stays on disk and is found at the next start.
    fn drop(&mut self) {
        self.store.inner.budget.unreserve(self.reserved);
    }
}

/// Allocates `held..total` without changing the file's length, so that a part's length stays what was written.
fn allocate(file: &File, held: u64, total: u64) -> io::Result<()> {
    if total <= held {
        return Ok(());
    }
    match rustix::fs::fallocate(
        file,
        rustix::fs::FallocateFlags::KEEP_SIZE,
        held,
        total - held,
    ) {
        Err(
            rustix::io::Errno::OPNOTSUPP
            | rustix::io::Errno::NOSYS
            | rustix::io::Errno::INVAL
            | rustix::io::Errno::INTR,
        )
        | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
