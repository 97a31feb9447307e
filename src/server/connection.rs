//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustix::event::{PollFd, PollFlags};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::meter::{Meter, Pace};
use super::screen::{Refusal, screen};
use super::{Connection, Handler, Limits};
use crate::body::Body;
use crate::oci::{ErrorCode, error_code};
use crate::telemetry::Metrics;

/// How much of a response waits in memory for a slow client, on HTTP/1 and on each HTTP/2 stream.
const SEND_BUFFER: usize = 64 * 1024;
/// How much of a head is buffered before it is too large to be one.
const HEAD_BUFFER: usize = 64 * 1024;

/// What the connections of one listener share.
pub(super) struct Shared<H> {
    pub(super) handler: Arc<H>,
    pub(super) limits: Arc<Limits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) meter: Arc<Meter>,
    pub(super) shutdown: CancellationToken,
    pub(super) cut: CancellationToken,
}

impl<H> Clone for Shared<H> {
    fn clone(&self) -> Self {
        Self {
            handler: Arc::clone(&self.handler),
            limits: Arc::clone(&self.limits),
            metrics: Arc::clone(&self.metrics),
            meter: Arc::clone(&self.meter),
            shutdown: self.shutdown.clone(),
            cut: self.cut.clone(),
        }
    }
}

/// Serves a connection until it ends, stalls or is cut.
pub(super) async fn serve<H: Handler>(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    connection: Connection,
    shared: &Shared<H>,
) {
    let accepted = Instant::now();
    // A second handle on the socket, to see a reset while nothing is read or written.
    let Ok(watched) = stream.as_fd().try_clone_to_owned() else {
        return;
    };
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    let Some(tls) = tls else {
        converse(
            TokioIo::new(stream),
            connection,
            shared,
            (accepted, &watched),
        )
        .await;
        return;
    };
    match tokio::time::timeout(shared.limits.header_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            converse(
                TokioIo::new(stream),
                connection,
                shared,
                (accepted, &watched),
            )
            .await;
        }
        Ok(Err(error)) => debug!(%error, peer = %connection.peer, "no TLS"),
        Err(_elapsed) => debug!(peer = %connection.peer, "TLS took too long"),
    }
}

async fn converse<H: Handler, I: Read + Write + Unpin + Send + 'static>(
    io: I,
    connection: Connection,
    shared: &Shared<H>,
    (accepted, watched): (Instant, &OwnedFd),
) {
    let limits = &shared.limits;
    let pace = Arc::new(Pace::new());
    let asked = Arc::new(AtomicBool::new(false));
    let service = {
        let (shared, pace, asked) = (shared.clone(), Arc::clone(&pace), Arc::clone(&asked));
        service_fn(move |request| {
            asked.store(true, Ordering::Relaxed);
            answer(request, connection, shared.clone(), Arc::clone(&pace))
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // hyper counts a connection's idle time as time for the next head.
        .header_read_timeout(limits.idle_timeout)
        .max_headers(limits.headers)
        .max_buf_size(HEAD_BUFFER)
        .half_close(true)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.idle_timeout)
        .keep_alive_timeout(limits.header_timeout);
    let conversation = builder.serve_connection(io, service);
    tokio::pin!(conversation);
    let mut draining = false;
    // A silent connection is closed after the time for its first head; after that only a stalled client is.
    let look =
        (limits.stalled_client.min(limits.header_timeout) / 4).max(Duration::from_millis(10));
    loop {
        tokio::select! {
            ended = conversation.as_mut() => {
                if let Err(error) = ended {
                    debug!(error, peer = %connection.peer, "a connection ended badly");
                }
                return;
            }
            () = shared.shutdown.cancelled(), if !draining => {
                draining = true;
                conversation.as_mut().graceful_shutdown();
                if !asked.load(Ordering::Relaxed) {
                    return;
                }
            }
            () = shared.cut.cancelled() => return,
            () = tokio::time::sleep(look) => {
                let silent = !asked.load(Ordering::Relaxed) && accepted.elapsed() >= limits.header_timeout;
                if is_gone(watched) {
                    debug!(peer = %connection.peer, "the client has gone");
                    return;
                }
                if silent || pace.stalled() >= limits.stalled_client {
                    debug!(peer = %connection.peer, silent, "closing a connection that does not move");
                    return;
                }
            }
        }
    }
}

/// Whether the peer has reset the connection. One that has only closed its sending half still gets its answer, so hyper is told to
/// leave that alone, and for its part does not look for resets either.
fn is_gone(socket: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(socket, PollFlags::empty())];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let polled = rustix::event::poll(&mut watched, Some(&now));
    polled.is_ok()
        && watched.iter().any(|watched| {
            watched
                .revents()
                .intersects(PollFlags::HUP | PollFlags::ERR)
        })
}

async fn answer<H: Handler>(
    request: Request<Incoming>,
    connection: Connection,
    shared: Shared<H>,
    pace: Arc<Pace>,
) -> Result<Response<Body>, Infallible> {
    pace.touch();
    let (version, method) = (request.version(), request.method().clone());
    let (parts, body) = request.into_parts();
    let mut response = match screen(&parts, &shared.limits) {
        Ok(()) => {
            let handled =
                Arc::clone(&shared.handler).handle(Request::from_parts(parts, body), connection);
            // One request's panic is one request's failure (RELIABILITY P46).
            match AssertUnwindSafe(handled).catch_unwind().await {
                Ok(response) => response,
                Err(_panic) => {
                    shared.metrics.panics.inc();
                    tracing::error!(%method, "a request panicked");
                    refuse(
                        Refusal {
                            status: StatusCode::INTERNAL_SERVER_ERROR,
                            code: ErrorCode::Unknown,
                            message: "this request failed by a fault of the mirror",
                        },
                        version,
                    )
                }
            }
        }
        Err(refusal) => refuse(refusal, version),
    };
    if method == Method::HEAD {
        let length = http_body::Body::size_hint(response.body()).exact();
        if let (Some(length), false) = (
            length,
            response
                .headers()
                .contains_key(http::header::CONTENT_LENGTH),
        ) {
            response
                .headers_mut()
                .insert(http::header::CONTENT_LENGTH, length.into());
        }
        *response.body_mut() = Body::empty();
    }
    Ok(response.map(|body| shared.meter.wrap(body, &pace)))
}

fn refuse(refusal: Refusal, version: Version) -> Response<Body> {
    let mut response = Response::new(Body::full(error_code::envelope(
        refusal.code,
        refusal.message,
        &Value::Null,
    )));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        "docker-distribution-api-version",
        HeaderValue::from_static("registry/2.0"),
    );
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
