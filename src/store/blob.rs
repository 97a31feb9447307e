//! A verified blob, open for reading.
//!
//! Holding one keeps its bytes readable, whatever eviction does to the name. A read that comes back short or with an I/O error marks the
//! blob as damaged: it is quarantined behind the reader's back, so that the next request fetches it afresh.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::read;
use crate::oci::Digest;

/// Where damage that readers meet is reported.
pub(super) type DamageReports = mpsc::UnboundedSender<(Digest, &'static str)>;

/// A blob that was verified. Clones share the open file.
#[derive(Clone)]
pub struct Blob {
    handle: Arc<Handle>,
}

/// An open file of a blob, shared by all who read it.
pub(super) struct Handle {
    digest: Digest,
    size: u64,
    file: Arc<File>,
    damaged: AtomicBool,
    reports: DamageReports,
    used: AtomicI64,
    flushed: AtomicI64,
}

impl Handle {
    pub(super) fn new(
        digest: Digest,
        size: u64,
        file: Arc<File>,
        reports: DamageReports,
        stamp: i64,
    ) -> Arc<Self> {
        Arc::new(Self {
            digest,
            size,
            file,
            damaged: AtomicBool::new(false),
            reports,
            used: AtomicI64::new(stamp),
            flushed: AtomicI64::new(0),
        })
    }

    pub(super) const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Notes a use, to be written down with others later.
    pub(super) fn touch(&self, stamp: i64) {
        self.used.fetch_max(stamp, Ordering::Relaxed);
    }

    /// The latest use, if it has not been written down yet.
    pub(super) fn take_use(&self) -> Option<i64> {
        let used = self.used.load(Ordering::Relaxed);
        (self.flushed.swap(used, Ordering::Relaxed) < used).then_some(used)
    }

    /// Whether the open file is still what the record says and still has its name. A handful of nanoseconds: no disk is touched.
    pub(super) fn is_sound(&self) -> bool {
        !self.damaged.load(Ordering::Relaxed)
            && self
                .file
                .metadata()
                .is_ok_and(|m| m.len() == self.size && m.nlink() > 0)
    }

    /// Keeps new readers away.
    pub(super) fn condemn(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    fn report(&self, why: &'static str) {
        if !self.damaged.swap(true, Ordering::Relaxed) {
            // Nobody listens once the store is closed; the next start looks at lengths again.
            let _closed = self.reports.send((self.digest.clone(), why));
        }
    }
}

impl Blob {
    pub(super) const fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }

    /// Its digest.
    pub fn digest(&self) -> &Digest {
        &self.handle.digest
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.handle.size
    }

    /// Up to `max` bytes at `offset`, fewer where less is at hand (a read gives 256 KiB at most); none only at the end.
    ///
    /// A file that is shorter than its record is an error, never an early end.
    pub async fn read_at(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        let handle = &self.handle;
        let left = handle.size.saturating_sub(offset);
        let max = max.min(usize::try_from(left).unwrap_or(usize::MAX));
        if max == 0 {
            return Ok(Bytes::new());
        }
        match read::at(&handle.file, offset, max).await {
            Ok(bytes) if bytes.is_empty() => {
                handle.report("the file is shorter than its record");
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(bytes) => Ok(bytes),
            Err(error) => {
                handle.report("the file cannot be read");
                Err(error)
            }
        }
    }

    /// Makes its bytes durable. Blocks.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.handle.file.sync_all()
    }

    /// The whole content, for what is small; an error where it is longer than `limit`.
    pub async fn read_whole(&self, limit: usize) -> io::Result<Bytes> {
        let size = usize::try_from(self.handle.size)
            .ok()
            .filter(|size| *size <= limit)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        let first = self.read_at(0, size).await?;
        if first.len() == size {
            return Ok(first);
        }
        let mut whole = BytesMut::with_capacity(size);
        whole.extend_from_slice(&first);
        while whole.len() < size {
            let offset = u64::try_from(whole.len()).unwrap_or(u64::MAX);
            let more = self.read_at(offset, size - whole.len()).await?;
            whole.extend_from_slice(&more);
        }
        Ok(whole.freeze())
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.handle, f)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob")
            .field("digest", &self.digest)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
