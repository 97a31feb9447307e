//! Damaged blobs that are kept for a look: a few, the oldest go first, and all of them before anything else when room is needed.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::oci::Digest;

/// Files kept at most.
const FILES_MAX: usize = 8;

/// The files in quarantine, oldest first, with their sizes.
#[derive(Debug)]
pub(super) struct Quarantine(Mutex<VecDeque<(String, u64)>>);

impl Quarantine {
    /// Starts with the files that an earlier run left, oldest first.
    pub(super) fn new(files: impl IntoIterator<Item = (String, u64)>) -> Self {
        Self(Mutex::new(files.into_iter().collect()))
    }

    /// A name that no other file has.
    pub(super) fn name(digest: &Digest, stamp: i64) -> String {
        format!("{}-{}.{stamp}", digest.algorithm().as_str(), digest.hex())
    }

    /// Enters a file; answers those that must make way.
    pub(super) fn enter(&self, name: String, size: u64) -> Vec<(String, u64)> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.push_back((name, size));
        let surplus = files.len().saturating_sub(FILES_MAX);
        files.drain(..surplus).collect()
    }

    /// Takes the oldest out, to remove it.
    pub(super) fn pop(&self) -> Option<(String, u64)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}
