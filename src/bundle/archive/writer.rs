//! Writes a bundle: an OCI image layout as a tar archive, the same to the byte for the same contents.
//!
//! Every blob goes through the hash on its way out. One that is not what the contents say ends the export: a bundle that came to its end holds what it lists.

use std::io::{self, Read, Write};

use super::compression::{Compression, Encoder};
use super::contents::{Blob, Contents, ContentsError};
use super::header::{self, BLOCK, Kind};
use super::index::{self, Malformed};
use super::names;
use super::signature::{CannotSign, SigningKey};
use crate::oci::{Algorithm, Digest};

/// How many bytes are moved at once.
const CHUNK: usize = 256 * 1024;
/// What GNU tar pads an archive to.
const RECORD: u64 = 20 * BLOCK as u64;

/// How a bundle is written, besides what is in it.
#[derive(Debug, Default)]
pub struct Format<'a> {
    /// What it is signed with.
    pub key: Option<&'a SigningKey>,
    /// Whether the stream is compressed.
    pub compression: Compression,
}

/// Why a bundle was not written to its end.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The table of contents cannot be written.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// `index.json` cannot be written.
    #[error(transparent)]
    Index(#[from] Malformed),
    /// The table of contents cannot be signed.
    #[error(transparent)]
    Sign(#[from] CannotSign),
    /// A blob cannot be read.
    #[error("blob {digest} cannot be read: {cause}")]
    Blob {
        /// Which.
        digest: Digest,
        /// Why.
        cause: io::Error,
    },
    /// A blob has other bytes than its digest and its size say.
    #[error("blob {digest} is damaged where it was read from: {what}; the export ends here")]
    Damaged {
        /// Which.
        digest: Digest,
        /// What is wrong with it.
        what: String,
    },
    /// The bundle itself cannot be written.
    #[error("the bundle cannot be written: {0}")]
    Out(#[source] io::Error),
}

/// The small files in front of the blobs, in their order.
pub(super) struct Front(pub(super) Vec<(&'static str, Vec<u8>)>);

impl Front {
    pub(super) fn new(contents: &Contents, key: Option<&SigningKey>) -> Result<Self, WriteError> {
        let table = contents.to_json()?;
        let signature = key.map(|key| key.sign(&table)).transpose()?;
        let mut files = vec![
            (names::LAYOUT, index::LAYOUT.to_vec()),
            (names::CONTENTS, table),
        ];
        files.extend(signature.map(|signature| (names::SIGNATURE, signature)));
        files.push((names::INDEX, index::render(contents)?));
        Ok(Self(files))
    }
}

/// How many bytes the bundle will have, uncompressed.
///
/// With it room and volumes are judged before work begins. Signatures differ in their length, but all fit into one block.
pub fn size(contents: &Contents, format: &Format<'_>) -> Result<u64, WriteError> {
    let front = Front::new(contents, format.key)?;
    let len = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let entry = |name: &str, kind: Kind, size: u64| {
        len(&header::encode(name, kind, size)) + size.next_multiple_of(BLOCK as u64)
    };
    let files = front.0.iter();
    let mut sum: u64 = files
        .map(|(name, bytes)| entry(name, Kind::File, len(bytes)))
        .sum();
    for name in directories(contents) {
        sum += entry(name, Kind::Directory, 0);
    }
    for blob in contents.blobs() {
        sum = sum.saturating_add(entry(&names::of_blob(&blob.digest), Kind::File, blob.size));
    }
    Ok(padded(sum))
}

/// With the two empty blocks that end an archive, up to a whole record.
const fn padded(sum: u64) -> u64 {
    sum.saturating_add(2 * BLOCK as u64)
        .next_multiple_of(RECORD)
}

/// Writes the bundle of `contents` to `out`, and gives that back flushed. `open` gives a reader of each blob, asked once for each in the
/// order of the contents; what it reads is verified here.
pub fn write<W: Write, R: Read>(
    contents: &Contents,
    format: &Format<'_>,
    out: W,
    mut open: impl FnMut(&Digest) -> io::Result<R>,
) -> Result<W, WriteError> {
    let front = Front::new(contents, format.key)?;
    let out = Encoder::new(out, format.compression).map_err(WriteError::Out)?;
    let mut archive = Archive { out, written: 0 };
    for (name, bytes) in &front.0 {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        archive
            .put(&header::encode(name, Kind::File, size))
            .map_err(WriteError::Out)?;
        archive.put(bytes).map_err(WriteError::Out)?;
        archive.pad(BLOCK as u64).map_err(WriteError::Out)?;
    }
    for name in directories(contents) {
        archive
            .put(&header::encode(name, Kind::Directory, 0))
            .map_err(WriteError::Out)?;
    }
    for blob in contents.blobs() {
        let digest = blob.digest.clone();
        let from = open(&blob.digest).map_err(|cause| WriteError::Blob { digest, cause })?;
        let name = names::of_blob(&blob.digest);
        archive
            .put(&header::encode(&name, Kind::File, blob.size))
            .map_err(WriteError::Out)?;
        copy(blob, from, |bytes| archive.put(bytes))?;
        archive.pad(BLOCK as u64).map_err(WriteError::Out)?;
    }
    archive.put(&[0; 2 * BLOCK]).map_err(WriteError::Out)?;
    archive.pad(RECORD).map_err(WriteError::Out)?;
    archive.out.finish().map_err(WriteError::Out)
}

/// The directories of the blobs. Readers make them themselves; they are there for those who unpack with a strict umask.
fn directories(contents: &Contents) -> Vec<&'static str> {
    let has = |algorithm: Algorithm| {
        contents
            .blobs()
            .iter()
            .any(|blob| blob.digest.algorithm() == algorithm)
    };
    let mut names = vec!["blobs/"];
    if has(Algorithm::Sha256) {
        names.push("blobs/sha256/");
    }
    if has(Algorithm::Sha512) {
        names.push("blobs/sha512/");
    }
    names
}

struct Archive<W: Write> {
    out: Encoder<W>,
    written: u64,
}

impl<W: Write> Archive<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Zeros up to a multiple of `unit`.
    fn pad(&mut self, unit: u64) -> io::Result<()> {
        let missing = self.written.next_multiple_of(unit) - self.written;
        self.put(&vec![0; usize::try_from(missing).unwrap_or_default()])
    }
}

/// Gives the bytes of a blob to `put`, hashed on their way.
pub(super) fn copy(
    blob: &Blob,
    mut from: impl Read,
    mut put: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), WriteError> {
    let damaged = |what: String| WriteError::Damaged {
        digest: blob.digest.clone(),
        what,
    };
    let mut hasher = blob.digest.algorithm().hasher();
    let mut chunk = vec![0; CHUNK];
    let mut left = blob.size;
    loop {
        let count = match from.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => {
                let digest = blob.digest.clone();
                return Err(WriteError::Blob { digest, cause });
            }
        };
        let bytes = chunk.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        left = left
            .checked_sub(count)
            .ok_or_else(|| damaged(format!("it is longer than {} bytes", blob.size)))?;
        hasher.update(bytes);
        put(bytes).map_err(WriteError::Out)?;
    }
    if left > 0 {
        let short = blob.size - left;
        return Err(damaged(format!("it has {short} of {} bytes", blob.size)));
    }
    let found = hasher.finish();
    if found == blob.digest {
        Ok(())
    } else {
        Err(damaged(format!("its bytes have the digest {found}")))
    }
}
