//! A repository of either kind, read alike: a remote through its cache, a local one from what was pushed.

use std::sync::Arc;

use super::Error;
use super::borrow::Route;
use super::key::Key;
use super::virtuals::Virtual;
use crate::cache::{CacheStatus, OpenBlob, OpenManifest, Outcome, PullThrough, Reason, Told, Want};
use crate::oci::manifest::Manifest;
use crate::oci::{Accept, Descriptor, Digest, Name, Reference, Tag};
use crate::overlay::{self, Intake, Local, Put, PutManifest};
use crate::upstream::Hops;

/// What was found, and where: a virtual repository says which member had it.
#[derive(Debug)]
pub struct Found<T> {
    /// What.
    pub what: T,
    /// The member of a virtual repository that had it; `None` where the repository itself did, or several members together.
    pub member: Option<Key>,
}

impl<T> Found<T> {
    pub(super) const fn here(what: T) -> Self {
        Self { what, member: None }
    }

    pub(super) fn of(self, member: &Key) -> Self {
        Self {
            member: Some(self.member.unwrap_or_else(|| member.clone())),
            ..self
        }
    }
}

/// A configured repository.
#[derive(Debug, Clone)]
pub enum Repository {
    /// A mirror of a registry elsewhere.
    Remote(PullThrough),
    /// What people push here.
    Local(Local),
    /// Others under one name.
    Virtual(Virtual),
}

/// How what was pushed is answered.
const PUSHED: CacheStatus = CacheStatus::new(Outcome::Hit, Reason::Pushed);

impl Repository {
    /// The repository key.
    pub fn key(&self) -> &str {
        match self {
            Self::Remote(remote) => remote.key(),
            Self::Local(local) => local.key(),
            Self::Virtual(several) => several.key().as_str(),
        }
    }

    /// A member of a virtual repository.
    pub(super) fn member(&self, key: &Key) -> Option<&Self> {
        match self {
            Self::Virtual(several) => several.member(key),
            Self::Remote(_) | Self::Local(_) => None,
        }
    }

    /// The local repository that takes what is written to this one under a name.
    pub fn writable(&self, name: &Name) -> Option<&Local> {
        match self {
            Self::Local(local) => Some(local),
            Self::Virtual(several) => several.deploy_to(name),
            Self::Remote(_) => None,
        }
    }

    /// Whether it is a local repository, or has one that takes what is written to it.
    pub fn takes_writes(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Virtual(several) => several.target().is_some(),
            Self::Remote(_) => false,
        }
    }

    /// Stores a manifest. Through a virtual repository it may point to what the client can read there under the same name
    /// (DECISIONS 15), where it `may_borrow`.
    pub async fn put_manifest(
        &self,
        hops: &Hops,
        name: &Name,
        put: PutManifest,
        may_borrow: bool,
    ) -> Result<Put, Error> {
        let local = self.writable(name).ok_or(Error::ReadOnly)?;
        let mut borrowed = Intake::default();
        if let Self::Virtual(_) = self
            && may_borrow
            && let Ok(manifest) = Manifest::parse(&put.bytes, put.media_type.as_ref())
        {
            let route = Route {
                hops,
                from: (self, name),
                into: (local, name),
                everything: false,
            };
            route.edges(&manifest, &mut borrowed).await?;
        }
        Ok(local
            .put_manifest_with(name, put, Arc::new(borrowed))
            .await?)
    }

    /// Opens a blob for reading.
    pub async fn open_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<Found<OpenBlob>, Error> {
        match self {
            Self::Remote(remote) => Ok(Found::here(remote.open_blob(hops, name, digest).await?)),
            Self::Local(local) => {
                let blob = local.open_blob(name, digest).await?;
                Ok(Found::here(OpenBlob::stored(blob, PUSHED)))
            }
            Self::Virtual(several) => Box::pin(several.open_blob(hops, name, digest)).await,
        }
    }

    /// What is known of a blob without moving its bytes.
    pub async fn stat_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<Found<(Option<u64>, CacheStatus)>, Error> {
        match self {
            Self::Remote(remote) => Ok(Found::here(remote.stat_blob(hops, name, digest).await?)),
            Self::Local(local) => {
                let blob = local.open_blob(name, digest).await?;
                Ok(Found::here((Some(blob.size()), PUSHED)))
            }
            Self::Virtual(several) => Box::pin(several.stat_blob(hops, name, digest)).await,
        }
    }

    /// A manifest by digest, or by tag in a form that the client accepts.
    pub async fn manifest(
        &self,
        hops: &Hops,
        name: &Name,
        reference: &Reference,
        accept: &Accept,
        want: Want,
    ) -> Result<Found<OpenManifest>, Error> {
        match (self, reference) {
            (Self::Remote(remote), Reference::Digest(digest)) => {
                // Boxed, both: they are far larger than what any other request needs while it waits.
                let manifest = Box::pin(remote.manifest_by_digest(hops, name, digest, want));
                Ok(Found::here(manifest.await?))
            }
            (Self::Remote(remote), Reference::Tag(tag)) => {
                let manifest = Box::pin(remote.manifest_by_tag(hops, name, tag, accept, want));
                Ok(Found::here(manifest.await?))
            }
            (Self::Local(local), reference) => {
                let digest = match reference {
                    Reference::Digest(digest) => digest.clone(),
                    Reference::Tag(tag) => local.tag(name, tag).await?,
                };
                Ok(Found::here(pushed(local.manifest(name, &digest).await?)))
            }
            (Self::Virtual(several), reference) => {
                Box::pin(several.manifest(hops, name, reference, accept, want)).await
            }
        }
    }

    /// Every tag of an image, sorted.
    pub async fn tags(
        &self,
        hops: &Hops,
        name: &Name,
    ) -> Result<Found<(Arc<Vec<String>>, CacheStatus)>, Error> {
        match self {
            Self::Remote(remote) => Ok(Found::here(remote.tags(hops, name).await?)),
            Self::Local(local) => {
                let tags = Arc::new(local.tags(name).await?);
                Ok(Found::here((tags, PUSHED)))
            }
            Self::Virtual(several) => Box::pin(several.tags(hops, name)).await,
        }
    }

    /// What refers to a manifest.
    pub async fn referrers(
        &self,
        hops: &Hops,
        name: &Name,
        subject: &Digest,
    ) -> Result<Found<(Vec<Descriptor>, CacheStatus)>, Error> {
        match self {
            Self::Remote(remote) => Ok(Found::here(remote.referrers(hops, name, subject).await?)),
            Self::Local(local) => {
                let list = local.referrers(name, subject).await?;
                Ok(Found::here((list, PUSHED)))
            }
            Self::Virtual(several) => Box::pin(several.referrers(hops, name, subject)).await,
        }
    }

    /// The images whose name is `path`, or begins with it as a folder; all of them where it is empty.
    pub async fn names_below(&self, path: &str) -> Result<Vec<Name>, Error> {
        let names = match self {
            Self::Local(local) => local.every_name().await?,
            Self::Remote(_) | Self::Virtual(_) => {
                let names = self.names().await?;
                names
                    .iter()
                    .filter_map(|name| Name::parse(name).ok())
                    .collect()
            }
        };
        let is_below = |name: &Name| {
            let rest = name.as_str().strip_prefix(path);
            path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        Ok(names.into_iter().filter(is_below).collect())
    }

    /// Deletes an image; of a remote, what the cache has of it. False where there is nothing.
    pub async fn remove_image(&self, name: &Name) -> Result<bool, Error> {
        match self {
            Self::Local(local) => Ok(local.remove_image(name).await?),
            Self::Remote(remote) => Ok(remote.forget(name).await?),
            Self::Virtual(_) => Err(Error::ReadOnly),
        }
    }

    /// Deletes a tag; of a remote, what the cache knows of it. False where there is none.
    pub async fn remove_tag(&self, name: &Name, tag: &Tag) -> Result<bool, Error> {
        match self {
            Self::Local(local) => match local.delete_tag(name, tag).await {
                Ok(()) => Ok(true),
                Err(overlay::Error::ManifestUnknown) => Ok(false),
                Err(error) => Err(error.into()),
            },
            Self::Remote(remote) => Ok(remote.forget_tag(name, tag).await?),
            Self::Virtual(_) => Err(Error::ReadOnly),
        }
    }

    /// The images that are known here, sorted.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        match self {
            Self::Remote(remote) => Ok(remote.names().await?),
            Self::Local(local) => Ok(local.names().await?),
            Self::Virtual(several) => Box::pin(several.names()).await,
        }
    }
}

fn pushed(manifest: overlay::OpenManifest) -> OpenManifest {
    OpenManifest {
        told: Told {
            digest: manifest.digest,
            media_type: manifest.media_type,
            size: manifest.bytes.len() as u64,
        },
        bytes: Some(manifest.bytes),
        status: PUSHED,
    }
}
