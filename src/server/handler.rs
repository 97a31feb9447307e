//! The seam to whoever answers requests.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};

use super::RequestBody;
use crate::body::Body;

/// Answers requests. It decides everything about HTTP's semantics; the server keeps connections honest.
///
/// What the server has seen to: the target is a path (and query) alone, also over HTTP/2 and in absolute form; there is exactly one
/// valid `Host` (none only over HTTP/1.0); CONNECT, TRACE and unknown expectations never arrive; the body of an answer to HEAD is
/// dropped, its length kept; a panic becomes a 500.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Dropped when the client goes away first (HTTP/2) or the shutdown cuts it off.
    fn handle(
        &self,
        request: Request<RequestBody>,
        connection: Connection,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Where a request came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The client's end, as the socket tells it; of the owner's socket, which has no addresses, loopback with port 0.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Over TLS.
    pub tls: bool,
    /// The name in the client's certificate, where it has shown one.
    pub client: Option<Arc<str>>,
    /// [`super::ListenerConfig::role`] of the listener.
    pub role: usize,
}
