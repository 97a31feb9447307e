//! The body of a request, with a floor under its speed.
//!
//! Trailers are dropped: nothing we serve gives them a meaning, and none may pass for a header (H12). What the handler leaves unread
//! goes back to the server, which drains a little or closes the connection (P40): see [`Leftover`].

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::body::BodyError;

/// The body of a request. Ends in an error when the client breaks off, breaks the framing or is too slow.
pub struct RequestBody(Inner);

enum Inner {
    Given(Option<Bytes>),
    Incoming(Box<Live>),
}

/// Where an unread body waits for the server.
pub(super) type Leftover = Arc<Mutex<Option<Incoming>>>;

/// How fast a body must come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor {
    pub window: Duration,
    pub rate: u64,
}

struct Live {
    incoming: Option<Incoming>,
    leftover: Leftover,
    read: Arc<dyn Fn(u64) + Send + Sync>,
    floor: Floor,
    /// Time spent waiting for the client in this window; the handler's own slowness is not the client's.
    waited: Duration,
    waiting_since: Option<Instant>,
    brought: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    /// No bytes.
    pub const fn empty() -> Self {
        Self(Inner::Given(None))
    }

    /// Bytes that are already here; for whoever calls a [`super::Handler`] without a connection.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(Inner::Given((!bytes.is_empty()).then_some(bytes)))
    }

    /// A client's body; `read` is told of each piece.
    pub(super) fn live(
        incoming: Incoming,
        leftover: Leftover,
        floor: Floor,
        read: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Self {
        Self(Inner::Incoming(Box::new(Live {
            incoming: Some(incoming),
            leftover,
            read,
            floor,
            waited: Duration::ZERO,
            waiting_since: None,
            brought: 0,
            timer: None,
        })))
    }
}

impl Live {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Some(incoming) = self.incoming.as_mut() else {
                return Poll::Ready(None);
            };
            match Pin::new(incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(bytes) = frame.into_data() else {
                        continue;
                    };
                    if let Some(since) = self.waiting_since.take() {
                        self.waited += since.elapsed();
                    }
                    self.brought = self.brought.saturating_add(bytes.len() as u64);
                    (self.read)(bytes.len() as u64);
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "request body broke off");
                    self.incoming = None;
                    return Poll::Ready(Some(Err(BodyError::new("the client's body broke off"))));
                }
                Poll::Ready(None) => {
                    self.incoming = None;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    if self.too_slow(cx) {
                        self.incoming = None;
                        let error = BodyError::new("the client's body came too slowly");
                        return Poll::Ready(Some(Err(error)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Called while nothing is there; arranges to be called again when the window has passed.
    fn too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let since = *self.waiting_since.get_or_insert(now);
        let mut waited = self.waited + now.saturating_duration_since(since);
        if waited >= self.floor.window {
            if self.brought
                < self
                    .floor
                    .rate
                    .saturating_mul(self.floor.window.as_secs().max(1))
            {
                return true;
            }
            self.brought = 0;
            self.waited = Duration::ZERO;
            self.waiting_since = Some(now);
            waited = Duration::ZERO;
        }
        let by = now + self.floor.window.saturating_sub(waited);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(by)));
        // Set for an earlier wait, it may go off before its time; then it is set again.
        while timer.as_mut().poll(cx).is_ready() {
            timer.as_mut().reset(by);
        }
        false
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take()
            && !incoming.is_end_stream()
        {
            *self.leftover.lock().unwrap_or_else(PoisonError::into_inner) = Some(incoming);
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Inner::Given(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Incoming(live) => live.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Given(bytes) => bytes.is_none(),
            Inner::Incoming(live) => live.incoming.as_ref().is_none_or(Incoming::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Given(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Inner::Incoming(live) => live
                .incoming
                .as_ref()
                .map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Given(bytes) => write!(
                f,
                "RequestBody({} bytes)",
                bytes.as_ref().map_or(0, Bytes::len)
            ),
            Inner::Incoming(_) => f.write_str("RequestBody(live)"),
        }
    }
}
