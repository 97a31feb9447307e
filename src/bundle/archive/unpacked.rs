//! A bundle as a directory: the same files as in the archive, which is an OCI image layout as well.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::contents::Contents;
use super::names;
use super::writer::{Format, Front, WriteError, copy};
use crate::oci::Digest;

/// What stands behind the name until everything is on the disk.
const PARTIAL: &str = ".partial";

/// Writes the bundle of `contents` into the new directory `path`, which gets its name when everything is on the disk. `open` gives a reader of
/// each blob; what it reads is verified here.
pub fn write_directory<R: Read>(
    contents: &Contents,
    format: &Format<'_>,
    path: &Path,
    open: impl FnMut(&Digest) -> io::Result<R>,
) -> Result<(), WriteError> {
    if path.symlink_metadata().is_ok() {
        let there = io::Error::new(io::ErrorKind::AlreadyExists, path.display().to_string());
        return Err(WriteError::Out(there));
    }
    // A name of its own: what stands beside may be anybody's.
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}{PARTIAL}", uuid::Uuid::new_v4().simple()));
    let partial = Unfinished(PathBuf::from(partial));
    fs::create_dir(&partial.0).map_err(WriteError::Out)?;
    fill(contents, format, &partial.0, open)?;
    fs::rename(&partial.0, path).map_err(WriteError::Out)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = File::open(parent).and_then(|parent| parent.sync_all());
    synced.map_err(WriteError::Out)
}

fn fill<R: Read>(
    contents: &Contents,
    format: &Format<'_>,
    into: &Path,
    mut open: impl FnMut(&Digest) -> io::Result<R>,
) -> Result<(), WriteError> {
    for (name, bytes) in &Front::new(contents, format.key)?.0 {
        let mut file = create(&into.join(name)).map_err(WriteError::Out)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(WriteError::Out)?;
    }
    let mut directories = vec![into.to_owned(), into.join("blobs")];
    for blob in contents.blobs() {
        // A name that is made of a digest has only hex behind its algorithm.
        let path = into.join(names::of_blob(&blob.digest));
        if let Some(parent) = path.parent()
            && !directories.iter().any(|known| known == parent)
        {
            fs::create_dir_all(parent).map_err(WriteError::Out)?;
            directories.push(parent.to_owned());
        }
        let digest = blob.digest.clone();
        let from = open(&blob.digest).map_err(|cause| WriteError::Blob { digest, cause })?;
        let mut file = create(&path).map_err(WriteError::Out)?;
        copy(blob, from, |bytes| file.write_all(bytes))?;
        file.sync_all().map_err(WriteError::Out)?;
    }
    if contents.blobs().is_empty() {
        fs::create_dir_all(into.join("blobs")).map_err(WriteError::Out)?;
    }
    for directory in directories {
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(WriteError::Out)?;
    }
    Ok(())
}

fn create(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(flags)
        .open(path)
}

/// A directory that goes again unless it gets its name.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename there is nothing by this name.
        let _renamed = fs::remove_dir_all(&self.0);
    }
}
