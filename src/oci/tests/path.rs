//! The URL grammar, both ways, with names made to confuse it.

use proptest::prelude::*;

use crate::oci::path::{self, Endpoint, PathError, split};
use crate::oci::{Digest, Name, Reference};

fn name(text: &str) -> String {
    text.to_owned()
}

#[test]
fn endpoints() {
    let digest = Digest::of(b"").to_string();
    let cases = [
        ("", Endpoint::Base),
        ("/", Endpoint::Base),
        ("/_catalog", Endpoint::Catalog),
        ("/a/tags/list", Endpoint::Tags { name: name("a") }),
        (
            "/tags/list/tags/list",
            Endpoint::Tags {
                name: name("tags/list"),
            },
        ),
        (
            "/a/blobs/uploads",
            Endpoint::UploadStart { name: name("a") },
        ),
        (
            "/a/blobs/uploads/",
            Endpoint::UploadStart { name: name("a") },
        ),
        (
            "/a/blobs/blobs/uploads/",
            Endpoint::UploadStart {
                name: name("a/blobs"),
            },
        ),
        (
            "/a/blobs/uploads/blobs/uploads/",
            Endpoint::UploadStart {
                name: name("a/blobs/uploads"),
            },
        ),
        (
            "/a/blobs/uploads/1-2",
            Endpoint::Upload {
                name: name("a"),
                id: name("1-2"),
            },
        ),
        (
            "/a/blobs/uploads/uploads",
            Endpoint::Upload {
                name: name("a"),
                id: name("uploads"),
            },
        ),
        (
            "/a/blobs/uploads/blobs",
            Endpoint::Upload {
                name: name("a"),
                id: name("blobs"),
            },
        ),
        (
            "/a/manifests/latest",
            Endpoint::Manifest {
                name: name("a"),
                reference: name("latest"),
            },
        ),
        (
            "/a/manifests/list",
            Endpoint::Manifest {
                name: name("a"),
                reference: name("list"),
            },
        ),
        (
            "/a/manifests/manifests/manifests",
            Endpoint::Manifest {
                name: name("a/manifests"),
                reference: name("manifests"),
            },
        ),
        (
            "/x/blobs/uploads/manifests/y",
            Endpoint::Manifest {
                name: name("x/blobs/uploads"),
                reference: name("y"),
            },
        ),
        (
            "/x/manifests/y/tags/list",
            Endpoint::Tags {
                name: name("x/manifests/y"),
            },
        ),
        (
            "/A/manifests/-",
            Endpoint::Manifest {
                name: name("A"),
                reference: name("-"),
            },
        ),
        (
            "/a/%6danifests/v%31",
            Endpoint::Manifest {
                name: name("a"),
                reference: name("v1"),
            },
        ),
        (
            "/a/manifests/%252e",
            Endpoint::Manifest {
                name: name("a"),
                reference: name("%2e"),
            },
        ),
        (
            "/a/manifests/caf%C3%A9",
            Endpoint::Manifest {
                name: name("a"),
                reference: name("caf\u{e9}"),
            },
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(split(text), Ok(expected), "{text}");
    }
    for encoded in [
        digest.clone(),
        digest.replace(':', "%3A"),
        digest.replace(':', "%3a"),
    ] {
        let blob = Endpoint::Blob {
            name: name("a/b"),
            digest: digest.clone(),
        };
        assert_eq!(split(&format!("/a/b/blobs/{encoded}")), Ok(blob));
        let referrers = Endpoint::Referrers {
            name: name("a/b"),
            digest: digest.clone(),
        };
        assert_eq!(split(&format!("/a/b/referrers/{encoded}")), Ok(referrers));
    }
}

#[test]
fn paths_that_the_api_does_not_have() {
    for text in [
        "x",
        "/a",
        "/a/b",
        "/_catalog/x",
        "/a/_catalog",
        "/tags/list",
        "/manifests/a",
        "/blobs/uploads",
        "/blobs/uploads/x",
        "/referrers/x",
        "/a/tags",
        "/a/tags/x",
        "/a/uploads/x",
        "/_oci/ext/discover",
        "/a/manifests",
        "/a/blobs",
        "/a/TAGS/list",
        "/a/blobs/uploads/x/y",
    ] {
        assert_eq!(split(text), Err(PathError::NotFound), "{text}");
    }
}

#[test]
fn hostile_segments_in_every_place() {
    let hostile = [
        "%00",
        "%2e%2e%2f",
        "..%2f",
        "%2F%2F..%2F",
        "..%5c",
        "%5C",
        "\\",
        "%c0%ae",
        "%ff",
        "%ED%A0%80",
        ".",
        "..",
        "%2e",
        "%2E%2e",
        "",
        "%",
        "%2",
        "%zz",
        "%+1",
        "%0a",
        "%0d%0a",
        "\u{7f}",
        "%7f",
        "%C2%85",
        "a%2fb",
        "\n",
    ];
    let places = [
        "/{}/manifests/a",
        "/a/{}/manifests/a",
        "/{}/a/manifests/a",
        "/a/manifests/{}",
        "/a/blobs/{}",
        "/a/referrers/{}",
        "/{}/tags/list",
        "/a/{}/tags/list",
        "/{}/blobs/uploads/",
        "/a/{}/blobs/uploads/",
        "/{}/blobs/uploads/x",
        "/{}/_catalog",
    ];
    for segment in hostile {
        for place in places {
            let text = place.replace("{}", segment);
            assert_eq!(split(&text), Err(PathError::Malformed), "{text:?}");
        }
        if !segment.is_empty() {
            let text = format!("/a/blobs/uploads/{segment}");
            assert_eq!(split(&text), Err(PathError::Malformed), "{text:?}");
        }
    }
    for text in [
        "//",
        "/blobs/uploads/",
        "/a/tags/list/",
        "/_catalog/",
        "/a/manifests/b/",
        "/a/blobs/uploads//",
        "/a/blobs/uploads/x/",
    ] {
        assert_eq!(split(text), Err(PathError::Malformed), "{text:?}");
    }
}

/// Names made of the words that the grammar itself uses.
fn confusing() -> impl Strategy<Value = Name> {
    let word = prop::sample::select(vec![
        "blobs",
        "manifests",
        "tags",
        "list",
        "uploads",
        "referrers",
        "v2",
        "a",
    ]);
    prop::collection::vec(word, 1..7).prop_map(|words| Name::parse(&words.join("/")).unwrap())
}

fn confusing_reference() -> impl Strategy<Value = Reference> {
    let word = prop::sample::select(vec![
        "blobs",
        "manifests",
        "tags",
        "list",
        "uploads",
        "referrers",
        "_catalog",
        "v1",
    ]);
    prop_oneof![
        word.prop_map(|text| Reference::parse(text).unwrap()),
        any::<[u8; 4]>().prop_map(|bytes| Reference::Digest(Digest::of(&bytes))),
    ]
}

fn behind_v2(path: &str) -> &str {
    path.strip_prefix("/v2").unwrap()
}

/// All readings of a path: each marker tried in each place, the digest and the tag parsed as the server does.
fn readings(path: &str) -> Vec<Endpoint> {
    let segments: Vec<&str> = path.strip_prefix('/').unwrap().split('/').collect();
    let mut found = Vec::new();
    for at in 1..segments.len() {
        let name = segments[..at].join("/");
        if Name::parse(&name).is_err() {
            continue;
        }
        match &segments[at..] {
            ["manifests", reference] if Reference::parse(reference).is_ok() => {
                found.push(Endpoint::Manifest {
                    name,
                    reference: (*reference).to_owned(),
                });
            }
            ["blobs", digest] if Digest::parse(digest).is_ok() => {
                found.push(Endpoint::Blob {
                    name,
                    digest: (*digest).to_owned(),
                });
            }
            ["referrers", digest] if Digest::parse(digest).is_ok() => {
                found.push(Endpoint::Referrers {
                    name,
                    digest: (*digest).to_owned(),
                });
            }
            ["blobs", "uploads"] | ["blobs", "uploads", ""] => {
                found.push(Endpoint::UploadStart { name });
            }
            ["blobs", "uploads", id] => found.push(Endpoint::Upload {
                name,
                id: (*id).to_owned(),
            }),
            ["tags", "list"] => found.push(Endpoint::Tags { name }),
            _ => {}
        }
    }
    found
}

proptest! {
    #[test]
    fn what_the_client_builds_the_server_reads(name in confusing(), reference in confusing_reference(), bytes: [u8; 4]) {
        let digest = Digest::of(&bytes);
        let text = || name.to_string();
        let d = || digest.to_string();
        let manifest = Endpoint::Manifest { name: text(), reference: reference.to_string() };
        let cases = [
            (path::manifest(&name, &reference), manifest),
            (path::blob(&name, &digest), Endpoint::Blob { name: text(), digest: d() }),
            (path::tags(&name), Endpoint::Tags { name: text() }),
            (path::referrers(&name, &digest), Endpoint::Referrers { name: text(), digest: d() }),
            (format!("/v2/{name}/blobs/uploads"), Endpoint::UploadStart { name: text() }),
            (format!("/v2/{name}/blobs/uploads/"), Endpoint::UploadStart { name: text() }),
            (format!("/v2/{name}/blobs/uploads/0-a"), Endpoint::Upload { name: text(), id: "0-a".to_owned() }),
        ];
        for (path, expected) in cases {
            prop_assert_eq!(readings(behind_v2(&path)), vec![expected.clone()]);
            prop_assert_eq!(split(behind_v2(&path)), Ok(expected));
        }
    }

    #[test]
    fn no_path_has_two_readings(name in confusing()) {
        let path = format!("/{name}");
        let readings = readings(&path);
        prop_assert!(readings.len() <= 1);
        if let Some(only) = readings.into_iter().next() {
            prop_assert_eq!(split(&path), Ok(only));
        }
    }

    #[test]
    fn arbitrary_paths_never_panic(path in "\\PC*|(/(\\PC|%[0-9a-fA-F]{2}|blobs|uploads|manifests|tags|list|\\.|\\.\\.){0,3}){0,6}") {
        if let Ok(endpoint) = split(&path) {
            let debug = format!("{endpoint:?}");
            prop_assert!(!debug.contains("\\\\") && !debug.contains("/../") && !debug.contains('\0'));
        }
    }
}
