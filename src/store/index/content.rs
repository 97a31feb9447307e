//! Blobs, links and manifests.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Index, ManifestRow, Recovered, lock};
use crate::clock::{self, Wall};
use crate::oci::{Digest, Name};
use crate::store::StoreError;

/// Takes blobs that were found on disk into a new index. They count as undurable: each is hashed before it is served.
pub(super) fn adopt(
    connection: &Connection,
    blobs: &[(Digest, u64, Wall)],
) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    for (digest, size, changed) in blobs {
        connection.execute(
            "INSERT OR IGNORE INTO blob (digest, size, created, used) VALUES (?1, ?2, ?3, ?3)",
            params![digest.to_string(), integer(*size), changed.as_ms()],
        )?;
    }
    connection.execute_batch("COMMIT")
}

/// What a start needs to know. After a clean stop everything is durable but what could not be synced then.
pub(super) fn recover(connection: &Connection, _was_clean: bool) -> rusqlite::Result<Recovered> {
    let bytes: i64 =
        connection.query_row("SELECT COALESCE(SUM(size), 0) FROM blob", [], |row| {
            row.get(0)
        })?;
    let mut statement = connection.prepare("SELECT digest FROM blob WHERE durable = 0")?;
    let suspects = statement
        .query_map([], |row| row.get::<_, String>(0))?
        .filter_map(Result::ok)
        .filter_map(|text| Digest::parse(&text).ok())
        .collect::<HashSet<_>>();
    Ok(Recovered {
        bytes: u64::try_from(bytes).unwrap_or(0),
        suspects,
    })
}

impl Index {
    /// Writes a new blob down; false if it was known.
    pub(in crate::store) async fn put_blob(
        &self,
        digest: &Digest,
        size: u64,
        manifest: bool,
    ) -> Result<bool, StoreError> {
        let (digest, now) = (digest.to_string(), clock::now().as_ms());
        self.write(move |connection| {
            let added = connection
                .prepare_cached("INSERT OR IGNORE INTO blob (digest, size, manifest, created, used) VALUES (?1, ?2, ?3, ?4, ?4)")?
                .execute(params![digest, integer(size), manifest, now])?;
            Ok(added > 0)
        })
        .await
    }

    /// Forgets a blob; false if it was not known.
    pub(in crate::store) async fn drop_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        let digest = digest.to_string();
        self.write(move |connection| {
            Ok(connection
                .prepare_cached("DELETE FROM blob WHERE digest = ?1")?
                .execute([digest])?
                > 0)
        })
        .await
    }

    pub(in crate::store) fn blob_size_now(
        &self,
        digest: &Digest,
    ) -> Result<Option<u64>, StoreError> {
        self.read_now(|connection| blob_size(connection, &digest.to_string()))
    }

    pub(in crate::store) async fn blob_size(
        &self,
        digest: &Digest,
    ) -> Result<Option<u64>, StoreError> {
        let digest = digest.to_string();
        self.read(move |connection| blob_size(connection, &digest))
            .await
    }

    pub(in crate::store) async fn mark_durable(
        &self,
        digests: Vec<Digest>,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            let mut statement =
                connection.prepare_cached("UPDATE blob SET durable = 1 WHERE digest = ?1")?;
            digests
                .iter()
                .try_for_each(|digest| statement.execute([digest.to_string()]).map(drop))
        })
        .await
    }

    pub(in crate::store) async fn touch(
        &self,
        used: Vec<(Digest, Wall)>,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            let mut statement = connection
                .prepare_cached("UPDATE blob SET used = max(used, ?2) WHERE digest = ?1")?;
            used.iter().try_for_each(|(digest, at)| {
                statement
                    .execute(params![digest.to_string(), at.as_ms()])
                    .map(drop)
            })
        })
        .await
    }

    /// Cached blobs in order of eviction: blobs before manifests, least recent use first; nothing pinned, nothing pushed.
    pub(in crate::store) async fn least_recently_used(
        &self,
        limit: usize,
    ) -> Result<Vec<(Digest, u64)>, StoreError> {
        // By the writer, so that it sees what has just been written.
        self.write(move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT digest, size FROM blob WHERE kind = 'cached' AND pinned = 0 ORDER BY manifest, used LIMIT ?1")?;
            let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
            Ok(rows.filter_map(Result::ok).filter_map(|(digest, size)| Some((Digest::parse(&digest).ok()?, u64::try_from(size).ok()?))).collect())
        })
        .await
    }

    /// Says that an image of a repository may read this digest.
    pub async fn link(
        &self,
        repository: &str,
        name: &Name,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let key = link_key(repository, name, digest);
        if lock(&self.links).contains(&key) {
            return Ok(());
        }
        let (repository, name, digest) =
            (repository.to_owned(), name.to_string(), digest.to_string());
        self.note("link", move |connection| {
            put_link(connection, &repository, &name, &digest)
        })
        .await;
        lock(&self.links).put(key, ());
        Ok(())
    }

    /// Whether an image of a repository may read this digest.
    pub async fn is_linked(
        &self,
        repository: &str,
        name: &Name,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        let key = link_key(repository, name, digest);
        if lock(&self.links).get(&key).is_some() {
            return Ok(true);
        }
        let (repository, name, digest) =
            (repository.to_owned(), name.to_string(), digest.to_string());
        let linked = self
            .read(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT 1 FROM link WHERE repository = ?1 AND name = ?2 AND digest = ?3",
                    )?
                    .exists([repository, name, digest])
            })
            .await?;
        if linked {
            lock(&self.links).put(key, ());
        }
        Ok(linked)
    }

    /// Writes a manifest down, with its link, what it points to and what it refers to.
    pub async fn record_manifest(
        &self,
        repository: &str,
        name: &Name,
        digest: &Digest,
        row: ManifestRow,
    ) -> Result<(), StoreError> {
        let key = link_key(repository, name, digest);
        let (repository, name, digest) =
            (repository.to_owned(), name.to_string(), digest.to_string());
        self.note("manifest", move |connection| {
            put_link(connection, &repository, &name, &digest)?;
            connection.prepare_cached("UPDATE blob SET manifest = 1 WHERE digest = ?1")?.execute([&digest])?;
            let annotations = serde_json::to_string(&row.annotations).unwrap_or_else(|_never| "{}".to_owned());
            let subject = row.subject.as_ref().map(ToString::to_string);
            connection
                .prepare_cached("INSERT OR REPLACE INTO manifest (digest, media_type, size, artifact_type, subject, annotations) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![digest, row.media_type, integer(row.size), row.artifact_type, subject, annotations])?;
            let mut edge = connection
                .prepare_cached("INSERT OR REPLACE INTO edge (parent, position, kind, child, size, media_type, urls) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
            for (position, to) in row.edges.iter().enumerate() {
                let urls = serde_json::to_string(&to.urls).unwrap_or_else(|_never| "[]".to_owned());
                edge.execute(params![digest, i64::try_from(position).unwrap_or(i64::MAX), to.kind, to.digest.to_string(), integer(to.size), to.media_type, urls])?;
            }
            if let Some(subject) = subject {
                connection
                    .prepare_cached("INSERT OR IGNORE INTO referrer (repository, name, subject, digest) VALUES (?1, ?2, ?3, ?4)")?
                    .execute([&repository, &name, &subject, &digest])?;
            }
            Ok(())
        })
        .await;
        lock(&self.links).put(key, ());
        Ok(())
    }

    /// What is known of a manifest.
    pub async fn manifest(&self, digest: &Digest) -> Result<Option<ManifestRow>, StoreError> {
        let digest = digest.to_string();
        self.read(move |connection| {
            connection.prepare_cached("SELECT media_type, size, artifact_type, subject, annotations FROM manifest WHERE digest = ?1")?.query_row([digest], manifest_row).optional()
        })
        .await
    }

    /// The length that a manifest of this very image announces for a digest.
    pub async fn descriptor_size(
        &self,
        repository: &str,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<u64>, StoreError> {
        let (repository, name, digest) =
            (repository.to_owned(), name.to_string(), digest.to_string());
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT edge.size FROM edge JOIN link ON link.digest = edge.parent WHERE edge.child = ?3 AND link.repository = ?1 AND link.name = ?2 AND edge.kind != 'subject' LIMIT 1",
            )?;
            let size = statement.query_row([repository, name, digest], |row| row.get::<_, i64>(0)).optional()?;
            Ok(size.and_then(|size| u64::try_from(size).ok()))
        })
        .await
    }

    /// The manifests of an image that are known to refer to `subject`.
    pub async fn known_referrers(
        &self,
        repository: &str,
        name: &Name,
        subject: &Digest,
    ) -> Result<Vec<(Digest, ManifestRow)>, StoreError> {
        let (repository, name, subject) =
            (repository.to_owned(), name.to_string(), subject.to_string());
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT m.media_type, m.size, m.artifact_type, m.subject, m.annotations, m.digest FROM referrer r JOIN manifest m ON m.digest = r.digest
                 WHERE r.repository = ?1 AND r.name = ?2 AND r.subject = ?3 ORDER BY m.digest LIMIT 1000",
            )?;
            let rows = statement.query_map([repository, name, subject], |row| Ok((row.get::<_, String>(5)?, manifest_row(row)?)))?;
            Ok(rows.filter_map(Result::ok).filter_map(|(digest, row)| Some((Digest::parse(&digest).ok()?, row))).collect())
        })
        .await
    }

    /// The images of a repository of which anything is known, sorted.
    pub async fn names(&self, repository: &str) -> Result<Vec<String>, StoreError> {
        let repository = repository.to_owned();
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT DISTINCT link.name FROM link JOIN manifest ON manifest.digest = link.digest WHERE link.repository = ?1
                 UNION SELECT name FROM tag WHERE repository = ?1 ORDER BY 1",
            )?;
            statement.query_map([repository], |row| row.get(0))?.collect()
        })
        .await
    }
}

fn blob_size(connection: &Connection, digest: &str) -> rusqlite::Result<Option<u64>> {
    let size = connection
        .prepare_cached("SELECT size FROM blob WHERE digest = ?1")?
        .query_row([digest], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(size.and_then(|size| u64::try_from(size).ok()))
}

fn put_link(
    connection: &Connection,
    repository: &str,
    name: &str,
    digest: &str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO link (repository, name, digest, created) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![repository, name, digest, clock::now().as_ms()])
        .map(drop)
}

fn manifest_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<ManifestRow> {
    let subject: Option<String> = row.get(3)?;
    let annotations: String = row.get(4)?;
    Ok(ManifestRow {
        media_type: row.get(0)?,
        size: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
        artifact_type: row.get(2)?,
        subject: subject.and_then(|subject| Digest::parse(&subject).ok()),
        annotations: serde_json::from_str(&annotations).unwrap_or_default(),
        edges: Vec::new(),
    })
}

fn link_key(repository: &str, name: &Name, digest: &Digest) -> String {
    format!("{repository} {name} {digest}")
}

/// SQLite's integers are signed; no length comes near the limit.
pub(super) fn integer(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
