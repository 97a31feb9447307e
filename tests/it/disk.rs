//! The size of the cache, and a disk that is full.

use std::process::Command;

use crate::support::image;
use crate::support::{Mirror, Remote, Upstream};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn max_size_holds_while_clients_pull() {
    let upstream = Upstream::start().await;
    let blobs: Vec<_> = (0..30).map(|seed| image::blob(seed, MIB)).collect();
    blobs.iter().for_each(|blob| upstream.hold_blob(blob));
    let mirror = Mirror::with(
        &[Remote::hub(&upstream.url())],
        "[storage]\nmax_size = \"8MiB\"\nmin_free = \"1MiB\"\n",
    )
    .await;
    let client = mirror.client();
    for round in blobs.chunks(3) {
        let pulls = round.iter().map(|blob| client.blob("a/b", &blob.digest));
        for (answer, blob) in futures_util::future::join_all(pulls)
            .await
            .into_iter()
            .zip(round)
        {
            assert!(answer.is(&blob.bytes));
        }
        // The first blob is used all the time, so it stays.
        assert!(
            client
                .blob("a/b", &blobs[0].digest)
                .await
                .is(&blobs[0].bytes)
        );
        let on_disk: u64 = mirror
            .files("blobs")
            .iter()
            .chain(&mirror.files("staging"))
            .map(|file| file.metadata().map_or(0, |metadata| metadata.len()))
            .sum();
        assert!(on_disk <= 8 * MIB as u64, "{on_disk}");
    }
    assert_eq!(upstream.count("GET", &blobs[0].digest), 1);
    assert!(mirror.metric("roadstead_evictions_total") > 15.0);
}

/// A file system of its own; needs root, as the whole test run does.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    pub fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size}"),
                "roadstead-test",
            ])
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "mounting a small tmpfs needs root");
        Self(dir)
    }
}

/// Writes until there is no room.
pub fn fill_up(path: &std::path::Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[tokio::test]
async fn a_full_disk_passes_pulls_through_and_leaves_nothing_behind() {
    let upstream = Upstream::start().await;
    let blob = image::blob(1, 8 * MIB);
    upstream.hold_blob(&blob);
    let disk = SmallDisk::new("4m");
    let more = "[storage]\nmin_free = \"64KiB\"\n";
    let mirror = Mirror::in_directory(
        tempfile::tempdir().unwrap(),
        disk.0.path().join("data"),
        &[Remote::hub(&upstream.url())],
        more,
    )
    .await;
    let client = mirror.client();
    for _ in 0..2 {
        let answer = client.blob("a/b", &blob.digest).await;
        assert!(answer.is(&blob.bytes), "{} {:?}", answer.status, answer.end);
        assert_eq!(
            answer.header("cache-status"),
            Some("roadstead; fwd=uri-miss; detail=disk-full")
        );
    }
    let pulls = (0..10).map(|_| client.blob("a/b", &blob.digest));
    assert!(
        futures_util::future::join_all(pulls)
            .await
            .iter()
            .all(|answer| answer.is(&blob.bytes))
    );
    let range = client
        .range(
            &format!("/v2/a/b/blobs/{}", blob.digest),
            "bytes=5000000-5000099",
        )
        .await;
    assert_eq!(range.body, blob.bytes[5_000_000..5_000_100]);
    // A wrong byte is caught here too.
    upstream.script(
        "GET",
        "/blobs/",
        1,
        crate::support::Act {
            wrong_byte: Some(5),
            ..Default::default()
        },
    );
    assert!(client.blob("a/b", &blob.digest).await.end.is_err());
    crate::eventually!(mirror.files("staging").is_empty());
    assert!(mirror.files("blobs").is_empty());
    // What is short enough to be held back whole is an error, not a cut, and what upstream does not have is not promised.
    let filler = disk.0.path().join("filler");
    fill_up(&filler);
    let tiny = image::blob(3, 10_000);
    upstream.hold_blob(&tiny);
    let wrong = crate::support::Act {
        wrong_byte: Some(5),
        ..Default::default()
    };
    upstream.script("GET", &tiny.digest, 1, wrong);
    let answer = client.blob("a/b", &tiny.digest).await;
    assert_eq!(answer.status.as_u16(), 502);
    assert!(client.blob("a/b", &tiny.digest).await.is(&tiny.bytes));
    let absent = image::blob(4, 10_000);
    assert_eq!(
        client.blob("a/b", &absent.digest).await.status.as_u16(),
        404
    );
    assert!(mirror.files("blobs").is_empty());
    std::fs::remove_file(filler).unwrap();
    // What fits is cached all the same.
    let small = image::blob(2, 100_000);
    upstream.hold_blob(&small);
    assert!(client.blob("a/b", &small.digest).await.is(&small.bytes));
    assert!(client.blob("a/b", &small.digest).await.is(&small.bytes));
    assert_eq!(upstream.count("GET", &small.digest), 1);
}
