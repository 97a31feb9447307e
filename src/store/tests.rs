use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::budget::choose;
use super::{CommitError, Config, OpenError, Store};
use crate::clock;
use crate::oci::{Digest, Name, Tag};
use crate::store::index::TagRow;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

async fn open_sized(path: &std::path::Path, max_size: u64) -> Store {
    let config = Config {
        path: path.to_owned(),
        max_size,
        min_free: 0,
    };
    Store::open(config, &Tasks::new(), Arc::new(Metrics::new()))
        .await
        .unwrap()
}

async fn open(path: &std::path::Path) -> Store {
    open_sized(path, 1 << 30).await
}

fn content(seed: u8, length: usize) -> (Digest, Bytes) {
    let bytes: Vec<u8> = (0..length)
        .map(|i| u8::try_from(i % 251).unwrap() ^ seed)
        .collect();
    (Digest::of(&bytes), bytes.into())
}

async fn all(blob: &super::Blob) -> Vec<u8> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < blob.size() {
        bytes.extend_from_slice(&blob.read_at(bytes.len() as u64, 10_000).await.unwrap());
    }
    bytes
}

fn files_below(path: &std::path::Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path).unwrap().flatten() {
        bytes += if entry.path().is_dir() {
            files_below(&entry.path())
        } else {
            entry.metadata().unwrap().len()
        };
    }
    bytes
}

#[tokio::test]
async fn what_is_staged_is_followed_verified_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (digest, bytes) = content(1, 300_000);
    {
        let store = open(dir.path()).await;
        let mut staged = store.stage(&digest, None).await.unwrap();
        staged.expect(300_000).await.unwrap();
        let part = staged.part();
        staged.append(bytes.slice(..100_000)).await.unwrap();
        part.written()
            .wait_for(|written| *written == 100_000)
            .await
            .unwrap();
        assert_eq!(
            part.read_at(0, 1 << 20).await.unwrap(),
            bytes.slice(..100_000)
        );
        assert!(
            store.open_blob(&digest).await.unwrap().is_none(),
            "not visible before it is whole"
        );
        staged.append(bytes.slice(100_000..)).await.unwrap();
        let blob = staged.commit().await.unwrap();
        assert_eq!(all(&blob).await, bytes);
        assert_eq!(store.usage().cached_bytes, 300_000);
        assert_eq!(store.usage().reserved_bytes, 0);
        store.close().await;
    }
    let store = open(dir.path()).await;
    assert_eq!(
        all(&store.open_blob(&digest).await.unwrap().unwrap()).await,
        bytes
    );
    assert_eq!(store.usage().cached_bytes, 300_000);
}

#[tokio::test]
async fn wrong_content_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (digest, _) = content(1, 10);
    let mut staged = store.stage(&digest, None).await.unwrap();
    staged
        .append(Bytes::from_static(b"something else"))
        .await
        .unwrap();
    assert!(matches!(
        staged.commit().await,
        Err(CommitError::Mismatch { .. })
    ));
    let (digest, bytes) = content(2, 1000);
    let mut staged = store.stage(&digest, Some(2000)).await.unwrap();
    staged.append(bytes).await.unwrap();
    assert!(matches!(staged.commit().await, Err(CommitError::Length)));
    assert_eq!(
        files_below(&dir.path().join("staging")) + files_below(&dir.path().join("blobs")),
        0
    );
    assert_eq!(
        (store.usage().cached_bytes, store.usage().reserved_bytes),
        (0, 0)
    );
    assert!(store.put(&digest, Bytes::from_static(b"x")).await.is_err());
}

#[tokio::test]
async fn an_interrupted_part_is_continued_also_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (digest, bytes) = content(3, 500_000);
    {
        let store = open(dir.path()).await;
        let mut staged = store.stage(&digest, Some(500_000)).await.unwrap();
        staged.append(bytes.slice(..200_000)).await.unwrap();
        staged.keep().await;
        assert_eq!(store.usage().reserved_bytes, 200_000);
        let mut staged = store.stage(&digest, Some(500_000)).await.unwrap();
        assert_eq!(staged.held(), 200_000);
        staged.append(bytes.slice(200_000..300_000)).await.unwrap();
        staged
            .part()
            .written()
            .wait_for(|written| *written == 300_000)
            .await
            .unwrap();
        // The process dies: neither kept nor closed. The writing thread ends with the queue.
        drop(staged);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let store = open(dir.path()).await;
    assert_eq!(store.usage().reserved_bytes, 300_000);
    let mut staged = store.stage(&digest, None).await.unwrap();
    assert_eq!(staged.held(), 300_000);
    staged.append(bytes.slice(300_000..)).await.unwrap();
    assert_eq!(all(&staged.commit().await.unwrap()).await, bytes);
    assert_eq!(store.usage().reserved_bytes, 0);
}

#[tokio::test]
async fn max_size_holds_by_least_recent_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_sized(dir.path(), 100_000).await;
    let blobs: Vec<_> = (0..12).map(|seed| content(seed, 20_000)).collect();
    for (digest, bytes) in &blobs {
        let mut staged = store.stage(digest, Some(20_000)).await.unwrap();
        staged.append(bytes.clone()).await.unwrap();
        staged.commit().await.unwrap();
        let usage = store.usage();
        assert!(usage.cached_bytes + usage.reserved_bytes <= 100_000);
        // The first one is used all the time, so it stays.
        assert!(store.open_blob(&blobs[0].0).await.unwrap().is_some());
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert!(store.open_blob(&blobs[1].0).await.unwrap().is_none());
    assert!(store.open_blob(&blobs[11].0).await.unwrap().is_some());
    assert_eq!(
        files_below(&dir.path().join("blobs")),
        store.usage().cached_bytes
    );
    let (digest, _) = content(99, 1);
    assert!(matches!(
        store.stage(&digest, Some(100_001)).await,
        Err(super::StageError::Full)
    ));
}

#[tokio::test]
async fn an_evicted_blob_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_sized(dir.path(), 30_000).await;
    let (first, second) = (content(1, 20_000), content(2, 20_000));
    let blob = store.put(&first.0, first.1.clone()).await.unwrap();
    store.put(&second.0, second.1.clone()).await.unwrap();
    assert!(store.open_blob(&first.0).await.unwrap().is_none());
    assert_eq!(all(&blob).await, first.1);
}

#[tokio::test]
async fn damage_is_seen_and_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (digest, bytes) = content(7, 50_000);
    let path = dir
        .path()
        .join("blobs/sha256")
        .join(digest.hex().split_at(2).0)
        .join(digest.hex());
    let store = open(dir.path()).await;
    store.put(&digest, bytes.clone()).await.unwrap();
    // Cut while its file is open.
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(100)
        .unwrap();
    assert!(store.open_blob(&digest).await.unwrap().is_none());
    assert!(!path.exists());
    assert_eq!(store.usage().cached_bytes, 0);
    // Removed behind our back, with no open file.
    store.put(&digest, bytes.clone()).await.unwrap();
    store.close().await;
    drop(store);
    std::fs::remove_file(&path).unwrap();
    let store = open(dir.path()).await;
    assert!(store.open_blob(&digest).await.unwrap().is_none());
    assert_eq!(store.usage().cached_bytes, 0);
}

#[tokio::test]
async fn an_undurable_blob_is_hashed_after_an_unclean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (digest, bytes) = content(8, 50_000);
    let path = dir
        .path()
        .join("blobs/sha256")
        .join(digest.hex().split_at(2).0)
        .join(digest.hex());
    {
        let store = open(dir.path()).await;
        store.put(&digest, bytes.clone()).await.unwrap();
    }
    // What a power cut may leave: the right length, other bytes.
    std::fs::write(&path, vec![0; 50_000]).unwrap();
    let store = reopen(dir.path()).await;
    assert!(store.open_blob(&digest).await.unwrap().is_none());
    store.put(&digest, bytes.clone()).await.unwrap();
    assert_eq!(
        all(&store.open_blob(&digest).await.unwrap().unwrap()).await,
        bytes
    );
}

/// Opens a store whose last owner was dropped a moment ago: its threads let go of the lock when they end.
async fn reopen(path: &std::path::Path) -> Store {
    for _ in 0..500 {
        let config = Config {
            path: path.to_owned(),
            max_size: 1 << 30,
            min_free: 0,
        };
        match Store::open(config, &Tasks::new(), Arc::new(Metrics::new())).await {
            Ok(store) => return store,
            Err(OpenError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the lock was never let go")
}

#[tokio::test]
async fn a_lost_or_damaged_index_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (digest, bytes) = content(9, 40_000);
    {
        let store = open(dir.path()).await;
        store.put(&digest, bytes.clone()).await.unwrap();
        store.close().await;
    }
    let index = dir.path().join("index.sqlite");
    let length = usize::try_from(std::fs::metadata(&index).unwrap().len()).unwrap();
    for damage in [
        "gone",
        "empty",
        "noise at the start",
        "noise in the middle",
        "newer",
    ] {
        drop(std::fs::remove_file(dir.path().join("clean")));
        match damage {
            "gone" => std::fs::remove_file(&index).unwrap(),
            "empty" => std::fs::write(&index, b"").unwrap(),
            "noise at the start" => std::fs::write(&index, vec![7; length]).unwrap(),
            "noise in the middle" => {
                let mut bytes = std::io::Read::bytes(std::fs::File::open(&index).unwrap())
                    .collect::<Result<Vec<u8>, _>>()
                    .unwrap();
                let middle = bytes.len() / 2;
                bytes[middle / 2..middle].fill(0x5a);
                std::fs::write(&index, bytes).unwrap();
            }
            _ => {
                let connection = rusqlite::Connection::open(&index).unwrap();
                connection.pragma_update(None, "user_version", 99).unwrap();
            }
        }
        let store = reopen(dir.path()).await;
        let blob = store
            .open_blob(&digest)
            .await
            .unwrap()
            .unwrap_or_else(|| panic!("{damage}: lost"));
        assert_eq!(all(&blob).await, bytes, "{damage}");
        assert_eq!(store.usage().cached_bytes, 40_000, "{damage}");
        store.close().await;
    }
}

#[tokio::test]
async fn one_process_owns_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path()).await;
    let config = Config {
        path: dir.path().to_owned(),
        max_size: 1,
        min_free: 0,
    };
    let error = Store::open(config, &Tasks::new(), Arc::new(Metrics::new()))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, OpenError::Locked { owner, .. } if *owner == std::process::id().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn another_layout_is_refused_and_junk_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("blobs/sha256/aa")).unwrap();
    std::fs::create_dir_all(dir.path().join("staging")).unwrap();
    std::fs::write(dir.path().join("blobs/sha256/aa/junk"), "x").unwrap();
    std::fs::write(dir.path().join("staging/junk"), "x").unwrap();
    std::os::unix::fs::symlink(
        "/etc/passwd",
        dir.path()
            .join(format!("blobs/sha256/aa/aa{}", "0".repeat(62))),
    )
    .unwrap();
    let store = open(dir.path()).await;
    let planted = Digest::parse(&format!("sha256:aa{}", "0".repeat(62))).unwrap();
    assert!(
        store.open_blob(&planted).await.is_err(),
        "a planted link is not followed"
    );
    store.close().await;
    drop(store);
    std::fs::write(dir.path().join("version"), "roadstead-store 2\n").unwrap();
    let config = Config {
        path: dir.path().to_owned(),
        max_size: 1,
        min_free: 0,
    };
    let error = Store::open(config, &Tasks::new(), Arc::new(Metrics::new()))
        .await
        .unwrap_err();
    assert!(
        matches!(error, OpenError::Version { .. } | OpenError::Locked { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_full_disk_is_full_and_not_an_error() {
    // A file system of its own with 3 MiB; needs root, as the whole test run does.
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "roadstead-test"])
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(mounted.success(), "mounting a small tmpfs needs root");
    let (digest, bytes) = content(1, 4_000_000);
    let store = open(dir.path()).await;
    let mut staged = store.stage(&digest, None).await.unwrap();
    assert!(matches!(
        staged.expect(4_000_000).await,
        Err(super::StageError::Full)
    ));
    staged.discard().await;
    let mut staged = store.stage(&digest, None).await.unwrap();
    let mut full = false;
    for chunk in bytes.chunks(100_000) {
        if matches!(
            staged.append(Bytes::copy_from_slice(chunk)).await,
            Err(super::StageError::Full)
        ) {
            full = true;
            break;
        }
    }
    assert!(full);
    staged.discard().await;
    assert_eq!(files_below(&dir.path().join("staging")), 0);
    assert_eq!(store.usage().reserved_bytes, 0);
    store.close().await;
    drop(store);
    assert!(
        std::process::Command::new("umount")
            .arg("-l")
            .arg(dir.path())
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn a_tag_keeps_its_history() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (name, tag) = (
        Name::parse("library/nginx").unwrap(),
        Tag::parse("1").unwrap(),
    );
    let (a, b) = (content(1, 1).0, content(2, 1).0);
    for digest in [&a, &a, &b, &a] {
        let now = clock::now();
        let row = TagRow {
            observed: digest.clone(),
            served: digest.clone(),
            media_type: "x/y".into(),
            size: 1,
            etag: None,
            checked: now,
            moved: now,
            gone: None,
        };
        store
            .index()
            .put_tag("hub", &name, &tag, row.clone(), "upstream")
            .await
            .unwrap();
        assert_eq!(
            store.index().tag("hub", &name, &tag).await.unwrap(),
            Some(row)
        );
    }
    let history = store.index().history("hub", &name, &tag).await.unwrap();
    assert_eq!(
        history.iter().map(|row| &row.digest).collect::<Vec<_>>(),
        [&a, &b, &a]
    );
    assert_eq!(store.index().known_tags("hub", &name).await.unwrap(), ["1"]);
    store.index().forget_tag("hub", &name, &tag).await.unwrap();
    assert_eq!(store.index().tag("hub", &name, &tag).await.unwrap(), None);
    assert_eq!(
        store
            .index()
            .history("hub", &name, &tag)
            .await
            .unwrap()
            .len(),
        3
    );
    assert!(!store.index().is_linked("hub", &name, &a).await.unwrap());
    store.index().link("hub", &name, &a).await.unwrap();
    assert!(store.index().is_linked("hub", &name, &a).await.unwrap());
    assert!(!store.index().is_linked("other", &name, &a).await.unwrap());
}

proptest::proptest! {
    #[test]
    fn the_choice_frees_enough_and_no_more(sizes in proptest::collection::vec(0u64..1000, 0..40), bytes in 0u64..5000) {
        let candidates: Vec<_> = sizes.iter().enumerate().map(|(i, size)| (Digest::of(&i.to_le_bytes()), *size)).collect();
        let chosen = choose(&candidates, bytes);
        let freed: u64 = chosen.iter().map(|(_, size)| size).sum();
        proptest::prop_assert_eq!(&candidates[..chosen.len()], &chosen[..]);
        proptest::prop_assert!(freed >= bytes || chosen.len() == candidates.len());
        let without_last: u64 = chosen.iter().rev().skip(1).map(|(_, size)| size).sum();
        proptest::prop_assert!(chosen.is_empty() || without_last < bytes);
    }
}
