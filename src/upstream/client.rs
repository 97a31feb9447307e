//! One HTTP exchange: a request goes out, a response's head comes back, in time and within bounds.
//!
//! Four clients, one for each purpose of the address guard, so that no pooled connection serves a purpose it was not checked for. No
//! redirects, no authentication, no meaning of statuses here.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::{Extensions, Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioTimer;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::config::Timeouts;
use super::connect::{ConnectError, Connector, Network, Uses};
use super::endpoint::Origin;
use super::error::{Error, Kind};
use super::guard::Purpose;
use super::pace::Pace;
use crate::tasks::Tasks;

/// The largest head of a response (RELIABILITY P38).
const HEAD_MAX: usize = 64 * 1024;
/// The largest read. More than a head, for the sake of bodies.
const READ_MAX: usize = 256 * 1024;
/// The most headers in a head.
const HEADERS_MAX: usize = 200;
/// The most interim responses (1xx) before an answer (U31).
const INTERIM_MAX: u32 = 10;
/// How much of an HTTP/2 body may come before anyone reads it.
const STREAM_WINDOW: u32 = 1024 * 1024;

type Pool = Client<Connector, Full<Bytes>>;

/// The HTTP clients of one upstream.
pub(super) struct Clients {
    network: Arc<Network>,
    timeouts: Timeouts,
    pace: Arc<Pace>,
    own: Pool,
    token: Pool,
    redirect: Pool,
    foreign: Pool,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network.fmt(f)
    }
}

impl Clients {
    pub(super) fn new(
        network: Network,
        timeouts: Timeouts,
        concurrent: usize,
        pace: Arc<Pace>,
        tasks: &Tasks,
    ) -> Self {
        let network = Arc::new(network);
        let pool = |purpose| {
            Client::builder(Background(tasks.clone()))
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(Duration::from_secs(60))
                .pool_max_idle_per_host(concurrent)
                .http1_max_buf_size(READ_MAX)
                .http1_max_headers(HEADERS_MAX)
                .http2_max_header_list_size(u32::try_from(HEAD_MAX).unwrap_or(u32::MAX))
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(STREAM_WINDOW * 4)
                .http2_keep_alive_interval(Duration::from_secs(20))
                .http2_keep_alive_timeout(Duration::from_secs(20))
                .retry_canceled_requests(true)
                .build(Connector::new(Arc::clone(&network), purpose))
        };
        Self {
            timeouts,
            pace,
            own: pool(Purpose::Own),
            token: pool(Purpose::Token),
            redirect: pool(Purpose::Redirect),
            foreign: pool(Purpose::Foreign),
            network,
        }
    }

    /// Sends a request to `origin` when it is its turn. A GET or HEAD that died with a connection that had worked before is sent once more.
    pub(super) async fn send(
        &self,
        purpose: Purpose,
        origin: &Origin,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Error> {
        self.send_within(purpose, origin, request, Duration::ZERO)
            .await
    }

    /// The same for a request with a body, whose way there takes `extra` time.
    pub(super) async fn send_within(
        &self,
        purpose: Purpose,
        origin: &Origin,
        mut request: Request<Full<Bytes>>,
        extra: Duration,
    ) -> Result<Response<Incoming>, Error> {
        if let Some(login) = self.network.proxy_login(request.uri()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, login);
        }
        self.pace.turn(origin).await?;
        let again =
            matches!(*request.method(), Method::GET | Method::HEAD).then(|| request.clone());
        let response = match (self.once(purpose, origin, request, extra).await, again) {
            (
                Err(Failure {
                    was_pooled: true, ..
                }),
                Some(request),
            ) => self.once(purpose, origin, request, extra).await,
            (result, _) => result,
        };
        let response = response.map_err(|failure| failure.error)?;
        let head: usize = response
            .headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        if head > HEAD_MAX {
            return Err(Error::new(
                Kind::BadAnswer,
                format!("{origin} answers with a head of more than 64 KiB"),
            ));
        }
        Ok(response)
    }

    async fn once(
        &self,
        purpose: Purpose,
        origin: &Origin,
        mut request: Request<Full<Bytes>>,
        extra: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let pool = match purpose {
            Purpose::Own => &self.own,
            Purpose::Token => &self.token,
            Purpose::Redirect => &self.redirect,
            Purpose::Foreign => &self.foreign,
        };
        let storm = Arc::new(Notify::new());
        let (interim, alarm) = (AtomicU32::new(0), Arc::clone(&storm));
        hyper::ext::on_informational(&mut request, move |_| {
            if interim.fetch_add(1, Ordering::Relaxed) >= INTERIM_MAX {
                alarm.notify_one();
            }
        });
        let mut captured = capture_connection(&mut request);
        let connection = captured.clone();
        let exchange = async {
            let mut response = std::pin::pin!(pool.request(request));
            // First the connection, which has its own limits, then the head.
            tokio::select! {
                biased;
                response = &mut response => return Ok(response),
                _ = captured.wait_for_connection_metadata() => {}
            }
            timeout(self.timeouts.headers + extra, response).await
        };
        // Waiting for somebody else's connection attempt is bounded too.
        let patience =
            self.timeouts.connect * 3 + self.timeouts.tls * 2 + self.timeouts.headers + extra;
        let done = tokio::select! {
            done = timeout(patience, exchange) => done.and_then(|done| done),
            () = storm.notified() => {
                return Err(Failure::new(Error::new(Kind::BadAnswer, format!("{origin} answers with nothing but interim responses"))));
            }
        };
        let uses = || {
            let mut extras = Extensions::new();
            let connected = connection.connection_metadata();
            if let Some(connected) = connected.as_ref() {
                connected.get_extras(&mut extras);
            }
            extras.get::<Uses>().cloned()
        };
        let response = match done {
            Err(_elapsed) => {
                return Err(Failure::new(Error::new(
                    Kind::Timeout,
                    format!("{origin} took too long to answer"),
                )));
            }
            Ok(Err(error)) => {
                let was_pooled =
                    !error.is_connect() && is_cut(&error) && uses().is_some_and(|uses| uses.any());
                return Err(Failure {
                    error: explain(purpose, origin, &error),
                    was_pooled,
                });
            }
            Ok(Ok(response)) => response,
        };
        if let Some(uses) = uses() {
            uses.count();
        }
        Ok(response)
    }
}

struct Failure {
    error: Error,
    /// The connection had worked before, so that it may only have been closed for idleness.
    was_pooled: bool,
}

impl Failure {
    const fn new(error: Error) -> Self {
        Self {
            error,
            was_pooled: false,
        }
    }
}

fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// Whether the connection went away before the first byte of an answer.
fn is_cut(error: &legacy::Error) -> bool {
    causes(error).any(|cause| {
        cause.downcast_ref::<hyper::Error>().is_some_and(|error| {
            error.is_incomplete_message() || error.is_canceled() || error.is_closed()
        }) || cause.downcast_ref::<std::io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset
                    | std::io::ErrorKind::BrokenPipe
                    | std::io::ErrorKind::ConnectionAborted
                    | std::io::ErrorKind::UnexpectedEof
            )
        })
    })
}

/// What a failed exchange means.
fn explain(purpose: Purpose, origin: &Origin, error: &legacy::Error) -> Error {
    if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<ConnectError>()) {
        let key = match purpose {
            Purpose::Own => "",
            Purpose::Token | Purpose::Redirect | Purpose::Foreign => "; allow_addresses lifts this",
        };
        return match error {
            ConnectError::Guarded { .. } => Error::new(
                if purpose == Purpose::Own {
                    Kind::Unavailable
                } else {
                    Kind::BadAnswer
                },
                format!("{error}{key}"),
            ),
            ConnectError::Slow { .. } => Error::new(Kind::Timeout, error.to_string()),
            ConnectError::NotOwn(_)
            | ConnectError::NoHost
            | ConnectError::Lookup(_)
            | ConnectError::Tcp { .. }
            | ConnectError::Tls { .. }
            | ConnectError::Proxy { .. } => Error::new(Kind::Unavailable, error.to_string()),
        };
    }
    let hyper = causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
    if hyper.is_some_and(|error| error.is_parse() || error.is_parse_too_large()) {
        return Error::new(
            Kind::BadAnswer,
            format!("{origin} does not answer in HTTP that can be read"),
        )
        .of_outage();
    }
    Error::new(
        Kind::Unavailable,
        format!("{origin} cut the connection before it answered"),
    )
}

/// Runs connections as background tasks, which end when the process stops.
#[derive(Debug, Clone)]
struct Background(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Background {
    fn execute(&self, future: F) {
        let stopping = self.0.stopping();
        self.0.spawn("upstream connection", async move {
            tokio::select! {
                () = future => {}
                () = stopping.cancelled() => {}
            }
        });
    }
}
