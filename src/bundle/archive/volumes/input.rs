//! Volumes of a bundle while they are read.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{SUMS, VOLUMES_MAX, VolumeError, at, sums_of, volume};
use crate::oci::{Algorithm, Digest, Hasher};

/// The most bytes of a file of sums.
const SUMS_MAX: u64 = 1024 * 1024;

/// Volumes that are read one behind the other, each compared with its sum at its end.
#[derive(Debug)]
pub struct Volumes {
    rest: std::vec::IntoIter<(PathBuf, Digest)>,
    current: Option<Reading>,
    bytes: u64,
    failed: bool,
}

#[derive(Debug)]
struct Reading {
    file: File,
    path: PathBuf,
    sum: Digest,
    hasher: Hasher,
}

impl Volumes {
    /// Finds the volumes that `path`, any of them or their sums, belongs to. `None` where it is named like neither. That all are there is
    /// known when this returns; that they are what their sums say, when they have been read.
    pub fn find(path: &Path) -> Result<Option<Self>, VolumeError> {
        let Some(extension) = path.extension().and_then(|extension| extension.to_str()) else {
            return Ok(None);
        };
        let is_number = extension.len() == 3 && extension.bytes().all(|b| b.is_ascii_digit());
        if !is_number && extension != SUMS {
            return Ok(None);
        }
        let base = path.with_extension("");
        let sums = sums_of(&base);
        let text = match read_sums(&sums) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VolumeError::Missing(vec![sums]));
            }
            read => read.map_err(at(&sums))?,
        };
        let volumes = parse_sums(&base, &sums, &text)?;
        let (mut missing, mut bytes) = (Vec::new(), 0_u64);
        for (path, _) in &volumes {
            match fs::metadata(path) {
                Ok(found) if found.is_file() => bytes = bytes.saturating_add(found.len()),
                Ok(_) => missing.push(path.clone()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(path.clone()),
                Err(error) => return Err(at(path)(error)),
            }
        }
        if !missing.is_empty() {
            return Err(VolumeError::Missing(missing));
        }
        Ok(Some(Self {
            rest: volumes.into_iter(),
            current: None,
            bytes,
            failed: false,
        }))
    }

    /// How many bytes all volumes have.
    pub const fn size(&self) -> u64 {
        self.bytes
    }

    /// The next volume, or `None` behind the last.
    fn open_next(&mut self) -> io::Result<Option<Reading>> {
        let Some((path, sum)) = self.rest.next() else {
            return Ok(None);
        };
        let file = File::open(&path).map_err(|cause| io::Error::other(at(&path)(cause)))?;
        Ok(Some(Reading {
            file,
            path,
            sum,
            hasher: Algorithm::Sha256.hasher(),
        }))
    }
}

impl Read for Volumes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        // Whoever reads on after a wrong sum must not come to a clean end.
        if self.failed {
            return Err(io::Error::other("a volume before this place was damaged"));
        }
        loop {
            if self.current.is_none() {
                self.current = self.open_next()?;
            }
            let Some(mut current) = self.current.take() else {
                return Ok(0);
            };
            let read = current.file.read(buffer);
            match read {
                Ok(0) if current.hasher.clone().finish() == current.sum => {}
                Ok(0) => {
                    self.failed = true;
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!(
                            "{} is damaged: its sum is not the one in the file of sums; copy it again",
                            current.path.display()
                        ),
                    ));
                }
                Ok(count) => {
                    current
                        .hasher
                        .update(buffer.get(..count).unwrap_or_default());
                    self.current = Some(current);
                    return Ok(count);
                }
                Err(error) => {
                    self.current = Some(current);
                    return Err(error);
                }
            }
        }
    }
}

fn read_sums(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?
        .take(SUMS_MAX + 1)
        .read_to_end(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|len| len > SUMS_MAX) {
        return Err(io::Error::other(format!(
            "sums of volumes have at most {SUMS_MAX} bytes"
        )));
    }
    Ok(text)
}

/// The volumes by the file of sums. Its names are compared with those that the volumes must have, never used.
fn parse_sums(
    base: &Path,
    sums: &Path,
    text: &[u8],
) -> Result<Vec<(PathBuf, Digest)>, VolumeError> {
    let wrong = |line: usize, what: &'static str| VolumeError::Sums {
        path: sums.to_owned(),
        line,
        what,
    };
    let body = text
        .strip_suffix(b"\n")
        .ok_or_else(|| wrong(1, "the file is cut off or empty"))?;
    let mut volumes = Vec::new();
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        let place = volumes.len() + 1;
        let shape = || wrong(place, "this is not what sha256sum writes");
        let (hex, name) = line.split_at_checked(64).ok_or_else(shape)?;
        let hex = std::str::from_utf8(hex).map_err(|_other| shape())?;
        let sum = Digest::parse(&format!("sha256:{hex}")).map_err(|_other| shape())?;
        let name = name
            .strip_prefix(b"  ")
            .or_else(|| name.strip_prefix(b" *"))
            .ok_or_else(shape)?;
        let path = volume(base, number);
        if number > VOLUMES_MAX {
            return Err(wrong(place, "there are too many volumes"));
        }
        if path.file_name().unwrap_or_default().as_encoded_bytes() != name {
            return Err(wrong(
                place,
                "the volumes are not numbered one behind the other, or were renamed without their sums",
            ));
        }
        volumes.push((path, sum));
    }
    Ok(volumes)
}
