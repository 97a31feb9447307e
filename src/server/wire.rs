//! The socket under a connection, metered, and TLS over it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::stream::Stream;
use super::watch::Watch;

/// A socket that notes what the client takes and brings.
#[derive(Debug)]
pub(super) struct Metered {
    socket: Stream,
    watch: Arc<Watch>,
    /// Bytes that may be read beyond what requests explain; `None` where framing bounds them.
    flood_slack: Option<u64>,
}

impl Metered {
    pub(super) fn new(socket: Stream, watch: Arc<Watch>) -> Self {
        Self {
            socket,
            watch,
            flood_slack: None,
        }
    }

    fn note(&self, outcome: &Poll<io::Result<usize>>) {
        match outcome {
            Poll::Ready(Ok(bytes)) if *bytes > 0 => self.watch.wrote(*bytes as u64),
            Poll::Pending => self.watch.write_blocked(),
            Poll::Ready(_) => {}
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        // A stalled client's kernel buffers are freed at once, and a body that only the connection's end delimits never looks whole.
        if self.watch.must_reset()
            && let Err(error) = self.socket.end_in_reset()
        {
            tracing::debug!(%error, "the connection ends without a reset");
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.socket).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            self.watch.has_read(bytes as u64);
            if let Some(slack) = self.flood_slack
                && self.watch.unexplained(slack)
            {
                tracing::debug!("closing a connection: more frames than work");
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        outcome
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.note(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.note(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// What HTTP is spoken over.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(Metered),
    Tls(Box<TlsStream<Metered>>),
}

impl Wire {
    /// From here on, reads beyond what requests explain end the connection.
    pub(super) fn limit_floods(&mut self, slack: u64) {
        let metered = match self {
            Self::Plain(metered) => metered,
            Self::Tls(stream) => stream.get_mut().0,
        };
        metered.flood_slack = Some(slack);
    }
}

macro_rules! either {
    ($wire:expr, $io:ident => $call:expr) => {
        match $wire.get_mut() {
            Wire::Plain(io) => {
                let $io = Pin::new(io);
                $call
            }
            Wire::Tls(io) => {
                let $io = Pin::new(&mut **io);
                $call
            }
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_shutdown(cx))
    }
}
