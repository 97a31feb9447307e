use http::{HeaderMap, HeaderValue};

use super::{CDN_LOOP, Hops};

fn headers(lines: &[&str]) -> HeaderMap {
    lines
        .iter()
        .map(|line| (CDN_LOOP, HeaderValue::from_str(line).unwrap()))
        .collect()
}

#[test]
fn chains_are_read_and_passed_on() {
    let hops = Hops::from_headers(&headers(&["a; v=1, b:80", "c"]));
    assert!(hops.contains("a") && hops.contains("b:80") && hops.contains("C"));
    assert!(!hops.contains("d"));
    assert_eq!(hops.passed_on("me").unwrap(), "a, b:80, c, me");
    assert_eq!(Hops::none().passed_on("me").unwrap(), "me");
    assert!(!Hops::none().contains("me"));
}

#[test]
fn junk_members_are_dropped_and_long_chains_are_loops() {
    let hops = Hops::from_headers(&headers(&[",, \"x\" ,a b, ok"]));
    assert_eq!(hops.passed_on("me").unwrap(), "ok, me");
    let many = vec!["x"; 17].join(",");
    assert!(Hops::from_headers(&headers(&[&many])).contains("anything"));
    let long = format!("{},{}", "a".repeat(200), "b".repeat(4000));
    assert!(Hops::from_headers(&headers(&[&long, "c"])).contains("anything"));
}
