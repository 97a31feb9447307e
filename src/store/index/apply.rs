//! Taking the journal into the index.
//!
//! Every change of a journal is one savepoint of one transaction, together with how far the journal has come, so that the index is never
//! ahead of it and a replay begins where it must.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::blobs::Counted;
use super::convert::{lenient, number, readable, to_sql};
use super::local::image_key;
use super::manifests::put_manifest;
use super::{
    EdgeRow, HotRows, Index, ManifestRow, Result, TagRow, api_tokens, keeps, links, repositories,
    tags,
};
use crate::clock::Wall;
use crate::oci::{Digest, Name, Tag};
use crate::store::change::{Change, What};

/// A record of the journal: changes, each with what is known of the manifest that it brings (`None` where its bytes cannot be read any more).
#[derive(Debug, Clone)]
pub(in crate::store) struct Work {
    pub(in crate::store) sequence: u64,
    pub(in crate::store) changes: Vec<(Change, Option<ManifestRow>)>,
}

/// What taking changes in did besides.
#[derive(Debug, Default)]
pub(in crate::store) struct Applied {
    /// Blobs that became pushed, or are pushed no more, as they are now.
    pub(in crate::store) moved: Vec<Counted>,
    /// Blobs that nothing links any more.
    pub(in crate::store) orphans: Vec<Digest>,
    pub(super) hot: Vec<HotChange>,
}

#[derive(Debug)]
pub(super) enum HotChange {
    Link(String, bool),
    Tag(String, Option<TagRow>),
    Manifest(String, ManifestRow),
    /// What there is of an image may be another.
    Image(String),
}

impl Index {
    /// How far the journal has been taken in.
    pub(in crate::store) fn journal_applied(&self) -> Result<u64> {
        self.read_blocking(|connection| {
            connection.query_row("SELECT applied FROM journal", [], |row| number(row, 0))
        })
    }

    /// Takes changes in, in their order. Blocks.
    pub(in crate::store) fn apply_blocking(&self, work: Vec<Work>) -> Result<Applied> {
        let hot = Arc::clone(&self.inner.hot);
        let applied = self.write_blocking(move |connection| {
            let mut applied = Applied::default();
            for work in &work {
                for (change, row) in &work.changes {
                    let image = image_key(&change.repo, &change.name);
                    applied.hot.push(HotChange::Image(image));
                    apply(connection, change, row.as_ref(), &mut applied)?;
                }
                connection
                    .prepare_cached("UPDATE journal SET applied = max(applied, ?1)")?
                    .execute(params![to_sql(work.sequence)])?;
            }
            Ok(applied)
        })?;
        for change in &applied.hot {
            change.show(&hot);
        }
        Ok(applied)
    }
}

impl HotChange {
    pub(super) fn show(&self, hot: &HotRows) {
        match self {
            Self::Link(key, there) => hot.links.written(key, there.then_some(())),
            Self::Tag(key, row) => hot.tags.written(key, row.clone()),
            Self::Image(key) => hot.images.written(key, None),
            Self::Manifest(key, row) => hot.manifests.written(key, Some(row.clone())),
        }
    }
}

fn apply(
    connection: &Connection,
    change: &Change,
    row: Option<&ManifestRow>,
    applied: &mut Applied,
) -> rusqlite::Result<()> {
    let Change {
        repo,
        name,
        at,
        what,
    } = change;
    let image = Image {
        connection,
        repo,
        name,
        at: *at,
    };
    match what {
        What::LinkBlob { digest } => image.link(digest, false, applied),
        What::PutManifest {
            digest,
            media_type,
            tags,
            cause,
        } => {
            image.link(digest, true, applied)?;
            let row = row.cloned().unwrap_or_else(|| ManifestRow {
                media_type: media_type.clone(),
                ..ManifestRow::default()
            });
            image.put_manifest(digest, &row, tags.is_empty(), applied)?;
            for tag in tags {
                image.put_tag(tag, digest, &row, cause, applied)?;
            }
            Ok(())
        }
        What::DropTag { tag } => image.drop_tag(tag, applied),
        What::DropManifest { digest } => {
            for tag in image.tags_of(digest)? {
                image.drop_tag(&tag, applied)?;
            }
            image.unlink(digest, true, applied)
        }
        What::DropBlob { digest } => image.unlink(digest, false, applied),
        What::PinTag {
            tag,
            digest: Some(digest),
        } => {
            connection
                .prepare_cached(
                    "INSERT INTO tag_pin (repo, name, tag, digest, at) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO UPDATE SET digest = excluded.digest, at = excluded.at",
                )?
                .execute(params![repo, name, tag, digest, at])?;
            Ok(())
        }
        What::PinTag { tag, digest: None } => {
            connection
                .prepare_cached("DELETE FROM tag_pin WHERE repo = ?1 AND name = ?2 AND tag = ?3")?
                .execute(params![repo, name, tag])?;
            Ok(())
        }
        What::Keep(record) => keeps::keep(connection, (repo, name, *at), record, applied),
        What::Unkeep { reference } => keeps::unkeep(connection, (repo, name), reference),
        What::Forget { tag } => keeps::forget(connection, (repo, name), tag.as_deref(), applied),
        What::SetProperties { tag, set, remove } => {
            let mut drop = connection.prepare_cached(
                "DELETE FROM property WHERE repo = ?1 AND name = ?2 AND tag = ?3 AND key = ?4",
            )?;
            for key in remove.iter().chain(set.keys()) {
                drop.execute(params![repo, name, tag, key])?;
            }
            let mut put = connection.prepare_cached(
                "INSERT OR IGNORE INTO property (repo, name, tag, key, value) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for (key, values) in set {
                for value in values {
                    put.execute(params![repo, name, tag, key, value])?;
                }
            }
            Ok(())
        }
        What::PutRepository { declared, password } => {
            let password = password.as_ref().map(|password| password.0.expose());
            repositories::put(connection, (repo, *at), declared, password)
        }
        What::DropRepository { cached_only } => {
            for image in repositories::drop_all(connection, repo, *cached_only)? {
                drop_image(connection, repo, &image, applied)?;
            }
            Ok(())
        }
        What::PutToken { token } => api_tokens::put(connection, token, *at),
        What::DropToken { token } => api_tokens::drop(connection, token),
        What::Event { event } => {
            connection
                .prepare_cached("INSERT INTO audit (at, event) VALUES (?1, ?2)")?
                .execute(params![at, event.to_string()])?;
            Ok(())
        }
    }
}

/// Takes everything of an image out of the rows that are kept in memory, and its links out of the index.
pub(super) fn drop_image(
    connection: &Connection,
    repo: &str,
    image: &repositories::Image,
    applied: &mut Applied,
) -> rusqlite::Result<()> {
    let name = &image.name;
    let gone = Image {
        connection,
        repo,
        name,
        at: 0,
    };
    gone.drop_all(image, applied)
}

/// One image, in the middle of a transaction.
struct Image<'a> {
    connection: &'a Connection,
    repo: &'a str,
    name: &'a str,
    at: i64,
}

impl Image<'_> {
    fn hot_link(&self, digest: &str) -> String {
        links::key(self.repo, self.name, digest)
    }

    fn link(&self, digest: &str, manifest: bool, applied: &mut Applied) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO link (repo, name, digest, manifest, added, local) VALUES (?1, ?2, ?3, ?4, ?5, 1)
                 ON CONFLICT DO UPDATE SET manifest = max(manifest, excluded.manifest), local = 1",
            )?
            .execute(params![self.repo, self.name, digest, manifest, self.at])?;
        let size = self
            .connection
            .prepare_cached(
                "UPDATE blob SET kind = 1 WHERE digest = ?1 AND kind = 0 RETURNING size",
            )?
            .query_row(params![digest], |row| number(row, 0))
            .optional()?;
        applied
            .moved
            .extend(size.map(|size| Counted { size, pushed: true }));
        applied
            .hot
            .push(HotChange::Link(self.hot_link(digest), true));
        Ok(())
    }

    fn put_manifest(
        &self,
        digest: &str,
        row: &ManifestRow,
        untagged: bool,
        applied: &mut Applied,
    ) -> rusqlite::Result<()> {
        let Ok(parsed) = Digest::parse(digest) else {
            return Ok(());
        };
        put_manifest(self.connection, &parsed, row)?;
        applied.hot.push(HotChange::Manifest(
            digest.to_owned(),
            ManifestRow {
                edges: Vec::new(),
                labels: BTreeMap::new(),
                ..row.clone()
            },
        ));
        // An index holds its children, a subject its referrers; what came before them had to hold itself.
        let mut held = self.connection.prepare_cached(
            "UPDATE link SET root = 0 WHERE repo = ?1 AND name = ?2 AND root > 0 AND digest IN (
                 SELECT digest FROM edge WHERE parent = ?3 AND kind = 'child'
                 UNION SELECT digest FROM manifest WHERE subject = ?3)",
        )?;
        held.execute(params![self.repo, self.name, digest])?;
        if untagged {
            let mut own = self.connection.prepare_cached(
                "UPDATE link SET root = 1 WHERE repo = ?1 AND name = ?2 AND digest = ?3
                 AND NOT EXISTS (SELECT 1 FROM edge JOIN link AS parent ON parent.digest = edge.parent
                     WHERE edge.digest = ?3 AND edge.kind = 'child' AND parent.repo = ?1 AND parent.name = ?2 AND parent.local = 1)
                 AND NOT EXISTS (SELECT 1 FROM manifest JOIN link AS subject ON subject.digest = manifest.subject
                     WHERE manifest.digest = ?3 AND subject.repo = ?1 AND subject.name = ?2 AND subject.local = 1)",
            )?;
            own.execute(params![self.repo, self.name, digest])?;
        }
        Ok(())
    }

    fn put_tag(
        &self,
        tag: &str,
        digest: &str,
        row: &ManifestRow,
        cause: &str,
        applied: &mut Applied,
    ) -> rusqlite::Result<()> {
        let (Ok(name), Ok(parsed), Ok(digest)) = (
            Name::parse(self.name),
            Tag::parse(tag),
            Digest::parse(digest),
        ) else {
            return Ok(());
        };
        // Properties are those of what the tag meant.
        let moves = self
            .connection
            .prepare_cached(
                "SELECT 1 FROM tag WHERE repo = ?1 AND name = ?2 AND tag = ?3 AND served <> ?4",
            )?
            .exists(params![self.repo, self.name, tag, digest.to_string()])?;
        if moves {
            self.drop_properties(tag)?;
        }
        // What the tag leaves behind stays readable by digest, and a roll-back finds it.
        self.connection
            .prepare_cached(
                "UPDATE link SET root = 2 WHERE repo = ?1 AND name = ?2 AND digest <> ?4 AND root = 0 AND digest =
                     (SELECT served FROM tag WHERE repo = ?1 AND name = ?2 AND tag = ?3)",
            )?
            .execute(params![self.repo, self.name, tag, digest.to_string()])?;
        // What was pushed by digest first is held by its tag from here on.
        self.connection
            .prepare_cached(
                "UPDATE link SET root = 0 WHERE repo = ?1 AND name = ?2 AND digest = ?3",
            )?
            .execute(params![self.repo, self.name, digest.to_string()])?;
        let at = Wall::from_ms(self.at);
        let row = TagRow {
            observed: digest.clone(),
            served: digest,
            media_type: row.media_type.clone(),
            size: row.size,
            etag: None,
            checked: at,
            moved: at,
            gone: None,
        };
        let key = tags::Key::new(self.repo, &name, &parsed);
        let row = tags::put(self.connection, &key, row, cause)?;
        applied.hot.push(HotChange::Tag(key.hot(), Some(row)));
        Ok(())
    }

    fn drop_properties(&self, tag: &str) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("DELETE FROM property WHERE repo = ?1 AND name = ?2 AND tag = ?3")?
            .execute(params![self.repo, self.name, tag])
            .map(drop)
    }

    fn tags_of(&self, digest: &str) -> rusqlite::Result<Vec<String>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT tag FROM tag WHERE repo = ?1 AND name = ?2 AND served = ?3")?;
        readable(statement.query_map(params![self.repo, self.name, digest], |row| row.get(0))?)
    }

    fn drop_tag(&self, tag: &str, applied: &mut Applied) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("DELETE FROM tag WHERE repo = ?1 AND name = ?2 AND tag = ?3")?
            .execute(params![self.repo, self.name, tag])?;
        self.drop_properties(tag)?;
        let key = tags::hot_key(self.repo, self.name, tag);
        applied.hot.push(HotChange::Tag(key, None));
        Ok(())
    }

    /// Everything there is of it goes.
    fn drop_all(&self, there: &repositories::Image, applied: &mut Applied) -> rusqlite::Result<()> {
        for tag in &there.tags {
            self.drop_tag(tag, applied)?;
        }
        for (digest, manifest) in &there.links {
            self.unlink(digest, *manifest, applied)?;
        }
        let image = image_key(self.repo, self.name);
        applied.hot.push(HotChange::Image(image));
        Ok(())
    }

    fn unlink(&self, digest: &str, manifest: bool, applied: &mut Applied) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "DELETE FROM link WHERE repo = ?1 AND name = ?2 AND digest = ?3 AND manifest = ?4",
            )?
            .execute(params![self.repo, self.name, digest, manifest])?;
        applied
            .hot
            .push(HotChange::Link(self.hot_link(digest), false));
        let size = lenient(
            self.connection
                .prepare_cached(
                    "UPDATE blob SET kind = 0 WHERE digest = ?1 AND kind = 1
                     AND NOT EXISTS (SELECT 1 FROM link WHERE digest = ?1 AND local = 1) RETURNING size",
                )?
                .query_row(params![digest], |row| number(row, 0)),
        )?;
        applied.moved.extend(size.map(|size| Counted {
            size,
            pushed: false,
        }));
        let linked = self
            .connection
            .prepare_cached("SELECT 1 FROM link WHERE digest = ?1")?
            .exists(params![digest])?;
        if !linked {
            applied.orphans.extend(Digest::parse(digest).ok());
        }
        Ok(())
    }
}

impl ManifestRow {
    /// What is known of a parsed manifest of `size` bytes.
    pub fn of(manifest: &crate::oci::manifest::Manifest, size: u64) -> Self {
        let edges = manifest
            .edges()
            .map(|(kind, descriptor)| EdgeRow {
                kind: kind.as_str().to_owned(),
                digest: descriptor.digest().clone(),
                size: descriptor.size(),
                media_type: descriptor.media_type().to_owned(),
                urls: descriptor.urls().to_vec(),
            })
            .collect();
        Self {
            media_type: manifest.media_type().as_str().to_owned(),
            size,
            artifact_type: manifest.artifact_type().map(str::to_owned),
            subject: manifest.subject().map(|subject| subject.digest().clone()),
            annotations: manifest.annotations().clone(),
            edges,
            labels: BTreeMap::new(),
        }
    }
}
