//! Clients that hold a connection and do nothing with it, in every state that a connection can be in.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::support::{
    PATIENCE, Probe, SOON, eventually, get, get_last, limits, read_to_end, read_until, start,
};
use crate::server::watch::{Reason, Verdict, Watch};
use crate::server::{Config, Limits, Server};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

#[tokio::test]
async fn heads_have_a_deadline_wherever_they_stop() {
    let server = start(Limits {
        header_timeout: SOON,
        ..limits()
    })
    .await;
    for begun in [
        "",
        "G",
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "PRI * HTTP/2.0\r\n",
        "\r",
    ] {
        let reply = server.exchange(begun.as_bytes()).await;
        assert_eq!(reply.bytes, b"", "{begun:?}");
    }
    // one byte at a time does not help
    let mut socket = server.connect().await;
    let begun = Instant::now();
    while socket.write_all(b"X").await.is_ok() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(SOON / 10).await;
    }
    eventually!(server.metrics.connections.get() == 0);
}

#[tokio::test]
async fn a_second_head_has_a_deadline_too_and_idleness_another() {
    let header = Limits {
        header_timeout: SOON,
        ..limits()
    };
    let server = start(header).await;
    let mut socket = server.connect().await;
    socket.write_all(get("/hello").as_bytes()).await.unwrap();
    read_until(&mut socket, "hello").await;
    // idle for longer than a head may take
    tokio::time::sleep(SOON * 2).await;
    socket.write_all(get("/hello").as_bytes()).await.unwrap();
    read_until(&mut socket, "hello").await;
    socket.write_all(b"GET /").await.unwrap();
    assert_eq!(read_to_end(&mut socket).await.bytes, b"");

    let server = start(Limits {
        idle_timeout: SOON,
        ..limits()
    })
    .await;
    let mut socket = server.connect().await;
    socket.write_all(get("/hello").as_bytes()).await.unwrap();
    read_until(&mut socket, "hello").await;
    let reply = read_to_end(&mut socket).await;
    assert!(reply.bytes.is_empty() && !reply.reset);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let server = start(Limits {
        stalled_client: SOON,
        ..limits()
    })
    .await;
    let mut socket = server.connect().await;
    socket.write_all(get("/much").as_bytes()).await.unwrap();
    eventually!(server.metrics.in_flight.get() == 1);
    eventually!(server.metrics.connections.get() == 0);
    assert_eq!(server.metrics.in_flight.get(), 0);
    let mut bytes = Vec::new();
    // The reset takes what the kernel still held along.
    assert!(socket.read_to_end(&mut bytes).await.is_err());
}

#[tokio::test]
async fn a_client_that_takes_little_but_steadily_is_not() {
    let patience = Duration::from_millis(600);
    let server = start(Limits {
        stalled_client: patience,
        ..limits()
    })
    .await;
    let mut socket = server.connect().await;
    socket.write_all(get("/much").as_bytes()).await.unwrap();
    let mut chunk = vec![0; 4 * 1024 * 1024];
    let begun = Instant::now();
    while begun.elapsed() < patience * 2 {
        socket.read_exact(&mut chunk).await.unwrap();
        tokio::time::sleep(patience / 20).await;
    }
    assert_eq!(server.metrics.connections.get(), 1);
}

#[tokio::test]
async fn waiting_for_the_source_is_not_the_clients_fault() {
    let quick = Limits {
        stalled_client: SOON,
        idle_timeout: SOON,
        header_timeout: SOON,
        ..limits()
    };
    let server = start(quick).await;
    let mut before_head = server.connect().await;
    before_head
        .write_all(get_last("/held").as_bytes())
        .await
        .unwrap();
    let mut in_body = server.connect().await;
    in_body.write_all(get("/never").as_bytes()).await.unwrap();
    read_until(&mut in_body, "begun\r\n").await;
    tokio::time::sleep(SOON * 3).await;
    assert_eq!(server.metrics.connections.get(), 2);
    server.probe.go.notify_one();
    assert_eq!(read_to_end(&mut before_head).await.statuses(), [200]);
}

#[tokio::test]
async fn a_request_body_has_a_minimum_speed() {
    let server = start(Limits {
        body_window: SOON,
        ..limits()
    })
    .await;
    for sent in ["", "a"] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{sent}");
        let reply = server.exchange(request.as_bytes()).await;
        assert_eq!(reply.statuses(), [400]);
        assert!(reply.text().contains("too slowly"));
    }
    let mut socket = server.connect().await;
    let head =
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut trickled = 0;
    while trickled < 1000 && socket.write_all(b"x").await.is_ok() {
        trickled += 1;
        tokio::time::sleep(SOON / 10).await;
        if server.metrics.connections.get() == 0 {
            break;
        }
    }
    assert!(trickled < 1000);
}

#[tokio::test]
async fn a_client_that_resets_while_a_handler_works_is_noticed() {
    let server = start(limits()).await;
    let mut socket = server.connect().await;
    socket.write_all(get("/held").as_bytes()).await.unwrap();
    eventually!(server.metrics.in_flight.get() == 1);
    socket.set_zero_linger().unwrap();
    drop(socket);
    // The handler would wait for ever.
    eventually!(server.metrics.in_flight.get() == 0 && server.metrics.connections.get() == 0);
    // One that has only finished sending still gets its answer.
    let mut socket = server.connect().await;
    socket
        .write_all(get_last("/held").as_bytes())
        .await
        .unwrap();
    socket.shutdown().await.unwrap();
    eventually!(server.metrics.in_flight.get() == 1);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    server.probe.go.notify_one();
    assert!(read_to_end(&mut socket).await.text().ends_with("held"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_too_little_is_cut_off() {
    let limits = Limits::default();
    let second = Duration::from_secs(1);
    for (bytes, is_cut) in [(1, true), (1000, true), (1100, false), (1 << 20, false)] {
        let watch = Watch::new(Instant::now());
        watch.head_ended();
        watch.request_began();
        for _ in 0..=limits.body_window.as_secs() {
            watch.write_blocked();
            tokio::time::advance(second).await;
            watch.wrote(bytes);
            // Time in which nothing was ready is nobody's fault.
            tokio::time::advance(second).await;
        }
        let verdict = watch.verdict(Instant::now(), &limits);
        let cut = verdict == Verdict::Close(Reason::Stalled);
        assert_eq!(cut, is_cut, "{bytes} bytes a second");
    }
}

#[tokio::test]
async fn the_owners_commands_may_take_their_time() {
    let quick = Limits {
        stalled_client: SOON,
        body_window: SOON,
        ..limits()
    };
    let (data, runtime) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let metrics = Arc::new(Metrics::new());
    let config = Config {
        listeners: Vec::new(),
        limits: quick,
    };
    let mut server = Server::bind(config, Arc::clone(&metrics)).await.unwrap();
    let path = server.listen_to_owner(data.path(), runtime.path(), 0);
    let (path, shutdown, tasks) = (path.unwrap(), CancellationToken::new(), Tasks::new());
    tasks.spawn("server", {
        let (tasks, shutdown) = (tasks.clone(), shutdown.clone());
        async move {
            server
                .run(Arc::new(Probe::default()), &tasks, shutdown)
                .await;
        }
    });
    // Who is slow over TCP is cut after this long (`a_request_body_has_a_minimum_speed`).
    let mut socket = UnixStream::connect(path).await.unwrap();
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(SOON * 4).await;
    socket.write_all(b"ab").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("ab"),
        "{answer}"
    );
    shutdown.cancel();
}
