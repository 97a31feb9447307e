//! Foreign layers: fetched once from where the manifest says, without a login, where the configuration lets it; else left to the client.

use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};

use crate::eventually;
use crate::support::image::{self, Content, Image};
use crate::support::{Act, Canary, Client, Gate, Mirror, Remote, Upstream};

const LET_IN: &str =
    "foreign_layers = [\"**/127.0.0.1:*/**\"]\nallow_addresses = [\"127.0.0.1/32\"]";

/// An image whose one layer is to be had at these URLs, with the size that its descriptor claims.
fn image_of(layer: &Content, size: u64, urls: &[String]) -> Image {
    let config = Content::json(
        image::DOCKER_CONFIG,
        &json!({"architecture": "amd64", "os": "windows", "rootfs": {"type": "layers", "diff_ids": [layer.digest]}}),
    );
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let root = Content::json(
        image::DOCKER_MANIFEST,
        &json!({
            "schemaVersion": 2, "mediaType": image::DOCKER_MANIFEST, "config": config.descriptor(),
            "layers": [{"mediaType": foreign, "digest": layer.digest, "size": size, "urls": urls}],
        }),
    );
    Image {
        root: root.clone(),
        manifests: vec![root],
        blobs: vec![config],
        platform: Value::Null,
    }
}

/// Where a server that is no registry has a layer.
fn url(at: &str, layer: &Content) -> String {
    format!("{at}/v2/files/blobs/{}", layer.digest)
}

/// A mirror of a registry that has `a/b:1` with this layer at these URLs, and not the layer; the manifest has been pulled.
async fn pulled(upstream: &Upstream, layer: &Content, urls: &[String], more: &str) -> Mirror {
    upstream.hold("a/b", "1", &image_of(layer, layer.size(), urls));
    let more = format!("tag_ttl = \"0s\"\n{more}");
    let mirror = Mirror::with(&[Remote::hub_with(&upstream.url(), &more)], "").await;
    assert_eq!(manifest(&mirror, "a/b").await, StatusCode::OK);
    mirror
}

async fn manifest(mirror: &Mirror, name: &str) -> StatusCode {
    mirror.client().manifest(name, "1").await.status
}

async fn status(client: &Client, layer: &Content) -> StatusCode {
    client.blob("a/b", &layer.digest).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_clients_and_one_fetch_without_a_login() {
    let (upstream, web) = (Upstream::start().await, Upstream::start().await);
    let layer = image::blob(1, 3_000_000);
    web.hold_blob(&layer);
    upstream.want_token(Some("alice:s3cret-canary"), None);
    let urls = [url(&web.url(), &layer)];
    upstream.hold("a/b", "1", &image_of(&layer, layer.size(), &urls));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), "s3cret-canary\n").unwrap();
    let data = dir.path().join("data");
    let login = "credentials = { username = \"alice\", password_file = \"password\" }";
    let remote = Remote::hub_with(&upstream.url(), &format!("{login}\n{LET_IN}"));
    let mirror = Mirror::in_directory(dir, data, &[remote], "").await;
    assert_eq!(manifest(&mirror, "a/b").await, StatusCode::OK);
    let client = mirror.client();
    // docker asks by HEAD before it fetches.
    let head = client
        .head(&format!("/v2/a/b/blobs/{}", layer.digest))
        .await;
    assert_eq!(head.status, StatusCode::OK);
    assert_eq!(head.header("content-length"), Some("3000000"));
    assert_eq!(
        head.header("cache-status"),
        Some("roadstead; detail=foreign")
    );
    assert_eq!(web.log().len(), 0);
    let answers = join_all((0..10).map(|_| client.blob("a/b", &layer.digest))).await;
    assert!(answers.iter().all(|answer| answer.is(&layer.bytes)));
    assert!(client.blob("a/b", &layer.digest).await.is(&layer.bytes));
    assert_eq!((web.log().len(), web.count("GET", "/v2/files/")), (1, 1));
    for name in ["authorization", "cookie", "proxy-authorization"] {
        assert_eq!(web.log()[0].header(name), None, "{name}");
    }
    assert_eq!(upstream.count("", &layer.digest), 0);
    assert_eq!(mirror.metric("roadstead_upstream_requests_total{repository=\"docker-hub\",kind=\"foreign\",outcome=\"200\"}"), 1.0);
}

#[tokio::test]
async fn at_the_upstream_itself_there_is_no_login_either() {
    let upstream = Upstream::start().await;
    let layer = image::blob(1, 1000);
    upstream.hold_blob(&layer);
    upstream.want_token(Some("alice:s3cret-canary"), None);
    let urls = [url(&upstream.url(), &layer)];
    upstream.hold("a/b", "1", &image_of(&layer, layer.size(), &urls));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), "s3cret-canary\n").unwrap();
    let data = dir.path().join("data");
    let login = "credentials = { username = \"alice\", password_file = \"password\" }";
    let remote = Remote::hub_with(&upstream.url(), &format!("{login}\n{LET_IN}"));
    let mirror = Mirror::in_directory(dir, data, &[remote], "").await;
    assert_eq!(manifest(&mirror, "a/b").await, StatusCode::OK);
    // Its URL wants a login and gets none; asked as a registry it gets one.
    assert!(
        mirror
            .client()
            .blob("a/b", &layer.digest)
            .await
            .is(&layer.bytes)
    );
    let (files, blobs): (Vec<_>, Vec<_>) = upstream
        .log()
        .into_iter()
        .filter(|seen| seen.path.contains(&layer.digest))
        .partition(|seen| seen.path.contains("/files/"));
    assert!(
        !files.is_empty()
            && files
                .iter()
                .all(|seen| seen.header("authorization").is_none())
    );
    assert_eq!(blobs.len(), 1);
}

#[tokio::test]
async fn what_is_not_what_the_manifest_says_is_refused() {
    let layer = image::blob(1, 200_000);
    let wrong = [
        Act {
            wrong_byte: Some(7),
            ..Act::default()
        },
        Act {
            wrong_byte: Some(7),
            no_length: true,
            ..Act::default()
        },
        Act {
            body: Some(layer.bytes.slice(..199_999)),
            ..Act::default()
        },
        Act {
            body: Some(layer.bytes.slice(..199_999)),
            no_length: true,
            ..Act::default()
        },
        Act {
            body: Some([&layer.bytes[..], b"x"].concat().into()),
            ..Act::default()
        },
        Act {
            body: Some([&layer.bytes[..], b"x"].concat().into()),
            no_length: true,
            ..Act::default()
        },
    ];
    for (which, act) in wrong.into_iter().enumerate() {
        let (upstream, web) = (Upstream::start().await, Upstream::start().await);
        web.hold_blob(&layer);
        web.script("GET", "/files/", 99, act);
        let mirror = pulled(&upstream, &layer, &[url(&web.url(), &layer)], LET_IN).await;
        let answer = mirror.client().blob("a/b", &layer.digest).await;
        assert!(
            answer.status == StatusCode::BAD_GATEWAY || answer.end.is_err(),
            "{which}: {answer:?}"
        );
        assert!(
            answer.body.len() <= 200_000 - 65_536 || answer.status != StatusCode::OK,
            "{which}"
        );
        assert!(
            mirror
                .files("blobs")
                .iter()
                .all(|file| !file.ends_with(&layer.digest[7..])),
            "{which}"
        );
    }
    // The descriptor is wrong, and the layer no longer than what is held back: an error from the start.
    let small = image::blob(2, 1000);
    let (upstream, web) = (Upstream::start().await, Upstream::start().await);
    web.hold_blob(&small);
    upstream.hold(
        "a/b",
        "1",
        &image_of(&small, 999, &[url(&web.url(), &small)]),
    );
    let mirror = Mirror::with(&[Remote::hub_with(&upstream.url(), LET_IN)], "").await;
    assert_eq!(manifest(&mirror, "a/b").await, StatusCode::OK);
    assert_eq!(
        status(&mirror.client(), &small).await,
        StatusCode::BAD_GATEWAY
    );
    web.script(
        "GET",
        "/files/",
        99,
        Act {
            wrong_byte: Some(7),
            ..Act::default()
        },
    );
    assert_eq!(
        status(&mirror.client(), &small).await,
        StatusCode::BAD_GATEWAY
    );
}

#[tokio::test]
async fn what_no_pattern_fits_is_left_to_the_client() {
    let canary = Canary::start();
    let layer = image::blob(1, 1000);
    let port = canary.address().port();
    let urls = [
        url(&canary.url(), &layer),
        format!("http://localhost:{port}/mcr.microsoft.com/x"),
        format!("http://mcr.microsoft.com@127.0.0.1:{port}/x"),
        format!("ftp://127.0.0.1:{port}/x"),
    ];
    for more in [
        "",
        "foreign_layers = []",
        "foreign_layers = [\"**/mcr.microsoft.com/**\"]",
    ] {
        let upstream = Upstream::start().await;
        let more = format!("{more}\nallow_addresses = [\"127.0.0.1/32\"]");
        let mirror = pulled(&upstream, &layer, &urls, &more).await;
        assert_eq!(
            status(&mirror.client(), &layer).await,
            StatusCode::NOT_FOUND
        );
        let head = mirror
            .client()
            .head(&format!("/v2/a/b/blobs/{}", layer.digest))
            .await;
        assert_eq!(head.status, StatusCode::NOT_FOUND);
        assert_eq!(upstream.count("GET", &layer.digest), 1);
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn what_no_manifest_of_the_image_calls_foreign_is_asked_of_the_registry_alone() {
    let (upstream, web) = (Upstream::start().await, Upstream::start().await);
    let layer = image::blob(1, 1000);
    web.hold_blob(&layer);
    let mirror = pulled(&upstream, &layer, &[url(&web.url(), &layer)], LET_IN).await;
    let other = mirror.client().blob("a/other", &layer.digest).await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    assert_eq!(web.log().len(), 0);
}

#[tokio::test]
async fn addresses_inside_are_refused_and_so_are_redirects_to_them() {
    let canary = Canary::start();
    let inside = Canary::on("127.0.0.2:0");
    let layer = image::blob(1, 1000);
    let port = canary.address().port();
    for at in [
        canary.url(),
        inside.url(),
        format!("http://localhost:{port}"),
        format!("http://[::1]:{port}"),
        format!("http://2130706433:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        "http://169.254.169.254".to_owned(),
        "http://10.0.0.1".to_owned(),
    ] {
        let upstream = Upstream::start().await;
        let mirror = pulled(
            &upstream,
            &layer,
            &[url(&at, &layer)],
            "foreign_layers = [\"**\"]",
        )
        .await;
        assert_eq!(
            status(&mirror.client(), &layer).await,
            StatusCode::BAD_GATEWAY,
            "{at}"
        );
        assert_eq!(
            upstream.count("GET", &layer.digest),
            1,
            "{at}: the registry is asked too"
        );
    }
    let (upstream, web) = (Upstream::start().await, Upstream::start().await);
    let mirror = pulled(&upstream, &layer, &[url(&web.url(), &layer)], LET_IN).await;
    for to in [
        url(&inside.url(), &layer),
        format!("http://user:pw@127.0.0.1:{port}/x"),
        "file:///etc/passwd".to_owned(),
    ] {
        web.script("GET", "/files/", 1, Act::redirect(302, &to));
        assert_eq!(
            status(&mirror.client(), &layer).await,
            StatusCode::BAD_GATEWAY,
            "{to}"
        );
    }
    assert_eq!((canary.connections(), inside.connections()), (0, 0));
}

#[tokio::test]
async fn redirects_are_followed_without_a_login_up_to_five() {
    let (upstream, web, cdn) = (
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
    );
    let layer = image::blob(1, 1000);
    cdn.hold_blob(&layer);
    let mirror = pulled(&upstream, &layer, &[url(&web.url(), &layer)], LET_IN).await;
    for hop in 0..6 {
        web.script(
            "GET",
            &format!("hop={hop}&"),
            99,
            Act::redirect(302, &format!("{}/x?hop={}&", web.url(), hop + 1)),
        );
    }
    web.script(
        "GET",
        "/files/",
        1,
        Act::redirect(302, &format!("{}/x?hop=0&", web.url())),
    );
    assert_eq!(
        status(&mirror.client(), &layer).await,
        StatusCode::BAD_GATEWAY
    );
    assert_eq!(web.log().len(), 6);
    web.script(
        "GET",
        "/files/",
        1,
        Act::redirect(
            302,
            &format!("{}?sig=s3cret-canary-sig", url(&cdn.url(), &layer)),
        ),
    );
    assert!(
        mirror
            .client()
            .blob("a/b", &layer.digest)
            .await
            .is(&layer.bytes)
    );
    assert!(
        cdn.log()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
    assert!(
        !mirror
            .log()
            .iter()
            .any(|line| line.contains("s3cret-canary-sig"))
    );
}

#[tokio::test]
async fn a_cut_is_resumed_by_range_and_another_url_goes_on() {
    let (upstream, web, other) = (
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
    );
    let layer = image::blob(1, 1_000_000);
    web.hold_blob(&layer);
    other.hold_blob(&layer);
    web.script(
        "GET",
        "/files/",
        1,
        Act {
            cut: Some(300_000),
            ..Act::default()
        },
    );
    let urls = [url(&web.url(), &layer), url(&other.url(), &layer)];
    let mirror = pulled(&upstream, &layer, &urls, LET_IN).await;
    assert!(
        mirror
            .client()
            .blob("a/b", &layer.digest)
            .await
            .is(&layer.bytes)
    );
    let ranges: Vec<_> = web
        .log()
        .iter()
        .map(|seen| seen.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, [None, Some("bytes=300000-".to_owned())]);
    assert_eq!(other.log().len(), 0);

    let second = image::blob(2, 1_000_000);
    other.hold_blob(&second);
    web.hold_blob(&second);
    web.script(
        "GET",
        &second.digest,
        1,
        Act {
            cut: Some(300_000),
            ..Act::default()
        },
    );
    web.script("GET", &second.digest, 99, Act::status(403));
    let urls = [url(&web.url(), &second), url(&other.url(), &second)];
    let mirror = pulled(&upstream, &second, &urls, LET_IN).await;
    assert!(
        mirror
            .client()
            .blob("a/b", &second.digest)
            .await
            .is(&second.bytes)
    );
    assert_eq!(other.log()[0].header("range"), Some("bytes=300000-"));
}

#[tokio::test]
async fn an_outage_of_the_urls_is_no_absence_and_the_registry_may_have_it() {
    let (upstream, web) = (Upstream::start().await, Upstream::start().await);
    let layer = image::blob(1, 1000);
    let mirror = pulled(
        &upstream,
        &layer,
        &[url(&web.url(), &layer)],
        &format!("{LET_IN}\nnegative_ttl = \"1h\""),
    )
    .await;
    let client = mirror.client();
    for act in [
        Act::status(500),
        Act::status(403),
        Act {
            hang_up: true,
            ..Act::default()
        },
    ] {
        web.script("GET", "/files/", 9, act);
        for _ in 0..2 {
            assert!(status(&client, &layer).await.is_server_error());
        }
        web.unscript();
    }
    assert_eq!(upstream.count("GET", &layer.digest), 6);
    // The breaker of the registry has nothing to do with it.
    upstream.hold_blob(&layer);
    web.script("GET", "/files/", 9, Act::status(500));
    assert!(client.blob("a/b", &layer.digest).await.is(&layer.bytes));

    // Neither of them has it: that is an absence.
    let gone = image::blob(2, 1000);
    let mirror = pulled(&upstream, &gone, &[url(&web.url(), &gone)], LET_IN).await;
    web.unscript();
    assert_eq!(status(&mirror.client(), &gone).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn offline_asks_nobody() {
    let (upstream, web) = (Upstream::start().await, Upstream::start().await);
    let (layer, cached) = (image::blob(1, 1000), image::blob(2, 1000));
    web.hold_blob(&layer);
    web.hold_blob(&cached);
    upstream.hold(
        "a/c",
        "1",
        &image_of(&cached, 1000, &[url(&web.url(), &cached)]),
    );
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("data");
    {
        upstream.hold(
            "a/b",
            "1",
            &image_of(&layer, 1000, &[url(&web.url(), &layer)]),
        );
        let remote = Remote::hub_with(&upstream.url(), LET_IN);
        let mirror =
            Mirror::in_directory(tempfile::tempdir().unwrap(), path.clone(), &[remote], "").await;
        for name in ["a/b", "a/c"] {
            assert_eq!(manifest(&mirror, name).await, StatusCode::OK);
        }
        assert!(
            mirror
                .client()
                .blob("a/c", &cached.digest)
                .await
                .is(&cached.bytes)
        );
    }
    let remote = Remote::hub_with(&upstream.url(), &format!("{LET_IN}\noffline = true"));
    let mirror = Mirror::in_directory(data, path, &[remote], "").await;
    assert!(
        mirror
            .client()
            .blob("a/c", &cached.digest)
            .await
            .is(&cached.bytes)
    );
    assert_eq!(
        status(&mirror.client(), &layer).await,
        StatusCode::NOT_FOUND
    );
    let head = mirror
        .client()
        .head(&format!("/v2/a/b/blobs/{}", layer.digest))
        .await;
    assert_eq!(head.status, StatusCode::NOT_FOUND);
    assert_eq!(web.log().len(), 1);
}

/// Knowing a digest is no leave to read: a manifest that calls a private layer foreign has to name a URL that really has it.
#[tokio::test]
async fn bytes_of_another_image_are_read_only_where_the_url_shows_a_piece() {
    let (upstream, web, liar) = (
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
    );
    let layer = image::blob(1, 1_000_000);
    web.hold_blob(&layer);
    let mirror = pulled(
        &upstream,
        &layer,
        &[url(&web.url(), &layer)],
        &format!("{LET_IN}\nnegative_ttl = \"1h\""),
    )
    .await;
    let client = mirror.client();
    assert!(client.blob("a/b", &layer.digest).await.is(&layer.bytes));

    liar.hold_blob(&layer);
    liar.script(
        "GET",
        "/files/",
        1,
        Act {
            body: Some(image::noise(9, 1_000_000)),
            ..Act::default()
        },
    );
    liar.script(
        "GET",
        "/files/",
        1,
        Act {
            body: Some(image::noise(9, 1_000_000)),
            ignore_range: true,
            ..Act::default()
        },
    );
    liar.script(
        "GET",
        "/files/",
        1,
        Act {
            body: Some(layer.bytes.slice(..65_536)),
            ..Act::default()
        },
    );
    liar.script("GET", "/files/", 99, Act::status(500));
    upstream.hold(
        "a/liar",
        "1",
        &image_of(&layer, layer.size(), &[url(&liar.url(), &layer)]),
    );
    assert_eq!(manifest(&mirror, "a/liar").await, StatusCode::OK);
    for _ in 0..4 {
        let answer = client.blob("a/liar", &layer.digest).await;
        assert!(answer.status.is_server_error(), "{answer:?}");
    }
    assert_eq!(liar.log().len(), 4);

    upstream.hold(
        "a/honest",
        "1",
        &image_of(&layer, layer.size(), &[url(&web.url(), &layer)]),
    );
    assert_eq!(manifest(&mirror, "a/honest").await, StatusCode::OK);
    for _ in 0..2 {
        assert!(
            client
                .blob("a/honest", &layer.digest)
                .await
                .is(&layer.bytes)
        );
    }
    assert_eq!(web.log().len(), 2);
    assert!(web.log()[1].header("range").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_that_share_a_layer_fetch_it_once() {
    let (upstream, web) = (Upstream::start().await, Upstream::start().await);
    let layer = image::blob(1, 1_000_000);
    web.hold_blob(&layer);
    let urls = [url(&web.url(), &layer)];
    let mirror = pulled(&upstream, &layer, &urls, LET_IN).await;
    upstream.hold("a/c", "1", &image_of(&layer, layer.size(), &urls));
    assert_eq!(manifest(&mirror, "a/c").await, StatusCode::OK);
    let client = mirror.client();
    let pulls = (0..10).map(|n| client.blob(if n % 2 == 0 { "a/b" } else { "a/c" }, &layer.digest));
    assert!(
        join_all(pulls)
            .await
            .iter()
            .all(|answer| answer.is(&layer.bytes))
    );
    let whole = web
        .log()
        .iter()
        .filter(|seen| seen.header("range").is_none())
        .count();
    assert_eq!(whole, 1);
}

#[tokio::test]
async fn a_cached_layer_goes_along_with_a_promotion_and_another_is_left_out() {
    let (upstream, mut web) = (Upstream::start().await, Upstream::start().await);
    let (cached, cold) = (image::blob(1, 1000), image::blob(2, 1000));
    web.hold_blob(&cached);
    web.hold_blob(&cold);
    for (name, layer) in [("a/b", &cached), ("a/c", &cold)] {
        let urls = [url(&web.url(), layer)];
        upstream.hold(name, "1", &image_of(layer, layer.size(), &urls));
    }
    let remote = Remote::hub_with(&upstream.url(), LET_IN);
    let mirror = Mirror::with(
        &[remote],
        "[local.prod-local]\n[mirror]\ndefault = \"docker-hub\"\n",
    )
    .await;
    let client = mirror.client();
    assert_eq!(manifest(&mirror, "a/b").await, StatusCode::OK);
    assert!(client.blob("a/b", &cached.digest).await.is(&cached.bytes));
    for name in ["a/b", "a/c"] {
        let answer = client
            .send_body(
                http::Method::POST,
                "/artifactory/api/docker/docker-hub/v2/promote",
                &[("content-type", "application/json")],
                json!({"targetRepo": "prod-local", "dockerRepository": name, "tag": "1"})
                    .to_string()
                    .into(),
            )
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    web.stop().await;
    assert!(
        client
            .blob("prod-local/a/b", &cached.digest)
            .await
            .is(&cached.bytes)
    );
    assert_eq!(
        client.blob("prod-local/a/c", &cold.digest).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(web.count("GET", &cold.digest), 0);
}

#[tokio::test]
async fn what_a_fill_left_is_gone_on_with_where_the_url_shows_a_piece_of_it() {
    const MIB: usize = 1 << 20;
    for is_honest in [true, false] {
        let (upstream, web, other) = (
            Upstream::start().await,
            Upstream::start().await,
            Upstream::start().await,
        );
        let layer = image::blob(1, 8 * MIB);
        web.hold_blob(&layer);
        other.hold_blob(&layer);
        let gate = Gate::closed();
        web.script(
            "GET",
            "/files/",
            1,
            Act {
                gate: Some((MIB, gate.clone())),
                ..Act::default()
            },
        );
        let mirror = pulled(&upstream, &layer, &[url(&web.url(), &layer)], LET_IN).await;
        upstream.hold(
            "a/c",
            "1",
            &image_of(&layer, layer.size(), &[url(&other.url(), &layer)]),
        );
        assert_eq!(manifest(&mirror, "a/c").await, StatusCode::OK);
        let mut only = mirror
            .client()
            .open(&format!("/v2/a/b/blobs/{}", layer.digest))
            .await;
        only.take(900_000).await;
        drop(only);
        eventually!(
            mirror
                .log()
                .iter()
                .any(|line| line.contains("\"complete\":false"))
        );
        eventually!(
            mirror
                .files("staging")
                .iter()
                .any(|part| part.metadata().unwrap().len() == MIB as u64)
        );
        if !is_honest {
            other.script(
                "GET",
                "/files/",
                1,
                Act {
                    body: Some(image::noise(9, 8 * MIB)),
                    ..Act::default()
                },
            );
        }
        assert!(
            mirror
                .client()
                .blob("a/c", &layer.digest)
                .await
                .is(&layer.bytes)
        );
        let ranges: Vec<_> = other
            .log()
            .iter()
            .map(|seen| seen.header("range").map(str::to_owned))
            .collect();
        let resumed = is_honest.then(|| "bytes=1048576-".to_owned());
        assert_eq!(ranges.len(), 2);
        assert!(ranges[0].is_some());
        assert_eq!(ranges[1], resumed);
    }
}

/// A URL that takes its time, or lies, is its own image's trouble.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_stalls_or_lies_holds_no_other_image_up() {
    let (upstream, liar, web) = (
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
    );
    let layer = image::blob(1, 1_000_000);
    for server in [&upstream, &liar, &web] {
        server.hold_blob(&layer);
    }
    let gate = Gate::closed();
    let lie = Act {
        body: Some(image::noise(9, 1_000_000)),
        gate: Some((300_000, gate.clone())),
        ..Act::default()
    };
    liar.script("GET", "/files/", 99, lie);
    let mirror = pulled(&upstream, &layer, &[url(&liar.url(), &layer)], LET_IN).await;
    let honest = [url(&web.url(), &layer)];
    upstream.hold("a/c", "1", &image_of(&layer, layer.size(), &honest));
    assert_eq!(manifest(&mirror, "a/c").await, StatusCode::OK);
    let client = mirror.client();
    let path = format!("/v2/a/b/blobs/{}", layer.digest);
    let mut lied_to = client.open(&path).await;
    lied_to.take(100_000).await;
    // Of the registry, and of a URL that is honest.
    let others =
        (0..6).map(|n| client.blob(if n % 2 == 0 { "a/other" } else { "a/c" }, &layer.digest));
    assert!(
        join_all(others)
            .await
            .iter()
            .all(|answer| answer.is(&layer.bytes))
    );
    assert_eq!(upstream.count("GET", &layer.digest), 1);
    assert!(
        web.log()
            .iter()
            .filter(|seen| seen.header("range").is_none())
            .count()
            <= 1
    );
    gate.open();
    assert!(lied_to.finish().await.end.is_err());
    // What was right stays, and the parts are gone.
    assert!(client.blob("a/other", &layer.digest).await.is(&layer.bytes));
    assert_eq!(upstream.count("GET", &layer.digest), 1);
    eventually!(mirror.files("staging").is_empty());
    assert_eq!(
        mirror
            .files("blobs")
            .iter()
            .filter(|file| file.ends_with(&layer.digest[7..]))
            .count(),
        1
    );
}

#[tokio::test]
async fn what_a_url_left_of_a_layer_is_not_gone_on_with_by_the_registry() {
    const MIB: usize = 1 << 20;
    let (upstream, liar) = (Upstream::start().await, Upstream::start().await);
    let layer = image::blob(1, 8 * MIB);
    upstream.hold_blob(&layer);
    liar.hold_blob(&layer);
    let lie = Act {
        body: Some(image::noise(9, 8 * MIB)),
        gate: Some((MIB, Gate::closed())),
        ..Act::default()
    };
    liar.script("GET", "/files/", 99, lie);
    let mirror = pulled(&upstream, &layer, &[url(&liar.url(), &layer)], LET_IN).await;
    let client = mirror.client();
    let path = format!("/v2/a/b/blobs/{}", layer.digest);
    let mut only = client.open(&path).await;
    only.take(900_000).await;
    drop(only);
    eventually!(
        mirror
            .files("staging")
            .iter()
            .any(|part| part.metadata().unwrap().len() == MIB as u64)
    );
    eventually!(
        mirror
            .log()
            .iter()
            .any(|line| line.contains("\"complete\":false"))
    );
    assert!(client.blob("a/other", &layer.digest).await.is(&layer.bytes));
}

/// A lie, up to the end or up to a cut after which nothing more is given.
fn lie(size: usize, cut: Option<usize>) -> Act {
    Act {
        body: Some(image::noise(9, size)),
        cut,
        ..Act::default()
    }
}

#[tokio::test]
async fn after_a_url_that_lies_the_next_one_is_asked_and_then_the_registry() {
    const SMALL: usize = 50_000;
    for (size, cut) in [
        (SMALL, None),
        (SMALL, Some(20_000)),
        (1_000_000, None),
        (1_000_000, Some(300_000)),
    ] {
        for has_second in [true, false] {
            let (upstream, liar, web) = (
                Upstream::start().await,
                Upstream::start().await,
                Upstream::start().await,
            );
            let layer = image::blob(1, size);
            let good = if has_second { &web } else { &upstream };
            good.hold_blob(&layer);
            liar.hold_blob(&layer);
            liar.script("GET", "/files/", 1, lie(size, cut));
            if cut.is_some() {
                liar.script("GET", "/files/", 99, Act::status(403));
            }
            liar.script("GET", "/files/", 99, lie(size, cut));
            let urls = [url(&liar.url(), &layer), url(&web.url(), &layer)];
            let mirror = pulled(&upstream, &layer, &urls, LET_IN).await;
            let client = mirror.client();
            // Who has been given bytes of it already cannot take them back.
            if size > SMALL {
                assert!(!client.blob("a/b", &layer.digest).await.is(&layer.bytes));
            }
            for _ in 0..2 {
                let answer = client.blob("a/b", &layer.digest).await;
                assert!(
                    answer.is(&layer.bytes),
                    "{size} {cut:?} {has_second} {answer:?}"
                );
            }
            let log = liar.log();
            let afresh = log.iter().filter(|seen| seen.header("range").is_none());
            assert_eq!(afresh.count(), 1, "{size} {cut:?} {has_second}");
        }
    }
}

#[tokio::test]
async fn where_every_url_lies_each_is_asked_once_for_a_request() {
    let (upstream, web) = (Upstream::start().await, Upstream::start().await);
    let layer = image::blob(1, 1000);
    web.hold_blob(&layer);
    web.script("GET", "/files/", 4, lie(1000, None));
    let at = url(&web.url(), &layer);
    let urls = [format!("{at}?1"), format!("{at}?2")];
    let more = format!("{LET_IN}\nnegative_ttl = \"1h\"");
    let mirror = pulled(&upstream, &layer, &urls, &more).await;
    let client = mirror.client();
    for asked in [2, 4] {
        assert_eq!(status(&client, &layer).await, StatusCode::BAD_GATEWAY);
        assert_eq!(web.log().len(), asked);
    }
    // They are remembered as liars, and asked last all the same.
    assert!(client.blob("a/b", &layer.digest).await.is(&layer.bytes));
}
