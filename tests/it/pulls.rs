//! Pulls: cold, warm, offline; what each answer says of itself.

use http::{Method, StatusCode};
use serde_json::json;

use crate::eventually;
use crate::support::image::{self, Content, Flavour, OCI_INDEX};
use crate::support::{Mirror, Remote, Upstream};

#[tokio::test]
async fn an_image_is_pulled_once_and_served_after_upstream_is_gone() {
    let mut upstream = Upstream::start().await;
    for (tag, flavour) in [("oci", Flavour::Oci), ("docker", Flavour::Docker)] {
        upstream.hold(
            "library/app",
            tag,
            &image::multi_platform(flavour, 7, 100_000),
        );
    }
    let mut mirror = Mirror::of(&upstream.url()).await;
    for tag in ["oci", "docker"] {
        let image = image::multi_platform(
            if tag == "oci" {
                Flavour::Oci
            } else {
                Flavour::Docker
            },
            7,
            100_000,
        );
        for round in ["cold", "warm", "gone"] {
            if round == "gone" {
                upstream.stop().await;
                mirror.restart().await;
            }
            let client = mirror.client();
            let root = client.manifest("app", tag).await;
            assert!(root.is(&image.root.bytes), "{round} {tag}: {root:?}");
            assert_eq!(root.header("docker-content-digest"), Some(image.digest()));
            assert_eq!(
                root.header("content-type"),
                Some(image.root.media_type.as_str())
            );
            assert_eq!(
                root.header("etag"),
                Some(format!("\"{}\"", image.digest()).as_str())
            );
            let child = image.child(0);
            assert!(
                client
                    .manifest("library/app", &child.digest)
                    .await
                    .is(&child.bytes),
                "{round}"
            );
            for blob in image.blobs.iter().take(4) {
                assert!(
                    client.blob("app", &blob.digest).await.is(&blob.bytes),
                    "{round} {}",
                    blob.digest
                );
            }
            // HEAD says what GET says.
            for path in [
                format!("/v2/app/manifests/{tag}"),
                format!("/v2/app/manifests/{}", image.digest()),
                format!("/v2/app/blobs/{}", image.blobs[0].digest),
            ] {
                let (head, get) = (
                    client.head(&path).await,
                    client.send(Method::GET, &path, &[("accept", "*/*")]).await,
                );
                for name in [
                    "content-length",
                    "content-type",
                    "docker-content-digest",
                    "etag",
                ] {
                    assert_eq!(head.header(name), get.header(name), "{round} {path} {name}");
                }
                assert!(head.body.is_empty());
            }
        }
        upstream.restart().await;
        mirror.restart().await;
        assert_eq!(
            upstream.count("GET", &image.blobs[0].digest),
            1,
            "each blob once"
        );
        assert_eq!(
            upstream.count("GET", &image.child(0).digest),
            1,
            "a manifest by digest never twice"
        );
        // No platform that nobody asked for.
        assert_eq!(upstream.count("GET", &image.child(1).digest), 0);
    }
}

#[tokio::test]
async fn cache_status_says_how_an_answer_came_about() {
    let mut upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    let mirror = Mirror::with(&[Remote::hub_with(&upstream.url(), "tag_ttl = \"1h\"")], "").await;
    let client = mirror.client();
    assert_eq!(
        client.manifest("a/b", "1").await.header("cache-status"),
        Some("roadstead; fwd=uri-miss; stored")
    );
    assert!(
        client
            .manifest("a/b", "1")
            .await
            .header("cache-status")
            .unwrap()
            .starts_with("roadstead; hit; ttl=")
    );
    assert_eq!(
        client
            .blob("a/b", &image.blobs[0].digest)
            .await
            .header("cache-status"),
        Some("roadstead; fwd=uri-miss; stored")
    );
    assert_eq!(
        client
            .blob("a/b", &image.blobs[0].digest)
            .await
            .header("cache-status"),
        Some("roadstead; hit")
    );
    upstream.stop().await;
    assert!(
        client.manifest("a/b", "1").await.is(&image.root.bytes),
        "a fresh tag asks nobody"
    );
    let parts = [
        "\"target\":\"access\"",
        "\"cache\":\"hit\"",
        "\"reason\":\"fresh\"",
        "\"repository\":\"docker-hub\"",
        "\"status\":200",
    ];
    eventually!(
        mirror
            .log()
            .iter()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    );
}

#[tokio::test]
async fn a_tag_that_moves_is_followed_and_head_costs_no_pull() {
    let upstream = Upstream::start().await;
    let (one, two) = (
        image::small(Flavour::Docker, 1),
        image::small(Flavour::Docker, 2),
    );
    upstream.hold("a/b", "1", &one);
    let mirror = Mirror::of(&upstream.url()).await;
    let client = mirror.client();
    let head = client.head("/v2/a/b/manifests/1").await;
    assert_eq!(head.header("docker-content-digest"), Some(one.digest()));
    assert_eq!(
        upstream.count("GET", "/manifests/"),
        0,
        "a HEAD is answered by a HEAD"
    );
    assert!(client.manifest("a/b", "1").await.is(&one.root.bytes));
    assert!(client.manifest("a/b", "1").await.is(&one.root.bytes));
    assert_eq!(upstream.count("GET", "/manifests/"), 1);
    upstream.hold("a/b", "1", &two);
    assert!(client.manifest("a/b", "1").await.is(&two.root.bytes));
    assert!(
        client
            .manifest("a/b", one.digest())
            .await
            .is(&one.root.bytes),
        "the old digest stays"
    );
}

#[tokio::test]
async fn conditions_and_accept() {
    let upstream = Upstream::start().await;
    let (oci, docker) = (
        image::multi_platform(Flavour::Oci, 1, 1000),
        image::multi_platform(Flavour::Docker, 1, 1000),
    );
    upstream.hold("a/b", "oci", &oci);
    upstream.hold("a/b", "docker", &docker);
    let mirror = Mirror::of(&upstream.url()).await;
    let client = mirror.client();
    let etag = format!("\"{}\"", oci.digest());
    let unchanged = client
        .send(
            Method::GET,
            "/v2/a/b/manifests/oci",
            &[("accept", "*/*"), ("if-none-match", &etag)],
        )
        .await;
    assert_eq!(
        (unchanged.status, unchanged.body.len()),
        (StatusCode::NOT_MODIFIED, 0)
    );
    // A client that knows no lists gets the linux/amd64 image, and one that knows no OCI a reason.
    let old = [("accept", image::DOCKER_MANIFEST)];
    let child = client
        .send(Method::GET, "/v2/a/b/manifests/docker", &old)
        .await;
    assert!(child.is(&docker.child(0).bytes), "{child:?}");
    let refused = client
        .send(Method::GET, "/v2/a/b/manifests/oci", &old)
        .await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN")
    );
    assert!(String::from_utf8_lossy(&refused.body).contains(OCI_INDEX));
    let by_digest = client
        .send(
            Method::GET,
            &format!("/v2/a/b/manifests/{}", docker.digest()),
            &old,
        )
        .await;
    assert!(
        by_digest.is(&docker.root.bytes),
        "by digest the stored bytes, always"
    );
}

#[tokio::test]
async fn tags_referrers_and_catalog() {
    let mut upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    upstream.hold_path(
        "/v2/a/b/tags/list",
        &Content::json(
            "application/json",
            &json!({"name": "a/b", "tags": ["c", "a", "b", "not a tag"]}),
        ),
    );
    let mut mirror = Mirror::of(&upstream.url()).await;
    let client = mirror.client();
    let first = client.get("/v2/a/b/tags/list?n=2").await;
    assert_eq!(first.json(), json!({"name": "a/b", "tags": ["a", "b"]}));
    assert_eq!(
        first.header("link"),
        Some("</v2/a/b/tags/list?n=2&last=b>; rel=\"next\"")
    );
    let second = client.get("/v2/a/b/tags/list?n=2&last=b").await;
    assert_eq!(
        (second.json(), second.header("link")),
        (json!({"name": "a/b", "tags": ["c"]}), None)
    );
    assert_eq!(
        client.get("/v2/a/b/tags/list?n=-1").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        client.get("/v2/no/such/tags/list").await.code(),
        "NAME_UNKNOWN"
    );
    // The API of upstream, then the fallback tag, then nothing: each is upstream's own word.
    let signature = image::artifact(Some(&image.root), "application/x.signature", b"signed");
    let mut entry = signature.root.descriptor();
    entry["artifactType"] = json!("application/x.signature");
    let list = Content::json(
        OCI_INDEX,
        &json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}),
    );
    let path = format!("/v2/a/b/referrers/{}", image.digest());
    assert_eq!(client.get(&path).await.json()["manifests"], json!([]));
    let fallback = image.digest().replace(':', "-");
    upstream.hold(
        "a/b",
        &fallback,
        &image::Image {
            root: list.clone(),
            ..signature.clone()
        },
    );
    assert_eq!(
        client.get(&path).await.json()["manifests"][0]["digest"],
        json!(signature.digest())
    );
    upstream.hold_path(&path, &list);
    let filtered = client
        .get(&format!("{path}?artifactType=application/x.other"))
        .await;
    assert_eq!(
        (
            filtered.json()["manifests"].clone(),
            filtered.header("oci-filters-applied")
        ),
        (json!([]), Some("artifactType"))
    );
    assert_eq!(filtered.header("content-type"), Some(OCI_INDEX));
    client.manifest("a/b", "1").await;
    upstream.stop().await;
    mirror.restart().await;
    let client = mirror.client();
    let stale = client.get("/v2/a/b/tags/list").await;
    assert_eq!(stale.json()["tags"], json!(["1", "a", "b", "c"]));
    assert!(
        stale
            .header("warning")
            .unwrap()
            .starts_with("299 - \"stale")
    );
    assert_eq!(
        client.get(&path).await.json()["manifests"][0]["digest"],
        json!(signature.digest())
    );
    assert!(
        client
            .get("/v2/a/other/tags/list")
            .await
            .status
            .is_server_error(),
        "an outage never reads as absence"
    );
    assert_eq!(
        client.get("/v2/_catalog").await.json(),
        json!({"repositories": ["a/b"]})
    );
    assert_eq!(
        client.get("/docker-hub/v2/_catalog").await.json(),
        json!({"repositories": ["a/b"]})
    );
}

#[tokio::test]
async fn known_bytes_of_another_image_need_upstreams_word_and_move_once() {
    let upstream = Upstream::start().await;
    let blob = image::blob(5, 200_000);
    upstream.hold_blob(&blob);
    let mirror = Mirror::of(&upstream.url()).await;
    let client = mirror.client();
    assert!(client.blob("a/one", &blob.digest).await.is(&blob.bytes));
    assert!(client.blob("a/two", &blob.digest).await.is(&blob.bytes));
    assert_eq!(
        (
            upstream.count("GET", "/blobs/"),
            upstream.count("HEAD", "/v2/a/two/blobs/")
        ),
        (1, 1)
    );
    upstream.script("HEAD", "/v2/a/three/", 1, crate::support::Act::status(403));
    assert_eq!(
        client.blob("a/three", &blob.digest).await.status,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn health_metrics_and_http2() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    let mirror = Mirror::of(&upstream.url()).await;
    let h2 = crate::support::Client::h2c(mirror.address());
    assert!(h2.manifest("a/b", "1").await.is(&image.root.bytes));
    for blob in &image.blobs {
        assert!(h2.blob("a/b", &blob.digest).await.is(&blob.bytes));
    }
    for path in ["/livez", "/readyz", "/v2/", "/v2"] {
        assert_eq!(
            mirror.client().get(path).await.status,
            StatusCode::OK,
            "{path}"
        );
    }
    assert_eq!(
        mirror
            .client()
            .get("/v2/")
            .await
            .header("docker-distribution-api-version"),
        Some("registry/2.0")
    );
    let page = mirror.client().get("/metrics").await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    for metric in [
        "roadstead_requests_total{repository=\"docker-hub\"",
        "roadstead_upstream_bytes_total",
        "roadstead_fills_total",
        "roadstead_request_duration_seconds_bucket",
        "roadstead_client_bytes_total",
    ] {
        assert!(page.contains(metric), "{metric}\n{page}");
    }
}
