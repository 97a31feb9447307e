//! Why something is missing. Pure.

use super::super::Error;
use crate::cache;
use crate::upstream::Kind;

/// Why something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The mirror is told not to ask.
    Offline,
    /// Upstream could not be asked, or failed.
    Unreachable,
}

impl Why {
    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Unreachable => "unreachable",
        }
    }

    /// What an error says of that; `None` where it is not for lack of an upstream that it could not be had.
    pub fn of(error: &Error) -> Option<Self> {
        let Error::Remote(error) = error else {
            return None;
        };
        match error {
            cache::Error::Offline => Some(Self::Offline),
            cache::Error::Upstream(upstream) => match upstream.kind() {
                Kind::Credentials
                | Kind::Unavailable
                | Kind::Timeout
                | Kind::BadAnswer
                | Kind::BreakerOpen
                | Kind::Throttled => Some(Self::Unreachable),
                // What waits for a quota is there, and comes with time.
                Kind::RateLimited
                | Kind::QuotaKept
                | Kind::NotFound
                | Kind::Denied
                | Kind::Loop => None,
            },
            cache::Error::NotFound
            | cache::Error::StillAbsent
            | cache::Error::NotAcceptable(_)
            | cache::Error::Manifest(_)
            | cache::Error::Mismatch
            | cache::Error::Store(_)
            | cache::Error::Refused(_)
            | cache::Error::GivenUp => None,
        }
    }
}
