//! Pull quotas: what is kept is never used, and nobody is refused what is cached (`limits.keep_quota`).

use std::collections::HashSet;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use http::StatusCode;
use serde_json::Value;

use crate::eventually;
use crate::support::image::{self, Flavour, sha256};
use crate::support::{Act, Answer, Client, Image, Mirror, Remote, Upstream};

const KEEP: u64 = 10;

async fn mirror(upstream: &Upstream, more: &str) -> Mirror {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("alice"), "s3cret-canary").unwrap();
    std::fs::write(dir.path().join("bob"), "s3cret-canary").unwrap();
    let data = dir.path().join("data");
    let more = format!(
        "tag_ttl = \"0s\"\nnegative_ttl = \"0s\"\nlimits = {{ keep_quota = {KEEP} }}\n{more}"
    );
    let remote = Remote::hub_with(&upstream.url(), &more);
    Mirror::in_directory(dir, data, &[remote], "").await
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let value = answer.headers.get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

fn good(answer: Answer) -> Result<Answer, Box<Answer>> {
    if answer.status == StatusCode::OK {
        Ok(answer)
    } else {
        Err(Box::new(answer))
    }
}

/// Pulls as docker does (HEAD by tag, the rest by digest), or as podman does (GET by tag); one platform of an index, and every blob.
async fn pull(client: Client, name: &str, as_docker: bool) -> Result<(), Box<Answer>> {
    let mut manifest = if as_docker {
        let head = good(client.head(&format!("/v2/{name}/manifests/latest")).await)?;
        let digest = header(&head, "docker-content-digest").to_owned();
        good(client.manifest(name, &digest).await)?
    } else {
        good(client.manifest(name, "latest").await)?
    };
    let value: Value = serde_json::from_slice(&manifest.body).unwrap();
    if let Some(child) = value["manifests"][0]["digest"].as_str() {
        manifest = good(client.manifest(name, child).await)?;
        assert_eq!(sha256(&manifest.body), child);
    }
    let value: Value = serde_json::from_slice(&manifest.body).unwrap();
    for layer in value["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        let blob = good(client.blob(name, digest).await)?;
        assert_eq!(sha256(&blob.body), digest);
    }
    Ok(())
}

/// Image `number` in its version; every tenth is an index, of which each pull costs two.
fn version(number: u64, version: u64) -> Image {
    let seed = number * 1000 + version;
    if number.is_multiple_of(10) {
        let platforms = [seed, seed + 500].map(|seed| image::small(Flavour::Docker, seed));
        image::index(Flavour::Docker, &platforms)
    } else {
        image::small(Flavour::Docker, seed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pulls_of_fifty_images_by_twenty_clients_leave_what_is_kept() {
    let upstream = Arc::new(Upstream::start().await);
    upstream.grant(100);
    for number in 0..50 {
        upstream.hold(&format!("a/b{number}"), "latest", &version(number, 0));
    }
    let mirror = mirror(&upstream, "").await;
    let (client, url) = (mirror.client(), mirror.url());
    let cached: Arc<Mutex<HashSet<u64>>> = Arc::default();
    let turn = Arc::new(AtomicU64::new(0));
    let clients = (0..20).map(|_| {
        let (upstream, cached, turn) = (
            Arc::clone(&upstream),
            Arc::clone(&cached),
            Arc::clone(&turn),
        );
        let url = url.clone();
        tokio::spawn(async move {
            loop {
                let turn = turn.fetch_add(1, Ordering::SeqCst);
                if turn >= 1000 {
                    return;
                }
                // All of them in turn, then here and there; tags move all the time.
                let number = if turn < 50 { turn } else { turn * 37 % 50 };
                let name = format!("a/b{number}");
                if turn % 5 == 4 {
                    upstream.hold(&name, "latest", &version(number, turn));
                }
                let was_cached = cached.lock().unwrap().contains(&number);
                match pull(client, &name, turn % 2 == 0).await {
                    Ok(()) => drop(cached.lock().unwrap().insert(number)),
                    Err(answer) => {
                        assert!(!was_cached, "{url}: {name} at {turn}: {answer:?}");
                        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
                    }
                }
            }
        })
    });
    for client in join_all(clients).await {
        client.unwrap();
    }
    let used = upstream.used("anonymous");
    assert!(used <= 100 - KEEP, "{used} of 100 were used");
    // What may be used is, but for a move that would cost more than there is.
    assert!(used >= 100 - KEEP - 2, "{used} of 100 were used");
    assert!(cached.lock().unwrap().len() >= 40);
    assert_eq!(upstream.count("GET", "/manifests/"), used as usize);
    let left =
        "roadstead_upstream_quota_remaining{repository=\"docker-hub\",credential=\"anonymous\"}";
    assert_eq!(mirror.metric(left), (100 - used) as f64);
}

#[tokio::test]
async fn what_is_kept_is_used_neither_for_tags_that_move_nor_for_what_is_new() {
    let upstream = Upstream::start().await;
    upstream.grant(100);
    let (old, new) = (version(1, 0), version(1, 1));
    upstream.hold("a/b", "latest", &old);
    upstream.hold("a/new", "latest", &version(2, 0));
    let mirror = mirror(&upstream, "").await;
    let client = mirror.client();
    assert!(client.manifest("a/b", "latest").await.is(&old.root.bytes));
    upstream.use_pulls("anonymous", 100 - KEEP - 1);
    upstream.hold("a/b", "latest", &new);
    let (pulls, heads) = (
        upstream.count("GET", "/manifests/"),
        upstream.count("HEAD", "/manifests/"),
    );
    for _ in 0..3 {
        let answer = client.manifest("a/b", "latest").await;
        assert!(
            answer.is(&old.root.bytes),
            "{answer:?} {:?}",
            upstream.log()
        );
        let status = header(&answer, "cache-status");
        assert!(status.contains("fwd=stale") && status.contains("detail=quota-kept"));
        assert!(header(&answer, "warning").contains("quota"));
        // Nobody is told of what may not be fetched.
        let head = client.head("/v2/a/b/manifests/latest").await;
        assert_eq!(header(&head, "docker-content-digest"), old.digest());
    }
    assert_eq!(upstream.count("GET", "/manifests/"), pulls);
    assert!(
        upstream.count("HEAD", "/manifests/") > heads,
        "HEAD is free"
    );
    let answer = client.manifest("a/new", "latest").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let text = String::from_utf8_lossy(&answer.body);
    assert!(text.contains("TOOMANYREQUESTS") && text.contains("limits.keep_quota"));
    let wait: u64 = header(&answer, "retry-after").parse().unwrap();
    assert!((21_000..=21_600).contains(&wait), "{wait}");
    assert_eq!(upstream.used("anonymous"), 100 - KEEP);
    // What is left grows again, and a question that is free finds out.
    upstream.grant(150);
    assert!(client.manifest("a/b", "latest").await.is(&new.root.bytes));
    assert_eq!(
        client.manifest("a/new", "latest").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn pulls_at_the_same_time_do_not_use_the_same_pull() {
    for round in 0..5 {
        let upstream = Upstream::start().await;
        upstream.grant(100);
        // Nothing is known of it yet.
        upstream.use_pulls("anonymous", 100 - KEEP - 3);
        let names: Vec<String> = (0..20).map(|number| format!("a/b{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            upstream.hold(name, "latest", &version(number as u64 + 1, 0));
        }
        let mirror = mirror(&upstream, "").await;
        let client = mirror.client();
        let pulls = names.iter().map(|name| client.manifest(name, "latest"));
        let answers = join_all(pulls).await;
        let good = answers
            .iter()
            .filter(|answer| answer.status == StatusCode::OK);
        assert_eq!(good.count(), 3, "round {round}");
        assert_eq!(upstream.used("anonymous"), 100 - KEEP);
        assert_eq!(upstream.count("HEAD", ""), 1, "one learns for all");
    }
}

#[tokio::test]
async fn a_client_that_was_told_of_a_digest_gets_it() {
    let upstream = Upstream::start().await;
    upstream.grant(100);
    let (old, new) = (version(0, 0), version(0, 1));
    upstream.hold("a/b", "latest", &old);
    upstream.hold("a/c", "latest", &version(1, 0));
    let mirror = mirror(&upstream, "").await;
    let client = mirror.client();
    pull(client, "a/b", true).await.unwrap();
    // Room for the new index and one child.
    upstream.use_pulls("anonymous", 100 - KEEP - 4);
    upstream.hold("a/b", "latest", &new);
    let head = client.head("/v2/a/b/manifests/latest").await;
    assert_eq!(header(&head, "docker-content-digest"), new.digest());
    // Another one comes first, for something else.
    let other = client.manifest("a/c", "latest").await;
    assert_eq!(other.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        client
            .manifest("a/b", new.digest())
            .await
            .is(&new.root.bytes)
    );
    let other = client.manifest("a/c", "latest").await;
    assert_eq!(other.status, StatusCode::TOO_MANY_REQUESTS);
    let child = new.child(0);
    assert!(client.manifest("a/b", &child.digest).await.is(&child.bytes));
    assert_eq!(upstream.used("anonymous"), 100 - KEEP);
}

#[tokio::test]
async fn of_a_pool_the_one_with_most_left_pays() {
    let upstream = Upstream::start().await;
    upstream.want_token(Some("nobody:x"), None);
    upstream.take_login("alice:s3cret-canary");
    upstream.take_login("bob:s3cret-canary");
    upstream.grant(100);
    upstream.use_pulls("alice", 60);
    for number in 1..10 {
        upstream.hold(&format!("a/b{number}"), "latest", &version(number, 0));
    }
    let pool = "credentials = [{ username = \"alice\", password_file = \"alice\" }, { username = \"bob\", password_file = \"bob\" }]";
    let mirror = mirror(&upstream, pool).await;
    let client = mirror.client();
    for number in 1..6 {
        client.manifest(&format!("a/b{number}"), "latest").await;
    }
    // The first shows what alice has; bob, of whom nothing is known, counts as full.
    assert!(upstream.used("alice") <= 61);
    assert!(upstream.used("bob") >= 4);
    // bob is told to wait: alice pays meanwhile.
    let slow = Act {
        headers: vec![("Retry-After".to_owned(), "600".to_owned())],
        ..Act::status(429)
    };
    upstream.script("GET", "/a/b6/manifests/", 1, slow.clone());
    let (alice, bob) = (upstream.used("alice"), upstream.used("bob"));
    for number in 6..8 {
        let answer = client.manifest(&format!("a/b{number}"), "latest").await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert_eq!(
        (upstream.used("alice"), upstream.used("bob")),
        (alice + 2, bob)
    );
    // alice has no more than is kept, and bob is waited for.
    upstream.use_pulls("alice", 100 - KEEP - upstream.used("alice"));
    upstream.script("HEAD", "/a/b1/manifests/", 1, slow);
    client.head("/v2/a/b1/manifests/latest").await;
    let answer = client.manifest("a/b8", "latest").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    for user in ["alice", "bob"] {
        let left = format!(
            "roadstead_upstream_quota_remaining{{repository=\"docker-hub\",credential=\"{user}\"}}"
        );
        assert!(mirror.metric(&left) >= KEEP as f64, "{user}");
        assert!(upstream.used(user) <= 100 - KEEP, "{user}");
    }
    assert!(
        !mirror
            .log()
            .iter()
            .any(|line| line.contains("s3cret-canary"))
    );
}

fn quota(mirror: &Mirror, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .arg("quota")
        .arg("-c")
        .arg(mirror.configuration())
        .arg("--data")
        .arg(mirror.data())
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_restart_forgets_no_quota_and_the_command_shows_it() {
    let upstream = Upstream::start().await;
    upstream.grant(100);
    upstream.hold("a/b", "latest", &version(1, 0));
    upstream.hold("a/c", "latest", &version(2, 0));
    let mut mirror = mirror(&upstream, "").await;
    assert!(quota(&mirror, &[]).contains("docker-hub\t-\tnothing told yet\t10 kept"));
    upstream.use_pulls("anonymous", 89);
    let answer = mirror.client().manifest("a/b", "latest").await;
    assert_eq!(answer.status, StatusCode::OK);
    let shown = mirror.client().get("/admin/quota").await;
    let live: Value = serde_json::from_slice(&shown.body).unwrap();
    let line = &live["quotas"][0];
    for (key, value) in [
        ("limit", 100),
        ("remaining", 10),
        ("window_seconds", 21_600),
    ] {
        assert_eq!(line[key], value, "{line}");
    }
    assert_eq!(
        (&line["credential"], &line["keep_quota"]),
        (&"anonymous".into(), &KEEP.into())
    );
    // It is written behind, and read while the mirror runs.
    eventually!(
        serde_json::from_str::<Value>(&quota(&mirror, &["--json"])).unwrap()["quotas"]
            == live["quotas"]
    );
    mirror.terminate();
    assert!(
        quota(&mirror, &[]).contains("docker-hub\tanonymous\t10 of 100 left in 21600 s\t10 kept")
    );
    mirror.start().await;
    // To look at it does not make the stop an unclean one.
    let log = mirror.log();
    let opened = log.iter().rfind(|line| line.contains("store opened"));
    assert!(opened.unwrap().contains("\"clean\":true"));
    let pulls = upstream.count("GET", "/manifests/");
    // What is left cannot be learnt anew; what was known still counts.
    upstream.script("HEAD", "/manifests/", 9, Act::status(500));
    let answer = mirror.client().manifest("a/c", "latest").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(upstream.count("GET", "/manifests/"), pulls);
    assert_eq!(upstream.used("anonymous"), 90);
}

#[tokio::test]
async fn too_many_requests_serve_what_is_here_and_hold_for_as_long_as_they_say() {
    let upstream = Upstream::start().await;
    let old = version(0, 0);
    upstream.hold("a/b", "latest", &old);
    let mirror = Mirror::of(&upstream.url()).await;
    let client = mirror.client();
    pull(client, "a/b", true).await.unwrap();
    upstream.hold("a/b", "latest", &version(0, 1));
    let slow = Act {
        headers: vec![("Retry-After".to_owned(), "600".to_owned())],
        ..Act::status(429)
    };
    upstream.script("", "/v2/", 1000, slow);
    let before = upstream.log().len();
    for _ in 0..5 {
        for as_docker in [true, false] {
            pull(client, "a/b", as_docker).await.unwrap();
        }
        let answer = client.manifest("a/b", "latest").await;
        assert!(answer.is(&old.root.bytes));
        assert!(header(&answer, "cache-status").contains("fwd=stale"));
    }
    // One HEAD was told to wait, and none was sent after it.
    assert_eq!(upstream.log().len(), before + 1);
    for _ in 0..3 {
        let cold = client.manifest("a/cold", "latest").await;
        assert_eq!(cold.status, StatusCode::TOO_MANY_REQUESTS);
        let wait: u64 = header(&cold, "retry-after").parse().unwrap();
        assert!((500..=600).contains(&wait), "{wait}");
        let blob = client.blob("a/b", &sha256(b"nothing")).await;
        assert_eq!(blob.status, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(upstream.log().len(), before + 3);
}
