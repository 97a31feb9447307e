//! What goes over the wire, and what answers are taken.

use super::*;

#[tokio::test]
async fn a_manifest() {
    let server = Server::start(|_| {
        reply(
            "200 OK",
            &[
                (
                    "Content-Type",
                    "application/vnd.oci.image.index.v1+json; charset=utf-8",
                ),
                (
                    "Docker-Content-Digest",
                    "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
                ),
                ("ETag", "\"x\""),
                ("Set-Cookie", "a=b"),
            ],
            "{}",
        )
    })
    .await;
    let upstream = client(&server.url("/pre/fix/"), |config| {
        config.ns = Some("docker.io".to_owned());
    });
    let hops = Hops::from_headers(
        &[(super::super::CDN_LOOP, "other".parse().unwrap())]
            .into_iter()
            .collect(),
    );
    let body = upstream
        .get_manifest(&hops, &name("a/b"), &tag())
        .await
        .unwrap();
    assert_eq!(&body.bytes[..], b"{}");
    assert_eq!(
        body.media_type.unwrap().as_str(),
        "application/vnd.oci.image.index.v1+json"
    );
    assert_eq!(body.digest_header.unwrap(), Digest::of(b"x"));
    assert_eq!(body.etag.as_deref(), Some("\"x\""));
    let head = upstream
        .head_manifest(&Hops::none(), &name("a/b"), &tag())
        .await
        .unwrap();
    assert_eq!((head.size, head.digest), (Some(2), Some(Digest::of(b"x"))));
    let seen = server.seen();
    assert_eq!(
        seen[0].target,
        "/pre/fix/v2/a/b/manifests/latest?ns=docker.io"
    );
    assert_eq!(seen[0].header("accept-encoding"), Some("identity"));
    assert_eq!(
        seen[0].header("user-agent"),
        Some(concat!("roadstead/", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(seen[0].header("cdn-loop"), Some("other, me"));
    let accept = seen[0].header("accept").unwrap();
    assert!(
        accept.starts_with("application/vnd.oci.image.index.v1+json, ")
            && accept.contains("distribution.manifest.v2+json")
    );
    assert_eq!(
        seen[0]
            .headers
            .iter()
            .filter(|(name, _)| name == "accept")
            .count(),
        1
    );
    assert_eq!(seen[1].method, "HEAD");
    assert_eq!(seen[1].header("cookie"), None);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_head_that_tells_nothing_or_lies() {
    let server =
        Server::start(|_| raw("HTTP/1.1 200 OK\r\nDocker-Content-Digest: sha256:zz\r\n\r\n")).await;
    let head = upstream(&server)
        .head_manifest(&Hops::none(), &name("a"), &tag())
        .await
        .unwrap();
    assert!(head.digest.is_none() && head.media_type.is_none() && head.size.is_none());
    let head = upstream(&server)
        .head_blob(&Hops::none(), &name("a"), &digest())
        .await
        .unwrap();
    assert_eq!(head.size, None);
}

#[tokio::test]
async fn statuses() {
    for (status, expected, transient) in [
        ("404 Not Found", Kind::NotFound, false),
        ("403 Forbidden", Kind::Denied, false),
        ("401 Unauthorized", Kind::Denied, false),
        ("429 Too Many Requests", Kind::RateLimited, true),
        ("500 Oops", Kind::Unavailable, true),
        ("502 Bad Gateway", Kind::Unavailable, true),
        ("504 Gateway Timeout", Kind::Timeout, true),
        ("408 Request Timeout", Kind::Timeout, true),
        ("508 Loop Detected", Kind::Loop, false),
        ("206 Partial Content", Kind::BadAnswer, false),
        ("204 No Content", Kind::BadAnswer, false),
        ("300 Multiple Choices", Kind::BadAnswer, false),
        ("304 Not Modified", Kind::BadAnswer, false),
        ("305 Use Proxy", Kind::BadAnswer, false),
        ("306 What", Kind::BadAnswer, false),
        ("407 Proxy Authentication Required", Kind::BadAnswer, false),
        ("418 Teapot", Kind::BadAnswer, false),
        ("416 Range Not Satisfiable", Kind::BadAnswer, false),
    ] {
        let server = Server::start(move |_| {
            reply(
                status,
                &[("Location", "/x")],
                "<script>s3cret</script>\u{1b}[31m",
            )
        })
        .await;
        for error in [
            manifest(&upstream(&server)).await.unwrap_err(),
            blob(&upstream(&server)).await.unwrap_err(),
            upstream(&server)
                .tags(&Hops::none(), &name("a"))
                .await
                .unwrap_err(),
        ] {
            assert_eq!(error.kind(), expected, "{status}");
            assert_eq!(error.is_transient(), transient, "{status}");
            assert!(
                status.starts_with(&error.status().unwrap().to_string()),
                "{status}"
            );
            assert!(!error.to_string().contains("s3cret"));
        }
        assert_eq!(server.seen().len(), 3, "{status}");
    }
}

#[tokio::test]
async fn answers_that_are_no_registrys() {
    let huge = format!(
        "HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\n{{}}",
        "x".repeat(66_000)
    );
    let many = format!(
        "HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\n{{}}",
        "X: y\r\n".repeat(10_000)
    );
    let storm = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(10_000);
    for (text, what) in [
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi".to_owned(), "page"),
        ("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi".to_owned(), "gzip"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi".to_owned(), "two lengths"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_owned(), "two framings"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned(), "101"),
        ("SSH-2.0-OpenSSH_9\r\n\r\n".to_owned(), "no HTTP"),
        (huge, "a huge header"),
        (many, "many headers"),
        (storm, "nothing but interim responses"),
    ] {
        let server = Server::start(move |_| raw(text.clone())).await;
        assert_eq!(kind(manifest(&upstream(&server)).await), Kind::BadAnswer, "{what}");
        assert_eq!(kind(blob(&upstream(&server)).await), Kind::BadAnswer, "{what}");
    }
    let few = format!(
        "{}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}",
        "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(5)
    );
    let server = Server::start(move |_| raw(few.clone())).await;
    assert_eq!(manifest(&upstream(&server)).await.unwrap(), "{}");
}

#[tokio::test]
async fn manifests_have_a_size() {
    for head in ["Content-Length: 4194305\r\n", ""] {
        let server = Server::start(move |_| {
            raw(format!(
                "HTTP/1.1 200 OK\r\n{head}\r\n{}",
                "x".repeat(4_194_305)
            ))
        })
        .await;
        assert_eq!(kind(manifest(&upstream(&server)).await), Kind::BadAnswer);
    }
}

#[tokio::test]
async fn tags_in_pages() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/v2/a/b/tags/list?n=1000" => reply(
            "200 OK",
            &[("Link", "</v2/a/b/tags/list?n=1000&last=b>; rel=\"next\"")],
            r#"{"name":"a/b","tags":["a","b","../x",3,"b"],"manifest":{"x":{}}}"#,
        ),
        _ => reply("200 OK", &[], r#"{"name":"a/b","tags":["c"]}"#),
    })
    .await;
    let tags = upstream(&server)
        .tags(&Hops::none(), &name("a/b"))
        .await
        .unwrap();
    assert_eq!(tags, ["a", "b", "c"]);
    let server = Server::start(|_| reply("200 OK", &[], r#"{"name":"a/b","tags":null}"#)).await;
    assert!(
        upstream(&server)
            .tags(&Hops::none(), &name("a/b"))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn lists_that_lead_away_or_nowhere() {
    let canary = Server::canary().await;
    for link in [
        canary.url("/v2/a/b/tags/list"),
        "/v2/a/b/tags/list?n=1000".to_owned(),
        "?last=same".to_owned(),
    ] {
        let server = Server::start(move |_| {
            reply(
                "200 OK",
                &[("Link", &format!("<{link}>; rel=next"))],
                r#"{"tags":["a"]}"#,
            )
        })
        .await;
        assert_eq!(
            kind(upstream(&server).tags(&Hops::none(), &name("a/b")).await),
            Kind::BadAnswer
        );
        assert!(server.seen().len() <= 2);
    }
    assert_eq!(canary.connections(), 0);
    let server = Server::start(|_| reply("200 OK", &[], "<html>")).await;
    assert_eq!(
        kind(upstream(&server).tags(&Hops::none(), &name("a/b")).await),
        Kind::BadAnswer
    );
}

#[tokio::test]
async fn referrers() {
    let list = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":5,"artifactType":"x/y"}}]}}"#,
        digest()
    );
    let server = Server::start(move |_| {
        reply(
            "200 OK",
            &[("Content-Type", "application/vnd.oci.image.index.v1+json")],
            &list,
        )
    })
    .await;
    let found = upstream(&server)
        .referrers(&Hops::none(), &name("a/b"), &digest())
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].artifact_type(), Some("x/y"));
    for status in [
        "404 Not Found",
        "400 Bad Request",
        "405 Method Not Allowed",
        "501 Not Implemented",
    ] {
        let server = Server::start(move |_| reply(status, &[], "")).await;
        let result = upstream(&server)
            .referrers(&Hops::none(), &name("a/b"), &digest())
            .await;
        assert_eq!(kind(result), Kind::NotFound, "{status}");
    }
    let server = Server::start(|_| reply("503 Oops", &[], "")).await;
    assert_eq!(
        kind(
            upstream(&server)
                .referrers(&Hops::none(), &name("a/b"), &digest())
                .await
        ),
        Kind::Unavailable
    );
    let server = Server::start(|_| reply("200 OK", &[], "{\"config\":{}}")).await;
    assert_eq!(
        kind(
            upstream(&server)
                .referrers(&Hops::none(), &name("a/b"), &digest())
                .await
        ),
        Kind::BadAnswer
    );
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool() {
    let server = Server::start(|seen| {
        // The second request on a connection finds it closed.
        if seen.connection == 0 && seen.target.contains("second") {
            vec![Step::Close]
        } else {
            reply("200 OK", &[], "{}")
        }
    })
    .await;
    let upstream = upstream(&server);
    manifest_of(&upstream, "first").await.unwrap();
    manifest_of(&upstream, "second").await.unwrap();
    assert_eq!((server.connections(), server.seen().len()), (2, 3));

    let server = Server::start(|_| vec![Step::Close]).await;
    assert_eq!(
        kind(manifest(&super::upstream(&server)).await),
        Kind::Unavailable
    );
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn our_own_requests_coming_back() {
    let server = Server::canary().await;
    let upstream = upstream(&server);
    let hops = Hops::from_headers(
        &[(super::super::CDN_LOOP, "me, other".parse().unwrap())]
            .into_iter()
            .collect(),
    );
    assert_eq!(
        kind(upstream.get_manifest(&hops, &name("a"), &tag()).await),
        Kind::Loop
    );
    assert_eq!(server.connections(), 0);
}
