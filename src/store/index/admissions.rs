//! What remotes with rules have admitted, and since when they know of it.

use rusqlite::{Connection, params};

use super::convert::wall;
use super::{Index, Result, StandingRow};
use crate::clock::Wall;
use crate::oci::{Digest, Name};

/// How far up it is looked for what contains a digest, and through how many manifests.
const DEPTH_MAX: i64 = 5;
const ABOVE_MAX: i64 = 1000;

/// What an operator decided stands whatever the rules are.
const PINNED: &str = "pinned";

impl Index {
    /// How `digest` stands with the rules of `repo`, where `terms` is what those are now.
    pub async fn standing(
        &self,
        repo: &str,
        name: &Name,
        digest: &Digest,
        terms: &str,
    ) -> Result<StandingRow> {
        let (repo, name) = (repo.to_owned(), name.clone());
        let (digest, terms) = (digest.to_string(), terms.to_owned());
        self.read(move |connection| {
            let own = own(connection, &repo, &name, &digest)?;
            let (vouched, pinned) = above(connection, (&repo, &name), &digest, &terms)?;
            let own_terms = own.as_ref().and_then(|(_, terms)| terms.clone());
            Ok(StandingRow {
                first_seen: own.map(|(first_seen, _)| first_seen),
                pinned: pinned || own_terms.as_deref() == Some(PINNED),
                terms: own_terms,
                vouched,
            })
        })
        .await
    }

    /// Upstream showed `digest`. Answers when it did so first, as far as is known; never a time after `now`.
    pub async fn see(&self, repo: &str, name: &Name, digest: &Digest, now: Wall) -> Result<Wall> {
        let (repo, name, digest) = (repo.to_owned(), name.clone(), digest.to_string());
        self.write(move |connection| see(connection, &repo, &name, &digest, now))
            .await
    }

    /// `digest` is admitted, under these `terms`.
    pub async fn admit(
        &self,
        repo: &str,
        name: &Name,
        digest: &Digest,
        terms: &str,
        now: Wall,
    ) -> Result<()> {
        let (repo, name) = (repo.to_owned(), name.clone());
        let (digest, terms) = (digest.to_string(), terms.to_owned());
        self.write(move |connection| admit(connection, (&repo, &name), &digest, &terms, now))
            .await
    }

    /// Somebody who may wants `digest` whatever the rules say.
    pub async fn admit_pinned(
        &self,
        repo: &str,
        name: &Name,
        digest: &Digest,
        now: Wall,
    ) -> Result<()> {
        self.admit(repo, name, digest, PINNED, now).await
    }
}

/// Writes the same down in the middle of a transaction.
pub(super) fn pin(
    connection: &Connection,
    (repo, name): (&str, &Name),
    digest: &Digest,
    now: Wall,
) -> rusqlite::Result<()> {
    admit(connection, (repo, name), &digest.to_string(), PINNED, now)
}

fn admit(
    connection: &Connection,
    (repo, name): (&str, &Name),
    digest: &str,
    terms: &str,
    now: Wall,
) -> rusqlite::Result<()> {
    see(connection, repo, name, digest, now)?;
    // What was pinned once stays what somebody wanted.
    connection
        .prepare_cached(
            "UPDATE admission SET terms = ?4
             WHERE repo = ?1 AND name = ?2 AND digest = ?3 AND terms IS NOT ?5",
        )?
        .execute(params![repo, name.as_str(), digest, terms, PINNED])
        .map(drop)
}

fn own(
    connection: &Connection,
    repo: &str,
    name: &Name,
    digest: &str,
) -> rusqlite::Result<Option<(Wall, Option<String>)>> {
    super::convert::lenient(
        connection
            .prepare_cached(
                "SELECT first_seen, terms FROM admission WHERE repo = ?1 AND name = ?2 AND digest = ?3",
            )?
            .query_row(params![repo, name.as_str(), digest], |row| {
                Ok((wall(row, 0)?, row.get(1)?))
            }),
    )
}

/// Whether something that contains `digest` is admitted under `terms`, and whether something that does was pinned. A manifest does not
/// contain its subject: anybody can write a manifest about anything.
fn above(
    connection: &Connection,
    (repo, name): (&str, &Name),
    digest: &str,
    terms: &str,
) -> rusqlite::Result<(bool, bool)> {
    connection
        .prepare_cached(
            "WITH RECURSIVE above(digest, depth) AS (
                 SELECT ?3, 0 UNION
                 SELECT edge.parent, above.depth + 1 FROM edge JOIN above ON edge.digest = above.digest
                 WHERE edge.kind <> 'subject' AND above.depth < ?6 LIMIT ?7)
             SELECT coalesce(max(admission.terms = ?4), 0), coalesce(max(admission.terms = ?5), 0)
             FROM above JOIN admission ON admission.digest = above.digest
             WHERE above.depth > 0 AND admission.repo = ?1 AND admission.name = ?2
             AND admission.terms IS NOT NULL",
        )?
        .query_row(
            params![repo, name.as_str(), digest, terms, PINNED, DEPTH_MAX, ABOVE_MAX],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
}

/// What came before there were rules counts from when it came. A time that is still to come is a clock's mistake and is taken back.
fn see(
    connection: &Connection,
    repo: &str,
    name: &Name,
    digest: &str,
    now: Wall,
) -> rusqlite::Result<Wall> {
    connection
        .prepare_cached(
            "INSERT INTO admission (repo, name, digest, first_seen)
             VALUES (?1, ?2, ?3, min(?4, coalesce(
                 (SELECT added FROM link WHERE repo = ?1 AND name = ?2 AND digest = ?3), ?4)))
             ON CONFLICT DO UPDATE SET first_seen = min(first_seen, excluded.first_seen)
             RETURNING first_seen",
        )?
        .query_row(params![repo, name.as_str(), digest, now.as_ms()], |row| {
            wall(row, 0)
        })
}
