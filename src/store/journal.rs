//! The journal: what local repositories hold, on disk before anyone is told that it is held (DECISIONS 8, 9).
//!
//! One thread takes what waits, appends it in one write, syncs once, takes it into the index in the same order, and answers everyone.
//! The index may lose its newest transactions, or all of itself: a start takes in again whatever it has not. A journal that could not be
//! synced takes nothing more until the next start, because nobody knows what of it is on disk.

use std::any::Any;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::FallocateFlags;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::change::{Change, Transaction, What};
use super::index::{Index, IndexError, ManifestRow, Work};
use super::shared::Shared;
use super::{StageError, StoreError, frames};
use crate::oci::manifest::{MANIFEST_MAX, Manifest};
use crate::oci::{Digest, MediaType, labels};

/// Changes that may wait before senders wait too.
const QUEUE: usize = 1024;
/// Changes that one sync covers at most.
const GROUP: usize = 256;
/// Changes that a start takes in at a time.
const REPLAY: usize = 512;
/// Records that the index has not taken before nothing more is.
const PENDING: usize = 4096;
/// What a change leaves behind that is removed before it is answered; more goes in the background.
const ORPHANS_AT_ONCE: usize = 64;
/// Bytes that are allocated ahead, so that a full disk is met before a record is half written.
const AHEAD: u64 = 1 << 20;

/// The journal's end that takes changes.
#[derive(Debug)]
pub(super) struct Journal {
    queue: mpsc::Sender<Job>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What must not be let go of before a record is answered, even if whoever asked is gone: locks, holds.
pub type Keep = Arc<dyn Any + Send + Sync>;

struct Job {
    changes: Vec<(Change, Option<ManifestRow>)>,
    keep: Vec<Keep>,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

/// The file, and where it ends.
#[derive(Debug)]
struct Log {
    file: File,
    end: u64,
    allocated: u64,
    sequence: u64,
    /// What stands in the file and the index has not taken.
    pending: Vec<Work>,
}

/// A journal that was read, before its thread runs.
#[derive(Debug)]
pub(super) struct Opened {
    log: Log,
    queue: mpsc::Receiver<Job>,
}

impl Journal {
    /// Reads the journal in `file` and takes into `index` what it has not. `bytes_of` reads a manifest; `set_aside` keeps what stands at the
    /// end and is no record. Blocks.
    pub(super) fn open(
        file: File,
        index: &Index,
        set_aside: impl Fn(&[u8]) -> io::Result<()>,
        bytes_of: impl Fn(&Digest) -> Option<Vec<u8>>,
    ) -> io::Result<(Self, Opened)> {
        let length = file.metadata()?.len();
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        let contents = frames::decode(&bytes);
        if contents.damaged > 0 {
            error!(
                bytes = contents.damaged,
                "the journal of the local repositories is damaged; what stands in the damaged part is lost, restore it from a backup"
            );
        }
        let end = u64::try_from(contents.end).unwrap_or(length);
        if end < length {
            let tail = bytes.get(contents.end..).unwrap_or_default();
            if tail.iter().any(|byte| *byte != 0) {
                // A torn write as a rule; but if it is damage, it is not for us to destroy.
                set_aside(tail)?;
            }
            info!(
                bytes = length - end,
                "the last write of the journal did not end; it is put into quarantine"
            );
            file.set_len(end)?;
            file.sync_data()?;
        }
        let sequence = contents.frames.iter().map(|frame| frame.sequence).max();
        let applied = index.journal_applied().map_err(io::Error::other)?;
        let mut work = Vec::new();
        let mut replayed = 0;
        for frame in contents.frames {
            if frame.sequence <= applied {
                continue;
            }
            let Transaction(changes) = match serde_json::from_slice(frame.payload) {
                Ok(transaction) => transaction,
                // Skipped, it would be lost for the program that can read it as well.
                Err(problem) => {
                    return Err(io::Error::other(format!(
                        "record {} cannot be read, a newer program wrote it ({problem}); start that one",
                        frame.sequence
                    )));
                }
            };
            replayed += 1;
            let with_row = |mut change: Change| {
                let row = read_manifests(&mut change, &bytes_of);
                (change, row)
            };
            work.push(Work {
                sequence: frame.sequence,
                changes: changes.into_iter().map(with_row).collect(),
            });
            if work.len() >= REPLAY {
                index
                    .apply_blocking(std::mem::take(&mut work))
                    .map_err(io::Error::other)?;
            }
        }
        index.apply_blocking(work).map_err(io::Error::other)?;
        if replayed > 0 {
            info!(
                records = replayed,
                "the index has taken in what the journal knew better"
            );
        }
        let (sender, queue) = mpsc::channel(QUEUE);
        let log = Log {
            file,
            end,
            allocated: end,
            sequence: sequence.unwrap_or(0).max(applied),
            pending: Vec::new(),
        };
        let journal = Self {
            queue: sender,
            thread: Mutex::default(),
        };
        Ok((journal, Opened { log, queue }))
    }

    /// Starts the thread.
    pub(super) fn start(&self, opened: Opened, shared: &Arc<Shared>) -> io::Result<()> {
        let shared = Arc::downgrade(shared);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                let Opened { mut log, mut queue } = opened;
                while let Some(first) = queue.blocking_recv() {
                    let mut jobs = vec![first];
                    while jobs.len() < GROUP
                        && let Ok(job) = queue.try_recv()
                    {
                        jobs.push(job);
                    }
                    let Some(shared) = shared.upgrade() else {
                        return;
                    };
                    run(&mut log, jobs, &shared);
                }
            })?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Writes changes down as one record and takes them in; returns when both are done.
    pub(super) async fn commit(
        &self,
        changes: Vec<(Change, Option<ManifestRow>)>,
        keep: Vec<Keep>,
    ) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            changes,
            keep,
            reply,
        };
        self.queue.send(job).await.map_err(|_closed| closed())?;
        answer.await.map_err(|_closed| closed())?
    }
}

fn closed() -> StoreError {
    StoreError::Io(io::Error::other(
        "the journal takes nothing more until the next start",
    ))
}

/// One group: append, sync, take in, answer.
fn run(log: &mut Log, jobs: Vec<Job>, shared: &Arc<Shared>) {
    let mut bytes = Vec::new();
    let mut work = Vec::new();
    let (mut replies, mut kept) = (Vec::new(), Vec::new());
    let before = log.sequence;
    for Job {
        changes,
        keep,
        reply,
    } in jobs
    {
        kept.extend(keep);
        let transaction = Transaction(changes.iter().map(|(change, _)| change.clone()).collect());
        let payload = serde_json::to_vec(&transaction).unwrap_or_default();
        let sequence = log.sequence + 1;
        let Some(frame) = frames::encode(sequence, &payload) else {
            let _gone = reply.send(Err(StoreError::Io(io::ErrorKind::FileTooLarge.into())));
            continue;
        };
        log.sequence = sequence;
        bytes.extend_from_slice(&frame);
        replies.push(reply);
        work.push(Work { sequence, changes });
    }
    let answer = |replies: Vec<oneshot::Sender<_>>, error: &dyn Fn() -> StoreError| {
        for reply in replies {
            // Whoever asked may have gone away.
            let _gone = reply.send(Err(error()));
        }
    };
    match log.append(&bytes) {
        Ok(()) => {}
        Err(Trouble::Before(error)) => {
            log.sequence = before;
            warn!(%error, "the journal has no room for a change");
            answer(replies, &|| StageError::from(copy(&error)).into());
            return;
        }
        Err(Trouble::Unknown(error)) => {
            error!(%error, "the journal could not be written; nothing is pushed or deleted until the next start");
            log.broken();
            answer(replies, &|| StoreError::Io(copy(&error)));
            return;
        }
    }
    // What the index did not take before comes first: it must never be told of later records alone.
    log.pending.extend(work);
    match shared.take_in(log.pending.clone()) {
        Ok(()) => {
            log.pending.clear();
            for reply in replies {
                let _gone = reply.send(Ok(()));
            }
        }
        Err(error) => {
            error!(%error, "changes stand in the journal and not in the index; the next one takes them along, or the next start");
            if log.pending.len() > PENDING {
                log.broken();
            }
            let text = error.to_string();
            answer(replies, &|| StoreError::Pending(text.clone()));
        }
    }
    drop(kept);
}

enum Trouble {
    /// Nothing was written.
    Before(io::Error),
    /// What of it is on disk is unknown.
    Unknown(io::Error),
}

impl Log {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        if self.sequence == u64::MAX {
            return Err(Trouble::Before(closed_io()));
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let end = self.end.saturating_add(length);
        if end > self.allocated {
            let to = end.saturating_add(AHEAD);
            self.allocate(to).map_err(Trouble::Before)?;
        }
        if let Err(error) = self.file.write_all_at(bytes, self.end) {
            // Cut back to what is known to be good; where that fails too, nobody knows.
            return Err(match self.file.set_len(self.end) {
                Ok(()) => Trouble::Before(error),
                Err(_) => Trouble::Unknown(error),
            });
        }
        self.file.sync_data().map_err(Trouble::Unknown)?;
        self.end = end;
        Ok(())
    }

    fn allocate(&mut self, to: u64) -> io::Result<()> {
        let done = rustix::fs::fallocate(
            &self.file,
            FallocateFlags::KEEP_SIZE,
            self.end,
            to - self.end,
        );
        match done {
            // Where the file system cannot, a write says whether there is room.
            Ok(())
            | Err(
                rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL,
            ) => {
                self.allocated = to;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// From here on every append is refused.
    const fn broken(&mut self) {
        self.sequence = u64::MAX;
    }
}

fn closed_io() -> io::Error {
    io::Error::other("the journal takes nothing more until the next start")
}

/// The same error once more.
fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(
        || io::Error::other(error.to_string()),
        io::Error::from_raw_os_error,
    )
}

/// What is known of the manifests that a change brings, from their bytes.
fn read_manifests(
    change: &mut Change,
    bytes_of: &impl Fn(&Digest) -> Option<Vec<u8>>,
) -> Option<ManifestRow> {
    if let What::Keep(record) = &mut change.what {
        for one in &mut record.manifests {
            one.row = manifest_row(&one.digest, &one.media_type, bytes_of);
        }
    }
    let What::PutManifest {
        digest, media_type, ..
    } = &change.what
    else {
        return None;
    };
    manifest_row(digest, media_type, bytes_of)
}

fn manifest_row(
    digest: &str,
    media_type: &str,
    bytes_of: &impl Fn(&Digest) -> Option<Vec<u8>>,
) -> Option<ManifestRow> {
    let bytes =
        bytes_of(&Digest::parse(digest).ok()?).filter(|bytes| bytes.len() <= MANIFEST_MAX)?;
    let declared = MediaType::parse(media_type);
    let manifest = Manifest::parse(&bytes, declared.as_ref()).ok()?;
    let config = manifest
        .config()
        .filter(|config| config.size() <= MANIFEST_MAX as u64)
        .and_then(|config| bytes_of(config.digest()));
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Some(ManifestRow {
        media_type: media_type.to_owned(),
        labels: config.map_or_else(Default::default, |config| labels::parse(&config)),
        ..ManifestRow::of(&manifest, size)
    })
}

impl Shared {
    /// Takes changes into the index, and into the books what follows from them; lets go of what nothing links any more. Blocks.
    fn take_in(self: &Arc<Self>, work: Vec<Work>) -> Result<(), StoreError> {
        let applied = self.index.apply_blocking(work)?;
        self.budget.blobs_changed(&applied.moved);
        if applied.orphans.len() <= ORPHANS_AT_ONCE {
            self.let_go_of(applied.orphans);
            return Ok(());
        }
        // A whole repository went: nobody who waits for the journal waits for that.
        let shared = Arc::clone(self);
        let orphans = applied.orphans;
        let started = std::thread::Builder::new()
            .name("let go".to_owned())
            .spawn(move || shared.let_go_of(orphans));
        if let Err(error) = started {
            warn!(%error, "what nothing links any more is not removed now; eviction will");
        }
        Ok(())
    }

    /// Removes what nothing links any more.
    fn let_go_of(&self, orphans: Vec<Digest>) {
        for digest in orphans {
            match self.evict(&digest, false) {
                Ok(_) => {}
                Err(StoreError::Index(IndexError::Closed)) => return,
                Err(error) => {
                    warn!(%digest, %error, "what nothing links any more cannot be removed; eviction will");
                }
            }
        }
    }
}
