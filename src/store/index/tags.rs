//! Tags and their history: every digest that a tag has pointed to, with times and cause.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::content::integer;
use super::{HistoryRow, Index, TagRow, lock};
use crate::clock::Wall;
use crate::oci::{Digest, Name, Tag};
use crate::store::StoreError;

impl Index {
    /// What is known of a tag.
    pub async fn tag(
        &self,
        repository: &str,
        name: &Name,
        tag: &Tag,
    ) -> Result<Option<TagRow>, StoreError> {
        let memory = key(repository, name, tag);
        if let Some(row) = lock(&self.tags).get(&memory) {
            return Ok(Some(row.clone()));
        }
        let parameters = [repository.to_owned(), name.to_string(), tag.to_string()];
        let row = self
            .read(move |connection| {
                connection
                    .prepare_cached("SELECT observed, served, media_type, size, etag, checked, moved, gone FROM tag WHERE repository = ?1 AND name = ?2 AND tag = ?3")?
                    .query_row(parameters, tag_row)
                    .optional()
            })
            .await?
            .flatten();
        if let Some(row) = &row {
            // A write that came meanwhile knows better.
            lock(&self.tags).get_or_insert(memory, || row.clone());
        }
        Ok(row)
    }

    /// Writes down what a tag means; a digest that was not served before begins a new line of its history.
    pub async fn put_tag(
        &self,
        repository: &str,
        name: &Name,
        tag: &Tag,
        row: TagRow,
        cause: &'static str,
    ) -> Result<(), StoreError> {
        lock(&self.tags).put(key(repository, name, tag), row.clone());
        let (repository, name, tag) = (repository.to_owned(), name.to_string(), tag.to_string());
        self.note("tag", move |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO tag (repository, name, tag, observed, served, media_type, size, etag, checked, moved, gone)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                )?
                .execute(params![
                    repository,
                    name,
                    tag,
                    row.observed.to_string(),
                    row.served.to_string(),
                    row.media_type,
                    integer(row.size),
                    row.etag,
                    row.checked.as_ms(),
                    row.moved.as_ms(),
                    row.gone.map(Wall::as_ms),
                ])?;
            append_history(connection, [&repository, &name, &tag], &row.observed.to_string(), row.checked, cause)
        })
        .await;
        Ok(())
    }

    /// Writes down that upstream says a tag is gone.
    pub async fn tag_gone(
        &self,
        repository: &str,
        name: &Name,
        tag: &Tag,
        at: Wall,
    ) -> Result<(), StoreError> {
        if let Some(row) = lock(&self.tags).get_mut(&key(repository, name, tag)) {
            row.gone = Some(at);
        }
        let (repository, name, tag) = (repository.to_owned(), name.to_string(), tag.to_string());
        self.note("tag gone", move |connection| {
            connection
                .prepare_cached(
                    "UPDATE tag SET gone = ?4 WHERE repository = ?1 AND name = ?2 AND tag = ?3",
                )?
                .execute(params![repository, name, tag, at.as_ms()])
                .map(drop)
        })
        .await;
        Ok(())
    }

    /// Forgets a tag; its history stays.
    pub async fn forget_tag(
        &self,
        repository: &str,
        name: &Name,
        tag: &Tag,
    ) -> Result<(), StoreError> {
        lock(&self.tags).pop(&key(repository, name, tag));
        let parameters = [repository.to_owned(), name.to_string(), tag.to_string()];
        self.note("forget tag", move |connection| {
            connection
                .prepare_cached("DELETE FROM tag WHERE repository = ?1 AND name = ?2 AND tag = ?3")?
                .execute(parameters)
                .map(drop)
        })
        .await;
        Ok(())
    }

    /// The tags of an image that were ever pulled and are not forgotten, sorted.
    pub async fn known_tags(
        &self,
        repository: &str,
        name: &Name,
    ) -> Result<Vec<String>, StoreError> {
        let parameters = [repository.to_owned(), name.to_string()];
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT tag FROM tag WHERE repository = ?1 AND name = ?2 ORDER BY tag",
            )?;
            statement.query_map(parameters, |row| row.get(0))?.collect()
        })
        .await
    }

    /// Every digest that a tag has pointed to, oldest first.
    pub async fn history(
        &self,
        repository: &str,
        name: &Name,
        tag: &Tag,
    ) -> Result<Vec<HistoryRow>, StoreError> {
        let parameters = [repository.to_owned(), name.to_string(), tag.to_string()];
        self.read(move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT digest, first, last, cause FROM tag_history WHERE repository = ?1 AND name = ?2 AND tag = ?3 ORDER BY rowid")?;
            let rows = statement.query_map(parameters, |row| {
                let digest: String = row.get(0)?;
                let (first, last, cause) = (Wall::from_ms(row.get(1)?), Wall::from_ms(row.get(2)?), row.get(3)?);
                Ok(Digest::parse(&digest).ok().map(|digest| HistoryRow { digest, first, last, cause }))
            })?;
            Ok(rows.filter_map(Result::ok).flatten().collect())
        })
        .await
    }
}

/// Extends the last line of a tag's history, or begins a new one.
fn append_history(
    connection: &Connection,
    tag: [&str; 3],
    digest: &str,
    at: Wall,
    cause: &str,
) -> rusqlite::Result<()> {
    let [repository, name, tag] = tag;
    let last: Option<(i64, String)> = connection
        .prepare_cached("SELECT rowid, digest FROM tag_history WHERE repository = ?1 AND name = ?2 AND tag = ?3 ORDER BY rowid DESC LIMIT 1")?
        .query_row([repository, name, tag], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match last {
        Some((row, known)) if known == digest => connection.prepare_cached("UPDATE tag_history SET last = ?2 WHERE rowid = ?1")?.execute(params![row, at.as_ms()])?,
        _ => connection
            .prepare_cached("INSERT INTO tag_history (repository, name, tag, digest, first, last, cause) VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)")?
            .execute(params![repository, name, tag, digest, at.as_ms(), cause])?,
    };
    Ok(())
}

/// A row; `None` where the database holds something that is no digest.
fn tag_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<TagRow>> {
    let (observed, served): (String, String) = (row.get(0)?, row.get(1)?);
    let (Ok(observed), Ok(served)) = (Digest::parse(&observed), Digest::parse(&served)) else {
        return Ok(None);
    };
    Ok(Some(TagRow {
        observed,
        served,
        media_type: row.get(2)?,
        size: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
        etag: row.get(4)?,
        checked: Wall::from_ms(row.get(5)?),
        moved: Wall::from_ms(row.get(6)?),
        gone: row.get::<_, Option<i64>>(7)?.map(Wall::from_ms),
    }))
}

fn key(repository: &str, name: &Name, tag: &Tag) -> String {
    format!("{repository} {name}:{tag}")
}
