use super::Pages;
use crate::upstream::endpoint::{Origin, parse};

fn pages() -> Pages {
    let first = parse("https://r.example/v2/a/tags/list?n=1000", None).unwrap();
    Pages::new(Origin::of(&first).unwrap(), first)
}

#[test]
fn pages_are_followed_at_home() {
    let mut pages = pages();
    assert!(pages.next().unwrap().is_some());
    pages
        .further(Some("/v2/a/tags/list?n=1000&last=x".to_owned()))
        .unwrap();
    assert_eq!(
        pages.next().unwrap().unwrap().as_str(),
        "https://r.example/v2/a/tags/list?n=1000&last=x"
    );
    pages.further(Some("list?last=y".to_owned())).unwrap();
    assert_eq!(
        pages.next().unwrap().unwrap().as_str(),
        "https://r.example/v2/a/tags/list?last=y"
    );
    pages.further(None).unwrap();
    assert!(pages.next().unwrap().is_none());
}

#[test]
fn and_nowhere_else() {
    for target in [
        "https://evil.example/v2/a/tags/list",
        "//evil.example/",
        "http://r.example/",
        "https://r.example:8443/",
        "https://u:p@r.example/",
        "javascript:x",
        "/a b",
    ] {
        let mut pages = pages();
        pages.next().unwrap();
        assert!(pages.further(Some(target.to_owned())).is_err(), "{target}");
    }
}

#[test]
fn circles_and_endless_lists_end() {
    let mut circle = pages();
    circle.next().unwrap();
    circle.further(Some("?n=1000".to_owned())).unwrap();
    assert!(circle.next().is_err());
    let mut endless = pages();
    for page in 0..100 {
        endless.next().unwrap();
        endless.further(Some(format!("?last={page}"))).unwrap();
    }
    assert!(endless.next().is_err());
}
