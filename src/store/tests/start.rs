use super::*;

#[tokio::test]
async fn a_second_opener_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    match Harness::try_sized(dir.path(), MIB).await {
        Err(OpenError::Locked { pid, path }) => {
            assert_eq!(pid, std::process::id().to_string());
            assert_eq!(path, dir.path().canonicalize().unwrap());
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened twice"),
    }
    // The failed attempt has changed nothing for the first.
    harness.fill(b"still mine").await;
    harness.close().await;
    Harness::open(dir.path()).await.close().await;
}

#[tokio::test]
async fn a_store_that_is_dropped_lets_go_of_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let digest = harness.fill(b"kept").await;
    let harness = harness.dropped_and_opened(64 * MIB).await;
    assert!(harness.has(&digest).await);
    harness.settled().await;
}

#[tokio::test]
async fn a_newer_layout_is_refused_and_an_unreadable_version_is_not() {
    let dir = tempfile::tempdir().unwrap();
    Harness::open(dir.path()).await.close().await;
    let version = dir.path().join("version");
    assert_eq!(fs::read_to_string(&version).unwrap(), "roadstead-store 1\n");
    fs::write(&version, "roadstead-store 2\n").unwrap();
    assert!(matches!(
        Harness::try_sized(dir.path(), MIB).await,
        Err(OpenError::Newer { found: 2, .. })
    ));
    for garbage in [&b""[..], b"\xff\xfe\0", b"roadstead-store x", b"roadstead"] {
        fs::write(&version, garbage).unwrap();
        Harness::open(dir.path()).await.close().await;
        assert_eq!(fs::read_to_string(&version).unwrap(), "roadstead-store 1\n");
    }
}

#[tokio::test]
async fn a_clean_stop_is_taken_at_its_word_once() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let digest = harness.fill(b"kept").await;
    harness.settled().await;
    harness.close().await;
    assert!(dir.path().join("clean").is_file());
    // Not scanned: a file that came in between is not seen until it is asked for.
    let planted = Digest::of(b"planted");
    fs::create_dir_all(blob_path(dir.path(), &planted).parent().unwrap()).unwrap();
    fs::write(blob_path(dir.path(), &planted), b"planted").unwrap();
    let harness = Harness::open(dir.path()).await;
    assert!(!dir.path().join("clean").exists());
    assert!(harness.store.usage().settled);
    assert_eq!(harness.store.usage().blobs, 1);
    assert!(harness.has(&digest).await);
    assert!(harness.has(&planted).await);
    harness.assert_books();
    harness.close().await;
}

#[tokio::test]
async fn junk_is_left_alone_and_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let digest = harness.fill(b"kept").await;
    harness.close().await;

    let root = dir.path();
    let secret = Digest::of(b"outside");
    let (prefix, other) = (shard_of(&secret), Digest::of(b"linked"));
    fs::write(outside.path().join(secret.hex()), b"outside").unwrap();
    fs::write(outside.path().join("precious.part"), b"precious").unwrap();
    // A shard that leads elsewhere, a blob that does, and a part that does.
    std::os::unix::fs::symlink(outside.path(), root.join("blobs/sha256").join(prefix)).unwrap();
    fs::create_dir_all(blob_path(root, &other).parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(outside.path().join(secret.hex()), blob_path(root, &other)).unwrap();
    std::os::unix::fs::symlink(
        outside.path().join("precious.part"),
        root.join("staging/link.part"),
    )
    .unwrap();
    for junk in [
        "junk",
        "blobs/junk",
        "blobs/sha256/junk",
        "staging/junk",
        "quarantine/sub",
    ] {
        fs::create_dir(root.join(junk)).unwrap();
    }
    let shard = blob_path(root, &digest).parent().unwrap().to_owned();
    fs::write(shard.join("README"), b"").unwrap();
    fs::write(shard.join(digest.hex().split_at(10).0), b"").unwrap();
    fs::create_dir(shard.join(format!("{}{}", shard_of(&digest), "0".repeat(62)))).unwrap();
    fs::remove_file(root.join("clean")).unwrap();

    let harness = Harness::open(root).await;
    eventually("settled", || harness.store.usage().settled).await;
    assert!(harness.has(&digest).await);
    assert!(!harness.has(&secret).await);
    assert!(!harness.has(&other).await);
    assert_eq!(harness.store.usage().blobs, 1);
    // A fill under the link fails instead of writing outside.
    let mut staged = harness.store.stage(&secret, Some(7)).await.unwrap();
    staged.append(Bytes::from_static(b"outside")).await.unwrap();
    match staged.commit().await {
        Err(CommitError::NotKept { blob, .. }) => {
            assert_eq!(blob.read_whole(100).await.unwrap(), "outside");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
    assert_eq!(
        fs::read(outside.path().join("precious.part")).unwrap(),
        b"precious"
    );
    assert_eq!(harness.store.usage().reserved_bytes, 0);
    harness.close().await;
}

#[tokio::test]
async fn old_and_nameless_parts_go_at_the_start_and_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    Harness::open(dir.path()).await.close().await;
    let staging = dir.path().join("staging");
    let (young, old) = (Digest::of(b"young one"), Digest::of(b"old"));
    fs::write(staging.join(layout::part_name(&young)), b"young").unwrap();
    fs::write(staging.join(layout::part_name(&old)), b"ol").unwrap();
    fs::write(staging.join("sha256-0123.part"), b"x").unwrap();
    fs::write(staging.join(format!("sha256-{}-7.part", old.hex())), b"x").unwrap();
    let yesterday = std::time::UNIX_EPOCH
        + Duration::from_millis(u64::try_from(crate::clock::now().as_ms()).unwrap())
        - Duration::from_secs(25 * 60 * 60);
    fs::File::open(staging.join(layout::part_name(&old)))
        .unwrap()
        .set_modified(yesterday)
        .unwrap();

    let harness = Harness::open(dir.path()).await;
    harness.assert_books();
    assert_eq!(harness.store.usage().part_bytes, 5);
    let staged = harness.store.stage(&young, Some(9)).await.unwrap();
    assert_eq!(staged.held(), 5);
    let mut staged = staged;
    staged.append(Bytes::from_static(b" one")).await.unwrap();
    staged.commit().await.unwrap();
    harness.assert_books();
}

#[tokio::test]
async fn closing_waits_for_the_fills_that_were_left() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    harness.settled().await;
    let digest = Digest::of(b"half of it");
    let mut staged = harness.store.stage(&digest, Some(10)).await.unwrap();
    staged.append(Bytes::from_static(b"half")).await.unwrap();
    drop(staged);
    harness.close().await;
    assert!(dir.path().join("clean").is_file());
    let harness = Harness::open(dir.path()).await;
    assert_eq!(harness.store.usage().part_bytes, 4);
    harness.assert_books();
}
