//! Tags: which digest a name means now, and for how long that is believed.
//!
//! The decisions are in [`freshness`](super::freshness); here they are carried out. A tag that is known is confirmed by HEAD, which costs no
//! pull at Docker Hub; a tag that is not known is fetched at once. Whatever goes wrong upstream, a known tag is served stale and says so.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;
use tracing::{info, warn};

use super::admit::Asked;
use super::config::DeletedUpstream;
use super::error::Error;
use super::freshness::{self, Decision, Known};
use super::learn::{learn, recall};
use super::manifests::{OpenManifest, Stored, Told, Want};
use super::pull_through::{Inner, PullThrough};
use super::status::{CacheStatus, Outcome, Reason};
use crate::clock;
use crate::oci::manifest::Manifest;
use crate::oci::media_type::DOCKER_LIST;
use crate::oci::{Digest, MediaType, Name, Reference, Tag, accept::Accept};
use crate::recent::recent;
use crate::store::index::TagRow;
use crate::upstream::Hops;

/// How long a request waits for upstream to confirm a tag that could be served stale.
pub const REVALIDATE_PATIENCE: Duration = Duration::from_millis(2500);
/// How many tags' ages are kept on the monotonic clock.
pub(super) const AGES_MAX: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// When tags were last confirmed, on the monotonic clock.
#[derive(Debug)]
pub(super) struct Ages(Mutex<LruCache<String, Instant>>);

impl Ages {
    pub(super) fn new() -> Self {
        Self(Mutex::new(recent(AGES_MAX)))
    }

    pub(super) fn note(&self, key: &str, age: Duration) {
        let Some(since) = Instant::now().checked_sub(age) else {
            return;
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(key.to_owned(), since);
    }

    fn age(&self, key: &str) -> Option<Duration> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .map(Instant::elapsed)
    }
}

/// What was known of a tag before it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing.
    Never,
    /// What it meant then.
    Before,
}

/// What asking upstream about a tag came to.
#[derive(Debug, Clone)]
pub(super) enum Checked {
    /// It means this digest; the manifest itself has been fetched.
    Fetched(Stored),
    /// It means this digest, says its head.
    Means(Told),
    /// It does not exist.
    Gone,
    /// Nobody could say.
    Failed(Error),
}

impl PullThrough {
    /// A manifest by tag, in a form that the client accepts.
    pub async fn manifest_by_tag(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        accept: &Accept,
        want: Want,
    ) -> Result<OpenManifest, Error> {
        let open = match self.inner.pins.get(name, tag) {
            Some((digest, _)) => {
                // The index may have been lost since it was pinned.
                self.admit_pinned(name, &digest).await;
                let pinned = self.open_manifest(hops, name, &digest, want).await?;
                let outcome = pinned.status.outcome();
                OpenManifest {
                    status: CacheStatus::new(outcome, Reason::Pinned),
                    ..pinned
                }
            }
            None => self.admitted(hops, name, tag, want).await?,
        };
        let media_type = &open.told.media_type;
        if accept.takes(media_type) || !(media_type.is_oci() || media_type.as_str() == DOCKER_LIST)
        {
            return Ok(open);
        }
        if media_type.is_oci() {
            return Err(Error::NotAcceptable(media_type.to_string()));
        }
        // A client that knows no lists gets the image that it most likely means (PROTOCOL B).
        let list = match open.bytes.clone() {
            Some(bytes) => bytes,
            None => self
                .manifest_by_digest(hops, name, &open.told.digest, Want::Body)
                .await?
                .bytes
                .unwrap_or_default(),
        };
        let list = Manifest::parse(&list, Some(media_type)).map_err(Error::Manifest)?;
        let child = list
            .child_for("linux", "amd64")
            .ok_or_else(|| Error::NotAcceptable(DOCKER_LIST.to_owned()))?;
        let child = self
            .manifest_by_digest(hops, name, child.digest(), want)
            .await?;
        Ok(OpenManifest {
            status: open.status,
            ..child
        })
    }

    /// What a tag means now, whatever its type.
    pub(super) async fn current(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        want: Want,
    ) -> Result<OpenManifest, Error> {
        let Inner {
            key,
            config,
            shared,
            absences,
            ..
        } = &*self.inner;
        let row = recall(
            "tag",
            config.offline,
            shared.store.index().tag(key, name, tag),
        )
        .await?;
        let known = row.as_ref().map(|row| self.known(name, tag, row));
        if row.is_none()
            && let Some(refusal) = self.inner.judged.refusal(&age_key(name, tag))
        {
            return Err(Error::Refused(refusal));
        }
        match (freshness::decide(known, config), row) {
            (Decision::Fresh { left }, Some(row))
                if row.served != row.observed
                    && self.holds_back(name, Asked::by(tag), &row.observed).await? =>
            {
                let status =
                    CacheStatus::new(Outcome::Stale, Reason::NotAdmitted).with_ttl_left(left);
                self.serve_old(hops, name, &row, want, status).await
            }
            // What a HEAD announced and nobody has fetched yet may not be had any more: it is asked for again, and the old served if not.
            (Decision::Fresh { .. }, Some(row))
                if row.served != row.observed && self.load(&row.observed).await?.is_none() =>
            {
                if self.may_move(&row, &row.observed, &row.media_type).await? {
                    self.revalidate(hops, name, tag, row, want).await
                } else {
                    self.serve_kept(hops, name, &row, want).await
                }
            }
            (Decision::Fresh { left }, Some(row)) => {
                self.serve(hops, name, tag, (&row, left), want).await
            }
            (Decision::Offline, Some(row)) => {
                self.serve_old(
                    hops,
                    name,
                    &row,
                    want,
                    CacheStatus::new(Outcome::Stale, Reason::Offline),
                )
                .await
            }
            (Decision::Gone, Some(row)) => {
                self.serve_old(
                    hops,
                    name,
                    &row,
                    want,
                    CacheStatus::new(Outcome::Stale, Reason::GoneUpstream)
                        .with_fwd_status(Some(404)),
                )
                .await
            }
            (Decision::Revalidate, Some(row)) => self.revalidate(hops, name, tag, row, want).await,
            (Decision::Absent, _) => Err(Error::StillAbsent),
            (Decision::Unreachable, _) => Err(Error::Offline),
            _ if absences.holds(&age_key(name, tag)) => Err(Error::StillAbsent),
            _ => self.first(hops, name, tag, want).await,
        }
    }

    pub(super) fn known(&self, name: &Name, tag: &Tag, row: &TagRow) -> Known {
        let now = clock::now();
        let memory = age_key(name, tag);
        let age = self.inner.ages.age(&memory).unwrap_or_else(|| {
            let since = now.since(row.checked);
            let age = freshness::loaded_age(since, row.checked > now, &self.inner.config);
            // From here on it ages by the monotonic clock.
            self.inner.ages.note(&memory, age);
            age
        });
        Known {
            age,
            // How long ago it was last said counts on the monotonic clock; a restart asks again.
            gone: row.gone.map(|_first| {
                if self.inner.absences.holds(&age_key(name, tag)) {
                    Duration::ZERO
                } else {
                    Duration::MAX
                }
            }),
        }
    }

    /// A tag that was never seen: fetched whole for a GET, its head alone for a HEAD.
    async fn first(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        want: Want,
    ) -> Result<OpenManifest, Error> {
        // What is too young whatever it is must not cost a pull.
        let ask = if self.inner.config.admit.min_age.is_zero() {
            want
        } else {
            Want::Head
        };
        let (checked, joined) = self.check(hops, name, tag, ask, Seen::Never).await?;
        let status = if joined {
            CacheStatus::new(Outcome::Joined, Reason::InFlight)
        } else {
            CacheStatus::new(Outcome::Miss, Reason::Unknown)
        };
        match checked {
            Checked::Fetched(manifest) => Ok(OpenManifest::stored(manifest, status)),
            Checked::Means(told) if want == Want::Head => Ok(OpenManifest {
                told,
                bytes: None,
                status: CacheStatus::new(
                    if joined {
                        Outcome::Joined
                    } else {
                        Outcome::Passed
                    },
                    Reason::Unknown,
                ),
            }),
            Checked::Means(told) => self.body_of(hops, name, tag, &told.digest, status).await,
            Checked::Gone => Err(Error::NotFound),
            Checked::Failed(error) => Err(error),
        }
    }

    /// A tag whose TTL is over. Waits a little for upstream's word where an old answer could be given.
    async fn revalidate(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        row: TagRow,
        want: Want,
    ) -> Result<OpenManifest, Error> {
        let config = &self.inner.config;
        let known = self.known(name, tag, &row);
        let over = known.age.saturating_sub(config.tag_ttl);
        let servable = freshness::may_serve_stale(known, config)
            && recall(
                "manifest",
                config.offline,
                self.inner.shared.store.open_blob(&row.served),
            )
            .await?
            .is_some();
        let check = self.check(hops, name, tag, Want::Head, Seen::Before);
        let checked = if servable {
            match tokio::time::timeout(REVALIDATE_PATIENCE, check).await {
                Ok(checked) => checked?.0,
                Err(_elapsed) => {
                    let status =
                        CacheStatus::new(Outcome::Stale, Reason::UpstreamSlow).with_ttl_over(over);
                    return self.serve_old(hops, name, &row, want, status).await;
                }
            }
        } else {
            check.await?.0
        };
        let moved = |digest: &Digest| *digest != row.served;
        match checked {
            Checked::Fetched(manifest) => {
                let (outcome, reason) = if moved(&manifest.digest) {
                    (Outcome::Miss, Reason::Expired)
                } else {
                    (Outcome::Revalidated, Reason::Expired)
                };
                Ok(OpenManifest::stored(
                    manifest,
                    CacheStatus::new(outcome, reason),
                ))
            }
            Checked::Means(told)
                if servable
                    && moved(&told.digest)
                    && !self
                        .may_move(&row, &told.digest, told.media_type.as_str())
                        .await? =>
            {
                self.serve_kept(hops, name, &row, want).await
            }
            Checked::Means(told) => {
                let outcome = if moved(&told.digest) {
                    Outcome::Miss
                } else {
                    Outcome::Revalidated
                };
                let status = CacheStatus::new(outcome, Reason::Expired).with_fwd_status(Some(200));
                if want == Want::Head {
                    return Ok(OpenManifest {
                        told,
                        bytes: None,
                        status,
                    });
                }
                match self.body_of(hops, name, tag, &told.digest, status).await {
                    Err(refused @ Error::Refused(_)) => {
                        let status = CacheStatus::new(Outcome::Stale, Reason::NotAdmitted)
                            .with_fwd_status(Some(200));
                        let old = self.serve_old(hops, name, &row, want, status).await;
                        old.map_err(|_gone| refused)
                    }
                    Err(error) if servable => {
                        let status = CacheStatus::new(Outcome::Stale, error.reason())
                            .with_fwd_status(error.fwd_status())
                            .with_ttl_over(over);
                        self.serve_old(hops, name, &row, want, status).await
                    }
                    answer => answer,
                }
            }
            Checked::Gone if freshness::may_serve_gone(known, config) => {
                let status = CacheStatus::new(Outcome::Stale, Reason::GoneUpstream)
                    .with_fwd_status(Some(404))
                    .with_ttl_over(over);
                self.serve_old(hops, name, &row, want, status).await
            }
            Checked::Gone => Err(Error::NotFound),
            // However long: this is what the rules ask for.
            Checked::Failed(refused @ Error::Refused(_)) => {
                let status = CacheStatus::new(Outcome::Stale, Reason::NotAdmitted)
                    .with_fwd_status(Some(200));
                let old = self.serve_old(hops, name, &row, want, status).await;
                old.map_err(|_gone| refused)
            }
            Checked::Failed(error) if freshness::may_serve_stale(known, config) => {
                let status = CacheStatus::new(Outcome::Stale, error.reason())
                    .with_fwd_status(error.fwd_status())
                    .with_ttl_over(over);
                self.serve_old(hops, name, &row, want, status)
                    .await
                    .map_err(|_gone| error)
            }
            Checked::Failed(error) => Err(error),
        }
    }

    /// Asks upstream what a tag means and writes the answer down. Once for all who ask at the same time.
    async fn check(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        want: Want,
        seen: Seen,
    ) -> Result<(Checked, bool), Error> {
        let flight = format!("{want:?} {}", age_key(name, tag));
        let (this, hops, name, tag) = (self.clone(), hops.clone(), name.clone(), tag.clone());
        let landed = self
            .inner
            .tag_checks
            .run(flight, || async move {
                // Who looked while another's flight was landing, and came too late to join it, finds here what that one brought.
                match this.learnt_meanwhile(&name, &tag, seen).await {
                    Some(told) => Checked::Means(told),
                    None => this.ask(&hops, &name, &tag, want).await,
                }
            })
            .await
            .ok_or(Error::GivenUp)?;
        Ok((landed.value, landed.joined))
    }

    async fn learnt_meanwhile(&self, name: &Name, tag: &Tag, seen: Seen) -> Option<Told> {
        let Inner { key, shared, .. } = &*self.inner;
        if seen == Seen::Before {
            return None;
        }
        let row = shared.store.index().tag(key, name, tag).await.ok()??;
        let media_type = MediaType::parse(&row.media_type)?;
        // What upstream said, and what type and size are of; it may be served later.
        row.gone.is_none().then_some(Told {
            digest: row.observed,
            media_type,
            size: row.size,
        })
    }

    async fn ask(&self, hops: &Hops, name: &Name, tag: &Tag, want: Want) -> Checked {
        let reference = Reference::Tag(tag.clone());
        if want == Want::Head {
            match self
                .inner
                .upstream
                .head_manifest(hops, name, &reference)
                .await
            {
                Ok(head) => {
                    if let (Some(digest), Some(media_type), Some(size)) = (
                        head.digest,
                        head.media_type
                            .filter(|media_type| media_type.kind().is_some()),
                        head.size,
                    ) {
                        let told = Told {
                            digest,
                            media_type,
                            size,
                        };
                        return self
                            .noted(hops, name, tag, &told, false)
                            .await
                            .map_or_else(Checked::Failed, |()| Checked::Means(told));
                    }
                    // A HEAD that does not tell enough: the body does.
                }
                // Some registries answer HEAD wrongly; only a GET confirms that a tag is gone (and a 404 costs no pull).
                Err(error)
                    if matches!(
                        error.kind(),
                        crate::upstream::Kind::NotFound | crate::upstream::Kind::BadAnswer
                    ) => {}
                Err(error) => return Checked::Failed(Error::from_upstream(error)),
            }
        }
        match self.fetch_manifest(hops, name, &reference).await {
            Ok((manifest, _)) => {
                let told = OpenManifest::stored(manifest.clone(), CacheStatus::hit()).told;
                self.noted(hops, name, tag, &told, true)
                    .await
                    .map_or_else(Checked::Failed, |()| Checked::Fetched(manifest))
            }
            Err(Error::NotFound) => self.gone(name, tag).await,
            Err(error) => Checked::Failed(error),
        }
    }

    /// Writes down what upstream says a tag means. An error where the rules do not admit that; then the tag is served as before.
    async fn noted(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        told: &Told,
        fetched: bool,
    ) -> Result<(), Error> {
        let Inner {
            key,
            config,
            shared,
            absences,
            ages,
            ..
        } = &*self.inner;
        if self.is_retired() {
            return Err(Error::GivenUp);
        }
        let index = shared.store.index();
        let now = clock::now();
        let before = recall("tag", config.offline, index.tag(key, name, tag)).await?;
        if let Some(row) = before.as_ref().filter(|row| row.observed != told.digest) {
            info!(repository = key, %name, %tag, from = %row.observed, to = %told.digest, "a tag moved upstream");
        }
        let asked = Asked::by(tag);
        if let Err(error) = self.judge_again(hops, name, asked, &told.digest).await {
            if let Error::Refused(refusal) = &error {
                self.note_refused(name, tag, before, told, refusal).await;
            }
            return Err(error);
        }
        // What is served moves when its manifest is here: a HEAD alone, or several, must not leave a tag without an answer while it
        // cannot be fetched.
        let served = match before.as_ref() {
            Some(row)
                if !fetched
                    && row.served != told.digest
                    && self.load(&told.digest).await?.is_none() =>
            {
                row.served.clone()
            }
            _ => told.digest.clone(),
        };
        let moved = before
            .filter(|row| row.served == served)
            .map_or(now, |row| row.moved);
        let row = TagRow {
            observed: told.digest.clone(),
            served,
            media_type: told.media_type.as_str().to_owned(),
            size: told.size,
            etag: None,
            checked: now,
            moved,
            gone: None,
        };
        // Another image may have brought the manifest; that this one has it too is upstream's word.
        if let Some(manifest) = self.load(&told.digest).await? {
            self.record(name, &manifest).await?;
        }
        let memory = age_key(name, tag);
        // A row that could not be written must not be taken for a fresh one.
        if learn("tag", index.put_tag(key, name, tag, row, "upstream")).await {
            ages.note(&memory, Duration::ZERO);
        }
        absences.forget(&memory);
        Ok(())
    }

    async fn gone(&self, name: &Name, tag: &Tag) -> Checked {
        let Inner {
            key,
            config,
            shared,
            absences,
            ..
        } = &*self.inner;
        let index = shared.store.index();
        absences.note(&age_key(name, tag));
        match config.deleted_upstream {
            DeletedUpstream::Keep => {
                learn("tag", index.tag_gone(key, name, tag, clock::now())).await
            }
            DeletedUpstream::Forget => learn("tag", index.forget_tag(key, name, tag)).await,
        };
        Checked::Gone
    }

    /// A fresh tag: its head from the index, its body from the store or, by digest, from upstream.
    async fn serve(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        (row, left): (&TagRow, Duration),
        want: Want,
    ) -> Result<OpenManifest, Error> {
        let status = CacheStatus::new(Outcome::Hit, Reason::Fresh).with_ttl_left(left);
        if let Some(manifest) = self.load(&row.observed).await? {
            return Ok(OpenManifest::stored(manifest, status));
        }
        if want == Want::Head
            && let Some(media_type) = MediaType::parse(&row.media_type)
        {
            let told = Told {
                digest: row.observed.clone(),
                media_type,
                size: row.size,
            };
            return Ok(OpenManifest {
                told,
                bytes: None,
                status,
            });
        }
        let status = CacheStatus::new(Outcome::Miss, Reason::Unknown);
        match self.body_of(hops, name, tag, &row.observed, status).await {
            Err(error) if row.served != row.observed => {
                let status = CacheStatus::new(Outcome::Stale, error.reason())
                    .with_fwd_status(error.fwd_status());
                self.serve_old(hops, name, row, want, status)
                    .await
                    .map_err(|_gone| error)
            }
            answer => answer,
        }
    }

    /// The manifest of a digest that upstream has just named for a tag.
    async fn body_of(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        digest: &Digest,
        status: CacheStatus,
    ) -> Result<OpenManifest, Error> {
        let manifest = match self.load(digest).await? {
            Some(manifest) => manifest,
            None => match self
                .fetch_manifest(hops, name, &Reference::Digest(digest.clone()))
                .await
            {
                Ok((manifest, _)) => manifest,
                // The tag may have moved between the two questions, or the HEAD lied: what a GET by tag sends is the truth.
                Err(Error::NotFound | Error::Mismatch) => {
                    self.fetch_manifest(hops, name, &Reference::Tag(tag.clone()))
                        .await?
                        .0
                }
                Err(error) => return Err(error),
            },
        };
        let told = OpenManifest::stored(manifest.clone(), status).told;
        self.noted(hops, name, tag, &told, true).await?;
        Ok(OpenManifest::stored(manifest, status))
    }

    /// The last digest that was served for a tag. Its bytes may have been evicted; then upstream is asked by digest, which is no question
    /// about the tag.
    pub(super) async fn serve_old(
        &self,
        hops: &Hops,
        name: &Name,
        row: &TagRow,
        want: Want,
        status: CacheStatus,
    ) -> Result<OpenManifest, Error> {
        if let Some(manifest) = self.load(&row.served).await? {
            return Ok(OpenManifest::stored(manifest, status));
        }
        warn!(repository = self.inner.key, %name, digest = %row.served, "a tag could be served stale, but its manifest was evicted");
        let open = self.open_manifest(hops, name, &row.served, want).await?;
        Ok(OpenManifest { status, ..open })
    }
}

/// The key of a tag in memory.
pub(super) fn age_key(name: &Name, tag: &Tag) -> String {
    format!("{name}:{tag}")
}
