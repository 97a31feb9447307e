//! Manifests that must be refused, against sections U17 to U22 of the hostile inputs.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::manifest::{descriptor, image, index, parse};
use crate::oci::manifest::{CHILDREN_MAX, LAYERS_MAX, MANIFEST_MAX, Manifest, ManifestError};
use crate::oci::media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// The sentence of a refusal that has no variant of its own.
fn invalid(result: Result<Manifest, ManifestError>) -> &'static str {
    match result {
        Err(ManifestError::Invalid(malformed)) => malformed.as_str(),
        other => panic!("{other:?}"),
    }
}

fn with(mut value: Value, key: &str, extra: Value) -> Value {
    value[key] = extra;
    value
}

#[test]
fn sizes() {
    let padded = |size: usize| {
        let mut bytes = image(OCI_MANIFEST).to_string().into_bytes();
        bytes.resize(size, b' ');
        Manifest::parse(&bytes, None)
    };
    assert!(padded(MANIFEST_MAX).is_ok());
    assert_eq!(padded(MANIFEST_MAX + 1), Err(ManifestError::TooLarge));
    assert!(Manifest::parse(b"", None).is_err());
}

#[test]
fn two_images_in_one() {
    for (key, extra) in [
        ("layers", json!([])),
        ("layers", json!([descriptor("x", "y")])),
        ("config", descriptor("x", "y")),
    ] {
        for media_type in ["", OCI_INDEX, DOCKER_LIST] {
            let value = with(index(media_type), key, extra.clone());
            assert!(invalid(parse(&value, None)).contains("both"), "{value}");
        }
    }
    let both = with(image(OCI_MANIFEST), "manifests", json!([]));
    assert!(invalid(parse(&both, Some(OCI_MANIFEST))).contains("both"));
    // A parser that folds case would see the second list.
    for key in ["Manifests", "MANIFESTS", "manifest\u{17f}"] {
        let value = with(image(OCI_MANIFEST), key, json!([]));
        assert!(invalid(parse(&value, None)).contains("case"), "{value}");
    }
    for (value, declared) in [
        (image(""), OCI_INDEX),
        (image(""), DOCKER_LIST),
        (image(OCI_INDEX), OCI_INDEX),
        (index(""), OCI_MANIFEST),
        (index(DOCKER_MANIFEST), DOCKER_MANIFEST),
        (json!({ "schemaVersion": 2, "layers": [] }), OCI_MANIFEST),
        (json!({ "schemaVersion": 2 }), OCI_MANIFEST),
    ] {
        invalid(parse(&value, Some(declared)));
        invalid(parse(&with(value, "mediaType", declared.into()), None));
    }
}

#[test]
fn types() {
    for (own, declared) in [
        (OCI_MANIFEST, DOCKER_MANIFEST),
        (DOCKER_MANIFEST, OCI_MANIFEST),
        (OCI_MANIFEST, OCI_INDEX),
    ] {
        assert!(invalid(parse(&image(own), Some(declared))).contains("Content-Type"));
    }
    for own in [
        "application/json",
        "application/vnd.oci.artifact.manifest.v1+json",
        "application/vnd.oci.image.config.v1+json",
        "APPLICATION/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
        " ",
        "x",
    ] {
        assert_eq!(
            parse(&image(own), Some(OCI_MANIFEST)),
            Err(ManifestError::Unsupported),
            "{own}"
        );
    }
    invalid(parse(&with(image(""), "mediaType", json!(["x"])), None));
    assert_eq!(
        parse(&json!({ "schemaVersion": 2 }), None),
        Err(ManifestError::Unsupported)
    );
    for value in [json!(null), json!([]), json!("x"), json!(2)] {
        invalid(parse(&value, Some(OCI_MANIFEST)));
    }
}

#[test]
fn schema_versions() {
    let old = json!({ "schemaVersion": 1, "name": "library/x", "tag": "y", "architecture": "amd64",
        "fsLayers": [{ "blobSum": "sha256:x" }], "history": [], "signatures": [] });
    for declared in [
        None,
        Some("application/json"),
        Some(OCI_MANIFEST),
        Some(SCHEMA1),
    ] {
        assert_eq!(parse(&old, declared), Err(ManifestError::Schema1));
    }
    assert_eq!(
        parse(&image(OCI_MANIFEST), Some(SCHEMA1)),
        Err(ManifestError::Schema1)
    );
    assert_eq!(parse(&image(SCHEMA1), None), Err(ManifestError::Schema1));
    for version in [
        json!(null),
        json!(0),
        json!(3),
        json!("2"),
        json!(2.0),
        json!(-2),
        json!([2]),
    ] {
        let value = with(image(OCI_MANIFEST), "schemaVersion", version);
        assert!(
            invalid(parse(&value, None)).contains("schemaVersion"),
            "{value}"
        );
    }
}

#[test]
fn bad_parts() {
    for (key, part) in [
        ("config", json!([])),
        ("config", json!("sha256:x")),
        ("config", json!({})),
        ("layers", json!({})),
        ("layers", json!([null])),
        ("layers", json!([{ "digest": "sha256:x", "size": 1 }])),
        (
            "layers",
            json!([with(descriptor("x", "y"), "size", json!(-1))]),
        ),
        (
            "layers",
            json!([with(
                descriptor("x", "y"),
                "size",
                json!(9_223_372_036_854_775_808_u64)
            )]),
        ),
        (
            "layers",
            json!([with(descriptor("x", "y"), "Digest", json!("z"))]),
        ),
        ("subject", json!("sha256:x")),
        ("subject", json!({ "size": 1 })),
        ("annotations", json!([])),
        ("annotations", json!({ "k": 1 })),
        ("annotations", json!({ "k": null })),
        ("annotations", json!({ "k": { "nested": "x" } })),
        ("artifactType", json!(1)),
    ] {
        invalid(parse(&with(image(OCI_MANIFEST), key, part), None));
    }
}

#[test]
fn bad_text() {
    let good = image(OCI_MANIFEST).to_string();
    let cases = [
        good.replacen('{', r#"{"layers":[],"#, 1),
        good.replacen('{', r#"{"\u006cayers":[],"#, 1),
        good.replacen('{', r#"{"schemaVersion":2,"#, 1),
        good.replacen('{', r#"{"x":{"a":1,"a":2},"#, 1),
        good.replacen('{', r#"{"x":1e999,"#, 1),
        good.replacen('{', r#"{"x":NaN,"#, 1),
        good.replacen('{', r#"{"annotations":{"a":"1","a":"2"},"#, 1),
        good.replacen(
            '{',
            &format!("{{\"x\":{}{},", "[".repeat(100_000), "]".repeat(100_000)),
            1,
        ),
        format!("\u{feff}{good}"),
        format!("{good}x"),
        format!("{good}{good}"),
        format!("{good}\0"),
        good.replacen("\"size\":6", "\"size\":1e999", 1),
        good.replacen("\"size\":6", "\"size\":6.0", 1),
        good.strip_suffix('}').unwrap().to_owned(),
    ];
    for text in cases {
        assert_ne!(text, good);
        invalid(Manifest::parse(text.as_bytes(), None));
    }
    let mut bytes = good.into_bytes();
    bytes.insert(2, 0xff);
    invalid(Manifest::parse(&bytes, None));
}

#[test]
fn too_many() {
    let list = |count: usize| Value::from(vec![descriptor("x", "y"); count]);
    let layers = |count| with(image(OCI_MANIFEST), "layers", list(count));
    let children = |count| with(index(OCI_INDEX), "manifests", list(count));
    assert!(parse(&layers(LAYERS_MAX), None).is_ok());
    assert!(parse(&children(CHILDREN_MAX), None).is_ok());
    assert!(invalid(parse(&layers(LAYERS_MAX + 1), None)).contains("many"));
    assert!(invalid(parse(&children(CHILDREN_MAX + 1), None)).contains("many"));

    // A hundred thousand, in as few bytes as they need: over the cap on bytes, on values or on layers, and never slow.
    let begun = tokio::time::Instant::now();
    for item in ["{}", "0", r#"{"a":0}"#, r#"{"size":1,"digest":"sha256:x"}"#] {
        let many = vec![item; 100_000].join(",");
        for (key, config) in [("layers", r#","config":{}"#), ("manifests", "")] {
            let text = format!(r#"{{"schemaVersion":2,"{key}":[{many}]{config}}}"#);
            assert!(invalid(Manifest::parse(text.as_bytes(), None)).contains("many"));
        }
    }
    assert_eq!(parse(&layers(100_000), None), Err(ManifestError::TooLarge));
    // Generous: it takes milliseconds, and what is not linear takes minutes.
    assert!(begun.elapsed() < Duration::from_secs(30));
}

/// A value of some wrong type, or right by accident.
fn junk() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!([{}])),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(descriptor("x", "y")),
        Just(json!([descriptor("x", "y")])),
        prop::sample::select(vec![
            OCI_MANIFEST,
            OCI_INDEX,
            DOCKER_LIST,
            DOCKER_MANIFEST,
            SCHEMA1
        ])
        .prop_map(Value::from),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Manifest::parse(&bytes, None).is_err());
    }

    #[test]
    fn a_manifest_with_a_part_exchanged_never_panics_and_stays_one_thing(
        base in prop::sample::select(vec![image(OCI_MANIFEST), image(""), index(OCI_INDEX), index("")]),
        key in prop::sample::select(vec!["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "artifactType", "annotations", "x"]),
        part in junk(),
    ) {
        if let Ok(manifest) = parse(&with(base, key, part), None) {
            let is_image = manifest.config().is_some();
            prop_assert!(!is_image || manifest.children().is_empty());
            prop_assert!(is_image || manifest.layers().is_empty());
            prop_assert_eq!(manifest.media_type().kind(), Some(manifest.kind()));
        }
    }

    #[test]
    fn a_manifest_with_a_byte_exchanged_never_panics(at: prop::sample::Index, byte: u8) {
        let mut bytes = image(OCI_MANIFEST).to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Manifest::parse(&bytes, None);
    }
}
