//! What was pulled, by whom, how often. No truth: it is lost with the index, and ages.

use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::convert::{digest, json, number, readable, to_json, to_sql, wall};
use super::{Index, Result};
use crate::clock::Wall;
use crate::oci::Digest;

/// How long a question about pulls may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Pulls of one thing by one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRow {
    /// Repository key.
    pub repo: String,
    /// Image.
    pub name: String,
    /// Tag or digest, as it was asked for.
    pub reference: String,
    /// What was served.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The index that it was chosen from.
    pub parent: Option<Digest>,
    /// The platform that the index gives it.
    pub platform: Option<String>,
    /// By whom, as records show them.
    pub who: String,
    /// The first of them.
    pub first: Wall,
    /// The last of them.
    pub last: Wall,
    /// How many.
    pub count: u64,
}

/// Pulls of one thing by several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledRow {
    /// Repository key.
    pub repo: String,
    /// Image.
    pub name: String,
    /// Tag or digest, as it was asked for.
    pub reference: String,
    /// What was served.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The indexes that it was chosen from.
    pub parents: Vec<Digest>,
    /// The platform that they give it.
    pub platform: Option<String>,
    /// By whom, as records show them; sorted.
    pub by: Vec<String>,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Wall,
    /// The last of them.
    pub last: Wall,
}

/// Which pulls are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullsWanted {
    /// Not before then.
    pub since: Option<Wall>,
    /// Of this repository.
    pub repo: Option<String>,
    /// By these, as records show them.
    pub by: Option<Vec<String>>,
}

/// How much of a record is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Nothing before then.
    pub since: Wall,
    /// So many rows; the oldest go.
    pub most: u64,
}

/// Where a page of pulls begins: behind this repository, image, reference and digest.
pub type PullPlace = [String; 4];

impl Index {
    /// Adds pulls to what is known of them; what is too old or too much goes.
    pub async fn add_pulls(&self, rows: Vec<PullRow>, kept: Kept) -> Result<()> {
        self.write(move |connection| {
            let mut statement = connection.prepare_cached(
                "INSERT INTO pull (repo, name, reference, digest, parent, who, media_type, platform, first, last, count)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                 ON CONFLICT (repo, name, reference, digest, parent, who) DO UPDATE SET
                     media_type = excluded.media_type, platform = coalesce(excluded.platform, platform),
                     first = min(first, excluded.first), last = max(last, excluded.last), count = count + excluded.count",
            )?;
            for row in &rows {
                statement.execute(params![
                    row.repo,
                    row.name,
                    row.reference,
                    row.digest.to_string(),
                    row.parent.as_ref().map_or_else(String::new, Digest::to_string),
                    row.who,
                    row.media_type,
                    row.platform,
                    row.first.as_ms(),
                    row.last.as_ms(),
                    to_sql(row.count),
                ])?;
            }
            trim(connection, "pull", kept).map(drop)
        })
        .await
    }

    /// Everybody who pulled anything, as records show them.
    pub async fn pullers(&self) -> Result<Vec<String>> {
        self.read_within(WITHIN, |connection| {
            let mut statement =
                connection.prepare_cached("SELECT DISTINCT who FROM pull ORDER BY who")?;
            readable(statement.query_map([], |row| row.get(0))?)
        })
        .await
    }

    /// A page of pulls in the order of repository, image, reference and digest.
    pub async fn pulls(
        &self,
        wanted: PullsWanted,
        behind: Option<PullPlace>,
        most: usize,
    ) -> Result<Vec<PulledRow>> {
        let [repo, name, reference, digest] = behind.unwrap_or_default();
        self.read_within(WITHIN, move |connection| {
            let by = wanted.by.as_ref().map(to_json).transpose()?;
            let mut statement = connection.prepare_cached(
                "SELECT repo, name, reference, digest, max(media_type), json_group_array(DISTINCT parent), max(platform),
                     json_group_array(DISTINCT who), sum(count), min(first), max(last)
                 FROM pull WHERE (?1 IS NULL OR last >= ?1) AND (?2 IS NULL OR repo = ?2)
                     AND (?3 IS NULL OR who IN (SELECT value FROM json_each(?3)))
                     AND (repo, name, reference, digest) > (?4, ?5, ?6, ?7)
                 GROUP BY repo, name, reference, digest ORDER BY repo, name, reference, digest LIMIT ?8",
            )?;
            let rows = statement.query_map(
                params![
                    wanted.since.map(Wall::as_ms),
                    wanted.repo,
                    by,
                    repo,
                    name,
                    reference,
                    digest,
                    i64::try_from(most).unwrap_or(i64::MAX),
                ],
                pulled,
            )?;
            readable(rows)
        })
        .await
    }
}

/// Lets go of what is too old or too much. Answers how many rows went.
pub(super) fn trim(connection: &Connection, table: &str, kept: Kept) -> rusqlite::Result<usize> {
    let old = connection
        .prepare_cached(&format!("DELETE FROM {table} WHERE last < ?1"))?
        .execute([kept.since.as_ms()])?;
    let rows: i64 = connection
        .prepare_cached(&format!("SELECT count(*) FROM {table}"))?
        .query_row([], |row| row.get(0))?;
    let over = rows.saturating_sub(to_sql(kept.most));
    if over <= 0 {
        return Ok(old);
    }
    let many = connection
        .prepare_cached(&format!(
            "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY last, id LIMIT ?1)"
        ))?
        .execute([over])?;
    Ok(old + many)
}

fn pulled(row: &Row<'_>) -> rusqlite::Result<PulledRow> {
    let parents: Vec<String> = json(row, 5)?;
    let mut by: Vec<String> = json(row, 7)?;
    by.sort_unstable();
    Ok(PulledRow {
        repo: row.get(0)?,
        name: row.get(1)?,
        reference: row.get(2)?,
        digest: digest(row, 3)?,
        media_type: row.get(4)?,
        parents: parents
            .iter()
            .filter_map(|parent| Digest::parse(parent).ok())
            .collect(),
        platform: row.get(6)?,
        by,
        count: number(row, 8)?,
        first: wall(row, 9)?,
        last: wall(row, 10)?,
    })
}
