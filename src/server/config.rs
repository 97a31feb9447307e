//! What the server is told: where to listen, which certificates, and every limit with its default.
//!
//! Plain values; `config` lowers the file's shapes into them. The limits answer RELIABILITY P26 and P38–P42.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that [`super::Server::bind`] needs.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The sockets to open, in order.
    pub listeners: Vec<ListenerConfig>,
    /// What a client may take.
    pub limits: Limits,
}

/// One listening socket.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Where to listen; port 0 lets the system choose, [`super::Server::addresses`] tells what it chose.
    pub address: SocketAddr,
    /// TLS with these certificates, chosen by SNI, the first for everyone else; without it HTTP/1.1 and HTTP/2 in the clear.
    pub tls: Option<Vec<CertificatePair>>,
    /// Whether clients may show certificates, and whose; counts over TLS.
    pub clients: Option<ClientCertificates>,
    /// Handed through to the handler in [`super::Connection::role`]; the server attaches no meaning to it.
    pub role: usize,
}

/// A certificate chain and its private key, both PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatePair {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// Certificates of clients that are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authorities that sign them, a PEM file.
    pub ca: PathBuf,
    /// Whether who shows none is turned away.
    pub required: bool,
    /// What in them is the user's name.
    pub user: ClientUser,
}

/// What in a client's certificate is the user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientUser {
    /// The common name of its subject.
    CommonName,
    /// Its first alternative name that is a host.
    Dns,
    /// Its first alternative name that is an address of mail.
    Email,
    /// Its first alternative name that is a URI, as SPIFFE has them.
    Uri,
}

/// What clients may take in connections, time and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections per listener; more wait in the backlog.
    pub max_connections: usize,
    /// Length of the system's queue of connections that were not accepted yet.
    pub backlog: u32,
    /// From accept to the end of the TLS handshake.
    pub tls_handshake: Duration,
    /// From accept (or from the first byte of a later head) to the end of a request's head.
    pub header_timeout: Duration,
    /// Between requests.
    pub idle_timeout: Duration,
    /// Bytes are ready and the client takes none of them.
    pub stalled_client: Duration,
    /// The span over which a request body must keep up [`Self::body_rate`].
    pub body_window: Duration,
    /// Bytes per second that a request body must bring while somebody waits for it.
    pub body_rate: u64,
    /// What in-flight requests get after the shutdown began.
    pub drain: Duration,
    /// How long a connection that was answered before it was read is read on, so that the answer is not lost to a reset.
    pub linger: Duration,
    /// Bytes of a request line.
    pub request_line: usize,
    /// Bytes of a head without its request line; for HTTP/2 the header list.
    pub header_bytes: u32,
    /// Header lines of a request.
    pub headers: usize,
    /// Bytes of a request body that nobody read which are read and thrown away to keep the connection.
    pub unread_body: u64,
    /// Limits that only HTTP/2 knows.
    pub h2: H2Limits,
}

/// Limits of HTTP/2 connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct H2Limits {
    /// Requests at once on one connection.
    pub streams: u32,
    /// Streams that the client reset before they were looked at (CVE-2023-44487).
    pub pending_resets: usize,
    /// Streams that we had to reset for the client's errors (CVE-2025-8671).
    pub error_resets: usize,
    /// Requests that the client gave up, over as many as it let end.
    pub cancelled: usize,
    /// Bytes buffered for one stream; 64–256 KiB.
    pub send_buffer: usize,
    /// Bytes of frames that brought neither request nor body (SETTINGS, PING, empty DATA floods).
    pub control_bytes: u64,
    /// Between two keep-alive pings.
    pub ping_interval: Duration,
    /// For the answer to one.
    pub ping_timeout: Duration,
}

/// How long the owner's commands may keep us waiting: a bundle goes to a slow medium, or comes from one, or its command was suspended.
const OWNERS_PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);

impl Limits {
    /// The same for whoever owns the process, who is not somebody that holds our resources up.
    pub(super) fn of_owner(self) -> Self {
        Self {
            stalled_client: OWNERS_PATIENCE,
            body_window: OWNERS_PATIENCE,
            ..self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            backlog: 4096,
            tls_handshake: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            stalled_client: Duration::from_secs(60),
            body_window: Duration::from_secs(30),
            body_rate: 1024,
            drain: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            request_line: 8 * 1024,
            header_bytes: 32 * 1024,
            headers: 100,
            unread_body: 64 * 1024,
            h2: H2Limits::default(),
        }
    }
}

impl Default for H2Limits {
    fn default() -> Self {
        Self {
            streams: 100,
            pending_resets: 20,
            error_resets: 64,
            cancelled: 200,
            send_buffer: 128 * 1024,
            control_bytes: 256 * 1024,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
        }
    }
}
