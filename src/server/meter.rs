//! Every response's body passes through here: it is fair to others, and it shows whether its client takes anything.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body::Body as _;
use tokio::time::Instant;

use crate::body::{Body, BodyError};
use crate::telemetry::Metrics;

/// How many bytes a body gives before others have their turn, when several are under way (PERFORMANCE 2.5).
const TURN_SHARED: u64 = 256 * 1024;
/// The same when it is alone.
const TURN_ALONE: u64 = 2 * 1024 * 1024;

/// The bodies of the whole process.
#[derive(Debug)]
pub(super) struct Meter {
    active: AtomicUsize,
    metrics: Arc<Metrics>,
}

/// What one connection's bodies do.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bodies that are not finished.
    open: AtomicUsize,
    /// Those of them that wait for their own source.
    waiting: AtomicUsize,
    /// When something last moved, in milliseconds since `begun`.
    moved: AtomicU64,
    begun: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            open: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }

    pub(super) fn touch(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
    }

    /// How long a client has taken nothing although there was something for it.
    pub(super) fn stalled(&self) -> Duration {
        let (open, waiting) = (
            self.open.load(Ordering::Relaxed),
            self.waiting.load(Ordering::Relaxed),
        );
        if open <= waiting {
            return Duration::ZERO;
        }
        self.begun
            .elapsed()
            .saturating_sub(Duration::from_millis(self.moved.load(Ordering::Relaxed)))
    }
}

impl Meter {
    pub(super) const fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            active: AtomicUsize::new(0),
            metrics,
        }
    }

    /// Wraps a body; bodies that are whole already pass as they are.
    pub(super) fn wrap(self: &Arc<Self>, body: Body, pace: &Arc<Pace>) -> Body {
        pace.touch();
        if body.is_end_stream() {
            return body;
        }
        let length = body.size_hint().exact();
        self.active.fetch_add(1, Ordering::Relaxed);
        self.metrics.in_flight.inc();
        pace.open.fetch_add(1, Ordering::Relaxed);
        Body::stream(
            Metered {
                body,
                meter: Arc::clone(self),
                pace: Arc::clone(pace),
                turn: 0,
                waiting: false,
            },
            length,
        )
    }
}

struct Metered {
    body: Body,
    meter: Arc<Meter>,
    pace: Arc<Pace>,
    turn: u64,
    waiting: bool,
}

impl Metered {
    fn set_waiting(&mut self, waiting: bool) {
        if waiting != self.waiting {
            self.waiting = waiting;
            if waiting {
                self.pace.waiting.fetch_add(1, Ordering::Relaxed)
            } else {
                self.pace.waiting.fetch_sub(1, Ordering::Relaxed)
            };
        }
    }
}

impl Stream for Metered {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let allowed = if self.meter.active.load(Ordering::Relaxed) > 1 {
            TURN_SHARED
        } else {
            TURN_ALONE
        };
        if self.turn >= allowed {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.pace.touch();
        loop {
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            self.set_waiting(polled.is_pending());
            match std::task::ready!(polled) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.turn += bytes.len() as u64;
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
            }
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.set_waiting(false);
        self.pace.open.fetch_sub(1, Ordering::Relaxed);
        self.pace.touch();
        self.meter.active.fetch_sub(1, Ordering::Relaxed);
        self.meter.metrics.in_flight.dec();
    }
}
