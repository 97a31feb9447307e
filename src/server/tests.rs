use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{CertificatePair, Config, Connection, Handler, Limits, ListenerConfig, Server};
use crate::body::Body;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

struct Echo;

impl Handler for Echo {
    async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        _connection: Connection,
    ) -> Response<Body> {
        match request.uri().path() {
            "/panic" => panic!("on purpose"),
            "/endless" => Response::new(Body::stream(
                futures_util::stream::repeat_with(|| Ok(Bytes::from(vec![0; 65536]))),
                None,
            )),
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Response::new(Body::full("slow"))
            }
            path => Response::new(Body::full(path.to_owned())),
        }
    }
}

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    metrics: Arc<Metrics>,
    tasks: Tasks,
}

fn start(limits: Limits) -> Running {
    let server = Server::bind(Config {
        listeners: vec![ListenerConfig {
            address: "127.0.0.1:0".parse().unwrap(),
            tls: vec![],
            role: 7,
        }],
        limits,
    })
    .unwrap();
    let address = server.addresses()[0].0;
    let running = Running {
        address,
        shutdown: CancellationToken::new(),
        metrics: Arc::new(Metrics::new()),
        tasks: Tasks::new(),
    };
    let (tasks, metrics, shutdown) = (
        running.tasks.clone(),
        Arc::clone(&running.metrics),
        running.shutdown.clone(),
    );
    running.tasks.spawn("server", async move {
        server.run(Arc::new(Echo), &tasks, metrics, shutdown).await;
    });
    running
}

fn small() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(400),
        stalled_client: Duration::from_millis(300),
        drain: Duration::from_secs(5),
        ..Limits::default()
    }
}

/// Sends bytes and reads until the server closes.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset after a refusal is an end like any other.
    drop(
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer))
            .await
            .expect("the server closes"),
    );
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_are_answered_on_one_connection() {
    let running = start(small());
    let answer = exchange(running.address, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    assert!(answer.contains("/a") && answer.ends_with("/b"));
}

#[tokio::test]
async fn a_body_nobody_asked_for_does_not_become_a_request() {
    let running = start(small());
    let answer = exchange(running.address, b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n     GET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(!answer.contains("/evil"), "{answer}");
}

#[tokio::test]
async fn what_is_ambiguous_or_too_large_is_refused() {
    let running = start(small());
    let long = "a".repeat(9000);
    let big = "b".repeat(33_000);
    let many = "X: y\r\n".repeat(101);
    let table = [
        (
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            "400",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"
                .to_owned(),
            "400",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            "400",
        ),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned(),
            "400",
        ),
        ("GET / HTTP/1.1\r\nHost: x/y\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nHost: x:99999\r\n\r\n".to_owned(), "400"),
        (
            "GET http://evil/v2/ HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "400",
        ),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n".to_owned(), "400"),
        (
            "CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n".to_owned(),
            "405",
        ),
        ("TRACE / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "405"),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nExpect: foo\r\n\r\n".to_owned(),
            "417",
        ),
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), "414"),
        (
            format!("GET / HTTP/1.1\r\nHost: x\r\nX: {big}\r\n\r\n"),
            "431",
        ),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"), "431"),
        (
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "400",
        ),
    ];
    for (request, status) in table {
        let answer = exchange(running.address, request.as_bytes()).await;
        let shown: String = request.chars().take(60).collect();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}"))
                || answer.starts_with(&format!("HTTP/1.0 {status}")),
            "{shown}\n{answer}"
        );
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{shown}");
    }
}

#[tokio::test]
async fn connections_that_do_not_get_to_the_point_are_closed() {
    let running = start(small());
    for beginning in [
        "",
        "G",
        "PRI * HTTP/2.0\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n",
    ] {
        exchange(running.address, beginning.as_bytes()).await;
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed() {
    let running = start(small());
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream
        .write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    // Nothing is read; the server notices and lets go of the connection.
    for _ in 0..500 {
        if running.metrics.connections.get() == 0 && running.metrics.in_flight.get() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the stalled connection is still open");
}

#[tokio::test]
async fn a_panic_fails_one_request() {
    let running = start(small());
    let answer = exchange(running.address, b"GET /panic HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 500") && answer.contains("UNKNOWN"),
        "{answer}"
    );
    assert_eq!(running.metrics.panics.get(), 1);
}

#[tokio::test]
async fn draining_finishes_what_is_under_way() {
    let running = start(small());
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream
        .write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    running.shutdown.cancel();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("slow"), "{answer}");
    running.tasks.stop(Duration::from_secs(5)).await;
    assert!(
        TcpStream::connect(running.address).await.is_err(),
        "new work is refused"
    );
}

#[tokio::test]
async fn certificates_are_chosen_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut pairs = Vec::new();
    let mut roots = rustls::RootCertStore::empty();
    for name in ["one.test", "two.test"] {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (certificate, key) = (
            dir.path().join(name),
            dir.path().join(format!("{name}.key")),
        );
        std::fs::write(&certificate, cert.pem()).unwrap();
        std::fs::write(&key, signing_key.serialize_pem()).unwrap();
        roots.add(cert.der().clone()).unwrap();
        pairs.push(CertificatePair { certificate, key });
    }
    let listener = |tls| ListenerConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        tls,
        role: 0,
    };
    let swapped = CertificatePair {
        key: pairs[1].key.clone(),
        ..pairs[0].clone()
    };
    let wrong = Server::bind(Config {
        listeners: vec![listener(vec![swapped])],
        limits: small(),
    });
    assert!(
        wrong.unwrap_err().to_string().contains("one.test"),
        "the error names the file"
    );
    let server = Server::bind(Config {
        listeners: vec![listener(pairs)],
        limits: small(),
    })
    .unwrap();
    let address = server.addresses()[0].0;
    let tasks = Tasks::new();
    let running = tasks.clone();
    tasks.spawn("server", async move {
        server
            .run(
                Arc::new(Echo),
                &running,
                Arc::new(Metrics::new()),
                CancellationToken::new(),
            )
            .await;
    });
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    for name in ["one.test", "two.test"] {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = connector
            .connect(name.try_into().unwrap(), stream)
            .await
            .unwrap();
        stream
            .write_all(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("/x"),
            "{name}: {answer}"
        );
    }
    // Half a handshake is closed, and so is plain HTTP.
    exchange(address, &[22, 3, 1]).await;
    exchange(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
}
