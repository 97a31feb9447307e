//! Local repositories: what people push.
//!
//! Knows the store; knows nothing of HTTP, of routing or of who asks. Callers decide access first. Invariants: whatever was acknowledged
//! stands in the journal and its content is on disk; a manifest is there only with everything it points to, in the same image; nothing
//! that a push under way needs is collected.

mod collect;
mod error;
mod images;
mod intake;
mod lock;
mod manifests;
mod sessions;
mod takeover;
mod touched;
mod transfer;
mod upload;

use std::sync::Arc;
use std::time::Duration;

pub use collect::{Collected, Reason, Seen};
pub use error::Error;
pub use images::OpenManifest;
pub use intake::{Intake, TakenManifest};
pub use manifests::{Put, PutManifest, TAGS_MAX};
pub use takeover::{MoveOut, Properties, Takeover};
pub use upload::Offer;

use crate::clock::Wall;
use crate::globs::Globs;
use crate::oci::{Name, Tag};
use crate::store::{Change, Store, StoreError};
use crate::tasks::Tasks;
use lock::{Entered, Gate, Gates, Guard, Locks};
use sessions::Sessions;
use touched::Touched;

/// What one local repository is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How many tags an image keeps at most; 0: all. The oldest go when another is pushed.
    pub max_unique_tags: usize,
    /// Tags that, once there, are neither moved nor deleted.
    pub immutable_tags: Globs,
    /// Whether anything may be deleted.
    pub delete: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_unique_tags: 0,
            immutable_tags: Globs::default(),
            delete: true,
        }
    }
}

/// How what nothing refers to is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collection {
    /// How often it is looked for.
    pub every: Duration,
    /// For how long it must have been without any use.
    pub grace: Duration,
}

impl Default for Collection {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(10 * 60),
            grace: Duration::from_secs(60 * 60),
        }
    }
}

/// What all local repositories share.
#[derive(Debug, Clone)]
pub struct Shared {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    sessions: Sessions,
    locks: Locks,
    gates: Gates,
    touched: Touched,
}

impl Shared {
    /// Takes up the sessions that an earlier run left, and looks after them.
    pub async fn new(store: Store, tasks: &Tasks) -> std::io::Result<Self> {
        let sessions = Sessions::load(&store).await?;
        let shared = Self {
            inner: Arc::new(Inner {
                store,
                sessions,
                locks: Locks::default(),
                gates: Gates::default(),
                touched: Touched::default(),
            }),
        };
        let (inner, stopping) = (Arc::downgrade(&shared.inner), tasks.stopping());
        tasks.spawn("upload sessions", async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(sessions::REAP_EVERY) => match inner.upgrade() {
                        Some(inner) => inner.sessions.reap().await,
                        None => return,
                    },
                    () = stopping.cancelled() => return,
                }
            }
        });
        Ok(shared)
    }

    /// How many push sessions are open.
    pub fn sessions(&self) -> usize {
        self.inner.sessions.count()
    }
}

/// One local repository. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Local {
    key: Arc<str>,
    gate: Gate,
    config: Arc<Config>,
    shared: Shared,
}

impl Local {
    /// The repository `key`.
    pub fn new(key: &str, config: Config, shared: Shared) -> Self {
        let key: Arc<str> = key.into();
        Self {
            gate: shared.inner.gates.of(&key),
            key,
            config: Arc::new(config),
            shared,
        }
    }

    /// Writes down that the repository is gone, with all that it has. Nothing is changed in it afterwards by those who still know it.
    pub async fn retire(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut gate = Arc::clone(&self.gate).write_owned().await;
        let changes = changes.into_iter().map(|change| (change, None)).collect();
        let written = self.store().commit_changes(changes).await;
        // What stands in the journal comes into force, now or at the next change.
        if matches!(written, Ok(()) | Err(StoreError::Pending(_))) {
            gate.0 = true;
            self.shared.inner.gates.forget(&self.key);
        }
        written
    }

    /// Sets and removes properties of tags, all or none.
    pub async fn set_properties(
        &self,
        tags: Vec<(Name, Tag)>,
        change: (Properties, Vec<String>),
        at: Wall,
    ) -> Result<(), Error> {
        let _entered = self.enter().await?;
        let changes = tags.iter().map(|(name, tag)| {
            let change = Change::set_properties(&self.key, name, tag, change.clone(), at);
            (change, None)
        });
        Ok(self.store().commit_changes(changes.collect()).await?)
    }

    /// The repository is not removed meanwhile.
    async fn enter(&self) -> Result<Entered, Error> {
        let entered = Arc::clone(&self.gate).read_owned().await;
        if entered.0 {
            return Err(Error::NameUnknown);
        }
        Ok(entered)
    }

    /// The right to change an image.
    async fn image(&self, name: &Name) -> Result<Guard, Error> {
        let (entered, image) = (self.enter().await?, (&*self.key, name));
        let locks = &self.shared.inner.locks;
        Ok(locks.images(image, image, vec![entered]).await)
    }

    /// The repository key.
    pub fn key(&self) -> &str {
        &self.key
    }

    fn store(&self) -> &Store {
        &self.shared.inner.store
    }

    fn is_immutable(&self, tag: &Tag) -> bool {
        self.config.immutable_tags.is_match(tag.as_str())
    }
}

#[cfg(test)]
mod tests;
