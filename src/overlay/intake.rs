//! Content that an image is about to get from elsewhere in the store: from another image, or from a remote's cache.
//!
//! Nothing is copied. Each piece is held first, then looked for, and linked in one record with whatever it is needed for.

use std::collections::HashSet;

use bytes::Bytes;

use super::{Error, Local};
use crate::clock::Wall;
use crate::oci::manifest::Manifest;
use crate::oci::{Digest, MediaType, Name, Tag};
use crate::store::index::ManifestRow;
use crate::store::{Change, Hold};

/// The most manifests that are taken over at a time, signatures and all.
const MANIFESTS_MAX: usize = 10_000;
/// The most manifests and blobs together; what is written down of them has to fit into a record of the journal.
const PIECES_MAX: usize = 100_000;
/// The most bytes of manifests, which are in memory meanwhile.
const BYTES_MAX: usize = 64 << 20;

/// A manifest that is taken over as it is.
#[derive(Debug, Clone)]
pub struct TakenManifest {
    /// Its digest.
    pub digest: Digest,
    /// The media type that it has where it comes from.
    pub media_type: MediaType,
    /// Its bytes.
    pub bytes: Bytes,
}

/// What is taken over. Held from being evicted or collected until it is dropped.
#[derive(Debug, Default)]
pub struct Intake {
    holds: Vec<Hold>,
    manifests: Vec<(TakenManifest, Manifest, Vec<Tag>)>,
    blobs: Vec<Digest>,
    /// Both of them.
    taken: HashSet<Digest>,
    /// Bytes of the manifests.
    bytes: usize,
    /// Whether indexes may come without some of their children.
    sparse: bool,
    /// Whether any of it was fetched, and may not be on disk for good.
    fetched: bool,
}

/// What has to be written down, and what must not go before it is.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) changes: Vec<(Change, Option<ManifestRow>)>,
    pub(super) holds: Vec<Hold>,
}

impl Intake {
    /// One whose indexes may name manifests that are not there: platforms that somebody left out on purpose.
    pub fn sparse() -> Self {
        Self {
            sparse: true,
            ..Self::default()
        }
    }

    /// Whether indexes may come without some of their children.
    pub(super) const fn is_sparse(&self) -> bool {
        self.sparse
    }

    /// Holds a digest; to be called before it is looked for.
    pub fn hold(&mut self, local: &Local, digest: &Digest) {
        self.holds.push(local.store().hold(digest));
    }

    /// Whether it has this digest already.
    pub fn has(&self, digest: &Digest) -> bool {
        self.taken.contains(digest)
    }

    /// Takes a blob that the store has. `fetched`: a cache brought it.
    pub fn blob(&mut self, digest: Digest, fetched: bool) {
        self.fetched |= fetched;
        if self.taken.insert(digest.clone()) {
            self.blobs.push(digest);
        }
    }

    /// Takes a manifest, as it is and parsed, under these tags; after everything that it points to.
    pub fn manifest(
        &mut self,
        taken: TakenManifest,
        manifest: Manifest,
        tags: Vec<Tag>,
    ) -> Result<(), Error> {
        self.bytes += taken.bytes.len();
        if self.manifests.len() >= MANIFESTS_MAX
            || self.taken.len() >= PIECES_MAX
            || self.bytes > BYTES_MAX
        {
            return Err(Error::TooMuch(MANIFESTS_MAX));
        }
        self.taken.insert(taken.digest.clone());
        self.manifests.push((taken, manifest, tags));
        Ok(())
    }

    /// The manifests, in the order in which they come.
    pub fn manifests(&self) -> impl Iterator<Item = (&Digest, &[Tag])> {
        self.manifests
            .iter()
            .map(|(taken, _, tags)| (&taken.digest, tags.as_slice()))
    }

    /// How many blobs.
    pub fn blobs(&self) -> usize {
        self.blobs.len()
    }

    /// Everything that its manifests point to must come with them, or be there already.
    pub(super) async fn check(&self, local: &Local, name: &Name) -> Result<(), Error> {
        for (_, manifest, _) in &self.manifests {
            local.check_edges(name, manifest, self).await?;
        }
        Ok(())
    }

    /// Makes sure that everything is on disk, and says what has to be written down for `name` to have it.
    pub(super) async fn settle(
        &self,
        local: &Local,
        name: &Name,
        cause: &str,
        now: Wall,
    ) -> Result<Settled, Error> {
        let store = local.store();
        let (mut changes, mut holds) = (Vec::new(), Vec::new());
        let mut missing = Vec::new();
        for digest in &self.blobs {
            if store.open_blob(digest).await?.is_none() {
                missing.push(digest.clone());
            }
            changes.push((Change::link_blob(local.key(), name, digest, now), None));
        }
        if !missing.is_empty() {
            return Err(Error::Missing(missing));
        }
        if self.fetched {
            store.durable_barrier().await?;
        }
        for (taken, manifest, tags) in &self.manifests {
            let hold = store.hold(&taken.digest);
            store.put_pushed(&hold, taken.bytes.clone()).await?;
            let row = store.row_of(manifest, taken.bytes.len()).await;
            let what = (&taken.digest, row.media_type.as_str());
            let change = Change::put_manifest(local.key(), name, what, tags, cause, now);
            changes.push((change, Some(row)));
            holds.push(hold);
        }
        Ok(Settled { changes, holds })
    }
}
