//! Fills: one download into the store for however many clients want the blob.
//!
//! A fill is a task of its own. It writes the staged file and says how far it has come; everyone, the one who started it included, reads
//! that file. So a slow client holds nobody up, and who hangs up takes nothing from the others. A fill that nobody waits for any more goes
//! on if a quarter is done; before that it stops and keeps its part, which the next request continues by `Range`.
//! What URLs of a manifest bring is a fill of its own: a URL is anybody's, and one that stalls or lies is no other image's trouble.
//! When the disk is full there is no file: the fill ends in [`Phase::NoRoom`] and every client reads upstream for itself.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::error::Error;
use super::foreign::{self, Known};
use super::learn::learn;
use super::source::{Origin, Source, SourceError};
use super::suspects::Suspects;
use crate::oci::labels;
use crate::oci::manifest::MANIFEST_MAX;
use crate::oci::{Digest, Name};
use crate::recent::recent;
use crate::store::{Blob, CommitError, Part, StageError, Staged, Store};
use crate::tasks::Tasks;
use crate::telemetry::{Metrics, RepositoryLabels};
use crate::upstream::ForeignUrl;

/// How many bytes at the end of a blob are held back until its digest agreed.
pub const HOLD_BACK: u64 = 64 * 1024;

/// How many parts are remembered as having come from URLs.
const PARTS_OF_URLS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// How far a fill has come.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Upstream has not answered yet.
    Asking,
    /// Bytes are coming into the part.
    Running { part: Part, total: Option<u64> },
    /// Verified and in the store.
    Done(Blob),
    /// No room on the disk: read upstream for yourself. The part holds what came before the disk was full.
    NoRoom {
        part: Option<Part>,
        total: Option<u64>,
        opened: Opened,
    },
    /// It did not work; nothing wrong was kept.
    Failed(Error),
}

/// The request that a fill had open when it found the disk full, for the first client that takes it.
pub(super) type Opened = Arc<Mutex<Option<Source>>>;

/// One fill, as those who wait for it see it.
#[derive(Debug)]
pub(super) struct Fill {
    key: String,
    name: Name,
    phase: watch::Receiver<Phase>,
    waiting: AtomicUsize,
    left: Notify,
}

/// A place among those who wait for a fill. Dropping it gives the place up.
#[derive(Debug)]
pub(super) struct Seat {
    fill: Arc<Fill>,
}

impl Seat {
    fn take(fill: &Arc<Fill>) -> Self {
        fill.waiting.fetch_add(1, Ordering::SeqCst);
        Self {
            fill: Arc::clone(fill),
        }
    }

    /// Another place at the same fill.
    pub(super) fn again(&self) -> Self {
        Self::take(&self.fill)
    }

    /// Whether the fill was started for the very image of `order`, so that its upstream answer speaks for that one's right to read too.
    pub(super) fn is_for(&self, order: &Order) -> bool {
        self.fill.key == order.key && self.fill.name == order.origin.name
    }

    /// A receiver of the fill's phases.
    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.fill.phase.clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.fill.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.fill.left.notify_one();
        }
    }
}

/// What is filled, and from which URLs; none: from the registry.
type Target = (Digest, Arc<[ForeignUrl]>);

type Table = Arc<Mutex<HashMap<Target, Arc<Fill>>>>;

/// Digests whose part came from URLs, so that no registry's fill goes on with what may be a lie. Forgotten by a restart: then such a part
/// costs one download, after which it is gone.
type PartsOfUrls = Arc<Mutex<LruCache<Digest, ()>>>;

/// Every fill of the process. Bytes are global: what registries have is filled once for a digest, whichever repository asked, and what is
/// at URLs once for those who name the same ones.
#[derive(Debug, Clone)]
pub struct Fills {
    table: Table,
    parts_of_urls: PartsOfUrls,
    suspects: Suspects,
    store: Store,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

/// What is needed to start a fill.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) key: String,
    pub(super) origin: Origin,
    /// The length, where a manifest of the image says it.
    pub(super) expected: Option<u64>,
}

impl Order {
    /// Whether it is a foreign layer that is fetched from its URLs.
    pub(super) fn is_foreign(&self) -> bool {
        !self.origin.urls.is_empty()
    }

    fn target(&self) -> Target {
        (self.origin.digest.clone(), Arc::clone(&self.origin.urls))
    }

    /// The fill to wait for: one that asks the same, or a registry's where there is one.
    fn find<'a>(&self, table: &'a HashMap<Target, Arc<Fill>>) -> Option<&'a Arc<Fill>> {
        let same = table.get(&self.target());
        same.or_else(|| table.get(&(self.origin.digest.clone(), Arc::default())))
    }
}

impl Fills {
    /// No fills yet.
    pub fn new(store: Store, tasks: Tasks, metrics: Arc<Metrics>) -> Self {
        Self {
            table: Table::default(),
            parts_of_urls: Arc::new(Mutex::new(recent(PARTS_OF_URLS))),
            suspects: Suspects::new(),
            store,
            tasks,
            metrics,
        }
    }

    /// The URLs that have lied.
    pub(super) fn suspects(&self) -> Suspects {
        self.suspects.clone()
    }

    /// A seat at the fill that `order` would wait for, if one is under way.
    pub(super) fn under_way(&self, order: &Order) -> Option<Seat> {
        order.find(&lock(&self.table)).map(Seat::take)
    }

    /// A seat at the fill that `order` names: one that is under way, or a new one. The flag says whether it was joined.
    pub(super) fn seat(&self, order: &Order) -> (Seat, bool) {
        let mut table = lock(&self.table);
        if let Some(fill) = order.find(&table) {
            self.metrics.joins.get_or_create(&labels(&order.key)).inc();
            return (Seat::take(fill), true);
        }
        self.metrics.fills.get_or_create(&labels(&order.key)).inc();
        let (sender, phase) = watch::channel(Phase::Asking);
        let fill = Arc::new(Fill {
            key: order.key.clone(),
            name: order.origin.name.clone(),
            phase,
            waiting: AtomicUsize::new(0),
            left: Notify::new(),
        });
        let seat = Seat::take(&fill);
        table.insert(order.target(), Arc::clone(&fill));
        let leader = Leader {
            entry: Entry {
                table: Arc::clone(&self.table),
                target: order.target(),
                fill,
            },
            parts_of_urls: Arc::clone(&self.parts_of_urls),
            store: self.store.clone(),
            metrics: Arc::clone(&self.metrics),
            order: order.clone(),
            phase: sender,
        };
        let stopping = self.tasks.stopping();
        self.tasks.spawn("fill", async move {
            let mut leader = leader;
            let end = leader.run(&stopping).await;
            let store = leader.store.clone();
            let filled = match &end {
                Phase::Done(blob) => Some(blob.clone()),
                Phase::Asking | Phase::Running { .. } | Phase::NoRoom { .. } | Phase::Failed(_) => {
                    None
                }
            };
            leader.finish(end);
            // Nobody waits for this.
            if let Some(blob) = filled {
                read_labels(&store, &blob).await;
            }
        });
        (seat, false)
    }
}

/// Writes down what a configuration says of its image, so that it is found by that.
async fn read_labels(store: &Store, blob: &Blob) {
    let index = store.index();
    let is_config =
        blob.size() <= MANIFEST_MAX as u64 && index.is_config(blob.digest()).await.unwrap_or(false);
    if !is_config {
        return;
    }
    if let Ok(bytes) = blob.read_whole(MANIFEST_MAX).await {
        let labels = labels::parse(&bytes);
        learn("labels", index.put_labels(blob.digest(), labels)).await;
    }
}

/// The fill's entry in the table; gone when dropped, by a panic too.
struct Entry {
    table: Table,
    target: Target,
    fill: Arc<Fill>,
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
struct Leader {
    entry: Entry,
    parts_of_urls: PartsOfUrls,
    store: Store,
    metrics: Arc<Metrics>,
    order: Order,
    phase: watch::Sender<Phase>,
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
    async fn run(&mut self, stopping: &tokio_util::sync::CancellationToken) -> Phase {
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
    fn finish(self, end: Phase) {
        let Self { entry, phase, .. } = self;
        drop(entry);
        phase.send_replace(end);
    }
}

/// Whether a fill that nobody waits for is worth finishing (RELIABILITY P20).
fn past_first_quarter(done: u64, total: Option<u64>) -> bool {
    total.is_some_and(|total| done.saturating_mul(4) >= total)
}

fn labels(key: &str) -> RepositoryLabels {
    RepositoryLabels {
        repository: key.to_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The table stays valid whatever happens between lock and unlock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
