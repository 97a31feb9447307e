//! Tags: what upstream said, what is served, and how that moved over time.

use std::fmt::Display;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::convert::{digest, lenient, number, readable, to_sql, wall};
use super::{HistoryRow, Index, Result, TagRow};
use crate::clock::Wall;
use crate::oci::{Digest, Name, Tag};

/// Stretches of history kept of one tag; the oldest go first.
const HISTORY_MAX: i64 = 1000;

const COLUMNS: &str = "observed, served, media_type, size, etag, checked, moved, gone";

/// Which tag a command is about, owned, so that it can travel to another thread.
pub(super) struct Key {
    repo: String,
    name: Name,
    tag: Tag,
}

impl Key {
    pub(super) fn new(repo: &str, name: &Name, tag: &Tag) -> Self {
        Self {
            repo: repo.to_owned(),
            name: name.clone(),
            tag: tag.clone(),
        }
    }

    /// The key among the hot rows.
    pub(super) fn hot(&self) -> String {
        hot_key(&self.repo, &self.name, &self.tag)
    }

    fn columns(&self) -> (&str, &str, &str) {
        (&self.repo, self.name.as_str(), self.tag.as_str())
    }
}

/// The key of a tag among the hot rows. None of the parts can hold a NUL.
pub(super) fn hot_key(repo: &str, name: impl Display, tag: impl Display) -> String {
    format!("{repo}\0{name}\0{tag}")
}

impl Index {
    /// A tag as it was last seen.
    pub async fn tag(&self, repo: &str, name: &Name, tag: &Tag) -> Result<Option<TagRow>> {
        let key = Key::new(repo, name, tag);
        let hot = key.hot();
        let read_at = match self.inner.hot.tags.get(&hot) {
            Ok(row) => return Ok(Some(row)),
            Err(read_at) => read_at,
        };
        let found = self
            .read(move |connection| select_tag(connection, &key))
            .await?;
        if let Some(row) = &found {
            self.inner.hot.tags.fill(&hot, row.clone(), read_at);
        }
        Ok(found)
    }

    /// Writes a tag. Where `served` moved, its history grows by a stretch that begins at `row.moved`, for `cause`; where it did not, the
    /// stored `moved` stays.
    pub async fn put_tag(
        &self,
        repo: &str,
        name: &Name,
        tag: &Tag,
        row: TagRow,
        cause: &'static str,
    ) -> Result<()> {
        self.change_tag(Key::new(repo, name, tag), move |connection, key| {
            put(connection, key, row, cause).map(Some)
        })
        .await
    }

    /// Upstream confirmed the tag as it is.
    pub async fn tag_checked(&self, repo: &str, name: &Name, tag: &Tag, at: Wall) -> Result<()> {
        self.change_tag(Key::new(repo, name, tag), move |connection, key| {
            let (repo, name, tag) = key.columns();
            connection
                .prepare_cached(
                    "UPDATE tag SET checked = ?4, gone = NULL WHERE repo = ?1 AND name = ?2 AND tag = ?3",
                )?
                .execute(params![repo, name, tag, at.as_ms()])?;
            confirm_history(connection, key, at)?;
            select_tag(connection, key)
        })
        .await
    }

    /// Upstream says that the tag does not exist. The first such time stays, and so does when it was last confirmed: from then its age counts.
    pub async fn tag_gone(&self, repo: &str, name: &Name, tag: &Tag, at: Wall) -> Result<()> {
        self.change_tag(Key::new(repo, name, tag), move |connection, key| {
            let (repo, name, tag) = key.columns();
            connection
                .prepare_cached(
                    "UPDATE tag SET gone = coalesce(gone, ?4)
                     WHERE repo = ?1 AND name = ?2 AND tag = ?3",
                )?
                .execute(params![repo, name, tag, at.as_ms()])?;
            select_tag(connection, key)
        })
        .await
    }

    /// Forgets a tag; its history stays.
    pub async fn forget_tag(&self, repo: &str, name: &Name, tag: &Tag) -> Result<()> {
        self.change_tag(Key::new(repo, name, tag), |connection, key| {
            connection
                .prepare_cached("DELETE FROM tag WHERE repo = ?1 AND name = ?2 AND tag = ?3")?
                .execute(key.columns())?;
            Ok(None)
        })
        .await
    }

    /// The tags of an image that were ever asked for and are not forgotten, sorted by bytes.
    pub async fn known_tags(&self, repo: &str, name: &Name) -> Result<Vec<String>> {
        let (repo, name) = (repo.to_owned(), name.clone());
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT tag FROM tag WHERE repo = ?1 AND name = ?2 AND gone IS NULL ORDER BY tag",
            )?;
            readable(statement.query_map(params![repo, name.as_str()], |row| row.get(0))?)
        })
        .await
    }

    /// What a tag served over time, the latest first.
    pub async fn history(&self, repo: &str, name: &Name, tag: &Tag) -> Result<Vec<HistoryRow>> {
        let key = Key::new(repo, name, tag);
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT digest, first, last, cause FROM tag_history
                 WHERE repo = ?1 AND name = ?2 AND tag = ?3 ORDER BY id DESC",
            )?;
            readable(statement.query_map(key.columns(), |row| {
                Ok(HistoryRow {
                    digest: digest(row, 0)?,
                    first: wall(row, 1)?,
                    last: wall(row, 2)?,
                    cause: row.get(3)?,
                })
            })?)
        })
        .await
    }

    /// The images of a repository with at least one tag or manifest, sorted by bytes.
    pub async fn names(&self, repo: &str) -> Result<Vec<String>> {
        let repo = repo.to_owned();
        self.read(move |connection| {
            // From one name to the next by the index, not through every row that a name has.
            let mut statement = connection.prepare_cached(
                "WITH RECURSIVE
                 tagged(name) AS (SELECT min(name) FROM tag WHERE repo = ?1 UNION ALL
                     SELECT (SELECT min(name) FROM tag WHERE repo = ?1 AND name > tagged.name) FROM tagged WHERE tagged.name IS NOT NULL),
                 linked(name) AS (SELECT min(name) FROM link WHERE repo = ?1 AND manifest = 1 UNION ALL
                     SELECT (SELECT min(name) FROM link WHERE repo = ?1 AND manifest = 1 AND name > linked.name) FROM linked WHERE linked.name IS NOT NULL)
                 SELECT name FROM tagged WHERE name IS NOT NULL UNION SELECT name FROM linked WHERE name IS NOT NULL ORDER BY 1",
            )?;
            readable(statement.query_map(params![repo], |row| row.get(0))?)
        })
        .await
    }

    /// Runs a change of one tag and keeps the hot row in step with what it leaves.
    async fn change_tag<F>(&self, key: Key, change: F) -> Result<()>
    where
        F: FnOnce(&Connection, &Key) -> rusqlite::Result<Option<TagRow>> + Send + 'static,
    {
        let rows = Arc::clone(&self.inner.hot);
        let hot = key.hot();
        self.write_then(
            move |connection| change(connection, &key),
            move |row| rows.tags.written(&hot, row.clone()),
        )
        .await
        .map(drop)
    }
}

fn select_tag(connection: &Connection, key: &Key) -> rusqlite::Result<Option<TagRow>> {
    lenient(
        connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM tag WHERE repo = ?1 AND name = ?2 AND tag = ?3"
            ))?
            .query_row(key.columns(), tag_row),
    )
}

fn tag_row(row: &Row<'_>) -> rusqlite::Result<TagRow> {
    Ok(TagRow {
        observed: digest(row, 0)?,
        served: digest(row, 1)?,
        media_type: row.get(2)?,
        size: number(row, 3)?,
        etag: row.get(4)?,
        checked: wall(row, 5)?,
        moved: wall(row, 6)?,
        gone: row.get::<_, Option<i64>>(7)?.map(Wall::from_ms),
    })
}

pub(super) fn put(
    connection: &Connection,
    key: &Key,
    mut row: TagRow,
    cause: &str,
) -> rusqlite::Result<TagRow> {
    match select_tag(connection, key)? {
        Some(before) if before.served == row.served => row.moved = before.moved,
        Some(_) | None => {}
    }
    let (repo, name, tag) = key.columns();
    connection
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO tag (repo, name, tag, {COLUMNS})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
        ))?
        .execute(params![
            repo,
            name,
            tag,
            row.observed.to_string(),
            row.served.to_string(),
            row.media_type,
            to_sql(row.size),
            row.etag,
            row.checked.as_ms(),
            row.moved.as_ms(),
            row.gone.map(Wall::as_ms),
        ])?;
    if latest_served(connection, key)?.as_ref() == Some(&row.served) {
        confirm_history(connection, key, row.checked)?;
    } else {
        append_history(connection, key, &row, cause)?;
    }
    Ok(row)
}

fn latest_served(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Digest>> {
    lenient(
        connection
            .prepare_cached(
                "SELECT digest FROM tag_history WHERE repo = ?1 AND name = ?2 AND tag = ?3
                 ORDER BY id DESC LIMIT 1",
            )?
            .query_row(key.columns(), |row| digest(row, 0)),
    )
}

fn confirm_history(connection: &Connection, key: &Key, at: Wall) -> rusqlite::Result<()> {
    let (repo, name, tag) = key.columns();
    connection
        .prepare_cached(
            "UPDATE tag_history SET last = max(last, ?4) WHERE id = (
                 SELECT id FROM tag_history WHERE repo = ?1 AND name = ?2 AND tag = ?3
                 ORDER BY id DESC LIMIT 1)",
        )?
        .execute(params![repo, name, tag, at.as_ms()])
        .map(drop)
}

fn append_history(
    connection: &Connection,
    key: &Key,
    row: &TagRow,
    cause: &str,
) -> rusqlite::Result<()> {
    let (repo, name, tag) = key.columns();
    connection
        .prepare_cached(
            "INSERT INTO tag_history (repo, name, tag, digest, first, last, cause)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            repo,
            name,
            tag,
            row.served.to_string(),
            row.moved.as_ms(),
            row.checked.max(row.moved).as_ms(),
            cause,
        ])?;
    let surplus: Option<i64> = connection
        .prepare_cached(
            "SELECT id FROM tag_history WHERE repo = ?1 AND name = ?2 AND tag = ?3
             ORDER BY id DESC LIMIT 1 OFFSET ?4",
        )?
        .query_row(params![repo, name, tag, HISTORY_MAX], |row| row.get(0))
        .optional()?;
    if let Some(newest_surplus) = surplus {
        connection
            .prepare_cached(
                "DELETE FROM tag_history WHERE repo = ?1 AND name = ?2 AND tag = ?3 AND id <= ?4",
            )?
            .execute(params![repo, name, tag, newest_surplus])?;
    }
    Ok(())
}
