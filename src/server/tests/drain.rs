//! Shutdown: what is in flight ends, what is not is closed, what does not end is cut so that it shows.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{PATIENCE, SOON, eventually, get, limits, read_to_end, read_until, start};
use crate::server::Limits;

#[tokio::test]
async fn what_is_in_flight_ends_and_what_idles_is_closed() {
    let server = start(limits()).await;
    let mut idle = server.connect().await;
    idle.write_all(get("/hello").as_bytes()).await.unwrap();
    read_until(&mut idle, "hello").await;
    let mut silent = server.connect().await;
    let mut busy = server.connect().await;
    busy.write_all(get("/held").as_bytes()).await.unwrap();
    eventually!(server.metrics.in_flight.get() == 1 && server.metrics.connections.get() == 3);

    server.shutdown.cancel();
    assert_eq!(read_to_end(&mut idle).await.bytes, b"");
    assert_eq!(read_to_end(&mut silent).await.bytes, b"");
    eventually!(TcpStream::connect(server.address).await.is_err());
    assert!(!server.stopped.is_cancelled());

    server.probe.go.notify_one();
    let reply = read_to_end(&mut busy).await;
    assert_eq!(reply.statuses(), [200]);
    assert!(reply.text().ends_with("held") && reply.text().contains("connection: close"));
    tokio::time::timeout(PATIENCE, server.stopped.cancelled())
        .await
        .expect("the server ends when the last request has");
    assert_eq!(server.metrics.connections.get(), 0);
}

#[tokio::test]
async fn what_does_not_end_is_cut_and_shows_it() {
    let server = start(Limits {
        drain: SOON,
        ..limits()
    })
    .await;
    let mut chunked = server.connect().await;
    chunked.write_all(get("/never").as_bytes()).await.unwrap();
    read_until(&mut chunked, "begun\r\n").await;
    let mut sized = server.connect().await;
    sized
        .write_all(get("/never/whole").as_bytes())
        .await
        .unwrap();
    read_until(&mut sized, "begun").await;
    let mut old = server.connect().await;
    old.write_all(b"GET /never HTTP/1.0\r\n\r\n").await.unwrap();
    read_until(&mut old, "begun").await;
    let mut waiting = server.connect().await;
    waiting.write_all(get("/held").as_bytes()).await.unwrap();
    eventually!(server.metrics.in_flight.get() == 4);

    server.shutdown.cancel();
    tokio::time::timeout(PATIENCE, server.stopped.cancelled())
        .await
        .expect("the server ends when the time is up");
    assert_eq!(read_to_end(&mut chunked).await.bytes, b"");
    assert_eq!(read_to_end(&mut sized).await.bytes, b"");
    assert!(read_to_end(&mut old).await.reset);
    assert_eq!(read_to_end(&mut waiting).await.bytes, b"");
    assert_eq!(server.metrics.in_flight.get(), 0);
    assert_eq!(server.metrics.connections.get(), 0);
}

#[tokio::test]
async fn nobody_connected_means_no_waiting() {
    let server = start(Limits {
        drain: Duration::from_secs(3600),
        ..limits()
    })
    .await;
    server.shutdown.cancel();
    tokio::time::timeout(PATIENCE, server.stopped.cancelled())
        .await
        .expect("there is nothing to wait for");
}

/// P26 in small: under load, on several threads, every answer is whole or visibly broken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_answer_is_short_and_looks_whole() {
    const WHOLE: usize = 300 * 1024;
    let server = start(limits()).await;
    let load = (0..16).map(|client| {
        let (address, keep) = (server.address, client % 2 == 0);
        async move {
            let mut whole = 0;
            while let Ok(mut socket) = TcpStream::connect(address).await {
                let mut request = get("/ample");
                if keep {
                    request = request.repeat(3);
                }
                if socket.write_all(request.as_bytes()).await.is_err() {
                    break;
                }
                drop(socket.shutdown().await);
                let mut bytes = Vec::new();
                drop(socket.read_to_end(&mut bytes).await);
                let mut rest = &bytes[..];
                while let Some(at) = rest.windows(4).position(|end| end == b"\r\n\r\n") {
                    let (head, body) = rest.split_at(at + 4);
                    assert!(
                        head.windows(22)
                            .any(|line| line == b"content-length: 307200")
                    );
                    // Short of its length, it shows.
                    let Some((body, next)) = body.split_at_checked(WHOLE) else {
                        break;
                    };
                    assert!(body.iter().all(|byte| *byte == 7));
                    whole += 1;
                    rest = next;
                }
            }
            whole
        }
    });
    let stop = async {
        eventually!(server.seen().len() > 100);
        server.shutdown.cancel();
        server.stopped.cancelled().await;
    };
    let all = futures_util::future::join(futures_util::future::join_all(load), stop);
    let (whole, ()) = tokio::time::timeout(PATIENCE, all)
        .await
        .expect("the load ends");
    assert!(whole.iter().sum::<usize>() > 50);
    assert_eq!(server.metrics.connections.get(), 0);
    assert_eq!(server.metrics.in_flight.get(), 0);
}
