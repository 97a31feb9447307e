//! An upstream that lies, stalls and breaks: never a complete wrong answer, nothing of it kept, the next pull is good.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use crate::support::image::{self, Content, Flavour, OCI_MANIFEST};
use crate::support::{Act, Gate, Mirror, Upstream};

const KIB: usize = 1 << 10;

/// Pulls a blob while `act` is in force, then again without; says what the first answer was.
async fn pull_twice(
    mirror: &Mirror,
    upstream: &Upstream,
    blob: &Content,
    act: Act,
    times: usize,
) -> crate::support::Answer {
    upstream.hold_blob(blob);
    upstream.script("GET", &blob.digest, times, act);
    let first = mirror.client().blob("a/b", &blob.digest).await;
    assert!(
        first.status != StatusCode::OK || first.end.is_err() || first.body == blob.bytes,
        "a complete answer with other bytes"
    );
    upstream.unscript();
    if !first.is(&blob.bytes) {
        assert!(
            mirror.files("blobs").is_empty()
                || !mirror.files("blobs").iter().any(|file| blob
                    .digest
                    .ends_with(file.file_name().unwrap().to_str().unwrap()))
        );
    }
    let second = mirror.client().blob("a/b", &blob.digest).await;
    assert!(
        second.is(&blob.bytes),
        "the next pull: {} {:?}",
        second.status,
        second.end
    );
    first
}

#[tokio::test]
async fn wrong_bytes_never_become_a_complete_answer() {
    let upstream = Upstream::start().await;
    let mirror = Mirror::of(&upstream.url()).await;
    let mut seed = 0;
    for size in [1, 1000, 64 * KIB, 64 * KIB + 1, 1024 * KIB] {
        for at in [0, size / 2, size - 1] {
            seed += 1;
            let blob = image::blob(seed, size);
            let first = pull_twice(
                &mirror,
                &upstream,
                &blob,
                Act {
                    wrong_byte: Some(at),
                    ..Act::default()
                },
                1,
            )
            .await;
            if size <= 64 * KIB {
                assert_eq!(first.status, StatusCode::BAD_GATEWAY, "{size} {at}");
            } else {
                assert!(
                    first.end.is_err() && first.body.len() <= size - 64 * KIB,
                    "{size} {at}: {} bytes",
                    first.body.len()
                );
            }
        }
    }
    assert!(mirror.metric("roadstead_digest_mismatches_total{repository=\"docker-hub\"}") >= 15.0);
}

#[tokio::test]
async fn the_tail_is_held_back_until_the_digest_agrees() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 1024 * KIB);
    upstream.hold_blob(&blob);
    let gate = Gate::closed();
    upstream.script(
        "GET",
        "/blobs/",
        1,
        Act {
            gate: Some((1024 * KIB - 1, gate.clone())),
            ..Act::default()
        },
    );
    let mirror = Mirror::patient(&upstream.url()).await;
    let mut open = mirror
        .client()
        .open(&format!("/v2/a/b/blobs/{}", blob.digest))
        .await;
    let came = open.take_until_silent(Duration::from_millis(300)).await;
    assert_eq!(
        came.len(),
        1024 * KIB - 64 * KIB,
        "all but the last window, and not a byte more"
    );
    gate.open();
    assert_eq!(open.finish().await.body, blob.bytes[960 * KIB..]);
}

#[tokio::test]
async fn cuts_and_stalls_are_resumed() {
    let upstream = Upstream::start().await;
    let mirror = Mirror::of(&upstream.url()).await;
    let size = 2048 * KIB;
    for (seed, act) in [
        (
            1,
            Act {
                cut: Some(0),
                ..Act::default()
            },
        ),
        (
            2,
            Act {
                cut: Some(size / 2),
                ..Act::default()
            },
        ),
        (
            3,
            Act {
                cut: Some(size - 1),
                ..Act::default()
            },
        ),
        (
            4,
            Act {
                stall: Some(size / 10),
                ..Act::default()
            },
        ),
        (
            5,
            Act {
                stall: Some(size / 100 * 99),
                ..Act::default()
            },
        ),
    ] {
        let blob = image::blob(seed, size);
        let first = pull_twice(&mirror, &upstream, &blob, act.clone(), 1).await;
        assert!(
            first.is(&blob.bytes),
            "{act:?}: {} {:?}",
            first.status,
            first.end
        );
    }
    // Five cuts in one blob.
    let blob = image::blob(9, size);
    for cut in 1..=5 {
        upstream.script(
            "GET",
            &blob.digest,
            1,
            Act {
                cut: Some(cut * 200 * KIB / 5),
                ..Act::default()
            },
        );
    }
    upstream.hold_blob(&blob);
    assert!(
        mirror
            .client()
            .blob("a/b", &blob.digest)
            .await
            .is(&blob.bytes)
    );
    assert_eq!(upstream.count("GET", &blob.digest), 6);
}

#[tokio::test]
async fn a_resume_that_is_answered_wrongly_is_never_appended() {
    let upstream = Upstream::start().await;
    let mut mirror = Mirror::of(&upstream.url()).await;
    mirror.parts_may_stay = true;
    let size = 1024 * KIB;
    let wrong = [
        Act {
            ignore_range: true,
            ..Act::default()
        },
        Act {
            shift_range: 100,
            ..Act::default()
        },
        Act {
            status: Some(416),
            body: Some(Bytes::new()),
            ..Act::default()
        },
        Act {
            ignore_range: true,
            status: Some(206),
            headers: vec![("Content-Range".into(), "bytes */9".into())],
            ..Act::default()
        },
        Act {
            ignore_range: true,
            status: Some(206),
            headers: vec![(
                "Content-Type".into(),
                "multipart/byteranges; boundary=x".into(),
            )],
            ..Act::default()
        },
        Act {
            ignore_range: true,
            wrong_byte: Some(10),
            ..Act::default()
        },
        Act {
            ignore_range: true,
            wrong_byte: Some(size - 1),
            ..Act::default()
        },
    ];
    for (seed, act) in (0..).zip(wrong) {
        let blob = image::blob(seed, size);
        upstream.hold_blob(&blob);
        upstream.script(
            "GET",
            &blob.digest,
            1,
            Act {
                cut: Some(size / 2),
                ..Act::default()
            },
        );
        upstream.script("GET", &blob.digest, 1, act.clone());
        let first = mirror.client().blob("a/b", &blob.digest).await;
        assert!(first.is(&blob.bytes) || first.end.is_err(), "{act:?}");
        upstream.unscript();
        assert!(
            mirror
                .client()
                .blob("a/b", &blob.digest)
                .await
                .is(&blob.bytes),
            "{act:?}"
        );
    }
}

#[tokio::test]
async fn other_wrong_answers_for_blobs() {
    let upstream = Upstream::start().await;
    let mut mirror = Mirror::of(&upstream.url()).await;
    mirror.parts_may_stay = true;
    let size = 200 * KIB;
    let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let acts = [
        Act {
            body: Some(Bytes::new()),
            ..Act::default()
        },
        Act {
            body: Some(image::noise(77, size + 1)),
            ..Act::default()
        },
        Act {
            declared: Some(size as u64 - 10),
            ..Act::default()
        },
        Act {
            declared: Some(size as u64 + 10),
            ..Act::default()
        },
        Act {
            no_length: true,
            cut: Some(size / 2),
            ..Act::default()
        },
        Act {
            status: Some(206),
            ..Act::default()
        },
        Act {
            headers: header("Content-Encoding", "gzip"),
            ..Act::default()
        },
        Act {
            headers: header("Content-Type", "text/html"),
            body: Some(Bytes::from_static(b"<html>log in</html>")),
            ..Act::default()
        },
        Act {
            status: Some(300),
            ..Act::default()
        },
        Act {
            status: Some(304),
            body: Some(Bytes::new()),
            ..Act::default()
        },
    ];
    for (seed, act) in (0..).zip(acts) {
        let blob = image::blob(seed, size);
        let first = pull_twice(&mirror, &upstream, &blob, act.clone(), 8).await;
        assert_ne!(first.status, StatusCode::NOT_FOUND, "{act:?}");
    }
    // No length at all, and everything there: fine.
    let blob = image::blob(99, size);
    assert!(
        pull_twice(
            &mirror,
            &upstream,
            &blob,
            Act {
                no_length: true,
                ..Act::default()
            },
            1
        )
        .await
        .is(&blob.bytes)
    );
}

#[tokio::test]
async fn manifests_that_are_none_are_refused_and_not_kept() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    let mirror = Mirror::of(&upstream.url()).await;
    let both = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": image.blobs[0].descriptor(), "layers": [], "manifests": []}).to_string();
    let bodies: Vec<Bytes> = vec![
        Bytes::new(),
        Bytes::from_static(b"{}"),
        Bytes::from_static(b"<html>"),
        Bytes::from(vec![b' '; 4 * 1024 * KIB + 1]),
        Bytes::from("[".repeat(100_000)),
        Bytes::from(both),
        Bytes::from_static(
            b"{\"schemaVersion\":1,\"name\":\"x\",\"tag\":\"y\",\"fsLayers\":[],\"history\":[]}",
        ),
        Bytes::from_static(b"\xef\xbb\xbf{}"),
    ];
    for body in bodies {
        upstream.script(
            "GET",
            "/manifests/",
            1,
            Act {
                body: Some(body.clone()),
                no_digest: true,
                ..Act::default()
            },
        );
        let answer = mirror.client().manifest("a/b", "1").await;
        assert_eq!(
            answer.status,
            StatusCode::BAD_GATEWAY,
            "{:?}",
            body.slice(..body.len().min(60))
        );
        upstream.unscript();
    }
    for act in [
        Act {
            wrong_byte: Some(3),
            ..Act::default()
        },
        Act {
            headers: vec![("Content-Encoding".into(), "gzip".into())],
            ..Act::default()
        },
        Act {
            headers: vec![("Content-Type".into(), "text/html".into())],
            ..Act::default()
        },
        Act {
            cut: Some(10),
            ..Act::default()
        },
    ] {
        upstream.script("GET", "/manifests/", 1, act.clone());
        let answer = mirror.client().manifest("a/b", image.digest()).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{act:?}");
        upstream.unscript();
    }
    assert!(mirror.files("blobs").is_empty());
    // A digest header that lies is ignored: the digest is of what came.
    let lie = format!("sha256:{}", "0".repeat(64));
    upstream.script(
        "GET",
        "/manifests/",
        1,
        Act {
            headers: vec![("Docker-Content-Digest".into(), lie)],
            ..Act::default()
        },
    );
    let answer = mirror.client().manifest("a/b", "1").await;
    assert!(answer.is(&image.root.bytes));
    assert_eq!(answer.header("docker-content-digest"), Some(image.digest()));
    assert!(
        mirror
            .client()
            .manifest("a/b", image.digest())
            .await
            .is(&image.root.bytes)
    );
}

#[tokio::test]
async fn damage_on_disk_is_never_served() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 300 * KIB);
    upstream.hold_blob(&blob);
    let mut mirror = Mirror::of(&upstream.url()).await;
    assert!(
        mirror
            .client()
            .blob("a/b", &blob.digest)
            .await
            .is(&blob.bytes)
    );
    for restarted in [false, true] {
        let file = mirror.files("blobs").pop().unwrap();
        std::fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_len(1000)
            .unwrap();
        if restarted {
            mirror.restart().await;
        }
        assert!(
            mirror
                .client()
                .blob("a/b", &blob.digest)
                .await
                .is(&blob.bytes),
            "fetched again"
        );
        std::fs::remove_file(mirror.files("blobs").pop().unwrap()).unwrap();
        mirror.restart().await;
        assert!(
            mirror
                .client()
                .blob("a/b", &blob.digest)
                .await
                .is(&blob.bytes),
            "fetched again"
        );
    }
}
