//! What of an image is pushed. Pure.

use std::collections::HashSet;

use crate::oci::{Digest, Tag, referrers};
use crate::repository::{Gathered, GatheredBlob, GatheredManifest};

/// All that goes to the other registry for one image.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    /// What the tag will mean.
    pub(super) top: &'a GatheredManifest,
    /// Each behind all that it needs, that one among them.
    pub(super) manifests: Vec<&'a GatheredManifest>,
    pub(super) blobs: Vec<&'a GatheredBlob>,
    /// What stands under tags made of a digest; without lists of referrers, which the registry keeps itself or we make.
    pub(super) tags: Vec<(&'a Tag, &'a GatheredManifest)>,
}

/// Why an image cannot be pushed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} of its platforms were chosen, and a registry takes an index only with all of them; choose one platform, or leave --platform out"
)]
pub struct NotWhole(usize);

impl<'a> Chosen<'a> {
    /// All of it; where one platform was taken out of an index, that image.
    pub(super) fn of(gathered: &'a Gathered) -> Result<Option<Self>, NotWhole> {
        let there: HashSet<&Digest> = gathered.manifests.iter().map(|one| &one.digest).collect();
        let lists = lists(gathered);
        let is_whole = |one: &GatheredManifest| {
            let mut children = one.manifest.children().iter();
            children.all(|child| there.contains(child.digest()))
        };
        let Some(top) = gathered.top() else {
            return Ok(None);
        };
        let all = gathered.manifests.iter();
        let all: Vec<&GatheredManifest> = all.filter(|one| !lists.contains(&one.digest)).collect();
        if all.iter().all(|one| is_whole(one)) {
            return Ok(Some(Self::made(gathered, top, all)));
        }
        let images = gathered.platforms.iter();
        let images: Vec<&GatheredManifest> = images
            .filter(|(platform, _)| platform.os() != "unknown")
            .filter_map(|(_, digest)| gathered.manifest(digest))
            .filter(|one| one.manifest.children().is_empty())
            .collect();
        let [one] = images.as_slice() else {
            return Err(NotWhole(images.len()));
        };
        // What is about the index is about something that does not go along.
        let mut goes: HashSet<&Digest> = [&one.digest].into();
        let mut chosen: Vec<&GatheredManifest> = vec![one];
        for other in all {
            let subject = other.manifest.subject();
            if subject.is_some_and(|subject| goes.contains(subject.digest()))
                && goes.insert(&other.digest)
            {
                chosen.push(other);
            }
        }
        let own = referrers::fallback_tag(&one.digest);
        let about = gathered.tags.iter().filter(|(tag, _)| {
            let rest = tag.as_str().strip_prefix(own.as_str());
            rest.is_some_and(|rest| rest.starts_with('.'))
        });
        for (_, digest) in about {
            if let Some(kept) = gathered.manifest(digest)
                && kept.manifest.children().is_empty()
                && goes.insert(&kept.digest)
            {
                chosen.push(kept);
            }
        }
        Ok(Some(Self::made(gathered, one, chosen)))
    }

    fn made(
        gathered: &'a Gathered,
        top: &'a GatheredManifest,
        manifests: Vec<&'a GatheredManifest>,
    ) -> Self {
        let edges = manifests.iter().flat_map(|one| one.manifest.edges());
        let needed: HashSet<&Digest> = edges.map(|(_, edge)| edge.digest()).collect();
        let goes: HashSet<&Digest> = manifests.iter().map(|one| &one.digest).collect();
        let tags = gathered.tags.iter().filter_map(|(tag, digest)| {
            let kept = gathered.manifest(digest)?;
            goes.contains(digest).then_some((tag, kept))
        });
        Self {
            top,
            blobs: gathered
                .blobs
                .iter()
                .filter(|blob| needed.contains(&blob.digest))
                .collect(),
            tags: tags.collect(),
            manifests,
        }
    }
}

/// The lists of referrers that stand under tags. They say what there is at one registry, so another one gets its own.
fn lists(gathered: &Gathered) -> HashSet<&Digest> {
    let subjects = gathered.manifests.iter();
    let names: HashSet<Tag> = subjects
        .map(|one| referrers::fallback_tag(&one.digest))
        .collect();
    let tags = gathered.tags.iter();
    tags.filter(|(tag, _)| names.contains(tag))
        .map(|(_, digest)| digest)
        .collect()
}
