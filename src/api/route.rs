//! What a path means. Pure.

use http::Method;

use crate::limits::Class;
use crate::oci::path::{self, Endpoint, PathError};
use crate::repository::split_prefix;

use super::error::ApiError;

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `/livez`
    Live,
    /// `/readyz`
    Ready,
    /// `/metrics`
    Metrics,
    /// `POST …/v2/promote`, with what stood before `/v2`
    Promote {
        prefix: Option<String>,
        /// Under `/artifactory` or `/api`, where errors have another envelope.
        is_artifactory: bool,
    },
    /// `/artifactory/<key>/<path>`, without what stands before the key
    Artifact { path: String },
    /// `/api/storage/<key>/<path>`, from the key on
    Storage { path: String },
    /// `/api/search/<kind>`
    Search { kind: String },
    /// `/api/repositories[/<key>]`
    Repositories { key: Option<String> },
    /// `/api/system/<what>`
    System { what: String },
    /// `/admin/audit`
    Audit,
    /// `/admin/gc`
    Collection,
    /// `/admin/pins`
    Pins,
    /// `/admin/quota`
    Quota,
    /// `/admin/explain`
    Explain,
    /// `/admin/pulls`
    Pulls,
    /// `/admin/pulled`
    Pulled,
    /// `/admin/missing`
    Missing,
    /// `/admin/tokens[/<name>]`
    Tokens { name: Option<String> },
    /// `/admin/verify`
    Verification,
    /// What commands of the owner stream over the admin socket.
    Carry(Carry),
    /// `/admin/tags/<key>/<image>/<tag>`, from the key on
    Tag { path: String },
    /// `…/v2/token`, with what stood before `/v2`
    Token { prefix: Option<String> },
    /// Something under `/v2`, with what stood before it.
    Registry {
        prefix: Option<String>,
        endpoint: Endpoint,
    },
}

/// What is carried in or out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Carry {
    /// `/admin/export`
    Export,
    /// `/admin/import`, and `/admin/import/commit`
    Import { commit: bool },
    /// `/admin/inventory`
    Inventory,
    /// `/admin/lock`
    Lock,
    /// `/admin/sync`
    Sync,
    /// `/admin/copy`
    Copy,
    /// `/admin/content/<digest>`
    Content { digest: String },
}

impl Carry {
    /// What stands behind `/admin/`.
    fn of(path: &str) -> Option<Self> {
        if let Some(digest) = path.strip_prefix("content/") {
            return Some(Self::Content {
                digest: digest.to_owned(),
            });
        }
        match path {
            "export" => Some(Self::Export),
            "import" => Some(Self::Import { commit: false }),
            "import/commit" => Some(Self::Import { commit: true }),
            "inventory" => Some(Self::Inventory),
            "lock" => Some(Self::Lock),
            "sync" => Some(Self::Sync),
            "copy" => Some(Self::Copy),
            _ => None,
        }
    }
}

impl Route {
    /// Whether a listener for administration has it.
    pub(super) const fn is_administration(&self) -> bool {
        match self {
            Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::Audit
            | Self::Collection
            | Self::Pins
            | Self::Quota
            | Self::Explain
            | Self::Pulls
            | Self::Pulled
            | Self::Missing
            | Self::Tag { .. }
            | Self::Tokens { .. }
            | Self::Carry(_)
            | Self::Verification => true,
            Self::Promote { .. }
            | Self::Artifact { .. }
            | Self::Storage { .. }
            | Self::Search { .. }
            | Self::Repositories { .. }
            | Self::System { .. }
            | Self::Token { .. }
            | Self::Registry { .. } => false,
        }
    }

    /// What a request for it is counted as, where clients are limited.
    pub(super) fn class(&self, method: &Method) -> Class {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match self {
            Self::Token { .. } => Class::Login,
            Self::Live | Self::Ready | Self::Metrics | Self::Search { .. } => Class::Other,
            Self::Registry { endpoint, .. } => match endpoint {
                Endpoint::Upload { .. } | Endpoint::UploadStart { .. } => Class::Write,
                _ if !reads => Class::Write,
                Endpoint::Blob { .. } => Class::Blob,
                Endpoint::Manifest { .. }
                | Endpoint::Tags { .. }
                | Endpoint::Referrers { .. }
                | Endpoint::Catalog => Class::Manifest,
                Endpoint::Base => Class::Other,
            },
            _ if reads => Class::Other,
            Self::Promote { .. }
            | Self::Artifact { .. }
            | Self::Storage { .. }
            | Self::Repositories { .. }
            | Self::System { .. }
            | Self::Audit
            | Self::Pins
            | Self::Quota
            | Self::Explain
            | Self::Pulls
            | Self::Pulled
            | Self::Missing
            | Self::Collection
            | Self::Carry(_)
            | Self::Verification
            | Self::Tokens { .. }
            | Self::Tag { .. } => Class::Write,
        }
    }

    /// Whether even reading it tells of the mirror and not of an image that was asked for by its name.
    pub(super) const fn tells_of_the_mirror(&self) -> bool {
        match self {
            Self::Metrics
            | Self::Audit
            | Self::Pins
            | Self::Quota
            | Self::Explain
            | Self::Pulls
            | Self::Pulled
            | Self::Missing
            | Self::Collection
            | Self::Carry(_)
            | Self::Verification
            | Self::Tokens { .. }
            | Self::Tag { .. }
            | Self::Storage { .. }
            | Self::Search { .. }
            | Self::Repositories { .. } => true,
            Self::Live
            | Self::Ready
            | Self::Promote { .. }
            | Self::Artifact { .. }
            | Self::System { .. }
            | Self::Token { .. }
            | Self::Registry { .. } => false,
        }
    }

    /// Whether its errors have Artifactory's envelope.
    pub(super) const fn is_artifactory(&self) -> bool {
        match self {
            Self::Promote { is_artifactory, .. } => *is_artifactory,
            Self::Artifact { .. }
            | Self::Storage { .. }
            | Self::Search { .. }
            | Self::Repositories { .. }
            | Self::System { .. } => true,
            Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::Audit
            | Self::Collection
            | Self::Pins
            | Self::Quota
            | Self::Explain
            | Self::Pulls
            | Self::Pulled
            | Self::Missing
            | Self::Tag { .. }
            | Self::Tokens { .. }
            | Self::Verification
            | Self::Carry(_)
            | Self::Token { .. }
            | Self::Registry { .. } => false,
        }
    }
}

/// Reads a path. Nothing is normalised: what is not exactly a known shape is refused.
pub(super) fn parse(path: &str) -> Result<Route, ApiError> {
    match path {
        "/livez" => return Ok(Route::Live),
        "/readyz" => return Ok(Route::Ready),
        "/metrics" => return Ok(Route::Metrics),
        "/admin/audit" => return Ok(Route::Audit),
        "/admin/gc" => return Ok(Route::Collection),
        "/admin/pins" => return Ok(Route::Pins),
        "/admin/quota" => return Ok(Route::Quota),
        "/admin/explain" => return Ok(Route::Explain),
        "/admin/pulls" => return Ok(Route::Pulls),
        "/admin/pulled" => return Ok(Route::Pulled),
        "/admin/missing" => return Ok(Route::Missing),
        "/admin/tokens" => return Ok(Route::Tokens { name: None }),
        "/admin/verify" => return Ok(Route::Verification),
        _ => {}
    }
    if let Some(carry) = path.strip_prefix("/admin/").and_then(Carry::of) {
        return Ok(Route::Carry(carry));
    }
    if let Some(tag) = path.strip_prefix("/admin/tags/") {
        return Ok(Route::Tag {
            path: tag.to_owned(),
        });
    }
    if let Some(name) = path.strip_prefix("/admin/tokens/") {
        return Ok(Route::Tokens {
            name: Some(name.to_owned()),
        });
    }
    let api = path
        .strip_prefix("/artifactory/api/")
        .or_else(|| path.strip_prefix("/api/"));
    if let Some(path) = api.and_then(|api| api.strip_prefix("storage/")) {
        return Ok(Route::Storage {
            path: path.to_owned(),
        });
    }
    if let Some(rest) = api.and_then(|api| api.strip_prefix("repositories"))
        && (rest.is_empty() || rest.starts_with('/'))
    {
        let key = rest.trim_start_matches('/').trim_end_matches('/');
        return Ok(Route::Repositories {
            key: (!key.is_empty()).then(|| key.to_owned()),
        });
    }
    if let Some(what) = api.and_then(|api| api.strip_prefix("system/")) {
        return Ok(Route::System {
            what: what.to_owned(),
        });
    }
    if let Some(kind) = api.and_then(|api| api.strip_prefix("search/")) {
        return Ok(Route::Search {
            kind: kind.to_owned(),
        });
    }
    if let Some(artifact) = path.strip_prefix("/artifactory/")
        && !artifact.starts_with("api/")
        && split_prefix(path).is_none()
    {
        return Ok(Route::Artifact {
            path: artifact.to_owned(),
        });
    }
    let (prefix, rest) = split_prefix(path).ok_or_else(ApiError::not_found)?;
    if rest == "/promote" {
        return Ok(Route::Promote {
            prefix: prefix.map(str::to_owned),
            is_artifactory: path.starts_with("/artifactory/") || path.starts_with("/api/"),
        });
    }
    if rest == "/token" {
        return Ok(Route::Token {
            prefix: prefix.map(str::to_owned),
        });
    }
    let endpoint = path::split(rest).map_err(|error| match error {
        PathError::Malformed => ApiError::malformed_path(),
        PathError::NotFound => ApiError::not_found(),
    })?;
    Ok(Route::Registry {
        prefix: prefix.map(str::to_owned),
        endpoint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_what_they_mean() {
        assert_eq!(parse("/livez").unwrap(), Route::Live);
        assert_eq!(
            parse("/v2/").unwrap(),
            Route::Registry {
                prefix: None,
                endpoint: Endpoint::Base
            }
        );
        for (path, prefix, is_artifactory) in [
            ("/artifactory/api/docker/dev/v2/promote", Some("dev"), true),
            ("/api/docker/dev/v2/promote", Some("dev"), true),
            ("/dev/v2/promote", Some("dev"), false),
            ("/v2/promote", None, false),
        ] {
            let prefix = prefix.map(str::to_owned);
            let expected = Route::Promote {
                prefix,
                is_artifactory,
            };
            assert_eq!(parse(path).unwrap(), expected);
        }
        for path in ["dev/team/app/1", "dev/team/"] {
            let expected = Route::Artifact {
                path: path.to_owned(),
            };
            assert_eq!(parse(&format!("/artifactory/{path}")).unwrap(), expected);
        }
        let manifest = Endpoint::Manifest {
            name: "a/b".into(),
            reference: "1".into(),
        };
        assert_eq!(
            parse("/v2/a/b/manifests/1").unwrap(),
            Route::Registry {
                prefix: None,
                endpoint: manifest.clone()
            }
        );
        assert_eq!(
            parse("/k/v2/a/b/manifests/1").unwrap(),
            Route::Registry {
                prefix: Some("k".into()),
                endpoint: manifest
            }
        );
        for refused in [
            "/",
            "/v3/",
            "/livez/",
            "//livez",
            "/v2/../admin",
            "/v2/a/%2e%2e/manifests/x",
            "/v2/a%2Fb/manifests/x",
            "/v2/a//manifests/x",
        ] {
            assert!(parse(refused).is_err(), "{refused}");
        }
    }
}
