//! Archives as they should be: ours, other programs', of any age.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read, Write as _};

use rcgen::KeyPair;

use super::support::{Stock, Tar, stock};
use crate::bundle::archive::reader::Options;
use crate::bundle::archive::volumes::{Output, VOLUME_MIN, Volumes};
use crate::bundle::archive::writer::{Format, write};
use crate::bundle::archive::{Compression, Event, ReadError, Reader, SigningKey, Summary};
use crate::cache::PublicKey;
use crate::oci::{Digest, Manifest};

/// What an archive brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Brought {
    /// The kinds of events in their order, a run of the same once.
    pub(super) order: Vec<&'static str>,
    pub(super) blobs: BTreeMap<Digest, Vec<u8>>,
    pub(super) summary: Summary,
}

/// Reads everything; what came to its end before an error is in `brought`.
pub(super) fn drain<R: Read>(
    mut reader: Reader<R>,
    brought: &mut Brought,
) -> Result<(), ReadError> {
    while let Some(event) = reader.next()? {
        let kind = match event {
            Event::Contents(_) => "contents",
            Event::Index(_) => "index",
            Event::Blob(mut blob) => {
                let mut bytes = Vec::new();
                let told = blob.digest().cloned();
                if blob.read_to_end(&mut bytes).is_ok() {
                    assert_eq!(bytes.len() as u64, blob.size());
                    let digest = blob.finish()?;
                    assert!(told.is_none_or(|told| told == digest));
                    assert_eq!(
                        digest,
                        Digest::of_with(digest.algorithm(), &bytes),
                        "a wrong blob came to its end"
                    );
                    brought.blobs.insert(digest, bytes);
                }
                "blob"
            }
            Event::End(summary) => {
                brought.summary = summary;
                "end"
            }
        };
        if brought.order.last() != Some(&kind) {
            brought.order.push(kind);
        }
    }
    assert!(reader.next()?.is_none(), "nothing comes behind the end");
    Ok(())
}

pub(super) fn read_with(bytes: &[u8], options: Options) -> Result<Brought, ReadError> {
    let mut brought = Brought::default();
    drain(Reader::open(bytes, options)?, &mut brought)?;
    Ok(brought)
}

pub(super) fn read(bytes: &[u8]) -> Result<Brought, ReadError> {
    read_with(bytes, Options::default())
}

fn names(summary: &Summary) -> Vec<String> {
    let images = summary.images.iter();
    images
        .flat_map(|image| image.references.iter().map(ToString::to_string))
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_bundle_is_read_as_it_was_written_however_it_is_packed() {
    let stock = stock();
    let plain = stock.bundle();
    for packed in [
        plain.clone(),
        gzip(&plain),
        stock.bundle_with(None, Compression::Zstd),
    ] {
        let brought = read(&packed).unwrap();
        assert_eq!(brought.order, ["contents", "index", "blob", "end"]);
        assert_eq!(brought.blobs, stock.blobs);
        assert_eq!(
            names(&brought.summary),
            [
                "docker.io/library/nginx:1.27",
                "registry.example:5000/team/app:v1"
            ]
        );
        assert!(brought.summary.unlisted.is_empty());
    }
}

#[test]
fn a_compressed_bundle_in_volumes_is_read_as_one() {
    let mut stock = stock();
    let noise: Vec<u8> = (0..8000_u32)
        .flat_map(|at| {
            *Digest::of(&at.to_be_bytes())
                .hex()
                .as_bytes()
                .first_chunk::<32>()
                .unwrap()
        })
        .collect();
    stock.image("docker.io/library/noise:1", &[&noise]);
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("b.tar.zst");
    let format = Format {
        compression: Compression::Zstd,
        ..Format::default()
    };
    let mut out = Output::create(&base, Some(VOLUME_MIN), None).unwrap();
    let contents = stock.contents();
    write(&contents, &format, &mut out, |digest| {
        Ok(Cursor::new(stock.blobs[digest].clone()))
    })
    .unwrap();
    let files = out.finish().unwrap();
    assert!(files.len() > 2, "{files:?}");
    let read = || {
        let volumes = Volumes::find(&files[1]).unwrap().unwrap();
        let mut brought = Brought::default();
        drain(
            Reader::open(volumes, Options::default()).unwrap(),
            &mut brought,
        )
        .map(|()| brought)
    };
    assert_eq!(read().unwrap().blobs, stock.blobs);
    let mut second = fs::OpenOptions::new().append(true).open(&files[1]).unwrap();
    second.write_all(b"x").unwrap();
    let error = read().unwrap_err().to_string();
    assert!(error.contains("b.tar.zst.002 is damaged"), "{error}");
}

#[test]
fn a_difference_bundle_is_whole_without_what_it_declares() {
    let stock = stock();
    let nginx = &stock.images[0].digest;
    let contents = stock.contents_without(&[&Digest::of(&vec![7; 70_000]), nginx]);
    let bundle = stock.write(&contents, &Format::default()).unwrap();
    let brought = read(&bundle).unwrap();
    assert_eq!(brought.blobs.len(), stock.blobs.len() - 2);
    assert_eq!(names(&brought.summary).len(), 2);
}

#[test]
fn a_key_that_is_given_must_have_signed() {
    let pairs = [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256]
        .map(|kind| KeyPair::generate_for(kind).unwrap());
    let [ours, theirs] = pairs.each_ref().map(|pair| {
        let public = PublicKey::from_pem(pair.public_key_pem().as_bytes()).unwrap();
        Options {
            verify_key: Some(public),
            ..Options::default()
        }
    });
    let stock = stock();
    let key = SigningKey::from_pem(pairs[0].serialize_pem().as_bytes()).unwrap();
    let bundle = stock.bundle_with(Some(&key), Compression::None);
    assert_eq!(
        read_with(&bundle, ours.clone()).unwrap().order,
        ["contents", "index", "blob", "end"]
    );
    assert!(
        read(&bundle).is_ok(),
        "without a key the signature is nobody's business"
    );
    let refused = |bytes: &[u8], options: &Options, why: &str| {
        let mut brought = Brought::default();
        let error = drain(Reader::open(bytes, options.clone()).unwrap(), &mut brought)
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}: {why}");
        assert!(
            brought.order.is_empty(),
            "nothing is told before: {:?}",
            brought.order
        );
    };
    refused(&bundle, &theirs, "another key signed it");
    refused(&stock.bundle(), &ours, "not signed");
    refused(&Tar::default().blob(b"x").end(), &ours, "not signed");
    refused(&Tar::default().end(), &ours, "not signed");
    let mut other = stock.clone();
    other.image("docker.io/library/added:1", &[b"added"]);
    let table = other.contents().to_json().unwrap();
    let signature = key.sign(&stock.contents().to_json().unwrap()).unwrap();
    let changed = Tar::default()
        .file("roadstead.json", &table)
        .file("roadstead.json.sig", &signature)
        .end();
    refused(&changed, &ours, "the bundle was changed");
    let late = Tar::default()
        .file("roadstead.json.sig", &signature)
        .file("roadstead.json", &table)
        .end();
    refused(&late, &ours, "before roadstead.json");
}

#[test]
fn blobs_that_nobody_reads_are_verified_all_the_same() {
    let stock = stock();
    let mut bundle = stock.bundle();
    let mut reader = Reader::open(&bundle[..], Options::default()).unwrap();
    let mut blobs = 0;
    while let Some(event) = reader.next().unwrap() {
        blobs += usize::from(matches!(event, Event::Blob(_)));
    }
    assert_eq!(blobs, stock.blobs.len());
    let at = bundle.windows(5).rposition(|five| five == [7; 5]).unwrap();
    bundle[at] ^= 1;
    let mut reader = Reader::open(&bundle[..], Options::default()).unwrap();
    let error = loop {
        match reader.next() {
            Ok(event) => assert!(event.is_some(), "it came to its end"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("not what it is called after"), "{error}");
    assert!(reader.next().is_err());
}

#[test]
fn a_directory_is_read_below_itself_and_what_is_not_ours_is_passed_over() {
    let stock = stock();
    let dir = tempfile::tempdir().unwrap();
    let unpack = || {
        tar::Archive::new(&stock.bundle()[..])
            .unpack(dir.path())
            .unwrap();
    };
    let read = || {
        let mut brought = Brought::default();
        let reader = Reader::open_directory(dir.path(), Options::default());
        reader
            .and_then(|reader| drain(reader, &mut brought))
            .map(|()| brought)
            .map_err(|error| error.to_string())
    };
    unpack();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("README"), "notes").unwrap();
    fs::write(at("blobs/sha256/.partial"), "x").unwrap();
    fs::create_dir(at("blobs/md5")).unwrap();
    let brought = read().unwrap();
    assert_eq!(brought.order, ["contents", "index", "blob", "end"]);
    assert_eq!(brought.blobs, stock.blobs);
    let blob = format!("blobs/sha256/{}", Digest::of(b"nginx").hex());
    let refused = |why: &str| {
        let error = read().unwrap_err();
        assert!(error.contains(why), "{error}: {why}");
    };
    fs::write(at("elsewhere"), "nginx").unwrap();
    fs::remove_file(at(&blob)).unwrap();
    refused("missing");
    std::os::unix::fs::symlink(at("elsewhere"), at(&blob)).unwrap();
    refused("no regular file");
    fs::remove_file(at(&blob)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at(&blob),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    refused("no regular file");
    fs::remove_file(at(&blob)).unwrap();
    fs::write(at(&blob), "nginX").unwrap();
    refused("not what it is called after");
    fs::write(at(&blob), "nginx").unwrap();
    read().unwrap();
    fs::rename(at("blobs"), at("moved")).unwrap();
    std::os::unix::fs::symlink("moved", at("blobs")).unwrap();
    assert!(read().is_err(), "a link in place of a directory");
    let nowhere = Reader::open_directory(&at("nowhere"), Options::default()).unwrap_err();
    assert!(nowhere.to_string().contains("nowhere"), "{nowhere}");
}

/// A layer and a config as docker has them.
fn config(layers: &[&[u8]]) -> Vec<u8> {
    let ids: Vec<_> = layers
        .iter()
        .map(|layer| Digest::of(layer).to_string())
        .collect();
    serde_json::json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}).to_string().into_bytes()
}

fn told(images: &[(&str, &[&str], &[&str])]) -> Vec<u8> {
    let image = |(config, tags, layers): &(&str, &[&str], &[&str])| serde_json::json!({"Config": config, "RepoTags": tags, "Layers": layers});
    serde_json::Value::from(images.iter().map(image).collect::<Vec<_>>())
        .to_string()
        .into_bytes()
}

#[test]
fn docker_save_of_old_tells_its_images_at_the_end() {
    let (shared, top): (&[u8], &[u8]) = (b"base layer", b"top layer");
    let [a, b, c] = ["a", "b", "c"].map(|id| Digest::of(id.as_bytes()).hex().to_owned());
    let (one, two) = (config(&[shared]), config(&[shared, top]));
    let [one_name, two_name] =
        [&one, &two].map(|config| format!("{}.json", Digest::of(config).hex()));
    let layer = |id: &str| format!("{id}/layer.tar");
    let around = |tar: Tar, id: &str| {
        tar.directory(&format!("{id}/"))
            .file(&format!("{id}/VERSION"), b"1.0")
            .file(&format!("{id}/json"), b"{}")
    };
    let archive = around(Tar::default(), &a).file(&layer(&a), shared);
    let archive = around(archive, &b).link(&layer(&b), &format!("../{a}/layer.tar"));
    let archive = around(archive, &c)
        .file(&layer(&c), top)
        .file(&one_name, &one)
        .file(&two_name, &two);
    let manifest = told(&[
        (
            &one_name,
            &["nginx:1.27", "docker.io/library/nginx:latest"],
            &[&layer(&a)],
        ),
        (
            &two_name,
            &["registry.example/app:2"],
            &[&layer(&b), &layer(&c)],
        ),
    ]);
    let whole = archive
        .clone()
        .file("manifest.json", &manifest)
        .file("repositories", b"{}")
        .end();
    let brought = read(&whole).unwrap();
    assert_eq!(brought.order, ["blob", "end"]);
    assert_eq!(brought.blobs.len(), 4);
    assert_eq!(
        names(&brought.summary),
        [
            "docker.io/library/nginx:1.27",
            "docker.io/library/nginx:latest",
            "registry.example/app:2"
        ]
    );
    let image = &brought.summary.images[1];
    let made = image.made.as_ref().unwrap();
    assert_eq!(
        (Digest::of(made), made.len() as u64),
        (image.digest.clone(), image.size)
    );
    let manifest = Manifest::parse(made, Some(&image.media_type)).unwrap();
    let layers: Vec<_> = manifest
        .layers()
        .iter()
        .map(|layer| layer.digest().clone())
        .collect();
    assert_eq!(layers, [Digest::of(shared), Digest::of(top)]);
    assert_eq!(
        manifest.layers()[0].media_type(),
        "application/vnd.docker.image.rootfs.diff.tar"
    );
    assert_eq!(manifest.config().unwrap().digest(), &Digest::of(&two));
    assert_eq!(
        brought,
        read(&whole).unwrap(),
        "the same manifests each time"
    );

    let with = |manifest: &[u8]| {
        read(&archive.clone().file("manifest.json", manifest).end())
            .unwrap_err()
            .to_string()
    };
    for (manifest, why) in [
        (
            told(&[(&one_name, &["nginx:1"], &[&layer(&c)])]),
            "not those that config",
        ),
        (
            told(&[(&one_name, &["nginx:1"], &[])]),
            "not those that config",
        ),
        (
            told(&[(&one_name, &["nginx:1"], &["../../etc/passwd"])]),
            "which is not in the archive",
        ),
        (
            told(&[(&layer(&a), &["nginx:1"], &[&layer(&a)])]),
            "it is none",
        ),
        (told(&[(&one_name, &["NGINX"], &[&layer(&a)])]), "full name"),
        (
            told(&[(&one_name, &[], &vec![layer(&a).as_str(); 1001])]),
            "1000 layers",
        ),
        (b"{}".to_vec(), "no manifest.json"),
    ] {
        let error = with(&manifest);
        assert!(error.contains(why), "{error}: {why}");
    }
    let null = format!(
        "[{{\"Config\":\"{one_name}\",\"RepoTags\":null,\"Layers\":[\"{}\"]}}]",
        layer(&a)
    );
    let untagged = read(&archive.clone().file("manifest.json", null.as_bytes()).end()).unwrap();
    assert!(untagged.summary.images[0].references.is_empty());
    assert_eq!(untagged.summary.unlisted.len(), 2);
}

#[test]
fn docker_save_of_podman_and_gzipped_layers() {
    let layer = gzip(b"a layer");
    let name = format!("{}.tar", Digest::of(&layer).hex());
    let config = config(&[b"a layer"]);
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let archive = Tar::default()
        .file(&name, &layer)
        .file(&config_name, &config)
        .link(
            &format!("{}/layer.tar", Digest::of(b"id").hex()),
            &format!("../{name}"),
        )
        .file(
            "manifest.json",
            &told(&[(&config_name, &["a.b/c:d"], &[&name])]),
        );
    let brought = read(&archive.clone().end()).unwrap();
    let manifest = Manifest::parse(brought.summary.images[0].made.as_ref().unwrap(), None).unwrap();
    assert_eq!(
        manifest.layers()[0].media_type(),
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
    );
    let other = archive
        .file(&format!("{}.tar", Digest::of(b"x").hex()), b"y")
        .end();
    assert!(
        read(&other)
            .unwrap_err()
            .to_string()
            .contains("not what it is called after")
    );
}

#[test]
fn what_crane_pulls_is_named_after_its_digests() {
    let layer = gzip(b"a layer");
    let config = config(&[b"a layer"]);
    let config_name = Digest::of(&config).to_string();
    let name = format!("{}.tar.gz", Digest::of(&layer).hex());
    let told = told(&[(&config_name, &["a.b/c:d"], &[&name])]);
    let archive = |config: &[u8], layer: &[u8]| {
        let tar = Tar::default().file(&config_name, config);
        tar.file(&name, layer).file("manifest.json", &told).end()
    };
    let brought = read(&archive(&config, &layer)).unwrap();
    assert_eq!(names(&brought.summary), ["a.b/c:d"]);
    let made = brought.summary.images[0].made.as_ref().unwrap();
    let manifest = Manifest::parse(made, None).unwrap();
    assert_eq!(manifest.config().unwrap().digest(), &Digest::of(&config));
    assert_eq!(manifest.layers()[0].digest(), &Digest::of(&layer));
    for (config, layer) in [(&b"{}"[..], &layer[..]), (&config, b"other")] {
        let error = read(&archive(config, layer)).unwrap_err().to_string();
        assert!(error.contains("not what it is called after"), "{error}");
    }
    for name in ["sha256:../x", "sha512:00", "sha256:", "x.tar.gz"] {
        let error = read(&Tar::default().file(name, b"x").end()).unwrap_err();
        assert!(error.to_string().contains("is called so"), "{error}");
    }
}

/// An OCI layout in the order in which skopeo, docker 25 and hauler write one.
fn foreign(stock: &Stock, annotations: &[serde_json::Value]) -> Tar {
    let entry = |(image, annotations): (
        &crate::bundle::archive::contents::Image,
        &serde_json::Value,
    )| {
        serde_json::json!({"mediaType": image.media_type.to_string(), "digest": image.digest.to_string(), "size": image.size, "annotations": annotations})
    };
    let manifests: Vec<_> = stock.images.iter().zip(annotations).map(entry).collect();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    let mut tar = Tar::default()
        .directory("./")
        .directory("./blobs/")
        .directory("./blobs/sha256/");
    for (digest, bytes) in &stock.blobs {
        tar = tar.file(&format!("./blobs/sha256/{}", digest.hex()), bytes);
    }
    tar.file("./index.json", index.as_bytes())
}

#[test]
fn foreign_layouts_come_in_any_order_and_what_nobody_needs_is_told() {
    let stock = stock();
    let annotations = [
        serde_json::json!({"io.containerd.image.name": "docker.io/library/nginx:1.27", "org.opencontainers.image.ref.name": "1.27"}),
        serde_json::json!({"org.opencontainers.image.ref.name": "latest"}),
    ];
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    let tar = foreign(&stock, &annotations).blob(b"old config of docker");
    let whole = tar
        .clone()
        .file("manifest.json", b"[]")
        .file("oci-layout", layout)
        .end();
    let brought = read(&whole).unwrap();
    assert_eq!(brought.order, ["blob", "index", "blob", "end"]);
    assert_eq!(
        brought.summary.unlisted,
        [Digest::of(b"old config of docker")]
    );
    assert_eq!(names(&brought.summary), ["docker.io/library/nginx:1.27"]);
    assert_eq!(brought.summary.images[1].said.as_deref(), Some("latest"));
    assert!(
        read(&zstd::encode_all(&tar.end()[..], 1).unwrap()).is_ok(),
        "hauler leaves oci-layout out at times"
    );

    for gone in [&Digest::of(b"nginx"), &stock.images[0].digest] {
        let mut partial = stock.clone();
        partial.blobs.remove(gone);
        let error = read(&foreign(&partial, &annotations).end())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("{gone}, which is missing")),
            "{error}"
        );
    }
}
