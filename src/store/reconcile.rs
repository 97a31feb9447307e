//! Bringing files and rows together after an unclean stop or the loss of the index. Runs behind the start, never in its way.
//!
//! Only names are listed; sizes are taken of files without a row, and nothing is hashed: what is adopted is suspect and hashed at its
//! first use. Rows without a file are dropped.

use std::collections::HashSet;

use tracing::{info, warn};

use super::StoreError;
use super::index::{NewBlob, State};
use super::layout;
use super::shared::Shared;
use crate::clock::{self, Wall};
use crate::oci::{Algorithm, Digest};

/// Files that are adopted in one go, their digests being held meanwhile.
const BATCH: usize = 128;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Found {
    adopted: u64,
    dropped: u64,
    others: usize,
}

impl Shared {
    /// Compares all shards; stops early when `stopped` says so, and then the store stays unsettled. Blocks.
    pub(super) fn reconcile(&self, stopped: impl Fn() -> bool) {
        let mut found = Found::default();
        for (algorithm, prefix) in layout::shards() {
            if stopped() {
                return;
            }
            if let Err(error) = self.reconcile_shard(algorithm, &prefix, &mut found) {
                warn!(shard = prefix, %error, "files and index cannot be compared; what is missing in the index is found when asked for");
            }
        }
        if found.others > 0 {
            warn!(
                files = found.others,
                "names among the blobs that are no digests; left alone"
            );
        }
        info!(
            adopted = found.adopted,
            dropped = found.dropped,
            "files and index agree"
        );
        self.settled.set();
    }

    fn reconcile_shard(
        &self,
        algorithm: Algorithm,
        prefix: &str,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let (files, others) = self.layout.shard(algorithm, prefix)?;
        let rows = self
            .index
            .blobs_under(&format!("{}:{prefix}", algorithm.as_str()))?;
        found.others += others;
        let files: HashSet<Digest> = files.into_iter().collect();
        let rows: HashSet<Digest> = rows.into_iter().collect();
        let orphans: Vec<&Digest> = files.difference(&rows).collect();
        for batch in orphans.chunks(BATCH) {
            found.adopted += self.adopt(batch)?;
        }
        for digest in rows.difference(&files) {
            let _key = self.keys.lock(digest);
            if self.layout.open_blob(digest)?.is_none() && self.drop_row(digest)? {
                found.dropped += 1;
            }
        }
        Ok(())
    }

    /// Enters files that have no row, as suspect.
    fn adopt(&self, digests: &[&Digest]) -> Result<u64, StoreError> {
        let _keys: Vec<_> = digests
            .iter()
            .map(|digest| self.keys.lock(digest))
            .collect();
        let now = clock::now();
        let mut blobs = Vec::with_capacity(digests.len());
        for digest in digests {
            // Gone or no plain file by now: nothing to adopt.
            let Some(file) = self.layout.open_blob(digest)? else {
                continue;
            };
            let metadata = file.metadata()?;
            let modified = metadata
                .modified()
                .ok()
                .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
                .and_then(|age| i64::try_from(age.as_millis()).ok())
                .map_or(now, Wall::from_ms);
            blobs.push(NewBlob {
                digest: (*digest).clone(),
                size: metadata.len(),
                manifest: false,
                pushed: false,
                state: State::Suspect,
                // The nearest thing to a last use that is left. A time in the future would outlive everything.
                last_use: modified.min(now).as_ms(),
                added: now,
            });
        }
        let adopted = self.index.adopt_blobs(blobs)?;
        self.budget.blobs_adopted(&adopted);
        Ok(u64::try_from(adopted.len()).unwrap_or(u64::MAX))
    }
}
