//! What a request must look like before any handler sees it. Pure.
//!
//! hyper refuses broken framing by itself; this is what it lets through.

use http::header::{EXPECT, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, StatusCode, Version};

use super::Limits;
use crate::oci::ErrorCode;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: ErrorCode,
    pub(super) message: &'static str,
}

const fn refusal(status: StatusCode, message: &'static str) -> Refusal {
    Refusal {
        status,
        code: ErrorCode::Unsupported,
        message,
    }
}

/// Refuses what is too large, ambiguous about its host, or asks for what no registry does.
pub(super) fn screen(parts: &Parts, limits: &Limits) -> Result<(), Refusal> {
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > limits.target_bytes {
        return Err(refusal(
            StatusCode::URI_TOO_LONG,
            "the request's target is too long",
        ));
    }
    let bytes: usize = parts
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if bytes > limits.header_bytes || parts.headers.len() > limits.headers {
        return Err(refusal(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the request's header is too large",
        ));
    }
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "this server is no proxy of that kind",
        ));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(refusal(StatusCode::BAD_REQUEST, "more than one Host"));
    }
    if let Some(host) = host
        && !host.to_str().is_ok_and(is_authority)
    {
        return Err(refusal(StatusCode::BAD_REQUEST, "Host is no host"));
    }
    if parts.version == Version::HTTP_11 && host.is_none() {
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            "a request of this version needs a Host",
        ));
    }
    if let (Some(authority), Some(host)) = (parts.uri.authority(), host)
        && !host
            .as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            "the request names two hosts",
        ));
    }
    if parts
        .uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(refusal(StatusCode::BAD_REQUEST, "Host is no host"));
    }
    // hyper drops a Content-Length beside it, so the ambiguous pair cannot be told from this; neither has a place in a read.
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    if (reads || parts.version < Version::HTTP_11) && parts.headers.contains_key(TRANSFER_ENCODING)
    {
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            "Transfer-Encoding has no place in this request",
        ));
    }
    if parts
        .headers
        .get_all(EXPECT)
        .iter()
        .any(|expect| !expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(refusal(
            StatusCode::EXPECTATION_FAILED,
            "only Expect: 100-continue is known",
        ));
    }
    Ok(())
}

/// `host[:port]` with a port that exists.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host_fits = !host.is_empty()
        && host.bytes().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'[' | b']' | b':')
        });
    host_fits && port.is_none_or(|port| port.parse::<u16>().is_ok())
}
