//! Where credentials are configured, and how they reach the upstream.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use http::StatusCode;
use tempfile::TempDir;

use crate::support::image::{self, Flavour};
use crate::support::{Act, Image, Mirror, Remote, Upstream};

const ALICE: &str = "alice:s3cret-canary";

/// An upstream that gives tokens to alice alone, and an image there.
async fn upstream() -> (Upstream, Image) {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    upstream.want_token(Some(ALICE), None);
    (upstream, image)
}

async fn mirror(
    dir: TempDir,
    upstream: &Upstream,
    credentials: &str,
    environment: &[(&str, &str)],
) -> Mirror {
    let data = dir.path().join("data");
    let more = format!("tag_ttl = \"0s\"\ncredentials = {credentials}");
    let remote = Remote::hub_with(&upstream.url(), &more);
    Mirror::in_environment(dir, data, &[remote], "", environment).await
}

async fn pulls(mirror: &Mirror, image: &Image) {
    let client = mirror.client();
    assert!(client.manifest("a/b", "1").await.is(&image.root.bytes));
    for blob in &image.blobs {
        assert!(client.blob("a/b", &blob.digest).await.is(&blob.bytes));
    }
    assert!(
        !mirror
            .log()
            .iter()
            .any(|line| line.contains("s3cret-canary")),
        "a secret in the log"
    );
}

/// Base64 of [`ALICE`].
const ALICE_BASE64: &str = "YWxpY2U6czNjcmV0LWNhbmFyeQ==";

fn program(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_password_from_the_environment() {
    let (upstream, image) = upstream().await;
    let credentials = "{ username = \"alice\", password_env = \"HUB_PASSWORD\" }";
    let dir = tempfile::tempdir().unwrap();
    let mirror = mirror(
        dir,
        &upstream,
        credentials,
        &[("HUB_PASSWORD", "s3cret-canary")],
    )
    .await;
    pulls(&mirror, &image).await;
    assert_eq!(upstream.count("GET", "/token"), 1);
}

#[tokio::test]
async fn a_docker_configuration() {
    let (upstream, image) = upstream().await;
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "{{\"auths\":{{\"{}\":{{\"auth\":\"{ALICE_BASE64}\"}}}}}}",
        upstream.address()
    );
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let mirror = mirror(dir, &upstream, "{ docker_config = \"config.json\" }", &[]).await;
    pulls(&mirror, &image).await;
}

#[tokio::test]
async fn a_helper_is_asked_once_and_again_when_its_secret_is_refused() {
    let (upstream, image) = upstream().await;
    let dir = tempfile::tempdir().unwrap();
    let calls = dir.path().join("calls");
    // The first secret has been rotated away already.
    let text = format!(
        "#!/bin/sh\nread -r registry\necho \"$1 $registry\" >> {calls}\nif [ \"$(wc -l < {calls})\" = 1 ]; then secret=OLD; else secret=s3cret-canary; fi\nprintf '{{\"ServerURL\":\"%s\",\"Username\":\"alice\",\"Secret\":\"%s\"}}' \"$registry\" \"$secret\"\n",
        calls = calls.display()
    );
    program(dir.path(), "docker-credential-lab", &text);
    let path = format!(
        "{}:{}",
        dir.path().display(),
        std::env::var("PATH").unwrap()
    );
    let mirror = mirror(dir, &upstream, "{ helper = \"lab\" }", &[("PATH", &path)]).await;
    pulls(&mirror, &image).await;
    pulls(&mirror, &image).await;
    let asked = format!("get {}", upstream.address());
    let calls = std::fs::read_to_string(calls).unwrap();
    assert_eq!(calls.lines().collect::<Vec<_>>(), [&asked, &asked]);
    // One try with each secret.
    assert_eq!(upstream.count("GET", "/token"), 2);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let (upstream, image) = upstream().await;
    upstream.script(
        "POST",
        "/token",
        9,
        Act {
            status: Some(200),
            body: Some("{\"access_token\":\"T.repository.identity\",\"expires_in\":300}".into()),
            ..Act::default()
        },
    );
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "{{\"auths\":{{\"{}\":{{\"auth\":\"YWxpY2U6\",\"identitytoken\":\"IDENTITY-s3cret-canary\"}}}}}}",
        upstream.address()
    );
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let mirror = mirror(dir, &upstream, "{ docker_config = \"config.json\" }", &[]).await;
    pulls(&mirror, &image).await;
    assert_eq!(
        (
            upstream.count("POST", "/token"),
            upstream.count("GET", "/token")
        ),
        (1, 0)
    );
}

#[tokio::test]
async fn basic_is_answered_where_it_is_asked_for() {
    let (upstream, _) = upstream().await;
    let challenge = Act {
        headers: vec![(
            "WWW-Authenticate".to_owned(),
            "Basic realm=\"lab\", Bearer realm=\"\"".to_owned(),
        )],
        ..Act::status(401)
    };
    upstream.script("GET", "/manifests/", 1, challenge.clone());
    upstream.script("HEAD", "/manifests/", 1, challenge);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), "s3cret-canary").unwrap();
    let credentials = "{ username = \"alice\", password_file = \"password\" }";
    let mirror = mirror(dir, &upstream, credentials, &[]).await;
    let answer = mirror.client().manifest("a/b", "1").await;
    let basic = format!("Basic {ALICE_BASE64}");
    assert!(
        upstream
            .log()
            .iter()
            .any(|seen| seen.header("authorization") == Some(&basic)),
        "{answer:?}"
    );
}

#[tokio::test]
async fn fifty_cold_pulls_share_one_token() {
    let (upstream, _) = upstream().await;
    let blobs: Vec<_> = (0..50).map(|seed| image::blob(seed, 1000)).collect();
    blobs.iter().for_each(|blob| upstream.hold_blob(blob));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), "s3cret-canary\n").unwrap();
    let credentials = "{ username = \"alice\", password_file = \"password\" }";
    let mirror = mirror(dir, &upstream, credentials, &[]).await;
    let client = mirror.client();
    let all = blobs.iter().map(|blob| client.blob("a/b", &blob.digest));
    for (answer, blob) in futures_util::future::join_all(all).await.iter().zip(&blobs) {
        assert!(answer.is(&blob.bytes));
    }
    assert_eq!(upstream.count("GET", "/token"), 1);
}

#[tokio::test]
async fn a_token_that_was_revoked_is_renewed_once() {
    let (upstream, image) = upstream().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), "s3cret-canary").unwrap();
    let credentials = "{ username = \"alice\", password_file = \"password\" }";
    let mirror = mirror(dir, &upstream, credentials, &[]).await;
    pulls(&mirror, &image).await;
    let more = image::blob(9, 5000);
    // A token refused in its first ten seconds was not refused for its age, and another like it would not help.
    tokio::time::sleep(std::time::Duration::from_millis(10_500)).await;
    upstream.hold_blob(&more);
    let challenge = Act {
        headers: vec![(
            "WWW-Authenticate".to_owned(),
            format!(
                "Bearer realm=\"{}/token\",service=\"scripted\"",
                upstream.url()
            ),
        )],
        ..Act::status(401)
    };
    upstream.script("GET", &more.digest, 1, challenge);
    assert!(
        mirror
            .client()
            .blob("a/b", &more.digest)
            .await
            .is(&more.bytes)
    );
    assert_eq!(upstream.count("GET", "/token"), 2);
}

#[tokio::test]
async fn refused_credentials_are_a_502_and_no_storm() {
    let (upstream, _) = upstream().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), "WRONG").unwrap();
    let credentials = "{ username = \"alice\", password_file = \"password\" }";
    let mirror = mirror(dir, &upstream, credentials, &[]).await;
    let client = mirror.client();
    let all = (0..40).map(|_| client.manifest("a/b", "1"));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert_eq!(upstream.count("GET", "/token"), 1);
}
