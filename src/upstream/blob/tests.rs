use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Part, part};
use crate::upstream::Span;

fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
        .collect()
}

#[test]
fn a_200_is_the_whole() {
    let ok = StatusCode::OK;
    for span in [Span::Whole, Span::From(5), Span::FromTo(2, 3)] {
        assert_eq!(
            part(ok, &headers(&[(CONTENT_LENGTH, "10")]), span),
            Ok(Part {
                offset: 0,
                length: Some(10),
                total: Some(10)
            })
        );
        assert_eq!(
            part(ok, &HeaderMap::new(), span),
            Ok(Part {
                offset: 0,
                length: None,
                total: None
            })
        );
    }
}

#[test]
fn a_206_is_what_was_asked_for_or_nothing() {
    for (range, length, span, expected) in [
        ("bytes 5-9/10", None, Span::From(5), Some((5, 5, Some(10)))),
        (
            "bytes 5-9/10",
            Some("5"),
            Span::From(5),
            Some((5, 5, Some(10))),
        ),
        ("bytes 5-9/*", None, Span::From(5), Some((5, 5, None))),
        (
            "bytes 2-3/10",
            None,
            Span::FromTo(2, 3),
            Some((2, 2, Some(10))),
        ),
        (
            "bytes 2-9/10",
            None,
            Span::FromTo(2, 30),
            Some((2, 8, Some(10))),
        ),
        ("bytes 2-3/*", None, Span::FromTo(2, 30), Some((2, 2, None))),
        ("bytes 0-9/10", None, Span::Whole, None),
        ("bytes 4-9/10", None, Span::From(5), None),
        ("bytes 6-9/10", None, Span::From(5), None),
        ("bytes 5-8/10", None, Span::From(5), None),
        ("bytes 5-9/10", Some("6"), Span::From(5), None),
        ("bytes 2-4/10", None, Span::FromTo(2, 3), None),
        ("bytes 2-2/10", None, Span::FromTo(2, 3), None),
        ("bytes 2-4/*", None, Span::FromTo(2, 3), None),
        ("bytes */10", None, Span::From(5), None),
        ("bytes 5-9", None, Span::From(5), None),
        ("5-9/10", None, Span::From(5), None),
        ("bytes 5-9/8", None, Span::From(5), None),
        ("", None, Span::From(5), None),
    ] {
        let mut given = headers(&[(CONTENT_RANGE, range)]);
        if let Some(length) = length {
            given.insert(CONTENT_LENGTH, HeaderValue::from_static(length));
        }
        let found = part(StatusCode::PARTIAL_CONTENT, &given, span).ok();
        let expected = expected.map(|(offset, length, total)| Part {
            offset,
            length: Some(length),
            total,
        });
        assert_eq!(found, expected, "{range} {span:?}");
    }
}

#[test]
fn parts_that_do_not_say_which() {
    let partial = StatusCode::PARTIAL_CONTENT;
    let two = headers(&[
        (CONTENT_RANGE, "bytes 5-9/10"),
        (CONTENT_RANGE, "bytes 5-9/10"),
    ]);
    let two: HeaderMap = {
        let mut map = HeaderMap::new();
        map.append(CONTENT_RANGE, two[CONTENT_RANGE].clone());
        map.append(CONTENT_RANGE, two[CONTENT_RANGE].clone());
        map
    };
    assert!(part(partial, &two, Span::From(5)).is_err());
    assert!(part(partial, &HeaderMap::new(), Span::From(5)).is_err());
    let multi = headers(&[
        (CONTENT_TYPE, "Multipart/byteranges; boundary=x"),
        (CONTENT_RANGE, "bytes 5-9/10"),
    ]);
    assert!(part(partial, &multi, Span::From(5)).is_err());
}
