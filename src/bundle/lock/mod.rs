//! Lock files: what each reference was when somebody looked, so that the same content is fetched and carried later.
//!
//! TOML, written by ourselves so that the same lock is the same bytes whatever a library thinks of spacing: sorted, one line a platform, for
//! diffs in version control. Read strictly. Pure: no network, no store.

mod diff;
mod parse;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet};

pub use diff::{Change, Diff};

use super::list::ListError;
use crate::oci::{Digest, MediaType, Platform, Tag};

/// The version of the format that this program reads and writes.
pub const VERSION: i64 = 1;
/// The most bytes that a lock may have; one of 10,000 images of ten platforms has a quarter of it.
pub const LOCK_MAX: usize = 64 * 1024 * 1024;

/// What was locked, by full reference (`docker.io/library/nginx:1.27`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    images: BTreeMap<String, Locked>,
}

/// Why something cannot be locked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reference} cannot be locked: {problem}")]
pub struct LockError {
    reference: String,
    problem: String,
}

/// One reference and what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// What that is.
    pub media_type: MediaType,
    /// How many bytes it has.
    pub size: u64,
    /// How many bytes all blobs have together, each counted once, of the platforms below.
    pub blobs: u64,
    /// The manifests that come along because they are about it: signatures and the like.
    pub referrers: BTreeSet<Digest>,
    /// What stood under tags that are made of a digest of it (cosign's `sha256-….sig`).
    pub tags: BTreeMap<Tag, Digest>,
    /// The manifests that are taken, with their platforms, of which several may be the same (`unknown/unknown` of attestations) or empty. None where
    /// the reference is no index.
    pub platforms: BTreeSet<(Platform, Digest)>,
}

impl Lock {
    /// Adds a reference, or replaces it. It must be a full one, and what upstream calls its platforms must be names that can be read back.
    pub fn add(&mut self, reference: &str, locked: Locked) -> Result<(), LockError> {
        let wrong = |problem: String| LockError {
            reference: reference.to_owned(),
            problem,
        };
        let full = parse::full_reference(reference).map_err(wrong)?;
        for (platform, _) in &locked.platforms {
            let text = write::platform(platform);
            if parse::platform(&text).as_ref() != Ok(platform) {
                return Err(wrong(format!("its platform {text:?} has no usual name")));
            }
        }
        self.images.insert(full, locked);
        Ok(())
    }

    /// All references, sorted.
    pub fn images(&self) -> impl Iterator<Item = (&str, &Locked)> {
        self.images
            .iter()
            .map(|(name, locked)| (name.as_str(), locked))
    }

    /// One of them.
    pub fn get(&self, reference: &str) -> Option<&Locked> {
        self.images.get(reference)
    }

    /// Reads a lock; `file` is what errors call it.
    pub fn parse(file: &str, text: &str) -> Result<Self, ListError> {
        parse::parse(file, text)
    }

    /// The lock as it stands in a file: the same for the same lock, to the byte.
    pub fn to_text(&self) -> String {
        write::write(self)
    }

    /// What changed from `earlier` to this.
    pub fn diff(&self, earlier: &Self) -> Diff {
        Diff::between(earlier, self)
    }
}
