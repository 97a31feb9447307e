//! Taking an image over from somewhere else in the store, and out of where it was: one record of the journal.

use std::collections::{BTreeMap, HashSet};

use super::collect::live;
use super::{Error, Intake, Local};
use crate::clock;
use crate::oci::{Digest, Name, Tag};
use crate::store::Change;
use crate::store::index::ManifestRow;

/// Properties: keys with their values.
pub type Properties = BTreeMap<String, Vec<String>>;

/// What is taken over.
#[derive(Debug)]
pub struct Takeover<'a> {
    /// What the target gets.
    pub intake: &'a Intake,
    /// What goes from where it was.
    pub source: Option<MoveOut<'a>>,
    /// Properties that tags have from now on.
    pub properties: Vec<(Tag, Properties)>,
    /// What the audit record says.
    pub event: serde_json::Value,
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
        let _images = locks.images(target, other).await;
        let intake = takeover.intake;
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
        let mut settled = intake.settle(self, name, "promoted", now).await?;
        let mut changes = std::mem::take(&mut settled.changes);
        changes.extend(gone);
        for (tag, properties) in takeover.properties {
            let set = (properties, Vec::new());
            changes.push((
                Change::set_properties(&self.key, name, &tag, set, now),
                None,
            ));
        }
        changes.push((Change::event(&self.key, name, takeover.event, now), None));
        self.store().commit_changes(changes).await?;
        drop(settled);
        self.retain(name, &tags).await
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
        let is_same_image = local.key() == target && name == target_name;
        let now = clock::now();
        let mut changes = Vec::new();
        let index = local.store().index();
        let mut holdings = index.holdings(&local.key, name).await?;
        let stays =
            |tag: &Tag| is_same_image && intake.manifests().any(|(_, wanted)| wanted.contains(tag));
        let mut dropped = HashSet::new();
        for (tag, digest) in &self.tags {
            let is_there = holdings
                .tags
                .iter()
                .any(|(there, served, _)| there == tag && served == digest);
            if !is_there || stays(tag) {
                continue;
            }
            if local.is_immutable(tag) {
                return Err(Error::Immutable(tag.clone()));
            }
            changes.push((Change::drop_tag(&local.key, name, tag, now), None));
            dropped.insert(tag.clone());
        }
        if is_same_image {
            return Ok(changes);
        }
        holdings.tags.retain(|(tag, ..)| !dropped.contains(tag));
        let live = live(&holdings);
        for (digest, _) in intake.manifests() {
            let is_there = holdings
                .links
                .iter()
                .any(|link| link.is_manifest && link.digest == *digest);
            if is_there && !live.contains(digest) {
                changes.push((Change::drop_manifest(&local.key, name, digest, now), None));
            }
        }
        Ok(changes)
    }
}
