//! Lists of referrers.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::manifest::{descriptor, image, index};
use crate::oci::manifest::{MANIFEST_MAX, Manifest, ManifestError};
use crate::oci::media_type::{DOCKER_LIST, OCI_INDEX, OCI_MANIFEST};
use crate::oci::referrers::{REFERRERS_MAX, fallback_tag, parse_index, render_index};
use crate::oci::{Algorithm, Descriptor, Digest, ManifestKind, Tag};

fn parse(value: &Value) -> Result<Vec<Descriptor>, ManifestError> {
    parse_index(value.to_string().as_bytes())
}

#[test]
fn fallback_tags() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let subject = Digest::of_with(algorithm, b"x");
        let tag = fallback_tag(&subject);
        let expected = format!("{}-{:.64}", algorithm.as_str(), subject.hex());
        assert_eq!(tag.as_str(), expected);
        assert_eq!(Tag::parse(&expected), Ok(tag));
    }
}

#[test]
fn lists() {
    for value in [
        index(OCI_INDEX),
        index(DOCKER_LIST),
        index(""),
        json!({ "manifests": index("")["manifests"] }),
    ] {
        assert_eq!(parse(&value).unwrap().len(), 5, "{value}");
    }
    for value in [
        json!({ "schemaVersion": 2, "manifests": null }),
        json!({ "manifests": [] }),
        json!({}),
    ] {
        assert_eq!(parse(&value), Ok(Vec::new()), "{value}");
    }
    for value in [
        image(OCI_MANIFEST),
        image(""),
        json!({ "mediaType": OCI_INDEX, "manifests": [], "layers": [] }),
        json!({ "schemaVersion": 1, "manifests": [] }),
        json!({ "manifests": {} }),
        json!({ "manifests": [{}] }),
        json!({ "manifests": [], "Manifests": [] }),
        json!([]),
    ] {
        assert!(parse(&value).is_err(), "{value}");
    }
    let many = |count: usize| json!({ "manifests": vec![descriptor("x", "y"); count] });
    assert_eq!(parse(&many(REFERRERS_MAX)).unwrap().len(), REFERRERS_MAX);
    assert!(parse(&many(REFERRERS_MAX + 1)).is_err());
    assert_eq!(
        parse_index(&vec![b' '; MANIFEST_MAX + 1]),
        Err(ManifestError::TooLarge)
    );
}

#[test]
fn an_empty_list_is_an_array() {
    let value: Value = serde_json::from_slice(&render_index(&[])).unwrap();
    assert_eq!(
        value,
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] })
    );
}

proptest! {
    #[test]
    fn what_is_rendered_is_an_index_and_is_read_back(entries in prop::collection::vec((any::<[u8; 2]>(), any::<Option<String>>()), 0..10)) {
        let list: Vec<_> = entries
            .into_iter()
            .map(|(bytes, kind)| Descriptor::new(OCI_MANIFEST, Digest::of(&bytes), 2).unwrap().with_artifact_type(kind))
            .collect();
        let bytes = render_index(&list);
        prop_assert_eq!(parse_index(&bytes), Ok(list.clone()));
        let manifest = Manifest::parse(&bytes, None).unwrap();
        prop_assert_eq!((manifest.kind(), manifest.children()), (ManifestKind::Index, list.as_slice()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_index(&bytes);
    }
}
