//! Bundles of `roadstead export` in the tools of others, and their archives in `roadstead import`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Ctr, Network, several};
use crate::parts::{run, tool};
use crate::pulls::{Docker, Podman};
use crate::support::Mirror;
use crate::support::image::{self, Flavour, Image, Packing};

/// The result of a command.
fn roadstead(mirror: &Mirror, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
    command.args(arguments).arg("--json").arg("-c");
    let data = command.arg(mirror.configuration()).arg("--data");
    let output = run(data.arg(mirror.data()));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().next_back().unwrap()).unwrap()
}

/// A bundle as `roadstead export` writes it, of images that were pushed to a mirror.
async fn exported(dir: &Path, images: &[(&str, &Image)], more: &[&str]) -> PathBuf {
    let mirror = Mirror::with(&[], "[local.dev-local]\n").await;
    let path = dir.join("bundle.tar");
    let mut names = Vec::new();
    for (name, image) in images {
        let (name, tag) = name.split_once(':').unwrap();
        let name = format!("dev-local/{name}");
        mirror.client().push(&name, tag, image).await;
        names.push(format!("{name}:{tag}"));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let output = path.display().to_string();
    roadstead(
        &mirror,
        &[&["export", "-o", &output][..], more, &names].concat(),
    );
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tools_of_others_read_what_export_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (app, tools) = (several(1), image::small(Flavour::Oci, 50));
    let images = [("team/app:1", &app), ("team/tools:2", &tools)];
    let both = exported(dir.path(), &images, &[]).await;
    let both = both.display();
    for (place, (name, image)) in images.iter().enumerate() {
        let out = dir.path().join(format!("out{place}"));
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--all"]);
        skopeo.arg(format!("oci-archive:{both}:dev-local/{name}"));
        run(skopeo.arg(format!("dir:{}", out.display())));
        let manifest = fs::read(out.join("manifest.json")).unwrap();
        assert_eq!(image::sha256(&manifest), image.digest(), "{name}");
    }
    let podman = Podman::start("127.0.0.1:1");
    let from = format!("oci-archive:{both}:dev-local/team/tools:2");
    run(podman.command().args(["pull", "--quiet", &from]));

    let network = Network::new();
    let ctr = Ctr::start(&network);
    let import = ["image", "import", "--snapshotter", "native"];
    let mut command = ctr.command();
    command.args(import).arg("--all-platforms");
    run(command.arg(both.to_string()));
    let listed = ctr.says(&["images", "ls"]);
    for (_, image) in &images {
        assert!(listed.contains(image.digest()), "{listed}");
    }

    let one = tempfile::tempdir().unwrap();
    let single = exported(one.path(), &images[1..], &[]).await;
    run(podman.command().args(["load", "-i"]).arg(&single));
    let third = tempfile::tempdir().unwrap();
    let directory = exported(third.path(), &images[..1], &["--directory"]).await;
    let target = Mirror::with(&[], "[local.dev-local]\n").await;
    let to = format!("{}/dev-local/team/app:1", target.address());
    let mut crane = Command::new(tool("crane"));
    run(crane.args(["--insecure", "push"]).arg(&directory).arg(&to));
    assert!(target.client().has("dev-local/team/app", "1", &app).await);
}

/// Whether a mirror has an image whose layers, unpacked, are these, by a manifest that crane takes.
async fn assert_valid(mirror: &Mirror, name: &str, image: &Image, case: &str) {
    let reference = format!("{}/{name}:1", mirror.address());
    let mut validate = Command::new(tool("crane"));
    validate.args(["--insecure", "validate", "--fast", "--remote"]);
    run(validate.arg(&reference));
    let client = mirror.client();
    let manifest = client.manifest(name, "1").await.json();
    let config = manifest["config"]["digest"].as_str().unwrap();
    let config = client.blob(name, config).await.json();
    let mut unpacked = Vec::new();
    for layer in manifest["layers"].as_array().unwrap() {
        let blob = client.blob(name, layer["digest"].as_str().unwrap()).await;
        assert_eq!(layer["size"], blob.body.len(), "{case}");
        let is_packed = layer["mediaType"].as_str().unwrap().ends_with("gzip");
        unpacked.push(if is_packed {
            unpack(&blob.body)
        } else {
            image::sha256(&blob.body)
        });
    }
    assert_eq!(config["rootfs"]["diff_ids"], Value::from(unpacked.clone()));
    let ours = image.layers().into_iter().map(|layer| unpack(&layer.bytes));
    assert_eq!(unpacked, ours.collect::<Vec<_>>(), "{case}");
}

fn unpack(bytes: &[u8]) -> String {
    let (mut tar, mut decoder) = (Vec::new(), flate2::read::GzDecoder::new(bytes));
    std::io::Read::read_to_end(&mut decoder, &mut tar).unwrap();
    image::sha256(&tar)
}

fn skopeo(arguments: &[&str]) {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--insecure-policy", "copy", "--src-tls-verify=false"]);
    run(skopeo.args(arguments));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_of_others_are_imported_and_served() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let layer = |seed| image::noise_layer(Packing::Gzip, seed, 100_000);
    let app = image::image(Flavour::Oci, "amd64", &[layer(1), layer(2)]);
    let multi = several(10);
    let origin = Mirror::with(&[], "[local.dev-local]\n").await;
    let client = origin.client();
    client.push("dev-local/team/app", "1", &app).await;
    client.push("dev-local/team/multi", "1", &multi).await;
    let host = origin.address();
    let from = |name: &str| format!("docker://{host}/dev-local/team/{name}:1");
    let named = "docker.io/team/app:1";
    let (mut whole, mut made) = (Vec::new(), Vec::new());

    let path = at("skopeo-oci.tar");
    let to = format!("oci-archive:{path}:docker.io/team/multi:1");
    skopeo(&["--all", &from("multi"), &to]);
    // As hauler packs a store: a layout, compressed by zstd, in the order of the directory.
    let (layout, hauled) = (at("layout"), at("haul.tar.zst"));
    fs::create_dir(&layout).unwrap();
    run(Command::new("tar").args(["-xf", &path, "-C", &layout]));
    run(Command::new("tar").args(["--zstd", "-cf", &hauled, "-C", &layout, "."]));
    whole.extend([path, hauled, layout]);

    let saved = at("skopeo-docker.tar");
    let to = format!("docker-archive:{saved}:{named}");
    skopeo(&[&from("app"), &to]);
    for format in ["tarball", "legacy", "oci"] {
        let path = at(&format!("crane-{format}"));
        let mut crane = Command::new(tool("crane"));
        crane.args(["--insecure", "pull", "--format", format]);
        run(crane.arg(format!("{host}/dev-local/team/app:1")).arg(&path));
        made.push(path);
    }
    let podman = Podman::start("127.0.0.1:1");
    run(podman.command().args(["load", "-i", &saved]));
    for format in ["docker-archive", "oci-archive"] {
        let path = at(&format!("podman-{format}.tar"));
        let save = ["save", "--format", format, "-o", &path, named];
        run(podman.command().args(save));
        made.push(path);
    }
    let docker = Docker::start("127.0.0.1:1");
    run(docker.command().args(["load", "-i", &saved]));
    let path = at("docker.tar");
    run(docker.command().args(["save", "-o", &path, "team/app:1"]));
    made.extend([path, saved]);

    let mirror = Mirror::with(&[], "[local.prod-local]\n").await;
    let all = whole.iter().map(|path| (path, &multi));
    let all = all.chain(made.iter().map(|path| (path, &app)));
    for (number, (path, image)) in all.enumerate() {
        let name = format!("docker.io/team/app{number}:1");
        let import = ["import", "--to", "prod-local", "--name", &name, path];
        let report = roadstead(&mirror, &import);
        assert_eq!(report["images"][0]["outcome"], "imported", "{path}");
        let there = format!("prod-local/team/app{number}");
        if whole.contains(path) {
            assert!(mirror.client().has(&there, "1", image).await, "{path}");
        } else {
            assert_valid(&mirror, &there, image, path).await;
        }
    }
}
