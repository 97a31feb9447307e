//! Link headers as registries send them, and as they might.

use proptest::prelude::*;

use crate::oci::link::{next, render_next};

#[test]
fn found() {
    for header in [
        r#"</v2/a/tags/list?n=2&last=b>; rel="next""#,
        "</v2/a/tags/list?n=2&last=b>; rel=next",
        "  </v2/a/tags/list?n=2&last=b>;rel=NEXT",
        r#"</v2/a/tags/list?n=2&last=b> ; REL = "prev Next""#,
        r#"<x>; rel="prev", </v2/a/tags/list?n=2&last=b>; rel="next""#,
        r#"<x>; title="a, <y>; rel=next \" "; rel=prev,</v2/a/tags/list?n=2&last=b>; title=x; crossorigin; rel="next"; q=1, <z>; rel=next"#,
        r#", ,</v2/a/tags/list?n=2&last=b>; rel="next" , trailing"#,
        r"<>; rel=next, </v2/a/tags/list?n=2&last=b>; rel=next",
    ] {
        assert_eq!(
            next([header].into_iter()).as_deref(),
            Some("/v2/a/tags/list?n=2&last=b"),
            "{header}"
        );
    }
    let several = ["<a>; rel=prev", "junk", "<b>; rel=next", "<c>; rel=next"];
    assert_eq!(next(several.into_iter()).as_deref(), Some("b"));
}

#[test]
fn not_found() {
    for header in [
        "",
        "<",
        ">",
        "<>",
        "<>; rel=next",
        "<a>",
        "a; rel=next",
        "<a; rel=next",
        "<a>; rel=",
        "<a>; rel",
        "<a> rel=next",
        "<a>; rel=nextish",
        "<a>; rel=prev; rel=next",
        r#"<a>; rel="next"#,
        r#"<a>; title="\"#,
        "<a>, rel=next",
    ] {
        assert_eq!(next([header].into_iter()), None, "{header}");
    }
    let bomb = "<a>; rel=prev,".repeat(100_000);
    assert_eq!(next([bomb.as_str()].into_iter()), None);
}

#[test]
fn rendered() {
    assert_eq!(
        render_next("/v2/a/tags/list?n=1&last=b"),
        r#"</v2/a/tags/list?n=1&last=b>; rel="next""#
    );
    assert_eq!(
        render_next("/a>\r\n b\"<\u{e9}"),
        r#"</a%3E%0D%0A%20b%22%3C%C3%A9>; rel="next""#
    );
}

proptest! {
    #[test]
    fn what_is_rendered_is_found(path in "/[!#-;=?-~]{0,40}") {
        prop_assert_eq!(next([render_next(&path).as_str()].into_iter()), Some(path));
    }

    #[test]
    fn arbitrary_text_never_panics_and_is_one_line(text in any::<String>(), header in "[<>;=,\"\\\\ a-eltnxr/]{0,40}") {
        next([text.as_str(), header.as_str()].into_iter());
        let rendered = render_next(&text);
        prop_assert!(rendered.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        prop_assert_eq!(next([rendered.as_str()].into_iter()).is_some(), !text.is_empty());
    }
}
