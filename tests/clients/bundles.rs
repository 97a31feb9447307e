//! Bundles that the tools of others read, archives of theirs that we read, and signatures that cosign and openssl know.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::Path;
use std::process::Command;

use roadstead::bundle::archive::contents::{Blob, Image as Carried};
use roadstead::bundle::archive::reader::Options;
use roadstead::bundle::archive::signature::verify;
use roadstead::bundle::archive::writer::{Format, write};
use roadstead::bundle::archive::{Contents, Event, ImageRef, Reader, SigningKey, Summary};
use roadstead::cache::PublicKey;
use roadstead::oci::{Digest, Manifest, MediaType};
use tempfile::TempDir;

use crate::parts::{Registry, run, tool};
use crate::pulls::{Docker, Podman};
use crate::support::image::{self, Flavour, Image, Packing};

/// A bundle of these images at `path`.
pub fn bundle(path: &Path, images: &[(&str, &Image)]) {
    let mut bytes = BTreeMap::new();
    let mut blobs = BTreeMap::new();
    let mut carried = Vec::new();
    for (name, image) in images {
        let mut needs = Vec::new();
        for content in image.manifests.iter().chain(&image.blobs) {
            let digest = Digest::parse(&content.digest).unwrap();
            needs.push(digest.clone());
            bytes.insert(digest.clone(), content.bytes.clone());
            let blob = Blob {
                digest: digest.clone(),
                size: content.size(),
                media_type: Some(content.media_type.clone()),
            };
            blobs.insert(digest, blob);
        }
        carried.push(Carried {
            reference: ImageRef::parse(name).unwrap(),
            digest: Digest::parse(image.digest()).unwrap(),
            media_type: MediaType::parse(&image.root.media_type).unwrap(),
            size: image.root.size(),
            needs,
        });
    }
    let contents = Contents::new(
        carried,
        blobs.into_values().collect(),
        Vec::new(),
        Vec::new(),
    )
    .unwrap();
    let file = File::create(path).unwrap();
    write(&contents, &Format::default(), file, |digest| {
        Ok(Cursor::new(bytes[digest].clone()))
    })
    .unwrap();
}

fn skopeo(arguments: &[&str]) -> Command {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--insecure-policy", "copy"]).args(arguments);
    skopeo
}

/// An archive of somebody else, whole.
fn read(path: &Path) -> (Summary, BTreeMap<Digest, Vec<u8>>) {
    let mut reader = Reader::open(File::open(path).unwrap(), Options::default()).unwrap();
    let mut blobs = BTreeMap::new();
    loop {
        match reader.next().unwrap().unwrap() {
            Event::Blob(mut blob) => {
                let mut bytes = Vec::new();
                blob.read_to_end(&mut bytes).unwrap();
                blobs.insert(blob.finish().unwrap(), bytes);
            }
            Event::End(summary) => return (summary, blobs),
            Event::Contents(_) | Event::Index(_) => {}
        }
    }
}

fn names(summary: &Summary) -> Vec<String> {
    let images = summary.images.iter();
    let mut names: Vec<_> = images
        .flat_map(|image| image.references.iter().map(ToString::to_string))
        .collect();
    names.sort();
    names
}

/// Two images that share a layer in different places, which makes docker save a link of it, and one of several platforms.
fn images() -> [(&'static str, Image); 3] {
    let layer = |seed| image::noise_layer(Packing::Gzip, seed, 100_000);
    [
        (
            "docker.io/library/app:1",
            image::image(Flavour::Oci, "amd64", &[layer(1), layer(2)]),
        ),
        (
            "registry.example:5000/team/app:v1",
            image::image(Flavour::Oci, "amd64", &[layer(3), layer(1)]),
        ),
        (
            "docker.io/library/multi:2",
            image::multi_platform(Flavour::Oci, 4, 50_000),
        ),
    ]
}

fn bundle_in(dir: &TempDir, name: &str, images: &[(&str, &Image)]) -> String {
    let path = dir.path().join(name);
    bundle(&path, images);
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_podman_and_crane_read_a_bundle_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let images = images();
    let all: Vec<_> = images.iter().map(|(name, image)| (*name, image)).collect();
    let file = bundle_in(&dir, "bundle.tar", &all);
    for (place, (name, image)) in all.iter().enumerate() {
        let out = dir.path().join(format!("out{place}"));
        let (from, to) = (
            format!("oci-archive:{file}:{name}"),
            format!("dir:{}", out.display()),
        );
        run(&mut skopeo(&["--all", &from, &to]));
        let manifest = fs::read(out.join("manifest.json")).unwrap();
        assert_eq!(image::sha256(&manifest), image.digest(), "{name}");
    }
    let podman = Podman::start("127.0.0.1:1");
    for (name, _) in &all {
        run(podman
            .command()
            .args(["pull", "--quiet"])
            .arg(format!("oci-archive:{file}:{name}")));
        run(podman.command().args(["image", "exists", name]));
    }
    run(podman.command().args(["rmi", "--all", "--force"]));
    let one = bundle_in(&dir, "one.tar", &all[..1]);
    run(podman.command().args(["load", "-i", &one]));
    run(podman.command().args(["image", "exists", all[0].0]));

    // containers/image passes over Docker's media types in a layout; crane does not.
    let docker = image::small(Flavour::Docker, 5);
    let docker_file = bundle_in(&dir, "docker.tar", &[("docker.io/library/old:1", &docker)]);
    let registry = Registry::start().await;
    let host = registry.url().replace("http://", "");
    for (name, file, image) in [("oci", one, all[0].1), ("docker", docker_file, &docker)] {
        let unpacked = dir.path().join(name);
        fs::create_dir(&unpacked).unwrap();
        run(Command::new("tar")
            .args(["-xf", &file, "-C"])
            .arg(&unpacked));
        let target = format!("{host}/{name}:1");
        let crane = |command: &str| {
            let mut crane = Command::new(tool("crane"));
            crane.args(["--insecure", command]);
            crane
        };
        run(crane("push").arg(&unpacked).arg(&target));
        let digest = run(crane("digest").arg(&target));
        let digest = String::from_utf8(digest.stdout).unwrap();
        assert_eq!(digest.trim(), image.digest());
        // What people pack by hand is in the order of the directory, with owners and times.
        for format in ["gnu", "posix", "ustar"] {
            let packed = dir.path().join(format!("{name}-{format}.tar.gz"));
            run(Command::new("tar")
                .args(["--format", format, "--exclude", "roadstead.json", "-czf"])
                .arg(&packed)
                .arg("-C")
                .arg(&unpacked)
                .arg("."));
            let (summary, _) = read(&packed);
            assert_eq!(summary.images[0].digest.to_string(), image.digest());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_of_skopeo_podman_and_docker_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let images = images();
    let all: Vec<_> = images.iter().map(|(name, image)| (*name, image)).collect();
    let file = bundle_in(&dir, "bundle.tar", &all);
    let from = |place: usize| format!("oci-archive:{file}:{}", all[place].0);

    let layout = at("skopeo-oci.tar");
    let to = format!("oci-archive:{}:{}", layout.display(), all[2].0);
    run(&mut skopeo(&["--all", &from(2), &to]));
    let (summary, blobs) = read(&layout);
    assert_eq!(names(&summary), [all[2].0]);
    assert_eq!(summary.images[0].digest.to_string(), all[2].1.digest());
    assert_eq!(blobs.len(), all[2].1.manifests.len() + all[2].1.blobs.len());
    assert!(summary.unlisted.is_empty(), "{:?}", summary.unlisted);

    let saved = |place: usize| {
        let path = at(&format!("skopeo-docker{place}.tar"));
        let to = format!("docker-archive:{}:{}", path.display(), all[place].0);
        run(&mut skopeo(&[&from(place), &to]));
        path
    };
    let [one, two] = [saved(0), saved(1)];
    check_saved(&one, &all[..1]);

    let podman = Podman::start("127.0.0.1:1");
    for path in [&one, &two] {
        run(podman.command().args(["load", "-i"]).arg(path));
    }
    let both = [all[0].0, all[1].0];
    let path = at("podman.tar");
    run(podman
        .command()
        .args(["save", "--multi-image-archive", "-o"])
        .arg(&path)
        .args(both));
    check_saved(&path, &all[..2]);
    let path = at("podman-oci.tar");
    run(podman
        .command()
        .args(["save", "--format", "oci-archive", "-o"])
        .arg(&path)
        .arg(both[0]));
    assert_eq!(names(&read(&path).0), [both[0]]);

    let docker = Docker::start("127.0.0.1:1");
    for path in [&one, &two] {
        run(docker.command().args(["load", "-i"]).arg(path));
    }
    let path = at("docker.tar");
    run(docker.command().args(["save", "-o"]).arg(&path).args(both));
    let links = run(Command::new("tar").arg("-tvf").arg(&path));
    assert!(
        String::from_utf8(links.stdout).unwrap().contains(" -> "),
        "the case of a layer that is a link is not tried"
    );
    check_saved(&path, &all[..2]);
}

/// Whether the images of `docker save` have the layers that they were made of, once unpacked.
fn check_saved(path: &Path, images: &[(&str, &Image)]) {
    let (summary, blobs) = read(path);
    let mut expected: Vec<_> = images.iter().map(|(name, _)| (*name).to_owned()).collect();
    expected.sort();
    assert_eq!(names(&summary), expected, "{}", path.display());
    for (name, image) in images {
        let found = summary
            .images
            .iter()
            .find(|found| found.references[0].to_string() == *name)
            .unwrap();
        let made = found.made.as_ref().unwrap();
        assert_eq!(Digest::of(made), found.digest);
        let manifest = Manifest::parse(made, Some(&found.media_type)).unwrap();
        let unpacked = |bytes: &[u8]| {
            let mut tar = Vec::new();
            flate2::read::GzDecoder::new(bytes)
                .read_to_end(&mut tar)
                .unwrap();
            Digest::of(&tar)
        };
        let ours: Vec<_> = image
            .layers()
            .iter()
            .map(|layer| unpacked(&layer.bytes))
            .collect();
        let layers = manifest.layers().iter();
        let theirs: Vec<_> = layers.map(|layer| layer.digest().clone()).collect();
        assert_eq!(theirs, ours, "{name} of {}", path.display());
        for (_, edge) in manifest.edges() {
            assert_eq!(blobs[edge.digest()].len() as u64, edge.size());
        }
    }
}

#[test]
fn cosign_and_openssl_know_our_keys_and_signatures() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let openssl = |arguments: &[&str]| {
        run(Command::new("openssl")
            .args(arguments)
            .current_dir(dir.path()))
    };
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", "ed25519.key"]);
    openssl(&[
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-out",
        "sec1.key",
    ]);
    openssl(&[
        "pkcs8", "-topk8", "-nocrypt", "-in", "sec1.key", "-out", "p256.key",
    ]);
    fs::write(at("roadstead.json"), "{\"version\":1}\n").unwrap();
    let table = fs::read(at("roadstead.json")).unwrap();
    for key in ["ed25519", "sec1", "p256"] {
        let private = fs::read(at(&format!("{key}.key"))).unwrap();
        let public = format!("{key}.pub");
        openssl(&[
            "pkey",
            "-in",
            &format!("{key}.key"),
            "-pubout",
            "-out",
            &public,
        ]);
        let signature = SigningKey::from_pem(&private)
            .unwrap()
            .sign(&table)
            .unwrap();
        let public_key = PublicKey::from_pem(&fs::read(at(&public)).unwrap()).unwrap();
        verify(&public_key, &table, &signature).unwrap();
        fs::write(at("roadstead.json.sig"), &signature).unwrap();
        let mut cosign = Command::new(tool("cosign"));
        cosign
            .current_dir(dir.path())
            .env("HOME", dir.path())
            .args(["verify-blob", "--insecure-ignore-tlog", "--key", &public])
            .args(["--signature", "roadstead.json.sig", "roadstead.json"]);
        run(&mut cosign);
    }
    // What cosign signs, by its own encrypted key, is a signature of ours.
    let cosign = |arguments: &[&str]| {
        let mut cosign = Command::new(tool("cosign"));
        cosign
            .current_dir(dir.path())
            .env("HOME", dir.path())
            .env("COSIGN_PASSWORD", "")
            .args(arguments);
        run(&mut cosign)
    };
    cosign(&["generate-key-pair"]);
    let error = SigningKey::from_pem(&fs::read(at("cosign.key")).unwrap()).unwrap_err();
    assert!(error.to_string().contains("encrypted"), "{error}");
    cosign(&[
        "sign-blob",
        "-y",
        "--tlog-upload=false",
        "--key",
        "cosign.key",
        "--output-signature",
        "theirs.sig",
        "roadstead.json",
    ]);
    let public_key = PublicKey::from_pem(&fs::read(at("cosign.pub")).unwrap()).unwrap();
    verify(&public_key, &table, &fs::read(at("theirs.sig")).unwrap()).unwrap();
}
