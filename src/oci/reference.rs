//! What stands behind `manifests/`: a tag or a digest.

use std::fmt;

use super::digest::{Digest, DigestError};
use super::tag::{Tag, TagError};

/// Why a text is neither a tag nor a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It has a colon, so it means to be a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// It has no colon, so it means to be a tag.
    #[error(transparent)]
    Tag(#[from] TagError),
}

/// A tag or a digest. A tag cannot hold a colon, so the two never overlap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// A name that may move.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

impl Reference {
    /// Parses `latest` or `sha256:…`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            Ok(Self::Digest(Digest::parse(text)?))
        } else {
            Ok(Self::Tag(Tag::parse(text)?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
