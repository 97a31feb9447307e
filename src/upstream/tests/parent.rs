//! A parent is asked first, and never the only one.

use super::*;
use crate::upstream::Parent;

/// A parent that answers so, with what it says in `OCI-Namespace`.
async fn parent(status: &'static str, echo: Option<&'static str>) -> Server {
    Server::start(move |seen| {
        let headers: Vec<_> = echo
            .map(|echo| ("OCI-Namespace", echo))
            .into_iter()
            .collect();
        let is_blob = seen.target.contains("/blobs/");
        reply(status, if is_blob { &[] } else { &headers }, "parent")
    })
    .await
}

async fn upstream_server() -> Server {
    Server::start(|_| reply("200 OK", &[], "upstream")).await
}

fn with_parent(server: &Server, parent: &str, metrics: &Arc<Metrics>) -> Upstream {
    let mut config = Config::new("hub", server.url("").parse().unwrap(), "me");
    config.timeouts = PATIENT;
    config.credentials = vec![password("me", "s3cret-canary")];
    config.parent = Some(Parent {
        url: parent.parse().unwrap(),
        ns: "docker.io".to_owned(),
        credentials: Vec::new(),
    });
    Upstream::new(config, &Tasks::new(), Arc::clone(metrics)).unwrap()
}

#[tokio::test]
async fn is_asked_instead_of_the_upstream() {
    let (parent, server) = (
        parent("200 OK", Some("Docker.io")).await,
        upstream_server().await,
    );
    let metrics = Arc::new(Metrics::new());
    let upstream = with_parent(&server, &parent.url(""), &metrics);
    assert_eq!(manifest(&upstream).await.unwrap(), "parent");
    assert_eq!(blob(&upstream).await.unwrap(), "parent");
    upstream
        .head_blob(&Hops::none(), &name("a/b"), &digest())
        .await
        .unwrap();
    assert_eq!(server.connections(), 0);
    for seen in parent.seen() {
        assert!(seen.target.ends_with("?ns=docker.io"), "{}", seen.target);
        assert_eq!(
            seen.header("authorization"),
            None,
            "the upstream's password"
        );
    }
    let text = metrics.render();
    let line = "roadstead_upstream_pulls_total{repository=\"hub@parent\"} 1";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn what_it_does_not_give_comes_from_the_upstream() {
    for (status, echo) in [
        ("404 Not Found", Some("docker.io")),
        ("401 Unauthorized", Some("docker.io")),
        ("429 Too Many Requests", Some("docker.io")),
        ("500 Internal Server Error", Some("docker.io")),
        // It does not know `?ns=`, or takes it for another one.
        ("200 OK", None),
        ("200 OK", Some("ghcr.io")),
    ] {
        let (parent, server) = (parent(status, echo).await, upstream_server().await);
        let upstream = with_parent(&server, &parent.url(""), &Arc::new(Metrics::new()));
        assert_eq!(
            manifest(&upstream).await.unwrap(),
            "upstream",
            "{status} {echo:?}"
        );
        assert_eq!(parent.count("/manifests/"), 1);
        assert!(!server.seen()[0].target.contains("ns="));
    }
}

#[tokio::test]
async fn one_that_is_down_is_left_alone() {
    let server = upstream_server().await;
    let metrics = Arc::new(Metrics::new());
    // Port 9 of loopback refuses.
    let upstream = with_parent(&server, "http://127.0.0.1:9", &metrics);
    for _ in 0..5 {
        assert_eq!(manifest(&upstream).await.unwrap(), "upstream");
    }
    let text = metrics.render();
    for line in [
        "roadstead_upstream_requests_total{repository=\"hub@parent\",kind=\"manifest\",outcome=\"unavailable\"} 3",
        "roadstead_upstream_requests_total{repository=\"hub@parent\",kind=\"manifest\",outcome=\"breaker\"} 2",
        "roadstead_upstream_pulls_total{repository=\"hub\"} 5",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
