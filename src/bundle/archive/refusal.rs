//! Why an archive is not taken, with the entry and the place in the stream, so that somebody who looks there finds it.

use std::fmt;
use std::io;

/// How much of a name is shown.
const SHOWN_MAX: usize = 160;

/// Why reading ended before the end. Nothing that was read before it makes an archive that was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes cannot be had: the medium, the compression, a volume.
    #[error("the archive cannot be read behind byte {at}: {cause}")]
    Io {
        /// In the stream as it is unpacked.
        at: u64,
        /// Why.
        cause: io::Error,
    },
    /// The archive is one that is not taken.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
}

impl ReadError {
    /// The same as a refusal, to be said again.
    pub(super) fn to_refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => (**refusal).clone(),
            Self::Io { at, cause } => Refusal {
                entry: None,
                at: *at,
                why: format!("the archive cannot be read: {cause}"),
            },
        }
    }
}

/// What is wrong with an archive, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    entry: Option<String>,
    at: u64,
    why: String,
}

impl Refusal {
    pub(super) fn error(entry: Option<&str>, at: u64, why: impl Into<String>) -> ReadError {
        let shown = |name: &str| name.escape_debug().take(SHOWN_MAX).collect();
        ReadError::Refused(Box::new(Self {
            entry: entry.map(shown),
            at,
            why: why.into(),
        }))
    }

    /// The entry, as far as it can be printed.
    pub fn entry(&self) -> Option<&str> {
        self.entry.as_deref()
    }

    /// Where its header begins in the unpacked stream; 0 in a directory.
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// What is wrong.
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, at, why } = self;
        match entry {
            Some(entry) => write!(f, "refused: entry '{entry}' at byte {at}: {why}"),
            None => write!(f, "refused: at byte {at}: {why}"),
        }
    }
}

impl std::error::Error for Refusal {}
