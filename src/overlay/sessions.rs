//! Push sessions: who writes which upload, for how long, and how many there may be.
//!
//! A session belongs to one image and to whoever opened it; to anybody else it does not exist (RELIABILITY P34). Its offset is its file's
//! length, so a restart takes it up where it stood.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Error;
use crate::clock;
use crate::oci::{Algorithm, Hasher, Name};
use crate::store::{Store, UploadFile};

/// A session that nobody wrote for so long is removed.
const IDLE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How often such sessions are looked for.
pub(super) const REAP_EVERY: Duration = Duration::from_secs(10 * 60);
/// A session without a byte makes room for another where there are too many, once nobody has touched it for so long.
const EMPTY_IDLE: Duration = Duration::from_secs(60);
/// The most sessions of all.
const SESSIONS_MAX: usize = 10_000;
/// The most sessions of one subject.
const SESSIONS_PER_SUBJECT: usize = 1_000;

/// Whose a session is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) repo: String,
    pub(super) name: String,
    pub(super) subject: String,
}

impl Owner {
    pub(super) fn new(repo: &str, name: &Name, subject: &str) -> Self {
        Self {
            repo: repo.to_owned(),
            name: name.to_string(),
            subject: subject.to_owned(),
        }
    }
}

/// What is written down beside the bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    #[serde(flatten)]
    owner: Owner,
    algorithm: String,
}

/// The bytes of a session, in the hands of one request.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) file: UploadFile,
    /// Has taken in all that the file holds; none after a restart, when the file is hashed at the end.
    pub(super) hasher: Option<Hasher>,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    owner: Owner,
    /// `None` once it has ended.
    progress: Arc<tokio::sync::Mutex<Option<Progress>>>,
    held: std::sync::atomic::AtomicU64,
    touched: Mutex<Instant>,
}

/// The right to write a session.
pub(super) type Turn = OwnedMutexGuard<Option<Progress>>;

impl Session {
    /// Bytes that it holds, as of the last request that ended.
    pub(super) fn held(&self) -> u64 {
        self.held.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(super) fn note_held(&self, held: u64) {
        self.held.store(held, std::sync::atomic::Ordering::Relaxed);
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Takes the session over for one request; at once or not at all, because two writers on one upload can only be a mistake.
    pub(super) fn turn(&self) -> Result<Turn, Error> {
        let busy = |_held| Error::UploadBusy { held: self.held() };
        let turn = Arc::clone(&self.progress).try_lock_owned().map_err(busy)?;
        if turn.is_none() {
            return Err(Error::UploadUnknown);
        }
        Ok(turn)
    }

    fn idle(&self) -> Duration {
        self.touched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    table: Mutex<HashMap<String, Arc<Session>>>,
}

impl Sessions {
    /// Takes up what an earlier run left.
    pub(super) async fn load(store: &Store) -> std::io::Result<Self> {
        let sessions = Self::default();
        let now = clock::now();
        for found in store.uploads().await? {
            let note: Note = match serde_json::from_slice(&found.note) {
                Ok(note) if now.since(found.modified) < IDLE_MAX => note,
                Ok(_) | Err(_) => {
                    info!(
                        id = found.file.id(),
                        "an upload that nobody goes on with is removed"
                    );
                    found.file.discard().await;
                    continue;
                }
            };
            sessions.enter(note.owner, found.file, None);
        }
        Ok(sessions)
    }

    /// Opens a session; answers its id.
    pub(super) async fn open(
        &self,
        store: &Store,
        owner: Owner,
        algorithm: Algorithm,
    ) -> Result<String, Error> {
        if self.is_full(&owner.subject) && !self.make_room(&owner.subject).await {
            return Err(Error::TooManyUploads);
        }
        // 244 random bits: nobody guesses another's session.
        let id = format!(
            "{}{}",
            uuid::Uuid::new_v4().simple(),
            uuid::Uuid::new_v4().simple()
        );
        let note = Note {
            owner: owner.clone(),
            algorithm: algorithm.as_str().to_owned(),
        };
        let note = serde_json::to_vec(&note).map_err(|error| Error::Store(error.to_string()))?;
        let file = store.create_upload(id.clone(), note).await?;
        self.enter(owner, file, Some(algorithm.hasher()));
        Ok(id)
    }

    fn is_full(&self, subject: &str) -> bool {
        let table = self.lock();
        let own = table
            .values()
            .filter(|session| session.owner.subject == subject);
        table.len() >= SESSIONS_MAX || own.count() >= SESSIONS_PER_SUBJECT
    }

    /// Removes the subject's session that has been empty and untouched for the longest, if one has been for [`EMPTY_IDLE`]: some clients ask
    /// for a mount and never look at the session that they get instead.
    async fn make_room(&self, subject: &str) -> bool {
        let mut empty: Vec<_> = self
            .lock()
            .iter()
            .filter(|(_, session)| session.owner.subject == subject && session.held() == 0)
            .map(|(id, session)| (session.idle(), id.clone(), Arc::clone(session)))
            .filter(|(idle, ..)| *idle >= EMPTY_IDLE)
            .collect();
        empty.sort_by_key(|(idle, ..)| std::cmp::Reverse(*idle));
        for (_, id, session) in empty {
            // One that its first bytes are just coming for is busy.
            if self.end(&id, &session).await {
                return true;
            }
        }
        false
    }

    /// Removes a session that nobody is writing.
    async fn end(&self, id: &str, session: &Session) -> bool {
        let Ok(mut turn) = session.turn() else {
            return false;
        };
        if let Some(progress) = turn.take() {
            progress.file.discard().await;
        }
        self.remove(id);
        true
    }

    fn enter(&self, owner: Owner, file: UploadFile, hasher: Option<Hasher>) {
        let id = file.id().to_owned();
        let session = Session {
            owner,
            held: file.length().into(),
            progress: Arc::new(tokio::sync::Mutex::new(Some(Progress { file, hasher }))),
            touched: Mutex::new(Instant::now()),
        };
        self.lock().insert(id, Arc::new(session));
    }

    /// The session of this id, if it is this owner's.
    pub(super) fn get(&self, id: &str, owner: &Owner) -> Result<Arc<Session>, Error> {
        self.lock()
            .get(id)
            .filter(|session| session.owner == *owner)
            .cloned()
            .ok_or(Error::UploadUnknown)
    }

    /// The session has ended.
    pub(super) fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Removes the sessions that nobody goes on with.
    pub(super) async fn reap(&self) {
        let idle: Vec<(String, Arc<Session>)> = self
            .lock()
            .iter()
            .filter(|(_, session)| session.idle() >= IDLE_MAX)
            .map(|(id, session)| (id.clone(), Arc::clone(session)))
            .collect();
        for (id, session) in idle {
            if self.end(&id, &session).await {
                warn!(
                    id,
                    "an upload that nobody went on with for a day was removed"
                );
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
