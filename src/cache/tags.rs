//! Tags: which digest a name means now, and for how long that is believed.
//!
//! The decisions are in [`freshness`](super::freshness); here they are carried out. A tag that is known is confirmed by HEAD, which costs no
//! pull at Docker Hub; a tag that is not known is fetched at once. Whatever goes wrong upstream, a known tag is served stale and says so.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;
use tracing::warn;

use super::admit::Asked;
use super::error::Error;
use super::freshness::{self, Decision, Known};
use super::learn::recall;
use super::manifests::{OpenManifest, Told, Want};
use super::pull_through::{Inner, PullThrough};
use super::status::{CacheStatus, Outcome, Reason};
use super::tag_checks::{Checked, Seen};
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

    /// Lets the index say how old a tag is.
    pub(super) fn forget(&self, key: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop(key);
    }

    fn age(&self, key: &str) -> Option<Duration> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .map(Instant::elapsed)
    }
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
