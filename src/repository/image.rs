//! A repository of either kind, read alike: a remote through its cache, a local one from what was pushed.

use std::sync::Arc;

use super::Error;
use crate::cache::{CacheStatus, OpenBlob, OpenManifest, Outcome, PullThrough, Reason, Told, Want};
use crate::oci::{Accept, Descriptor, Digest, Name, Reference};
use crate::overlay::{self, Local};
use crate::upstream::Hops;

/// A configured repository.
#[derive(Debug, Clone)]
pub enum Repository {
    /// A mirror of a registry elsewhere.
    Remote(PullThrough),
    /// What people push here.
    Local(Local),
}

/// How what was pushed is answered.
const PUSHED: CacheStatus = CacheStatus::new(Outcome::Hit, Reason::Pushed);

impl Repository {
    /// The local repository, where it is one: the only kind that takes writes.
    pub const fn writable(&self) -> Option<&Local> {
        match self {
            Self::Local(local) => Some(local),
            Self::Remote(_) => None,
        }
    }

    /// Opens a blob for reading.
    pub async fn open_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<OpenBlob, Error> {
        match self {
            Self::Remote(remote) => Ok(remote.open_blob(hops, name, digest).await?),
            Self::Local(local) => {
                let blob = local.open_blob(name, digest).await?;
                Ok(OpenBlob::stored(blob, PUSHED))
            }
        }
    }

    /// What is known of a blob without moving its bytes.
    pub async fn stat_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<(Option<u64>, CacheStatus), Error> {
        match self {
            Self::Remote(remote) => Ok(remote.stat_blob(hops, name, digest).await?),
            Self::Local(local) => {
                let blob = local.open_blob(name, digest).await?;
                Ok((Some(blob.size()), PUSHED))
            }
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
    ) -> Result<OpenManifest, Error> {
        match (self, reference) {
            (Self::Remote(remote), Reference::Digest(digest)) => {
                Ok(remote.manifest_by_digest(hops, name, digest, want).await?)
            }
            (Self::Remote(remote), Reference::Tag(tag)) => Ok(remote
                .manifest_by_tag(hops, name, tag, accept, want)
                .await?),
            (Self::Local(local), reference) => {
                let digest = match reference {
                    Reference::Digest(digest) => digest.clone(),
                    Reference::Tag(tag) => local.tag(name, tag).await?,
                };
                Ok(pushed(local.manifest(name, &digest).await?))
            }
        }
    }

    /// Every tag of an image, sorted.
    pub async fn tags(
        &self,
        hops: &Hops,
        name: &Name,
    ) -> Result<(Arc<Vec<String>>, CacheStatus), Error> {
        match self {
            Self::Remote(remote) => Ok(remote.tags(hops, name).await?),
            Self::Local(local) => Ok((Arc::new(local.tags(name).await?), PUSHED)),
        }
    }

    /// What refers to a manifest.
    pub async fn referrers(
        &self,
        hops: &Hops,
        name: &Name,
        subject: &Digest,
    ) -> Result<(Vec<Descriptor>, CacheStatus), Error> {
        match self {
            Self::Remote(remote) => Ok(remote.referrers(hops, name, subject).await?),
            Self::Local(local) => Ok((local.referrers(name, subject).await?, PUSHED)),
        }
    }

    /// The images that are known here, sorted.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        match self {
            Self::Remote(remote) => Ok(remote.names().await?),
            Self::Local(local) => Ok(local.names().await?),
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
