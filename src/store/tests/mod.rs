//! The store on real directories. The harness compares the books with the disk.
#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the files themselves"
)]

mod damage;
mod eviction;
mod full_disk;
mod journal;
mod keeps;
mod recovery;
mod staging;
mod start;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::oci::{Algorithm, Name, Reference};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// A store and what it needs to run.
struct Harness {
    store: Store,
    tasks: Tasks,
    root: PathBuf,
}

impl Harness {
    async fn open(root: &Path) -> Self {
        Self::sized(root, 64 * MIB).await
    }

    async fn sized(root: &Path, max_size: u64) -> Self {
        Self::try_sized(root, max_size).await.expect("opens")
    }

    async fn try_sized(root: &Path, max_size: u64) -> Result<Self, OpenError> {
        let tasks = Tasks::new();
        let config = Config {
            path: root.to_owned(),
            max_size,
            min_free: 0,
        };
        let store = Store::open(config, &tasks).await?;
        Ok(Self {
            store,
            tasks,
            root: root.to_owned(),
        })
    }

    /// Opens the state as `kill -9` would leave it, in a directory of its own.
    async fn after_kill(&self) -> (TempDir, Self) {
        self.after_kill_and(|_root| {}).await
    }

    /// The same, with something done to the files in between.
    async fn after_kill_and(&self, change: impl FnOnce(&Path)) -> (TempDir, Self) {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(&self.root, copy.path());
        change(copy.path());
        let harness = Self::open(copy.path()).await;
        (copy, harness)
    }

    /// Drops the store as a process that dies would, as far as one process can, and opens it again.
    async fn dropped_and_opened(self, max_size: u64) -> Self {
        let Self { store, tasks, root } = self;
        tasks.stop(PATIENCE).await;
        drop(store);
        // The thread of the last fill may still be on its way out.
        let begun = tokio::time::Instant::now();
        loop {
            match Self::try_sized(&root, max_size).await {
                Err(OpenError::Locked { .. }) if begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                other => return other.expect("opens"),
            }
        }
    }

    async fn close(self) {
        self.tasks.stop(PATIENCE).await;
        self.store.close().await;
    }

    /// Waits until files and index were compared, and checks the books against the disk.
    async fn settled(&self) {
        eventually("settled", || self.store.usage().settled).await;
        self.assert_books();
    }

    /// No fill runs, and the books say what lies on disk.
    fn assert_books(&self) {
        let usage = self.store.usage();
        let on_disk = |name: &str| files(&self.root.join(name));
        let blobs = on_disk("blobs");
        assert_eq!(usage.reserved_bytes, 0, "reserved");
        assert_eq!(usage.cached_bytes, sum(&blobs), "blobs");
        assert_eq!(usage.blobs, blobs.len() as u64, "number of blobs");
        assert_eq!(usage.part_bytes, sum(&on_disk("staging")), "parts");
        assert_eq!(
            usage.quarantined_bytes,
            sum(&on_disk("quarantine")),
            "quarantine"
        );
        let totals = self.store.index().totals().unwrap();
        assert_eq!(
            (totals.bytes, totals.blobs),
            (usage.cached_bytes, usage.blobs),
            "index"
        );
    }

    async fn fill(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let mut staged = self
            .store
            .stage(&digest, Some(content.len() as u64))
            .await
            .unwrap();
        assert_eq!(staged.held(), 0);
        for chunk in content.chunks(64 * 1024) {
            staged.append(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        staged.commit().await.unwrap();
        digest
    }

    /// Keeps blobs, as an image without a manifest.
    async fn keep(&self, digest: &Digest, blobs: &[Digest]) {
        let reference = Reference::Digest(digest.clone());
        let keeping = Keeping {
            reference: &reference,
            digest,
            manifests: Vec::new(),
            blobs,
            moves_tag: false,
            origin: None,
        };
        let now = crate::clock::now();
        let change = Change::keep("hub", &Name::parse("a/b").unwrap(), keeping, now);
        let committed = self.store.commit_changes(vec![(change, None)]);
        committed.await.unwrap();
    }

    async fn unkeep(&self, reference: &Digest) {
        let (name, now) = (Name::parse("a/b").unwrap(), crate::clock::now());
        let reference = Reference::Digest(reference.clone());
        let change = Change::unkeep("hub", &name, &reference, now);
        let committed = self.store.commit_changes(vec![(change, None)]);
        committed.await.unwrap();
    }

    async fn has(&self, digest: &Digest) -> bool {
        self.store.open_blob(digest).await.unwrap().is_some()
    }

    async fn content(&self, digest: &Digest) -> Option<Bytes> {
        let blob = self.store.open_blob(digest).await.unwrap()?;
        Some(blob.read_whole(usize::MAX).await.unwrap())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_path(&self.root, digest)
    }
}

fn blob_path(root: &Path, digest: &Digest) -> PathBuf {
    root.join("blobs")
        .join(digest.algorithm().as_str())
        .join(shard_of(digest))
        .join(digest.hex())
}

/// A directory in memory where the machine has one, for tests with very many files or syncs.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_none| tempfile::tempdir().unwrap())
}

/// The directory of a blob's file.
fn shard_of(digest: &Digest) -> &str {
    digest.hex().split_at(2).0
}

/// Bytes that differ from seed to seed and from place to place.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[4]
        })
        .collect()
}

/// All plain files below, with their lengths.
fn files(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push((entry.path(), entry.metadata().unwrap().len()));
        }
    }
    found
}

fn sum(files: &[(PathBuf, u64)]) -> u64 {
    files.iter().map(|(_, length)| length).sum()
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else if kind.is_file() {
            // A file that goes away while the tree is copied would have been gone after the kill too.
            let _gone = fs::copy(entry.path(), &target);
        }
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "never came: {what}");
}
