//! Taking an image over from somewhere else in the store, and out of where it was: one record of the journal.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::collect::live;
use super::intake::Settled;
use super::lock::keep;
use super::{Error, Intake, Local};
use crate::clock;
use crate::oci::{Digest, Name, Tag};
use crate::store::index::ManifestRow;
use crate::store::{Change, Keep};

/// Properties: keys with their values.
pub type Properties = BTreeMap<String, Vec<String>>;

/// What is taken over.
#[derive(Debug)]
pub struct Takeover<'a> {
    /// What the target gets.
    pub intake: Arc<Intake>,
    /// What goes from where it was.
    pub source: Option<MoveOut<'a>>,
    /// Properties that tags have from now on.
    pub properties: Vec<(Tag, Properties)>,
    /// What the audit record says.
    pub event: serde_json::Value,
    /// Why, for the tags' history.
    pub cause: &'static str,
    /// Everything is judged, and nothing is done.
    pub dry_run: bool,
}

/// What goes from a local repository.
#[derive(Debug)]
pub struct MoveOut<'a> {
    /// The repository.
    pub local: &'a Local,
    /// The image.
    pub name: &'a Name,
    /// Its tags, and what they meant when they were looked up.
    pub tags: Vec<(Tag, Digest)>,
    /// Tags made of a digest, which go only when nothing needs that digest here any more: tag, what it means, what it is about.
    pub about: Vec<(Tag, Digest, Digest)>,
}

impl Local {
    /// Takes an image over; a reader sees it before or after.
    pub async fn take_over(&self, name: &Name, takeover: Takeover<'_>) -> Result<(), Error> {
        let locks = &self.shared.inner.locks;
        let target = (&*self.key, name);
        let other = takeover
            .source
            .as_ref()
            .map_or(target, |source| (&*source.local.key, source.name));
        let mut doors = vec![self];
        doors.extend(takeover.source.as_ref().map(|source| source.local));
        // In one order, as the locks: a removal that waits at one of them must not hold two promotions up for good.
        doors.sort_unstable_by_key(|local| local.key());
        doors.dedup_by_key(|local| local.key());
        let mut entered = Vec::new();
        for local in doors {
            entered.push(local.enter().await?);
        }
        let images = locks.images(target, other, entered).await;
        let intake = &takeover.intake;
        let mut tags = Vec::new();
        for (digest, wanted) in intake.manifests() {
            self.check_tags(name, wanted, digest).await?;
            tags.extend(wanted.iter().cloned());
        }
        intake.check(self, name).await?;
        let mut gone = Vec::new();
        if let Some(source) = &takeover.source {
            gone = source.changes(target, intake).await?;
        }
        if takeover.dry_run {
            return Ok(());
        }
        let now = clock::now();
        let Settled { mut changes, holds } = intake.settle(self, name, takeover.cause, now).await?;
        changes.extend(gone);
        for (tag, properties) in takeover.properties {
            let set = (properties, Vec::new());
            changes.push((
                Change::set_properties(&self.key, name, &tag, set, now),
                None,
            ));
        }
        changes.push((Change::event(&self.key, name, takeover.event, now), None));
        let kept: Vec<Keep> = vec![keep(&images), keep(&takeover.intake), Arc::new(holds)];
        self.store().commit_keeping(changes, kept).await?;
        self.retain((name, &images), &tags).await
    }
}

impl MoveOut<'_> {
    /// What has to be written down for the source not to have it any more. A tag that has moved since it was looked up stays.
    async fn changes(
        &self,
        (target, target_name): (&str, &Name),
        intake: &Intake,
    ) -> Result<Vec<(Change, Option<ManifestRow>)>, Error> {
        let (local, name) = (self.local, self.name);
        local.may_delete()?;
        let is_same_image = local.key() == target && name == target_name;
        let now = clock::now();
        let mut holdings = local.store().index().holdings(&local.key, name).await?;
        let kept: HashSet<&Tag> = if is_same_image {
            intake.manifests().flat_map(|(_, tags)| tags).collect()
        } else {
            HashSet::new()
        };
        let mut dropped = HashSet::new();
        for (tag, digest) in &self.tags {
            if holdings.means(tag, digest) && !kept.contains(tag) {
                dropped.insert(tag.clone());
            }
        }
        holdings.tags.retain(|(tag, ..)| !dropped.contains(tag));
        // What is still needed without the tags that are made of a digest keeps those that are about it.
        let about: HashSet<&Tag> = self.about.iter().map(|(tag, ..)| tag).collect();
        let mut plain = holdings.clone();
        plain.tags.retain(|(tag, ..)| !about.contains(tag));
        let needed = live(&plain);
        for (tag, digest, subject) in &self.about {
            if holdings.means(tag, digest) && !needed.contains(subject) && !kept.contains(tag) {
                dropped.insert(tag.clone());
            }
        }
        if let Some(fixed) = dropped.iter().find(|tag| local.is_immutable(tag)) {
            return Err(Error::Immutable(fixed.clone()));
        }
        let drop_tag = |tag| (Change::drop_tag(&local.key, name, tag, now), None);
        let mut changes: Vec<_> = dropped.iter().map(drop_tag).collect();
        if is_same_image {
            return Ok(changes);
        }
        holdings.tags.retain(|(tag, ..)| !dropped.contains(tag));
        let live = live(&holdings);
        let there: HashSet<&Digest> = holdings
            .links
            .iter()
            .filter(|link| link.is_manifest && !live.contains(&link.digest))
            .map(|link| &link.digest)
            .collect();
        let goes = intake
            .manifests()
            .map(|(digest, _)| digest)
            .filter(|digest| there.contains(digest));
        let goes: HashSet<&Digest> = goes.collect();
        // What came to refer to it since it was looked up must not be left behind with nothing to hold it.
        let mut held = holdings.edges.iter();
        if held.any(|(from, to)| goes.contains(from) && there.contains(to) && !goes.contains(to)) {
            return Err(Error::Changed);
        }
        for digest in goes {
            changes.push((Change::drop_manifest(&local.key, name, digest, now), None));
        }
        Ok(changes)
    }
}
