//! Fills: one download into the store for however many clients want the blob.
//!
//! A fill is a task of its own. It writes the staged file and says how far it has come; everyone, the one who started it included, reads
//! that file. So a slow client holds nobody up, and who hangs up takes nothing from the others. A fill that nobody waits for any more goes
//! on if a quarter is done; before that it stops and keeps its part, which the next request continues by `Range`.
//! What URLs of a manifest bring is a fill of its own: a URL is anybody's, and one that stalls or lies is no other image's trouble.
//! When the disk is full there is no file: the fill ends in [`Phase::NoRoom`] and every client reads upstream for itself.

mod leader;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tokio::sync::{Notify, watch};

use leader::{Entry, Leader};

use super::error::Error;
use super::learn::learn;
use super::source::{Origin, Source};
use super::suspects::Suspects;
use crate::oci::labels;
use crate::oci::manifest::MANIFEST_MAX;
use crate::oci::{Digest, Name};
use crate::recent::recent;
use crate::store::{Blob, Part, Store};
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

fn labels(key: &str) -> RepositoryLabels {
    RepositoryLabels {
        repository: key.to_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The table stays valid whatever happens between lock and unlock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
