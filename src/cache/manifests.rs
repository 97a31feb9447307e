//! Manifests by digest: fetched once, verified, parsed, kept byte for byte.
//!
//! A manifest is buffered whole (at most 4 MiB), hashed and parsed before a byte of it is sent or stored (RELIABILITY P3). Children of an
//! index are never fetched here: only what a client asks for is.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use tracing::warn;

use super::admit::Asked;
use super::error::Error;
use super::learn::{learn, recall};
use super::pull_through::{Inner, PullThrough};
use super::status::{CacheStatus, Outcome, Reason};
use crate::oci::manifest::{MANIFEST_MAX, Manifest};
use crate::oci::{Digest, MediaType, Name, Reference};
use crate::recent::recent;
use crate::telemetry::RepositoryLabels;
use crate::upstream::{Hops, ManifestBody};

/// How many manifests are kept in memory, and up to which size each.
pub(super) const IN_MEMORY: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Larger manifests are read from disk each time.
pub(super) const IN_MEMORY_BYTES: usize = 64 * 1024;
/// How many answers to HEAD by digest are remembered.
pub(super) const TOLD_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// A manifest that is here.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// Its digest, as it was asked for.
    pub digest: Digest,
    /// Its media type, as it was fetched with.
    pub media_type: MediaType,
    /// Its bytes, exactly as upstream sent them.
    pub bytes: Bytes,
}

/// What upstream told of a manifest without sending it.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its length in bytes.
    pub size: u64,
}

/// A manifest as it is answered: whole, or its head alone where only that was asked for.
#[derive(Debug, Clone)]
pub struct OpenManifest {
    /// Digest, type and size: what HEAD answers.
    pub told: Told,
    /// The bytes; `None` where only the head was asked for and the manifest is not here.
    pub bytes: Option<Bytes>,
    /// How the answer came about.
    pub status: CacheStatus,
}

impl OpenManifest {
    pub(super) fn stored(manifest: Stored, status: CacheStatus) -> Self {
        let told = Told {
            digest: manifest.digest,
            media_type: manifest.media_type,
            size: manifest.bytes.len() as u64,
        };
        Self {
            told,
            bytes: Some(manifest.bytes),
            status,
        }
    }
}

/// What the client wants of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// HEAD: upstream is not made to send (and count) a pull.
    Head,
    /// GET.
    Body,
}

/// Manifests in memory, by digest. Content only: the right to read is checked before.
#[derive(Debug, Clone)]
pub struct Manifests {
    hot: Arc<Mutex<LruCache<Digest, Stored>>>,
}

impl Manifests {
    /// None yet.
    pub fn new() -> Self {
        Self {
            hot: Arc::new(Mutex::new(recent(IN_MEMORY))),
        }
    }

    fn get(&self, digest: &Digest) -> Option<Stored> {
        self.hot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(digest)
            .cloned()
    }

    fn put(&self, manifest: &Stored) {
        if manifest.bytes.len() <= IN_MEMORY_BYTES {
            self.hot
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .put(manifest.digest.clone(), manifest.clone());
        }
    }
}

impl Default for Manifests {
    fn default() -> Self {
        Self::new()
    }
}

/// Answers to HEAD by digest, which never change.
#[derive(Debug)]
pub(super) struct ToldMemory(Mutex<LruCache<String, Told>>);

impl ToldMemory {
    pub(super) fn new() -> Self {
        Self(Mutex::new(recent(TOLD_MAX)))
    }

    fn get(&self, key: &str) -> Option<Told> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    fn put(&self, key: String, told: Told) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(key, told);
    }
}

impl PullThrough {
    /// A manifest by digest.
    pub async fn manifest_by_digest(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
        want: Want,
    ) -> Result<OpenManifest, Error> {
        self.judge(hops, name, Asked::Digest, digest).await?;
        self.open_manifest(hops, name, digest, want).await
    }

    /// The same, whatever the rules say of it.
    pub(super) async fn open_manifest(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
        want: Want,
    ) -> Result<OpenManifest, Error> {
        let Inner {
            key,
            config,
            shared,
            absences,
            told,
            ..
        } = &*self.inner;
        let linked = recall(
            "link",
            config.offline,
            shared.store.index().is_linked(key, name, digest),
        )
        .await?;
        let here = self.load(digest).await?;
        if let (true, Some(manifest)) = (linked, &here) {
            return Ok(OpenManifest::stored(manifest.clone(), CacheStatus::hit()));
        }
        if config.offline {
            return Err(Error::Offline);
        }
        let memory = memory_key(name, digest);
        if absences.holds(&memory) {
            return Err(Error::StillAbsent);
        }
        if want == Want::Head || here.is_some() {
            let known = told.get(&memory);
            let (answer, joined) = match known {
                Some(answer) => (answer, false),
                None => self.head_upstream_manifest(hops, name, digest).await?,
            };
            if let Some(manifest) = here {
                // Another image brought these bytes, and upstream has just said that this one has them too.
                self.record(name, &manifest).await?;
                return Ok(OpenManifest::stored(
                    manifest,
                    CacheStatus::new(Outcome::Hit, Reason::Linked),
                ));
            }
            let outcome = if joined {
                Outcome::Joined
            } else {
                Outcome::Passed
            };
            return Ok(OpenManifest {
                told: answer,
                bytes: None,
                status: CacheStatus::new(outcome, Reason::Unknown),
            });
        }
        let (manifest, joined) = self
            .fetch_manifest(hops, name, &Reference::Digest(digest.clone()))
            .await?;
        let status = if joined {
            CacheStatus::new(Outcome::Joined, Reason::InFlight)
        } else {
            CacheStatus::new(
                Outcome::Miss,
                if linked {
                    Reason::Evicted
                } else {
                    Reason::Unknown
                },
            )
        };
        Ok(OpenManifest::stored(manifest, status))
    }

    /// A manifest's bytes from memory or disk, verified. The caller has checked, or will check, the right to read it.
    pub(super) async fn load(&self, digest: &Digest) -> Result<Option<Stored>, Error> {
        let Inner { shared, config, .. } = &*self.inner;
        if let Some(manifest) = shared.manifests.get(digest) {
            shared.store.touch(digest);
            return Ok(Some(manifest));
        }
        let opened = recall("manifest", config.offline, shared.store.open_blob(digest)).await?;
        let Some(blob) = opened else {
            return Ok(None);
        };
        let Ok(bytes) = blob.read_whole(MANIFEST_MAX).await else {
            // The store has taken note of the damage.
            return Ok(None);
        };
        if Digest::of_with(digest.algorithm(), &bytes) != *digest {
            recall(
                "manifest",
                config.offline,
                shared
                    .store
                    .quarantine(digest, "a manifest on disk does not hash to its name"),
            )
            .await?;
            return Ok(None);
        }
        let row = recall(
            "manifest",
            config.offline,
            shared.store.index().manifest(digest),
        )
        .await?;
        let declared = row.and_then(|row| MediaType::parse(&row.media_type));
        let media_type = match declared {
            Some(media_type) => media_type,
            None => match Manifest::parse(&bytes, None) {
                Ok(manifest) => manifest.media_type().clone(),
                Err(_) => return Ok(None),
            },
        };
        let manifest = Stored {
            digest: digest.clone(),
            media_type,
            bytes,
        };
        shared.manifests.put(&manifest);
        Ok(Some(manifest))
    }

    async fn head_upstream_manifest(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<(Told, bool), Error> {
        let memory = memory_key(name, digest);
        let (this, hops, asked, wanted) =
            (self.clone(), hops.clone(), name.clone(), digest.clone());
        let landed = self
            .inner
            .manifest_heads
            .run(memory.clone(), || async move {
                let reference = Reference::Digest(wanted.clone());
                let head = this
                    .inner
                    .upstream
                    .head_manifest(&hops, &asked, &reference)
                    .await
                    .map_err(Error::from_upstream)?;
                let media_type = head
                    .media_type
                    .filter(|media_type| media_type.kind().is_some());
                if let (Some(media_type), Some(size)) = (media_type, head.size) {
                    return Ok(Told {
                        digest: wanted,
                        media_type,
                        size,
                    });
                }
                // A HEAD that does not tell enough is no answer: the body does.
                let (manifest, _) = this.fetch_manifest(&hops, &asked, &reference).await?;
                Ok(OpenManifest::stored(manifest, CacheStatus::hit()).told)
            })
            .await
            .ok_or(Error::GivenUp)?;
        match landed.value {
            Ok(told) => {
                self.inner.told.put(memory, told.clone());
                Ok((told, landed.joined))
            }
            Err(error) => {
                if matches!(error, Error::NotFound) {
                    self.inner.absences.note(&memory);
                }
                Err(error)
            }
        }
    }

    /// Fetches a manifest, verifies it, stores it and links it. Once for all who ask for the same reference at the same time.
    pub(super) async fn fetch_manifest(
        &self,
        hops: &Hops,
        name: &Name,
        reference: &Reference,
    ) -> Result<(Stored, bool), Error> {
        let memory = format!("{name}!{reference}");
        let (this, hops, asked, wanted) =
            (self.clone(), hops.clone(), name.clone(), reference.clone());
        let landed = self
            .inner
            .manifest_bodies
            .run(memory, || async move {
                let body = this.inner.upstream.get_manifest(&hops, &asked, &wanted).await.map_err(Error::from_upstream)?;
                let manifest = this.verified(&wanted, body)?;
                this.pass_promise_on(&manifest);
                let stored = this.inner.shared.store.put(&manifest.digest, manifest.bytes.clone()).await;
                if let Err(error) = stored {
                    // Nothing is lost by answering from memory; the next request fetches again.
                    warn!(%error, digest = %manifest.digest, "a manifest could not be stored; it is passed through");
                } else {
                    this.record(&asked, &manifest).await?;
                    this.inner.shared.manifests.put(&manifest);
                }
                Ok(manifest)
            })
            .await
            .ok_or(Error::GivenUp)?;
        if let (Err(Error::NotFound), Reference::Digest(digest)) = (&landed.value, reference) {
            self.inner.absences.note(&memory_key(name, digest));
        }
        Ok((landed.value?, landed.joined))
    }

    /// The manifest in `body`, if it is what was asked for.
    fn verified(&self, reference: &Reference, body: ManifestBody) -> Result<Stored, Error> {
        let digest = match reference {
            Reference::Digest(wanted) => {
                if Digest::of_with(wanted.algorithm(), &body.bytes) != *wanted {
                    self.count_mismatch();
                    warn!(digest = %wanted, repository = self.inner.key, "upstream sent another manifest than asked for; nothing of it is kept");
                    return Err(Error::Mismatch);
                }
                wanted.clone()
            }
            // What upstream calls it does not count: the digest is of what came.
            Reference::Tag(_) => match &body.digest_header {
                Some(told) if Digest::of_with(told.algorithm(), &body.bytes) == *told => {
                    told.clone()
                }
                told => {
                    if told.is_some() {
                        self.count_mismatch();
                        warn!(%reference, repository = self.inner.key, "upstream's Docker-Content-Digest is not the digest of what it sent; it is ignored");
                    }
                    Digest::of(&body.bytes)
                }
            },
        };
        let manifest =
            Manifest::parse(&body.bytes, body.media_type.as_ref()).map_err(Error::Manifest)?;
        Ok(Stored {
            digest,
            media_type: manifest.media_type().clone(),
            bytes: body.bytes,
        })
    }

    pub(super) fn count_mismatch(&self) {
        let labels = RepositoryLabels {
            repository: self.inner.key.clone(),
        };
        self.inner
            .shared
            .metrics
            .digest_mismatches
            .get_or_create(&labels)
            .inc();
    }

    /// Writes down that the image has this manifest, what it points to, and what it refers to.
    pub(super) async fn record(&self, name: &Name, manifest: &Stored) -> Result<(), Error> {
        let index = self.inner.shared.store.index();
        let linked = index.is_linked(&self.inner.key, name, &manifest.digest);
        let known = index.manifest(&manifest.digest);
        if recall("link", false, linked).await? && recall("manifest", false, known).await?.is_some()
        {
            return Ok(());
        }
        let parsed = Manifest::parse(&manifest.bytes, Some(&manifest.media_type))
            .map_err(Error::Manifest)?;
        let store = &self.inner.shared.store;
        let row = store.row_of(&parsed, manifest.bytes.len()).await;
        if self.is_retired() {
            return Err(Error::GivenUp);
        }
        learn(
            "manifest",
            index.record_manifest(&self.inner.key, name, &manifest.digest, row),
        )
        .await;
        Ok(())
    }
}

pub(super) fn memory_key(name: &Name, digest: &Digest) -> String {
    format!("{name}@{digest}")
}
