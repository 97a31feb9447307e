//! What an error of the database says about its file.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::ErrorCode;
use tracing::error;

use super::IndexError;

/// Watches for errors that mean that the file is damaged, and leaves word for the next start.
#[derive(Debug)]
pub(super) struct Damage {
    marker: PathBuf,
    met: AtomicBool,
}

impl Damage {
    pub(super) const fn new(marker: PathBuf) -> Self {
        Self {
            marker,
            met: AtomicBool::new(false),
        }
    }

    /// Turns an error of the database into ours; damage is reported once.
    pub(super) fn judge(&self, error: rusqlite::Error) -> IndexError {
        let damaged = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        );
        if damaged && !self.met.swap(true, Ordering::Relaxed) {
            error!(%error, "the index is damaged; the next start rebuilds it");
            if let Err(error) = fs::write(&self.marker, b"") {
                error!(%error, path = %self.marker.display(), "cannot leave a note for the next start; remove the index by hand");
            }
        }
        IndexError::Database(Arc::new(error))
    }
}
