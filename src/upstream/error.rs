//! What can go wrong with an upstream, in the words that callers branch on.

use std::fmt;
use std::time::Duration;

/// How a request upstream failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It says 404.
    NotFound,
    /// It says 401 or 403 to a fresh, correctly scoped token (or to nobody in particular).
    Denied,
    /// It does not take our credentials, or its token service fails or may not see them.
    Credentials,
    /// It says 429.
    RateLimited,
    /// It cannot be reached, breaks off, or answers 5xx.
    Unavailable,
    /// It took too long.
    Timeout,
    /// Its answer is not what a registry says.
    BadAnswer,
    /// It failed so often that it is not asked for a while.
    BreakerOpen,
    /// The request has come through here before.
    Loop,
}

impl Kind {
    /// The word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Credentials => "credentials",
            Self::RateLimited => "rate-limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::BadAnswer => "bad-answer",
            Self::BreakerOpen => "breaker-open",
            Self::Loop => "loop",
        }
    }
}

/// A request upstream that failed. Its text is safe to log: no secrets, no query strings, nothing that upstream sent.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    status: Option<u16>,
    retry_after: Option<Duration>,
    message: std::borrow::Cow<'static, str>,
}

impl Error {
    pub(super) fn new(kind: Kind, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self {
            kind,
            status: None,
            retry_after: None,
            message: message.into(),
        }
    }

    pub(super) fn with_status(self, status: u16) -> Self {
        Self {
            status: Some(status),
            ..self
        }
    }

    pub(super) fn with_retry_after(self, after: Option<Duration>) -> Self {
        Self {
            retry_after: after,
            ..self
        }
    }

    /// How it failed.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The status that upstream answered, where it did.
    pub const fn status(&self) -> Option<u16> {
        self.status
    }

    /// When it is worth asking again.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the same request may succeed a moment later.
    pub const fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            Kind::Unavailable | Kind::Timeout | Kind::BreakerOpen | Kind::RateLimited
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
