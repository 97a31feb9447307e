//! What is known of a remote's tags without asking, and when upstream was seen to move them.

use super::error::Error;
use super::manifests::Want;
use super::pull_through::{Inner, PullThrough};
use crate::clock::Wall;
use crate::oci::{Accept, Digest, Name, Tag};
use crate::store::index::{HistoryRow, TagRow};
use crate::upstream::Hops;

impl PullThrough {
    /// Whether this tag was seen upstream, and has not been seen to be gone since.
    pub async fn knows_tag(&self, name: &Name, tag: &Tag) -> bool {
        self.pinned(name, tag).is_some()
            || self
                .tag_row(name, tag)
                .await
                .is_some_and(|row| row.gone.is_none())
    }

    /// When upstream was last seen to move a tag, after asking it as far as its TTL is over.
    pub async fn tag_moved(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        accept: &Accept,
    ) -> Result<Wall, Error> {
        if let Some((_, since)) = self.inner.pins.get(name, tag) {
            return Ok(since);
        }
        let row = async || self.tag_row(name, tag).await.ok_or(Error::NotFound);
        self.manifest_by_tag(hops, name, tag, accept, Want::Head)
            .await?;
        let seen = row().await?;
        if seen.observed == seen.served {
            return Ok(seen.moved);
        }
        // It has moved, and what it means now is not here yet.
        self.manifest_by_tag(hops, name, tag, accept, Want::Body)
            .await?;
        Ok(row().await?.moved)
    }

    /// The tags that are known here and not known to be gone, sorted.
    pub async fn known_tags(&self, name: &Name) -> Result<Vec<String>, Error> {
        let Inner { key, shared, .. } = &*self.inner;
        Ok(shared.store.index().known_tags(key, name).await?)
    }

    /// What a tag is served as, as far as that is known here.
    pub async fn served(&self, name: &Name, tag: &Tag) -> Option<Digest> {
        Some(self.tag_row(name, tag).await?.served)
    }

    /// What upstream was last seen to let a tag mean, where that is not what it is served as.
    pub async fn held_back(&self, name: &Name, tag: &Tag) -> Option<Digest> {
        let row = self.tag_row(name, tag).await?;
        (row.observed != row.served).then_some(row.observed)
    }

    /// What upstream was seen to let a tag mean over time, the latest first.
    pub async fn history(&self, name: &Name, tag: &Tag) -> Result<Vec<HistoryRow>, Error> {
        let Inner { key, shared, .. } = &*self.inner;
        Ok(shared.store.index().history(key, name, tag).await?)
    }

    async fn tag_row(&self, name: &Name, tag: &Tag) -> Option<TagRow> {
        let Inner { key, shared, .. } = &*self.inner;
        let row = shared.store.index().tag(key, name, tag).await;
        row.ok().flatten()
    }
}
