//! Why an upstream gave no answer that can be used.
//!
//! The sentences are safe to log and to show: they name hosts and keys of the configuration, never a query string, a token, a
//! password or text that the upstream sent.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// What went wrong, as far as a caller decides by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It does not exist there.
    NotFound,
    /// 401 or 403 after a fresh, correctly scoped token.
    Denied,
    /// Our credentials were refused or may not be sent, or the token service is down.
    Credentials,
    /// 429, or the wait that an earlier 429 asked for.
    RateLimited,
    /// Refused, no such name, TLS failure, 5xx, cut off.
    Unavailable,
    /// Too slow.
    Timeout,
    /// Not what a registry says.
    BadAnswer,
    /// Not asked at all: it failed too often a moment ago, or asked to be left alone.
    BreakerOpen,
    /// Not asked: our own `requests_per_second` does not let us yet.
    Throttled,
    /// Not asked: it would use what the configuration keeps of the pull quota.
    QuotaKept,
    /// The request came round to us again.
    Loop,
}

impl Kind {
    /// The name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Credentials => "credentials",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::BadAnswer => "bad_answer",
            Self::BreakerOpen => "breaker",
            Self::Throttled => "throttled",
            Self::QuotaKept => "quota_kept",
            Self::Loop => "loop",
        }
    }
}

/// Why an upstream gave no answer that can be used.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    sentence: Cow<'static, str>,
    status: Option<u16>,
    retry_after: Option<Duration>,
    outage: bool,
}

impl Error {
    pub(super) fn new(kind: Kind, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            sentence: sentence.into(),
            status: None,
            retry_after: None,
            outage: matches!(kind, Kind::Unavailable | Kind::Timeout),
        }
    }

    pub(super) const fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    pub(super) const fn with_retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }

    /// Marks an error of another kind as a sign that the upstream as a whole does not work.
    pub(super) const fn of_outage(mut self) -> Self {
        self.outage = true;
        self
    }

    /// Says that this happened at a redirect's target, which is no sign of the upstream's own health.
    pub(super) const fn elsewhere(mut self) -> Self {
        self.outage = false;
        self
    }

    /// Another kind for the same trouble, for what happened on the way to a token.
    pub(super) const fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// What went wrong.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// When it is worth asking again, where that is known.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The status that was answered, where there was one.
    pub const fn status(&self) -> Option<u16> {
        self.status
    }

    /// Whether the same request may well succeed later without anyone changing anything.
    pub const fn is_transient(&self) -> bool {
        self.outage
            || matches!(
                self.kind,
                Kind::Unavailable
                    | Kind::Timeout
                    | Kind::RateLimited
                    | Kind::BreakerOpen
                    | Kind::Throttled
                    | Kind::QuotaKept
            )
    }

    /// Whether this counts against the upstream's health.
    pub(super) const fn is_outage(&self) -> bool {
        self.outage
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Error {}
