//! How much clients may ask of the mirror (`[limits]`), and that nobody takes what is others'.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, StatusCode};

use crate::eventually;
use crate::support::image::{self, Content, Flavour};
use crate::support::{Act, Answer, Client, Gate, Mirror, Open, Remote, Upstream};

/// Who is behind the proxy that tests are.
const PROXY: &str = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n";

async fn mirror(upstream: &Upstream, limits: &str) -> Mirror {
    let more = format!("{PROXY}[limits]\n{limits}");
    let remote = Remote {
        key: "docker-hub",
        url: upstream.url(),
        serves: "docker.io",
        more: "limits = { concurrent = 64 }\n".to_owned(),
    };
    Mirror::with(&[remote], &more).await
}

impl Client {
    async fn from(&self, client: &str, path: &str) -> Answer {
        let headers = [("x-forwarded-for", client), ("accept", "*/*")];
        self.send(Method::GET, path, &headers).await
    }

    async fn open_from(&self, client: &str, path: &str) -> Result<Open, String> {
        let headers = [("x-forwarded-for", client)];
        self.try_open(Method::GET, path, &headers, Bytes::new())
            .await
    }
}

fn is_limited(answer: &Answer) -> bool {
    if answer.status != StatusCode::TOO_MANY_REQUESTS {
        return false;
    }
    assert_eq!(answer.code(), "TOOMANYREQUESTS");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(wait >= 1);
    true
}

#[tokio::test]
async fn over_its_rate_a_client_is_told_to_come_back() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    let mirror = mirror(
        &upstream,
        "manifest = { requests_per_second = 0.01, burst = 3 }\nper_client = { requests_per_second = 0.01, burst = 6 }",
    )
    .await;
    let client = mirror.client();
    let (manifest, blob) = (
        "/v2/a/b/manifests/1",
        format!("/v2/a/b/blobs/{}", image.child(0).digest),
    );
    for _ in 0..3 {
        let answer = client.from("192.0.2.1", manifest).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert!(is_limited(&client.from("192.0.2.1", manifest).await));
    // Another kind of request has a count of its own, under that of them all: the refused manifest counted as well.
    for _ in 0..2 {
        let answer = client.from("192.0.2.1", &blob).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert!(is_limited(&client.from("192.0.2.1", &blob).await));
    assert_eq!(
        client.from("192.0.2.1", "/readyz").await.status,
        StatusCode::OK
    );
    // Everybody else goes on; a /64 is one client.
    assert_eq!(
        client.from("192.0.2.2", manifest).await.status,
        StatusCode::OK
    );
    for host in 1..4 {
        let answer = client.from(&format!("2001:db8::{host}"), manifest).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert!(is_limited(&client.from("2001:db8::9", manifest).await));
    let limited = |limit| {
        mirror.metric(&format!(
            "roadstead_limited_requests_total{{limit=\"{limit}\"}}"
        ))
    };
    assert!((limited("limits.manifest") - 2.0).abs() < 0.1);
    assert!((limited("limits.per_client.requests_per_second") - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn over_its_number_at_a_time_a_client_waits() {
    let upstream = Upstream::start().await;
    let blobs: Vec<Content> = (0..4)
        .map(|seed| image::blob(seed, 1024 * 1024 + 7))
        .collect();
    let gate = Gate::closed();
    for blob in &blobs {
        upstream.hold_blob(blob);
        let act = Act {
            gate: Some((256 * 1024, gate.clone())),
            ..Act::default()
        };
        upstream.script("GET", &blob.digest, 1, act);
    }
    let mut mirror = mirror(&upstream, "per_client = { concurrent = 2 }").await;
    // The second leaves its download early.
    mirror.parts_may_stay = true;
    let client = mirror.client();
    let path = |blob: &Content| format!("/v2/a/b/blobs/{}", blob.digest);
    let first = client.open_from("192.0.2.1", &path(&blobs[0])).await;
    let second = client.open_from("192.0.2.1", &path(&blobs[1])).await;
    // The third is not even asked for, while somebody else's is.
    let third_path = path(&blobs[2]);
    let third = tokio::spawn(async move { client.open_from("192.0.2.1", &third_path).await });
    let other = client.open_from("192.0.2.2", &path(&blobs[3])).await;
    eventually!(upstream.count("GET", "/blobs/") == 3);
    assert_eq!(upstream.count("GET", &blobs[2].digest), 0);
    assert!(!third.is_finished());
    // Whoever leaves makes room.
    drop(second);
    let third = third.await.unwrap().unwrap();
    gate.open();
    first.unwrap().matches(&blobs[0].bytes).await.unwrap();
    third.matches(&blobs[2].bytes).await.unwrap();
    other.unwrap().matches(&blobs[3].bytes).await.unwrap();
}

#[tokio::test]
async fn whoever_waits_too_long_is_told_to_come_back() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 1024 * 1024);
    upstream.hold_blob(&blob);
    upstream.hold("a/b", "1", &image::small(Flavour::Oci, 1));
    let gate = Gate::closed();
    let act = Act {
        gate: Some((256 * 1024, gate.clone())),
        ..Act::default()
    };
    upstream.script("GET", &blob.digest, 1, act);
    let limits = "global = { concurrent = 2 }\nper_client = { concurrent = 1 }";
    let mirror = mirror(&upstream, limits).await;
    let client = mirror.client();
    let path = format!("/v2/a/b/blobs/{}", blob.digest);
    let first = client.open_from("192.0.2.1", &path).await.unwrap();
    // However many it opens, one client has one place, and the other is for the next.
    let more = tokio::spawn({
        let path = path.clone();
        async move { client.open_from("192.0.2.1", &path).await }
    });
    let other = client.open_from("192.0.2.2", &path).await.unwrap();
    assert!(is_limited(&client.from("192.0.2.3", "/v2/").await));
    gate.open();
    first.matches(&blob.bytes).await.unwrap();
    other.matches(&blob.bytes).await.unwrap();
    drop(more.await.unwrap());
    assert_eq!(
        client.from("192.0.2.3", "/v2/").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn logins_have_a_rate() {
    let upstream = Upstream::start().await;
    let more = format!(
        "{PROXY}[limits]\nlogin = {{ requests_per_second = 0.01, burst = 3 }}\n[auth]\n[[auth.allow]]\nwho = [\"anonymous\"]\non = [\"docker-hub\"]\nmay = [\"pull\"]\n"
    );
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], &more).await;
    let client = mirror.client();
    let login = format!("Basic {}", STANDARD.encode("somebody:guess"));
    let wrong = |from: &'static str| {
        let login = login.clone();
        async move {
            let headers = [("x-forwarded-for", from), ("authorization", login.as_str())];
            client.send(Method::GET, "/v2/", &headers).await
        }
    };
    let token = "/v2/token?service=roadstead&scope=repository:a/b:pull";
    assert_eq!(client.from("192.0.2.1", token).await.status, StatusCode::OK);
    for _ in 0..2 {
        assert_eq!(wrong("192.0.2.1").await.status, StatusCode::UNAUTHORIZED);
    }
    assert!(is_limited(&wrong("192.0.2.1").await));
    assert!(is_limited(&client.from("192.0.2.1", token).await));
    assert_eq!(client.from("192.0.2.2", token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn other_limits_come_with_a_hangup() {
    let upstream = Upstream::start().await;
    upstream.hold("a/b", "1", &image::small(Flavour::Oci, 1));
    let mirror = mirror(
        &upstream,
        "per_client = { requests_per_second = 0.01, burst = 1 }",
    )
    .await;
    let client = mirror.client();
    let path = "/v2/a/b/manifests/1";
    assert_eq!(client.from("192.0.2.1", path).await.status, StatusCode::OK);
    assert!(is_limited(&client.from("192.0.2.1", path).await));
    let file = mirror.configuration();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("burst = 1", "burst = 50")).unwrap();
    mirror.hang_up();
    eventually!(client.from("192.0.2.1", path).await.status == StatusCode::OK);
}

#[tokio::test]
async fn bytes_go_both_ways_at_their_pace() {
    let upstream = Upstream::start().await;
    let more = "[local.dev-local]\n[limits]\nper_client = { bandwidth = \"128KiB/s\" }\n";
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], more).await;
    let client = mirror.client();
    let blob = image::blob(1, 384 * 1024);
    // A slower machine only takes longer; 50 ms' worth is let through at once.
    let least = Duration::from_millis(2900);
    let start = Instant::now();
    let put = client.push_blob("dev-local/a", &blob).await;
    assert_eq!(put.status, StatusCode::CREATED);
    assert!(start.elapsed() > least, "{:?}", start.elapsed());
    let start = Instant::now();
    assert!(
        client
            .blob("dev-local/a", &blob.digest)
            .await
            .is(&blob.bytes)
    );
    assert!(start.elapsed() > least, "{:?}", start.elapsed());
}

/// Nineteen clients with one connection each, with or without one that has 64: how many answers each of the nineteen got.
async fn round(mirror: &Mirror, path: &str, greedy: bool) -> Vec<u64> {
    let client = mirror.client();
    let over = Arc::new(AtomicBool::new(false));
    let ask = |address: Ipv4Addr, count: Arc<AtomicU64>| {
        let (over, path) = (Arc::clone(&over), path.to_owned());
        tokio::spawn(async move {
            let address = address.to_string();
            while !over.load(Relaxed) {
                let answer = client.from(&address, &path).await;
                if answer.status == StatusCode::OK && answer.end.is_ok() {
                    count.fetch_add(1, Relaxed);
                }
            }
        })
    };
    let mut tasks = Vec::new();
    if greedy {
        let address = Ipv4Addr::new(192, 0, 2, 200);
        tasks.extend((0..64).map(|_| ask(address, Arc::default())));
    }
    let counts: Vec<Arc<AtomicU64>> = (0..19).map(|_| Arc::default()).collect();
    tasks.extend((1..).zip(&counts).map(|(host, count)| {
        let address = Ipv4Addr::new(192, 0, 2, host);
        ask(address, Arc::clone(count))
    }));
    // The limits alone decide how much that is: they are far below what any machine can do.
    tokio::time::sleep(Duration::from_secs(4)).await;
    over.store(true, Relaxed);
    join_all(tasks).await;
    counts.iter().map(|count| count.load(Relaxed)).collect()
}

async fn is_fair(limits: &str, path: &str) {
    let upstream = Upstream::start().await;
    upstream.hold("a/b", "1", &image::small(Flavour::Oci, 1));
    let blob = image::blob(1, 16 * 1024);
    upstream.hold_blob(&blob);
    let mirror = mirror(&upstream, limits).await;
    let path = path.replace("BLOB", &blob.digest);
    let first = mirror.client().from("192.0.2.99", &path).await;
    assert_eq!(first.status, StatusCode::OK);
    let alone = round(&mirror, &path, false).await;
    let beside = round(&mirror, &path, true).await;
    for (alone, beside) in alone.iter().zip(&beside) {
        assert!(*alone >= 10, "{alone}");
        assert!(*beside * 10 >= *alone * 6, "{beside} of {alone}");
    }
}

#[tokio::test]
async fn a_client_with_many_connections_takes_no_bandwidth_from_others() {
    is_fair("global = { bandwidth = \"2MiB/s\" }", "/v2/a/b/blobs/BLOB").await;
}

#[tokio::test]
async fn a_client_with_many_connections_takes_no_turns_from_others() {
    is_fair(
        "global = { requests_per_second = 120, burst = 10 }",
        "/v2/a/b/manifests/1",
    )
    .await;
}
