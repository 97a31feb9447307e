//! One place where a request is written down: one log line, its counters.
//!
//! The line is written when the last byte has gone or the client has left, so that it can say how many there were.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use http_body::Body as _;
use tokio::time::Instant;
use tracing::info;

use super::audited;
use crate::audit;
use crate::body::{Body, BodyError};
use crate::cache::{CacheStatus, Outcome};
use crate::repository::{Found, Key};
use crate::telemetry::{Metrics, RepositoryLabels, RequestLabels, ServedLabels};

/// The most characters of what a client sends that go into the log.
const SHOWN: usize = 256;

/// What is known of a request so far.
#[derive(Debug)]
pub(super) struct Record {
    id: String,
    begun: Instant,
    peer: String,
    method: String,
    path: String,
    agent: String,
    repository: Option<String>,
    member: Option<Key>,
    user: String,
    kind: &'static str,
    cache: Option<CacheStatus>,
    action: Option<&'static str>,
    status: u16,
    bytes: u64,
    complete: bool,
    metrics: Arc<Metrics>,
}

impl Record {
    pub(super) fn begin<B>(request: &Request<B>, client: String, metrics: Arc<Metrics>) -> Self {
        let agent = request
            .headers()
            .get(http::header::USER_AGENT)
            .and_then(|agent| agent.to_str().ok())
            .unwrap_or_default();
        Self {
            id: uuid::Uuid::now_v7().simple().to_string(),
            begun: Instant::now(),
            peer: client,
            method: request.method().as_str().chars().take(16).collect(),
            path: request
                .uri()
                .path_and_query()
                .map_or("", |path| path.as_str())
                .chars()
                .take(SHOWN * 2)
                .collect(),
            agent: agent.chars().take(SHOWN).collect(),
            repository: None,
            member: None,
            user: "-".to_owned(),
            kind: "other",
            cache: None,
            action: None,
            status: 0,
            bytes: 0,
            complete: false,
            metrics,
        }
    }

    pub(super) fn request_id(&self) -> &str {
        &self.id
    }

    pub(super) fn note_repository(&mut self, key: &str, kind: &'static str) {
        self.repository = Some(key.to_owned());
        self.kind = kind;
    }

    /// The address of the one who asks, as proxies that are trusted tell it; the same for all connections of theirs.
    pub(super) fn client(&self) -> String {
        let with_port: Result<SocketAddr, _> = self.peer.parse();
        with_port.map_or_else(|_| self.peer.clone(), |address| address.ip().to_string())
    }

    /// What the request changes, for the audit.
    pub(super) const fn note_action(&mut self, action: Option<&'static str>) {
        self.action = action;
    }

    /// Who asks.
    pub(super) fn note_user(&mut self, user: &str) {
        user.clone_into(&mut self.user);
    }

    /// Takes note of where something was found; gives it on.
    pub(super) fn note_found<T>(&mut self, found: Found<T>) -> T {
        self.member = found.member;
        found.what
    }

    /// The member of a virtual repository that answered.
    pub(super) const fn member(&self) -> Option<&Key> {
        self.member.as_ref()
    }

    pub(super) const fn note_cache(&mut self, status: CacheStatus) {
        self.cache = Some(status);
    }

    /// The answer's head is ready; the body is counted on its way out.
    pub(super) fn finish(mut self, response: Response<Body>) -> Response<Body> {
        self.status = response.status().as_u16();
        self.audit(Some(&response));
        if let Some(repository) = &self.repository {
            let labels = RepositoryLabels {
                repository: repository.clone(),
            };
            self.metrics
                .request_seconds
                .get_or_create(&labels)
                .observe(self.begun.elapsed().as_secs_f64());
        }
        // What HEAD would have had as a body stays here.
        if response.body().is_end_stream() || self.method == "HEAD" {
            self.complete = true;
            return response;
        }
        let length = response.body().size_hint().exact();
        response.map(|body| Body::stream(Counted { body, record: self }, length))
    }
}

impl Record {
    /// What was done is done when the answer's head is ready, whether or not the client waits for it. `None`: the client left before
    /// that; what it began goes on, and may yet be done.
    fn audit(&self, answered: Option<&Response<Body>>) {
        let Some(action) = self.action else { return };
        let outcome = match answered {
            Some(response) => audited::outcome(action, response.status()),
            None => Some("unknown"),
        };
        let Some(outcome) = outcome else { return };
        let digest = answered
            .and_then(|response| response.headers().get("docker-content-digest"))
            .and_then(|digest| digest.to_str().ok());
        info!(
            target: audit::TARGET,
            action,
            outcome,
            request = self.id,
            client = self.peer,
            user = self.user,
            method = self.method,
            path = self.path,
            repository = self.repository.as_deref().unwrap_or("-"),
            digest = digest.unwrap_or("-"),
            status = self.status,
            "a request that changes something"
        );
    }
}

impl Record {
    /// What a client got goes to whoever had it, so that a virtual repository does not hide which upstream was spared.
    fn count_served(&self, repository: &str, outcome: &'static str) {
        let is_content = matches!(self.kind, "manifest" | "blob");
        if !is_content || self.method != "GET" || !(200..300).contains(&self.status) {
            return;
        }
        let repository = self.member.as_ref().map_or(repository, Key::as_str);
        let labels = ServedLabels {
            repository: repository.to_owned(),
            kind: self.kind,
            outcome,
        };
        self.metrics.served.get_or_create(&labels).inc();
        let labels = RepositoryLabels {
            repository: repository.to_owned(),
        };
        self.metrics
            .served_bytes
            .get_or_create(&labels)
            .inc_by(self.bytes);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.status == 0 {
            self.audit(None);
        }
        let repository = self.repository.as_deref().unwrap_or("-");
        let outcome = self
            .cache
            .map_or(Outcome::None, CacheStatus::outcome)
            .as_str();
        let reason = self.cache.map_or("-", |cache| cache.reason().as_str());
        let status = match self.status {
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        let labels = RequestLabels {
            repository: repository.to_owned(),
            kind: self.kind,
            outcome,
            status,
        };
        self.metrics.requests.get_or_create(&labels).inc();
        if self.bytes > 0 {
            self.metrics
                .client_bytes
                .get_or_create(&RepositoryLabels {
                    repository: repository.to_owned(),
                })
                .inc_by(self.bytes);
        }
        self.count_served(repository, outcome);
        info!(
            target: "access",
            request = self.id,
            client = self.peer,
            user = self.user,
            method = self.method,
            path = self.path,
            status = self.status,
            bytes = self.bytes,
            complete = self.complete,
            milliseconds = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            repository,
            member = self.member.as_ref().map_or("-", Key::as_str),
            kind = self.kind,
            cache = outcome,
            reason,
            agent = self.agent,
            "request"
        );
    }
}

/// A body that counts itself into its record.
struct Counted {
    body: Body,
    record: Record,
}

impl Stream for Counted {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => {
                    self.record.complete = true;
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.record.bytes += bytes.len() as u64;
                        // With a known length nobody polls past the last byte.
                        self.record.complete = self.body.size_hint().exact() == Some(0);
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
            }
        }
    }
}
