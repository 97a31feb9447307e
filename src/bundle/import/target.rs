//! Who gets an image, and the record that lets it be there.

use std::sync::Arc;

use serde_json::Value;

use super::closure::Closure;
use crate::bundle::archive::ImageRef;
use crate::cache::{KeepError, KeptImage, KeptManifest, PullThrough};
use crate::clock::Wall;
use crate::oci::{Digest, Reference, Tag};
use crate::overlay::{self, Intake, Local, TakenManifest, Takeover};
use crate::repository::{Repository, Snapshot};
use crate::store::StoreError;

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
    #[error(
        "`{held_by}` holds this name, so that `{asked}` asks no remote for it, and nobody could pull what is imported; give the image another name, or import it with --to {held_by}"
    )]
    Hidden { asked: String, held_by: String },
    #[error(transparent)]
    Repository(#[from] crate::repository::Error),
    #[error("`{0}` is a manifest of it and cannot be read: {1}")]
    Manifest(Digest, String),
    #[error("{0} is needed by its manifests, and neither here nor named by the bundle")]
    Undeclared(Digest),
    #[error(
        "the tag {0} means {1} in the local repository `{2}`; name that with --to {2} if the tag is to move"
    )]
    Moves(Tag, Digest, String),
    #[error("the tag {0} is frozen to {1} here; `roadstead unpin` lets it go")]
    Frozen(Tag, Digest),
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error(transparent)]
    Local_(#[from] overlay::Error),
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
}

/// Who gets an image: the repository that was named, else the one that a pull of its name would ask.
pub(super) async fn target(
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
        // A bundle says what its images are called; which tags of a local repository move for it, somebody here says.
        Repository::Local(local) if to.is_some() || local.key() == image.host() => {
            Ok(Target::Local(local.clone()))
        }
        Repository::Local(local) => Err(Refused::Local(local.key().to_owned())),
        Repository::Virtual(several) => {
            let local = to.and_then(|_| several.deploy_to(image.name())).cloned();
            if let Some(local) = local {
                return Ok(Target::Local(local));
            }
            let remote = several.remote_for(image.name()).cloned();
            let remote = remote.ok_or_else(|| Refused::NoMember(several.key().to_string()))?;
            let holder = several.holder(image.name()).await?;
            match holder {
                None => Ok(Target::Remote(remote)),
                Some(local) => Err(Refused::Hidden {
                    asked: several.key().to_string(),
                    held_by: local.key().to_owned(),
                }),
            }
        }
    }
}

/// Links an image where it goes, in one record. Answers what became of it.
pub(super) async fn link(
    target: &Target,
    meant: &Meant<'_>,
    closure: Closure,
    event: Value,
) -> Result<&'static str, Refused> {
    match target {
        Target::Remote(remote) => meant.keep_in(remote, closure, event).await,
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
    /// Whether such a tag may be moved at all.
    pub(super) moves: bool,
    /// Since when it has waited, where it has. A tag that was set after that means what came later.
    pub(super) since: Option<Wall>,
}

impl Meant<'_> {
    async fn keep_in(
        &self,
        remote: &PullThrough,
        closure: Closure,
        event: Value,
    ) -> Result<&'static str, Refused> {
        let name = self.image.name();
        let is_late = self.is_late(remote).await?;
        let by_digest = Reference::Digest(self.digest.clone());
        let reference = if is_late {
            &by_digest
        } else {
            self.image.reference()
        };
        let mut means_it = true;
        if let Reference::Tag(tag) = reference {
            if let Some(frozen) = remote.pinned(name, tag).filter(|one| one != self.digest) {
                return Err(Refused::Frozen(tag.clone(), frozen));
            }
            let served = remote.served(name, tag).await;
            means_it = served.as_ref() == Some(self.digest);
            if served.is_some() && !means_it && self.keep_tags {
                return Ok("kept");
            }
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
        let is_kept = remote.is_kept_as(name, reference, &image).await;
        if means_it && is_kept.map_err(KeepError::from)? {
            return Ok("unchanged");
        }
        remote.keep(name, reference, &image, true, event).await?;
        Ok("imported")
    }

    /// Whether its tag was given to another image since it began to wait.
    async fn is_late(&self, remote: &PullThrough) -> Result<bool, Refused> {
        let Some(since) = self.since else {
            return Ok(false);
        };
        let (name, tag) = (self.image.name(), self.image.reference().to_string());
        let kept = remote.kept().await.map_err(KeepError::from)?;
        let mut kept = kept.iter();
        let there = kept.find(|row| row.name == name.as_str() && row.reference == tag);
        Ok(there.is_some_and(|row| row.digest != *self.digest && row.at > since))
    }

    async fn link_in(
        &self,
        local: &Local,
        closure: Closure,
        event: Value,
    ) -> Result<&'static str, Refused> {
        let name = self.image.name();
        let mut tags: Vec<Tag> = match self.image.reference() {
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
                    Ok(there) if !self.moves => {
                        let key = local.key().to_owned();
                        return Err(Refused::Moves(tag.clone(), there, key));
                    }
                    Ok(_) | Err(_) => {}
                }
                vec![tag.clone()]
            }
            Reference::Digest(_) => Vec::new(),
        };
        if let (Some(since), Reference::Tag(tag)) = (self.since, self.image.reference())
            && local.tag_pushed(name, tag).await.is_ok_and(|at| at > since)
        {
            tags.clear();
        }
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
