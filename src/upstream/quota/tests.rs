use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{quota, retry_after};
use crate::clock::Wall;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect()
}

#[test]
fn waits_are_clamped() {
    let now = Wall::from_ms(1_700_000_000_000);
    for (text, seconds) in [
        ("0", 1),
        ("1", 1),
        ("120", 120),
        ("3600", 3600),
        ("1000000000", 3600),
        ("99999999999999999999999", 3600),
        ("-1", 1),
        ("1e9", 1),
        ("1.5", 1),
        ("soon", 1),
        ("", 1),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60),
    ] {
        assert_eq!(
            retry_after(&headers(&[("retry-after", text)]), now),
            Some(Duration::from_secs(seconds)),
            "{text}"
        );
    }
    assert_eq!(retry_after(&HeaderMap::new(), now), None);
}

#[test]
fn docker_hub_quota() {
    let told = quota(&headers(&[
        ("ratelimit-limit", "100;w=21600"),
        ("ratelimit-remaining", "76;w=21600"),
        ("docker-ratelimit-source", "192.0.2.1"),
    ]))
    .unwrap();
    assert_eq!((told.limit, told.remaining), (100, 76));
    assert_eq!(told.window, Some(Duration::from_secs(21600)));
    assert_eq!(told.source.as_deref(), Some("192.0.2.1"));
    assert!(quota(&headers(&[("ratelimit-limit", "100")])).is_none());
    assert!(
        quota(&headers(&[
            ("ratelimit-limit", "x"),
            ("ratelimit-remaining", "1")
        ]))
        .is_none()
    );
    let long = "x".repeat(100);
    let told = quota(&headers(&[
        ("ratelimit-limit", "5"),
        ("ratelimit-remaining", "0;w=x"),
        ("docker-ratelimit-source", &long),
    ]))
    .unwrap();
    assert_eq!((told.window, told.source), (None, None));
}
