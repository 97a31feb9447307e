//! What one upstream's traffic counts as in the metrics.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::answer::Quota;
use super::error::Error;
use super::limits::Class;
use crate::telemetry::{Metrics, QuotaLabels, RepositoryLabels, UpstreamLabels, WaitLabels};

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Manifest,
    Blob,
    Tags,
    Referrers,
    Token,
    Foreign,
    Document,
}

impl What {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Token => "token",
            Self::Foreign => "foreign",
            Self::Document => "document",
        }
    }

    /// The class that limits and waits go by.
    pub(super) const fn class(self, is_head: bool) -> Class {
        match self {
            Self::Manifest if is_head => Class::ManifestHead,
            Self::Manifest => Class::ManifestGet,
            Self::Blob | Self::Foreign => Class::Blob,
            Self::Tags | Self::Referrers | Self::Token | Self::Document => Class::List,
        }
    }
}

/// What a request or a transfer waited for, on our own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// A place among the requests under way.
    Place,
    /// Its turn among the requests of a second.
    Turn,
    /// The bytes of a second.
    Bandwidth,
}

impl Wait {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Turn => "turn",
            Self::Bandwidth => "bandwidth",
        }
    }
}

/// The metrics of one upstream.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    metrics: Arc<Metrics>,
    labels: RepositoryLabels,
}

impl Meter {
    pub(super) fn new(metrics: Arc<Metrics>, key: String) -> Self {
        Self {
            metrics,
            labels: RepositoryLabels { repository: key },
        }
    }

    /// One request went out; this came back.
    pub(super) fn asked(&self, what: What, result: Result<StatusCode, &Error>) {
        let outcome = match result {
            Ok(status) => status.as_str().to_owned(),
            Err(error) => error.kind().as_str().to_owned(),
        };
        self.metrics
            .upstream_requests
            .get_or_create(&UpstreamLabels {
                repository: self.labels.repository.clone(),
                kind: what.as_str(),
                outcome,
            })
            .inc();
    }

    /// Upstream gave a manifest to a GET.
    pub(super) fn pulled(&self) {
        self.metrics
            .upstream_pulls
            .get_or_create(&self.labels)
            .inc();
    }

    /// A question took this long until the head of its answer.
    pub(super) fn took(&self, duration: Duration) {
        self.metrics
            .upstream_seconds
            .get_or_create(&self.labels)
            .observe(duration.as_secs_f64());
    }

    /// Bytes of a body came.
    pub(super) fn came(&self, bytes: usize) {
        self.metrics
            .upstream_bytes
            .get_or_create(&self.labels)
            .inc_by(bytes as u64);
    }

    /// Somebody waited.
    pub(super) fn waited(&self, wait: Wait, duration: Duration) {
        self.metrics
            .upstream_waits
            .get_or_create(&WaitLabels {
                repository: self.labels.repository.clone(),
                reason: wait.as_str(),
            })
            .inc_by(duration.as_secs_f64());
    }

    /// Bytes came after which the configured bandwidth asked for a pause.
    pub(super) fn paced(&self, bytes: usize) {
        self.metrics
            .upstream_paced_bytes
            .get_or_create(&self.labels)
            .inc_by(bytes as u64);
    }

    /// What is left of the quota of one credential.
    pub(super) fn quota(&self, credential: &str, quota: &Quota) {
        let labels = QuotaLabels {
            repository: self.labels.repository.clone(),
            credential: credential.to_owned(),
        };
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics
            .quota_limit
            .get_or_create(&labels)
            .set(gauge(quota.limit));
        self.metrics
            .quota_remaining
            .get_or_create(&labels)
            .set(gauge(quota.remaining));
    }
}
