//! The registry API (OCI distribution-spec 1.1, Docker Registry HTTP API V2), reading.

mod blobs;
mod lists;
mod manifests;

use http::{HeaderName, HeaderValue, Method, Response, header};

use super::error::ApiError;
use super::record::Record;
use super::{Api, Call, Place, respond};
use crate::body::Body;
use crate::oci::path::Endpoint;
use crate::oci::{Digest, ErrorCode, Reference};

impl Api {
    /// Answers a request under `/v2`.
    pub(super) async fn registry(
        &self,
        call: &Call<'_>,
        place: Place<'_>,
        endpoint: Endpoint,
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
            Endpoint::Base if reads => return Ok(json("{}".to_owned())),
            Endpoint::Catalog if reads => return self.catalog(call, place, record).await,
            Endpoint::Base | Endpoint::Catalog => return Err(ApiError::method("GET, HEAD")),
            Endpoint::Manifest { name, .. } => (name, "manifest"),
            Endpoint::Blob { name, .. } => (name, "blob"),
            Endpoint::UploadStart { name } | Endpoint::Upload { name, .. } => (name, "upload"),
            Endpoint::Tags { name } => (name, "tags"),
            Endpoint::Referrers { name, .. } => (name, "referrers"),
        };
        let (target, cache) = self.resolve(call, place, name)?;
        record.note_repository(target.key.as_str(), kind);
        if writes {
            return Err(ApiError::read_only(&target.key));
        }
        let image = &target.name;
        let answer = match &endpoint {
            Endpoint::Manifest { reference, .. } => {
                let reference = Reference::parse(reference).map_err(|error| match error {
                    crate::oci::reference::ReferenceError::Digest(error) => {
                        ApiError::invalid(ErrorCode::DigestInvalid, error)
                    }
                    crate::oci::reference::ReferenceError::Tag(error) => {
                        ApiError::invalid(ErrorCode::TagInvalid, error)
                    }
                })?;
                manifests::manifest(call, cache, image, &reference, record).await
            }
            Endpoint::Blob { digest, .. } => {
                blobs::blob(call, cache, image, &parse_digest(digest)?, record).await
            }
            Endpoint::Tags { name } => lists::tags(call, cache, image, name, record).await,
            Endpoint::Referrers { digest, .. } => {
                lists::referrers(call, cache, image, &parse_digest(digest)?, record).await
            }
            Endpoint::Upload { .. } => Err(ApiError::no_upload()),
            Endpoint::UploadStart { .. } => Err(ApiError::method("POST")),
            Endpoint::Base | Endpoint::Catalog => Err(ApiError::not_found()),
        };
        let mut response = answer?;
        if let Some(namespace) = &target.namespace {
            respond::set(
                response.headers_mut(),
                HeaderName::from_static("oci-namespace"),
                namespace,
            );
        }
        Ok(response)
    }
}

fn parse_digest(text: &str) -> Result<Digest, ApiError> {
    Digest::parse(text).map_err(|error| ApiError::invalid(ErrorCode::DigestInvalid, error))
}

fn json(text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
