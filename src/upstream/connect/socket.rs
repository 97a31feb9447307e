//! The ends of connections as the HTTP client sees them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tower_service::Service;

/// Anything that bytes go through.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A connection that exists already, where a connector is asked for.
pub(super) struct Dialled(pub(super) Option<TokioIo<Box<dyn Socket>>>);

impl Service<Uri> for Dialled {
    type Response = TokioIo<Box<dyn Socket>>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(
            self.0
                .take()
                .ok_or_else(|| io::ErrorKind::NotConnected.into()),
        )
    }
}

/// How many answers have come over a connection: what died before its first one was not alive to begin with.
#[derive(Debug, Clone, Default)]
pub(in crate::upstream) struct Uses(Arc<AtomicU64>);

impl Uses {
    /// One more answer has come.
    pub(in crate::upstream) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether any has come.
    pub(in crate::upstream) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// A connection of the pool.
pub(in crate::upstream) struct Conn {
    pub(super) socket: Box<dyn Socket>,
    /// Requests name their whole URL.
    pub(super) is_proxied: bool,
    pub(super) is_h2: bool,
    pub(super) uses: Uses,
    /// Given back when the connection is closed.
    #[expect(dead_code, reason = "held, not read")]
    pub(super) place: Option<OwnedSemaphorePermit>,
}

impl Connection for Conn {
    fn connected(&self) -> Connected {
        let connected = Connected::new()
            .proxy(self.is_proxied)
            .extra(self.uses.clone());
        if self.is_h2 {
            connected.negotiated_h2()
        } else {
            connected
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
