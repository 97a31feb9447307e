//! Connections that read: a few, opened on demand, each used by one blocking thread at a time.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::connection;
use super::damage::Damage;
use super::{IndexError, Result};

/// Reads that may run at once. They are point reads of a cached file: more would only contend.
pub(super) const READERS: usize = 4;

/// The pool of reading connections.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    pool: Mutex<Pool>,
    freed: Condvar,
    damage: Arc<Damage>,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Connection>,
    busy: usize,
    closed: bool,
}

impl Readers {
    pub(super) fn new(path: PathBuf, damage: Arc<Damage>) -> Self {
        Self {
            path,
            pool: Mutex::default(),
            freed: Condvar::new(),
            damage,
        }
    }

    /// Runs a read on a blocking thread.
    pub(super) async fn read<T, F>(self: &Arc<Self>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let readers = Arc::clone(self);
        tokio::task::spawn_blocking(move || readers.read_blocking(work))
            .await
            .unwrap_or(Err(IndexError::Closed))
    }

    /// Runs a read here; for callers that are on a blocking thread.
    pub(super) fn read_blocking<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut lease = self.lease()?;
        if lease.connection.is_none() {
            let fresh = connection::open_reader(&self.path);
            lease.connection = Some(fresh.map_err(|error| self.damage.judge(error))?);
        }
        let Some(connection) = &lease.connection else {
            return Err(IndexError::Closed);
        };
        work(connection).map_err(|error| self.damage.judge(error))
    }

    /// Closes what is idle; what is in use is closed when it comes back.
    pub(super) fn close(&self) {
        let idle = {
            let mut pool = self.pool();
            pool.closed = true;
            std::mem::take(&mut pool.idle)
        };
        drop(idle);
        self.freed.notify_all();
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self) -> Result<Lease<'_>> {
        let mut pool = self
            .freed
            .wait_while(self.pool(), |pool| !pool.closed && pool.busy >= READERS)
            .unwrap_or_else(PoisonError::into_inner);
        if pool.closed {
            return Err(IndexError::Closed);
        }
        pool.busy += 1;
        Ok(Lease {
            readers: self,
            connection: pool.idle.pop(),
        })
    }
}

/// One connection, given back when dropped, also by a panic.
struct Lease<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut pool = self.readers.pool();
        pool.busy -= 1;
        let kept = if pool.closed {
            self.connection.take()
        } else {
            pool.idle.extend(self.connection.take());
            None
        };
        drop(pool);
        drop(kept);
        self.readers.freed.notify_one();
    }
}
