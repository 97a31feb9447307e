//! The mark of a clean stop. It vouches that files and rows agree, that everything is on disk, and for the index file as it was left.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::layout::write_durably;

const FILE: &str = "clean";
const HEAD: &str = "roadstead-clean 1";

/// Reads and removes the mark; true where it stands for the index as it is now.
pub(super) fn take(root: &Path, index: &Path) -> io::Result<bool> {
    let path = root.join(FILE);
    let vouched = match fs::read_to_string(&path) {
        Ok(text) => describe(index).is_ok_and(|now| now == text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(_) => false,
    };
    // A directory or link of that name is junk like any other unreadable mark, but it could not be removed as a file.
    match fs::remove_file(path) {
        Ok(()) => fs::File::open(root)?.sync_all()?,
        Err(error) => tracing::warn!(%error, "the mark of a clean stop cannot be removed"),
    }
    Ok(vouched)
}

/// Leaves the mark. Everything must be on disk and the index closed.
pub(super) fn leave(root: &Path, index: &Path) -> io::Result<()> {
    write_durably(root, FILE, &describe(index)?)
}

fn describe(index: &Path) -> io::Result<String> {
    let file = fs::symlink_metadata(index)?;
    let (size, seconds, nanos) = (file.len(), file.mtime(), file.mtime_nsec());
    Ok(format!("{HEAD}\nindex {size} {seconds}.{nanos:09}\n"))
}
