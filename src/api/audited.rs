//! Which requests are written down for an audit, and as what. Pure.

use http::{Method, StatusCode};

use super::route::{Carry, Route};
use crate::oci::path::Endpoint;

/// What a request does, if it is one that changes something.
pub(super) fn action(method: &Method, route: &Route) -> Option<&'static str> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    let is_delete = *method == Method::DELETE;
    match route {
        Route::Registry { endpoint, .. } => match endpoint {
            Endpoint::Manifest { .. } | Endpoint::Blob { .. } if is_delete => Some("delete"),
            Endpoint::Manifest { .. } => Some("push"),
            // A piece of an upload, or its end without a blob, has changed nothing that anybody can read.
            Endpoint::UploadStart { .. } => Some(UPLOAD),
            Endpoint::Upload { .. } if *method == Method::PUT => Some(UPLOAD),
            Endpoint::Upload { .. }
            | Endpoint::Blob { .. }
            | Endpoint::Base
            | Endpoint::Catalog
            | Endpoint::Tags { .. }
            | Endpoint::Referrers { .. } => None,
        },
        Route::Promote { .. } => Some("promote"),
        Route::Artifact { .. } => is_delete.then_some("delete"),
        Route::Storage { .. } => Some("properties"),
        Route::Repositories { .. } => Some("configure"),
        Route::Tag { .. } => Some("tag"),
        Route::Collection => Some("collect"),
        Route::Pins => Some("pin"),
        Route::Tokens { .. } => Some("token"),
        Route::Verification => Some("verify"),
        Route::Missing => Some("missing"),
        Route::Live
        | Route::Ready
        | Route::Metrics
        | Route::Search { .. }
        | Route::System { .. }
        | Route::Audit
        | Route::Quota
        | Route::Explain
        | Route::Pulls
        | Route::Pulled
        | Route::Token { .. } => None,
        Route::Carry(carry) => match carry {
            Carry::Export => Some("export"),
            Carry::Import { commit: true } => Some("import"),
            Carry::Sync => Some("sync"),
            Carry::Copy => Some("copy"),
            Carry::Import { commit: false }
            | Carry::Content { .. }
            | Carry::Inventory
            | Carry::Lock => None,
        },
    }
}

const UPLOAD: &str = "upload";

/// How it went; `None`: it has done nothing yet.
pub(super) fn outcome(action: &str, status: StatusCode) -> Option<&'static str> {
    match status.as_u16() {
        // Where to send the bytes.
        202 if action == UPLOAD => None,
        0..=399 => Some("done"),
        400..=499 => Some("refused"),
        _ => Some("failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::route;
    use super::*;

    #[test]
    fn what_changes_something_is_written_down() {
        for (method, path, expected) in [
            (Method::PUT, "/v2/a/b/manifests/1", Some("push")),
            (Method::DELETE, "/v2/a/b/manifests/1", Some("delete")),
            (Method::GET, "/v2/a/b/manifests/1", None),
            (Method::HEAD, "/v2/a/b/manifests/1", None),
            (Method::POST, "/v2/a/b/blobs/uploads/", Some("upload")),
            (Method::PATCH, "/v2/a/b/blobs/uploads/id", None),
            (Method::PUT, "/v2/a/b/blobs/uploads/id", Some("upload")),
            (Method::DELETE, "/v2/a/b/blobs/uploads/id", None),
            (
                Method::POST,
                "/artifactory/api/docker/dev/v2/promote",
                Some("promote"),
            ),
            (Method::DELETE, "/artifactory/dev/a/1", Some("delete")),
            (Method::PUT, "/api/storage/dev/a/1", Some("properties")),
            (Method::PUT, "/api/repositories/dev", Some("configure")),
            (Method::POST, "/api/search/aql", None),
            (Method::POST, "/admin/tags/dev/a/1", Some("tag")),
            (Method::DELETE, "/admin/missing", Some("missing")),
            (Method::GET, "/admin/missing", None),
            (Method::POST, "/v2/token", None),
        ] {
            let route = route::parse(path).unwrap();
            assert_eq!(action(&method, &route), expected, "{method} {path}");
        }
        assert_eq!(outcome(UPLOAD, StatusCode::ACCEPTED), None);
        assert_eq!(outcome("delete", StatusCode::ACCEPTED), Some("done"));
        assert_eq!(outcome("push", StatusCode::FORBIDDEN), Some("refused"));
        assert_eq!(
            outcome("push", StatusCode::INSUFFICIENT_STORAGE),
            Some("failed")
        );
    }
}
