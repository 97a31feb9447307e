//! What a path means. Pure.

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
    /// Something under `/v2`, with what stood before it.
    Registry {
        prefix: Option<String>,
        endpoint: Endpoint,
    },
}

/// Reads a path. Nothing is normalised: what is not exactly a known shape is refused.
pub(super) fn parse(path: &str) -> Result<Route, ApiError> {
    match path {
        "/livez" => return Ok(Route::Live),
        "/readyz" => return Ok(Route::Ready),
        "/metrics" => return Ok(Route::Metrics),
        _ => {}
    }
    let (prefix, rest) = split_prefix(path).ok_or_else(ApiError::not_found)?;
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
