//! What was seen of an archive, and at its end whether that was all of it and nothing else.
//!
//! A bundle says what it leaves out; only what is neither carried nor declared is missing (of a foreign archive: everything that is not there). A bundle with a
//! blob that it does not list was changed by somebody; foreign archives have such blobs (docker puts its old configs among them), and they are
//! told at the end, to be left where they are.

use std::collections::{HashMap, HashSet};

use super::contents::Contents;
use super::docker::Saved;
use super::image_ref::ImageRef;
use super::index::Listed;
use crate::oci::media_type::DOCKER_MANIFEST;
use crate::oci::{Digest, EdgeKind, Manifest, MediaType};

/// The most edges that the manifests of an archive may have together.
const EDGES_MAX: usize = 1_000_000;

/// An image of an archive that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its full names; none where the archive gives none.
    pub references: Vec<ImageRef>,
    /// What a foreign archive calls it, where that is no full name.
    pub said: Option<String>,
    /// Its manifest or index.
    pub digest: Digest,
    /// How long that is.
    pub size: u64,
    /// What that is.
    pub media_type: MediaType,
    /// The manifest itself where the archive had none and it was made (`docker save`).
    pub made: Option<Vec<u8>>,
    /// Everything that the image is made of, its manifest included, sorted.
    pub needs: Vec<Digest>,
}

/// An archive that was read to its end, and is all that it says to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Its images.
    pub images: Vec<Found>,
    /// Blobs that no image leads to, by digest: not to be kept.
    pub unlisted: Vec<Digest>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) has_layout: bool,
    pub(super) contents: Option<Contents>,
    /// The sizes that the contents tell.
    listed: HashMap<Digest, u64>,
    index: Option<Vec<Listed>>,
    pub(super) docker: Saved,
    blobs: HashSet<Digest>,
    /// What the manifests among the blobs name and must be there, with whether it is a manifest itself.
    edges: HashMap<Digest, Vec<(Digest, bool)>>,
    count: usize,
}

impl Ledger {
    /// Whether anything went by that a table of contents stands in front of.
    pub(super) fn is_late(&self) -> bool {
        !self.blobs.is_empty() || self.index.is_some()
    }

    /// Takes the table of contents in.
    pub(super) fn told(&mut self, contents: Contents) {
        let blobs = contents.blobs().iter();
        self.listed = blobs.map(|blob| (blob.digest.clone(), blob.size)).collect();
        self.contents = Some(contents);
    }

    /// Takes the index in.
    pub(super) fn indexed(&mut self, index: Vec<Listed>) {
        self.index = Some(index);
    }

    /// Whether a blob may come now.
    pub(super) fn expect(&self, digest: &Digest, size: u64) -> Result<(), String> {
        if self.contents.is_none() {
            return Ok(());
        }
        match self.listed.get(digest) {
            None => {
                Err("roadstead.json does not list this blob: it was added by somebody".to_owned())
            }
            Some(listed) if *listed != size => Err(format!(
                "it has {size} bytes, and {listed} by roadstead.json"
            )),
            Some(_) => Ok(()),
        }
    }

    /// Notes a blob whose digest agreed; `bytes` are there where it is small enough to be a manifest.
    pub(super) fn passed(&mut self, digest: &Digest, bytes: Option<&[u8]>) -> Result<(), String> {
        self.blobs.insert(digest.clone());
        let manifest = bytes.and_then(|bytes| Manifest::parse(bytes, None).ok());
        let Some(manifest) = manifest else {
            return Ok(());
        };
        let edge = |(kind, to): (EdgeKind, &crate::oci::Descriptor)| match kind {
            EdgeKind::Child => Some((to.digest().clone(), true)),
            // Layers with URLs are had from there, and are in no archive.
            EdgeKind::Layer if !to.urls().is_empty() => None,
            EdgeKind::Config | EdgeKind::Layer => Some((to.digest().clone(), false)),
            EdgeKind::Subject => None,
        };
        let edges: Vec<_> = manifest.edges().filter_map(edge).collect();
        self.count += edges.len();
        if self.count > EDGES_MAX {
            return Err(format!(
                "the manifests up to this one name more than {EDGES_MAX} blobs"
            ));
        }
        self.edges.insert(digest.clone(), edges);
        Ok(())
    }

    /// What the archive was, or why it was none.
    pub(super) fn finish(&self) -> Result<Summary, String> {
        match (&self.contents, &self.index) {
            (Some(_), None) => Err("index.json is missing".to_owned()),
            (Some(_), Some(_)) if !self.has_layout => Err("oci-layout is missing".to_owned()),
            (Some(contents), Some(_)) => self.bundle(contents),
            (None, Some(index)) => self.layout(index),
            (None, None) if self.docker.has_manifest() => self.saved(),
            (None, None) => Err(
                "this is no archive of images: neither index.json nor manifest.json is in it"
                    .to_owned(),
            ),
        }
    }

    fn bundle(&self, contents: &Contents) -> Result<Summary, String> {
        if self.docker.is_used() {
            return Err("files of docker save are in it, which no bundle has".to_owned());
        }
        let mut blobs = contents.blobs().iter();
        if let Some(blob) = blobs.find(|blob| !self.blobs.contains(&blob.digest)) {
            let digest = &blob.digest;
            return Err(format!("roadstead.json lists {digest}, which is missing"));
        }
        let omitted: HashSet<_> = contents.omitted().iter().map(|one| &one.digest).collect();
        let partial = !contents.platforms().is_empty();
        let mut images = Vec::new();
        for image in contents.images() {
            let needs: HashSet<_> = image.needs().map(|(digest, _)| digest).collect();
            self.walk([image.digest()], |digest, from| {
                if needs.contains(digest) {
                    return Ok(self.blobs.contains(digest));
                }
                let known = self.blobs.contains(digest) || omitted.contains(digest);
                let is_manifest = from.is_some_and(|(_, is_manifest)| is_manifest);
                if is_manifest && partial && !known {
                    // A platform that was not chosen.
                    return Ok(false);
                }
                let reference = image.reference();
                Err(format!(
                    "{reference} is made of {digest}, which roadstead.json neither lists for it nor declares as left out"
                ))
            })?;
            images.push(Found {
                references: vec![image.reference().clone()],
                said: None,
                digest: image.digest().clone(),
                size: image.size(),
                media_type: image.media_type().clone(),
                made: None,
                needs: sorted(image.needs().map(|(digest, _)| digest.clone())),
            });
        }
        Ok(Summary {
            images,
            unlisted: Vec::new(),
        })
    }

    fn layout(&self, index: &[Listed]) -> Result<Summary, String> {
        let roots = index.iter().map(|one| &one.digest);
        let reached = self.walk(roots, |digest, from| {
            if self.blobs.contains(digest) {
                return Ok(true);
            }
            Err(from.map_or_else(
                || format!("index.json lists {digest}, which is missing"),
                |(parent, _)| format!("{parent} is made of {digest}, which is missing"),
            ))
        })?;
        let found = |one: &Listed| -> Result<Found, String> {
            let needs = self.walk([&one.digest], |digest, _| Ok(self.blobs.contains(digest)))?;
            Ok(Found {
                references: one.reference.iter().cloned().collect(),
                said: one.said.clone().filter(|_| one.reference.is_none()),
                digest: one.digest.clone(),
                size: one.size,
                media_type: one.media_type.clone(),
                made: None,
                needs: sorted(needs.into_iter().cloned()),
            })
        };
        Ok(Summary {
            images: index.iter().map(found).collect::<Result<_, _>>()?,
            unlisted: self.unlisted(&reached),
        })
    }

    fn saved(&self) -> Result<Summary, String> {
        let made = self.docker.images().map_err(|error| error.to_string())?;
        let reached = made.iter().flat_map(|one| &one.blobs).collect();
        let media_type = MediaType::parse(DOCKER_MANIFEST).ok_or("no media type")?;
        let found = |one: &super::docker::Made| Found {
            references: one.names.clone(),
            said: None,
            digest: Digest::of(&one.manifest),
            size: u64::try_from(one.manifest.len()).unwrap_or(u64::MAX),
            media_type: media_type.clone(),
            made: Some(one.manifest.clone()),
            needs: sorted(one.blobs.iter().cloned().chain([Digest::of(&one.manifest)])),
        };
        Ok(Summary {
            images: made.iter().map(found).collect(),
            unlisted: self.unlisted(&reached),
        })
    }

    fn unlisted(&self, reached: &HashSet<&Digest>) -> Vec<Digest> {
        let all = self.blobs.iter();
        let mut left: Vec<_> = all
            .filter(|digest| !reached.contains(*digest))
            .cloned()
            .collect();
        left.sort();
        left
    }

    /// Goes through everything that `roots` lead to. `judge` says of each whether it is here, and of what manifest it is a part, with whether it is one
    /// itself.
    fn walk<'a>(
        &'a self,
        roots: impl IntoIterator<Item = &'a Digest>,
        judge: impl Fn(&Digest, Option<(&Digest, bool)>) -> Result<bool, String>,
    ) -> Result<HashSet<&'a Digest>, String> {
        let mut open: Vec<&Digest> = Vec::new();
        let (mut reached, mut opened) = (HashSet::new(), HashSet::new());
        for root in roots {
            if judge(root, None)? {
                open.push(root);
            }
            reached.insert(root);
        }
        while let Some(digest) = open.pop() {
            if !opened.insert(digest) {
                continue;
            }
            let edges = self
                .edges
                .get(digest)
                .ok_or_else(|| format!("{digest} is listed as a manifest and is none"))?;
            for (to, is_manifest) in edges {
                let here = judge(to, Some((digest, *is_manifest)))?;
                reached.insert(to);
                if here && *is_manifest {
                    open.push(to);
                }
            }
        }
        Ok(reached)
    }
}

/// The same archive is the same summary, however its index was walked.
fn sorted(digests: impl Iterator<Item = Digest>) -> Vec<Digest> {
    let mut digests: Vec<Digest> = digests.collect();
    digests.sort();
    digests
}
