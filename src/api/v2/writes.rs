//! Pushing and deleting manifests, deleting blobs (distribution-spec, "Pushing Manifests", "Content Management").

use bytes::BytesMut;
use futures_util::StreamExt as _;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::super::error::ApiError;
use super::super::{Call, respond};
use crate::body::{Body, Chunks};
use crate::oci::manifest::MANIFEST_MAX;
use crate::oci::{Digest, ErrorCode, MediaType, Name, Reference, Tag};
use crate::overlay::{Local, PutManifest, TAGS_MAX};
use crate::repository::Repository;

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// `DELETE …/manifests/<reference>`.
pub(super) async fn manifest(
    call: &Call<'_>,
    (local, name): (&Local, &Name),
    reference: &Reference,
) -> Result<Response<Body>, ApiError> {
    match *call.method {
        Method::DELETE => {
            let deleted = match reference {
                Reference::Tag(tag) => local.delete_tag(name, tag).await,
                Reference::Digest(digest) => local.delete_manifest(name, digest).await,
            };
            deleted.map_err(ApiError::from_overlay)?;
            Ok(accepted())
        }
        _ => Err(ApiError::method("GET, HEAD, PUT, DELETE")),
    }
}

/// `PUT …/manifests/<reference>`.
pub(super) async fn put(
    call: &Call<'_>,
    (repository, name): (&Repository, &Name),
    reference: &Reference,
    body: Chunks,
) -> Result<Response<Body>, ApiError> {
    let (digest, mut tags) = match reference {
        Reference::Tag(tag) => (None, vec![tag.clone()]),
        Reference::Digest(digest) => (Some(digest.clone()), Vec::new()),
    };
    let mut named = Vec::new();
    for (_, text) in call.query.iter().filter(|(key, _)| key == "tag") {
        let tag =
            Tag::parse(text).map_err(|error| ApiError::invalid(ErrorCode::TagInvalid, error))?;
        if !named.contains(&tag) {
            named.push(tag);
        }
    }
    if named.len() > TAGS_MAX {
        return Err(ApiError::from_overlay(crate::overlay::Error::TooManyTags));
    }
    tags.extend(
        named
            .iter()
            .filter(|tag| !tags.contains(tag))
            .cloned()
            .collect::<Vec<_>>(),
    );
    let media_type = match call.headers.get(header::CONTENT_TYPE) {
        None => None,
        Some(value) => {
            let parsed = value.to_str().ok().and_then(MediaType::parse);
            let wrong = "the Content-Type is no media type";
            Some(parsed.ok_or_else(|| ApiError::invalid(ErrorCode::ManifestInvalid, wrong))?)
        }
    };
    let put = PutManifest {
        digest,
        tags,
        media_type,
        bytes: whole(call, body).await?.freeze(),
    };
    let put = repository
        .put_manifest(&call.hops, name, put)
        .await
        .map_err(|error| ApiError::from_repository(error, ErrorCode::ManifestBlobUnknown))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    let image = call
        .path
        .rfind("/manifests/")
        .and_then(|end| call.path.get(..end))
        .unwrap_or_default();
    let location = format!("{image}/manifests/{}", put.digest);
    respond::set(headers, header::LOCATION, &location);
    respond::digest(headers, &put.digest);
    if let Some(subject) = &put.subject {
        respond::set(headers, OCI_SUBJECT, &subject.to_string());
    }
    for tag in &named {
        if let Ok(value) = HeaderValue::from_str(tag.as_str()) {
            headers.append(OCI_TAG, value);
        }
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    Ok(response)
}

/// `DELETE …/blobs/<digest>`.
pub(super) async fn blob(
    call: &Call<'_>,
    (local, name): (&Local, &Name),
    digest: &Digest,
) -> Result<Response<Body>, ApiError> {
    if *call.method != Method::DELETE {
        return Err(ApiError::method("GET, HEAD, DELETE"));
    }
    local
        .delete_blob(name, digest)
        .await
        .map_err(ApiError::from_overlay)?;
    Ok(accepted())
}

/// The body of a manifest, bounded.
async fn whole(call: &Call<'_>, mut body: Chunks) -> Result<BytesMut, ApiError> {
    let announced = call
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MANIFEST_MAX as u64) {
        return Err(ApiError::too_large());
    }
    let mut whole = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| ApiError::invalid(ErrorCode::ManifestInvalid, error))?;
        if whole.len() + chunk.len() > MANIFEST_MAX {
            return Err(ApiError::too_large());
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

fn accepted() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    response
}
