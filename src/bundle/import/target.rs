//! Who gets an image, and the record that lets it be there.

use std::sync::Arc;

use serde_json::Value;

use super::closure::Closure;
use crate::bundle::archive::ImageRef;
use crate::cache::{KeepError, KeptImage, KeptManifest, PullThrough};
use crate::oci::{Digest, Reference, Tag};
use crate::overlay::{self, Intake, Local, TakenManifest, Takeover};
use crate::repository::{Repository, Snapshot};
use crate::store::{Store, StoreError};

/// Who gets an image.
#[derive(Debug)]
pub(super) enum Target {
    /// The cache of a remote, which keeps it.
    Remote(PullThrough),
    /// A local repository.
    Local(Local),
}

impl Target {
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Remote(remote) => remote.key(),
            Self::Local(local) => local.key(),
        }
    }
}

/// Why an image is not imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(
        "no repository here has the key `{0}` or serves a host of that name; name one with --to KEY"
    )]
    Nowhere(String),
    #[error("`{0}` is a local repository; name it with --to {0} if the image is to go there")]
    Local(String),
    #[error(
        "the virtual repository `{0}` has no remote that takes this name; name another repository with --to KEY"
    )]
    NoMember(String),
    #[error("`{0}` is a manifest of it and cannot be read: {1}")]
    Manifest(Digest, String),
    #[error("{0} is needed by its manifests, and neither here nor named by the bundle")]
    Undeclared(Digest),
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error(transparent)]
    Local_(#[from] overlay::Error),
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
}

/// Who gets an image: the repository that was named, else the one that a pull of its name would ask.
pub(super) fn target(
    there: &Snapshot,
    to: Option<&str>,
    image: &ImageRef,
) -> Result<Target, Refused> {
    let definitions = there.definitions();
    let (word, key) = match to {
        Some(to) => (to, definitions.by_key(to)),
        None => (image.host(), definitions.by_key_or_host(image.host())),
    };
    let found = key.and_then(|key| there.get(key));
    let found = found.ok_or_else(|| Refused::Nowhere(word.to_owned()))?;
    match found {
        Repository::Remote(remote) => Ok(Target::Remote(remote.clone())),
        Repository::Local(local) if to.is_some() || local.key() == image.host() => {
            Ok(Target::Local(local.clone()))
        }
        Repository::Local(local) => Err(Refused::Local(local.key().to_owned())),
        Repository::Virtual(several) => {
            let local = to.and_then(|_| several.deploy_to(image.name())).cloned();
            let remote = || several.remote_for(image.name()).cloned();
            local
                .map(Target::Local)
                .or_else(|| remote().map(Target::Remote))
                .ok_or_else(|| Refused::NoMember(several.key().to_string()))
        }
    }
}

/// Links an image where it goes, in one record. Answers what became of it.
pub(super) async fn link(
    store: &Store,
    target: &Target,
    meant: &Meant<'_>,
    closure: Closure,
    event: Value,
) -> Result<&'static str, Refused> {
    match target {
        Target::Remote(remote) => meant.keep_in(store, remote, closure, event).await,
        Target::Local(local) => meant.link_in(local, closure, event).await,
    }
}

/// What a name is to mean.
#[derive(Debug)]
pub(super) struct Meant<'a> {
    pub(super) image: &'a ImageRef,
    pub(super) digest: &'a Digest,
    /// Whether a tag that is there already stays what it is.
    pub(super) keep_tags: bool,
}

impl Meant<'_> {
    async fn keep_in(
        &self,
        store: &Store,
        remote: &PullThrough,
        closure: Closure,
        event: Value,
    ) -> Result<&'static str, Refused> {
        let (name, reference) = (self.image.name(), self.image.reference());
        let now = remote.kept().await.map_err(KeepError::from)?;
        let there = now
            .iter()
            .find(|row| row.name == name.as_str() && row.reference == reference.to_string());
        let manifests = closure.manifests.iter();
        let mut bytes: u64 = manifests.map(|(.., bytes)| bytes.len() as u64).sum();
        for blob in &closure.blobs {
            bytes += store.open_blob(blob).await?.map_or(0, |blob| blob.size());
        }
        match there {
            Some(row) if row.digest == *self.digest && row.bytes == bytes && row.missing == 0 => {
                return Ok("unchanged");
            }
            Some(row) if row.digest == *self.digest => {}
            Some(_) if self.keep_tags => return Ok("kept"),
            Some(_) | None => {}
        }
        let manifests = closure.manifests.into_iter();
        let image = KeptImage {
            digest: self.digest.clone(),
            manifests: manifests
                .map(|(digest, manifest, bytes)| KeptManifest {
                    digest,
                    media_type: manifest.media_type().clone(),
                    bytes,
                })
                .collect(),
            blobs: closure.blobs,
        };
        remote
            .keep(name, reference, &image, !self.keep_tags, event)
            .await?;
        Ok("imported")
    }

    async fn link_in(
        &self,
        local: &Local,
        closure: Closure,
        event: Value,
    ) -> Result<&'static str, Refused> {
        let name = self.image.name();
        let tags: Vec<Tag> = match self.image.reference() {
            Reference::Tag(tag) => {
                match local.tag(name, tag).await {
                    Ok(there) if there == *self.digest => {
                        let manifests = closure.manifests.iter().map(|(digest, ..)| digest);
                        let mut all_here = true;
                        for digest in manifests.chain(&closure.blobs) {
                            all_here = all_here && local.has(name, digest).await?;
                        }
                        if all_here {
                            return Ok("unchanged");
                        }
                    }
                    Ok(_) if self.keep_tags => return Ok("kept"),
                    Ok(_) | Err(_) => {}
                }
                vec![tag.clone()]
            }
            Reference::Digest(_) => Vec::new(),
        };
        let mut intake = Intake::sparse();
        for blob in closure.blobs {
            intake.hold(local, &blob);
            intake.blob(blob, true);
        }
        for (digest, manifest, bytes) in closure.manifests {
            intake.hold(local, &digest);
            let taken = TakenManifest {
                media_type: manifest.media_type().clone(),
                bytes,
                digest: digest.clone(),
            };
            let tags = if digest == *self.digest {
                tags.clone()
            } else {
                Vec::new()
            };
            intake.manifest(taken, manifest, tags)?;
        }
        let takeover = Takeover {
            intake: Arc::new(intake),
            source: None,
            properties: Vec::new(),
            event,
            cause: "imported",
            dry_run: false,
        };
        local.take_over(name, takeover).await?;
        Ok("imported")
    }
}
