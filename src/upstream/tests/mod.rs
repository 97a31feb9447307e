//! The client against small servers on real sockets. Canaries are servers that must not see a connection.

mod bodies;
mod documents;
mod login;
mod manners;
mod parent;
mod pushes;
mod ways;
mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Config, CredentialConfig, Error, Hops, Kind, SecretSource, Span, Timeouts, Upstream};
use crate::oci::{Digest, Name, Reference};
use crate::secret::Secret;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// A request as it came over the wire.
#[derive(Debug, Clone)]
struct Seen {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
    connection: usize,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What a server does with a request.
enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    Hang,
    Close,
}

/// A complete answer.
fn reply(status: &str, headers: &[(&str, &str)], body: &str) -> Vec<Step> {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.push_str(body);
    vec![Step::Send(text.into_bytes())]
}

fn raw(text: impl Into<Vec<u8>>) -> Vec<Step> {
    vec![Step::Send(text.into())]
}

/// A scripted server; stops when dropped.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Server {
    async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::start_with(|_| script).await
    }

    /// With the server's own address at hand.
    async fn start_with<S>(make: impl FnOnce(SocketAddr) -> S) -> Self
    where
        S: Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
    {
        Self::start_tls(make, None).await
    }

    async fn start_tls<S>(
        make: impl FnOnce(SocketAddr) -> S,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Self
    where
        S: Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self {
            address,
            seen: Arc::default(),
            connections: Arc::default(),
            tasks: Tasks::new(),
        };
        let (seen, connections, tasks) = (
            Arc::clone(&server.seen),
            Arc::clone(&server.connections),
            server.tasks.clone(),
        );
        let script = Arc::new(make(address));
        background(&server.tasks, async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let connection = connections.fetch_add(1, Ordering::SeqCst);
                let (script, seen, tls) = (Arc::clone(&script), Arc::clone(&seen), tls.clone());
                background(&tasks, async move {
                    match tls {
                        None => serve(socket, connection, &*script, &seen).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, connection, &*script, &seen).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    /// A server that must never be reached.
    async fn canary() -> Self {
        Self::start(|_| reply("200 OK", &[], "tweet")).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn count(&self, part: &str) -> usize {
        self.seen()
            .iter()
            .filter(|seen| seen.target.contains(part))
            .count()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

fn background(tasks: &Tasks, future: impl Future<Output = ()> + Send + 'static) {
    let stopping = tasks.stopping();
    tasks.spawn("test server", async move {
        tokio::select! {
            () = future => {}
            () = stopping.cancelled() => {}
        }
    });
}

async fn serve(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    script: &(dyn Fn(&Seen) -> Vec<Step> + Send + Sync),
    log: &Mutex<Vec<Seen>>,
) {
    let mut held = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = held.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            match socket.read_buf(&mut held).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let head = String::from_utf8(held.drain(..end).collect()).unwrap();
        let mut lines = head.lines();
        let mut first = lines.next().unwrap().split(' ');
        let (method, target) = (
            first.next().unwrap().to_owned(),
            first.next().unwrap().to_owned(),
        );
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers
            .iter()
            .find(|(name, _)| name == "content-length")
            .map_or(0, |(_, value)| value.parse().unwrap());
        while held.len() < length {
            if socket.read_buf(&mut held).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = String::from_utf8(held.drain(..length).collect()).unwrap();
        let is_head = method == "HEAD";
        let seen = Seen {
            method,
            target,
            headers,
            body,
            connection,
        };
        log.lock().unwrap().push(seen.clone());
        for step in script(&seen) {
            match step {
                Step::Send(mut bytes) => {
                    if is_head
                        && let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n")
                    {
                        bytes.truncate(end + 4);
                    }
                    if socket.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Step::Wait(time) => tokio::time::sleep(time).await,
                Step::Hang => std::future::pending().await,
                Step::Close => return,
            }
        }
    }
}

/// Long enough for a machine that is busy with other tests.
const PATIENT: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    tls: Duration::from_secs(10),
    headers: Duration::from_secs(10),
    idle: Duration::from_secs(10),
    min_rate: 1024,
};

/// For tests that wait for a time-out.
const HASTY: Timeouts = Timeouts {
    headers: Duration::from_millis(400),
    idle: Duration::from_millis(400),
    ..PATIENT
};

/// An upstream at `url` with whatever else is said.
fn client(url: &str, adjust: impl FnOnce(&mut Config)) -> Upstream {
    let mut config = Config::new("test", url.parse().unwrap(), "me");
    config.timeouts = PATIENT;
    adjust(&mut config);
    Upstream::new(config, &Tasks::new(), Arc::new(Metrics::new())).unwrap()
}

fn hasty(server: &Server) -> Upstream {
    client(&server.url(""), |config| config.timeouts = HASTY)
}

fn upstream(server: &Server) -> Upstream {
    client(&server.url(""), |_| {})
}

fn password(username: &str, password: &str) -> CredentialConfig {
    CredentialConfig::Static {
        username: username.to_owned(),
        password: SecretSource::Value(Secret::new(password)),
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn tag() -> Reference {
    Reference::parse("latest").unwrap()
}

fn digest() -> Digest {
    Digest::of(b"x")
}

/// GETs the manifest of `a/b:latest`.
async fn manifest(upstream: &Upstream) -> Result<String, Error> {
    manifest_of(upstream, "a/b").await
}

async fn manifest_of(upstream: &Upstream, image: &str) -> Result<String, Error> {
    let body = upstream
        .get_manifest(&Hops::none(), &name(image), &tag())
        .await?;
    Ok(String::from_utf8(body.bytes.to_vec()).unwrap())
}

/// GETs a whole blob and reads it to its end.
async fn blob(upstream: &Upstream) -> Result<String, Error> {
    blob_part(upstream, Span::Whole).await
}

async fn blob_part(upstream: &Upstream, span: Span) -> Result<String, Error> {
    let mut stream = upstream
        .get_blob(&Hops::none(), &name("a/b"), &digest(), span)
        .await?;
    let mut all = Vec::new();
    while let Some(bytes) = stream.chunk().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(String::from_utf8(all).unwrap())
}

#[track_caller]
fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> Kind {
    result.unwrap_err().kind()
}
