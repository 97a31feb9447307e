//! Where an upstream is, and what its URLs look like.
//!
//! Every URL that comes from outside is parsed once, strictly, by [`parse`]; origins are compared in the form that this parse gives,
//! so no spelling of a host (case, numbers, trailing dot) counts as another host or hides one (RELIABILITY C4, C5).

use std::fmt;

use url::{Host, Url};

use super::config::BuildError;
use super::guard::Written;

/// The longest URL that is taken from a challenge, a `Location` or a `Link`.
pub(super) const URL_MAX: usize = 16 * 1024;

/// Scheme, host and port.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    https: bool,
    host: Host<String>,
    port: u16,
}

impl Origin {
    /// The origin of a URL that [`parse`] has let through.
    pub(super) fn of(url: &Url) -> Option<Self> {
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Self {
            https,
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }

    /// Whether it speaks TLS.
    pub(super) const fn is_https(&self) -> bool {
        self.https
    }

    /// The host.
    pub(super) const fn host(&self) -> &Host<String> {
        &self.host
    }

    /// The port, the usual one spelt out.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Whether host and port are those of `other`, whatever the scheme.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port
    }

    /// Whether the host is an address (or `localhost`) or a name for the resolver.
    pub(super) fn written(&self) -> Written {
        match &self.host {
            Host::Ipv4(_) | Host::Ipv6(_) => Written::Literally,
            Host::Domain(name) if name == "localhost" => Written::Literally,
            Host::Domain(_) => Written::AsName,
        }
    }
}

/// Host, and port where it is not the usual one.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = if self.https { 443 } else { 80 };
        if self.port == usual {
            write!(f, "{}", self.host)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// Why a URL from outside is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum UrlError {
    #[error("is longer than {URL_MAX} bytes")]
    TooLong,
    #[error("is not a URL")]
    Malformed,
    #[error("is neither http:// nor https://")]
    Scheme,
    #[error("carries a user name")]
    Userinfo,
}

/// Parses a URL that somebody sent: absolute, or relative to `base`. Beyond the URL standard it refuses what the standard repairs
/// (backslashes, control characters, spaces, percent signs in the host), because a repaired URL is one that two readers read in two ways.
pub(super) fn parse(text: &str, base: Option<&Url>) -> Result<Url, UrlError> {
    if text.len() > URL_MAX {
        return Err(UrlError::TooLong);
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return Err(UrlError::Malformed);
    }
    let absolute = text
        .split_once("://")
        .filter(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
        .map(|(_, behind)| behind);
    let authority = absolute
        .or_else(|| text.strip_prefix("//"))
        .map(|behind| behind.split(['/', '?', '#']).next().unwrap_or_default());
    let mut url = match base {
        Some(base) => base.join(text),
        None => Url::parse(text),
    }
    .map_err(|_unreadable| UrlError::Malformed)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlError::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Userinfo);
    }
    // `https:host` and `https:/host` are repaired by the standard.
    let scheme_given = url
        .scheme()
        .len()
        .checked_add(1)
        .and_then(|end| text.get(..end))
        .is_some_and(|start| start.eq_ignore_ascii_case(&format!("{}:", url.scheme())));
    if scheme_given && absolute.is_none() {
        return Err(UrlError::Malformed);
    }
    if authority.is_some_and(|authority| authority.is_empty() || authority.contains(['%', '@'])) {
        return Err(UrlError::Malformed);
    }
    url.set_fragment(None);
    canonical(&mut url)?;
    Ok(url)
}

/// Takes the trailing dot off a host name: `auth.docker.io.` is `auth.docker.io`.
fn canonical(url: &mut Url) -> Result<(), UrlError> {
    let Some(Host::Domain(name)) = url.host() else {
        return Ok(());
    };
    if let Some(bare) = name.strip_suffix('.') {
        if bare.is_empty() || bare.ends_with('.') {
            return Err(UrlError::Malformed);
        }
        let bare = bare.to_owned();
        url.set_host(Some(&bare))
            .map_err(|_unreadable| UrlError::Malformed)?;
    }
    Ok(())
}

/// The configured upstream: its origin, what stands in front of `/v2`, and its `ns`.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    base: Url,
    origin: Origin,
    ns: Option<String>,
}

impl Endpoint {
    /// From the configured URL.
    pub(super) fn new(url: &Url, ns: Option<String>) -> Result<Self, BuildError> {
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BuildError::Url);
        }
        let base = parse(url.as_str(), None).map_err(|_unusable| BuildError::Url)?;
        let origin = Origin::of(&base).ok_or(BuildError::Url)?;
        Ok(Self { base, origin, ns })
    }

    /// Scheme, host and port.
    pub(super) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether nothing stands in front of `/v2`, and no `ns` says which of several registries is meant.
    pub(super) fn is_whole_host(&self) -> bool {
        self.base.path().trim_end_matches('/').is_empty() && self.ns.is_none()
    }

    /// Its `ns`.
    pub(super) fn ns(&self) -> Option<&str> {
        self.ns.as_deref()
    }

    /// The URL of `path` (`/v2/…`, as `oci::path` makes it) with `query` pairs.
    pub(super) fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        let whole = format!("{}{path}", self.base.path().trim_end_matches('/'));
        url.set_path(&whole);
        if !query.is_empty() || self.ns.is_some() {
            let mut pairs = url.query_pairs_mut();
            pairs.extend_pairs(query);
            if let Some(ns) = &self.ns {
                pairs.append_pair("ns", ns);
            }
        }
        url
    }
}

#[cfg(test)]
mod tests;
