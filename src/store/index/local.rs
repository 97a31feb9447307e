//! Local repositories in the index: what pulls, collection and mounts ask.

use rusqlite::{Connection, Row, params};

use super::convert::{digest, lenient, number, readable, to_sql, wall};
use super::{Index, Result};
use crate::clock::Wall;
use crate::oci::{Digest, Name, Tag};

/// One link of a local repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalLink {
    /// What may be read.
    pub digest: Digest,
    /// Its length in bytes, where it is known.
    pub size: u64,
    /// Whether it is a manifest.
    pub is_manifest: bool,
    /// A manifest that stays though nothing else holds it.
    pub is_root: bool,
    /// Since when.
    pub added: Wall,
}

/// What there is of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageState {
    /// Anything at all, a blob of a push that is under way too.
    pub is_there: bool,
    /// A tag, or a manifest that was pushed by digest alone: the name is taken.
    pub is_held: bool,
}

/// What holds what in one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Everything that the image may read.
    pub links: Vec<LocalLink>,
    /// What its manifests point to: from, to. A subject holds its referrers, so there it is the other way round.
    pub edges: Vec<(Digest, Digest)>,
    /// What its tags mean, and since when.
    pub tags: Vec<(Tag, Digest, Wall)>,
}

impl Holdings {
    /// Whether a tag is there and means this.
    pub fn means(&self, tag: &Tag, digest: &Digest) -> bool {
        let mut tags = self.tags.iter();
        tags.any(|(there, served, _)| there == tag && served == digest)
    }
}

impl Index {
    /// Every image of a local repository, those without tag or manifest too.
    pub async fn local_names(&self, repo: &str) -> Result<Vec<String>> {
        let repo = repo.to_owned();
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "WITH RECURSIVE linked(name) AS (SELECT min(name) FROM link WHERE repo = ?1 AND local = 1 UNION ALL
                     SELECT (SELECT min(name) FROM link WHERE repo = ?1 AND local = 1 AND name > linked.name) FROM linked WHERE linked.name IS NOT NULL)
                 SELECT name FROM linked WHERE name IS NOT NULL",
            )?;
            readable(statement.query_map(params![repo], |row| row.get(0))?)
        })
        .await
    }

    /// What holds what in one image of a local repository.
    pub async fn holdings(&self, repo: &str, name: &Name) -> Result<Holdings> {
        let (repo, name) = (repo.to_owned(), name.clone());
        self.read(move |connection| {
            let key = params![repo, name.as_str()];
            let mut links = connection.prepare_cached(
                "SELECT link.digest, coalesce(blob.size, 0), link.manifest, link.root, link.added
                 FROM link LEFT JOIN blob ON blob.digest = link.digest
                 WHERE repo = ?1 AND name = ?2 AND local = 1",
            )?;
            let links = readable(links.query_map(key, local_link)?)?;
            let mut edges = connection.prepare_cached(
                "SELECT edge.parent, edge.digest, edge.kind = 'subject' FROM edge
                 JOIN link ON link.digest = edge.parent
                 WHERE repo = ?1 AND name = ?2 AND local = 1 AND manifest = 1",
            )?;
            let edges = readable(edges.query_map(key, |row| {
                let (parent, child) = (digest(row, 0)?, digest(row, 1)?);
                Ok(if row.get(2)? {
                    (child, parent)
                } else {
                    (parent, child)
                })
            })?)?;
            Ok(Holdings {
                links,
                edges,
                tags: tags_of(connection, &repo, &name)?,
            })
        })
        .await
    }

    /// What the tags of an image of a local repository mean, and since when.
    pub async fn local_tags(&self, repo: &str, name: &Name) -> Result<Vec<(Tag, Digest, Wall)>> {
        let (repo, name) = (repo.to_owned(), name.clone());
        self.read(move |connection| tags_of(connection, &repo, &name))
            .await
    }

    /// One link of a local repository, and whether a manifest of the same image points to it.
    pub async fn local_link(
        &self,
        repo: &str,
        name: &Name,
        wanted: &Digest,
    ) -> Result<Option<(LocalLink, bool)>> {
        let (repo, name, wanted) = (repo.to_owned(), name.clone(), wanted.to_string());
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT link.digest, coalesce(blob.size, 0), link.manifest, link.root, link.added,
                     EXISTS (SELECT 1 FROM edge JOIN link AS parent ON parent.digest = edge.parent
                         WHERE edge.digest = link.digest AND parent.repo = ?1 AND parent.name = ?2
                             AND parent.local = 1 AND parent.manifest = 1)
                 FROM link LEFT JOIN blob ON blob.digest = link.digest
                 WHERE repo = ?1 AND name = ?2 AND link.digest = ?3 AND local = 1",
            )?;
            lenient(
                statement.query_row(params![repo, name.as_str(), wanted], |row| {
                    Ok((local_link(row)?, row.get(5)?))
                }),
            )
        })
        .await
    }

    /// Whether a local repository has anything of an image.
    pub async fn has_image(&self, repo: &str, name: &Name) -> Result<bool> {
        let (repo, name) = (repo.to_owned(), name.clone());
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT 1 FROM link WHERE repo = ?1 AND name = ?2 AND local = 1 AND manifest = 1",
                )?
                .exists(params![repo, name.as_str()])
        })
        .await
    }

    /// The pinned tags of a remote: image, tag, what it means, since when.
    pub async fn pins(&self, repo: &str) -> Result<Vec<(Name, Tag, Digest, Wall)>> {
        let repo = repo.to_owned();
        let rows: Vec<(String, String, Digest, Wall)> = self
            .read(move |connection| {
                let mut statement = connection
                    .prepare_cached("SELECT name, tag, digest, at FROM tag_pin WHERE repo = ?1")?;
                readable(statement.query_map(params![repo], |row| {
                    Ok((row.get(0)?, row.get(1)?, digest(row, 2)?, wall(row, 3)?))
                })?)
            })
            .await?;
        let parse = |(name, tag, digest, at): (String, String, Digest, Wall)| {
            Some((Name::parse(&name).ok()?, Tag::parse(&tag).ok()?, digest, at))
        };
        Ok(rows.into_iter().filter_map(parse).collect())
    }

    /// What stands on record behind `after`, the oldest first: number, time, event.
    pub async fn audit(&self, after: u64, most: usize) -> Result<Vec<(u64, Wall, String)>> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, at, event FROM audit WHERE id > ?1 ORDER BY id LIMIT ?2",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            readable(statement.query_map(params![to_sql(after), most], |row| {
                Ok((number(row, 0)?, wall(row, 1)?, row.get(2)?))
            })?)
        })
        .await
    }

    /// What there is of an image in a local repository. From memory as a rule: every pull through a virtual repository asks.
    pub async fn image_state(&self, repo: &str, name: &Name) -> Result<ImageState> {
        let key = image_key(repo, name);
        let read_at = match self.inner.hot.images.get(&key) {
            Ok(state) => return Ok(state),
            Err(read_at) => read_at,
        };
        let (repo, name) = (repo.to_owned(), name.clone());
        let state = self
            .read(move |connection| {
                let there = |sql: &str| {
                    let mut statement = connection.prepare_cached(sql)?;
                    statement.exists(params![repo, name.as_str()])
                };
                let is_tagged = there("SELECT 1 FROM tag WHERE repo = ?1 AND name = ?2")?;
                Ok(ImageState {
                    is_there: is_tagged
                        || there("SELECT 1 FROM link WHERE repo = ?1 AND name = ?2 AND local = 1")?,
                    is_held: is_tagged
                        || there(
                            "SELECT 1 FROM link WHERE repo = ?1 AND name = ?2 AND local = 1 AND manifest = 1 AND root = 1",
                        )?,
                })
            })
            .await?;
        self.inner.hot.images.fill(&key, state, read_at);
        Ok(state)
    }

    /// The images of local repositories that may read `wanted`.
    pub async fn local_holders(&self, wanted: &Digest) -> Result<Vec<(String, String)>> {
        let wanted = wanted.to_string();
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT repo, name FROM link WHERE digest = ?1 AND local = 1 LIMIT 100",
            )?;
            readable(statement.query_map(params![wanted], |row| Ok((row.get(0)?, row.get(1)?)))?)
        })
        .await
    }
}

/// The key of an image among the hot rows. None of the parts can hold a NUL.
pub(super) fn image_key(repo: &str, name: impl std::fmt::Display) -> String {
    format!("{repo}\0{name}")
}

fn local_link(row: &Row<'_>) -> rusqlite::Result<LocalLink> {
    Ok(LocalLink {
        digest: digest(row, 0)?,
        size: number(row, 1)?,
        is_manifest: row.get(2)?,
        is_root: row.get(3)?,
        added: wall(row, 4)?,
    })
}

fn tags_of(
    connection: &Connection,
    repo: &str,
    name: &Name,
) -> rusqlite::Result<Vec<(Tag, Digest, Wall)>> {
    let mut tags = connection
        .prepare_cached("SELECT tag, served, moved FROM tag WHERE repo = ?1 AND name = ?2")?;
    let tags: Vec<(String, Digest, Wall)> =
        readable(tags.query_map(params![repo, name.as_str()], |row| {
            Ok((row.get(0)?, digest(row, 1)?, wall(row, 2)?))
        })?)?;
    Ok(tags
        .into_iter()
        .filter_map(|(tag, digest, moved)| Some((Tag::parse(&tag).ok()?, digest, moved)))
        .collect())
}
