//! What an import of some bundles would bring: which images are complete then, and which wait for what.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::contents::Contents;
use super::image_ref::ImageRef;
use crate::oci::Digest;

/// One image and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// Its full name.
    pub reference: ImageRef,
    /// Its manifest or index. Bundles of different times may bring different ones under one name.
    pub digest: Digest,
    /// What is neither here nor in any of the bundles, with sizes, by digest. Nothing: the image is complete.
    pub waits_for: Vec<(Digest, u64)>,
}

impl Outlook {
    /// Whether the image waits for nothing.
    pub const fn is_complete(&self) -> bool {
        self.waits_for.is_empty()
    }
}

/// What becomes of each image of `bundles`, by name and digest, if all of them are imported where `have` says what is there. Their
/// order does not count.
pub fn outlook<'a>(
    bundles: impl IntoIterator<Item = &'a Contents>,
    have: impl Fn(&Digest) -> bool,
) -> Vec<Outlook> {
    let bundles: Vec<&Contents> = bundles.into_iter().collect();
    let carried: HashSet<&Digest> = bundles
        .iter()
        .flat_map(|contents| contents.blobs())
        .map(|blob| &blob.digest)
        .collect();
    let mut waiting: BTreeMap<(&ImageRef, &Digest), BTreeSet<(&Digest, u64)>> = BTreeMap::new();
    for image in bundles.iter().flat_map(|contents| contents.images()) {
        let missing = image
            .needs()
            .filter(|(digest, _)| !carried.contains(digest) && !have(digest));
        waiting
            .entry((image.reference(), image.digest()))
            .or_default()
            .extend(missing);
    }
    let owned = |(digest, size): (&Digest, u64)| (digest.clone(), size);
    waiting
        .into_iter()
        .map(|((reference, digest), missing)| Outlook {
            reference: reference.clone(),
            digest: digest.clone(),
            waits_for: missing.into_iter().map(owned).collect(),
        })
        .collect()
}
