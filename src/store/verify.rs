//! Looking at everything that is here: every blob hashed, what is damaged moved aside.

use super::shared::Shared;
use super::{Config, OpenError, Store, StoreError, blocking};
use crate::oci::Digest;
use std::sync::Arc;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// How many blobs are what their digests say.
    pub good: u64,
    /// The others.
    pub damaged: Vec<Digest>,
}

impl Store {
    /// Moves the index of a store aside that nobody has open; the next [`Store::open`] makes it anew.
    pub fn forget_index(config: &Config) -> Result<(), OpenError> {
        super::start::forget_index(&config.path)
    }

    /// Hashes every blob. What does not agree with its digest goes into quarantine.
    pub async fn verify(&self) -> Result<Verified, StoreError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || verify(&shared)).await?
    }
}

fn verify(shared: &Shared) -> Result<Verified, StoreError> {
    let mut verified = Verified::default();
    for (algorithm, prefix) in super::layout::shards() {
        let (digests, _others) = shared.layout.shard(algorithm, &prefix)?;
        for digest in digests {
            match shared.hash(&digest) {
                Ok(None) => {}
                Ok(Some(found)) if found == digest => verified.good += 1,
                Ok(Some(_)) | Err(_) => {
                    shared.quarantine(&digest, "its bytes do not hash to its digest")?;
                    verified.damaged.push(digest);
                }
            }
        }
    }
    Ok(verified)
}
