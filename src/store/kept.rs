//! Room for what is kept. It is refused before anything is fetched, with the sizes: half an image that is kept is of no use to anybody,
//! and a cache that is full of what must stay can cache nothing (DECISIONS 12).

use std::sync::Arc;

use super::room::INDEX_ROOM;
use super::shared::Shared;
use super::{NoRoomToKeep, Store, StoreError, blocking};
use crate::oci::Digest;

impl Store {
    /// Whether these can be kept, each with its size: beside what is kept already they must fit `max_size`, and what of them is not here
    /// yet the disk above `min_free`, everything gone from it that may be evicted.
    pub async fn check_kept_room(&self, wanted: &[(Digest, u64)]) -> Result<(), StoreError> {
        let (shared, wanted) = (Arc::clone(&self.shared), wanted.to_vec());
        blocking(move || shared.check_kept_room(&wanted)).await?
    }
}

impl Shared {
    fn check_kept_room(&self, wanted: &[(Digest, u64)]) -> Result<(), StoreError> {
        self.wait_for_figures();
        let demand = self.index.demand(wanted)?;
        let kept = self.index.kept_bytes();
        let after = kept.saturating_add(demand.more);
        // What is here and would be kept makes no room.
        let here = demand.more - demand.missing;
        let evictable = self.budget.books().used();
        let evictable = evictable.saturating_sub(kept).saturating_sub(here);
        let floor = self.config.min_free.max(INDEX_ROOM);
        let free = self.layout.free()?.saturating_sub(floor);
        let free = free.saturating_add(evictable);
        let max_size = self.budget.limit();
        if after <= max_size && demand.missing <= free {
            return Ok(());
        }
        Err(NoRoomToKeep {
            need: demand.more,
            kept,
            max_size,
            missing: demand.missing,
            free,
        }
        .into())
    }
}
