//! `/admin/missing`: what was asked for and could not be had, as JSON and as a list of images.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::paging::{link_next, parse_page};
use super::super::record::Record;
use super::super::{Api, Call, respond};
use crate::body::Body;
use crate::clock::{self, Wall};
use crate::oci::page::{Next, PAGE_MAX, Page};
use crate::repository::records::Missing;
use crate::store::index::MissingKey;

impl Api {
    /// `GET /admin/missing?n=&last=`, or all of it with `format=list`; `DELETE /admin/missing?until=` forgets it.
    pub(in super::super) async fn missing(
        &self,
        call: &Call<'_>,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        if *call.method == Method::DELETE {
            self.administer(call, record, "DELETE")?;
            return self.clear_missing(call).await;
        }
        if *call.method != Method::GET {
            return Err(ApiError::method("GET, DELETE"));
        }
        self.administer(call, record, "GET")?;
        match call.query("format") {
            None | Some("json") => self.missing_page(call, &parse_page(call)?).await,
            Some("list") => {
                let list = self.config.records.missing_list(&call.there).await;
                Ok(respond::text(
                    list.map_err(|error| ApiError::failed(&error))?,
                ))
            }
            Some(_) => Err(ApiError::bad_request("format is json or list")),
        }
    }

    async fn missing_page(&self, call: &Call<'_>, page: &Page) -> Result<Response<Body>, ApiError> {
        let failed = |error| ApiError::failed(&error);
        let most = page.n().unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let behind = page.last().map(parse_key).transpose()?;
        let records = &self.config.records;
        let found = records.missing(&call.there, behind, most).await;
        let found = found.map_err(failed)?;
        let total = records.count_missing().await.map_err(failed)?;
        let last = found.last().filter(|_| found.len() == most);
        let next = last.map(|last| Next::new(most, key(&last.row.key)).query());
        let missing: Vec<Value> = found.iter().map(to_json).collect();
        let told = json!({ "missing": missing, "total": total });
        let mut response = respond::json(&told);
        link_next(call, &mut response, next);
        Ok(response)
    }

    async fn clear_missing(&self, call: &Call<'_>) -> Result<Response<Body>, ApiError> {
        let until = match call.query("until") {
            None => clock::now(),
            Some(text) => Wall::parse(text).ok_or_else(|| {
                ApiError::bad_request("until is a time such as 2026-11-21T08:00:00Z")
            })?,
        };
        let cleared = self.config.records.clear_missing(until).await;
        cleared.map_err(|error| ApiError::failed(&error))?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }
}

fn to_json(one: &Missing) -> Value {
    let row = &one.row;
    json!({
        "repository": row.key.repo,
        "image": row.key.name,
        "reference": row.key.reference,
        "kind": kind(&row.key),
        "why": row.why,
        // The line of the list that brings it.
        "list": one.line,
        "who": row.who,
        "count": row.count,
        "first": row.first.to_string(),
        "last": row.last.to_string(),
    })
}

const fn kind(key: &MissingKey) -> &'static str {
    if key.is_blob { "blob" } else { "manifest" }
}

fn key(key: &MissingKey) -> String {
    [&key.repo, &key.name, &key.reference, kind(key)].join("/")
}

/// `<repository>/<image>/<reference>/<kind>`: the image alone has slashes in it.
fn parse_key(text: &str) -> Result<MissingKey, ApiError> {
    let key = || {
        let (repo, rest) = text.split_once('/')?;
        let (rest, kind) = rest.rsplit_once('/')?;
        let (name, reference) = rest.rsplit_once('/')?;
        Some(MissingKey {
            repo: repo.to_owned(),
            name: name.to_owned(),
            reference: reference.to_owned(),
            is_blob: kind == "blob",
        })
    };
    key().ok_or_else(|| {
        ApiError::bad_request("last is what the link to the next page says, as it stands there")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_page_begins_is_written_and_read() {
        for is_blob in [false, true] {
            let one = MissingKey {
                repo: "hub".to_owned(),
                name: "library/nginx".to_owned(),
                reference: "sha256:00".to_owned(),
                is_blob,
            };
            assert_eq!(parse_key(&key(&one)).unwrap(), one);
        }
        for wrong in ["", "a", "a/b", "a/b/c"] {
            assert!(parse_key(wrong).is_err(), "{wrong}");
        }
    }
}
