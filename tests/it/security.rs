//! Credentials and connections go where they were configured to go, and nowhere else.

use http::StatusCode;

use crate::support::image::{self, Flavour};
use crate::support::{Act, Canary, Mirror, Remote, Upstream};

fn with_credentials(more: &str) -> String {
    format!(
        "tag_ttl = \"0s\"\ncredentials = {{ username = \"alice\", password_file = \"password\" }}\n{more}"
    )
}

async fn mirror_with_password(upstream: &Upstream, more: &str) -> Mirror {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), "s3cret-canary\n").unwrap();
    let data = dir.path().join("data");
    Mirror::in_directory(
        dir,
        data,
        &[Remote::hub_with(&upstream.url(), &with_credentials(more))],
        "",
    )
    .await
}

#[tokio::test]
async fn a_private_image_is_pulled_with_the_configured_credentials() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    upstream.want_token(Some("alice:s3cret-canary"), None);
    let mirror = mirror_with_password(&upstream, "").await;
    assert!(
        mirror
            .client()
            .manifest("a/b", "1")
            .await
            .is(&image.root.bytes)
    );
    assert!(
        mirror
            .client()
            .blob("a/b", &image.blobs[0].digest)
            .await
            .is(&image.blobs[0].bytes)
    );
    let token = upstream
        .log()
        .into_iter()
        .find(|seen| seen.path.starts_with("/token"))
        .unwrap();
    assert!(
        token.path.contains("scope=repository%3Aa%2Fb%3Apull&"),
        "our scope, not the offered one: {}",
        token.path
    );
    assert_eq!(upstream.count("GET", "/token"), 1);
    assert!(
        !mirror
            .log()
            .iter()
            .any(|line| line.contains("s3cret-canary"))
    );
}

#[tokio::test]
async fn wrong_credentials_are_tried_once() {
    let upstream = Upstream::start().await;
    upstream.hold("a/b", "1", &image::small(Flavour::Oci, 1));
    upstream.want_token(Some("alice:other"), None);
    let mirror = mirror_with_password(&upstream, "").await;
    for _ in 0..5 {
        let answer = mirror.client().manifest("a/b", "1").await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert_eq!(upstream.count("GET", "/token"), 1);
}

#[tokio::test]
async fn a_realm_elsewhere_sees_no_connection() {
    let canary = Canary::start();
    let inside = Canary::on("127.0.0.2:0");
    let port = canary.address().port();
    let realms = [
        canary.url(),
        inside.url(),
        format!("http://localhost:{port}/token"),
        format!("http://2130706433:{port}/token"),
        format!("http://0x7f.1:{port}/token"),
        format!("http://[::ffff:127.0.0.1]:{port}/token"),
        format!("http://127.0.0.1.:{port}/token"),
        format!("http://alice:pw@127.0.0.1:{port}/token"),
        format!("//127.0.0.1:{port}/token"),
        "file:///etc/passwd".to_owned(),
        String::new(),
    ];
    for credentials in [true, false] {
        for realm in &realms {
            let upstream = Upstream::start().await;
            upstream.hold("a/b", "1", &image::small(Flavour::Oci, 1));
            upstream.want_token(Some("alice:s3cret-canary"), Some(realm));
            let mirror = if credentials {
                mirror_with_password(&upstream, "").await
            } else {
                Mirror::of(&upstream.url()).await
            };
            let answer = mirror.client().manifest("a/b", "1").await;
            assert!(
                answer.status.is_server_error() || answer.status == StatusCode::FORBIDDEN,
                "{realm}: {}",
                answer.status
            );
        }
    }
    assert_eq!((canary.connections(), inside.connections()), (0, 0));
}

#[tokio::test]
async fn a_declared_token_host_is_used() {
    let (upstream, service) = (Upstream::start().await, Upstream::start().await);
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("a/b", "1", &image);
    upstream.want_token(
        Some("alice:s3cret-canary"),
        Some(&format!("{}/token", service.url())),
    );
    service.want_token(Some("alice:s3cret-canary"), None);
    let mirror = mirror_with_password(
        &upstream,
        &format!("token_hosts = [\"{}\"]", service.address()),
    )
    .await;
    assert!(
        mirror
            .client()
            .manifest("a/b", "1")
            .await
            .is(&image.root.bytes)
    );
    assert_eq!(
        (
            service.count("GET", "/token"),
            upstream.count("GET", "/token")
        ),
        (1, 0)
    );
}

#[tokio::test]
async fn redirects_elsewhere_inside_are_refused_and_on_the_same_host_followed() {
    let canary = Canary::start();
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 1000);
    upstream.hold_blob(&blob);
    upstream.want_token(Some("alice:s3cret-canary"), None);
    let mirror = mirror_with_password(&upstream, "").await;
    let port = canary.address().port();
    let refused = [
        format!("{}/blob", canary.url()),
        format!("http://localhost:{port}/blob"),
        format!("http://[::1]:{port}/blob"),
        "http://169.254.169.254/latest".to_owned(),
        "http://10.0.0.1/x".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://x/".to_owned(),
        "http://user:pw@127.0.0.1/".to_owned(),
        String::new(),
    ];
    for status in [301, 302, 303, 307, 308] {
        for target in &refused {
            upstream.script("GET", "/blobs/", 2, Act::redirect(status, target));
            let answer = mirror.client().blob("a/b", &blob.digest).await;
            assert!(
                answer.status.is_server_error(),
                "{status} {target}: {}",
                answer.status
            );
            upstream.unscript();
        }
    }
    assert_eq!(canary.connections(), 0);
    // A loop ends.
    let own = format!("{}/v2/a/b/blobs/{}", upstream.url(), blob.digest);
    upstream.script("GET", "/blobs/", 100, Act::redirect(307, &own));
    assert_eq!(
        mirror.client().blob("a/b", &blob.digest).await.status,
        StatusCode::BAD_GATEWAY
    );
    upstream.unscript();
    let other = format!("{own}?again=1");
    upstream.script("GET", "/blobs/", 1, Act::redirect(307, &other));
    assert!(
        mirror
            .client()
            .blob("a/b", &blob.digest)
            .await
            .is(&blob.bytes)
    );
}

#[tokio::test]
async fn an_allowed_redirect_carries_no_credentials_and_the_way_back_neither() {
    let (upstream, cdn) = (Upstream::start().await, Upstream::start().await);
    let (blob, other) = (image::blob(1, 1000), image::blob(2, 1000));
    cdn.hold_blob(&blob);
    upstream.hold_blob(&other);
    upstream.want_token(Some("alice:s3cret-canary"), None);
    let mirror = mirror_with_password(&upstream, "allow_addresses = [\"127.0.0.1/32\"]").await;
    // The first script is spent on the 401, the second on the request with a token.
    upstream.script(
        "GET",
        "/blobs/",
        9,
        Act::redirect(
            307,
            &format!(
                "{}/v2/a/b/blobs/{}?sig=s3cret-canary-sig",
                cdn.url(),
                blob.digest
            ),
        ),
    );
    assert!(
        mirror
            .client()
            .blob("a/b", &blob.digest)
            .await
            .is(&blob.bytes)
    );
    let seen = cdn.log();
    assert!(
        !seen.is_empty()
            && seen
                .iter()
                .all(|seen| seen.header("authorization").is_none())
    );
    assert!(
        !mirror
            .log()
            .iter()
            .any(|line| line.contains("s3cret-canary-sig") || line.contains("s3cret-canary"))
    );
    // A → B → A: what was stripped stays stripped.
    upstream.unscript();
    let back = format!("{}/v2/a/back/blobs/{}", upstream.url(), other.digest);
    upstream.script(
        "GET",
        "/v2/a/b/blobs/",
        9,
        Act::redirect(307, &format!("{}/v2/a/b/blobs/{}", cdn.url(), other.digest)),
    );
    cdn.script("GET", &other.digest, 9, Act::redirect(307, &back));
    let answer = mirror.client().blob("a/b", &other.digest).await;
    assert!(answer.status.is_server_error(), "{}", answer.status);
    assert!(
        upstream
            .log()
            .iter()
            .filter(|seen| seen.path.contains("/back/"))
            .all(|seen| seen.header("authorization").is_none())
    );
}

#[tokio::test]
async fn nothing_a_client_says_chooses_a_destination() {
    let canary = Canary::start();
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/app", "1", &image);
    let mirror = Mirror::of(&upstream.url()).await;
    let client = mirror.client();
    let inside = canary.address();
    for path in [
        format!("/v2/app/manifests/1?ns={inside}"),
        format!("/v2/app/manifests/1?ns=http://{inside}"),
        format!("/v2/{inside}/app/manifests/1"),
        format!("/{inside}/v2/app/manifests/1"),
    ] {
        assert!(
            matches!(client.get(&path).await.status.as_u16(), 400 | 404),
            "{path}"
        );
    }
    let forwarded = [
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "host=evil.example"),
        ("host", "evil.example"),
    ];
    assert!(
        client
            .send(
                http::Method::GET,
                "/v2/app/manifests/1?ns=docker.io",
                &forwarded
            )
            .await
            .is(&image.root.bytes)
    );
    assert_eq!(canary.connections(), 0);
    assert!(
        upstream
            .log()
            .iter()
            .all(|seen| seen.header("host") == Some(&upstream.address().to_string()))
    );
    // A client's own login stays here.
    let own = [("authorization", "Basic Y2FuYXJ5OmNhbmFyeQ==")];
    assert!(
        client
            .send(http::Method::GET, "/v2/app/manifests/1", &own)
            .await
            .is(&image.root.bytes)
    );
    assert!(
        upstream
            .log()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}
