//! Pushes (RELIABILITY P29, R19; distribution-spec, "Push").

mod cuts;
mod trust;

use std::io;

use bytes::Bytes;
use futures_util::stream;

use super::*;
use crate::oci::MediaType;
use crate::upstream::{CHUNK, PushError};

/// What goes wrong with one request.
enum Fault {
    /// This is answered instead.
    Answer(Vec<Step>),
    /// So many bytes of the body are taken, then the connection is cut.
    Cut(usize),
    /// Everything is done, but the answer is lost.
    Lost,
}

#[derive(Default)]
struct State {
    taken: String,
    blobs: Vec<String>,
}

/// A registry with one image, and what goes wrong with its requests, by their number from zero.
struct Registry {
    server: Server,
    state: Arc<Mutex<State>>,
}

impl Registry {
    async fn start(fault: impl Fn(&Seen, usize) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let (known, count) = (Arc::clone(&state), AtomicUsize::new(0));
        let server = Server::start(move |seen| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let mut state = known.lock().unwrap();
            match fault(seen, number) {
                Some(Fault::Answer(steps)) => steps,
                Some(Fault::Cut(bytes)) => {
                    state.taken.push_str(seen.body.split_at(bytes).0);
                    vec![Step::Close]
                }
                Some(Fault::Lost) => {
                    state.answer(seen);
                    vec![Step::Close]
                }
                None => state.answer(seen),
            }
        })
        .await;
        Self { server, state }
    }

    async fn sound() -> Self {
        Self::start(|_, _| None).await
    }

    fn blobs(&self) -> Vec<String> {
        self.state.lock().unwrap().blobs.clone()
    }

    /// Every request: the method, and what of the target tells.
    fn asked(&self) -> Vec<String> {
        asked(&self.server)
    }
}

fn asked(server: &Server) -> Vec<String> {
    let seen = server.seen();
    let line = |seen: &Seen| {
        let range = seen
            .header("content-range")
            .map(|range| format!(" {range}"));
        format!("{}{}", seen.method, range.unwrap_or_default())
    };
    seen.iter().map(line).collect()
}

impl State {
    fn answer(&mut self, seen: &Seen) -> Vec<Step> {
        let range = format!("0-{}", self.taken.len().saturating_sub(1));
        match seen.method.as_str() {
            "POST" => {
                self.taken.clear();
                reply(
                    "202 Accepted",
                    &[
                        ("Location", "/v2/a/b/blobs/uploads/1?_state=x"),
                        ("Range", "0-0"),
                    ],
                    "",
                )
            }
            "PATCH" => {
                let start = seen
                    .header("content-range")
                    .unwrap()
                    .split_once('-')
                    .unwrap()
                    .0;
                if start.parse::<usize>().unwrap() != self.taken.len() {
                    return reply("416 Range Not Satisfiable", &[("Range", &range)], "");
                }
                self.taken.push_str(&seen.body);
                let range = format!("0-{}", self.taken.len() - 1);
                reply(
                    "202 Accepted",
                    &[
                        ("Location", "/v2/a/b/blobs/uploads/1?_state=y"),
                        ("Range", &range),
                    ],
                    "",
                )
            }
            "GET" => reply("204 No Content", &[("Range", &range)], ""),
            "PUT" if seen.target.contains("digest=") => {
                assert!(seen.target.contains("_state="), "{}", seen.target);
                self.taken.push_str(&seen.body);
                let digest = Digest::of(self.taken.as_bytes()).to_string();
                if !seen.target.ends_with(&digest.replace(':', "%3A")) {
                    return reply("400 Bad Request", &[], "{}");
                }
                self.blobs.push(std::mem::take(&mut self.taken));
                reply("201 Created", &[], "")
            }
            "PUT" => reply("201 Created", &[], ""),
            "DELETE" => reply("204 No Content", &[], ""),
            "HEAD" => {
                let digest = seen.target.rsplit('/').next().unwrap();
                let known = self
                    .blobs
                    .iter()
                    .any(|blob| Digest::of(blob.as_bytes()).to_string() == digest);
                reply(if known { "200 OK" } else { "404 Not Found" }, &[], "")
            }
            other => panic!("{other}"),
        }
    }
}

/// `size` bytes that are not all the same.
fn content(size: usize) -> String {
    "0123456789abcdef-".chars().cycle().take(size).collect()
}

/// Pushes `text`, which the source gives in pieces of a megabyte or so.
async fn push(upstream: &Upstream, text: &str) -> Result<(), PushError> {
    push_as(
        upstream,
        text,
        text.len() as u64,
        &Digest::of(text.as_bytes()),
    )
    .await
}

async fn push_as(
    upstream: &Upstream,
    text: &str,
    size: u64,
    digest: &Digest,
) -> Result<(), PushError> {
    let pieces: Vec<io::Result<Bytes>> = text
        .as_bytes()
        .chunks(1_000_003)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    upstream
        .push_blob(
            &Hops::none(),
            &name("a/b"),
            digest,
            size,
            stream::iter(pieces),
        )
        .await
}

fn refusal(result: Result<(), PushError>) -> Error {
    match result.unwrap_err() {
        PushError::Upstream(error) => error,
        PushError::Source(error) => panic!("{error}"),
    }
}

async fn put(upstream: &Upstream, reference: &Reference) -> Result<bool, Error> {
    let media_type = MediaType::parse("application/vnd.oci.image.manifest.v1+json").unwrap();
    let bytes = Bytes::from_static(b"{}");
    let stored = upstream
        .put_manifest(&Hops::none(), &name("a/b"), reference, &media_type, bytes)
        .await?;
    Ok(stored.has_noted_subject)
}

#[tokio::test]
async fn a_small_blob_goes_out_whole() {
    let registry = Registry::sound().await;
    for text in ["hello", "", &content(CHUNK)] {
        push(&upstream(&registry.server), text).await.unwrap();
        assert_eq!(registry.blobs().pop().unwrap(), text);
    }
    assert_eq!(
        registry.asked(),
        ["POST", "PUT", "POST", "PUT", "POST", "PUT"]
    );
}

#[tokio::test]
async fn a_large_blob_goes_out_in_chunks() {
    let registry = Registry::sound().await;
    let text = content(2 * CHUNK + 5);
    push(&upstream(&registry.server), &text).await.unwrap();
    assert_eq!(registry.blobs(), [text]);
    assert_eq!(
        registry.asked(),
        [
            "POST",
            "PATCH 0-8388607",
            "PATCH 8388608-16777215",
            "PATCH 16777216-16777220",
            "PUT"
        ]
    );
    let even = Registry::sound().await;
    push(&upstream(&even.server), &content(2 * CHUNK))
        .await
        .unwrap();
    assert_eq!(even.asked().len(), 4, "no empty chunk");
}

#[tokio::test]
async fn a_wrong_digest_is_refused_once() {
    let registry = Registry::sound().await;
    let error = refusal(push_as(&upstream(&registry.server), "hello", 5, &digest()).await);
    assert_eq!(
        (error.kind(), error.status()),
        (Kind::BadAnswer, Some(400)),
        "{error}"
    );
    assert_eq!(registry.asked(), ["POST", "PUT", "DELETE"]);
}

#[tokio::test]
async fn a_source_of_another_length_closes_nothing() {
    for (text, size) in [
        ("hello", 4),
        ("hello", 6),
        ("", 1),
        (&*content(CHUNK + 1), CHUNK as u64),
        (&*content(CHUNK + 1), CHUNK as u64 + 2),
    ] {
        let registry = Registry::sound().await;
        let result = push_as(&upstream(&registry.server), text, size, &digest()).await;
        assert!(matches!(result, Err(PushError::Source(_))), "{result:?}");
        let asked = registry.asked();
        assert!(
            !asked.contains(&"PUT".to_owned()) && asked.last().unwrap() == "DELETE",
            "{asked:?}"
        );
    }
    let registry = Registry::sound().await;
    let broken = stream::iter([
        Ok(Bytes::from_static(b"he")),
        Err(io::Error::other("broken")),
    ]);
    let result = upstream(&registry.server)
        .push_blob(&Hops::none(), &name("a/b"), &digest(), 5, broken)
        .await;
    assert!(matches!(result, Err(PushError::Source(error)) if error.to_string() == "broken"));
}

#[tokio::test]
async fn an_upload_without_a_place_is_refused() {
    for (headers, why) in [
        (&[][..], "without saying where"),
        (&[("Location", "/u"), ("Location", "/v")][..], "two places"),
        (&[("Location", "ftp://x/")][..], "no URL"),
        (
            &[("Location", "/u"), ("OCI-Chunk-Min-Length", "99999999999")][..],
            "64 MiB",
        ),
    ] {
        let registry =
            Registry::start(move |_, _| Some(Fault::Answer(reply("202 Accepted", headers, ""))))
                .await;
        let error = refusal(push(&upstream(&registry.server), "hello").await);
        assert!(
            error.kind() == Kind::BadAnswer && error.to_string().contains(why),
            "{error}"
        );
        assert_eq!(registry.asked(), ["POST"]);
    }
}

#[tokio::test]
async fn mounts() {
    let (from, hops) = (name("c/d"), Hops::none());
    let mounted = Server::start(|_| reply("201 Created", &[], "")).await;
    assert!(
        upstream(&mounted)
            .mount_blob(&hops, &name("a/b"), &digest(), &from)
            .await
            .unwrap()
    );
    let target = mounted.seen()[0].target.clone();
    assert_eq!(
        target,
        format!(
            "/v2/a/b/blobs/uploads/?mount={}&from=c%2Fd",
            digest().to_string().replace(':', "%3A")
        )
    );
    let registry = Registry::sound().await;
    assert!(
        !upstream(&registry.server)
            .mount_blob(&hops, &name("a/b"), &digest(), &from)
            .await
            .unwrap()
    );
    assert_eq!(
        registry.asked(),
        ["POST", "DELETE"],
        "the upload that it opened instead is given up"
    );
    let denied = Server::start(|_| reply("403 Forbidden", &[], "")).await;
    assert!(
        !upstream(&denied)
            .mount_blob(&hops, &name("a/b"), &digest(), &from)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn blobs_that_are_there() {
    for (status, there) in [
        ("200 OK", Some(true)),
        ("404 Not Found", Some(false)),
        ("307 Temporary Redirect", Some(true)),
        ("301 Moved", None),
        ("500 No", None),
    ] {
        let server =
            Server::start(move |_| reply(status, &[("Location", "http://192.0.2.1/")], "")).await;
        let answer = upstream(&server)
            .has_blob(&Hops::none(), &name("a/b"), &digest())
            .await;
        assert_eq!(answer.ok(), there, "{status}");
        assert_eq!(asked(&server), ["HEAD"]);
    }
}

#[tokio::test]
async fn manifests() {
    let by_digest = Reference::Digest(Digest::of(b"{}"));
    for (headers, expected) in [
        (vec![], Some(false)),
        (vec![("OCI-Subject", "sha256:x")], Some(true)),
        (
            vec![(
                "Docker-Content-Digest",
                "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
            )],
            None,
        ),
    ] {
        let server = Server::start(move |_| reply("201 Created", &headers, "")).await;
        for reference in [&by_digest, &tag()] {
            assert_eq!(put(&upstream(&server), reference).await.ok(), expected);
        }
        let seen = &server.seen()[1];
        assert_eq!(
            (
                seen.method.as_str(),
                seen.target.as_str(),
                seen.body.as_str()
            ),
            ("PUT", "/v2/a/b/manifests/latest", "{}")
        );
        assert_eq!(
            seen.header("content-type"),
            Some("application/vnd.oci.image.manifest.v1+json")
        );
    }
    for (reference, tries) in [(by_digest, 2), (tag(), 1)] {
        let server = Server::start(|_| vec![Step::Close]).await;
        assert_eq!(
            kind(put(&upstream(&server), &reference).await),
            Kind::Unavailable
        );
        assert_eq!(server.seen().len(), tries);
    }
    for (status, expected) in [
        ("403 Forbidden", Kind::Denied),
        ("405 Method Not Allowed", Kind::BadAnswer),
        ("413 Too Large", Kind::BadAnswer),
        ("400 Bad Request", Kind::BadAnswer),
        ("500 No", Kind::Unavailable),
    ] {
        let server = Server::start(move |_| reply(status, &[], "{}")).await;
        assert_eq!(
            kind(put(&upstream(&server), &tag()).await),
            expected,
            "{status}"
        );
        assert_eq!(server.seen().len(), 1);
    }
}
