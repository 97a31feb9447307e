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

#[tokio::test]
async fn a_404_of_one_kind_says_nothing_of_the_other() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    let remote = Remote::hub_with(&upstream.url(), "negative_ttl = \"1h\"");
    let mirror = Mirror::with(&[remote], "").await;
    let client = mirror.client();
    let (blob, manifest) = (&image.blobs[0], &image.root);
    let wrong = [
        format!("/v2/a/b/manifests/{}", blob.digest),
        format!("/v2/a/b/blobs/{}", manifest.digest),
    ];
    for path in &wrong {
        assert_eq!(client.get(path).await.status.as_u16(), 404);
        let again = client.get(path).await;
        assert_eq!(again.status.as_u16(), 404);
        assert_eq!(
            again.header("cache-status"),
            Some("roadstead; hit; detail=negative")
        );
        assert_eq!(client.head(path).await.status.as_u16(), 404);
    }
    assert!(client.blob("a/b", &blob.digest).await.is(&blob.bytes));
    assert!(
        client
            .manifest("a/b", &manifest.digest)
            .await
            .is(&manifest.bytes)
    );
}

#[tokio::test]
async fn a_tag_that_is_gone_is_not_asked_for_all_the_time_nor_served_for_ever() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    let more = "tag_ttl = \"0s\"\nnegative_ttl = \"1h\"\nstale_if_error = \"2s\"";
    let remote = Remote::hub_with(&upstream.url(), more);
    let mut mirror = Mirror::with(&[remote], "").await;
    assert!(
        mirror
            .client()
            .manifest("a/b", "1")
            .await
            .is(&image.root.bytes)
    );
    upstream.drop_tag("a/b", "1");
    assert!(
        mirror
            .client()
            .manifest("a/b", "1")
            .await
            .is(&image.root.bytes)
    );
    let asked = upstream.log().len();
    for _ in 0..10 {
        assert!(
            mirror
                .client()
                .manifest("a/b", "1")
                .await
                .is(&image.root.bytes)
        );
    }
    assert_eq!(upstream.log().len(), asked, "a 404 is remembered");
    // A restart makes it no younger than just expired, and it ages on from there.
    for _ in 0..2 {
        mirror.restart().await;
        drop(mirror.client().manifest("a/b", "1").await);
    }
    crate::eventually!(mirror.client().manifest("a/b", "1").await.status.as_u16() == 404);
}

#[tokio::test]
async fn a_moved_tag_and_an_outage_still_give_an_image_that_can_be_pulled() {
    let mut upstream = Upstream::start().await;
    let (old, new) = (image::small(Flavour::Oci, 1), image::small(Flavour::Oci, 2));
    upstream.hold("a/b", "1", &old);
    let remote = Remote::hub_with(&upstream.url(), "tag_ttl = \"1s\"");
    let mirror = Mirror::with(&[remote], "").await;
    let client = mirror.client();
    assert!(client.manifest("a/b", "1").await.is(&old.root.bytes));
    upstream.hold("a/b", "1", &new);
    // The new digest is announced by a HEAD, and then upstream is gone.
    crate::eventually!({
        let head = client.head("/v2/a/b/manifests/1").await;
        head.header("docker-content-digest") == Some(new.digest())
    });
    upstream.stop().await;
    let head = client.head("/v2/a/b/manifests/1").await;
    let digest = head.header("docker-content-digest").unwrap().to_owned();
    assert_eq!(digest, old.digest());
    assert!(client.manifest("a/b", &digest).await.is(&old.root.bytes));
    assert!(client.manifest("a/b", "1").await.is(&old.root.bytes));
}

/// Docker Hub tells by HEAD what a tag means when it no longer gives the manifest.
#[tokio::test]
async fn a_tag_whose_new_manifest_cannot_be_had_goes_on_meaning_the_old_one() {
    let upstream = Upstream::start().await;
    let (old, new) = (image::small(Flavour::Oci, 1), image::small(Flavour::Oci, 2));
    upstream.hold("a/b", "1", &old);
    let mirror = Mirror::of(&upstream.url()).await;
    let client = mirror.client();
    assert!(client.manifest("a/b", "1").await.is(&old.root.bytes));
    upstream.hold("a/b", "1", &new);
    upstream.script("GET", "/manifests/", usize::MAX, Act::status(429));
    // However often it is looked at.
    for _ in 0..4 {
        let answer = client.manifest("a/b", "1").await;
        assert!(answer.is(&old.root.bytes), "{answer:?}");
        assert!(answer.headers.contains_key("warning"));
    }
    upstream.unscript();
    assert!(client.manifest("a/b", "1").await.is(&new.root.bytes));
}

#[tokio::test]
async fn what_a_tag_brought_for_one_image_is_kept_for_the_other() {
    let (one, mut two) = (Upstream::start().await, Upstream::start().await);
    let image = image::small(Flavour::Oci, 1);
    one.hold("a/b", "1", &image);
    two.hold("c/d", "1", &image);
    let remotes = [
        Remote::hub(&one.url()),
        Remote {
            key: "lab-registry",
            url: two.url(),
            serves: "lab.example",
            more: "tag_ttl = \"0s\"".to_owned(),
        },
    ];
    let mirror = Mirror::with(&remotes, "[mirror]\ndefault = \"docker-hub\"\n").await;
    let client = mirror.client();
    assert!(client.manifest("a/b", "1").await.is(&image.root.bytes));
    for _ in 0..2 {
        let answer = client.manifest("lab.example/c/d", "1").await;
        assert!(answer.is(&image.root.bytes), "{answer:?}");
    }
    two.stop().await;
    assert!(
        client
            .manifest("lab.example/c/d", "1")
            .await
            .is(&image.root.bytes)
    );
    let answer = client.manifest("lab.example/c/d", image.digest()).await;
    assert!(answer.is(&image.root.bytes), "{answer:?}");
}

#[tokio::test]
async fn a_redirect_that_leads_to_nothing_is_no_absence() {
    let upstream = Upstream::start().await;
    let cdn = Upstream::start().await;
    let blob = image::blob(1, 1000);
    upstream.hold_blob(&blob);
    let target = format!("{}/gone", cdn.url());
    upstream.script("GET", "/blobs/", 1, Act::redirect(307, &target));
    let remote = Remote::hub_with(
        &upstream.url(),
        "allow_addresses = [\"127.0.0.1/32\"]\nnegative_ttl = \"1h\"",
    );
    let mirror = Mirror::with(&[remote], "").await;
    let answer = mirror.client().blob("a/b", &blob.digest).await;
    assert!(answer.status.is_server_error(), "{answer:?}");
    assert!(
        mirror
            .client()
            .blob("a/b", &blob.digest)
            .await
            .is(&blob.bytes)
    );
}

#[tokio::test]
async fn a_client_that_has_it_causes_no_download() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 100_000);
    upstream.hold_blob(&blob);
    let mirror = Mirror::of(&upstream.url()).await;
    let path = format!("/v2/a/b/blobs/{}", blob.digest);
    let tag = format!("\"{}\"", blob.digest);
    let headers = [("if-none-match", tag.as_str())];
    let answer = mirror
        .client()
        .send(http::Method::GET, &path, &headers)
        .await;
    assert_eq!(answer.status.as_u16(), 304);
    assert_eq!(upstream.count("GET", "/blobs/"), 0);
}
