//! Counters and how they are rendered. Labels are closed sets or configured names, never what a client sent.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// What one request was, for counting: repository key, what was asked for, how it went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Repository key; `-` where none was reached.
    pub repository: String,
    /// `manifest`, `blob`, `tags`, `referrers`, `other`.
    pub kind: &'static str,
    /// Cache outcome as in the log (`hit`, `miss`, `joined`, `stale`, …).
    pub outcome: &'static str,
    /// Class of the status: `2xx` …
    pub status: &'static str,
}

/// A repository key alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RepositoryLabels {
    /// Repository key.
    pub repository: String,
}

/// One kind of request to one upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamLabels {
    /// Repository key of the remote.
    pub repository: String,
    /// `manifest`, `blob`, `tags`, `referrers`, `token`.
    pub kind: &'static str,
    /// Status code, or why there was none (`refused`, `timeout`, `breaker`, …).
    pub outcome: String,
}

/// One credential of one upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QuotaLabels {
    /// Repository key of the remote.
    pub repository: String,
    /// What the credential is called: its user name, or `anonymous`.
    pub credential: String,
}

/// What one upstream was waited for on our own account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WaitLabels {
    /// Repository key of the remote.
    pub repository: String,
    /// `place`, `turn`, `bandwidth`.
    pub reason: &'static str,
}

/// One limit on clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitLabels {
    /// The key of the configuration.
    pub limit: &'static str,
}

/// A `[[sync]]` by its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SyncLabels {
    /// Its name.
    pub name: String,
}

/// How images of a `[[sync]]` went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SyncOutcomeLabels {
    /// Its name.
    pub name: String,
    /// `fetched`, `unchanged`, `failed`.
    pub outcome: &'static str,
}

/// What was handed to clients of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ServedLabels {
    /// Key of the repository that had it: the member, where a virtual one was asked.
    pub repository: String,
    /// `manifest` or `blob`.
    pub kind: &'static str,
    /// Cache outcome as in the log.
    pub outcome: &'static str,
}

type Latencies = Family<RepositoryLabels, Histogram, fn() -> Histogram>;

/// Brings metrics up to date that mirror somebody else's figures.
type Observer = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Every metric of the process. Shared by `Arc`; all updates are lock-free after the first of a label set.
pub struct Metrics {
    registry: Registry,
    before_render: Mutex<Vec<Observer>>,
    /// Requests answered.
    pub requests: Family<RequestLabels, Counter>,
    /// Manifests and blobs that clients got by GET, by the repository that had them.
    pub served: Family<ServedLabels, Counter>,
    /// Their bytes.
    pub served_bytes: Family<RepositoryLabels, Counter>,
    /// Body bytes handed to clients.
    pub client_bytes: Family<RepositoryLabels, Counter>,
    /// Seconds from the request's head to the response's head.
    pub request_seconds: Latencies,
    /// Requests that were over a limit on clients.
    pub limited: Family<LimitLabels, Counter>,
    /// Requests for what is not here while no upstream could be asked.
    pub missing: Family<RepositoryLabels, Counter>,
    /// Images of lists that were brought in the background.
    pub sync_images: Family<SyncOutcomeLabels, Counter>,
    /// When all images of a list were there last, in seconds since the Unix epoch.
    pub sync_last_success: Family<SyncLabels, Gauge>,
    /// Requests sent upstream.
    pub upstream_requests: Family<UpstreamLabels, Counter>,
    /// Manifests that upstream gave to a GET: what pull quotas count.
    pub upstream_pulls: Family<RepositoryLabels, Counter>,
    /// Body bytes that came from upstream.
    pub upstream_bytes: Family<RepositoryLabels, Counter>,
    /// Seconds until upstream's response head.
    pub upstream_seconds: Latencies,
    /// Seconds that requests and transfers waited for their limits.
    pub upstream_waits: Family<WaitLabels, Counter<f64, AtomicU64>>,
    /// Body bytes from upstream after which the configured bandwidth asked for a pause.
    pub upstream_paced_bytes: Family<RepositoryLabels, Counter>,
    /// Fills started.
    pub fills: Family<RepositoryLabels, Counter>,
    /// Requests that joined another's fill.
    pub joins: Family<RepositoryLabels, Counter>,
    /// Fills resumed by `Range`.
    pub resumes: Family<RepositoryLabels, Counter>,
    /// Content from upstream that did not agree with its digest.
    pub digest_mismatches: Family<RepositoryLabels, Counter>,
    /// Pulls left by the upstream's own account.
    pub quota_remaining: Family<QuotaLabels, Gauge>,
    /// Pulls granted by the upstream's own account.
    pub quota_limit: Family<QuotaLabels, Gauge>,
    /// Bytes of cached content on disk.
    pub cached_bytes: Gauge,
    /// Those of them that are kept.
    pub kept_bytes: Gauge,
    /// Bytes of parts of interrupted downloads.
    pub part_bytes: Gauge,
    /// Bytes of damaged blobs that are kept for a look.
    pub quarantined_bytes: Gauge,
    /// Bytes set aside for downloads that run.
    pub reserved_bytes: Gauge,
    /// The limit on all of them together.
    pub cached_bytes_max: Gauge,
    /// Bytes of what was pushed.
    pub pushed_bytes: Gauge,
    /// Bytes that push sessions hold.
    pub upload_bytes: Gauge,
    /// How many blobs are cached.
    pub cached_blobs: Gauge,
    /// Blobs evicted.
    pub evictions: Counter,
    /// Damaged blobs found and moved aside.
    pub quarantined: Counter,
    /// Open client connections.
    pub connections: Gauge<i64, AtomicI64>,
    /// Requests being answered now.
    pub in_flight: Gauge<i64, AtomicI64>,
    /// Audit lines that are in the log alone.
    pub audit_failed: Counter<u64, AtomicU64>,
    /// Panics caught in a request.
    pub panics: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let latencies: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0005, 2.0, 18));
        let mut metrics = Self {
            registry: Registry::with_prefix("roadstead"),
            before_render: Mutex::default(),
            requests: Family::default(),
            served: Family::default(),
            served_bytes: Family::default(),
            client_bytes: Family::default(),
            request_seconds: Family::new_with_constructor(latencies),
            limited: Family::default(),
            missing: Family::default(),
            sync_images: Family::default(),
            sync_last_success: Family::default(),
            upstream_requests: Family::default(),
            upstream_pulls: Family::default(),
            upstream_bytes: Family::default(),
            upstream_seconds: Family::new_with_constructor(latencies),
            upstream_waits: Family::default(),
            upstream_paced_bytes: Family::default(),
            fills: Family::default(),
            joins: Family::default(),
            resumes: Family::default(),
            digest_mismatches: Family::default(),
            quota_remaining: Family::default(),
            quota_limit: Family::default(),
            cached_bytes: Gauge::default(),
            kept_bytes: Gauge::default(),
            part_bytes: Gauge::default(),
            quarantined_bytes: Gauge::default(),
            reserved_bytes: Gauge::default(),
            cached_bytes_max: Gauge::default(),
            pushed_bytes: Gauge::default(),
            upload_bytes: Gauge::default(),
            cached_blobs: Gauge::default(),
            evictions: Counter::default(),
            quarantined: Counter::default(),
            connections: Gauge::default(),
            in_flight: Gauge::default(),
            audit_failed: Counter::default(),
            panics: Counter::default(),
        };
        let r = &mut metrics.registry;
        r.register("requests", "Requests answered", metrics.requests.clone());
        r.register(
            "served",
            "Manifests and blobs that clients got by GET, by the repository that had them",
            metrics.served.clone(),
        );
        r.register_with_unit(
            "served",
            "Bytes of manifests and blobs that clients got, by the repository that had them",
            Unit::Bytes,
            metrics.served_bytes.clone(),
        );
        r.register_with_unit(
            "client",
            "Body bytes handed to clients, by repository",
            Unit::Bytes,
            metrics.client_bytes.clone(),
        );
        r.register_with_unit(
            "request_duration",
            "Time to the response's head",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        r.register(
            "audit_lines_failed",
            "Audit lines that could not be written to their file",
            metrics.audit_failed.clone(),
        );
        r.register(
            "limited_requests",
            "Requests that were over a limit on clients",
            metrics.limited.clone(),
        );
        r.register(
            "missing",
            "Requests for what is not here while no upstream could be asked",
            metrics.missing.clone(),
        );
        r.register(
            "sync_images",
            "Images of lists that were brought in the background",
            metrics.sync_images.clone(),
        );
        r.register_with_unit(
            "sync_last_success",
            "When all images of a list were there last, since the Unix epoch",
            Unit::Seconds,
            metrics.sync_last_success.clone(),
        );
        r.register(
            "upstream_requests",
            "Requests sent upstream",
            metrics.upstream_requests.clone(),
        );
        r.register(
            "upstream_pulls",
            "Manifests that upstream gave to a GET, which is what pull quotas count",
            metrics.upstream_pulls.clone(),
        );
        r.register_with_unit(
            "upstream",
            "Body bytes from upstream",
            Unit::Bytes,
            metrics.upstream_bytes.clone(),
        );
        r.register_with_unit(
            "upstream_duration",
            "Time to upstream's response head",
            Unit::Seconds,
            metrics.upstream_seconds.clone(),
        );
        r.register_with_unit(
            "upstream_waited",
            "Time that requests and transfers waited for the limits of their upstream",
            Unit::Seconds,
            metrics.upstream_waits.clone(),
        );
        r.register_with_unit(
            "upstream_paced",
            "Body bytes after which the configured bandwidth asked for a pause",
            Unit::Bytes,
            metrics.upstream_paced_bytes.clone(),
        );
        r.register("fills", "Downloads into the store", metrics.fills.clone());
        r.register(
            "joins",
            "Requests that joined another's download",
            metrics.joins.clone(),
        );
        r.register(
            "resumes",
            "Downloads resumed by Range",
            metrics.resumes.clone(),
        );
        r.register(
            "digest_mismatches",
            "Content from upstream that did not agree with its digest",
            metrics.digest_mismatches.clone(),
        );
        r.register(
            "upstream_quota_remaining",
            "Pulls left by the upstream's account",
            metrics.quota_remaining.clone(),
        );
        r.register(
            "upstream_quota_limit",
            "Pulls granted by the upstream's account",
            metrics.quota_limit.clone(),
        );
        r.register_with_unit(
            "cached",
            "Cached content on disk",
            Unit::Bytes,
            metrics.cached_bytes.clone(),
        );
        r.register_with_unit(
            "cached_max",
            "Limit on cached content, parts, quarantined and reserved bytes together",
            Unit::Bytes,
            metrics.cached_bytes_max.clone(),
        );
        r.register_with_unit(
            "pushed",
            "What was pushed, on disk",
            Unit::Bytes,
            metrics.pushed_bytes.clone(),
        );
        r.register_with_unit(
            "upload",
            "What push sessions hold",
            Unit::Bytes,
            metrics.upload_bytes.clone(),
        );
        r.register_with_unit(
            "kept",
            "Cached content on disk that is pinned and not evicted",
            Unit::Bytes,
            metrics.kept_bytes.clone(),
        );
        r.register_with_unit(
            "part",
            "Parts of interrupted downloads on disk",
            Unit::Bytes,
            metrics.part_bytes.clone(),
        );
        r.register_with_unit(
            "quarantine",
            "Damaged blobs kept for a look",
            Unit::Bytes,
            metrics.quarantined_bytes.clone(),
        );
        r.register_with_unit(
            "reserved",
            "Room set aside for downloads that run",
            Unit::Bytes,
            metrics.reserved_bytes.clone(),
        );
        r.register(
            "cached_blobs",
            "Blobs on disk",
            metrics.cached_blobs.clone(),
        );
        r.register("evictions", "Blobs evicted", metrics.evictions.clone());
        r.register(
            "quarantined",
            "Damaged blobs moved aside",
            metrics.quarantined.clone(),
        );
        r.register(
            "connections",
            "Open client connections",
            metrics.connections.clone(),
        );
        r.register(
            "in_flight",
            "Requests being answered",
            metrics.in_flight.clone(),
        );
        r.register(
            "panics",
            "Panics caught in a request",
            metrics.panics.clone(),
        );
        metrics
    }

    /// Has `observer` called before every rendering, to set what is counted elsewhere.
    pub fn before_render(&self, observer: impl Fn(&Self) + Send + Sync + 'static) {
        self.before_render
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(observer));
    }

    /// The `OpenMetrics` text.
    pub fn render(&self) -> String {
        for observer in &*self
            .before_render
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            observer(self);
        }
        let mut text = String::new();
        // Writing into a String cannot fail; a half-written page would only lack metrics.
        if encode(&mut text, &self.registry).is_err() {
            tracing::warn!("metrics could not be rendered");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
