//! Sockets, TLS, HTTP framing, limits and drain: everything between a client's bytes and [`Handler::handle`].
//!
//! Must not know registries, but for the error envelope in which it answers what it refuses itself. Invariants:
//! a connection that makes no progress ends, whatever it is stuck in (P39); ambiguous framing is refused and the connection closed (P40);
//! an answer that is cut off never looks complete (P26); no request and no failing `accept` takes the accept loop down (P42).

mod accept;
mod chunked;
mod clients;
mod config;
mod connection;
mod handler;
mod hyper_service;
mod incoming;
mod listen;
mod outgoing;
mod owner;
mod refusal;
mod rewound;
mod roster;
mod screen;
mod screened;
mod stream;
mod tls;
mod watch;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use config::{
    CertificatePair, ClientCertificates, ClientUser, Config, H2Limits, Limits, ListenerConfig,
};
pub use handler::{Connection, Handler};
pub use incoming::RequestBody;
pub use owner::forget_socket;
pub use tls::TlsError;

use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use accept::Accept;
use listen::Socket;
use outgoing::Transfers;
use owner::OwnerSocket;
use roster::{Phase, Roster};
use tls::Certificates;

/// Reads the certificates of a listener as [`Server::bind`] does, without listening. Blocks on the disk.
pub fn check_certificates(
    pairs: &[CertificatePair],
    clients: Option<&ClientCertificates>,
) -> Result<(), TlsError> {
    if pairs.is_empty() {
        return Ok(());
    }
    Certificates::load(pairs.to_vec(), clients.cloned()).map(drop)
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A socket could not be opened.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// The address as configured.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The certificates of a listener cannot be used.
    #[error("TLS on {address}: {source}")]
    Tls {
        /// The address as configured.
        address: SocketAddr,
        /// Which file and why.
        source: TlsError,
    },
}

/// Listening sockets, ready to be run.
pub struct Server {
    sockets: Vec<Socket>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl Server {
    /// Reads the certificates and opens the sockets; clients wait in the backlog until [`Self::run`].
    pub async fn bind(config: Config, metrics: Arc<Metrics>) -> Result<Self, BindError> {
        let sockets = listen::open(config.listeners, &config.limits).await?;
        Ok(Self {
            sockets,
            limits: config.limits,
            metrics,
        })
    }

    /// Listens for whoever owns this process as well, on a Unix socket in the data directory, or in `runtime` where it cannot lie there.
    /// Answers its path; it is removed when the server stops. Whoever calls has the lock of `data`. Blocks.
    pub fn listen_to_owner(
        &mut self,
        data: &Path,
        runtime: &Path,
        role: usize,
    ) -> io::Result<PathBuf> {
        let socket = OwnerSocket::open(data, runtime)?;
        let path = socket.path().to_owned();
        self.sockets.push(Socket::of_owner(socket, role));
        Ok(path)
    }

    /// The addresses really bound, in the order of the listeners.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(Socket::local).collect()
    }

    /// A handle that reads the certificates again while the server runs.
    pub fn certificates(&self) -> Reload {
        Reload(
            self.sockets
                .iter()
                .filter_map(|socket| {
                    let certificates = socket.tls.as_ref()?;
                    Some((socket.local()?, Arc::clone(certificates)))
                })
                .collect(),
        )
    }

    /// Serves until `shutdown`, then stops accepting at once, lets requests end for [`Limits::drain`], cuts the rest, and returns.
    pub async fn run<H: Handler>(
        self,
        handler: Arc<H>,
        tasks: &Tasks,
        shutdown: CancellationToken,
    ) {
        let roster = Roster::new(Arc::clone(&self.metrics));
        let transfers = Transfers::default();
        let drain = self.limits.drain;
        let listens = !self.sockets.is_empty();
        let loops = self.sockets.into_iter().map(|socket| {
            let limits = if socket.local().is_some() {
                self.limits
            } else {
                self.limits.of_owner()
            };
            let accept = Accept {
                handler: Arc::clone(&handler),
                limits,
                metrics: Arc::clone(&self.metrics),
                transfers: transfers.clone(),
                roster: Arc::clone(&roster),
                tasks: tasks.clone(),
            };
            accept.run(socket)
        });
        // The sockets close with their loops: from here on the system refuses whoever comes.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            _ = futures_util::future::join_all(loops), if listens => {}
        }
        roster.enter(Phase::Draining);
        if tokio::time::timeout(drain, roster.empty()).await.is_err() {
            warn!(
                connections = roster.len(),
                "cutting what did not end in time"
            );
            roster.enter(Phase::Cut);
            if tokio::time::timeout(drain, roster.empty()).await.is_err() {
                warn!(connections = roster.len(), "connections did not end");
            }
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses())
            .finish_non_exhaustive()
    }
}

/// Reads certificates again (on SIGHUP). Clones act on the same listeners.
#[derive(Debug, Clone)]
pub struct Reload(Arc<[(SocketAddr, Arc<Certificates>)]>);

impl Reload {
    /// Reads every listener's certificates; a listener whose files are not good keeps what it has, and is the error (the first one).
    pub async fn reload(&self) -> Result<(), BindError> {
        self.reload_where(|_| true).await.map(|_any| ())
    }

    /// The same of those alone whose files have changed; whether there were any.
    pub async fn reload_changed(&self) -> Result<bool, BindError> {
        self.reload_where(Certificates::has_changed).await
    }

    async fn reload_where(&self, which: fn(&Certificates) -> bool) -> Result<bool, BindError> {
        let listeners = Arc::clone(&self.0);
        blocking(move || {
            let mut outcome = Ok(false);
            for (address, certificates) in listeners.iter() {
                if !which(certificates) {
                    continue;
                }
                outcome = outcome.map(|_any| true);
                if let Err(source) = certificates.reload() {
                    outcome = outcome.and(Err(BindError::Tls {
                        address: *address,
                        source,
                    }));
                }
            }
            outcome
        })
        .await
    }
}

/// Runs what blocks on the disk away from the sockets; inline should the runtime be going down.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Clone + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work.clone()).await {
        Ok(done) => done,
        Err(_stopping) => work(),
    }
}
