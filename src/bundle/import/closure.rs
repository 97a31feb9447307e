//! All of an image that is in the store, as its manifests say it.

use std::collections::HashSet;

use bytes::Bytes;

use super::target::Refused;
use crate::oci::Digest;
use crate::oci::manifest::{EdgeKind, MANIFEST_MAX, Manifest};
use crate::store::Store;

/// All of an image, as its manifests say it.
#[derive(Default)]
pub(super) struct Closure {
    pub(super) manifests: Vec<(Digest, Manifest, Bytes)>,
    pub(super) blobs: Vec<Digest>,
}

impl Closure {
    /// Walks what is in the store. What a manifest names must be there, platforms that nobody chose aside.
    pub(super) async fn of(
        store: &Store,
        top: &Digest,
        needs: &[(Digest, u64)],
    ) -> Result<Self, Refused> {
        let needed: HashSet<&Digest> = needs.iter().map(|(digest, _)| digest).collect();
        let mut closure = Self::default();
        let mut seen = HashSet::new();
        closure.manifest(store, &needed, top, &mut seen).await?;
        // What is about the image is led to by nothing but its own subject.
        for (digest, size) in needs {
            let may_be = usize::try_from(*size).is_ok_and(|size| size <= MANIFEST_MAX);
            if !seen.contains(digest) && may_be {
                let bytes = whole(store, digest).await?;
                let manifest = Manifest::parse(&bytes, None);
                if manifest.is_ok_and(|manifest| {
                    manifest.subject().is_some() || !manifest.children().is_empty()
                }) {
                    closure.manifest(store, &needed, digest, &mut seen).await?;
                }
            }
        }
        for (digest, _) in needs {
            if seen.insert(digest.clone()) {
                closure.blobs.push(digest.clone());
            }
        }
        Ok(closure)
    }

    async fn manifest(
        &mut self,
        store: &Store,
        needs: &HashSet<&Digest>,
        digest: &Digest,
        seen: &mut HashSet<Digest>,
    ) -> Result<(), Refused> {
        if !seen.insert(digest.clone()) {
            return Ok(());
        }
        let bytes = whole(store, digest).await?;
        let manifest = Manifest::parse(&bytes, None)
            .map_err(|error| Refused::Manifest(digest.clone(), error.to_string()))?;
        for (kind, edge) in manifest.edges() {
            let to = edge.digest();
            match kind {
                EdgeKind::Subject => {}
                EdgeKind::Child if needs.contains(to) => {
                    Box::pin(self.manifest(store, needs, to, seen)).await?;
                }
                // A platform that this bundle does not carry; one that an earlier one brought stays with the image.
                EdgeKind::Child => {
                    let mut more = Self::default();
                    let mut met = seen.clone();
                    let whole = Box::pin(more.manifest(store, needs, to, &mut met)).await;
                    if whole.is_ok() {
                        self.manifests.append(&mut more.manifests);
                        self.blobs.append(&mut more.blobs);
                        *seen = met;
                    }
                }
                EdgeKind::Config | EdgeKind::Layer if seen.contains(to) => {}
                EdgeKind::Config | EdgeKind::Layer => {
                    let is_foreign = kind == EdgeKind::Layer && !edge.urls().is_empty();
                    if store.open_blob(to).await?.is_some() {
                        seen.insert(to.clone());
                        self.blobs.push(to.clone());
                    } else if !is_foreign {
                        return Err(Refused::Undeclared(to.clone()));
                    }
                }
            }
        }
        self.manifests.push((digest.clone(), manifest, bytes));
        Ok(())
    }
}

/// A manifest of the store.
async fn whole(store: &Store, digest: &Digest) -> Result<Bytes, Refused> {
    let blob = store.open_blob(digest).await?;
    let blob = blob.ok_or_else(|| Refused::Undeclared(digest.clone()))?;
    let bytes = blob.read_whole(MANIFEST_MAX).await;
    bytes.map_err(|error| Refused::Manifest(digest.clone(), error.to_string()))
}
