//! Ranges of warm, filling and cold blobs are slices of the blob, and never become one in the cache.

use http::StatusCode;

use crate::support::image;
use crate::support::{Act, Gate, Mirror, Upstream};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn every_kind_of_range_on_cold_and_warm_blobs() {
    let upstream = Upstream::start().await;
    let size = 300_000;
    let mirror = Mirror::patient(&upstream.url()).await;
    let client = mirror.client();
    let table: [(&str, Option<(usize, usize)>); 12] = [
        ("bytes=0-0", Some((0, 1))),
        ("bytes=0-", Some((0, size))),
        ("bytes=100-199", Some((100, 200))),
        ("bytes=299999-", Some((299_999, size))),
        ("bytes=299000-999999999", Some((299_000, size))),
        ("bytes=-1", Some((size - 1, size))),
        ("bytes=-400000", Some((0, size))),
        ("bytes=300000-", None),
        ("bytes=-0", None),
        ("bytes=18446744073709551616-", None),
        ("bytes=0-149999", Some((0, 150_000))),
        ("bytes=200000-", Some((200_000, size))),
    ];
    for (seed, (range, expected)) in (0..).zip(table) {
        let blob = image::blob(seed, size);
        upstream.hold_blob(&blob);
        let path = format!("/v2/a/b/blobs/{}", blob.digest);
        for round in ["cold", "warm"] {
            let answer = client.range(&path, range).await;
            match expected {
                Some((start, end)) => {
                    assert!(
                        matches!(answer.status, StatusCode::PARTIAL_CONTENT | StatusCode::OK),
                        "{round} {range} {answer:?}"
                    );
                    if answer.status == StatusCode::PARTIAL_CONTENT {
                        assert_eq!(
                            answer.header("content-range").unwrap(),
                            format!("bytes {start}-{}/{size}", end - 1),
                            "{round} {range}"
                        );
                        assert_eq!(answer.body, blob.bytes[start..end], "{round} {range}");
                    } else {
                        assert_eq!(
                            (start, end),
                            (0, size),
                            "{round} {range}: 200 is right for the whole only"
                        );
                        assert_eq!(answer.body, blob.bytes);
                    }
                    assert!(answer.end.is_ok());
                }
                None => {
                    assert_eq!(
                        answer.status,
                        StatusCode::RANGE_NOT_SATISFIABLE,
                        "{round} {range}"
                    );
                    assert_eq!(
                        answer.header("content-range").unwrap(),
                        format!("bytes */{size}")
                    );
                }
            }
        }
        assert!(
            client.blob("a/b", &blob.digest).await.is(&blob.bytes),
            "{range}"
        );
        // A client that takes a small range and leaves makes the fill stop in its first quarter; the next one resumes it.
        let asked = upstream.count("GET", &blob.digest);
        assert!(asked <= 6, "{range}: {asked} requests");
    }
}

#[tokio::test]
async fn what_is_no_range_is_ignored_and_several_are_multipart() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 300_000);
    upstream.hold_blob(&blob);
    let mirror = Mirror::patient(&upstream.url()).await;
    let client = mirror.client();
    let path = format!("/v2/a/b/blobs/{}", blob.digest);
    for ignored in [
        "bytes=",
        "bytes=5-4",
        "bytes=a-b",
        "lines=0-1",
        "bytes=-9223372036854775809-",
        "bytes=0-1,0-1,0-1,0-1,0-1,0-1,0-1,0-1,0-1,0-1,0-1,0-1,0-1,0-1,0-1,0-1,0-1",
    ] {
        let answer = client.range(&path, ignored).await;
        assert!(answer.is(&blob.bytes), "{ignored} {}", answer.status);
    }
    let several = client.range(&path, "bytes=0-9,100-109,-5").await;
    assert_eq!(several.status, StatusCode::PARTIAL_CONTENT);
    let boundary = several
        .header("content-type")
        .unwrap()
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap()
        .to_owned();
    assert_eq!(
        several.header("content-length").unwrap(),
        several.body.len().to_string()
    );
    let mut expected = Vec::new();
    for (start, end) in [(0, 10), (100, 110), (299_995, 300_000)] {
        let line = if start == 0 { "" } else { "\r\n" };
        expected.extend_from_slice(format!("{line}--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {start}-{}/300000\r\n\r\n", end - 1).as_bytes());
        expected.extend_from_slice(&blob.bytes[start..end]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert_eq!(several.body, expected);
}

#[tokio::test]
async fn a_range_far_ahead_of_a_fill_comes_at_once_and_a_bounded_one_is_flagged() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 32 * MIB);
    upstream.hold_blob(&blob);
    let gate = Gate::closed();
    upstream.script(
        "GET",
        "/blobs/",
        1,
        Act {
            gate: Some((MIB, gate.clone())),
            ..Act::default()
        },
    );
    let mirror = Mirror::patient(&upstream.url()).await;
    let client = mirror.client();
    let path = format!("/v2/a/b/blobs/{}", blob.digest);
    let whole = client.open(&path).await;
    // The fill stands at 1 MiB, and these are answered all the same.
    let near = client.range(&path, "bytes=1000-1999").await;
    assert_eq!(near.body, blob.bytes[1000..2000]);
    assert!(
        near.header("cache-status")
            .unwrap()
            .ends_with("detail=unverified")
    );
    let far = client
        .range(&path, &format!("bytes={}-{}", 20 * MIB, 20 * MIB + 99))
        .await;
    assert_eq!(far.body, blob.bytes[20 * MIB..20 * MIB + 100]);
    let mut open_ended = client
        .try_open(
            http::Method::GET,
            &path,
            &[("range", &format!("bytes={}-", 16 * MIB))],
            bytes::Bytes::new(),
        )
        .await
        .unwrap();
    assert_eq!(open_ended.take(MIB).await, blob.bytes[16 * MIB..17 * MIB]);
    assert_eq!(upstream.count("GET", "/blobs/"), 3);
    gate.open();
    assert_eq!(open_ended.finish().await.body, blob.bytes[17 * MIB..]);
    whole.matches(&blob.bytes).await.unwrap();
}

/// The fill and a reader ahead of it, at speeds that make the one overtake the other.
#[tokio::test]
async fn a_reader_ahead_that_is_overtaken_gets_every_byte_right() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 24 * MIB);
    upstream.hold_blob(&blob);
    let path = format!("/v2/a/b/blobs/{}", blob.digest);
    let (fill, ahead) = (Gate::closed(), Gate::closed());
    let held = |gate: &Gate, at: usize| Act {
        gate: Some((at, gate.clone())),
        ..Act::default()
    };
    upstream.script("GET", "/blobs/", 1, held(&fill, MIB));
    // The reader's own request stands still after a while, with the fill still far behind.
    upstream.script("GET", "/blobs/", 1, held(&ahead, MIB));
    let mirror = Mirror::patient(&upstream.url()).await;
    let client = mirror.client();
    let whole = client.open(&path).await;
    let start = 12 * MIB;
    let headers = format!("bytes={start}-");
    let mut open = client
        .try_open(
            http::Method::GET,
            &path,
            &[("range", &headers)],
            bytes::Bytes::new(),
        )
        .await
        .unwrap();
    assert_eq!(open.take(MIB / 2).await, blob.bytes[start..start + MIB / 2]);
    assert_eq!(upstream.count("GET", "/blobs/"), 2);
    // Now the fill goes past it and to its end, while the reader's own request still stands.
    fill.open();
    let rest = open.finish().await;
    assert!(rest.body == blob.bytes[start + MIB / 2..], "{:?}", rest.end);
    assert!(whole.finish().await.is(&blob.bytes));
    ahead.open();
}

#[tokio::test]
async fn wrong_bytes_ahead_of_a_fill_never_end_well() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 24 * MIB);
    upstream.hold_blob(&blob);
    let path = format!("/v2/a/b/blobs/{}", blob.digest);
    let fill = Gate::closed();
    upstream.script(
        "GET",
        "/blobs/",
        1,
        Act {
            gate: Some((MIB, fill.clone())),
            ..Act::default()
        },
    );
    // Right bytes to a plain GET, a wrong one to the range.
    upstream.script(
        "GET",
        "/blobs/",
        1,
        Act {
            wrong_byte: Some(13 * MIB),
            ..Act::default()
        },
    );
    let mirror = Mirror::patient(&upstream.url()).await;
    let client = mirror.client();
    let whole = client.open(&path).await;
    let headers = format!("bytes={}-", 12 * MIB);
    let open = client
        .try_open(
            http::Method::GET,
            &path,
            &[("range", &headers)],
            bytes::Bytes::new(),
        )
        .await
        .unwrap();
    let reading = tokio::spawn(open.finish());
    crate::eventually!(upstream.count("GET", "/blobs/") == 2);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    fill.open();
    let answer = reading.await.unwrap();
    assert!(
        answer.end.is_err(),
        "a complete wrong answer of {} bytes",
        answer.body.len()
    );
    assert!(whole.finish().await.is(&blob.bytes));
}

#[tokio::test]
async fn readers_ahead_leave_room_for_others() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 24 * MIB);
    let other = image::blob(2, 1000);
    upstream.hold_blob(&blob);
    upstream.hold_blob(&other);
    let path = format!("/v2/a/b/blobs/{}", blob.digest);
    let gate = Gate::closed();
    let held = Act {
        gate: Some((MIB, gate.clone())),
        ..Act::default()
    };
    upstream.script("GET", &blob.digest, 99, held);
    let mirror = Mirror::patient(&upstream.url()).await;
    let client = mirror.client();
    let whole = client.open(&path).await;
    let mut readers = Vec::new();
    for n in 0..12 {
        let range = format!("bytes={}-", (12 + n % 3) * MIB);
        let headers = [("range", range.as_str())];
        let open = client.try_open(http::Method::GET, &path, &headers, bytes::Bytes::new());
        readers.push(open.await.unwrap());
    }
    crate::eventually!(upstream.count("GET", &blob.digest) >= 2);
    assert!(client.blob("a/b", &other.digest).await.is(&other.bytes));
    gate.open();
    for reader in readers {
        let answer = reader.finish().await;
        assert!(answer.end.is_ok());
    }
    assert!(whole.finish().await.is(&blob.bytes));
}
