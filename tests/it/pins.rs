//! Pinned images: whole, here to stay, refused where they do not fit.

use std::process::{Command, Output};

use http::{Method, StatusCode};
use serde_json::Value;

use crate::support::image::{self, Flavour, Image};
use crate::support::{Client, Mirror, Remote, Upstream};

const MIB: usize = 1 << 20;
const SMALL: &str = "[storage]\nmax_size = \"8MiB\"\nmin_free = \"1MiB\"\n";

fn run(mirror: &Mirror, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(arguments)
        .arg("-c")
        .arg(mirror.configuration())
        .arg("--data")
        .arg(mirror.data())
        .output()
        .unwrap()
}

/// What a command prints that goes well.
fn said(mirror: &Mirror, arguments: &[&str]) -> String {
    let output = run(mirror, arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command complains of that does not.
fn complaint(mirror: &Mirror, arguments: &[&str]) -> String {
    let output = run(mirror, arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn pins(mirror: &Mirror) -> Vec<Value> {
    let told: Value = serde_json::from_str(&said(mirror, &["pins", "--json"])).unwrap();
    told["pins"].as_array().unwrap().clone()
}

fn size(image: &Image) -> u64 {
    let all = image.manifests.iter().chain(&image.blobs);
    let mut seen = std::collections::HashSet::new();
    let once = all.filter(|one| seen.insert(&one.digest));
    once.map(image::Content::size).sum()
}

async fn assert_pulls(client: &Client, name: &str, tag: &str, image: &Image) {
    let answer = client.manifest(name, tag).await;
    assert!(answer.is(&image.root.bytes), "{tag}: {:?}", answer.status);
    for manifest in &image.manifests {
        let answer = client.manifest(name, &manifest.digest).await;
        assert!(answer.is(&manifest.bytes), "{}", manifest.digest);
    }
    for blob in &image.blobs {
        let answer = client.blob(name, &blob.digest).await;
        assert!(answer.is(&blob.bytes), "{}", blob.digest);
    }
}

/// Pulls more than the cache holds.
async fn press(upstream: &Upstream, client: &Client) {
    for seed in 500..516 {
        let blob = image::blob(seed, MIB);
        upstream.hold_blob(&blob);
        let answer = client.blob("library/other", &blob.digest).await;
        assert!(answer.is(&blob.bytes));
    }
}

fn lose_the_index(mirror: &Mirror) {
    for name in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        drop(std::fs::remove_file(mirror.data().join(name)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_outlives_pressure_crash_outage_and_the_index() {
    let mut upstream = Upstream::start().await;
    let nginx = image::multi_platform(Flavour::Oci, 1, MIB / 2);
    upstream.hold("library/nginx", "1", &nginx);
    let mut mirror = Mirror::with(&[Remote::hub(&upstream.url())], SMALL).await;
    let printed = said(&mirror, &["pin", "docker.io/nginx:1"]);
    let bytes = size(&nginx);
    assert!(
        printed.starts_with("docker-hub/library/nginx:1\t"),
        "{printed}"
    );
    assert!(printed.contains(nginx.digest()) && printed.contains(&format!("{bytes} bytes")));
    assert_eq!(mirror.metric("roadstead_kept_bytes"), bytes as f64);
    press(&upstream, &mirror.client()).await;
    assert!(mirror.metric("roadstead_evictions_total") > 0.0);
    let asked = upstream.log().len();
    assert_pulls(&mirror.client(), "library/nginx", "1", &nginx).await;
    assert_eq!(
        upstream.log().len(),
        asked,
        "nothing of it was fetched again"
    );

    upstream.stop().await;
    mirror.kill();
    mirror.start().await;
    assert_pulls(&mirror.client(), "library/nginx", "1", &nginx).await;
    mirror.kill();
    lose_the_index(&mirror);
    mirror.start().await;
    assert_pulls(&mirror.client(), "library/nginx", "1", &nginx).await;
    let [pin] = &pins(&mirror)[..] else {
        panic!("one is pinned");
    };
    assert_eq!(
        (
            pin["repository"].as_str(),
            pin["image"].as_str(),
            pin["reference"].as_str()
        ),
        (Some("docker-hub"), Some("library/nginx"), Some("1"))
    );
    assert_eq!(
        (pin["bytes"].as_u64(), pin["missing"].as_u64()),
        (Some(bytes), Some(0))
    );
    assert_eq!(
        (pin["digest"].as_str(), pin["frozen"].as_bool()),
        (Some(nginx.digest()), Some(false))
    );

    upstream.restart().await;
    upstream.hold("library/nginx", "1", &nginx);
    assert_eq!(
        said(&mirror, &["unpin", "docker.io/nginx:1"]),
        "docker.io/nginx:1 is not pinned any more\n"
    );
    assert!(pins(&mirror).is_empty());
    assert_eq!(mirror.metric("roadstead_kept_bytes"), 0.0);
    press(&upstream, &mirror.client()).await;
    let here = |digest: &str| {
        let name = image::plain_hex(digest).to_owned();
        mirror
            .files("blobs")
            .iter()
            .any(|file| file.ends_with(&name))
    };
    for layer in nginx.layers() {
        assert!(!here(&layer.digest), "it may go again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_before_a_blob_is_asked_for() {
    let upstream = Upstream::start().await;
    let huge = image::multi_platform(Flavour::Oci, 1, 5 * MIB);
    let small = image::multi_platform(Flavour::Oci, 2, MIB / 2);
    upstream.hold("library/huge", "1", &huge);
    upstream.hold("library/small", "1", &small);
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], SMALL).await;
    let words = complaint(&mirror, &["pin", "docker.io/huge:1"]);
    let need = size(&huge).to_string();
    for word in [&need, &(8 * MIB).to_string(), "storage.max_size"] {
        assert!(words.contains(word), "{word}: {words}");
    }
    for blob in &huge.blobs {
        assert_eq!(upstream.count("GET", &blob.digest), 0);
    }
    // What fails for one is said, and the others are done.
    let words = complaint(&mirror, &["pin", "docker.io/huge:1", "docker.io/small:1"]);
    assert!(words.contains("docker.io/huge:1"), "{words}");
    let names: Vec<_> = pins(&mirror)
        .iter()
        .map(|pin| pin["image"].clone())
        .collect();
    assert_eq!(names, ["library/small"]);
    // One platform of it would fit.
    let printed = said(
        &mirror,
        &["pin", "--platform", "linux/amd64", "docker.io/huge:1"],
    );
    assert!(printed.contains("docker-hub/library/huge:1"), "{printed}");
    let target = "/admin/pins?image=docker.io/huge:1";
    let answer = mirror.client().send(Method::PUT, target, &[]).await;
    assert_eq!(answer.status, StatusCode::INSUFFICIENT_STORAGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_tag_is_kept_and_let_go_with_its_image() {
    let upstream = Upstream::start().await;
    let (old, new) = (image::small(Flavour::Oci, 1), image::small(Flavour::Oci, 2));
    upstream.hold("library/nginx", "1", &old);
    let mirror = Mirror::of(&upstream.url()).await;
    let client = mirror.client();
    let printed = said(&mirror, &["pin", "--freeze", "docker.io/nginx:1"]);
    assert!(printed.trim_end().ends_with("\tfrozen"), "{printed}");
    upstream.hold("library/nginx", "1", &new);
    assert_pulls(&client, "library/nginx", "1", &old).await;
    assert!(pins(&mirror)[0]["frozen"].as_bool().unwrap());
    // Without --freeze a tag goes on, and what was pinned by it stays.
    said(&mirror, &["unpin", "docker.io/nginx:1"]);
    assert!(pins(&mirror).is_empty());
    assert_pulls(&client, "library/nginx", "1", &new).await;
    said(&mirror, &["pin", "docker.io/nginx:1"]);
    upstream.hold("library/nginx", "1", &old);
    assert_pulls(&client, "library/nginx", "1", &old).await;
    assert_eq!(pins(&mirror)[0]["digest"], new.digest());
    let by_digest = format!("docker.io/nginx@{}", old.digest());
    let words = complaint(&mirror, &["pin", "--freeze", &by_digest]);
    assert!(words.contains("freeze a tag"), "{words}");
    let printed = said(&mirror, &["pin", &by_digest]);
    let named = format!("docker-hub/library/nginx@{}", old.digest());
    assert!(printed.starts_with(&named), "{printed}");
    assert_eq!(pins(&mirror).len(), 2);
    // As it is listed it is let go.
    said(&mirror, &["unpin", &named, "docker-hub/library/nginx:1"]);
    assert!(pins(&mirror).is_empty());
    // A tag that only `/admin/tags` froze is listed as well, and nothing of it is kept.
    let body = format!("{{\"digest\":\"{}\"}}", old.digest());
    let frozen = "/admin/tags/docker-hub/library/nginx/1";
    let answer = client
        .send_body(Method::PUT, frozen, &[], body.into())
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    let listed = pins(&mirror);
    assert_eq!((listed.len(), &listed[0]["bytes"]), (1, &Value::Null));
    said(&mirror, &["unpin", "docker.io/nginx:1"]);
    assert!(pins(&mirror).is_empty());
    let words = complaint(&mirror, &["unpin", "docker.io/nginx:1"]);
    assert!(words.contains("not pinned"), "{words}");
    let audit = client.get("/admin/audit").await.json();
    let events = audit["records"].as_array().unwrap().iter();
    let actions: Vec<_> = events.map(|one| one["event"]["action"].clone()).collect();
    assert_eq!(&actions[..4], ["keep", "pin", "unkeep", "unpin"], "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_repository_pins_in_the_member_that_answers() {
    let upstream = Upstream::start().await;
    let nginx = image::small(Flavour::Docker, 1);
    upstream.hold("library/nginx", "1", &nginx);
    let more = "[mirror]\ndefault = \"all\"\n[local.dev-local]\n[virtual.all]\nmembers = [\"dev-local\", \"docker-hub\"]\ndeploy_to = \"dev-local\"\nserves = [\"docker.io\"]\n";
    let remote = Remote {
        serves: "hub.example",
        ..Remote::hub(&upstream.url())
    };
    let mut mirror = Mirror::with(&[remote], more).await;
    let client = mirror.client();
    said(&mirror, &["pin", "nginx:1"]);
    assert_eq!(pins(&mirror)[0]["repository"], "docker-hub");
    let pushed = image::small(Flavour::Oci, 2);
    client.push("all/team/app", "1", &pushed).await;
    for name in ["team/app:1", "dev-local/team/app:1"] {
        let words = complaint(&mirror, &["pin", name]);
        assert!(
            words.contains("`dev-local` is a local repository"),
            "{words}"
        );
    }
    for (target, status) in [
        ("/admin/pins", StatusCode::BAD_REQUEST),
        ("/admin/pins?image=nginx:nothing", StatusCode::NOT_FOUND),
        (
            "/admin/pins?image=nginx:1&freeze=perhaps",
            StatusCode::BAD_REQUEST,
        ),
        (
            "/admin/pins?image=nginx:1&platform=x",
            StatusCode::BAD_REQUEST,
        ),
        (
            "/admin/pins?image=nowhere.example/a:1",
            StatusCode::NOT_FOUND,
        ),
    ] {
        let answer = client.send(Method::PUT, target, &[]).await;
        assert_eq!(answer.status, status, "{target}");
    }
    // No mirror runs: the command is one for as long as it takes.
    mirror.terminate();
    assert_eq!(pins(&mirror).len(), 1);
    said(&mirror, &["unpin", "nginx:1"]);
    said(&mirror, &["pin", "nginx:1"]);
    assert_eq!(pins(&mirror).len(), 1);
    mirror.start().await;
    // Whoever deletes the image deletes what was kept of it, for good.
    let client = mirror.client();
    let path = "/artifactory/docker-hub/library/nginx";
    let answer = client.send(Method::DELETE, path, &[]).await;
    assert!(answer.status.is_success(), "{:?}", answer.status);
    assert!(pins(&mirror).is_empty());
    mirror.kill();
    lose_the_index(&mirror);
    mirror.start().await;
    assert!(pins(&mirror).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_upstream_has_none_of_it_and_what_is_left_can_be_let_go() {
    let (one, mut other) = (Upstream::start().await, Upstream::start().await);
    let nginx = image::small(Flavour::Oci, 1);
    one.hold("library/nginx", "1", &nginx);
    let mut mirror = Mirror::with(&[Remote::hub(&one.url())], "").await;
    said(&mirror, &["pin", "docker.io/nginx:1"]);
    let text = std::fs::read_to_string(mirror.configuration()).unwrap();
    // Its repository is taken out of the file: nobody pulls it, and it is not thrown away for a slip of the pen.
    let without = text.replace("remote.docker-hub", "remote.quay-io");
    std::fs::write(mirror.configuration(), without).unwrap();
    mirror.restart().await;
    assert_eq!(pins(&mirror)[0]["repository"], "docker-hub");
    std::fs::write(mirror.configuration(), &text).unwrap();
    mirror.restart().await;
    assert_pulls(&mirror.client(), "library/nginx", "1", &nginx).await;
    let without = text.replace("remote.docker-hub", "remote.quay-io");
    std::fs::write(mirror.configuration(), without).unwrap();
    mirror.restart().await;
    let words = complaint(&mirror, &["unpin", "docker-hub/library/nginx:2"]);
    assert!(words.contains("docker-hub/library/nginx:2"), "{words}");
    said(&mirror, &["unpin", "docker-hub/library/nginx:1"]);
    assert!(pins(&mirror).is_empty());

    std::fs::write(mirror.configuration(), &text).unwrap();
    mirror.restart().await;
    said(&mirror, &["pin", "docker.io/nginx:1"]);
    mirror.kill();
    lose_the_index(&mirror);
    let moved = text.replace(&one.url(), &other.url());
    std::fs::write(mirror.configuration(), moved).unwrap();
    other.stop().await;
    mirror.start().await;
    assert!(pins(&mirror).is_empty());
    let client = mirror.client();
    let answer = client.manifest("library/nginx", "1").await;
    assert_ne!(answer.status, StatusCode::OK);
    let answer = client.blob("library/nginx", &nginx.blobs[0].digest).await;
    assert_ne!(answer.status, StatusCode::OK);
}
