//! Why a local repository did not do what it was asked.

use crate::oci::manifest::ManifestError;
use crate::oci::{Digest, Tag};
use crate::store;

/// Why a local repository did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No image of that name.
    #[error("there is no such image in this repository")]
    NameUnknown,
    /// No such manifest, or no such tag, in the image.
    #[error("there is no such manifest in this image")]
    ManifestUnknown,
    /// No such blob in the image.
    #[error("there is no such blob in this image")]
    BlobUnknown,
    /// No such upload, or one of somebody else.
    #[error("there is no such upload")]
    UploadUnknown,
    /// Another request writes this upload.
    #[error("another request writes this upload")]
    UploadBusy {
        /// Bytes that it holds, as far as that is known.
        held: u64,
    },
    /// The bytes offered do not go where the upload stands.
    #[error("the upload stands at {held} bytes")]
    OutOfOrder {
        /// Bytes that it holds.
        held: u64,
    },
    /// More or fewer bytes came than were announced.
    #[error("{0}")]
    Size(&'static str),
    /// Too many uploads are open.
    #[error("too many uploads are open; finish or cancel some")]
    TooManyUploads,
    /// The bytes are not what their digest says.
    #[error("the content hashes to {found}")]
    Digest {
        /// What they hash to.
        found: Digest,
    },
    /// Not a manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// What a manifest points to is not in this image.
    #[error("this image does not have {}", .0.iter().map(Digest::to_string).collect::<Vec<_>>().join(", "))]
    Missing(Vec<Digest>),
    /// The tag is there and may not change.
    #[error("the tag {0} is immutable in this repository")]
    Immutable(Tag),
    /// More tags in one request than are taken.
    #[error("at most {} tags are taken at a time", super::TAGS_MAX)]
    TooManyTags,
    /// What was to be moved has changed since it was looked at.
    #[error("the image changed meanwhile; try again")]
    Changed,
    /// Indexes of indexes of indexes.
    #[error("indexes are nested too deeply")]
    TooDeep,
    /// More belongs to an image than is taken over at a time.
    #[error("more than {0} manifests belong together")]
    TooMuch(usize),
    /// Deleting is switched off.
    #[error("nothing is deleted in this repository")]
    NoDeletes,
    /// The blob is part of an image.
    #[error("a manifest of this image needs the blob; delete that first")]
    InUse,
    /// The client went away, or its body broke off.
    #[error("the body broke off: {0}")]
    Body(String),
    /// No room on the disk.
    #[error("there is no room on the disk")]
    Full,
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(String),
}

impl From<store::StoreError> for Error {
    fn from(error: store::StoreError) -> Self {
        match error {
            store::StoreError::Full => Self::Full,
            store::StoreError::Mismatch { found } => Self::Digest { found },
            store::StoreError::Index(error) => error.into(),
            store::StoreError::Io(_)
            | store::StoreError::Pending(_)
            // Nothing is kept of what is pushed.
            | store::StoreError::NoRoomToKeep(_) => Self::Store(chain(&error)),
        }
    }
}

impl From<store::StageError> for Error {
    fn from(error: store::StageError) -> Self {
        match error {
            store::StageError::Full => Self::Full,
            store::StageError::TooLong => Self::Size("more bytes came than were announced"),
            store::StageError::Io(_) => Self::Store(chain(&error)),
        }
    }
}

impl From<store::IndexError> for Error {
    fn from(error: store::IndexError) -> Self {
        if error.is_full() {
            Self::Full
        } else {
            Self::Store(chain(&error))
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        store::StageError::from(error).into()
    }
}

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
