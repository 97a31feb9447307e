//! Headers: what every answer has, and conditional requests.

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use serde::Serialize;

use super::record::Record;
use crate::body::Body;
use crate::cache::CacheStatus;
use crate::oci::Digest;

/// Which member of a virtual repository an answer came from.
pub(super) const MEMBER: HeaderName = HeaderName::from_static("roadstead-member");
/// Content of a digest never changes.
pub(super) const IMMUTABLE: HeaderValue =
    HeaderValue::from_static("public, max-age=31536000, immutable");

/// What every answer has.
pub(super) fn common(response: &mut Response<Body>, request_id: &str) {
    let headers = response.headers_mut();
    headers.insert(
        "docker-distribution-api-version",
        HeaderValue::from_static("registry/2.0"),
    );
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    set(headers, HeaderName::from_static("x-request-id"), request_id);
}

/// An answer in plain text.
pub(super) fn text(text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// An answer in JSON.
pub(super) fn json(value: &impl Serialize) -> Response<Body> {
    // What is told here has text for keys, and so always has a form in JSON.
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Body::full(text));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// Sets a header to a text that is known to fit.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

/// How the answer came about, in the header and in the record.
pub(super) fn cache(headers: &mut HeaderMap, status: CacheStatus, record: &mut Record) {
    record.note_cache(status);
    if let Some(member) = record.member() {
        set(headers, MEMBER, member.as_str());
    }
    if let Some(text) = status.header() {
        set(headers, HeaderName::from_static("cache-status"), &text);
    }
    if let Some(warning) = status.warning() {
        set(headers, header::WARNING, &format!("299 - \"{warning}\""));
    }
}

/// The digest, as header and entity tag.
pub(super) fn digest(headers: &mut HeaderMap, digest: &Digest) {
    set(
        headers,
        HeaderName::from_static("docker-content-digest"),
        &digest.to_string(),
    );
    set(headers, header::ETAG, &format!("\"{digest}\""));
}

/// Whether `If-None-Match` names this digest: quoted or not, weak or not, in a list or as `*` (RFC 9110, 13.1.2).
pub(super) fn not_modified(headers: &HeaderMap, digest: &Digest) -> bool {
    let digest = digest.to_string();
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"') == digest
        })
}

/// Whether a `Range` counts: with `If-Range` only if that names this digest, strongly (RFC 9110, 13.1.5).
pub(super) fn range_counts(headers: &HeaderMap, digest: &Digest) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|tag| {
        tag.to_str()
            .is_ok_and(|tag| tag.trim() == format!("\"{digest}\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn conditions() {
        let digest = Digest::of(b"x");
        for matching in [
            format!("\"{digest}\""),
            digest.to_string(),
            format!("W/\"{digest}\""),
            format!("\"a\", \"{digest}\""),
            "*".to_owned(),
        ] {
            assert!(
                not_modified(&with(header::IF_NONE_MATCH, &matching), &digest),
                "{matching}"
            );
        }
        assert!(
            !not_modified(&with(header::IF_NONE_MATCH, "\"sha256:0\""), &digest)
                && !not_modified(&HeaderMap::new(), &digest)
        );
        assert!(
            range_counts(&HeaderMap::new(), &digest)
                && range_counts(&with(header::IF_RANGE, &format!("\"{digest}\"")), &digest)
        );
        assert!(!range_counts(
            &with(header::IF_RANGE, &format!("W/\"{digest}\"")),
            &digest
        ));
    }
}
