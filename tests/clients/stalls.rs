//! Two thousand clients that stand still, three ways at once: each is cut off, none costs much, and nobody else waits (RELIABILITY P39, H31, H34).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::tls::Authority;
use crate::support::{Mirror, Secure};

/// How many stand still each way.
const CLIENTS: usize = 2000;
/// Heads and handshakes: fifteen seconds are promised, the others are for a machine that is busy with other tests.
const HEADS: Duration = Duration::from_secs(15 + 10);
/// Bodies: less than 1 KiB a second over thirty, and as much for the machine.
const BODIES: Duration = Duration::from_secs(30 + 15);
/// What they may cost a mirror.
const MEMORY: u64 = 64 << 20;

/// Begins so, then sends a byte now and then; how long it was until the other side closed, and what it had said by then.
async fn stand_still(at: SocketAddr, begin: &[u8], drip: &[u8]) -> (Duration, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let start = Instant::now();
    stream.write_all(begin).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let reading = async {
        let (mut all, mut buffer) = (Vec::new(), [0; 512]);
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..read]);
        }
        all
    };
    let dripping = async {
        loop {
            tokio::time::sleep(Duration::from_secs(4)).await;
            if drip.is_empty() || writer.write_all(drip).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let said = tokio::select! {
        said = reading => said,
        () = dripping => Vec::new(),
        () = tokio::time::sleep(BODIES * 2) => panic!("a connection stays open"),
    };
    (start.elapsed(), String::from_utf8_lossy(&said).into_owned())
}

/// All of them; the longest time that one stayed.
async fn crowd(at: SocketAddr, begin: &[u8], drip: &[u8], status: &str) -> Duration {
    let mut longest = Duration::ZERO;
    for (stayed, said) in join_all((0..CLIENTS).map(|_| stand_still(at, begin, drip))).await {
        let told = said.is_empty() || said.starts_with(&format!("HTTP/1.1 {status}"));
        assert!(told, "{said}");
        // Whoever was turned away at once shows nothing.
        assert!(stayed > Duration::from_secs(5), "{stayed:?} {said}");
        longest = longest.max(stayed);
    }
    longest
}

/// Everybody else, until `done`: how often they were answered.
async fn others(mirror: &Mirror, done: &AtomicBool) -> usize {
    let mut answered = 0;
    while !done.load(Ordering::Relaxed) {
        let answer = mirror.client().get("/v2/").await;
        assert_eq!(answer.status.as_u16(), 200);
        answered += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stands_still_is_cut_off() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = 4 * CLIENTS as u64;
    assert!(
        limit.maximum.is_none_or(|maximum| maximum >= wanted),
        "this needs `ulimit -Hn` of {wanted}"
    );
    // The mirrors inherit it.
    let current = Some(limit.current.map_or(wanted, |current| current.max(wanted)));
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
    let local = "[local.dev-local]\n[mirror]\ndefault = \"dev-local\"\n";
    let (heads, bodies) = (
        Mirror::with(&[], local).await,
        Mirror::with(&[], local).await,
    );
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.localhost().write(dir.path(), "mirror");
    let secure = Secure::start(dir.path(), local);
    crate::eventually!(secure.ask(&authority).await.is_some());
    let before = (
        heads.peak_memory(),
        bodies.peak_memory(),
        secure.peak_memory(),
    );

    let head = b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\nx-slow: ";
    let body = b"PUT /v2/dev-local/a/manifests/1 HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/vnd.oci.image.manifest.v1+json\r\ncontent-length: 100000\r\n\r\n{";
    // Half of a ClientHello: the record says that more comes.
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 40]].concat();
    let done = AtomicBool::new(false);
    let stalled = async {
        let longest = tokio::join!(
            crowd(heads.address(), head, b"a", "408"),
            crowd(bodies.address(), body, b" ", "400"),
            crowd(secure.address(), &hello, b"", "400"),
        );
        done.store(true, Ordering::Relaxed);
        longest
    };
    let (longest, one, two) = tokio::join!(stalled, others(&heads, &done), others(&bodies, &done));
    assert!(longest.0 < HEADS && longest.2 < HEADS, "{longest:?}");
    assert!(longest.1 < BODIES, "{longest:?}");
    assert!(one > 50 && two > 50, "{one} and {two} answers to others");
    assert!(secure.ask(&authority).await.is_some());
    let after = (
        heads.peak_memory(),
        bodies.peak_memory(),
        secure.peak_memory(),
    );
    for (what, after, before) in [
        ("heads", after.0, before.0),
        ("bodies", after.1, before.1),
        ("handshakes", after.2, before.2),
    ] {
        let grown = after - before;
        assert!(grown <= MEMORY, "{what}: {} KiB", grown >> 10);
    }
}
