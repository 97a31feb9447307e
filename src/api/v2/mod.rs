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
use crate::auth::Right;
use crate::body::{Body, Chunks};
use crate::oci::path::Endpoint;
use crate::oci::reference::ReferenceError;
use crate::oci::{Digest, ErrorCode, Reference};
use crate::repository::{Chosen, Repository, Target, Unresolved};

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
        let prefix = place.prefix.unwrap_or_default();
        let chosen = match call.choose(place) {
            Ok(chosen) => chosen,
            Err(Unresolved::UnknownRepository) => {
                return Err(self.no_such_prefix(call, prefix, &endpoint));
            }
            Err(unresolved) => return Err(unresolved.into()),
        };
        if let (Some(prefix), Some(key)) = (place.prefix, chosen.key())
            && matches!(endpoint, Endpoint::Base | Endpoint::Catalog)
            && !self.may_anything(call, key.as_str())
        {
            return Err(self.unknown(call, prefix));
        }
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

    /// The answer where a prefix names no repository: the same as of one that the one who asks may know nothing of.
    fn no_such_prefix(&self, call: &Call<'_>, prefix: &str, endpoint: &Endpoint) -> ApiError {
        let (right, absent) = needs(call.method, endpoint);
        match endpoint {
            Endpoint::Base | Endpoint::Catalog => self.unknown(call, prefix),
            Endpoint::Manifest { name, .. }
            | Endpoint::Blob { name, .. }
            | Endpoint::UploadStart { name }
            | Endpoint::Upload { name, .. }
            | Endpoint::Tags { name }
            | Endpoint::Referrers { name, .. } => {
                self.unknown_image(call, (prefix, name), right, absent)
            }
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
            Endpoint::Base if reads => {
                self.require_base(call)?;
                return Ok(respond::json(&serde_json::json!({})));
            }
            Endpoint::Catalog if reads => return self.catalog(call, chosen.key(), record).await,
            Endpoint::Base | Endpoint::Catalog => return Err(ApiError::method("GET, HEAD")),
            Endpoint::Manifest { name, .. } => (name, "manifest"),
            Endpoint::Blob { name, .. } => (name, "blob"),
            Endpoint::UploadStart { name } | Endpoint::Upload { name, .. } => (name, "upload"),
            Endpoint::Tags { name } => (name, "tags"),
            Endpoint::Referrers { name, .. } => (name, "referrers"),
        };
        let target = call.resolve(chosen, name)?;
        record.note_repository(target.key.as_str(), kind);
        let (right, absent) = needs(call.method, &endpoint);
        if self.config.auth.is_some() {
            self.require(call, (&target, chosen, name), right, absent)?;
        }
        let repository = call.repository(&target.key)?;
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
                let records = &self.config.records;
                manifests::manifest(call, (repository, records), image, &reference, record).await
            }
            Endpoint::Blob { digest, .. } => {
                let digest = parse_digest(digest)?;
                let may_push = self.may(call, target.key.as_str(), image.as_str(), Right::Push);
                let from = (repository, may_push, &self.config.records);
                blobs::blob(call, from, image, &digest, record).await
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
        if self.config.auth.is_none() && !self.config.open_writes {
            return Err(ApiError::no_writes());
        }
        let image = (local, &target.name);
        match endpoint {
            Endpoint::Manifest { reference, .. } => {
                let reference = parse_reference(reference)?;
                if *call.method == Method::PUT {
                    let (key, image) = (target.key.as_str(), target.name.as_str());
                    let may_read = self.may(call, key, image, Right::Pull);
                    let image = (repository, &target.name);
                    return writes::put(call, image, &reference, body, may_read).await;
                }
                writes::manifest(call, (repository, local), target, &reference).await
            }
            Endpoint::Blob { digest, .. } => {
                let digest = parse_digest(digest)?;
                writes::blob(call, (repository, local), target, &digest).await
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

/// What a request needs, and what it is told where that is not there.
const fn needs(method: &Method, endpoint: &Endpoint) -> (Right, ErrorCode) {
    match endpoint {
        Endpoint::Manifest { .. } => (written(method), ErrorCode::ManifestUnknown),
        Endpoint::Blob { .. } => (written(method), ErrorCode::BlobUnknown),
        Endpoint::UploadStart { .. } | Endpoint::Upload { .. } => {
            (Right::Push, ErrorCode::NameUnknown)
        }
        Endpoint::Tags { .. } | Endpoint::Base | Endpoint::Catalog => {
            (Right::Pull, ErrorCode::NameUnknown)
        }
        Endpoint::Referrers { .. } => (Right::Pull, ErrorCode::ManifestUnknown),
    }
}

const fn written(method: &Method) -> Right {
    match *method {
        Method::DELETE => Right::Delete,
        Method::PUT | Method::POST | Method::PATCH => Right::Push,
        _ => Right::Pull,
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
