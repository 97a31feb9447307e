//! Sockets: listening, TLS, limits on connections and their patience, drain.
//!
//! Knows nothing of registries but the error envelope of its own refusals. A connection that does not get to the point, or takes nothing of
//! what it asked for, is closed; everything else is the handler's business.

mod connection;
mod meter;
mod screen;
mod tls;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::body::Body;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// How many connections the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;
/// How long accepting rests after it failed (no file descriptors left, usually).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where to listen, and the limits.
#[derive(Debug, Clone)]
pub struct Config {
    /// Every socket.
    pub listeners: Vec<ListenerConfig>,
    /// Limits of all of them together.
    pub limits: Limits,
}

/// One socket.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Its address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Chosen from by SNI; empty: cleartext.
    pub tls: Vec<CertificatePair>,
    /// Handed to the handler with every request; the server does not look at it.
    pub role: usize,
}

/// A certificate chain and its key, both in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatePair {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The limits of a server (RELIABILITY P38, P39).
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Until the head of a connection's first request is here, TLS included; and of each later one once it has begun.
    pub header_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of what is there for it.
    pub stalled_client: Duration,
    /// How long requests under way may go on after the server is told to stop.
    pub drain: Duration,
    /// Bytes of a request's target.
    pub target_bytes: usize,
    /// Bytes of a request's header fields.
    pub header_bytes: usize,
    /// Header fields of a request.
    pub headers: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            max_connections: 10_000,
            header_timeout: seconds(10),
            idle_timeout: seconds(75),
            stalled_client: seconds(60),
            drain: seconds(30),
            target_bytes: 8 * 1024,
            header_bytes: 32 * 1024,
            headers: 100,
            streams: 100,
        }
    }
}

/// The connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    /// The client.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Whether it is encrypted.
    pub tls: bool,
    /// The listener's role.
    pub role: usize,
}

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: Connection,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {error}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A certificate or a key cannot be used.
    #[error("cannot use {path}: {error}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    sockets: Vec<Socket>,
    limits: Arc<Limits>,
}

struct Socket {
    listener: TcpListener,
    local: SocketAddr,
    tls: Option<TlsAcceptor>,
    role: usize,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.local)
    }
}

impl Server {
    /// Opens every socket and reads every certificate.
    pub fn bind(config: Config) -> Result<Self, BindError> {
        let mut sockets = Vec::new();
        for ListenerConfig { address, tls, role } in config.listeners {
            let failed = |error| BindError::Address { address, error };
            let tls = if tls.is_empty() {
                None
            } else {
                Some(tls::acceptor(&tls)?)
            };
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()
            } else {
                TcpSocket::new_v6()
            }
            .map_err(failed)?;
            socket.set_reuseaddr(true).map_err(failed)?;
            socket.bind(address).map_err(failed)?;
            let listener = socket.listen(BACKLOG).map_err(failed)?;
            let local = listener.local_addr().map_err(failed)?;
            sockets.push(Socket {
                listener,
                local,
                tls,
                role,
            });
        }
        Ok(Self {
            sockets,
            limits: Arc::new(config.limits),
        })
    }

    /// The real addresses, in the order of the configuration: address, whether encrypted, role.
    pub fn addresses(&self) -> Vec<(SocketAddr, bool, usize)> {
        self.sockets
            .iter()
            .map(|socket| (socket.local, socket.tls.is_some(), socket.role))
            .collect()
    }

    /// Answers requests until `shutdown`, then finishes what is under way, at most for the limit's time, and cuts the rest.
    pub async fn run<H: Handler>(
        self,
        handler: Arc<H>,
        tasks: &Tasks,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) {
        let connections = TaskTracker::new();
        let cut = CancellationToken::new();
        let places = Arc::new(Semaphore::new(self.limits.max_connections));
        let meter = Arc::new(meter::Meter::new(Arc::clone(&metrics)));
        let accepting = TaskTracker::new();
        for socket in self.sockets {
            let shared = connection::Shared {
                handler: Arc::clone(&handler),
                limits: Arc::clone(&self.limits),
                metrics: Arc::clone(&metrics),
                meter: Arc::clone(&meter),
                shutdown: shutdown.clone(),
                cut: cut.clone(),
            };
            tasks.spawn(
                "accept",
                accepting.track_future(accept(
                    socket,
                    shared,
                    Arc::clone(&places),
                    connections.clone(),
                    tasks.clone(),
                )),
            );
        }
        shutdown.cancelled().await;
        accepting.close();
        accepting.wait().await;
        connections.close();
        if tokio::time::timeout(self.limits.drain, connections.wait())
            .await
            .is_err()
        {
            warn!(
                connections = connections.len(),
                "requests still under way are cut"
            );
            cut.cancel();
            connections.wait().await;
        }
    }
}

async fn accept<H: Handler>(
    socket: Socket,
    shared: connection::Shared<H>,
    places: Arc<Semaphore>,
    connections: TaskTracker,
    tasks: Tasks,
) {
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = shared.shutdown.cancelled() => return,
        };
        let Ok(place) = place else { return };
        let accepted = tokio::select! {
            accepted = socket.listener.accept() => accepted,
            () = shared.shutdown.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = Connection {
            peer,
            local: stream.local_addr().unwrap_or(socket.local),
            tls: socket.tls.is_some(),
            role: socket.role,
        };
        let (shared, tls) = (shared.clone(), socket.tls.clone());
        tasks.spawn(
            "connection",
            connections.track_future(async move {
                shared.metrics.connections.inc();
                connection::serve(stream, tls, connection, &shared).await;
                shared.metrics.connections.dec();
                drop(place);
            }),
        );
    }
}

#[cfg(test)]
mod tests;
