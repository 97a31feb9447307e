//! TLS: certificates by SNI, protocols by ALPN, errors that name the file, reload, clients that stall.

use std::path::Path;
use std::sync::Arc;

use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::{
    Running, SOON, eventually, get_last, limits, listener, no_body, read_to_end, start_with,
};
use crate::server::{CertificatePair, Config, Limits, Server};

/// Writes a self-signed certificate for `names`; the files are called `stem`.
fn certificate(dir: &Path, stem: &str, names: &[&str]) -> CertificatePair {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let pair = CertificatePair {
        certificate: dir.join(format!("{stem}.pem")),
        key: dir.join(format!("{stem}.key")),
    };
    std::fs::write(&pair.certificate, made.cert.pem()).unwrap();
    std::fs::write(&pair.key, made.signing_key.serialize_pem()).unwrap();
    pair
}

async fn connect(
    server: &Running,
    name: &str,
    trust: &CertificatePair,
    alpn: &[&str],
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&trust.certificate).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, server.connect().await)
        .await
}

async fn serves(server: &Running, name: &str, trust: &CertificatePair) -> bool {
    let Ok(mut stream) = connect(server, name, trust, &[]).await else {
        return false;
    };
    stream
        .write_all(get_last("/hello").as_bytes())
        .await
        .unwrap();
    let reply = read_to_end(&mut stream).await;
    assert!(!reply.reset, "the end is announced");
    reply.statuses() == [200]
}

async fn start(pairs: Vec<CertificatePair>, limits: Limits) -> Running {
    start_with(vec![listener(Some(pairs), 0)], limits).await
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name() {
    let dir = TempDir::new().unwrap();
    let first = certificate(dir.path(), "first", &["first.example", "localhost"]);
    let wild = certificate(dir.path(), "wild", &["*.wild.example"]);
    let server = start(vec![first.clone(), wild.clone()], limits()).await;
    assert!(serves(&server, "first.example", &first).await);
    assert!(serves(&server, "a.wild.example", &wild).await);
    assert!(!serves(&server, "a.wild.example", &first).await);
    assert!(
        !serves(&server, "other.example", &first).await,
        "gets the first, which is not its own"
    );
}

#[tokio::test]
async fn both_protocols_are_offered() {
    let dir = TempDir::new().unwrap();
    let pair = certificate(dir.path(), "a", &["a.example"]);
    let server = start(vec![pair.clone()], limits()).await;
    let stream = connect(&server, "a.example", &pair, &["h2", "http/1.1"])
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    let request = Request::get("https://a.example/hello")
        .body(no_body())
        .unwrap();
    let response = tokio::select! {
        response = client.send_request(request) => response.unwrap(),
        _ = connection => panic!("the connection ends"),
    };
    assert_eq!(response.status(), 200);

    let stream = connect(&server, "a.example", &pair, &["http/1.1"])
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn errors_name_the_file() {
    let dir = TempDir::new().unwrap();
    let good = certificate(dir.path(), "good", &["a.example"]);
    let other = certificate(dir.path(), "other", &["a.example"]);
    let text = dir.path().join("text.pem");
    std::fs::write(&text, "not a certificate").unwrap();
    let missing = dir.path().join("missing.pem");
    let cases = [
        (
            missing.clone(),
            good.key.clone(),
            "missing.pem: No such file",
        ),
        (
            good.certificate.clone(),
            missing,
            "missing.pem: No such file",
        ),
        (
            text.clone(),
            good.key.clone(),
            "text.pem: no certificate in it",
        ),
        (
            good.certificate.clone(),
            text,
            "text.pem: no private key in it",
        ),
        (
            good.certificate.clone(),
            good.certificate.clone(),
            "good.pem: no private key in it",
        ),
        (
            good.key.clone(),
            good.key.clone(),
            "good.key: no certificate in it",
        ),
        (
            good.certificate.clone(),
            other.key,
            "other.key: the key does not belong to the certificate",
        ),
    ];
    for (certificate, key, expected) in cases {
        let pairs = vec![good.clone(), CertificatePair { certificate, key }];
        let config = Config {
            listeners: vec![listener(Some(pairs), 0)],
            limits: limits(),
        };
        let error = Server::bind(config, Arc::default())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    let config = Config {
        listeners: vec![listener(Some(Vec::new()), 0)],
        limits: limits(),
    };
    let error = Server::bind(config, Arc::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no certificate"), "{error}");
}

#[tokio::test]
async fn a_reload_takes_what_is_good_and_keeps_what_it_has_otherwise() {
    let dir = TempDir::new().unwrap();
    let pair = certificate(dir.path(), "a", &["a.example"]);
    let server = start(vec![pair.clone()], limits()).await;
    let keep = CertificatePair {
        certificate: dir.path().join("old.pem"),
        ..pair.clone()
    };
    std::fs::copy(&pair.certificate, &keep.certificate).unwrap();

    std::fs::write(&pair.key, "half a file").unwrap();
    let error = server.reload.reload().await.unwrap_err().to_string();
    assert!(error.contains("a.key"), "{error}");
    assert!(serves(&server, "a.example", &keep).await);

    let renewed = certificate(dir.path(), "a", &["a.example"]);
    server.reload.reload().await.unwrap();
    assert!(serves(&server, "a.example", &renewed).await);
    assert!(!serves(&server, "a.example", &keep).await);
}

#[tokio::test]
async fn half_a_handshake_has_a_deadline() {
    let dir = TempDir::new().unwrap();
    let pair = certificate(dir.path(), "a", &["a.example"]);
    let quick = Limits {
        tls_handshake: SOON,
        header_timeout: SOON,
        ..limits()
    };
    let server = start(vec![pair.clone()], quick).await;
    // nothing; a record that announces more; after the handshake, nothing
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        server.exchange(begun).await;
    }
    let mut shaken = connect(&server, "a.example", &pair, &["h2"]).await.unwrap();
    read_to_end(&mut shaken).await;
    eventually!(server.metrics.connections.get() == 0);
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told_so() {
    let dir = TempDir::new().unwrap();
    let pair = certificate(dir.path(), "a", &["a.example"]);
    let server = start(vec![pair.clone()], limits()).await;
    let reply = server.exchange(get_last("/hello").as_bytes()).await;
    assert_eq!(reply.statuses(), [400]);
    assert!(serves(&server, "a.example", &pair).await);
}
