//! Looking at everything that is here: every blob hashed, what is damaged moved aside.

use std::sync::Arc;

use serde_json::{Value, json};

use super::shared::Shared;
use super::{Config, OpenError, Store, StoreError, blocking};
use crate::oci::{Algorithm, Digest};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// How many blobs are what their digests say.
    pub good: u64,
    /// The others.
    pub damaged: Vec<Digest>,
}

impl Verified {
    /// As JSON.
    pub fn to_json(&self) -> Value {
        let damaged: Vec<String> = self.damaged.iter().map(Digest::to_string).collect();
        json!({ "good": self.good, "damaged": damaged })
    }
}

impl Store {
    /// Moves the index of a store aside that nobody has open; the next [`Store::open`] makes it anew.
    pub fn forget_index(config: &Config) -> Result<(), OpenError> {
        super::start::forget_index(&config.path)
    }

    /// The digest of every blob that is here, sorted.
    pub async fn every_digest(&self) -> Result<Vec<Digest>, StoreError> {
        let shared = Arc::clone(&self.shared);
        Ok(blocking(move || shared.index.blobs_under("")).await??)
    }

    /// Hashes every blob, beside whatever else goes on. What does not agree with its digest goes into quarantine. Dropped, it ends soon.
    pub async fn verify(&self) -> Result<Verified, StoreError> {
        let mut all = Verified::default();
        for (algorithm, prefix) in super::layout::shards() {
            let shared = Arc::clone(&self.shared);
            let some = blocking(move || verify(&shared, algorithm, &prefix)).await??;
            all.good += some.good;
            all.damaged.extend(some.damaged);
        }
        Ok(all)
    }
}

fn verify(shared: &Shared, algorithm: Algorithm, prefix: &str) -> Result<Verified, StoreError> {
    let mut verified = Verified::default();
    let (digests, _others) = shared.layout.shard(algorithm, prefix)?;
    for digest in digests {
        match shared.hash(&digest) {
            Ok(None) => {}
            Ok(Some(found)) if found == digest => verified.good += 1,
            Ok(Some(_)) | Err(_) => {
                if shared.quarantine_if_wrong(&digest)? {
                    verified.damaged.push(digest);
                }
            }
        }
    }
    Ok(verified)
}
