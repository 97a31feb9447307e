//! Hostile HTTP/1 over sockets (RELIABILITY 5.1): what a second reader could take for a second request never becomes one.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::support::{SOON, eventually, get, get_last, limits, read_to_end, read_until, start};
use crate::server::Limits;

/// Stands behind every case; a handler that sees it was smuggled a request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_refused_head_is_the_last_thing_read() {
    let server = start(limits()).await;
    let post = |headers: &str, body: &str| {
        format!("POST /echo HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{body}")
    };
    let cases = [
        (
            post(
                "Content-Length: 5\r\nTransfer-Encoding: chunked",
                "0\r\n\r\n",
            ),
            400,
        ),
        (
            post(
                "Transfer-Encoding: chunked\r\nContent-Length: 5",
                "0\r\n\r\n",
            ),
            400,
        ),
        (post("Content-Length: 5\r\nContent-Length: 6", "hello"), 400),
        (post("Content-Length: +5", "hello"), 400),
        (
            post("Transfer-Encoding: identity, chunked", "0\r\n\r\n"),
            400,
        ),
        (post("Content-Length : 5", "hello"), 400),
        (post("X: a\r\n Content-Length: 5", "hello"), 400),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), 400),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
            400,
        ),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (
            "GET http://evil/v2/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            400,
        ),
        (
            "CONNECT evil:443 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            405,
        ),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405),
        (post("Expect: foo\r\nContent-Length: 5", "hello"), 417),
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9 * 1024)),
            414,
        ),
        (
            format!(
                "GET /?{} HTTP/1.1\r\nHost: a\r\n\r\n",
                "&a=".repeat(100_000)
            ),
            414,
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
                "x".repeat(33 * 1024)
            ),
            431,
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
                "X: y\r\n".repeat(100)
            ),
            431,
        ),
        (
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_owned() + &get("/hello"),
            400,
        ),
        ("\r\n\r\n\0\r\nQUIT\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned(), 400),
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(), 505),
    ];
    for (case, status) in cases {
        let reply = server
            .exchange(format!("{case}{SMUGGLED}").as_bytes())
            .await;
        let shown: String = case.chars().take(120).collect();
        assert_eq!(reply.statuses(), [status], "{shown:?}");
        assert!(!reply.reset, "{shown:?}");
        let text = reply.text().to_ascii_lowercase();
        assert!(text.contains("connection: close"), "{shown:?}");
        assert!(
            text.contains("docker-distribution-api-version: registry/2.0"),
            "{shown:?}"
        );
        assert!(text.contains(r#"{"errors":[{"code":"#), "{shown:?}");
    }
    assert_eq!(server.seen(), [""; 0]);
    assert_eq!(
        server
            .exchange(get_last("/hello").as_bytes())
            .await
            .statuses(),
        [200]
    );
}

#[tokio::test]
async fn a_broken_chunked_body_is_an_error_and_the_end() {
    let server = start(limits()).await;
    let long = format!("1;{}\r\na\r\n", "x".repeat(16 * 1024)).repeat(4);
    for body in [
        "1000000000000000000\r\n",
        "-1\r\n",
        "0x1\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        &long,
    ] {
        let request =
            format!("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let reply = server
            .exchange(format!("{request}{SMUGGLED}").as_bytes())
            .await;
        assert_eq!(reply.statuses(), [400], "{:?}", body.get(..10));
    }
    assert_eq!(server.seen(), ["POST /echo"; 8]);
}

#[tokio::test]
async fn what_stands_behind_a_body_is_the_next_request() {
    let server = start(limits()).await;
    let bodies = [
        // H13: bodies that nobody asked for, small enough to be read away
        "GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: ".to_owned(),
        "GET /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\nA: b\r\n\r\n".to_owned(),
        format!("PUT /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n{}", "x".repeat(60_000)),
        // and one that is read; trailers are no headers (H12)
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n".to_owned(),
        // an empty line too many is forgiven
        "\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        // H14, H15
        "GET /hello HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n".to_owned(),
        "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 4\r\n\r\nabcd".to_owned(),
        // H42
        "HEAD /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        "GET http://A/hello HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ];
    for body in bodies {
        let reply = server
            .exchange(format!("{body}{}", get_last("/host")).as_bytes())
            .await;
        assert_eq!(
            reply.statuses(),
            [200, 200],
            "{:?}: {}",
            body.get(..40),
            reply.text()
        );
        assert!(reply.text().ends_with("mirror /host 0"), "{}", reply.text());
    }
    assert!(!server.seen().iter().any(|line| line.contains("smuggled")));
}

#[tokio::test]
async fn a_large_unread_body_ends_the_connection_but_not_the_answer() {
    let server = start(limits()).await;
    for body in [
        format!("Content-Length: 200000\r\n\r\n{}", "x".repeat(200_000)),
        // says nothing of its length, and is too long
        format!(
            "Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
            format!("400\r\n{}\r\n", "x".repeat(1024)).repeat(100)
        ),
        // does not come
        "Content-Length: 100\r\n\r\n".to_owned(),
        // waits to be asked
        "Content-Length: 100\r\nExpect: 100-continue\r\n\r\n".to_owned(),
    ] {
        let reply = server
            .exchange(format!("PUT /hello HTTP/1.1\r\nHost: a\r\n{body}").as_bytes())
            .await;
        assert_eq!(reply.statuses(), [200], "{:?}", body.get(..25));
        assert!(!reply.reset && reply.text().ends_with("hello"));
        assert!(
            reply.text().contains("connection: close"),
            "{}",
            reply.text()
        );
    }
}

#[tokio::test]
async fn a_thousand_pipelined_requests_are_answered_in_order() {
    let server = start(limits()).await;
    let mut requests = String::new();
    for at in 0..999 {
        write!(requests, "{}", get(&format!("/host/{at}"))).unwrap();
    }
    requests += &get_last("/host/999");
    let reply = server.exchange(requests.as_bytes()).await;
    assert_eq!(reply.statuses(), [200; 1000]);
    let expected: Vec<_> = (0..1000).map(|at| format!("GET /host/{at}")).collect();
    assert_eq!(server.seen(), expected);
}

#[tokio::test]
async fn a_refusal_waits_its_turn() {
    let server = start(limits()).await;
    let mut socket = server.connect().await;
    let bad = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    socket
        .write_all(format!("{}{bad}{SMUGGLED}", get("/held")).as_bytes())
        .await
        .unwrap();
    while server.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    server.probe.go.notify_one();
    let reply = read_to_end(&mut socket).await;
    assert_eq!(reply.statuses(), [200, 400]);
    assert_eq!(server.seen(), ["GET /held"]);
}

#[tokio::test]
async fn a_client_that_only_closed_its_end_gets_the_whole_answer() {
    let server = start(limits()).await;
    let mut socket = server.connect().await;
    socket.write_all(get("/held").as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    eventually!(!server.seen().is_empty());
    // Time to notice, for a server that would.
    tokio::time::sleep(SOON).await;
    server.probe.go.notify_one();
    let reply = read_to_end(&mut socket).await;
    assert!(!reply.reset && reply.text().ends_with("held"));
}

#[tokio::test]
async fn a_client_that_is_refused_while_it_sends_is_not_reset() {
    let patient = Limits {
        linger: Duration::from_secs(3600),
        ..limits()
    };
    let server = start(patient).await;
    let mut socket = server.connect().await;
    let long = format!("PUT /{} HTTP/1.1\r\n", "x".repeat(9 * 1024));
    socket.write_all(long.as_bytes()).await.unwrap();
    let reply = read_to_end(&mut socket).await;
    assert_eq!(reply.statuses(), [414]);
    for _ in 0..4 {
        socket.write_all(&vec![b'x'; 64 * 1024]).await.unwrap();
        tokio::time::sleep(SOON / 10).await;
    }
    // Not for ever, though.
    eventually!(socket.write_all(&vec![b'x'; 64 * 1024]).await.is_err());
    eventually!(server.metrics.connections.get() == 0);

    let server = start(limits()).await;
    let mut silent = server.connect().await;
    silent.write_all(long.as_bytes()).await.unwrap();
    assert_eq!(read_to_end(&mut silent).await.statuses(), [414]);
    eventually!(server.metrics.connections.get() == 0);
}

#[tokio::test]
async fn a_body_that_stops_short_is_an_error_to_its_reader() {
    let server = start(limits()).await;
    for head in [
        "Content-Length: 10\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let mut socket = server.connect().await;
        socket
            .write_all(format!("POST /echo HTTP/1.1\r\nHost: a\r\n{head}").as_bytes())
            .await
            .unwrap();
        socket.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut socket).await.statuses(), [400]);
    }
}

#[tokio::test]
async fn expect_continue_is_answered_when_the_body_is_wanted() {
    let server = start(limits()).await;
    let mut socket = server.connect().await;
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    assert!(
        read_until(&mut socket, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 100 ")
    );
    socket.write_all(b"abc").await.unwrap();
    let reply = read_to_end(&mut socket).await;
    assert_eq!(reply.statuses(), [200]);
    assert!(reply.text().ends_with("abc"));
}
