//! What the server refuses by itself, and the answer it gives.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::Value;

use crate::body::Body;
use crate::oci::error_code::{ErrorCode, envelope};

/// A request that never reaches the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not HTTP, or HTTP that two readers could understand differently.
    Malformed(&'static str),
    /// A method that no resource of ours can have.
    Method,
    /// An expectation other than `100-continue`.
    Expectation,
    /// The request line is too long.
    TargetTooLong,
    /// The head is too long or has too many lines.
    HeadTooLarge,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// The handler panicked.
    Panic,
}

impl Refusal {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn code(self) -> ErrorCode {
        match self {
            Self::Method | Self::Expectation | Self::Version => ErrorCode::Unsupported,
            Self::Malformed(_) | Self::TargetTooLong | Self::HeadTooLarge | Self::Panic => {
                ErrorCode::Unknown
            }
        }
    }

    /// For the client and the log.
    pub(super) const fn message(self) -> &'static str {
        match self {
            Self::Malformed(cause) => cause,
            Self::Method => "this method is not supported here",
            Self::Expectation => "this expectation cannot be met",
            Self::TargetTooLong => "the request line is too long",
            Self::HeadTooLarge => "the request's headers are too large",
            Self::Version => "this version of HTTP is not spoken here",
            Self::Panic => "the request failed inside the mirror",
        }
    }

    /// The answer; `close` asks for the end of an HTTP/1 connection after it.
    pub(super) fn response(self, close: bool) -> Response<Body> {
        let body = Bytes::from(envelope(self.code(), self.message(), &Value::Null));
        let mut response = Response::new(Body::full(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            HeaderName::from_static("docker-distribution-api-version"),
            HeaderValue::from_static("registry/2.0"),
        );
        if self == Self::Method {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        if close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
