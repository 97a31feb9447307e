use super::*;

#[tokio::test]
async fn what_was_committed_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let contents: Vec<_> = (0..20_u64).map(|seed| noise(seed, 3000)).collect();
    for content in &contents {
        harness.fill(content).await;
    }
    let digest = Digest::of(b"a part");
    let mut staged = harness.store.stage(&digest, Some(6)).await.unwrap();
    staged.append(Bytes::from_static(b"a p")).await.unwrap();
    staged.prefix_digest().await.unwrap();

    let (_copy, killed) = harness.after_kill().await;
    for content in &contents {
        assert_eq!(killed.content(&Digest::of(content)).await.unwrap(), content);
    }
    killed.settled().await;
    let resumed = killed.store.stage(&digest, Some(6)).await.unwrap();
    assert_eq!(resumed.held(), 3);
    resumed.discard().await;
    killed.settled().await;
}

#[tokio::test]
async fn bytes_that_did_not_reach_the_disk_are_found_before_they_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let durable = harness.fill(&noise(1, 5000)).await;
    harness.store.durable_barrier().await.unwrap();
    let (good, zeroed, flipped, short) = (
        harness.fill(&noise(2, 5000)).await,
        harness.fill(&noise(3, 5000)).await,
        harness.fill(&noise(4, 5000)).await,
        harness.fill(&noise(5, 5000)).await,
    );
    // As a power cut leaves them: names and rows, but not all of the bytes.
    let (_copy, cut) = harness
        .after_kill_and(|root| {
            fs::write(blob_path(root, &zeroed), vec![0; 5000]).unwrap();
            staging::flip(&blob_path(root, &flipped), 4999);
            fs::write(blob_path(root, &short), b"").unwrap();
        })
        .await;
    for (digest, there) in [
        (&durable, true),
        (&good, true),
        (&zeroed, false),
        (&flipped, false),
        (&short, false),
    ] {
        assert_eq!(cut.has(digest).await, there, "{digest}");
        assert_eq!(cut.has(digest).await, there, "{digest} again");
    }
    cut.settled().await;
    assert_eq!(cut.store.usage().blobs, 2);
    // What was damaged heals with the next fill.
    cut.fill(&noise(3, 5000)).await;
    assert_eq!(cut.content(&zeroed).await.unwrap(), noise(3, 5000));
    cut.settled().await;
}

#[tokio::test]
async fn the_barrier_makes_rows_durable_so_that_nothing_is_hashed_again() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let digest = harness.fill(&noise(1, 5000)).await;
    let state = |harness: &Harness| harness.store.index().blob(&digest).unwrap().unwrap().state;
    assert_eq!(state(&harness), index::State::Settling);
    harness.store.durable_barrier().await.unwrap();
    assert_eq!(state(&harness), index::State::Durable);
    let (_copy, killed) = harness.after_kill().await;
    assert_eq!(state(&killed), index::State::Durable);
}

#[tokio::test]
async fn a_blob_that_comes_back_within_a_sync_is_synced_by_itself() {
    let unsettled = unsettled::Unsettled::default();
    let digest = Digest::of(b"x");
    assert!(!unsettled.was_removed(&digest));
    unsettled.removed(digest.clone());
    assert!(unsettled.was_removed(&digest));
    let round = unsettled.begin().unwrap();
    assert!(round.blobs.is_empty());
    assert!(unsettled.was_removed(&digest), "while the sync runs");
    unsettled.fail();
    assert!(unsettled.was_removed(&digest), "the sync failed");
    unsettled.begin().unwrap();
    unsettled.end();
    assert!(!unsettled.was_removed(&digest));
    assert!(unsettled.begin().is_none());
}

#[tokio::test]
async fn files_without_rows_and_rows_without_files_are_reconciled() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let lost = harness.fill(&noise(1, 100)).await;
    let kept = harness.fill(&noise(2, 100)).await;
    let (orphan, liar) = (Digest::of(b"orphan"), Digest::of(b"truth"));
    let (_copy, killed) = harness
        .after_kill_and(|root| {
            fs::remove_file(blob_path(root, &lost)).unwrap();
            for (digest, content) in [(&orphan, b"orphan"), (&liar, b"untrue")] {
                fs::create_dir_all(blob_path(root, digest).parent().unwrap()).unwrap();
                fs::write(blob_path(root, digest), content).unwrap();
            }
        })
        .await;
    killed.settled().await;
    assert_eq!(killed.store.usage().blobs, 3);
    assert!(killed.has(&kept).await);
    assert!(!killed.has(&lost).await);
    assert_eq!(killed.content(&orphan).await.unwrap(), "orphan");
    assert!(!killed.has(&liar).await);
    killed.settled().await;
    assert_eq!(killed.store.usage().quarantined_bytes, 6);
}

type Damage = Box<dyn Fn(&Path)>;

#[tokio::test]
async fn an_index_that_is_lost_garbage_or_newer_is_rebuilt_from_the_blobs() {
    let dir = in_memory();
    let harness = Harness::open(dir.path()).await;
    let contents: Vec<_> = (0..30_u64).map(|seed| noise(seed, 2000)).collect();
    for content in &contents {
        harness.fill(content).await;
    }
    harness.settled().await;
    harness.close().await;
    let clean_copy = in_memory();
    copy_tree(dir.path(), clean_copy.path());
    let index = |root: &Path| root.join("index.sqlite");
    let length = usize::try_from(fs::metadata(index(dir.path())).unwrap().len()).unwrap();

    let mut damages: Vec<(String, Damage)> = vec![
        (
            "lost".into(),
            Box::new(move |root| fs::remove_file(index(root)).unwrap()),
        ),
        (
            "empty".into(),
            Box::new(move |root| fs::write(index(root), b"").unwrap()),
        ),
        (
            "text".into(),
            Box::new(move |root| fs::write(index(root), "no database".repeat(999)).unwrap()),
        ),
        (
            "directory".into(),
            Box::new(move |root| {
                fs::remove_file(index(root)).unwrap();
                fs::create_dir(index(root)).unwrap();
            }),
        ),
        (
            "newer".into(),
            Box::new(move |root| {
                let database = rusqlite::Connection::open(index(root)).unwrap();
                database.pragma_update(None, "user_version", 4711).unwrap();
            }),
        ),
        (
            "foreign".into(),
            Box::new(move |root| {
                fs::remove_file(index(root)).unwrap();
                let database = rusqlite::Connection::open(index(root)).unwrap();
                database.execute_batch("CREATE TABLE blob (x)").unwrap();
            }),
        ),
    ];
    for offset in (0..length).step_by(length / 16) {
        damages.push((
            format!("noise at {offset}"),
            Box::new(move |root| {
                let mut content = fs::read(index(root)).unwrap();
                let end = (offset + 3000).min(content.len());
                content[offset..end].copy_from_slice(&noise(offset as u64, end - offset));
                fs::write(index(root), content).unwrap();
            }),
        ));
        damages.push((
            format!("cut at {offset}"),
            Box::new(move |root| {
                fs::File::options()
                    .write(true)
                    .open(index(root))
                    .unwrap()
                    .set_len(offset as u64)
                    .unwrap();
            }),
        ));
    }
    for (what, damage) in damages {
        let root = in_memory();
        copy_tree(clean_copy.path(), root.path());
        damage(root.path());
        let harness = Harness::open(root.path()).await;
        for content in &contents {
            let found = harness.content(&Digest::of(content)).await;
            assert_eq!(found.as_deref(), Some(content.as_slice()), "{what}");
        }
        eventually(&format!("settled after {what}"), || {
            harness.store.usage().settled
        })
        .await;
        harness.assert_books();
        harness.close().await;
        // And the rebuilt one is good.
        let harness = Harness::open(root.path()).await;
        assert_eq!(harness.store.usage().blobs, 30, "{what}");
        harness.close().await;
    }
}

#[tokio::test]
async fn a_note_of_damage_rebuilds_the_index_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let digest = harness.fill(b"kept").await;
    harness.close().await;
    fs::write(dir.path().join("index.damaged"), b"").unwrap();
    let harness = Harness::open(dir.path()).await;
    assert!(!dir.path().join("index.damaged").exists());
    assert!(harness.has(&digest).await);
    harness.settled().await;
    let asides = fs::read_dir(dir.path()).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().contains(".aside-")
    });
    assert_eq!(asides.count(), 1);
}

/// P9 and P27: ready at once with 100,000 blobs, after a clean stop and after a kill.
#[tokio::test]
async fn a_start_does_not_wait_for_a_hundred_thousand_blobs() {
    let dir = in_memory();
    Harness::open(dir.path()).await.close().await;
    let mut some = None;
    for number in 0..100_000_u64 {
        let content = number.to_le_bytes();
        let digest = Digest::of(&content);
        let path = blob_path(dir.path(), &digest);
        if fs::write(&path, content).is_err() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
        }
        some = Some((digest, content));
    }
    let (digest, content) = some.unwrap();
    fs::remove_file(dir.path().join("index.sqlite")).unwrap();

    let begun = tokio::time::Instant::now();
    let harness = Harness::open(dir.path()).await;
    assert_eq!(harness.content(&digest).await.unwrap(), content[..]);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "rebuilding: {:?}",
        begun.elapsed()
    );
    tokio::time::timeout(Duration::from_secs(120), async {
        while !harness.store.usage().settled {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("settles");
    eprintln!("settled after {:?}", begun.elapsed());
    harness.assert_books();
    harness.close().await;

    for clean in [true, false] {
        if !clean {
            fs::remove_file(dir.path().join("clean")).unwrap();
        }
        let begun = tokio::time::Instant::now();
        let harness = Harness::open(dir.path()).await;
        assert_eq!(harness.content(&digest).await.unwrap(), content[..]);
        let took = begun.elapsed();
        eprintln!("clean {clean}: {took:?}");
        assert!(took < Duration::from_secs(2), "clean {clean}: {took:?}");
        assert_eq!(harness.store.usage().blobs, 100_000);
        eventually("settled", || harness.store.usage().settled).await;
        harness.close().await;
    }
}
