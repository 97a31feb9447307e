//! How one client reads a blob: from the store, from a file that is still growing, or straight from upstream.
//!
//! The rule of the hold-back lives here: whoever was promised the whole (or everything up to the end) gets the last
//! [`HOLD_BACK`](super::fill::HOLD_BACK) bytes only after the digest agreed. A bounded range promises nothing of the whole and is not held.

use std::collections::VecDeque;
use std::sync::PoisonError;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use tokio::sync::watch;
use tracing::debug;

use super::error::Error;
use super::fill::{HOLD_BACK, Opened, Phase, Seat};
use super::source::{Origin, Source, SourceError};
use crate::body::BodyError;
use crate::oci::{Digest, Hasher};
use crate::store::{Blob, Part};
use crate::upstream::{BlobStream, Span};

/// How much is read from disk at a time.
pub const READ_CHUNK: usize = 128 * 1024;
/// A Range that begins further than this ahead of a fill is fetched by a request of its own.
pub const FAR_AHEAD: u64 = 8 * 1024 * 1024;

/// What a reader was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Everything up to the end of the blob: its tail is held back until verified.
    ToEnd,
    /// A bounded slice: sent as it comes.
    Slice,
}

/// Where an opened blob's bytes come from.
#[derive(Debug)]
pub(super) enum Bytesource {
    Stored(Blob),
    /// Verified already.
    InMemory(Bytes),
    Filling {
        seat: Seat,
        origin: Origin,
    },
}

/// `start..end` of a blob that is in memory whole.
pub(super) fn in_memory(
    whole: &Bytes,
    start: u64,
    end: Option<u64>,
) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + use<> {
    let at = |offset: u64| usize::try_from(offset).map_or(whole.len(), |at| at.min(whole.len()));
    let end = end.map_or(whole.len(), at);
    let piece = whole.slice(at(start).min(end)..end);
    stream::iter((!piece.is_empty()).then_some(Ok(piece)))
}

/// A blob no longer than the hold-back for which there is no room on the disk: read whole and verified before anything of it is answered,
/// so that a wrong one becomes an error and not a cut. `None` where it is longer.
pub(super) async fn whole_if_small(
    origin: &Origin,
    total: Option<u64>,
    opened: &Opened,
) -> Result<Option<Bytes>, Error> {
    if total.is_some_and(|total| total > HOLD_BACK) {
        return Ok(None);
    }
    let failed = |error| match error {
        SourceError::Upstream(error) => Error::from_upstream(error),
        SourceError::Length => Error::Mismatch,
    };
    let taken = opened.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut taken = taken.filter(|source| source.position() == 0);
    let (digest, mut origin) = (&origin.digest, origin.clone());
    let mut lied = false;
    loop {
        let opened = match taken.take() {
            Some(source) => Ok(source),
            None => Source::open(origin.clone(), 0, total).await,
        };
        // That somebody lied counts for more than whatever is wrong with the others.
        let failed = |error| if lied { Error::Mismatch } else { failed(error) };
        let mut source = opened.map_err(failed)?;
        let mut whole = BytesMut::new();
        let read = loop {
            match source.chunk().await {
                Ok(Some(bytes)) => whole.extend_from_slice(&bytes),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            if whole.len() as u64 > HOLD_BACK {
                return Ok(None);
            }
        };
        match read {
            Ok(()) if Digest::of_with(digest.algorithm(), &whole) == *digest => {
                return Ok(Some(whole.freeze()));
            }
            Err(error) if source.is_spent() || matches!(error, SourceError::Upstream(_)) => {
                return Err(failed(error));
            }
            Ok(()) | Err(_) => {
                tracing::warn!(%digest, "upstream sent other content than asked for; nothing of it is passed on");
            }
        }
        let url = source.blame().ok_or(Error::Mismatch)?;
        origin = origin.without(&url);
        lied = true;
    }
}

/// `start..end` of a stored blob.
pub(super) fn stored(
    blob: Blob,
    start: u64,
    end: u64,
) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
    stream::try_unfold((blob, start), move |(blob, at)| async move {
        if at >= end {
            return Ok(None);
        }
        let want = usize::try_from(end - at)
            .unwrap_or(READ_CHUNK)
            .min(READ_CHUNK);
        match blob.read_at(at, want).await {
            Ok(bytes) if !bytes.is_empty() => {
                let next = at + bytes.len() as u64;
                Ok(Some((bytes, (blob, next))))
            }
            Ok(_) => Err(BodyError::new("a stored blob ended early")),
            Err(error) => {
                tracing::error!(%error, digest = %blob.digest(), at, "cannot read a stored blob");
                Err(BodyError::new("a stored blob could not be read"))
            }
        }
    })
}

/// `start..end` of a blob that is being filled; `end` is `None` where the length is not known yet.
pub(super) fn filling(
    seat: Seat,
    origin: Origin,
    start: u64,
    end: Option<u64>,
    promise: Promise,
) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
    let phase = seat.phase();
    let follower = Follower {
        _seat: seat,
        phase,
        origin,
        at: start,
        end,
        promise,
        ahead: Ahead::Untried,
        unverified: None,
        ahead_end: 0,
        own: None,
    };
    stream::try_unfold(follower, |mut follower| async move {
        Ok(follower.next().await?.map(|bytes| (bytes, follower)))
    })
}

/// A request of a reader's own, ahead of the fill.
#[derive(Debug)]
enum Ahead {
    Untried,
    Reading(Box<BlobStream>),
    GivenUp,
}

/// One reader of a fill.
#[derive(Debug)]
struct Follower {
    _seat: Seat,
    phase: watch::Receiver<Phase>,
    origin: Origin,
    at: u64,
    end: Option<u64>,
    promise: Promise,
    ahead: Ahead,
    /// What was sent from a request of this reader's own and is promised to be right: where it began, and its hash.
    unverified: Option<(u64, Hasher)>,
    ahead_end: u64,
    own: Option<Box<OwnStream>>,
}

impl Follower {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            if self.end.is_some_and(|end| self.at >= end) {
                return Ok(None);
            }
            if let Some(own) = &mut self.own {
                let bytes = own.next(self.end, self.promise).await?;
                self.at += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
                return Ok(bytes);
            }
            let phase = self.phase.borrow_and_update().clone();
            match phase {
                Phase::Asking => self.changed().await?,
                Phase::Running { part, total } => {
                    if let Some(bytes) = self.read_part(&part, total).await? {
                        return Ok(Some(bytes));
                    }
                }
                Phase::Done(blob) => {
                    self.compare(&blob).await?;
                    let end = self.end.unwrap_or(blob.size()).min(blob.size());
                    if self.at >= end {
                        return Ok(None);
                    }
                    let want = usize::try_from(end - self.at)
                        .unwrap_or(READ_CHUNK)
                        .min(READ_CHUNK);
                    return self.took(blob.read_at(self.at, want).await).map(Some);
                }
                Phase::NoRoom {
                    part,
                    total,
                    opened,
                } => self.own = Some(Box::new(self.read_alone(part, total, &opened).await?)),
                Phase::Failed(error) => {
                    debug!(%error, digest = %self.origin.digest, "a fill failed under a reader");
                    return Err(BodyError::new("the download failed"));
                }
            }
        }
    }

    async fn changed(&mut self) -> Result<(), BodyError> {
        self.phase
            .changed()
            .await
            .map_err(|_closed| BodyError::new("the download was given up"))
    }

    /// Bytes from the growing file; `None` when the phase or the ahead state changed and the caller should look again.
    async fn read_part(
        &mut self,
        part: &Part,
        total: Option<u64>,
    ) -> Result<Option<Bytes>, BodyError> {
        self.end = self.end.or(total);
        let mut written = part.written();
        let limit = readable(*written.borrow_and_update(), total, self.promise);
        if self.at < limit {
            // The fill has caught up: what comes now is its own, and the place at the upstream is free again.
            self.ahead = Ahead::GivenUp;
            let to = self.end.unwrap_or(limit).min(limit);
            let want = usize::try_from(to - self.at)
                .unwrap_or(READ_CHUNK)
                .min(READ_CHUNK);
            return self.took(part.read_at(self.at, want).await).map(Some);
        }
        if let Some(stop) = self.go_ahead(limit, total).await
            && let Ahead::Reading(stream) = &mut self.ahead
        {
            let caught_up = |written: &u64| readable(*written, total, self.promise) > self.at;
            let came = tokio::select! {
                bytes = stream.chunk() => Ok(bytes.ok().flatten().filter(|bytes| !bytes.is_empty())),
                // The fill may be here first; then its bytes are read.
                moved = written.wait_for(caught_up) => Err(moved.is_ok()),
            };
            let bytes = match came {
                Ok(bytes) => bytes,
                Err(true) => return Ok(None),
                // The writer has ended: the next phase says how.
                Err(false) => {
                    self.changed().await?;
                    return Ok(None);
                }
            };
            if let Some(mut bytes) = bytes {
                bytes.truncate(usize::try_from(stop - self.at).unwrap_or(usize::MAX));
                if self.promise == Promise::ToEnd {
                    let algorithm = self.origin.digest.algorithm();
                    self.unverified
                        .get_or_insert_with(|| (self.at, algorithm.hasher()))
                        .1
                        .update(&bytes);
                }
                self.at += bytes.len() as u64;
                self.ahead_end = self.at;
                return Ok(Some(bytes));
            }
            self.ahead = Ahead::GivenUp;
        }
        tokio::select! {
            changed = self.phase.changed() => changed.map_err(|_closed| BodyError::new("the download was given up"))?,
            more = written.changed() => if more.is_err() {
                // The writer is done: the next phase says how it ended.
                self.changed().await?;
            },
        }
        Ok(None)
    }

    /// Opens a request of this reader's own where the fill is far behind; answers how far it may be read.
    async fn go_ahead(&mut self, frontier: u64, total: Option<u64>) -> Option<u64> {
        let total = total?;
        let stop = match self.promise {
            Promise::Slice => self.end.unwrap_or(total),
            Promise::ToEnd => total
                .saturating_sub(HOLD_BACK)
                .min(self.end.unwrap_or(total)),
        };
        if self.at >= stop {
            self.ahead = Ahead::GivenUp;
            return None;
        }
        if matches!(self.ahead, Ahead::Untried) && self.at.saturating_sub(frontier) > FAR_AHEAD {
            self.ahead = self
                .open_ahead(stop)
                .await
                .map_or(Ahead::GivenUp, |stream| Ahead::Reading(Box::new(stream)));
        }
        Some(stop)
    }

    /// Compares what was sent ahead of the fill with what was verified; the end is not given where they differ.
    async fn compare(&mut self, blob: &Blob) -> Result<(), BodyError> {
        let Some((start, sent)) = self.unverified.take() else {
            return Ok(());
        };
        // What came from the part after the fill had caught up has gone through the fill's own hash.
        let mut hasher = self.origin.digest.algorithm().hasher();
        let mut at = start;
        let end = self.ahead_end;
        while at < end {
            let want = usize::try_from(end - at)
                .unwrap_or(READ_CHUNK)
                .min(READ_CHUNK);
            let bytes = blob
                .read_at(at, want)
                .await
                .map_err(|_damaged| BodyError::new("a stored blob could not be read"))?;
            hasher.update(&bytes);
            at += bytes.len() as u64;
        }
        if hasher.finish() == sent.finish() {
            return Ok(());
        }
        tracing::warn!(digest = %self.origin.digest, "upstream answered a range with other bytes than the whole has; the transfer is cut");
        Err(BodyError::new("the content does not agree with its digest"))
    }

    async fn open_ahead(&self, stop: u64) -> Option<BlobStream> {
        let span = Span::FromTo(self.at, stop.checked_sub(1)?);
        let stream = self.origin.ask_ahead(span).await.ok()?;
        (stream.offset() == self.at).then_some(stream)
    }

    fn took(&mut self, read: std::io::Result<Bytes>) -> Result<Bytes, BodyError> {
        match read {
            Ok(bytes) if !bytes.is_empty() => {
                self.at += bytes.len() as u64;
                Ok(bytes)
            }
            Ok(_) => Err(BodyError::new("a filling blob ended early")),
            Err(error) => {
                tracing::error!(%error, digest = %self.origin.digest, "cannot read a filling blob");
                Err(BodyError::new("a filling blob could not be read"))
            }
        }
    }

    /// Goes on without a file: from where this reader stands, with the hash of what it has had already.
    async fn read_alone(
        &self,
        part: Option<Part>,
        total: Option<u64>,
        opened: &Opened,
    ) -> Result<OwnStream, BodyError> {
        let taken = opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        let sliced = self.promise == Promise::Slice || self.at > 0 && part.is_none();
        let mut hasher = self.origin.digest.algorithm().hasher();
        if let (Some(part), false) = (&part, sliced) {
            let mut at = 0;
            while at < self.at {
                let want = usize::try_from(self.at - at)
                    .unwrap_or(READ_CHUNK)
                    .min(READ_CHUNK);
                let bytes = part
                    .read_at(at, want)
                    .await
                    .map_err(|_gone| BodyError::new("the part could not be read again"))?;
                hasher.update(&bytes);
                at += bytes.len() as u64;
            }
        }
        // A range that begins in the middle cannot be verified by itself; its tail is read whole from the start instead.
        let from = if sliced && self.promise == Promise::ToEnd {
            0
        } else {
            self.at
        };
        let source = match taken {
            Some(source) if source.position() == from => source,
            _ => Source::open(self.origin.clone(), from, total)
                .await
                .map_err(|_failed| BodyError::new("upstream failed"))?,
        };
        Ok(OwnStream {
            source,
            hasher,
            digest: self.origin.digest.clone(),
            tail: VecDeque::new(),
            tailed: 0,
            drop: self.at - from,
            ended: false,
        })
    }
}

/// How far a reader may go in a part.
fn readable(written: u64, total: Option<u64>, promise: Promise) -> u64 {
    match (promise, total) {
        (Promise::Slice, _) => written,
        (Promise::ToEnd, Some(total)) => written.min(total.saturating_sub(HOLD_BACK)),
        (Promise::ToEnd, None) => written.saturating_sub(HOLD_BACK),
    }
}

/// Upstream's bytes for one client alone, held back in memory instead of in a file.
#[derive(Debug)]
struct OwnStream {
    source: Source,
    hasher: Hasher,
    digest: Digest,
    tail: VecDeque<Bytes>,
    tailed: u64,
    /// Bytes that the client has had already or did not ask for.
    drop: u64,
    ended: bool,
}

impl OwnStream {
    async fn next(
        &mut self,
        end: Option<u64>,
        promise: Promise,
    ) -> Result<Option<Bytes>, BodyError> {
        loop {
            if self.ended
                || (promise == Promise::ToEnd && self.tailed > HOLD_BACK)
                || (promise == Promise::Slice && self.tailed > 0)
            {
                let Some(mut bytes) = self.tail.pop_front() else {
                    return Ok(None);
                };
                if !self.ended && promise == Promise::ToEnd {
                    // Exactly the last window stays here.
                    let give = usize::try_from(self.tailed - HOLD_BACK)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    let rest = bytes.split_off(give);
                    if !rest.is_empty() {
                        self.tail.push_front(rest);
                    }
                }
                self.tailed -= bytes.len() as u64;
                let dropped = self.drop.min(bytes.len() as u64);
                self.drop -= dropped;
                let bytes = bytes.split_off(usize::try_from(dropped).unwrap_or(bytes.len()));
                if bytes.is_empty() {
                    continue;
                }
                return Ok(Some(bytes));
            }
            let behind = self.source.position();
            match self.source.chunk().await {
                Ok(Some(mut bytes)) => {
                    if promise == Promise::ToEnd {
                        self.hasher.update(&bytes);
                    } else if let Some(end) = end {
                        bytes.truncate(
                            usize::try_from(end.saturating_sub(behind)).unwrap_or(usize::MAX),
                        );
                    }
                    self.tailed += bytes.len() as u64;
                    self.tail.push_back(bytes);
                }
                Ok(None) => {
                    if promise == Promise::ToEnd && self.hasher.clone().finish() != self.digest {
                        self.source.blame();
                        tracing::warn!(digest = %self.digest, "upstream sent other content than asked for; the transfer is cut");
                        return Err(BodyError::new("the content does not agree with its digest"));
                    }
                    self.ended = true;
                }
                Err(error) => {
                    if matches!(error, SourceError::Length) {
                        self.source.blame();
                    }
                    debug!(%error, digest = %self.digest, "upstream failed under a reader");
                    return Err(BodyError::new("the download failed"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_the_blob_is_held_back_and_slices_are_not() {
        let kib = 1024;
        assert_eq!(
            readable(100 * kib, Some(1000 * kib), Promise::ToEnd),
            100 * kib
        );
        assert_eq!(
            readable(1000 * kib, Some(1000 * kib), Promise::ToEnd),
            936 * kib
        );
        assert_eq!(readable(10 * kib, Some(20 * kib), Promise::ToEnd), 0);
        assert_eq!(readable(100 * kib, None, Promise::ToEnd), 36 * kib);
        assert_eq!(
            readable(100 * kib, Some(100 * kib), Promise::Slice),
            100 * kib
        );
    }
}
