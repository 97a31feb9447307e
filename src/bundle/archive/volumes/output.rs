//! Files of a bundle while they are written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{VOLUME_MIN, VOLUMES_MAX, VolumeError, at, sums_of, volume, with_suffix};
use crate::oci::{Algorithm, Digest, Hasher};

/// What stands behind a name until everything is on the disk.
const PARTIAL: &str = ".partial";

/// Files that are being written. Dropped before [`Output::finish`], it leaves nothing.
#[derive(Debug)]
pub struct Output {
    base: PathBuf,
    split: Option<u64>,
    current: Option<Current>,
    /// The volumes that are full, with their sums.
    done: Vec<(PathBuf, Digest)>,
    finished: bool,
}

#[derive(Debug)]
struct Current {
    file: File,
    path: PathBuf,
    left: u64,
    hasher: Hasher,
}

impl Output {
    /// Begins to write `base`, or volumes of at most `split` bytes beside it. `expected` is the length of the bundle, where that is known: volumes that
    /// are too small for it are refused before work begins. Nothing that is there already is written over.
    pub fn create(
        base: &Path,
        split: Option<u64>,
        expected: Option<u64>,
    ) -> Result<Self, VolumeError> {
        if let Some(size) = split {
            if size < VOLUME_MIN {
                return Err(VolumeError::TooSmall);
            }
            if expected.is_some_and(|len| len.div_ceil(size) > VOLUMES_MAX.into()) {
                return Err(VolumeError::TooMany);
            }
        }
        let finals = if split.is_some() {
            // A volume of an earlier bundle behind ours would be joined to it by `cat NAME.*`.
            let volumes = (1..=VOLUMES_MAX).map(|number| volume(base, number));
            volumes.chain([sums_of(base)]).collect()
        } else {
            vec![base.to_owned()]
        };
        if let Some(path) = finals
            .into_iter()
            .find(|path| path.symlink_metadata().is_ok())
        {
            return Err(VolumeError::Exists(path));
        }
        let mut output = Self {
            base: base.to_owned(),
            split,
            current: None,
            done: Vec::new(),
            finished: false,
        };
        output.next_volume()?;
        Ok(output)
    }

    /// Makes everything durable and gives it its name. The names, the sums last.
    pub fn finish(mut self) -> Result<Vec<PathBuf>, VolumeError> {
        self.end_volume()?;
        let mut files: Vec<PathBuf> = self.done.iter().map(|(path, _)| path.clone()).collect();
        if self.split.is_some() {
            let sums = sums_of(&self.base);
            self.write_sums(&sums)?;
            files.push(sums);
        }
        let mut named = Vec::new();
        for path in &files {
            if let Err(error) = fs::rename(with_suffix(path, PARTIAL), path) {
                remove(&named);
                return Err(at(path)(error));
            }
            named.push(path.clone());
        }
        self.finished = true;
        let directory = match self.base.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        if let Err(error) = synced {
            remove(&files);
            return Err(at(directory)(error));
        }
        Ok(files)
    }

    fn next_volume(&mut self) -> Result<(), VolumeError> {
        let number = u32::try_from(self.done.len() + 1).unwrap_or(u32::MAX);
        let path = if self.split.is_none() {
            self.base.clone()
        } else if number > VOLUMES_MAX {
            return Err(VolumeError::TooMany);
        } else {
            volume(&self.base, number)
        };
        self.current = Some(Current {
            file: create(&path)?,
            path,
            left: self.split.unwrap_or(u64::MAX),
            hasher: Algorithm::Sha256.hasher(),
        });
        Ok(())
    }

    fn end_volume(&mut self) -> Result<(), VolumeError> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let path = current.path;
        let synced = current.file.sync_all();
        self.done.push((path, current.hasher.finish()));
        synced.map_err(at(&self.base))
    }

    fn write_sums(&self, sums: &Path) -> Result<(), VolumeError> {
        let mut text = Vec::new();
        for (path, sum) in &self.done {
            text.extend(sum.hex().as_bytes());
            text.extend(b"  ");
            text.extend(path.file_name().unwrap_or_default().as_encoded_bytes());
            text.push(b'\n');
        }
        let mut file = create(sums)?;
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        written.map_err(at(sums))
    }
}

/// Takes files away that have their names and are parts of a bundle that there will not be.
fn remove(files: &[PathBuf]) {
    for path in files {
        drop(fs::remove_file(path));
    }
}

/// The partial file of a name. What an export before this one left of it is written over.
fn create(path: &Path) -> Result<File, VolumeError> {
    let path = with_suffix(path, PARTIAL);
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(nofollow);
    options.open(&path).map_err(at(&path))
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.left == 0)
        {
            self.end_volume().map_err(io::Error::other)?;
        }
        if self.current.is_none() {
            self.next_volume().map_err(io::Error::other)?;
        }
        let Some(current) = &mut self.current else {
            return Err(io::Error::other("no volume is open"));
        };
        let most = usize::try_from(current.left).unwrap_or(usize::MAX);
        let bytes = bytes.get(..most).unwrap_or(bytes);
        let count = current.file.write(bytes)?;
        if self.split.is_some() {
            current
                .hasher
                .update(bytes.get(..count).unwrap_or_default());
            current.left -= u64::try_from(count).unwrap_or_default();
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let current = self.current.take().map(|current| current.path);
        let done = self.done.drain(..).map(|(path, _)| path);
        for path in done.chain(current).chain([sums_of(&self.base)]) {
            drop(fs::remove_file(with_suffix(&path, PARTIAL)));
        }
    }
}
