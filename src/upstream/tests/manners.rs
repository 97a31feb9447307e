//! Health, waits, places in the queue, quotas (RELIABILITY P18, P25, U32).

use futures_util::future::join_all;

use super::*;
use crate::upstream::BreakerState;

#[tokio::test]
async fn three_failures_and_it_is_left_alone() {
    for steps in ["refused", "hang", "500", "close", "page"] {
        let server = Server::start(move |_| match steps {
            "hang" => vec![Step::Hang],
            "500" => reply("500 Oops", &[], ""),
            "page" => reply(
                "200 OK",
                &[("Content-Type", "text/html; charset=utf-8")],
                "<html>",
            ),
            _ => vec![Step::Close],
        })
        .await;
        let url = if steps == "refused" {
            "http://127.0.0.1:1".to_owned()
        } else {
            server.url("")
        };
        let upstream = client(&url, |config| {
            if steps == "hang" {
                config.timeouts = HASTY;
            }
        });
        for image in ["a", "b", "b"] {
            assert_eq!(upstream.breaker(), BreakerState::Closed, "{steps}");
            manifest_of(&upstream, image).await.unwrap_err();
        }
        let before = server.seen().len();
        let error = manifest(&upstream).await.unwrap_err();
        assert_eq!(error.kind(), Kind::BreakerOpen, "{steps}");
        assert!(error.retry_after().unwrap() <= Duration::from_secs(5));
        assert_eq!(server.seen().len(), before, "{steps}");
        assert!(matches!(upstream.breaker(), BreakerState::Open(_)));
    }
}

#[tokio::test]
async fn one_broken_image_is_no_outage() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/v2/broken/manifests/latest" => reply("500 Oops", &[], ""),
        _ => reply("404 Not Found", &[], ""),
    })
    .await;
    let upstream = upstream(&server);
    for _ in 0..6 {
        manifest_of(&upstream, "broken").await.unwrap_err();
    }
    assert_eq!(upstream.breaker(), BreakerState::Closed);
    let error = manifest_of(&upstream, "other").await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[tokio::test]
async fn answers_are_no_outage() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/v2/a/manifests/latest" => reply("404 Not Found", &[], ""),
        "/v2/b/manifests/latest" => reply("403 Forbidden", &[], ""),
        "/v2/c/manifests/latest" => reply("429 Slow", &[], ""),
        _ => reply("418 Teapot", &[], ""),
    })
    .await;
    let upstream = upstream(&server);
    for image in ["a", "b", "c", "d", "a", "b", "c", "d"] {
        manifest_of(&upstream, image).await.unwrap_err();
    }
    assert_eq!(upstream.breaker(), BreakerState::Closed);
    assert_eq!(server.seen().len(), 8);
}

#[tokio::test]
async fn a_dead_token_service_is_an_outage() {
    let server = Server::start_with(|address| {
        move |seen: &Seen| {
            if seen.target.starts_with("/token") {
                vec![Step::Close]
            } else {
                reply(
                    "401 Unauthorized",
                    &[(
                        "WWW-Authenticate",
                        &format!("Bearer realm=\"http://{address}/token\""),
                    )],
                    "",
                )
            }
        }
    })
    .await;
    let upstream = upstream(&server);
    for _ in 0..3 {
        assert_eq!(kind(manifest(&upstream).await), Kind::Credentials);
    }
    assert_eq!(kind(manifest(&upstream).await), Kind::BreakerOpen);
}

#[tokio::test]
async fn retry_after_is_honoured_by_class() {
    for (status, header, first, then) in [
        ("429 Slow", "120", Kind::RateLimited, Kind::RateLimited),
        ("503 Busy", "120", Kind::Unavailable, Kind::BreakerOpen),
        ("429 Slow", "junk", Kind::RateLimited, Kind::RateLimited),
        ("429 Slow", "-1", Kind::RateLimited, Kind::RateLimited),
    ] {
        let server = Server::start(move |seen| {
            if seen.method == "GET" && seen.target.contains("manifests") {
                reply(status, &[("Retry-After", header)], "")
            } else {
                reply("200 OK", &[], "{}")
            }
        })
        .await;
        let upstream = upstream(&server);
        let error = manifest(&upstream).await.unwrap_err();
        assert_eq!(error.kind(), first);
        assert!(error.retry_after().unwrap() <= Duration::from_secs(120));
        for image in ["x", "y"] {
            let error = manifest_of(&upstream, image).await.unwrap_err();
            assert_eq!(error.kind(), then);
            assert!(error.retry_after().unwrap() <= Duration::from_secs(120));
        }
        assert_eq!(server.seen().len(), 1);
        // Docker Hub counts GETs of manifests and nothing else.
        upstream
            .head_manifest(&Hops::none(), &name("a"), &tag())
            .await
            .unwrap();
        assert_eq!(blob(&upstream).await.unwrap(), "{}");
    }
}

#[tokio::test]
async fn few_requests_at_once() {
    let server = Server::start(|_| {
        let mut steps = vec![Step::Wait(Duration::from_millis(20))];
        steps.extend(reply("200 OK", &[], "{}"));
        steps
    })
    .await;
    let upstream = client(&server.url(""), |config| config.concurrent = 3);
    let names: Vec<String> = (0..30).map(|n| format!("image{n}")).collect();
    let all = join_all(names.iter().map(|name| manifest_of(&upstream, name))).await;
    assert!(all.iter().all(Result::is_ok));
    assert!(server.connections() <= 3, "{}", server.connections());
}

#[tokio::test]
async fn transfers_do_not_starve_names() {
    let server = Server::start(|seen| {
        if seen.target.contains("blobs") {
            vec![
                Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx".into()),
                Step::Hang,
            ]
        } else {
            reply("200 OK", &[], "{}")
        }
    })
    .await;
    let upstream = client(&server.url(""), |config| config.concurrent = 4);
    let (hops, image, digest) = (Hops::none(), name("a/b"), digest());
    let open = || upstream.get_blob(&hops, &image, &digest, Span::Whole);
    let streams = [
        open().await.unwrap(),
        open().await.unwrap(),
        open().await.unwrap(),
    ];
    // The fourth transfer waits; names and manifests do not.
    let fourth = tokio::time::timeout(Duration::from_millis(100), open()).await;
    assert!(fourth.is_err());
    assert_eq!(manifest(&upstream).await.unwrap(), "{}");
    drop(streams);
    open().await.unwrap();
}

#[tokio::test]
async fn quotas_are_noted() {
    let server = Server::start(|_| {
        reply(
            "200 OK",
            &[
                ("ratelimit-limit", "100;w=21600"),
                ("ratelimit-remaining", "76;w=21600"),
                ("docker-ratelimit-source", "192.0.2.1"),
            ],
            "{}",
        )
    })
    .await;
    let metrics = Arc::new(Metrics::new());
    let mut config = Config::new("hub", server.url("").parse().unwrap(), "me");
    config.timeouts = PATIENT;
    let upstream = Upstream::new(config, &Tasks::new(), Arc::clone(&metrics)).unwrap();
    assert_eq!(upstream.quotas()[0].quota, None);
    upstream
        .head_manifest(&Hops::none(), &name("a"), &tag())
        .await
        .unwrap();
    assert_eq!(blob(&upstream).await.unwrap(), "{}");
    let told = upstream.quotas().remove(0);
    assert_eq!(
        (told.credential.as_str(), told.is_current),
        ("anonymous", true)
    );
    let quota = told.quota.unwrap();
    assert_eq!((quota.limit, quota.remaining), (100, 76));
    let text = metrics.render();
    for line in [
        "roadstead_upstream_quota_remaining{repository=\"hub\",credential=\"anonymous\"} 76",
        "roadstead_upstream_requests_total{repository=\"hub\",kind=\"manifest\",outcome=\"200\"} 1",
        "roadstead_upstream_bytes_total{repository=\"hub\"} 2",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
