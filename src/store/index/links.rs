//! Links: which content an image of a repository may read. They outlive eviction.

use std::fmt::Display;
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::convert::{digest, lenient, readable};
use super::tags::hot_key;
use super::{Index, Result};
use crate::clock::{self, Wall};
use crate::oci::{Digest, Name, Tag};

impl Index {
    /// Lets `name` in `repo` read `digest`.
    pub async fn link(&self, repo: &str, name: &Name, digest: &Digest) -> Result<()> {
        let key = key(repo, name, digest);
        if self.inner.hot.links.get(&key).is_ok() {
            return Ok(());
        }
        let (repo, name, digest) = (repo.to_owned(), name.clone(), digest.clone());
        let now = clock::now();
        let hot = Arc::clone(&self.inner.hot);
        self.write_then(
            move |connection| put_link(connection, &repo, &name, &digest, false, now),
            move |()| hot.links.written(&key, Some(())),
        )
        .await
    }

    /// Forgets everything that a remote's cache knows of an image. Answers what nothing may read any more; `None` where nothing was known.
    pub async fn forget_image(&self, repo: &str, name: &Name) -> Result<Option<Vec<Digest>>> {
        let (repo, name) = (repo.to_owned(), name.clone());
        let hot = Arc::clone(&self.inner.hot);
        let (repo_then, name_then) = (repo.clone(), name.clone());
        let (digests, tags, orphans) = self
            .write_then(
                move |connection| {
                    let key = params![repo, name.as_str()];
                    let mut links = connection.prepare_cached(
                        "DELETE FROM link WHERE repo = ?1 AND name = ?2 AND local = 0 RETURNING digest",
                    )?;
                    let digests: Vec<Digest> = readable(links.query_map(key, |row| digest(row, 0))?)?;
                    let mut rows = connection.prepare_cached(
                        "DELETE FROM tag WHERE repo = ?1 AND name = ?2 RETURNING tag",
                    )?;
                    let tags: Vec<String> = readable(rows.query_map(key, |row| row.get(0))?)?;
                    for table in ["tag_list", "referrer_list", "tag_history"] {
                        let sql = format!("DELETE FROM {table} WHERE repo = ?1 AND name = ?2");
                        connection.prepare_cached(&sql)?.execute(key)?;
                    }
                    let mut linked =
                        connection.prepare_cached("SELECT 1 FROM link WHERE digest = ?1")?;
                    let mut orphans = Vec::new();
                    for digest in &digests {
                        if !linked.exists(params![digest.to_string()])? {
                            orphans.push(digest.clone());
                        }
                    }
                    Ok((digests, tags, orphans))
                },
                move |(digests, tags, _)| {
                    for digest in digests {
                        hot.links.written(&key(&repo_then, &name_then, digest), None);
                    }
                    for tag in tags {
                        hot.tags.written(&hot_key(&repo_then, &name_then, tag), None);
                    }
                },
            )
            .await?;
        Ok((!digests.is_empty() || !tags.is_empty()).then_some(orphans))
    }

    /// Forgets a tag of a remote, and its manifest unless another tag means it. Answers whether there was one.
    pub async fn remove_tag(&self, repo: &str, name: &Name, tag: &Tag) -> Result<bool> {
        let (repo, name, tag) = (repo.to_owned(), name.clone(), tag.clone());
        let hot = Arc::clone(&self.inner.hot);
        let (repo_then, name_then, tag_then) = (repo.clone(), name.clone(), tag.clone());
        let gone = self
            .write_then(
                move |connection| {
                    let served: Option<String> = lenient(
                        connection
                            .prepare_cached(
                                "DELETE FROM tag WHERE repo = ?1 AND name = ?2 AND tag = ?3 RETURNING served",
                            )?
                            .query_row(params![repo, name.as_str(), tag.as_str()], |row| row.get(0)),
                    )?;
                    if let Some(served) = &served {
                        connection
                            .prepare_cached(
                                "DELETE FROM link WHERE repo = ?1 AND name = ?2 AND digest = ?3 AND local = 0
                                 AND NOT EXISTS (SELECT 1 FROM tag WHERE repo = ?1 AND name = ?2 AND served = ?3)",
                            )?
                            .execute(params![repo, name.as_str(), served])?;
                    }
                    Ok(served)
                },
                move |served: &Option<String>| {
                    hot.tags.written(&hot_key(&repo_then, &name_then, &tag_then), None);
                    if let Some(served) = served {
                        hot.links.written(&key(&repo_then, &name_then, served), None);
                    }
                },
            )
            .await?;
        Ok(gone.is_some())
    }

    /// Whether `name` in `repo` may read `digest`.
    pub async fn is_linked(&self, repo: &str, name: &Name, digest: &Digest) -> Result<bool> {
        let key = key(repo, name, digest);
        let Err(read_at) = self.inner.hot.links.get(&key) else {
            return Ok(true);
        };
        let (repo, name, digest) = (repo.to_owned(), name.clone(), digest.clone());
        let found = self
            .read(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT 1 FROM link WHERE repo = ?1 AND name = ?2 AND digest = ?3",
                    )?
                    .exists(params![repo, name.as_str(), digest.to_string()])
            })
            .await?;
        if found {
            self.inner.hot.links.fill(&key, (), read_at);
        }
        Ok(found)
    }
}

/// The key of a link among the hot rows. None of the parts can hold a NUL.
pub(super) fn key(repo: &str, name: impl Display, digest: impl Display) -> String {
    format!("{repo}\0{name}\0{digest}")
}

/// Writes a link; one that is known as a manifest's stays so.
pub(super) fn put_link(
    connection: &Connection,
    repo: &str,
    name: &Name,
    digest: &Digest,
    manifest: bool,
    now: Wall,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO link (repo, name, digest, manifest, added) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET manifest = max(manifest, excluded.manifest)
             WHERE manifest < excluded.manifest",
        )?
        .execute(params![
            repo,
            name.as_str(),
            digest.to_string(),
            manifest,
            now.as_ms()
        ])
        .map(drop)
}
