//! Where an upstream is: origin, path prefix, and the URLs of the registry API below it.

use http::Uri;
use url::{Host, Url};

/// Why a URL cannot be an upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Another scheme.
    #[error("an upstream's url begins with https:// or http://")]
    Scheme,
    /// No host.
    #[error("an upstream's url needs a host")]
    Host,
    /// More than scheme, host, port and path.
    #[error(
        "an upstream's url has no user, query or fragment; credentials have a key of their own"
    )]
    Extra,
}

/// One upstream's base.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    base: Url,
    prefix: String,
    ns: Option<String>,
    host: String,
}

impl Endpoint {
    pub(super) fn new(url: &Url, ns: Option<&str>) -> Result<Self, EndpointError> {
        if !matches!(url.scheme(), "https" | "http") {
            return Err(EndpointError::Scheme);
        }
        let host = url.host_str().ok_or(EndpointError::Host)?.to_owned();
        if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(EndpointError::Extra);
        }
        let prefix = url.path().trim_end_matches('/').to_owned();
        Ok(Self {
            base: url.clone(),
            prefix,
            ns: ns.map(str::to_owned),
            host,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn literal_host(&self) -> Option<Host<&str>> {
        self.base.host()
    }

    pub(super) fn is_https(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// Whether `url` is on the upstream's own origin: scheme, host and port.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.scheme() == self.base.scheme()
            && url.host() == self.base.host()
            && url.port_or_known_default() == self.base.port_or_known_default()
    }

    /// The same for what a connector is asked to dial.
    pub(super) fn is_own_uri(&self, uri: &Uri) -> bool {
        Url::parse(&uri.to_string()).is_ok_and(|url| self.is_own(&url))
    }

    /// The URL of `path` (which begins with `/v2/`), with `ns` and further query parameters.
    pub(super) fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.prefix));
        if self.ns.is_some() || !query.is_empty() {
            let mut pairs = url.query_pairs_mut();
            if let Some(ns) = &self.ns {
                pairs.append_pair("ns", ns);
            }
            pairs.extend_pairs(query);
        }
        url
    }
}
