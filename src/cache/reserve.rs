//! What a pull quota lets a tag do: it moves only where everything that the move makes clients ask for can be paid for.
//!
//! A client that is told of a new digest asks for it, and then for one of its children; each costs a pull. So that nobody is led away from
//! what is cached to what may not be fetched, the pulls are set aside before a client is told (`limits.keep_quota`).

use super::error::Error;
use super::learn::recall;
use super::manifests::{OpenManifest, Stored, Want};
use super::pull_through::PullThrough;
use super::status::{CacheStatus, Outcome, Reason};
use crate::oci::manifest::Manifest;
use crate::oci::media_type::ManifestKind;
use crate::oci::{Digest, MediaType, Name};
use crate::store::index::TagRow;
use crate::upstream::Hops;

/// The most children of an index that pulls are set aside for.
const CHILDREN_MAX: u64 = 16;

impl PullThrough {
    /// Whether clients may be told that a tag means `digest` now. Nothing is lost by that where it is here.
    pub(super) async fn may_move(
        &self,
        row: &TagRow,
        digest: &Digest,
        media_type: &str,
    ) -> Result<bool, Error> {
        let upstream = &self.inner.upstream;
        if upstream.keep_quota() == 0 || self.load(digest).await?.is_some() {
            return Ok(true);
        }
        let is_index = MediaType::parse(media_type)
            .is_some_and(|media_type| media_type.kind() == Some(ManifestKind::Index));
        let children = if is_index {
            self.children_in_use(&row.served).await?.max(1)
        } else {
            0
        };
        Ok(upstream.promise_pulls(digest, 1 + children))
    }

    /// How many children of an index clients have asked for: as many will be asked for of the next one.
    async fn children_in_use(&self, digest: &Digest) -> Result<u64, Error> {
        let Some(index) = self.load(digest).await? else {
            return Ok(0);
        };
        let Ok(index) = Manifest::parse(&index.bytes, Some(&index.media_type)) else {
            return Ok(0);
        };
        let (config, store) = (&self.inner.config, &self.inner.shared.store);
        let mut count = 0;
        for child in index.children() {
            let here = store.open_blob(child.digest());
            if recall("manifest", config.offline, here).await?.is_some() {
                count += 1;
            }
        }
        Ok(count.min(CHILDREN_MAX))
    }

    /// An index has come: what was set aside for it is for its children now.
    pub(super) fn pass_promise_on(&self, manifest: &Stored) {
        let upstream = &self.inner.upstream;
        if upstream.keep_quota() > 0
            && manifest.media_type.kind() == Some(ManifestKind::Index)
            && let Ok(index) = Manifest::parse(&manifest.bytes, Some(&manifest.media_type))
        {
            upstream.pass_promise_on(&manifest.digest, index.children().iter());
        }
    }

    /// What a tag meant before it moved to what may not be fetched.
    pub(super) async fn serve_kept(
        &self,
        hops: &Hops,
        name: &Name,
        row: &TagRow,
        want: Want,
    ) -> Result<OpenManifest, Error> {
        let status = CacheStatus::new(Outcome::Stale, Reason::QuotaKept);
        self.serve_old(hops, name, row, want, status).await
    }
}
