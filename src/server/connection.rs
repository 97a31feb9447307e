//! One connection from accept to its end: TLS, the choice between HTTP/1 and HTTP/2, and the watch over both.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::hyper_service::{FLOW, STREAM_WINDOW, Service};
use super::outgoing::Outgoing;
use super::rewound::Rewound;
use super::roster::{Phase, Seat};
use super::screened::Screened;
use super::stream::Stream;
use super::tls::Terms;
use super::watch::{Flow, Reason, Verdict, Watch};
use super::wire::{Metered, Wire};
use super::{Handler, Limits, clients};
use crate::tasks::Tasks;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Body bytes that hyper holds for a slow client of HTTP/1, and its reading buffer.
const H1_BUFFER: usize = 64 * 1024;
/// The window for the request bodies of a whole HTTP/2 connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Serves one accepted socket to its end.
pub(super) async fn serve<H: Handler>(
    socket: Stream,
    tls: Option<Terms>,
    mut service: Service<H>,
    seat: Seat,
    tasks: Tasks,
) {
    let watch = Arc::clone(&service.watch);
    let limits = service.limits;
    let peer = service.connection.peer;
    // A second handle, to see a reset while nothing is read or written.
    let Ok(watched) = socket.as_fd().try_clone_to_owned() else {
        tracing::warn!(%peer, "no descriptor left for a connection");
        return;
    };
    let opening = async {
        let wire = match (socket, tls) {
            (Stream::Tcp(socket), Some(terms)) => {
                let shaking = handshake(socket, terms, Arc::clone(&watch));
                let shaken = timeout(limits.tls_handshake, shaking).await??;
                watch.opened();
                shaken
            }
            (socket, _) => (Wire::Plain(Metered::new(socket, Arc::clone(&watch))), None),
        };
        let (wire, client) = wire;
        let (wire, held) = timeout(limits.header_timeout, sniff(wire)).await??;
        Ok::<_, io::Error>((wire, held, client))
    };
    let opened = tokio::select! {
        biased;
        opened = opening => opened,
        () = seat.draining() => return,
    };
    let (wire, held, client) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(%peer, %error, "connection ended before its first request");
            return;
        }
    };
    service.connection.client = client;
    let end = if held == PREFACE {
        Box::pin(serve_h2(wire, held, service, seat, tasks)).await
    } else if held.is_empty() {
        return;
    } else {
        Box::pin(serve_h1(wire, held, service, seat, watched)).await
    };
    match end {
        End::Done(Ok(())) => {}
        End::Done(Err(error)) => tracing::debug!(%peer, %error, "connection failed"),
        End::Closed(reason) => {
            tracing::debug!(%peer, reason = reason.as_str(), "connection closed");
        }
        End::Gone => tracing::debug!(%peer, "the client has gone"),
        End::Cut => tracing::info!(%peer, "connection cut by the shutdown"),
    }
}

/// Shakes hands. Whoever speaks HTTP to a TLS port is told so.
async fn handshake(
    mut socket: TcpStream,
    terms: Terms,
    watch: Arc<Watch>,
) -> io::Result<(Wire, Option<Arc<str>>)> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
        socket
            .write_all(
                b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
                  This port speaks HTTPS.\n",
            )
            .await?;
        socket.shutdown().await?;
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "plain HTTP on a TLS port",
        ));
    }
    let acceptor = TlsAcceptor::from(terms.config);
    let stream = acceptor
        .accept(Metered::new(Stream::Tcp(socket), watch))
        .await?;
    let shown = stream.get_ref().1.peer_certificates();
    let client = terms.user.and_then(|user| {
        let certificate = shown?.first()?;
        clients::name(certificate, user)
    });
    Ok((Wire::Tls(Box::new(stream)), client))
}

/// Reads until it is plain which protocol this is; returns what was read. Exactly the preface means HTTP/2.
async fn sniff<S: AsyncRead + Unpin>(mut wire: S) -> io::Result<(S, Vec<u8>)> {
    let mut held = Vec::with_capacity(PREFACE.len());
    while PREFACE.starts_with(&held) && held.len() < PREFACE.len() {
        let mut rest = (&mut wire).take((PREFACE.len() - held.len()) as u64);
        if rest.read_buf(&mut held).await? == 0 {
            break;
        }
    }
    Ok((wire, held))
}

async fn serve_h1<H: Handler>(
    wire: Wire,
    held: Vec<u8>,
    service: Service<H>,
    seat: Seat,
    watched: OwnedFd,
) -> End {
    let watch = Arc::clone(&service.watch);
    let limits = service.limits;
    let io = TokioIo::new(Screened::new(wire, held, Arc::clone(&watch), limits));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The watch has the deadlines, which differ between a slow head and an idle connection.
        .header_read_timeout(None)
        .half_close(true)
        .max_buf_size(H1_BUFFER)
        .serve_connection(io, service);
    drive(connection, &watch, &limits, &seat, Some(&watched)).await
}

async fn serve_h2<H: Handler>(
    mut wire: Wire,
    held: Vec<u8>,
    service: Service<H>,
    seat: Seat,
    tasks: Tasks,
) -> End {
    let watch = Arc::clone(&service.watch);
    let limits = service.limits;
    let h2 = limits.h2;
    watch.head_ended();
    wire.limit_floods(h2.control_bytes);
    let seat = Arc::new(seat);
    let streams = Streams {
        tasks,
        seat: Arc::clone(&seat),
        limits,
    };
    let connection = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(h2.streams)
        .max_header_list_size(limits.header_bytes)
        .max_pending_accept_reset_streams(h2.pending_resets)
        .max_local_error_reset_streams(h2.error_resets)
        .max_send_buf_size(h2.send_buffer)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(h2.ping_interval)
        .keep_alive_timeout(h2.ping_timeout)
        .serve_connection(TokioIo::new(Rewound::new(wire, held)), service);
    // HTTP/2 always reads, so it sees a reset by itself.
    drive(connection, &watch, &limits, &seat, None).await
}

/// How a connection ended.
#[derive(Debug)]
enum End {
    Done(hyper::Result<()>),
    Closed(Reason),
    /// The client reset the connection while its request was being answered.
    Gone,
    Cut,
}

/// A connection that can be asked to take no more requests.
trait Drain: Future<Output = hyper::Result<()>> {
    fn drain(self: Pin<&mut Self>);
}

impl<S, H: Handler> Drain for http1::Connection<TokioIo<Screened<S>>, Service<H>>
where
    S: AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    fn drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S, H: Handler> Drain for http2::Connection<TokioIo<Rewound<S>>, Service<H>, Streams>
where
    S: AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    Streams: hyper::rt::bounds::Http2ServerConnExec<
            <Service<H> as hyper::service::Service<http::Request<Incoming>>>::Future,
            Outgoing,
        >,
{
    fn drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Polls a connection to its end, and ends it when the watch or the shutdown says so.
async fn drive<C: Drain>(
    connection: C,
    watch: &Watch,
    limits: &Limits,
    seat: &Seat,
    watched: Option<&OwnedFd>,
) -> End {
    let mut connection = pin!(connection);
    let mut timer = pin!(sleep_until(Instant::now() + limits.header_timeout));
    let mut draining = false;
    let mut last: Option<(Instant, Reason)> = None;
    let end = std::future::poll_fn(|cx: &mut Context<'_>| {
        let phase = seat.poll_phase(cx);
        if phase == Phase::Cut {
            return Poll::Ready(End::Cut);
        }
        if phase == Phase::Draining && !draining {
            draining = true;
            connection.as_mut().drain();
        }
        loop {
            if let Poll::Ready(done) = connection.as_mut().poll(cx) {
                return Poll::Ready(End::Done(done));
            }
            let now = Instant::now();
            let at = match (watch.verdict(now, limits), last) {
                (_, Some((by, reason))) if by <= now => return Poll::Ready(End::Closed(reason)),
                (_, Some((by, _))) => by,
                (Verdict::LookAgain(at), None) => at,
                // Said good-bye to, and given a moment to take it.
                (Verdict::Close(Reason::Idle), None) => {
                    connection.as_mut().drain();
                    let by = now + limits.linger * 2;
                    last = Some((by, Reason::Idle));
                    continue;
                }
                (Verdict::Close(reason), None) => return Poll::Ready(End::Closed(reason)),
            };
            // Deadlines that moved back are seen when the timer fires: a busy connection never touches it.
            let elapsed = timer.is_elapsed();
            if elapsed && watch.is_in_flight() && watched.is_some_and(is_gone) {
                return Poll::Ready(End::Gone);
            }
            if at < timer.deadline() || elapsed {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
    match &end {
        End::Done(Ok(())) => watch.needs_reset(false),
        End::Closed(Reason::Stalled | Reason::Flood) => watch.needs_reset(true),
        End::Done(Err(_)) | End::Closed(_) | End::Gone | End::Cut => {}
    }
    end
}

/// Whether the peer has reset the connection. One that has only closed its sending half still gets its answer, so hyper is told to leave
/// that alone, and for its part does not look for resets while a handler works.
fn is_gone(socket: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec {
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

/// Runs the streams of one HTTP/2 connection, each watched for a client that takes nothing.
#[derive(Debug, Clone)]
struct Streams {
    tasks: Tasks,
    seat: Arc<Seat>,
    limits: Limits,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let seat = Arc::clone(&self.seat);
        let patience = self.limits.stalled_client;
        self.tasks.spawn("http/2 stream", async move {
            let flow = Arc::new(Flow::new(Instant::now()));
            let mut stream = pin!(FLOW.scope(Arc::clone(&flow), stream));
            // Dropping the stream resets it.
            while let Verdict::LookAgain(at) = flow.verdict(Instant::now(), patience) {
                tokio::select! {
                    biased;
                    () = &mut stream => break,
                    () = sleep_until(at) => {}
                }
            }
            drop(seat);
        });
    }
}
