//! The keys of one issuer: fetched at the start and every hour, and at most once a minute for a key that is not known.
//!
//! A fetch runs by itself, so that whoever waits for it and leaves ends it for nobody. One that fails leaves the keys that were there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use url::{Host, Url};

use super::jwks::Jwks;
use super::token::Signed;
use super::{Config, Fetch, OidcError, PATIENCE};
use crate::tasks::Tasks;

/// How old keys get before they are fetched anew.
const FRESH_FOR: Duration = Duration::from_secs(3600);
/// How old they get while fetching them fails.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// Between two fetches for keys that nobody knows, and between two tries in time.
const PAUSE: Duration = Duration::from_secs(60);
/// The largest document of an issuer.
const DOCUMENT_MAX: usize = 256 * 1024;
/// Where an issuer says where its keys are (`OpenID` Connect Discovery 1.0, 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// One issuer.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) config: Config,
    /// What tells it from others, and from itself when it is told something else.
    pub(super) mark: String,
    fetch: Fetch,
    tasks: Tasks,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    keys: Arc<Jwks>,
    fetched: Option<Instant>,
    /// When it was last asked because it was time.
    in_time: Option<Instant>,
    /// When it was last asked for a key that was not there.
    on_demand: Option<Instant>,
    /// Closed when the fetch under way has ended.
    under_way: Option<watch::Receiver<()>>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Issuer {
    pub(super) fn new(config: Config, mark: String, fetch: Fetch, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            config,
            mark,
            fetch,
            tasks,
            known: Mutex::default(),
        })
    }

    /// Whether a key of this issuer signed a token. One that is not known is looked for, where that may be done now.
    pub(super) async fn verify(self: &Arc<Self>, token: &Signed<'_>) -> Result<(), OidcError> {
        let found = self.keys().map(|keys| keys.verify(token));
        if !matches!(found, None | Some(Err(OidcError::Key))) {
            return found.unwrap_or(Err(OidcError::Key));
        }
        if let Some(mut fetch) = self.on_demand() {
            // An error says that it has ended, which is what is waited for.
            let _ended = timeout(PATIENCE, fetch.changed()).await;
        }
        match self.keys() {
            Some(keys) => keys.verify(token),
            None => Err(OidcError::Unreachable),
        }
    }

    /// The keys, as long as they are not too old.
    fn keys(&self) -> Option<Arc<Jwks>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_kept = known.fetched.is_some_and(|at| at.elapsed() < KEPT_FOR);
        is_kept.then(|| Arc::clone(&known.keys))
    }

    /// The fetch that is under way, or a new one; `None` within a minute of the last.
    fn on_demand(self: &Arc<Self>) -> Option<watch::Receiver<()>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fetch) = &known.under_way {
            return Some(fetch.clone());
        }
        if known.on_demand.is_some_and(|at| at.elapsed() < PAUSE) {
            return None;
        }
        known.on_demand = Some(Instant::now());
        Some(self.begin(&mut known))
    }

    /// Fetches the keys where they are due.
    pub(super) fn refresh_in_time(self: &Arc<Self>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = known.fetched.is_some_and(|at| at.elapsed() < FRESH_FOR);
        let was_tried = known.in_time.is_some_and(|at| at.elapsed() < PAUSE);
        if !is_fresh && !was_tried && known.under_way.is_none() {
            known.in_time = Some(Instant::now());
            drop(self.begin(&mut known));
        }
    }

    fn begin(self: &Arc<Self>, known: &mut Known) -> watch::Receiver<()> {
        let (ended, fetch) = watch::channel(());
        known.under_way = Some(fetch.clone());
        let issuer = Arc::clone(self);
        self.tasks.spawn("keys of an issuer", async move {
            let stopping = issuer.tasks.stopping();
            let fetched = tokio::select! {
                fetched = timeout(PATIENCE, issuer.fetch()) => {
                    fetched.unwrap_or_else(|_elapsed| Err("it took too long".to_owned()))
                }
                () = stopping.cancelled() => return,
            };
            issuer.take(fetched);
            drop(ended);
        });
        fetch
    }

    fn take(&self, fetched: Result<Jwks, String>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.under_way = None;
        let issuer = &self.config.issuer;
        match fetched {
            Ok(keys) => {
                info!(issuer, keys = keys.len(), "fetched the keys of an issuer");
                known.keys = Arc::new(keys);
                known.fetched = Some(Instant::now());
            }
            Err(problem) => {
                let kept = known.fetched.is_some_and(|at| at.elapsed() < KEPT_FOR);
                warn!(
                    issuer,
                    problem,
                    kept,
                    "cannot fetch the keys of an issuer; those before are kept for a day"
                );
            }
        }
    }

    async fn fetch(&self) -> Result<Jwks, String> {
        let issuer = &self.config.issuer;
        let place = format!("{}{DISCOVERY}", issuer.trim_end_matches('/'));
        let document = self.fetch.get(place, DOCUMENT_MAX).await?;
        let found: Discovery = serde_json::from_slice(&document)
            .map_err(|_shape| "its discovery document has no issuer and jwks_uri".to_owned())?;
        // Or one issuer could speak for another (Discovery 4.3).
        if found.issuer != *issuer {
            return Err("its discovery document is another issuer's".to_owned());
        }
        if !Url::parse(&found.jwks_uri).is_ok_and(|url| is_private(&url)) {
            return Err("its jwks_uri is no https:// URL".to_owned());
        }
        let set = self.fetch.get(found.jwks_uri, DOCUMENT_MAX).await?;
        Jwks::parse(&set, &self.config.algorithms)
            .ok_or_else(|| "its key set has no key for the configured algorithms".to_owned())
    }
}

/// Whether nobody on the way can change what comes from there: https, or http on this machine.
pub fn is_private(url: &Url) -> bool {
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(Host::Ipv4(address))) => address.is_loopback(),
        ("http", Some(Host::Ipv6(address))) => address.is_loopback(),
        ("http", Some(Host::Domain(name))) => name == "localhost",
        _ => false,
    }
}
