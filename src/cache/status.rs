//! How an answer came about: one value that the log, the metrics and the `Cache-Status` header (RFC 9211) all render.

use std::fmt::Write as _;
use std::time::Duration;

/// The outcome, as counted and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Served from the store.
    Hit,
    /// Upstream confirmed what was in the store.
    Revalidated,
    /// Fetched from upstream for this request.
    Miss,
    /// Joined a fetch that was already under way.
    Joined,
    /// Served old because upstream could not say better.
    Stale,
    /// Passed through without being stored.
    Passed,
    /// No answer from the cache and none from upstream.
    Failed,
    /// The cache had no part in it.
    None,
}

impl Outcome {
    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Joined => "joined",
            Self::Stale => "stale",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::None => "none",
        }
    }
}

/// Why the outcome is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The content of a digest never changes.
    Immutable,
    /// The tag was confirmed less than its TTL ago.
    Fresh,
    /// Nothing was known.
    Unknown,
    /// The TTL had passed.
    Expired,
    /// Known, but its bytes had been evicted.
    Evicted,
    /// Known to another image; upstream confirmed that this one has it too.
    Linked,
    /// Another request was already fetching it.
    InFlight,
    /// The disk is full.
    DiskFull,
    /// Upstream failed.
    UpstreamFailed,
    /// Upstream took too long to confirm.
    UpstreamSlow,
    /// Refreshing it would use what is kept of the pull quota.
    QuotaKept,
    /// Upstream says it is gone.
    GoneUpstream,
    /// A 404 that is still remembered.
    Negative,
    /// The mirror is told to be offline.
    Offline,
    /// It was pushed here.
    Pushed,
    /// The tag was told what to mean.
    Pinned,
    /// Upstream has another, which a rule of this mirror does not admit.
    NotAdmitted,
    /// A foreign layer that would be fetched: its manifest says how long it is.
    Foreign,
}

impl Reason {
    /// The word for logs and the `detail` parameter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Immutable => "immutable",
            Self::Fresh => "fresh",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Linked => "linked",
            Self::InFlight => "in-flight",
            Self::DiskFull => "disk-full",
            Self::UpstreamFailed => "upstream-failed",
            Self::UpstreamSlow => "upstream-slow",
            Self::QuotaKept => "quota-kept",
            Self::GoneUpstream => "gone-upstream",
            Self::Negative => "negative",
            Self::Offline => "offline",
            Self::Pushed => "pushed",
            Self::Pinned => "pinned",
            Self::NotAdmitted => "not-admitted",
            Self::Foreign => "foreign",
        }
    }
}

/// How one answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStatus {
    outcome: Outcome,
    reason: Reason,
    fwd_status: Option<u16>,
    /// Seconds of freshness left; negative once stale.
    ttl: Option<i64>,
    unverified: bool,
}

impl CacheStatus {
    /// An outcome with its reason.
    pub const fn new(outcome: Outcome, reason: Reason) -> Self {
        Self {
            outcome,
            reason,
            fwd_status: None,
            ttl: None,
            unverified: false,
        }
    }

    /// A hit on content that never changes.
    pub const fn hit() -> Self {
        Self::new(Outcome::Hit, Reason::Immutable)
    }

    /// Adds what upstream answered.
    #[must_use]
    pub const fn with_fwd_status(self, status: Option<u16>) -> Self {
        Self {
            fwd_status: status,
            ..self
        }
    }

    /// Adds how long it stays fresh.
    #[must_use]
    pub fn with_ttl_left(self, left: Duration) -> Self {
        Self {
            ttl: Some(i64::try_from(left.as_secs()).unwrap_or(i64::MAX)),
            ..self
        }
    }

    /// Adds how long ago it ceased to be fresh.
    #[must_use]
    pub fn with_ttl_over(self, over: Duration) -> Self {
        Self {
            ttl: Some(i64::try_from(over.as_secs()).map_or(i64::MIN, |seconds| -seconds)),
            ..self
        }
    }

    /// Marks bytes that were handed out before the whole was verified.
    #[must_use]
    pub const fn unverified(self) -> Self {
        Self {
            unverified: true,
            ..self
        }
    }

    /// The outcome.
    pub const fn outcome(self) -> Outcome {
        self.outcome
    }

    /// The reason.
    pub const fn reason(self) -> Reason {
        self.reason
    }

    /// The text of a `Warning: 299` where the answer may be out of date.
    pub const fn warning(self) -> Option<&'static str> {
        match (self.outcome, self.reason) {
            (Outcome::Stale, Reason::GoneUpstream) => {
                Some("stale: upstream no longer has this tag")
            }
            (Outcome::Stale, Reason::QuotaKept) => {
                Some("stale: what is left of the upstream's pull quota is kept")
            }
            (Outcome::Stale, Reason::Offline) => Some("stale: this mirror is offline"),
            (Outcome::Stale, Reason::NotAdmitted) => {
                Some("stale: upstream has another, which this mirror does not admit yet")
            }
            (Outcome::Stale, Reason::UpstreamSlow) => {
                Some("stale: upstream did not answer in time")
            }
            (Outcome::Stale, _) => Some("stale: upstream could not be asked"),
            _ => None,
        }
    }

    /// The value of `Cache-Status`; `None` where the cache had no part in the answer.
    pub fn header(self) -> Option<String> {
        let mut text = String::from("roadstead");
        text.push_str(match self.outcome {
            // Neither found here nor asked for: its manifest says all there is to say.
            Outcome::None if matches!(self.reason, Reason::Foreign) => "",
            Outcome::None => return None,
            Outcome::Hit => "; hit",
            Outcome::Miss => "; fwd=uri-miss; stored",
            Outcome::Joined => "; fwd=uri-miss; collapsed",
            // A 404 from memory is as much an answer of this cache as any; nobody was asked.
            Outcome::Failed if matches!(self.reason, Reason::Negative) => "; hit",
            Outcome::Passed | Outcome::Failed => "; fwd=uri-miss",
            Outcome::Revalidated | Outcome::Stale => "; fwd=stale",
        });
        // Writing into a String cannot fail.
        let _infallible = self
            .fwd_status
            .map(|status| write!(text, "; fwd-status={status}"));
        let _infallible = self.ttl.map(|ttl| write!(text, "; ttl={ttl}"));
        let detail = if self.unverified {
            Some("unverified")
        } else {
            self.detail()
        };
        let _infallible = detail.map(|detail| write!(text, "; detail={detail}"));
        Some(text)
    }

    /// The reason, where the outcome does not say it already.
    const fn detail(self) -> Option<&'static str> {
        match (self.outcome, self.reason) {
            (Outcome::Hit | Outcome::None, Reason::Immutable | Reason::Fresh)
            | (Outcome::Miss, Reason::Unknown)
            | (Outcome::Joined, Reason::InFlight)
            | (Outcome::Stale, Reason::UpstreamFailed) => None,
            (Outcome::Revalidated, _) => Some("revalidated"),
            (_, reason) => Some(reason.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_headers_of_the_interface() {
        let header = |status: CacheStatus| status.header().unwrap();
        assert_eq!(header(CacheStatus::hit()), "roadstead; hit");
        assert_eq!(
            header(CacheStatus::new(Outcome::Miss, Reason::Unknown)),
            "roadstead; fwd=uri-miss; stored"
        );
        assert_eq!(
            header(CacheStatus::new(Outcome::Joined, Reason::InFlight)),
            "roadstead; fwd=uri-miss; collapsed"
        );
        let stale = CacheStatus::new(Outcome::Stale, Reason::UpstreamFailed);
        let stale = stale
            .with_fwd_status(Some(503))
            .with_ttl_over(Duration::from_secs(60));
        assert_eq!(
            header(stale),
            "roadstead; fwd=stale; fwd-status=503; ttl=-60"
        );
        assert_eq!(stale.warning(), Some("stale: upstream could not be asked"));
    }

    #[test]
    fn what_is_kept_of_a_quota_is_a_reason_of_its_own() {
        let stale = CacheStatus::new(Outcome::Stale, Reason::QuotaKept);
        assert_eq!(
            stale.header().unwrap(),
            "roadstead; fwd=stale; detail=quota-kept"
        );
        assert!(stale.warning().unwrap().contains("quota"));
    }

    #[test]
    fn a_partial_answer_says_that_it_is_unverified() {
        let status = CacheStatus::new(Outcome::Joined, Reason::InFlight).unverified();
        assert_eq!(
            status.header().unwrap(),
            "roadstead; fwd=uri-miss; collapsed; detail=unverified"
        );
        assert_eq!(
            CacheStatus::new(Outcome::None, Reason::Unknown).header(),
            None
        );
        assert_eq!(
            CacheStatus::new(Outcome::None, Reason::Foreign)
                .header()
                .unwrap(),
            "roadstead; detail=foreign"
        );
    }
}
