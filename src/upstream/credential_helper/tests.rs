use std::os::unix::fs::PermissionsExt as _;

use super::{ask, is_name, run};
use crate::secret::Secret;
use crate::upstream::login::Login;

/// Runs a shell script as if it were a helper.
async fn script(text: &str) -> Result<Option<Login>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("helper");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    run(path.to_str().unwrap(), "r.example").await
}

#[tokio::test]
async fn what_helpers_say() {
    let login = script(r#"read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"AWS\",\"Secret\":\"of-$server-$1\"}""#).await;
    let expected = Login::Password {
        username: "AWS".to_owned(),
        password: Secret::new("of-r.example-get"),
    };
    assert_eq!(login, Ok(Some(expected)));
    let login = script(r#"echo '{"Username":"<token>","Secret":"id"}'"#).await;
    assert_eq!(
        login,
        Ok(Some(Login::Identity {
            token: Secret::new("id")
        }))
    );
    assert_eq!(
        script("echo credentials not found in native keychain; exit 1").await,
        Ok(None)
    );
    assert_eq!(
        script(r#"echo '{"Username":"","Secret":""}'"#).await,
        Ok(None)
    );
}

#[tokio::test]
async fn helpers_that_fail_keep_their_words() {
    for text in [
        "echo s3cret; exit 1",
        "echo s3cret",
        "head -c 100000 /dev/zero",
    ] {
        let error = script(text).await.unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }
    assert!(
        ask("of-this-name-there-is-none", "x")
            .await
            .unwrap_err()
            .contains("cannot be run")
    );
}

#[test]
fn names_are_no_paths() {
    for name in ["", "../x", "a/b", "a b", "a\0", "-ö"] {
        assert!(!is_name(name), "{name}");
    }
    assert!(is_name("ecr-login") && is_name("gcr.v2_x"));
}
