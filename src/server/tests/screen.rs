//! The verdict on heads, by table. `framing` sends the same kinds of bytes over sockets.

use http::Request;

use crate::server::refusal::Refusal;
use crate::server::screen::{Caps, Framing, head, head_end, is_host, partial, request};

const CAPS: Caps = Caps {
    line: 8192,
    headers: 32 * 1024,
    count: 100,
};

fn status(bytes: &[u8]) -> u16 {
    match head(bytes, CAPS) {
        Ok(_) => 200,
        Err(refusal) => refusal.status().as_u16(),
    }
}

#[test]
fn heads_with_one_meaning_are_let_in() {
    let framings: &[(&str, Framing)] = &[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
        ("GET / HTTP/1.0\r\n\r\n", Framing::Length(0)),
        (
            "GET /v2/?n=1&last=a HTTP/1.1\r\nhost:a:5000\r\nX:\r\n\r\n",
            Framing::Length(0),
        ),
        (
            "GET http://A/v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
            Framing::Length(0),
        ),
        (
            "GET https://a?x HTTP/1.1\r\nHost: a\r\n\r\n",
            Framing::Length(0),
        ),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            Framing::Length(5),
        ),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n",
            Framing::Chunked,
        ),
        (
            "M-SEARCH / HTTP/1.1\r\nHost: [::1]:5000\r\nTab:\ta\tb\r\n\r\n",
            Framing::Length(0),
        ),
        (
            "get / HTTP/1.1\r\nHost: a\r\nConnection: content-length, host\r\n\r\n",
            Framing::Length(0),
        ),
    ];
    for (bytes, framing) in framings {
        assert_eq!(head(bytes.as_bytes(), CAPS), Ok(*framing), "{bytes:?}");
        assert_eq!(
            head_end(bytes.as_bytes(), 0),
            Some(bytes.len()),
            "{bytes:?}"
        );
    }
}

#[test]
fn heads_with_two_meanings_are_refused() {
    let with = |header: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n");
    let mut cases: Vec<(String, u16)> = Vec::new();
    for header in [
        // H1
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        // H2, H3
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        // H4
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
        // H6
        "Content-Length : 5",
        "X: a\r\n folded",
        "X: a\r\n\tfolded",
        " X: a",
        "no colon",
        ": no name",
        "na me: x",
        // H7
        "X: a\nY: b",
        "X: a\rY: b",
        "X: a\r\r",
        // H17
        "Host: b",
        // H22
        "X: a\0b",
        "X: a\u{7f}b",
        "X: \u{e9}",
    ] {
        cases.push((with(header), 400));
    }
    for (line, status) in [
        // H17
        ("GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n", 400),
        // H5
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        // H18
        ("GET http://evil/v2/ HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET http://a@evil/ HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET v2/ HTTP/1.1\r\nHost: a\r\n", 400),
        ("CONNECT evil:443 HTTP/1.1\r\nHost: a\r\n", 405),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n", 405),
        // H19
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n", 400),
        ("! / HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET /\r\nHost: a\r\n", 400),
        // H23: what no URL has; what decodes to mischief is the routes' to refuse
        ("GET /\u{1} HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET /a\\b HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET / HTTP/1.2\r\nHost: a\r\n", 505),
        ("GET / HTTP/2.0\r\nHost: a\r\n", 505),
        ("GET / http/1.1\r\nHost: a\r\n", 400),
        // H36
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", 400),
    ] {
        cases.push((format!("{line}\r\n"), status));
    }
    cases.push((
        format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "G".repeat(1024)),
        400,
    ));
    for (bytes, expected) in cases {
        assert_eq!(status(bytes.as_bytes()), expected, "{bytes:?}");
    }
}

#[test]
fn a_head_has_a_size() {
    let line = |length: usize| {
        format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
            "x".repeat(length - "GET / HTTP/1.1".len() - 1)
        )
    };
    assert_eq!(status(line(8192).as_bytes()), 200);
    assert_eq!(status(line(9 * 1024).as_bytes()), 414);

    let big = |length: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(length)
        )
    };
    assert_eq!(status(big(31 * 1024).as_bytes()), 200);
    assert_eq!(status(big(33 * 1024).as_bytes()), 431);

    let many = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: y\r\n".repeat(count - 1)
        )
    };
    assert_eq!(status(many(100).as_bytes()), 200);
    assert_eq!(status(many(101).as_bytes()), 431);
}

#[test]
fn half_a_head_is_refused_as_soon_as_it_can_be() {
    assert_eq!(partial(b"GET / HTTP/1.1\r\nHost:", CAPS), Ok(()));
    assert_eq!(partial(b"", CAPS), Ok(()));
    assert!(matches!(
        partial(b"\x16\x03\x01", CAPS),
        Err(Refusal::Malformed(_))
    ));
    assert_eq!(partial(&[b'G'; 8193], CAPS), Err(Refusal::TargetTooLong));
    let mut long = b"GET / HTTP/1.1\r\nX: ".to_vec();
    long.resize(40 * 1024, b'x');
    assert_eq!(partial(&long, CAPS), Err(Refusal::HeadTooLarge));
}

#[test]
fn the_end_of_a_head_is_found_from_anywhere() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET";
    for from in 0..bytes.len() - 3 {
        assert_eq!(head_end(bytes, from), Some(bytes.len() - 3), "from {from}");
    }
    assert_eq!(head_end(b"GET / HTTP/1.1\nHost: a\n\n", 0), Some(24));
    assert_eq!(head_end(b"GET / HTTP/1.1\nHost: a\n\r\n", 0), Some(25));
    assert_eq!(head_end(b"GET / HTTP/1.1\r\nHost: a\r\n\r", 0), None);
}

#[test]
fn hosts() {
    for host in [
        "a",
        "a.b-c_d",
        "a:1",
        "a:65535",
        "a:",
        "127.0.0.1:5000",
        "[::1]",
        "[::1]:5000",
    ] {
        assert!(is_host(host.as_bytes()), "{host}");
    }
    for host in [
        "", ":1", "a:b", "a:65536", "a:000001", "[::1", "[]", "[::1]a", "[g]", "a,b", "é",
    ] {
        assert!(!is_host(host.as_bytes()), "{host}");
    }
}

#[test]
fn requests_of_any_version() {
    let verdict = |build: http::request::Builder| {
        let (parts, ()) = build.body(()).unwrap().into_parts();
        request(&parts, CAPS).map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
    };
    let h2 = |uri: &str| Request::get(uri).version(http::Version::HTTP_2);
    let h1 = || Request::get("/").header("host", "a");
    assert_eq!(verdict(h1()), 200);
    assert_eq!(verdict(h1().header("expect", "100-Continue")), 200);
    assert_eq!(verdict(h1().header("expect", "foo")), 417);
    assert_eq!(
        verdict(
            h1().header("expect", "100-continue")
                .header("expect", "foo")
        ),
        417
    );
    assert_eq!(verdict(h2("http://a/v2/")), 200);
    assert_eq!(verdict(h2("http://a/v2/").header("host", "a")), 200);
    assert_eq!(verdict(h2("http://a/v2/").header("host", "b")), 400);
    assert_eq!(verdict(h2("http://u@a/v2/")), 400);
    assert_eq!(verdict(h2("/v2/")), 400);
    assert_eq!(verdict(h2("/v2/").header("host", "a")), 200);
    assert_eq!(
        verdict(h2("/v2/").header("host", "a").header("host", "a")),
        400
    );
    assert_eq!(verdict(h2("http://a/v2/").method("TRACE")), 405);
    assert_eq!(verdict(h2("http://a/v2/").method("!")), 400);
    assert_eq!(verdict(h2("*").header("host", "a")), 400);
    assert_eq!(verdict(h2("http://a/").header("x", &b"\xe9"[..])), 400);
    assert_eq!(verdict(h2(&format!("http://a/{}", "x".repeat(9000)))), 414);
}
