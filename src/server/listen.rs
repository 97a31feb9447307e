//! Opening the sockets and accepting from them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};

use super::owner::OwnerSocket;
use super::stream::Stream;
use super::tls::Certificates;
use super::{BindError, Limits, ListenerConfig};

/// What the ends of a connection are called that have no addresses: it never leaves this machine.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// One open socket and what its connections speak.
#[derive(Debug)]
pub(super) struct Socket {
    listener: Listener,
    pub(super) tls: Option<Arc<Certificates>>,
    pub(super) role: usize,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener, SocketAddr),
    Owner(OwnerSocket),
}

/// A connection that was accepted, the client's end and ours.
pub(super) type Accepted = (Stream, SocketAddr, SocketAddr);

impl Socket {
    /// The one of whoever owns the process.
    pub(super) const fn of_owner(socket: OwnerSocket, role: usize) -> Self {
        Self {
            listener: Listener::Owner(socket),
            tls: None,
            role,
        }
    }

    /// The address really bound; the owner's socket has none.
    pub(super) const fn local(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(_, local) => Some(*local),
            Listener::Owner(_) => None,
        }
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match &self.listener {
            Listener::Tcp(listener, local) => {
                let (stream, peer) = listener.accept().await?;
                let local = stream.local_addr().unwrap_or(*local);
                Ok((Stream::Tcp(stream), peer, local))
            }
            Listener::Owner(socket) => {
                let stream = socket.accept().await?;
                Ok((Stream::Unix(stream), NO_ADDRESS, NO_ADDRESS))
            }
        }
    }
}

/// Opens every socket; all certificates are read before the first socket is opened.
pub(super) async fn open(
    listeners: Vec<ListenerConfig>,
    limits: &Limits,
) -> Result<Vec<Socket>, BindError> {
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.address).collect();
    let mut prepared = Vec::with_capacity(listeners.len());
    for listener in listeners {
        let address = listener.address;
        let tls = match listener.tls {
            None => None,
            Some(pairs) => Some(
                super::blocking(move || Certificates::load(pairs, listener.clients))
                    .await
                    .map_err(|source| BindError::Tls { address, source })?,
            ),
        };
        prepared.push((address, tls, listener.role));
    }
    prepared
        .into_iter()
        .map(|(address, tls, role)| {
            let alone = !addresses.iter().any(|other| shadows(*other, address));
            let (listener, local) = listen(address, alone, limits.backlog)
                .map_err(|source| BindError::Address { address, source })?;
            Ok(Socket {
                listener: Listener::Tcp(listener, local),
                tls,
                role,
            })
        })
        .collect()
}

/// Whether `[::]` would take what `other` wants: both are configured, so each shall have its own.
fn shadows(other: SocketAddr, address: SocketAddr) -> bool {
    address.ip() == IpAddr::from([0_u16; 8])
        && other.is_ipv4()
        && other.port() == address.port()
        && address.port() != 0
}

fn listen(
    address: SocketAddr,
    both_families: bool,
    backlog: u32,
) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if !both_families {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // A restart must not wait for the connections of the last run to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(backlog)?;
    let local = listener.local_addr()?;
    Ok((listener, local))
}
