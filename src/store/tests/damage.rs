use super::staging::flip;
use super::*;

#[tokio::test]
async fn a_durable_blob_of_another_length_is_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let content = noise(1, 100_000);
    let digest = harness.fill(&content).await;
    harness.settled().await;
    harness.close().await;
    for length in [99_999, 0, 100_001] {
        let file = fs::File::options()
            .write(true)
            .open(blob_path(dir.path(), &digest))
            .unwrap();
        file.set_len(length).unwrap();
        let harness = Harness::open(dir.path()).await;
        assert!(!harness.has(&digest).await, "{length}");
        assert_eq!(harness.store.usage().blobs, 0);
        harness.assert_books();
        assert_eq!(harness.fill(&content).await, digest);
        assert_eq!(harness.content(&digest).await.unwrap(), content);
        harness.assert_books();
        harness.close().await;
    }
}

#[tokio::test]
async fn a_blob_that_shrinks_while_it_is_open_is_an_error_and_then_gone() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let digest = harness.fill(&noise(1, 100_000)).await;
    let blob = harness.store.open_blob(&digest).await.unwrap().unwrap();
    fs::File::options()
        .write(true)
        .open(harness.blob_path(&digest))
        .unwrap()
        .set_len(60_000)
        .unwrap();
    assert_eq!(blob.read_at(0, 50_000).await.unwrap().len(), 50_000);
    let error = blob.read_at(60_000, 10).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(blob.read_whole(usize::MAX).await.is_err());
    eventually("quarantined", || harness.store.usage().blobs == 0).await;
    assert!(!harness.has(&digest).await);
    eventually("counted", || {
        harness.store.usage().quarantined_bytes == 60_000
    })
    .await;
    harness.assert_books();
}

#[tokio::test]
async fn an_open_blob_is_compared_with_its_record_at_every_open() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let digest = harness.fill(&noise(1, 1000)).await;
    assert!(harness.has(&digest).await);
    fs::File::options()
        .write(true)
        .open(harness.blob_path(&digest))
        .unwrap()
        .set_len(999)
        .unwrap();
    assert!(!harness.has(&digest).await);
    harness.assert_books();
}

#[tokio::test]
async fn a_blob_whose_file_was_removed_is_absent_though_it_was_open() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let digest = harness.fill(&noise(1, 1000)).await;
    fs::remove_file(harness.blob_path(&digest)).unwrap();
    assert!(!harness.has(&digest).await);
    assert_eq!(harness.store.usage().blobs, 0);
    harness.assert_books();
}

#[tokio::test]
async fn what_is_quarantined_is_kept_for_a_look_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    for seed in 0..12 {
        let digest = harness.fill(&noise(seed, 1000)).await;
        assert!(harness.store.quarantine(&digest, "a test").await.unwrap());
        assert!(!harness.store.quarantine(&digest, "a test").await.unwrap());
        assert!(!harness.has(&digest).await);
        harness.assert_books();
    }
    assert_eq!(harness.store.usage().quarantined_bytes, 8000);
    harness.close().await;
    let harness = Harness::open(dir.path()).await;
    assert_eq!(harness.store.usage().quarantined_bytes, 8000);
    harness.assert_books();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_suspect_blob_is_hashed_once_however_many_ask() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let (good, bad) = (
        harness.fill(&noise(1, 1_000_000)).await,
        harness.fill(&noise(2, 1_000_000)).await,
    );
    let (_copy, killed) = harness
        .after_kill_and(|root| flip(&blob_path(root, &bad), 500_000))
        .await;
    let asks = (0..64).map(|number| {
        let digest = if number % 2 == 0 { &good } else { &bad };
        killed.has(digest)
    });
    let found = futures_util::future::join_all(asks).await;
    for (number, found) in found.into_iter().enumerate() {
        assert_eq!(found, number % 2 == 0);
    }
    assert_eq!(files(&killed.root.join("quarantine")).len(), 1);
    killed.settled().await;
}

#[tokio::test]
async fn many_blobs_can_be_open_and_readers_finish_what_was_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let content = noise(1, 300_000);
    let digest = harness.fill(&content).await;
    let blob = harness.store.open_blob(&digest).await.unwrap().unwrap();
    assert!(harness.store.quarantine(&digest, "a test").await.unwrap());
    for seed in 2..10 {
        harness.fill(&noise(seed, 1000)).await;
    }
    assert_eq!(blob.read_whole(usize::MAX).await.unwrap(), content);
    assert_eq!(
        blob.read_at(299_990, 100).await.unwrap(),
        content[299_990..]
    );
}
