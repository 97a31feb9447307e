use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

#[tokio::test]
async fn what_is_committed_can_be_read_and_lies_under_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    for (seed, length) in [(1, 0), (2, 1), (3, 65_536), (4, 700_001)] {
        let content = noise(seed, length);
        let digest = harness.fill(&content).await;
        assert_eq!(harness.content(&digest).await.unwrap(), content);
        assert_eq!(fs::read(harness.blob_path(&digest)).unwrap(), content);
        let blob = harness.store.open_blob(&digest).await.unwrap().unwrap();
        assert_eq!(blob.size(), length as u64);
        assert!(blob.read_at(length as u64, 10).await.unwrap().is_empty());
        assert!(blob.read_at(u64::MAX, 10).await.unwrap().is_empty());
    }
    harness.assert_books();
}

#[tokio::test]
async fn sha512_is_staged_like_sha256() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let content = noise(9, 1000);
    let digest = Digest::of_with(Algorithm::Sha512, &content);
    let mut staged = harness.store.stage(&digest, None).await.unwrap();
    staged.append(content.clone().into()).await.unwrap();
    staged.commit().await.unwrap();
    assert_eq!(harness.content(&digest).await.unwrap(), content);
    harness.assert_books();
}

#[tokio::test]
async fn wrong_bytes_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let content = noise(1, 300_000);
    for position in [0, 150_000, 299_999] {
        let digest = Digest::of(&content);
        let mut wrong = content.clone();
        wrong[position] ^= 1;
        let found = Digest::of(&wrong);
        let mut staged = harness.store.stage(&digest, Some(300_000)).await.unwrap();
        staged.append(wrong.into()).await.unwrap();
        match staged.commit().await {
            Err(CommitError::Mismatch { found: told }) => assert_eq!(told, found),
            other => panic!("{other:?}"),
        }
        assert!(!harness.has(&digest).await);
        assert!(files(&harness.root.join("staging")).is_empty());
        harness.assert_books();
    }
}

#[tokio::test]
async fn a_wrong_length_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let content = noise(1, 1000);
    let digest = Digest::of(&content);

    // Too short, although the bytes hash to the digest.
    let mut staged = harness.store.stage(&digest, Some(1001)).await.unwrap();
    staged.append(content.clone().into()).await.unwrap();
    assert!(matches!(
        staged.commit().await,
        Err(CommitError::Length {
            expected: 1001,
            found: 1000
        })
    ));

    // Too long shows at once, and the surplus is not taken in.
    let mut staged = harness.store.stage(&digest, Some(999)).await.unwrap();
    assert!(matches!(
        staged.append(content.into()).await,
        Err(StageError::TooLong)
    ));
    assert_eq!(staged.held(), 0);
    staged.discard().await;
    harness.assert_books();
    assert_eq!(harness.store.usage().blobs, 0);
}

#[tokio::test]
async fn a_part_that_shrank_under_the_writer_is_no_blob() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let content = noise(1, 1000);
    let digest = Digest::of(&content);
    let mut staged = harness.store.stage(&digest, Some(1000)).await.unwrap();
    staged.append(content.into()).await.unwrap();
    staged.prefix_digest().await.unwrap();
    let (part, _) = files(&harness.root.join("staging")).remove(0);
    let part = fs::File::options().write(true).open(part).unwrap();
    part.set_len(500).unwrap();
    assert!(matches!(
        staged.commit().await,
        Err(CommitError::Length { found: 500, .. })
    ));
    harness.assert_books();
}

#[tokio::test]
async fn followers_read_what_is_written_and_keep_reading_after_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let content = noise(5, 400_000);
    let digest = Digest::of(&content);
    let mut staged = harness.store.stage(&digest, Some(400_000)).await.unwrap();
    let part = staged.part();
    assert!(part.read_at(0, 10).await.unwrap().is_empty());
    let mut written = part.written();
    staged
        .append(Bytes::copy_from_slice(&content[..250_000]))
        .await
        .unwrap();
    written
        .wait_for(|written| *written == 250_000)
        .await
        .unwrap();
    assert_eq!(
        part.read_at(200_000, 1_000_000).await.unwrap(),
        content[200_000..250_000]
    );
    assert!(part.read_at(250_000, 1).await.unwrap().is_empty());
    assert_eq!(
        staged.prefix_digest().await.unwrap(),
        Digest::of(&content[..250_000])
    );
    staged
        .append(Bytes::copy_from_slice(&content[250_000..]))
        .await
        .unwrap();
    assert_eq!(staged.held(), 400_000);
    staged.commit().await.unwrap();
    assert!(
        written
            .wait_for(|written| *written > 400_000)
            .await
            .is_err()
    );
    assert_eq!(
        part.read_at(390_000, 20_000).await.unwrap(),
        content[390_000..]
    );
}

#[tokio::test]
async fn a_kept_part_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let content = noise(5, 500_000);
    let digest = Digest::of(&content);
    let mut staged = harness.store.stage(&digest, Some(500_000)).await.unwrap();
    staged
        .append(Bytes::copy_from_slice(&content[..200_000]))
        .await
        .unwrap();
    staged.keep().await;
    harness.assert_books();
    assert_eq!(harness.store.usage().part_bytes, 200_000);

    let mut staged = harness.store.stage(&digest, None).await.unwrap();
    assert_eq!(staged.held(), 200_000);
    assert_eq!(
        staged.part().read_at(100, 50).await.unwrap(),
        content[100..150]
    );
    staged.expect(500_000).await.unwrap();
    assert_eq!(harness.store.usage().reserved_bytes, 500_000);
    staged
        .append(Bytes::copy_from_slice(&content[200_000..]))
        .await
        .unwrap();
    staged.commit().await.unwrap();
    assert_eq!(harness.content(&digest).await.unwrap(), content);
    harness.assert_books();
}

#[tokio::test]
async fn a_part_with_a_flipped_byte_never_becomes_a_blob() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let content = noise(5, 500_000);
    let digest = Digest::of(&content);
    let mut staged = harness.store.stage(&digest, Some(500_000)).await.unwrap();
    staged
        .append(Bytes::copy_from_slice(&content[..200_000]))
        .await
        .unwrap();
    staged.keep().await;
    flip(&files(&harness.root.join("staging"))[0].0, 77_777);

    let mut staged = harness.store.stage(&digest, Some(500_000)).await.unwrap();
    assert_eq!(staged.held(), 200_000);
    staged
        .append(Bytes::copy_from_slice(&content[200_000..]))
        .await
        .unwrap();
    assert!(matches!(
        staged.commit().await,
        Err(CommitError::Mismatch { .. })
    ));
    // The next attempt begins from nothing.
    harness.fill(&content).await;
    harness.assert_books();
}

#[tokio::test]
async fn a_part_longer_than_the_whole_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let digest = Digest::of(b"short");
    let mut staged = harness.store.stage(&digest, None).await.unwrap();
    staged.append(noise(1, 100).into()).await.unwrap();
    staged.keep().await;
    let mut staged = harness.store.stage(&digest, Some(5)).await.unwrap();
    assert_eq!(staged.held(), 0);
    staged.append(Bytes::from_static(b"short")).await.unwrap();
    staged.commit().await.unwrap();
    harness.assert_books();
}

#[tokio::test]
async fn a_fill_that_is_dropped_leaves_its_part() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let digest = Digest::of(b"whatever");
    let mut staged = harness.store.stage(&digest, Some(8)).await.unwrap();
    staged.append(Bytes::from_static(b"what")).await.unwrap();
    drop(staged);
    eventually("kept", || harness.store.usage().part_bytes == 4).await;
    harness.assert_books();
    let staged = harness.store.stage(&digest, Some(8)).await.unwrap();
    assert_eq!(staged.held(), 4);
    staged.discard().await;
    harness.assert_books();
    assert_eq!(harness.store.usage().part_bytes, 0);
}

#[tokio::test]
async fn a_commit_is_carried_through_when_its_caller_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let content = noise(8, 3_000_000);
    let digest = Digest::of(&content);
    let mut staged = harness.store.stage(&digest, None).await.unwrap();
    staged.append(content.clone().into()).await.unwrap();
    // Polled once, which sends the order, and dropped.
    let commit = staged.commit();
    tokio::select! {
        biased;
        _ = commit => {}
        () = std::future::ready(()) => {}
    }
    eventually("committed", || harness.store.usage().blobs == 1).await;
    eventually("ended", || harness.store.usage().reserved_bytes == 0).await;
    assert_eq!(harness.content(&digest).await.unwrap(), content);
    harness.assert_books();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_fills_of_one_digest_end_in_one_blob() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let content = noise(3, 200_000);
    let digest = Digest::of(&content);
    let fills = (0..12).map(|number| {
        let (store, digest, content) = (harness.store.clone(), digest.clone(), content.clone());
        async move {
            let mut staged = store.stage(&digest, Some(200_000)).await.unwrap();
            for chunk in content[usize::try_from(staged.held()).unwrap()..].chunks(10_000) {
                staged.append(Bytes::copy_from_slice(chunk)).await.unwrap();
                tokio::task::yield_now().await;
            }
            match number % 4 {
                0 => staged.discard().await,
                1 => staged.keep().await,
                _ => drop(staged.commit().await.unwrap()),
            }
        }
    });
    futures_util::future::join_all(fills).await;
    assert_eq!(harness.store.usage().blobs, 1);
    assert_eq!(harness.content(&digest).await.unwrap(), content);
    harness.assert_books();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fills_of_many_digests_run_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let fills = (0..40_u64).map(|seed| {
        let harness = &harness;
        async move {
            harness
                .fill(&noise(seed, 20_000 + usize::try_from(seed).unwrap()))
                .await
        }
    });
    let digests: HashSet<Digest> = futures_util::future::join_all(fills)
        .await
        .into_iter()
        .collect();
    assert_eq!(digests.len(), 40);
    for digest in &digests {
        assert_eq!(Digest::of(&harness.content(digest).await.unwrap()), *digest);
    }
    harness.assert_books();
}

#[tokio::test]
async fn put_verifies_and_is_idempotent() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let digest = Digest::of(b"manifest");
    let wrong = harness
        .store
        .put(&digest, Bytes::from_static(b"other"))
        .await;
    assert!(matches!(wrong, Err(StoreError::Mismatch { .. })));
    for _again in 0..3 {
        let blob = harness
            .store
            .put(&digest, Bytes::from_static(b"manifest"))
            .await
            .unwrap();
        assert_eq!(blob.read_whole(8).await.unwrap(), "manifest");
        assert!(blob.read_whole(7).await.is_err());
    }
    harness.assert_books();
    assert_eq!(harness.store.usage().blobs, 1);
}

#[tokio::test]
async fn verified_bytes_that_cannot_be_entered_are_readable_and_not_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let content = noise(1, 100_000);
    let digest = Digest::of(&content);
    let mut staged = harness.store.stage(&digest, None).await.unwrap();
    staged.append(content.clone().into()).await.unwrap();
    let index = harness.store.index().clone();
    spawn_blocking(move || index.close()).await.unwrap();
    match staged.commit().await {
        Err(CommitError::NotKept { blob, .. }) => {
            assert_eq!(blob.read_whole(usize::MAX).await.unwrap(), content);
        }
        other => panic!("{other:?}"),
    }
    assert!(files(dir.path().join("blobs").as_path()).is_empty());
    assert!(files(dir.path().join("staging").as_path()).is_empty());
    let usage = harness.store.usage();
    assert_eq!((usage.cached_bytes, usage.reserved_bytes), (0, 0));
}

/// What is asked for all the time must be answered though every blocking thread is stuck on a slow disk.
#[test]
fn a_hit_needs_no_other_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let harness = Harness::open(dir.path()).await;
        let content = noise(1, 1_000_000);
        let digest = harness.fill(&content).await;
        let name = Name::parse("app").unwrap();
        let index = harness.store.index();
        index.link("hub", &name, &digest).await.unwrap();
        harness.settled().await;

        let (release, stuck) = std::sync::mpsc::channel::<()>();
        let disk = spawn_blocking(move || stuck.recv());
        let hit = async {
            assert!(index.is_linked("hub", &name, &digest).await.unwrap());
            let blob = harness.store.open_blob(&digest).await.unwrap().unwrap();
            assert_eq!(blob.read_whole(usize::MAX).await.unwrap(), content);
        };
        let answered = tokio::time::timeout(PATIENCE, hit).await;
        drop(release);
        disk.await.unwrap().unwrap_err();
        answered.expect("the hit waited for the disk");
    });
}

#[tokio::test]
async fn something_in_the_place_of_a_part_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), b"precious").unwrap();
    let harness = Harness::open(dir.path()).await;
    let (linked, folder) = (Digest::of(b"linked"), Digest::of(b"folder"));
    let place = |digest: &Digest| dir.path().join("staging").join(layout::part_name(digest));
    std::os::unix::fs::symlink(outside.path(), place(&linked)).unwrap();
    fs::create_dir(place(&folder)).unwrap();
    harness.fill(b"linked").await;
    harness.fill(b"folder").await;
    assert_eq!(fs::read(outside.path()).unwrap(), b"precious");
    harness.assert_books();
}

pub(super) fn flip(path: &Path, position: usize) {
    let mut content = fs::read(path).unwrap();
    content[position] ^= 0x10;
    fs::write(path, content).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However the bytes are cut, interrupted and resumed: the blob is the bytes, and the books are the disk.
    #[test]
    fn any_way_of_cutting_a_fill_gives_the_same_blob(
        length in 0_usize..200_000,
        cuts in proptest::collection::vec((1_usize..60_000, 0_u8..6), 0..12),
        known in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let harness = Harness::open(dir.path()).await;
            let content = noise(length as u64, length);
            let digest = Digest::of(&content);
            let expected = known.then_some(length as u64);
            let mut staged = harness.store.stage(&digest, expected).await.unwrap();
            for (size, end) in cuts {
                let from = usize::try_from(staged.held()).unwrap();
                let to = (from + size).min(length);
                staged.append(Bytes::copy_from_slice(&content[from..to])).await.unwrap();
                match end {
                    0 => staged.keep().await,
                    1 => staged.discard().await,
                    _ => continue,
                }
                harness.assert_books();
                staged = harness.store.stage(&digest, expected).await.unwrap();
                let held = staged.held();
                assert_eq!(held, if end == 0 { to as u64 } else { 0 });
            }
            let from = usize::try_from(staged.held()).unwrap();
            staged.append(Bytes::copy_from_slice(&content[from..])).await.unwrap();
            staged.commit().await.unwrap();
            assert_eq!(harness.content(&digest).await.unwrap(), content);
            harness.assert_books();
        });
    }
}
