//! The accept loop of one listener.
//!
//! Nothing stops it: a connection that is gone before it is accepted costs nothing, and when descriptors run out it waits for some to
//! come back (P42). Clients beyond the limit wait in the backlog. No handshake happens here, so none can hold it up.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;

use super::connection;
use super::hyper_service::Service;
use super::listen::Socket;
use super::outgoing::Transfers;
use super::roster::Roster;
use super::stream::Stream;
use super::watch::Watch;
use super::{Connection, Handler, Limits};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Between two tries while descriptors or memory are short.
const BREATH: Duration = Duration::from_millis(50);
/// Between two lines about it in the log.
const QUIET: Duration = Duration::from_secs(10);

/// What every connection of a listener shares.
#[derive(Debug)]
pub(super) struct Accept<H> {
    pub(super) handler: Arc<H>,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) transfers: Transfers,
    pub(super) roster: Arc<Roster>,
    pub(super) tasks: Tasks,
}

impl<H: Handler> Accept<H> {
    /// Accepts for ever; dropping the future closes the socket.
    pub(super) async fn run(self, socket: Socket) {
        let places = Arc::new(Semaphore::new(self.limits.max_connections));
        let mut said: Option<Instant> = None;
        loop {
            // Never closed, so this cannot fail; should it, there is nothing left to accept.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let (stream, peer, local) = match socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_the_clients(&error) => continue,
                Err(error) => {
                    if said.is_none_or(|said| said.elapsed() > QUIET) {
                        warn!(%error, "cannot accept connections for now");
                        said = Some(Instant::now());
                    }
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            };
            if let Stream::Tcp(tcp) = &stream
                && let Err(error) = tcp.set_nodelay(true)
            {
                tracing::debug!(%peer, %error, "connection is gone already");
                continue;
            }
            let service = Service {
                handler: Arc::clone(&self.handler),
                connection: Connection {
                    peer,
                    local,
                    tls: socket.tls.is_some(),
                    client: None,
                    role: socket.role,
                },
                watch: Arc::new(Watch::new(Instant::now())),
                metrics: Arc::clone(&self.metrics),
                limits: self.limits,
                transfers: self.transfers.clone(),
            };
            let tls = socket
                .tls
                .as_ref()
                .map(|certificates| certificates.current());
            let seat = self.roster.join();
            let tasks = self.tasks.clone();
            self.tasks.spawn("connection", async move {
                Box::pin(connection::serve(stream, tls, service, seat, tasks)).await;
                drop(place);
            });
        }
    }
}

/// Errors of `accept` that speak of the one connection and not of us (accept(2)).
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}
