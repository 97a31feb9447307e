//! Repositories that were made at run time, as the journal has them.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::convert::readable;
use super::{Index, Result};
use crate::secret::Secret;

/// A repository that was made at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryRow {
    /// Its key.
    pub key: String,
    /// What it is told, as JSON.
    pub declared: String,
    /// What it logs in with at its upstream.
    pub password: Option<Secret>,
}

/// What there is of one image.
#[derive(Debug, Default)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    /// Digest, and whether it is a manifest.
    pub(super) links: Vec<(String, bool)>,
}

impl Index {
    /// Every repository that was made at run time, by key.
    pub async fn repositories(&self) -> Result<Vec<RepositoryRow>> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT key, declared, password FROM repository ORDER BY key")?;
            readable(statement.query_map([], |row| {
                Ok(RepositoryRow {
                    key: row.get(0)?,
                    declared: row.get(1)?,
                    password: row.get::<_, Option<String>>(2)?.map(Secret::new),
                })
            })?)
        })
        .await
    }
}

/// Writes one down.
pub(super) fn put(
    connection: &Connection,
    (repo, at): (&str, i64),
    declared: &serde_json::Value,
    password: Option<&str>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO repository (key, declared, password, at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET declared = excluded.declared, password = excluded.password, at = excluded.at",
        )?
        .execute(params![repo, declared.to_string(), password, at])
        .map(drop)
}

/// Strikes one out with everything that belongs to no image's tag or link, and answers with those.
pub(super) fn drop_all(connection: &Connection, repo: &str) -> rusqlite::Result<Vec<Image>> {
    let mut images: BTreeMap<String, Image> = BTreeMap::new();
    let mut tags = connection.prepare_cached("SELECT name, tag FROM tag WHERE repo = ?1")?;
    let rows: Vec<(String, String)> =
        readable(tags.query_map(params![repo], |row| Ok((row.get(0)?, row.get(1)?)))?)?;
    for (name, tag) in rows {
        images.entry(name).or_default().tags.push(tag);
    }
    let mut links =
        connection.prepare_cached("SELECT name, digest, manifest FROM link WHERE repo = ?1")?;
    let rows: Vec<(String, String, bool)> = readable(links.query_map(params![repo], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?)?;
    for (name, digest, manifest) in rows {
        images
            .entry(name)
            .or_default()
            .links
            .push((digest, manifest));
    }
    for statement in [
        "DELETE FROM repository WHERE key = ?1",
        "DELETE FROM tag_list WHERE repo = ?1",
        "DELETE FROM referrer_list WHERE repo = ?1",
        "DELETE FROM tag_pin WHERE repo = ?1",
        "DELETE FROM property WHERE repo = ?1",
        "DELETE FROM tag_history WHERE repo = ?1",
    ] {
        connection
            .prepare_cached(statement)?
            .execute(params![repo])?;
    }
    let named = |(name, image)| Image { name, ..image };
    Ok(images.into_iter().map(named).collect())
}
