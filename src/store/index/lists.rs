//! Lists that were fetched whole from upstream: the tags of an image, the referrers of a manifest.

use rusqlite::params;

use super::convert::{json, lenient, to_json, wall};
use super::{Index, Result};
use crate::clock::Wall;
use crate::oci::{Digest, Name};

impl Index {
    /// The tag list as upstream gave it, and when.
    pub async fn tag_list(&self, repo: &str, name: &Name) -> Result<Option<(Vec<String>, Wall)>> {
        let (repo, name) = (repo.to_owned(), name.clone());
        self.read(move |connection| {
            lenient(
                connection
                    .prepare_cached(
                        "SELECT tags, fetched FROM tag_list WHERE repo = ?1 AND name = ?2",
                    )?
                    .query_row(params![repo, name.as_str()], |row| {
                        Ok((json(row, 0)?, wall(row, 1)?))
                    }),
            )
        })
        .await
    }

    /// Keeps a tag list that was fetched `at`.
    pub async fn put_tag_list(
        &self,
        repo: &str,
        name: &Name,
        tags: Vec<String>,
        at: Wall,
    ) -> Result<()> {
        let (repo, name) = (repo.to_owned(), name.clone());
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO tag_list (repo, name, tags, fetched) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![repo, name.as_str(), to_json(&tags)?, at.as_ms()])
                .map(drop)
        })
        .await
    }

    /// The referrers of `subject` as upstream gave them (the bytes of an image index), and when.
    pub async fn referrer_list(
        &self,
        repo: &str,
        name: &Name,
        subject: &Digest,
    ) -> Result<Option<(Vec<u8>, Wall)>> {
        let (repo, name, subject) = (repo.to_owned(), name.clone(), subject.clone());
        self.read(move |connection| {
            lenient(
                connection
                    .prepare_cached(
                        "SELECT body, fetched FROM referrer_list WHERE repo = ?1 AND name = ?2 AND subject = ?3",
                    )?
                    .query_row(params![repo, name.as_str(), subject.to_string()], |row| {
                        Ok((row.get(0)?, wall(row, 1)?))
                    }),
            )
        })
        .await
    }

    /// Keeps a referrers list that was fetched `at`.
    pub async fn put_referrer_list(
        &self,
        repo: &str,
        name: &Name,
        subject: &Digest,
        body: Vec<u8>,
        at: Wall,
    ) -> Result<()> {
        let (repo, name, subject) = (repo.to_owned(), name.clone(), subject.clone());
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO referrer_list (repo, name, subject, body, fetched)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    repo,
                    name.as_str(),
                    subject.to_string(),
                    body,
                    at.as_ms()
                ])
                .map(drop)
        })
        .await
    }
}
