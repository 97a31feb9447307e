//! Pushing and deleting manifests, tags and blobs.
//!
//! Everything here happens under the image's lock, from the look at what is there to the record that says what is there now.

use std::sync::Arc;

use bytes::Bytes;
use tracing::info;

use super::intake::Settled;
use super::lock::{Guard, keep};
use super::{Error, Intake, Local};
use crate::clock;
use crate::oci::manifest::{EdgeKind, Manifest};
use crate::oci::{Algorithm, Digest, MediaType, Name, Tag};
use crate::store::{Change, Keep};

/// The most tags that one push gives.
pub const TAGS_MAX: usize = 100;

/// A manifest that is pushed.
#[derive(Debug, Clone)]
pub struct PutManifest {
    /// What the client says that its digest is.
    pub digest: Option<Digest>,
    /// Tags that are to mean it.
    pub tags: Vec<Tag>,
    /// The `Content-Type`.
    pub media_type: Option<MediaType>,
    /// Its bytes, which are kept as they are.
    pub bytes: Bytes,
}

/// A manifest that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Its digest, by the algorithm that the client used.
    pub digest: Digest,
    /// What it is about.
    pub subject: Option<Digest>,
}

impl Local {
    /// Stores a manifest, durably, and lets its tags mean it. All of it or nothing.
    pub async fn put_manifest(&self, name: &Name, put: PutManifest) -> Result<Put, Error> {
        self.put_manifest_with(name, put, Arc::default()).await
    }

    /// The same, with what `borrowed` brings linked in the same record.
    pub async fn put_manifest_with(
        &self,
        name: &Name,
        put: PutManifest,
        borrowed: Arc<Intake>,
    ) -> Result<Put, Error> {
        if put.tags.len() > TAGS_MAX {
            return Err(Error::TooManyTags);
        }
        let algorithm = put
            .digest
            .as_ref()
            .map_or(Algorithm::Sha256, Digest::algorithm);
        let manifest = Manifest::parse(&put.bytes, put.media_type.as_ref())?;
        let digest = Digest::of_with(algorithm, &put.bytes);
        if put.digest.is_some_and(|wanted| wanted != digest) {
            return Err(Error::Digest { found: digest });
        }
        let image = self.image(name).await?;
        self.check_tags(name, &put.tags, &digest).await?;
        self.check_edges(name, &manifest, &borrowed).await?;
        borrowed.check(self, name).await?;
        let row = self.store().row_of(&manifest, put.bytes.len()).await;
        let hold = self.store().hold(&digest);
        self.store().put_pushed(&hold, put.bytes).await?;
        let what = (&digest, row.media_type.as_str());
        let now = clock::now();
        let change = Change::put_manifest(&self.key, name, what, &put.tags, "pushed", now);
        let Settled { mut changes, holds } = borrowed.settle(self, name, "pushed", now).await?;
        changes.push((change, Some(row.clone())));
        let kept: Vec<Keep> = vec![keep(&image), keep(&borrowed), Arc::new((holds, hold))];
        self.store().commit_keeping(changes, kept).await?;
        if !put.tags.is_empty() {
            self.retain((name, &image), &put.tags).await?;
        }
        Ok(Put {
            digest,
            subject: row.subject,
        })
    }

    /// Tags that are there and may not change.
    pub(super) async fn check_tags(
        &self,
        name: &Name,
        tags: &[Tag],
        digest: &Digest,
    ) -> Result<(), Error> {
        for tag in tags.iter().filter(|tag| self.is_immutable(tag)) {
            match self.tag(name, tag).await {
                Ok(there) if there != *digest => return Err(Error::Immutable(tag.clone())),
                Ok(_) | Err(Error::ManifestUnknown) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Everything that a manifest points to must be here, in this image: foreign layers and the subject aside.
    pub(super) async fn check_edges(
        &self,
        name: &Name,
        manifest: &Manifest,
        borrowed: &Intake,
    ) -> Result<(), Error> {
        let mut missing = Vec::new();
        for (kind, descriptor) in manifest.edges() {
            let is_foreign = kind == EdgeKind::Layer && !descriptor.urls().is_empty();
            let is_left_out = kind == EdgeKind::Child && borrowed.is_sparse();
            let goes_without = kind == EdgeKind::Subject || is_foreign || is_left_out;
            if goes_without || borrowed.has(descriptor.digest()) {
                continue;
            }
            // Opened, not only looked up: what a manifest is accepted with must be readable.
            match self.open_blob(name, descriptor.digest()).await {
                Ok(_) => {}
                Err(Error::BlobUnknown) => missing.push(descriptor.digest().clone()),
                Err(error) => return Err(error),
            }
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Error::Missing(missing))
        }
    }

    /// Lets the oldest tags go beyond `max_unique_tags`. Those just pushed, and immutable ones, stay.
    pub(super) async fn retain(
        &self,
        (name, image): (&Name, &Guard),
        pushed: &[Tag],
    ) -> Result<(), Error> {
        let most = self.config.max_unique_tags;
        if most == 0 {
            return Ok(());
        }
        let mut tags = self.store().index().local_tags(&self.key, name).await?;
        let surplus = tags.len().saturating_sub(most);
        tags.retain(|(tag, _, _)| !pushed.contains(tag) && !self.is_immutable(tag));
        tags.sort_by(|a, b| (a.2, &a.0).cmp(&(b.2, &b.0)));
        let oldest = tags.into_iter().take(surplus);
        let changes = oldest.map(|(tag, _, _)| {
            info!(repository = &*self.key, %name, %tag, most, "the oldest tag goes");
            let change = Change::drop_tag(&self.key, name, &tag, clock::now());
            (change, None)
        });
        let changes = changes.collect();
        Ok(self
            .store()
            .commit_keeping(changes, vec![keep(image)])
            .await?)
    }

    /// Deletes a tag; what it means stays until it is collected.
    pub async fn delete_tag(&self, name: &Name, tag: &Tag) -> Result<(), Error> {
        self.may_delete()?;
        let image = self.image(name).await?;
        self.tag(name, tag).await?;
        if self.is_immutable(tag) {
            return Err(Error::Immutable(tag.clone()));
        }
        let change = Change::drop_tag(&self.key, name, tag, clock::now());
        Ok(self
            .store()
            .commit_keeping(vec![(change, None)], vec![image])
            .await?)
    }

    /// Deletes a manifest with every tag that means it.
    pub async fn delete_manifest(&self, name: &Name, digest: &Digest) -> Result<(), Error> {
        self.may_delete()?;
        let image = self.image(name).await?;
        self.manifest(name, digest).await?;
        let tags = self.store().index().local_tags(&self.key, name).await?;
        let fixed = tags
            .into_iter()
            .find(|(tag, served, _)| served == digest && self.is_immutable(tag));
        if let Some((tag, _, _)) = fixed {
            return Err(Error::Immutable(tag));
        }
        let change = Change::drop_manifest(&self.key, name, digest, clock::now());
        Ok(self
            .store()
            .commit_keeping(vec![(change, None)], vec![image])
            .await?)
    }

    /// Lets a tag mean a manifest that the image has.
    pub async fn roll_back(
        &self,
        name: &Name,
        tag: &Tag,
        digest: &Digest,
        event: serde_json::Value,
    ) -> Result<(), Error> {
        let image = self.image(name).await?;
        let manifest = self.manifest(name, digest).await?;
        self.check_tags(name, std::slice::from_ref(tag), digest)
            .await?;
        let parsed = Manifest::parse(&manifest.bytes, Some(&manifest.media_type))?;
        let row = self.store().row_of(&parsed, manifest.bytes.len()).await;
        let (what, now) = ((digest, row.media_type.as_str()), clock::now());
        let tags = std::slice::from_ref(tag);
        let change = Change::put_manifest(&self.key, name, what, tags, "rolled back", now);
        let event = Change::event(&self.key, name, event, now);
        let changes = vec![(change, Some(row.clone())), (event, None)];
        Ok(self.store().commit_keeping(changes, vec![image]).await?)
    }

    /// Deletes an image, tags, manifests, blobs; all of it or nothing. False where there is none.
    pub async fn remove_image(&self, name: &Name) -> Result<bool, Error> {
        self.may_delete()?;
        let image = self.image(name).await?;
        let mut holdings = self.store().index().holdings(&self.key, name).await?;
        let fixed = holdings
            .tags
            .iter()
            .find(|(tag, ..)| self.is_immutable(tag));
        if let Some((tag, ..)) = fixed {
            return Err(Error::Immutable(tag.clone()));
        }
        holdings.links.sort_by_key(|link| !link.is_manifest);
        let now = clock::now();
        let changes: Vec<_> = holdings
            .links
            .iter()
            .map(|link| {
                let change = if link.is_manifest {
                    Change::drop_manifest(&self.key, name, &link.digest, now)
                } else {
                    Change::drop_blob(&self.key, name, &link.digest, now)
                };
                (change, None)
            })
            .collect();
        let found = !changes.is_empty();
        self.store().commit_keeping(changes, vec![image]).await?;
        Ok(found)
    }

    /// Deletes a blob that no manifest of the image needs.
    pub async fn delete_blob(&self, name: &Name, digest: &Digest) -> Result<(), Error> {
        self.may_delete()?;
        let image = self.image(name).await?;
        let index = self.store().index();
        match index.local_link(&self.key, name, digest).await? {
            None => Err(Error::BlobUnknown),
            Some((link, needed)) if link.is_manifest || needed => Err(Error::InUse),
            Some(_) => {
                let change = Change::drop_blob(&self.key, name, digest, clock::now());
                Ok(self
                    .store()
                    .commit_keeping(vec![(change, None)], vec![image])
                    .await?)
            }
        }
    }

    pub(super) fn may_delete(&self) -> Result<(), Error> {
        if self.config.delete {
            Ok(())
        } else {
            Err(Error::NoDeletes)
        }
    }
}
