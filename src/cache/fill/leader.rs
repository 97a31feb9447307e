//! The task that fills: one download, resumed, verified, put away.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{Fill, HOLD_BACK, Order, PartsOfUrls, Phase, Table, Target, labels, lock};
use crate::cache::error::Error;
use crate::cache::foreign::{self, Known};
use crate::cache::learn::learn;
use crate::cache::source::{Origin, Source, SourceError};
use crate::store::{Blob, CommitError, Part, StageError, Staged, Store};
use crate::telemetry::Metrics;
use crate::upstream::ForeignUrl;

/// The fill's entry in the table; gone when dropped, by a panic too.
pub(super) struct Entry {
    pub(super) table: Table,
    pub(super) target: Target,
    pub(super) fill: Arc<Fill>,
}

impl Entry {
    fn remove(&self) {
        let mut table = lock(&self.table);
        if table
            .get(&self.target)
            .is_some_and(|fill| Arc::ptr_eq(fill, &self.fill))
        {
            table.remove(&self.target);
        }
    }

    /// Gives the fill up if nobody waits. It stays in the table until its part is put away, so that two never write the same part; whoever
    /// joins meanwhile finds it back at [`Phase::Asking`], waits for its end, and starts the next one. Under the table's lock, so that
    /// nobody joins between the look and the word.
    fn give_up_if_unwanted(&self, phase: &watch::Sender<Phase>) -> bool {
        let _table = lock(&self.table);
        let unwanted = self.fill.waiting.load(Ordering::SeqCst) == 0;
        if unwanted {
            phase.send_replace(Phase::Asking);
        }
        unwanted
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The task that fills.
pub(super) struct Leader {
    pub(super) entry: Entry,
    pub(super) parts_of_urls: PartsOfUrls,
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    pub(super) order: Order,
    pub(super) phase: watch::Sender<Phase>,
}

/// What made the transfer stop.
enum Stop {
    End,
    Unwanted,
    ShuttingDown,
    NoRoom,
    Failed(Error),
}

/// How one download ended.
enum Attempt {
    Over(Phase),
    /// The content was wrong, and nobody has been given anything of it.
    Wrong {
        /// Who gave it, as far as that can be told.
        by: Option<ForeignUrl>,
    },
}

impl Leader {
    pub(super) async fn run(&mut self, stopping: &tokio_util::sync::CancellationToken) -> Phase {
        let digest = self.order.origin.digest.clone();
        // Another leader may have committed between this request's look into the store and its seat.
        match self.store.open_blob(&digest).await {
            Ok(Some(blob)) => {
                return match self.may_read(&blob).await {
                    Ok(()) => self.committed(blob).await,
                    Err(error) => Phase::Failed(error),
                };
            }
            Ok(None) => {}
            Err(error) => {
                warn!(%error, %digest, "the store could not be read; upstream is asked instead");
            }
        }
        let mut origin = self.order.origin.clone();
        let mut lied = false;
        // Each URL can be blamed once, what an earlier fill left can be wrong, and the registry is left.
        for _ in 0..origin.urls.len() + 2 {
            match self.attempt(&origin, stopping).await {
                Attempt::Over(Phase::Failed(error)) if lied && !matches!(error, Error::GivenUp) => {
                    break;
                }
                Attempt::Over(end) => return end,
                Attempt::Wrong { by } => {
                    if let Some(url) = by {
                        origin = origin.without(&url);
                        lied = true;
                    }
                    self.phase.send_replace(Phase::Asking);
                }
            }
        }
        // That somebody lied counts for more than whatever is wrong with the others.
        Phase::Failed(Error::Mismatch)
    }

    async fn attempt(
        &self,
        origin: &Origin,
        stopping: &tokio_util::sync::CancellationToken,
    ) -> Attempt {
        let digest = &origin.digest;
        let mut staged = match self.stage(origin).await {
            Ok(staged) => staged,
            // Upstream is asked all the same, so that what it does not have is not promised.
            Err(error) => {
                let asked = Source::open(origin.clone(), 0, self.order.expected).await;
                return Attempt::Over(match asked {
                    Ok(source) => self.no_room(error, None, Some(source)),
                    Err(error) => Phase::Failed(self.source_failed(error)),
                });
            }
        };
        let held = staged.held();
        let mut source = match Source::open(origin.clone(), held, self.order.expected).await {
            Ok(source) => source,
            Err(error) => {
                // What an earlier fill kept may still be continued when upstream is back.
                let end = self.source_failed(error);
                if held > 0 && !matches!(end, Error::Mismatch) {
                    self.keep(staged).await;
                } else {
                    staged.discard().await;
                }
                return Attempt::Over(Phase::Failed(end));
            }
        };
        if held > 0 {
            info!(%digest, held, "resuming an interrupted fill");
            self.metrics
                .resumes
                .get_or_create(&labels(&self.order.key))
                .inc();
        }
        if let Some(total) = source.total()
            && let Err(error) = staged.expect(total).await
        {
            let part = staged.part();
            staged.discard().await;
            return Attempt::Over(self.no_room(error, (held > 0).then_some(part), Some(source)));
        }
        self.phase.send_replace(Phase::Running {
            part: staged.part(),
            total: source.total(),
        });
        let stop = self.transfer(&mut staged, &mut source, stopping).await;
        self.metrics
            .resumes
            .get_or_create(&labels(&self.order.key))
            .inc_by(source.resumed());
        let end = self.conclude(stop, staged, &source).await;
        if !matches!(end, Phase::Failed(Error::Mismatch)) || source.is_spent() {
            return Attempt::Over(end);
        }
        let by = source.blame();
        // Who reads what cannot be taken back is cut, and asks again; everybody else waits for another place.
        let is_given = source.total().unwrap_or(source.position()) > HOLD_BACK;
        if is_given || (by.is_none() && held == 0) {
            return Attempt::Over(end);
        }
        Attempt::Wrong { by }
    }

    /// Whether the image may read what has come meanwhile. Where another one brought it, that is for upstream or the URLs to say.
    async fn may_read(&self, blob: &Blob) -> Result<(), Error> {
        let Order { key, origin, .. } = &self.order;
        let (name, digest) = (&origin.name, &origin.digest);
        let linked = self.store.index().is_linked(key, name, digest).await;
        if linked.unwrap_or(false) {
            return Ok(());
        }
        let shown = if self.order.is_foreign() {
            foreign::show_piece(origin, Known::Blob(blob)).await
        } else {
            Err(Error::NotFound)
        };
        if shown.is_ok() {
            return Ok(());
        }
        let head = origin.upstream.head_blob(&origin.hops, name, digest).await;
        match (head, shown) {
            (Ok(_), _) => Ok(()),
            // As everywhere: what is wrong with the URLs counts for more than that the registry does not have it.
            (Err(_), Err(trouble)) if !trouble.is_absence() => Err(trouble),
            (Err(error), _) => Err(Error::from_upstream(error)),
        }
    }

    /// Leaves the part for the next fill, which is told whose it is.
    async fn keep(&self, staged: Staged) {
        if self.order.is_foreign() {
            lock(&self.parts_of_urls).put(self.order.origin.digest.clone(), ());
        }
        staged.keep().await;
    }

    /// A place in the store. What an interrupted fill left of a foreign layer may be of another image, so it is gone on with only where a URL
    /// shows a piece of it. What URLs left is nothing for a registry to go on with.
    async fn stage(&self, origin: &Origin) -> Result<Staged, StageError> {
        let expected = &self.order.expected;
        let staged = self.store.stage(&origin.digest, *expected).await?;
        let held = staged.held();
        if held == 0 {
            return Ok(staged);
        }
        let is_of_urls = lock(&self.parts_of_urls).pop(&origin.digest).is_some();
        let part = staged.part();
        let goes_on = if self.order.is_foreign() {
            let shown = foreign::show_piece(origin, Known::Part(&part, held)).await;
            shown.is_ok()
        } else {
            !is_of_urls
        };
        if goes_on {
            return Ok(staged);
        }
        staged.discard().await;
        self.store.stage(&origin.digest, *expected).await
    }

    /// Moves bytes until something stops it.
    async fn transfer(
        &self,
        staged: &mut Staged,
        source: &mut Source,
        stopping: &tokio_util::sync::CancellationToken,
    ) -> Stop {
        loop {
            let chunk = tokio::select! {
                biased;
                () = stopping.cancelled() => return Stop::ShuttingDown,
                () = self.entry.fill.left.notified() => {
                    if !past_first_quarter(source.position(), source.total()) && self.entry.give_up_if_unwanted(&self.phase) {
                        return Stop::Unwanted;
                    }
                    continue;
                }
                chunk = source.chunk() => chunk,
            };
            match chunk {
                Ok(Some(bytes)) => match staged.append(bytes).await {
                    Ok(()) => {}
                    Err(StageError::Full) => return Stop::NoRoom,
                    Err(StageError::TooLong) => return Stop::Failed(Error::Mismatch),
                    Err(StageError::Io(error)) => {
                        warn!(%error, digest = %self.order.origin.digest, "the disk failed during a fill");
                        return Stop::NoRoom;
                    }
                },
                Ok(None) => return Stop::End,
                Err(error) => return Stop::Failed(self.source_failed(error)),
            }
        }
    }

    async fn conclude(&self, stop: Stop, staged: Staged, source: &Source) -> Phase {
        match stop {
            Stop::End => match staged.commit().await {
                Ok(blob) => self.committed(blob).await,
                Err(CommitError::Mismatch { found }) => {
                    warn!(digest = %self.order.origin.digest, %found, repository = self.order.key, "upstream sent other content than asked for; nothing of it is kept");
                    self.metrics
                        .digest_mismatches
                        .get_or_create(&labels(&self.order.key))
                        .inc();
                    Phase::Failed(Error::Mismatch)
                }
                Err(CommitError::Length { expected, found }) => {
                    warn!(digest = %self.order.origin.digest, expected, found, repository = self.order.key, "upstream sent a blob of another length than announced; nothing of it is kept");
                    Phase::Failed(Error::Mismatch)
                }
                // Verified, so it is served to those who wait; the next one fetches it again.
                Err(CommitError::NotKept { blob, cause }) => {
                    warn!(digest = %self.order.origin.digest, error = %cause, "a verified blob could not be kept");
                    Phase::Done(blob)
                }
                Err(CommitError::Stage(error)) => self.no_room(error, None, None),
            },
            Stop::Unwanted | Stop::ShuttingDown => {
                self.keep(staged).await;
                Phase::Failed(Error::GivenUp)
            }
            Stop::NoRoom => {
                let part = staged.part();
                staged.discard().await;
                // The chunk that found no room is lost to the open request, so each client asks from where it stands.
                let mut phase = self.no_room(StageError::Full, Some(part), None);
                if let Phase::NoRoom { total, .. } = &mut phase {
                    *total = source.total();
                }
                phase
            }
            Stop::Failed(Error::Mismatch) => {
                self.metrics
                    .digest_mismatches
                    .get_or_create(&labels(&self.order.key))
                    .inc();
                staged.discard().await;
                Phase::Failed(Error::Mismatch)
            }
            Stop::Failed(error) => {
                self.keep(staged).await;
                Phase::Failed(error)
            }
        }
    }

    /// Links the blob to the image it was fetched for.
    async fn committed(&self, blob: Blob) -> Phase {
        let Order { key, origin, .. } = &self.order;
        let index = self.store.index();
        learn("link", index.link(key, &origin.name, &origin.digest)).await;
        Phase::Done(blob)
    }

    fn source_failed(&self, error: SourceError) -> Error {
        match error {
            SourceError::Upstream(error) => Error::from_upstream(error),
            SourceError::Length => {
                warn!(digest = %self.order.origin.digest, repository = self.order.key, "upstream's answers do not agree about the length of a blob");
                Error::Mismatch
            }
        }
    }

    fn no_room(&self, error: StageError, part: Option<Part>, source: Option<Source>) -> Phase {
        match error {
            StageError::Full => {
                warn!(digest = %self.order.origin.digest, "no room: passing through uncached, one upstream request a client");
            }
            error @ (StageError::TooLong | StageError::Io(_)) => {
                warn!(%error, digest = %self.order.origin.digest, "the disk failed: passing through uncached, one upstream request a client");
            }
        }
        let total = source
            .as_ref()
            .and_then(Source::total)
            .or(self.order.expected);
        Phase::NoRoom {
            part,
            total,
            opened: Arc::new(Mutex::new(source)),
        }
    }

    /// Out of the table first: whoever asks from here on looks into the store or starts anew.
    pub(super) fn finish(self, end: Phase) {
        let Self { entry, phase, .. } = self;
        drop(entry);
        phase.send_replace(end);
    }
}

/// Whether a fill that nobody waits for is worth finishing (RELIABILITY P20).
fn past_first_quarter(done: u64, total: Option<u64>) -> bool {
    total.is_some_and(|total| done.saturating_mul(4) >= total)
}

#[cfg(test)]
mod tests {
    use super::past_first_quarter;

    #[test]
    fn a_quarter_is_where_a_fill_nobody_waits_for_goes_on() {
        assert!(!past_first_quarter(24, Some(100)) && past_first_quarter(25, Some(100)));
        assert!(past_first_quarter(0, Some(0)) && !past_first_quarter(u64::MAX, None));
    }
}
