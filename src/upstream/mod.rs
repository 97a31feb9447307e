//! The client side: one [`Upstream`] for each remote.
//!
//! Knows registries' wire protocol, tokens, redirects and outages; knows nothing of the store, of freshness or of our own clients.
//! Invariants: only the configured upstream, its token services and what it redirects to are dialled, each address checked after DNS at
//! connect; credentials go to the upstream's own origin and its declared token services and nowhere else; nothing here verifies content,
//! so every caller must.

mod blob;
pub mod challenge;
mod connect;
mod credentials;
mod endpoint;
mod error;
mod fetch;
pub mod guard;
mod health;
mod hops;
mod quota;
mod send;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use blob::{BlobStream, Span};
pub use connect::ProxyConfig;
pub use credentials::{CredentialConfig, SecretSource};
pub use endpoint::EndpointError;
pub use error::{Error, Kind};
pub use fetch::{BlobHead, ManifestBody, ManifestHead};
pub use hops::Hops;
pub use quota::Quota;

use crate::telemetry::Metrics;

/// How to reach one upstream.
#[derive(Debug, Clone)]
pub struct Config {
    /// The repository key, for logs and metrics.
    pub key: String,
    /// Base URL; a path prefix stands before `/v2/`.
    pub url: url::Url,
    /// Sent as `?ns=` where the upstream is itself a mirror.
    pub ns: Option<String>,
    /// A pool; the first that is not refused is used. Empty: anonymous.
    pub credentials: Vec<CredentialConfig>,
    /// Other hosts (`host` or `host:port`) whose token service may see the credentials.
    pub token_hosts: Vec<String>,
    /// Inside addresses that redirects and token services may use.
    pub allow_addresses: Vec<ipnet::IpNet>,
    /// A PEM file with further certificate authorities.
    pub ca: Option<PathBuf>,
    /// Proxies, as the environment names them.
    pub proxy: ProxyConfig,
    /// Requests under way at a time; blobs may use all but a quarter of them.
    pub concurrent: usize,
    /// Time-outs.
    pub timeouts: Timeouts,
    /// This process in `CDN-Loop` (RFC 8586).
    pub instance: String,
}

/// Every wait has an end; none is on the total, so a large blob may take as long as it takes.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Until a TCP connection stands.
    pub connect: Duration,
    /// Until TLS stands.
    pub tls: Duration,
    /// Until the response's head is here.
    pub headers: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// Bytes a second that a body must average over `idle`.
    pub min_rate: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(5),
            tls: seconds(10),
            headers: seconds(30),
            idle: seconds(30),
            min_rate: 1024,
        }
    }
}

/// Why a client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The URL does not fit.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The file of further authorities cannot be used.
    #[error("cannot use the certificate authorities in {path}: {error}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// The client of one remote. Cheap to clone; clones share connections, tokens and health.
#[derive(Debug, Clone)]
pub struct Upstream {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    endpoint: endpoint::Endpoint,
    clients: connect::Clients,
    tokens: token::Tokens,
    health: health::Health,
    requests: Arc<Semaphore>,
    blobs: Arc<Semaphore>,
    quota: quota::Kept,
    metrics: Arc<Metrics>,
}

impl Upstream {
    /// The client of the remote that `config` names. Nothing is dialled.
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Result<Self, BuildError> {
        let endpoint = endpoint::Endpoint::new(&config.url, config.ns.as_deref())?;
        let clients = connect::Clients::new(&config, &endpoint)?;
        let tokens = token::Tokens::new(credentials::Pool::new(&config.credentials, &endpoint));
        let concurrent = config.concurrent.max(1);
        let for_blobs = concurrent.saturating_sub((concurrent / 4).max(1)).max(1);
        Ok(Self {
            inner: Arc::new(Inner {
                endpoint,
                clients,
                tokens,
                health: health::Health::new(),
                requests: Arc::new(Semaphore::new(concurrent)),
                blobs: Arc::new(Semaphore::new(for_blobs)),
                quota: quota::Kept::default(),
                metrics,
                config,
            }),
        })
    }

    /// What is left of the upstream's pull quota, by its own account.
    pub fn quota(&self) -> Option<Quota> {
        self.inner.quota.get()
    }

    /// The upstream's host, for logs and `check`.
    pub fn host(&self) -> &str {
        self.inner.endpoint.host()
    }
}

#[cfg(test)]
mod tests;
