//! All that an image is made of: found by walking its manifests, and, where that is wanted, brought into the store.
//!
//! What a manifest is depends on who is asked, so a tag is looked up once; everything below it comes from whoever had it. Manifests come in
//! with the walk, since nothing is known without them; blobs come by [`bring`], each by itself, so that callers can say how far they are.

mod walk;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use futures_util::StreamExt as _;

use self::walk::{Walk, read};
use super::borrow::DEPTH_MAX;
use super::image::Repository;
use super::{Error, Found};
use crate::cache::{self, Promise, Reason};
use crate::oci::manifest::{EdgeKind, Manifest, ManifestError};
use crate::oci::referrers::Selection;
use crate::oci::{Digest, MediaType, Name, Platform, Reference, Tag};
use crate::overlay;
use crate::upstream::Hops;

/// The most manifests of one image, with all its platforms, signatures and attestations.
pub const MANIFESTS_MAX: usize = 10_000;
/// The most bytes of the manifests of one image, which are in memory meanwhile.
pub const MANIFEST_BYTES_MAX: usize = 64 << 20;

/// What is to be gathered.
#[derive(Debug, Clone, Copy)]
pub struct Gathering<'a> {
    /// Who asks.
    pub hops: &'a Hops,
    /// Where it is looked for, and under which name.
    pub from: (&'a Repository, &'a Name),
    /// What is taken of an index.
    pub taken: &'a Taken,
    /// What else comes along.
    pub about: &'a About,
}

/// What is taken of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// What is made for these platforms, each of which must be there; all where there are none.
    Platforms(Vec<Platform>),
    /// These manifests.
    These(BTreeSet<Digest>),
}

impl Default for Taken {
    fn default() -> Self {
        Self::Platforms(Vec::new())
    }
}

/// What comes along because it is about the image: signatures, attestations and the like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// What upstream lists, as far as it is chosen.
    Listed(Selection),
    /// Exactly this, each of which must be there. Nobody is asked for a list, so that what was added since stays out.
    These {
        /// Manifests that refer to it.
        manifests: BTreeSet<Digest>,
        /// What stood under tags made of a digest.
        tags: BTreeMap<Tag, Digest>,
    },
}

/// Why an image is not gathered.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The repository did not answer.
    #[error(transparent)]
    Repository(#[from] Error),
    /// It is not made for a platform that was asked for.
    #[error("it is not there for {wanted}; it is there for {there}")]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// All that it is made for.
        there: String,
    },
    /// Its manifests are more than [`MANIFESTS_MAX`] or [`MANIFEST_BYTES_MAX`].
    #[error("its manifests are more than {MANIFESTS_MAX}, or have more than {} MiB", MANIFEST_BYTES_MAX >> 20)]
    TooMuch,
    /// Its indexes are nested too deep.
    #[error("its indexes are nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// A manifest of it cannot be read.
    #[error("its manifest {0} cannot be read: {1}")]
    Manifest(Digest, ManifestError),
    /// A piece cannot be had.
    #[error("{0} of it cannot be had: {1}")]
    Piece(Digest, Error),
}

/// A manifest of an image.
#[derive(Debug, Clone)]
pub struct GatheredManifest {
    /// Its digest.
    pub digest: Digest,
    /// What it is.
    pub media_type: MediaType,
    /// Its bytes.
    pub bytes: Bytes,
    /// What it says.
    pub manifest: Manifest,
}

/// A blob of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatheredBlob {
    /// Its digest.
    pub digest: Digest,
    /// How many bytes it has, as the manifest says.
    pub size: u64,
    /// What it is, as the manifest says.
    pub media_type: String,
    /// Whether clients can have it from URLs in the manifest too, so that an image can do without it here.
    pub is_foreign: bool,
}

/// All that an image is made of.
#[derive(Debug)]
pub struct Gathered {
    /// Who had it: the repository itself, or the member of a virtual one.
    pub repository: Repository,
    /// Its name there.
    pub name: Name,
    /// Its manifest or index.
    pub digest: Digest,
    /// All manifests, each behind all that it needs; the image's own among them.
    pub manifests: Vec<GatheredManifest>,
    /// All blobs, each once.
    pub blobs: Vec<GatheredBlob>,
    /// The manifests that were taken out of indexes, with their platforms.
    pub platforms: BTreeSet<(Platform, Digest)>,
    /// What is kept under tags that are made of a digest of it: cosign's, and the referrers' fallback.
    pub tags: Vec<(Tag, Digest)>,
    /// Those of the manifests that are there because a list of referrers names them.
    pub referrers: BTreeSet<Digest>,
    /// Those of the manifests that upstream was asked for: where pulls are counted, each of them was one.
    pub fetched: BTreeSet<Digest>,
}

impl Gathered {
    /// The image's own manifest.
    pub fn top(&self) -> Option<&GatheredManifest> {
        self.manifest(&self.digest)
    }

    /// One of its manifests.
    pub fn manifest(&self, digest: &Digest) -> Option<&GatheredManifest> {
        self.manifests.iter().find(|one| one.digest == *digest)
    }

    /// All that it is made of, with sizes: manifests first.
    pub fn pieces(&self) -> impl Iterator<Item = (&Digest, u64)> {
        let manifests = self.manifests.iter();
        let manifests = manifests.map(|one| (&one.digest, one.bytes.len() as u64));
        manifests.chain(self.blobs.iter().map(|one| (&one.digest, one.size)))
    }

    /// How many bytes that is.
    pub fn bytes(&self) -> u64 {
        self.pieces().map(|(_, size)| size).sum()
    }

    /// What `digest`, one of its manifests, needs of all this, itself included.
    pub fn closure(&self, digest: &Digest) -> Vec<Digest> {
        let by_digest: BTreeMap<&Digest, &GatheredManifest> = self
            .manifests
            .iter()
            .map(|one| (&one.digest, one))
            .collect();
        let blobs: HashSet<&Digest> = self.blobs.iter().map(|one| &one.digest).collect();
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let mut open = vec![digest];
        while let Some(digest) = open.pop() {
            if !seen.insert(digest) {
                continue;
            }
            if let Some(one) = by_digest.get(digest) {
                found.push(digest.clone());
                let edges = one.manifest.edges();
                open.extend(
                    edges
                        .filter(|(kind, _)| *kind != EdgeKind::Subject)
                        .map(|(_, edge)| edge.digest()),
                );
            } else if blobs.contains(digest) {
                found.push(digest.clone());
            }
        }
        found
    }
}

impl Gathering<'_> {
    /// Finds out what `reference` is made of.
    pub async fn run(&self, reference: &Reference) -> Result<Gathered, GatherError> {
        let (from, name) = self.from;
        let Found { what, member } = read(from, self.hops, name, reference).await?;
        let repository = member
            .and_then(|member| from.member(&member))
            .unwrap_or(from)
            .clone();
        let mut walk = Walk {
            hops: self.hops,
            repository: &repository,
            name,
            choice: self.taken.clone(),
            with_referrers: *self.about != About::Listed(Selection::None),
            met: BTreeSet::new(),
            there: BTreeSet::new(),
            seen: HashSet::new(),
            bytes: 0,
            manifests: Vec::new(),
            blobs: Vec::new(),
            taken: BTreeSet::new(),
            fetched: BTreeSet::new(),
            attestations: HashSet::new(),
        };
        let top = walk.opened(what)?;
        let digest = top.digest.clone();
        walk.all_of(top, None, 0).await?;
        walk.all_met()?;
        let (tags, referrers) = match self.about {
            About::Listed(Selection::None) => (Vec::new(), BTreeSet::new()),
            About::Listed(selection) => walk.listed(selection).await?,
            About::These { manifests, tags } => {
                walk.these(manifests, tags).await?;
                let tags = tags.iter();
                let tags = tags.map(|(tag, digest)| (tag.clone(), digest.clone()));
                (tags.collect(), manifests.clone())
            }
        };
        let Walk {
            manifests,
            blobs,
            taken,
            fetched,
            ..
        } = walk;
        Ok(Gathered {
            name: name.clone(),
            digest,
            manifests,
            blobs,
            platforms: taken,
            tags,
            referrers,
            fetched,
            repository,
        })
    }
}

/// Brings a blob into the store, and tells of bytes as they come. Answers whether any came; false where all of it was here.
pub async fn bring(
    repository: &Repository,
    (hops, name): (&Hops, &Name),
    digest: &Digest,
    mut came: impl FnMut(u64),
) -> Result<bool, Error> {
    let open = repository.open_blob(hops, name, digest).await?.what;
    if open.is_verified() {
        return Ok(false);
    }
    if open.status().reason() == Reason::DiskFull {
        return Err(overlay::Error::Full.into());
    }
    let mut body = Box::pin(open.read(0, open.size(), Promise::ToEnd));
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_broke_off| cache::Error::GivenUp)?;
        came(chunk.len() as u64);
    }
    Ok(true)
}
