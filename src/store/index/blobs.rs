//! Blob rows: for the store alone. Its callers are on blocking threads, so these commands block.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, params};

use super::convert::{digest, lenient, number, readable, to_sql};
use super::{Index, Result};
use crate::clock::Wall;
use crate::oci::Digest;

/// How far the bytes of a blob can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum State {
    /// Verified and renamed, perhaps not on disk yet.
    Settling,
    /// On disk, name and bytes.
    Durable,
    /// Settling when the last run ended, or found without a row: hashed before its next use.
    Suspect,
}

impl ToSql for State {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Settling => 0,
            Self::Durable => 1,
            Self::Suspect => 2,
        }
        .into())
    }
}

impl FromSql for State {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            0 => Ok(Self::Settling),
            1 => Ok(Self::Durable),
            2 => Ok(Self::Suspect),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

/// What the store needs to know to open a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct BlobRow {
    pub(in crate::store) size: u64,
    pub(in crate::store) state: State,
    pub(in crate::store) pinned: bool,
    pub(in crate::store) pushed: bool,
}

/// A blob to be entered.
#[derive(Debug, Clone)]
pub(in crate::store) struct NewBlob {
    pub(in crate::store) digest: Digest,
    pub(in crate::store) size: u64,
    pub(in crate::store) manifest: bool,
    /// Pushed: never evicted, not counted among what is cached.
    pub(in crate::store) pushed: bool,
    pub(in crate::store) state: State,
    pub(in crate::store) last_use: i64,
    pub(in crate::store) added: Wall,
}

/// A blob that may be evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Candidate {
    pub(in crate::store) digest: Digest,
    pub(in crate::store) size: u64,
    pub(in crate::store) manifest: bool,
    pub(in crate::store) last_use: i64,
}

/// The figures that the store starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::store) struct Totals {
    pub(in crate::store) bytes: u64,
    pub(in crate::store) blobs: u64,
    pub(in crate::store) pushed_bytes: u64,
    pub(in crate::store) pushed_blobs: u64,
    pub(in crate::store) last_use: i64,
}

/// A blob as the books count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Counted {
    pub(in crate::store) size: u64,
    pub(in crate::store) pushed: bool,
}

impl Index {
    /// The row of a blob.
    pub(in crate::store) fn blob(&self, wanted: &Digest) -> Result<Option<BlobRow>> {
        self.read_blocking(|connection| {
            lenient(
                connection
                    .prepare_cached(
                        "SELECT size, state, pinned > 0, kind = 1 FROM blob WHERE digest = ?1",
                    )?
                    .query_row(params![wanted.to_string()], |row| {
                        Ok(BlobRow {
                            size: number(row, 0)?,
                            state: row.get(1)?,
                            pinned: row.get(2)?,
                            pushed: row.get(3)?,
                        })
                    }),
            )
        })
    }

    /// Enters a blob, or renews its row. Answers what the row was before.
    pub(in crate::store) fn put_blob(&self, blob: NewBlob) -> Result<Option<Counted>> {
        self.write_blocking(move |connection| put(connection, &blob))
    }

    /// Enters those of `blobs` that have no row, as pushed where a local repository has them. Answers which were entered.
    pub(in crate::store) fn adopt_blobs(&self, blobs: Vec<NewBlob>) -> Result<Vec<Counted>> {
        self.write_blocking(move |connection| {
            let mut statement = connection.prepare_cached(
                "INSERT INTO blob (digest, size, manifest, kind, state, last_use, added)
                 VALUES (?1, ?2, EXISTS (SELECT 1 FROM manifest WHERE digest = ?1),
                     EXISTS (SELECT 1 FROM link WHERE digest = ?1 AND local = 1), ?3, ?4, ?5)
                 ON CONFLICT DO NOTHING RETURNING kind = 1",
            )?;
            let mut adopted = Vec::new();
            for blob in &blobs {
                let inserted = lenient(statement.query_row(
                    params![
                        blob.digest.to_string(),
                        to_sql(blob.size),
                        blob.state,
                        blob.last_use,
                        blob.added.as_ms()
                    ],
                    |row| row.get(0),
                ))?;
                adopted.extend(inserted.map(|pushed| Counted {
                    size: blob.size,
                    pushed,
                }));
            }
            Ok(adopted)
        })
    }

    /// Drops a blob's row unless it is kept or pushed and `even_held` is not set. Answers what it was.
    pub(in crate::store) fn drop_blob(
        &self,
        wanted: &Digest,
        even_held: bool,
    ) -> Result<Option<Counted>> {
        let wanted = wanted.to_string();
        self.write_blocking(move |connection| {
            lenient(
                connection
                    .prepare_cached(
                        "DELETE FROM blob WHERE digest = ?1 AND (?2 OR (pinned = 0 AND kind = 0))
                         RETURNING size, kind = 1",
                    )?
                    .query_row(params![wanted, even_held], counted),
            )
        })
    }

    /// A suspect blob was hashed and is what it should be.
    pub(in crate::store) fn blob_verified(&self, wanted: &Digest) -> Result<()> {
        let wanted = wanted.to_string();
        self.write_blocking(move |connection| {
            connection
                .prepare_cached("UPDATE blob SET state = ?2 WHERE digest = ?1 AND state = ?3")?
                .execute(params![wanted, State::Settling, State::Suspect])
                .map(drop)
        })
    }

    /// These blobs are on disk.
    pub(in crate::store) fn blobs_durable(&self, blobs: Vec<Digest>) -> Result<()> {
        self.write_blocking(move |connection| {
            let mut statement = connection
                .prepare_cached("UPDATE blob SET state = ?2 WHERE digest = ?1 AND state = ?3")?;
            for blob in &blobs {
                statement.execute(params![blob.to_string(), State::Durable, State::Settling])?;
            }
            Ok(())
        })
    }

    /// What was settling when the last run ended is suspect now.
    pub(in crate::store) fn suspect_unsettled(&self) -> Result<usize> {
        self.write_blocking(|connection| {
            connection.execute(
                "UPDATE blob SET state = ?1 WHERE state <> 1 AND state = ?2",
                params![State::Suspect, State::Settling],
            )
        })
    }

    /// These blobs were used, at these stamps.
    pub(in crate::store) fn touch_blobs(&self, uses: Vec<(Digest, i64)>) -> Result<()> {
        self.write_blocking(move |connection| {
            let mut statement = connection.prepare_cached(
                "UPDATE blob SET last_use = ?2 WHERE digest = ?1 AND last_use < ?2",
            )?;
            for (blob, stamp) in &uses {
                statement.execute(params![blob.to_string(), stamp])?;
            }
            Ok(())
        })
    }

    /// The first `limit` blobs that may be evicted, in the order in which they would be.
    pub(in crate::store) fn eviction_candidates(&self, limit: u64) -> Result<Vec<Candidate>> {
        self.read_blocking(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT digest, size, manifest, last_use FROM blob INDEXED BY blob_by_use
                 WHERE pinned = 0 AND kind = 0 ORDER BY manifest, last_use LIMIT ?1",
            )?;
            readable(statement.query_map(params![to_sql(limit)], |row| {
                Ok(Candidate {
                    digest: digest(row, 0)?,
                    size: number(row, 1)?,
                    manifest: row.get(2)?,
                    last_use: row.get(3)?,
                })
            })?)
        })
    }

    /// The figures that the store starts with. They are kept in step by triggers, so this does not scan.
    pub(in crate::store) fn totals(&self) -> Result<Totals> {
        self.read_blocking(|connection| {
            let (bytes, blobs) =
                connection.query_row("SELECT bytes, blobs FROM total", [], |row| {
                    Ok((number(row, 0)?, number(row, 1)?))
                })?;
            let (pushed_bytes, pushed_blobs) = connection.query_row(
                "SELECT coalesce(sum(size), 0), count(*) FROM blob INDEXED BY blob_pushed WHERE kind = 1",
                [],
                |row| Ok((number(row, 0)?, number(row, 1)?)),
            )?;
            let latest = |manifest: bool| -> rusqlite::Result<i64> {
                connection.query_row(
                    "SELECT coalesce(max(last_use), 0) FROM blob INDEXED BY blob_by_use
                     WHERE pinned = 0 AND kind = 0 AND manifest = ?1",
                    params![manifest],
                    |row| row.get(0),
                )
            };
            Ok(Totals {
                bytes: bytes.saturating_sub(pushed_bytes),
                blobs: blobs.saturating_sub(pushed_blobs),
                pushed_bytes,
                pushed_blobs,
                last_use: latest(false)?.max(latest(true)?),
            })
        })
    }

    /// The blobs whose digest begins with `prefix` (`sha256:ab`).
    pub(in crate::store) fn blobs_under(&self, prefix: &str) -> Result<Vec<Digest>> {
        // '~' sorts behind every hex digit.
        let end = format!("{prefix}~");
        self.read_blocking(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT digest FROM blob WHERE digest >= ?1 AND digest < ?2")?;
            readable(statement.query_map(params![prefix, end], |row| digest(row, 0))?)
        })
    }
}

fn counted(row: &rusqlite::Row<'_>) -> rusqlite::Result<Counted> {
    Ok(Counted {
        size: number(row, 0)?,
        pushed: row.get(1)?,
    })
}

fn put(connection: &Connection, blob: &NewBlob) -> rusqlite::Result<Option<Counted>> {
    let name = blob.digest.to_string();
    let before = lenient(
        connection
            .prepare_cached("SELECT size, kind = 1 FROM blob WHERE digest = ?1")?
            .query_row(params![name], counted),
    )?;
    connection
        .prepare_cached(
            "INSERT INTO blob (digest, size, manifest, kind, state, last_use, added)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET size = excluded.size, state = excluded.state,
                 last_use = excluded.last_use, added = excluded.added,
                 manifest = max(manifest, excluded.manifest), kind = max(kind, excluded.kind)",
        )?
        .execute(params![
            name,
            to_sql(blob.size),
            blob.manifest,
            blob.pushed,
            blob.state,
            blob.last_use,
            blob.added.as_ms()
        ])?;
    Ok(before)
}
