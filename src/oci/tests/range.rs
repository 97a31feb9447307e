//! Ranges, against sections H25 to H28 of the hostile inputs and against an oracle that counts single bytes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::oci::range::{
    ByteRange, ContentRange, RANGES_MAX, RangeHeader, RangeSpec, Resolved, unsatisfied,
};

fn resolve(text: &str, size: u64) -> Option<Resolved> {
    RangeHeader::parse(text).map(|header| header.resolve(size))
}

fn ranges(list: &[(u64, u64)]) -> Resolved {
    let range = |(start, end): &(u64, u64)| ByteRange::new(*start, *end).unwrap();
    Resolved::Ranges(list.iter().map(range).collect())
}

#[test]
fn ignored() {
    let many = format!("bytes={}", vec!["0-0"; RANGES_MAX + 1].join(","));
    let thousand = format!("bytes={}", vec!["0-"; 1000].join(","));
    for text in [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes= ",
        "0-1",
        "lines=0-1",
        "bytes:0-1",
        "bytes=-",
        "bytes=--1",
        "bytes=5-4",
        "bytes=a-b",
        "bytes=0x1-2",
        "bytes=+1-2",
        "bytes=1 - 2",
        "bytes=1-2-3",
        "bytes=1",
        "bytes=1-2;3-4",
        "bytes=0-1,x",
        "bytes=\u{0661}-",
        "bytes=18446744073709551616-5",
        "bytes =0-1",
        &many,
        &thousand,
    ] {
        assert_eq!(RangeHeader::parse(text), None, "{text:?}");
    }
}

#[test]
fn resolved() {
    let max = u64::MAX;
    for (text, size, expected) in [
        ("bytes=0-0", 10, ranges(&[(0, 0)])),
        ("Bytes=2-", 10, ranges(&[(2, 9)])),
        (" bytes= 2-5 ", 10, ranges(&[(2, 5)])),
        ("bytes=2-999", 10, ranges(&[(2, 9)])),
        ("bytes=2-99999999999999999999999", 10, ranges(&[(2, 9)])),
        ("bytes=-3", 10, ranges(&[(7, 9)])),
        ("bytes=-30", 10, ranges(&[(0, 9)])),
        ("bytes=-9223372036854775808", 10, ranges(&[(0, 9)])),
        ("bytes=-99999999999999999999999", 10, ranges(&[(0, 9)])),
        ("bytes=8-,0-1", 10, ranges(&[(8, 9), (0, 1)])),
        ("bytes=0-1,,\t2-3,", 10, ranges(&[(0, 1), (2, 3)])),
        ("bytes=0-1,10-", 10, ranges(&[(0, 1)])),
        ("bytes=0-1,-0", 10, ranges(&[(0, 1)])),
        ("bytes=0-5,5-6", 10, Resolved::Whole),
        ("bytes=0-,0-", 10, Resolved::Whole),
        ("bytes=0-5,-5", 10, Resolved::Whole),
        ("bytes=10-", 10, Resolved::Unsatisfiable),
        ("bytes=10-12,99-", 10, Resolved::Unsatisfiable),
        ("bytes=-0", 10, Resolved::Unsatisfiable),
        ("bytes=18446744073709551616-", max, Resolved::Unsatisfiable),
        ("bytes=18446744073709551615-", max, Resolved::Unsatisfiable),
        ("bytes=0-", max, ranges(&[(0, max - 1)])),
        ("bytes=0-", 0, Resolved::Unsatisfiable),
        ("bytes=-0", 0, Resolved::Unsatisfiable),
        ("bytes=-1", 0, Resolved::Whole),
    ] {
        assert_eq!(resolve(text, size), Some(expected), "{text} of {size}");
    }
}

#[test]
fn lengths() {
    let whole = ByteRange::new(0, 9).unwrap();
    assert_eq!((whole.start(), whole.end(), whole.len()), (0, 9, 10));
    assert!(whole.is_whole(10) && !whole.is_whole(11));
    assert_eq!(ByteRange::new(0, u64::MAX - 1).unwrap().len(), u64::MAX);
    assert_eq!(ByteRange::new(0, u64::MAX), None);
    assert_eq!(ByteRange::new(2, 1), None);
    assert_eq!(unsatisfied(10), "bytes */10");
}

#[test]
fn content_ranges() {
    let part = ContentRange::parse("bytes 2-5/10").unwrap();
    assert_eq!((part.start(), part.end(), part.total()), (2, 5, Some(10)));
    assert_eq!(part.range().len(), 4);
    assert_eq!(ContentRange::parse("BYTES 0-0/*").unwrap().total(), None);
    for text in [
        "",
        "bytes",
        "bytes ",
        "bytes 0-1",
        "bytes */10",
        "bytes 0-/10",
        "bytes -1/10",
        "bytes 5-4/10",
        "bytes 0-10/10",
        "bytes 0-0/0",
        "bytes=0-1/10",
        "lines 0-1/10",
        "0-1/10",
        "bytes 0-1/-1",
        "bytes 0-1/1e3",
        "bytes 0-18446744073709551616/*",
        "bytes 0-1/99999999999999999999999",
        "bytes  0-1/10",
        "bytes 0-1/10/10",
    ] {
        assert_eq!(ContentRange::parse(text), None, "{text:?}");
    }
}

fn spec() -> impl Strategy<Value = RangeSpec> {
    prop_oneof![
        (0..20_u64, 0..20_u64).prop_map(|(a, b)| RangeSpec::FromTo(a.min(b), a.max(b))),
        (0..20_u64).prop_map(RangeSpec::From),
        (0..20_u64).prop_map(RangeSpec::Suffix),
    ]
}

/// The bytes that one range stands for.
fn bytes_of(spec: RangeSpec, size: u64) -> BTreeSet<u64> {
    let asked = |byte: &u64| match spec {
        RangeSpec::FromTo(first, last) => *byte >= first && *byte <= last,
        RangeSpec::From(first) => *byte >= first,
        RangeSpec::Suffix(count) => byte + count >= size,
    };
    (0..size).filter(asked).collect()
}

proptest! {
    #[test]
    fn resolved_as_counting_bytes_says(specs in prop::collection::vec(spec(), 1..6), size in 1..24_u64) {
        let text = specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let header = RangeHeader::parse(&format!("bytes={text}")).unwrap();
        prop_assert_eq!(header.specs(), &specs);

        let wanted: Vec<_> = specs.iter().map(|s| bytes_of(*s, size)).filter(|set| !set.is_empty()).collect();
        let all: BTreeSet<u64> = wanted.iter().flatten().copied().collect();
        let sum: usize = wanted.iter().map(BTreeSet::len).sum();
        match header.resolve(size) {
            Resolved::Unsatisfiable => prop_assert!(wanted.is_empty()),
            Resolved::Whole => prop_assert!(sum > all.len()),
            Resolved::Ranges(list) => {
                prop_assert_eq!(sum, all.len());
                let got: Vec<BTreeSet<u64>> = list.iter().map(|r| (r.start()..=r.end()).collect()).collect();
                prop_assert_eq!(&got, &wanted);
                for range in list {
                    prop_assert_eq!(range.is_whole(size), usize::try_from(size).ok() == Some(all.len()) && wanted.len() == 1);
                    let sent = ContentRange::new(range, Some(size)).unwrap();
                    prop_assert_eq!(ContentRange::parse(&sent.to_string()), Some(sent));
                }
            }
        }
    }

    #[test]
    fn arbitrary_headers_never_panic_and_round_trip(text in "\\PC*|(bytes=)?[0-9, -]{0,30}|bytes=[0-9]{18,22}-[0-9]{0,22}", size: u64) {
        if let Some(header) = RangeHeader::parse(&text) {
            prop_assert_eq!(RangeHeader::parse(&header.to_string()), Some(header.clone()));
            if let Resolved::Ranges(list) = header.resolve(size) {
                prop_assert!(list.iter().all(|range| range.end() < size));
                let sum = list.iter().map(|range| u128::from(range.len())).sum::<u128>();
                prop_assert!(sum <= u128::from(size));
            }
        }
    }

    #[test]
    fn arbitrary_content_ranges_never_panic_and_round_trip(text in "\\PC*|bytes [0-9]{1,21}-[0-9]{1,21}/([0-9]{1,21}|\\*)") {
        if let Some(range) = ContentRange::parse(&text) {
            prop_assert!(range.start() <= range.end() && range.total().is_none_or(|total| range.end() < total));
            prop_assert_eq!(ContentRange::parse(&range.to_string()), Some(range));
        }
    }
}
