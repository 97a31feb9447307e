//! Links: which content an image of a repository may read. They outlive eviction.

use std::fmt::Display;
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::apply::{Applied, HotChange};
use super::convert::{lenient, readable};
use super::tags::hot_key;
use super::{Index, Result, keeps};
use crate::clock::{self, Wall};
use crate::oci::{Digest, Name, Tag};

/// What became of something that was to be forgotten.
#[derive(Debug, PartialEq, Eq)]
pub enum Forgot {
    /// Nothing of it was known.
    Nothing,
    /// Something of it is kept, so nothing was done.
    Kept,
    /// It is forgotten; nothing may read these any more.
    All(Vec<Digest>),
}

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

    /// Forgets everything that a remote's cache knows of an image, unless something of it is kept: that must be written down first.
    pub async fn forget_image(&self, repo: &str, name: &Name) -> Result<Forgot> {
        let (repo, name) = (repo.to_owned(), name.to_string());
        self.forget(move |connection, applied| {
            if keeps::of_image(connection, &repo, &name)? {
                return Ok(Forgot::Kept);
            }
            forget_image(connection, &repo, &name, applied)
        })
        .await
    }

    /// Forgets a tag of a remote, and its manifest unless another tag means it or it is kept otherwise. Not if something is kept by the tag.
    pub async fn remove_tag(&self, repo: &str, name: &Name, tag: &Tag) -> Result<Forgot> {
        let (repo, name, tag) = (repo.to_owned(), name.to_string(), tag.to_string());
        self.forget(move |connection, applied| {
            if keeps::by_reference(connection, (&repo, &name), &tag)? {
                return Ok(Forgot::Kept);
            }
            remove_tag(connection, (&repo, &name), &tag, applied)
        })
        .await
    }

    async fn forget<F>(&self, work: F) -> Result<Forgot>
    where
        F: FnOnce(&Connection, &mut Applied) -> rusqlite::Result<Forgot> + Send + 'static,
    {
        let hot = Arc::clone(&self.inner.hot);
        let forgot = self.write_then(
            move |connection| {
                let mut applied = Applied::default();
                let forgot = work(connection, &mut applied)?;
                Ok((forgot, applied))
            },
            move |(_, applied): &(Forgot, Applied)| {
                for change in &applied.hot {
                    change.show(&hot);
                }
            },
        );
        let (forgot, applied) = forgot.await?;
        Ok(match forgot {
            Forgot::All(_) => Forgot::All(applied.orphans),
            other @ (Forgot::Nothing | Forgot::Kept) => other,
        })
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

/// Forgets what a remote's cache knows of an image, kept or not.
pub(super) fn forget_image(
    connection: &Connection,
    repo: &str,
    name: &str,
    applied: &mut Applied,
) -> rusqlite::Result<Forgot> {
    let image = params![repo, name];
    let mut links = connection.prepare_cached(
        "DELETE FROM link WHERE repo = ?1 AND name = ?2 AND local = 0 RETURNING digest",
    )?;
    let digests: Vec<String> = readable(links.query_map(image, |row| row.get(0))?)?;
    let mut rows =
        connection.prepare_cached("DELETE FROM tag WHERE repo = ?1 AND name = ?2 RETURNING tag")?;
    let tags: Vec<String> = readable(rows.query_map(image, |row| row.get(0))?)?;
    for table in ["tag_list", "referrer_list", "tag_history"] {
        let sql = format!("DELETE FROM {table} WHERE repo = ?1 AND name = ?2");
        connection.prepare_cached(&sql)?.execute(image)?;
    }
    let mut linked = connection.prepare_cached("SELECT 1 FROM link WHERE digest = ?1")?;
    let was_known = !digests.is_empty() || !tags.is_empty();
    for digest in digests {
        if !linked.exists(params![digest])? {
            applied.orphans.extend(Digest::parse(&digest).ok());
        }
        let link = key(repo, name, digest);
        applied.hot.push(HotChange::Link(link, false));
    }
    let tags = tags.iter().map(|tag| hot_key(repo, name, tag));
    let tags = tags.map(|tag| HotChange::Tag(tag, None));
    applied.hot.extend(tags);
    Ok(if was_known {
        Forgot::All(Vec::new())
    } else {
        Forgot::Nothing
    })
}

/// Forgets a tag of a remote. Its manifest stays readable where another tag means it, or where it is part of what is kept.
pub(super) fn remove_tag(
    connection: &Connection,
    (repo, name): (&str, &str),
    tag: &str,
    applied: &mut Applied,
) -> rusqlite::Result<Forgot> {
    let served: Option<String> = lenient(
        connection
            .prepare_cached(
                "DELETE FROM tag WHERE repo = ?1 AND name = ?2 AND tag = ?3 RETURNING served",
            )?
            .query_row(params![repo, name, tag], |row| row.get(0)),
    )?;
    let Some(served) = served else {
        return Ok(Forgot::Nothing);
    };
    connection
        .prepare_cached(
            "DELETE FROM link WHERE repo = ?1 AND name = ?2 AND digest = ?3 AND local = 0
             AND NOT EXISTS (SELECT 1 FROM tag WHERE repo = ?1 AND name = ?2 AND served = ?3)
             AND NOT EXISTS (SELECT 1 FROM keep_blob WHERE digest = ?3 AND repo = ?1 AND name = ?2)",
        )?
        .execute(params![repo, name, served])?;
    let hot = HotChange::Tag(hot_key(repo, name, tag), None);
    applied.hot.push(hot);
    let link = HotChange::Link(key(repo, name, served), false);
    applied.hot.push(link);
    Ok(Forgot::All(Vec::new()))
}
