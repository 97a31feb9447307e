//! What has to come for some images: each blob once, whoever needs it.

use std::collections::{HashMap, HashSet};

use crate::bundle::found::Sought;
use crate::oci::Digest;
use crate::repository::{Gathered, Repository};
use crate::store::{Store, StoreError};

/// All that there is to do.
#[derive(Debug)]
pub(super) struct Plan {
    /// The images, in order.
    pub(super) images: Vec<(Sought, Gathered)>,
    /// Every blob that they are made of, in the order in which the images need them.
    pub(super) blobs: Vec<Need>,
}

/// A blob that is needed.
#[derive(Debug)]
pub(super) struct Need {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) is_here: bool,
    /// Clients can have it from elsewhere.
    pub(super) is_foreign: bool,
    /// By which images.
    pub(super) of: Vec<usize>,
}

impl Plan {
    pub(super) async fn of(
        store: &Store,
        images: Vec<(Sought, Gathered)>,
    ) -> Result<Self, StoreError> {
        let (mut blobs, mut places) = (Vec::<Need>::new(), HashMap::new());
        for (number, (_, gathered)) in images.iter().enumerate() {
            // What was pushed is here and stays.
            if matches!(gathered.repository, Repository::Local(_)) {
                continue;
            }
            for blob in &gathered.blobs {
                let place = *places.entry(blob.digest.clone()).or_insert(blobs.len());
                if let Some(known) = blobs.get_mut(place) {
                    known.of.push(number);
                    continue;
                }
                blobs.push(Need {
                    digest: blob.digest.clone(),
                    size: blob.size,
                    is_here: store.open_blob(&blob.digest).await?.is_some(),
                    is_foreign: blob.is_foreign,
                    of: vec![number],
                });
            }
        }
        Ok(Self { images, blobs })
    }

    fn missing(&self) -> impl Iterator<Item = &Need> {
        self.blobs.iter().filter(|need| !need.is_here)
    }

    /// How many blobs are not here.
    pub(super) fn missing_blobs(&self) -> u64 {
        u64::try_from(self.missing().count()).unwrap_or(u64::MAX)
    }

    /// How many bytes they have.
    pub(super) fn missing_bytes(&self) -> u64 {
        self.missing()
            .fold(0, |all, need| all.saturating_add(need.size))
    }

    /// How many bytes have to come for the sake of one image first.
    pub(super) fn missing_of(&self, image: usize) -> u64 {
        let own = self
            .missing()
            .filter(|need| need.of.first() == Some(&image));
        own.fold(0, |all, need| all.saturating_add(need.size))
    }

    /// Everything that is to be kept, with sizes.
    pub(super) fn pieces(&self) -> Vec<(Digest, u64)> {
        let mut seen = HashSet::new();
        let remote = self.images.iter().map(|(_, gathered)| gathered);
        let remote = remote.filter(|one| matches!(one.repository, Repository::Remote(_)));
        remote
            .flat_map(Gathered::pieces)
            .filter(|(digest, _)| seen.insert(*digest))
            .map(|(digest, size)| (digest.clone(), size))
            .collect()
    }
}
