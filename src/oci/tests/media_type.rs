//! Media types.

use proptest::prelude::*;

use crate::oci::media_type::{
    DOCKER_LIST, DOCKER_MANIFEST, MANIFEST_ACCEPT, MEDIA_TYPE_MAX, ManifestKind, MediaType,
    OCI_INDEX, OCI_MANIFEST, OCTET_STREAM,
};

fn parse(text: &str) -> MediaType {
    MediaType::parse(text).expect(text)
}

#[test]
fn kinds() {
    for (text, kind, is_oci) in [
        (OCI_INDEX, Some(ManifestKind::Index), true),
        (DOCKER_LIST, Some(ManifestKind::Index), false),
        (OCI_MANIFEST, Some(ManifestKind::Image), true),
        (DOCKER_MANIFEST, Some(ManifestKind::Image), false),
        (OCTET_STREAM, None, false),
        ("application/json", None, false),
        ("application/vnd.oci.artifact.manifest.v1+json", None, true),
    ] {
        let media_type = parse(text);
        assert_eq!(media_type.kind(), kind, "{text}");
        assert_eq!(media_type.is_oci(), is_oci, "{text}");
        assert_eq!(media_type.kind().is_some(), MANIFEST_ACCEPT.contains(&text));
        assert!(!media_type.is_schema1());
    }
    for text in [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws; charset=utf-8",
    ] {
        assert!(parse(text).is_schema1());
        assert_eq!(parse(text).kind(), None);
    }
}

#[test]
fn parameters_are_dropped_and_case_is_folded() {
    assert_eq!(
        parse(" Application/JSON ; q=1").as_str(),
        "application/json"
    );
    let longest = format!("a/{}", "b".repeat(MEDIA_TYPE_MAX - 2));
    assert_eq!(parse(&longest).as_str(), longest);
    let over = format!("{longest}b");
    for text in [
        "", "/", "a", "a/", "/b", "*/*", "a/*", "a/b/c", "a b/c", "a/\u{e9}", "a/b\r\n", &over,
    ] {
        assert!(
            MediaType::parse(text).is_none() || text == "a/b\r\n",
            "{text:?}"
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics_and_types_round_trip(text in "\\PC*|[a-cA-C+./; *]{0,12}") {
        if let Some(media_type) = MediaType::parse(&text) {
            prop_assert_eq!(MediaType::parse(&media_type.to_string()), Some(media_type.clone()));
            prop_assert!(!media_type.as_str().contains(|c: char| c.is_ascii_uppercase() || c.is_whitespace() || c.is_control()));
        }
    }
}
