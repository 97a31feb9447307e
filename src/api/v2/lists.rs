//! Tag lists, referrers, the catalog: paged (`n`, `last`, `Link`).

use http::{HeaderName, HeaderValue, Response, header};
use serde_json::json;

use super::super::error::ApiError;
use super::super::paging::{link_next, parse_page};
use super::super::record::Record;
use super::super::{Api, Call, respond};
use crate::body::Body;
use crate::oci::media_type::OCI_INDEX;
use crate::oci::page::{self, Page};
use crate::oci::{Digest, ErrorCode, Name, referrers};
use crate::repository::{Key, Repository};

pub(super) async fn tags(
    call: &Call<'_>,
    repository: &Repository,
    name: &Name,
    shown: &str,
    record: &mut Record,
) -> Result<Response<Body>, ApiError> {
    let page = parse_page(call)?;
    let found = repository
        .tags(&call.hops, name)
        .await
        .map_err(|error| ApiError::from_repository(error, ErrorCode::NameUnknown))?;
    let (tags, status) = record.note_found(found);
    let (cut, next) = page::cut(&tags, &page);
    let mut response = respond::json(&json!({ "name": shown, "tags": cut }));
    respond::cache(response.headers_mut(), status, record);
    link_next(call, &mut response, next.map(|next| next.query()));
    Ok(response)
}

pub(super) async fn referrers(
    call: &Call<'_>,
    repository: &Repository,
    name: &Name,
    subject: &Digest,
    record: &mut Record,
) -> Result<Response<Body>, ApiError> {
    let found = repository
        .referrers(&call.hops, name, subject)
        .await
        .map_err(|error| ApiError::from_repository(error, ErrorCode::ManifestUnknown))?;
    let (mut list, status) = record.note_found(found);
    let wanted = call
        .query
        .iter()
        .find(|(key, value)| key == "artifactType" && !value.is_empty())
        .map(|(_, value)| value.as_str());
    if let Some(artifact_type) = wanted {
        list.retain(|entry| entry.artifact_type() == Some(artifact_type));
    }
    // A list as upstream gives it stays in its order as long as it is one page.
    let page = parse_page(call)?;
    if page != Page::default() || list.len() > page::PAGE_MAX {
        list.sort_by_key(|entry| entry.digest().to_string());
    }
    let (cut, next) = page::cut_capped(&list, &page, |entry| entry.digest().to_string());
    let mut response = Response::new(Body::full(referrers::render_index(cut)));
    link_next(call, &mut response, next.map(|next| next.query()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
    if wanted.is_some() {
        headers.insert(
            HeaderName::from_static("oci-filters-applied"),
            HeaderValue::from_static("artifactType"),
        );
    }
    respond::cache(headers, status, record);
    Ok(response)
}

impl Api {
    /// The images that are known here: of one repository where the request names one, else of all, each as it would be pulled.
    pub(super) async fn catalog(
        &self,
        call: &Call<'_>,
        one: Option<&Key>,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        let page = parse_page(call)?;
        let definitions = call.there.definitions();
        let mut names = Vec::new();
        for key in definitions.keys() {
            if one.is_some_and(|one| one != key) {
                continue;
            }
            let Some(repository) = call.there.get(key) else {
                continue;
            };
            if !self.may_list(call, key.as_str(), None) {
                continue;
            }
            let known = repository
                .names()
                .await
                .map_err(|error| ApiError::from_repository(error, ErrorCode::NameUnknown))?;
            let shown = |name: &String| self.may_list(call, key.as_str(), Some(name));
            let known = known.into_iter().filter(shown);
            let plain = one.is_some() || key == definitions.default_key();
            names.extend(known.map(|name| if plain { name } else { format!("{key}/{name}") }));
        }
        self.require_listing(call, names.is_empty())?;
        names.sort_unstable();
        record.note_repository(one.map_or("-", |key| key.as_str()), "catalog");
        let (cut, next) = page::cut(&names, &page);
        let mut response = respond::json(&json!({ "repositories": cut }));
        link_next(call, &mut response, next.map(|next| next.query()));
        Ok(response)
    }
}
