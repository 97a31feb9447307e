//! On a real small file system, because what a full disk does to SQLite and to preallocated files is not to be guessed.

use std::process::Command;

use super::*;

/// A tmpfs that is unmounted when dropped.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn new(bytes: u64) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "the tests of a full disk mount a small tmpfs and must run as root"
        );
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "cannot mount a tmpfs");
        Self { dir }
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.dir.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(self.dir.path())
            .status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[tokio::test]
async fn a_blob_larger_than_the_disk_is_refused_and_leaves_nothing() {
    let disk = SmallDisk::new(8 * MIB);
    let harness = Harness::sized(disk.dir.path(), 1 << 40).await;
    let small = harness.fill(&noise(1, 100_000)).await;
    let before = disk.free();
    let big = Digest::of(b"big");
    let refused = harness.store.stage(&big, Some(32 * MIB)).await;
    assert!(matches!(refused, Err(StageError::Full)), "{refused:?}");
    assert!(harness.has(&small).await, "nothing is let go in vain");

    // Of unknown length it is refused on the way.
    let mut staged = harness.store.stage(&big, None).await.unwrap();
    let chunk = Bytes::from(noise(2, 256 * 1024));
    let mut refused = None;
    for _chunk in 0..64 {
        if let Err(error) = staged.append(chunk.clone()).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(StageError::Full)), "{refused:?}");
    drop(staged);
    eventually("given back", || disk.free() + 512 * 1024 >= before).await;
    eventually("ended", || harness.store.usage().reserved_bytes == 0).await;
    harness.assert_books();
    assert!(files(&harness.root.join("staging")).is_empty());
}

#[tokio::test]
async fn cached_blobs_make_room_when_the_disk_is_smaller_than_the_limit() {
    let disk = SmallDisk::new(8 * MIB);
    let harness = Harness::sized(disk.dir.path(), 1 << 40).await;
    for seed in 0..20 {
        harness.fill(&noise(seed, 1_000_000)).await;
        harness.assert_books();
    }
    assert!(harness.has(&Digest::of(&noise(19, 1_000_000))).await);
    assert!(harness.store.usage().blobs >= 3);
}

#[tokio::test]
async fn min_free_stays_free() {
    let disk = SmallDisk::new(8 * MIB);
    let tasks = Tasks::new();
    let config = Config {
        path: disk.dir.path().to_owned(),
        max_size: 1 << 40,
        min_free: 4 * MIB,
    };
    let store = Store::open(config, &tasks).await.unwrap();
    for seed in 0..20 {
        let content = noise(seed, 500_000);
        let mut staged = store
            .stage(&Digest::of(&content), Some(500_000))
            .await
            .unwrap();
        staged.append(content.into()).await.unwrap();
        staged.commit().await.unwrap();
        // The index grows a little beside the blobs.
        assert!(disk.free() + 256 * 1024 >= 4 * MIB, "{}", disk.free());
    }
    let refused = store.stage(&Digest::of(b"x"), Some(5 * MIB)).await;
    assert!(matches!(refused, Err(StageError::Full)));
}

#[tokio::test]
async fn a_disk_that_others_fill_refuses_without_leaking_and_recovers_when_there_is_room() {
    let disk = SmallDisk::new(8 * MIB);
    let harness = Harness::sized(disk.dir.path(), 1 << 40).await;
    let kept = harness.fill(&noise(1, 50_000)).await;
    harness.store.durable_barrier().await.unwrap();
    let ballast = disk.dir.path().join("ballast");
    let mut stuffing = vec![0; usize::try_from(disk.free()).unwrap()];
    while fs::write(&ballast, &stuffing).is_err() {
        stuffing.truncate(stuffing.len().saturating_sub(4096));
    }
    assert!(disk.free() < 64 * 1024, "{}", disk.free());

    for seed in 10..30 {
        let content = noise(seed, 200_000);
        let staged = harness
            .store
            .stage(&Digest::of(&content), Some(200_000))
            .await;
        assert!(matches!(staged, Err(StageError::Full)), "{staged:?}");
        let put = harness
            .store
            .put(&Digest::of(&content), content.into())
            .await;
        assert!(matches!(put, Err(StoreError::Full)), "{put:?}");
    }
    assert_eq!(harness.content(&kept).await.unwrap(), noise(1, 50_000));
    harness.assert_books();

    // It can even be closed and opened on the full disk.
    let root = harness.root.clone();
    harness.close().await;
    let harness = Harness::sized(&root, 1 << 40).await;
    assert!(harness.has(&kept).await);

    fs::remove_file(ballast).unwrap();
    harness.fill(&noise(10, 200_000)).await;
    eventually("settled", || harness.store.usage().settled).await;
    harness.assert_books();
}

#[tokio::test]
async fn what_was_preallocated_for_a_part_is_given_back() {
    let disk = SmallDisk::new(8 * MIB);
    let harness = Harness::sized(disk.dir.path(), 1 << 40).await;
    let before = disk.free();
    let digest = Digest::of(b"x");
    let mut staged = harness.store.stage(&digest, Some(5 * MIB)).await.unwrap();
    assert!(disk.free() + 5 * MIB <= before, "reserved on the disk");
    staged.append(noise(1, 10_000).into()).await.unwrap();
    staged.keep().await;
    assert!(
        disk.free() + 64 * 1024 >= before,
        "{} of {before}",
        disk.free()
    );
    harness.assert_books();
}
