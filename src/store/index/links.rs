//! Links: which content an image of a repository may read. They outlive eviction.

use std::fmt::Display;
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::{Index, Result};
use crate::clock::{self, Wall};
use crate::oci::{Digest, Name};

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
