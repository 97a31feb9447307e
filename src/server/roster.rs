//! Who is connected, so that a shutdown reaches everyone and knows when all have left.
//!
//! Each connection looks at its own atomic on every poll; a shared token would put a lock on the hit path.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use crate::telemetry::Metrics;

/// Where the server is in its life. Only ever goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// Requests in flight may end; nothing new begins.
    Draining,
    /// Everything ends now.
    Cut,
}

impl Phase {
    const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Serving,
            1 => Self::Draining,
            _ => Self::Cut,
        }
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Roster {
    seats: Mutex<Seats>,
    left: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Seats {
    phase: Phase,
    next: u64,
    taken: HashMap<u64, Arc<Signal>>,
}

#[derive(Debug)]
struct Signal {
    phase: AtomicU8,
    waker: AtomicWaker,
}

/// One connection's place; leaving is dropping it.
#[derive(Debug)]
pub(super) struct Seat {
    number: u64,
    signal: Arc<Signal>,
    roster: Arc<Roster>,
}

impl Roster {
    pub(super) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            seats: Mutex::new(Seats {
                phase: Phase::Serving,
                next: 0,
                taken: HashMap::new(),
            }),
            left: Notify::new(),
            metrics,
        })
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; whoever comes late finds the phase that is.
    pub(super) fn join(self: &Arc<Self>) -> Seat {
        self.metrics.connections.inc();
        let mut seats = self.seats();
        let number = seats.next;
        seats.next += 1;
        let signal = Arc::new(Signal {
            phase: AtomicU8::new(seats.phase as u8),
            waker: AtomicWaker::new(),
        });
        seats.taken.insert(number, Arc::clone(&signal));
        drop(seats);
        Seat {
            number,
            signal,
            roster: Arc::clone(self),
        }
    }

    /// Tells everyone.
    pub(super) fn enter(&self, phase: Phase) {
        let mut seats = self.seats();
        seats.phase = phase;
        for signal in seats.taken.values() {
            signal.phase.store(phase as u8, Ordering::Release);
            signal.waker.wake();
        }
    }

    /// How many are here.
    pub(super) fn len(&self) -> usize {
        self.seats().taken.len()
    }

    /// Until nobody is.
    pub(super) async fn empty(&self) {
        loop {
            let left = self.left.notified();
            if self.len() == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Seat {
    pub(super) fn phase(&self) -> Phase {
        Phase::from_u8(self.signal.phase.load(Ordering::Acquire))
    }

    /// The phase, and a wake-up when it changes. For one task only.
    pub(super) fn poll_phase(&self, cx: &Context<'_>) -> Phase {
        self.signal.waker.register(cx.waker());
        self.phase()
    }

    /// Until the server is no longer serving.
    pub(super) async fn draining(&self) {
        std::future::poll_fn(|cx| match self.poll_phase(cx) {
            Phase::Serving => Poll::Pending,
            Phase::Draining | Phase::Cut => Poll::Ready(()),
        })
        .await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.roster.metrics.connections.dec();
        let mut seats = self.roster.seats();
        seats.taken.remove(&self.number);
        let empty = seats.taken.is_empty();
        drop(seats);
        if empty {
            self.roster.left.notify_waiters();
        }
    }
}
