//! Pushing and deleting manifests, deleting blobs (distribution-spec, "Pushing Manifests", "Content Management").

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::super::error::ApiError;
use super::super::{Call, respond};
use super::uploads::namespaced;
use crate::body::{self, Body, Chunks, WholeError};
use crate::cache::Want;
use crate::oci::manifest::MANIFEST_MAX;
use crate::oci::{Accept, Digest, ErrorCode, MediaType, Name, Reference, Tag};
use crate::overlay::{self, Local, PutManifest, TAGS_MAX};
use crate::repository::{self, Key, Repository, Target};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// `DELETE …/manifests/<reference>`.
pub(super) async fn manifest(
    call: &Call<'_>,
    (repository, local): (&Repository, &Local),
    target: &Target,
    reference: &Reference,
) -> Result<Response<Body>, ApiError> {
    if *call.method != Method::DELETE {
        return Err(ApiError::method("GET, HEAD, PUT, DELETE"));
    }
    let name = &target.name;
    let deleted = match reference {
        Reference::Tag(tag) => local.delete_tag(name, tag).await,
        Reference::Digest(digest) => local.delete_manifest(name, digest).await,
    };
    match deleted {
        Ok(()) => Ok(accepted()),
        Err(absent @ overlay::Error::ManifestUnknown) => {
            let accept = Accept::everything();
            let there = repository.manifest(&call.hops, name, reference, &accept, Want::Head);
            Err(elsewhere(
                target,
                there.await.map(|found| found.member),
                absent,
            ))
        }
        Err(error) => Err(ApiError::from_overlay(error)),
    }
}

/// What a virtual repository's target does not have may be there in another member: that is refused, and not absent.
fn elsewhere(
    target: &Target,
    found: Result<Option<Key>, repository::Error>,
    absent: overlay::Error,
) -> ApiError {
    match found {
        Ok(Some(_)) => ApiError::read_only(&target.key),
        Ok(None) => ApiError::from_overlay(absent),
        Err(error) if error.is_absence() => ApiError::from_overlay(absent),
        // Whether it is there nobody could say.
        Err(error) => ApiError::from_repository(error, ErrorCode::ManifestUnknown),
    }
}

/// `PUT …/manifests/<reference>`.
pub(super) async fn put(
    call: &Call<'_>,
    (repository, name): (&Repository, &Name),
    reference: &Reference,
    body: Chunks,
    may_read: bool,
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
        return Err(ApiError::from_overlay(overlay::Error::TooManyTags));
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
        bytes: whole(call, body).await?,
    };
    // Boxed: a body that comes slowly does not need the room for what is done with it.
    let put = Box::pin(repository.put_manifest(&call.hops, name, put, may_read))
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
    let location = namespaced(call, format!("{image}/manifests/{}", put.digest));
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
    (repository, local): (&Repository, &Local),
    target: &Target,
    digest: &Digest,
) -> Result<Response<Body>, ApiError> {
    if *call.method != Method::DELETE {
        return Err(ApiError::method("GET, HEAD, DELETE"));
    }
    match local.delete_blob(&target.name, digest).await {
        Ok(()) => Ok(accepted()),
        Err(absent @ overlay::Error::BlobUnknown) => {
            let there = repository.stat_blob(&call.hops, &target.name, digest);
            Err(elsewhere(
                target,
                there.await.map(|found| found.member),
                absent,
            ))
        }
        Err(error) => Err(ApiError::from_overlay(error)),
    }
}

/// The body of a manifest, bounded.
async fn whole(call: &Call<'_>, body: Chunks) -> Result<Bytes, ApiError> {
    let announced = call
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MANIFEST_MAX as u64) {
        return Err(ApiError::too_large());
    }
    body::whole(body, MANIFEST_MAX)
        .await
        .map_err(|error| match error {
            WholeError::TooLong(_) => ApiError::too_large(),
            WholeError::Broken(error) => ApiError::invalid(ErrorCode::ManifestInvalid, error),
        })
}

fn accepted() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    response
}
