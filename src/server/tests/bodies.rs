//! Responses: panics, bodies that break off, fairness.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::stream;
use http_body::Body as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::support::{eventually, get, get_last, limits, read_until, start};
use crate::body::Body;
use crate::server::outgoing::{InFlight, Outgoing, Transfers};
use crate::server::watch::Watch;
use crate::telemetry::Metrics;

#[tokio::test]
async fn a_panic_is_one_answer_and_nothing_more() {
    let server = start(limits()).await;
    let reply = server
        .exchange(format!("{}{}", get("/panic"), get_last("/hello")).as_bytes())
        .await;
    assert_eq!(reply.statuses(), [500, 200]);
    assert!(reply.text().contains(r#"{"errors":[{"code":"UNKNOWN""#));
    assert!(!reply.text().contains("asked to"));
    assert_eq!(server.metrics.panics.get(), 1);
    assert_eq!(server.metrics.in_flight.get(), 0);

    let reply = server.exchange(get("/body-panic").as_bytes()).await;
    assert!(reply.text().ends_with("\r\n\r\nsome"), "{}", reply.text());
    assert_eq!(server.metrics.panics.get(), 2);
    eventually!(server.metrics.connections.get() == 0);
}

#[tokio::test]
async fn a_body_that_breaks_off_has_no_clean_end() {
    let server = start(limits()).await;
    let reply = server.exchange(get("/broken").as_bytes()).await;
    assert!(reply.text().ends_with("some\r\n"), "{}", reply.text());
    // HTTP/1.0 has no chunks: only a reset tells
    let reply = server.exchange(b"GET /broken HTTP/1.0\r\n\r\n").await;
    assert!(reply.reset);
    // while what is whole ends cleanly
    let reply = server.exchange(b"GET /hello HTTP/1.0\r\n\r\n").await;
    assert!(!reply.reset && reply.text().ends_with("hello"));
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let server = start(limits()).await;
    let mut socket = server.connect().await;
    socket
        .write_all(b"HEAD /ample HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let head = read_until(&mut socket, "\r\n\r\n").await;
    assert!(head.contains("content-length: 307200"), "{head}");
    socket.write_all(get("/hello").as_bytes()).await.unwrap();
    assert!(
        read_until(&mut socket, "hello")
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Bytes until the first turn is given up, waking itself.
fn turn(body: &mut Outgoing) -> usize {
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut bytes = 0;
    loop {
        match Pin::new(&mut *body).poll_frame(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(frame)) => bytes += frame.unwrap().into_data().unwrap().len(),
            Poll::Ready(None) => return bytes,
            Poll::Pending => {
                assert_eq!(count.0.load(Relaxed), 1, "a turn is given up, not lost");
                return bytes;
            }
        }
    }
}

#[test]
fn transfers_take_turns() {
    let metrics = Arc::new(Metrics::new());
    let transfers = Transfers::default();
    let watch = Arc::new(Watch::new(Instant::now()));
    let large = || {
        let chunks = std::iter::repeat_with(|| Ok(Bytes::from(vec![0; 32 * 1024]))).take(1024);
        let in_flight = InFlight::begin(Arc::clone(&watch), Arc::clone(&metrics));
        Outgoing::new(
            Body::stream(stream::iter(chunks), None),
            None,
            in_flight,
            transfers.clone(),
        )
    };
    let mut first = large();
    assert_eq!(turn(&mut first), 2 * 1024 * 1024, "alone");
    let mut second = large();
    assert_eq!(turn(&mut second), 256 * 1024, "counts from here on");
    assert_eq!(turn(&mut first), 256 * 1024, "with another");
    drop(second);
    assert_eq!(turn(&mut first), 2 * 1024 * 1024, "alone again");
}
