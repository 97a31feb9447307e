//! Opening and closing a store.
//!
//! A start reads figures, not content: after a clean stop nothing is scanned; after an unclean one the index is checked through and the
//! files are compared with it behind the start. No state of cached things stops it.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::blob::DamageReports;
use super::budget::{Books, Budget};
use super::holds::Holds;
use super::index::{Index, Totals};
use super::journal::{self, Journal};
use super::keyed::Keyed;
use super::layout::{Layout, Place, is_part_name, parse_part_name};
use super::open_files::OpenFiles;
use super::parts::{Parts, Waiting, is_stale};
use super::quarantine::Quarantine;
use super::shared::{Settled, Shared};
use super::stamp::Stamps;
use super::unsettled::Unsettled;
use super::{Config, OpenError, clean};
use crate::clock::{self, Wall};
use crate::oci::Digest;
use crate::oci::manifest::MANIFEST_MAX;

/// With less than this free, what is dispensable goes before the index is opened, because that needs a little room.
const START_FREE: u64 = 4 << 20;

/// Opens the store at `config.path`. Blocks.
pub(super) fn open(
    config: Config,
    reports: DamageReports,
) -> Result<(Shared, journal::Opened), OpenError> {
    let layout = Layout::open(&config.path)?;
    let root = layout.root().to_owned();
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| OpenError::Io { path, source }
    };
    let now = clock::now();
    let was_clean = clean::take(&root, &Index::file(&root)).map_err(at(&root))?;
    make_room_to_start(&layout);
    let (index, rebuilt) = Index::open(&root, !was_clean, now).map_err(at(&Index::file(&root)))?;
    let (journal, opened) = layout
        .open_journal()
        .and_then(|file| {
            let aside = root
                .join("quarantine")
                .join(format!("journal-{}", now.as_ms()));
            let set_aside = |tail: &[u8]| std::fs::write(&aside, tail);
            Journal::open(file, &index, set_aside, |digest| {
                read_small(&layout, digest)
            })
        })
        .map_err(at(&root.join("journal")))?;
    let totals = first_figures(&index).unwrap_or_else(|error| {
        warn!(%error, "the index does not give its figures; they are counted anew");
        Totals::default()
    });
    let mut books = Books {
        cached: totals.bytes,
        blobs: totals.blobs,
        pushed: totals.pushed_bytes,
        pushed_blobs: totals.pushed_blobs,
        ..Books::default()
    };
    let stamps = Stamps::after(totals.last_use);
    let parts = Parts::default();
    books.parts =
        take_up_parts(&layout, &parts, &stamps, now).map_err(at(&root.join("staging")))?;
    let quarantined = layout
        .files(Place::Quarantine)
        .map_err(at(&root.join("quarantine")))?;
    books.quarantined = quarantined.iter().map(|file| file.size).sum();
    let settled = Settled::default();
    if was_clean && !rebuilt {
        settled.set();
    }
    info!(
        path = %root.display(),
        blobs = books.blobs,
        bytes = books.cached,
        pushed_blobs = books.pushed_blobs,
        pushed_bytes = books.pushed,
        clean = was_clean,
        rebuilt,
        "store opened"
    );
    let shared = Shared {
        journal,
        budget: Budget::new(config.max_size, books),
        config,
        index,
        keys: Keyed::default(),
        files: OpenFiles::new(),
        parts,
        quarantine: Quarantine::new(oldest_first(quarantined)),
        unsettled: Arc::new(Unsettled::default()),
        stamps,
        reports,
        settled,
        rebuilt,
        making_room: Mutex::default(),
        syncing: Mutex::default(),
        fills: watch::Sender::new(0),
        counter: AtomicU64::new(0),
        holds: Holds::default(),
        upload_bytes: AtomicU64::new(0),
        evictions: AtomicU64::new(0),
        quarantined: AtomicU64::new(0),
        layout,
    };
    Ok((shared, opened))
}

/// A manifest's bytes, for the journal; none where they are not here or do not agree with their name.
fn read_small(layout: &Layout, digest: &Digest) -> Option<Vec<u8>> {
    let file = layout.open_blob(digest).ok()??;
    let size = file.metadata().ok()?.len();
    let size = usize::try_from(size)
        .ok()
        .filter(|size| *size <= MANIFEST_MAX)?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0).ok()?;
    (Digest::of_with(digest.algorithm(), &bytes) == *digest).then_some(bytes)
}

/// Writes down what is only in memory, syncs, closes the index, leaves the mark of a clean stop if it is one, lets go of the lock. Blocks.
pub(super) fn close(shared: &Shared, quiet: bool) {
    shared.flush_uses();
    let synced = shared.sync_round();
    shared.index.close();
    let clean = quiet && synced && shared.settled.get();
    if clean {
        let root = shared.layout.root();
        let left = shared
            .layout
            .sync()
            .and_then(|()| clean::leave(root, &Index::file(root)));
        if let Err(error) = left {
            warn!(%error, "the clean stop cannot be marked; the next start compares files and index");
        }
    }
    info!(clean, "store closed");
    shared.layout.unlock();
}

/// Channels for reports of damage.
pub(super) fn reports() -> (
    DamageReports,
    mpsc::UnboundedReceiver<(Digest, &'static str)>,
) {
    mpsc::unbounded_channel()
}

fn first_figures(index: &Index) -> super::index::Result<Totals> {
    let suspects = index.suspect_unsettled()?;
    if suspects > 0 {
        info!(
            blobs = suspects,
            "blobs that may not have reached the disk are hashed before their next use"
        );
    }
    index.totals()
}

/// Moves the index aside, under the lock, so that the next start makes it anew.
pub(super) fn forget_index(root: &Path) -> Result<(), OpenError> {
    let layout = Layout::open(root)?;
    let index = Index::file(layout.root());
    let stamp = clock::now().as_ms();
    for suffix in ["", "-wal", "-shm"] {
        let from = format!("{}{suffix}", index.display());
        let to = format!("{}.aside-{stamp}{suffix}", index.display());
        match std::fs::rename(&from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Io {
                    path: from.into(),
                    source: error,
                });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Finds the parts of earlier fills; removes the stale ones and those that no fill takes up again. Answers their bytes.
fn take_up_parts(layout: &Layout, parts: &Parts, stamps: &Stamps, now: Wall) -> io::Result<u64> {
    let mut bytes = 0;
    for file in layout.files(Place::Staging)? {
        if !is_part_name(&file.name) {
            warn!(name = file.name, "no part; left alone");
            continue;
        }
        let digest =
            parse_part_name(&file.name).filter(|_| file.size > 0 && !is_stale(file.modified, now));
        let Some(digest) = digest else {
            info!(
                name = file.name,
                bytes = file.size,
                "a useless part is removed"
            );
            if let Err(error) = layout.remove(Place::Staging, &file.name) {
                warn!(name = file.name, %error, "a part cannot be removed");
            }
            continue;
        };
        // Blocks that were asked for beyond the end are of no use to a part that waits.
        if let Err(error) = layout
            .open_staged(&file.name)
            .and_then(|part| part.set_len(file.size))
        {
            warn!(name = file.name, %error, "a part cannot be trimmed");
        }
        bytes += file.size;
        parts.keep(
            digest,
            Waiting {
                size: file.size,
                last_use: stamps.next(file.modified),
                since: file.modified,
            },
        );
    }
    Ok(bytes)
}

/// On a full disk the index might not open; what can go without loss goes.
fn make_room_to_start(layout: &Layout) {
    if layout.free().is_ok_and(|free| free >= START_FREE) {
        return;
    }
    warn!("the disk is full; parts and quarantined files are removed");
    for place in [Place::Quarantine, Place::Staging] {
        for file in layout.files(place).unwrap_or_default() {
            if let Err(error) = layout.remove(place, &file.name) {
                warn!(name = file.name, %error, "cannot be removed");
            }
        }
    }
}

fn oldest_first(mut files: Vec<super::layout::Found>) -> impl Iterator<Item = (String, u64)> {
    files.sort_by_key(|file| file.modified);
    files.into_iter().map(|file| (file.name, file.size))
}
