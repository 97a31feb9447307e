//! Reading what was pushed: blobs, manifests, tags, referrers, names.

use bytes::Bytes;

use super::{Error, Local, Properties};
use crate::clock::Wall;
use crate::oci::manifest::MANIFEST_MAX;
use crate::oci::{Descriptor, Digest, MediaType, Name, Tag, referrers};
use crate::store::Blob;
use crate::store::index::{HistoryRow, ImageState};

/// A manifest that was pushed, as it was pushed.
#[derive(Debug, Clone)]
pub struct OpenManifest {
    /// Its digest.
    pub digest: Digest,
    /// The media type it was pushed with.
    pub media_type: MediaType,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Local {
    /// Opens a blob that the image may read.
    pub async fn open_blob(&self, name: &Name, digest: &Digest) -> Result<Blob, Error> {
        // Before the look: who is told that it is here may count on it for a while.
        self.shared.inner.touched.note(&self.key, name, digest);
        if !self
            .store()
            .index()
            .is_linked(&self.key, name, digest)
            .await?
        {
            return Err(Error::BlobUnknown);
        }
        let blob = self.store().open_blob(digest).await?;
        blob.ok_or(Error::BlobUnknown)
    }

    /// A manifest of the image, by digest.
    pub async fn manifest(&self, name: &Name, digest: &Digest) -> Result<OpenManifest, Error> {
        let index = self.store().index();
        let absent = || Error::ManifestUnknown;
        if !index.is_linked(&self.key, name, digest).await? {
            return Err(absent());
        }
        let row = index.manifest(digest).await?.ok_or_else(absent)?;
        let blob = self.store().open_blob(digest).await?.ok_or_else(absent)?;
        let bytes = blob.read_whole(MANIFEST_MAX).await?;
        Ok(OpenManifest {
            digest: digest.clone(),
            media_type: MediaType::parse(&row.media_type).ok_or_else(absent)?,
            bytes,
        })
    }

    /// What a tag of the image means.
    pub async fn tag(&self, name: &Name, tag: &Tag) -> Result<Digest, Error> {
        let row = self.store().index().tag(&self.key, name, tag).await?;
        row.map(|row| row.served).ok_or(Error::ManifestUnknown)
    }

    /// Whether the image has that content.
    pub async fn has(&self, name: &Name, digest: &Digest) -> Result<bool, Error> {
        let index = self.store().index();
        Ok(index.is_linked(&self.key, name, digest).await?)
    }

    /// When a tag of the image was last pushed.
    pub async fn tag_pushed(&self, name: &Name, tag: &Tag) -> Result<Wall, Error> {
        let row = self.store().index().tag(&self.key, name, tag).await?;
        // The same digest pushed again moves nothing, and yet is a push.
        row.map(|row| row.checked).ok_or(Error::ManifestUnknown)
    }

    /// What there is of an image.
    pub async fn state(&self, name: &Name) -> Result<ImageState, Error> {
        Ok(self.store().index().image_state(&self.key, name).await?)
    }

    /// Every tag of the image, sorted. An image without tags has an empty list; one that is not there is an error.
    pub async fn tags(&self, name: &Name) -> Result<Vec<String>, Error> {
        let index = self.store().index();
        let tags = index.known_tags(&self.key, name).await?;
        if tags.is_empty() && !index.has_image(&self.key, name).await? {
            return Err(Error::NameUnknown);
        }
        Ok(tags)
    }

    /// The properties that somebody set for a tag.
    pub async fn properties(&self, name: &Name, tag: &Tag) -> Result<Properties, Error> {
        Ok(self
            .store()
            .index()
            .properties(&self.key, name, tag)
            .await?)
    }

    /// What a tag meant over time, the latest first.
    pub async fn history(&self, name: &Name, tag: &Tag) -> Result<Vec<HistoryRow>, Error> {
        Ok(self.store().index().history(&self.key, name, tag).await?)
    }

    /// What refers to a manifest: what was pushed with it as its subject, and what old clients listed under the fallback tag.
    pub async fn referrers(&self, name: &Name, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let index = self.store().index();
        let known = index.known_referrers(&self.key, name, subject).await?;
        let mut list: Vec<Descriptor> = known
            .into_iter()
            .filter_map(|(digest, row)| {
                let descriptor = Descriptor::new(&row.media_type, digest, row.size).ok()?;
                Some(
                    descriptor
                        .with_artifact_type(row.artifact_type)
                        .with_annotations(row.annotations),
                )
            })
            .collect();
        let fallback = referrers::fallback_tag(subject);
        if let Ok(digest) = self.tag(name, &fallback).await
            && let Ok(manifest) = self.manifest(name, &digest).await
            && let Ok(listed) = referrers::parse_index(&manifest.bytes)
        {
            for descriptor in listed {
                let is_new = list
                    .iter()
                    .all(|known| known.digest() != descriptor.digest());
                // What was deleted since is not there any more.
                if is_new
                    && index
                        .is_linked(&self.key, name, descriptor.digest())
                        .await?
                {
                    list.push(descriptor);
                }
            }
        }
        list.sort_by(|a, b| a.digest().cmp(b.digest()));
        Ok(list)
    }

    /// The images that have a tag or a manifest, sorted.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        Ok(self.store().index().names(&self.key).await?)
    }
}
