//! A response body on its way out: fair to its neighbours, watched, and never mistaken for whole when it is not.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::watch::{Flow, Watch};
use crate::body::{Body, BodyError};
use crate::telemetry::Metrics;

/// Bytes between two yields while several transfers are active, and while there is but one (PERFORMANCE 2.5: tokio's own budget counts
/// operations, so without this one fast reader holds a worker for 128 chunks).
const BURST_SHARED: u64 = 256 * 1024;
const BURST_ALONE: u64 = 2 * 1024 * 1024;
/// A body becomes a transfer that counts when this much has gone out.
const TRANSFER: u64 = 256 * 1024;
/// The most that is offered to HTTP/2 at once: whoever takes less than one piece in the stalled-client time is below 1 KiB/s or so.
const PIECE: usize = 64 * 1024;

/// How many transfers the whole server has going.
#[derive(Debug, Clone, Default)]
pub(super) struct Transfers(Arc<AtomicUsize>);

impl Transfers {
    fn burst(&self) -> u64 {
        if self.0.load(Relaxed) > 1 {
            BURST_SHARED
        } else {
            BURST_ALONE
        }
    }
}

/// One request between its head and the end of its response. Counts in the metrics and in the connection's notes.
#[derive(Debug)]
pub(super) struct InFlight {
    watch: Arc<Watch>,
    metrics: Arc<Metrics>,
    whole: bool,
}

impl InFlight {
    pub(super) fn begin(watch: Arc<Watch>, metrics: Arc<Metrics>) -> Self {
        watch.request_began();
        metrics.in_flight.inc();
        Self {
            watch,
            metrics,
            whole: false,
        }
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.watch.request_ended(self.whole);
    }
}

/// The body that hyper sees.
pub(super) struct Outgoing {
    body: Body,
    /// What is left of the last chunk, for HTTP/2.
    rest: Bytes,
    /// The stream it goes out on; none over HTTP/1, where the socket itself tells who stalls.
    flow: Option<Arc<Flow>>,
    in_flight: InFlight,
    transfers: Transfers,
    counted: bool,
    sent: u64,
    burst: u64,
}

impl Outgoing {
    pub(super) fn new(
        body: Body,
        flow: Option<Arc<Flow>>,
        mut in_flight: InFlight,
        transfers: Transfers,
    ) -> Self {
        in_flight.whole = body.is_end_stream();
        Self {
            body,
            rest: Bytes::new(),
            flow,
            in_flight,
            transfers,
            counted: false,
            sent: 0,
            burst: 0,
        }
    }

    /// The next chunk; a panic in its source is an error like any other.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            let body = Pin::new(&mut self.body);
            let polled = catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx)));
            let Ok(polled) = polled else {
                self.in_flight.metrics.panics.inc();
                tracing::error!("a response body panicked");
                self.body = Body::empty();
                return Poll::Ready(Some(Err(BodyError::new("the response's body panicked"))));
            };
            return Poll::Ready(match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => continue,
                    Ok(bytes) => Some(Ok(bytes)),
                    // We send no trailers.
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => Some(Err(error)),
                None => None,
            });
        }
    }

    /// Whether it is the others' turn.
    fn must_yield(&mut self, cx: &Context<'_>) -> bool {
        if self.burst < self.transfers.burst() {
            return false;
        }
        self.burst = 0;
        cx.waker().wake_by_ref();
        true
    }

    fn account(&mut self, bytes: usize) {
        self.burst += bytes as u64;
        self.sent += bytes as u64;
        if !self.counted && self.sent >= TRANSFER {
            self.counted = true;
            self.transfers.0.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if self.counted {
            self.transfers.0.fetch_sub(1, Relaxed);
        }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(flow) = &this.flow {
            flow.taken();
        }
        if this.must_yield(cx) {
            return Poll::Pending;
        }
        if this.rest.is_empty() {
            match ready_or_rest(this.poll_chunk(cx), &mut this.burst) {
                Poll::Ready(Some(Ok(bytes))) => this.rest = bytes,
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "cutting a response short");
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => {
                    this.in_flight.whole = true;
                    return Poll::Ready(None);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        let piece = match &this.flow {
            Some(flow) => {
                flow.offered();
                this.rest.split_to(this.rest.len().min(PIECE))
            }
            None => std::mem::take(&mut this.rest),
        };
        this.account(piece.len());
        this.in_flight.whole = this.rest.is_empty() && this.body.is_end_stream();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        match hint.exact() {
            Some(exact) => SizeHint::with_exact(exact + self.rest.len() as u64),
            None => hint,
        }
    }
}

/// A body that waits for its source has given up its turn by itself.
fn ready_or_rest<T>(polled: Poll<T>, burst: &mut u64) -> Poll<T> {
    if polled.is_pending() {
        *burst = 0;
    }
    polled
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("body", &self.body)
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}
