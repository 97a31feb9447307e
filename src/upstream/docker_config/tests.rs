use super::{Found, find, server};
use crate::secret::Secret;
use crate::upstream::login::Login;

fn password(username: &str, password: &str) -> Found {
    Found::Login(Login::Password {
        username: username.to_owned(),
        password: Secret::new(password),
    })
}

fn identity(token: &str) -> Found {
    Found::Login(Login::Identity {
        token: Secret::new(token),
    })
}

#[test]
fn entries() {
    // YTpi is a:b, dTpwOnc= is u:p:w, PHRva2VuPjp0 is <token>:t
    let file = br#"{
        "auths": {
            "https://index.docker.io/v1/": {"auth": "YTpi"},
            "ghcr.io": {"auth": "dTpwOnc="},
            "https://old.example/v2/": {"username": "x", "password": "y"},
            "acr.example": {"auth": "YTo=", "identitytoken": "id"},
            "marked.example": {"auth": "PHRva2VuPjp0"},
            "unpadded.example:5000": {"auth": "dTpwOnc"},
            "empty.example": {}
        },
        "credHelpers": {"ecr.example": "ecr-login", "ghcr.example": "gh"},
        "HttpHeaders": {"User-Agent": "x"}
    }"#;
    for (host, found) in [
        ("registry-1.docker.io", password("a", "b")),
        ("index.docker.io", password("a", "b")),
        ("ghcr.io", password("u", "p:w")),
        ("old.example", password("x", "y")),
        ("acr.example", identity("id")),
        ("marked.example", identity("t")),
        ("unpadded.example:5000", password("u", "p:w")),
        ("unpadded.example", Found::Nothing),
        ("empty.example", Found::Nothing),
        ("ecr.example", Found::Helper("ecr-login".to_owned())),
        ("other.example", Found::Nothing),
    ] {
        assert_eq!(find(file, host).unwrap(), found, "{host}");
    }
}

#[test]
fn the_general_helper() {
    let file =
        br#"{"auths": {"a.example": {}, "b.example": {"auth": "YTpi"}}, "credsStore": "pass"}"#;
    assert_eq!(
        find(file, "a.example").unwrap(),
        Found::Helper("pass".to_owned())
    );
    assert_eq!(find(file, "b.example").unwrap(), password("a", "b"));
    assert_eq!(
        find(file, "c.example").unwrap(),
        Found::Helper("pass".to_owned())
    );
}

#[test]
fn junk() {
    for text in [
        &b""[..],
        b"{",
        b"{\"auths\":3}",
        br#"{"auths":{"a":{"auth":"!"}}}"#,
        br#"{"auths":{"a":{"auth":"YQ=="}}}"#,
    ] {
        assert!(
            find(text, "a").is_err(),
            "{}",
            String::from_utf8_lossy(text)
        );
    }
    assert_eq!(find(b"{}", "a").unwrap(), Found::Nothing);
}

#[test]
fn what_helpers_are_asked_for() {
    assert_eq!(
        server("registry-1.docker.io"),
        "https://index.docker.io/v1/"
    );
    assert_eq!(server("ghcr.io"), "ghcr.io");
}
