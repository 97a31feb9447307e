use std::path::Path;

use super::*;
use crate::cache;
use crate::clock::Wall;
use crate::store;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

async fn open(data: &Path, keep: Duration) -> (Tasks, Store, Records) {
    let tasks = Tasks::new();
    let config = store::Config {
        path: data.to_owned(),
        max_size: 1 << 20,
        min_free: 0,
    };
    let store = Store::open(config, &tasks).await.unwrap();
    let metrics = Arc::new(Metrics::new());
    let records = Records::open(store.clone(), metrics, Config { keep }).await;
    (tasks, store, records.unwrap())
}

async fn close((tasks, store, records): (Tasks, Store, Records)) {
    drop(records);
    tasks.stop(Duration::from_secs(5)).await;
    store.close().await;
}

/// A pull of `a/b` by reference, of what is stored under `digest`.
fn pull(records: &Records, who: &str, reference: &str, (digest, kind): (&Digest, &str)) {
    let (image, reference) = (
        Name::parse("a/b").unwrap(),
        Reference::parse(reference).unwrap(),
    );
    let asked = Asked {
        repository: "all",
        image: &image,
        reference: &reference,
        is_blob: false,
        who,
        client: "10.0.0.1",
    };
    records.pulled(&asked, "hub", digest, &MediaType::parse(kind).unwrap());
}

fn missed(records: &Records, reference: &str, error: cache::Error) {
    let (image, reference) = (
        Name::parse("a/b").unwrap(),
        Reference::parse(reference).unwrap(),
    );
    let asked = Asked {
        repository: "all",
        image: &image,
        reference: &reference,
        is_blob: false,
        who: "ada",
        client: "10.0.0.1",
    };
    records.missed(&asked, &error.into());
}

/// An index with one manifest for amd64, stored.
async fn stored_index(store: &Store, child: &Digest) -> Digest {
    let text = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{INDEX}\",\"manifests\":[{{\"mediaType\":\"{IMAGE}\",\"digest\":\"{child}\",\
         \"size\":3,\"platform\":{{\"os\":\"linux\",\"architecture\":\"amd64\"}}}}]}}"
    );
    let digest = Digest::of(text.as_bytes());
    store.put(&digest, text.into()).await.unwrap();
    digest
}

/// Tag or none, what it is, and the platforms.
fn told(all: Vec<Pulled>) -> Vec<(Option<String>, Digest, Vec<Digest>)> {
    let one = |one: Pulled| {
        assert_eq!((&*one.repository, &*one.image), ("hub", "a/b"));
        let tag = one.tag.map(|tag| tag.to_string());
        (tag, one.digest, one.platforms)
    };
    all.into_iter().map(one).collect()
}

#[tokio::test]
async fn pulls_are_folded_by_tag_and_by_whom_and_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let (child, alone) = (Digest::of(b"amd64"), Digest::of(b"alone"));
    let opened = open(dir.path(), KEEP).await;
    let (tasks, store, records) = &opened;
    let index = stored_index(store, &child).await;
    pull(records, "ada", "1", (&Digest::of(b"old"), IMAGE));
    let noted = clock::now();
    while clock::now() == noted {
        tokio::task::yield_now().await;
    }
    pull(records, "bob (token ci)", "1", (&index, INDEX));
    let reference = child.to_string();
    pull(records, "bob (token ci)", &reference, (&child, IMAGE));
    pull(records, "ada", &alone.to_string(), (&alone, IMAGE));
    // What is noted when the process stops is written by then.
    records.write_in_background(tasks);
    close(opened).await;

    let opened = open(dir.path(), KEEP).await;
    let records = &opened.2;
    let by_tag = (Some("1".to_owned()), index, vec![child]);
    let alone = (None, alone, Vec::new());
    let old = (Some("1".to_owned()), Digest::of(b"old"), Vec::new());
    let names =
        |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    for (by, expected) in [
        (None, vec![by_tag.clone(), alone.clone()]),
        (Some(names(&["bob"])), vec![by_tag.clone()]),
        (Some(names(&["bob", "ada"])), vec![by_tag, alone.clone()]),
        (Some(names(&["ada"])), vec![old, alone]),
        (Some(Vec::new()), Vec::new()),
    ] {
        let all = records.pulled_since(None, by.as_deref()).await.unwrap();
        assert_eq!(told(all), expected, "{by:?}");
    }
    let later = Some(Wall::from_ms(i64::MAX));
    assert!(records.pulled_since(later, None).await.unwrap().is_empty());
    close(opened).await;
}

#[tokio::test]
async fn nothing_is_kept_where_nothing_is_to_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), KEEP).await;
    pull(&opened.2, "ada", "1", (&Digest::of(b"1"), IMAGE));
    missed(&opened.2, "2", cache::Error::Offline);
    assert_eq!(opened.2.pulled_since(None, None).await.unwrap().len(), 1);
    close(opened).await;
    let opened = open(dir.path(), Duration::ZERO).await;
    let records = &opened.2;
    pull(records, "ada", "1", (&Digest::of(b"1"), IMAGE));
    missed(records, "3", cache::Error::Offline);
    assert!(records.inner.memory().notes.is_empty());
    // The task begins with it.
    records.inner.write(true).await.unwrap();
    assert!(records.pulled_since(None, None).await.unwrap().is_empty());
    assert_eq!(records.count_missing().await.unwrap(), 0);
    close(opened).await;
}

#[tokio::test]
async fn only_what_no_upstream_could_be_asked_for_is_missing() {
    use cache::Error;

    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), KEEP).await;
    let records = &opened.2;
    for error in [
        Error::NotFound,
        Error::StillAbsent,
        Error::NotAcceptable("x".to_owned()),
        Error::Mismatch,
        Error::Store("x".to_owned()),
        Error::GivenUp,
    ] {
        missed(records, "1", error);
    }
    records.missed(
        &Asked {
            repository: "dev",
            image: &Name::parse("a/b").unwrap(),
            reference: &Reference::parse("1").unwrap(),
            is_blob: false,
            who: "ada",
            client: "10.0.0.1",
        },
        &crate::overlay::Error::ManifestUnknown.into(),
    );
    assert!(records.inner.memory().notes.is_empty());
    missed(records, "1", Error::Offline);
    missed(records, "1", Error::Offline);
    assert_eq!(records.count_missing().await.unwrap(), 1);
    assert!(records.inner.is_lacking.load(Relaxed));
    assert_eq!(records.clear_missing(clock::now()).await.unwrap(), 1);
    assert!(!records.inner.is_lacking.load(Relaxed));
    assert!(records.inner.memory().lacking.is_empty());
    close(opened).await;
}
