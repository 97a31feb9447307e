//! API tokens, as the journal has them, and when they were used last.

use rusqlite::{Connection, params};

use super::convert::{json, readable, to_json, wall};
use super::{Index, Result};
use crate::clock::Wall;
use crate::store::change::KeptToken;

/// An API token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTokenRow {
    /// What it is called.
    pub name: String,
    /// Whose rights it has.
    pub user: String,
    /// The SHA-256 of its text.
    pub hash: String,
    /// What may be done with it.
    pub may: Vec<String>,
    /// Where.
    pub on: Vec<String>,
    /// When it was made.
    pub created: Wall,
    /// When it is over.
    pub expires: Option<Wall>,
    /// The day of its last use.
    pub used: Option<Wall>,
}

impl Index {
    /// Every API token, by name.
    pub async fn api_tokens(&self) -> Result<Vec<ApiTokenRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT name, user, hash, may, places, created, expires, used FROM api_token ORDER BY name",
            )?;
            readable(statement.query_map([], |row| {
                let time = |column| row.get(column).map(|ms: Option<i64>| ms.map(Wall::from_ms));
                Ok(ApiTokenRow {
                    name: row.get(0)?,
                    user: row.get(1)?,
                    hash: row.get(2)?,
                    may: json(row, 3)?,
                    on: json(row, 4)?,
                    created: wall(row, 5)?,
                    expires: time(6)?,
                    used: time(7)?,
                })
            })?)
        })
        .await
    }

    /// Keeps on which days tokens were used last, by their hashes.
    pub async fn put_token_uses(&self, uses: Vec<(String, Wall)>) -> Result<()> {
        self.write(move |connection| {
            let mut statement =
                connection.prepare_cached("UPDATE api_token SET used = ?2 WHERE hash = ?1")?;
            for (hash, day) in &uses {
                statement.execute(params![hash, day.as_ms()])?;
            }
            Ok(())
        })
        .await
    }
}

/// Writes one down; it takes the place of another of its name.
pub(super) fn put(connection: &Connection, token: &KeptToken, at: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO api_token (name, user, hash, may, places, created, expires)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            token.name,
            token.user,
            token.hash,
            to_json(&token.may)?,
            to_json(&token.on)?,
            at,
            token.expires
        ])
        .map(std::mem::drop)
}

/// Strikes one out.
pub(super) fn drop(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM api_token WHERE name = ?1")?
        .execute(params![name])
        .map(std::mem::drop)
}
