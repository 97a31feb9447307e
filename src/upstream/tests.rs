use std::net::IpAddr;
use std::time::Duration;

use super::challenge::{self, Challenge};
use super::guard::{Class, Facts, Purpose, classify, may_dial};
use super::health::{Health, retry_after};
use super::token::read_token;
use super::{Hops, Kind};
use crate::clock::Wall;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn every_form_of_an_inside_address_is_known() {
    let never = [
        "0.0.0.0",
        "::",
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "192.0.2.1",
    ];
    for text in never {
        assert_eq!(classify(address(text)), Class::Never, "{text}");
    }
    for text in [
        "127.0.0.1",
        "127.255.0.9",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
    ] {
        assert_eq!(classify(address(text)), Class::Loopback, "{text}");
    }
    for text in [
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "fc00::1",
        "fd12::1",
        "::ffff:10.1.2.3",
    ] {
        assert_eq!(classify(address(text)), Class::Private, "{text}");
    }
    for text in [
        "1.1.1.1",
        "172.32.0.1",
        "8.8.8.8",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
    ] {
        assert_eq!(classify(address(text)), Class::Public, "{text}");
    }
}

#[test]
fn who_may_be_dialled_for_what() {
    let none = Facts {
        literal: false,
        declared: false,
        upstream_is_private: false,
        allowed: &[],
    };
    let literal = Facts {
        literal: true,
        ..none
    };
    let declared = Facts {
        declared: true,
        ..literal
    };
    let private = Facts {
        upstream_is_private: true,
        ..none
    };
    let nets = ["127.0.0.2/32".parse().unwrap()];
    let allowed = Facts {
        allowed: &nets,
        ..none
    };
    let table = [
        ("8.8.8.8", Purpose::Redirect, none, true),
        ("127.0.0.1", Purpose::Own, literal, true),
        ("127.0.0.1", Purpose::Own, none, true),
        ("10.0.0.1", Purpose::Own, none, true),
        ("169.254.169.254", Purpose::Own, none, false),
        ("169.254.1.1", Purpose::Own, literal, true),
        ("0.0.0.0", Purpose::Own, literal, false),
        ("127.0.0.1", Purpose::Redirect, declared, false),
        ("127.0.0.1", Purpose::Token, literal, false),
        ("127.0.0.1", Purpose::Token, declared, true),
        ("127.0.0.2", Purpose::Redirect, allowed, true),
        ("127.0.0.1", Purpose::Redirect, allowed, false),
        ("10.0.0.1", Purpose::Redirect, none, false),
        ("10.0.0.1", Purpose::Redirect, private, true),
        ("169.254.169.254", Purpose::Redirect, private, false),
        ("169.254.169.254", Purpose::Token, declared, false),
        ("::ffff:127.0.0.1", Purpose::Redirect, private, false),
    ];
    for (text, purpose, facts, expected) in table {
        assert_eq!(
            may_dial(address(text), purpose, &facts),
            expected,
            "{text} {purpose:?} {facts:?}"
        );
    }
}

fn bearer(parameters: &[(&str, &str)]) -> Challenge {
    Challenge {
        scheme: "bearer".into(),
        parameters: parameters
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    }
}

#[test]
fn challenges_as_registries_send_them() {
    let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#;
    let parsed = challenge::parse(hub).unwrap();
    assert_eq!(parsed[0].get("realm"), Some("https://auth.docker.io/token"));
    assert_eq!(
        parsed[0].get("scope"),
        Some("repository:library/nginx:pull")
    );
    assert_eq!(
        challenge::parse("bearer realm=https, x=\"a\\\"b,c\"").unwrap_or_default(),
        [bearer(&[("realm", "https"), ("x", "a\"b,c")])]
    );
    let two = challenge::parse(r#"Basic realm="x", Bearer realm="y",service="z""#).unwrap();
    assert_eq!(
        two.iter().map(|c| c.scheme.as_str()).collect::<Vec<_>>(),
        ["basic", "bearer"]
    );
    let negotiate = challenge::parse("Negotiate YIIabc==, Basic realm=\"r\"").unwrap();
    assert_eq!(
        (negotiate[0].scheme.as_str(), negotiate[1].get("realm")),
        ("negotiate", Some("r"))
    );
    assert_eq!(
        challenge::parse(r#"Bearer realm="a",realm="b""#).unwrap()[0].get("realm"),
        None,
        "a parameter given twice means nothing"
    );
    for bad in [
        r#"Bearer realm="unterminated"#,
        r#"Bearer realm="a"b""#,
        "Bearer realm=\"a\u{0}\"",
        "=x",
        "\"x\"",
        "Bearer realm=\"a\" service=\"b\"",
    ] {
        assert_eq!(challenge::parse(bad), None, "{bad}");
    }
    assert_eq!(challenge::parse(&"a".repeat(5000)), None);
    assert_eq!(challenge::parse("").unwrap(), []);
}

proptest::proptest! {
    #[test]
    fn no_challenge_panics(text in "\\PC{0,200}") {
        let _parsed = challenge::parse(&text);
    }

    #[test]
    fn what_is_quoted_comes_out_again(value in "[ -~]{0,60}") {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        let parsed = challenge::parse(&format!("Bearer realm=\"{quoted}\", a=b")).unwrap();
        proptest::prop_assert_eq!(parsed[0].get("realm"), Some(value.as_str()));
    }
}

#[test]
fn tokens_are_bounded_and_their_life_is_clamped() {
    let life = |json: &str| {
        read_token(json.as_bytes()).map(|(token, life)| (token.expose().to_owned(), life.as_secs()))
    };
    assert_eq!(
        life(r#"{"token":"t","access_token":"other","expires_in":300}"#),
        Some(("t".into(), 300))
    );
    assert_eq!(life(r#"{"access_token":"a"}"#), Some(("a".into(), 60)));
    for (expires, expected) in [
        ("0", 60),
        ("-1", 60),
        ("1e18", 3600),
        ("\"60\"", 60),
        ("90.5", 90),
        ("null", 60),
    ] {
        assert_eq!(
            life(&format!(r#"{{"token":"t","expires_in":{expires}}}"#)),
            Some(("t".into(), expected)),
            "{expires}"
        );
    }
    for bad in [
        r#"{"token":""}"#,
        r#"{"token":"a b"}"#,
        "{\"token\":\"a\\r\\nX: y\"}",
        r#"{"token":7}"#,
        "[]",
        "<html>",
        r#"{"token":"é"}"#,
    ] {
        assert_eq!(life(bad), None, "{bad}");
    }
    assert_eq!(
        life(&format!(r#"{{"token":"{}"}}"#, "x".repeat(20_000))),
        None
    );
}

#[test]
fn a_retry_after_is_clamped() {
    let now = Wall::from_ms(1_700_000_000_000);
    let wait = |value: &str| retry_after(value, now).map(|wait| wait.as_secs());
    assert_eq!(wait("7"), Some(7));
    assert_eq!(wait("0"), Some(1));
    assert_eq!(wait("-1"), Some(1));
    assert_eq!(wait("1000000000"), Some(3600));
    assert_eq!(wait("Thu, 01 Jan 1970 00:00:00 GMT"), Some(1));
    assert_eq!(wait("Fri, 31 Dec 9999 23:59:59 GMT"), Some(3600));
    assert_eq!(wait("Tue, 14 Nov 2023 22:13:30 GMT"), Some(10));
    assert_eq!(wait("soon"), None);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_opens_probes_and_closes() {
    let health = Health::new();
    for _ in 0..3 {
        health.admit().unwrap().failed();
    }
    let refused = health.admit().unwrap_err();
    assert_eq!(refused.kind(), Kind::BreakerOpen);
    assert!(refused.retry_after().is_some());
    tokio::time::advance(super::health::OPEN_FIRST).await;
    let probe = health.admit().unwrap();
    assert_eq!(
        health.admit().unwrap_err().kind(),
        Kind::BreakerOpen,
        "one probe at a time"
    );
    drop(probe);
    health.admit().unwrap().failed();
    tokio::time::advance(super::health::OPEN_FIRST).await;
    assert!(
        health.admit().is_err(),
        "the second time it stays open twice as long"
    );
    tokio::time::advance(super::health::OPEN_FIRST).await;
    health.admit().unwrap().answered();
    health.admit().unwrap().failed();
    assert!(
        health.admit().is_ok(),
        "one failure after a success opens nothing"
    );
    health.limited(Duration::from_secs(9));
    assert_eq!(health.admit().unwrap_err().kind(), Kind::RateLimited);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(health.admit().is_ok());
}

#[test]
fn a_loop_is_seen() {
    let mut headers = http::HeaderMap::new();
    assert!(!Hops::from_headers(&headers).is_loop("a"));
    headers.append("cdn-loop", "b, a; v=1".parse().unwrap());
    assert!(
        Hops::from_headers(&headers).is_loop("a") && !Hops::from_headers(&headers).is_loop("c")
    );
    assert_eq!(Hops::from_headers(&headers).extended("c"), "b, a; v=1, c");
    headers.append("cdn-loop", "1, 2, 3, 4, 5, 6".parse().unwrap());
    assert!(
        Hops::from_headers(&headers).is_loop("c"),
        "too many mirrors in a row"
    );
}
