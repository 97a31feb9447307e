//! Files that commands read.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};

/// The longest key.
const KEY_MAX: usize = 64 * 1024;

/// A file of at most `most` bytes; `-` is standard input.
pub(super) fn read(path: &Path, most: usize) -> anyhow::Result<Vec<u8>> {
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() > most {
        bail!(
            "{} has more than {} KiB: is it the right file?",
            path.display(),
            most / 1024
        );
    }
    Ok(bytes)
}

/// The text of a key.
pub(super) fn key(path: &Path) -> anyhow::Result<Vec<u8>> {
    read(path, KEY_MAX)
}

/// Writes a file, or another one in its place: beside, by a name that nobody can have put there, synced, renamed.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.partial", uuid::Uuid::new_v4().simple()));
    let beside = Path::new(&beside);
    let written = File::create_new(beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(beside, path))
        .and_then(|()| File::open(parent(path))?.sync_all());
    if written.is_err() {
        let _may_be_renamed = std::fs::remove_file(beside);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// The directory in which a file is.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
