//! One remote's cache: what is here, else what upstream has, each fetched once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::Either;
use futures_util::stream::Stream;

use super::absence::Absences;
use super::config::Config;
use super::error::Error;
use super::fill::{Fills, HOLD_BACK, Opened, Order, Phase, Seat};
use super::flight::Flights;
use super::follow::{self, Bytesource, Promise};
use super::foreign::{self, ForeignLayer};
use super::learn::{learn, recall};
use super::manifests::Manifests;
use super::source::Origin;
use super::status::{CacheStatus, Outcome, Reason};
use crate::body::BodyError;
use crate::clock;
use crate::oci::{Digest, Name, Tag};
use crate::store::index::Forgot;
use crate::store::{Blob, Change, Store};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::{BlobHead, Hops, Upstream};

/// What every remote's cache shares.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Where content is kept.
    pub store: Store,
    /// The downloads under way.
    pub fills: Fills,
    /// Manifests in memory.
    pub manifests: Manifests,
    /// Background tasks.
    pub tasks: Tasks,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Shared {
    /// What every remote's cache shares, over `store`.
    pub fn new(store: Store, tasks: Tasks, metrics: Arc<Metrics>) -> Self {
        Self {
            fills: Fills::new(store.clone(), tasks.clone(), Arc::clone(&metrics)),
            manifests: Manifests::new(),
            store,
            tasks,
            metrics,
        }
    }
}

/// The cache of one remote. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PullThrough {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) key: String,
    pub(super) config: Config,
    pub(super) upstream: Upstream,
    pub(super) shared: Shared,
    pub(super) absences: Absences,
    pub(super) blob_heads: Flights<String, Result<BlobHead, Error>>,
    pub(super) manifest_heads: Flights<String, Result<super::manifests::Told, Error>>,
    pub(super) manifest_bodies: Flights<String, Result<super::manifests::Stored, Error>>,
    pub(super) tag_checks: Flights<String, super::tag_checks::Checked>,
    pub(super) ages: super::tags::Ages,
    pub(super) pins: Arc<super::pins::Pins>,
    /// Whether another upstream has its key now: what this one says is written down no more.
    pub(super) retired: AtomicBool,
    pub(super) judged: super::refusals::Judged,
    pub(super) judgements: Flights<String, Result<(), Error>>,
    pub(super) told: super::manifests::ToldMemory,
    pub(super) lists: Flights<String, Result<Arc<Vec<String>>, Error>>,
    pub(super) referrer_lists: Flights<String, Result<bytes::Bytes, Error>>,
}

/// A blob that can be read.
#[derive(Debug)]
pub struct OpenBlob {
    size: Option<u64>,
    status: CacheStatus,
    bytes: Bytesource,
}

impl OpenBlob {
    /// A blob of the store.
    pub fn stored(blob: Blob, status: CacheStatus) -> Self {
        stored(blob, status)
    }

    /// Its length, where upstream told it.
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// How the answer came about.
    pub const fn status(&self) -> CacheStatus {
        self.status
    }

    /// Whether the bytes have been verified already.
    pub const fn is_verified(&self) -> bool {
        matches!(self.bytes, Bytesource::Stored(_) | Bytesource::InMemory(_))
    }

    /// Its bytes from `start` to before `end` (`None`: the end, where the length is not known).
    pub fn read(
        &self,
        start: u64,
        end: Option<u64>,
        promise: Promise,
    ) -> impl Stream<Item = Result<bytes::Bytes, BodyError>> + Send + use<> {
        match &self.bytes {
            Bytesource::InMemory(bytes) => {
                Either::Left(Either::Left(follow::in_memory(bytes, start, end)))
            }
            Bytesource::Stored(blob) => Either::Left(Either::Right(follow::stored(
                blob.clone(),
                start,
                end.unwrap_or(blob.size()),
            ))),
            Bytesource::Filling { seat, origin } => Either::Right(follow::filling(
                seat.again(),
                origin.clone(),
                start,
                end,
                promise,
            )),
        }
    }
}

impl PullThrough {
    /// The cache of the remote `key`.
    pub fn new(key: String, config: Config, upstream: Upstream, shared: Shared) -> Self {
        let tasks = shared.tasks.clone();
        Self {
            inner: Arc::new(Inner {
                absences: Absences::new(config.negative_ttl),
                blob_heads: Flights::new("head blob", tasks.clone()),
                manifest_heads: Flights::new("head manifest", tasks.clone()),
                manifest_bodies: Flights::new("get manifest", tasks.clone()),
                tag_checks: Flights::new("check tag", tasks.clone()),
                ages: super::tags::Ages::new(),
                pins: Arc::default(),
                retired: AtomicBool::new(false),
                judged: super::refusals::Judged::new(config.tag_ttl),
                judgements: Flights::new("judge", tasks.clone()),
                told: super::manifests::ToldMemory::new(),
                lists: Flights::new("list tags", tasks.clone()),
                referrer_lists: Flights::new("list referrers", tasks),
                key,
                config,
                upstream,
                shared,
            }),
        }
    }

    /// The same, with the pinned tags of one that had the key before.
    #[must_use]
    pub fn with_pins_of(mut self, before: &Self) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.pins = Arc::clone(&before.inner.pins);
        }
        self
    }

    /// Its key stands for another upstream, or for nothing: what comes back from requests under way is not written down.
    pub fn retire(&self, retired: bool) {
        self.inner.retired.store(retired, Ordering::Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.inner.retired.load(Ordering::Relaxed)
    }

    /// The repository key.
    pub fn key(&self) -> &str {
        &self.inner.key
    }

    /// Its upstream.
    pub fn upstream(&self) -> &Upstream {
        &self.inner.upstream
    }

    /// Opens a blob for reading, filling the store from upstream where it is not here.
    pub async fn open_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<OpenBlob, Error> {
        self.judge_blob(hops, name, digest).await?;
        self.open_any_blob(hops, name, digest).await
    }

    /// The same, whatever the rules say of it.
    pub(super) async fn open_any_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<OpenBlob, Error> {
        let Inner {
            key,
            config,
            shared,
            absences,
            ..
        } = &*self.inner;
        let index = shared.store.index();
        let linked = recall("link", config.offline, index.is_linked(key, name, digest)).await?;
        let mut reason = if linked {
            Reason::Evicted
        } else {
            Reason::Unknown
        };
        if linked
            && let Some(blob) =
                recall("blob", config.offline, shared.store.open_blob(digest)).await?
        {
            return Ok(stored(blob, CacheStatus::hit()));
        }
        if config.offline {
            return Err(Error::Offline);
        }
        let memory = absent_blob(name, digest);
        if !linked && absences.holds(&memory) {
            return Err(Error::StillAbsent);
        }
        let order = self.order(hops, name, digest).await?;
        if !linked {
            let others = shared
                .fills
                .under_way(&order)
                .filter(|seat| !seat.is_for(&order));
            let here = match &others {
                None => recall("blob", config.offline, shared.store.open_blob(digest)).await?,
                Some(seat) if order.is_foreign() => foreign::brought(seat).await,
                Some(_) => None,
            };
            if here.is_some() || (others.is_some() && !order.is_foreign()) {
                self.ask_whether_it_may_read(&order, here.as_ref()).await?;
                reason = Reason::Linked;
            }
            if let Some(blob) = here {
                return Ok(stored(blob, CacheStatus::new(Outcome::Hit, Reason::Linked)));
            }
        }
        let opened = Box::pin(self.follow(&order, reason)).await;
        if let Err(Error::NotFound) = &opened {
            absences.note(&memory);
        }
        opened
    }

    /// What is asked for when the blob is not here.
    async fn order(&self, hops: &Hops, name: &Name, digest: &Digest) -> Result<Order, Error> {
        let Inner {
            key,
            config,
            shared,
            upstream,
            ..
        } = &*self.inner;
        let layer = self.foreign_layer(name, digest).await?;
        let (urls, expected) = if let Some(ForeignLayer { urls, size }) = layer {
            (urls, Some(size))
        } else {
            let size = shared.store.index().descriptor_size(key, name, digest);
            let size = recall("size", config.offline, size).await?;
            (Arc::default(), size)
        };
        let origin = Origin {
            upstream: upstream.clone(),
            hops: hops.clone(),
            name: name.clone(),
            digest: digest.clone(),
            urls,
            suspects: shared.fills.suspects(),
        };
        Ok(Order {
            key: key.clone(),
            origin,
            expected,
        })
    }

    /// Another image brought these bytes, or is about to. Whether this one may read them is for upstream to say (DECISIONS 7), or for the
    /// URLs of a foreign layer to show.
    async fn ask_whether_it_may_read(
        &self,
        order: &Order,
        here: Option<&Blob>,
    ) -> Result<(), Error> {
        let Origin {
            hops, name, digest, ..
        } = &order.origin;
        match here {
            Some(blob) if order.is_foreign() => {
                Box::pin(self.prove(&order.origin, blob)).await?;
            }
            _ => drop(self.head_upstream(hops, name, digest).await?),
        }
        let index = self.inner.shared.store.index();
        learn("link", index.link(&order.key, name, digest)).await;
        Ok(())
    }

    /// Forgets an image, and lets go of what no other image has. False where nothing of it was known.
    pub async fn forget(&self, name: &Name) -> Result<bool, Error> {
        let Inner { key, shared, .. } = &*self.inner;
        match shared.store.index().forget_image(key, name).await? {
            Forgot::Nothing => return Ok(false),
            Forgot::All(orphans) => shared.store.drop_cached(orphans).await?,
            Forgot::Kept => self.forget_kept(name, None).await?,
        }
        Ok(true)
    }

    /// Forgets what a tag meant. False where it was not known.
    pub async fn forget_tag(&self, name: &Name, tag: &Tag) -> Result<bool, Error> {
        let Inner { key, shared, .. } = &*self.inner;
        match shared.store.index().remove_tag(key, name, tag).await? {
            Forgot::Nothing => return Ok(false),
            Forgot::All(orphans) => shared.store.drop_cached(orphans).await?,
            Forgot::Kept => self.forget_kept(name, Some(tag)).await?,
        }
        Ok(true)
    }

    /// Forgets what is kept: the journal must know, or it would come back.
    async fn forget_kept(&self, name: &Name, tag: Option<&Tag>) -> Result<(), Error> {
        let Inner { key, shared, .. } = &*self.inner;
        let change = Change::forget(key, name, tag, clock::now());
        Ok(shared.store.commit_changes(vec![(change, None)]).await?)
    }

    /// Whether this image is known to have that content.
    pub async fn knows(&self, name: &Name, digest: &Digest) -> bool {
        let Inner { key, shared, .. } = &*self.inner;
        let known = shared.store.index().is_linked(key, name, digest).await;
        known.unwrap_or(false)
    }

    /// What is known of a blob without moving its bytes.
    pub async fn stat_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<(Option<u64>, CacheStatus), Error> {
        self.judge_blob(hops, name, digest).await?;
        let Inner {
            key,
            config,
            shared,
            absences,
            ..
        } = &*self.inner;
        let index = shared.store.index();
        let linked = recall("link", config.offline, index.is_linked(key, name, digest)).await?;
        if linked
            && let Some(blob) =
                recall("blob", config.offline, shared.store.open_blob(digest)).await?
        {
            return Ok((Some(blob.size()), CacheStatus::hit()));
        }
        if config.offline {
            return Err(Error::Offline);
        }
        if !linked && absences.holds(&absent_blob(name, digest)) {
            return Err(Error::StillAbsent);
        }
        // docker asks so before it fetches; nobody has to be asked for what the manifest says.
        if let Some(ForeignLayer { size, .. }) = self.foreign_layer(name, digest).await? {
            let status = CacheStatus::new(Outcome::None, Reason::Foreign);
            return Ok((Some(size), status));
        }
        let (head, joined) = self.head_upstream(hops, name, digest).await?;
        if !linked
            && recall("blob", config.offline, shared.store.open_blob(digest))
                .await?
                .is_some()
        {
            learn("link", index.link(key, name, digest)).await;
        }
        let outcome = if joined {
            Outcome::Joined
        } else {
            Outcome::Passed
        };
        Ok((head.size, CacheStatus::new(outcome, Reason::Unknown)))
    }

    /// Asks upstream whether the image has the blob, once for all who ask.
    pub(super) async fn head_upstream(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<(BlobHead, bool), Error> {
        let memory = absent_blob(name, digest);
        let (upstream, hops, asked, wanted) = (
            self.inner.upstream.clone(),
            hops.clone(),
            name.clone(),
            digest.clone(),
        );
        let landed = self
            .inner
            .blob_heads
            .run(memory.clone(), || async move {
                upstream
                    .head_blob(&hops, &asked, &wanted)
                    .await
                    .map_err(Error::from_upstream)
            })
            .await
            .ok_or(Error::GivenUp)?;
        if let Err(Error::NotFound) = &landed.value {
            self.inner.absences.note(&memory);
        }
        Ok((landed.value?, landed.joined))
    }

    /// Takes a seat at the fill and waits until the answer's head can be given.
    async fn follow(&self, order: &Order, reason: Reason) -> Result<OpenBlob, Error> {
        let mut again = true;
        loop {
            let seated = self.seat(order).await?;
            let (seat, joined) = match seated {
                Seated::At { seat, joined } => (seat, joined),
                Seated::Brought(blob) => {
                    let status = CacheStatus::new(Outcome::Joined, Reason::Linked);
                    return Ok(stored(blob, status));
                }
            };
            let status = if joined {
                CacheStatus::new(Outcome::Joined, Reason::InFlight)
            } else {
                CacheStatus::new(Outcome::Miss, reason)
            };
            match head(&seat).await {
                Ok(Head::Done(blob)) => return Ok(stored(blob, status)),
                Ok(Head::NoRoom { total, opened }) => {
                    let small = follow::whole_if_small(&order.origin, total, &opened).await;
                    if matches!(small, Err(Error::Mismatch)) {
                        self.count_mismatch();
                    }
                    let small = small?;
                    let (size, bytes) = match small {
                        Some(bytes) => (Some(bytes.len() as u64), Bytesource::InMemory(bytes)),
                        None => (
                            total,
                            Bytesource::Filling {
                                seat,
                                origin: order.origin.clone(),
                            },
                        ),
                    };
                    return Ok(OpenBlob {
                        size,
                        status: CacheStatus::new(Outcome::Passed, Reason::DiskFull),
                        bytes,
                    });
                }
                Ok(Head::Coming { size }) => {
                    return Ok(OpenBlob {
                        size,
                        status,
                        bytes: Bytesource::Filling {
                            seat,
                            origin: order.origin.clone(),
                        },
                    });
                }
                // A fill that was joined may fail for its own image's reasons, or because all who came before have left.
                Err(_) if again && joined => again = false,
                Err(error) => return Err(error),
            }
        }
    }

    /// A seat at a fill that the image may read: its own, or another image's that has begun since the look, once it is said that it may.
    async fn seat(&self, order: &Order) -> Result<Seated, Error> {
        loop {
            let (seat, joined) = self.inner.shared.fills.seat(order);
            if !joined || seat.is_for(order) {
                return Ok(Seated::At { seat, joined });
            }
            if !order.is_foreign() {
                self.ask_whether_it_may_read(order, None).await?;
                return Ok(Seated::At { seat, joined });
            }
            // There is nothing to compare a piece with before its end.
            if let Some(blob) = foreign::brought(&seat).await {
                self.ask_whether_it_may_read(order, Some(&blob)).await?;
                return Ok(Seated::Brought(blob));
            }
        }
    }
}

enum Seated {
    At { seat: Seat, joined: bool },
    Brought(Blob),
}

enum Head {
    Done(Blob),
    Coming { size: Option<u64> },
    NoRoom { total: Option<u64>, opened: Opened },
}

/// Waits until it is known how the answer begins. A blob no longer than the hold-back is answered only once verified, so that a wrong one
/// becomes an error and not a cut.
async fn head(seat: &Seat) -> Result<Head, Error> {
    let mut phases = seat.phase();
    loop {
        let phase = phases.borrow_and_update().clone();
        match phase {
            Phase::Running {
                total: Some(total), ..
            } if total > HOLD_BACK => {
                return Ok(Head::Coming { size: Some(total) });
            }
            Phase::Asking | Phase::Running { total: Some(_), .. } => {}
            Phase::Running { part, total: None } => {
                let mut written = part.written();
                tokio::select! {
                    enough = written.wait_for(|written| *written > HOLD_BACK) => if enough.is_ok() {
                        return Ok(Head::Coming { size: None });
                    },
                    changed = phases.changed() => { changed.map_err(|_closed| Error::GivenUp)?; continue }
                }
            }
            Phase::Done(blob) => return Ok(Head::Done(blob)),
            Phase::NoRoom { total, opened, .. } => return Ok(Head::NoRoom { total, opened }),
            Phase::Failed(error) => return Err(error),
        }
        phases.changed().await.map_err(|_closed| Error::GivenUp)?;
    }
}

fn stored(blob: Blob, status: CacheStatus) -> OpenBlob {
    OpenBlob {
        size: Some(blob.size()),
        status,
        bytes: Bytesource::Stored(blob),
    }
}

pub(super) fn absent_blob(name: &Name, digest: &Digest) -> String {
    // Manifests are remembered beside these, by name and digest.
    format!("blob {name}@{digest}")
}
