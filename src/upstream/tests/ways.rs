//! Redirects, proxies, TLS (RELIABILITY R1–R17).

use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::upstream::ProxyConfig;

fn to(location: &str) -> Vec<Step> {
    reply("307 Temporary Redirect", &[("Location", location)], "")
}

fn everywhere(config: &mut Config) {
    config.allow_addresses = vec!["127.0.0.0/8".parse().unwrap()];
}

#[tokio::test]
async fn inside_addresses_are_no_targets() {
    let canary = Server::canary().await;
    let port = canary.address.port();
    for host in [
        "127.0.0.1",
        "127.0.0.2",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "2130706433",
        "0x7f.1",
        "10.0.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "[64:ff9b::a9fe:a9fe]",
    ] {
        let server =
            Server::start(move |_| to(&format!("http://{host}:{port}/x?sig=s3cret"))).await;
        for error in [
            blob(&upstream(&server)).await.unwrap_err(),
            manifest(&upstream(&server)).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::BadAnswer, "{host}: {error}");
            assert!(
                !error.to_string().contains("s3cret")
                    && error.to_string().contains("allow_addresses"),
                "{error}"
            );
        }
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn localhost_as_configured_is_fine() {
    let server = Server::start(|_| reply("200 OK", &[], "{}")).await;
    for url in [
        server.url("").replace("127.0.0.1", "localhost"),
        server.url("").replace("127.0.0.1", "127.1"),
    ] {
        assert_eq!(
            manifest(&client(&url, |_| {})).await.unwrap(),
            "{}",
            "{url}"
        );
    }
}

#[tokio::test]
async fn targets_learn_nothing() {
    let target = Server::start(|_| reply("200 OK", &[], "hello")).await;
    let location = target.url("/cdn?sig=x");
    let server = Server::start(move |seen| match seen.header("authorization") {
        Some(_) => to(&location),
        None => reply(
            "401 Unauthorized",
            &[("WWW-Authenticate", "Basic realm=x")],
            "",
        ),
    })
    .await;
    let upstream = client(&server.url(""), |config| {
        everywhere(config);
        config.credentials = vec![password("me", "pw")];
    });
    assert_eq!(blob(&upstream).await.unwrap(), "hello");
    assert_eq!(blob_part(&upstream, Span::From(2)).await.unwrap(), "hello");
    let seen = target.seen();
    for seen in &seen {
        let mut names: Vec<&str> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.retain(|name| *name != "range");
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "accept-encoding",
                "cdn-loop",
                "host",
                "user-agent"
            ]
        );
    }
    assert_eq!(seen[1].header("range"), Some("bytes=2-"));
}

#[tokio::test]
async fn credentials_do_not_come_back() {
    let middle = Server::start(|seen| {
        to(&format!(
            "http://{}/again",
            seen.target.rsplit('=').next().unwrap()
        ))
    })
    .await;
    let location = middle.url("/");
    let server = Server::start_with(move |address| {
        move |seen: &Seen| match (seen.target.as_str(), seen.header("authorization")) {
            ("/again", None) => reply("200 OK", &[], "came back"),
            ("/again", Some(_)) => reply("500 Leak", &[], ""),
            (_, Some(_)) => to(&format!("{location}?to={address}")),
            (_, None) => reply(
                "401 Unauthorized",
                &[("WWW-Authenticate", "Basic realm=x")],
                "",
            ),
        }
    })
    .await;
    let upstream = client(&server.url(""), |config| {
        everywhere(config);
        config.credentials = vec![password("me", "pw")];
    });
    assert_eq!(blob(&upstream).await.unwrap(), "came back");
}

#[tokio::test]
async fn a_targets_challenge_is_not_answered() {
    let target = Server::start_with(|address| {
        move |_: &Seen| {
            reply(
                "401 Unauthorized",
                &[(
                    "WWW-Authenticate",
                    &format!("Bearer realm=\"http://{address}/token\""),
                )],
                "",
            )
        }
    })
    .await;
    let location = target.url("/x");
    let server = Server::start(move |_| to(&location)).await;
    let upstream = client(&server.url(""), |config| {
        everywhere(config);
        config.credentials = vec![password("me", "pw")];
    });
    let error = blob(&upstream).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_transient()),
        (Kind::Unavailable, true)
    );
    assert_eq!(kind(manifest(&upstream).await), Kind::Denied);
    assert_eq!(target.seen().len(), 2);
    // The registry itself is fine.
    for _ in 0..5 {
        assert_eq!(kind(blob(&upstream).await), Kind::Unavailable);
    }
    assert_eq!(upstream.breaker(), crate::upstream::BreakerState::Closed);
}

#[tokio::test]
async fn ways_that_do_not_end() {
    let server = Server::start(|seen| to(&seen.target)).await;
    assert_eq!(kind(blob(&upstream(&server)).await), Kind::BadAnswer);
    assert_eq!(server.seen().len(), 1);
    let server = Server::start(|seen| {
        let hop: usize = seen.target.trim_start_matches('/').parse().unwrap_or(0);
        if hop == 5 {
            reply("200 OK", &[], "far")
        } else {
            to(&format!("/{}", hop + 1))
        }
    })
    .await;
    assert_eq!(blob(&upstream(&server)).await.unwrap(), "far");
    let server = Server::start(|seen| {
        let hop: usize = seen.target.trim_start_matches('/').parse().unwrap_or(0);
        to(&format!("/{}", hop + 1))
    })
    .await;
    assert_eq!(kind(blob(&upstream(&server)).await), Kind::BadAnswer);
    assert_eq!(server.seen().len(), 6);
    for head in [
        "",
        "Location: \r\n",
        "Location: file:///etc/passwd\r\n",
        "Location: /a\r\nLocation: /b\r\n",
        "Location: http://u:p@127.0.0.1/\r\n",
        "Refresh: 0; url=/a\r\n",
    ] {
        let server = Server::start(move |_| {
            raw(format!(
                "HTTP/1.1 302 Found\r\n{head}Content-Length: 0\r\n\r\n"
            ))
        })
        .await;
        assert_eq!(
            kind(blob(&upstream(&server)).await),
            Kind::BadAnswer,
            "{head}"
        );
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn methods_are_kept() {
    for status in ["301 X", "302 X", "303 X", "307 X", "308 X"] {
        let server = Server::start(move |seen| {
            if seen.target == "/there" {
                reply("200 OK", &[("Alt-Svc", "h3=\":1\"")], "{}")
            } else {
                reply(status, &[("Location", "/there")], "")
            }
        })
        .await;
        let upstream = upstream(&server);
        assert_eq!(manifest(&upstream).await.unwrap(), "{}");
        upstream
            .head_manifest(&Hops::none(), &name("a"), &tag())
            .await
            .unwrap();
        let methods: Vec<String> = server.seen().into_iter().map(|seen| seen.method).collect();
        assert_eq!(methods, ["GET", "GET", "HEAD", "HEAD"]);
    }
}

struct Authority {
    pem: tempfile::NamedTempFile,
    acceptor: tokio_rustls::TlsAcceptor,
}

/// A certificate authority, and a server's end of TLS with a certificate for `localhost` by it.
fn authority(protocols: &[&[u8]]) -> Authority {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(
        vec![certificate.der().clone()],
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
    )
    .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let pem = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(pem.path(), ca_certificate.pem()).unwrap();
    Authority {
        pem,
        acceptor: Arc::new(config).into(),
    }
}

#[tokio::test]
async fn tls() {
    let authority = authority(&[b"http/1.1"]);
    let server = Server::start_tls(
        |_| |_: &Seen| reply("200 OK", &[], "{}"),
        Some(authority.acceptor.clone()),
    )
    .await;
    let url = format!("https://localhost:{}", server.address.port());
    let trusting = client(&url, |config| {
        config.ca = Some(authority.pem.path().to_owned());
    });
    assert_eq!(manifest(&trusting).await.unwrap(), "{}");
    // Unknown authority, wrong name: no request is made.
    let error = manifest(&client(&url, |_| {})).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("TLS"), "{error}");
    let wrong = format!("https://127.0.0.1:{}", server.address.port());
    let error = manifest(&client(&wrong, |config| {
        config.ca = Some(authority.pem.path().to_owned());
    }))
    .await;
    assert_eq!(kind(error), Kind::Unavailable);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn http2() {
    const SIZE: usize = 3 * 1024 * 1024;
    let authority = authority(&[b"h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    let (acceptor, connections) = (authority.acceptor.clone(), Arc::new(AtomicUsize::new(0)));
    let (inner, accepted) = (tasks.clone(), Arc::clone(&connections));
    background(&tasks, async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            accepted.fetch_add(1, Ordering::SeqCst);
            let acceptor = acceptor.clone();
            background(&inner, async move {
                let socket = hyper_util::rt::TokioIo::new(acceptor.accept(socket).await.unwrap());
                let service = hyper::service::service_fn(
                    |request: http::Request<hyper::body::Incoming>| async move {
                        let size = if request.uri().path().contains("blobs") {
                            SIZE
                        } else {
                            2
                        };
                        // A head of more than 64 KiB for one image.
                        let filler = "x".repeat(if request.uri().path().contains("huge") {
                            70_000
                        } else {
                            1
                        });
                        let body = http_body_util::Full::new(bytes::Bytes::from(vec![b'x'; size]));
                        http::Response::builder()
                            .header("filler", filler)
                            .body(body)
                    },
                );
                let executor = hyper_util::rt::TokioExecutor::new();
                let _ = hyper::server::conn::http2::Builder::new(executor)
                    .serve_connection(socket, service)
                    .await;
            });
        }
    });
    let upstream = client(&format!("https://localhost:{}", address.port()), |config| {
        config.ca = Some(authority.pem.path().to_owned());
    });
    assert_eq!(manifest(&upstream).await.unwrap(), "xx");
    let all = futures_util::future::join_all((0..6).map(|_| blob(&upstream))).await;
    assert!(all.into_iter().all(|blob| blob.unwrap().len() == SIZE));
    assert!(manifest_of(&upstream, "huge").await.is_err());
    assert_eq!(manifest(&upstream).await.unwrap(), "xx");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    tasks.stopping().cancel();
}

#[tokio::test]
async fn never_from_tls_to_cleartext() {
    let canary = Server::canary().await;
    let authority = authority(&[]);
    let (location, realm) = (canary.url("/"), canary.url("/token"));
    let server = Server::start_tls(
        |_| {
            move |seen: &Seen| {
                if seen.target.contains("blobs") {
                    to(&location)
                } else {
                    reply(
                        "401 Unauthorized",
                        &[("WWW-Authenticate", &format!("Bearer realm=\"{realm}\""))],
                        "",
                    )
                }
            }
        },
        Some(authority.acceptor.clone()),
    )
    .await;
    let upstream = client(
        &format!("https://localhost:{}", server.address.port()),
        |config| {
            config.ca = Some(authority.pem.path().to_owned());
            config.token_hosts = vec![canary.address.to_string()];
            everywhere(config);
        },
    );
    assert_eq!(kind(blob(&upstream).await), Kind::BadAnswer);
    assert_eq!(kind(manifest(&upstream).await), Kind::Credentials);
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_handshake_that_never_ends() {
    let server = Server::start(|_| vec![Step::Hang]).await;
    let upstream = client(
        &format!("https://localhost:{}", server.address.port()),
        |config| {
            config.timeouts.tls = Duration::from_millis(200);
        },
    );
    assert_eq!(kind(manifest(&upstream).await), Kind::Timeout);
}

#[tokio::test]
async fn a_proxy_for_cleartext() {
    let proxy = Server::start(|_| reply("200 OK", &[], "{}")).await;
    let upstream = client("http://registry.invalid:5000", |config| {
        config.proxy = ProxyConfig {
            http: Some(format!("http://user:pw@{}", proxy.address)),
            https: None,
            no: None,
        };
    });
    assert_eq!(manifest(&upstream).await.unwrap(), "{}");
    let seen = &proxy.seen()[0];
    assert_eq!(
        seen.target,
        "http://registry.invalid:5000/v2/a/b/manifests/latest"
    );
    assert_eq!(
        seen.header("proxy-authorization"),
        Some("Basic dXNlcjpwdw==")
    );
    // NO_PROXY goes straight.
    let server = Server::start(|_| reply("200 OK", &[], "[]")).await;
    let upstream = client(&server.url(""), |config| {
        config.proxy = ProxyConfig {
            http: Some(format!("http://{}", proxy.address)),
            https: None,
            no: Some("127.0.0.0/8".to_owned()),
        };
    });
    assert_eq!(manifest(&upstream).await.unwrap(), "[]");
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn a_proxy_is_no_way_around_the_guard() {
    let proxy = Server::start(|seen| {
        if seen.target.contains("registry.invalid") {
            to("http://169.254.169.254/latest/meta-data/")
        } else {
            reply("200 OK", &[], "s3cret")
        }
    })
    .await;
    let upstream = client("http://registry.invalid", |config| {
        config.proxy.http = Some(proxy.address.to_string());
    });
    assert_eq!(kind(blob(&upstream).await), Kind::BadAnswer);
    assert_eq!(proxy.seen().len(), 1);
}

#[tokio::test]
async fn a_proxy_for_tls() {
    let authority = authority(&[b"http/1.1"]);
    let server = Server::start_tls(
        |_| |_: &Seen| reply("200 OK", &[], "{}"),
        Some(authority.acceptor.clone()),
    )
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    let target = server.address;
    background(&tasks, async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(
            head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", target.port())),
            "{head}"
        );
        assert!(
            head.contains("Proxy-Authorization: Basic dXNlcjpwdw==\r\n"),
            "{head}"
        );
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut onward = tokio::net::TcpStream::connect(target).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut socket, &mut onward).await;
    });
    let upstream = client(&format!("https://localhost:{}", target.port()), |config| {
        config.ca = Some(authority.pem.path().to_owned());
        config.proxy.https = Some(format!("http://user:pw@{proxy}"));
    });
    assert_eq!(manifest(&upstream).await.unwrap(), "{}");
    // The proxy's password is not the upstream's business.
    assert_eq!(server.seen()[0].header("proxy-authorization"), None);
    tasks.stopping().cancel();
}
