//! Bundles: carried out of a mirror that can ask, into one that can ask nobody. Everything by the real binary; what counts is what a client
//! pulls on the other side, and what was asked of the upstream of this one.

mod attacks;
mod busy;
mod carried;
mod difference;
mod document;
mod files;
mod interrupted;
mod room;
mod targets;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::image::{self, Image};
use crate::support::{Client, Mirror, Remote, Upstream};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The program, on the configuration and data of a mirror that may run or not.
fn command(mirror: &Mirror, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
    command
        .args(arguments)
        .arg("-c")
        .arg(mirror.configuration())
        .arg("--data")
        .arg(mirror.data())
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

fn run(mirror: &Mirror, arguments: &[&str]) -> Output {
    command(mirror, arguments).output().unwrap()
}

/// What a command prints that goes well.
fn said(mirror: &Mirror, arguments: &[&str]) -> String {
    let output = run(mirror, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command complains of that does not.
fn complaint(mirror: &Mirror, arguments: &[&str]) -> String {
    let output = run(mirror, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The result of a command with `--json`: its last line. Every line is JSON.
fn result(output: &Output) -> Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.next_back().unwrap_or_else(|| panic!("{output:?}"))
}

fn told(mirror: &Mirror, arguments: &[&str]) -> Value {
    let output = run(mirror, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    result(&output)
}

/// The outcomes of an import, by image.
fn outcomes(report: &Value) -> BTreeMap<String, String> {
    let images = report["images"].as_array().unwrap().iter();
    images
        .map(|one| {
            let outcome = one["outcome"].as_str().unwrap_or("none").to_owned();
            (one["image"].as_str().unwrap().to_owned(), outcome)
        })
        .collect()
}

/// A mirror of Docker Hub that can ask nobody, the first thing that an air gap means.
async fn offline() -> Mirror {
    offline_with("").await
}

async fn offline_with(more: &str) -> Mirror {
    // Nobody listens there, and nobody would be asked.
    let hub = Remote::hub("http://127.0.0.1:9");
    Mirror::with(&[hub], &format!("[mirror]\noffline = true\n{more}")).await
}

async fn connected(upstream: &Upstream) -> Mirror {
    Mirror::of(&upstream.url()).await
}

/// A directory to carry things in.
struct Stick(TempDir);

impl Stick {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).unwrap()
    }

    /// The names of all that is on it, in order.
    fn names(&self) -> Vec<String> {
        names(self.0.path())
    }

    /// A pair of keys, made by openssl as an operator would.
    fn keys(&self, name: &str, algorithm: &str) -> (String, String) {
        let (private, public) = (
            self.at(&format!("{name}.key")),
            self.at(&format!("{name}.pub")),
        );
        let mut arguments = vec!["genpkey", "-algorithm", algorithm, "-out", &private];
        if algorithm == "EC" {
            arguments.extend(["-pkeyopt", "ec_paramgen_curve:P-256"]);
        }
        openssl(&arguments);
        openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
        (private, public)
    }
}

fn openssl(arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// All of an image, byte for byte, by tag and by digest.
async fn assert_pulls(client: &Client, name: &str, tag: &str, image: &Image) {
    for reference in [tag, image.digest()] {
        let answer = client.manifest(name, reference).await;
        assert!(
            answer.is(&image.root.bytes),
            "{name} {reference}: {} {:?}",
            answer.status,
            answer.body
        );
        assert_eq!(
            answer.header("content-type"),
            Some(image.root.media_type.as_str())
        );
    }
    for manifest in &image.manifests {
        let answer = client.manifest(name, &manifest.digest).await;
        assert!(
            answer.is(&manifest.bytes),
            "{name}@{}: {}",
            manifest.digest,
            answer.status
        );
    }
    for blob in &image.blobs {
        let answer = client.blob(name, &blob.digest).await;
        assert!(
            answer.is(&blob.bytes),
            "{name} {}: {}",
            blob.digest,
            answer.status
        );
    }
}

async fn status(client: &Client, name: &str, reference: &str) -> u16 {
    client.manifest(name, reference).await.status.as_u16()
}

/// The blobs that a bundle carries, by the names of its entries.
fn entries(path: &Path) -> Vec<String> {
    let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect()
}

fn blobs(path: &Path) -> Vec<String> {
    let all = entries(path).into_iter();
    all.filter_map(|name| {
        let hex = name.strip_prefix("blobs/sha256/")?;
        // The directory has an entry too.
        (!hex.is_empty()).then(|| format!("sha256:{hex}"))
    })
    .collect()
}

/// How many bytes an image has, each piece once.
fn size(image: &Image) -> u64 {
    let all = image.manifests.iter().chain(&image.blobs);
    let once: BTreeMap<_, _> = all.map(|one| (&one.digest, one.size())).collect();
    once.values().sum()
}

/// An entry of a bundle.
fn entry(path: &Path, name: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap() == PathBuf::from(name) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            return bytes;
        }
    }
    panic!("{} has no {name}", path.display());
}

/// A multi-platform image whose layers differ by seed.
fn several(seed: u64) -> Image {
    image::multi_platform(image::Flavour::Oci, seed, 100 * KIB)
}
