//! Items: the files and folders that tags are in Artifactory's layout, found by a tree of conditions.
//!
//! A tag is a folder, its manifest a file in it, and so is each configuration and layer of that manifest (PROTOCOL E4). [`clause`] knows SQL,
//! [`comparison`] the layout, [`statement`] writes the whole question; they are pure, and every text that somebody sent goes in as a value.
//! Knows nothing about the language that the question came in.

mod clause;
mod comparison;
mod statement;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, Row, params_from_iter};

use super::convert::{digest, number, readable, wall};
use super::{Index, Result};
use crate::clock::Wall;
use crate::oci::Digest;
use crate::oci::media_type::{DOCKER_LIST, OCI_INDEX};

/// How long one question may take. One that no index serves takes 0.06 s over 100,000 images (docs/BENCHMARKS.md).
pub const ITEMS_TIME_MAX: Duration = Duration::from_secs(10);

/// What every layer and configuration is called before its hash.
pub const BLOB_PREFIX: &str = "sha256__";

/// The file that the manifest of a tag is.
pub fn manifest_file(media_type: &str) -> &'static str {
    if INDEXES.contains(&media_type) {
        LIST_FILE
    } else {
        MANIFEST_FILE
    }
}

const MANIFEST_FILE: &str = "manifest.json";
const LIST_FILE: &str = "list.manifest.json";
/// What makes a manifest a list.
const INDEXES: [&str; 2] = [OCI_INDEX, DOCKER_LIST];

/// What an item must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// All of these; of none: anything.
    All(Vec<Self>),
    /// One of these; of none: nothing.
    Any(Vec<Self>),
    /// A field that is a text.
    Text(TextField, Operator, String),
    /// A field that is a number; times in milliseconds since the Unix epoch.
    Number(NumberField, Operator, i64),
    /// A property of this key has such a value; negated: it has none.
    Property(String, Operator, String),
    /// A property has such a key; negated: none has.
    PropertyKey(Operator, String),
    /// A property has such a value, whatever its key; negated: none has.
    PropertyValue(Operator, String),
}

/// Fields that are texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextField {
    /// The repository, by any of the names of [`SearchedRepo`].
    Repo,
    /// The folder that it is in.
    Path,
    /// Its own name there.
    Name,
    /// `file` or `folder`; `any` is both.
    Type,
    /// The hash of a file.
    Sha256,
}

/// Fields that are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberField {
    /// The length in bytes.
    Size,
    /// How many components path and name have together.
    Depth,
    /// When its tag last came to mean what it means.
    Moved,
    /// When that was last confirmed.
    Checked,
}

/// How a field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// As the pattern says: `*` any characters, `?` one. Texts only.
    Match,
    /// Not as the pattern says. Texts only.
    NoMatch,
    /// Greater.
    Greater,
    /// Greater or the same.
    GreaterOrEqual,
    /// Less.
    Less,
    /// Less or the same.
    LessOrEqual,
}

/// What answers are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortField {
    /// A text.
    Text(TextField),
    /// A number.
    Number(NumberField),
}

/// A repository that is searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchedRepo {
    /// Its key.
    pub key: String,
    /// What it is called in answers, and what patterns are held against.
    pub shown: String,
    /// What else it is meant by when it is named in full.
    pub also: Vec<String>,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemQuery {
    /// What an item must be.
    pub find: Condition,
    /// Where; nothing is found in others.
    pub repos: Vec<SearchedRepo>,
    /// The order, the first weighs most; true: the greatest first. Behind them repository, image and tag.
    pub sort: Vec<(SortField, bool)>,
    /// How many are passed over.
    pub offset: u64,
    /// How many are answered at most.
    pub limit: u64,
    /// Whether labels and properties come along.
    pub properties: bool,
}

/// What kind of item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemKind {
    /// The manifest of a tag.
    Manifest,
    /// A configuration or layer of a tag.
    Blob,
    /// A tag as a folder.
    Folder,
}

impl ItemKind {
    const ALL: [Self; 3] = [Self::Manifest, Self::Blob, Self::Folder];

    const fn number(self) -> i64 {
        match self {
            Self::Manifest => 0,
            Self::Blob => 1,
            Self::Folder => 2,
        }
    }

    /// `file` or `folder`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest | Self::Blob => "file",
            Self::Folder => "folder",
        }
    }
}

/// An item that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRow {
    /// What it is.
    pub kind: ItemKind,
    /// The repository key.
    pub repo: String,
    /// The image.
    pub image: String,
    /// The tag.
    pub tag: String,
    /// The manifest or blob; of a folder, the manifest in it.
    pub digest: Digest,
    /// The length; of a folder 0.
    pub size: u64,
    /// The media type of the manifest of the tag.
    pub media_type: String,
    /// When the tag came to mean this.
    pub moved: Wall,
    /// When that was last confirmed.
    pub checked: Wall,
    /// Labels of a manifest's configuration, where they were asked for.
    pub labels: BTreeMap<String, String>,
    /// What somebody set, of a manifest, where it was asked for.
    pub properties: BTreeMap<String, Vec<String>>,
}

impl ItemRow {
    /// The folder that it is in.
    pub fn path(&self) -> String {
        match self.kind {
            ItemKind::Manifest | ItemKind::Blob => format!("{}/{}", self.image, self.tag),
            ItemKind::Folder => self.image.clone(),
        }
    }

    /// Its own name there.
    pub fn name(&self) -> String {
        match self.kind {
            ItemKind::Manifest => manifest_file(&self.media_type).to_owned(),
            ItemKind::Blob => format!("{BLOB_PREFIX}{}", self.digest.hex()),
            ItemKind::Folder => self.tag.clone(),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundItems {
    /// In their order, as many as were wanted.
    pub rows: Vec<ItemRow>,
    /// How many there are, wanted or not.
    pub total: u64,
}

impl Index {
    /// The items that meet a condition; [`super::IndexError::TookTooLong`] where that takes more than [`ITEMS_TIME_MAX`].
    pub async fn items(&self, query: ItemQuery) -> Result<FoundItems> {
        self.read_within(ITEMS_TIME_MAX, move |connection| run(connection, &query))
            .await
    }
}

fn run(connection: &Connection, query: &ItemQuery) -> rusqlite::Result<FoundItems> {
    let Some(wanted) = statement::page(query) else {
        return Ok(FoundItems {
            rows: Vec::new(),
            total: 0,
        });
    };
    let mut statement = connection.prepare(&wanted.text)?;
    let mut rows = readable(statement.query_map(params_from_iter(wanted.values), row)?)?;
    // A page that is not full says how many there are; only another one makes them be counted.
    let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let total = if count < query.limit && (count > 0 || query.offset == 0) {
        query.offset.saturating_add(count)
    } else {
        count_all(connection, query)?
    };
    if query.properties {
        for row in &mut rows {
            describe(connection, row)?;
        }
    }
    Ok(FoundItems { rows, total })
}

fn count_all(connection: &Connection, query: &ItemQuery) -> rusqlite::Result<u64> {
    let Some(count) = statement::count(query) else {
        return Ok(0);
    };
    connection
        .prepare(&count.text)?
        .query_row(params_from_iter(count.values), |row| number(row, 0))
}

fn row(row: &Row<'_>) -> rusqlite::Result<ItemRow> {
    let kind: i64 = row.get(0)?;
    let kind = ItemKind::ALL.into_iter().find(|one| one.number() == kind);
    Ok(ItemRow {
        kind: kind.unwrap_or(ItemKind::Folder),
        repo: row.get(1)?,
        image: row.get(2)?,
        tag: row.get(3)?,
        digest: digest(row, 4)?,
        size: number(row, 5)?,
        media_type: row.get(6)?,
        moved: wall(row, 7)?,
        checked: wall(row, 8)?,
        labels: BTreeMap::new(),
        properties: BTreeMap::new(),
    })
}

/// Adds labels and properties; only manifests have them.
fn describe(connection: &Connection, row: &mut ItemRow) -> rusqlite::Result<()> {
    if row.kind != ItemKind::Manifest {
        return Ok(());
    }
    row.labels = super::properties::labels(connection, &row.digest)?;
    row.properties = super::properties::set(connection, &row.repo, &row.image, &row.tag)?;
    Ok(())
}
