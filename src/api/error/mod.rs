//! Status codes: the only file that has them, for every error there is.
//!
//! Upstream's trouble keeps its meaning and never becomes a 404 (PROTOCOL G, DECISIONS 1). A body says what, and what to do; the cause is
//! logged once, here, and not told.

mod images;

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use tracing::{error, info, warn};

use super::record::Record;
use crate::auth::ApiTokenError;
use crate::body::{Body, WholeError};
use crate::cache::{self, CacheStatus, Outcome, Reason};
use crate::limits::Limited;
use crate::oci::manifest::ManifestError;
use crate::oci::name::NameError;
use crate::oci::{ErrorCode, error_code};
use crate::overlay;
use crate::repository::{self, Key, Unresolved};
use crate::upstream::Kind;

/// When a client may ask again after an outage, where upstream did not say.
const RETRY_AFTER_OUTAGE: Duration = Duration::from_secs(5);

/// What an error's answer is made of.
#[derive(Debug)]
struct Parts {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    detail: Value,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    content_range: Option<String>,
    headers: HeaderMap,
    cache: Option<CacheStatus>,
    cause: Option<String>,
    is_artifactory: bool,
}

/// An answer that is an error. Boxed: errors are rare, and every `Result` on the way carries one.
#[derive(Debug)]
pub(super) struct ApiError(Box<Parts>);

impl ApiError {
    fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            code,
            message: message.into(),
            detail: Value::Null,
            retry_after: None,
            allow: None,
            content_range: None,
            headers: HeaderMap::new(),
            cache: None,
            cause: None,
            is_artifactory: false,
        }))
    }

    fn with(mut self, change: impl FnOnce(&mut Parts)) -> Self {
        change(&mut self.0);
        self
    }

    /// Says it in Artifactory's envelope, or in the registry's.
    pub(super) fn in_envelope(self, is_artifactory: bool) -> Self {
        self.with(|parts| parts.is_artifactory = is_artifactory)
    }

    /// What is asked for makes no sense.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message)
    }

    /// No repository has that key.
    pub(super) fn no_repository(key: &str) -> Self {
        let message = format!("there is no repository `{key}`");
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, message)
    }

    /// A repository that should be there.
    pub(super) fn left_out(key: &str) -> Self {
        let message = format!(
            "the repository `{key}` cannot be used as it is configured; the log of the start says why"
        );
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unavailable,
            message,
        )
    }

    /// A web page of somewhere else sent this.
    pub(super) fn foreign_page() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            ErrorCode::Denied,
            "a web page of another site asked for this; only clients and this mirror's own pages may change anything",
        )
    }

    /// A host that a page of another site may have had pointed here.
    pub(super) fn foreign_host(host: &str) -> Self {
        let shown: String = host.chars().take(64).filter(|c| !c.is_control()).collect();
        let message = format!(
            "without [auth], only an address, localhost and this mirror's own names may be used to change or administer anything, and \
             `{shown}` is none of them; where it is, name it in server.external_url or as host of a [[server.bind]]"
        );
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
    }

    /// Nothing at this path of a repository.
    pub(super) fn no_item() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            ErrorCode::NameUnknown,
            "Unable to find item",
        )
    }

    /// It is there and has no such properties.
    pub(super) fn no_properties() -> Self {
        let message = "No properties could be found.";
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, message)
    }

    /// An API token is not made, or not revoked.
    pub(super) fn from_api_token(error: &ApiTokenError) -> Self {
        let (status, code) = match error {
            ApiTokenError::Unfit(_) | ApiTokenError::NoUser(_) => {
                (StatusCode::BAD_REQUEST, ErrorCode::Unsupported)
            }
            ApiTokenError::Exists(_) | ApiTokenError::TooMany(_) => {
                (StatusCode::CONFLICT, ErrorCode::Denied)
            }
            ApiTokenError::Unknown(_) => (StatusCode::NOT_FOUND, ErrorCode::Unknown),
            ApiTokenError::NotNow => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable),
            ApiTokenError::Store(cause) => return Self::failed(cause),
        };
        Self::new(status, code, error.to_string())
    }

    /// Whoever logged in with a token makes and revokes none: it would outlive its own end.
    pub(super) fn no_tokens_by_token() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            ErrorCode::Denied,
            "tokens are made and revoked with a password, or with `roadstead token` on the machine of the mirror",
        )
    }

    /// What is there does not allow it.
    pub(super) fn conflict(self) -> Self {
        self.with(|parts| parts.status = StatusCode::CONFLICT)
    }

    /// The mirror's own trouble.
    pub(super) fn failed(cause: &dyn std::error::Error) -> Self {
        let (status, cause) = (StatusCode::INTERNAL_SERVER_ERROR, cause.to_string());
        Self::new(status, ErrorCode::Unknown, "the mirror's store failed")
            .with(|parts| parts.cause = Some(cause))
    }

    /// Adds a header to the answer.
    pub(super) fn with_header(self, name: HeaderName, value: &str) -> Self {
        self.with(|parts| super::respond::set(&mut parts.headers, name, value))
    }

    /// No such route.
    pub(super) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            ErrorCode::NameUnknown,
            "there is nothing at this path",
        )
    }

    /// A path that is no path of a registry.
    pub(super) fn malformed_path() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::NameInvalid,
            "this path is malformed",
        )
    }

    /// The request has been here before.
    pub(super) fn looped() -> Self {
        Self::new(
            StatusCode::LOOP_DETECTED,
            ErrorCode::Unavailable,
            "this request has come through this mirror before: two mirrors name each other as upstream",
        )
    }

    /// The route does not do that.
    pub(super) fn method(allow: &'static str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::Unsupported,
            "this path does not take that method",
        )
        .with(|parts| parts.allow = Some(allow))
    }

    /// A write to a remote.
    pub(super) fn read_only(key: &Key) -> Self {
        let message = format!(
            "{key} has this from another registry and takes no writes of it; push to the registry itself, or to a local repository"
        );
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::Unsupported,
            message,
        )
        .with(|parts| parts.allow = Some("GET, HEAD"))
    }

    /// A name, tag or digest that is none.
    pub(super) fn invalid(code: ErrorCode, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message.to_string())
    }

    /// An upload that does not exist.
    pub(super) fn no_upload() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            ErrorCode::BlobUploadUnknown,
            "there is no such upload",
        )
    }

    /// A Range that the blob does not have.
    pub(super) fn unsatisfiable(size: u64, status: CacheStatus) -> Self {
        let error = Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            ErrorCode::RangeInvalid,
            format!("the blob has {size} bytes"),
        );
        error.with(|parts| {
            parts.content_range = Some(crate::oci::range::unsatisfied(size));
            parts.cache = Some(status);
        })
    }

    /// More bytes than a manifest may have.
    pub(super) fn too_large() -> Self {
        let message = format!(
            "a manifest has at most {} bytes",
            crate::oci::manifest::MANIFEST_MAX
        );
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::ManifestInvalid,
            message,
        )
    }

    /// A write that nobody may do here, because everybody could.
    pub(super) fn no_writes() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            ErrorCode::Denied,
            "without [auth], pushing and deleting are open only while every listener is on loopback and no proxy is trusted",
        )
    }

    /// Nobody is recognised, or nobody may without a login: with how to log in.
    pub(super) fn unauthorized(sentence: &str, challenges: &[String]) -> Self {
        let error = Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, sentence);
        error.with(|parts| {
            for challenge in challenges {
                if let Ok(value) = HeaderValue::try_from(challenge) {
                    parts.headers.append(header::WWW_AUTHENTICATE, value);
                }
            }
        })
    }

    /// Known, and not allowed.
    pub(super) fn denied(right: &str, key: &str, image: &str) -> Self {
        let message = format!("you may not {right} here: {key}/{image}");
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
    }

    /// Too many logins failed.
    pub(super) fn too_many_logins(retry_after: Duration) -> Self {
        let error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::TooManyRequests,
            "too many logins failed; wait before the next",
        );
        error.with(|parts| parts.retry_after = Some(retry_after))
    }

    /// A client asks more than it may.
    pub(super) fn limited(limited: &Limited) -> Self {
        let error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::TooManyRequests,
            format!("too many requests: {limited}"),
        );
        error.with(|parts| parts.retry_after = Some(limited.retry_after))
    }

    /// There is no such thing, or nobody says whether there is.
    pub(super) fn absent(code: ErrorCode) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, "there is no such thing here")
    }

    /// Adds headers that say more.
    pub(super) fn with_headers(self, add: impl FnOnce(&mut HeaderMap)) -> Self {
        self.with(|parts| add(&mut parts.headers))
    }

    /// What a repository could not answer; `absent` is the code for what does not exist.
    pub(super) fn from_repository(error: repository::Error, absent: ErrorCode) -> Self {
        match error {
            repository::Error::Remote(error) => Self::from_cache(&error, absent),
            repository::Error::Local(error) => Self::from_overlay(error),
            repository::Error::ReadOnly => Self::method("GET, HEAD"),
        }
    }

    /// What a local repository did not do (PROTOCOL A10).
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it ends here, and so it stands in map_err by itself"
    )]
    pub(super) fn from_overlay(error: overlay::Error) -> Self {
        use overlay::Error;

        let message = error.to_string();
        let (status, code) = match &error {
            Error::NameUnknown => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
            Error::ManifestUnknown => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
            Error::BlobUnknown => (StatusCode::NOT_FOUND, ErrorCode::BlobUnknown),
            Error::UploadUnknown => (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
            Error::UploadBusy { .. } => (StatusCode::CONFLICT, ErrorCode::BlobUploadInvalid),
            Error::OutOfOrder { .. } => {
                (StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::RangeInvalid)
            }
            Error::Size(_) | Error::Body(_) => (StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid),
            Error::TooManyUploads => (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests),
            Error::Digest { .. } => (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
            Error::Manifest(ManifestError::TooLarge) => return Self::too_large(),
            Error::Manifest(_) | Error::TooDeep => {
                (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid)
            }
            Error::Missing(_) => (StatusCode::BAD_REQUEST, ErrorCode::ManifestBlobUnknown),
            Error::Immutable(_) | Error::Changed => (StatusCode::CONFLICT, ErrorCode::Denied),
            Error::TooMuch(_) => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid),
            Error::TooManyTags => (StatusCode::URI_TOO_LONG, ErrorCode::TagInvalid),
            Error::NoDeletes | Error::InUse => {
                (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported)
            }
            Error::Full => (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unavailable),
            Error::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown),
        };
        let is_ours = status.is_server_error();
        let told = if matches!(error, Error::Store(_)) {
            "the store failed".to_owned()
        } else {
            message.clone()
        };
        Self::new(status, code, told).with(|parts| {
            parts.cause = is_ours.then_some(message);
            parts.allow =
                (status == StatusCode::METHOD_NOT_ALLOWED).then_some("GET, HEAD, PUT, POST, PATCH");
            parts.retry_after =
                (status == StatusCode::TOO_MANY_REQUESTS).then_some(RETRY_AFTER_OUTAGE);
            if let Error::Missing(missing) = &error {
                let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
                parts.detail = json!({ "missing": missing });
            }
        })
    }

    /// What the cache could not answer; `absent` is the code for what does not exist.
    pub(super) fn from_cache(error: &cache::Error, absent: ErrorCode) -> Self {
        let outage = |status, message: &str| {
            Self::new(status, ErrorCode::Unavailable, message)
                .with(|parts| parts.retry_after = Some(RETRY_AFTER_OUTAGE))
        };
        let failed =
            CacheStatus::new(Outcome::Failed, error.reason()).with_fwd_status(error.fwd_status());
        let asked = error.retry_after();
        let (answer, cache) = match error {
            cache::Error::NotFound => (
                Self::new(StatusCode::NOT_FOUND, absent, "upstream does not have it"),
                CacheStatus::new(Outcome::Failed, Reason::Unknown).with_fwd_status(Some(404)),
            ),
            cache::Error::StillAbsent => (
                Self::new(StatusCode::NOT_FOUND, absent, "upstream does not have it"),
                CacheStatus::new(Outcome::Failed, Reason::Negative),
            ),
            cache::Error::Offline => (
                Self::new(StatusCode::NOT_FOUND, absent, error.to_string()),
                CacheStatus::new(Outcome::Failed, Reason::Offline),
            ),
            cache::Error::NotAcceptable(_) => (
                Self::new(StatusCode::NOT_FOUND, absent, error.to_string()),
                CacheStatus::new(Outcome::Hit, Reason::Fresh),
            ),
            cache::Error::Manifest(_) => (
                Self::new(
                    StatusCode::BAD_GATEWAY,
                    ErrorCode::ManifestInvalid,
                    error.to_string(),
                )
                .with(|parts| parts.retry_after = Some(RETRY_AFTER_OUTAGE)),
                failed,
            ),
            cache::Error::Refused(refusal) => (
                Self::new(
                    StatusCode::FORBIDDEN,
                    ErrorCode::Denied,
                    refusal.to_string(),
                )
                .with(|parts| parts.detail = json!({ "rule": refusal.rule.as_str() })),
                CacheStatus::new(Outcome::Failed, Reason::NotAdmitted),
            ),
            cache::Error::Mismatch => (
                outage(
                    StatusCode::BAD_GATEWAY,
                    "upstream sent content that does not agree with its digest; nothing of it was kept",
                ),
                failed,
            ),
            cache::Error::GivenUp => (
                outage(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the download was given up; ask again",
                ),
                failed,
            ),
            cache::Error::Store(_) => (
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    ErrorCode::Unknown,
                    "the mirror's store failed",
                ),
                failed,
            ),
            cache::Error::Upstream(upstream) => {
                let answer = match upstream.kind() {
                    Kind::NotFound => {
                        Self::new(StatusCode::NOT_FOUND, absent, "upstream does not have it")
                    }
                    Kind::Denied => Self::new(
                        StatusCode::FORBIDDEN,
                        ErrorCode::Denied,
                        "upstream denies access to this, or does not have it",
                    ),
                    Kind::Credentials => outage(
                        StatusCode::BAD_GATEWAY,
                        "this mirror could not log in to the upstream; its log says why",
                    ),
                    Kind::RateLimited => Self::new(
                        StatusCode::TOO_MANY_REQUESTS,
                        ErrorCode::TooManyRequests,
                        "upstream limits its rate, and nothing is cached",
                    ),
                    Kind::Unavailable => outage(
                        StatusCode::BAD_GATEWAY,
                        "upstream cannot be reached or fails, and nothing is cached",
                    ),
                    Kind::BadAnswer => outage(
                        StatusCode::BAD_GATEWAY,
                        "upstream's answer is not what a registry says",
                    ),
                    Kind::Timeout => outage(
                        StatusCode::GATEWAY_TIMEOUT,
                        "upstream does not answer in time, and nothing is cached",
                    ),
                    Kind::BreakerOpen => outage(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "upstream keeps failing and is not asked for a moment, and nothing is cached",
                    ),
                    Kind::Throttled => outage(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "the upstream is asked no faster than this mirror's limits.requests_per_second lets it, and nothing is cached",
                    ),
                    Kind::QuotaKept => Self::new(
                        StatusCode::TOO_MANY_REQUESTS,
                        ErrorCode::TooManyRequests,
                        "what is left of the upstream's pull quota is kept back (limits.keep_quota), and this is not cached",
                    ),
                    Kind::Loop => Self::looped(),
                };
                (answer, failed)
            }
        };
        answer.with(|parts| {
            let limited =
                (parts.status == StatusCode::TOO_MANY_REQUESTS).then_some(RETRY_AFTER_OUTAGE);
            parts.retry_after = asked.or(parts.retry_after).or(limited);
            parts.cache = Some(cache);
            // A refusal was logged where it was decided, once for all who ask.
            let is_logged = matches!(error, cache::Error::Refused(_));
            parts.cause = (!is_logged).then(|| error.to_string());
        })
    }

    /// The answer. Logs the cause, once.
    pub(super) fn into_response(self, record: &mut Record) -> Response<Body> {
        let parts = *self.0;
        let detail = if parts.status.is_server_error() {
            json!({ "request": record.request_id() })
        } else {
            parts.detail
        };
        if let Some(cause) = &parts.cause {
            let request = record.request_id();
            match parts.status.as_u16() {
                500 => error!(request, cause, "a request failed"),
                501..=599 | 429 => warn!(request, cause, "a request could not be answered"),
                _ => info!(request, cause, "a request was not answered"),
            }
        }
        if let Some(cache) = parts.cache {
            record.note_cache(cache);
        }
        let envelope = if parts.is_artifactory {
            let status = parts.status.as_u16();
            json!({ "errors": [{ "status": status, "message": parts.message }] })
                .to_string()
                .into_bytes()
        } else {
            error_code::envelope(parts.code, &parts.message, &detail)
        };
        let mut response = Response::new(Body::full(envelope));
        *response.status_mut() = parts.status;
        let headers = response.headers_mut();
        headers.extend(parts.headers);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(wait) = parts.retry_after {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(wait.as_secs().max(1)),
            );
        }
        if let Some(allow) = parts.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(range) = parts
            .content_range
            .and_then(|range| HeaderValue::try_from(range).ok())
        {
            headers.insert(header::CONTENT_RANGE, range);
        }
        if let Some(status) = parts
            .cache
            .and_then(CacheStatus::header)
            .and_then(|status| HeaderValue::try_from(status).ok())
        {
            headers.insert("cache-status", status);
        }
        response
    }
}

impl From<Unresolved> for ApiError {
    fn from(unresolved: Unresolved) -> Self {
        match unresolved {
            Unresolved::UnknownRepository | Unresolved::UnknownNamespace => Self::new(
                StatusCode::NOT_FOUND,
                ErrorCode::NameUnknown,
                unresolved.to_string(),
            ),
            Unresolved::Name(error) => error.into(),
        }
    }
}

impl From<WholeError> for ApiError {
    fn from(error: WholeError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::invalid(ErrorCode::NameInvalid, error)
    }
}
