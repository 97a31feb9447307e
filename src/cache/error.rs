//! Why the cache has no answer.

use std::time::Duration;

use super::admit::{Refusal, Rule};
use super::status::Reason;
use crate::oci::manifest::ManifestError;
use crate::{store, upstream};

/// Why the cache has no answer. What it becomes on the wire is `api::error`'s business.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Upstream says that it does not exist.
    #[error("upstream does not have it")]
    NotFound,
    /// Upstream said so a moment ago, and was not asked again.
    #[error("upstream did not have it a moment ago")]
    StillAbsent,
    /// It is not here and the mirror is told to be offline.
    #[error("it is not in this mirror, which is configured to be offline")]
    Offline,
    /// It exists, but not in a form that the client takes.
    #[error("the client does not accept {0}, which is what this tag is")]
    NotAcceptable(String),
    /// Upstream failed; the kind says how.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// What upstream sent is no manifest.
    #[error("upstream sent no valid manifest: {0}")]
    Manifest(ManifestError),
    /// What upstream sent does not hash to the digest it was asked by, or has another length.
    #[error("upstream sent content that does not agree with its digest")]
    Mismatch,
    /// The disk or the index failed.
    #[error("the store failed: {0}")]
    Store(String),
    /// A rule of this mirror refuses it.
    #[error("{0}")]
    Refused(Refusal),
    /// The fill that this request waited for was given up (shutdown, panic).
    #[error("the download was given up")]
    GivenUp,
}

impl Error {
    /// The status that upstream answered with, where it did.
    pub fn fwd_status(&self) -> Option<u16> {
        match self {
            Self::Upstream(error) => error.status(),
            Self::NotFound => Some(404),
            Self::StillAbsent
            | Self::Offline
            | Self::NotAcceptable(_)
            | Self::Manifest(_)
            | Self::Mismatch
            | Self::Store(_)
            | Self::Refused(_)
            | Self::GivenUp => None,
        }
    }

    /// The reason of an answer that is given in its place: what was known before, or none.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Upstream(error) if error.kind() == upstream::Kind::QuotaKept => Reason::QuotaKept,
            Self::Refused(_) => Reason::NotAdmitted,
            Self::Upstream(_)
            | Self::NotFound
            | Self::StillAbsent
            | Self::Offline
            | Self::NotAcceptable(_)
            | Self::Manifest(_)
            | Self::Mismatch
            | Self::Store(_)
            | Self::GivenUp => Reason::UpstreamFailed,
        }
    }

    /// When it is worth asking again, where upstream said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Upstream(error) => error.retry_after(),
            Self::Refused(refusal) => match refusal.rule {
                Rule::MinAge { left, .. } => Some(left),
                Rule::Deny
                | Rule::Allow
                | Rule::MaxSize { .. }
                | Rule::Unsigned
                | Rule::WrongSignature => None,
            },
            Self::NotFound
            | Self::StillAbsent
            | Self::Offline
            | Self::NotAcceptable(_)
            | Self::Manifest(_)
            | Self::Mismatch
            | Self::Store(_)
            | Self::GivenUp => None,
        }
    }

    /// Whether this says that the thing does not exist (as against: nobody could say).
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::NotFound | Self::StillAbsent | Self::Offline)
    }

    /// An upstream's error, with its 404 told apart.
    pub(super) fn from_upstream(error: upstream::Error) -> Self {
        if error.kind() == upstream::Kind::NotFound {
            Self::NotFound
        } else {
            Self::Upstream(error)
        }
    }
}

impl From<store::IndexError> for Error {
    fn from(error: store::IndexError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<store::StoreError> for Error {
    fn from(error: store::StoreError) -> Self {
        Self::Store(error.to_string())
    }
}
