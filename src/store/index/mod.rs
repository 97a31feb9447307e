//! What is known about content: the only SQL of the program.
//!
//! Named async commands; no caller sees a connection, so a server database can take this module's place. Writes go to one thread that runs
//! everything that waits in one transaction; reads use a few connections of their own on blocking threads. All of it is derived: a database
//! that is missing, damaged or newer is moved aside and made anew from the blobs on disk, and the rest is learnt again from upstream.

mod content;
mod lists;
mod rows;
mod schema;
mod tags;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;
use tracing::{info, warn};

pub use rows::{EdgeRow, HistoryRow, ManifestRow, TagRow};

use super::layout::{Layout, OpenError};
use super::{StoreError, durable};
use crate::oci::Digest;

/// How many commands one transaction takes at most.
const GROUP: usize = 256;
/// How many connections are kept for reading.
const READERS: usize = 4;
/// How many rows of the hot path are kept in memory: links and tags each.
pub const ROWS_IN_MEMORY: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// The index of one store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Index {
    writer: mpsc::Sender<Command>,
    readers: Arc<Readers>,
    links: Arc<Mutex<LruCache<String, ()>>>,
    tags: Arc<Mutex<LruCache<String, TagRow>>>,
}

/// What a start found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Bytes of all blobs.
    pub(super) bytes: u64,
    /// Blobs that must be hashed before they are served.
    pub(super) suspects: HashSet<Digest>,
}

type Job = Box<dyn FnOnce(&Connection) -> Answer + Send>;
/// Called with whether the transaction was committed.
type Answer = Box<dyn FnOnce(bool) + Send>;

enum Command {
    Run(Job),
    Stop(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Readers {
    idle: Mutex<Vec<Connection>>,
    path: std::path::PathBuf,
}

impl Index {
    /// Opens the index, or makes it anew where it cannot be used.
    pub(super) fn open(layout: &Layout) -> Result<(Self, Recovered), OpenError> {
        let path = layout.index();
        let usable = open_checked(&path, layout.was_clean());
        let (connection, fresh) = match usable {
            Ok((connection, fresh)) => (connection, fresh),
            Err(error) => {
                warn!(%error, "the index cannot be used; it is moved aside and made anew from the blobs on disk");
                move_aside(&path);
                open_checked(&path, true).map_err(|error| OpenError::Index {
                    path: path.clone(),
                    error,
                })?
            }
        };
        let failed = |error| OpenError::Index {
            path: path.clone(),
            error,
        };
        if fresh {
            let blobs = layout.scan_blobs();
            if !blobs.is_empty() {
                info!(
                    blobs = blobs.len(),
                    "taking the blobs on disk into a new index"
                );
            }
            content::adopt(&connection, &blobs).map_err(failed)?;
        }
        let recovered = content::recover(&connection, layout.was_clean()).map_err(failed)?;
        let (writer, commands) = mpsc::channel();
        std::thread::Builder::new()
            .name("index".to_owned())
            .spawn(move || write_loop(connection, &commands))
            .map_err(|error| OpenError::Io {
                path: path.clone(),
                error,
            })?;
        let memory = || Arc::new(Mutex::new(LruCache::new(ROWS_IN_MEMORY)));
        let readers = Arc::new(Readers {
            idle: Mutex::default(),
            path,
        });
        Ok((
            Self {
                writer,
                readers,
                links: memory(),
                tags: Arc::new(Mutex::new(LruCache::new(ROWS_IN_MEMORY))),
            },
            recovered,
        ))
    }

    /// Runs `job` in the next transaction and answers when that is committed.
    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let done = job(connection);
            Box::new(move |committed| {
                let answer = if committed {
                    done.map_err(StoreError::from)
                } else {
                    Err(StoreError::Refused("the index could not be written"))
                };
                // Whoever asked may have gone away.
                drop(sender.send(answer));
            })
        });
        self.writer
            .send(Command::Run(job))
            .map_err(|_stopped| STOPPED)?;
        receiver.await.map_err(|_stopped| STOPPED)?
    }

    /// A write of what can be learnt again: a full or failing disk costs the knowledge, not the answer.
    async fn note(
        &self,
        what: &'static str,
        job: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) {
        if let Err(error) = self.write(job).await {
            warn!(%error, what, "the index could not be written; what is known in memory goes on");
        }
    }

    /// Runs `question` on a connection for reading, on a blocking thread.
    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = Arc::clone(&self.readers);
        tokio::task::spawn_blocking(move || readers.with(question))
            .await
            .map_err(|_died| STOPPED)?
    }

    /// The same, for a caller that is on a blocking thread already.
    fn read_now<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.readers.with(question)
    }

    /// Writes everything that waits and ends the writing thread.
    pub(super) async fn stop(&self) {
        // The last connection that closes folds the log into the database.
        lock(&self.readers.idle).clear();
        let (sender, receiver) = oneshot::channel();
        if self.writer.send(Command::Stop(sender)).is_ok() {
            // An error means that the thread is gone already.
            drop(receiver.await);
        }
    }
}

const STOPPED: StoreError = StoreError::Refused("the index is closed");

impl Readers {
    fn with<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let idle = lock(&self.idle).pop();
        let connection = if let Some(connection) = idle {
            connection
        } else {
            let connection = Connection::open_with_flags(
                &self.path,
                OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?;
            connection.busy_timeout(durable::UPKEEP_EVERY)?;
            connection
        };
        let answer = question(&connection)?;
        let mut idle = lock(&self.idle);
        if idle.len() < READERS {
            idle.push(connection);
        }
        Ok(answer)
    }
}

/// The writing thread: takes what waits, one transaction for all of it, then answers all.
fn write_loop(connection: Connection, commands: &mpsc::Receiver<Command>) {
    while let Ok(first) = commands.recv() {
        let mut stop = None;
        let mut answers = Vec::new();
        let begun = connection.execute_batch("BEGIN IMMEDIATE");
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Run(job) => answers.push(job(&connection)),
                Command::Stop(sender) => {
                    stop = Some(sender);
                    break;
                }
            }
            next = if answers.len() < GROUP {
                commands.try_recv().ok()
            } else {
                None
            };
        }
        let committed = match begun.and_then(|()| connection.execute_batch("COMMIT")) {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, "a transaction of the index failed");
                // An error here means that SQLite has rolled back by itself.
                drop(connection.execute_batch("ROLLBACK"));
                false
            }
        };
        for answer in answers {
            answer(committed);
        }
        if let Some(sender) = stop {
            if let Err((_, error)) = connection.close() {
                warn!(%error, "the index did not close cleanly");
            }
            let _asker_may_be_gone = sender.send(());
            return;
        }
    }
}

/// Opens the database and brings its schema up to date; says whether it was new.
fn open_checked(path: &Path, was_clean: bool) -> rusqlite::Result<(Connection, bool)> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.busy_timeout(durable::UPKEEP_EVERY)?;
    if !was_clean {
        let verdict: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(rusqlite::Error::InvalidColumnName(verdict));
        }
    }
    let fresh = schema::migrate(&connection)?;
    Ok((connection, fresh))
}

fn move_aside(path: &Path) {
    let stamp = crate::clock::now().as_ms();
    for suffix in ["", "-wal", "-shm"] {
        let from = format!("{}{suffix}", path.display());
        let moved = std::fs::rename(&from, format!("{}.damaged-{stamp}{suffix}", path.display()));
        if let Err(error) = moved
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(%error, from, "cannot move the damaged index aside");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The tables stay valid whatever happens between lock and unlock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
