//! How Roadstead treats its upstreams and the way there: proxies, quotas, waits, connections.

use std::collections::HashSet;
use std::time::Duration;

use http::StatusCode;

use crate::support::image::{self, Flavour};
use crate::support::{Act, Canary, Gate, Mirror, Remote, Upstream};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_proxy_is_used_and_no_proxy_is_respected() {
    // As a proxy, the scripted registry is asked with whole URLs.
    let (proxy, direct) = (Upstream::start().await, Upstream::start().await);
    let (far, near) = (image::small(Flavour::Oci, 1), image::small(Flavour::Oci, 2));
    proxy.hold("a/b", "1", &far);
    direct.hold("a/b", "1", &near);
    let url = format!("http://me:s3cret-canary@{}", proxy.address());
    let remotes = [
        Remote::hub("http://registry.example.test"),
        Remote {
            key: "lab-registry",
            url: direct.url(),
            serves: "lab.example",
            more: String::new(),
        },
    ];
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let environment = [
        ("http_proxy", url.as_str()),
        ("NO_PROXY", "example.org,127.0.0.1"),
    ];
    let mirror = Mirror::in_environment(
        dir,
        data,
        &remotes,
        "[mirror]\ndefault = \"docker-hub\"\n",
        &environment,
    )
    .await;
    let client = mirror.client();
    assert!(client.manifest("a/b", "1").await.is(&far.root.bytes));
    let asked = proxy.log();
    assert!(!asked.is_empty());
    for seen in &asked {
        assert_eq!(seen.header("host"), Some("registry.example.test"));
        assert!(seen.header("proxy-authorization").is_some());
        assert!(seen.header("authorization").is_none());
    }
    let answer = client.manifest("lab.example/a/b", "1").await;
    assert!(answer.is(&near.root.bytes), "{answer:?}");
    assert!(
        direct
            .log()
            .iter()
            .all(|seen| seen.header("proxy-authorization").is_none())
    );
    assert_eq!(proxy.log().len(), asked.len());
    assert!(
        !mirror
            .log()
            .iter()
            .any(|line| line.contains("s3cret-canary"))
    );
}

#[tokio::test]
async fn a_proxy_that_fails_is_an_outage_and_not_an_absence() {
    let canary = Canary::start();
    let closed = canary.url();
    drop(canary);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for scheme in ["http", "https"] {
        let dir = tempfile::tempdir_in(dir.path()).unwrap();
        let data = data.join(scheme);
        let remote = Remote::hub(&format!("{scheme}://registry.example.test"));
        let environment = [
            ("HTTP_PROXY", closed.as_str()),
            ("HTTPS_PROXY", closed.as_str()),
        ];
        let mirror = Mirror::in_environment(dir, data, &[remote], "", &environment).await;
        let answer = mirror.client().manifest("a/b", "1").await;
        assert!(
            matches!(answer.status.as_u16(), 502..=504),
            "{scheme}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn what_is_left_of_the_quota_is_shown() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    let told = |left: &str| Act {
        headers: vec![
            ("RateLimit-Limit".to_owned(), "100;w=21600".to_owned()),
            ("RateLimit-Remaining".to_owned(), format!("{left};w=21600")),
        ],
        ..Act::default()
    };
    let mirror = Mirror::of(&upstream.url()).await;
    let metric = |name: &str| {
        mirror.metric(&format!(
            "{name}{{repository=\"docker-hub\",credential=\"anonymous\"}}"
        ))
    };
    for left in ["76", "75"] {
        upstream.script("GET", "/manifests/", 1, told(left));
        upstream.script("HEAD", "/manifests/", 1, told(left));
        assert!(
            mirror
                .client()
                .manifest("a/b", "1")
                .await
                .is(&image.root.bytes)
        );
        assert_eq!(metric("roadstead_upstream_quota_limit"), 100.0);
        assert_eq!(
            metric("roadstead_upstream_quota_remaining").to_string(),
            left
        );
        upstream.unscript();
    }
}

#[tokio::test]
async fn a_known_tag_costs_no_pull_while_it_stands_still() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    let mirror = Mirror::of(&upstream.url()).await;
    for _ in 0..5 {
        assert!(
            mirror
                .client()
                .manifest("a/b", "1")
                .await
                .is(&image.root.bytes)
        );
    }
    // HEAD is free at Docker Hub; the one GET was the first.
    assert_eq!(upstream.count("GET", "/manifests/"), 1);
    assert_eq!(upstream.count("HEAD", "/manifests/"), 4);
}

#[tokio::test]
async fn retry_after_is_waited_for_and_passed_on() {
    let upstream = Upstream::start().await;
    let (known, unknown) = (image::small(Flavour::Oci, 1), image::small(Flavour::Oci, 2));
    upstream.hold("a/b", "known", &known);
    upstream.hold("a/b", "unknown", &unknown);
    let mirror = Mirror::of(&upstream.url()).await;
    let client = mirror.client();
    assert!(client.manifest("a/b", "known").await.is(&known.root.bytes));
    let busy = Act {
        headers: vec![("Retry-After".to_owned(), "120".to_owned())],
        ..Act::status(429)
    };
    upstream.script("GET", "/manifests/", 99, busy.clone());
    upstream.script("HEAD", "/manifests/", 99, busy);
    let first = client.manifest("a/b", "unknown").await;
    assert_eq!(first.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(first.code(), "TOOMANYREQUESTS");
    let asked = upstream.log().len();
    for _ in 0..10 {
        let answer = client.manifest("a/b", "unknown").await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=120).contains(&wait), "{wait}");
    }
    assert_eq!(upstream.log().len(), asked, "upstream was left alone");
    // HEAD is another account, and what is here is served however it goes.
    for _ in 0..3 {
        assert!(client.manifest("a/b", "known").await.is(&known.root.bytes));
    }
    assert_eq!(upstream.log().len(), asked + 1);
}

#[tokio::test]
async fn the_head_of_an_answer_does_not_wait_for_its_body() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 4 * MIB);
    upstream.hold_blob(&blob);
    let gate = Gate::closed();
    upstream.script(
        "GET",
        "/blobs/",
        1,
        Act {
            gate: Some((1, gate.clone())),
            ..Act::default()
        },
    );
    let mirror = Mirror::patient(&upstream.url()).await;
    let mut open = mirror
        .client()
        .open(&format!("/v2/a/b/blobs/{}", blob.digest))
        .await;
    assert_eq!(
        open.header("content-length"),
        Some((4 * MIB).to_string().as_str())
    );
    assert_eq!(open.take(1).await, blob.bytes[..1]);
    assert!(open.silent_for(Duration::from_millis(100)).await);
    gate.open();
    assert_eq!(open.finish().await.body, blob.bytes[1..]);
}

#[tokio::test]
async fn few_connections_serve_many_clients() {
    let upstream = Upstream::start().await;
    let blobs: Vec<_> = (0..60).map(|seed| image::blob(seed, 300_000)).collect();
    blobs.iter().for_each(|blob| upstream.hold_blob(blob));
    let mirror = Mirror::with(
        &[Remote::hub_with(
            &upstream.url(),
            "limits = { concurrent = 4 }",
        )],
        "",
    )
    .await;
    let client = mirror.client();
    let all = blobs.iter().map(|blob| client.blob("a/b", &blob.digest));
    for (answer, blob) in futures_util::future::join_all(all).await.iter().zip(&blobs) {
        assert!(answer.is(&blob.bytes));
    }
    let peers: HashSet<_> = upstream.log().iter().map(|seen| seen.peer).collect();
    assert!(peers.len() <= 4, "{} connections", peers.len());
    assert!(upstream.log().iter().all(|seen| {
        seen.header("user-agent")
            .is_some_and(|agent| agent.starts_with("roadstead/"))
    }));
}
