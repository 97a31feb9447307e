//! `GET` and `HEAD /v2/<name>/manifests/<reference>`.

use http::{HeaderValue, Method, Response, StatusCode, header};

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::{Call, respond};
use crate::body::Body;
use crate::cache::Want;
use crate::oci::{Accept, ErrorCode, Name, Reference};
use crate::repository::records::{Asked, Records};
use crate::repository::{Key, Repository};

pub(super) async fn manifest(
    call: &Call<'_>,
    (repository, records): (&Repository, &Records),
    name: &Name,
    reference: &Reference,
    record: &mut Record,
) -> Result<Response<Body>, ApiError> {
    // A GET that may end in 304 needs no body.
    let want = if *call.method == Method::HEAD {
        Want::Head
    } else {
        Want::Body
    };
    let accept = Accept::parse(
        call.headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok()),
    );
    let found = repository
        .manifest(&call.hops, name, reference, &accept, want)
        .await;
    let who = call.identity.shown();
    let client = record.client();
    let asked = Asked {
        repository: repository.key(),
        image: name,
        reference,
        is_blob: false,
        who: &who,
        client: &client,
    };
    let found = found.map_err(|error| {
        records.missed(&asked, &error);
        ApiError::from_repository(error, ErrorCode::ManifestUnknown)
    })?;
    let opened = record.note_found(found);
    let unchanged = respond::not_modified(call.headers, &opened.told.digest);
    let told = &opened.told;
    let member = record.member().map_or(asked.repository, Key::as_str);
    match want {
        Want::Head => records.told(&asked, &told.digest),
        Want::Body => {
            let tag = if unchanged {
                None
            } else {
                records.pulled(&asked, member, &told.digest, &told.media_type)
            };
            let by = (&*call.there, member);
            records.served(&asked, by, &told.digest, tag.as_ref());
        }
    }
    let body = if unchanged {
        Body::empty()
    } else {
        opened.bytes.map_or_else(Body::empty, Body::full)
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    respond::digest(headers, &opened.told.digest);
    respond::cache(headers, opened.status, record);
    if matches!(reference, Reference::Digest(_)) {
        headers.insert(header::CACHE_CONTROL, respond::IMMUTABLE);
    }
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    respond::set(
        headers,
        header::CONTENT_TYPE,
        opened.told.media_type.as_str(),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(opened.told.size));
    Ok(response)
}
