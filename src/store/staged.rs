//! A blob that is being written, as its one writer and its many followers see it.
//!
//! Chunks go through a short channel to a thread that writes, publishes how far the file may be read, and hashes (in [`super::fill`]).
//! The thread owns the part, its reservation and its end: whoever drops a [`Staged`] without a verdict leaves a part for later.

use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use super::blob::Blob;
use super::fill::{self, Order};
use super::layout::part_name;
use super::parts::Claim;
use super::shared::Shared;
use super::{CommitError, StageError, read};
use crate::oci::Digest;

/// Chunks that wait for the writer; with those in its hands the memory that a fill takes.
const CHUNKS: usize = 4;

/// A blob that is being written.
#[derive(Debug)]
pub struct Staged {
    orders: mpsc::Sender<Order>,
    failure: Arc<OnceLock<Failure>>,
    part: Part,
    held: u64,
    expected: Option<u64>,
}

/// What followers of a fill read: the same open file, as far as it is written.
#[derive(Clone, Debug)]
pub struct Part {
    digest: Digest,
    file: Arc<std::fs::File>,
    written: watch::Receiver<u64>,
}

/// Why the writer stopped, in a form that can be told more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Full,
    Io(Option<i32>, io::ErrorKind),
}

impl Failure {
    /// What an I/O error means for a fill.
    pub(super) fn of(error: &io::Error) -> Self {
        let kind = error.kind();
        if matches!(
            kind,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            Self::Full
        } else {
            Self::Io(error.raw_os_error(), kind)
        }
    }

    /// What an earlier error of the fill was.
    pub(super) fn of_stage(error: &StageError) -> Self {
        match error {
            StageError::Full => Self::Full,
            StageError::TooLong => Self::Io(None, io::ErrorKind::FileTooLarge),
            StageError::Io(error) => Self::of(error),
        }
    }

    pub(super) fn tell(self) -> StageError {
        match self {
            Self::Full => StageError::Full,
            Self::Io(Some(code), _) => StageError::Io(io::Error::from_raw_os_error(code)),
            Self::Io(None, kind) => StageError::Io(kind.into()),
        }
    }
}

impl From<io::Error> for StageError {
    fn from(error: io::Error) -> Self {
        Failure::of(&error).tell()
    }
}

impl Staged {
    /// Begins to write what a local repository is about to link; no part of it is ever left. Blocks.
    pub(super) fn begin_unlimited(
        shared: &Arc<Shared>,
        digest: &Digest,
        expected: Option<u64>,
    ) -> Result<Self, StageError> {
        let setup = fill::Setup {
            digest: digest.clone(),
            reservation: shared.budget.resume_part(0),
            name: shared.scratch_name(digest),
            own: false,
            kept: 0,
            expected,
            unlimited: true,
            shared: Arc::clone(shared),
        };
        Self::start(setup)
    }

    /// Begins or resumes a fill. Blocks.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        digest: &Digest,
        expected: Option<u64>,
    ) -> Result<Self, StageError> {
        let claim = shared.parts.claim(digest);
        let (name, own, kept) = match claim {
            Claim::Own(kept) => (part_name(digest), true, kept),
            Claim::Taken => (shared.scratch_name(digest), false, 0),
        };
        let setup = fill::Setup {
            shared: Arc::clone(shared),
            digest: digest.clone(),
            reservation: shared.budget.resume_part(kept),
            name,
            own,
            kept,
            expected,
            unlimited: false,
        };
        Self::start(setup)
    }

    fn start(setup: fill::Setup) -> Result<Self, StageError> {
        let (digest, expected) = (setup.digest.clone(), setup.expected);
        let (orders, queue) = mpsc::channel(CHUNKS);
        let failure = Arc::new(OnceLock::new());
        let started = fill::start(setup, queue, Arc::clone(&failure))?;
        let part = Part {
            digest,
            file: started.file,
            written: started.written,
        };
        Ok(Self {
            orders,
            failure,
            part,
            held: started.kept,
            expected,
        })
    }

    /// How many bytes were taken in, those kept from an earlier fill included: where the next chunk goes.
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// For followers.
    pub fn part(&self) -> Part {
        self.part.clone()
    }

    /// Sets the room aside when the length of the whole becomes known.
    pub async fn expect(&mut self, total: u64) -> Result<(), StageError> {
        if self.held > total {
            return Err(StageError::TooLong);
        }
        let (reply, answer) = oneshot::channel();
        self.order(Order::Expect(total, reply)).await?;
        answer.await.map_err(|_ended| self.failure())?;
        self.expected = Some(total);
        Ok(())
    }

    /// Takes a chunk in; waits while the disk is behind.
    pub async fn append(&mut self, chunk: Bytes) -> Result<(), StageError> {
        if chunk.is_empty() {
            return Ok(());
        }
        let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        let held = self.held.saturating_add(length);
        if self.expected.is_some_and(|expected| held > expected) {
            return Err(StageError::TooLong);
        }
        self.order(Order::Write(chunk)).await?;
        self.held = held;
        Ok(())
    }

    /// The digest of what is held so far, without ending it.
    pub async fn prefix_digest(&mut self) -> Result<Digest, StageError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Prefix(reply)).await?;
        answer.await.map_err(|_ended| self.failure())
    }

    /// Verifies digest and length and publishes the blob. Once called it is carried through, even if the caller goes away.
    pub async fn commit(self) -> Result<Blob, CommitError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Commit(reply)).await?;
        answer
            .await
            .unwrap_or_else(|_ended| Err(CommitError::Stage(self.failure())))
    }

    /// Stops and leaves the part for a later resume.
    pub async fn keep(self) {
        self.end(Order::Keep).await;
    }

    /// Stops and removes the part.
    pub async fn discard(self) {
        self.end(Order::Discard).await;
    }

    async fn end(self, order: fn(oneshot::Sender<()>) -> Order) {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(order(reply)).await.is_ok() {
            // An answer that never comes means that the writer has failed, and then it has cleaned up.
            let _failed = answer.await;
        }
    }

    async fn order(&self, order: Order) -> Result<(), StageError> {
        self.orders
            .send(order)
            .await
            .map_err(|_ended| self.failure())
    }

    fn failure(&self) -> StageError {
        self.failure
            .get()
            .copied()
            .unwrap_or(Failure::Io(None, io::ErrorKind::BrokenPipe))
            .tell()
    }
}

impl Part {
    /// What it will be once it is verified. Until then its bytes are anybody's.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Up to `max` bytes at `offset` of what is written so far; none where nothing is there yet.
    pub async fn read_at(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        let written = *self.written.borrow();
        let left = written.saturating_sub(offset);
        let max = max.min(usize::try_from(left).unwrap_or(usize::MAX));
        if max == 0 {
            return Ok(Bytes::new());
        }
        let bytes = read::at(&self.file, offset, max).await?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }

    /// How many bytes may be read; ends when the writer does, however it does.
    pub fn written(&self) -> watch::Receiver<u64> {
        self.written.clone()
    }
}
