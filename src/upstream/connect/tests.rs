use std::net::SocketAddr;

use super::dial::taking_turns;
use super::proxy::proxies;
use super::{ConnectError, Network};
use crate::upstream::endpoint::{Origin, parse};
use crate::upstream::guard::Purpose;
use crate::upstream::realm::TokenHost;
use crate::upstream::{Config, ProxyConfig};

fn origin(text: &str) -> Origin {
    Origin::of(&parse(text, None).unwrap()).unwrap()
}

fn network() -> Network {
    let config = Config::new("x", "https://r.example".parse().unwrap(), "me");
    let hosts = vec![TokenHost::parse("auth.example").unwrap()];
    Network::new(&config, origin("https://r.example"), hosts).unwrap()
}

fn addresses(list: &[&str]) -> Vec<SocketAddr> {
    list.iter()
        .map(|ip| (ip.parse::<std::net::IpAddr>().unwrap(), 443).into())
        .collect()
}

#[test]
fn what_a_name_resolves_to_is_judged() {
    let network = network();
    for (host, purpose, found, left) in [
        (
            "https://cdn.example",
            Purpose::Redirect,
            &["1.1.1.1", "2600::1"][..],
            &["1.1.1.1", "2600::1"][..],
        ),
        // Several records, one of them a trap: only the others are dialled.
        (
            "https://cdn.example",
            Purpose::Redirect,
            &["169.254.169.254", "1.1.1.1", "::1"],
            &["1.1.1.1"],
        ),
        (
            "https://cdn.example",
            Purpose::Redirect,
            &["169.254.169.254"],
            &[],
        ),
        (
            "https://cdn.example",
            Purpose::Redirect,
            &["127.0.0.1", "10.0.0.1"],
            &[],
        ),
        (
            "https://cdn.example",
            Purpose::Token,
            &["64:ff9b::a9fe:a9fe"],
            &[],
        ),
        // A declared name is not a declared address.
        ("https://auth.example", Purpose::Token, &["127.0.0.1"], &[]),
        (
            "https://r.example",
            Purpose::Own,
            &["127.0.0.1", "10.0.0.1"],
            &["127.0.0.1", "10.0.0.1"],
        ),
        (
            "https://r.example",
            Purpose::Own,
            &["169.254.169.254", "0.0.0.0", "fe80::1"],
            &[],
        ),
    ] {
        let allowed = network.allowed(&origin(host), purpose, addresses(found));
        match allowed {
            Ok(allowed) => assert_eq!(allowed, addresses(left), "{host} {found:?}"),
            Err(error) => {
                assert!(
                    left.is_empty() && matches!(error, ConnectError::Guarded { .. }),
                    "{host} {found:?}"
                );
            }
        }
    }
}

#[test]
fn families_take_turns() {
    let queue = taking_turns(addresses(&[
        "1.1.1.1", "1.1.1.2", "1.1.1.3", "2600::1", "2600::2",
    ]));
    assert_eq!(
        queue,
        addresses(&["2600::1", "1.1.1.1", "2600::2", "1.1.1.2", "1.1.1.3"])
    );
    assert!(taking_turns(Vec::new()).is_empty());
}

#[test]
fn which_proxy() {
    let rules = |https: &str, http: &str, no: &str| {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        proxies(&ProxyConfig {
            https: given(https),
            http: given(http),
            no: given(no),
        })
    };
    let which = |rules: &hyper_util::client::proxy::matcher::Matcher, url: &str| {
        rules
            .intercept(&url.parse().unwrap())
            .map(|proxy| proxy.uri().to_string())
    };
    let proxied = rules(
        "proxy.example:3128",
        "http://u:p@plain.example",
        "inside.example,10.0.0.0/8,localhost",
    )
    .unwrap();
    for (url, proxy) in [
        ("https://r.example/", Some("http://proxy.example:3128/")),
        ("http://r.example/", Some("http://plain.example/")),
        ("https://r.inside.example/", None),
        ("https://10.1.2.3/", None),
        ("http://localhost:5000/", None),
        (
            "https://notinside.example/",
            Some("http://proxy.example:3128/"),
        ),
    ] {
        assert_eq!(which(&proxied, url).as_deref(), proxy, "{url}");
    }
    assert_eq!(
        which(&rules("", "", "").unwrap(), "https://r.example/"),
        None
    );
    for wrong in ["socks5://x:1", "ftp://x", "http://", "http://a b", "://"] {
        assert!(rules(wrong, "", "").is_err(), "{wrong}");
    }
}
