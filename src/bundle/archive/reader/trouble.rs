//! What is wrong with an entry.

use crate::bundle::archive::refusal::ReadError;

/// What is wrong with an entry, not yet knowing which it is.
pub(super) enum Trouble {
    Why(String),
    Read(ReadError),
}

impl Trouble {
    pub(super) fn at(self, refused: impl FnOnce(String) -> ReadError) -> ReadError {
        match self {
            Self::Why(why) => refused(why),
            Self::Read(error) => error,
        }
    }
}

impl From<&str> for Trouble {
    fn from(why: &str) -> Self {
        Self::Why(why.to_owned())
    }
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Why(why)
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}
