//! Malformed requests, writes, and which repository a request means, over the wire.

use http::{Method, StatusCode};

use crate::support::image::{self, Flavour};
use crate::support::{Mirror, Remote, Upstream};

#[tokio::test]
async fn malformed_requests_get_a_clear_answer_and_ask_nobody() {
    let upstream = Upstream::start().await;
    let mirror = Mirror::of(&upstream.url()).await;
    let client = mirror.client();
    let hex = "a".repeat(64);
    let table = [
        ("/v2/A/b/manifests/1".to_owned(), 400, "NAME_INVALID"),
        ("/v2/a//b/manifests/1".to_owned(), 400, "NAME_INVALID"),
        ("/v2/a/../b/manifests/1".to_owned(), 400, "NAME_INVALID"),
        ("/v2/a/%2e%2e/b/manifests/1".to_owned(), 400, "NAME_INVALID"),
        ("/v2/a%2fb/manifests/1".to_owned(), 400, "NAME_INVALID"),
        ("/v2/a%00/manifests/1".to_owned(), 400, "NAME_INVALID"),
        ("/v2/a/b%zz/manifests/1".to_owned(), 400, "NAME_INVALID"),
        ("/v2/-a/manifests/1".to_owned(), 400, "NAME_INVALID"),
        (
            format!("/v2/{}/manifests/1", "a".repeat(256)),
            400,
            "NAME_INVALID",
        ),
        ("/v2/a/manifests/.x".to_owned(), 400, "TAG_INVALID"),
        (
            format!("/v2/a/manifests/{}", "t".repeat(129)),
            400,
            "TAG_INVALID",
        ),
        (
            "/v2/a/manifests/sha256:short".to_owned(),
            400,
            "DIGEST_INVALID",
        ),
        (
            format!("/v2/a/manifests/SHA256:{hex}"),
            400,
            "DIGEST_INVALID",
        ),
        (
            format!("/v2/a/blobs/md5:{}", "a".repeat(32)),
            400,
            "DIGEST_INVALID",
        ),
        (
            format!("/v2/a/blobs/sha256:{}", "A".repeat(64)),
            400,
            "DIGEST_INVALID",
        ),
        ("/v2/a/blobs/latest".to_owned(), 400, "DIGEST_INVALID"),
        (
            "/v2/a/tags/list?n=abc".to_owned(),
            400,
            "PAGINATION_NUMBER_INVALID",
        ),
        (
            "/v2/a/tags/list?n=1&n=2".to_owned(),
            400,
            "PAGINATION_NUMBER_INVALID",
        ),
        ("/v2/a/nothing/here".to_owned(), 404, "NAME_UNKNOWN"),
        ("/v3/".to_owned(), 404, "NAME_UNKNOWN"),
        ("/no-such/v2/a/manifests/1".to_owned(), 404, "NAME_UNKNOWN"),
    ];
    for (path, status, code) in table {
        let answer = client.get(&path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (status, code),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(client.head(&path).await.body.is_empty());
    }
    assert!(upstream.log().is_empty());
    assert!(mirror.files("blobs").is_empty());
}

#[tokio::test]
async fn a_write_to_a_remote_is_refused_with_a_sentence() {
    let upstream = Upstream::start().await;
    let mirror = Mirror::of(&upstream.url()).await;
    let digest = image::blob(1, 1).digest;
    for (method, path) in [
        (Method::PUT, "/v2/a/b/manifests/1".to_owned()),
        (Method::DELETE, "/v2/a/b/manifests/1".to_owned()),
        (Method::DELETE, format!("/v2/a/b/blobs/{digest}")),
        (Method::POST, "/v2/a/b/blobs/uploads/".to_owned()),
        (Method::POST, "/v2/a/b/blobs/uploads".to_owned()),
        (Method::PATCH, "/v2/a/b/blobs/uploads/x".to_owned()),
    ] {
        let answer = mirror.client().send(method.clone(), &path, &[]).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            "{method} {path}"
        );
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        assert!(
            String::from_utf8_lossy(&answer.body).contains("push to"),
            "{path}"
        );
    }
    assert!(upstream.log().is_empty());
}

#[tokio::test]
async fn every_way_to_name_a_repository() {
    let (hub, other) = (Upstream::start().await, Upstream::start().await);
    let (image, foreign) = (image::small(Flavour::Oci, 1), image::small(Flavour::Oci, 2));
    hub.hold("library/app", "1", &image);
    other.hold("team/app", "1", &foreign);
    let second = Remote {
        key: "other-io",
        url: other.url(),
        serves: "other.io",
        more: String::new(),
    };
    let bind = "[[server.bind]]\nhost = \"other.test\"\nrepository = \"other-io\"\n";
    let mirror = Mirror::with(&[Remote::hub(&hub.url()), second], bind).await;
    let client = mirror.client();
    for path in [
        "/v2/app/manifests/1",
        "/v2/library/app/manifests/1",
        "/v2/app/manifests/1?ns=docker.io",
        "/v2/docker.io/app/manifests/1",
        "/docker-hub/v2/app/manifests/1",
        "/artifactory/api/docker/docker-hub/v2/app/manifests/1",
    ] {
        assert!(client.get(path).await.is(&image.root.bytes), "{path}");
    }
    for path in [
        "/v2/other-io/team/app/manifests/1",
        "/v2/other.io/team/app/manifests/1",
        "/other-io/v2/team/app/manifests/1",
        "/other.io/v2/team/app/manifests/1",
        "/api/docker/other-io/v2/team/app/manifests/1",
        "/v2/team/app/manifests/1?ns=other.io",
        "/v2/other.io/team/app/manifests/1?ns=other.io",
    ] {
        let answer = client.get(path).await;
        assert!(answer.is(&foreign.root.bytes), "{path}");
        assert_eq!(
            answer.header("oci-namespace"),
            path.contains("ns=").then_some("other.io"),
            "{path}"
        );
    }
    let by_host = client
        .send(
            Method::GET,
            "/v2/team/app/manifests/1",
            &[("host", "other.test:5000")],
        )
        .await;
    assert!(by_host.is(&foreign.root.bytes));
    // What chooses the repository of an image chooses it for everything else too, and so does what it cannot find.
    let images = |list: &[&str]| serde_json::json!({ "repositories": list });
    for (path, host, expected) in [
        (
            "/v2/_catalog",
            "mirror.test",
            images(&["library/app", "other-io/team/app"]),
        ),
        ("/v2/_catalog", "other.test", images(&["team/app"])),
        (
            "/v2/_catalog?ns=other.io",
            "mirror.test",
            images(&["team/app"]),
        ),
        (
            "/other.io/v2/_catalog",
            "mirror.test",
            images(&["team/app"]),
        ),
    ] {
        let answer = client.send(Method::GET, path, &[("host", host)]).await;
        assert_eq!(answer.json(), expected, "{path} of {host}");
    }
    for path in ["/v2/", "/v2/_catalog", "/v2/team/nothing/manifests/1"] {
        let known = client.get(&format!("{path}?ns=OTHER.io")).await;
        assert_eq!(known.header("oci-namespace"), Some("OTHER.io"), "{path}");
        for unknown in [
            format!("{path}?ns=evil.example"),
            format!("/evil.example{path}"),
        ] {
            let answer = client.get(&unknown).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{unknown}");
            assert_eq!(answer.code(), "NAME_UNKNOWN", "{unknown}");
        }
    }
    assert_eq!(
        client
            .get("/v2/app/manifests/1?ns=evil.example")
            .await
            .status,
        StatusCode::NOT_FOUND
    );
}
