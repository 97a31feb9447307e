//! Where a push goes, what it shows there, and how long it waits.

use super::*;

#[tokio::test]
async fn an_upload_elsewhere_goes_without_credentials() {
    let storage = Registry::sound().await;
    let location = storage.server.url("/u/1?_state=s");
    let registry =
        Server::start(
            move |seen| match (seen.header("authorization"), seen.method.as_str()) {
                (None, _) => reply(
                    "401 Unauthorized",
                    &[("WWW-Authenticate", "Basic realm=x")],
                    "",
                ),
                (_, "POST") => reply("202 Accepted", &[("Location", &location)], ""),
                _ => reply("500 Not Here", &[], ""),
            },
        )
        .await;
    let at = |inside: bool| {
        client(&registry.url(""), |config| {
            config.credentials = vec![password("me", "pw")];
            if inside {
                config.allow_addresses = vec!["127.0.0.0/8".parse().unwrap()];
            }
        })
    };
    let error = refusal(push(&at(false), "hello").await);
    assert!(error.to_string().contains("allow_addresses"), "{error}");
    assert_eq!(storage.server.connections(), 0);
    push(&at(true), "hello").await.unwrap();
    assert_eq!(storage.blobs(), ["hello"]);
    assert!(
        storage
            .server
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}

#[tokio::test]
async fn an_upload_elsewhere_that_asks_for_a_login_gets_none() {
    let canary = Server::start(|_| {
        reply(
            "401 Unauthorized",
            &[("WWW-Authenticate", "Basic realm=x")],
            "",
        )
    })
    .await;
    let location = canary.url("/u");
    let registry =
        Server::start(move |_| reply("202 Accepted", &[("Location", &location)], "")).await;
    let upstream = client(&registry.url(""), |config| {
        config.credentials = vec![password("me", "pw")];
        config.allow_addresses = vec!["127.0.0.0/8".parse().unwrap()];
    });
    assert_eq!(refusal(push(&upstream, "hello").await).kind(), Kind::Denied);
    assert!(
        canary
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
    assert_eq!(canary.count("/u"), 2, "the upload and its end");
}

#[tokio::test]
async fn redirects_of_pushes_are_not_followed() {
    let canary = Server::canary().await;
    for status in [
        "301 Moved",
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        for (method, at) in [("POST", 1), ("PATCH", 2), ("PUT", 3)] {
            let location = canary.url("/x");
            let registry = Registry::start(move |seen, _| {
                (seen.method == method)
                    .then(|| Fault::Answer(reply(status, &[("Location", &location)], "")))
            })
            .await;
            let upstream = client(&registry.server.url(""), |config| {
                config.allow_addresses = vec!["127.0.0.0/8".parse().unwrap()];
            });
            let error = refusal(push(&upstream, &content(CHUNK + 1)).await);
            assert_eq!(error.kind(), Kind::BadAnswer, "{error}");
            assert_eq!(
                registry
                    .asked()
                    .iter()
                    .filter(|asked| asked.starts_with(method))
                    .count(),
                1,
                "{at}"
            );
        }
    }
    // Nor in circles at home.
    let circle =
        Server::start(|seen| reply("307 Temporary Redirect", &[("Location", &seen.target)], ""))
            .await;
    assert_eq!(kind(put(&upstream(&circle), &tag()).await), Kind::BadAnswer);
    assert_eq!((circle.seen().len(), canary.connections()), (1, 0));
}

#[tokio::test]
async fn waits_are_counted() {
    let slow = |answer: &'static str, after: &'static str| {
        Registry::start(move |_, number| {
            (number == 0).then(|| Fault::Answer(reply(answer, &[("Retry-After", after)], "")))
        })
    };
    for answer in ["429 Too Many", "503 Busy"] {
        let registry = slow(answer, "1").await;
        push(&upstream(&registry.server), "hello").await.unwrap();
        assert_eq!(registry.asked(), ["POST", "POST", "PUT"]);
        let registry = slow(answer, "3600").await;
        let error = refusal(push(&upstream(&registry.server), "hello").await);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
        assert_eq!(registry.asked(), ["POST"]);
    }
    let never = Server::start(|_| reply("429 Too Many", &[("Retry-After", "1")], "")).await;
    assert_eq!(
        kind(put(&upstream(&never), &tag()).await),
        Kind::RateLimited
    );
    assert_eq!(never.seen().len(), 4, "WAITS_MAX and the first");
    let wordless = Server::start(|_| reply("429 Too Many", &[], "")).await;
    assert_eq!(
        kind(put(&upstream(&wordless), &tag()).await),
        Kind::RateLimited
    );
    assert_eq!(wordless.seen().len(), 1);
}

/// A registry that wants tokens, of which those in `ended` are refused.
async fn guarded(ended: Arc<Mutex<Vec<String>>>) -> (Server, Arc<Mutex<State>>) {
    let state: Arc<Mutex<State>> = Arc::default();
    let (known, tokens) = (Arc::clone(&state), AtomicUsize::new(0));
    let server = Server::start_with(move |address| {
        move |seen: &Seen| {
            if seen.target.starts_with("/token") {
                let number = tokens.fetch_add(1, Ordering::SeqCst);
                return reply("200 OK", &[], &format!("{{\"token\": \"t{number}\", \"expires_in\": 3600}}"));
            }
            let token = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
            if token.is_some_and(|token| !ended.lock().unwrap().iter().any(|ended| ended == token)) {
                return known.lock().unwrap().answer(seen);
            }
            let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"s\",scope=\"repository:a/b:pull\"");
            reply("401 Unauthorized", &[("WWW-Authenticate", &challenge)], "")
        }
    })
    .await;
    (server, state)
}

#[tokio::test]
async fn the_scope_of_pushes_is_asked_for_by_pushes_alone() {
    let (server, _) = guarded(Arc::default()).await;
    let upstream = client(&server.url(""), |config| {
        config.credentials = vec![password("me", "pw")];
    });
    let _ = upstream
        .head_blob(&Hops::none(), &name("a/b"), &digest())
        .await;
    let scopes = |server: &Server| -> Vec<String> {
        let seen = server.seen();
        let tokens = seen.iter().filter(|seen| seen.target.starts_with("/token"));
        tokens
            .map(|seen| {
                seen.target
                    .replace("%3A", ":")
                    .replace("%2F", "/")
                    .replace("%2C", ",")
            })
            .collect()
    };
    assert!(
        scopes(&server)[0].contains("scope=repository:a/b:pull&"),
        "{:?}",
        scopes(&server)
    );
    push(&upstream, "hello").await.unwrap();
    assert!(
        scopes(&server)[1].contains("scope=repository:a/b:pull,push&"),
        "{:?}",
        scopes(&server)
    );
    upstream
        .mount_blob(&Hops::none(), &name("a/b"), &digest(), &name("c"))
        .await
        .unwrap();
    assert!(
        scopes(&server)[2].contains("scope=repository:a/b:pull,push&scope=repository:c:pull&"),
        "{:?}",
        scopes(&server)
    );
    assert_eq!(scopes(&server).len(), 3, "each once");
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_is_replaced_once() {
    let ended: Arc<Mutex<Vec<String>>> = Arc::default();
    let (server, state) = guarded(Arc::clone(&ended)).await;
    let upstream = client(&server.url(""), |config| {
        config.credentials = vec![password("me", "pw")];
    });
    let text = content(CHUNK + 1);
    let pieces = text
        .as_bytes()
        .chunks(CHUNK)
        .map(Bytes::copy_from_slice)
        .enumerate()
        .collect::<Vec<_>>();
    let ends = Arc::clone(&ended);
    let source = Box::pin(stream::unfold(pieces.into_iter(), move |mut pieces| {
        let ends = Arc::clone(&ends);
        async move {
            let (number, piece) = pieces.next()?;
            if number == 1 {
                // Older than what is refused for its youth.
                tokio::time::pause();
                tokio::time::advance(Duration::from_secs(11)).await;
                tokio::time::resume();
                ends.lock().unwrap().push("t0".to_owned());
            }
            Some((io::Result::Ok(piece), pieces))
        }
    }));
    let digest = Digest::of(text.as_bytes());
    upstream
        .push_blob(
            &Hops::none(),
            &name("a/b"),
            &digest,
            text.len() as u64,
            source,
        )
        .await
        .unwrap();
    assert_eq!(state.lock().unwrap().blobs, [text]);
    assert_eq!(server.count("/token"), 2);
    // What is refused again and again is not asked for again and again.
    ended
        .lock()
        .unwrap()
        .extend(["t1".to_owned(), "t2".to_owned(), "t3".to_owned()]);
    assert_eq!(refusal(push(&upstream, "hello").await).kind(), Kind::Denied);
    assert!(server.count("/token") <= 4);
}
