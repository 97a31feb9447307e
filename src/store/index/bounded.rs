//! Reads that whoever asks can make as expensive as they like: few at once, and for so long only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, InterruptHandle};

use super::{Index, IndexError, Result};

/// Such reads at once: half of the connections, so that all else goes on meanwhile.
pub(super) const BOUNDED_READS: usize = super::readers::READERS / 2;

/// How far a read is.
#[derive(Default)]
enum Progress {
    #[default]
    Waiting,
    Running(InterruptHandle),
    Over,
}

/// Ends a read when it is dropped; one that has ended is left alone, whatever its connection does by then.
#[derive(Default)]
struct Guard(Arc<Mutex<Progress>>);

impl Drop for Guard {
    fn drop(&mut self) {
        // Under the lock, so that the connection is not given to anybody else before.
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Progress::Running(handle) = &*progress {
            handle.interrupt();
        }
        *progress = Progress::Over;
    }
}

impl Index {
    /// Reads for at most `limit`, waiting included; what nobody waits for any more is ended.
    pub(super) async fn read_within<T, F>(&self, limit: Duration, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let reading = async {
            let seats = Arc::clone(&self.inner.bounded);
            let seat = seats.acquire_owned().await;
            let seat = seat.map_err(|_closed| IndexError::Closed)?;
            let guard = Guard::default();
            let progress = Arc::clone(&guard.0);
            let read = self.read(move |connection| {
                let _until_the_end = seat;
                if !begin(&progress, connection) {
                    return Ok(None);
                }
                let done = work(connection);
                *progress.lock().unwrap_or_else(PoisonError::into_inner) = Progress::Over;
                done.map(Some)
            });
            read.await?.ok_or(IndexError::TookTooLong)
        };
        let done = tokio::time::timeout(limit, reading).await;
        done.unwrap_or(Err(IndexError::TookTooLong))
    }
}

/// Takes down that a read runs; false where nobody waits for it any more.
fn begin(progress: &Mutex<Progress>, connection: &Connection) -> bool {
    let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = matches!(*progress, Progress::Waiting);
    if wanted {
        *progress = Progress::Running(connection.get_interrupt_handle());
    }
    wanted
}
