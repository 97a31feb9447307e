//! `/api/system/{ping,version}`: what clients ask before they ask for anything.

use http::{Method, Response};
use serde_json::json;

use crate::api::error::ApiError;
use crate::api::respond;
use crate::body::Body;

/// The version of Artifactory whose API is spoken, as far as docs/artifactory.md says: clients choose what they send by it.
const SPOKEN: &str = "7.77.0";

/// `ping` says that somebody is there, `version` who.
pub(in crate::api) fn answer(method: &Method, what: &str) -> Result<Response<Body>, ApiError> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(ApiError::method("GET, HEAD"));
    }
    match what {
        "ping" => Ok(respond::text("OK")),
        "version" => Ok(respond::json(&json!({
            "version": SPOKEN,
            "revision": env!("CARGO_PKG_VERSION"),
            "addons": ["docker"],
            "product": "roadstead",
        }))),
        _ => Err(ApiError::not_found()),
    }
}
