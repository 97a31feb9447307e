//! Walking the manifests of one image: its index, what is wanted of it, and what is about it.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use futures_util::StreamExt as _;
use serde_json::Value;

use super::{
    GatherError, GatheredBlob, GatheredManifest, MANIFEST_BYTES_MAX, MANIFESTS_MAX, Taken,
};
use crate::cache::{self, OpenManifest, Outcome, Promise, Want};
use crate::oci::manifest::{EdgeKind, Manifest};
use crate::oci::referrers::Selection;
use crate::oci::{Accept, Descriptor, Digest, Name, Platform, Reference, Tag};
use crate::overlay;
use crate::repository::borrow::{DEPTH_MAX, tags_about};
use crate::repository::image::Repository;
use crate::repository::{Error, Found};
use crate::upstream::Hops;

/// The most bytes of a config that is read to learn an image's platform.
const CONFIG_MAX: usize = 4 << 20;
/// On the children of an index that are no images: which image they are about (`BuildKit`).
const ABOUT: &str = "vnd.docker.reference.digest";

/// Reads a manifest.
pub(super) async fn read(
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
pub(super) struct Walk<'a> {
    pub(super) hops: &'a Hops,
    pub(super) repository: &'a Repository,
    pub(super) name: &'a Name,
    pub(super) choice: Taken,
    pub(super) with_referrers: bool,
    /// Which of the platforms were found.
    pub(super) met: BTreeSet<usize>,
    /// All platforms that there are.
    pub(super) there: BTreeSet<String>,
    pub(super) seen: HashSet<Digest>,
    pub(super) bytes: usize,
    pub(super) manifests: Vec<GatheredManifest>,
    pub(super) blobs: Vec<GatheredBlob>,
    pub(super) taken: BTreeSet<(Platform, Digest)>,
    pub(super) fetched: BTreeSet<Digest>,
    /// Attestations of an index, about which nobody keeps anything.
    pub(super) attestations: HashSet<Digest>,
}

impl Walk<'_> {
    pub(super) fn opened(&mut self, opened: OpenManifest) -> Result<GatheredManifest, GatherError> {
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
    pub(super) async fn all_of(
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
    pub(super) fn all_met(&self) -> Result<(), GatherError> {
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
    pub(super) async fn these(
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
    pub(super) async fn listed(
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
