//! Archives as somebody who means harm would make them (B1, B2).

use std::io::{self, Cursor, Read, Write as _};

use proptest::prelude::*;

use super::reader::{Brought, drain, read, read_with};
use super::support::{Stock, Tar, stock};
use crate::bundle::archive::reader::Options;
use crate::bundle::archive::{Compression, ReadError, Reader};
use crate::oci::Digest;

fn small() -> Stock {
    let mut stock = Stock::default();
    stock.image("a.b/c:d", &[b"layer"]);
    stock
}

/// A bundle up to its blobs' end, without the end of the archive.
fn open_end(stock: &Stock) -> Tar {
    let contents = stock.contents();
    let index = super::super::index::render(&contents).unwrap();
    let mut tar = Tar::default()
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("roadstead.json", &contents.to_json().unwrap())
        .file("index.json", &index);
    for blob in contents.blobs() {
        tar = tar.blob(&stock.blobs[&blob.digest]);
    }
    tar
}

fn reason(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

#[test]
fn every_hostile_entry_is_refused_with_its_name_and_its_place() {
    let good = open_end(&small());
    read(&good.clone().end()).unwrap();
    let at = good.0.len();
    let layer = format!("blobs/sha256/{}", Digest::of(b"layer").hex());
    let stock = small();
    let last = stock.contents().blobs().last().unwrap().digest.clone();
    let bytes = stock.blobs[&last].clone();
    let last = format!("blobs/sha256/{}", last.hex());
    let without = Tar(good.0[..good.0.len() - 512 - bytes.len().next_multiple_of(512)].to_vec());
    let other = format!("blobs/sha256/{}", Digest::of(b"other").hex());
    let upper = format!("blobs/sha256/{}", Digest::of(b"layer").hex().to_uppercase());
    let add = |name: &str, kind: u8| good.clone().header(name, kind, 0, |_| {}).end();
    let file = |name: &str| good.clone().file(name, b"x").end();
    let extended =
        |records: &[(&str, &str)]| good.clone().extended(records).file(&other, b"other").end();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("../", file("../../etc/cron.d/x"), "'../../etc/cron.d/x'"),
        (
            "../ below blobs",
            file("blobs/sha256/../../x"),
            "no file of an archive of images",
        ),
        ("absolute", file("/etc/passwd"), "'/etc/passwd'"),
        (
            "absolute blob",
            file(&format!("/{layer}")),
            "no file of an archive",
        ),
        (
            "twice ./",
            file(&format!("././{layer}")),
            "no file of an archive",
        ),
        (
            "symbolic link",
            good.clone().link(&other, "/etc/passwd").end(),
            "it is a link",
        ),
        (
            "link of docker out",
            good.clone()
                .link(&format!("{}/layer.tar", "0".repeat(64)), "../../x")
                .end(),
            "it is a link",
        ),
        ("hard link", add(&other, b'1'), "a hard link"),
        ("character device", add(&other, b'3'), "a device"),
        ("block device", add(&other, b'4'), "a device"),
        ("fifo", add(&other, b'6'), "a fifo"),
        ("GNU sparse", add(&other, b'S'), "a sparse file"),
        ("unknown type", add(&other, b'Z'), "of an unknown type"),
        ("global header", add("pax_global_header", b'g'), "global"),
        (
            "GNU long name",
            add("././@LongLink", b'L'),
            "GNU's own form",
        ),
        (
            "PAX sparse",
            extended(&[("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "5")]),
            "a sparse file",
        ),
        (
            "same entry twice",
            good.clone().blob(b"layer").end(),
            "it is there twice",
        ),
        (
            "same entry twice, other bytes",
            good.clone().file(&layer, b"other").end(),
            "it is there twice",
        ),
        (
            "twice by ./",
            good.clone().file(&format!("./{layer}"), b"layer").end(),
            "it is there twice",
        ),
        (
            "index twice",
            good.clone().file("index.json", b"{}").end(),
            "it is there twice",
        ),
        ("case clash", file("Index.json"), "'Index.json'"),
        (
            "case clash of a digest",
            file(&upper),
            "no file of an archive",
        ),
        (
            "other algorithm",
            file("blobs/md5/d41d8cd98f00b204e9800998ecf8427e"),
            "no file of an archive",
        ),
        (
            "nested tar",
            good.clone().file("inner.tar", &good.clone().end()).end(),
            "'inner.tar'",
        ),
        (
            "directory elsewhere",
            good.clone().directory("etc/").end(),
            "no directory of an archive",
        ),
        (
            "directory out",
            good.clone().directory("../").end(),
            "no directory of an archive",
        ),
        (
            "directory with a size",
            good.clone()
                .header("blobs/", b'5', 512, |_| {})
                .body(&[1; 512])
                .end(),
            "has a size",
        ),
        (
            "file with a slash",
            good.clone().header("blobs/", b'0', 0, |_| {}).end(),
            "a directory to some",
        ),
        (
            "PAX size is not the header's",
            extended(&[("size", "1024")]),
            "two sizes",
        ),
        ("PAX size 0", extended(&[("size", "0")]), "two sizes"),
        (
            "PAX size is no number",
            extended(&[("size", "5x")]),
            "cannot be read",
        ),
        (
            "PAX name is another",
            extended(&[("path", "../../x")]),
            "two names",
        ),
        (
            "PAX name is another, long",
            extended(&[("path", &format!("../{}", "x".repeat(200)))]),
            "no file of an archive",
        ),
        (
            "PAX says it twice",
            extended(&[("size", "5"), ("size", "5")]),
            "something twice",
        ),
        (
            "PAX unknown",
            extended(&[("hdrcharset", "BINARY")]),
            "not known here",
        ),
        (
            "PAX before PAX",
            good.clone().extended(&[]).extended(&[]).end(),
            "stand together",
        ),
        (
            "PAX before the end",
            good.clone().extended(&[]).end(),
            "before nothing",
        ),
        (
            "PAX too long",
            good.clone().header("x", b'x', 65_537, |_| {}).end(),
            "64 KiB",
        ),
        (
            "PAX record broken",
            good.clone()
                .header("x", b'x', 9, |_| {})
                .body(b"99 a=b\nxx")
                .end(),
            "cannot be read",
        ),
        (
            "size negative",
            good.clone()
                .header(&other, b'0', 0, |h| h[124] = 0xff)
                .end(),
            "no number",
        ),
        (
            "size in base 256, small",
            good.clone()
                .header(&other, b'0', 0, |h| {
                    h[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\0\x05");
                })
                .end(),
            "no number",
        ),
        (
            "size of no digits",
            good.clone()
                .header(&other, b'0', 0, |h| h[124..136].fill(0))
                .end(),
            "no number",
        ),
        (
            "junk behind the name",
            good.clone().header(&other, b'0', 0, |h| h[99] = b'x').end(),
            "no text",
        ),
        (
            "name of no text",
            good.clone().header("x", b'0', 0, |h| h[0] = 0xff).end(),
            "no text",
        ),
        (
            "format of 1979",
            good.clone()
                .header(&other, b'0', 0, |h| h[257..265].fill(0))
                .end(),
            "tar format",
        ),
        (
            "checksum wrong",
            good.clone().raw(&[b'x'; 512]).end(),
            "its checksum is wrong",
        ),
        (
            "bytes between entries",
            Tar(good.0[..good.0.len() - 1].to_vec()).raw(b"x").end(),
            "between two entries",
        ),
        (
            "trailing junk",
            [good.clone().end(), vec![b'x'; 512]].concat(),
            "behind the end",
        ),
        (
            "trailing archive",
            [good.clone().end(), good.clone().end()].concat(),
            "behind the end",
        ),
        (
            "trailing zeros without end",
            [good.clone().end(), vec![0; 2 << 20]].concat(),
            "behind the end",
        ),
        (
            "one empty block alone",
            good.clone().raw(&[0; 512]).blob(b"layer").end(),
            "behind the end",
        ),
        ("no end", good.clone().0, "cut off"),
        ("half an end", good.clone().raw(&[0; 512]).0, "cut off"),
        (
            "cut in a body",
            good.0[..good.0.len() - 510].to_vec(),
            "cut off",
        ),
        (
            "unlisted extra blob",
            good.clone().blob(b"other").end(),
            "does not list this blob",
        ),
        (
            "listed blob of another size",
            without
                .clone()
                .file(&last, &[&bytes[..], b"x"].concat())
                .end(),
            " by roadstead.json",
        ),
        (
            "blob is not its name",
            without.clone().file(&last, &vec![b'x'; bytes.len()]).end(),
            "not what it is called after",
        ),
        (
            "listed blob missing",
            without.clone().end(),
            "which is missing",
        ),
        (
            "docker's files in a bundle",
            good.clone().file("manifest.json", b"[]").end(),
            "docker save",
        ),
        (
            "docker's layer in a bundle",
            good.clone()
                .file(&format!("{}.tar", Digest::of(b"x").hex()), b"x")
                .end(),
            "docker save",
        ),
    ];
    for (case, bytes, why) in cases {
        let error = read(&bytes).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(why), "{case}: {text}");
        let ReadError::Refused(refusal) = error else {
            panic!("{case}: {text}")
        };
        assert!(refusal.at() + 1100 >= at as u64, "{case}: {text}");
    }
}

#[test]
fn the_small_files_are_bounded_and_agree() {
    let stock = small();
    let contents = stock.contents().to_json().unwrap();
    let index = super::super::index::render(&stock.contents()).unwrap();
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    let huge = |name: &str| Tar::default().header(name, b'0', 2 << 30, |_| {}).end();
    for name in [
        "index.json",
        "roadstead.json",
        "roadstead.json.sig",
        "manifest.json",
        "oci-layout",
        "repositories",
    ] {
        let error = reason(&huge(name));
        assert!(error.contains(&format!("'{name}' at byte 0")), "{error}");
    }
    let other = String::from_utf8(index.clone())
        .unwrap()
        .replace("a.b/c:d", "a.b/c:e");
    let sneaky = String::from_utf8(contents.clone())
        .unwrap()
        .replace("\"needs\":[0,1,2]", "\"needs\":[0]");
    let blobs = |mut tar: Tar| {
        for blob in stock.contents().blobs() {
            tar = tar.blob(&stock.blobs[&blob.digest]);
        }
        tar.end()
    };
    let start = Tar::default().file("oci-layout", layout);
    let table = start.clone().file("roadstead.json", &contents);
    for (bytes, why) in [
        (
            table.clone().file("index.json", other.as_bytes()).end(),
            "not the index of the images",
        ),
        (
            Tar::default()
                .file("index.json", other.as_bytes())
                .file("roadstead.json", &contents)
                .end(),
            "behind the index",
        ),
        (
            start
                .clone()
                .file("roadstead.json", sneaky.as_bytes())
                .end(),
            "no image needs",
        ),
        (
            start
                .clone()
                .blob(b"x")
                .file("roadstead.json", &contents)
                .end(),
            "or blobs",
        ),
        (blobs(table), "index.json is missing"),
        (
            blobs(
                Tar::default()
                    .file("roadstead.json", &contents)
                    .file("index.json", &index),
            ),
            "oci-layout is missing",
        ),
        (start.clone().end(), "no archive of images"),
        (
            Tar::default().file("oci-layout", b"{}").end(),
            "no version of the layout",
        ),
        (Tar::default().end(), "no archive of images"),
        (Vec::new(), "cut off"),
        (b"hello".to_vec(), "cut off"),
        (vec![b'h'; 2000], "no header of a tar archive"),
    ] {
        let error = reason(&bytes);
        assert!(error.contains(why), "{error}: {why}");
    }
}

#[test]
fn what_an_image_is_made_of_must_be_listed_for_it() {
    // The table says that the image needs nothing but what is there, its manifest says otherwise.
    let mut stock = small();
    let layer = Digest::of(b"layer");
    stock.blobs.remove(&layer);
    stock.images[0].needs.retain(|digest| *digest != layer);
    let error = reason(&open_end(&stock).end());
    assert!(
        error.contains("neither lists for it nor declares"),
        "{error}"
    );
    // It is there, but for another image only: the outlook would be wrong.
    let mut stock = super::support::stock();
    stock.images[0]
        .needs
        .retain(|digest| *digest != Digest::of(&vec![7; 70_000]));
    assert!(reason(&open_end(&stock).end()).contains("neither lists for it"));
    // What is said to be a manifest is none.
    let mut stock = small();
    let config = stock.put("{}");
    let image = crate::bundle::archive::contents::Image {
        reference: crate::bundle::archive::ImageRef::parse("a.b/c:e").unwrap(),
        digest: config,
        size: 2,
        needs: Vec::new(),
        ..stock.images[0].clone()
    };
    stock.images.push(image);
    assert!(reason(&open_end(&stock).end()).contains("listed as a manifest and is none"));
}

#[test]
fn more_entries_and_bytes_than_their_limits_are_refused() {
    let one = Tar::default().directory("blobs/").0;
    let many = Repeated(one, 0);
    let error = Reader::open(many, Options::default())
        .unwrap()
        .next()
        .unwrap_err()
        .to_string();
    assert!(error.contains("more than 300000 entries"), "{error}");
    let stock = small();
    let bytes = stock.contents().bytes();
    let limited = |most_bytes| {
        read_with(
            &stock.bundle(),
            Options {
                most_bytes,
                ..Options::default()
            },
        )
    };
    assert!(limited(bytes).is_ok());
    let error = limited(bytes - 1).unwrap_err().to_string();
    assert!(
        error.contains(&format!("more than {} bytes", bytes - 1)),
        "{error}"
    );
    let error = reason(
        &Tar::default()
            .header(&format!("blobs/sha256/{}", "0".repeat(64)), b'0', 0, |h| {
                h[124..136].copy_from_slice(b"\x80\0\0\0\0\0\x20\0\0\0\0\0");
            })
            .end(),
    );
    assert!(error.contains("17592186044416 bytes"), "{error}");
}

/// The same bytes again and again.
#[derive(Debug)]
struct Repeated(Vec<u8>, usize);

impl Read for Repeated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.0[self.1..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.1 = (self.1 + count) % self.0.len();
        Ok(count)
    }
}

#[test]
fn bombs_and_broken_compression_end_early() {
    let good = open_end(&small()).end();
    // A thousand times its size behind the end, where no header bounds it.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&good).unwrap();
    for _ in 0..256 {
        encoder.write_all(&vec![0; 64 * 1024]).unwrap();
    }
    assert!(reason(&encoder.finish().unwrap()).contains("behind the end"));
    let bomb = zstd::encode_all(
        Cursor::new(
            Tar::default()
                .header("index.json", b'0', 2 << 30, |_| {})
                .raw(&vec![0; 1 << 20])
                .0,
        ),
        1,
    )
    .unwrap();
    assert!(reason(&bomb).contains("at most"));
    let packed = zstd::encode_all(&good[..], 1).unwrap();
    let cut = &packed[..packed.len() - 3];
    assert!(matches!(read(cut), Err(ReadError::Io { .. })));
    for junk in [b"junk behind the frame".to_vec(), packed.clone()] {
        assert!(read(&[packed.clone(), junk].concat()).is_err());
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&good).unwrap();
    let gzip = gzip.finish().unwrap();
    assert!(read(&gzip).is_ok());
    for broken in [
        [&gzip[..], b"junk"].concat(),
        [&gzip[..], &gzip].concat(),
        gzip[..gzip.len() - 3].to_vec(),
    ] {
        assert!(read(&broken).is_err());
    }
    // A window of 2 GiB would be memory that somebody else decides about.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&good).unwrap();
    let error = reason(&encoder.finish().unwrap());
    assert!(error.contains("emory"), "{error}");
}

/// One change to an archive.
#[derive(Debug, Clone)]
enum Change {
    Byte(usize, u8),
    Cut(usize),
    Remove(usize, usize),
    Repeat(usize, usize),
    Swap(usize, usize),
    Letters(usize, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let place = 0..1_000_000_usize;
    prop_oneof![
        4 => (place.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => place.clone().prop_map(Change::Cut),
        1 => (place.clone(), 1..4_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        1 => (place.clone(), 1..4_usize).prop_map(|(at, count)| Change::Repeat(at, count)),
        1 => (place.clone(), place.clone()).prop_map(|(one, other)| Change::Swap(one, other)),
        2 => (place, prop::collection::vec(any::<u8>(), 1..12)).prop_map(|(at, text)| Change::Letters(at, text)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        if len < 2048 {
            return;
        }
        let block = |at: usize| (at % (len / 512)) * 512;
        match self {
            Self::Byte(at, byte) => bytes[at % len] = *byte,
            Self::Cut(at) => bytes.truncate(at % len),
            Self::Remove(at, count) => {
                let from = block(*at);
                bytes.drain(from..len.min(from + count * 512));
            }
            Self::Repeat(at, count) => {
                let from = block(*at);
                let copy = bytes[from..len.min(from + count * 512)].to_vec();
                bytes.splice(from..from, copy);
            }
            Self::Swap(one, other) => {
                for byte in 0..512 {
                    bytes.swap(block(*one) + byte, block(*other) + byte);
                }
            }
            Self::Letters(at, text) => {
                let from = at % len;
                for (place, byte) in bytes[from..].iter_mut().zip(text) {
                    *place = *byte;
                }
            }
        }
    }
}

/// Makes the checksums of all headers right, so that changes get past them.
fn repair(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn no_change_panics_or_brings_a_wrong_blob(
        changes in prop::collection::vec(change(), 1..4),
        repaired in any::<bool>(),
        packed in 0..4_u8,
    ) {
        let stock = small();
        let mut bytes = match packed {
            0 => stock.bundle_with(None, Compression::Zstd),
            _ => open_end(&stock).end(),
        };
        for change in &changes {
            change.apply(&mut bytes);
        }
        if repaired {
            repair(&mut bytes);
        }
        let mut brought = Brought::default();
        // `drain` compares every blob that came to its end with its digest.
        let ended = Reader::open(&bytes[..], Options::default()).and_then(|reader| drain(reader, &mut brought));
        for digest in brought.blobs.keys() {
            prop_assert!(stock.blobs.contains_key(digest), "a blob that never was: {digest}");
        }
        if ended.is_ok() {
            let whole = read(&stock.bundle()).unwrap();
            prop_assert_eq!(brought.blobs, whole.blobs);
            prop_assert_eq!(brought.summary, whole.summary);
        }
    }

    #[test]
    fn foreign_archives_bring_no_wrong_blob_either(
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let stock = stock();
        let layer = &stock.blobs[&Digest::of(b"nginx")];
        let mut bytes = Tar::default()
            .file(&format!("{}.tar", Digest::of(layer).hex()), layer)
            .file(&format!("{}/layer.tar", Digest::of(b"id").hex()), b"plain")
            .blob(b"{}")
            .file("manifest.json", b"[]")
            .end();
        for change in &changes {
            change.apply(&mut bytes);
        }
        repair(&mut bytes);
        let mut brought = Brought::default();
        drop(Reader::open(&bytes[..], Options::default()).and_then(|reader| drain(reader, &mut brought)));
    }
}
