//! Images of a remote that are kept: every piece of them stays, whatever else the cache lets go of, and across the loss of the index.
//!
//! One record of the journal says all of it, written when everything is on disk for good. Each piece is held first, then looked for
//! (as `overlay` does for what is pushed).

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::Value;

use crate::cache::admission::judged_key;
use crate::cache::admit::Asked;
use crate::cache::error::Error;
use crate::cache::manifests::memory_key;
use crate::cache::pull_through::{Inner, PullThrough, absent_blob};
use crate::cache::tags::age_key;
use crate::clock::{self, Wall};
use crate::oci::manifest::Manifest;
use crate::oci::{Digest, MediaType, Name, Reference, Tag};
use crate::store::index::{KeptRow, ManifestRow};
use crate::store::{Change, Hold, Keep, Keeping, NoRoomToKeep, StoreError};

/// The most manifests of one image, signatures and all.
pub const KEPT_MANIFESTS_MAX: usize = 10_000;
/// The most manifests and blobs together; what is written down of them has to fit into a record of the journal.
pub const KEPT_PIECES_MAX: usize = 100_000;

/// Everything that an image is made of, as far as it is wanted here.
#[derive(Debug, Clone)]
pub struct KeptImage {
    /// What the reference means.
    pub digest: Digest,
    /// Every manifest, that one among them.
    pub manifests: Vec<KeptManifest>,
    /// Every blob.
    pub blobs: Vec<Digest>,
}

impl KeptImage {
    /// Every manifest and every blob.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        let manifests = self.manifests.iter().map(|one| &one.digest);
        manifests.chain(&self.blobs)
    }
}

/// A manifest of it. Put into the store where it is not there: one that is asked for often may be in memory alone.
#[derive(Debug, Clone)]
pub struct KeptManifest {
    /// Its digest.
    pub digest: Digest,
    /// The media type that it is served with.
    pub media_type: MediaType,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Why an image is not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Some of it is not in the store.
    #[error("{} pieces of the image are not here any more, {} among them; try again", .0.len(), first(.0))]
    NotHere(Vec<Digest>),
    /// A manifest of it is none, or the store failed.
    #[error(transparent)]
    Failed(#[from] Error),
    /// It is too much.
    #[error("the image has more than {KEPT_MANIFESTS_MAX} manifests, or {KEPT_PIECES_MAX} pieces")]
    TooMuch,
    /// It does not fit.
    #[error(transparent)]
    NoRoom(NoRoomToKeep),
    /// The disk is full.
    #[error("there is no room on the disk to write down that it is kept")]
    Full,
}

fn first(missing: &[Digest]) -> String {
    missing.first().map_or_else(String::new, Digest::to_string)
}

impl From<StoreError> for KeepError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoRoomToKeep(why) => Self::NoRoom(why),
            StoreError::Full => Self::Full,
            StoreError::Mismatch { .. } => Self::Failed(Error::Mismatch),
            StoreError::Io(_) | StoreError::Pending(_) | StoreError::Index(_) => {
                Self::Failed(error.into())
            }
        }
    }
}

/// All of an image, looked at while it is held.
struct Pieces {
    holds: Vec<Hold>,
    manifests: Vec<(Digest, ManifestRow)>,
}

impl PullThrough {
    /// Keeps an image by a tag or digest, in the place of what was kept by it before. All its blobs must be in the store, and so there is room for them. With `moves_tag` a tag
    /// that means something else means this from now on, until upstream says otherwise.
    pub async fn keep(
        &self,
        name: &Name,
        reference: &Reference,
        image: &KeptImage,
        moves_tag: bool,
        event: Value,
    ) -> Result<(), KeepError> {
        let pieces = self.held(image).await?;
        let Inner { key, shared, .. } = &*self.inner;
        let store = &shared.store;
        let origin = store.index().origin(key).await.map_err(Error::from)?;
        // Asked after that: while this was not retired, that is what this upstream is.
        if self.is_retired() {
            return Err(Error::GivenUp.into());
        }
        store.durable_barrier().await?;
        let now = clock::now();
        let keeping = Keeping {
            reference,
            digest: &image.digest,
            manifests: pieces.manifests,
            blobs: &image.blobs,
            moves_tag,
            origin,
        };
        let changes = vec![
            (Change::keep(key, name, keeping, now), None),
            (Change::event(key, name, event, now), None),
        ];
        let holds: Keep = std::sync::Arc::new(pieces.holds);
        store.commit_keeping(changes, vec![holds]).await?;
        if self.is_retired() {
            // It came too late, and was not taken in.
            return Err(Error::GivenUp.into());
        }
        self.trust(name, reference, image);
        Ok(())
    }

    /// Keeps an image no more by this reference: what the cache has of it may be evicted. False where it was not kept.
    pub async fn unkeep(
        &self,
        name: &Name,
        reference: &Reference,
        event: Value,
    ) -> Result<bool, Error> {
        let Inner { key, shared, .. } = &*self.inner;
        if !shared.store.index().is_kept(key, name, reference).await? {
            return Ok(false);
        }
        let now = clock::now();
        let changes = vec![
            (Change::unkeep(key, name, reference, now), None),
            (Change::event(key, name, event, now), None),
        ];
        shared.store.commit_changes(changes).await?;
        Ok(true)
    }

    /// Whether all of an image is kept by that reference.
    pub async fn is_kept_as(
        &self,
        name: &Name,
        reference: &Reference,
        image: &KeptImage,
    ) -> Result<bool, Error> {
        let Inner { key, shared, .. } = &*self.inner;
        let kept = shared.store.index().kept_as(key, name, reference).await?;
        Ok(kept.is_some_and(|(digest, pieces)| {
            let wanted: HashSet<&Digest> = image.digests().collect();
            digest == image.digest && wanted.iter().all(|digest| pieces.contains(*digest))
        }))
    }

    /// The images that are kept here, in order.
    pub async fn kept(&self) -> Result<Vec<KeptRow>, Error> {
        let Inner { key, shared, .. } = &*self.inner;
        Ok(shared.store.index().kept(Some(key)).await?)
    }

    /// The tags that are frozen here: image, tag, what it means, since when.
    pub async fn frozen(&self) -> Result<Vec<(Name, Tag, Digest, Wall)>, Error> {
        let Inner { key, shared, .. } = &*self.inner;
        Ok(shared.store.index().pins(key).await?)
    }

    /// Keeps these from being evicted for as long as what is answered is held; for what is about to be kept.
    pub fn hold<'a>(&self, digests: impl Iterator<Item = &'a Digest>) -> Vec<Hold> {
        let store = &self.inner.shared.store;
        digests.map(|digest| store.hold(digest)).collect()
    }

    /// Whether these can be kept, each with its size. To be asked before any of it is fetched.
    pub async fn check_kept_room(&self, wanted: &[(Digest, u64)]) -> Result<(), KeepError> {
        let store = &self.inner.shared.store;
        store.check_kept_room(wanted).await.map_err(KeepError::from)
    }

    /// Holds every piece, then looks for it.
    async fn held(&self, image: &KeptImage) -> Result<Pieces, KeepError> {
        let count = image.manifests.len().saturating_add(image.blobs.len());
        if image.manifests.len() > KEPT_MANIFESTS_MAX || count > KEPT_PIECES_MAX {
            return Err(KeepError::TooMuch);
        }
        let store = &self.inner.shared.store;
        let mut pieces = Pieces {
            holds: self.hold(image.digests()),
            manifests: Vec::with_capacity(image.manifests.len()),
        };
        let mut missing = Vec::new();
        if !image.manifests.iter().any(|one| one.digest == image.digest) {
            missing.push(image.digest.clone());
        }
        for digest in &image.blobs {
            if store.open_blob(digest).await?.is_none() {
                missing.push(digest.clone());
            }
        }
        if !missing.is_empty() {
            return Err(KeepError::NotHere(missing));
        }
        for one in &image.manifests {
            if Digest::of_with(one.digest.algorithm(), &one.bytes) != one.digest {
                return Err(Error::Mismatch.into());
            }
            let manifest = Manifest::parse(&one.bytes, Some(&one.media_type));
            let manifest = manifest.map_err(Error::Manifest)?;
            store.put(&one.digest, one.bytes.clone()).await?;
            let row = store.row_of(&manifest, one.bytes.len()).await;
            pieces.manifests.push((one.digest.clone(), row));
        }
        Ok(pieces)
    }

    /// Forgets what was remembered against what is here now, so that the next pull gets it.
    fn trust(&self, name: &Name, reference: &Reference, image: &KeptImage) {
        let Inner {
            absences,
            ages,
            judged,
            ..
        } = &*self.inner;
        for digest in &image.blobs {
            absences.forget(&absent_blob(name, digest));
        }
        for KeptManifest { digest, .. } in &image.manifests {
            absences.forget(&memory_key(name, digest));
            absences.forget(&absent_blob(name, digest));
        }
        if let Reference::Tag(tag) = reference {
            let memory = age_key(name, tag);
            absences.forget(&memory);
            judged.relent(&memory);
            judged.relent(&judged_key(name, Asked::by(tag), &image.digest));
            // How old it is says the index, whose row may be another.
            ages.forget(&memory);
        }
        self.reconsider(name);
    }
}
