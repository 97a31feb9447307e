//! Every repository there is: those of the file and those that were made at run time, and their changes while requests are under way.
//!
//! A request works with one [`Snapshot`] from beginning to end. A change builds the next one, in which every remote and local repository
//! that is told the same as before is the same as before, and puts it in place when it stands in the journal.

mod workshop;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, oneshot};
use tracing::{info, warn};

use super::declared::{AllDeclared, Class, Declared, FieldError};
pub use workshop::Workshop;
use workshop::settings;

use super::definitions::Definitions;
use super::image::Repository;
use super::key::Key;
use super::settings::{AllSettings, Settings, Unfit};
use crate::clock;
use crate::overlay::{Collection, Local, Seen};
use crate::store::{Change, Index, StoreError};
use crate::tasks::Tasks;
use crate::upstream::{self, BuildError, ProxyConfig, Upstream};

/// The most repositories that are made at run time.
const DECLARED_MAX: usize = 1000;

/// What the file says.
#[derive(Debug, Clone)]
pub struct FileSettings {
    /// The repositories.
    pub repositories: AllSettings,
    /// What requests without a key mean.
    pub default: Key,
    /// Hosts that mean one repository.
    pub hosts: HashMap<String, Key>,
}

/// Everything there is at one moment.
#[derive(Debug)]
pub struct Snapshot {
    definitions: Definitions,
    hosts: HashMap<String, Key>,
    repositories: HashMap<Key, Repository>,
    settings: AllSettings,
    declared: AllDeclared,
    /// What should be there and cannot be used: asked for, it is not looked for elsewhere.
    left_out: BTreeSet<Key>,
}

/// All repositories. Clones share them.
#[derive(Debug, Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    workshop: Workshop,
    current: RwLock<Arc<Snapshot>>,
    /// One change at a time, from the look at what is there to the snapshot that has it.
    changing: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: FileSettings,
    declared: AllDeclared,
}

/// Why a repository is not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// A field of what was sent.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// It is there already.
    #[error("there is a repository `{0}` already; update it, or delete it first")]
    Exists(Key),
    /// The file defines it.
    #[error("`{0}` is defined in the configuration file and is changed there")]
    InFile(Key),
    /// There is none of that key.
    #[error("there is no repository `{0}`")]
    Unknown(Key),
    /// Images were pushed under that key.
    #[error(
        "images were pushed under the key `{0}` when it was a local repository: name it as one again, or take another key"
    )]
    HasPushed(Key),
    /// Others need it.
    #[error("`{0}` is a member of {1}; take it out there first")]
    InUse(Key, String),
    /// There are enough of them.
    #[error(
        "there are {DECLARED_MAX} repositories that were made at run time, and no more are kept"
    )]
    TooMany,
    /// It cannot be what it is told to be.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Its upstream cannot be set up.
    #[error("its upstream cannot be set up: {0}")]
    Build(#[from] BuildError),
    /// The store.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The process is stopping.
    #[error("the mirror is stopping")]
    Stopping,
}

/// What is changed.
#[derive(Clone)]
pub enum Wanted {
    /// A new repository.
    Create(Map<String, Value>),
    /// What is told to one that is there.
    Update(Map<String, Value>),
    /// It goes, with all that it has.
    Remove,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What was sent may have a password in it.
        f.write_str(match self {
            Self::Create(_) => "Create",
            Self::Update(_) => "Update",
            Self::Remove => "Remove",
        })
    }
}

impl Snapshot {
    /// What routing knows.
    pub const fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// Hosts that mean one repository.
    pub const fn hosts(&self) -> &HashMap<String, Key> {
        &self.hosts
    }

    /// Every repository with its key.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Repository)> {
        self.repositories.iter()
    }

    /// Whether a repository of that key should be there and cannot be used.
    pub fn is_left_out(&self, key: &Key) -> bool {
        self.left_out.contains(key)
    }

    /// The repository of a key.
    pub fn get(&self, key: &Key) -> Option<&Repository> {
        self.repositories.get(key)
    }

    /// The repository of a key; a remote is also meant by the name of its cache.
    pub fn named(&self, text: &str) -> Option<&Repository> {
        if let Some(key) = self.definitions.by_key(text) {
            return self.get(key);
        }
        let key = self.definitions.by_key(text.strip_suffix(CACHE)?)?;
        let repository = self.get(key)?;
        matches!(repository, Repository::Remote(_)).then_some(repository)
    }

    /// The local repository of a key.
    pub fn local(&self, key: &str) -> Option<&Local> {
        match self.get(self.definitions.by_key(key)?)? {
            Repository::Local(local) => Some(local),
            Repository::Remote(_) | Repository::Virtual(_) => None,
        }
    }

    /// What every repository is told, by key.
    pub const fn settings(&self) -> &AllSettings {
        &self.settings
    }

    /// A repository that was made at run time, as it was declared.
    pub fn declared(&self, key: &Key) -> Option<&Declared> {
        self.declared.get(key)
    }

    /// The local repositories, those that were made at run time too.
    pub fn locals(&self) -> Vec<Local> {
        let locals = self.repositories.values().filter_map(|one| match one {
            Repository::Local(local) => Some(local.clone()),
            Repository::Remote(_) | Repository::Virtual(_) => None,
        });
        locals.collect()
    }
}

/// What a remote's cache is called as a repository of its own.
pub const CACHE: &str = "-cache";

impl Catalog {
    /// What the file says, and what was made at run time in earlier runs.
    pub async fn open(workshop: Workshop, file: FileSettings) -> Result<Self, ChangeError> {
        let mut declared = AllDeclared::new();
        let mut unreadable = BTreeSet::new();
        let rows = workshop.cache.store.index().repositories().await;
        let rows = rows.map_err(StoreError::from)?;
        for row in rows {
            let kept = Key::parse(&row.key)
                .map_err(|error| error.to_string())
                .and_then(|key| {
                    let declared = Declared::kept(&key, &row.declared, row.password);
                    Ok((key, declared.map_err(|error| error.to_string())?))
                });
            match kept {
                Ok((key, one)) => {
                    declared.insert(key, one);
                }
                Err(error) => {
                    warn!(repository = row.key, %error, "a repository that was made at run time cannot be read; it is left out");
                    unreadable.extend(Key::parse(&row.key));
                }
            }
        }
        let empty = Snapshot {
            definitions: Definitions::new(Vec::new(), file.default.clone()),
            hosts: HashMap::new(),
            repositories: HashMap::new(),
            settings: AllSettings::new(),
            declared: AllDeclared::new(),
            left_out: unreadable,
        };
        let snapshot = workshop.build(&empty, &file, &declared).await?;
        workshop.settle(&empty, &snapshot).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                workshop,
                current: RwLock::new(Arc::new(snapshot)),
                changing: Mutex::new(State { file, declared }),
            }),
        })
    }

    /// What there is now.
    pub fn current(&self) -> Arc<Snapshot> {
        let current = self.inner.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    /// A registry that is no repository here, for copies to it: told what every upstream is told.
    pub fn elsewhere(
        &self,
        told: impl FnOnce(&ProxyConfig, &str) -> upstream::Config,
    ) -> Result<Upstream, BuildError> {
        let workshop = &self.inner.workshop;
        let (tasks, metrics) = (&workshop.cache.tasks, Arc::clone(&workshop.cache.metrics));
        Upstream::new(told(&workshop.proxy, &workshop.instance), tasks, metrics)
    }

    /// Background tasks.
    pub(super) fn tasks(&self) -> &Tasks {
        &self.inner.workshop.cache.tasks
    }

    /// What is known of everything.
    pub(super) fn index(&self) -> &Index {
        self.inner.workshop.cache.store.index()
    }

    /// Changes one repository at run time. Once begun it ends, whether or not the caller waits. Answers what fields were ignored.
    pub async fn change(
        &self,
        key: Key,
        wanted: Wanted,
        who: &str,
    ) -> Result<Vec<String>, ChangeError> {
        let (catalog, who) = (self.clone(), who.to_owned());
        let (reply, answer) = oneshot::channel();
        let tasks = &self.inner.workshop.cache.tasks;
        tasks.spawn("change a repository", async move {
            let changed = catalog.inner.change(&key, wanted, &who).await;
            if changed.is_ok() {
                info!(repository = %key, who, "a repository was changed at run time");
            }
            // Whoever asked may have gone away.
            let _gone = reply.send(changed);
        });
        answer.await.map_err(|_dropped| ChangeError::Stopping)?
    }

    /// Takes what the file says now. On an error everything stays as it was.
    pub async fn reload(&self, file: FileSettings) -> Result<(), ChangeError> {
        let mut state = self.inner.changing.lock().await;
        let current = self.current();
        let workshop = &self.inner.workshop;
        let next = workshop.build(&current, &file, &state.declared).await?;
        workshop.settle(&current, &next).await?;
        state.file = file;
        self.inner.put(next);
        Ok(())
    }

    /// Collects what nothing refers to in every local repository, for as long as the process runs.
    pub fn collect_in_background(&self, collection: Collection) {
        let (catalog, tasks) = (self.clone(), &self.inner.workshop.cache.tasks);
        let stopping = tasks.stopping();
        tasks.spawn("collection", async move {
            let mut seen: HashMap<String, Seen> = HashMap::new();
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(collection.every) => {}
                }
                let locals = catalog.current().locals();
                seen.retain(|key, _| locals.iter().any(|local| local.key() == key));
                for local in locals {
                    let seen = seen.entry(local.key().to_owned()).or_default();
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = collect(&local, seen, collection) => {}
                    }
                }
            }
        });
    }
}

async fn collect(local: &Local, seen: &mut Seen, collection: Collection) {
    match local.collect(seen, collection.grace).await {
        Ok(collected) if collected.is_empty() => {}
        Ok(collected) => {
            let bytes: u64 = collected.iter().map(|one| one.size).sum();
            let (repository, count) = (local.key(), collected.len());
            info!(repository, count, bytes, "collected what nothing refers to");
        }
        Err(error) => warn!(repository = local.key(), %error, "collection broke off"),
    }
}

impl Inner {
    fn put(&self, next: Snapshot) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(next);
    }

    async fn change(
        &self,
        key: &Key,
        wanted: Wanted,
        who: &str,
    ) -> Result<Vec<String>, ChangeError> {
        let mut state = self.changing.lock().await;
        let known = state.declared.get(key);
        let index = self.workshop.cache.store.index();
        if state.file.repositories.contains_key(key) {
            return Err(ChangeError::InFile(key.clone()));
        }
        let (action, declared) = match (wanted, known) {
            (Wanted::Create(_), Some(_)) => return Err(ChangeError::Exists(key.clone())),
            (Wanted::Update(_) | Wanted::Remove, None) => {
                return Err(ChangeError::Unknown(key.clone()));
            }
            (Wanted::Create(_), None) if state.declared.len() >= DECLARED_MAX => {
                return Err(ChangeError::TooMany);
            }
            (Wanted::Create(sent), None) => {
                if index
                    .has_pushed(key.as_str())
                    .await
                    .map_err(StoreError::from)?
                {
                    return Err(ChangeError::HasPushed(key.clone()));
                }
                ("create repository", Some(Declared::create(key, sent)?))
            }
            (Wanted::Update(sent), Some(known)) => {
                ("update repository", Some(known.update(key, sent)?))
            }
            (Wanted::Remove, Some(_)) => ("delete repository", None),
        };
        let now = clock::now();
        let change = declared.as_ref().map_or_else(
            || {
                let is_local = known.is_some_and(|known| known.class() == Class::Local);
                Change::drop_repository(key.as_str(), !is_local, now)
            },
            |one| {
                let fields = Value::Object(one.fields().clone());
                Change::put_repository(key.as_str(), fields, one.password().cloned(), now)
            },
        );
        let event = json!({ "action": action, "who": who, "repository": key.as_str() });
        let changes = vec![change, Change::repository_event(key.as_str(), event, now)];
        let mut all = state.declared.clone();
        let ignored = declared.as_ref().map(Declared::ignored);
        match declared {
            Some(one) => all.insert(key.clone(), one),
            None => all.remove(key),
        };
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        fits(&current, &state.file, &all, key)?;
        let next = self.workshop.build(&current, &state.file, &all).await?;
        let written = match (current.get(key), next.get(key)) {
            (Some(Repository::Local(local)), None) => local.retire(changes).await,
            (_, Some(_)) if current.get(key).is_none() => {
                // Nothing of an earlier repository of that key is left, whatever requests under way may still write.
                self.workshop.forget(key).await?;
                self.workshop.write(changes).await
            }
            _ => self.workshop.write(changes).await,
        };
        // What stands in the journal comes into force, now or at the next start.
        let stands = matches!(written, Ok(()) | Err(StoreError::Pending(_)));
        if stands {
            self.workshop.settle(&current, &next).await?;
            state.declared = all;
            self.put(next);
        }
        written?;
        Ok(ignored.unwrap_or_default())
    }
}

/// What is told to `key` makes sense, and every virtual repository that did still does.
fn fits(
    before: &Snapshot,
    file: &FileSettings,
    declared: &AllDeclared,
    key: &Key,
) -> Result<(), ChangeError> {
    let (all, wrong) = settings(file, declared);
    if let Some((_, error)) = wrong.into_iter().find(|(one, _)| one == key) {
        return Err(error.into());
    }
    let mut users = Vec::new();
    for one in all.values() {
        let Settings::Virtual(several) = one else {
            continue;
        };
        let counts = several.key == *key || before.settings.contains_key(&several.key);
        match several.expand(&all) {
            Err(_) if counts && !all.contains_key(key) => users.push(several.key.to_string()),
            Err(unfit) if counts => return Err(unfit.into()),
            Ok(_) | Err(_) => {}
        }
    }
    if users.is_empty() {
        Ok(())
    } else {
        Err(ChangeError::InUse(key.clone(), users.join(", ")))
    }
}
