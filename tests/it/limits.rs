//! How fast an upstream is asked and read: `limits.requests_per_second`, `limits.bandwidth`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;

use crate::support::image::{self, Content, Flavour};
use crate::support::{Mirror, Remote, Upstream};

const WAITED: &str = "roadstead_upstream_waited_seconds_total";

async fn mirror(upstream: &Upstream, limits: &str) -> Mirror {
    let more = format!("limits = {{ {limits} }}");
    Mirror::with(&[Remote::hub_with(&upstream.url(), &more)], "").await
}

async fn images(upstream: &Upstream, count: u64) -> Vec<String> {
    let hold = |seed| {
        let name = format!("a/b{seed}");
        upstream.hold(&name, "1", &image::small(Flavour::Oci, seed));
        name
    };
    (0..count).map(hold).collect()
}

#[tokio::test]
async fn requests_are_spread_over_the_second() {
    let upstream = Upstream::start().await;
    let names = images(&upstream, 30).await;
    let mirror = mirror(&upstream, "requests_per_second = 10").await;
    let client = mirror.client();
    let start = Instant::now();
    let answers = join_all(names.iter().map(|name| client.manifest(name, "1"))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    // 30 at 10 a second; the first goes at once.
    assert!(start.elapsed() > Duration::from_secs(2), "{start:?}");
    assert_eq!(upstream.count("GET", "/manifests/"), 30);
    let turn = format!("{WAITED}{{repository=\"docker-hub\",reason=\"turn\"}}");
    assert!(mirror.metric(&turn) > 1.0);
    // What is here is not asked for, and waits for nothing.
    let start = Instant::now();
    let answers = join_all(names.iter().map(|name| client.manifest(name, "1"))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(upstream.count("", "/manifests/"), 30);
}

#[tokio::test]
async fn whoever_would_wait_too_long_is_told_to_come_back() {
    let upstream = Upstream::start().await;
    let names = images(&upstream, 20).await;
    let mirror = mirror(&upstream, "requests_per_second = 1, concurrent = 32").await;
    let client = mirror.client();
    let answers = join_all(names.iter().map(|name| client.manifest(name, "1"))).await;
    let (good, late): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|answer| answer.status == StatusCode::OK);
    assert!(good.len() >= 5 && late.len() >= 5, "{}", good.len());
    for answer in late {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers.contains_key("retry-after"));
        let text = String::from_utf8_lossy(&answer.body);
        assert!(text.contains("limits.requests_per_second"), "{text}");
    }
    // Nothing is sent for those who were turned away, and upstream has no part in it.
    assert_eq!(upstream.count("", "/manifests/"), good.len());
    assert!(client.manifest(&names[0], "1").await.status.is_success());
}

#[tokio::test]
async fn transfers_share_the_bandwidth() {
    let upstream = Upstream::start().await;
    let blobs: Vec<Content> = (1..=3)
        .map(|seed| Content::new("application/octet-stream", image::noise(seed, 1 << 20)))
        .collect();
    for blob in &blobs {
        upstream.hold_blob(blob);
    }
    // Each waits for the others for longer than the second after which a silent upstream would be given up.
    let mirror = mirror(&upstream, "bandwidth = \"1MiB/s\"").await;
    let client = mirror.client();
    let start = Instant::now();
    let pull = |blob: &Content| {
        let blob = blob.clone();
        async move {
            assert!(client.blob("a/b", &blob.digest).await.is(&blob.bytes));
            start.elapsed()
        }
    };
    let ends = join_all(blobs.iter().map(pull)).await;
    let (first, last) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
    assert!(*last > Duration::from_secs(2), "{ends:?}");
    assert!(first.as_secs_f64() > last.as_secs_f64() / 2.0, "{ends:?}");
    // None was taken for stalled, cut and asked for again.
    assert_eq!(upstream.count("GET", "/blobs/"), 3);
    let waited = format!("{WAITED}{{repository=\"docker-hub\",reason=\"bandwidth\"}}");
    assert!(mirror.metric(&waited) > 2.0);
    let paced = "roadstead_upstream_paced_bytes_total{repository=\"docker-hub\"}";
    assert!(mirror.metric(paced) > 1e6);
}
