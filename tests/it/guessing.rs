//! Guessing of passwords: limited, the same for names that are there and names that are not, and no flood in the log (RELIABILITY T3, P44).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::access::{guarded_with, password};
use crate::support::image::{self, Flavour};
use crate::support::{Mirror, Upstream, secrets};

const PROXIED: &str = "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
/// How many guesses a minute are checked, and what may come on top in the minutes that a test takes.
const CHECKED_MAX: usize = 10 + 20;
/// Connections that guess side by side.
const SIDE_BY_SIDE: usize = 10;

/// A connection that stays open.
struct Guesser(SendRequest<Full<Bytes>>);

impl Guesser {
    async fn at(mirror: &Mirror) -> Self {
        let stream = TcpStream::connect(mirror.address()).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async { drop(connection.await) });
        Self(sender)
    }

    async fn guess(&mut self, user: &str, from: &str, password: &str) -> StatusCode {
        let login = STANDARD.encode(format!("{user}:{password}"));
        let request = Request::builder()
            .uri("/v2/dev-local/team/app/manifests/1")
            .header("host", "mirror")
            .header("authorization", format!("Basic {login}"))
            .header("x-forwarded-for", from)
            .body(Full::default())
            .unwrap();
        let answer = self.0.send_request(request).await.unwrap();
        let (head, body) = answer.into_parts();
        body.collect().await.unwrap();
        if head.status == StatusCode::TOO_MANY_REQUESTS {
            assert!(head.headers.contains_key("retry-after"));
        }
        head.status
    }
}

/// Ten thousand guesses; how many were checked. All others were told to come back.
async fn guess(
    mirror: &Mirror,
    who: impl Fn(usize) -> String + Copy,
    from: impl Fn(usize) -> String + Copy,
) -> usize {
    let side = |lane: usize| async move {
        let mut guesser = Guesser::at(mirror).await;
        let mut checked = 0;
        for n in (lane..10_000).step_by(SIDE_BY_SIDE) {
            let wrong = format!("{n}-{}", secrets::MARKER);
            match guesser.guess(&who(n), &from(n), &wrong).await {
                StatusCode::UNAUTHORIZED => checked += 1,
                StatusCode::TOO_MANY_REQUESTS => {}
                other => panic!("{other}"),
            }
        }
        checked
    };
    join_all((0..SIDE_BY_SIDE).map(side)).await.iter().sum()
}

fn lines(mirror: &Mirror, text: &str) -> usize {
    mirror
        .log()
        .iter()
        .filter(|line| line.contains(text))
        .count()
}

#[tokio::test]
async fn ten_thousand_guesses() {
    let upstream = Upstream::start().await;
    let mirror = guarded_with(&upstream, PROXIED).await;
    let near = |_| "192.0.2.1".to_owned();
    let far = |n: usize| format!("10.{}.{}.7", n % 1000 / 250, n % 250);
    let known = guess(&mirror, |_| "keeper".to_owned(), near).await;
    let spread = guess(&mirror, |_| "reader".to_owned(), far).await;
    let unknown = guess(&mirror, |_| "nobody".to_owned(), far).await;
    let names = guess(
        &mirror,
        |n| format!("nobody-{n}"),
        |_| "192.0.2.99".to_owned(),
    )
    .await;
    for (what, checked) in [
        ("one name from one address", known),
        ("one name from a thousand addresses", spread),
        ("no user's name from a thousand addresses", unknown),
        ("ten thousand names from one address", names),
    ] {
        assert!((5..=CHECKED_MAX).contains(&checked), "{what}: {checked}");
    }
    // Forty thousand failures are some dozens of lines, whichever minute they fall into.
    let told = lines(&mirror, "a login failed");
    assert!((1..=200).contains(&told), "{told} lines");
    assert_eq!(
        lines(&mirror, "\"target\":\"audit\""),
        told + lines(&mirror, "more logins failed")
    );
}

#[tokio::test]
async fn a_crowd_of_guessers_holds_up_nobody_else() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    let mirror = guarded_with(&upstream, PROXIED).await;
    let client = mirror.client();
    assert_eq!(
        client.with("root", Method::GET, "/v2/").await.status,
        StatusCode::OK
    );
    // Each from an address of its own, with a name of its own: no limit on names or addresses sees them.
    let crowd = (0..400).map(|n| {
        let mirror = &mirror;
        async move {
            let mut guesser = Guesser::at(mirror).await;
            let (name, from) = (
                format!("nobody-{n}"),
                format!("10.9.{}.{}", n / 200, n % 200),
            );
            guesser.guess(&name, &from, &secrets::of("wrong")).await
        }
    });
    let healthy = async {
        for _ in 0..20 {
            let pulled = client.manifest("docker-hub/library/nginx", "1").await;
            assert!(pulled.is(&image.root.bytes), "{pulled:?}");
            // Whose password is known is not checked again, and waits for nobody.
            let known = client.with("root", Method::GET, "/v2/").await;
            assert_eq!(known.status, StatusCode::OK);
        }
    };
    let (answers, ()) = tokio::join!(join_all(crowd), healthy);
    let of = |status| answers.iter().filter(|one| **one == status).count();
    let (checked, turned_away) = (
        of(StatusCode::UNAUTHORIZED),
        of(StatusCode::TOO_MANY_REQUESTS),
    );
    assert_eq!(checked + turned_away, 400);
    assert!(checked > 0 && turned_away > 0, "{checked} {turned_away}");
}

/// What is said of a wrong password is said of a wrong name.
#[tokio::test]
async fn nothing_tells_who_is_there() {
    let upstream = Upstream::start().await;
    let too_long = format!("{}{}", password("reader"), " ".repeat(80));
    for (user, typed) in [
        ("nobody", secrets::of("wrong")),
        ("", secrets::of("wrong")),
        ("anonymous", secrets::of("wrong")),
        ("@ci", secrets::of("wrong")),
        ("reader", too_long),
    ] {
        // A mirror each: ten failures are all that an address may have.
        let mirror = guarded_with(&upstream, "").await;
        let there = told(&mirror, "reader", &secrets::of("wrong")).await;
        let is_refused = |(status, ..): &Told| *status == StatusCode::UNAUTHORIZED;
        assert!(there.iter().all(is_refused), "{there:?}");
        assert_eq!(there, told(&mirror, user, &typed).await, "{user}");
    }
}

/// Status, headers and body of an answer, but for what is of one request alone.
type Told = (StatusCode, Vec<String>, String);

async fn told(mirror: &Mirror, user: &str, password: &str) -> Vec<Told> {
    let login = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let mut told = Vec::new();
    for path in [
        "/v2/",
        "/v2/token?service=roadstead",
        "/v2/dev-local/team/app/manifests/1",
        "/admin/audit",
    ] {
        let answer = mirror
            .client()
            .send(Method::GET, path, &[("authorization", &login)])
            .await;
        let mut headers: Vec<String> = answer
            .headers
            .iter()
            .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        headers.sort();
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        told.push((answer.status, headers, body));
    }
    told
}
