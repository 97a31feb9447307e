//! Bringing what one repository can read into reach of a local one: the closure of a manifest, fetched where it is not here.
//!
//! No byte is copied inside the store; what a remote has and the store has not comes in through its cache like any pull.

use futures_util::StreamExt as _;

use super::Error;
use super::image::Repository;
use crate::cache::{OpenBlob, Promise, Want};
use crate::oci::manifest::{EdgeKind, Manifest};
use crate::oci::{Accept, Digest, MediaType, Name, Reference, Tag};
use crate::overlay::{self, Intake, Local, TakenManifest};
use crate::upstream::Hops;

/// From where, and into what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) hops: &'a Hops,
    /// Who can read it, under which name.
    pub(super) from: (&'a Repository, &'a Name),
    /// Who is to have it, under which name.
    pub(super) into: (&'a Local, &'a Name),
    /// What the target has already is taken too, so that it is known what belongs together.
    pub(super) everything: bool,
}

impl Route<'_> {
    /// Takes what a manifest points to and the target does not have; what the source does not have either stays out.
    pub(super) async fn edges(
        &self,
        manifest: &Manifest,
        intake: &mut Intake,
    ) -> Result<(), Error> {
        let (local, name) = self.into;
        for (kind, descriptor) in manifest.edges() {
            let digest = descriptor.digest();
            let is_foreign = kind == EdgeKind::Layer && !descriptor.urls().is_empty();
            if kind == EdgeKind::Subject || is_foreign || intake.has(digest) {
                continue;
            }
            intake.hold(local, digest);
            if !self.everything && local.open_blob(name, digest).await.is_ok() {
                continue;
            }
            let taken = if kind == EdgeKind::Child {
                Box::pin(self.manifest(digest, intake)).await
            } else {
                self.blob(digest, intake).await
            };
            match taken {
                Err(error) if error.is_absence() => {}
                taken => taken?,
            }
        }
        Ok(())
    }

    /// Takes a manifest and all that it points to.
    pub(super) async fn manifest(&self, digest: &Digest, intake: &mut Intake) -> Result<(), Error> {
        let taken = self.read(&Reference::Digest(digest.clone())).await?;
        self.take(taken, Vec::new(), intake).await
    }

    /// Takes a manifest that was read, under these tags, and all that it points to.
    pub(super) async fn take(
        &self,
        taken: TakenManifest,
        tags: Vec<Tag>,
        intake: &mut Intake,
    ) -> Result<(), Error> {
        let manifest =
            Manifest::parse(&taken.bytes, Some(&taken.media_type)).map_err(overlay::Error::from)?;
        self.edges(&manifest, intake).await?;
        Ok(intake.manifest(taken, tags)?)
    }

    /// Reads a manifest where it comes from.
    pub(super) async fn read(&self, reference: &Reference) -> Result<TakenManifest, Error> {
        let (from, name) = self.from;
        let accept = Accept::everything();
        let found = from.manifest(self.hops, name, reference, &accept, Want::Body);
        let opened = found.await?.what;
        let bytes = opened.bytes.ok_or(overlay::Error::ManifestUnknown)?;
        Ok(TakenManifest {
            digest: opened.told.digest,
            media_type: MediaType::parse(opened.told.media_type.as_str())
                .ok_or(overlay::Error::ManifestUnknown)?,
            bytes,
        })
    }

    async fn blob(&self, digest: &Digest, intake: &mut Intake) -> Result<(), Error> {
        let (from, name) = self.from;
        let open = from.open_blob(self.hops, name, digest).await?.what;
        let fetched = !matches!(from, Repository::Local(_));
        drain(&open).await?;
        intake.blob(digest.clone(), fetched);
        Ok(())
    }
}

/// Waits until all of a blob is in the store.
async fn drain(open: &OpenBlob) -> Result<(), Error> {
    if open.is_verified() {
        return Ok(());
    }
    let mut body = Box::pin(open.read(0, open.size(), Promise::ToEnd));
    while let Some(chunk) = body.next().await {
        chunk.map_err(|error| overlay::Error::Body(error.to_string()))?;
    }
    Ok(())
}
