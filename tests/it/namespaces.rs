//! `?ns=`: whom a push reaches by it, and that nothing a client writes there is ever dialled. Counted at the upstreams.

use http::{Method, StatusCode};

use crate::support::image::{self, Flavour, Image};
use crate::support::push::{location, with};
use crate::support::{Answer, Canary, Client, Mirror, Remote, Upstream};

fn remote(key: &'static str, upstream: &Upstream, serves: &'static str) -> Remote {
    Remote {
        key,
        url: upstream.url(),
        serves,
        more: "tag_ttl = \"0s\"\nnegative_ttl = \"0s\"".to_owned(),
    }
}

/// `docker-virtual` for docker.io over `dev-local` and `hub-io`; `quay-io` for quay.io is the default, so that only `ns` leads anywhere else.
async fn mirror(hub: &Upstream, quay: &Upstream) -> Mirror {
    let tables = "[mirror]\ndefault = \"quay-io\"\n[local.dev-local]\n\
        [virtual.docker-virtual]\nmembers = [\"dev-local\", \"hub-io\"]\ndeploy_to = \"dev-local\"\nserves = [\"docker.io\"]\n";
    let remotes = [
        remote("hub-io", hub, "hub.test"),
        remote("quay-io", quay, "quay.io"),
    ];
    Mirror::with(&remotes, tables).await
}

/// Requests that are no reads.
fn writes(upstream: &Upstream) -> usize {
    let log = upstream.log();
    let reads = |method: &str| matches!(method, "GET" | "HEAD");
    log.iter().filter(|seen| !reads(&seen.method)).count()
}

/// Every request of a push and a deletion, each by itself.
fn all_writes(image: &Image) -> Vec<(Method, String, bytes::Bytes)> {
    let blob = &image.blobs[0];
    let (nothing, upload) = (
        bytes::Bytes::new,
        "/v2/team/app/blobs/uploads/6fe1f5ee-0000-7000-8000-000000000000",
    );
    vec![
        (
            Method::POST,
            "/v2/team/app/blobs/uploads/".to_owned(),
            nothing(),
        ),
        (
            Method::POST,
            format!("/v2/team/app/blobs/uploads/?digest={}", blob.digest),
            blob.bytes.clone(),
        ),
        (
            Method::POST,
            format!(
                "/v2/team/app/blobs/uploads/?mount={}&from=team/other",
                blob.digest
            ),
            nothing(),
        ),
        (Method::PATCH, upload.to_owned(), blob.bytes.clone()),
        (
            Method::PUT,
            format!("{upload}?digest={}", blob.digest),
            nothing(),
        ),
        (Method::DELETE, upload.to_owned(), nothing()),
        (
            Method::PUT,
            "/v2/team/app/manifests/1".to_owned(),
            image.root.bytes.clone(),
        ),
        (
            Method::DELETE,
            "/v2/team/app/manifests/1".to_owned(),
            nothing(),
        ),
        (
            Method::DELETE,
            format!("/v2/team/app/manifests/{}", image.digest()),
            nothing(),
        ),
        (
            Method::DELETE,
            format!("/v2/team/app/blobs/{}", blob.digest),
            nothing(),
        ),
    ]
}

async fn send(client: &Client, method: &Method, path: &str, body: bytes::Bytes) -> Answer {
    let headers = [("content-type", image::OCI_MANIFEST)];
    client.send_body(method.clone(), path, &headers, body).await
}

#[tokio::test]
async fn a_push_by_namespace_lands_where_that_namespace_deploys_to() {
    let (hub, quay) = (Upstream::start().await, Upstream::start().await);
    let mirror = mirror(&hub, &quay).await;
    let client = mirror.client();
    let image = image::small(Flavour::Oci, 1);
    let ns = |path: &str| with(path, "ns=docker.io");
    for (number, blob) in image.blobs.iter().enumerate() {
        let uploads = ns("/v2/team/app/blobs/uploads/");
        let opened = send(&client, &Method::POST, &uploads, bytes::Bytes::new()).await;
        assert_eq!(opened.status, StatusCode::ACCEPTED, "{opened:?}");
        // The way on leads to the same repository by itself.
        let at = location(&opened);
        assert!(at.contains("ns=docker.io"), "{at}");
        let at = if number == 0 {
            let patched = client.patch(&at, 0, &blob.bytes).await;
            assert_eq!(patched.status, StatusCode::ACCEPTED, "{patched:?}");
            location(&patched)
        } else {
            at
        };
        let body = if number == 0 {
            bytes::Bytes::new()
        } else {
            blob.bytes.clone()
        };
        let put = send(
            &client,
            &Method::PUT,
            &with(&at, &format!("digest={}", blob.digest)),
            body,
        )
        .await;
        assert_eq!(put.status, StatusCode::CREATED, "{put:?}");
        let read = client.get(&location(&put)).await;
        assert!(read.is(&blob.bytes), "{read:?}");
    }
    let manifest = ns("/v2/team/app/manifests/1");
    let put = send(&client, &Method::PUT, &manifest, image.root.bytes.clone()).await;
    assert_eq!(put.status, StatusCode::CREATED, "{put:?}");
    assert!(client.get(&location(&put)).await.is(&image.root.bytes));
    assert!(client.has("dev-local/team/app", "1", &image).await);
    // A short name is Docker's own, as in a pull.
    let short = ns("/v2/app/blobs/uploads/");
    let short = with(&short, &format!("digest={}", image.blobs[0].digest));
    let short = send(&client, &Method::POST, &short, image.blobs[0].bytes.clone()).await;
    assert_eq!(short.status, StatusCode::CREATED, "{short:?}");
    let blob = format!("/v2/dev-local/library/app/blobs/{}", image.blobs[0].digest);
    assert!(client.get(&blob).await.is(&image.blobs[0].bytes));
    let deleted = send(&client, &Method::DELETE, &manifest, bytes::Bytes::new()).await;
    assert_eq!(deleted.status, StatusCode::ACCEPTED, "{deleted:?}");
    let gone = client.manifest("dev-local/team/app", "1").await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert_eq!(
        (writes(&hub), quay.log().len()),
        (0, 0),
        "{:?} {:?}",
        hub.log(),
        quay.log()
    );
}

#[tokio::test]
async fn a_push_into_a_remotes_namespace_or_into_none_is_refused() {
    let (hub, quay) = (Upstream::start().await, Upstream::start().await);
    let mirror = mirror(&hub, &quay).await;
    let client = mirror.client();
    let image = image::small(Flavour::Oci, 1);
    for (method, path, body) in all_writes(&image) {
        for (ns, status, code) in [
            ("quay.io", StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            ("hub.test", StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            ("nowhere.test", StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
        ] {
            let path = with(&path, &format!("ns={ns}"));
            let answer = send(&client, &method, &path, body.clone()).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (status, code),
                "{method} {path}"
            );
        }
    }
    assert!(
        hub.log().is_empty() && quay.log().is_empty(),
        "{:?} {:?}",
        hub.log(),
        quay.log()
    );
    assert!(mirror.files("uploads").is_empty() && mirror.files("blobs").is_empty());
}

#[tokio::test]
async fn a_namespace_is_looked_up_and_never_dialled() {
    let (hub, quay, canary) = (
        Upstream::start().await,
        Upstream::start().await,
        Canary::start(),
    );
    let image = image::small(Flavour::Oci, 1);
    hub.hold("team/app", "1", &image);
    quay.hold("team/app", "1", &image);
    let mirror = mirror(&hub, &quay).await;
    let client = mirror.client();
    let there = canary.address().to_string();
    let unknown = [
        "ns=evil.example",
        "ns=127.0.0.1:22",
        &format!("ns={there}"),
        &format!("ns=http://{there}"),
        &format!("ns=docker.io@{there}"),
        &format!("ns=docker.io&ns={there}"),
        &format!("ns={there}&ns=docker.io"),
        "ns=docker.io&ns=quay.io",
        "ns=docker.io/evil",
        "ns=docker.io%00.evil.example",
        "ns=docker.io%0d%0aHost:evil.example",
        "ns=169.254.169.254",
        "ns=[::1]:5000",
        "ns=.",
        "ns=docker.io..",
    ];
    let mut requests = all_writes(&image);
    for path in [
        "/v2/team/app/manifests/1".to_owned(),
        format!("/v2/team/app/blobs/{}", image.blobs[0].digest),
        "/v2/team/app/tags/list".to_owned(),
        format!("/v2/team/app/referrers/{}", image.digest()),
        "/v2/_catalog".to_owned(),
        "/v2/".to_owned(),
    ] {
        requests.push((Method::GET, path, bytes::Bytes::new()));
    }
    for namespaces in unknown {
        for (method, path, body) in &requests {
            let path = with(path, namespaces);
            let answer = send(&client, method, &path, body.clone()).await;
            assert_eq!(
                answer.status,
                StatusCode::NOT_FOUND,
                "{method} {path} {answer:?}"
            );
            assert_eq!(answer.code(), "NAME_UNKNOWN", "{method} {path}");
        }
    }
    assert_eq!(canary.connections(), 0, "something was dialled");
    assert!(hub.log().is_empty() && quay.log().is_empty());
    // The ways to write a host that is served are all the same host.
    for (known, upstream) in [
        ("ns=docker.io", &hub),
        ("ns=DOCKER.IO.", &hub),
        ("ns=index.docker.io", &hub),
        ("ns=registry-1.docker.io", &hub),
        ("ns=docker.io&ns=Docker.io", &hub),
        ("ns=quay.io", &quay),
        ("ns=QUAY.io.", &quay),
    ] {
        let before = upstream.log().len();
        let answer = client.get(&with("/v2/team/app/manifests/1", known)).await;
        assert!(answer.is(&image.root.bytes), "{known} {answer:?}");
        assert!(upstream.log().len() > before, "{known}");
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn what_is_held_here_is_never_somebody_elses() {
    let (hub, quay) = (Upstream::start().await, Upstream::start().await);
    let [mine, theirs] = [1, 2].map(|seed| image::small(Flavour::Oci, seed));
    // Upstream has the very name, a tag more of it, and names that begin like our keys.
    hub.hold("team/app", "1", &theirs);
    hub.hold("team/app", "2", &theirs);
    for name in [
        "dev-local/team/app",
        "dev-local/team/none",
        "docker-virtual/team/app",
    ] {
        hub.hold(name, "1", &theirs);
        quay.hold(name, "1", &theirs);
    }
    let mut mirror = mirror(&hub, &quay).await;
    mirror.client().push("dev-local/team/app", "1", &mine).await;
    for _ in 0..2 {
        let client = mirror.client();
        for name in [
            "docker-virtual/team/app",
            "docker.io/team/app",
            "dev-local/team/app",
        ] {
            let found = client.manifest(name, "1").await;
            assert!(found.is(&mine.root.bytes), "{name} {found:?}");
            let other = client.manifest(name, "2").await;
            assert_eq!(other.status, StatusCode::NOT_FOUND, "{name}");
            let digest = client.manifest(name, theirs.digest()).await;
            assert_eq!(digest.status, StatusCode::NOT_FOUND, "{name}");
        }
        // A key is a key: what is not there is not looked for as an image of that name anywhere.
        for path in [
            "/v2/dev-local/team/none/manifests/1",
            "/dev-local/v2/team/none/manifests/1",
            "/v2/dev-local/team/none/tags/list",
        ] {
            let answer = client.get(path).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        }
        assert!(
            hub.log().is_empty() && quay.log().is_empty(),
            "{:?} {:?}",
            hub.log(),
            quay.log()
        );
        mirror.restart().await;
    }
}
