use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::collect::{Seen, live};
use super::{Config, Error, Local, PutManifest, Reason, Shared};
use crate::oci::{Digest, Name, Tag};
use crate::store::index::{Holdings, LocalLink};
use crate::store::{self, Store};
use crate::tasks::Tasks;

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn link(text: &str, is_manifest: bool, is_root: bool) -> LocalLink {
    LocalLink {
        digest: digest(text),
        size: 1,
        is_manifest,
        is_root,
        added: crate::clock::now(),
    }
}

#[test]
fn what_the_roots_lead_to() {
    let edge = |from: &str, to: &str| (digest(from), digest(to));
    let holdings = Holdings {
        links: vec![
            link("index", true, false),
            link("child", true, false),
            link("layer", false, false),
            link("signature", true, false),
            link("signed", false, false),
            link("deployed", true, true),
            link("old", true, false),
            link("old layer", false, false),
            link("lost", false, false),
        ],
        edges: vec![
            edge("index", "child"),
            edge("child", "layer"),
            // A subject holds its referrers.
            edge("index", "signature"),
            edge("signature", "signed"),
            edge("old", "old layer"),
            edge("old", "layer"),
            // A circle ends.
            edge("signature", "index"),
        ],
        tags: vec![(
            Tag::parse("1").unwrap(),
            digest("index"),
            crate::clock::now(),
        )],
    };
    let live = live(&holdings);
    for (text, expected) in [
        ("index", true),
        ("child", true),
        ("layer", true),
        ("signature", true),
        ("signed", true),
        ("deployed", true),
        ("old", false),
        ("old layer", false),
        ("lost", false),
    ] {
        assert_eq!(live.contains(&digest(text)), expected, "{text}");
    }
}

async fn local(root: &std::path::Path) -> (Local, Store, Tasks) {
    let tasks = Tasks::new();
    let config = store::Config {
        path: root.to_owned(),
        max_size: 1 << 20,
        min_free: 0,
    };
    let store = Store::open(config, &tasks).await.unwrap();
    let shared = Shared::new(store.clone(), &tasks).await.unwrap();
    (
        Local::new("dev-local", Config::default(), shared),
        store,
        tasks,
    )
}

async fn push_blob(local: &Local, name: &Name, bytes: &'static [u8]) -> Digest {
    let digest = Digest::of(bytes);
    let id = local
        .open_upload(name, "me", digest.algorithm())
        .await
        .unwrap();
    let body = Box::pin(futures_util::stream::iter([Ok(Bytes::from_static(bytes))]));
    local
        .finish((name, "me", &id), &digest, &super::Offer::default(), body)
        .await
        .unwrap();
    digest
}

fn image(config: &Digest) -> Bytes {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/x", "digest": config.to_string(), "size": 3},
        "layers": [],
    })
    .to_string()
    .into()
}

async fn put(local: &Local, name: &Name, tag: &str, bytes: Bytes) -> Digest {
    let put = PutManifest {
        digest: None,
        tags: vec![Tag::parse(tag).unwrap()],
        media_type: None,
        bytes,
    };
    local.put_manifest(name, put).await.unwrap().digest
}

#[tokio::test]
async fn collection_waits_for_its_grace_and_for_those_who_ask() {
    let dir = tempfile::tempdir().unwrap();
    let (local, store, _tasks) = local(dir.path()).await;
    let name = Name::parse("a/b").unwrap();
    let config = push_blob(&local, &name, b"one").await;
    let lost = push_blob(&local, &name, b"lost").await;
    let old = put(&local, &name, "1", image(&config)).await;
    let mut seen = Seen::default();
    let grace = Duration::from_millis(300);
    // The first look only notes.
    assert!(local.collect(&mut seen, grace).await.unwrap().is_empty());
    tokio::time::sleep(grace).await;
    // Asked for a moment ago: whoever asked is about to need it.
    local.open_blob(&name, &lost).await.unwrap();
    assert!(local.collect(&mut seen, grace).await.unwrap().is_empty());
    tokio::time::sleep(grace).await;
    let collected = local.collect(&mut seen, grace).await.unwrap();
    assert_eq!(collected.len(), 1);
    assert_eq!(
        (&collected[0].digest, collected[0].reason),
        (&lost, Reason::Unreferenced)
    );
    // The bytes are gone with the last link.
    assert!(store.open_blob(&lost).await.unwrap().is_none());
    // A tag that moves leaves its manifest; one that is deleted does not.
    let second = push_blob(&local, &name, b"two").await;
    let new = put(&local, &name, "1", image(&second)).await;
    local
        .delete_tag(&name, &Tag::parse("1").unwrap())
        .await
        .unwrap();
    let dry = local.collect_now(Duration::ZERO, true).await.unwrap();
    let dry: Vec<_> = dry.iter().map(|one| &one.digest).collect();
    assert_eq!(dry, [&new, &second]);
    local.collect_now(Duration::ZERO, false).await.unwrap();
    assert!(local.manifest(&name, &old).await.is_ok());
    assert!(matches!(
        local.manifest(&name, &new).await,
        Err(Error::ManifestUnknown)
    ));
    assert_eq!(store.usage().pushed_blobs, 2);
}

#[tokio::test]
async fn a_blob_that_is_cached_too_stays_when_it_is_deleted_here() {
    let dir = tempfile::tempdir().unwrap();
    let (local, store, _tasks) = local(dir.path()).await;
    let name = Name::parse("a").unwrap();
    let blob = push_blob(&local, &name, b"shared").await;
    store
        .index()
        .link("docker-hub", &name, &blob)
        .await
        .unwrap();
    let before = store.usage();
    assert_eq!((before.pushed_bytes, before.cached_bytes), (6, 0));
    local.delete_blob(&name, &blob).await.unwrap();
    assert!(store.open_blob(&blob).await.unwrap().is_some());
    let after = store.usage();
    assert_eq!((after.pushed_bytes, after.cached_bytes), (0, 6));
}

#[tokio::test]
async fn sessions_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (local, _store, _tasks) = local(dir.path()).await;
    let name = Name::parse("a").unwrap();
    let algorithm = crate::oci::Algorithm::Sha256;
    for _ in 0..1000 {
        local.open_upload(&name, "me", algorithm).await.unwrap();
    }
    assert!(matches!(
        local.open_upload(&name, "me", algorithm).await,
        Err(Error::TooManyUploads)
    ));
    // Others are not kept out by it.
    assert!(local.open_upload(&name, "you", algorithm).await.is_ok());
    // One that was opened and forgotten makes room.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert!(local.open_upload(&name, "me", algorithm).await.is_ok());
}
