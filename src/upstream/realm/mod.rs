//! Which token service may be asked, and which may see credentials (RELIABILITY P29, C1–C5, C7).
//!
//! Pure. The realm is the upstream's word, so it decides nothing: with credentials at hand only the upstream itself, the pairs that
//! are known to belong together and `token_hosts` are asked; anything else is refused before a connection is made. Without
//! credentials any public host may be asked, since all it learns is the name of an image; the address guard still applies at connect.

use url::{Host, Url};

use super::config::BuildError;
use super::endpoint::{Origin, parse};
use super::error::{Error, Kind};

/// Upstreams whose token service has another host. Both sides are https on the usual port.
const PAIRS: [(&str, &str); 4] = [
    ("registry-1.docker.io", "auth.docker.io"),
    ("index.docker.io", "auth.docker.io"),
    ("docker.io", "auth.docker.io"),
    ("registry.gitlab.com", "gitlab.com"),
];

/// An entry of `token_hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenHost {
    host: Host<String>,
    port: Option<u16>,
}

impl TokenHost {
    /// Parses `host` or `host:port`; an IPv6 address stands in brackets.
    pub(super) fn parse(text: &str) -> Result<Self, BuildError> {
        let wrong = || BuildError::TokenHost(text.to_owned());
        if text.contains(['/', '?', '#', '@']) || text.ends_with(':') {
            return Err(wrong());
        }
        let url = parse(&format!("https://{text}/"), None).map_err(|_unusable| wrong())?;
        let origin = Origin::of(&url).ok_or_else(wrong)?;
        // The usual port is dropped by the parse, but `host:443` means just that port.
        let port_given = text
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
        Ok(Self {
            host: origin.host().clone(),
            port: port_given.then(|| origin.port()),
        })
    }

    /// Whether this entry means `origin`.
    pub(super) fn means(&self, origin: &Origin) -> bool {
        self.host == *origin.host() && self.port.is_none_or(|port| port == origin.port())
    }
}

/// A token service that may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Realm {
    /// Where it is. May have a query of its own.
    pub(super) url: Url,
    /// The same without path.
    pub(super) origin: Origin,
}

/// Judges the realm of a challenge of `own`.
pub(super) fn judge(
    own: &Origin,
    realm: &str,
    has_credentials: bool,
    token_hosts: &[TokenHost],
) -> Result<Realm, Error> {
    let url = parse(realm, None).map_err(|problem| {
        Error::new(
            Kind::BadAnswer,
            format!("{own} names a token service whose URL {problem}"),
        )
    })?;
    let origin = Origin::of(&url).ok_or_else(|| {
        Error::new(
            Kind::BadAnswer,
            format!("{own} names a token service without a host"),
        )
    })?;
    if own.is_https() && !origin.is_https() {
        return Err(Error::new(
            Kind::Credentials,
            format!(
                "{own} speaks TLS but names a token service at {origin} that does not; it is not asked"
            ),
        ));
    }
    if has_credentials && !belongs(own, &origin, token_hosts) {
        return Err(Error::new(
            Kind::Credentials,
            format!(
                "{own} wants its credentials sent to {origin}, which is not known to be its token service; add \"{origin}\" to token_hosts if it is"
            ),
        ));
    }
    Ok(Realm { url, origin })
}

fn belongs(own: &Origin, realm: &Origin, token_hosts: &[TokenHost]) -> bool {
    let is_name = |origin: &Origin, name: &str| {
        origin.is_https()
            && origin.port() == 443
            && matches!(origin.host(), Host::Domain(host) if host == name)
    };
    own.is_same_place(realm)
        || PAIRS
            .iter()
            .any(|(upstream, service)| is_name(own, upstream) && is_name(realm, service))
        || token_hosts.iter().any(|entry| entry.means(realm))
}

/// The scope that is asked for: ours, whatever the challenge offers (C10). Amazon's public registry has one scope for everything.
pub(super) fn scope(own: &Origin, name: &crate::oci::Name) -> String {
    if matches!(own.host(), Host::Domain(host) if host == "public.ecr.aws") {
        "aws".to_owned()
    } else {
        format!("repository:{name}:pull")
    }
}

/// The scopes of a push, and of a mount out of another image: asked for where something is written and nowhere else.
pub(super) fn push_scope(
    own: &Origin,
    name: &crate::oci::Name,
    from: Option<&crate::oci::Name>,
) -> String {
    let pull = scope(own, name);
    if !pull.ends_with(":pull") {
        return pull;
    }
    match from {
        Some(from) => format!("{pull},push {}", scope(own, from)),
        None => format!("{pull},push"),
    }
}

#[cfg(test)]
mod tests;
