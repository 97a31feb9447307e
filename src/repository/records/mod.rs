//! What was pulled, and what was asked for and could not be had.
//!
//! A pull is a GET of a manifest that was answered with it. Whoever only looks (HEAD, 304) pulls nothing; but what a client was told a tag
//! means and then fetches by digest is a pull of the tag, since that is how Docker and containerd pull. A manifest that an index which the
//! client was given before points to is a platform of that index.
//!
//! Missing is what is not here and no upstream could be asked for, or answered: what an upstream says that it does not have is not. It is
//! missing until its content is served.
//!
//! Requests leave a note in memory and go on; what was noted goes into the index every few seconds, in one command each, and when the mirror
//! stops. The index may be lost, and these records with it. Users are named, addresses are not.

mod known;
mod listed;
mod notes;
mod pulled;
mod recent;
mod why;
mod write;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use known::place;
pub use listed::Missing;
pub use pulled::Pulled;
pub use why::Why;

use super::catalog::Snapshot;
use super::image::Repository;
use crate::clock;
use crate::oci::{Digest, ManifestKind, MediaType, Name, Reference, Tag};
use crate::store::index::{MissingKey, MissingRow, Served};
use crate::store::{IndexError, Store};
use crate::tasks::Tasks;
use crate::telemetry::{Metrics, RepositoryLabels};
use notes::{Notes, PullKey, Pulls};
use recent::Recent;

/// How long records are kept unless the configuration says otherwise: a year, and what is done once a year.
pub const KEEP: Duration = Duration::from_secs(400 * 86_400);
/// How often what was noted is written down: what a crash may cost.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// How often what is too old is looked for where nothing is noted.
const TIDY_EVERY: Duration = Duration::from_secs(60 * 60);
/// Pulls that are kept apart, by what and by whom.
const PULLS_MAX: u64 = 1_000_000;
/// Missing things that are kept.
const MISSING_MAX: u64 = 100_000;
/// Rows that are read at a time.
const PAGE: usize = 1000;

/// How records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How long; zero: nothing is written down.
    pub keep: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { keep: KEEP }
    }
}

/// Who asks for what.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The repository as it was asked.
    pub repository: &'a str,
    /// The image.
    pub image: &'a Name,
    /// Tag or digest.
    pub reference: &'a Reference,
    /// Whether as a blob.
    pub is_blob: bool,
    /// The one who asks, as records show them.
    pub who: &'a str,
    /// Their address; it is not kept.
    pub client: &'a str,
}

/// The records of one mirror. Clones share them.
#[derive(Debug, Clone)]
pub struct Records {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    store: Store,
    metrics: Arc<Metrics>,
    memory: Mutex<Memory>,
    /// Whether anything is known to be missing, so that most requests need not look.
    is_lacking: AtomicBool,
    hasher: RandomState,
    /// Held while notes are written, so that they are in the order in which they were made. No request waits for it.
    writing: tokio::sync::Mutex<()>,
    hurry: Notify,
}

#[derive(Debug)]
struct Memory {
    notes: Notes,
    recent: Recent,
    /// What is missing, by its hash; what is here too much costs a look into the index.
    lacking: HashSet<u64>,
}

impl Records {
    /// The records that are in the index of `store`.
    pub async fn open(
        store: Store,
        metrics: Arc<Metrics>,
        config: Config,
    ) -> Result<Self, IndexError> {
        let inner = Inner {
            config,
            store,
            metrics,
            memory: Mutex::new(Memory {
                notes: Notes::default(),
                recent: Recent::new(),
                lacking: HashSet::new(),
            }),
            is_lacking: AtomicBool::new(false),
            hasher: RandomState::new(),
            writing: tokio::sync::Mutex::new(()),
            hurry: Notify::new(),
        };
        let records = Self {
            inner: Arc::new(inner),
        };
        records.inner.learn().await?;
        Ok(records)
    }

    /// Writes down what is noted for as long as the process runs, and once more when it stops.
    pub fn write_in_background(&self, tasks: &Tasks) {
        let (records, stopping) = (self.clone(), tasks.stopping());
        tasks.spawn("records", async move {
            let mut tidied = Instant::now();
            records.inner.write_or_warn(true).await;
            loop {
                let stops = tokio::select! {
                    () = stopping.cancelled() => true,
                    () = records.inner.hurry.notified() => false,
                    () = tokio::time::sleep(WRITE_EVERY) => false,
                };
                let tidies = tidied.elapsed() >= TIDY_EVERY;
                if tidies {
                    tidied = Instant::now();
                }
                records.inner.write_or_warn(tidies).await;
                if stops {
                    return;
                }
            }
        });
    }

    /// A client was given a manifest, by a member of a virtual repository or by the repository itself. Answers the tag that it pulled, where
    /// it was told that before.
    pub fn pulled(
        &self,
        asked: &Asked<'_>,
        member: &str,
        digest: &Digest,
        kind: &MediaType,
    ) -> Option<Tag> {
        if self.is_off() {
            return None;
        }
        let now = Instant::now();
        let mut memory = self.inner.memory();
        let client = memory.recent.client(asked.client, asked.who, asked.image);
        let by_tag = match asked.reference {
            Reference::Tag(_) => None,
            Reference::Digest(digest) => memory.recent.take_tag(client, digest, now),
        };
        let (reference, indexes) = match (asked.reference, &by_tag) {
            (Reference::Tag(tag), _) | (_, Some(tag)) => (tag.to_string(), Vec::new()),
            (Reference::Digest(digest), None) => {
                (digest.to_string(), memory.recent.indexes(client, now))
            }
        };
        if kind.kind() == Some(ManifestKind::Index) {
            memory.recent.give_index(client, digest, now);
        }
        let key = PullKey {
            repo: member.to_owned(),
            name: asked.image.to_string(),
            reference,
            digest: digest.clone(),
            who: asked.who.to_owned(),
            indexes: indexes.into_iter().filter(|one| one != digest).collect(),
        };
        let at = clock::now();
        let pull = Pulls {
            media_type: kind.to_string(),
            first: at,
            last: at,
            count: 1,
        };
        memory.notes.pull(key, pull);
        self.hurry(&memory);
        by_tag
    }

    /// A client was told what a tag means, and not given it.
    pub fn told(&self, asked: &Asked<'_>, digest: &Digest) {
        let Reference::Tag(tag) = asked.reference else {
            return;
        };
        if self.is_off() {
            return;
        }
        let mut memory = self.inner.memory();
        let client = memory.recent.client(asked.client, asked.who, asked.image);
        memory.recent.tell(client, tag, digest, Instant::now());
    }

    /// A client did not get what it asked for.
    pub fn missed(&self, asked: &Asked<'_>, error: &super::Error) {
        let Some(why) = Why::of(error) else {
            return;
        };
        let labels = RepositoryLabels {
            repository: asked.repository.to_owned(),
        };
        self.inner.metrics.missing.get_or_create(&labels).inc();
        if self.is_off() {
            return;
        }
        let now = Instant::now();
        let reference = asked.reference.to_string();
        let hash = self
            .inner
            .hash(asked.image.as_str(), &reference, asked.is_blob);
        let mut memory = self.inner.memory();
        let under = match asked.reference {
            Reference::Digest(digest) if !asked.is_blob => {
                let recent = &memory.recent;
                let client = recent.client(asked.client, asked.who, asked.image);
                recent.tag(client, digest, now)
            }
            Reference::Digest(_) | Reference::Tag(_) => None,
        };
        let at = clock::now();
        memory.notes.miss(MissingRow {
            key: MissingKey {
                repo: asked.repository.to_owned(),
                name: asked.image.to_string(),
                reference,
                is_blob: asked.is_blob,
            },
            under: under.map(|tag| tag.to_string()),
            why: why.as_str().to_owned(),
            who: asked.who.to_owned(),
            first: at,
            last: at,
            count: 1,
        });
        memory.lacking.insert(hash);
        self.inner.is_lacking.store(true, Relaxed);
        self.hurry(&memory);
    }

    /// A client was given content by a member: what it asked for, and the digest that it is, are missing no more, under whatever key of
    /// `there` they can be asked for. `by_tag`: the tag that the client was told means it.
    pub fn served(
        &self,
        asked: &Asked<'_>,
        (there, member): (&Snapshot, &str),
        digest: &Digest,
        by_tag: Option<&Tag>,
    ) {
        if !self.inner.is_lacking.load(Relaxed) {
            return;
        }
        let mut references = vec![digest.to_string()];
        if let Reference::Tag(tag) = asked.reference {
            references.push(tag.to_string());
        }
        references.extend(by_tag.map(ToString::to_string));
        let is_lacking = |memory: &Memory, reference: &str| {
            let hash = self
                .inner
                .hash(asked.image.as_str(), reference, asked.is_blob);
            memory.lacking.contains(&hash)
        };
        {
            let memory = self.inner.memory();
            references.retain(|reference| is_lacking(&memory, reference));
        }
        if references.is_empty() {
            return;
        }
        let repos = all_keys(there, asked.repository, member);
        let mut memory = self.inner.memory();
        for reference in references {
            memory.notes.serve(Served {
                repos: repos.clone(),
                name: asked.image.to_string(),
                reference,
                is_blob: asked.is_blob,
            });
        }
        self.hurry(&memory);
    }

    /// Whether nothing is written down.
    fn is_off(&self) -> bool {
        self.inner.config.keep.is_zero()
    }

    fn hurry(&self, memory: &Memory) {
        if memory.notes.is_half_full() {
            self.inner.hurry.notify_one();
        }
    }
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not by the repository: what is served under one key may be missing under several.
    fn hash(&self, name: &str, reference: &str, is_blob: bool) -> u64 {
        self.hasher.hash_one((name, reference, is_blob))
    }

    /// Takes what the index says is missing.
    async fn learn(&self) -> Result<(), IndexError> {
        let known = self.store.index().missing_keys().await?;
        let mut memory = self.memory();
        let waiting = memory.notes.missing.keys();
        let hash = |key: &MissingKey| self.hash(&key.name, &key.reference, key.is_blob);
        let lacking: HashSet<u64> = known.iter().chain(waiting).map(hash).collect();
        self.is_lacking.store(!lacking.is_empty(), Relaxed);
        memory.lacking = lacking;
        Ok(())
    }
}

/// The keys under which what a member has can be asked for: its own, the one that was asked, and the virtual repositories that it is in.
fn all_keys(there: &Snapshot, asked: &str, member: &str) -> Vec<String> {
    let several = there
        .iter()
        .filter_map(|(key, repository)| match repository {
            Repository::Virtual(several) => {
                let mut members = several.members();
                members
                    .any(|one| one.as_str() == member)
                    .then(|| key.to_string())
            }
            Repository::Remote(_) | Repository::Local(_) => None,
        });
    let own = [asked, member].into_iter().map(str::to_owned);
    let keys: BTreeSet<String> = own.chain(several).collect();
    keys.into_iter().collect()
}
