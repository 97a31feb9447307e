//! Challenges, tokens, passwords (RELIABILITY C1–C20).

use futures_util::future::join_all;

use super::*;

const CHALLENGE: &str = "WWW-Authenticate";

/// A registry with its token service under `/token` and whatever challenge `challenge` makes of its address.
async fn registry(
    challenge: impl Fn(&str) -> String + Send + Sync + 'static,
    token: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
) -> Server {
    Server::start_with(move |address| {
        let base = format!("http://{address}");
        move |seen: &Seen| {
            if seen.target.starts_with("/token") {
                token(seen)
            } else if seen
                .header("authorization")
                .is_some_and(|value| value.starts_with("Bearer good"))
            {
                reply("200 OK", &[], "{}")
            } else {
                reply("401 Unauthorized", &[(CHALLENGE, &challenge(&base))], "{}")
            }
        }
    })
    .await
}

fn bearer(base: &str) -> String {
    format!(
        "Bearer realm=\"{base}/token\",service=\"reg & istry\",scope=\"repository:other:push,pull,delete registry:catalog:*\""
    )
}

fn good(_: &Seen) -> Vec<Step> {
    reply(
        "200 OK",
        &[("Content-Type", "application/json")],
        r#"{"token":"good","expires_in":300}"#,
    )
}

#[tokio::test]
async fn anonymous_tokens() {
    let server = registry(bearer, good).await;
    let upstream = upstream(&server);
    assert_eq!(manifest(&upstream).await.unwrap(), "{}");
    let token = server
        .seen()
        .into_iter()
        .find(|seen| seen.target.starts_with("/token"))
        .unwrap();
    // Our scope, not the offered one; the service as it was called, encoded.
    assert_eq!(
        token.target,
        "/token?service=reg+%26+istry&scope=repository%3Aa%2Fb%3Apull"
    );
    assert_eq!(token.header("authorization"), None);
    // Known by now: one request. A new name costs a token but no round trip for the challenge.
    manifest(&upstream).await.unwrap();
    manifest_of(&upstream, "c").await.unwrap();
    assert_eq!(server.count("/token"), 2);
    assert_eq!(server.seen().len(), 3 + 1 + 2);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn one_token_for_a_crowd() {
    let server = registry(bearer, |seen| {
        let mut steps = vec![Step::Wait(Duration::from_millis(50))];
        steps.extend(good(seen));
        steps
    })
    .await;
    let upstream = upstream(&server);
    let all = join_all((0..100).map(|_| manifest(&upstream))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(server.count("/token"), 1);
    assert!(server.connections() <= 8, "{}", server.connections());
}

#[tokio::test]
async fn one_failure_for_a_crowd() {
    let server = registry(bearer, |_| {
        let mut steps = vec![Step::Wait(Duration::from_millis(50))];
        steps.extend(reply("500 Oops", &[], ""));
        steps
    })
    .await;
    let upstream = upstream(&server);
    let all = join_all((0..8).map(|_| manifest(&upstream))).await;
    assert!(
        all.into_iter()
            .all(|result| kind(result) == Kind::Credentials)
    );
    assert!(server.count("/token") <= 2);
}

#[tokio::test]
async fn credentials_and_whose_they_are() {
    let server = registry(bearer, |seen| match seen.header("authorization") {
        Some("Basic bWU6cHc=") => good(seen),
        _ => reply("401 Unauthorized", &[], ""),
    })
    .await;
    let mine = client(&server.url(""), |config| {
        config.credentials = vec![password("me", "pw")];
    });
    assert_eq!(manifest(&mine).await.unwrap(), "{}");
    assert!(
        server
            .seen()
            .iter()
            .any(|seen| seen.target.ends_with("&account=me"))
    );
    // The same upstream without credentials does not get the token of the other.
    assert_eq!(kind(manifest(&upstream(&server)).await), Kind::Denied);
}

#[tokio::test]
async fn credentials_stay_at_home() {
    let canary = Server::canary().await;
    for realm in [
        canary.url("/token"),
        canary.url("/token").replace("127.0.0.1", "0x7f.1"),
        canary.url("/token").replace("127.0.0.1", "localhost"),
        canary.url("/token").replace("127.0.0.1", "2130706433"),
    ] {
        let server = registry(
            move |_| format!("Bearer realm=\"{realm}\", Basic realm=\"x\""),
            good,
        )
        .await;
        for credentials in [password("me", "pw"), password("<token>", "identity")] {
            let upstream = client(&server.url(""), |config| {
                config.credentials = vec![credentials];
            });
            let error = manifest(&upstream).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Credentials);
            assert!(
                error.to_string().contains("token_hosts")
                    && error
                        .to_string()
                        .contains(&canary.address.port().to_string()),
                "{error}"
            );
        }
        assert!(
            server
                .seen()
                .iter()
                .all(|seen| seen.header("authorization").is_none())
        );
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn inside_addresses_are_no_token_services() {
    let canary = Server::canary().await;
    let port = canary.address.port();
    for host in [
        "127.0.0.1",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "2130706433",
        "0x7F000001",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "2852039166",
    ] {
        let server = registry(
            move |_| format!("Bearer realm=\"http://{host}:{port}/token\""),
            good,
        )
        .await;
        let error = manifest(&upstream(&server)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Credentials, "{host}: {error}");
        assert!(!error.is_transient(), "{host}: {error}");
        assert!(
            error.to_string().contains("allow_addresses"),
            "{host}: {error}"
        );
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_declared_token_host() {
    let service = Server::start(|seen| match seen.header("authorization") {
        Some("Basic bWU6cHc=") => good(seen),
        _ => reply("401 Unauthorized", &[], ""),
    })
    .await;
    let realm = service.url("/token");
    let server = registry(move |_| format!("Bearer realm=\"{realm}\""), good).await;
    let declared = client(&server.url(""), |config| {
        config.credentials = vec![password("me", "pw")];
        config.token_hosts = vec![service.address.to_string()];
    });
    assert_eq!(manifest(&declared).await.unwrap(), "{}");
    assert_eq!(service.connections(), 1);
    let allowed = client(&server.url(""), |config| {
        config.allow_addresses = vec!["127.0.0.0/8".parse().unwrap()];
    });
    assert_eq!(kind(manifest(&allowed).await), Kind::Denied);
    assert_eq!(service.connections(), 2);
}

#[tokio::test]
async fn realms_and_challenges_that_are_none() {
    let canary = Server::canary().await;
    for challenge in [
        "Bearer realm=\"file:///etc/passwd\"",
        "Bearer realm=\"gopher://127.0.0.1/\"",
        "Bearer realm=\"//127.0.0.1/\"",
        "Bearer realm=\"/token\"",
        "Bearer realm=\"\"",
        "Bearer realm=",
        "Bearer realm=\"http://x",
        "Bearer service=x",
        "Negotiate",
        "Digest realm=x",
        "\"",
        "Bearer realm=\"data:,x\"",
    ] {
        let server = registry(move |_| challenge.to_owned(), good).await;
        let upstream = client(&server.url(""), |config| {
            config.credentials = vec![password("me", "pw")];
        });
        assert_eq!(
            kind(manifest(&upstream).await),
            Kind::BadAnswer,
            "{challenge}"
        );
        assert!(
            server
                .seen()
                .iter()
                .all(|seen| seen.header("authorization").is_none()),
            "{challenge}"
        );
        assert_eq!(server.count("/token"), 0);
    }
    // The first Bearer that may be answered is; a long junk challenge is not read.
    let port = canary.address.port();
    let server = registry(
        move |base| format!("Negotiate, Basic realm=x, Bearer realm=\"http://127.0.0.1:{port}/\", Bearer realm=\"{base}/token\""),
        |_| good_for_password(),
    )
    .await;
    let upstream = client(&server.url(""), |config| {
        config.credentials = vec![password("me", "pw")];
    });
    assert_eq!(manifest(&upstream).await.unwrap(), "{}");
    assert_eq!(canary.connections(), 0);
    let server = registry(
        |base| format!("Bearer x=\"{}\",realm=\"{base}/token\"", "y".repeat(5000)),
        good,
    )
    .await;
    assert_eq!(
        kind(manifest(&super::upstream(&server)).await),
        Kind::BadAnswer
    );
}

fn good_for_password() -> Vec<Step> {
    reply("200 OK", &[], r#"{"access_token":"good"}"#)
}

#[tokio::test]
async fn token_services_that_fail() {
    let canary = Server::canary().await;
    let evil = canary.url("/");
    for (steps, expected, transient) in [
        (
            reply(
                "200 OK",
                &[],
                &format!(r#"{{"token":"{}"}}"#, "x".repeat(20_000)),
            ),
            Kind::Credentials,
            false,
        ),
        (
            reply(
                "200 OK",
                &[],
                &format!(r#"{{"x":"{}","token":"good"}}"#, "x".repeat(65 * 1024)),
            ),
            Kind::Credentials,
            false,
        ),
        (
            reply("200 OK", &[], r#"{"token":"a\r\nEvil: b"}"#),
            Kind::Credentials,
            false,
        ),
        (
            reply("200 OK", &[("Content-Type", "text/html")], "<html>"),
            Kind::Credentials,
            false,
        ),
        (
            reply(
                "200 OK",
                &[("Content-Encoding", "gzip")],
                r#"{"token":"good"}"#,
            ),
            Kind::Credentials,
            false,
        ),
        (
            reply("307 Temporary Redirect", &[("Location", &evil)], ""),
            Kind::Credentials,
            false,
        ),
        (
            reply("302 Found", &[("Location", "http://169.254.169.254/")], ""),
            Kind::Credentials,
            false,
        ),
        (reply("404 Not Found", &[], ""), Kind::Credentials, false),
        (reply("500 Oops", &[], ""), Kind::Credentials, true),
        (vec![Step::Close], Kind::Credentials, true),
        (vec![Step::Hang], Kind::Credentials, true),
        (
            reply("429 Slow", &[("Retry-After", "7")], ""),
            Kind::RateLimited,
            true,
        ),
        (reply("403 Forbidden", &[], ""), Kind::Denied, false),
        (
            reply("401 Unauthorized", &[(CHALLENGE, "Basic realm=x")], ""),
            Kind::Denied,
            false,
        ),
    ] {
        let steps = Arc::new(Mutex::new(Some(steps)));
        let server = registry(bearer, move |_| {
            steps
                .lock()
                .unwrap()
                .take()
                .unwrap_or_else(|| vec![Step::Close])
        })
        .await;
        let error = manifest(&hasty(&server)).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_transient()),
            (expected, transient),
            "{error}"
        );
        // Once, and once more where a connection that had worked was cut.
        assert!(
            server.count("/token") <= 1 + usize::from(transient),
            "{error}"
        );
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_token_that_opens_nothing_is_fetched_once() {
    let server = registry(bearer, |_| reply("200 OK", &[], r#"{"token":"useless"}"#)).await;
    let upstream = upstream(&server);
    for _ in 0..3 {
        assert_eq!(kind(manifest(&upstream).await), Kind::Denied);
    }
    assert_eq!(server.count("/token"), 1);
}

#[tokio::test]
async fn identity_tokens_are_exchanged() {
    let server = registry(bearer, |seen| {
        let fits = seen.method == "POST" && seen.body == "grant_type=refresh_token&service=reg+%26+istry&client_id=roadstead&scope=repository%3Aa%2Fb%3Apull&refresh_token=id";
        if fits { good_for_password() } else { reply("400 Bad", &[], "") }
    })
    .await;
    let upstream = client(&server.url(""), |config| {
        config.credentials = vec![password("<token>", "id")];
    });
    assert_eq!(manifest(&upstream).await.unwrap(), "{}");
    for status in ["404 Not Found", "405 Method Not Allowed"] {
        let server = registry(bearer, move |seen| {
            if seen.method == "POST" {
                reply(status, &[], "")
            } else {
                good(seen)
            }
        })
        .await;
        let upstream = client(&server.url(""), |config| {
            config.credentials = vec![password("", "id")];
        });
        assert_eq!(manifest(&upstream).await.unwrap(), "{}");
        assert_eq!(server.count("/token"), 2);
    }
}

/// A registry that wants Basic authentication, and knows `me:pw`.
async fn basic_registry() -> Server {
    Server::start(|seen| match seen.header("authorization") {
        Some("Basic bWU6cHc=") => reply("200 OK", &[], "{}"),
        _ => reply("401 Unauthorized", &[(CHALLENGE, "Basic realm=\"x\"")], ""),
    })
    .await
}

fn with_authorization(server: &Server) -> usize {
    server
        .seen()
        .iter()
        .filter(|seen| seen.header("authorization").is_some())
        .count()
}

#[tokio::test]
async fn basic() {
    let server = basic_registry().await;
    let upstream = client(&server.url(""), |config| {
        config.credentials = vec![password("me", "pw")];
    });
    manifest(&upstream).await.unwrap();
    manifest(&upstream).await.unwrap();
    assert_eq!((server.seen().len(), with_authorization(&server)), (3, 2));
    assert_eq!(
        kind(manifest(&super::upstream(&server)).await),
        Kind::Denied
    );
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    for server in [
        basic_registry().await,
        registry(bearer, |_| reply("401 Unauthorized", &[], "")).await,
    ] {
        let upstream = client(&server.url(""), |config| {
            config.credentials = vec![password("me", "wrong")];
        });
        let names: Vec<String> = (0..50).map(|n| format!("image{n}")).collect();
        for error in join_all(names.iter().map(|name| manifest_of(&upstream, name))).await {
            assert_eq!(kind(error), Kind::Credentials);
        }
        let error = manifest(&upstream).await.unwrap_err();
        assert!(error.retry_after().unwrap() <= Duration::from_secs(30));
        assert_eq!(with_authorization(&server), 1);
    }
}

#[tokio::test]
async fn a_corrected_password_counts_at_once() {
    let server = basic_registry().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    std::fs::write(&path, "wrong\n").unwrap();
    let upstream = client(&server.url(""), |config| {
        config.credentials = vec![CredentialConfig::Static {
            username: "me".to_owned(),
            password: SecretSource::File(path.clone()),
        }];
    });
    assert_eq!(kind(manifest(&upstream).await), Kind::Credentials);
    assert_eq!(kind(manifest(&upstream).await), Kind::Credentials);
    assert_eq!(with_authorization(&server), 1);
    std::fs::write(&path, "pw\n").unwrap();
    assert_eq!(manifest(&upstream).await.unwrap(), "{}");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(kind(manifest(&upstream).await), Kind::Credentials);
}

#[tokio::test]
async fn a_docker_config() {
    let server = basic_registry().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(
        &path,
        format!(
            r#"{{"auths":{{"{}":{{"auth":"bWU6cHc="}}}}}}"#,
            server.address
        ),
    )
    .unwrap();
    let upstream = client(&server.url(""), |config| {
        config.credentials = vec![CredentialConfig::DockerConfig { path }];
    });
    assert_eq!(manifest(&upstream).await.unwrap(), "{}");
}

#[tokio::test]
async fn the_next_of_a_pool() {
    let server = basic_registry().await;
    let upstream = client(&server.url(""), |config| {
        config.credentials = vec![password("me", "wrong"), password("me", "pw")];
    });
    manifest(&upstream).await.unwrap();
    manifest(&upstream).await.unwrap();
    assert_eq!(with_authorization(&server), 3);

    // "me:pw" is limited, "you:pw" is not.
    let server = Server::start(|seen| match seen.header("authorization") {
        Some("Basic bWU6cHc=") => reply("429 Slow", &[("Retry-After", "60")], ""),
        Some("Basic eW91OnB3") => reply("200 OK", &[], "{}"),
        _ => reply("401 Unauthorized", &[(CHALLENGE, "Basic realm=x")], ""),
    })
    .await;
    let upstream = client(&server.url(""), |config| {
        config.credentials = vec![password("me", "pw"), password("you", "pw")];
    });
    manifest(&upstream).await.unwrap();
    manifest(&upstream).await.unwrap();
    assert_eq!(
        server
            .seen()
            .iter()
            .filter(|seen| seen.header("authorization") == Some("Basic bWU6cHc="))
            .count(),
        1
    );
}
