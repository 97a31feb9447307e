//! The writer's thread of one fill.
//!
//! For each chunk: make sure that it is reserved, write it, publish it, hash it. A write that fails ends the fill and removes the part;
//! the error is told to whoever asks next. A commit compares the digest, and the length of the file itself, before the name is given.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use super::blob::Blob;
use super::budget::Reservation;
use super::layout::Place;
use super::parts::Waiting;
use super::shared::{Class, Kept, Shared, hash_prefix};
use super::staged::Failure;
use super::{CommitError, StageError};
use crate::clock;
use crate::oci::{Digest, Hasher};

/// While the length of the whole is unknown, as much again is reserved as is written, within these bounds.
const STEP_MIN: u64 = 64 << 10;
const STEP_MAX: u64 = 8 << 20;
/// The thread only writes and hashes.
const STACK: usize = 256 * 1024;

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Order {
    Write(Bytes),
    Expect(u64, oneshot::Sender<()>),
    Prefix(oneshot::Sender<Digest>),
    Commit(oneshot::Sender<Result<Blob, CommitError>>),
    Keep(oneshot::Sender<()>),
    Discard(oneshot::Sender<()>),
}

/// What a fill begins with.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) shared: Arc<Shared>,
    pub(super) digest: Digest,
    pub(super) reservation: Reservation,
    pub(super) name: String,
    /// Whether the part is the digest's own, which may be kept.
    pub(super) own: bool,
    pub(super) kept: u64,
    pub(super) expected: Option<u64>,
    /// Whether it is about to be pushed content, which the limit for the cache does not concern.
    pub(super) unlimited: bool,
}

/// What the readers of a fill hold.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) file: Arc<File>,
    pub(super) written: watch::Receiver<u64>,
    pub(super) kept: u64,
}

/// Opens the part, sets the room aside, starts the thread. Where this fails nothing is left behind.
pub(super) fn start(
    setup: Setup,
    queue: mpsc::Receiver<Order>,
    failure: Arc<OnceLock<Failure>>,
) -> Result<Started, StageError> {
    let mut fill = Fill::open(setup)?;
    if let Err(error) = fill.prepare() {
        // What was there before the attempt stays for another one.
        fill.leave();
        return Err(error);
    }
    let (file, kept) = (Arc::clone(&fill.file), fill.written);
    let (publish, written) = watch::channel(kept);
    std::thread::Builder::new()
        .name("fill".to_owned())
        .stack_size(STACK)
        .spawn(move || fill.run(queue, &publish, &failure))?;
    Ok(Started {
        file,
        written,
        kept,
    })
}

struct Fill {
    shared: Arc<Shared>,
    digest: Digest,
    name: String,
    own: bool,
    file: Arc<File>,
    hasher: Hasher,
    written: u64,
    expected: Option<u64>,
    reservation: Option<Reservation>,
    unlimited: bool,
    /// Bytes of unlimited content for which there was room on the disk.
    beside: u64,
    ended: bool,
}

impl Fill {
    fn open(setup: Setup) -> Result<Self, StageError> {
        let Setup {
            shared,
            digest,
            reservation,
            name,
            own,
            kept,
            expected,
            unlimited,
        } = setup;
        let (mut name, mut own) = (name, own);
        let mut opened = open_part(&shared, &name);
        if own && kept == 0 && opened.as_ref().is_err_and(is_in_the_way) {
            warn!(
                name,
                "something else stands where the part would be; it is left alone"
            );
            shared.parts.release(&digest);
            (name, own) = (shared.scratch_name(&digest), false);
            opened = open_part(&shared, &name);
        }
        let (file, found) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                if own && kept > 0 {
                    // The part could not be opened now; it is still there.
                    reservation.into_part(kept);
                    let (last_use, since) = (shared.stamp(), clock::now());
                    shared.parts.keep(
                        digest,
                        Waiting {
                            size: kept,
                            last_use,
                            since,
                        },
                    );
                } else if own {
                    shared.parts.release(&digest);
                }
                return Err(error.into());
            }
        };
        shared.fills.send_modify(|fills| *fills += 1);
        let hasher = digest.algorithm().hasher();
        let mut fill = Self {
            shared,
            digest,
            name,
            own,
            file: Arc::new(file),
            hasher,
            written: found,
            expected,
            reservation: Some(reservation),
            unlimited,
            beside: 0,
            ended: false,
        };
        // Longer than the whole, or not what the books say: begin again.
        if found != kept || expected.is_some_and(|expected| found > expected) {
            if let Err(error) = fill.file.set_len(0) {
                fill.remove();
                return Err(error.into());
            }
            fill.written = 0;
        }
        Ok(fill)
    }

    /// Sets the room aside that is known to be needed.
    fn prepare(&mut self) -> Result<(), StageError> {
        match self.expected {
            Some(total) => self.expect(total),
            None => Ok(()),
        }
    }

    fn run(
        mut self,
        mut queue: mpsc::Receiver<Order>,
        publish: &watch::Sender<u64>,
        failure: &OnceLock<Failure>,
    ) {
        // Bytes kept from before were never hashed by this process, or not for this fill.
        let rehashed = hash_prefix(&self.file, &mut self.hasher, self.written);
        if let Err(error) = rehashed {
            self.fail(failure, Failure::of(&error));
            return;
        }
        while let Some(order) = queue.blocking_recv() {
            let mut waiting = None;
            let done = match order {
                Order::Write(chunk) => self.write(&chunk, publish),
                Order::Expect(total, reply) => {
                    let done = self.expect(total);
                    if done.is_ok() {
                        answer(reply, ());
                    } else {
                        waiting = Some(reply);
                    }
                    done
                }
                Order::Prefix(reply) => {
                    answer(reply, self.hasher.clone().finish());
                    Ok(())
                }
                Order::Commit(reply) => {
                    answer(reply, self.commit());
                    return;
                }
                Order::Keep(reply) => {
                    self.leave();
                    answer(reply, ());
                    return;
                }
                Order::Discard(reply) => {
                    self.remove();
                    answer(reply, ());
                    return;
                }
            };
            if let Err(error) = done {
                self.fail(failure, Failure::of_stage(&error));
                // Let go of only now, so that whoever waits for it finds the reason.
                drop(waiting);
                return;
            }
        }
        debug!(digest = %self.digest, written = self.written, "a fill was left without a verdict; its part is kept");
        self.leave();
    }

    fn write(&mut self, chunk: &[u8], publish: &watch::Sender<u64>) -> Result<(), StageError> {
        let end = self.written + u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        let reserved = self.reserved();
        if end > reserved {
            let needed = end.saturating_sub(reserved);
            let step = self.written.clamp(STEP_MIN, STEP_MAX);
            self.grow(needed.max(step))
                .or_else(|_no_room_for_a_step| self.grow(needed))?;
        }
        self.file.write_all_at(chunk, self.written)?;
        self.written = end;
        publish.send_replace(end);
        self.hasher.update(chunk);
        Ok(())
    }

    /// Reserves up to `total` and asks the file system for the blocks, so that a full disk shows now.
    fn expect(&mut self, total: u64) -> Result<(), StageError> {
        let reserved = self.reserved();
        self.grow(total.saturating_sub(reserved))?;
        self.expected = Some(total);
        let length = total.saturating_sub(self.written);
        if length == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&*self.file, FallocateFlags::KEEP_SIZE, self.written, length) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => Ok(()),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    fn reserved(&self) -> u64 {
        self.beside + self.reservation.as_ref().map_or(0, Reservation::bytes)
    }

    fn grow(&mut self, bytes: u64) -> Result<(), StageError> {
        if bytes == 0 {
            return Ok(());
        }
        if self.unlimited {
            if !self.shared.has_room(bytes) {
                return Err(StageError::Full);
            }
            self.beside += bytes;
            return Ok(());
        }
        let more = self.shared.reserve(bytes)?;
        match &mut self.reservation {
            Some(reservation) => reservation.absorb(more),
            None => self.reservation = Some(more),
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<Blob, CommitError> {
        let verdict = self.verify();
        let reservation = match (verdict, self.reservation.take()) {
            (Ok(()), Some(reservation)) => reservation,
            (Ok(()), None) => {
                self.remove();
                return Err(CommitError::Stage(StageError::Io(
                    io::ErrorKind::BrokenPipe.into(),
                )));
            }
            (Err(error), _) => {
                self.remove();
                return Err(error);
            }
        };
        let kept = self.shared.publish(
            (Place::Staging, &self.name),
            &self.digest,
            (Arc::clone(&self.file), self.written),
            Class::default(),
            reservation,
        );
        self.end();
        match kept {
            Kept::Blob(blob) => Ok(blob),
            Kept::Loose(blob, error) => Err(CommitError::NotKept {
                blob,
                cause: error.into(),
            }),
        }
    }

    fn verify(&self) -> Result<(), CommitError> {
        if let Some(expected) = self.expected
            && expected != self.written
        {
            return Err(CommitError::Length {
                expected,
                found: self.written,
            });
        }
        let found = self.hasher.clone().finish();
        if found != self.digest {
            return Err(CommitError::Mismatch { found });
        }
        let on_disk = self.file.metadata().map_err(StageError::from)?.len();
        if on_disk != self.written {
            return Err(CommitError::Length {
                expected: self.written,
                found: on_disk,
            });
        }
        Ok(())
    }

    fn fail(&mut self, failure: &OnceLock<Failure>, why: Failure) {
        warn!(digest = %self.digest, written = self.written, ?why, "a fill failed; its part is removed");
        // Set before the queue closes, so that whoever finds it closed finds the reason too.
        let _first = failure.set(why);
        self.remove();
    }

    /// Ends the fill and leaves its part, cut to what is written.
    fn leave(&mut self) {
        let worth = self.own && self.written > 0;
        if !worth || self.file.set_len(self.written).is_err() {
            self.remove();
            return;
        }
        self.ended = true;
        if let Some(reservation) = self.reservation.take() {
            reservation.into_part(self.written);
        }
        self.shared.parts.keep(
            self.digest.clone(),
            Waiting {
                size: self.written,
                last_use: self.shared.stamp(),
                since: clock::now(),
            },
        );
        self.finished();
    }

    /// Ends the fill and removes its part.
    fn remove(&mut self) {
        self.shared.remove_staged(&self.name);
        self.end();
    }

    fn end(&mut self) {
        self.ended = true;
        self.reservation = None;
        if self.own {
            self.shared.parts.release(&self.digest);
        }
        self.finished();
    }

    fn finished(&self) {
        self.shared
            .fills
            .send_modify(|fills| *fills = fills.saturating_sub(1));
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        // Only where the thread could not be started or panicked.
        if !self.ended {
            self.remove();
        }
    }
}

fn open_part(shared: &Shared, name: &str) -> io::Result<(File, u64)> {
    let file = shared.layout.open_staged(name)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// Whether a part could not be opened because its name belongs to something that is no plain file.
fn is_in_the_way(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::LOOP | Errno::ISDIR | Errno::NXIO)
    ) || error.kind() == io::ErrorKind::InvalidInput
}

/// Answers; whoever asked may have gone away, and the order is carried out all the same.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    let _gone = reply.send(value);
}
