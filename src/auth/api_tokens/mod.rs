//! API tokens: what programs log in with instead of a user's password. Named, limited to a scope, over at some time, revoked by name.
//!
//! The truth is the journal; all of them are in memory, so a request asks nothing else and a revocation counts from the next one on. Only
//! the hash of a token is kept anywhere. A token never gives more than its user may at that moment.

mod login;
mod scope;
mod secret;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Value, json};
use tokio::sync::{Mutex, oneshot};
use tracing::{info, warn};

pub use scope::{EXPIRES_DEFAULT, Scope};

pub(super) use login::at_most;
use scope::Wanted;

use crate::audit;
use crate::clock::{self, Wall};
use crate::secret::Secret;
use crate::store::index::ApiTokenRow;
use crate::store::{Change, IndexError, Store, StoreError};
use crate::tasks::Tasks;

/// The most tokens at a time.
pub const TOKENS_MAX: usize = 10_000;
/// Uses are noted to the day.
const DAY_MS: i64 = 24 * 3600 * 1000;
/// A token that was never used.
const NEVER_USED: i64 = -1;

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// What it is called.
    pub name: String,
    /// Whose rights it has.
    pub user: String,
    /// The most that may be done with it.
    pub scope: Scope,
    /// When it was made.
    pub created: Wall,
    /// When it is over; `None`: never.
    pub expires: Option<Wall>,
    /// Of its text.
    hash: String,
}

/// Why a token is not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum ApiTokenError {
    /// What was sent is no token.
    #[error("{0}")]
    Unfit(String),
    /// There is no such user.
    #[error("user: the users file has no `{0}`; add them with `roadstead user add`")]
    NoUser(String),
    /// The name is taken.
    #[error("there is a token `{0}` already; revoke it first, or take another name")]
    Exists(String),
    /// There is none of that name.
    #[error("there is no token `{0}`")]
    Unknown(String),
    /// There are enough of them.
    #[error("there are {0} tokens, and no more are kept; revoke those that nobody uses")]
    TooMany(usize),
    /// The system gives no random bytes, or the mirror is stopping.
    #[error("no token can be made now")]
    NotNow,
    /// The store.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// A token that was made; its text is shown this once.
#[derive(Debug)]
pub struct Made {
    /// What stands in lists of it.
    pub told: Value,
    /// Its text.
    pub token: Secret,
}

impl Made {
    /// As JSON, with the text.
    pub fn to_json(&self) -> Value {
        let mut told = self.told.clone();
        if let Some(told) = told.as_object_mut() {
            told.insert("token".to_owned(), json!(self.token.expose()));
        }
        told
    }
}

/// Every token. Clones share them.
#[derive(Debug, Clone)]
pub struct ApiTokens {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    tasks: Tasks,
    most: usize,
    current: RwLock<Arc<Table>>,
    /// One change at a time.
    changing: Mutex<()>,
}

#[derive(Debug, Default, Clone)]
struct Table {
    by_name: BTreeMap<String, Arc<Known>>,
    by_hash: HashMap<String, Arc<Known>>,
}

#[derive(Debug)]
struct Known {
    token: Arc<ApiToken>,
    /// The day of its last use, since the epoch; and what of that the index has.
    used: AtomicI64,
    written: AtomicI64,
}

impl ApiToken {
    /// Whether it is over.
    pub fn is_over(&self, now: Wall) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn of_row(row: &ApiTokenRow) -> Result<Self, String> {
        Ok(Self {
            scope: Scope::parse(row.on.clone(), &row.may)?,
            name: row.name.clone(),
            user: row.user.clone(),
            hash: row.hash.clone(),
            created: row.created,
            expires: row.expires,
        })
    }

    fn to_row(&self) -> ApiTokenRow {
        ApiTokenRow {
            name: self.name.clone(),
            user: self.user.clone(),
            hash: self.hash.clone(),
            may: self.scope.rights().into_iter().map(str::to_owned).collect(),
            on: self.scope.places().to_vec(),
            created: self.created,
            expires: self.expires,
            used: None,
        }
    }
}

impl Known {
    fn new(token: ApiToken, used: i64) -> Arc<Self> {
        Arc::new(Self {
            token: Arc::new(token),
            used: AtomicI64::new(used),
            written: AtomicI64::new(used),
        })
    }

    fn note_use(&self, now: Wall) {
        let day = now.as_ms().div_euclid(DAY_MS);
        if self.used.load(Ordering::Relaxed) != day {
            self.used.store(day, Ordering::Relaxed);
        }
    }

    fn to_json(&self, now: Wall) -> Value {
        let token = &self.token;
        let used = self.used.load(Ordering::Relaxed);
        let day =
            (used != NEVER_USED).then(|| Wall::from_ms(used.saturating_mul(DAY_MS)).to_string());
        json!({
            "name": token.name,
            "user": token.user,
            "may": token.scope.rights(),
            "on": token.scope.places(),
            "created": token.created.to_string(),
            "expires": token.expires.map(|expires| expires.to_string()),
            "expired": token.is_over(now),
            "last_used": day.as_deref().and_then(|day| day.get(..10)),
        })
    }
}

impl Table {
    fn put(&mut self, known: Arc<Known>) {
        let token = &known.token;
        self.remove(&token.name.clone());
        self.by_hash.insert(token.hash.clone(), Arc::clone(&known));
        self.by_name.insert(known.token.name.clone(), known);
    }

    fn remove(&mut self, name: &str) {
        if let Some(gone) = self.by_name.remove(name) {
            self.by_hash.remove(&gone.token.hash);
        }
    }
}

impl ApiTokens {
    /// The tokens of a store.
    pub async fn open(store: Store, tasks: &Tasks) -> Result<Self, IndexError> {
        Self::open_for(store, tasks, TOKENS_MAX).await
    }

    async fn open_for(store: Store, tasks: &Tasks, most: usize) -> Result<Self, IndexError> {
        let mut table = Table::default();
        for row in store.index().api_tokens().await? {
            let used = row
                .used
                .map_or(NEVER_USED, |used| used.as_ms().div_euclid(DAY_MS));
            match ApiToken::of_row(&row) {
                Ok(token) => table.put(Known::new(token, used)),
                // What cannot be understood must not give more than was meant.
                Err(error) => warn!(
                    token = row.name,
                    error, "an API token cannot be read; it does not count"
                ),
            }
        }
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                tasks: tasks.clone(),
                most,
                current: RwLock::new(Arc::new(table)),
                changing: Mutex::default(),
            }),
        })
    }

    fn current(&self) -> Arc<Table> {
        let current = self.inner.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    /// Every token, by name.
    fn list(&self, now: Wall) -> Vec<Value> {
        let table = self.current();
        table
            .by_name
            .values()
            .map(|known| known.to_json(now))
            .collect()
    }

    fn by_text(&self, text: &str) -> Option<Arc<Known>> {
        self.current().by_hash.get(&secret::hash(text)).cloned()
    }

    fn by_name(&self, name: &str) -> Option<Arc<Known>> {
        self.current().by_name.get(name).cloned()
    }

    /// Makes a token. One of the same name that is over makes room for it. Once begun it ends, whether or not the caller waits.
    async fn create(&self, wanted: Wanted, who: &str) -> Result<Made, ApiTokenError> {
        let text = secret::make().ok_or(ApiTokenError::NotNow)?;
        let now = clock::now();
        let lasts = wanted
            .lasts
            .map(|lasts| i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX));
        let token = ApiToken {
            hash: secret::hash(text.expose()),
            expires: lasts.map(|lasts| Wall::from_ms(now.as_ms().saturating_add(lasts))),
            created: now,
            name: wanted.name,
            user: wanted.user,
            scope: wanted.scope,
        };
        let event = json!({
            "action": "create token",
            "who": who,
            "token": token.name,
            "user": token.user,
            "may": token.scope.rights(),
            "on": token.scope.places(),
            "expires": token.expires.map(|expires| expires.to_string()),
        });
        let known = Known::new(token, NEVER_USED);
        let told = known.to_json(now);
        let name = known.token.name.clone();
        self.change(move |table, most| {
            let name = &known.token.name;
            match table.by_name.get(name) {
                Some(there) if !there.token.is_over(now) => {
                    return Err(ApiTokenError::Exists(name.clone()));
                }
                None if table.by_name.len() >= most => return Err(ApiTokenError::TooMany(most)),
                Some(_) | None => {}
            }
            let change = Change::put_token(known.token.to_row());
            table.put(known);
            Ok(vec![change, Change::repository_event("", event, now)])
        })
        .await?;
        info!(target: audit::TARGET, action = "token", outcome = "done", user = who, token = name, "an API token was made");
        Ok(Made { told, token: text })
    }

    /// Revokes a token: it counts for nothing from the next request on. Once begun it ends, whether or not the caller waits.
    async fn revoke(&self, name: &str, who: &str) -> Result<(), ApiTokenError> {
        let now = clock::now();
        let event = json!({ "action": "revoke token", "who": who, "token": name });
        let gone = name.to_owned();
        self.change(move |table, _most| {
            if !table.by_name.contains_key(&gone) {
                return Err(ApiTokenError::Unknown(gone));
            }
            table.remove(&gone);
            let change = Change::drop_token(&gone, now);
            Ok(vec![change, Change::repository_event("", event, now)])
        })
        .await?;
        info!(target: audit::TARGET, action = "token", outcome = "done", user = who, token = name, "an API token was revoked");
        Ok(())
    }

    async fn change<F>(&self, work: F) -> Result<(), ApiTokenError>
    where
        F: FnOnce(&mut Table, usize) -> Result<Vec<Change>, ApiTokenError> + Send + 'static,
    {
        let tokens = self.clone();
        let (reply, answer) = oneshot::channel();
        self.inner.tasks.spawn("change API tokens", async move {
            // Whoever asked may have gone away.
            let _gone = reply.send(tokens.inner.change(work).await);
        });
        answer.await.map_err(|_stopping| ApiTokenError::NotNow)?
    }

    /// Writes down the days of uses that are only in memory.
    pub(super) async fn write_uses(&self) {
        let table = self.current();
        let mut written = Vec::new();
        for known in table.by_name.values() {
            let used = known.used.load(Ordering::Relaxed);
            if used != known.written.load(Ordering::Relaxed) {
                written.push((known, used));
            }
        }
        if written.is_empty() {
            return;
        }
        let rows = written.iter().map(|(known, used)| {
            let day = Wall::from_ms(used.saturating_mul(DAY_MS));
            (known.token.hash.clone(), day)
        });
        match self
            .inner
            .store
            .index()
            .put_token_uses(rows.collect())
            .await
        {
            Ok(()) => {
                for (known, used) in written {
                    known.written.store(used, Ordering::Relaxed);
                }
            }
            Err(error) => warn!(%error, "the last uses of API tokens could not be written down"),
        }
    }
}

impl Inner {
    async fn change(
        &self,
        work: impl FnOnce(&mut Table, usize) -> Result<Vec<Change>, ApiTokenError>,
    ) -> Result<(), ApiTokenError> {
        let _one = self.changing.lock().await;
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let mut next = Table::clone(&current);
        let changes = work(&mut next, self.most)?;
        let changes = changes.into_iter().map(|change| (change, None)).collect();
        let written = self.store.commit_changes(changes).await;
        // What stands in the journal comes into force, now or at the next start.
        if matches!(written, Ok(()) | Err(StoreError::Pending(_))) {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
            return Ok(());
        }
        Ok(written?)
    }
}

#[cfg(test)]
mod tests;
