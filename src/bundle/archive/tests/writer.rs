use std::io::{self, Cursor, Read};

use aws_lc_rs::signature::Ed25519KeyPair;
use rcgen::{KeyPair, PublicKeyData as _};

use super::support::{Stock, stock};
use crate::bundle::archive::header::{self, BLOCK, Kind, OCTAL_MAX};
use crate::bundle::archive::signature::{Unverified, verify};
use crate::bundle::archive::writer::{self, Format, WriteError};
use crate::bundle::archive::{Compression, SigningKey, SigningKeyError, names};
use crate::cache::PublicKey;
use crate::oci::{Algorithm, Digest};

/// The entries as an independent reader sees them.
fn entries(bundle: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(bundle);
    let read = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        assert_eq!(
            (
                header.mtime().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap()
            ),
            (0, 0, 0)
        );
        let mode = if header.entry_type().is_dir() {
            0o755
        } else {
            0o644
        };
        assert_eq!(header.mode().unwrap(), mode);
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

#[test]
fn a_bundle_is_a_layout_with_everything_that_is_known_in_front() {
    let stock = stock();
    let bundle = stock.bundle();
    let entries = entries(&bundle);
    let front: Vec<_> = entries
        .iter()
        .take(5)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        front,
        [
            "oci-layout",
            "roadstead.json",
            "index.json",
            "blobs/",
            "blobs/sha256/"
        ]
    );
    let contents = stock.contents();
    let blobs: Vec<_> = entries.iter().skip(5).collect();
    assert_eq!(blobs.len(), stock.blobs.len(), "each blob once");
    for ((name, bytes), blob) in blobs.into_iter().zip(contents.blobs()) {
        assert_eq!(*name, names::of_blob(&blob.digest));
        assert_eq!(Digest::of(bytes), blob.digest);
    }
    assert_eq!(bundle, stock.bundle(), "deterministic");
    assert_eq!(bundle.len() % 10_240, 0);
}

#[test]
fn the_size_is_known_before() {
    let key = SigningKey::from_pem(
        KeyPair::generate_for(&rcgen::PKCS_ED25519)
            .unwrap()
            .serialize_pem()
            .as_bytes(),
    )
    .unwrap();
    let mut stock = stock();
    let long = Digest::of_with(Algorithm::Sha512, b"long");
    stock.blobs.insert(long.clone(), b"long".to_vec());
    stock.images[0].needs.push(long);
    for key in [None, Some(&key)] {
        let format = Format {
            key,
            compression: Compression::None,
        };
        let contents = stock.contents();
        let len = stock.write(&contents, &format).unwrap().len();
        assert_eq!(writer::size(&contents, &format).unwrap(), len as u64);
    }
    let names: Vec<_> = entries(&stock.bundle())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert!(
        names
            .iter()
            .any(|name| name.starts_with("blobs/sha512/") && name.len() == 141),
        "{names:?}"
    );
}

#[test]
fn zstd_is_the_same_archive() {
    let stock = stock();
    let small = stock.bundle_with(None, Compression::Zstd);
    assert!(small.len() < stock.bundle().len());
    assert_eq!(zstd::decode_all(&small[..]).unwrap(), stock.bundle());
    assert_eq!(small, stock.bundle_with(None, Compression::Zstd));
}

/// A reader that fails in the middle.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("broken disk"))
    }
}

#[test]
fn a_blob_that_differs_ends_the_export_with_its_digest() {
    let stock = stock();
    let layer = Digest::of(b"nginx");
    for (bytes, why) in [
        (&b"nginX"[..], "have the digest"),
        (b"nginxx", "longer than 5"),
        (b"ngin", "4 of 5"),
    ] {
        let mut damaged = stock.clone();
        damaged.blobs.insert(layer.clone(), bytes.to_vec());
        let error = damaged
            .write(&stock.contents(), &Format::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&layer.to_string()) && error.contains(why),
            "{error}"
        );
    }
    let mut gone = stock.clone();
    gone.blobs.remove(&layer);
    let error = gone
        .write(&stock.contents(), &Format::default())
        .unwrap_err();
    assert!(
        matches!(&error, WriteError::Blob { digest, .. } if *digest == layer),
        "{error}"
    );
    let error = writer::write(&stock.contents(), &Format::default(), Vec::new(), |_| {
        Ok(Broken)
    })
    .unwrap_err();
    assert!(error.to_string().contains("broken disk"), "{error}");
    let mut full = [0; 4096];
    let error = writer::write(&stock.contents(), &Format::default(), &mut full[..], |_| {
        Ok(io::empty())
    })
    .unwrap_err();
    assert!(matches!(error, WriteError::Out(_)), "{error}");
}

#[test]
fn a_difference_bundle_carries_the_rest_and_lists_all() {
    let stock = stock();
    let shared = Digest::of(&vec![7; 70_000]);
    let contents = stock.contents_without(&[&shared]);
    let bundle = stock.write(&contents, &Format::default()).unwrap();
    assert!(bundle.len() < 70_000);
    let entries = entries(&bundle);
    let (_, index) = entries
        .iter()
        .find(|(name, _)| name == "index.json")
        .unwrap();
    assert_eq!(super::super::index::parse(index).unwrap().len(), 2);
    assert!(
        !entries
            .iter()
            .any(|(name, _)| *name == names::of_blob(&shared))
    );
}

#[test]
fn sizes_that_octal_digits_do_not_hold_stand_twice_and_alike() {
    for size in [0, 1, OCTAL_MAX] {
        let block: [u8; BLOCK] = header::encode("index.json", Kind::File, size)
            .try_into()
            .unwrap();
        let read = header::decode(&block).unwrap();
        assert_eq!((read.size, read.name.as_str()), (size, "index.json"));
    }
    let large = OCTAL_MAX + 1;
    let blocks = header::encode("index.json", Kind::File, large);
    assert_eq!(blocks.len(), 3 * BLOCK);
    let records = String::from_utf8_lossy(&blocks[BLOCK..2 * BLOCK]).into_owned();
    assert!(records.starts_with("19 size=8589934592\n"), "{records}");
    let last: [u8; BLOCK] = blocks[2 * BLOCK..].try_into().unwrap();
    assert_eq!(header::decode(&last).unwrap().size, large);
    let mut other = tar::Archive::new(Cursor::new(blocks));
    let entry = other.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.size(), large);
}

#[test]
fn signatures_are_of_one_key_over_one_table() {
    let table = stock().contents().to_json().unwrap();
    let pairs = [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256]
        .map(|kind| KeyPair::generate_for(kind).unwrap());
    let publics = pairs
        .each_ref()
        .map(|pair| PublicKey::from_pem(pair.public_key_pem().as_bytes()).unwrap());
    for (place, pair) in pairs.iter().enumerate() {
        let key = SigningKey::from_pem(pair.serialize_pem().as_bytes()).unwrap();
        let signed = key.sign(&table).unwrap();
        verify(&publics[place], &table, &signed).unwrap();
        assert_eq!(
            verify(&publics[1 - place], &table, &signed),
            Err(Unverified::Wrong)
        );
        assert_eq!(
            verify(&publics[place], &table[1..], &signed),
            Err(Unverified::Wrong)
        );
        assert_eq!(verify(&publics[place], &table, b""), Err(Unverified::Wrong));
        assert_eq!(
            verify(&publics[place], &table, b"%"),
            Err(Unverified::NotBase64)
        );
        let shown = format!("{key:?}");
        assert!(
            shown.contains(&Digest::of(&pair.subject_public_key_info()).to_string()),
            "{shown}"
        );
    }
    let stock: Stock = stock();
    let key = SigningKey::from_pem(pairs[0].serialize_pem().as_bytes()).unwrap();
    let bundle = stock.bundle_with(Some(&key), Compression::None);
    assert_eq!(
        bundle,
        stock.bundle_with(Some(&key), Compression::None),
        "Ed25519 is deterministic"
    );
    let entries = entries(&bundle);
    assert_eq!(entries[2].0, "roadstead.json.sig");
    verify(&publics[0], &entries[1].1, &entries[2].1).unwrap();
    let raw = Ed25519KeyPair::from_pkcs8(&pairs[0].serialize_der()).unwrap();
    assert_eq!(raw.sign(&entries[1].1).as_ref().len(), 64);
}

#[test]
fn keys_that_cannot_sign_are_named() {
    let pem = |kind| KeyPair::generate_for(kind).unwrap().serialize_pem();
    let plain = pem(&rcgen::PKCS_ED25519);
    for label in [
        "ENCRYPTED COSIGN PRIVATE KEY",
        "ENCRYPTED SIGSTORE PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
    ] {
        let text = plain.replace("PRIVATE KEY", label);
        assert_eq!(
            SigningKey::from_pem(text.as_bytes()).unwrap_err(),
            SigningKeyError::Encrypted
        );
    }
    let old = plain.replacen("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\n\n", 1);
    assert_eq!(
        SigningKey::from_pem(old.as_bytes()).unwrap_err(),
        SigningKeyError::Encrypted
    );
    assert_eq!(
        SigningKey::from_pem(b"").unwrap_err(),
        SigningKeyError::NotPem
    );
    let public = KeyPair::generate().unwrap().public_key_pem();
    assert_eq!(
        SigningKey::from_pem(public.as_bytes()).unwrap_err(),
        SigningKeyError::NotPem
    );
    for other in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
        assert_eq!(
            SigningKey::from_pem(pem(other).as_bytes()).unwrap_err(),
            SigningKeyError::Unknown
        );
    }
}
