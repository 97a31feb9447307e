//! What a reader tells.

use std::io::{self, Read};

use super::Reader;
use crate::bundle::archive::contents::Contents;
use crate::bundle::archive::index::Listed;
use crate::bundle::archive::ledger::Summary;
use crate::bundle::archive::refusal::{ReadError, Refusal};
use crate::oci::Digest;
use crate::oci::manifest::MANIFEST_MAX;

/// What comes next in an archive.
#[derive(Debug)]
pub enum Event<'a, R: Read> {
    /// What the bundle holds. It comes before any blob, and its signature was verified if that was asked for.
    Contents(&'a Contents),
    /// What the index lists; before the blobs in a bundle, anywhere in a foreign layout.
    Index(Vec<Listed>),
    /// A blob, to be read now.
    Blob(Blob<'a, R>),
    /// The archive was whole. Nothing comes behind it.
    End(Summary),
}

/// A blob of an archive. Whatever of it is not read is read and verified by the next call of [`Reader::next`].
#[derive(Debug)]
pub struct Blob<'a, R: Read> {
    pub(super) reader: &'a mut Reader<R>,
    pub(super) digest: Option<Digest>,
    pub(super) size: u64,
}

impl<R: Read> Blob<'_, R> {
    /// Its digest; layers of old archives of `docker save` have none until they were read.
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// How many bytes it has.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Leaves it to the caller to verify the bytes, who gives them to somebody who does. A blob that may be a manifest, or whose digest nobody
    /// knows yet, or that was read from already, is verified here all the same.
    pub fn verified_elsewhere(&mut self) {
        if let Some(open) = &mut self.reader.open
            && open.expected.is_some()
            && open.left == open.entry.size
            && open.left > MANIFEST_MAX as u64
        {
            open.hasher = None;
        }
    }

    /// Reads what is left of it, and gives the digest that was found: the one it has, if it has one.
    pub fn finish(self) -> Result<Digest, ReadError> {
        self.reader.finish_blob()?;
        let ended = self.reader.ended.clone();
        ended.ok_or_else(|| Refusal::error(None, 0, "no blob was read"))
    }
}

impl<R: Read> Read for Blob<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read_blob(buffer).map_err(|error| match error {
            ReadError::Io { cause, .. } => cause,
            ReadError::Refused(refusal) => io::Error::new(io::ErrorKind::InvalidData, refusal),
        })
    }
}
