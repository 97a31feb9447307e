//! `/admin/pulls` and `/admin/pulled`: what was pulled, and by whom.

use std::time::Duration;

use http::Response;
use serde::Serialize;
use serde_json::json;

use super::super::error::ApiError;
use super::super::paging::{link_next, parse_page};
use super::super::record::Record;
use super::super::{Api, Call, respond};
use crate::body::Body;
use crate::bundle::asked::Asked;
use crate::bundle::pulled;
use crate::clock::{self, Wall};
use crate::oci::page::{Next, PAGE_MAX};
use crate::oci::{Digest, Tag};
use crate::repository::records::{Pulled, place};
use crate::store::index::{PullPlace, PulledRow};

impl Api {
    /// `GET /admin/pulls?since=&by=&repository=&n=&last=`: since a time or for so long (`30d`), by a user, `@group` or both of that name.
    pub(in super::super) async fn pulls(
        &self,
        call: &Call<'_>,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        self.administer(call, record, "GET")?;
        let page = parse_page(call)?;
        let most = page.n().unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let behind = page.last().map(parse_place).transpose()?;
        let since = call.query("since").map(parse_since).transpose()?;
        let by = call.query("by").map(|by| self.meant(by)).transpose()?;
        let repository = call.query("repository").map(str::to_owned);
        let records = &self.config.records;
        let failed = |error| ApiError::failed(&error);
        let wanted = records.wanted(since, repository, by.as_deref()).await;
        let rows = records.page(wanted.map_err(failed)?, behind, most).await;
        let rows = rows.map_err(failed)?;
        let last = rows.last().filter(|_| rows.len() == most);
        let next = last.map(|last| Next::new(most, place(last).join("/")).query());
        let pulls: Vec<Told<'_>> = rows.iter().map(Told::of).collect();
        let mut response = respond::json(&json!({ "pulls": pulls }));
        link_next(call, &mut response, next);
        Ok(response)
    }

    /// What was pulled, where a command asks for that.
    pub(super) async fn pulled_as_asked(&self, asked: &Asked) -> Result<Vec<Pulled>, ApiError> {
        let Some(pulled) = &asked.pulled else {
            return Ok(Vec::new());
        };
        let span = pulled.since_seconds.map(Duration::from_secs);
        let since = span.map(|span| clock::now().before(span));
        let mut by = Vec::new();
        for word in &pulled.by {
            by.extend(self.meant(word)?);
        }
        let by = (!pulled.by.is_empty()).then_some(by);
        let found = self.config.records.pulled_since(since, by.as_deref()).await;
        let found = found.map_err(|error| ApiError::failed(&error))?;
        if found.is_empty() {
            return Err(ApiError::bad_request(
                "nothing was pulled in that time by them, as far as is known; GET /admin/pulls tells what was",
            ));
        }
        Ok(found)
    }

    /// `GET /admin/pulled?since=&lock=true`: the same as images, each with what it meant last; with their lock, for which nobody is asked.
    pub(in super::super) async fn pulled(
        &self,
        call: &Call<'_>,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        self.administer(call, record, "GET")?;
        let since = call.query("since").map(parse_since).transpose()?;
        let all = self.config.records.pulled_since(since, None).await;
        let all = all.map_err(|error| ApiError::failed(&error))?;
        let settings = call.there.settings();
        let pulls: Vec<PulledImage<'_>> = all
            .iter()
            .map(|one| PulledImage::of(pulled::name(settings, one), one))
            .collect();
        if call.query("lock") != Some("true") {
            return Ok(respond::json(&json!({ "pulls": pulls })));
        }
        let done = pulled::lock(settings, &self.config.store, &all).await;
        let left_out = done.left_out.iter();
        let left_out: Vec<_> = left_out
            .map(|(image, why)| json!({ "image": image, "why": why }))
            .collect();
        let told = json!({ "pulls": pulls, "lock": done.lock.to_text(), "leftOut": left_out });
        Ok(respond::json(&told))
    }

    /// Whom a word means: a user, or the members of a group.
    fn meant(&self, word: &str) -> Result<Vec<String>, ApiError> {
        let Some(auth) = &self.config.auth else {
            return Ok(vec![word.to_owned()]);
        };
        auth.meant(word).ok_or_else(|| {
            ApiError::bad_request(format!(
                "by: [auth.groups] has no group `{}`; who is in a group of an issuer is not kept",
                word.trim_start_matches('@')
            ))
        })
    }
}

/// A pull as it is told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    repository: &'a str,
    image: &'a str,
    reference: &'a str,
    digest: String,
    media_type: &'a str,
    /// What the index that it was chosen from says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    child_of: Vec<String>,
    by: &'a [String],
    count: u64,
    first: String,
    last: String,
}

impl<'a> Told<'a> {
    fn of(row: &'a PulledRow) -> Self {
        Self {
            repository: &row.repo,
            image: &row.name,
            reference: &row.reference,
            digest: row.digest.to_string(),
            media_type: &row.media_type,
            platform: row.platform.as_deref(),
            child_of: row.parents.iter().map(Digest::to_string).collect(),
            by: &row.by,
            count: row.count,
            first: row.first.to_string(),
            last: row.last.to_string(),
        }
    }
}

/// An image that was pulled, as it is told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PulledImage<'a> {
    repository: &'a str,
    #[serde(rename = "image")]
    name: String,
    tag: Option<String>,
    digest: String,
    media_type: &'a str,
    platforms: Vec<String>,
    count: u64,
    first: String,
    last: String,
}

impl<'a> PulledImage<'a> {
    fn of(name: String, one: &'a Pulled) -> Self {
        Self {
            repository: &one.repository,
            name,
            tag: one.tag.as_ref().map(Tag::to_string),
            digest: one.digest.to_string(),
            media_type: &one.media_type,
            platforms: one.platforms.iter().map(Digest::to_string).collect(),
            count: one.count,
            first: one.first.to_string(),
            last: one.last.to_string(),
        }
    }
}

/// So long ago, or since then.
fn parse_since(text: &str) -> Result<Wall, ApiError> {
    let ago = clock::parse_span(text).map(|span| clock::now().before(span));
    ago.or_else(|| Wall::parse(text)).ok_or_else(|| {
        ApiError::bad_request(
            "since is a duration such as 30d or 12h, or a time such as 2026-11-21 or 2026-11-21T08:00:00Z",
        )
    })
}

/// `<repository>/<image>/<reference>/<digest>`: the image alone has slashes in it.
fn parse_place(text: &str) -> Result<PullPlace, ApiError> {
    let place = || {
        let (repository, rest) = text.split_once('/')?;
        let (rest, digest) = rest.rsplit_once('/')?;
        let (image, reference) = rest.rsplit_once('/')?;
        Some([repository, image, reference, digest].map(str::to_owned))
    };
    place().ok_or_else(|| {
        ApiError::bad_request("last is what the link to the next page says, as it stands there")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_page_begins_is_written_and_read() {
        let place = ["hub", "library/nginx", "1.27", "sha256:00"].map(str::to_owned);
        assert_eq!(parse_place(&place.join("/")).unwrap(), place);
        for wrong in ["", "a", "a/b", "a/b/c"] {
            assert!(parse_place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn since_is_a_time_or_a_while() {
        let day = parse_since("1d").unwrap();
        let passed = clock::now().since(day).as_secs();
        assert!((86_400..86_460).contains(&passed), "{passed}");
        assert_eq!(
            parse_since("1970-01-02").unwrap(),
            Wall::from_ms(86_400_000)
        );
        assert!(parse_since("yesterday").is_err() && parse_since("30").is_err());
    }
}
