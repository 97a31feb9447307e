//! The schema and its history. A database that is newer than this list is not touched.

use rusqlite::{Connection, Error};

/// Every migration, in order; the database's `user_version` counts those that have run.
const MIGRATIONS: [&str; 1] = ["
CREATE TABLE blob (
  digest TEXT PRIMARY KEY, size INTEGER NOT NULL, kind TEXT NOT NULL DEFAULT 'cached', manifest INTEGER NOT NULL DEFAULT 0,
  pinned INTEGER NOT NULL DEFAULT 0, durable INTEGER NOT NULL DEFAULT 0, created INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX blob_by_use ON blob (kind, pinned, manifest, used);
CREATE TABLE link (
  repository TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, created INTEGER NOT NULL, PRIMARY KEY (repository, name, digest)
) WITHOUT ROWID;
CREATE TABLE manifest (
  digest TEXT PRIMARY KEY, media_type TEXT NOT NULL, size INTEGER NOT NULL, artifact_type TEXT, subject TEXT, annotations TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE edge (
  parent TEXT NOT NULL, position INTEGER NOT NULL, kind TEXT NOT NULL, child TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL,
  urls TEXT NOT NULL, PRIMARY KEY (parent, position)
) WITHOUT ROWID;
CREATE INDEX edge_by_child ON edge (child);
CREATE TABLE referrer (
  repository TEXT NOT NULL, name TEXT NOT NULL, subject TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (repository, name, subject, digest)
) WITHOUT ROWID;
CREATE TABLE tag (
  repository TEXT NOT NULL, name TEXT NOT NULL, tag TEXT NOT NULL, observed TEXT NOT NULL, served TEXT NOT NULL, media_type TEXT NOT NULL,
  size INTEGER NOT NULL, etag TEXT, checked INTEGER NOT NULL, moved INTEGER NOT NULL, gone INTEGER, PRIMARY KEY (repository, name, tag)
) WITHOUT ROWID;
CREATE TABLE tag_history (
  repository TEXT NOT NULL, name TEXT NOT NULL, tag TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, digest TEXT NOT NULL,
  cause TEXT NOT NULL
);
CREATE INDEX tag_history_by_tag ON tag_history (repository, name, tag, last);
CREATE TABLE tag_list (
  repository TEXT NOT NULL, name TEXT NOT NULL, tags TEXT NOT NULL, fetched INTEGER NOT NULL, PRIMARY KEY (repository, name)
) WITHOUT ROWID;
CREATE TABLE referrer_list (
  repository TEXT NOT NULL, name TEXT NOT NULL, subject TEXT NOT NULL, list BLOB NOT NULL, fetched INTEGER NOT NULL,
  PRIMARY KEY (repository, name, subject)
) WITHOUT ROWID;
"];

/// Brings the schema up to date; says whether the database was new.
pub(super) fn migrate(connection: &Connection) -> rusqlite::Result<bool> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        // A later roadstead wrote it; its meaning is unknown here.
        return Err(Error::IntegralValueOutOfRange(0, version));
    }
    for (number, statements) in MIGRATIONS.iter().enumerate().skip(done) {
        connection.execute_batch(&format!(
            "BEGIN; {statements} PRAGMA user_version = {}; COMMIT;",
            number + 1
        ))?;
    }
    Ok(done == 0)
}
