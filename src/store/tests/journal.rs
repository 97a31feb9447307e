//! The journal: what it says counts, whatever became of the index.

use super::*;
use crate::clock::Wall;
use crate::oci::{Name, Tag};
use crate::store::index::ApiTokenRow;
use crate::store::{Change, frames};

fn name() -> Name {
    Name::parse("a/b").unwrap()
}

async fn push(store: &Store, bytes: &'static [u8]) -> Digest {
    let digest = Digest::of(bytes);
    let hold = store.hold(&digest);
    store
        .put_pushed(&hold, Bytes::from_static(bytes))
        .await
        .unwrap();
    let change = Change::link_blob("dev-local", &name(), &digest, crate::clock::now());
    store.commit_changes(vec![(change, None)]).await.unwrap();
    digest
}

async fn is_linked(store: &Store, digest: &Digest) -> bool {
    let linked = store.index().is_linked("dev-local", &name(), digest).await;
    linked.unwrap()
}

pub(super) fn remove_index(root: &Path) {
    for name in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        drop(fs::remove_file(root.join(name)));
    }
}

#[tokio::test]
async fn the_index_is_rebuilt_from_it_and_nothing_pushed_is_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 10_000).await;
    let kept = push(&harness.store, b"kept").await;
    let gone = push(&harness.store, b"gone").await;
    let change = Change::drop_blob("dev-local", &name(), &gone, crate::clock::now());
    harness
        .store
        .commit_changes(vec![(change, None)])
        .await
        .unwrap();
    let (_copy, after) = harness.after_kill_and(remove_index).await;
    assert!(is_linked(&after.store, &kept).await && !is_linked(&after.store, &gone).await);
    assert!(after.has(&kept).await && !after.has(&gone).await);
    // More than fits is cached; what was pushed is not in the way and does not go.
    for seed in 0..20 {
        harness.fill(&noise(seed, 1000)).await;
    }
    let usage = harness.store.usage();
    assert!(
        usage.cached_bytes <= 10_000 && usage.pushed_bytes == 4,
        "{usage:?}"
    );
    assert!(harness.has(&kept).await);
}

#[tokio::test]
async fn a_damaged_record_costs_itself_alone() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let one = push(&harness.store, b"one").await;
    let first = fs::metadata(dir.path().join("journal")).unwrap().len();
    let two = push(&harness.store, b"two").await;
    let three = push(&harness.store, b"three").await;
    let damage = |root: &Path| {
        remove_index(root);
        let path = root.join("journal");
        let mut bytes = fs::read(&path).unwrap();
        bytes[usize::try_from(first).unwrap() + 30] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let (_copy, after) = harness.after_kill_and(damage).await;
    let linked = [
        is_linked(&after.store, &one).await,
        is_linked(&after.store, &two).await,
        is_linked(&after.store, &three).await,
    ];
    assert_eq!(linked, [true, false, true]);
    // And it goes on.
    let four = push(&after.store, b"four").await;
    assert!(is_linked(&after.store, &four).await);
}

#[tokio::test]
async fn tags_come_back_with_their_history() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let tag = Tag::parse("latest").unwrap();
    let mut digests = Vec::new();
    for version in ["1", "2"] {
        let bytes = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[],\"annotations\":{{\"v\":\"{version}\"}}}}"
        );
        let digest = Digest::of(bytes.as_bytes());
        let hold = harness.store.hold(&digest);
        harness.store.put_pushed(&hold, bytes.into()).await.unwrap();
        let what = (&digest, "application/vnd.oci.image.index.v1+json");
        let tags = [tag.clone()];
        let change = Change::put_manifest(
            "dev-local",
            &name(),
            what,
            &tags,
            "pushed",
            crate::clock::now(),
        );
        harness
            .store
            .commit_changes(vec![(change, None)])
            .await
            .unwrap();
        digests.push(digest);
    }
    let (_copy, after) = harness.after_kill_and(remove_index).await;
    let index = after.store.index();
    let row = index
        .tag("dev-local", &name(), &tag)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.served, digests[1]);
    let history = index.history("dev-local", &name(), &tag).await.unwrap();
    let history: Vec<_> = history.iter().map(|row| &row.digest).collect();
    assert_eq!(history, [&digests[1], &digests[0]]);
    // What a replay learns of a manifest it learns from the bytes.
    let manifest = index.manifest(&digests[0]).await.unwrap().unwrap();
    assert_eq!(manifest.annotations.get("v").map(String::as_str), Some("1"));
}

#[tokio::test]
async fn many_at_once_are_all_written() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let digest = push(&harness.store, b"one").await;
    let names: Vec<Name> = (0..300)
        .map(|n| Name::parse(&format!("n{n}")).unwrap())
        .collect();
    let all = names.iter().map(|name| {
        let change = Change::link_blob("dev-local", name, &digest, crate::clock::now());
        harness.store.commit_changes(vec![(change, None)])
    });
    for done in futures_util::future::join_all(all).await {
        done.unwrap();
    }
    let (_copy, after) = harness.after_kill_and(remove_index).await;
    let listed = after.store.index().local_names("dev-local").await.unwrap();
    assert_eq!(listed.len(), 301);
}

#[tokio::test]
async fn what_stands_at_the_end_and_is_no_record_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let kept = push(&harness.store, b"kept").await;
    let append = |root: &Path, bytes: &[u8]| {
        let mut journal = fs::read(root.join("journal")).unwrap();
        journal.extend_from_slice(bytes);
        fs::write(root.join("journal"), journal).unwrap();
    };
    let (copy, after) = harness.after_kill_and(|root| append(root, b"torn")).await;
    assert!(is_linked(&after.store, &kept).await);
    let aside = fs::read_dir(copy.path().join("quarantine")).unwrap();
    let aside: Vec<_> = aside
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(aside, [b"torn".to_vec()]);
}

#[tokio::test]
async fn a_record_of_a_newer_program_is_not_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    push(&harness.store, b"kept").await;
    let root = dir.path().to_owned();
    drop(harness);
    let journal = fs::read(root.join("journal")).unwrap();
    let newer = frames::encode(99, br#"[{"do":"something new"}]"#).unwrap();
    fs::write(root.join("journal"), [journal, newer].concat()).unwrap();
    let config = Config {
        path: root.clone(),
        max_size: 10_000,
        min_free: 0,
    };
    let refused = Store::open(config, &Tasks::new()).await;
    let words = format!("{:#?}", refused.err().unwrap());
    assert!(words.contains("newer program"), "{words}");
    assert!(!fs::read(root.join("journal")).unwrap().is_empty());
}

#[tokio::test]
async fn api_tokens_come_back_without_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let row = |name: &str, expires: Option<i64>| ApiTokenRow {
        name: name.to_owned(),
        user: "ada".to_owned(),
        hash: format!("hash of {name}"),
        may: vec!["pull".to_owned()],
        on: vec!["dev-local/a/**".to_owned()],
        created: Wall::from_ms(1000),
        expires: expires.map(Wall::from_ms),
        used: None,
    };
    let (kept, for_ever) = (row("kept", Some(2000)), row("for-ever", None));
    let replaced = ApiTokenRow {
        hash: "another".to_owned(),
        ..kept.clone()
    };
    for change in [
        Change::put_token(replaced),
        Change::put_token(row("gone", None)),
        Change::put_token(kept.clone()),
        Change::put_token(for_ever.clone()),
        Change::drop_token("gone", Wall::from_ms(3000)),
        Change::drop_token("nobody", Wall::from_ms(3000)),
    ] {
        let committed = harness.store.commit_changes(vec![(change, None)]);
        committed.await.unwrap();
    }
    let (_copy, after) = harness.after_kill_and(remove_index).await;
    let rows = after.store.index().api_tokens().await.unwrap();
    assert_eq!(rows, [for_ever, kept]);
}
