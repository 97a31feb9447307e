//! Bringing what one repository can read into reach of a local one: the closure of a manifest, fetched where it is not here.
//!
//! No byte is copied inside the store; what a remote has and the store has not comes in through its cache like any pull.

use futures_util::StreamExt as _;
use tracing::debug;

use super::Error;
use super::image::Repository;
use crate::cache::{self, OpenBlob, Promise, Reason, Want};
use crate::oci::manifest::{EdgeKind, Manifest};
use crate::oci::{Accept, Digest, MediaType, Name, Reference, Tag, referrers};
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

/// What cosign puts behind the tag of a digest.
const COSIGN: [&str; 3] = [".sig", ".att", ".sbom"];
/// How deep indexes may be nested (RELIABILITY P38).
pub(super) const DEPTH_MAX: usize = 4;

impl Route<'_> {
    /// Takes what a manifest points to and the target does not have; what the source does not have either stays out.
    pub(super) async fn edges(
        &self,
        manifest: &Manifest,
        intake: &mut Intake,
    ) -> Result<(), Error> {
        self.edges_at(manifest, intake, 0).await
    }

    async fn edges_at(
        &self,
        manifest: &Manifest,
        intake: &mut Intake,
        depth: usize,
    ) -> Result<(), Error> {
        let (local, name) = self.into;
        for (kind, descriptor) in manifest.edges() {
            let digest = descriptor.digest();
            let is_foreign = kind == EdgeKind::Layer && !descriptor.urls().is_empty();
            let is_left_out = is_foreign && !self.is_linked(digest).await;
            if kind == EdgeKind::Subject || is_left_out || intake.has(digest) {
                continue;
            }
            intake.hold(local, digest);
            if !self.everything && local.open_blob(name, digest).await.is_ok() {
                continue;
            }
            let taken = if kind == EdgeKind::Child {
                if depth >= DEPTH_MAX {
                    return Err(overlay::Error::TooDeep.into());
                }
                Box::pin(self.manifest_at(digest, intake, depth + 1)).await
            } else {
                self.blob(digest, intake).await
            };
            match taken {
                Err(error) if error.is_absence() => {}
                // It can do without: clients have its URLs.
                Err(error) if is_foreign => {
                    debug!(%digest, %error, "a foreign layer is not taken along");
                }
                taken => taken?,
            }
        }
        Ok(())
    }

    /// Whether the source is known to have a blob, so that a foreign layer that was cached or pushed goes along.
    async fn is_linked(&self, digest: &Digest) -> bool {
        let (from, name) = self.from;
        match from {
            Repository::Remote(remote) => remote.knows(name, digest).await,
            Repository::Local(local) => local.open_blob(name, digest).await.is_ok(),
            Repository::Virtual(_) => false,
        }
    }

    /// Takes a manifest and all that it points to.
    pub(super) async fn manifest(&self, digest: &Digest, intake: &mut Intake) -> Result<(), Error> {
        self.manifest_at(digest, intake, 0).await
    }

    async fn manifest_at(
        &self,
        digest: &Digest,
        intake: &mut Intake,
        depth: usize,
    ) -> Result<(), Error> {
        let taken = self.read(&Reference::Digest(digest.clone())).await?;
        self.take_at(taken, Vec::new(), intake, depth).await
    }

    /// Takes a manifest that was read, under these tags, and all that it points to.
    pub(super) async fn take(
        &self,
        taken: TakenManifest,
        tags: Vec<Tag>,
        intake: &mut Intake,
    ) -> Result<(), Error> {
        self.take_at(taken, tags, intake, 0).await
    }

    async fn take_at(
        &self,
        taken: TakenManifest,
        tags: Vec<Tag>,
        intake: &mut Intake,
        depth: usize,
    ) -> Result<(), Error> {
        let manifest =
            Manifest::parse(&taken.bytes, Some(&taken.media_type)).map_err(overlay::Error::from)?;
        self.edges_at(&manifest, intake, depth).await?;
        Ok(intake.manifest(taken, manifest, tags)?)
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
    if open.status().reason() == Reason::DiskFull {
        return Err(overlay::Error::Full.into());
    }
    let mut body = Box::pin(open.read(0, open.size(), Promise::ToEnd));
    while let Some(chunk) = body.next().await {
        chunk.map_err(|_broke_off| cache::Error::GivenUp)?;
    }
    Ok(())
}

/// Tags whose name is made of a digest: the referrers' fallback, and cosign's.
pub(super) async fn tags_about(
    from: &Repository,
    hops: &Hops,
    name: &Name,
    digest: &Digest,
) -> Result<Vec<Tag>, Error> {
    let plain = referrers::fallback_tag(digest);
    let mut found = Vec::new();
    for suffix in [""].iter().chain(&COSIGN) {
        let Ok(tag) = Tag::parse(&format!("{plain}{suffix}")) else {
            continue;
        };
        let reference = Reference::Tag(tag.clone());
        let accept = Accept::everything();
        let asked = from.manifest(hops, name, &reference, &accept, Want::Head);
        match asked.await {
            Ok(_) => found.push(tag),
            Err(error) if error.is_nothing() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
