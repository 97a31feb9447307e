//! One request upstream: permit, breaker, login, redirects, time-outs, counting.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, LOCATION, RANGE, RETRY_AFTER,
    USER_AGENT, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::debug;
use url::Url;

use super::challenge::{self, Challenge};
use super::error::{Error, Kind};
use super::health::Admitted;
use super::hops::{CDN_LOOP, Hops};
use super::{Upstream, health};
use crate::clock;
use crate::oci::Name;
use crate::telemetry::{RepositoryLabels, UpstreamLabels};

/// The most redirects of one request (RELIABILITY P38).
pub(super) const REDIRECTS_MAX: usize = 5;
/// The most bytes of a `Location`.
pub(super) const LOCATION_MAX: usize = 8 * 1024;
pub(super) const USER_AGENT_VALUE: HeaderValue =
    HeaderValue::from_static(concat!("roadstead/", env!("CARGO_PKG_VERSION")));

/// What is asked for.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) kind: &'static str,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) name: &'a Name,
    pub(super) accept: Option<HeaderValue>,
    pub(super) range: Option<String>,
    pub(super) hops: &'a Hops,
}

/// The permits of a request; dropped when its body has been read.
#[derive(Debug)]
pub(super) struct Permits {
    _request: OwnedSemaphorePermit,
    _blob: Option<OwnedSemaphorePermit>,
}

impl Upstream {
    /// Sends a request and gives its successful answer: 200, or 206 where a range was asked for.
    pub(super) async fn send(&self, ask: &Ask<'_>) -> Result<(Response<Incoming>, Permits), Error> {
        if ask.hops.is_loop(&self.inner.config.instance) {
            return Err(Error::new(
                Kind::Loop,
                "this request has come through here before: two mirrors name each other as upstream",
            ));
        }
        let permits = self
            .permits(ask.kind == "blob" && ask.method == Method::GET)
            .await?;
        let admitted = self
            .inner
            .health
            .admit()
            .inspect_err(|error| self.count(ask.kind, error.kind().as_str()))?;
        let begun = Instant::now();
        let answer = self.exchange(ask).await;
        self.report(ask.kind, &answer, admitted, begun);
        Ok((answer?, permits))
    }

    async fn permits(&self, blob: bool) -> Result<Permits, Error> {
        let closed = |_closed| Error::new(Kind::Unavailable, "the client is shut down");
        let of_blobs = if blob {
            Some(
                std::sync::Arc::clone(&self.inner.blobs)
                    .acquire_owned()
                    .await
                    .map_err(closed)?,
            )
        } else {
            None
        };
        let request = std::sync::Arc::clone(&self.inner.requests)
            .acquire_owned()
            .await
            .map_err(closed)?;
        Ok(Permits {
            _request: request,
            _blob: of_blobs,
        })
    }

    fn report(
        &self,
        kind: &'static str,
        answer: &Result<Response<Incoming>, Error>,
        admitted: Admitted<'_>,
        begun: Instant,
    ) {
        let labels = RepositoryLabels {
            repository: self.inner.config.key.clone(),
        };
        self.inner
            .metrics
            .upstream_seconds
            .get_or_create(&labels)
            .observe(begun.elapsed().as_secs_f64());
        match answer {
            Ok(response) => {
                self.count(kind, response.status().as_str());
                admitted.answered();
            }
            Err(error) => {
                let status = error.status().map(|status| status.to_string());
                self.count(
                    kind,
                    status.as_deref().unwrap_or_else(|| error.kind().as_str()),
                );
                match error.kind() {
                    Kind::Unavailable | Kind::Timeout => admitted.failed(),
                    Kind::RateLimited => {
                        if let Some(wait) = error.retry_after() {
                            self.inner.health.limited(wait);
                        }
                        admitted.answered();
                    }
                    // The token service is another server: its trouble says nothing of the registry.
                    Kind::Credentials => drop(admitted),
                    Kind::NotFound
                    | Kind::Denied
                    | Kind::BadAnswer
                    | Kind::BreakerOpen
                    | Kind::Loop => admitted.answered(),
                }
            }
        }
    }

    /// Login around redirects: a 401 of the upstream itself is answered once.
    async fn exchange(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, Error> {
        let scope = self.scope(ask.name);
        let mut authorization = match self.inner.tokens.scheme() {
            Some(scheme) => self.authorization(&scheme, &scope, None).await?,
            None => None,
        };
        let mut refreshed = false;
        loop {
            let (response, own) = self.follow(ask, authorization.as_deref()).await?;
            if response.status() == StatusCode::UNAUTHORIZED && own && !refreshed {
                refreshed = true;
                let scheme = self.choose_scheme(&challenges(response.headers())?)?;
                authorization = match self
                    .authorization(&scheme, &scope, authorization.as_deref())
                    .await?
                {
                    Some(fresh) => Some(fresh),
                    None => {
                        return Err(Error::new(
                            Kind::Denied,
                            "upstream asks for a login, and none is configured",
                        )
                        .with_status(401));
                    }
                };
                continue;
            }
            return self.judge(ask, response, own);
        }
    }

    /// Follows redirects. Says whether the answer is the upstream's own.
    async fn follow(
        &self,
        ask: &Ask<'_>,
        authorization: Option<&str>,
    ) -> Result<(Response<Incoming>, bool), Error> {
        let mut url = ask.url.clone();
        // Once a request has left the upstream's origin its login stays behind, also if it comes back.
        let mut trusted = true;
        for _ in 0..=REDIRECTS_MAX {
            let own = self.inner.endpoint.is_own(&url);
            trusted &= own;
            let response = self
                .hop(ask, &url, own, authorization.filter(|_| trusted))
                .await?;
            match response.status() {
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    url = target(&url, response.headers())?;
                    debug!(
                        repository = self.inner.config.key,
                        host = url.host_str(),
                        "redirected"
                    );
                }
                _ => return Ok((response, own && trusted)),
            }
        }
        Err(Error::new(
            Kind::BadAnswer,
            "upstream redirects more than 5 times",
        ))
    }

    async fn hop(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        own: bool,
        authorization: Option<&str>,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(url.as_str())
            .header(USER_AGENT, USER_AGENT_VALUE)
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        request = request.header(CDN_LOOP, ask.hops.extended(&self.inner.config.instance));
        if let Some(accept) = &ask.accept {
            request = request.header(ACCEPT, accept.clone());
        }
        if let Some(range) = &ask.range {
            request = request.header(RANGE, range);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request: Request<Full<Bytes>> =
            request.body(Full::default()).map_err(|_malformed| {
                Error::new(Kind::BadAnswer, "upstream's URL cannot be asked for")
            })?;
        let client = if own {
            &self.inner.clients.own
        } else {
            &self.inner.clients.redirect
        };
        match tokio::time::timeout(self.inner.config.timeouts.headers, client.request(request))
            .await
        {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let cause = chain(&error);
                tracing::warn!(
                    repository = self.inner.config.key,
                    host = url.host_str(),
                    cause,
                    "upstream cannot be reached"
                );
                if cause.contains("timed out") || cause.contains("took too long") {
                    return Err(Error::new(Kind::Timeout, "upstream does not answer"));
                }
                Err(Error::new(
                    if own {
                        Kind::Unavailable
                    } else {
                        Kind::BadAnswer
                    },
                    if own {
                        "upstream cannot be reached"
                    } else {
                        "what upstream redirects to cannot be reached"
                    },
                ))
            }
            Err(_elapsed) => Err(Error::new(Kind::Timeout, "upstream does not answer")),
        }
    }

    /// What a final answer means.
    fn judge(
        &self,
        ask: &Ask<'_>,
        response: Response<Incoming>,
        own: bool,
    ) -> Result<Response<Incoming>, Error> {
        let status = response.status();
        if let Some(quota) = self.inner.quota.note(response.headers()) {
            let labels = RepositoryLabels {
                repository: self.inner.config.key.clone(),
            };
            self.inner
                .metrics
                .quota_limit
                .get_or_create(&labels)
                .set(i64::try_from(quota.limit).unwrap_or(i64::MAX));
            self.inner
                .metrics
                .quota_remaining
                .get_or_create(&labels)
                .set(i64::try_from(quota.remaining).unwrap_or(i64::MAX));
        }
        let wait = retry_after(response.headers());
        let fail = |kind, message: &'static str| {
            Err(Error::new(kind, message)
                .with_status(status.as_u16())
                .with_retry_after(wait))
        };
        match status.as_u16() {
            200 | 206 => {
                let encoded = response
                    .headers()
                    .get_all(CONTENT_ENCODING)
                    .iter()
                    .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
                if encoded {
                    return fail(
                        Kind::BadAnswer,
                        "upstream encodes its answer although identity was asked for",
                    );
                }
                if status == StatusCode::PARTIAL_CONTENT && ask.range.is_none() {
                    return fail(
                        Kind::BadAnswer,
                        "upstream sends a part although the whole was asked for",
                    );
                }
                Ok(response)
            }
            404 | 410 => fail(Kind::NotFound, "upstream does not have it"),
            401 | 403 if own => fail(Kind::Denied, "upstream denies access"),
            // A signed link that ran out, or a store that wants another login: the registry must be asked again.
            400 | 401 | 403 => fail(
                if own {
                    Kind::BadAnswer
                } else {
                    Kind::Unavailable
                },
                "what upstream redirects to refuses the request",
            ),
            429 => fail(Kind::RateLimited, "upstream limits its rate"),
            508 => fail(Kind::Loop, "upstream says that this request runs in a loop"),
            408 | 504 => fail(Kind::Timeout, "upstream does not answer in time"),
            500..=599 => fail(Kind::Unavailable, "upstream fails"),
            _ => fail(
                Kind::BadAnswer,
                "upstream answers with a status that makes no sense here",
            ),
        }
    }

    /// Our own scope, whatever a challenge offers.
    fn scope(&self, name: &Name) -> String {
        if self.inner.endpoint.host() == "public.ecr.aws" {
            "aws".to_owned()
        } else {
            format!("repository:{name}:pull")
        }
    }

    pub(super) fn count(&self, kind: &'static str, outcome: &str) {
        let labels = UpstreamLabels {
            repository: self.inner.config.key.clone(),
            kind,
            outcome: outcome.to_owned(),
        };
        self.inner
            .metrics
            .upstream_requests
            .get_or_create(&labels)
            .inc();
    }
}

/// Every challenge of a 401.
fn challenges(headers: &HeaderMap) -> Result<Vec<Challenge>, Error> {
    let mut all = Vec::new();
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let parsed = value.to_str().ok().and_then(challenge::parse);
        all.extend(parsed.ok_or_else(|| {
            Error::new(Kind::Credentials, "upstream's challenge cannot be read").with_status(401)
        })?);
    }
    Ok(all)
}

/// Where a redirect goes.
fn target(from: &Url, headers: &HeaderMap) -> Result<Url, Error> {
    let refuse = |message: &'static str| Error::new(Kind::BadAnswer, message);
    let mut locations = headers.get_all(LOCATION).iter();
    let (Some(location), None) = (locations.next(), locations.next()) else {
        return Err(refuse(
            "upstream redirects without saying where, or to two places",
        ));
    };
    let location = location
        .to_str()
        .ok()
        .filter(|location| !location.is_empty() && location.len() <= LOCATION_MAX);
    let location =
        location.ok_or_else(|| refuse("upstream redirects to something that is no URL"))?;
    let mut url = from
        .join(location)
        .map_err(|_malformed| refuse("upstream redirects to something that is no URL"))?;
    url.set_fragment(None);
    if !matches!(url.scheme(), "https" | "http")
        || url.host().is_none()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(refuse(
            "upstream redirects to something that is no plain http(s) URL",
        ));
    }
    if from.scheme() == "https" && url.scheme() == "http" {
        return Err(refuse("upstream redirects from https to http"));
    }
    Ok(url)
}

/// How long upstream asks to wait.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| health::retry_after(value, clock::now()))
}

/// An error with its causes, for the log. None of hyper's errors holds a header or a query.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
