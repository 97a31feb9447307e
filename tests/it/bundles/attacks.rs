//! Bundles as somebody who means harm would make them, given to the real command: refused with the reason, nothing visible, no file anywhere
//! else (B1, B2). Their full list stands beside the reader.

use std::os::unix::ffi::OsStrExt as _;

use super::*;
use crate::support::image::{Content, Flavour};

/// Builds archives by hand.
struct Tar(Vec<u8>);

impl Tar {
    fn header(mut self, name: &[u8], kind: u8, size: u64, target: &str) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_entry_type(tar::EntryType::new(kind));
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self
    }

    fn file(mut self, name: impl AsRef<[u8]>, bytes: &[u8]) -> Self {
        self = self.header(name.as_ref(), b'0', bytes.len() as u64, "");
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// Everything below a directory.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        }
        found.push(entry.path());
    }
    found.sort();
    found
}

/// A good bundle of one image of two blobs and a manifest, and where its parts lie.
struct Good {
    bytes: Vec<u8>,
    image: Image,
}

impl Good {
    async fn new(stick: &Stick) -> Self {
        let upstream = Upstream::start().await;
        let image = image::small(Flavour::Oci, 1);
        upstream.hold("team/app", "1", &image);
        let here = connected(&upstream).await;
        said(
            &here,
            &["export", "-o", &stick.at("good.tar"), "team/app:1"],
        );
        let bytes = stick.read("good.tar");
        std::fs::remove_file(stick.at("good.tar")).unwrap();
        Self { bytes, image }
    }

    /// Without the end of the archive.
    fn open(&self) -> Tar {
        let mut archive = tar::Archive::new(&*self.bytes);
        let last = archive.entries().unwrap().last().unwrap().unwrap();
        let end = last.raw_file_position() + last.size().next_multiple_of(512);
        Tar(self.bytes[..usize::try_from(end).unwrap()].to_vec())
    }

    fn of(&self, blob: &Content) -> String {
        format!("blobs/sha256/{}", image::plain_hex(&blob.digest))
    }

    /// Where the header of an entry begins.
    fn at(&self, name: &str) -> usize {
        let mut archive = tar::Archive::new(&*self.bytes);
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let entry = entries.find(|entry| entry.path_bytes() == name.as_bytes());
        entry.unwrap().raw_header_position().try_into().unwrap()
    }

    /// Without one entry.
    fn without(&self, name: &str) -> Vec<u8> {
        let at = self.at(name);
        let size = entry_size(&self.bytes[at..]);
        let end = at + 512 + size.next_multiple_of(512);
        [&self.bytes[..at], &self.bytes[end..]].concat()
    }
}

fn entry_size(header: &[u8]) -> usize {
    let text = std::str::from_utf8(&header[124..135]).unwrap();
    usize::from_str_radix(text, 8).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bundles_are_refused_and_leave_nothing() {
    let stick = Stick::new();
    let good = Good::new(&stick).await;
    let layer = good.of(good.image.layers()[0]);
    let other = good.of(&image::blob(7, 100));
    // Where an archive that escapes would write.
    let target = stick.at("evil");
    let flipped = {
        let mut bytes = good.bytes.clone();
        bytes[good.at(&layer) + 512 + 20] ^= 1;
        bytes
    };
    let renamed = {
        let index = good.at("index.json");
        let mut bytes = good.bytes.clone();
        let text = &mut bytes[index + 512..];
        let at = text.windows(10).position(|w| w == b"team/app:1").unwrap();
        text[at..at + 10].copy_from_slice(b"team/bad:1");
        bytes
    };
    let bomb = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &good.bytes).unwrap();
        for _ in 0..512 {
            std::io::Write::write_all(&mut encoder, &vec![0; 64 * KIB]).unwrap();
        }
        encoder.finish().unwrap()
    };
    let unlisted = image::blob(7, 100);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "climbing",
            good.open().file("../../evil", b"x").end(),
            "no file of an archive",
        ),
        (
            "absolute",
            good.open().file(target.as_bytes(), b"x").end(),
            "no file of an archive",
        ),
        (
            "link",
            good.open()
                .header(other.as_bytes(), b'2', 0, "/etc/passwd")
                .end(),
            "it is a link",
        ),
        (
            "hard link",
            good.open()
                .header(other.as_bytes(), b'1', 0, "/etc/passwd")
                .end(),
            "a hard link",
        ),
        (
            "device",
            good.open().header(other.as_bytes(), b'3', 0, "").end(),
            "a device",
        ),
        (
            "fifo",
            good.open().header(other.as_bytes(), b'6', 0, "").end(),
            "a fifo",
        ),
        (
            "sparse",
            good.open().header(other.as_bytes(), b'S', 0, "").end(),
            "a sparse file",
        ),
        (
            "twice",
            good.open().file(&layer, b"other").end(),
            "it is there twice",
        ),
        (
            "case",
            good.open().file("Index.json", b"{}").end(),
            "'Index.json'",
        ),
        (
            "nested",
            good.open().file("inner.tar", &good.bytes).end(),
            "'inner.tar'",
        ),
        (
            "unlisted",
            good.open().file(&other, &unlisted.bytes).end(),
            "does not list this blob",
        ),
        ("wrong bytes", flipped, "not what it is called after"),
        ("missing", good.without(&layer), "which is missing"),
        (
            "no index",
            good.without("index.json"),
            "index.json is missing",
        ),
        ("other index", renamed, "not the index of the images"),
        (
            "huge index",
            Tar(Vec::new())
                .header(b"index.json", b'0', 2 << 30, "")
                .end(),
            "'index.json' at byte 0",
        ),
        (
            "truncated",
            good.bytes[..good.bytes.len() / 2].to_vec(),
            "cut off",
        ),
        ("no end", good.open().0, "cut off"),
        (
            "junk behind",
            [good.bytes.clone(), vec![b'x'; 512]].concat(),
            "behind the end",
        ),
        ("bomb", bomb, "behind the end"),
        ("no archive", b"hello".to_vec(), "cut off"),
        (
            "name of no text",
            good.open().header(b"\xff", b'0', 0, "").end(),
            "no text",
        ),
    ];
    let there = offline_with("[local.prod]\n").await;
    let path = stick.at("bundle.tar");
    std::fs::write(&path, b"").unwrap();
    let outside = tree(stick.path());
    for (case, bytes, why) in cases {
        std::fs::write(&path, &bytes).unwrap();
        for more in [vec![], vec!["--to", "prod"], vec!["--dry-run"]] {
            let output = command(&there, &["import", &path])
                .args(&more)
                .current_dir(stick.path())
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(1), "{case}: {output:?}");
            let words = String::from_utf8(output.stderr).unwrap();
            assert!(words.contains(why), "{case}: {words}");
            assert!(words.contains("bundle.tar"), "{case}: {words}");
        }
        assert_eq!(tree(stick.path()), outside, "{case}");
        let client = there.client();
        for name in ["team/app", "prod/team/app", "team/bad"] {
            for reference in ["1", good.image.digest()] {
                assert_eq!(status(&client, name, reference).await, 404, "{case}");
            }
            for blob in &good.image.blobs {
                let answer = client.blob(name, &blob.digest).await;
                assert_eq!(answer.status.as_u16(), 404, "{case}: {name}");
            }
        }
        assert_eq!(said(&there, &["pins"]), "", "{case}");
        let catalog = client.get("/v2/_catalog").await.json();
        assert_eq!(catalog["repositories"], serde_json::json!([]), "{case}");
        assert!(!there.data().join("waiting").exists(), "{case}");
    }
    assert!(!Path::new("/evil").exists() && !Path::new(&target).exists());
    // Nothing outside of what a store has is in the data directory either.
    for file in tree(there.data()) {
        let name = file.strip_prefix(there.data()).unwrap().as_os_str();
        assert!(!name.as_bytes().ends_with(b"evil"), "{file:?}");
    }
    std::fs::write(&path, &good.bytes).unwrap();
    said(&there, &["import", &path]);
    assert_pulls(&there.client(), "team/app", "1", &good.image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_blob_that_is_too_long_for_memory_is_found_where_it_arrives() {
    let upstream = Upstream::start().await;
    let big = image::image(
        Flavour::Oci,
        "amd64",
        &[image::noise_layer(image::Packing::Plain, 1, 6 * MIB)],
    );
    upstream.hold("team/big", "1", &big);
    let (here, there) = (
        connected(&upstream).await,
        offline_with("[local.prod]\n").await,
    );
    let stick = Stick::new();
    let path = stick.at("bundle.tar");
    said(&here, &["export", "-o", &path, "team/big:1"]);
    said(
        &here,
        &[
            "export",
            "--split",
            "1MiB",
            "-o",
            &stick.at("volumes"),
            "team/big:1",
        ],
    );
    let good = stick.read("bundle.tar");
    let mut bytes = good.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let volume = stick.at("volumes.006");
    let mut bytes = stick.read("volumes.006");
    bytes[1000] ^= 1;
    std::fs::write(&volume, &bytes).unwrap();
    for to in [vec![], vec!["--to", "prod"]] {
        let mut arguments = vec!["import", path.as_str()];
        arguments.extend(&to);
        let words = complaint(&there, &arguments);
        assert!(words.contains(&big.layers()[0].digest), "{words}");
        assert!(
            words.contains("bundle.tar: nothing of it was imported"),
            "{words}"
        );
        // Of volumes it is said which of them has to be copied again.
        let volumes = stick.at("volumes");
        let mut arguments = vec!["import", volumes.as_str()];
        arguments.extend(&to);
        let words = complaint(&there, &arguments);
        assert!(words.contains("volumes.006 is damaged"), "{words}");
        for name in ["team/big", "prod/team/big"] {
            assert_eq!(status(&there.client(), name, "1").await, 404);
        }
    }
    std::fs::write(&path, &good).unwrap();
    said(&there, &["import", &path]);
    assert_pulls(&there.client(), "team/big", "1", &big).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_directory_reads_no_file_but_its_own() {
    let stick = Stick::new();
    let good = Good::new(&stick).await;
    let there = offline().await;
    let layer = good.of(good.image.layers()[0]);
    let fresh = |name: &str| {
        let path = stick.path().join(name);
        tar::Archive::new(&*good.bytes).unpack(&path).unwrap();
        path
    };
    let secret = stick.at("secret");
    std::fs::write(&secret, "secret").unwrap();
    let linked = fresh("linked");
    std::fs::remove_file(linked.join(&layer)).unwrap();
    std::os::unix::fs::symlink(&secret, linked.join(&layer)).unwrap();
    let fifo = fresh("fifo");
    std::fs::remove_file(fifo.join(&layer)).unwrap();
    let made = Command::new("mkfifo").arg(fifo.join(&layer)).status();
    assert!(made.unwrap().success());
    let wrong = fresh("wrong");
    std::fs::write(wrong.join(&layer), "secret").unwrap();
    let less = fresh("less");
    std::fs::remove_file(less.join(&layer)).unwrap();
    for path in [&linked, &fifo, &wrong, &less] {
        let words = complaint(&there, &["import", path.to_str().unwrap()]);
        assert!(words.contains(path.to_str().unwrap()), "{words}");
        assert_eq!(status(&there.client(), "team/app", "1").await, 404);
    }
    let good_one = fresh("good");
    said(&there, &["import", good_one.to_str().unwrap()]);
    assert_pulls(&there.client(), "team/app", "1", &good.image).await;
}
