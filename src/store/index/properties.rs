//! Labels of configurations and properties that people set, and finding images by them.

use std::collections::BTreeMap;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::convert::{digest, readable};
use super::items::ITEMS_TIME_MAX;
use super::{Index, Result};
use crate::oci::{Digest, Name, Tag};

/// What an image must have to be found. All values are patterns: `*` any characters, `?` one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Criterion {
    /// Its name.
    Name(Vec<String>),
    /// Its tag.
    Tag(Vec<String>),
    /// The digest of its manifest.
    Digest(Vec<String>),
    /// The media type of its manifest.
    MediaType(Vec<String>),
    /// A label of its configuration.
    Label(String, Vec<String>),
    /// A property that somebody set.
    Property(String, Vec<String>),
    /// A blob that its manifest, or a child of it, points to; or the manifest itself.
    Contains(Digest),
}

/// An image that was found: repository key, name, tag, what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundImage {
    /// The repository key.
    pub repo: String,
    /// The image.
    pub name: String,
    /// The tag.
    pub tag: String,
    /// The manifest.
    pub digest: Digest,
}

impl Index {
    /// Writes the labels of a configuration down.
    pub async fn put_labels(
        &self,
        config: &Digest,
        labels: BTreeMap<String, String>,
    ) -> Result<()> {
        let config = config.clone();
        self.write(move |connection| put_labels(connection, &config, &labels))
            .await
    }

    /// Whether a manifest that is known has this for its configuration.
    pub async fn is_config(&self, wanted: &Digest) -> Result<bool> {
        let wanted = wanted.to_string();
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT 1 FROM edge WHERE digest = ?1 AND kind = 'config'")?
                .exists(params![wanted])
        })
        .await
    }

    /// The labels of the configuration of a manifest, as far as that is known.
    pub async fn labels(&self, manifest: &Digest) -> Result<BTreeMap<String, String>> {
        let manifest = manifest.clone();
        self.read(move |connection| labels(connection, &manifest))
            .await
    }

    /// The properties that somebody set for a tag.
    pub async fn properties(
        &self,
        repo: &str,
        name: &Name,
        tag: &Tag,
    ) -> Result<BTreeMap<String, Vec<String>>> {
        let (repo, name, tag) = (repo.to_owned(), name.clone(), tag.clone());
        self.read(move |connection| set(connection, &repo, name.as_str(), tag.as_str()))
            .await
    }

    /// The images in `repos` that meet every criterion, in the order of repository, name and tag; [`super::IndexError::TookTooLong`] where
    /// that takes more than [`ITEMS_TIME_MAX`].
    pub async fn find(
        &self,
        criteria: &[Criterion],
        repos: &[String],
        most: usize,
    ) -> Result<Vec<FoundImage>> {
        let (sql, values) = query(criteria, repos, most);
        self.read_within(ITEMS_TIME_MAX, move |connection| {
            let mut statement = connection.prepare(&sql)?;
            readable(statement.query_map(params_from_iter(values), |row| {
                Ok(FoundImage {
                    repo: row.get(0)?,
                    name: row.get(1)?,
                    tag: row.get(2)?,
                    digest: digest(row, 3)?,
                })
            })?)
        })
        .await
    }
}

/// The labels of the configuration of a manifest.
pub(super) fn labels(
    connection: &Connection,
    manifest: &Digest,
) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, value FROM label JOIN edge ON edge.digest = label.digest
         WHERE edge.parent = ?1 AND edge.kind = 'config'",
    )?;
    let pair = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let rows = readable(statement.query_map(params![manifest.to_string()], pair)?)?;
    Ok(rows.into_iter().collect())
}

/// The properties that somebody set for a tag.
pub(super) fn set(
    connection: &Connection,
    repo: &str,
    name: &str,
    tag: &str,
) -> rusqlite::Result<BTreeMap<String, Vec<String>>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, value FROM property WHERE repo = ?1 AND name = ?2 AND tag = ?3 ORDER BY key, value",
    )?;
    let pair = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let rows: Vec<(String, String)> =
        readable(statement.query_map(params![repo, name, tag], pair)?)?;
    let mut properties: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in rows {
        properties.entry(key).or_default().push(value);
    }
    Ok(properties)
}

/// Writes labels; a configuration never changes, so what is there stays.
pub(super) fn put_labels(
    connection: &Connection,
    config: &Digest,
    labels: &BTreeMap<String, String>,
) -> rusqlite::Result<()> {
    let mut statement = connection
        .prepare_cached("INSERT OR IGNORE INTO label (digest, key, value) VALUES (?1, ?2, ?3)")?;
    for (key, value) in labels {
        statement.execute(params![config.to_string(), key, value])?;
    }
    Ok(())
}

/// Whether an index of its own finds what meets this.
const fn names_few(criterion: &Criterion) -> bool {
    match criterion {
        Criterion::Label(..) | Criterion::Property(..) | Criterion::Contains(_) => true,
        Criterion::Name(_) | Criterion::Tag(_) | Criterion::Digest(_) | Criterion::MediaType(_) => {
            false
        }
    }
}

/// The statement that finds images, with its values; every text goes in as a value.
pub(super) fn query(criteria: &[Criterion], repos: &[String], most: usize) -> (String, Vec<Sql>) {
    let mut values = Vec::new();
    let mut clauses = vec!["tag.gone IS NULL".to_owned()];
    for criterion in criteria {
        clauses.push(match criterion {
            Criterion::Name(patterns) => any("tag.name", patterns, &mut values),
            Criterion::Tag(patterns) => any("tag.tag", patterns, &mut values),
            Criterion::Digest(patterns) => any("tag.served", patterns, &mut values),
            Criterion::MediaType(patterns) => any("tag.media_type", patterns, &mut values),
            Criterion::Label(key, patterns) => {
                values.push(Sql::Text(key.clone()));
                format!(
                    "tag.served IN (SELECT edge.parent FROM label JOIN edge ON edge.digest = label.digest
                         WHERE edge.kind = 'config' AND label.key = ? AND {})",
                    any("label.value", patterns, &mut values)
                )
            }
            Criterion::Property(key, patterns) => {
                values.push(Sql::Text(key.clone()));
                format!(
                    "(tag.repo, tag.name, tag.tag) IN (SELECT repo, name, tag FROM property WHERE key = ? AND {})",
                    any("property.value", patterns, &mut values)
                )
            }
            Criterion::Contains(digest) => {
                let digest = Sql::Text(digest.to_string());
                values.extend([digest.clone(), digest.clone(), digest]);
                "(tag.served = ? OR tag.served IN (SELECT parent FROM edge WHERE digest = ?)
                  OR tag.served IN (SELECT above.parent FROM edge AS above JOIN edge AS below ON above.digest = below.parent
                      WHERE below.digest = ?))"
                    .to_owned()
            }
        });
    }
    values.extend(repos.iter().cloned().map(Sql::Text));
    // Few have a label; the planner does not know that, and would go through all tags of the repositories.
    let column = if criteria.iter().any(names_few) {
        "+tag.repo"
    } else {
        "tag.repo"
    };
    let each = vec!["?"; repos.len()].join(", ");
    clauses.push(format!("{column} IN ({each})"));
    values.push(Sql::Integer(i64::try_from(most).unwrap_or(i64::MAX)));
    let sql = format!(
        "SELECT tag.repo, tag.name, tag.tag, tag.served FROM tag WHERE {} ORDER BY tag.repo, tag.name, tag.tag LIMIT ?",
        clauses.join(" AND ")
    );
    (sql, values)
}

/// `column` is one of the patterns; of none: anything.
fn any(column: &str, patterns: &[String], values: &mut Vec<Sql>) -> String {
    if patterns.is_empty() {
        return "1".to_owned();
    }
    let each = patterns.iter().map(|pattern| {
        let is_glob = pattern.contains(['*', '?']);
        // Brackets mean something to GLOB and nothing here.
        let text = if is_glob {
            pattern.replace('[', "[[]")
        } else {
            pattern.clone()
        };
        values.push(Sql::Text(text));
        format!("{column} {} ?", if is_glob { "GLOB" } else { "=" })
    });
    format!("({})", each.collect::<Vec<_>>().join(" OR "))
}
