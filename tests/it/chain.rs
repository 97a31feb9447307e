//! Mirrors of mirrors.

use http::StatusCode;

use crate::support::image::{self, Flavour};
use crate::support::{Mirror, Remote, Upstream};

#[tokio::test]
async fn two_in_a_row_answer_as_one() {
    let upstream = Upstream::start().await;
    let image = image::multi_platform(Flavour::Oci, 1, 100_000);
    upstream.hold("team/app", "1", &image);
    let other = Remote {
        key: "other-io",
        url: upstream.url(),
        serves: "other.io",
        more: "tag_ttl = \"0s\"".to_owned(),
    };
    let inner = Mirror::with(&[Remote::hub("http://127.0.0.1:9"), other], "").await;
    let through = Remote {
        key: "other-io",
        url: inner.url(),
        serves: "other.io",
        more: "tag_ttl = \"0s\"\nns = \"other.io\"".to_owned(),
    };
    let outer = Mirror::with(&[through], "").await;
    let client = outer.client();
    let head = client.head("/v2/team/app/manifests/1?ns=other.io").await;
    assert_eq!(
        (head.status, head.header("docker-content-digest")),
        (StatusCode::OK, Some(image.digest()))
    );
    assert!(client.manifest("team/app", "1").await.is(&image.root.bytes));
    let layer = image.layers()[0];
    let path = format!("/v2/team/app/blobs/{}", layer.digest);
    assert_eq!(
        client.head(&path).await.header("content-length").unwrap(),
        layer.size().to_string()
    );
    assert_eq!(
        client.range(&path, "bytes=100-199").await.body,
        layer.bytes[100..200]
    );
    assert!(
        client
            .blob("team/app", &layer.digest)
            .await
            .is(&layer.bytes)
    );
    assert_eq!(upstream.count("GET", &layer.digest), 1);
    let referrers = client
        .get(&format!("/v2/team/app/referrers/{}", image.digest()))
        .await;
    assert_eq!(referrers.json()["manifests"], serde_json::json!([]));
}

#[tokio::test]
async fn a_loop_of_two_is_cut() {
    let free = crate::support::free_port();
    let first = Mirror::with(&[Remote::hub(&format!("http://127.0.0.1:{free}"))], "").await;
    let second = Mirror::with(&[Remote::hub(&first.url())], &format!("[server]\n[[server.bind]]\nlisten = \"127.0.0.1:{free}\"\nrepository = \"docker-hub\"\n")).await;
    for mirror in [&first, &second] {
        let answer = mirror.client().manifest("a/b", "1").await;
        assert!(
            matches!(answer.status.as_u16(), 502 | 508),
            "{}",
            answer.status
        );
    }
    let asked: usize = [&first, &second]
        .iter()
        .map(|mirror| {
            mirror
                .log()
                .iter()
                .filter(|line| line.contains("\"path\":\"/v2/a/b/manifests/1"))
                .count()
        })
        .sum();
    assert!(asked <= 12, "{asked} requests for two: no storm");
}
