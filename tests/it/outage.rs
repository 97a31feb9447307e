//! Upstream in trouble: what is cached pulls, what is not keeps its meaning, and nothing reads as absence that is none.

use std::time::{Duration, Instant};

use http::StatusCode;

use crate::support::image::{self, Flavour};
use crate::support::{Act, Mirror, Remote, Upstream};

/// The twelve kinds of trouble.
const TROUBLES: [&str; 12] = [
    "refused",
    "black hole",
    "stall",
    "401",
    "403",
    "404",
    "429",
    "500",
    "502",
    "503",
    "html",
    "reset",
];

async fn make_trouble(upstream: &mut Upstream, trouble: &str) {
    let always = usize::MAX;
    let all = |upstream: &Upstream, act: Act| {
        upstream.script("GET", "/v2/", always, act.clone());
        upstream.script("HEAD", "/v2/", always, act);
    };
    match trouble {
        "refused" => upstream.stop().await,
        "black hole" => upstream.black_hole(true),
        "stall" => all(
            upstream,
            Act {
                silent: true,
                ..Act::default()
            },
        ),
        "html" => all(
            upstream,
            Act {
                status: Some(200),
                headers: vec![("Content-Type".into(), "text/html".into())],
                body: Some("<html>".into()),
                no_digest: true,
                ..Act::default()
            },
        ),
        "reset" => all(
            upstream,
            Act {
                hang_up: true,
                ..Act::default()
            },
        ),
        status => all(upstream, Act::status(status.parse().unwrap())),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_upstream_the_cached_pulls_and_the_rest_says_what_it_is() {
    let image = image::small(Flavour::Oci, 1);
    let mut jobs = tokio::task::JoinSet::new();
    for trouble in TROUBLES {
        let image = image.clone();
        jobs.spawn(async move {
            let mut upstream = Upstream::start().await;
            upstream.hold("a/b", "1", &image);
            let mut mirror = Mirror::of(&upstream.url()).await;
            let layer = &image.blobs[1];
            assert!(
                mirror
                    .client()
                    .manifest("a/b", "1")
                    .await
                    .is(&image.root.bytes)
            );
            assert!(
                mirror
                    .client()
                    .blob("a/b", &layer.digest)
                    .await
                    .is(&layer.bytes)
            );
            make_trouble(&mut upstream, trouble).await;
            for restarted in [false, true] {
                if restarted {
                    mirror.restart().await;
                }
                let client = mirror.client();
                let begun = Instant::now();
                let stale = client.manifest("a/b", "1").await;
                assert!(
                    stale.is(&image.root.bytes),
                    "{trouble} restarted={restarted}: {stale:?}"
                );
                assert!(begun.elapsed() < Duration::from_secs(20), "{trouble}");
                assert!(
                    stale
                        .header("warning")
                        .unwrap_or_default()
                        .starts_with("299 - \"stale"),
                    "{trouble}: {stale:?}"
                );
                assert!(
                    stale
                        .header("cache-status")
                        .unwrap()
                        .starts_with("roadstead; fwd=stale"),
                    "{trouble}: {stale:?}"
                );
                assert!(
                    client
                        .manifest("a/b", image.digest())
                        .await
                        .is(&image.root.bytes),
                    "{trouble}"
                );
                assert!(
                    client.blob("a/b", &layer.digest).await.is(&layer.bytes),
                    "{trouble}"
                );
                // What is not cached: 404 only where upstream itself says so.
                for path in [
                    "/v2/a/b/manifests/other".to_owned(),
                    format!("/v2/a/b/blobs/{}", image::blob(9, 9).digest),
                    "/v2/a/b/tags/list".to_owned(),
                ] {
                    let answer = client.get(&path).await;
                    let status = answer.status.as_u16();
                    match trouble {
                        "404" => assert!(
                            status == 404 || (status == 200 && path.ends_with("list")),
                            "{trouble} {path} {status}"
                        ),
                        "401" | "403" => assert!(
                            status == 403 || path.ends_with("list"),
                            "{trouble} {path} {status}"
                        ),
                        "429" => assert!(
                            status == 429 || path.ends_with("list"),
                            "{trouble} {path} {status}"
                        ),
                        _ => assert!(
                            matches!(status, 502..=504) || path.ends_with("list"),
                            "{trouble} {path} {status}"
                        ),
                    }
                    if matches!(status, 429 | 502..=504) {
                        assert!(answer.header("retry-after").is_some(), "{trouble} {path}");
                    }
                    assert_eq!(
                        answer.header("www-authenticate"),
                        None,
                        "{trouble}: upstream's challenge is not passed on"
                    );
                }
            }
        });
    }
    while let Some(done) = jobs.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_tag_deleted_upstream_is_kept_or_forgotten_as_configured() {
    let image = image::small(Flavour::Oci, 1);
    for (rule, status) in [("keep", StatusCode::OK), ("forget", StatusCode::NOT_FOUND)] {
        let upstream = Upstream::start().await;
        upstream.hold("a/b", "1", &image);
        let more = format!("tag_ttl = \"0s\"\ndeleted_upstream = \"{rule}\"");
        let mirror = Mirror::with(&[Remote::hub_with(&upstream.url(), &more)], "").await;
        assert!(
            mirror
                .client()
                .manifest("a/b", "1")
                .await
                .is(&image.root.bytes)
        );
        upstream.drop_tag("a/b", "1");
        for _ in 0..2 {
            let answer = mirror.client().manifest("a/b", "1").await;
            assert_eq!(answer.status, status, "{rule}");
            if rule == "keep" {
                assert!(answer.header("warning").unwrap().contains("no longer has"));
            }
        }
        assert!(
            mirror
                .client()
                .manifest("a/b", image.digest())
                .await
                .is(&image.root.bytes),
            "by digest it stays"
        );
    }
}

#[tokio::test]
async fn offline_speaks_to_nobody() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    {
        let mirror = Mirror::in_directory(
            tempfile::tempdir().unwrap(),
            data.clone(),
            &[Remote::hub(&upstream.url())],
            "",
        )
        .await;
        assert!(
            mirror
                .client()
                .manifest("a/b", "1")
                .await
                .is(&image.root.bytes)
        );
    }
    let asked = upstream.log().len();
    let mirror = Mirror::in_directory(
        tempfile::tempdir().unwrap(),
        data,
        &[Remote::hub_with(
            &upstream.url(),
            "tag_ttl = \"0s\"\noffline = true",
        )],
        "",
    )
    .await;
    assert!(
        mirror
            .client()
            .manifest("a/b", "1")
            .await
            .is(&image.root.bytes)
    );
    let absent = mirror.client().manifest("a/b", "2").await;
    assert_eq!(
        (absent.status, absent.code().as_str()),
        (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN")
    );
    assert_eq!(upstream.log().len(), asked);
}

#[tokio::test]
async fn absence_is_remembered_briefly_and_retry_after_is_obeyed() {
    let upstream = Upstream::start().await;
    let mirror = Mirror::with(
        &[Remote::hub_with(&upstream.url(), "negative_ttl = \"1h\"")],
        "",
    )
    .await;
    for _ in 0..3 {
        assert_eq!(
            mirror.client().manifest("a/b", "no").await.code(),
            "MANIFEST_UNKNOWN"
        );
        assert_eq!(
            mirror
                .client()
                .blob("a/b", &image::blob(1, 1).digest)
                .await
                .code(),
            "BLOB_UNKNOWN"
        );
    }
    assert_eq!(
        (
            upstream.count("GET", "/manifests/"),
            upstream.count("GET", "/blobs/")
        ),
        (1, 1)
    );
    let limited = Act {
        headers: vec![("Retry-After".into(), "3000".into())],
        ..Act::status(429)
    };
    upstream.script("GET", "/manifests/", 1, limited);
    for _ in 0..3 {
        let answer = mirror.client().manifest("a/b", "limited").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS")
        );
        assert!(
            answer
                .header("retry-after")
                .unwrap()
                .parse::<u64>()
                .unwrap()
                > 2900
        );
    }
    assert_eq!(upstream.count("GET", "/manifests/limited"), 1);
}

#[tokio::test]
async fn it_starts_without_upstream_and_with_a_damaged_index() {
    let image = image::small(Flavour::Oci, 1);
    let mut upstream = Upstream::start().await;
    upstream.hold("a/b", "1", &image);
    let mut mirror = Mirror::of(&upstream.url()).await;
    assert!(
        mirror
            .client()
            .manifest("a/b", "1")
            .await
            .is(&image.root.bytes)
    );
    upstream.stop().await;
    mirror.restart().await;
    assert!(
        mirror
            .client()
            .manifest("a/b", "1")
            .await
            .is(&image.root.bytes)
    );
    mirror.kill();
    std::fs::write(mirror.data().join("index.sqlite"), vec![1; 5000]).unwrap();
    mirror.start().await;
    upstream.restart().await;
    assert!(
        mirror
            .client()
            .manifest("a/b", "1")
            .await
            .is(&image.root.bytes),
        "what was known is learnt again"
    );
}
