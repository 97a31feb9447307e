//! Pages, against section V5 of the hostile inputs.

use proptest::prelude::*;

use crate::oci::page::{PAGE_MAX, Page, cut};

fn parse(query: &str) -> Option<Page> {
    Page::parse(url::form_urlencoded::parse(query.as_bytes())).ok()
}

#[test]
fn queries() {
    for (query, n, last) in [
        ("", None, None),
        ("n=", None, None),
        ("last=", None, None),
        ("n=0", Some(0), None),
        ("n=7&last=b", Some(7), Some("b")),
        ("last=..%2Fx&x=1&x=2", None, Some("../x")),
        ("n=10000000000", Some(PAGE_MAX), None),
        ("n=100000000000000000000", Some(PAGE_MAX), None),
    ] {
        let page = parse(query).expect(query);
        assert_eq!((page.n(), page.last()), (n, last), "{query}");
    }
    for query in [
        "n=-1",
        "n=%2B1",
        "n=abc",
        "n=1e3",
        "n=NaN",
        "n=1.5",
        "n=1&n=2",
        "n=1&n=",
        "last=a&last=b",
        "n=%D9%A1",
    ] {
        assert_eq!(parse(query), None, "{query}");
    }
}

#[test]
fn cuts() {
    let list = ["a", "b", "c/d&e", "f"].map(str::to_owned);
    let whole = |query| cut(&list, &parse(query).unwrap());
    assert_eq!(whole(""), (&list[..], None));
    assert_eq!(whole("last=bb"), (&list[2..], None));
    assert_eq!(whole("last=f"), (&[][..], None));
    assert_eq!(whole("n=0"), (&[][..], None));
    assert_eq!(whole("n=4"), (&list[..], None));
    assert_eq!(whole("n=9&last=a"), (&list[1..], None));
    let (page, next) = whole("n=2&last=a");
    let next = next.unwrap();
    assert_eq!((page, next.n(), next.last()), (&list[1..3], 2, "c/d&e"));
    assert_eq!(next.query(), "n=2&last=c%2Fd%26e");
}

proptest! {
    #[test]
    fn following_the_pages_gives_the_list(list in prop::collection::btree_set("\\PC{1,4}", 0..30), n in 1..8_usize) {
        let list: Vec<String> = list.into_iter().collect();
        let mut collected = Vec::new();
        let mut query = format!("n={n}");
        for _ in 0..=list.len() {
            let (page, next) = cut(&list, &parse(&query).unwrap());
            prop_assert!(page.len() <= n);
            collected.extend_from_slice(page);
            match next {
                Some(next) => query = next.query(),
                None => break,
            }
        }
        prop_assert_eq!(collected, list);
    }

    #[test]
    fn arbitrary_queries_never_panic(query in "\\PC*|(n|last)=\\PC{0,5}(&(n|last)=[0-9-]{0,25})?") {
        if let Some(page) = parse(&query) {
            prop_assert!(page.n().is_none_or(|n| n <= PAGE_MAX));
        }
    }
}
