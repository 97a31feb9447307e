//! Repositories that were made at run time, as the journal has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::apply::{self, Applied, HotChange};
use super::convert::readable;
use super::{Index, Result};
use crate::oci::Digest;
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

impl Index {
    /// Whether anything was pushed under a key.
    pub async fn has_pushed(&self, repo: &str) -> Result<bool> {
        let repo = repo.to_owned();
        self.read(move |connection| has_pushed(connection, &repo))
            .await
    }

    /// What a key stands for from now on. If it stood for something else, what was cached under it is forgotten: it was another upstream's
    /// word (RELIABILITY P7). Answers what nothing may read any more.
    pub async fn settle_origin(
        &self,
        repo: &str,
        origin: &str,
        afresh: bool,
    ) -> Result<Vec<Digest>> {
        let (repo, origin) = (repo.to_owned(), origin.to_owned());
        let hot = Arc::clone(&self.inner.hot);
        let settled = self.write_then(
            move |connection| settle(connection, &repo, &origin, afresh),
            move |(changes, _): &(Vec<HotChange>, _)| {
                for change in changes {
                    change.show(&hot);
                }
            },
        );
        Ok(settled.await?.1)
    }
}

fn settle(
    connection: &Connection,
    repo: &str,
    origin: &str,
    afresh: bool,
) -> rusqlite::Result<(Vec<HotChange>, Vec<Digest>)> {
    let before: Option<String> = connection
        .prepare_cached("SELECT origin FROM origin WHERE repo = ?1")?
        .query_row(params![repo], |row| row.get(0))
        .optional()?;
    let is_same = before.as_deref().is_none_or(|before| before == origin) && !afresh;
    let mut applied = Applied::default();
    if !is_same {
        for image in drop_cached(connection, repo)? {
            apply::drop_image(connection, repo, &image, &mut applied)?;
        }
    }
    connection
        .prepare_cached(
            "INSERT INTO origin (repo, origin) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET origin = excluded.origin",
        )?
        .execute(params![repo, origin])?;
    Ok((applied.hot, applied.orphans))
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
pub(super) fn drop_all(
    connection: &Connection,
    repo: &str,
    cached_only: bool,
) -> rusqlite::Result<Vec<Image>> {
    connection
        .prepare_cached("DELETE FROM repository WHERE key = ?1")?
        .execute(params![repo])?;
    if cached_only {
        return drop_cached(connection, repo);
    }
    take_all(connection, repo)
}

/// The same of what was cached alone.
pub(super) fn drop_cached(connection: &Connection, repo: &str) -> rusqlite::Result<Vec<Image>> {
    // Of a remote under whose key something was pushed once, nothing is its own that has a tag.
    if has_pushed(connection, repo)? {
        for statement in [
            "DELETE FROM keep WHERE repo = ?1",
            "DELETE FROM tag_pin WHERE repo = ?1",
            // Else what the next upstream vouched for would not be taken in again.
            "DELETE FROM origin WHERE repo = ?1",
        ] {
            connection
                .prepare_cached(statement)?
                .execute(params![repo])?;
        }
        return Ok(Vec::new());
    }
    take_all(connection, repo)
}

fn has_pushed(connection: &Connection, repo: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM link WHERE repo = ?1 AND local = 1")?
        .exists(params![repo])
}

/// Takes out everything that belongs to a key.
fn take_all(connection: &Connection, repo: &str) -> rusqlite::Result<Vec<Image>> {
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
        "DELETE FROM origin WHERE repo = ?1",
        "DELETE FROM admission WHERE repo = ?1",
        "DELETE FROM tag_list WHERE repo = ?1",
        "DELETE FROM referrer_list WHERE repo = ?1",
        "DELETE FROM keep WHERE repo = ?1",
        "DELETE FROM tag_pin WHERE repo = ?1",
        "DELETE FROM property WHERE repo = ?1",
        "DELETE FROM tag_history WHERE repo = ?1",
        "DELETE FROM quota WHERE repo = ?1",
    ] {
        connection
            .prepare_cached(statement)?
            .execute(params![repo])?;
    }
    let named = |(name, image)| Image { name, ..image };
    Ok(images.into_iter().map(named).collect())
}
