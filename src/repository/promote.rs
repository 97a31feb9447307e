//! Promotion: an image becomes an image of a local repository, digests and all, with its signatures. No byte is copied.
//!
//! What tags mean is looked up once. The closure of each (children, configs, layers, referrers, what cosign keeps under tags of its own) is
//! brought into the store and held; then one record of the journal links all of it, moves the tags, and says who did it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::oci::{Digest, Name, Reference, Tag, referrers};
use crate::overlay::{self, Intake, Local, MoveOut, TakenManifest, Takeover};
use crate::upstream::Hops;

use super::Error;
use super::borrow::{Route, tags_about};
use super::image::Repository;

/// What is to be promoted.
#[derive(Debug)]
pub struct Promotion<'a> {
    /// From where, and which image there.
    pub from: (&'a Repository, &'a Name),
    /// Where to, and as which image.
    pub into: (&'a Local, &'a Name),
    /// One tag and what it is called there; `None`: all of them, as they are called.
    pub tag: Option<(Tag, Tag)>,
    /// Whether the source keeps it.
    pub copy: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Who wants it.
    pub who: &'a str,
}

/// What was promoted, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promoted {
    /// The tag there, the tag here, what it means.
    pub tags: Vec<(Tag, Tag, Digest)>,
    /// Every manifest.
    pub manifests: Vec<Digest>,
    /// How many blobs they need.
    pub blobs: usize,
}

impl Promotion<'_> {
    /// Does it, all or nothing.
    pub async fn run(&self, hops: &Hops) -> Result<Promoted, Error> {
        let route = Route {
            hops,
            from: self.from,
            into: self.into,
            everything: true,
        };
        let mut intake = Intake::default();
        let mut tags = Vec::new();
        for (tag, target) in self.tags().await? {
            let digest = self.tagged(&route, &tag, &target, &mut intake).await?;
            tags.push((tag, target, digest));
        }
        let named: Vec<_> = tags
            .iter()
            .map(|(tag, _, digest): &(Tag, Tag, Digest)| (tag.clone(), digest.clone()))
            .collect();
        let about = self.about(&route, &mut intake).await?;
        let intake = Arc::new(intake);
        tags.extend(
            about
                .iter()
                .map(|(tag, digest, _)| (tag.clone(), tag.clone(), digest.clone())),
        );
        let promoted = Promoted {
            manifests: intake
                .manifests()
                .map(|(digest, _)| digest.clone())
                .collect(),
            blobs: intake.blobs(),
            tags,
        };
        let (local, name) = self.into;
        let source = match self.from.0 {
            Repository::Local(source) if !self.copy => Some(MoveOut {
                local: source,
                name: self.from.1,
                tags: named,
                about,
            }),
            Repository::Local(_) | Repository::Remote(_) | Repository::Virtual(_) => None,
        };
        let mut properties = Vec::new();
        if let Repository::Local(source) = self.from.0 {
            for (tag, target, _) in &promoted.tags {
                let set = source.properties(self.from.1, tag).await?;
                properties.push((target.clone(), set));
            }
        }
        properties.retain(|(_, set)| !set.is_empty());
        let takeover = Takeover {
            properties,
            intake,
            source,
            event: self.event(&promoted),
            cause: "promoted",
            dry_run: self.dry_run,
        };
        local.take_over(name, takeover).await?;
        Ok(promoted)
    }

    /// The tags, and what they will be called.
    async fn tags(&self) -> Result<Vec<(Tag, Tag)>, Error> {
        if let Some((tag, target)) = &self.tag {
            return Ok(vec![(tag.clone(), target.clone())]);
        }
        let (from, name) = self.from;
        let tags = match from {
            Repository::Local(local) => local.tags(name).await?,
            // What nobody has pulled is not there to be promoted; a registry may have thousands.
            Repository::Remote(remote) => remote.known_tags(name).await?,
            Repository::Virtual(_) => return Err(Error::ReadOnly),
        };
        let tags: Vec<(Tag, Tag)> = tags
            .iter()
            .filter_map(|tag| Tag::parse(tag).ok())
            .map(|tag| (tag.clone(), tag))
            .collect();
        if tags.is_empty() {
            return Err(overlay::Error::NameUnknown.into());
        }
        Ok(tags)
    }

    /// Takes what a tag means, and all below it.
    async fn tagged(
        &self,
        route: &Route<'_>,
        tag: &Tag,
        target: &Tag,
        intake: &mut Intake,
    ) -> Result<Digest, Error> {
        let taken = route.read(&Reference::Tag(tag.clone())).await?;
        let digest = taken.digest.clone();
        let taken = self.merged(taken, target).await;
        route.take(taken, vec![target.clone()], intake).await?;
        Ok(digest)
    }

    /// A referrers' fallback list keeps what the target's own list has; anything else stays as it is.
    async fn merged(&self, taken: TakenManifest, target: &Tag) -> TakenManifest {
        let (local, name) = self.into;
        let hex = target.as_str().strip_prefix("sha256-").unwrap_or_default();
        let is_fallback = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_fallback {
            return taken;
        }
        let Ok(there) = local.tag(name, target).await else {
            return taken;
        };
        let Ok(there) = local.manifest(name, &there).await else {
            return taken;
        };
        let (Ok(mut list), Ok(known)) = (
            referrers::parse_index(&taken.bytes),
            referrers::parse_index(&there.bytes),
        ) else {
            return taken;
        };
        let here: HashSet<Digest> = list.iter().map(|entry| entry.digest().clone()).collect();
        let more = known
            .into_iter()
            .filter(|entry| !here.contains(entry.digest()));
        let before = list.len();
        list.extend(more);
        if list.len() == before {
            return taken;
        }
        let bytes = Bytes::from(referrers::render_index(&list));
        TakenManifest {
            digest: Digest::of(&bytes),
            bytes,
            ..taken
        }
    }

    /// Takes what is about the manifests that were taken: referrers, and tags made of a digest. Answers those tags.
    async fn about(
        &self,
        route: &Route<'_>,
        intake: &mut Intake,
    ) -> Result<Vec<(Tag, Digest, Digest)>, Error> {
        let (from, name) = self.from;
        let mut tags = Vec::new();
        let mut seen = HashSet::new();
        let mut queue: VecDeque<Digest> = intake
            .manifests()
            .map(|(digest, _)| digest.clone())
            .collect();
        while let Some(digest) = queue.pop_front() {
            if !seen.insert(digest.clone()) {
                continue;
            }
            let before = intake.manifests().count();
            let referrers = match from.referrers(route.hops, name, &digest).await {
                Ok(found) => found.what.0,
                // What nobody could ask about may have signatures: then it does not go without them.
                Err(error) if error.is_nothing() => Vec::new(),
                Err(error) => return Err(error),
            };
            for referrer in referrers {
                if !intake.has(referrer.digest()) {
                    match route.manifest(referrer.digest(), intake).await {
                        Err(error) if error.is_absence() => {}
                        taken => taken?,
                    }
                }
            }
            for tag in tags_about(from, route.hops, name, &digest).await? {
                if self.tag.is_none() && !matches!(from, Repository::Remote(_)) {
                    // All tags go anyway.
                    continue;
                }
                let means = self.tagged(route, &tag, &tag, intake).await?;
                tags.push((tag, means, digest.clone()));
            }
            let new = intake.manifests().skip(before);
            queue.extend(new.map(|(digest, _)| digest.clone()));
        }
        Ok(tags)
    }

    /// The audit record.
    fn event(&self, promoted: &Promoted) -> serde_json::Value {
        let (from, from_name) = self.from;
        let (into, into_name) = self.into;
        let tags: Vec<_> = promoted
            .tags
            .iter()
            .map(|(tag, target, digest)| {
                serde_json::json!({
                    "tag": tag.as_str(),
                    "targetTag": target.as_str(),
                    "digest": digest.to_string(),
                })
            })
            .collect();
        serde_json::json!({
            "action": "promote",
            "who": self.who,
            "copy": self.copy,
            "from": { "repository": from.key(), "image": from_name.as_str() },
            "to": { "repository": into.key(), "image": into_name.as_str() },
            "tags": tags,
        })
    }
}
