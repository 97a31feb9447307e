//! Connections: DNS, the address guard, proxies, TLS, time-outs; and the three pools that never mix.
//!
//! A pool is keyed by scheme and authority only. So that a connection that was allowed for one purpose is never used for another, the
//! upstream itself, its token services and its redirects each have a client of their own.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper::rt::ReadBufCursor;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tower_service::Service;

use super::endpoint::Endpoint;
use super::guard::{self, Class, Facts, Purpose};
use super::{BuildError, Config, Timeouts};

/// How long an idle connection to an upstream is kept.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);
/// How many idle connections are kept for one host.
const IDLE_PER_HOST: usize = 8;
/// The most bytes of a response's head.
const HEAD_MAX: usize = 64 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(super) type HttpClient = Client<Limited<HttpsConnector<Dialer>>, Full<Bytes>>;

/// Proxies as the environment names them.
#[derive(Debug, Clone, Default)]
pub struct ProxyConfig {
    /// For `https` upstreams (`HTTPS_PROXY`).
    pub https: Option<String>,
    /// For `http` upstreams (`HTTP_PROXY`).
    pub http: Option<String>,
    /// Hosts that are reached directly (`NO_PROXY`).
    pub no: Option<String>,
}

/// The three clients of one upstream.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) own: HttpClient,
    pub(super) token: HttpClient,
    pub(super) redirect: HttpClient,
}

impl Clients {
    pub(super) fn new(config: &Config, endpoint: &Endpoint) -> Result<Self, BuildError> {
        let tls = tls(config.ca.as_deref())?;
        let literal_private = match endpoint.literal_host() {
            Some(url::Host::Ipv4(v4)) => guard::classify(IpAddr::V4(v4)) == Class::Private,
            Some(url::Host::Ipv6(v6)) => guard::classify(IpAddr::V6(v6)) == Class::Private,
            _ => false,
        };
        let matcher = Matcher::builder()
            .https(config.proxy.https.clone().unwrap_or_default())
            .http(config.proxy.http.clone().unwrap_or_default())
            .no(config.proxy.no.clone().unwrap_or_default())
            .build();
        let rules = Arc::new(Rules {
            endpoint: endpoint.clone(),
            token_hosts: config.token_hosts.clone(),
            allowed: config.allow_addresses.clone(),
            upstream_is_private: AtomicBool::new(literal_private),
            matcher,
            timeouts: config.timeouts,
        });
        let client = |purpose| {
            let dialer = Dialer {
                rules: Arc::clone(&rules),
                purpose,
            };
            let https = HttpsConnectorBuilder::new()
                .with_tls_config(tls.clone())
                .https_or_http()
                .enable_all_versions()
                .wrap_connector(dialer);
            let patience = config.timeouts.connect + config.timeouts.tls;
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_CONNECTION)
                .pool_max_idle_per_host(IDLE_PER_HOST)
                .http1_max_buf_size(HEAD_MAX.max(256 * 1024))
                .http2_adaptive_window(true)
                .http2_max_header_list_size(u32::try_from(HEAD_MAX).unwrap_or(u32::MAX))
                .http2_keep_alive_interval(config.timeouts.idle)
                .build(Limited {
                    inner: https,
                    patience,
                })
        };
        Ok(Self {
            own: client(Purpose::Own),
            token: client(Purpose::Token),
            redirect: client(Purpose::Redirect),
        })
    }
}

/// TLS with the system's roots, the bundled ones where the system has none, and the operator's own.
fn tls(ca: Option<&Path>) -> Result<rustls::ClientConfig, BuildError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = ca {
        let failed = |error: String| BuildError::Authorities {
            path: path.to_owned(),
            error,
        };
        let certificates = CertificateDer::pem_file_iter(path)
            .map_err(|error| failed(error.to_string()))?
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| failed(error.to_string()))?;
        if certificates.is_empty() {
            return Err(failed("it holds no certificate in PEM form".to_owned()));
        }
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|error| failed(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// What the three dialers of one upstream share.
#[derive(Debug)]
struct Rules {
    endpoint: Endpoint,
    token_hosts: Vec<String>,
    allowed: Vec<IpNet>,
    upstream_is_private: AtomicBool,
    matcher: Matcher,
    timeouts: Timeouts,
}

impl Rules {
    fn check(
        &self,
        purpose: Purpose,
        uri: &Uri,
        literal: bool,
        address: IpAddr,
    ) -> Result<(), io::Error> {
        let purpose = if self.endpoint.is_own_uri(uri) {
            Purpose::Own
        } else {
            purpose
        };
        let host = uri.host().unwrap_or_default();
        let facts = Facts {
            literal,
            declared: is_declared(
                &self.token_hosts,
                host,
                uri.port_u16().or_else(|| default_port(uri)),
            ),
            upstream_is_private: self.upstream_is_private.load(Ordering::Relaxed),
            allowed: &self.allowed,
        };
        if !guard::may_dial(address, purpose, &facts) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "{host} is at the inside address {address}, which upstream's word alone does not open; allow_addresses can"
                ),
            ));
        }
        if purpose == Purpose::Own && guard::classify(address) == Class::Private {
            self.upstream_is_private.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Whether `host[:port]` is in a list of `host` and `host:port`.
pub(super) fn is_declared(declared: &[String], host: &str, port: Option<u16>) -> bool {
    declared.iter().any(|entry| {
        let entry = entry.to_ascii_lowercase();
        entry == host.to_ascii_lowercase()
            || port.is_some_and(|port| entry == format!("{}:{port}", host.to_ascii_lowercase()))
    })
}

fn default_port(uri: &Uri) -> Option<u16> {
    match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    }
}

/// Opens TCP connections for one purpose.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    rules: Arc<Rules>,
    purpose: Purpose,
}

impl Dialer {
    async fn dial(self, uri: Uri) -> Result<Dialed, BoxError> {
        let bare = uri
            .host()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let literal: Option<IpAddr> = bare.parse().ok();
        let spelled = literal.is_some() || bare.eq_ignore_ascii_case("localhost");
        let port = uri
            .port_u16()
            .or_else(|| default_port(&uri))
            .ok_or("no port")?;
        if let Some(proxy) = self.rules.matcher.intercept(&uri) {
            // The proxy resolves the name, so only what is spelled out can be checked here.
            if let Some(address) = literal {
                self.rules.check(self.purpose, &uri, true, address)?;
            }
            let plain = ProxyDialer {
                patience: self.rules.timeouts.connect,
            };
            if uri.scheme_str() == Some("http") {
                return Ok(Dialed {
                    io: plain.clone().call(proxy.uri().clone()).await?,
                    proxied: true,
                });
            }
            let mut tunnel = Tunnel::new(proxy.uri().clone(), plain);
            if let Some(auth) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(auth.clone());
            }
            return Ok(Dialed {
                io: tunnel.call(uri).await?,
                proxied: false,
            });
        }
        let addresses: Vec<SocketAddr> = match literal {
            Some(address) => vec![SocketAddr::new(address, port)],
            None => tokio::time::timeout(
                self.rules.timeouts.connect,
                tokio::net::lookup_host((bare.as_str(), port)),
            )
            .await
            .map_err(|_elapsed| "DNS took too long")??
            .collect(),
        };
        let mut last: BoxError = format!("{bare} has no address").into();
        for address in addresses {
            // A name with an inside address among its others is refused there and not merely passed over.
            self.rules
                .check(self.purpose, &uri, spelled, address.ip())?;
            match tokio::time::timeout(self.rules.timeouts.connect, TcpStream::connect(address))
                .await
            {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(Dialed {
                        io: TokioIo::new(stream),
                        proxied: false,
                    });
                }
                Ok(Err(error)) => last = error.into(),
                Err(_elapsed) => last = io::Error::from(io::ErrorKind::TimedOut).into(),
            }
        }
        Err(last)
    }
}

impl Service<Uri> for Dialer {
    type Response = Dialed;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Dialed, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}

/// Connects to the proxy that the operator named, wherever that is.
#[derive(Debug, Clone)]
struct ProxyDialer {
    patience: Duration,
}

impl Service<Uri> for ProxyDialer {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let patience = self.patience;
        Box::pin(async move {
            let host = uri
                .host()
                .unwrap_or_default()
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned();
            let port = uri
                .port_u16()
                .or_else(|| default_port(&uri))
                .unwrap_or(3128);
            let stream =
                tokio::time::timeout(patience, TcpStream::connect((host.as_str(), port))).await??;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// A TCP connection, and whether a proxy at its other end wants whole URLs.
#[derive(Debug)]
pub(super) struct Dialed {
    io: TokioIo<TcpStream>,
    proxied: bool,
}

impl Connection for Dialed {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl hyper::rt::Read for Dialed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Dialed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A connector with a deadline over all of its steps, TLS included.
#[derive(Debug, Clone)]
pub(super) struct Limited<C> {
    inner: C,
    patience: Duration,
}

impl<C> Service<Uri> for Limited<C>
where
    C: Service<Uri, Error = BoxError> + Clone + Send + 'static,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, patience) = (self.inner.call(uri), self.patience);
        Box::pin(async move {
            tokio::time::timeout(patience, connecting)
                .await
                .map_err(|_elapsed| BoxError::from(io::Error::from(io::ErrorKind::TimedOut)))?
        })
    }
}
