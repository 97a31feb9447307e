//! What was asked for and could not be had. No truth: it is lost with the index, and ages.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::convert::{number, readable, to_json, to_sql, wall};
use super::pulls::{Kept, trim};
use super::{Index, Result};
use crate::clock::Wall;

/// How long a question about it may take.
const WITHIN: Duration = Duration::from_secs(10);
/// How far up it is looked for the image that something is a part of, and through how many manifests.
const DEPTH_MAX: i64 = 5;
const ABOVE_MAX: i64 = 1000;
/// What contains the digest ?1. Who refers to a manifest does not contain it.
const ABOVE: &str = "WITH RECURSIVE above (digest, depth) AS (SELECT ?1, 0 UNION
     SELECT edge.parent, depth + 1 FROM edge JOIN above ON edge.digest = above.digest
     WHERE depth < ?4 AND edge.kind <> 'subject' LIMIT ?5)";

/// What tells one missing thing from every other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MissingKey {
    /// Repository key, as it was asked.
    pub repo: String,
    /// Image.
    pub name: String,
    /// Tag or digest.
    pub reference: String,
    /// Whether it was asked for as a blob.
    pub is_blob: bool,
}

/// Something that was asked for and could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingRow {
    /// What.
    pub key: MissingKey,
    /// The tag that the same client was told means it.
    pub under: Option<String>,
    /// Why: `offline` or `unreachable`.
    pub why: String,
    /// Who asked last, as records show them.
    pub who: String,
    /// When first.
    pub first: Wall,
    /// When last.
    pub last: Wall,
    /// How often.
    pub count: u64,
}

/// What has come to be there after all: under all these keys of repositories.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Served {
    /// Repository keys.
    pub repos: Vec<String>,
    /// Image.
    pub name: String,
    /// Tag or digest.
    pub reference: String,
    /// Whether it was asked for as a blob.
    pub is_blob: bool,
}

impl Index {
    /// Takes what was served out, and adds what was missed. What is too old or too much goes. Answers how many rows went.
    pub async fn change_missing(
        &self,
        served: Vec<Served>,
        missed: Vec<MissingRow>,
        kept: Kept,
    ) -> Result<usize> {
        self.write(move |connection| {
            let mut gone = 0;
            for one in &served {
                gone += connection
                    .prepare_cached(
                        "DELETE FROM missing WHERE name = ?1 AND reference = ?2 AND blob = ?3
                         AND repo IN (SELECT value FROM json_each(?4))",
                    )?
                    .execute(params![
                        one.name,
                        one.reference,
                        one.is_blob,
                        to_json(&one.repos)?
                    ])?;
            }
            for row in &missed {
                put(connection, row)?;
            }
            Ok(gone + trim(connection, "missing", kept)?)
        })
        .await
    }

    /// Forgets what was last asked for until then.
    pub async fn clear_missing(&self, until: Wall) -> Result<usize> {
        self.write(move |connection| {
            connection
                .prepare_cached("DELETE FROM missing WHERE last <= ?1")?
                .execute([until.as_ms()])
        })
        .await
    }

    /// How much is missing.
    pub async fn count_missing(&self) -> Result<u64> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT count(*) FROM missing")?
                .query_row([], |row| number(row, 0))
        })
        .await
    }

    /// Everything that is missing, by its key.
    pub async fn missing_keys(&self) -> Result<Vec<MissingKey>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT repo, name, reference, blob FROM missing")?;
            readable(statement.query_map([], key)?)
        })
        .await
    }

    /// A page of what is missing in the order of repository, image, reference and kind, each with the tag or digest of an image that it is
    /// a part of. `behind`: by their keys the repositories that pulls from this one are written down under.
    pub async fn missing(
        &self,
        behind: BTreeMap<String, Vec<String>>,
        after: Option<MissingKey>,
        most: usize,
    ) -> Result<Vec<(MissingRow, Option<String>)>> {
        self.read_within(WITHIN, move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT repo, name, reference, blob, under, why, who, first, last, count FROM missing
                 WHERE (repo, name, reference, blob) > (?1, ?2, ?3, ?4) ORDER BY repo, name, reference, blob LIMIT ?5",
            )?;
            let (repo, name, reference, is_blob) = after.map_or_else(Default::default, |key| {
                (key.repo, key.name, key.reference, key.is_blob)
            });
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![repo, name, reference, is_blob, most], row)?;
            let rows: Vec<MissingRow> = readable(rows)?;
            rows.into_iter()
                .map(|row| {
                    let own = std::slice::from_ref(&row.key.repo);
                    let repos = behind.get(&row.key.repo).map_or(own, Vec::as_slice);
                    let part_of = part_of(connection, &row, repos)?;
                    Ok((row, part_of))
                })
                .collect()
        })
        .await
    }
}

fn put(connection: &Connection, row: &MissingRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO missing (repo, name, reference, blob, under, why, who, first, last, count)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (repo, name, reference, blob) DO UPDATE SET
                 under = coalesce(excluded.under, under), why = excluded.why, who = excluded.who,
                 first = min(first, excluded.first), last = max(last, excluded.last), count = count + excluded.count",
        )?
        .execute(params![
            row.key.repo,
            row.key.name,
            row.key.reference,
            row.key.is_blob,
            row.under,
            row.why,
            row.who,
            row.first.as_ms(),
            row.last.as_ms(),
            to_sql(row.count),
        ])
        .map(drop)
}

/// What was asked for by a tag or digest and contains this: the tag that was pulled last, else a digest, that of an index before that of an
/// image; else what contains it and is of the same image.
fn part_of(
    connection: &Connection,
    row: &MissingRow,
    repos: &[String],
) -> rusqlite::Result<Option<String>> {
    // A tag is no part of anything.
    if !row.key.reference.contains(':') {
        return Ok(None);
    }
    let key = params![
        row.key.reference,
        row.key.name,
        to_json(&repos)?,
        DEPTH_MAX,
        ABOVE_MAX
    ];
    let asked: Option<String> = connection
        .prepare_cached(&format!(
            "{ABOVE} SELECT pull.reference FROM above CROSS JOIN pull ON pull.digest = above.digest
             WHERE pull.name = ?2 AND pull.repo IN (SELECT value FROM json_each(?3))
             ORDER BY instr(pull.reference, ':') > 0, depth DESC, pull.last DESC LIMIT 1"
        ))?
        .query_row(key, |row| row.get(0))
        .optional()?;
    if asked.is_some() {
        return Ok(asked);
    }
    connection
        .prepare_cached(&format!(
            "{ABOVE} SELECT above.digest FROM above CROSS JOIN link ON link.digest = above.digest
             WHERE depth > 0 AND link.name = ?2 AND link.repo IN (SELECT value FROM json_each(?3))
             ORDER BY depth DESC LIMIT 1"
        ))?
        .query_row(key, |row| row.get(0))
        .optional()
}

fn key(row: &Row<'_>) -> rusqlite::Result<MissingKey> {
    Ok(MissingKey {
        repo: row.get(0)?,
        name: row.get(1)?,
        reference: row.get(2)?,
        is_blob: row.get(3)?,
    })
}

fn row(row: &Row<'_>) -> rusqlite::Result<MissingRow> {
    Ok(MissingRow {
        key: key(row)?,
        under: row.get(4)?,
        why: row.get(5)?,
        who: row.get(6)?,
        first: wall(row, 7)?,
        last: wall(row, 8)?,
        count: number(row, 9)?,
    })
}
