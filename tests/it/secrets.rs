//! No secret stands where people read: the check that every test's mirror goes through, proven to find what it is for (RELIABILITY P43).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::support::secrets::{self, MARKER};
use crate::support::{Mirror, Upstream};

#[test]
fn a_secret_is_found_in_every_form() {
    for user in ["", "a", "ab", "abc", "alice"] {
        for more in ["", "1", "22", "-of-somebody"] {
            let pair = format!("{user}:{MARKER}{more}");
            for text in [
                pair.clone(),
                format!("Authorization: Basic {}", STANDARD.encode(&pair)),
                format!("token={}&x", URL_SAFE_NO_PAD.encode(&pair)),
                pair.replace('-', "%2D").replace('s', "%73"),
                pair.to_uppercase(),
                pair.bytes().map(|byte| format!("{byte:02x}")).collect(),
            ] {
                assert!(secrets::marker_in(text.as_bytes()).is_some(), "{text}");
            }
        }
    }
    for text in [
        "",
        "s3cret",
        "canary",
        "100% s3cret",
        "%",
        "%s3",
        "alice:***",
    ] {
        assert_eq!(secrets::secret_in(text.as_bytes()), None, "{text}");
    }
    let token = URL_SAFE_NO_PAD.encode("{\"typ\":\"JWT\",\"alg\":\"HS256\",\"kid\":\"1\"}");
    assert!(secrets::secret_in(format!("Bearer {token}.e30.x").as_bytes()).is_some());
}

/// Whether the check on a mirror that goes fails.
async fn fails(mirror: Mirror) -> bool {
    let gone = tokio::task::spawn_blocking(move || drop(mirror)).await;
    gone.is_err_and(|error| error.is_panic())
}

#[tokio::test]
async fn a_mirror_that_tells_a_secret_fails_its_test() {
    let upstream = Upstream::start().await;
    // Paths are logged: one that has a secret in it is a line that must not be there.
    for told in [MARKER.to_owned(), STANDARD.encode(format!("x:{MARKER}"))] {
        let mirror = Mirror::of(&upstream.url()).await;
        mirror
            .client()
            .get(&format!("/v2/a/manifests/{told}"))
            .await;
        assert!(fails(mirror).await, "{told}");
    }
    let mirror = Mirror::of(&upstream.url()).await;
    let line = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49";
    let key = format!("-----BEGIN PRIVATE KEY-----\n{line}\n-----END PRIVATE KEY-----\n");
    std::fs::write(mirror.configuration().with_file_name("mirror.key"), key).unwrap();
    mirror
        .client()
        .get(&format!("/v2/a/manifests/{line}"))
        .await;
    assert!(fails(mirror).await);
    let mirror = Mirror::of(&upstream.url()).await;
    mirror.client().get("/v2/a/manifests/1").await;
    assert!(!fails(mirror).await);
}
