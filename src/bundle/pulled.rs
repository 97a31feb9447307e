//! The lock of what was pulled, from the record of pulls and from what is in the store. Nobody is asked: what is not here any more is not
//! locked, and that is said.

use std::collections::{BTreeMap, BTreeSet};

use super::lock::{Lock, Locked};
use crate::oci::manifest::{EdgeKind, MANIFEST_MAX, Manifest, ManifestError};
use crate::oci::{Digest, Platform};
use crate::repository::records::Pulled;
use crate::repository::{AllSettings, Key, host_of};
use crate::store::Store;

/// Why something that was pulled is not locked.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("its manifest {0} is not here any more")]
    Gone(Digest),
    #[error("its manifest {0} cannot be read: {1}")]
    Unreadable(Digest, ManifestError),
    #[error("nobody took an image of its index {0}")]
    IndexAlone(Digest),
    #[error("its index {0} has another index in it")]
    Nested(Digest),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Lock(#[from] super::lock::LockError),
}

/// What was pulled, as a lock.
#[derive(Debug, Default)]
pub struct PulledLock {
    /// What can be locked.
    pub lock: Lock,
    /// The rest: its reference, and why.
    pub left_out: Vec<(String, String)>,
}

/// The full name of something that was pulled, without tag and digest. What no host serves is called by its repository's key.
pub fn name(settings: &AllSettings, pulled: &Pulled) -> String {
    let host = Key::parse(&pulled.repository)
        .ok()
        .and_then(|key| host_of(settings, &key));
    let head = host.as_deref().unwrap_or(&pulled.repository);
    format!("{head}/{}", pulled.image)
}

/// Locks all of it.
pub async fn lock(settings: &AllSettings, store: &Store, all: &[Pulled]) -> PulledLock {
    let mut done = PulledLock::default();
    for pulled in all {
        let name = name(settings, pulled);
        let reference = match &pulled.tag {
            Some(tag) => format!("{name}:{tag}"),
            None => format!("{name}@{}", pulled.digest),
        };
        let locked = locked(store, pulled).await;
        let added = locked.and_then(|locked| Ok(done.lock.add(&reference, locked)?));
        if let Err(why) = added {
            done.left_out.push((reference, why.to_string()));
        }
    }
    done
}

async fn locked(store: &Store, pulled: &Pulled) -> Result<Locked, Why> {
    let (top, size) = read(store, &pulled.digest).await?;
    let mut blobs = BTreeMap::new();
    let mut platforms: BTreeSet<(Platform, Digest)> = BTreeSet::new();
    count(&top, &mut blobs);
    for child in top.children() {
        if !pulled.platforms.contains(child.digest()) {
            continue;
        }
        let (manifest, _) = read(store, child.digest()).await?;
        if !manifest.children().is_empty() {
            return Err(Why::Nested(pulled.digest.clone()));
        }
        count(&manifest, &mut blobs);
        let platform = child.platform().cloned().unwrap_or_default();
        platforms.insert((platform, child.digest().clone()));
    }
    if !top.children().is_empty() && platforms.is_empty() {
        return Err(Why::IndexAlone(pulled.digest.clone()));
    }
    Ok(Locked {
        digest: pulled.digest.clone(),
        media_type: top.media_type().clone(),
        size,
        blobs: blobs.values().sum(),
        referrers: BTreeSet::new(),
        tags: BTreeMap::new(),
        platforms,
    })
}

/// The sizes of a manifest's blobs, each once.
fn count(manifest: &Manifest, blobs: &mut BTreeMap<Digest, u64>) {
    for (kind, descriptor) in manifest.edges() {
        if matches!(kind, EdgeKind::Config | EdgeKind::Layer) {
            blobs.insert(descriptor.digest().clone(), descriptor.size());
        }
    }
}

async fn read(store: &Store, digest: &Digest) -> Result<(Manifest, u64), Why> {
    let blob = store.open_blob(digest).await?;
    let blob = blob.ok_or_else(|| Why::Gone(digest.clone()))?;
    let bytes = blob.read_whole(MANIFEST_MAX).await?;
    let manifest =
        Manifest::parse(&bytes, None).map_err(|error| Why::Unreadable(digest.clone(), error))?;
    Ok((manifest, bytes.len() as u64))
}
