//! Limits guessing: ten failed logins a minute for a name, and for an address (RELIABILITY P44).

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use lru::LruCache;
use tokio::time::Instant;

use crate::address::network;
use crate::recent::recent;

/// Failed logins a minute.
pub(super) const PER_MINUTE: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// When it may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// In how long.
    pub retry_after: Duration,
}

/// How many names and addresses are held up at most; more, and the oldest are let go of early.
const HELD_MAX: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();
/// The most bytes of a name that are kept.
const NAME_MAX: usize = 255;

/// What failed logins are counted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum By {
    Name(String),
    Address(IpAddr),
}

/// Logins that failed of late. Those that go well are not counted: one address may have many users behind it.
#[derive(Debug)]
pub(super) struct Attempts {
    failures: DefaultKeyedRateLimiter<By>,
    held: Mutex<LruCache<By, Instant>>,
    clock: DefaultClock,
    /// Whether addresses are counted as well as names.
    by_address: bool,
}

impl Attempts {
    pub(super) fn new(by_address: bool) -> Self {
        Self {
            failures: RateLimiter::keyed(Quota::per_minute(PER_MINUTE)),
            held: Mutex::new(recent(HELD_MAX)),
            clock: DefaultClock::default(),
            by_address,
        }
    }

    /// Whether a login may be tried now.
    pub(super) fn allows(&self, name: &str, address: IpAddr) -> Result<(), Limited> {
        self.allow(self.by(Some(name), address))
    }

    /// The same for one that is no guess at anybody's name.
    pub(super) fn allows_address(&self, address: IpAddr) -> Result<(), Limited> {
        self.allow(self.by(None, address))
    }

    fn allow(&self, all: impl Iterator<Item = By>) -> Result<(), Limited> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for by in all {
            let until = held.get(&by).copied();
            let wait = until.map_or(Duration::ZERO, |until| {
                until.saturating_duration_since(Instant::now())
            });
            if !wait.is_zero() {
                return Err(Limited { retry_after: wait });
            }
        }
        Ok(())
    }

    /// A login failed.
    pub(super) fn failed(&self, name: &str, address: IpAddr) {
        self.fail(self.by(Some(name), address));
    }

    /// The same for one that was no guess at anybody's name.
    pub(super) fn failed_address(&self, address: IpAddr) {
        self.fail(self.by(None, address));
    }

    fn fail(&self, all: impl Iterator<Item = By>) {
        for by in all {
            if let Err(spent) = self.failures.check_key(&by) {
                let wait = spent.wait_time_from(self.clock.now());
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                held.put(by, Instant::now() + wait);
            }
        }
    }

    fn by(&self, name: Option<&str>, address: IpAddr) -> impl Iterator<Item = By> + use<> {
        let name = name.map(|name| By::Name(name.chars().take(NAME_MAX).collect()));
        let address = self.by_address.then(|| By::Address(network(address)));
        [name, address].into_iter().flatten()
    }

    pub(super) fn tidy(&self) {
        self.failures.retain_recent();
        self.failures.shrink_to_fit();
    }
}
