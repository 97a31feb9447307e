//! From a request as hyper has it to the handler, and back.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::incoming::{Floor, Leftover};
use super::outgoing::{InFlight, Outgoing, Transfers};
use super::refusal::Refusal;
use super::screen;
use super::screened::{REFUSED, caps};
use super::watch::{Flow, Watch};
use super::{Connection, Handler, Limits, RequestBody};
use crate::body::Body;
use crate::telemetry::Metrics;

tokio::task_local! {
    /// The HTTP/2 stream whose task this is.
    pub(super) static FLOW: Arc<Flow>;
}

/// What one request may bring in frames before it is a flood: its head, and a window of body that nobody reads.
const ALLOWED_HEAD: u64 = 8 * 1024;
/// The window given to one stream of request body.
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;

/// The service of one connection.
#[derive(Debug)]
pub(super) struct Service<H> {
    pub(super) handler: Arc<H>,
    pub(super) connection: Connection,
    pub(super) watch: Arc<Watch>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: Limits,
    pub(super) transfers: Transfers,
}

// Not derived: a handler need not be Clone.
impl<H> Clone for Service<H> {
    fn clone(&self) -> Self {
        Self {
            handler: Arc::clone(&self.handler),
            connection: self.connection.clone(),
            watch: Arc::clone(&self.watch),
            metrics: Arc::clone(&self.metrics),
            limits: self.limits,
            transfers: self.transfers.clone(),
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Outgoing>, Infallible>> + Send>>;

impl<H: Handler> hyper::service::Service<Request<Incoming>> for Service<H> {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let in_flight = InFlight::begin(Arc::clone(&self.watch), Arc::clone(&self.metrics));
        if request.version() == Version::HTTP_2 {
            self.watch.judge_cancels(self.limits.h2.cancelled);
            let window = if request.body().is_end_stream() {
                0
            } else {
                u64::from(STREAM_WINDOW)
            };
            self.watch.allow(ALLOWED_HEAD + window);
        }
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request, in_flight).await) })
    }
}

impl<H: Handler> Service<H> {
    async fn answer(&self, request: Request<Incoming>, in_flight: InFlight) -> Response<Outgoing> {
        let (mut parts, incoming) = request.into_parts();
        let http_1 = parts.version < Version::HTTP_2;
        let version = parts.version;
        let head_only = parts.method == Method::HEAD;

        let refusal = if http_1 && parts.method.as_str() == REFUSED {
            let refusal = self.watch.take_refusal();
            Some(refusal.unwrap_or(Refusal::Malformed("this is not an HTTP request")))
        } else {
            screen::request(&parts, caps(&self.limits)).err()
        };
        let mut response = if let Some(refusal) = refusal {
            drop(incoming);
            refusal.response(http_1)
        } else {
            normalise(&mut parts);
            let expects = parts.headers.contains_key(EXPECT);
            if http_1 && !incoming.is_end_stream() {
                detach(&mut parts);
            }
            let (body, leftover) = self.body(incoming);
            let response = self
                .handled(Request::from_parts(parts, body), &in_flight)
                .await;
            match leftover {
                Some(leftover) if http_1 => self.drained(response, &leftover, expects).await,
                _ => response,
            }
        };

        if head_only {
            response = without_body(response);
        }
        if version == Version::HTTP_10 && response.body().size_hint().exact().is_none() {
            self.watch.needs_reset(true);
        }
        let flow = FLOW.try_with(Arc::clone).ok();
        response.map(|body| Outgoing::new(body, flow, in_flight, self.transfers.clone()))
    }

    fn body(&self, incoming: Incoming) -> (RequestBody, Option<Leftover>) {
        if incoming.is_end_stream() {
            return (RequestBody::empty(), None);
        }
        let leftover: Leftover = Arc::new(Mutex::new(None));
        let floor = Floor {
            window: self.limits.body_window,
            rate: self.limits.body_rate,
        };
        let watch = Arc::clone(&self.watch);
        // And half as much again for its frames: whoever sends less than that in each frame does not mean to send a body (F12).
        let read = Arc::new(move |bytes| watch.allow(bytes + bytes / 2));
        let body = RequestBody::live(incoming, Arc::clone(&leftover), floor, read);
        (body, Some(leftover))
    }

    async fn handled(&self, request: Request<RequestBody>, in_flight: &InFlight) -> Response<Body> {
        // The call itself is inside, so that a panic before the first await is caught as well.
        let handling = async { self.handler.handle(request, self.connection.clone()).await };
        match AssertUnwindSafe(handling).catch_unwind().await {
            Ok(response) => response,
            Err(_panic) => {
                // The panic hook has said where; the payload may hold what a client must not see.
                tracing::error!(peer = %self.connection.peer, "a request panicked");
                in_flight.metrics().panics.inc();
                Refusal::Panic.response(false)
            }
        }
    }

    /// Reads and drops what the handler left of a small body, or says that the connection closes: the next request must not be looked
    /// for inside it.
    async fn drained(
        &self,
        response: Response<Body>,
        leftover: &Leftover,
        expects: bool,
    ) -> Response<Body> {
        let unread = leftover
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(unread) = unread else {
            return response;
        };
        let small = unread
            .size_hint()
            .upper()
            .is_none_or(|upper| upper <= self.limits.unread_body);
        // A client that waits for 100 Continue has sent nothing, and reading would tell it to begin.
        if small && !expects {
            let draining = drain(unread, self.limits.unread_body);
            if let Ok(true) = tokio::time::timeout(self.limits.linger, draining).await {
                return response;
            }
        }
        let mut response = response;
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// Reads up to `most` bytes away; true when that was all.
async fn drain(mut body: Incoming, most: u64) -> bool {
    let mut left = most;
    while let Some(frame) = body.frame().await {
        let bytes = match &frame {
            Ok(frame) => frame.data_ref().map_or(0, Bytes::len),
            Err(_broken) => return false,
        };
        match left.checked_sub(bytes as u64) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}

/// Copies a head out of the buffer that it was read into, which can then be used for the body: two thousand clients that send theirs
/// slowly would hold two thousand buffers more.
fn detach(parts: &mut Parts) {
    let own = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    for value in parts.headers.values_mut() {
        let is_sensitive = value.is_sensitive();
        // What was a value and a target is one still.
        if let Ok(mut copy) = HeaderValue::from_maybe_shared(own(value.as_bytes())) {
            copy.set_sensitive(is_sensitive);
            *value = copy;
        }
    }
    if let Ok(copy) = Uri::from_maybe_shared(own(parts.uri.to_string().as_bytes())) {
        parts.uri = copy;
    }
}

/// The target becomes a path, the authority the one `Host`.
fn normalise(parts: &mut Parts) {
    if parts.uri.authority().is_none() {
        return;
    }
    let uri = std::mem::take(&mut parts.uri).into_parts();
    if let Some(authority) = uri.authority
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(HOST, host);
    }
    let path = uri
        .path_and_query
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
}

/// The answer to HEAD: the same head as to GET.
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact()
        && length > 0
    {
        length_if_missing(&mut parts.headers, length);
    }
    Response::from_parts(parts, Body::empty())
}

fn length_if_missing(headers: &mut HeaderMap, length: u64) {
    headers
        .entry(CONTENT_LENGTH)
        .or_insert_with(|| HeaderValue::from(length));
}
