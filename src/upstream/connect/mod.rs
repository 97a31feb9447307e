//! Connections: name lookup, address guard, TCP, proxy, TLS.
//!
//! The guard looks at the addresses that the lookup gave, here and nowhere earlier, and the addresses it looked at are the ones that
//! are dialled: a name cannot answer differently in between (RELIABILITY C6, P30). Each purpose has a connector and so a pool of its
//! own, because a pooled connection is not checked again.

mod dial;
mod proxy;
mod socket;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::{Host, Url};

use super::config::{BuildError, Config, Timeouts};
use super::endpoint::Origin;
use super::guard::{self, Class, Facts, Purpose, Written};
use super::realm::TokenHost;
use super::tls;

use dial::{lookup, race};
use proxy::proxies;
use socket::{Conn, Dialled, Socket};

pub(super) use socket::Uses;

/// Why there is no connection. The text is safe to show.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{origin} is not dialled: it is at a {} address", class.as_str())]
    Guarded { origin: Origin, class: Class },
    #[error("{0} is not the upstream")]
    NotOwn(Origin),
    #[error("the URL names no host to dial")]
    NoHost,
    #[error("{0}: no such host")]
    Lookup(Origin),
    #[error("{origin} cannot be reached ({problem})")]
    Tcp {
        origin: Origin,
        problem: io::ErrorKind,
    },
    #[error("TLS with {origin} failed: {problem}")]
    Tls { origin: Origin, problem: String },
    #[error("{origin} took too long to {what}")]
    Slow { origin: Origin, what: &'static str },
    #[error("the proxy for {origin} did not connect: {problem}")]
    Proxy { origin: Origin, problem: String },
}

/// What all connectors of one upstream share.
pub(super) struct Network {
    own: Origin,
    allowed: Vec<IpNet>,
    token_hosts: Vec<TokenHost>,
    own_is_private: AtomicBool,
    proxies: Matcher,
    tls: TlsConnector,
    proxy_tls: TlsConnector,
    timeouts: Timeouts,
    places: Arc<Semaphore>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

impl Network {
    pub(super) fn new(
        config: &Config,
        own: Origin,
        token_hosts: Vec<TokenHost>,
    ) -> Result<Self, BuildError> {
        let ca = config.ca.as_deref();
        let literal = match own.host() {
            Host::Ipv4(address) => Some(IpAddr::V4(*address)),
            Host::Ipv6(address) => Some(IpAddr::V6(*address)),
            Host::Domain(_) => None,
        };
        let own_is_private = literal.is_some_and(|address| Class::of(address) == Class::Private);
        Ok(Self {
            own,
            allowed: config.allow_addresses.clone(),
            token_hosts,
            own_is_private: AtomicBool::new(own_is_private),
            proxies: proxies(&config.proxy)?,
            tls: tls::config(ca, &[b"h2", b"http/1.1"])?.into(),
            proxy_tls: tls::config(ca, &[b"http/1.1"])?.into(),
            timeouts: config.timeouts,
            places: Arc::new(Semaphore::new(
                config.concurrent.clamp(1, Semaphore::MAX_PERMITS),
            )),
        })
    }

    /// What a request over a proxy must say of us. Requests through a tunnel say it when the tunnel is made.
    pub(super) fn proxy_login(&self, uri: &Uri) -> Option<HeaderValue> {
        if uri.scheme_str() != Some("http") {
            return None;
        }
        self.proxies.intercept(uri)?.basic_auth().cloned()
    }

    async fn connect(
        self: Arc<Self>,
        purpose: Purpose,
        uri: Uri,
    ) -> Result<TokioIo<Conn>, ConnectError> {
        let url = Url::parse(&uri.to_string()).map_err(|_unreadable| ConnectError::NoHost)?;
        let origin = Origin::of(&url).ok_or(ConnectError::NoHost)?;
        let is_own = origin == self.own;
        if is_own != (purpose == Purpose::Own) {
            return Err(ConnectError::NotOwn(origin));
        }
        let place = if is_own {
            let place = Arc::clone(&self.places).acquire_owned();
            let slow = || ConnectError::Slow {
                origin: origin.clone(),
                what: "give up a connection",
            };
            timeout(self.timeouts.connect, place)
                .await
                .map_err(|_elapsed| slow())?
                .ok()
        } else {
            None
        };
        let (socket, is_proxied) = match self.proxies.intercept(&uri) {
            None => {
                let socket = self.dial(&origin, Some(purpose)).await?;
                (Box::new(socket) as Box<dyn Socket>, false)
            }
            Some(proxy) => {
                self.check_unresolved(&origin, purpose)?;
                let socket = self.dial_proxy(&origin, &proxy).await?;
                if origin.is_https() {
                    (self.tunnel(&origin, socket, &proxy, &uri).await?, false)
                } else {
                    (socket, true)
                }
            }
        };
        let mut is_h2 = false;
        let socket = if origin.is_https() {
            let stream = handshake(&self.tls, &origin, socket, self.timeouts.tls).await?;
            is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Box::new(stream)
        } else {
            socket
        };
        Ok(TokioIo::new(Conn {
            socket,
            is_proxied,
            is_h2,
            uses: Uses::default(),
            place,
        }))
    }

    /// Behind a proxy the name is looked up by the proxy. What can be judged without a lookup is.
    fn check_unresolved(&self, origin: &Origin, purpose: Purpose) -> Result<(), ConnectError> {
        let address = match origin.host() {
            Host::Ipv4(address) => IpAddr::V4(*address),
            Host::Ipv6(address) => IpAddr::V6(*address),
            Host::Domain(name) if name == "localhost" || name.ends_with(".localhost") => {
                IpAddr::from([127, 0, 0, 1])
            }
            Host::Domain(_) => return Ok(()),
        };
        self.check(origin, purpose, address)
    }

    fn check(
        &self,
        origin: &Origin,
        purpose: Purpose,
        address: IpAddr,
    ) -> Result<(), ConnectError> {
        let facts = Facts {
            written: origin.written(),
            allowed: &self.allowed,
            is_token_host: self.token_hosts.iter().any(|entry| entry.means(origin)),
            own_is_private: self.own_is_private.load(Ordering::Relaxed),
        };
        guard::check(address, purpose, facts).map_err(|class| ConnectError::Guarded {
            origin: origin.clone(),
            class,
        })
    }

    /// Those of the addresses that may be dialled; if none may, why not.
    fn allowed(
        &self,
        origin: &Origin,
        purpose: Purpose,
        found: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let mut refusal = None;
        let mut fine = Vec::with_capacity(found.len());
        for address in found {
            match self.check(origin, purpose, address.ip()) {
                Ok(()) => fine.push(address),
                Err(error) => refusal = Some(error),
            }
        }
        match refusal {
            Some(error) if fine.is_empty() => Err(error),
            _ => Ok(fine),
        }
    }

    /// A TCP connection to one of the addresses of `origin`; to a proxy (no purpose) whatever its address.
    async fn dial(
        &self,
        origin: &Origin,
        purpose: Option<Purpose>,
    ) -> Result<TcpStream, ConnectError> {
        let reached = timeout(self.timeouts.connect, async {
            let found = lookup(origin).await?;
            let addresses = match purpose {
                Some(purpose) => self.allowed(origin, purpose, found)?,
                None => found,
            };
            let socket = race(addresses).await.map_err(|error| ConnectError::Tcp {
                origin: origin.clone(),
                problem: error.kind(),
            })?;
            if purpose == Some(Purpose::Own) && origin.written() == Written::AsName {
                let private = socket
                    .peer_addr()
                    .is_ok_and(|peer| Class::of(peer.ip()) == Class::Private);
                self.own_is_private.store(private, Ordering::Relaxed);
            }
            Ok(socket)
        });
        let socket = reached.await.map_err(|_elapsed| ConnectError::Slow {
            origin: origin.clone(),
            what: "connect",
        })??;
        // Without it small requests wait for acknowledgements; a kernel that refuses is only slower.
        let _ = socket.set_nodelay(true);
        Ok(socket)
    }

    async fn dial_proxy(
        &self,
        origin: &Origin,
        proxy: &Intercept,
    ) -> Result<Box<dyn Socket>, ConnectError> {
        let failed = |problem: String| ConnectError::Proxy {
            origin: origin.clone(),
            problem,
        };
        let place = Url::parse(&proxy.uri().to_string())
            .ok()
            .and_then(|url| Origin::of(&url))
            .ok_or_else(|| failed("its URL names no host".to_owned()))?;
        let socket = self
            .dial(&place, None)
            .await
            .map_err(|error| failed(error.to_string()))?;
        if place.is_https() {
            let stream = handshake(&self.proxy_tls, &place, socket, self.timeouts.tls)
                .await
                .map_err(|error| failed(error.to_string()))?;
            Ok(Box::new(stream))
        } else {
            Ok(Box::new(socket))
        }
    }

    async fn tunnel(
        &self,
        origin: &Origin,
        socket: Box<dyn Socket>,
        proxy: &Intercept,
        uri: &Uri,
    ) -> Result<Box<dyn Socket>, ConnectError> {
        let mut tunnel = Tunnel::new(proxy.uri().clone(), Dialled(Some(TokioIo::new(socket))));
        if let Some(login) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(login.clone());
        }
        let dug = timeout(self.timeouts.connect, tunnel.call(uri.clone()))
            .await
            .map_err(|_elapsed| ConnectError::Slow {
                origin: origin.clone(),
                what: "answer through the proxy",
            })?;
        dug.map(TokioIo::into_inner)
            .map_err(|error| ConnectError::Proxy {
                origin: origin.clone(),
                problem: error.to_string(),
            })
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &TlsConnector,
    origin: &Origin,
    socket: S,
    patience: Duration,
) -> Result<tokio_rustls::client::TlsStream<S>, ConnectError> {
    let failed = |problem: String| ConnectError::Tls {
        origin: origin.clone(),
        problem,
    };
    let name = match origin.host() {
        Host::Ipv4(address) => ServerName::from(IpAddr::V4(*address)),
        Host::Ipv6(address) => ServerName::from(IpAddr::V6(*address)),
        Host::Domain(name) => {
            ServerName::try_from(name.clone()).map_err(|error| failed(error.to_string()))?
        }
    };
    timeout(patience, tls.connect(name, socket))
        .await
        .map_err(|_elapsed| ConnectError::Slow {
            origin: origin.clone(),
            what: "agree on TLS",
        })?
        .map_err(|error| failed(error.to_string()))
}

/// Makes the connections of one purpose.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    network: Arc<Network>,
    purpose: Purpose,
}

impl Connector {
    pub(super) const fn new(network: Arc<Network>, purpose: Purpose) -> Self {
        Self { network, purpose }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Conn>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(Arc::clone(&self.network).connect(self.purpose, uri))
    }
}

#[cfg(test)]
mod tests;
