//! Descriptors and platforms.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::oci::descriptor::{Descriptor, SIZE_MAX};
use crate::oci::{Digest, Platform};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn full() {
    let value = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": DIGEST,
        "size": 7,
        "urls": ["https://example.com/x"],
        "artifactType": "application/x",
        "annotations": { "k": "v", "K": "other" },
        "platform": { "os": "windows", "architecture": "arm", "variant": "v7", "os.version": "10.0.1" },
    });
    let descriptor = Descriptor::from_value(value.clone()).unwrap();
    assert_eq!(
        descriptor.media_type(),
        "application/vnd.oci.image.manifest.v1+json"
    );
    assert_eq!(descriptor.digest().to_string(), DIGEST);
    assert_eq!(descriptor.size(), 7);
    assert_eq!(descriptor.urls(), ["https://example.com/x"]);
    assert_eq!(descriptor.artifact_type(), Some("application/x"));
    assert_eq!(descriptor.annotations()["k"], "v");
    let platform = descriptor.platform().unwrap();
    assert_eq!((platform.os(), platform.architecture()), ("windows", "arm"));
    assert_eq!(
        (platform.variant(), platform.os_version()),
        (Some("v7"), Some("10.0.1"))
    );
    assert_eq!(descriptor.to_value(), value);
}

#[test]
fn lenient() {
    let with = |extra: Value| {
        let mut value = json!({ "digest": DIGEST, "size": 0 });
        value
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        Descriptor::from_value(value)
    };
    for extra in [
        json!({}),
        json!({ "mediaType": "" }),
        json!({ "mediaType": "what ever" }),
        json!({ "mediaType": null, "urls": null, "annotations": null, "platform": null, "artifactType": null }),
        json!({ "x-unknown": [{ "Size": 1 }], "data": "e30=" }),
        json!({ "platform": {} }),
        json!({ "platform": { "os": "linux", "features": ["sse4"], "os.features": ["win32k"] } }),
        json!({ "size": SIZE_MAX }),
        json!({ "urls": ["file:///etc/passwd", "\u{0}"] }),
    ] {
        assert!(with(extra.clone()).is_ok(), "{extra}");
    }
    for extra in [
        json!({ "size": null }),
        json!({ "size": -1 }),
        json!({ "size": 1.0 }),
        json!({ "size": 1e3 }),
        json!({ "size": "1" }),
        json!({ "size": SIZE_MAX + 1 }),
        json!({ "size": 9_223_372_036_854_775_808_u64 }),
        json!({ "digest": null }),
        json!({ "digest": "" }),
        json!({ "digest": "sha256:abc" }),
        json!({ "digest": "sha256:../../../etc/passwd" }),
        json!({ "digest": DIGEST.to_uppercase() }),
        json!({ "digest": "md5:d41d8cd98f00b204e9800998ecf8427e" }),
        json!({ "digest": [DIGEST] }),
        json!({ "Digest": DIGEST }),
        json!({ "mediaType": 1 }),
        json!({ "urls": "https://example.com" }),
        json!({ "urls": [1] }),
        json!({ "annotations": { "k": 1 } }),
        json!({ "annotations": { "k": null } }),
        json!({ "annotations": ["k"] }),
        json!({ "platform": "linux" }),
        json!({ "platform": { "os": 1 } }),
        json!({ "artifactType": {} }),
    ] {
        assert!(with(extra.clone()).is_err(), "{extra}");
    }
    for value in [json!(null), json!([]), json!("x"), json!({})] {
        assert!(Descriptor::from_value(value).is_err());
    }
}

#[test]
fn made() {
    assert!(Descriptor::new("", Digest::of(b""), SIZE_MAX + 1).is_err());
    let made = Descriptor::new("a/b", Digest::of(b""), 0)
        .unwrap()
        .with_artifact_type(Some(String::new()))
        .with_annotations(BTreeMap::from([("k".to_owned(), "v".to_owned())]))
        .with_platform(Some(Platform::new("linux", "amd64")));
    assert_eq!(made.artifact_type(), None);
    assert_eq!(
        made.to_value(),
        json!({ "mediaType": "a/b", "digest": DIGEST, "size": 0, "annotations": { "k": "v" },
            "platform": { "os": "linux", "architecture": "amd64" } })
    );
}

proptest! {
    #[test]
    fn descriptors_round_trip(media_type: String, bytes: [u8; 4], size in 0..=SIZE_MAX, artifact_type: Option<String>,
        annotations in prop::collection::btree_map(any::<String>(), any::<String>(), 0..4), platform: Option<(String, String)>)
    {
        let made = Descriptor::new(media_type, Digest::of(&bytes), size)
            .unwrap()
            .with_artifact_type(artifact_type)
            .with_annotations(annotations)
            .with_platform(platform.map(|(os, architecture)| Platform::new(os, architecture)));
        prop_assert_eq!(Descriptor::from_value(made.to_value()), Ok(made));
    }
}
