//! Pushing one image: blobs where they are absent, manifests behind what they need, tags last.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::AT_ONCE;
use super::chosen::{Chosen, NotWhole};
use super::report::Sent;
use crate::bundle::found::Search;
use crate::cache::Promise;
use crate::oci::media_type::OCI_INDEX;
use crate::oci::{Descriptor, Digest, MediaType, Name, Reference, Tag, referrers};
use crate::repository::{self, Gathered, GatheredBlob, GatheredManifest};
use crate::store::{Store, StoreError};
use crate::upstream::{self, Kind, PushError, Upstream};

/// Why an image is not at the other registry.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error(transparent)]
    NotWhole(#[from] NotWhole),
    #[error("its manifest is not here any more; try again")]
    Gone,
    #[error("{0} of it cannot be had: {1}")]
    Read(Digest, repository::Error),
    #[error("{0} of it could not be pushed: {1}")]
    Blob(Digest, PushError),
    #[error("{0} of it could not be pushed: {1}")]
    Manifest(String, upstream::Error),
    #[error("the other registry cannot be asked for {0}: {1}")]
    Asked(Digest, upstream::Error),
    #[error("the list of what refers to {0} has no usual form at the other registry")]
    List(Digest),
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
}

/// Who pushes where to.
#[derive(Debug)]
pub(super) struct Pusher<'a> {
    pub(super) search: &'a Search<'a>,
    pub(super) store: &'a Store,
    pub(super) target: &'a Upstream,
    /// Where a blob is at the registry, so that it need not be sent again for another image.
    pub(super) known: Mutex<HashMap<Digest, Name>>,
}

impl Pusher<'_> {
    /// Pushes an image; answers what the tag means there, and what went how.
    pub(super) async fn image(
        &self,
        gathered: &Gathered,
        (name, tag): (&Name, Option<&Tag>),
    ) -> Result<(Digest, Sent), CopyError> {
        let chosen = Chosen::of(gathered)?.ok_or(CopyError::Gone)?;
        let mut sent = Sent::default();
        let blobs = chosen.blobs.iter();
        let blobs: Vec<_> = blobs.map(|blob| self.blob(gathered, name, blob)).collect();
        let mut blobs = stream::iter(blobs).buffer_unordered(AT_ONCE);
        while let Some(done) = blobs.next().await {
            sent.add(done?);
        }
        for one in &chosen.manifests {
            let reference = Reference::Digest(one.digest.clone());
            sent.add(self.manifest(name, &reference, one).await?);
        }
        self.lists(name, &chosen).await?;
        for (tag, one) in &chosen.tags {
            let reference = Reference::Tag((*tag).clone());
            sent.add(self.manifest(name, &reference, one).await?);
        }
        if let Some(tag) = tag {
            let reference = Reference::Tag(tag.clone());
            sent.add(self.manifest(name, &reference, chosen.top).await?);
        }
        Ok((chosen.top.digest.clone(), sent))
    }

    async fn blob(
        &self,
        gathered: &Gathered,
        name: &Name,
        blob: &GatheredBlob,
    ) -> Result<Sent, CopyError> {
        let (hops, digest) = (self.search.hops, &blob.digest);
        let told = digest.to_string();
        let asked = |error| CopyError::Asked(digest.clone(), error);
        let there = self.target.has_blob(hops, name, digest).await;
        let elsewhere = self.known(digest).filter(|other| other != name);
        let sent = if there.map_err(asked)? {
            Sent::present()
        } else if let Some(from) = elsewhere
            && self
                .target
                .mount_blob(hops, name, digest, &from)
                .await
                .map_err(asked)?
        {
            Sent::mounted()
        } else {
            if blob.is_foreign && self.store.open_blob(digest).await?.is_none() {
                // Clients have it from its URLs.
                return Ok(Sent::default());
            }
            self.push(gathered, name, blob).await?;
            Sent::pushed(blob.size)
        };
        self.search.progress.blob(&told, blob.size, blob.size);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(digest.clone()).or_insert_with(|| name.clone());
        Ok(sent)
    }

    fn known(&self, digest: &Digest) -> Option<Name> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).cloned()
    }

    /// Sends a blob out of the store; what is not here comes through the cache on the way.
    async fn push(
        &self,
        gathered: &Gathered,
        name: &Name,
        blob: &GatheredBlob,
    ) -> Result<(), CopyError> {
        let (hops, digest) = (self.search.hops, &blob.digest);
        let open = gathered.repository.open_blob(hops, &gathered.name, digest);
        let open = open.await;
        let open = open.map_err(|error| CopyError::Read(digest.clone(), error))?;
        let open = open.what;
        let (told, mut done) = (digest.to_string(), 0);
        let bytes = open.read(0, open.size(), Promise::ToEnd).map(|bytes| {
            if let Ok(bytes) = &bytes {
                done += bytes.len() as u64;
                self.search.progress.blob(&told, done, blob.size);
            }
            bytes.map_err(io::Error::other)
        });
        let pushed = self
            .target
            .push_blob(hops, name, digest, blob.size, Box::pin(bytes));
        pushed
            .await
            .map_err(|error| CopyError::Blob(digest.clone(), error))
    }

    /// Puts a manifest, unless that is what stands there.
    async fn manifest(
        &self,
        name: &Name,
        reference: &Reference,
        one: &GatheredManifest,
    ) -> Result<Sent, CopyError> {
        let hops = self.search.hops;
        let there = self.target.head_manifest(hops, name, reference).await;
        match there {
            Ok(head) => {
                let is_it = match reference {
                    Reference::Digest(_) => true,
                    Reference::Tag(_) => head.digest.as_ref() == Some(&one.digest),
                };
                if is_it {
                    return Ok(Sent::present());
                }
            }
            // Some say so of what is not there; then the push decides.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied) => {}
            Err(error) => return Err(CopyError::Asked(one.digest.clone(), error)),
        }
        self.put(name, reference, &one.media_type, one.bytes.clone())
            .await?;
        Ok(match reference {
            Reference::Digest(_) => Sent::pushed(one.bytes.len() as u64),
            // The tag moves; its bytes are there already.
            Reference::Tag(_) => Sent::pushed(0),
        })
    }

    async fn put(
        &self,
        name: &Name,
        reference: &Reference,
        media_type: &MediaType,
        bytes: Bytes,
    ) -> Result<(), CopyError> {
        let put = self
            .target
            .put_manifest(self.search.hops, name, reference, media_type, bytes);
        put.await
            .map(drop)
            .map_err(|error| CopyError::Manifest(reference.to_string(), error))
    }

    /// Where the registry does not list referrers itself, they are listed under a tag (distribution-spec, "Pushing Manifests with Subject").
    async fn lists(&self, name: &Name, chosen: &Chosen<'_>) -> Result<(), CopyError> {
        let mut about: BTreeMap<&Digest, Vec<&GatheredManifest>> = BTreeMap::new();
        for one in &chosen.manifests {
            if let Some(subject) = one.manifest.subject() {
                about.entry(subject.digest()).or_default().push(one);
            }
        }
        let hops = self.search.hops;
        for (subject, all) in about {
            match self.target.referrers(hops, name, subject).await {
                Ok(_) => continue,
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(CopyError::Asked(subject.clone(), error)),
            }
            let broken = || CopyError::List(subject.clone());
            let reference = Reference::Tag(referrers::fallback_tag(subject));
            let mut list = match self.target.get_manifest(hops, name, &reference).await {
                Ok(found) => referrers::parse_index(&found.bytes).map_err(|_other| broken())?,
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied) => Vec::new(),
                Err(error) => return Err(CopyError::Asked(subject.clone(), error)),
            };
            let before = list.len();
            for one in all {
                if list.iter().all(|listed| *listed.digest() != one.digest) {
                    list.push(descriptor(one).ok_or_else(broken)?);
                }
            }
            if list.len() > before {
                let media_type = MediaType::parse(OCI_INDEX).ok_or_else(broken)?;
                let bytes = referrers::render_index(&list).into();
                self.put(name, &reference, &media_type, bytes).await?;
            }
        }
        Ok(())
    }
}

/// As a list of referrers names it.
fn descriptor(one: &GatheredManifest) -> Option<Descriptor> {
    let size = one.bytes.len() as u64;
    let made = Descriptor::new(one.media_type.as_str(), one.digest.clone(), size).ok()?;
    let artifact_type = one.manifest.artifact_type().map(str::to_owned);
    Some(
        made.with_artifact_type(artifact_type)
            .with_annotations(one.manifest.annotations().clone()),
    )
}
