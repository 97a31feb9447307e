//! How much a client may ask of this mirror, and all of them together (`[limits]`).
//!
//! A client is a user, else an address. Over its rate it is told to come back; over its number of requests at a time it waits, and bytes
//! are handed out at their pace. What all clients share is given in turns, one client after the other, however many connections each has.

mod client;
mod fair;
mod passage;

#[cfg(test)]
mod tests;

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use lru::LruCache;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

pub use client::Client;
pub use passage::Passage;

use fair::{Fair, WAITING_MAX};

use crate::bandwidth::Bandwidth;
use crate::recent::recent;

/// How long a request waits for its place. Clients' own patience is longer, and nobody who waits this long is served well by waiting on.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many clients are known at a time; more, and the ones not seen for longest begin anew.
const CLIENTS_MAX: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();

/// What a request is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Reads manifests, tags, referrers, lists.
    Manifest,
    /// Reads blobs.
    Blob,
    /// Changes something.
    Write,
    /// Asks for a token, or fails to log in.
    Login,
    /// Anything else.
    Other,
}

/// Requests a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// One request in this time.
    pub every: Duration,
    /// So many at once after a pause.
    pub burst: NonZeroU32,
}

/// What one client may, or all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// How often.
    pub rate: Option<Rate>,
    /// How many requests at a time.
    pub concurrent: Option<NonZeroUsize>,
    /// Bytes of bodies a second, in both directions.
    pub bandwidth: Option<NonZeroU64>,
}

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Config {
    /// Of each client.
    pub per_client: Budget,
    /// Of each client, what of it may be manifests and lists.
    pub manifest: Option<Rate>,
    /// What of it may be blobs.
    pub blob: Option<Rate>,
    /// What of it may be writes.
    pub write: Option<Rate>,
    /// What of it may be logins.
    pub login: Option<Rate>,
    /// Of all clients together.
    pub global: Budget,
}

/// A client asks too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Limited {
    /// The key of the configuration that says so.
    pub what: &'static str,
    /// When it may be tried again.
    pub retry_after: Duration,
}

/// What is counted. One for the whole process.
#[derive(Debug)]
pub struct Limits {
    current: RwLock<Arc<Counts>>,
}

/// What is counted under one configuration.
#[derive(Debug)]
pub(super) struct Counts {
    config: Config,
    clock: DefaultClock,
    clients: Mutex<LruCache<Client, Arc<Own>>>,
    shared_rate: Option<(DefaultDirectRateLimiter, Fair)>,
    shared_places: Option<Fair>,
    shared_bytes: Option<(Bandwidth, Fair)>,
}

/// What is counted of one client.
#[derive(Debug)]
pub(super) struct Own {
    rate: Option<DefaultDirectRateLimiter>,
    manifest: Option<DefaultDirectRateLimiter>,
    blob: Option<DefaultDirectRateLimiter>,
    write: Option<DefaultDirectRateLimiter>,
    login: Option<DefaultDirectRateLimiter>,
    places: Option<(Arc<Semaphore>, usize)>,
    bytes: Option<Bandwidth>,
}

impl Class {
    const fn key(self) -> &'static str {
        match self {
            Self::Manifest => "limits.manifest",
            Self::Blob => "limits.blob",
            Self::Write => "limits.write",
            Self::Login => "limits.login",
            Self::Other => "limits.per_client",
        }
    }
}

impl Rate {
    fn limiter(self) -> Option<DefaultDirectRateLimiter> {
        let quota = Quota::with_period(self.every)?;
        Some(RateLimiter::direct(quota.allow_burst(self.burst)))
    }
}

impl Limits {
    /// Nothing has been counted yet.
    pub fn new(config: Config) -> Self {
        Self {
            current: RwLock::new(Arc::new(Counts::new(config))),
        }
    }

    /// Takes other limits; what was counted under the old ones is forgotten where they differ.
    pub fn reload(&self, config: Config) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.config != config {
            *current = Arc::new(Counts::new(config));
        }
    }

    fn current(&self) -> Arc<Counts> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A request of a client comes in: counts it, waits for its place, and keeps that until the answer has gone. `None`: nothing is limited.
    pub async fn enter(
        &self,
        client: impl FnOnce() -> Client,
        class: Class,
    ) -> Result<Option<Passage>, Limited> {
        let counts = self.current();
        if counts.config == Config::default() {
            return Ok(None);
        }
        let client = client();
        let own = counts.own(&client);
        counts.count(&own, class)?;
        let passage = counts.wait(own, client);
        let passage = timeout(PATIENCE, passage).await;
        passage
            .unwrap_or(Err(Limited {
                what: "no place became free in time (limits.*.concurrent, limits.global)",
                retry_after: PATIENCE,
            }))
            .map(Some)
    }

    /// Something happened that counts as a request of a class, and waits for nothing.
    pub fn charge(&self, client: &Client, class: Class) -> Result<(), Limited> {
        let counts = self.current();
        if counts.config == Config::default() {
            return Ok(());
        }
        counts.count(&counts.own(client), class)
    }
}

impl Counts {
    fn new(config: Config) -> Self {
        let Budget {
            rate,
            concurrent,
            bandwidth,
        } = config.global;
        let now = Instant::now();
        let limiter = rate.and_then(Rate::limiter);
        Self {
            config,
            clock: DefaultClock::default(),
            clients: Mutex::new(recent(CLIENTS_MAX)),
            shared_rate: limiter.map(|limiter| (limiter, Fair::new(1))),
            shared_places: concurrent.map(|places| Fair::new(places.get())),
            shared_bytes: bandwidth.map(|rate| (Bandwidth::new(rate, now), Fair::new(1))),
        }
    }

    fn own(&self, client: &Client) -> Arc<Own> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(Own::new(&self.config));
        Arc::clone(clients.get_or_insert(client.clone(), make))
    }

    fn count(&self, own: &Own, class: Class) -> Result<(), Limited> {
        let rate = own.rate.as_ref();
        check(rate, "limits.per_client.requests_per_second", &self.clock)?;
        check(own.of(class), class.key(), &self.clock)
    }

    async fn wait(self: Arc<Self>, own: Arc<Own>, client: Client) -> Result<Passage, Limited> {
        let full = |what| Limited {
            what,
            retry_after: PATIENCE,
        };
        let place = match &own.places {
            Some((places, most)) => {
                // Those who have a place are not told apart from those who wait, so they are allowed for.
                if Arc::strong_count(places) > most + WAITING_MAX {
                    return Err(full("limits.per_client.concurrent"));
                }
                Arc::clone(places).acquire_owned().await.ok()
            }
            None => None,
        };
        if let Some((limiter, fair)) = &self.shared_rate {
            let turn = fair.place(&client).await;
            let _turn = turn.map_err(|_full| full("limits.global.requests_per_second"))?;
            while let Err(early) = limiter.check() {
                sleep(early.wait_time_from(self.clock.now())).await;
            }
        }
        let shared = match &self.shared_places {
            Some(fair) => {
                let place = fair.place(&client).await;
                Some(place.map_err(|_full| full("limits.global.concurrent"))?)
            }
            None => None,
        };
        Ok(Passage::new(self, own, client, (place, shared)))
    }
}

impl Own {
    fn new(config: &Config) -> Self {
        let limiter = |rate: Option<Rate>| rate.and_then(Rate::limiter);
        let budget = &config.per_client;
        let places = budget.concurrent.map(NonZeroUsize::get);
        Self {
            rate: limiter(budget.rate),
            manifest: limiter(config.manifest),
            blob: limiter(config.blob),
            write: limiter(config.write),
            login: limiter(config.login),
            places: places.map(|places| (Arc::new(Semaphore::new(places)), places)),
            bytes: budget
                .bandwidth
                .map(|rate| Bandwidth::new(rate, Instant::now())),
        }
    }

    const fn of(&self, class: Class) -> Option<&DefaultDirectRateLimiter> {
        match class {
            Class::Manifest => self.manifest.as_ref(),
            Class::Blob => self.blob.as_ref(),
            Class::Write => self.write.as_ref(),
            Class::Login => self.login.as_ref(),
            Class::Other => None,
        }
    }
}

fn check(
    limiter: Option<&DefaultDirectRateLimiter>,
    what: &'static str,
    clock: &DefaultClock,
) -> Result<(), Limited> {
    let Some(Err(early)) = limiter.map(RateLimiter::check) else {
        return Ok(());
    };
    Err(Limited {
        what,
        retry_after: early.wait_time_from(clock.now()),
    })
}
