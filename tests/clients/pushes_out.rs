//! Our client pushes to Debian's `docker-registry`, open and behind a token server, and others find there what it pushed.

use std::io;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use roadstead::oci::{Digest, MediaType, Name, Reference};
use roadstead::secret::Secret;
use roadstead::tasks::Tasks;
use roadstead::telemetry::Metrics;
use roadstead::upstream::{
    CHUNK, Config, CredentialConfig, Error, Hops, Kind, PushError, SecretSource, Upstream,
};

use crate::parts::{Registry, TokenServer, run};
use crate::support::image::{Content, Flavour, Image, blob, multi_platform};

fn upstream(registry: &Registry, adjust: impl FnOnce(&mut Config)) -> Upstream {
    let mut config = Config::new("there", registry.url().parse().unwrap(), "test");
    adjust(&mut config);
    Upstream::new(config, &Tasks::new(), Arc::new(Metrics::new())).unwrap()
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn digest(content: &Content) -> Digest {
    Digest::parse(&content.digest).unwrap()
}

async fn push_blob(upstream: &Upstream, image: &str, blob: &Content) -> Result<(), PushError> {
    let pieces: Vec<io::Result<Bytes>> = blob
        .bytes
        .chunks(300_000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let (name, digest) = (name(image), digest(blob));
    let size = blob.bytes.len() as u64;
    upstream
        .push_blob(&Hops::none(), &name, &digest, size, stream::iter(pieces))
        .await
}

async fn put(
    upstream: &Upstream,
    image: &str,
    reference: &str,
    manifest: &Content,
) -> Result<(), Error> {
    let media_type = MediaType::parse(&manifest.media_type).unwrap();
    let reference = Reference::parse(reference).unwrap();
    upstream
        .put_manifest(
            &Hops::none(),
            &name(image),
            &reference,
            &media_type,
            manifest.bytes.clone(),
        )
        .await?;
    Ok(())
}

async fn push(upstream: &Upstream, image: &str, tag: &str, content: &Image) {
    for blob in &content.blobs {
        push_blob(upstream, image, blob).await.unwrap();
    }
    for manifest in &content.manifests {
        put(upstream, image, &manifest.digest, manifest)
            .await
            .unwrap();
    }
    put(upstream, image, tag, &content.root).await.unwrap();
}

/// skopeo fetches all of it and compares every digest.
fn fetch(registry: &Registry, image: &str, login: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let from = format!("{}/{image}", registry.url().replace("http:", "docker:"));
    run(Command::new("skopeo")
        .args(["copy", "--all", "--src-tls-verify=false"])
        .args(login)
        .args([&from, &format!("oci:{}", dir.path().display())]));
}

#[tokio::test]
async fn a_real_registry_takes_what_we_push() {
    let registry = Registry::start().await;
    let upstream = upstream(&registry, |_| {});
    let hops = Hops::none();
    let image = multi_platform(Flavour::Oci, 71, 1_000_000);
    push(&upstream, "team/app", "v1", &image).await;
    fetch(&registry, "team/app:v1", &[]);
    // In three chunks; and none.
    let large = blob(72, 2 * CHUNK + 17);
    assert!(
        !upstream
            .has_blob(&hops, &name("team/app"), &digest(&large))
            .await
            .unwrap()
    );
    for blob in [&large, &Content::new("application/octet-stream", "")] {
        push_blob(&upstream, "team/app", blob).await.unwrap();
        assert!(
            upstream
                .has_blob(&hops, &name("team/app"), &digest(blob))
                .await
                .unwrap()
        );
    }
    // Mounted, no byte is sent; from where it is not, it is not mounted.
    let mount = async |from: &str| {
        upstream
            .mount_blob(&hops, &name("team/other"), &digest(&large), &name(from))
            .await
            .unwrap()
    };
    assert!(!mount("team/nothing").await);
    assert!(mount("team/app").await);
    assert!(
        upstream
            .has_blob(&hops, &name("team/other"), &digest(&large))
            .await
            .unwrap()
    );
    // A wrong digest is refused by it, and nothing of it stays.
    let mut wrong = blob(73, CHUNK + 1);
    wrong.digest = blob(74, 1).digest;
    let error = push_blob(&upstream, "team/app", &wrong).await.unwrap_err();
    assert!(
        matches!(&error, PushError::Upstream(error) if error.status() == Some(400)),
        "{error}"
    );
    assert!(
        !upstream
            .has_blob(&hops, &name("team/app"), &digest(&wrong))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_real_token_server_gives_us_the_scope() {
    let mut registry = Registry::start().await;
    let tokens = TokenServer::start();
    registry.protect(&tokens);
    let at = |password: Option<&str>| {
        upstream(&registry, |config| {
            config.token_hosts = vec![tokens.host()];
            config.credentials = password
                .map(|password| CredentialConfig::Static {
                    username: "admin".to_owned(),
                    password: SecretSource::Value(Secret::new(password)),
                })
                .into_iter()
                .collect();
        })
    };
    let image = multi_platform(Flavour::Docker, 75, 1_000);
    let known = at(Some("admin-s3cret-canary"));
    push(&known, "library/public", "v1", &image).await;
    assert_eq!(tokens.given(), 1, "one token for all of it");
    fetch(&registry, "library/public:v1", &["--src-no-creds"]);
    let first = &image.blobs[0];
    let (to, from) = (name("team/app"), name("library/public"));
    let hops = Hops::none();
    assert!(
        known
            .mount_blob(&hops, &to, &digest(first), &from)
            .await
            .unwrap()
    );
    for stranger in [at(None), at(Some("wrong-s3cret-canary"))] {
        let error = put(&stranger, "library/public", "v2", &image.root)
            .await
            .unwrap_err();
        assert!(
            matches!(error.kind(), Kind::Denied | Kind::Credentials),
            "{error}"
        );
    }
}
