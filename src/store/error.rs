//! What can go wrong with a store.

use std::io;
use std::path::PathBuf;

use super::blob::Blob;
use super::index::IndexError;
use crate::oci::Digest;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the data directory {} is in use by process {pid}; stop that first, or name another directory", path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Who has it; "?" where the lock file does not say.
        pid: String,
    },
    /// The layout was written by a newer program.
    #[error("the data directory {} has layout {found}, which is newer than this program", path.display())]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
    /// The file system refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// What was refused.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room: `max_size`, `min_free`, the disk or a quota.
    #[error("the store is full")]
    Full,
    /// The bytes are not what the digest says.
    #[error("the content hashes to {found}")]
    Mismatch {
        /// What they hash to.
        found: Digest,
    },
    /// What is to be kept does not fit.
    #[error(transparent)]
    NoRoomToKeep(#[from] NoRoomToKeep),
    /// The file system refused.
    #[error("the store cannot be read or written")]
    Io(#[from] io::Error),
    /// It stands in the journal, and the index could not take it in yet: the next change takes it along, or the next start.
    #[error("it is written down and not in force yet: {0}")]
    Pending(String),
    /// The index did not answer.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Why something cannot be kept. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no room to keep this: it takes {need} bytes beside the {kept} that are kept, and `storage.max_size` is {max_size}; {missing} of them have yet to come, and {free} bytes can be had on the disk above `storage.min_free`. Unpin something, raise `storage.max_size`, or make room on the disk"
)]
pub struct NoRoomToKeep {
    /// What it takes beside what is kept or pushed already.
    pub need: u64,
    /// What is kept already.
    pub kept: u64,
    /// The most that may be.
    pub max_size: u64,
    /// What of it is not here yet.
    pub missing: u64,
    /// What is free on the disk, or may be evicted, above what must stay free.
    pub free: u64,
}

impl From<StageError> for StoreError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::Full => Self::Full,
            StageError::TooLong => Self::Io(io::ErrorKind::FileTooLarge.into()),
            StageError::Io(error) => Self::Io(error),
        }
    }
}

/// Why a fill cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// There is no room: `max_size`, `min_free`, the disk or a quota.
    #[error("the store is full")]
    Full,
    /// More bytes came than were expected. Nothing of the surplus was taken in.
    #[error("more bytes came than were expected")]
    TooLong,
    /// The file system refused.
    #[error("the part cannot be written")]
    Io(#[source] io::Error),
}

/// Why a fill did not become a blob. Nothing of it is left in the store.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The bytes are not what the digest says.
    #[error("the content hashes to {found}")]
    Mismatch {
        /// What they hash to.
        found: Digest,
    },
    /// They are too few, or the file does not hold what was written.
    #[error("the content is {found} bytes long, not {expected}")]
    Length {
        /// How many there should be.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// They are right, but could not be kept under their name.
    #[error("the content was verified but cannot be kept")]
    NotKept {
        /// The content, readable for as long as this is held.
        blob: Blob,
        /// Why.
        #[source]
        cause: StageError,
    },
    /// They could not be written.
    #[error(transparent)]
    Stage(#[from] StageError),
}
