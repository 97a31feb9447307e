//! Manifests as registries serve them, which must be taken.

use serde_json::{Value, json};

use crate::oci::manifest::{EdgeKind, Manifest, ManifestError};
use crate::oci::media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::oci::{Digest, ManifestKind, MediaType};

pub(super) fn parse(value: &Value, declared: Option<&str>) -> Result<Manifest, ManifestError> {
    let declared = declared.map(|text| MediaType::parse(text).unwrap());
    Manifest::parse(value.to_string().as_bytes(), declared.as_ref())
}

pub(super) fn descriptor(media_type: &str, content: &str) -> Value {
    json!({ "mediaType": media_type, "size": content.len(), "digest": Digest::of(content.as_bytes()).to_string() })
}

pub(super) fn image(media_type: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor("application/vnd.docker.container.image.v1+json", "config"),
        "layers": [
            descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", "one"),
            descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", "two"),
            descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", "one"),
        ],
    })
}

pub(super) fn index(media_type: &str) -> Value {
    let child = |os: &str, architecture: &str, variant: &str| {
        let mut child = descriptor(DOCKER_MANIFEST, &format!("{os}{architecture}{variant}"));
        child["platform"] = json!({ "os": os, "architecture": architecture, "variant": variant });
        child
    };
    json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [
            child("linux", "amd64", ""), child("linux", "arm", "v6"), child("linux", "arm", "v7"),
            child("unknown", "unknown", ""), descriptor(OCI_INDEX, "no platform"),
        ],
    })
}

#[test]
fn images() {
    for media_type in [DOCKER_MANIFEST, OCI_MANIFEST] {
        for declared in [
            Some(media_type),
            None,
            Some("application/json"),
            Some("text/plain; charset=utf-8"),
        ] {
            let manifest = parse(&image(media_type), declared).unwrap();
            assert_eq!(manifest.media_type().as_str(), media_type);
            assert_eq!(manifest.kind(), ManifestKind::Image);
            assert_eq!(manifest.layers().len(), 3);
            assert!(manifest.children().is_empty() && manifest.subject().is_none());
            assert_eq!(manifest.config().unwrap().digest(), &Digest::of(b"config"));
            assert_eq!(
                manifest.artifact_type(),
                Some("application/vnd.docker.container.image.v1+json")
            );
            let edges: Vec<_> = manifest
                .edges()
                .map(|(kind, to)| (kind.as_str(), to.size()))
                .collect();
            assert_eq!(
                edges,
                [("config", 6), ("layer", 3), ("layer", 3), ("layer", 3)]
            );
        }
    }
}

#[test]
fn indexes() {
    for media_type in [DOCKER_LIST, OCI_INDEX] {
        let manifest = parse(&index(media_type), Some(media_type)).unwrap();
        assert_eq!(manifest.media_type().as_str(), media_type);
        assert_eq!(manifest.kind(), ManifestKind::Index);
        assert_eq!(manifest.children().len(), 5);
        assert_eq!(manifest.artifact_type(), None);
        assert!(manifest.edges().all(|(kind, _)| kind == EdgeKind::Child));
        let child = manifest.child_for("linux", "arm").unwrap();
        assert_eq!(child.digest(), &Digest::of(b"linuxarmv6"));
        assert_eq!(manifest.child_for("linux", "s390x"), None);
        assert_eq!(manifest.child_for("", ""), None);
    }
}

/// OCI leaves `mediaType` optional, and images built before 2021 have none.
#[test]
fn without_a_media_type_of_their_own() {
    let without = |mut value: Value| {
        value.as_object_mut().unwrap().remove("mediaType");
        value
    };
    for (value, declared, expected) in [
        (image(""), None, OCI_MANIFEST),
        (without(image("")), None, OCI_MANIFEST),
        (
            without(image("")),
            Some("application/octet-stream"),
            OCI_MANIFEST,
        ),
        (without(image("")), Some(DOCKER_MANIFEST), DOCKER_MANIFEST),
        (without(index("")), None, OCI_INDEX),
        (without(index("")), Some(DOCKER_LIST), DOCKER_LIST),
        (
            json!({ "schemaVersion": 2, "manifests": [] }),
            None,
            OCI_INDEX,
        ),
        (
            json!({ "schemaVersion": 2, "manifests": null }),
            Some(OCI_INDEX),
            OCI_INDEX,
        ),
    ] {
        assert_eq!(
            parse(&value, declared).unwrap().media_type().as_str(),
            expected,
            "{value}"
        );
    }
}

/// As `cosign`, `oras` and `BuildKit` push them.
#[test]
fn artifacts() {
    let empty = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "data": "e30=",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" });
    let mut subject = descriptor(OCI_MANIFEST, "subject");
    let signature = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "config": empty, "layers": [descriptor("application/vnd.dev.sigstore.bundle.v0.3+json", "{}")], "subject": subject,
        "annotations": { "org.opencontainers.image.created": "2024-01-01T00:00:00Z" },
    });
    let manifest = parse(&signature, Some(OCI_MANIFEST)).unwrap();
    assert_eq!(
        manifest.artifact_type(),
        Some("application/vnd.dev.sigstore.bundle.v0.3+json")
    );
    assert_eq!(
        manifest.subject().unwrap().digest(),
        &Digest::of(b"subject")
    );
    assert_eq!(manifest.annotations().len(), 1);
    let last = manifest.edges().last().unwrap();
    assert_eq!(
        (last.0, last.1.digest()),
        (EdgeKind::Subject, &Digest::of(b"subject"))
    );

    subject["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    for (value, artifact_type) in [
        (
            json!({ "schemaVersion": 2, "config": empty, "layers": null }),
            Some("application/vnd.oci.empty.v1+json"),
        ),
        (
            json!({ "schemaVersion": 2, "config": descriptor("", "x") }),
            None,
        ),
        (
            json!({ "schemaVersion": 2, "config": descriptor("application/vnd.cncf.helm.config.v1+json", "x"), "artifactType": "" }),
            Some("application/vnd.cncf.helm.config.v1+json"),
        ),
        (
            json!({ "schemaVersion": 2, "manifests": [], "artifactType": "application/x", "subject": subject }),
            Some("application/x"),
        ),
        (
            json!({ "schemaVersion": 2, "manifests": [], "subject": null, "annotations": null, "unknown": { "Config": [1e3] } }),
            None,
        ),
    ] {
        assert_eq!(
            parse(&value, None).unwrap().artifact_type(),
            artifact_type,
            "{value}"
        );
    }
}

#[test]
fn foreign_layers_keep_their_urls() {
    let mut value = image(DOCKER_MANIFEST);
    value["layers"][0]["mediaType"] =
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    value["layers"][0]["urls"] = json!(["https://mcr.microsoft.com/v2/windows/blobs/sha256:x"]);
    let manifest = parse(&value, Some(DOCKER_MANIFEST)).unwrap();
    assert_eq!(manifest.layers()[0].urls().len(), 1);
}

/// Registries keep the bytes as pushed, and Docker pushes with three blanks of indent and no last line end.
#[test]
fn white_space_is_as_pushed() {
    let text = format!("\n{:#}\n", image(DOCKER_MANIFEST)).replace("  ", "   ");
    assert!(Manifest::parse(text.as_bytes(), None).is_ok());
}
