//! HTTP/2 in the clear, with prior knowledge: hyper's client, and raw frames where it is too polite.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{PATIENCE, Running, SOON, eventually, limits, no_body, read_to_end, start};
use crate::server::{H2Limits, Limits};

type Client = SendRequest<http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>>;

async fn connect(server: &Running, adjust: impl FnOnce(&mut Builder<TokioExecutor>)) -> Client {
    let mut builder = Builder::new(TokioExecutor::new());
    adjust(&mut builder);
    let io = TokioIo::new(server.connect().await);
    let (client, connection) = builder.handshake(io).await.unwrap();
    TokioExecutor::new().execute(async move {
        // Ends with the server or the client; the requests tell how.
        drop(connection.await);
    });
    client
}

async fn send(client: &mut Client, path: &str) -> hyper::Result<Response<Incoming>> {
    client.ready().await?;
    let uri = format!("http://mirror:5000{path}");
    client
        .send_request(Request::get(uri).body(no_body()).unwrap())
        .await
}

async fn text(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn the_handler_sees_the_same_request_as_over_http_1() {
    let server = start(limits()).await;
    let mut client = connect(&server, |_| {}).await;
    let response = send(&mut client, "/host").await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(text(response).await, "mirror:5000 /host 0");
    assert_eq!(server.seen(), ["GET /host"]);

    let response = send(&mut client, "/panic").await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let response = send(&mut client, "/ample").await.unwrap();
    assert_eq!(response.headers()["content-length"], "307200");
    assert_eq!(text(response).await.len(), 300 * 1024);

    let head = Request::head("http://mirror/ample")
        .body(no_body())
        .unwrap();
    let response = client.send_request(head).await.unwrap();
    assert_eq!(response.headers()["content-length"], "307200");
    assert_eq!(text(response).await, "");
}

#[tokio::test]
async fn refusals_leave_the_connection_open() {
    let server = start(limits()).await;
    let mut client = connect(&server, |_| {}).await;
    let bad = Request::get("http://mirror/")
        .header("host", "other")
        .body(no_body())
        .unwrap();
    assert_eq!(
        client.send_request(bad).await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
    let long = send(&mut client, &format!("/{}", "x".repeat(9000)))
        .await
        .unwrap();
    assert_eq!(long.status(), StatusCode::URI_TOO_LONG);
    let big = Request::get("http://mirror/")
        .header("x", "y".repeat(40_000))
        .body(no_body())
        .unwrap();
    // h2 may answer or reset; the handler sees nothing of it.
    if let Ok(response) = client.send_request(big).await {
        assert_eq!(
            response.status(),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        );
    }
    assert_eq!(server.seen(), [""; 0]);
    assert_eq!(
        send(&mut client, "/hello").await.unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_stream_whose_client_takes_nothing_is_reset_and_others_live() {
    let server = start(Limits {
        stalled_client: SOON,
        ..limits()
    })
    .await;
    let mut client = connect(&server, |builder| {
        builder.initial_stream_window_size(0);
    })
    .await;
    // An answer that waits for its source, beside one that nobody takes.
    let mut other = client.clone();
    let waiting = send(&mut other, "/held");
    let stalled = async {
        let response = send(&mut client, "/much").await.unwrap();
        let outcome = tokio::time::timeout(PATIENCE, response.into_body().collect()).await;
        assert!(outcome.expect("the server resets the stream").is_err());
        server.probe.go.notify_one();
    };
    let (waited, ()) = tokio::join!(waiting, stalled);
    assert_eq!(waited.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_idle_connection_is_let_go() {
    let server = start(Limits {
        idle_timeout: SOON,
        ..limits()
    })
    .await;
    let mut client = connect(&server, |_| {}).await;
    let response = send(&mut client, "/hello").await.unwrap();
    assert_eq!(text(response).await, "hello");
    eventually!(client.is_closed() && server.metrics.connections.get() == 0);
}

#[tokio::test]
async fn a_silent_connection_is_let_go() {
    let server = start(Limits {
        idle_timeout: SOON,
        ..limits()
    })
    .await;
    let mut socket = server.connect().await;
    socket
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    read_to_end(&mut socket).await;
    eventually!(server.metrics.connections.get() == 0);
}

#[tokio::test]
async fn drain_lets_streams_end_and_cuts_those_that_do_not() {
    let server = start(Limits {
        drain: Duration::from_millis(400),
        ..limits()
    })
    .await;
    let mut client = connect(&server, |_| {}).await;
    let mut other = client.clone();
    let held = async { text(send(&mut client, "/held").await.unwrap()).await };
    let never = async {
        let response = send(&mut other, "/never").await.unwrap();
        eventually!(server.metrics.in_flight.get() == 2);
        server.shutdown.cancel();
        server.probe.go.notify_one();
        response.into_body().collect().await
    };
    let (held, never) = tokio::join!(held, never);
    assert_eq!(held, "held");
    assert!(never.is_err(), "never a clean end");
    tokio::time::timeout(PATIENCE, server.stopped.cancelled())
        .await
        .unwrap();
    assert_eq!(server.metrics.connections.get(), 0);
    assert_eq!(server.metrics.in_flight.get(), 0);
}

#[tokio::test]
async fn a_body_that_breaks_off_resets_its_stream_alone() {
    let server = start(limits()).await;
    let mut client = connect(&server, |_| {}).await;
    for path in ["/broken", "/body-panic"] {
        let response = send(&mut client, path).await.unwrap();
        assert!(response.into_body().collect().await.is_err(), "{path}");
    }
    assert_eq!(server.metrics.panics.get(), 1);
    assert_eq!(
        text(send(&mut client, "/hello").await.unwrap()).await,
        "hello"
    );
}

/// Preface, empty SETTINGS.
async fn raw(server: &Running) -> TcpStream {
    let mut socket = server.connect().await;
    socket
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    socket.write_all(&frame(4, 0, 0, b"")).await.unwrap();
    socket
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HPACK of `GET http://a/hello`, without the dynamic table.
fn hello() -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, 6];
    block.extend(b"/hello");
    block.extend([0x01, 1, b'a']);
    block
}

/// Writes `flood` until the server closes.
async fn flood(mut socket: TcpStream, mut flood: impl FnMut(u32) -> Vec<u8>) {
    let (mut reader, mut writer) = socket.split();
    let sink = async {
        let mut sink = vec![0; 64 * 1024];
        while reader.read(&mut sink).await.is_ok_and(|bytes| bytes > 0) {}
    };
    let pour = async {
        for at in 0..1_000_000 {
            if writer.write_all(&flood(at)).await.is_err() {
                return;
            }
        }
        panic!("the server takes everything");
    };
    let both = async {
        tokio::select! {
            () = sink => {}
            () = pour => {}
        }
    };
    tokio::time::timeout(PATIENCE, both)
        .await
        .expect("the server closes the connection");
}

#[tokio::test]
async fn floods_end_the_connection() {
    let server = start(limits()).await;
    // F1: rapid reset
    flood(raw(&server).await, |at| {
        let stream = 2 * at + 1;
        let mut frames = frame(1, 0b101, stream, &hello());
        frames.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
        frames
    })
    .await;
    // F2: made you reset
    flood(raw(&server).await, |at| {
        let stream = 2 * at + 1;
        let mut frames = frame(1, 0b101, stream, &hello());
        frames.extend(frame(8, 0, stream, &0_u32.to_be_bytes()));
        frames
    })
    .await;
    // F3: a head without end
    flood(raw(&server).await, |at| match at {
        0 => frame(1, 0, 1, &hello()),
        _ => frame(9, 0, 1, b"\x00\x01x\x01y"),
    })
    .await;
    // F4: settings, pings, priorities, windows; empty data
    flood(raw(&server).await, |_| frame(4, 0, 0, b"")).await;
    flood(raw(&server).await, |_| frame(6, 0, 0, b"12345678")).await;
    flood(raw(&server).await, |_| frame(2, 0, 1, &[0; 5])).await;
    flood(raw(&server).await, |at| match at {
        0 => frame(1, 0b100, 1, &hello()),
        _ => frame(0, 0, 1, b""),
    })
    .await;
    eventually!(server.metrics.connections.get() == 0);
    let mut client = connect(&server, |_| {}).await;
    assert_eq!(
        send(&mut client, "/hello").await.unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn requests_given_up_in_numbers_end_the_connection() {
    let few = H2Limits {
        cancelled: 10,
        ..H2Limits::default()
    };
    let server = start(Limits {
        h2: few,
        ..limits()
    })
    .await;
    let mut client = connect(&server, |_| {}).await;
    let mut failed = false;
    for _ in 0..100 {
        let begun = server.seen().len();
        let mut other = client.clone();
        tokio::select! {
            outcome = send(&mut client, "/held") => {
                failed = outcome.is_err();
                break;
            }
            () = async { while server.seen().len() == begun && !other.is_closed() { tokio::task::yield_now().await; } } => {}
        }
        if other.ready().await.is_err() {
            failed = true;
            break;
        }
    }
    assert!(failed);
}
