//! Lists that were fetched whole from upstream.

use rusqlite::{OptionalExtension as _, params};

use super::Index;
use crate::clock::Wall;
use crate::oci::{Digest, Name};
use crate::store::StoreError;

impl Index {
    /// The tag list of an image, and when it was fetched.
    pub async fn tag_list(
        &self,
        repository: &str,
        name: &Name,
    ) -> Result<Option<(Vec<String>, Wall)>, StoreError> {
        let parameters = [repository.to_owned(), name.to_string()];
        self.read(move |connection| {
            let row: Option<(String, i64)> = connection
                .prepare_cached(
                    "SELECT tags, fetched FROM tag_list WHERE repository = ?1 AND name = ?2",
                )?
                .query_row(parameters, |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            Ok(row.and_then(|(tags, fetched)| {
                Some((serde_json::from_str(&tags).ok()?, Wall::from_ms(fetched)))
            }))
        })
        .await
    }

    /// Keeps the tag list of an image.
    pub async fn put_tag_list(
        &self,
        repository: &str,
        name: &Name,
        tags: Vec<String>,
        fetched: Wall,
    ) -> Result<(), StoreError> {
        let (repository, name) = (repository.to_owned(), name.to_string());
        self.note("tag list", move |connection| {
            let tags = serde_json::to_string(&tags).unwrap_or_else(|_never| "[]".to_owned());
            connection
                .prepare_cached("INSERT OR REPLACE INTO tag_list (repository, name, tags, fetched) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![repository, name, tags, fetched.as_ms()])
                .map(drop)
        })
        .await;
        Ok(())
    }

    /// The list of a manifest's referrers as an OCI index, and when it was fetched.
    pub async fn referrer_list(
        &self,
        repository: &str,
        name: &Name,
        subject: &Digest,
    ) -> Result<Option<(Vec<u8>, Wall)>, StoreError> {
        let parameters = [repository.to_owned(), name.to_string(), subject.to_string()];
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT list, fetched FROM referrer_list WHERE repository = ?1 AND name = ?2 AND subject = ?3")?
                .query_row(parameters, |row| Ok((row.get(0)?, Wall::from_ms(row.get(1)?))))
                .optional()
        })
        .await
    }

    /// Keeps the list of a manifest's referrers.
    pub async fn put_referrer_list(
        &self,
        repository: &str,
        name: &Name,
        subject: &Digest,
        list: Vec<u8>,
        fetched: Wall,
    ) -> Result<(), StoreError> {
        let (repository, name, subject) =
            (repository.to_owned(), name.to_string(), subject.to_string());
        self.note("referrer list", move |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO referrer_list (repository, name, subject, list, fetched) VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![repository, name, subject, list, fetched.as_ms()])
                .map(drop)
        })
        .await;
        Ok(())
    }
}
