//! Who a request comes from when proxies stand in between. Pure.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// The client as the log names it: the connection's other end, or, where that is a trusted proxy, the last address in `X-Forwarded-For`
/// that no trusted proxy has. Anyone else's header is only what they say of themselves.
pub(super) fn client(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> String {
    let is_trusted = |address: &IpAddr| {
        trusted
            .iter()
            .any(|net| net.contains(&address.to_canonical()))
    };
    if !is_trusted(&peer.ip()) {
        return peer.to_string();
    }
    let values: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let named = values.iter().flat_map(|value| value.split(','));
    // What cannot be read ends the search: behind it stands what anybody may have written.
    let client = named
        .rev()
        .map(|address| named_address(address.trim()))
        .find(|address| address.is_none_or(|address| !is_trusted(&address)));
    let client = client.flatten();
    client.map_or_else(|| peer.to_string(), |address| address.to_string())
}

/// An address as proxies write it: alone, or with a port, of IPv6 in brackets.
fn named_address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let alone = bare.unwrap_or(text).parse().ok();
    alone.or_else(|| text.parse().ok().map(|with: SocketAddr| with.ip()))
}

/// The host that the client addressed, in lower case: from a trusted proxy the first of `X-Forwarded-Host`, else `Host`.
pub(super) fn host(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> String {
    let is_trusted = trusted
        .iter()
        .any(|net| net.contains(&peer.ip().to_canonical()));
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let forwarded = text("x-forwarded-host")
        .filter(|_| is_trusted)
        .and_then(|hosts| hosts.split(',').next())
        .map(str::trim)
        .filter(|host| !host.is_empty());
    forwarded
        .or_else(|| text("host"))
        .unwrap_or_default()
        .to_ascii_lowercase()
}

/// How the client addressed us, where a trusted proxy says so: `X-Artifactory-Override-Base-Url`, else `X-Forwarded-Proto` with the host.
pub(super) fn base(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Option<String> {
    let is_trusted = trusted
        .iter()
        .any(|net| net.contains(&peer.ip().to_canonical()));
    if !is_trusted {
        return None;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(base) = text("x-artifactory-override-base-url") {
        let base = base.trim_end_matches('/');
        let base = base.strip_suffix("/artifactory").unwrap_or(base);
        if base.starts_with("http://") || base.starts_with("https://") {
            return Some(base.to_owned());
        }
    }
    let scheme = text("x-forwarded-proto").filter(|scheme| matches!(*scheme, "http" | "https"))?;
    Some(format!("{scheme}://{}", host(peer, headers, trusted)))
}

/// Whether a browser says that it sends this for a page of another site. Other clients send neither header.
pub(super) fn is_foreign_page(headers: &HeaderMap, own_host: &str) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return true;
    }
    text("origin").is_some_and(|origin| {
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        !host.eq_ignore_ascii_case(own_host)
    })
}

/// Whether a host is a name that somebody else may have pointed at this machine, so that their page passes for ours (DNS rebinding).
/// Addresses, `localhost` and our own names are not; who sends no host is no browser.
pub(super) fn may_be_rebound<'a>(host: &str, own: impl IntoIterator<Item = &'a str>) -> bool {
    let name = |host: &str| {
        let is_bare = host.ends_with(']') || !host.contains(':');
        let name = match host.rsplit_once(':') {
            Some((name, _port)) if !is_bare => name,
            Some(_) | None => host,
        };
        name.trim_end_matches('.').to_ascii_lowercase()
    };
    let asked = name(host);
    let address = asked.trim_start_matches('[').trim_end_matches(']');
    let is_known = asked.is_empty()
        || address.parse::<IpAddr>().is_ok()
        || asked == "localhost"
        || asked.ends_with(".localhost")
        || own.into_iter().any(|own| name(own) == asked);
    !is_known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_may_point_here() {
        let own = ["127.0.0.1:5000", "mirror.example", "Lab.example:5000"];
        let rebound = |host: &str| may_be_rebound(host, own);
        for host in [
            "",
            "127.0.0.1:5000",
            "127.0.0.1",
            "10.1.2.3:80",
            "[::1]:5000",
            "[::1]",
            "localhost",
            "LOCALHOST:5000",
            "localhost.:5000",
            "app.localhost:5000",
            "mirror.example",
            "mirror.example:8443",
            "Mirror.Example.",
            "lab.example",
        ] {
            assert!(!rebound(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:5000",
            "127.0.0.1.evil.example:5000",
            "localhost.evil.example",
            "evillocalhost",
            "mirror.example.evil",
            "x.mirror.example",
            "2130706433",
            "0x7f.1:5000",
            "[::1].evil:5000",
            "a:b:c",
        ] {
            assert!(rebound(host), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites() {
        let foreign = |name: &'static str, value: &str| {
            let name = http::HeaderName::from_static(name);
            let headers = HeaderMap::from_iter([(name, value.parse().unwrap())]);
            is_foreign_page(&headers, "mirror:5000")
        };
        assert!(!is_foreign_page(&HeaderMap::new(), "mirror:5000"));
        for site in ["same-origin", "none"] {
            assert!(!foreign("sec-fetch-site", site));
        }
        for site in ["cross-site", "same-site", ""] {
            assert!(foreign("sec-fetch-site", site), "{site}");
        }
        assert!(!foreign("origin", "http://Mirror:5000"));
        for origin in ["null", "http://evil", "http://mirror:5001", "mirror:5000"] {
            assert!(foreign("origin", origin), "{origin}");
        }
    }

    #[test]
    fn addresses_as_proxies_write_them() {
        for (text, address) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1:4711", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("unknown", None),
            ("192.0.2.1:x", None),
            ("", None),
        ] {
            let address = address.map(|address| address.parse().unwrap());
            assert_eq!(named_address(text), address, "{text}");
        }
    }

    #[test]
    fn a_trusted_proxy_names_the_host() {
        let headers = HeaderMap::from_iter([
            (http::header::HOST, "inside:5000".parse().unwrap()),
            (
                http::HeaderName::from_static("x-forwarded-host"),
                "Mirror.Example, inner".parse().unwrap(),
            ),
        ]);
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let told = |peer: &str| host(peer.parse().unwrap(), &headers, &trusted);
        assert_eq!(told("10.0.0.1:1"), "mirror.example");
        assert_eq!(told("9.9.9.9:1"), "inside:5000");
        let with = |name: &'static str, value: &str| {
            let mut headers = headers.clone();
            headers.insert(name, value.parse().unwrap());
            headers
        };
        let based =
            |peer: &str, headers: &HeaderMap| base(peer.parse().unwrap(), headers, &trusted);
        let forwarded = with("x-forwarded-proto", "https");
        assert_eq!(
            based("10.0.0.1:1", &forwarded).unwrap(),
            "https://mirror.example"
        );
        assert_eq!(based("9.9.9.9:1", &forwarded), None);
        let overridden = with(
            "x-artifactory-override-base-url",
            "https://a.example:8443/artifactory/",
        );
        assert_eq!(
            based("10.0.0.1:1", &overridden).unwrap(),
            "https://a.example:8443"
        );
    }

    #[test]
    fn only_a_trusted_proxy_may_speak_for_others() {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-forwarded-for"),
            "6.6.6.6, 8.8.8.8, 10.0.0.2".parse().unwrap(),
        )]);
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let proxy = "10.0.0.1:1".parse().unwrap();
        let stranger = "9.9.9.9:1".parse().unwrap();
        assert_eq!(client(proxy, &headers, &trusted), "8.8.8.8");
        assert_eq!(client(stranger, &headers, &trusted), "9.9.9.9:1");
        assert_eq!(client(proxy, &headers, &[]), "10.0.0.1:1");
        assert_eq!(client(proxy, &HeaderMap::new(), &trusted), "10.0.0.1:1");
    }
}
