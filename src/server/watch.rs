//! What one connection is doing, and by when it must have done something else.
//!
//! The parts of a connection (socket, head screen, bodies) note what happens; [`Watch::verdict`] turns the notes into a deadline or an
//! end. Nothing here sleeps or closes. The distinction that matters: a response whose *source* has nothing yet is not the client's
//! fault; one whose bytes are ready while the client takes none is (P39).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Limits;
use super::refusal::Refusal;

/// How often it is asked whether the client of a request in flight has gone.
const GONE_LOOK: Duration = Duration::from_secs(1);

/// Why the server ends a connection that the client has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// No request came in time.
    Idle,
    /// A head was begun and not finished in time.
    Head,
    /// Bytes were ready and the client took none.
    Stalled,
    /// More frames or resets than work.
    Flood,
}

impl Reason {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Head => "slow head",
            Self::Stalled => "stalled client",
            Self::Flood => "flood",
        }
    }
}

/// What to do about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again then, or when something happened.
    LookAgain(Instant),
    Close(Reason),
}

/// A point in time that may be unset: milliseconds after the connection began, plus one.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Moment {
    fn get(&self) -> Option<Duration> {
        self.0
            .load(Relaxed)
            .checked_sub(1)
            .map(Duration::from_millis)
    }

    fn set(&self, at: Duration) {
        let ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX - 1);
        self.0.store(ms + 1, Relaxed);
    }

    fn clear(&self) {
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }
}

/// The notes on one connection. Lock-free but for a refusal, which happens once.
#[derive(Debug)]
pub(super) struct Watch {
    began: Instant,
    in_flight: AtomicUsize,
    idle: Moment,
    head: Moment,
    blocked: Moment,
    read: AtomicU64,
    allowed: AtomicU64,
    written: AtomicU64,
    /// Milliseconds for which the client kept bytes waiting since it was last judged, and what it took meanwhile.
    waited: AtomicU64,
    taken: AtomicU64,
    finished: AtomicUsize,
    cancelled: AtomicUsize,
    flooded: AtomicBool,
    reset: AtomicBool,
    refusal: Mutex<Option<Refusal>>,
}

impl Watch {
    /// Notes on a connection that began at `now`; its first head is awaited.
    pub(super) fn new(now: Instant) -> Self {
        let watch = Self {
            began: now,
            in_flight: AtomicUsize::new(0),
            idle: Moment::default(),
            head: Moment::default(),
            blocked: Moment::default(),
            read: AtomicU64::new(0),
            allowed: AtomicU64::new(0),
            written: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            finished: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
            flooded: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            refusal: Mutex::new(None),
        };
        watch.idle.set(Duration::ZERO);
        watch.head.set(Duration::ZERO);
        watch
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The first head is awaited from now on: the time for the TLS handshake was another.
    pub(super) fn opened(&self) {
        let now = self.now();
        self.idle.set(now);
        self.head.set(now);
    }

    /// A head was begun.
    pub(super) fn head_began(&self) {
        if self.head.get().is_none() {
            self.head.set(self.now());
        }
    }

    /// A head is complete, or (HTTP/2) the preface is.
    pub(super) fn head_ended(&self) {
        self.head.clear();
    }

    /// A request goes to the handler.
    pub(super) fn request_began(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// Its response has ended, or will never; `whole` when to its last byte.
    pub(super) fn request_ended(&self, whole: bool) {
        let count = if whole {
            &self.finished
        } else {
            &self.cancelled
        };
        count.fetch_add(1, Relaxed);
        self.idle.set(self.now());
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// More requests were given up than `slack` over those that ended.
    pub(super) fn judge_cancels(&self, slack: usize) {
        if self.cancelled.load(Relaxed) > self.finished.load(Relaxed).saturating_add(slack) {
            self.flooded.store(true, Relaxed);
        }
    }

    /// The socket took `bytes`.
    pub(super) fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Relaxed);
        self.taken.fetch_add(bytes, Relaxed);
        if let Some(since) = self.blocked.get() {
            let waited = self.now().saturating_sub(since).as_millis();
            let waited = u64::try_from(waited).unwrap_or(u64::MAX);
            self.waited.fetch_add(waited, Relaxed);
        }
        self.blocked.clear();
    }

    /// Whether the client takes answers more slowly than bodies must come. Only the time counts for which bytes were ready.
    fn crawls(&self, limits: &Limits) -> bool {
        let waited = Duration::from_millis(self.waited.load(Relaxed));
        if waited < limits.body_window {
            return false;
        }
        self.waited.store(0, Relaxed);
        let taken = self.taken.swap(0, Relaxed);
        taken < limits.body_rate.saturating_mul(waited.as_secs())
    }

    /// The socket takes nothing now.
    pub(super) fn write_blocked(&self) {
        if self.blocked.get().is_none() {
            self.blocked.set(self.now());
        }
    }

    /// The socket brought `bytes`.
    pub(super) fn has_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Relaxed);
    }

    /// `bytes` of what was or will be read are work and no flood.
    pub(super) fn allow(&self, bytes: u64) {
        self.allowed.fetch_add(bytes, Relaxed);
    }

    /// Whether somebody waits for an answer.
    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.load(Relaxed) > 0
    }

    /// Whether more than `slack` bytes were read that nothing explains. What was written explains its window updates.
    pub(super) fn unexplained(&self, slack: u64) -> bool {
        let explained = self
            .allowed
            .load(Relaxed)
            .saturating_add(self.written.load(Relaxed) / 16)
            .saturating_add(slack);
        self.read.load(Relaxed) > explained
    }

    /// A response has begun whose only end is that of the connection: unless all of it goes out, the end must be a reset.
    pub(super) fn needs_reset(&self, needs: bool) {
        self.reset.store(needs, Relaxed);
    }

    /// Whether closing the socket now must be a reset.
    pub(super) fn must_reset(&self) -> bool {
        self.reset.load(Relaxed)
    }

    /// The head being read is refused.
    pub(super) fn refuse(&self, refusal: Refusal) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }

    /// The refusal to answer with, once.
    pub(super) fn take_refusal(&self) -> Option<Refusal> {
        self.refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// What is to be done at `now`.
    pub(super) fn verdict(&self, now: Instant, limits: &Limits) -> Verdict {
        if self.flooded.load(Relaxed) {
            return Verdict::Close(Reason::Flood);
        }
        if self.crawls(limits) {
            return Verdict::Close(Reason::Stalled);
        }
        let (by, reason) = if let Some(blocked) = self.blocked.get() {
            (blocked + limits.stalled_client, Reason::Stalled)
        } else if self.in_flight.load(Relaxed) > 0 {
            // HTTP/2 bodies end in other tasks, so even a busy connection is looked at now and then.
            let look = limits.idle_timeout.min(limits.stalled_client);
            return Verdict::LookAgain(now + look.min(GONE_LOOK));
        } else {
            let idle = self.idle.get().unwrap_or_default();
            match self.head.get() {
                Some(head) => (idle.max(head) + limits.header_timeout, Reason::Head),
                None => (idle + limits.idle_timeout, Reason::Idle),
            }
        };
        let by = self.began + by;
        if by <= now {
            Verdict::Close(reason)
        } else {
            Verdict::LookAgain(by)
        }
    }
}

/// One HTTP/2 stream: since when a piece of its body waits for the client to take it.
#[derive(Debug)]
pub(super) struct Flow {
    began: Instant,
    offered: Moment,
}

impl Flow {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            offered: Moment::default(),
        }
    }

    /// A piece was handed over.
    pub(super) fn offered(&self) {
        self.offered.set(self.began.elapsed());
    }

    /// More was asked for: the piece is on its way.
    pub(super) fn taken(&self) {
        self.offered.clear();
    }

    /// When to look again, or that the client has taken nothing for `patience`.
    pub(super) fn verdict(&self, now: Instant, patience: Duration) -> Verdict {
        let by = match self.offered.get() {
            Some(offered) => self.began + offered + patience,
            None => now + patience,
        };
        if by <= now {
            Verdict::Close(Reason::Stalled)
        } else {
            Verdict::LookAgain(by)
        }
    }
}
