//! An OCI image layout that was unpacked: a directory.
//!
//! Every file is opened below its directory by a name of ours or one that is a digest, and never through a link. Files by other names are
//! somebody else's and passed over, since a directory is not made by one program alone.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat};

use super::entries::{ENTRIES_MAX, Entry};
use super::header::Kind;
use super::names::{self, EntryName};
use super::refusal::{ReadError, Refusal};
use crate::oci::Algorithm;

/// The files in front of the blobs, in the order of a bundle.
const FRONT: [&str; 4] = [
    names::LAYOUT,
    names::CONTENTS,
    names::SIGNATURE,
    names::INDEX,
];

/// A directory under way.
pub(super) struct Directory {
    root: OwnedFd,
    /// The names that are to come, in reverse.
    names: Vec<String>,
    current: Option<io::Take<File>>,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, ReadError> {
        let failed = |cause: rustix::io::Errno| ReadError::Io {
            at: 0,
            cause: io::Error::new(
                io::Error::from(cause).kind(),
                format!("{}: {cause}", path.display()),
            ),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        let mut all: Vec<String> = FRONT
            .into_iter()
            .filter(|name| statat(&root, *name, AtFlags::SYMLINK_NOFOLLOW).is_ok())
            .map(str::to_owned)
            .collect();
        let below = flags | OFlags::NOFOLLOW;
        match openat(&root, "blobs", below, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
            Ok(blobs) => {
                for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                    match openat(&blobs, algorithm.as_str(), below, Mode::empty()) {
                        Err(rustix::io::Errno::NOENT) => {}
                        Err(error) => return Err(failed(error)),
                        Ok(directory) => {
                            all.extend(listed(&directory, algorithm).map_err(failed)?);
                        }
                    }
                }
            }
        }
        if all.len() > ENTRIES_MAX {
            let why = format!("the directory has more than {ENTRIES_MAX} blobs");
            return Err(Refusal::error(None, 0, why));
        }
        all.reverse();
        Ok(Self {
            root,
            names: all,
            current: None,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<Entry>, ReadError> {
        let Some(name) = self.names.pop() else {
            return Ok(None);
        };
        let (file, size) = self
            .file(&name)
            .map_err(|error| Refusal::error(Some(&name), 0, format!("it cannot be read: {error}")))?
            .ok_or_else(|| Refusal::error(Some(&name), 0, "it is no regular file"))?;
        self.current = Some(file.take(size));
        Ok(Some(Entry {
            name,
            kind: Kind::File,
            size,
            target: String::new(),
            at: 0,
        }))
    }

    /// Opens each directory on the way by itself, so that a link in any place of it is an error.
    fn file(&self, name: &str) -> Result<Option<(File, u64)>, rustix::io::Errno> {
        let (mut parent, mut rest) = (None::<OwnedFd>, name);
        // Opening a fifo would wait for somebody to write.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        while let Some((directory, behind)) = rest.split_once('/') {
            let from = parent.as_ref().unwrap_or(&self.root);
            let opened = openat(from, directory, flags | OFlags::DIRECTORY, Mode::empty())?;
            (parent, rest) = (Some(opened), behind);
        }
        let from = parent.as_ref().unwrap_or(&self.root);
        let file = match openat(from, rest, flags, Mode::empty()) {
            Err(rustix::io::Errno::LOOP) => return Ok(None),
            opened => opened?,
        };
        let stat = fstat(&file)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        Ok(is_file.then(|| (file.into(), size)))
    }

    pub(super) fn read(&mut self, entry: &Entry, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let Some(current) = &mut self.current else {
            return Ok(0);
        };
        let left = current.limit();
        loop {
            match current.read(buffer) {
                Ok(0) if left > 0 && !buffer.is_empty() => {
                    let why = "it became shorter while it was read";
                    return Err(Refusal::error(Some(&entry.name), 0, why));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(ReadError::Io { at: 0, cause }),
                Ok(count) => return Ok(count),
            }
        }
    }
}

/// The blobs of one algorithm, in order.
fn listed(directory: &OwnedFd, algorithm: Algorithm) -> Result<Vec<String>, rustix::io::Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        let name = format!("blobs/{}/{name}", algorithm.as_str());
        if matches!(names::of_file(&name), Some(EntryName::Blob(_))) {
            found.push(name);
        }
        if found.len() > ENTRIES_MAX {
            break;
        }
    }
    found.sort();
    Ok(found)
}
