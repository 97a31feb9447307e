//! What is answered where an image as a whole cannot be explained, gathered or kept.

use http::StatusCode;

use super::ApiError;
use crate::cache::KeepError;
use crate::oci::ErrorCode;
use crate::repository::{ExplainError, GatherError, PinError};
use crate::store::{CommitError, StageError};

impl ApiError {
    /// A reference that means nothing here.
    pub(in crate::api) fn from_explain(error: ExplainError) -> Self {
        match error {
            ExplainError::Unresolved(unresolved) => unresolved.into(),
            ExplainError::Reference(error) => Self::bad_request(format!("image: {error}")),
            ExplainError::LeftOut(key) => Self::left_out(key.as_str()),
            ExplainError::Failed(error) => Self::from_repository(error, ErrorCode::ManifestUnknown),
        }
    }

    /// An image that is not whole.
    pub(in crate::api) fn from_gather(error: GatherError) -> Self {
        let message = error.to_string();
        match error {
            GatherError::Repository(error) => {
                Self::from_repository(error, ErrorCode::ManifestUnknown)
            }
            GatherError::Piece(_, error) => Self::from_repository(error, ErrorCode::BlobUnknown),
            GatherError::NoPlatform { .. } => {
                Self::new(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown, message)
            }
            GatherError::TooMuch | GatherError::TooDeep => {
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                Self::new(status, ErrorCode::SizeInvalid, message)
            }
            GatherError::Manifest(..) => {
                Self::new(StatusCode::BAD_GATEWAY, ErrorCode::ManifestInvalid, message)
            }
        }
    }

    /// An image that is not kept.
    pub(in crate::api) fn from_keep(error: &KeepError) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            KeepError::Failed(error) => return Self::from_cache(error, ErrorCode::ManifestUnknown),
            KeepError::NotHere(_) => (StatusCode::CONFLICT, ErrorCode::BlobUnknown),
            KeepError::TooMuch => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid),
            KeepError::NoRoom(_) | KeepError::Full => {
                (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unavailable)
            }
        };
        Self::new(status, code, message)
    }

    /// Content that is not taken in.
    pub(in crate::api) fn from_stage(error: &StageError) -> Self {
        let (status, code) = match error {
            StageError::Full => (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unavailable),
            StageError::TooLong => (StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid),
            StageError::Io(_) => return Self::failed(error),
        };
        Self::new(status, code, error.to_string())
    }

    /// Content that is not what it was said to be.
    pub(in crate::api) fn from_commit(error: &CommitError) -> Self {
        match error {
            CommitError::Stage(error) => Self::from_stage(error),
            CommitError::NotKept {
                cause: full @ StageError::Full,
                ..
            } => Self::from_stage(full),
            CommitError::NotKept { .. } => Self::failed(error),
            CommitError::Mismatch { .. } | CommitError::Length { .. } => Self::new(
                StatusCode::BAD_REQUEST,
                ErrorCode::DigestInvalid,
                error.to_string(),
            ),
        }
    }

    /// An image that is not pinned, or not unpinned.
    pub(in crate::api) fn from_pin(error: PinError) -> Self {
        let message = error.to_string();
        match error {
            PinError::Unclear(error) => Self::from_explain(error),
            PinError::Gather(error) => Self::from_gather(error),
            PinError::Keep(error) => Self::from_keep(&error),
            PinError::Failed(error) => Self::from_repository(error, ErrorCode::ManifestUnknown),
            PinError::Local(_) | PinError::NoTag => Self::bad_request(message),
            PinError::NotPinned => {
                Self::new(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown, message)
            }
        }
    }
}
