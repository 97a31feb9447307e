//! Opening the database file: the settings of a connection, and what happens to a file that is unfit.
//!
//! The index can be relearnt, so no state of its file may stop a start: what does not open, does not check or comes from a newer program
//! is moved aside (the latest one is kept for a look) and an empty index takes its place.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tracing::warn;

use super::schema::{self, Unfit};
use crate::clock::Wall;

/// The file of the database in the data directory.
pub(super) const FILE: &str = "index.sqlite";
/// Left when the database turned out to be damaged while running; the next start rebuilds it.
pub(super) const DAMAGED: &str = "index.damaged";
/// How long one connection waits for another's lock. Only opening and closing ever contend.
const BUSY: Duration = Duration::from_secs(5);
/// What SQLite appends for its companions of a database.
const COMPANIONS: [&str; 3] = ["", "-wal", "-shm"];

/// An opened index file.
#[derive(Debug)]
pub(super) struct Opened {
    /// The one connection that writes.
    pub(super) connection: Connection,
    /// Whether the index is new and must be filled from the blobs.
    pub(super) rebuilt: bool,
}

/// Opens the index in `directory`, checked through if `suspect`; an unfit file is moved aside.
pub(super) fn open(directory: &Path, suspect: bool, now: Wall) -> io::Result<Opened> {
    let path = directory.join(FILE);
    let damaged = directory.join(DAMAGED);
    let reported = fs::symlink_metadata(&damaged).is_ok();
    let found = fs::symlink_metadata(&path);
    let existed = found.is_ok();
    let attempt = if reported {
        Err(Unfit::Damaged("damage was met while running".to_owned()))
    } else if found.is_ok_and(|m| !m.file_type().is_file()) {
        Err(Unfit::Foreign)
    } else {
        open_writer(&path, suspect && existed)
    };
    let opened = match attempt {
        Ok(connection) => Opened {
            connection,
            rebuilt: !existed,
        },
        Err(Unfit::Database(error)) if is_circumstance(&error) => {
            return Err(io::Error::other(error));
        }
        Err(Unfit::File(error)) => return Err(error),
        Err(unfit) => {
            let aside = move_aside(directory, now)?;
            warn!(
                why = %unfit,
                aside = %aside.display(),
                "the index is unfit and was moved aside; it is rebuilt from the blobs, tags are learnt again from upstream"
            );
            let connection = open_writer(&path, false).map_err(|again| match again {
                Unfit::Database(error) => io::Error::other(error),
                Unfit::File(error) => error,
                Unfit::Newer(_) | Unfit::Foreign | Unfit::Damaged(_) => {
                    io::Error::other(again.to_string())
                }
            })?;
            Opened {
                connection,
                rebuilt: true,
            }
        }
    };
    if reported {
        fs::remove_file(damaged)?;
    }
    Ok(opened)
}

/// A read-only connection to the index at `path`.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    settings(&connection)?;
    Ok(connection)
}

/// Makes the database its owner's alone: it knows upstreams' passwords. Its companions are made with the same rights.
fn keep_private(path: &Path) -> io::Result<()> {
    for companion in COMPANIONS {
        let path = PathBuf::from(format!("{}{companion}", path.display()));
        if fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_file()) {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        } else if companion.is_empty() {
            // Made here, so that nobody can open it before.
            let mut options = fs::OpenOptions::new();
            options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
        }
    }
    Ok(())
}

fn open_writer(path: &Path, check: bool) -> Result<Connection, Unfit> {
    keep_private(path)?;
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    settings(&connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_row| Ok(()))?;
    // With a write-ahead log this loses at most the last transactions in a power cut, and never consistency.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update_and_check(None, "journal_size_limit", 16 << 20, |_row| Ok(()))?;
    if check {
        schema::check(&connection)?;
    }
    schema::migrate(&mut connection)?;
    Ok(connection)
}

/// Errors that say nothing about the file: moving it aside would not help.
fn is_circumstance(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::OutOfMemory
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
        )
    )
}

fn settings(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    connection.pragma_update(None, "cell_size_check", "ON")?;
    // Never read through a mapping: a truncated file must be an error, not a SIGBUS.
    connection.pragma_update_and_check(None, "mmap_size", 0, |_row| Ok(()))?;
    Ok(())
}

/// Moves the database and its companions to one side, and removes what was moved aside before.
fn move_aside(directory: &Path, now: Wall) -> io::Result<PathBuf> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let old = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(FILE) && name.contains(".aside-"));
        if old && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    let aside = directory.join(format!("{FILE}.aside-{}", now.as_ms()));
    for companion in COMPANIONS {
        let from = directory.join(format!("{FILE}{companion}"));
        let mut to = aside.clone().into_os_string();
        to.push(companion);
        match fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(aside)
}
