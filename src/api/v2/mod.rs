//! The registry API (OCI distribution-spec 1.1, Docker Registry HTTP API V2).

mod blobs;
mod lists;
mod manifests;
mod uploads;
mod writes;

use http::{HeaderName, Method, Response};

use super::error::ApiError;
use super::record::Record;
use super::{Api, Call, Place, respond};
use crate::body::{Body, Chunks};
use crate::cache::Want;
use crate::oci::path::Endpoint;
use crate::oci::reference::ReferenceError;
use crate::oci::{Accept, Digest, ErrorCode, Reference};
use crate::repository::{self, Chosen, Key, Repository, Target};

impl Api {
    /// Answers a request under `/v2`.
    pub(super) async fn registry(
        &self,
        call: &Call<'_>,
        place: Place<'_>,
        endpoint: Endpoint,
        body: Chunks,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        let chosen = self.choose(call, place)?;
        let answer = self.endpoint(call, &chosen, endpoint, body, record).await;
        let Some(namespace) = chosen.namespace() else {
            return answer;
        };
        let name = HeaderName::from_static("oci-namespace");
        match answer {
            Ok(mut response) => {
                respond::set(response.headers_mut(), name, namespace);
                Ok(response)
            }
            Err(error) => Err(error.with_header(name, namespace)),
        }
    }

    async fn endpoint(
        &self,
        call: &Call<'_>,
        chosen: &Chosen<'_>,
        endpoint: Endpoint,
        body: Chunks,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        let reads = matches!(*call.method, Method::GET | Method::HEAD);
        let writes = matches!(
            *call.method,
            Method::PUT | Method::POST | Method::PATCH | Method::DELETE
        );
        if !reads && !writes {
            return Err(ApiError::method("GET, HEAD"));
        }
        let (name, kind) = match &endpoint {
            Endpoint::Base if reads => return Ok(respond::json(&serde_json::json!({}))),
            Endpoint::Catalog if reads => return self.catalog(call, chosen.key(), record).await,
            Endpoint::Base | Endpoint::Catalog => return Err(ApiError::method("GET, HEAD")),
            Endpoint::Manifest { name, .. } => (name, "manifest"),
            Endpoint::Blob { name, .. } => (name, "blob"),
            Endpoint::UploadStart { name } | Endpoint::Upload { name, .. } => (name, "upload"),
            Endpoint::Tags { name } => (name, "tags"),
            Endpoint::Referrers { name, .. } => (name, "referrers"),
        };
        let (target, repository) = self.resolve(chosen, name)?;
        record.note_repository(target.key.as_str(), kind);
        let image = &target.name;
        let uploads = matches!(
            endpoint,
            Endpoint::Upload { .. } | Endpoint::UploadStart { .. }
        );
        if writes || uploads {
            return self
                .write(call, chosen, (&target, repository), &endpoint, body)
                .await;
        }
        match &endpoint {
            Endpoint::Manifest { reference, .. } => {
                let reference = match (parse_reference(reference), repository.takes_writes()) {
                    // What cannot be pushed here is not here: that is what clients of a registry expect to be told.
                    (Err(_), true) if !reference.contains(':') => {
                        return Err(ApiError::from_overlay(
                            crate::overlay::Error::ManifestUnknown,
                        ));
                    }
                    (parsed, _) => parsed?,
                };
                manifests::manifest(call, repository, image, &reference, record).await
            }
            Endpoint::Blob { digest, .. } => {
                let digest = parse_digest(digest)?;
                let answer = blobs::blob(call, repository, image, &digest, record).await;
                let is_question_of_a_push = *call.method == Method::HEAD
                    && self.config.open_writes
                    && matches!(repository, Repository::Virtual(_))
                    && repository.writable(image).is_some();
                match answer {
                    // Clients ask so before they push, and give up at anything but yes and no (ADR 8).
                    Err(error) if is_question_of_a_push && error.is_outage() => {
                        Err(ApiError::from_overlay(crate::overlay::Error::BlobUnknown))
                    }
                    answer => answer,
                }
            }
            Endpoint::Tags { name } => lists::tags(call, repository, image, name, record).await,
            Endpoint::Referrers { digest, .. } => {
                lists::referrers(call, repository, image, &parse_digest(digest)?, record).await
            }
            Endpoint::Upload { .. }
            | Endpoint::UploadStart { .. }
            | Endpoint::Base
            | Endpoint::Catalog => Err(ApiError::not_found()),
        }
    }
}

impl Api {
    /// Answers what changes something, and what looks at a change under way.
    async fn write(
        &self,
        call: &Call<'_>,
        chosen: &Chosen<'_>,
        (target, repository): (&Target, &Repository),
        endpoint: &Endpoint,
        body: Chunks,
    ) -> Result<Response<Body>, ApiError> {
        let reads = matches!(*call.method, Method::GET | Method::HEAD);
        let Some(local) = repository.writable(&target.name) else {
            let is_session = matches!(endpoint, Endpoint::Upload { .. });
            return Err(match (reads, is_session) {
                (true, true) => ApiError::no_upload(),
                (true, false) => ApiError::method("POST"),
                (false, _) => ApiError::read_only(&target.key),
            });
        };
        if !self.config.open_writes {
            return Err(ApiError::no_writes());
        }
        let image = (local, &target.name);
        match endpoint {
            Endpoint::Manifest { reference, .. } => {
                let reference = parse_reference(reference)?;
                let written = match *call.method {
                    Method::PUT => {
                        writes::put(call, (repository, &target.name), &reference, body).await
                    }
                    _ => writes::manifest(call, image, &reference).await,
                };
                match written {
                    Err(error) if error.is_absence() => {
                        Err(only_elsewhere(call, (target, repository), &reference, error).await)
                    }
                    written => written,
                }
            }
            Endpoint::Blob { digest, .. } => {
                let digest = parse_digest(digest)?;
                match writes::blob(call, image, &digest).await {
                    Err(error) if error.is_absence() => {
                        let there = repository.stat_blob(&call.hops, &target.name, &digest);
                        let found = there.await.map(|found| found.member);
                        Err(elsewhere(target, found, error))
                    }
                    written => written,
                }
            }
            Endpoint::UploadStart { .. } => uploads::start(self, call, chosen, image, body).await,
            Endpoint::Upload { id, .. } => uploads::go_on(call, image, id, body).await,
            Endpoint::Tags { .. }
            | Endpoint::Referrers { .. }
            | Endpoint::Base
            | Endpoint::Catalog => Err(ApiError::method("GET, HEAD")),
        }
    }
}

/// What a virtual repository's target does not have may be there in another member; that is refused, and not absent.
async fn only_elsewhere(
    call: &Call<'_>,
    (target, repository): (&Target, &Repository),
    reference: &Reference,
    error: ApiError,
) -> ApiError {
    let accept = Accept::everything();
    let there = repository.manifest(&call.hops, &target.name, reference, &accept, Want::Head);
    let found = there.await.map(|found| found.member);
    elsewhere(target, found, error)
}

/// `found`: the member that has it.
fn elsewhere(
    target: &Target,
    found: Result<Option<Key>, repository::Error>,
    error: ApiError,
) -> ApiError {
    match found {
        Ok(Some(_)) => ApiError::read_only(&target.key),
        Ok(None) => error,
        Err(absent) if absent.is_absence() => error,
        // Whether it is there nobody could say.
        Err(failed) => ApiError::from_repository(failed, ErrorCode::ManifestUnknown),
    }
}

fn parse_reference(text: &str) -> Result<Reference, ApiError> {
    Reference::parse(text).map_err(|error| match error {
        ReferenceError::Digest(error) => ApiError::invalid(ErrorCode::DigestInvalid, error),
        ReferenceError::Tag(error) => ApiError::invalid(ErrorCode::TagInvalid, error),
    })
}

fn parse_digest(text: &str) -> Result<Digest, ApiError> {
    Digest::parse(text).map_err(|error| ApiError::invalid(ErrorCode::DigestInvalid, error))
}
