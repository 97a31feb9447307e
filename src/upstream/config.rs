//! What one upstream is told at start. Plain values: reading files and the environment into them is `config`'s work.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::foreign::ForeignLayers;
use crate::secret::Secret;

/// How many requests may be under way at one upstream unless the configuration says otherwise (RELIABILITY P25).
pub const CONCURRENT_DEFAULT: usize = 8;

/// One upstream.
#[derive(Clone, Debug)]
pub struct Config {
    /// Repository key of the remote: the label of its metrics and log lines.
    pub key: String,
    /// Base URL; may have a path, which then stands in front of `/v2/…`.
    pub url: Url,
    /// Sent as `?ns=` with every request, for an upstream that is itself a mirror of several hosts.
    pub ns: Option<String>,
    /// A mirror that is asked first.
    pub parent: Option<Parent>,
    /// Credentials, the preferred one first; none means anonymous.
    pub credentials: Vec<CredentialConfig>,
    /// Other hosts (`host`, any port, or `host:port`) whose token service may see the credentials.
    pub token_hosts: Vec<String>,
    /// Inside addresses that redirects, token services and foreign layers of this upstream may use.
    pub allow_addresses: Vec<IpNet>,
    /// The URLs in manifests that layers are fetched from.
    pub foreign_layers: ForeignLayers,
    /// PEM file with more certificate authorities to trust.
    pub ca: Option<PathBuf>,
    /// Proxies, as the environment gives them.
    pub proxy: ProxyConfig,
    /// Most requests under way, and most connections to the upstream itself.
    pub concurrent: usize,
    /// What else it may be asked for.
    pub allowance: Allowance,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// Our id in `CDN-Loop`: a token (RFC 9110, 5.6.2).
    pub instance: String,
}

impl Config {
    /// An anonymous upstream at `url` with defaults for everything else.
    pub fn new(key: impl Into<String>, url: Url, instance: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            url,
            ns: None,
            parent: None,
            credentials: Vec::new(),
            token_hosts: Vec::new(),
            allow_addresses: Vec::new(),
            foreign_layers: ForeignLayers::default(),
            ca: None,
            proxy: ProxyConfig::default(),
            concurrent: CONCURRENT_DEFAULT,
            allowance: Allowance::default(),
            timeouts: Timeouts::default(),
            instance: instance.into(),
        }
    }
}

/// Another mirror, which is asked before the upstream itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its base URL.
    pub url: Url,
    /// The `?ns=` by which it knows the upstream. Its answers count only where they say the same in `OCI-Namespace`: a mirror that does not
    /// know the parameter answers for whatever registry it mirrors itself.
    pub ns: String,
    /// What to log in with.
    pub credentials: Vec<CredentialConfig>,
}

/// What an upstream may be asked for, besides how much at a time. Nothing is limited unless it is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a second to the upstream itself; what it redirects to does not count.
    pub requests_per_second: Option<NonZeroU32>,
    /// Bytes a second of all blobs together, wherever they come from.
    pub bandwidth: Option<NonZeroU64>,
    /// Pulls of each credential's quota that are never used; 0: the quota is not looked at.
    pub keep_quota: u64,
}

/// How long to wait for what. There is no limit on a whole transfer, only on silence and on dripping (RELIABILITY P23, U30).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name lookup and TCP.
    pub connect: Duration,
    /// TLS handshake.
    pub tls: Duration,
    /// From the request being sent to the response's head.
    pub headers: Duration,
    /// The longest silence inside a body.
    pub idle: Duration,
    /// Bytes per second below which a body counts as stalled, measured over spans of `idle`.
    pub min_rate: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(10),
            headers: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            min_rate: 1024,
        }
    }
}

/// The values of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
#[derive(Clone, Default)]
pub struct ProxyConfig {
    /// Proxy for `https` URLs.
    pub https: Option<String>,
    /// Proxy for `http` URLs.
    pub http: Option<String>,
    /// Hosts, domains, addresses and networks that are reached directly.
    pub no: Option<String>,
}

impl fmt::Debug for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy's URL may carry a password.
        f.debug_struct("ProxyConfig")
            .field("https", &self.https.is_some())
            .field("http", &self.http.is_some())
            .field("no", &self.no)
            .finish()
    }
}

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialConfig {
    /// A user name and a password. The user name `<token>` marks the password as an identity token.
    Static {
        /// User name.
        username: String,
        /// Password.
        password: SecretSource,
    },
    /// The program `docker-credential-<name>`.
    Helper {
        /// What stands behind `docker-credential-`.
        name: String,
    },
    /// A Docker `config.json`.
    DockerConfig {
        /// The file.
        path: PathBuf,
    },
}

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file, read again whenever the password is needed, so that a rotated secret counts at once.
    File(PathBuf),
    /// The password itself.
    Value(Secret),
}

/// Why an upstream cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The URL is no `http` or `https` URL with a host, or it carries credentials, a query or a fragment.
    #[error("url must be http:// or https:// with a host, without user name, query and fragment")]
    Url,
    /// `ca` cannot be read, or holds no certificate.
    #[error("ca {}: {problem}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An entry of `token_hosts` is neither `host` nor `host:port`.
    #[error("token_hosts: {0:?} is neither a host nor host:port")]
    TokenHost(String),
    /// A helper's name has characters that no program name of this kind has.
    #[error("a credential helper's name is made of letters, digits, '.', '_' and '-'; not {0:?}")]
    Helper(String),
    /// A proxy's URL cannot be used.
    #[error("the proxy for {0} URLs must be an http:// or https:// URL")]
    Proxy(&'static str),
    /// The instance id is no token.
    #[error("the instance id must be a token of RFC 9110")]
    Instance,
    /// The TLS library refused the set-up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}
