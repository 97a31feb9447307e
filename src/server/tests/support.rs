//! A server with a handler of known behaviour, and a client that writes raw bytes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, BodyError};
use crate::server::{CertificatePair, Config, Connection, Handler, Limits, ListenerConfig};
use crate::server::{Reload, RequestBody, Server};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Longer than anything here takes; only a failing test waits so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
macro_rules! eventually {
    ($condition:expr) => {{
        let begun = tokio::time::Instant::now();
        while !$condition {
            assert!(
                begun.elapsed() < $crate::server::tests::support::PATIENCE,
                concat!("never: ", stringify!($condition))
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }};
}
pub(super) use eventually;

/// Answers by the path alone; see [`Probe::answer`].
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// `METHOD path` of every request that arrived.
    pub(super) seen: Mutex<Vec<String>>,
    /// Lets `/late` and `/held` go on.
    pub(super) go: Notify,
}

impl Probe {
    async fn answer(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: RequestBody,
        connection: Connection,
    ) -> Response<Body> {
        match path.split('/').nth(1).unwrap_or_default() {
            "hello" => Response::new(Body::full("hello")),
            "host" => {
                let host = headers
                    .get("host")
                    .map_or("-", |host| host.to_str().unwrap());
                Response::new(Body::full(format!("{host} {path} {}", connection.role)))
            }
            "who" => {
                let client = connection.client.as_deref().unwrap_or("-");
                Response::new(Body::full(client.to_owned()))
            }
            "panic" => panic!("asked to"),
            "body-panic" => {
                let end = flushed().map(|()| panic!("asked to"));
                Response::new(Body::stream(some().chain(end), Some(12)))
            }
            "broken" => {
                let end = flushed().map(|()| Err(BodyError::new("asked to")));
                Response::new(Body::stream(some().chain(end), None))
            }
            "much" => {
                let chunk = Bytes::from(vec![7_u8; 64 * 1024]);
                let count = 4096;
                let length = chunk.len() as u64 * count;
                let chunks = stream::iter(0..count).map(move |_| Ok(chunk.clone()));
                Response::new(Body::stream(chunks, Some(length)))
            }
            "ample" => Response::new(Body::full(vec![7_u8; 300 * 1024])),
            "held" => {
                self.go.notified().await;
                Response::new(Body::full("held"))
            }
            "never" => {
                let chunks = stream::once(async { Ok(Bytes::from_static(b"begun")) });
                let length = path.ends_with("whole").then_some(100);
                Response::new(Body::stream(chunks.chain(stream::pending()), length))
            }
            "echo" => match body.collect().await {
                Ok(all) => Response::new(Body::full(all.to_bytes())),
                Err(error) => {
                    let mut response = Response::new(Body::full(error.to_string()));
                    *response.status_mut() = StatusCode::BAD_REQUEST;
                    response
                }
            },
            _ => {
                let mut response = Response::new(Body::full("nothing here"));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }
}

fn some() -> impl Stream<Item = Result<Bytes, BodyError>> {
    stream::once(async { Ok(Bytes::from_static(b"some")) })
}

/// One item, after what came before it had time to reach the socket: hyper drops what it still buffers when a body fails.
fn flushed() -> impl Stream<Item = ()> {
    stream::once(tokio::time::sleep(Duration::from_millis(20)))
}

impl Handler for Probe {
    async fn handle(
        &self,
        request: Request<RequestBody>,
        connection: Connection,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let line = format!("{} {}", parts.method, parts.uri);
        self.seen.lock().unwrap().push(line);
        self.answer(parts.uri.path(), &parts.headers, body, connection)
            .await
    }
}

/// A running server; stops when dropped.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) probe: Arc<Probe>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) reload: Reload,
    pub(super) shutdown: CancellationToken,
    pub(super) stopped: CancellationToken,
    _tasks: Tasks,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Limits in which everything that must happen happens soon, and nothing that must not.
pub(super) fn limits() -> Limits {
    Limits {
        linger: Duration::from_millis(200),
        ..Limits::default()
    }
}

/// What takes `PATIENCE` otherwise happens after this.
pub(super) const SOON: Duration = Duration::from_millis(150);

pub(super) fn listener(tls: Option<Vec<CertificatePair>>, role: usize) -> ListenerConfig {
    ListenerConfig {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls,
        clients: None,
        role,
    }
}

pub(super) async fn start(limits: Limits) -> Running {
    start_with(vec![listener(None, 0)], limits).await
}

pub(super) async fn start_with(listeners: Vec<ListenerConfig>, limits: Limits) -> Running {
    let metrics = Arc::new(Metrics::new());
    let config = Config { listeners, limits };
    let server = Server::bind(config, Arc::clone(&metrics)).await.unwrap();
    let addresses = server.addresses();
    let reload = server.certificates();
    let probe = Arc::new(Probe::default());
    let shutdown = CancellationToken::new();
    let stopped = CancellationToken::new();
    let tasks = Tasks::new();
    tasks.spawn("server", {
        let (tasks, probe) = (tasks.clone(), Arc::clone(&probe));
        let (shutdown, stopped) = (shutdown.clone(), stopped.clone());
        async move {
            server.run(probe, &tasks, shutdown).await;
            stopped.cancel();
        }
    });
    Running {
        address: addresses[0],
        addresses,
        probe,
        metrics,
        reload,
        shutdown,
        stopped,
        _tasks: tasks,
    }
}

impl Running {
    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Writes `bytes` and reads until the server closes.
    pub(super) async fn exchange(&self, bytes: &[u8]) -> Reply {
        let mut socket = self.connect().await;
        socket.write_all(bytes).await.unwrap();
        read_to_end(&mut socket).await
    }

    pub(super) fn seen(&self) -> Vec<String> {
        self.probe.seen.lock().unwrap().clone()
    }
}

/// What came back on one connection, and how it ended.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    pub(super) reset: bool,
}

impl Reply {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The statuses of all responses; no body of ours looks like a status line.
    pub(super) fn statuses(&self) -> Vec<u16> {
        self.text()
            .split("HTTP/1.")
            .skip(1)
            .map(|response| response.get(2..5).unwrap().parse().unwrap())
            .collect()
    }
}

pub(super) async fn read_to_end<S: tokio::io::AsyncRead + Unpin>(socket: &mut S) -> Reply {
    let mut bytes = Vec::new();
    let reading = socket.read_to_end(&mut bytes);
    let outcome = tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the server closes the connection");
    Reply {
        reset: outcome.is_err(),
        bytes,
    }
}

/// Reads until `end` has come.
pub(super) async fn read_until<S: tokio::io::AsyncRead + Unpin>(
    socket: &mut S,
    end: &str,
) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let byte = tokio::time::timeout(PATIENCE, socket.read_u8())
            .await
            .expect("the server answers")
            .expect("the connection is open");
        bytes.push(byte);
    }
    String::from_utf8(bytes).unwrap()
}

/// A request without a body that keeps the connection.
pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: mirror\r\n\r\n")
}

/// A request without a body that is the last.
pub(super) fn get_last(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n")
}

/// A body for HTTP/2 requests that have none.
pub(super) fn no_body() -> http_body_util::combinators::BoxBody<Bytes, Infallible> {
    http_body_util::Empty::new().boxed()
}
