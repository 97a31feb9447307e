//! Images of remotes that are kept, as the journal has them. How many of them name a blob is in its row, by triggers: eviction looks there.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::apply::{self, Applied, HotChange};
use super::convert::{digest, number, readable, wall};
use super::links::{self, put_link};
use super::manifests::put_manifest;
use super::{Index, ManifestRow, Result, TagRow, admissions, repositories, tags};
use crate::clock::Wall;
use crate::oci::{Digest, Name, Reference, Tag};
use crate::store::change::KeepRecord;

/// Why a tag came to mean something, for its history.
const CAUSE: &str = "kept";

/// An image that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRow {
    /// Key of the repository.
    pub repo: String,
    /// Name of the image.
    pub name: String,
    /// The tag or digest by which it is kept.
    pub reference: String,
    /// What that means.
    pub digest: Digest,
    /// Bytes of all that it is made of.
    pub bytes: u64,
    /// How many pieces of it are not here: damage was found in them, and nobody has fetched them again.
    pub missing: u64,
    /// Since when.
    pub at: Wall,
}

/// What keeping something would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::store) struct Demand {
    /// Bytes that would be kept and are neither kept nor pushed.
    pub(in crate::store) more: u64,
    /// Those of them that are not here.
    pub(in crate::store) missing: u64,
}

impl Index {
    /// The images that are kept of one repository, or of all of them, in order.
    pub async fn kept(&self, repo: Option<&str>) -> Result<Vec<KeptRow>> {
        let repo = repo.map(str::to_owned);
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT keep.repo, keep.name, keep.reference, keep.digest, coalesce(sum(blob.size), 0),
                     count(*) - count(blob.digest), keep.at
                 FROM keep JOIN keep_blob USING (repo, name, reference) LEFT JOIN blob ON blob.digest = keep_blob.digest
                 WHERE ?1 IS NULL OR keep.repo = ?1 GROUP BY keep.repo, keep.name, keep.reference",
            )?;
            readable(statement.query_map(params![repo], |row| {
                Ok(KeptRow {
                    repo: row.get(0)?,
                    name: row.get(1)?,
                    reference: row.get(2)?,
                    digest: digest(row, 3)?,
                    bytes: number(row, 4)?,
                    missing: number(row, 5)?,
                    at: wall(row, 6)?,
                })
            })?)
        })
        .await
    }

    /// Whether an image is kept by that reference.
    pub async fn is_kept(&self, repo: &str, name: &Name, reference: &Reference) -> Result<bool> {
        let (repo, name, reference) = (repo.to_owned(), name.clone(), reference.to_string());
        self.read(move |connection| by_reference(connection, (&repo, name.as_str()), &reference))
            .await
    }

    /// What an image is kept as by that reference, and all of its pieces.
    pub async fn kept_as(
        &self,
        repo: &str,
        name: &Name,
        reference: &Reference,
    ) -> Result<Option<(Digest, HashSet<Digest>)>> {
        let (repo, name, reference) = (repo.to_owned(), name.clone(), reference.to_string());
        self.read(move |connection| {
            let place = params![repo, name.as_str(), reference];
            let kept = connection
                .prepare_cached(
                    "SELECT digest FROM keep WHERE repo = ?1 AND name = ?2 AND reference = ?3",
                )?
                .query_row(place, |row| digest(row, 0))
                .optional()?;
            let Some(kept) = kept else {
                return Ok(None);
            };
            let mut pieces = connection.prepare_cached(
                "SELECT digest FROM keep_blob WHERE repo = ?1 AND name = ?2 AND reference = ?3",
            )?;
            let pieces = readable(pieces.query_map(place, |row| digest(row, 0))?)?;
            Ok(Some((kept, pieces.into_iter().collect())))
        })
        .await
    }

    /// What a key stands for, where something was cached under it.
    pub async fn origin(&self, repo: &str) -> Result<Option<String>> {
        let repo = repo.to_owned();
        self.read(move |connection| origin(connection, &repo)).await
    }

    /// What keeping these would take; each with its size, and counted once.
    pub(in crate::store) fn demand(&self, wanted: &[(Digest, u64)]) -> Result<Demand> {
        self.read_blocking(|connection| {
            let mut held = connection
                .prepare_cached("SELECT pinned > 0 OR kind = 1 FROM blob WHERE digest = ?1")?;
            let (mut seen, mut demand) = (HashSet::new(), Demand::default());
            for (digest, size) in wanted {
                if !seen.insert(digest) {
                    continue;
                }
                let held: Option<bool> = held
                    .query_row(params![digest.to_string()], |row| row.get(0))
                    .optional()?;
                if held != Some(true) {
                    demand.more = demand.more.saturating_add(*size);
                }
                if held.is_none() {
                    demand.missing = demand.missing.saturating_add(*size);
                }
            }
            Ok(demand)
        })
    }
}

/// Bytes of cached blobs that are kept. Triggers keep it in step.
pub(super) fn bytes(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT kept FROM total")?
        .query_row([], |row| number(row, 0))
}

pub(super) fn of_image(connection: &Connection, repo: &str, name: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM keep WHERE repo = ?1 AND name = ?2")?
        .exists(params![repo, name])
}

pub(super) fn by_reference(
    connection: &Connection,
    (repo, name): (&str, &str),
    reference: &str,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM keep WHERE repo = ?1 AND name = ?2 AND reference = ?3")?
        .exists(params![repo, name, reference])
}

fn origin(connection: &Connection, repo: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT origin FROM origin WHERE repo = ?1")?
        .query_row(params![repo], |row| row.get(0))
        .optional()
}

/// Takes in that an image is kept.
pub(super) fn keep(
    connection: &Connection,
    (repo, name, at): (&str, &str, i64),
    record: &KeepRecord,
    applied: &mut Applied,
) -> rusqlite::Result<()> {
    let (Ok(name), Ok(digest)) = (Name::parse(name), Digest::parse(&record.digest)) else {
        return Ok(());
    };
    if !stands_for(connection, repo, record.origin.as_deref())? {
        return Ok(());
    }
    let keep = Keep {
        connection,
        repo,
        name: &name,
        reference: &record.reference,
        at: Wall::from_ms(at),
    };
    keep.put(&digest, record, applied)?;
    let mut manifests = record.manifests.iter();
    let root = manifests.find(|one| one.digest == record.digest);
    match (
        Tag::parse(&record.reference),
        root.and_then(|one| one.row.as_ref()),
    ) {
        (Ok(tag), Some(row)) => keep.put_tag(&tag, &digest, row, record.moves_tag, applied),
        // By digest; or what the tag means cannot be read any more, and upstream is asked again.
        (Err(_), _) | (_, None) => Ok(()),
    }
}

/// Takes in that an image is kept no more by a reference.
pub(super) fn unkeep(
    connection: &Connection,
    (repo, name): (&str, &str),
    reference: &str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM keep WHERE repo = ?1 AND name = ?2 AND reference = ?3")?
        .execute(params![repo, name, reference])
        .map(drop)
}

/// Takes in that a tag, an image, or all that was cached under a key was deleted.
pub(super) fn forget(
    connection: &Connection,
    (repo, name): (&str, &str),
    tag: Option<&str>,
    applied: &mut Applied,
) -> rusqlite::Result<()> {
    if let Some(tag) = tag {
        unkeep(connection, (repo, name), tag)?;
        return links::remove_tag(connection, (repo, name), tag, applied).map(drop);
    }
    if name.is_empty() {
        for image in repositories::drop_cached(connection, repo)? {
            apply::drop_image(connection, repo, &image, applied)?;
        }
        return Ok(());
    }
    connection
        .prepare_cached("DELETE FROM keep WHERE repo = ?1 AND name = ?2")?
        .execute(params![repo, name])?;
    links::forget_image(connection, repo, name, applied).map(drop)
}

/// Whether a key stands for what it stood for when this was written; one of which nothing is known does from here on. What another
/// upstream vouched for must not be read under it (RELIABILITY P7).
fn stands_for(connection: &Connection, repo: &str, wanted: Option<&str>) -> rusqlite::Result<bool> {
    let Some(wanted) = wanted else {
        return Ok(true);
    };
    if let Some(there) = origin(connection, repo)? {
        return Ok(there == wanted);
    }
    connection
        .prepare_cached("INSERT INTO origin (repo, origin) VALUES (?1, ?2)")?
        .execute(params![repo, wanted])?;
    Ok(true)
}

/// One image that is kept, in the middle of a transaction.
struct Keep<'a> {
    connection: &'a Connection,
    repo: &'a str,
    name: &'a Name,
    reference: &'a str,
    at: Wall,
}

impl Keep<'_> {
    /// Writes down what is kept, in the place of what was, and that the image may read it.
    fn put(
        &self,
        digest: &Digest,
        record: &KeepRecord,
        applied: &mut Applied,
    ) -> rusqlite::Result<()> {
        // More of the same image (a platform, its signatures) comes to what is kept of it. Another image comes in its place; not by
        // replacing the row: that would pass the triggers by.
        let other =
            "DELETE FROM keep WHERE repo = ?1 AND name = ?2 AND reference = ?3 AND digest <> ?4";
        self.connection.prepare_cached(other)?.execute(params![
            self.repo,
            self.name.as_str(),
            self.reference,
            digest.to_string()
        ])?;
        self.connection
            .prepare_cached(
                "INSERT INTO keep (repo, name, reference, digest, at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET at = excluded.at",
            )?
            .execute(params![
                self.repo,
                self.name.as_str(),
                self.reference,
                digest.to_string(),
                self.at.as_ms()
            ])?;
        // Whoever wants it kept wants it served, whatever the rules say; they must not come between after the index was lost.
        let image = (self.repo, self.name);
        admissions::pin(self.connection, image, digest, self.at)?;
        for manifest in &record.manifests {
            let Some(digest) = self.put_piece(&manifest.digest, true, applied)? else {
                continue;
            };
            // Without its bytes nothing is known of it: whoever fetches it again learns that.
            if let Some(row) = &manifest.row {
                put_manifest(self.connection, &digest, row)?;
                let slim = ManifestRow {
                    edges: Vec::new(),
                    labels: std::collections::BTreeMap::new(),
                    ..row.clone()
                };
                let hot = HotChange::Manifest(manifest.digest.clone(), slim);
                applied.hot.push(hot);
            }
        }
        for blob in &record.blobs {
            self.put_piece(blob, false, applied)?;
        }
        Ok(())
    }

    fn put_piece(
        &self,
        text: &str,
        manifest: bool,
        applied: &mut Applied,
    ) -> rusqlite::Result<Option<Digest>> {
        let Ok(digest) = Digest::parse(text) else {
            return Ok(None);
        };
        put_link(
            self.connection,
            self.repo,
            self.name,
            &digest,
            manifest,
            self.at,
        )?;
        self.connection
            .prepare_cached(
                "INSERT OR IGNORE INTO keep_blob (repo, name, reference, digest) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![self.repo, self.name.as_str(), self.reference, text])?;
        // A remote's rows are written by others too, so memory forgets them and reads them again.
        let link = links::key(self.repo, self.name, &digest);
        applied.hot.push(HotChange::Link(link, false));
        Ok(Some(digest))
    }

    /// Lets the tag mean what is kept. One that does already stays as it is: when upstream confirmed it is not for this to say.
    fn put_tag(
        &self,
        tag: &Tag,
        digest: &Digest,
        row: &ManifestRow,
        moves: bool,
        applied: &mut Applied,
    ) -> rusqlite::Result<()> {
        let key = tags::Key::new(self.repo, self.name, tag);
        let served: Option<String> = self
            .connection
            .prepare_cached("SELECT served FROM tag WHERE repo = ?1 AND name = ?2 AND tag = ?3")?
            .query_row(
                params![self.repo, self.name.as_str(), tag.as_str()],
                |row| row.get(0),
            )
            .optional()?;
        if served.is_some_and(|served| !moves || served == digest.to_string()) {
            return Ok(());
        }
        let row = TagRow {
            observed: digest.clone(),
            served: digest.clone(),
            media_type: row.media_type.clone(),
            size: row.size,
            etag: None,
            checked: self.at,
            moved: self.at,
            gone: None,
        };
        tags::put(self.connection, &key, row, CAUSE)?;
        applied.hot.push(HotChange::Tag(key.hot(), None));
        Ok(())
    }
}
