//! The tables of the index, as numbered statements.
//!
//! A migration is never edited once released; a change is a new number. Digests are stored as text (`sha256:…`), times as milliseconds
//! since the Unix epoch, lists as JSON. Whatever is here can be relearnt from the blobs and from upstream.

use rusqlite::Connection;

/// Written into the file's header, so that a database of something else is not taken for ours.
const APPLICATION_ID: i64 = 0x726f_6164;

/// Statement batches by version; entry `n` leads from version `n` to `n + 1`.
const MIGRATIONS: &[&str] = &["
    -- kind: 0 cached, 1 pushed. manifest: 1 where the content is a manifest. pinned: how many pins hold it.
    -- state: 0 settling (renamed, perhaps not on disk), 1 durable, 2 suspect (must be hashed before use).
    -- last_use: a stamp that only grows; near the wall clock.
    CREATE TABLE blob (
        digest   TEXT NOT NULL PRIMARY KEY,
        size     INTEGER NOT NULL,
        kind     INTEGER NOT NULL DEFAULT 0,
        manifest INTEGER NOT NULL DEFAULT 0,
        pinned   INTEGER NOT NULL DEFAULT 0,
        state    INTEGER NOT NULL,
        last_use INTEGER NOT NULL,
        added    INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX blob_by_use ON blob (manifest, last_use) WHERE pinned = 0;
    CREATE INDEX blob_unsettled ON blob (state) WHERE state <> 1;
    CREATE INDEX blob_pinned ON blob (pinned) WHERE pinned > 0;

    CREATE TABLE total (id INTEGER PRIMARY KEY CHECK (id = 0), bytes INTEGER NOT NULL, blobs INTEGER NOT NULL);
    INSERT INTO total VALUES (0, 0, 0);
    CREATE TRIGGER blob_added AFTER INSERT ON blob BEGIN
        UPDATE total SET bytes = bytes + new.size, blobs = blobs + 1;
    END;
    CREATE TRIGGER blob_resized AFTER UPDATE OF size ON blob WHEN new.size <> old.size BEGIN
        UPDATE total SET bytes = bytes + new.size - old.size;
    END;
    CREATE TRIGGER blob_dropped AFTER DELETE ON blob BEGIN
        UPDATE total SET bytes = bytes - old.size, blobs = blobs - 1;
    END;

    -- manifest: 1 where the digest is a manifest of that name.
    CREATE TABLE link (
        repo     TEXT NOT NULL,
        name     TEXT NOT NULL,
        digest   TEXT NOT NULL,
        manifest INTEGER NOT NULL DEFAULT 0,
        added    INTEGER NOT NULL,
        PRIMARY KEY (repo, name, digest)
    ) WITHOUT ROWID;
    CREATE INDEX link_manifest ON link (repo, name) WHERE manifest = 1;
    CREATE INDEX link_digest ON link (digest);

    CREATE TABLE manifest (
        digest        TEXT NOT NULL PRIMARY KEY,
        media_type    TEXT NOT NULL,
        size          INTEGER NOT NULL,
        artifact_type TEXT,
        subject       TEXT,
        annotations   TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX manifest_subject ON manifest (subject) WHERE subject IS NOT NULL;

    CREATE TABLE edge (
        parent     TEXT NOT NULL,
        position   INTEGER NOT NULL,
        kind       TEXT NOT NULL,
        digest     TEXT NOT NULL,
        size       INTEGER NOT NULL,
        media_type TEXT NOT NULL,
        urls       TEXT NOT NULL,
        PRIMARY KEY (parent, position)
    ) WITHOUT ROWID;
    CREATE INDEX edge_digest ON edge (digest);

    CREATE TABLE tag (
        repo       TEXT NOT NULL,
        name       TEXT NOT NULL,
        tag        TEXT NOT NULL,
        observed   TEXT NOT NULL,
        served     TEXT NOT NULL,
        media_type TEXT NOT NULL,
        size       INTEGER NOT NULL,
        etag       TEXT,
        checked    INTEGER NOT NULL,
        moved      INTEGER NOT NULL,
        gone       INTEGER,
        PRIMARY KEY (repo, name, tag)
    ) WITHOUT ROWID;

    CREATE TABLE tag_history (
        id     INTEGER PRIMARY KEY,
        repo   TEXT NOT NULL,
        name   TEXT NOT NULL,
        tag    TEXT NOT NULL,
        digest TEXT NOT NULL,
        first  INTEGER NOT NULL,
        last   INTEGER NOT NULL,
        cause  TEXT NOT NULL
    );
    CREATE INDEX tag_history_tag ON tag_history (repo, name, tag, id);

    CREATE TABLE tag_list (
        repo    TEXT NOT NULL,
        name    TEXT NOT NULL,
        tags    TEXT NOT NULL,
        fetched INTEGER NOT NULL,
        PRIMARY KEY (repo, name)
    ) WITHOUT ROWID;

    CREATE TABLE referrer_list (
        repo    TEXT NOT NULL,
        name    TEXT NOT NULL,
        subject TEXT NOT NULL,
        body    BLOB NOT NULL,
        fetched INTEGER NOT NULL,
        PRIMARY KEY (repo, name, subject)
    ) WITHOUT ROWID;
","
    -- What was pushed is neither evicted nor counted among what is cached.
    DROP INDEX blob_by_use;
    CREATE INDEX blob_by_use ON blob (manifest, last_use) WHERE pinned = 0 AND kind = 0;
    CREATE INDEX blob_pushed ON blob (size) WHERE kind = 1;
    -- local: 1 where the link was pushed or mounted, and stands in the journal.
    -- root: where nothing else holds the manifest, and yet it stays: 1 pushed by digest, 2 its tag moved on.
    ALTER TABLE link ADD COLUMN local INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE link ADD COLUMN root INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX link_local ON link (digest) WHERE local = 1;
    -- How far the journal has been taken in.
    CREATE TABLE journal (id INTEGER PRIMARY KEY CHECK (id = 0), applied INTEGER NOT NULL);
    INSERT INTO journal VALUES (0, 0);
","
    -- Who did what, as the journal has it; event: JSON.
    CREATE TABLE audit (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, event TEXT NOT NULL);
    -- Labels by the digest of the configuration that has them.
    CREATE TABLE label (digest TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (digest, key)) WITHOUT ROWID;
    CREATE INDEX label_value ON label (key, value);
    -- Properties that somebody set, by tag.
    CREATE TABLE property (
        repo  TEXT NOT NULL,
        name  TEXT NOT NULL,
        tag   TEXT NOT NULL,
        key   TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (repo, name, tag, key, value)
    ) WITHOUT ROWID;
    CREATE INDEX property_value ON property (key, value);
    CREATE INDEX tag_served ON tag (served);
    CREATE INDEX tag_name ON tag (name, tag);
    CREATE INDEX link_image ON link (repo, name) WHERE local = 1;
    -- Tags of remotes that mean what they were told to mean.
    CREATE TABLE tag_pin (
        repo   TEXT NOT NULL,
        name   TEXT NOT NULL,
        tag    TEXT NOT NULL,
        digest TEXT NOT NULL,
        at     INTEGER NOT NULL,
        PRIMARY KEY (repo, name, tag)
    ) WITHOUT ROWID;
","
    -- Repositories that were made at run time; declared: JSON.
    CREATE TABLE repository (
        key      TEXT NOT NULL PRIMARY KEY,
        declared TEXT NOT NULL,
        password TEXT,
        at       INTEGER NOT NULL
    ) WITHOUT ROWID;
","
    -- What came to a repository since then, and what came last.
    CREATE INDEX tag_moved ON tag (repo, moved);
","
    -- What a repository key stood for when things were cached under it: its kind and its upstream.
    CREATE TABLE origin (repo TEXT NOT NULL PRIMARY KEY, origin TEXT NOT NULL) WITHOUT ROWID;
","
    -- What remotes with rules know of, since when, and under which terms it was admitted; NULL: not.
    CREATE TABLE admission (
        repo       TEXT NOT NULL,
        name       TEXT NOT NULL,
        digest     TEXT NOT NULL,
        first_seen INTEGER NOT NULL,
        terms      TEXT,
        PRIMARY KEY (repo, name, digest)
    ) WITHOUT ROWID;
","
    -- What upstreams told of their pull quotas; seconds: the window.
    CREATE TABLE quota (
        repo       TEXT NOT NULL,
        credential TEXT NOT NULL,
        granted    INTEGER NOT NULL,
        remaining  INTEGER NOT NULL,
        seconds    INTEGER,
        source     TEXT,
        seen       INTEGER NOT NULL,
        PRIMARY KEY (repo, credential)
    ) WITHOUT ROWID;
","
    -- API tokens, as the journal has them; may, places: JSON. used: the day of the last use, which only the index knows.
    CREATE TABLE api_token (
        name    TEXT NOT NULL PRIMARY KEY,
        user    TEXT NOT NULL,
        hash    TEXT NOT NULL,
        may     TEXT NOT NULL,
        places  TEXT NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER,
        used    INTEGER
    ) WITHOUT ROWID;
","
    -- Images of remotes that are kept, as the journal has them, and all that each of them is made of.
    CREATE TABLE keep (
        repo      TEXT NOT NULL,
        name      TEXT NOT NULL,
        reference TEXT NOT NULL,
        digest    TEXT NOT NULL,
        at        INTEGER NOT NULL,
        PRIMARY KEY (repo, name, reference)
    ) WITHOUT ROWID;
    CREATE TABLE keep_blob (
        repo      TEXT NOT NULL,
        name      TEXT NOT NULL,
        reference TEXT NOT NULL,
        digest    TEXT NOT NULL,
        PRIMARY KEY (repo, name, reference, digest)
    ) WITHOUT ROWID;
    CREATE INDEX keep_blob_digest ON keep_blob (digest);
    CREATE TRIGGER keep_dropped AFTER DELETE ON keep BEGIN
        DELETE FROM keep_blob WHERE repo = old.repo AND name = old.name AND reference = old.reference;
    END;
    -- blob.pinned is how many of them name it, whichever of the two rows comes first; kept is what that makes together.
    UPDATE blob SET pinned = 0 WHERE pinned > 0;
    ALTER TABLE total ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;
    CREATE TRIGGER keep_blob_added AFTER INSERT ON keep_blob BEGIN
        UPDATE blob SET pinned = pinned + 1 WHERE digest = new.digest;
    END;
    CREATE TRIGGER keep_blob_dropped AFTER DELETE ON keep_blob BEGIN
        UPDATE blob SET pinned = max(0, pinned - 1) WHERE digest = old.digest;
    END;
    CREATE TRIGGER kept_blob_came AFTER INSERT ON blob WHEN EXISTS (SELECT 1 FROM keep_blob WHERE digest = new.digest) BEGIN
        UPDATE blob SET pinned = (SELECT count(*) FROM keep_blob WHERE digest = new.digest) WHERE digest = new.digest;
    END;
    CREATE TRIGGER kept_blob_changed AFTER UPDATE OF pinned, kind, size ON blob
    WHEN (old.pinned > 0 AND old.kind = 0) * old.size <> (new.pinned > 0 AND new.kind = 0) * new.size BEGIN
        UPDATE total SET kept = kept + (new.pinned > 0 AND new.kind = 0) * new.size - (old.pinned > 0 AND old.kind = 0) * old.size;
    END;
    CREATE TRIGGER kept_blob_dropped AFTER DELETE ON blob WHEN old.pinned > 0 AND old.kind = 0 BEGIN
        UPDATE total SET kept = kept - old.size;
    END;
","
    -- What was pulled, by whom. parent: the index that it was chosen from; empty: none.
    CREATE TABLE pull (
        id         INTEGER PRIMARY KEY,
        repo       TEXT NOT NULL,
        name       TEXT NOT NULL,
        reference  TEXT NOT NULL,
        digest     TEXT NOT NULL,
        parent     TEXT NOT NULL,
        who        TEXT NOT NULL,
        media_type TEXT NOT NULL,
        platform   TEXT,
        first      INTEGER NOT NULL,
        last       INTEGER NOT NULL,
        count      INTEGER NOT NULL,
        UNIQUE (repo, name, reference, digest, parent, who)
    );
    CREATE INDEX pull_last ON pull (last);
    CREATE INDEX pull_digest ON pull (digest);
    -- What was asked for and could not be had. blob: 1 where it was asked for as a blob. under: the tag that means it.
    CREATE TABLE missing (
        id        INTEGER PRIMARY KEY,
        repo      TEXT NOT NULL,
        name      TEXT NOT NULL,
        reference TEXT NOT NULL,
        blob      INTEGER NOT NULL,
        under     TEXT,
        why       TEXT NOT NULL,
        who       TEXT NOT NULL,
        first     INTEGER NOT NULL,
        last      INTEGER NOT NULL,
        count     INTEGER NOT NULL,
        UNIQUE (repo, name, reference, blob)
    );
    CREATE INDEX missing_last ON missing (last);
"];

/// Why a database file cannot serve as the index.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("it was written by a newer program (schema {0})")]
    Newer(i64),
    #[error("it belongs to another program")]
    Foreign,
    #[error("it fails its check: {0}")]
    Damaged(String),
    #[error("its file cannot be used: {0}")]
    File(#[from] std::io::Error),
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
}

/// Brings an open database to the current schema; creates it where the file is new.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Unfit> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |r| r.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    let fresh = application == 0 && version == 0 && tables == 0;
    if !fresh && application != APPLICATION_ID {
        return Err(Unfit::Foreign);
    }
    let done = usize::try_from(version).map_err(|_negative| Unfit::Foreign)?;
    if done > MIGRATIONS.len() {
        return Err(Unfit::Newer(version));
    }
    for (number, statements) in MIGRATIONS.iter().enumerate().skip(done) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(statements)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(
            None,
            "user_version",
            i64::try_from(number + 1).unwrap_or(i64::MAX),
        )?;
        transaction.commit()?;
    }
    Ok(())
}

/// Reads the whole structure of the file; anything wrong in it is an error.
pub(super) fn check(connection: &Connection) -> Result<(), Unfit> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        Ok(())
    } else {
        Err(Unfit::Damaged(verdict))
    }
}
