//! Blobs: ends, cuts, stalls, ranges.

use super::*;
use tokio::time::Instant;

#[tokio::test]
async fn a_whole_blob() {
    let server = Server::start(|_| reply("200 OK", &[], "hello")).await;
    let upstream = upstream(&server);
    let mut stream = upstream
        .get_blob(&Hops::none(), &name("a/b"), &digest(), Span::Whole)
        .await
        .unwrap();
    assert_eq!((stream.offset(), stream.total()), (0, Some(5)));
    assert_eq!(&stream.chunk().await.unwrap().unwrap()[..], b"hello");
    assert!(stream.chunk().await.unwrap().is_none());
    let seen = &server.seen()[0];
    assert_eq!(seen.header("range"), None);
    assert_eq!(seen.target, format!("/v2/a/b/blobs/{}", digest()));
}

#[tokio::test]
async fn ends_that_are_none() {
    for (text, what) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
            "short",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "no final chunk",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            "half a chunk",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "no chunk",
        ),
    ] {
        let server = Server::start(move |_| vec![Step::Send(text.into()), Step::Close]).await;
        assert_eq!(
            kind(blob(&upstream(&server)).await),
            Kind::Unavailable,
            "{what}"
        );
        assert_eq!(
            kind(manifest(&upstream(&server)).await),
            Kind::Unavailable,
            "{what}"
        );
    }
    // Without framing an end cannot be told from a cut; the length is unknown, and the digest decides.
    let server = Server::start(|_| {
        vec![
            Step::Send(b"HTTP/1.1 200 OK\r\n\r\nhello".into()),
            Step::Close,
        ]
    })
    .await;
    let upstream = upstream(&server);
    let stream = upstream
        .get_blob(&Hops::none(), &name("a/b"), &digest(), Span::Whole)
        .await
        .unwrap();
    assert_eq!(stream.total(), None);
    drop(stream);
    assert_eq!(blob(&upstream).await.unwrap(), "hello");
    // More than announced is never handed out.
    let server =
        Server::start(|_| raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello world")).await;
    assert_eq!(blob(&super::upstream(&server)).await.unwrap(), "hello");
}

#[tokio::test]
async fn parts() {
    let server = Server::start(|seen| match seen.header("range") {
        Some("bytes=2-") => reply(
            "206 Partial Content",
            &[("Content-Range", "bytes 2-4/5")],
            "llo",
        ),
        Some("bytes=1-2") => reply(
            "206 Partial Content",
            &[("Content-Range", "bytes 1-2/5")],
            "el",
        ),
        Some("bytes=9-") => reply(
            "416 Range Not Satisfiable",
            &[("Content-Range", "bytes */5")],
            "",
        ),
        Some("bytes=3-") => reply(
            "206 Partial Content",
            &[("Content-Range", "bytes 0-4/5")],
            "hello",
        ),
        Some("bytes=4-") => reply(
            "206 Partial Content",
            &[("Content-Type", "multipart/byteranges; boundary=x")],
            "--x--",
        ),
        _ => reply("200 OK", &[], "hello"),
    })
    .await;
    let upstream = upstream(&server);
    assert_eq!(blob_part(&upstream, Span::From(2)).await.unwrap(), "llo");
    assert_eq!(
        blob_part(&upstream, Span::FromTo(1, 2)).await.unwrap(),
        "el"
    );
    assert_eq!(blob_part(&upstream, Span::From(0)).await.unwrap(), "hello");
    let stream = upstream
        .get_blob(&Hops::none(), &name("a/b"), &digest(), Span::From(2))
        .await
        .unwrap();
    assert_eq!((stream.offset(), stream.total()), (2, Some(5)));
    // A server that knows no ranges sends the whole.
    let stream = upstream
        .get_blob(&Hops::none(), &name("a/b"), &digest(), Span::From(1))
        .await
        .unwrap();
    assert_eq!((stream.offset(), stream.total()), (0, Some(5)));
    let error = blob_part(&upstream, Span::From(9)).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (Kind::BadAnswer, Some(416)));
    assert_eq!(
        kind(blob_part(&upstream, Span::From(3)).await),
        Kind::BadAnswer
    );
    assert_eq!(
        kind(blob_part(&upstream, Span::From(4)).await),
        Kind::BadAnswer
    );
}

#[tokio::test]
async fn silence() {
    for steps in [0, 1] {
        let server = Server::start(move |_| {
            let mut all = raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
            if steps == 1 {
                all.extend(raw("hello"));
            }
            all.push(Step::Hang);
            all
        })
        .await;
        let start = Instant::now();
        assert_eq!(kind(blob(&hasty(&server)).await), Kind::Timeout);
        assert!(start.elapsed() < Duration::from_secs(2));
    }
    let server = Server::start(|_| vec![Step::Hang]).await;
    assert_eq!(kind(blob(&hasty(&server)).await), Kind::Timeout);
}

#[tokio::test]
async fn dripping() {
    let server = Server::start(|_| {
        let mut steps = raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        for _ in 0..1000 {
            steps.extend([
                Step::Wait(Duration::from_millis(20)),
                Step::Send(b"x".into()),
            ]);
        }
        steps
    })
    .await;
    let start = Instant::now();
    assert_eq!(kind(blob(&hasty(&server)).await), Kind::Timeout);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_slow_reader_is_not_upstreams_fault() {
    let server = Server::start(|_| {
        let mut steps = raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
        for _ in 0..4 {
            steps.extend([
                Step::Send(b"x".into()),
                Step::Wait(Duration::from_millis(1)),
            ]);
        }
        steps
    })
    .await;
    let upstream = hasty(&server);
    let mut stream = upstream
        .get_blob(&Hops::none(), &name("a/b"), &digest(), Span::Whole)
        .await
        .unwrap();
    let mut came = 0;
    while let Some(bytes) = stream.chunk().await.unwrap() {
        came += bytes.len();
        tokio::time::sleep(HASTY.idle + Duration::from_millis(100)).await;
    }
    assert_eq!(came, 4);
}

#[tokio::test]
async fn pauses_shorter_than_the_limit_are_fine() {
    let server = Server::start(|_| {
        let mut steps = raw("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
        for _ in 0..5 {
            steps.extend([
                Step::Wait(Duration::from_millis(250)),
                Step::Send(vec![b'x'; 1000]),
            ]);
        }
        steps
    })
    .await;
    assert_eq!(blob(&hasty(&server)).await.unwrap().len(), 5000);
}
