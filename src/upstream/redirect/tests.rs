use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{Trail, is_redirect};
use crate::upstream::Kind;
use crate::upstream::endpoint::{Origin, parse};

fn trail(start: &str) -> Trail {
    let start = parse(start, None).unwrap();
    Trail::new(Origin::of(&start).unwrap(), start)
}

fn to(locations: &[&[u8]]) -> HeaderMap {
    locations
        .iter()
        .map(|location| (LOCATION, HeaderValue::from_bytes(location).unwrap()))
        .collect()
}

#[test]
fn which_statuses_redirect() {
    let followed: Vec<u16> = (300..400)
        .filter(|status| is_redirect(StatusCode::from_u16(*status).unwrap()))
        .collect();
    assert_eq!(followed, [301, 302, 303, 307, 308]);
}

#[test]
fn targets() {
    for (location, target) in [
        (
            "https://cdn.example/x?sig=1",
            Some("https://cdn.example/x?sig=1"),
        ),
        ("/other", Some("https://r.example/other")),
        ("../up", Some("https://r.example/v2/a/up")),
        ("//cdn.example/x", Some("https://cdn.example/x")),
        ("https://cdn.example/x#frag", Some("https://cdn.example/x")),
        ("http://cdn.example/x", None),
        ("http://r.example/x", None),
        ("file:///etc/passwd", None),
        ("gopher://x/", None),
        ("javascript:alert(1)", None),
        ("https://user:pw@cdn.example/", None),
        ("", None),
        ("https://", None),
        ("https://cdn example/", None),
        ("https://evil\\@cdn.example/", None),
    ] {
        let mut trail = trail("https://r.example/v2/a/blobs/b");
        let followed = trail.follow(&to(&[location.as_bytes()]));
        match target {
            Some(target) => {
                followed.unwrap();
                assert_eq!(trail.url().as_str(), target);
            }
            None => assert_eq!(followed.unwrap_err().kind(), Kind::BadAnswer, "{location}"),
        }
    }
    let long = format!("https://cdn.example/{}", "x".repeat(64 * 1024));
    let odd: [&[&[u8]]; 4] = [
        &[],
        &[b"https://a/", b"https://b/"],
        &[b"https://\xff/"],
        &[long.as_bytes()],
    ];
    for locations in odd {
        assert!(trail("https://r.example/").follow(&to(locations)).is_err());
    }
}

#[test]
fn credentials_do_not_come_back() {
    let mut trail = trail("https://r.example/v2/a");
    assert!(trail.is_own() && trail.may_authorise());
    trail.follow(&to(&[b"/v2/b"])).unwrap();
    assert!(trail.is_own() && trail.may_authorise());
    trail.follow(&to(&[b"https://cdn.example/"])).unwrap();
    assert!(!trail.is_own() && !trail.may_authorise());
    trail.follow(&to(&[b"https://r.example/v2/c"])).unwrap();
    assert!(trail.is_own() && !trail.may_authorise());
}

#[test]
fn another_port_is_elsewhere() {
    let mut trail = trail("http://127.0.0.1:5000/v2/a");
    trail.follow(&to(&[b"http://127.0.0.1:5001/v2/a"])).unwrap();
    assert!(!trail.is_own() && !trail.may_authorise());
}

#[test]
fn circles_and_long_ways() {
    let mut circle = trail("https://a.example/");
    circle.follow(&to(&[b"https://b.example/"])).unwrap();
    assert!(
        circle
            .follow(&to(&[b"https://a.example/"]))
            .unwrap_err()
            .to_string()
            .contains("circle")
    );
    assert!(trail("https://a.example/x").follow(&to(&[b"/x"])).is_err());

    let mut long = trail("https://a.example/");
    for hop in 0..5 {
        long.follow(&to(&[format!("/{hop}").as_bytes()])).unwrap();
    }
    assert!(
        long.follow(&to(&[b"/6"]))
            .unwrap_err()
            .to_string()
            .contains("too often")
    );
}

#[test]
fn the_query_stays_out_of_messages() {
    let mut trail = trail("https://a.example/");
    trail
        .follow(&to(&[b"https://cdn.example/x?X-Amz-Signature=s3cret"]))
        .unwrap();
    let error = trail.follow(&to(&[])).unwrap_err();
    assert!(!error.to_string().contains("s3cret"), "{error}");
}
