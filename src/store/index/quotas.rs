//! What upstreams told of their pull quotas, so that a restart does not forget it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::connection;
use super::convert::{number, readable, to_sql, wall};
use super::{Index, IndexError, Result};
use crate::clock::Wall;

/// What was told of the quota of one credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaRow {
    /// Repository key of the remote.
    pub repo: String,
    /// What the credential is called.
    pub credential: String,
    /// Pulls in a window.
    pub limit: u64,
    /// Pulls left.
    pub remaining: u64,
    /// Length of the window.
    pub window: Option<Duration>,
    /// Whom they are counted for.
    pub source: Option<String>,
    /// When it was told.
    pub seen: Wall,
}

impl Index {
    /// What was told of every quota, by repository and credential.
    pub async fn quotas(&self) -> Result<Vec<QuotaRow>> {
        self.read(all).await
    }

    /// Keeps what was told.
    pub async fn put_quotas(&self, rows: Vec<QuotaRow>) -> Result<()> {
        self.write(move |connection| {
            let mut statement = connection.prepare_cached(
                "INSERT OR REPLACE INTO quota (repo, credential, granted, remaining, seconds, source, seen)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            for row in &rows {
                statement.execute(params![
                    row.repo,
                    row.credential,
                    to_sql(row.limit),
                    to_sql(row.remaining),
                    row.window.map(|window| to_sql(window.as_secs())),
                    row.source,
                    row.seen.as_ms()
                ])?;
            }
            Ok(())
        })
        .await
    }
}

/// What the index in `directory` has, whether or not a mirror runs on it; nothing where there is no index, or one without quotas. Blocks.
pub fn quotas_in(directory: &Path) -> Result<Vec<QuotaRow>> {
    read_in(directory).map_err(|error| IndexError::Database(Arc::new(error)))
}

fn read_in(directory: &Path) -> rusqlite::Result<Vec<QuotaRow>> {
    let file = Index::file(directory);
    if !file.exists() {
        return Ok(Vec::new());
    }
    let connection = connection::open_reader(&file)?;
    let table: Option<String> = connection
        .query_row(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = 'quota'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    table.map_or_else(|| Ok(Vec::new()), |_| all(&connection))
}

fn all(connection: &Connection) -> rusqlite::Result<Vec<QuotaRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT repo, credential, granted, remaining, seconds, source, seen FROM quota ORDER BY repo, credential",
    )?;
    readable(statement.query_map([], |row| {
        let seconds: Option<i64> = row.get(4)?;
        Ok(QuotaRow {
            repo: row.get(0)?,
            credential: row.get(1)?,
            limit: number(row, 2)?,
            remaining: number(row, 3)?,
            window: seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map(Duration::from_secs),
            source: row.get(5)?,
            seen: wall(row, 6)?,
        })
    })?)
}
