//! All that an image is made of: found by walking its manifests, and, where that is wanted, brought into the store.
//!
//! What a manifest is depends on who is asked, so a tag is looked up once; everything below it comes from whoever had it. Manifests come in
//! with the walk, since nothing is known without them; blobs come by [`bring`], each by itself, so that callers can say how far they are.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::Value;

use super::borrow::{DEPTH_MAX, tags_about};
use super::image::Repository;
use super::{Error, Found};
use crate::cache::{self, OpenManifest, Outcome, Promise, Reason, Want};
use crate::oci::manifest::{EdgeKind, Manifest, ManifestError};
use crate::oci::referrers::Selection;
use crate::oci::{Accept, Descriptor, Digest, MediaType, Name, Platform, Reference, Tag};
use crate::overlay;
use crate::upstream::Hops;

/// The most manifests of one image, with all its platforms, signatures and attestations.
pub const MANIFESTS_MAX: usize = 10_000;
/// The most bytes of the manifests of one image, which are in memory meanwhile.
pub const MANIFEST_BYTES_MAX: usize = 64 << 20;
/// The most bytes of a config that is read to learn an image's platform.
const CONFIG_MAX: usize = 4 << 20;
/// On the children of an index that are no images: which image they are about (`BuildKit`).
const ABOUT: &str = "vnd.docker.reference.digest";

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

/// Reads a manifest.
async fn read(
    from: &Repository,
    hops: &Hops,
    name: &Name,
    reference: &Reference,
) -> Result<Found<OpenManifest>, Error> {
    let accept = Accept::everything();
    from.manifest(hops, name, reference, &accept, Want::Body)
        .await
}

/// One image under way.
struct Walk<'a> {
    hops: &'a Hops,
    repository: &'a Repository,
    name: &'a Name,
    choice: Taken,
    with_referrers: bool,
    /// Which of the platforms were found.
    met: BTreeSet<usize>,
    /// All platforms that there are.
    there: BTreeSet<String>,
    seen: HashSet<Digest>,
    bytes: usize,
    manifests: Vec<GatheredManifest>,
    blobs: Vec<GatheredBlob>,
    taken: BTreeSet<(Platform, Digest)>,
    fetched: BTreeSet<Digest>,
    /// Attestations of an index, about which nobody keeps anything.
    attestations: HashSet<Digest>,
}

impl Walk<'_> {
    fn opened(&mut self, opened: OpenManifest) -> Result<GatheredManifest, GatherError> {
        let digest = opened.told.digest;
        if opened.status.outcome() == Outcome::Miss {
            self.fetched.insert(digest.clone());
        }
        let absent = || GatherError::Repository(overlay::Error::ManifestUnknown.into());
        let bytes = opened.bytes.ok_or_else(absent)?;
        let manifest = Manifest::parse(&bytes, Some(&opened.told.media_type))
            .map_err(|error| GatherError::Manifest(digest.clone(), error))?;
        Ok(GatheredManifest {
            media_type: manifest.media_type().clone(),
            digest,
            bytes,
            manifest,
        })
    }

    async fn read(&mut self, digest: &Digest) -> Result<GatheredManifest, GatherError> {
        let reference = Reference::Digest(digest.clone());
        let found = read(self.repository, self.hops, self.name, &reference).await;
        let found = found.map_err(|error| GatherError::Piece(digest.clone(), error))?;
        self.opened(found.what)
    }

    /// Takes a manifest and what it names. `platform` is what the index said of it, where it stands in one.
    async fn all_of(
        &mut self,
        one: GatheredManifest,
        platform: Option<&Platform>,
        depth: usize,
    ) -> Result<(), GatherError> {
        if !self.seen.insert(one.digest.clone()) {
            return Ok(());
        }
        if !one.manifest.children().is_empty() {
            if depth >= DEPTH_MAX {
                return Err(GatherError::TooDeep);
            }
            for child in self.chosen(one.manifest.children()) {
                if child.annotations().contains_key(ABOUT) {
                    self.attestations.insert(child.digest().clone());
                }
                let read = self.read(child.digest()).await?;
                if child.platform().is_none() && !self.is_wanted(&read).await? {
                    continue;
                }
                Box::pin(self.all_of(read, child.platform(), depth + 1)).await?;
                if let Some(platform) = child.platform() {
                    self.taken
                        .insert((platform.clone(), child.digest().clone()));
                } else {
                    self.taken
                        .insert((Platform::default(), child.digest().clone()));
                }
            }
        } else if platform.is_none()
            && depth == 0
            && let Taken::Platforms(wanted) = &self.choice
            && !wanted.is_empty()
        {
            let wanted = wanted.clone();
            self.judge_image(&one, &wanted).await?;
        }
        for (kind, descriptor) in one.manifest.edges() {
            let is_blob = matches!(kind, EdgeKind::Config | EdgeKind::Layer);
            if is_blob && self.seen.insert(descriptor.digest().clone()) {
                self.blobs.push(GatheredBlob {
                    digest: descriptor.digest().clone(),
                    size: descriptor.size(),
                    media_type: descriptor.media_type().to_owned(),
                    is_foreign: kind == EdgeKind::Layer && !descriptor.urls().is_empty(),
                });
            }
        }
        self.bytes += one.bytes.len();
        if self.manifests.len() >= MANIFESTS_MAX || self.bytes > MANIFEST_BYTES_MAX {
            return Err(GatherError::TooMuch);
        }
        self.manifests.push(one);
        Ok(())
    }

    /// Those of an index that are wanted. What is about an image of it (attestations) is taken or left with that image.
    fn chosen(&mut self, children: &[Descriptor]) -> Vec<Descriptor> {
        let platforms = match &self.choice {
            Taken::Platforms(platforms) if platforms.is_empty() => return children.to_vec(),
            Taken::Platforms(platforms) => platforms,
            Taken::These(digests) => {
                let is_one = |child: &&Descriptor| digests.contains(child.digest());
                return children.iter().filter(is_one).cloned().collect();
            }
        };
        let (mut chosen, mut digests) = (Vec::new(), HashSet::new());
        for child in children {
            let Some(platform) = child.platform() else {
                // An index in an index; an image that says nothing is judged by its config.
                chosen.push(child.clone());
                continue;
            };
            let is_about = child.annotations().contains_key(ABOUT);
            if !is_about {
                self.there.insert(platform.to_string());
            }
            let mut fits = false;
            for (number, wanted) in platforms.iter().enumerate() {
                if platform.satisfies(wanted) {
                    self.met.insert(number);
                    fits = true;
                }
            }
            if fits {
                digests.insert(child.digest().to_string());
                chosen.push(child.clone());
            }
        }
        if self.with_referrers {
            let about = children.iter().filter(|child| {
                let of = child.annotations().get(ABOUT);
                of.is_some_and(|of| digests.contains(of))
            });
            chosen.extend(about.cloned());
        }
        chosen
    }

    /// Whether an image of which its index says nothing is for a platform that is wanted.
    async fn is_wanted(&mut self, one: &GatheredManifest) -> Result<bool, GatherError> {
        let Taken::Platforms(platforms) = &self.choice else {
            return Ok(true);
        };
        let Some(config) = one.manifest.config().filter(|_| !platforms.is_empty()) else {
            return Ok(true);
        };
        let platforms = platforms.clone();
        let own = self.platform_of(config).await?;
        self.there.insert(own.to_string());
        let mut fits = false;
        for (number, wanted) in platforms.iter().enumerate() {
            if own.satisfies(wanted) {
                self.met.insert(number);
                fits = true;
            }
        }
        Ok(fits)
    }

    /// An image without an index has its platform in its config.
    async fn judge_image(
        &mut self,
        one: &GatheredManifest,
        platforms: &[Platform],
    ) -> Result<(), GatherError> {
        let Some(config) = one.manifest.config() else {
            return Ok(());
        };
        let platform = self.platform_of(config).await?;
        self.there.insert(platform.to_string());
        for (number, wanted) in platforms.iter().enumerate() {
            if platform.satisfies(wanted) {
                self.met.insert(number);
            }
        }
        // It is one platform, whatever else is wanted of images that have several.
        if !self.met.is_empty() {
            self.met = (0..platforms.len()).collect();
        }
        Ok(())
    }

    async fn platform_of(&self, config: &Descriptor) -> Result<Platform, GatherError> {
        let failed = |error| GatherError::Piece(config.digest().clone(), error);
        let open = self
            .repository
            .open_blob(self.hops, self.name, config.digest());
        let open = open.await.map_err(failed)?.what;
        let broken = |_| failed(cache::Error::GivenUp.into());
        let end = open.size().unwrap_or(config.size());
        if end > CONFIG_MAX as u64 {
            return Ok(Platform::default());
        }
        let mut body = Box::pin(open.read(0, open.size(), Promise::ToEnd));
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(broken)?);
        }
        // What is no image's config (a chart, a WASM module) is for no platform.
        let value = serde_json::from_slice::<Value>(&bytes).ok();
        let object = value.filter(Value::is_object).map(|mut value| {
            let mut kept = serde_json::Map::new();
            for key in ["os", "architecture", "variant", "os.version"] {
                if let Some(text) = value.get_mut(key).map(Value::take) {
                    kept.insert(key.to_owned(), text);
                }
            }
            Value::Object(kept)
        });
        Ok(object
            .and_then(|object| Platform::from_value(object).ok())
            .unwrap_or_default())
    }

    /// Every platform that was asked for must be there.
    fn all_met(&self) -> Result<(), GatherError> {
        let Taken::Platforms(platforms) = &self.choice else {
            return Ok(());
        };
        let missing: Vec<String> = platforms
            .iter()
            .enumerate()
            .filter(|(number, _)| !self.met.contains(number))
            .map(|(_, wanted)| wanted.to_string())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let there: Vec<&str> = self.there.iter().map(String::as_str).collect();
        Err(GatherError::NoPlatform {
            wanted: missing.join(", "),
            there: there.join(", "),
        })
    }

    /// Takes what is known to be about them, by digest.
    async fn these(
        &mut self,
        manifests: &BTreeSet<Digest>,
        tags: &BTreeMap<Tag, Digest>,
    ) -> Result<(), GatherError> {
        for digest in manifests.iter().chain(tags.values()) {
            if !self.seen.contains(digest) {
                let read = self.read(digest).await?;
                self.whole(read).await?;
            }
        }
        Ok(())
    }

    /// Takes what is about the manifests that were taken: referrers, and what stands under tags made of a digest. Answers those tags, and what
    /// was listed.
    async fn listed(
        &mut self,
        selection: &Selection,
    ) -> Result<(Vec<(Tag, Digest)>, BTreeSet<Digest>), GatherError> {
        let (mut tags, mut listed) = (Vec::new(), BTreeSet::new());
        let mut queue: VecDeque<Digest> = self
            .manifests
            .iter()
            .map(|one| one.digest.clone())
            .filter(|digest| !self.attestations.contains(digest))
            .collect();
        while let Some(digest) = queue.pop_front() {
            let before = self.manifests.len();
            let referrers = self.repository.referrers(self.hops, self.name, &digest);
            let referrers = match referrers.await {
                Ok(found) => found.what.0,
                Err(error) if error.is_absence() => Vec::new(),
                // What nobody could ask about may have signatures.
                Err(error) => return Err(error.into()),
            };
            for referrer in referrers {
                if self.seen.contains(referrer.digest())
                    || !selection.takes(referrer.artifact_type())
                {
                    continue;
                }
                match self.read(referrer.digest()).await {
                    Err(GatherError::Piece(_, error)) if error.is_absence() => {}
                    read => {
                        self.whole(read?).await?;
                        listed.insert(referrer.digest().clone());
                    }
                }
            }
            if *selection == Selection::All {
                for tag in tags_about(self.repository, self.hops, self.name, &digest).await? {
                    let reference = Reference::Tag(tag.clone());
                    let found = read(self.repository, self.hops, self.name, &reference).await?;
                    let one = self.opened(found.what)?;
                    tags.push((tag, one.digest.clone()));
                    self.whole(one).await?;
                }
            }
            let new = self.manifests.get(before..).unwrap_or_default();
            queue.extend(new.iter().map(|one| one.digest.clone()));
        }
        Ok((tags, listed))
    }

    /// Takes a manifest with all platforms.
    async fn whole(&mut self, one: GatheredManifest) -> Result<(), GatherError> {
        let (choice, taken) = (
            std::mem::take(&mut self.choice),
            std::mem::take(&mut self.taken),
        );
        let done = self.all_of(one, None, 0).await;
        (self.choice, self.taken) = (choice, taken);
        done
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
