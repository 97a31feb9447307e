//! One fetch for many; whoever leaves takes nothing from the others; interrupted fills go on where they stopped.

use futures_util::future::join_all;

use crate::eventually;
use crate::support::image::{self, Flavour};
use crate::support::{Act, Gate, Mirror, Upstream};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_and_one_fetch() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 256 * MIB);
    upstream.hold_blob(&blob);
    let gate = Gate::closed();
    upstream.script(
        "GET",
        "/blobs/",
        1,
        Act {
            gate: Some((MIB, gate.clone())),
            ..Act::default()
        },
    );
    let mirror = Mirror::patient(&upstream.url()).await;
    let path = format!("/v2/a/b/blobs/{}", blob.digest);
    let client = mirror.client();
    let clients = join_all((0..200).map(|_| client.open(&path))).await;
    gate.open();
    let done = join_all(clients.into_iter().map(|open| open.matches(&blob.bytes))).await;
    assert!(
        done.iter().all(Result::is_ok),
        "{:?}",
        done.iter().find(|done| done.is_err())
    );
    assert_eq!(upstream.count("GET", "/blobs/"), 1);
    assert!(
        mirror.peak_memory() < 300 * MIB as u64,
        "{} bytes resident",
        mirror.peak_memory()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_blobs_by_twenty_clients_and_everything_else_coalesces() {
    let upstream = Upstream::start().await;
    let blobs: Vec<_> = (0..50).map(|seed| image::blob(seed, 100_000)).collect();
    blobs.iter().for_each(|blob| upstream.hold_blob(blob));
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    upstream.want_token(None, None);
    let mirror = Mirror::patient(&upstream.url()).await;
    let client = mirror.client();
    let pulls = blobs
        .iter()
        .flat_map(|blob| std::iter::repeat_n(blob, 20))
        .map(|blob| async move { client.blob("a/b", &blob.digest).await.is(&blob.bytes) });
    assert!(join_all(pulls).await.into_iter().all(|good| good));
    let granted = upstream
        .log()
        .iter()
        .filter(|seen| {
            seen.method == "GET"
                && seen.path.contains("/blobs/")
                && seen.header("authorization").is_some()
        })
        .count();
    assert_eq!(granted, 50);
    assert_eq!(
        upstream.count("GET", "/token"),
        1,
        "one token for all of one image"
    );
    let gate = Gate::closed();
    upstream.script(
        "GET",
        "/manifests/1",
        1,
        Act {
            gate: Some((10, gate.clone())),
            ..Act::default()
        },
    );
    let pulls = join_all((0..50).map(|_| client.manifest("a/b", "1")));
    let (answers, ()) = tokio::join!(pulls, async {
        eventually!(upstream.count("GET", "/manifests/1") == 1);
        gate.open();
    });
    assert!(answers.iter().all(|answer| answer.is(&image.root.bytes)));
    assert_eq!(upstream.count("GET", "/manifests/"), 1);
}

#[tokio::test]
async fn the_first_client_leaves_and_nineteen_finish() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 8 * MIB);
    upstream.hold_blob(&blob);
    let gate = Gate::closed();
    upstream.script(
        "GET",
        "/blobs/",
        1,
        Act {
            gate: Some((MIB, gate.clone())),
            ..Act::default()
        },
    );
    let mirror = Mirror::patient(&upstream.url()).await;
    let path = format!("/v2/a/b/blobs/{}", blob.digest);
    let client = mirror.client();
    let mut first = client.open(&path).await;
    let others = join_all((0..19).map(|_| client.open(&path))).await;
    assert_eq!(first.take(800_000).await, blob.bytes[..800_000]);
    drop(first);
    gate.open();
    for done in join_all(others.into_iter().map(|open| open.matches(&blob.bytes))).await {
        done.unwrap();
    }
    assert_eq!(upstream.count("GET", "/blobs/"), 1);
}

#[tokio::test]
async fn a_slow_client_slows_nobody() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 32 * MIB);
    upstream.hold_blob(&blob);
    let mirror = Mirror::patient(&upstream.url()).await;
    let path = format!("/v2/a/b/blobs/{}", blob.digest);
    let client = mirror.client();
    let mut slow = client.open(&path).await;
    slow.take(1000).await;
    // The slow one has had a thousand bytes, and everybody else is done.
    for done in
        join_all((0..5).map(|_| async { client.open(&path).await.matches(&blob.bytes).await }))
            .await
    {
        done.unwrap();
    }
    assert_eq!(upstream.count("GET", "/blobs/"), 1);
    assert_eq!(slow.finish().await.body.len(), 32 * MIB - 1000);
}

#[tokio::test]
async fn a_fill_that_everybody_left_is_kept_and_resumed() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 8 * MIB);
    upstream.hold_blob(&blob);
    let gate = Gate::closed();
    upstream.script(
        "GET",
        "/blobs/",
        1,
        Act {
            gate: Some((MIB, gate.clone())),
            ..Act::default()
        },
    );
    let mirror = Mirror::patient(&upstream.url()).await;
    let path = format!("/v2/a/b/blobs/{}", blob.digest);
    let mut only = mirror.client().open(&path).await;
    only.take(900_000).await;
    drop(only);
    eventually!(
        mirror
            .log()
            .iter()
            .any(|line| line.contains("\"bytes\":") && line.contains("\"complete\":false"))
    );
    eventually!(
        mirror
            .files("staging")
            .iter()
            .any(|part| part.metadata().unwrap().len() == MIB as u64)
    );
    assert!(
        mirror
            .client()
            .blob("a/b", &blob.digest)
            .await
            .is(&blob.bytes)
    );
    let ranges: Vec<String> = upstream
        .log()
        .iter()
        .filter_map(|seen| seen.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, ["bytes=1048576-"]);
}

#[tokio::test]
async fn past_its_first_quarter_a_fill_goes_on_without_anybody() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 4 * MIB);
    upstream.hold_blob(&blob);
    let gate = Gate::closed();
    upstream.script(
        "GET",
        "/blobs/",
        1,
        Act {
            gate: Some((2 * MIB, gate.clone())),
            ..Act::default()
        },
    );
    let mirror = Mirror::patient(&upstream.url()).await;
    let mut only = mirror
        .client()
        .open(&format!("/v2/a/b/blobs/{}", blob.digest))
        .await;
    only.take(MIB + MIB / 2).await;
    drop(only);
    eventually!(
        mirror
            .log()
            .iter()
            .any(|line| line.contains("\"complete\":false"))
    );
    gate.open();
    eventually!(mirror.files("blobs").len() == 1);
    assert!(
        mirror
            .client()
            .blob("a/b", &blob.digest)
            .await
            .is(&blob.bytes)
    );
    assert_eq!(upstream.count("GET", "/blobs/"), 1);
}

#[tokio::test]
async fn after_kill_9_in_mid_fill_it_resumes_by_range() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 8 * MIB);
    upstream.hold_blob(&blob);
    let gate = Gate::closed();
    upstream.script(
        "GET",
        "/blobs/",
        1,
        Act {
            gate: Some((3 * MIB, gate.clone())),
            ..Act::default()
        },
    );
    let mut mirror = Mirror::patient(&upstream.url()).await;
    let mut client = mirror
        .client()
        .open(&format!("/v2/a/b/blobs/{}", blob.digest))
        .await;
    client.take(3 * MIB).await;
    mirror.kill();
    assert!(
        client.finish().await.end.is_err(),
        "a broken transfer, never a clean end"
    );
    mirror.start().await;
    assert!(
        mirror
            .client()
            .blob("a/b", &blob.digest)
            .await
            .is(&blob.bytes)
    );
    let ranges: Vec<String> = upstream
        .log()
        .iter()
        .filter_map(|seen| seen.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, [format!("bytes={}-", 3 * MIB)]);
}

#[tokio::test]
async fn sigterm_finishes_what_is_under_way() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 4 * MIB);
    upstream.hold_blob(&blob);
    let gate = Gate::closed();
    upstream.script(
        "GET",
        "/blobs/",
        1,
        Act {
            gate: Some((MIB, gate.clone())),
            ..Act::default()
        },
    );
    let mut mirror = Mirror::patient(&upstream.url()).await;
    let mut open = mirror
        .client()
        .open(&format!("/v2/a/b/blobs/{}", blob.digest))
        .await;
    open.take(1000).await;
    mirror.begin_to_stop();
    eventually!(
        std::net::TcpStream::connect(mirror.address()).is_err(),
        "new work is refused"
    );
    gate.open();
    let rest = open.finish().await;
    assert!(rest.end.is_ok());
    assert_eq!(rest.body, blob.bytes[1000..]);
    mirror.terminate();
}
