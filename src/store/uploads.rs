//! Files that push sessions write: `uploads/<id>` holds the bytes, `uploads/<id>.json` says whose they are.
//!
//! What a session holds is its file's length, so a restart knows the offset exactly. Nothing here is durable before
//! [`UploadFile::publish`], which takes the full sequence: content, name, row (DECISIONS 9).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::holds::Hold;
use super::layout::Place;
use super::shared::{Class, Kept, Shared, hash_prefix};
use super::{Blob, StageError, Store, StoreError, blocking};
use crate::clock::Wall;
use crate::oci::{Algorithm, Digest, Hasher};

/// The longest note about a session.
const NOTE_MAX: u64 = 16 * 1024;
/// How often the free room is looked at while an upload grows.
const ROOM_STEP: u64 = 16 << 20;

/// A file that a push session writes. Dropping it leaves the file for later.
#[derive(Debug)]
pub struct UploadFile {
    shared: Arc<Shared>,
    id: String,
    file: Arc<File>,
    length: u64,
    looked: u64,
}

/// A session's file that an earlier run left.
#[derive(Debug)]
pub struct FoundUpload {
    /// What was noted about it.
    pub note: Vec<u8>,
    /// When it was last written.
    pub modified: Wall,
    /// The file.
    pub file: UploadFile,
}

fn note_name(id: &str) -> String {
    format!("{id}.json")
}

impl Store {
    /// Makes the file of a new session. `id` must be unique and a plain file name; `note` is given back by [`Self::uploads`].
    pub async fn create_upload(&self, id: String, note: Vec<u8>) -> Result<UploadFile, StageError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let note_file = shared.layout.open_file(Place::Uploads, &note_name(&id))?;
            note_file.write_all_at(&note, 0)?;
            let file = shared.layout.open_file(Place::Uploads, &id)?;
            Ok(UploadFile {
                file: Arc::new(file),
                id,
                length: 0,
                looked: 0,
                shared,
            })
        })
        .await?
    }

    /// The sessions that an earlier run left. What is no session is removed. To be called once, before any is made.
    pub async fn uploads(&self) -> io::Result<Vec<FoundUpload>> {
        let shared = Arc::clone(&self.shared);
        blocking(move || find(&shared)).await?
    }

    /// Keeps what is about to be linked from being evicted or collected.
    pub fn hold(&self, digest: &Digest) -> Hold {
        self.shared.holds.hold(digest)
    }

    /// Stores pushed content that is in memory (a manifest), durably. The caller holds its digest.
    pub async fn put_pushed(&self, hold: &Hold, bytes: Bytes) -> Result<Blob, StoreError> {
        let (shared, digest) = (Arc::clone(&self.shared), hold.digest().clone());
        blocking(move || {
            let name = shared.scratch_name(&digest);
            let written = shared.layout.open_staged(&name).and_then(|file| {
                file.write_all_at(&bytes, 0)?;
                file.sync_all()?;
                Ok(file)
            });
            let class = Class {
                manifest: true,
                pushed: true,
            };
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            match written {
                Ok(file) => shared.publish_durably(
                    (Place::Staging, &name),
                    &digest,
                    (file.into(), size),
                    class,
                ),
                Err(error) => {
                    shared.remove_staged(&name);
                    Err(StageError::from(error).into())
                }
            }
        })
        .await?
    }

    /// Writes changes of local repositories down, durably, and takes them into the index: they stand or fall together, and readers see them
    /// before or after. Each comes with the row of the manifest that it brings.
    pub async fn commit_changes(
        &self,
        changes: Vec<(super::Change, Option<super::index::ManifestRow>)>,
    ) -> Result<(), StoreError> {
        self.commit_keeping(changes, Vec::new()).await
    }

    /// The same; `keep` is let go of when it is done, even if the caller has gone away before.
    pub async fn commit_keeping(
        &self,
        changes: Vec<(super::Change, Option<super::index::ManifestRow>)>,
        keep: Vec<super::Keep>,
    ) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.shared.journal.commit(changes, keep).await
    }
}

fn find(shared: &Arc<Shared>) -> io::Result<Vec<FoundUpload>> {
    let files = shared.layout.files(Place::Uploads)?;
    let mut found = Vec::new();
    for entry in &files {
        let Some(id) = entry.name.strip_suffix(".json") else {
            let noted = files
                .iter()
                .any(|other| other.name == note_name(&entry.name));
            if !noted {
                shared.remove_file((Place::Uploads, &entry.name));
            }
            continue;
        };
        let data = files.iter().find(|other| other.name == id);
        let (Some(data), true) = (data, entry.size <= NOTE_MAX) else {
            shared.remove_file((Place::Uploads, &entry.name));
            continue;
        };
        let note_file = shared.layout.open_file(Place::Uploads, &entry.name)?;
        let mut note = vec![0; usize::try_from(entry.size).unwrap_or(0)];
        note_file.read_exact_at(&mut note, 0)?;
        let file = shared.layout.open_file(Place::Uploads, id)?;
        shared.upload_bytes.fetch_add(data.size, Ordering::Relaxed);
        found.push(FoundUpload {
            note,
            modified: data.modified,
            file: UploadFile {
                shared: Arc::clone(shared),
                id: id.to_owned(),
                file: Arc::new(file),
                length: data.size,
                looked: data.size,
            },
        });
    }
    Ok(found)
}

impl UploadFile {
    /// The session's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How many bytes it holds.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Appends; `hasher` takes the same bytes in and comes back. After an error the file is as long as before.
    pub async fn append(
        &mut self,
        chunks: Vec<Bytes>,
        mut hasher: Option<Hasher>,
    ) -> Result<Option<Hasher>, StageError> {
        let (shared, file, start) = (
            Arc::clone(&self.shared),
            Arc::clone(&self.file),
            self.length,
        );
        let added: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let look = start + added >= self.looked + ROOM_STEP || start == 0;
        let written = blocking(move || {
            if look && !shared.has_room(added) {
                return Err(StageError::Full);
            }
            let mut at = start;
            for chunk in &chunks {
                if let Err(error) = file.write_all_at(chunk, at) {
                    file.set_len(start)?;
                    return Err(error.into());
                }
                if let Some(hasher) = &mut hasher {
                    hasher.update(chunk);
                }
                at += chunk.len() as u64;
            }
            Ok(hasher)
        })
        .await?;
        let hasher = written?;
        self.length = start + added;
        if look {
            self.looked = self.length;
        }
        self.shared.upload_bytes.fetch_add(added, Ordering::Relaxed);
        Ok(hasher)
    }

    /// Cuts it back to `length` bytes.
    pub async fn truncate(&mut self, length: u64) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        blocking(move || file.set_len(length)).await??;
        self.shared
            .upload_bytes
            .fetch_sub(self.length.saturating_sub(length), Ordering::Relaxed);
        self.length = length;
        Ok(())
    }

    /// What it holds, hashed from the start.
    pub async fn hash(&self, algorithm: Algorithm) -> io::Result<Hasher> {
        let (file, length) = (Arc::clone(&self.file), self.length);
        blocking(move || {
            let mut hasher = algorithm.hasher();
            hash_prefix(&file, &mut hasher, length)?;
            Ok(hasher)
        })
        .await?
    }

    /// Makes it a blob, durably. The caller has compared its digest with what it holds, and holds that digest.
    pub async fn publish(self, hold: &Hold) -> Result<Blob, StoreError> {
        let digest = hold.digest().clone();
        blocking(move || {
            let place = (Place::Uploads, self.id.as_str());
            let length = self.file.metadata()?.len();
            if length < self.length {
                return Err(io::Error::other("the file is shorter than what was written").into());
            }
            // A request that was cut off may have left bytes behind the end.
            if length > self.length {
                self.file.set_len(self.length)?;
            }
            if let Err(error) = self.file.sync_all() {
                // What of it is on disk is unknown, and a second sync would not tell.
                self.forget();
                return Err(error.into());
            }
            let class = Class {
                manifest: false,
                pushed: true,
            };
            let kept = self.shared.publish_durably(
                place,
                &digest,
                (Arc::clone(&self.file), self.length),
                class,
            );
            self.forget();
            kept
        })
        .await?
    }

    /// Removes it.
    pub async fn discard(self) {
        let removed = spawn_blocking(move || self.forget()).await;
        if let Err(error) = removed {
            warn!(%error, "removing an upload broke off; the next start tries again");
        }
    }

    fn forget(&self) {
        self.shared
            .upload_bytes
            .fetch_sub(self.length, Ordering::Relaxed);
        self.shared.remove_file((Place::Uploads, &self.id));
        self.shared
            .remove_file((Place::Uploads, &note_name(&self.id)));
    }
}

impl Shared {
    /// Whether so many more bytes may be written under the limit of the disk.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        match self.layout.free() {
            Ok(free) => free >= bytes.saturating_add(self.config.min_free),
            Err(error) => {
                warn!(%error, "the file system does not say how much is free");
                true
            }
        }
    }

    /// Puts verified, synced content under its name, and that name on disk. The digest is held by the caller.
    fn publish_durably(
        &self,
        staged: (Place, &str),
        digest: &Digest,
        content: (Arc<File>, u64),
        class: Class,
    ) -> Result<Blob, StoreError> {
        let reservation = self.budget.resume_part(0);
        let blob = match self.publish(staged, digest, content, class, reservation) {
            Kept::Blob(blob) => blob,
            Kept::Loose(_loose, error) => return Err(StageError::from(error).into()),
        };
        // A blob that was here already may be one that only the page cache has.
        blob.sync()?;
        self.layout.sync_name(digest)?;
        self.index.blobs_durable(vec![digest.clone()])?;
        Ok(blob)
    }
}
