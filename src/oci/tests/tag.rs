//! Tags and references.

use proptest::prelude::*;

use super::oracle::Re;
use crate::oci::digest::DigestError;
use crate::oci::reference::ReferenceError;
use crate::oci::tag::TAG_MAX;
use crate::oci::{Digest, Reference, Tag};

#[test]
fn tags() {
    let (longest, over) = ("a".repeat(TAG_MAX), "a".repeat(TAG_MAX + 1));
    for text in ["latest", "_", "0", "1.2.3-rc.1_x", "A", "a..b--", &longest] {
        assert_eq!(Tag::parse(text).expect(text).to_string(), text);
    }
    for text in [
        "", "-x", ".x", "a:b", "a/b", "a b", "a+b", "\u{e9}", "a\0", "..", &over,
    ] {
        assert!(Tag::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_colon_tells_a_digest_from_a_tag() {
    let digest = Digest::of(b"").to_string();
    assert!(matches!(
        Reference::parse(&digest),
        Ok(Reference::Digest(_))
    ));
    assert!(matches!(
        Reference::parse("sha256-ab"),
        Ok(Reference::Tag(_))
    ));
    let error = |text| Reference::parse(text).expect_err(text);
    assert_eq!(
        error("a:b"),
        ReferenceError::Digest(DigestError::Unsupported)
    );
    assert_eq!(
        error("sha256:ab"),
        ReferenceError::Digest(DigestError::Malformed)
    );
    assert!(matches!(error("-a"), ReferenceError::Tag(_)));
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn pattern() -> Re {
    let first = Re::Class(|b| b.is_ascii_alphanumeric() || b == b'_');
    let other = Re::Class(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    Re::Seq(vec![first, Re::Times(Box::new(other), 0, 127)])
}

proptest! {
    #[test]
    fn tags_fit_as_the_pattern_says(text in "[a-bA-B0._:/-]{0,6}|[a-z]{120,136}|\\PC*") {
        prop_assert_eq!(Tag::parse(&text).is_ok(), pattern().matches(&text));
    }

    #[test]
    fn references_round_trip(text in "[a-z:0._-]{0,8}|sha256:[0-9a-f]{63,65}|\\PC*") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(reference.to_string(), text);
        }
    }
}
