//! Disks that are full, on either side, and caches that are too small: said before work where it can be known, and nothing left behind.

use std::io::Write as _;

use super::*;
use crate::disk::{SmallDisk, fill_up};
use crate::eventually;
use crate::support::image::{Flavour, Packing};

const LOCALS: &str = "[local.prod]\n";

fn big(seed: u64, size: usize) -> Image {
    image::image(
        Flavour::Oci,
        "amd64",
        &[
            image::noise_layer(Packing::Plain, seed, size / 2),
            image::noise_layer(Packing::Plain, seed + 1, size / 2),
        ],
    )
}

/// A bundle of these, by tag 1.
async fn bundle(stick: &Stick, images: &[(&str, &Image)]) -> String {
    let upstream = Upstream::start().await;
    let path = stick.at("bundle.tar");
    let mut arguments = vec!["export".to_owned(), "-o".to_owned(), path.clone()];
    for (name, image) in images {
        upstream.hold(name, "1", image);
        arguments.push(format!("{name}:1"));
    }
    let here = connected(&upstream).await;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    said(&here, &arguments);
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_does_not_fit_its_disk_is_not_begun() {
    let upstream = Upstream::start().await;
    let app = big(1, 2 * MIB);
    upstream.hold("team/app", "1", &app);
    let here = connected(&upstream).await;
    let disk = SmallDisk::new("1m");
    let at = |name: &str| disk.path().join(name).to_str().unwrap().to_owned();
    let whole = told(
        &here,
        &[
            "export",
            "--json",
            "--dry-run",
            "-o",
            &at("x"),
            "team/app:1",
        ],
    );
    let need = whole["bundleBytes"].as_u64().unwrap().to_string();
    for more in [vec![], vec!["--directory"], vec!["--split", "512KiB"]] {
        let path = at("bundle");
        let mut arguments = vec!["export", "-o", &path, "team/app:1"];
        arguments.extend(more);
        let words = complaint(&here, &arguments);
        assert!(
            words.contains(&need) && words.contains("are free"),
            "{words}"
        );
        assert!(names(disk.path()).is_empty(), "{:?}", names(disk.path()));
    }
    // Compressed nobody knows how long it will be.
    let words = complaint(
        &here,
        &["export", "--zstd", "-o", &at("bundle"), "team/app:1"],
    );
    assert!(words.to_lowercase().contains("no space"), "{words}");
    assert!(names(disk.path()).is_empty(), "{:?}", names(disk.path()));
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let to_full = command(&here, &["export", "-o", "-", "team/app:1"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(to_full.status.code(), Some(1), "{to_full:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_store_is_refused_with_sizes_before_work() {
    let stick = Stick::new();
    let app = big(1, 10 * MIB);
    let path = bundle(&stick, &[("team/app", &app)]).await;
    // A cache that may keep less than this.
    let small = "[storage]\nmax_size = \"8MiB\"\nmin_free = \"1MiB\"\n[local.prod]\n";
    let there = offline_with(small).await;
    let need = size(&app).to_string();
    for more in [vec!["--dry-run"], vec![]] {
        let mut arguments = vec!["import", path.as_str()];
        arguments.extend(more);
        let words = complaint(&there, &arguments);
        for word in [need.as_str(), "8388608", "storage.max_size"] {
            assert!(words.contains(word), "{word}: {words}");
        }
    }
    assert!(there.files("blobs").is_empty() && there.files("staging").is_empty());
    // Which does not hold for what is not the cache's.
    said(&there, &["import", "--to", "prod", &path]);
    assert_pulls(&there.client(), "prod/team/app", "1", &app).await;

    // An export that the cache cannot hold says so, and leaves nothing.
    let upstream = Upstream::start().await;
    upstream.hold("team/app", "1", &app);
    let hub = [Remote::hub(&upstream.url())];
    let here = Mirror::with(
        &hub,
        "[storage]\nmax_size = \"8MiB\"\nmin_free = \"1MiB\"\n",
    )
    .await;
    let words = complaint(
        &here,
        &["export", "-o", &stick.at("other.tar"), "team/app:1"],
    );
    assert!(words.contains("max_size"), "{words}");
    assert_eq!(stick.names(), ["bundle.tar"]);
}

/// A mirror whose data lie on a small disk.
async fn on(disk: &SmallDisk) -> Mirror {
    let data = disk.path().join("data");
    let more = format!("[storage]\nmin_free = \"64KiB\"\n[mirror]\noffline = true\n{LOCALS}");
    let hub = [Remote::hub("http://127.0.0.1:9")];
    Mirror::in_directory(tempfile::tempdir().unwrap(), data, &hub, &more).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_data_disk_leaves_the_store_as_it_was() {
    let stick = Stick::new();
    let (app, tiny) = (big(1, 10 * MIB), image::small(Flavour::Oci, 9));
    let path = bundle(&stick, &[("team/app", &app)]).await;
    let small = Stick::new();
    let tiny_path = bundle(&small, &[("team/tiny", &tiny)]).await;
    for to in [vec![], vec!["--to", "prod"]] {
        let disk = SmallDisk::new("24m");
        let there = on(&disk).await;
        said(&there, &["import", &tiny_path]);
        said(&there, &["import", "--to", "prod", &tiny_path]);
        let before = there.files("blobs").len();
        let filler = disk.path().join("filler");
        // Known before.
        fill_up(&filler);
        let mut arguments = vec!["import", path.as_str()];
        arguments.extend(&to);
        let words = complaint(&there, &arguments);
        assert!(words.contains("free"), "{words}");
        assert_eq!(there.files("blobs").len(), before);
        std::fs::remove_file(&filler).unwrap();
        // Full in the middle.
        let bytes = std::fs::read(&path).unwrap();
        let mut arguments = vec!["import", "-"];
        arguments.extend(&to);
        let mut child = command(&there, &arguments)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&bytes[..bytes.len() / 3]).unwrap();
        eventually!(there.files("blobs").len() + there.files("staging").len() > before);
        fill_up(&filler);
        drop(stdin.write_all(&bytes[bytes.len() / 3..]));
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.contains("is not taken"), "{words}");
        let prefix = if to.is_empty() { "" } else { "prod/" };
        let client = there.client();
        assert_eq!(
            status(&client, &format!("{prefix}team/app"), "1").await,
            404
        );
        assert_pulls(&client, &format!("{prefix}team/tiny"), "1", &tiny).await;
        std::fs::remove_file(&filler).unwrap();
        eventually!(there.files("staging").is_empty());
        // With room again the same command succeeds.
        let mut arguments = vec!["import", path.as_str()];
        arguments.extend(&to);
        said(&there, &arguments);
        assert_pulls(&client, &format!("{prefix}team/app"), "1", &app).await;
    }
}
