//! Manifests: what they are, what they point at, what refers to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use super::convert::{digest, json, lenient, number, optional_digest, readable, to_json, to_sql};
use super::links::{self, put_link};
use super::properties::put_labels;
use super::{ForeignLayerRow, Index, ManifestRow, Result};
use crate::clock;
use crate::oci::{Digest, Name};

/// Referrers that one answer lists at most.
const REFERRERS_MAX: i64 = 100_000;

/// Manifests of an image whose word about one foreign layer is heard.
const FOREIGN_MAX: i64 = 16;

impl Index {
    /// Records a manifest that `name` in `repo` may read: link, row, edges, all or nothing.
    pub async fn record_manifest(
        &self,
        repo: &str,
        name: &Name,
        digest: &Digest,
        manifest: ManifestRow,
    ) -> Result<()> {
        let link = links::key(repo, name, digest);
        let key = digest.to_string();
        let slim = ManifestRow {
            edges: Vec::new(),
            ..manifest.clone()
        };
        let (repo, name, digest) = (repo.to_owned(), name.clone(), digest.clone());
        let now = clock::now();
        let hot = Arc::clone(&self.inner.hot);
        self.write_then(
            move |connection| {
                put_link(connection, &repo, &name, &digest, true, now)?;
                put_manifest(connection, &digest, &manifest)
            },
            move |()| {
                hot.links.written(&link, Some(()));
                hot.manifests.written(&key, Some(slim));
            },
        )
        .await
    }

    /// What is known of a manifest; its edges are left out.
    pub async fn manifest(&self, digest: &Digest) -> Result<Option<ManifestRow>> {
        let key = digest.to_string();
        let read_at = match self.inner.hot.manifests.get(&key) {
            Ok(row) => return Ok(Some(row)),
            Err(read_at) => read_at,
        };
        let wanted = key.clone();
        let found = self
            .read(move |connection| {
                lenient(
                    connection
                        .prepare_cached(
                            "SELECT media_type, size, artifact_type, subject, annotations
                             FROM manifest WHERE digest = ?1",
                        )?
                        .query_row(params![wanted], |row| manifest_row(row, 0)),
                )
            })
            .await?;
        if let Some(row) = &found {
            self.inner.hot.manifests.fill(&key, row.clone(), read_at);
        }
        Ok(found)
    }

    /// What the manifests of this very image say of the size of `digest`.
    pub async fn descriptor_size(
        &self,
        repo: &str,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<u64>> {
        let (repo, name, digest) = (repo.to_owned(), name.clone(), digest.clone());
        self.read(move |connection| {
            lenient(
                connection
                    .prepare_cached(
                        "SELECT edge.size FROM edge JOIN link ON link.digest = edge.parent
                         WHERE edge.digest = ?1 AND link.repo = ?2 AND link.name = ?3 LIMIT 1",
                    )?
                    .query_row(params![digest.to_string(), repo, name.as_str()], |row| {
                        number(row, 0)
                    }),
            )
        })
        .await
    }

    /// What the manifests of this very image say of the foreign layer `digest`, if it is one. Those that give it another size than the
    /// first of them are left out: one of the two is wrong.
    pub async fn foreign_layer(
        &self,
        repo: &str,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<ForeignLayerRow>> {
        let (repo, name, digest) = (repo.to_owned(), name.clone(), digest.clone());
        let rows: Vec<ForeignLayerRow> = self
            .read(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT edge.size, edge.urls FROM edge JOIN link ON link.digest = edge.parent
                     WHERE edge.digest = ?1 AND link.repo = ?2 AND link.name = ?3
                     AND edge.kind = 'layer' AND edge.urls <> '[]' LIMIT ?4",
                )?;
                let key = params![digest.to_string(), repo, name.as_str(), FOREIGN_MAX];
                let rows = statement.query_map(key, |row| {
                    Ok(ForeignLayerRow {
                        size: number(row, 0)?,
                        urls: json(row, 1)?,
                    })
                })?;
                readable(rows)
            })
            .await?;
        Ok(rows.into_iter().reduce(|mut first, next| {
            if next.size == first.size {
                first.urls.extend(next.urls);
            }
            first
        }))
    }

    /// The manifests of this image that are known to have `subject` as theirs, by digest; their edges are left out.
    pub async fn known_referrers(
        &self,
        repo: &str,
        name: &Name,
        subject: &Digest,
    ) -> Result<Vec<(Digest, ManifestRow)>> {
        let (repo, name, subject) = (repo.to_owned(), name.clone(), subject.clone());
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT manifest.digest, media_type, size, artifact_type, subject, annotations
                 FROM manifest JOIN link ON link.digest = manifest.digest
                 WHERE subject = ?1 AND link.repo = ?2 AND link.name = ?3
                 ORDER BY manifest.digest LIMIT ?4",
            )?;
            let rows = statement.query_map(
                params![subject.to_string(), repo, name.as_str(), REFERRERS_MAX],
                |row| Ok((digest(row, 0)?, manifest_row(row, 1)?)),
            )?;
            readable(rows)
        })
        .await
    }
}

pub(super) fn put_manifest(
    connection: &Connection,
    digest: &Digest,
    manifest: &ManifestRow,
) -> rusqlite::Result<()> {
    let digest = digest.to_string();
    let inserted = connection
        .prepare_cached(
            "INSERT INTO manifest (digest, media_type, size, artifact_type, subject, annotations)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET media_type = excluded.media_type, size = excluded.size,
                 artifact_type = excluded.artifact_type, subject = excluded.subject, annotations = excluded.annotations",
        )?
        .execute(params![
            digest,
            manifest.media_type,
            to_sql(manifest.size),
            manifest.artifact_type,
            manifest.subject.as_ref().map(Digest::to_string),
            to_json(&manifest.annotations)?,
        ])?;
    debug_assert_eq!(inserted, 1, "an upsert writes one row");
    connection
        .prepare_cached("DELETE FROM edge WHERE parent = ?1")?
        .execute(params![digest])?;
    let mut edge = connection.prepare_cached(
        "INSERT INTO edge (parent, position, kind, digest, size, media_type, urls)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for (position, row) in manifest.edges.iter().enumerate() {
        edge.execute(params![
            digest,
            i64::try_from(position).unwrap_or(i64::MAX),
            row.kind,
            row.digest.to_string(),
            to_sql(row.size),
            row.media_type,
            to_json(&row.urls)?,
        ])?;
    }
    if let Some(config) = manifest.edges.iter().find(|edge| edge.kind == "config") {
        put_labels(connection, &config.digest, &manifest.labels)?;
    }
    // Manifests are evicted after blobs; the bytes may have come before it was known what they are.
    connection
        .prepare_cached("UPDATE blob SET manifest = 1 WHERE digest = ?1 AND manifest = 0")?
        .execute(params![digest])
        .map(drop)
}

fn manifest_row(row: &Row<'_>, first: usize) -> rusqlite::Result<ManifestRow> {
    Ok(ManifestRow {
        media_type: row.get(first)?,
        size: number(row, first + 1)?,
        artifact_type: row.get(first + 2)?,
        subject: optional_digest(row, first + 3)?,
        annotations: json(row, first + 4)?,
        edges: Vec::new(),
        labels: BTreeMap::new(),
    })
}
