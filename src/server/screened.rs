//! An HTTP/1 byte stream that lets hyper see only heads that [`screen`] took, and bodies up to where they end.
//!
//! A head that is refused is replaced by a request that no client can send ([`REFUSED`]): hyper then answers it in its turn, behind
//! the responses of the requests before it, and closes. Nothing behind it is ever handed on, so there is no second reading of it.
//! After the last response, what the client still sends is read and dropped for a moment (lingering close), so that the answer is not
//! lost to a reset.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::Limits;
use super::chunked::Chunked;
use super::refusal::Refusal;
use super::screen::{self, Caps, Framing};
use super::watch::Watch;

/// The method of the request that stands for a refused one; no method that [`screen`] lets in has this character.
pub(super) const REFUSED: &str = "!";
const REFUSED_HEAD: &[u8] = b"! / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";

/// Read at once while looking for a head.
const STEP: usize = 2048;
/// Thrown away at most when closing on a client that still sends.
const LINGER_BYTES: usize = 512 * 1024;

/// The filtered stream.
#[derive(Debug)]
pub(super) struct Screened<S> {
    inner: S,
    watch: Arc<Watch>,
    caps: Caps,
    limits: Limits,
    /// Bytes read and not yet handed on: the first `ready` of them may be, the rest is a head in the making.
    held: Vec<u8>,
    ready: usize,
    seen: usize,
    state: State,
    /// An empty line before a request line is forgiven once (RFC 9112, 2.2).
    forgive: bool,
    ended: bool,
    closing: Option<Closing>,
}

#[derive(Debug)]
enum State {
    Head,
    Body(u64),
    Chunks(Chunked),
    Refused,
}

#[derive(Debug)]
struct Closing {
    patience: Pin<Box<Sleep>>,
    left: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Screened<S> {
    /// `held` was read from `inner` already.
    pub(super) fn new(inner: S, held: Vec<u8>, watch: Arc<Watch>, limits: Limits) -> Self {
        Self {
            inner,
            watch,
            caps: caps(&limits),
            limits,
            held,
            ready: 0,
            seen: 0,
            state: State::Head,
            forgive: true,
            ended: false,
            closing: None,
        }
    }

    /// Decides about what is held; true when some of it may be handed on, or nothing ever again.
    fn decide(&mut self) -> io::Result<bool> {
        match &mut self.state {
            State::Head => {
                if self.forgive && self.held.starts_with(b"\r\n") {
                    self.held.drain(..2);
                    self.forgive = false;
                }
                if self.held.is_empty() || (self.forgive && self.held == b"\r") {
                    return Ok(false);
                }
                self.watch.head_began();
                let Some(end) = screen::head_end(&self.held, self.seen) else {
                    self.seen = self.held.len();
                    if let Err(refusal) = screen::partial(&self.held, self.caps) {
                        self.refuse(refusal);
                        return Ok(true);
                    }
                    return Ok(false);
                };
                let head = self.held.get(..end).unwrap_or_default();
                match screen::head(head, self.caps) {
                    Ok(framing) => {
                        self.watch.head_ended();
                        self.ready = end;
                        self.seen = 0;
                        self.forgive = true;
                        self.state = match framing {
                            Framing::Length(0) => State::Head,
                            Framing::Length(length) => State::Body(length),
                            Framing::Chunked => State::Chunks(Chunked::new()),
                        };
                    }
                    Err(refusal) => self.refuse(refusal),
                }
                Ok(true)
            }
            State::Body(left) => {
                let here = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(self.held.len());
                self.ready = here;
                *left -= here as u64;
                if *left == 0 {
                    self.state = State::Head;
                }
                Ok(here > 0)
            }
            State::Chunks(chunked) => {
                let Ok(here) = chunked.advance(&self.held) else {
                    self.state = State::Refused;
                    tracing::debug!("chunked body refused");
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "chunked body is not well-formed",
                    ));
                };
                self.ready = here;
                if chunked.is_over() {
                    self.state = State::Head;
                }
                Ok(here > 0)
            }
            State::Refused => Ok(true),
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        tracing::debug!(
            status = refusal.status().as_u16(),
            cause = refusal.message(),
            "request refused"
        );
        self.watch.head_ended();
        self.watch.refuse(refusal);
        self.state = State::Refused;
        self.held.clear();
        self.held.extend_from_slice(REFUSED_HEAD);
        self.ready = self.held.len();
    }

    /// Reads more into `held`; zero at the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let start = self.held.len();
        self.held.resize(start + STEP, 0);
        let space = self.held.get_mut(start..).unwrap_or_default();
        let mut buf = ReadBuf::new(space);
        let outcome = Pin::new(&mut self.inner).poll_read(cx, &mut buf);
        let bytes = buf.filled().len();
        self.held.truncate(start + bytes);
        ready!(outcome)?;
        self.ended = bytes == 0;
        Poll::Ready(Ok(bytes))
    }

    /// A body of known length goes straight into hyper's buffer.
    fn poll_body(
        &mut self,
        left: u64,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let space = buf.initialize_unfilled_to(most.min(buf.remaining()));
        let mut part = ReadBuf::new(space);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let bytes = part.filled().len();
        buf.advance(bytes);
        self.ended = bytes == 0;
        self.state = match left - bytes as u64 {
            0 => State::Head,
            left => State::Body(left),
        };
        Poll::Ready(Ok(()))
    }

    /// Whether the client may still be sending what we will not read.
    fn unread(&self) -> bool {
        !self.ended && (!self.held.is_empty() || !matches!(self.state, State::Head))
    }

    /// Reads on for a moment after our end is closed.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut expected = self.unread();
        self.held = Vec::new();
        self.ready = 0;
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let patience = self.limits.linger;
        loop {
            let more = self.poll_more(cx);
            self.held.clear();
            match more {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(bytes)) => {
                    expected = true;
                    let closing = self.closing.get_or_insert_with(|| Closing::new(patience));
                    let Some(left) = closing.left.checked_sub(bytes) else {
                        return Poll::Ready(Ok(()));
                    };
                    closing.left = left;
                }
                Poll::Pending => break,
            }
        }
        if !expected && self.closing.is_none() {
            return Poll::Ready(Ok(()));
        }
        let closing = self.closing.get_or_insert_with(|| Closing::new(patience));
        closing.patience.as_mut().poll(cx).map(Ok)
    }
}

impl Closing {
    fn new(patience: std::time::Duration) -> Self {
        Self {
            patience: Box::pin(tokio::time::sleep(patience)),
            left: LINGER_BYTES,
        }
    }
}

/// The caps that `limits` put on a head.
pub(super) fn caps(limits: &Limits) -> Caps {
    Caps {
        line: limits.request_line,
        headers: usize::try_from(limits.header_bytes).unwrap_or(usize::MAX),
        count: limits.headers,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Screened<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.ready > 0 {
                let bytes = this.ready.min(buf.remaining());
                buf.put_slice(this.held.get(..bytes).unwrap_or_default());
                this.held.drain(..bytes);
                this.ready -= bytes;
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            match this.state {
                State::Refused => return Poll::Pending,
                State::Body(left) if this.held.is_empty() => {
                    // Not needed before the next head, which may be long in coming.
                    this.held = Vec::new();
                    return this.poll_body(left, cx, buf);
                }
                State::Head | State::Body(_) | State::Chunks(_) => {}
            }
            if !this.held.is_empty() && this.decide()? {
                continue;
            }
            if ready!(this.poll_more(cx))? == 0 {
                // Half a head is nobody's request.
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Screened<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        }
        self.poll_linger(cx)
    }
}
