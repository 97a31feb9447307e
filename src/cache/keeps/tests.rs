use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use url::Url;

use super::*;
use crate::cache::admit::Rules;
use crate::cache::{Config, Outcome, Shared, Want};
use crate::oci::Accept;
use crate::store::{self, Store};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::{self, Hops, Upstream};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A remote whose upstream nobody can reach.
struct Harness {
    _dir: TempDir,
    store: Store,
    cache: PullThrough,
}

impl Harness {
    async fn new(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (tasks, metrics) = (Tasks::new(), Arc::new(Metrics::new()));
        let place = store::Config {
            path: dir.path().to_owned(),
            max_size: 1 << 20,
            min_free: 0,
        };
        let store = Store::open(place, &tasks).await.unwrap();
        let url = Url::parse("http://127.0.0.1:1/").unwrap();
        let upstream = upstream::Config::new("hub", url, "tests");
        let upstream = Upstream::new(upstream, &tasks, Arc::clone(&metrics)).unwrap();
        let shared = Shared::new(store.clone(), tasks, metrics);
        let cache = PullThrough::new("hub".to_owned(), config, upstream, shared);
        Self {
            _dir: dir,
            store,
            cache,
        }
    }

    async fn put(&self, bytes: &'static [u8]) -> Digest {
        let digest = Digest::of(bytes);
        let put = self.store.put(&digest, Bytes::from_static(bytes));
        put.await.unwrap();
        digest
    }

    /// An image whose blobs are here.
    async fn image(&self) -> KeptImage {
        let (config, layer) = (self.put(b"{}").await, self.put(b"a layer").await);
        image(&config, &layer)
    }

    async fn keep(&self, image: &KeptImage) -> Result<(), KeepError> {
        let event = json!({ "action": "keep" });
        self.cache
            .keep(&name(), &by_tag(), image, true, event)
            .await
    }

    /// What a pull gets, without anybody to ask.
    async fn assert_pulls(&self, image: &KeptImage) {
        let (hops, name, tag) = (Hops::default(), name(), tag());
        let accept = Accept::everything();
        let by_tag = self
            .cache
            .manifest_by_tag(&hops, &name, &tag, &accept, Want::Body);
        let by_tag = by_tag.await.unwrap();
        assert_eq!(by_tag.bytes.as_ref(), Some(&image.manifests[0].bytes));
        let by_digest = self
            .cache
            .manifest_by_digest(&hops, &name, &image.digest, Want::Body);
        assert_eq!(by_digest.await.unwrap().status.outcome(), Outcome::Hit);
        for blob in &image.blobs {
            let open = self.cache.open_blob(&hops, &name, blob).await.unwrap();
            assert!(open.is_verified());
        }
    }
}

fn name() -> Name {
    Name::parse("library/app").unwrap()
}

fn tag() -> Tag {
    Tag::parse("1.0").unwrap()
}

fn by_tag() -> Reference {
    Reference::Tag(tag())
}

fn image(config: &Digest, layer: &Digest) -> KeptImage {
    let text = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.to_string(), "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.to_string(), "size": 7 }],
    });
    let bytes = Bytes::from(text.to_string());
    let digest = Digest::of(&bytes);
    let manifest = KeptManifest {
        digest: digest.clone(),
        media_type: MediaType::parse(OCI_MANIFEST).unwrap(),
        bytes,
    };
    KeptImage {
        digest,
        manifests: vec![manifest],
        blobs: vec![config.clone(), layer.clone()],
    }
}

#[tokio::test]
async fn the_next_pull_is_a_hit_with_nobody_to_ask() {
    for offline in [true, false] {
        let config = Config {
            offline,
            ..Config::default()
        };
        let harness = Harness::new(config).await;
        let image = harness.image().await;
        let (name, memory) = (name(), age_key(&name(), &tag()));
        let absences = &harness.cache.inner.absences;
        let blob = absent_blob(&name, &image.blobs[0]);
        absences.note(&memory);
        absences.note(&blob);
        harness.keep(&image).await.unwrap();
        assert!(!absences.holds(&memory) && !absences.holds(&blob));
        harness.assert_pulls(&image).await;
        let row = &harness.cache.kept().await.unwrap()[0];
        assert_eq!(
            (row.name.as_str(), row.reference.as_str()),
            ("library/app", "1.0")
        );
        let records = harness.store.index().audit(0, 10).await.unwrap();
        assert!(records[0].2.contains("keep"), "{records:?}");

        assert!(
            harness
                .cache
                .unkeep(&name, &by_tag(), json!({}))
                .await
                .unwrap()
        );
        assert!(
            !harness
                .cache
                .unkeep(&name, &by_tag(), json!({}))
                .await
                .unwrap()
        );
        harness.assert_pulls(&image).await;
    }
}

#[tokio::test]
async fn rules_do_not_stand_against_it_though_they_did() {
    let config = Config {
        admit: Rules {
            min_age: Duration::from_secs(3600),
            ..Rules::default()
        },
        ..Config::default()
    };
    let harness = Harness::new(config).await;
    let image = harness.image().await;
    // What is known of it, and too young.
    let bytes = image.manifests[0].bytes.clone();
    let manifest = Manifest::parse(&bytes, None).unwrap();
    harness
        .store
        .put(&image.digest, bytes.clone())
        .await
        .unwrap();
    let row = harness.store.row_of(&manifest, bytes.len()).await;
    let (hops, name) = (Hops::default(), name());
    let index = harness.store.index();
    let recorded = index.record_manifest("hub", &name, &image.digest, row);
    recorded.await.unwrap();
    let pull = || {
        harness
            .cache
            .manifest_by_digest(&hops, &name, &image.digest, Want::Body)
    };
    assert!(matches!(pull().await, Err(Error::Refused(_))));
    harness.keep(&image).await.unwrap();
    pull().await.unwrap();
    harness.assert_pulls(&image).await;
}

#[tokio::test]
async fn what_is_not_whole_is_not_kept() {
    let harness = Harness::new(Config::default()).await;
    let config = harness.put(b"{}").await;
    let gone = Digest::of(b"never came");
    let missing = |refused: Result<(), KeepError>| match refused {
        Err(KeepError::NotHere(missing)) => missing,
        other => panic!("{other:?}"),
    };
    let part = image(&config, &gone);
    assert_eq!(missing(harness.keep(&part).await), [gone]);
    // The manifest that it is of must come with it.
    let mut headless = harness.image().await;
    headless.manifests.clear();
    let digest = headless.digest.clone();
    assert_eq!(missing(harness.keep(&headless).await), [digest]);
    let mut wrong = harness.image().await;
    wrong.manifests[0].bytes = Bytes::from_static(b"{}");
    let refused = harness.keep(&wrong).await;
    assert!(
        matches!(refused, Err(KeepError::Failed(Error::Mismatch))),
        "{refused:?}"
    );
    assert!(harness.cache.kept().await.unwrap().is_empty());
    assert_eq!(harness.store.usage().kept_bytes, 0);
    // Nothing of it is held any longer.
    harness
        .store
        .drop_cached(vec![config.clone()])
        .await
        .unwrap();
    assert!(harness.store.open_blob(&config).await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_too_much_is_not_kept() {
    let harness = Harness::new(Config::default()).await;
    let image = harness.image().await;
    let mut many = image.clone();
    many.manifests = vec![image.manifests[0].clone(); KEPT_MANIFESTS_MAX + 1];
    assert!(matches!(harness.keep(&many).await, Err(KeepError::TooMuch)));
    many.manifests.truncate(1);
    many.blobs = vec![image.blobs[0].clone(); KEPT_PIECES_MAX];
    assert!(matches!(harness.keep(&many).await, Err(KeepError::TooMuch)));
}

#[tokio::test]
async fn deleting_it_lets_it_go_and_a_retired_remote_keeps_nothing() {
    let harness = Harness::new(Config::default()).await;
    let image = harness.image().await;
    harness.keep(&image).await.unwrap();
    assert!(harness.cache.forget_tag(&name(), &tag()).await.unwrap());
    assert!(harness.cache.kept().await.unwrap().is_empty());
    harness.keep(&image).await.unwrap();
    assert!(harness.cache.forget(&name()).await.unwrap());
    assert!(harness.cache.kept().await.unwrap().is_empty());
    assert!(
        harness
            .store
            .open_blob(&image.blobs[0])
            .await
            .unwrap()
            .is_none()
    );
    assert!(!harness.cache.forget(&name()).await.unwrap());
    let again = harness.image().await;
    harness.cache.retire(true);
    let refused = harness.keep(&again).await;
    assert!(
        matches!(refused, Err(KeepError::Failed(Error::GivenUp))),
        "{refused:?}"
    );
}
