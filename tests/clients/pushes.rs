//! Each client pushes to a local repository, and what it pushed comes back.

use std::fs;
use std::process::Command;

use crate::parts::{Daemon, run, tool};
use crate::pulls::{Docker, Podman, containers_configuration};
use crate::support::Mirror;
use crate::support::image::{self, Flavour};

async fn mirror() -> Mirror {
    Mirror::with(&[], "[local.dev-local]\n[local.prod-local]\n").await
}

/// The digest that a reference has, as crane sees it; crane also checks everything below it.
fn validated(reference: &str) -> String {
    run(Command::new(tool("crane")).args(["validate", "--insecure", "--remote", reference]));
    let out = run(Command::new(tool("crane")).args(["digest", "--insecure", reference]));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker() {
    let mirror = mirror().await;
    let source = image::small(Flavour::Docker, 1);
    mirror.client().push("dev-local/source", "1", &source).await;
    let docker = Docker::start(&mirror.address().to_string());
    let at = |name: &str| format!("{}/{name}", mirror.address());
    run(docker.command().args(["pull", &at("dev-local/source:1")]));
    // A blob that the daemon knows from elsewhere is mounted, one that it does not is streamed.
    for target in ["dev-local/team/app:1", "prod-local/app:2"] {
        run(docker
            .command()
            .args(["tag", &at("dev-local/source:1"), &at(target)]));
        run(docker.command().args(["push", &at(target)]));
        validated(&at(target));
    }
    let again = run(docker.command().args(["push", &at("dev-local/team/app:1")]));
    assert!(String::from_utf8_lossy(&again.stdout).contains("Layer already exists"));
    run(docker
        .command()
        .args(["rmi", "--force", &at("prod-local/app:2")]));
    run(docker.command().args(["pull", &at("prod-local/app:2")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn podman() {
    let mirror = mirror().await;
    let source = image::small(Flavour::Oci, 1);
    mirror.client().push("dev-local/source", "1", &source).await;
    let podman = Podman::start(&mirror.address().to_string());
    let at = |name: &str| format!("{}/{name}", mirror.address());
    run(podman
        .command()
        .args(["pull", "--tls-verify=false", &at("dev-local/source:1")]));
    for format in ["oci", "v2s2"] {
        let target = at(&format!("dev-local/podman:{format}"));
        run(podman.command().args([
            "push",
            "--tls-verify=false",
            "--format",
            format,
            &at("dev-local/source:1"),
            &target,
        ]));
        validated(&target);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buildah() {
    let mirror = mirror().await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "what is in it").unwrap();
    fs::write(
        dir.path().join("Containerfile"),
        "FROM scratch\nCOPY file /file\n",
    )
    .unwrap();
    let buildah = |arguments: &[&str]| {
        run(Command::new("buildah")
            .env("TMPDIR", dir.path())
            .arg("--root")
            .arg(dir.path().join("root"))
            .arg("--runroot")
            .arg(dir.path().join("run"))
            .args(["--storage-driver", "vfs"])
            .args(arguments));
    };
    let context = dir.path().display().to_string();
    buildah(&["build", "--isolation", "chroot", "-t", "built", &context]);
    let target = format!("{}/dev-local/built:1", mirror.address());
    buildah(&[
        "push",
        "--tls-verify=false",
        "built",
        &format!("docker://{target}"),
    ]);
    validated(&target);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_and_crane() {
    let mirror = mirror().await;
    let source = image::multi_platform(Flavour::Docker, 1, 300_000);
    mirror.client().push("dev-local/source", "1", &source).await;
    let dir = tempfile::tempdir().unwrap();
    let (registries, policy) = containers_configuration(dir.path(), &mirror.address().to_string());
    let at = |name: &str| format!("{}/{name}", mirror.address());
    // Through a directory, so that every byte is pushed and none is mounted.
    let layout = format!("dir:{}", dir.path().join("layout").display());
    for (from, to) in [
        (
            format!("docker://{}", at("dev-local/source:1")),
            layout.clone(),
        ),
        (layout, format!("docker://{}", at("prod-local/skopeo:1"))),
    ] {
        run(Command::new("skopeo")
            .arg("--policy")
            .arg(&policy)
            .arg("--registries-conf")
            .arg(&registries)
            .args([
                "copy",
                "--all",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
            ])
            .args([from, to]));
    }
    assert_eq!(validated(&at("prod-local/skopeo:1")), source.digest());
    let crane = |arguments: &[&str]| {
        run(Command::new(tool("crane"))
            .arg("--insecure")
            .args(arguments));
    };
    crane(&["copy", &at("prod-local/skopeo:1"), &at("dev-local/crane:1")]);
    assert_eq!(validated(&at("dev-local/crane:1")), source.digest());
    crane(&["tag", &at("dev-local/crane:1"), "2"]);
    let child = source.child(0).digest.clone();
    let reference = format!("{}@{child}", at("dev-local/crane"));
    crane(&[
        "mutate",
        "--label",
        "a=b",
        "-t",
        &at("dev-local/crane:mutated"),
        &reference,
    ]);
    validated(&at("dev-local/crane:mutated"));
    let archive = dir.path().join("image.tar").display().to_string();
    crane(&[
        "pull",
        "--platform",
        "linux/amd64",
        &at("dev-local/crane:1"),
        &archive,
    ]);
    crane(&["push", &archive, &at("dev-local/crane:pushed")]);
    validated(&at("dev-local/crane:pushed"));
    crane(&["delete", &at("dev-local/crane:2")]);
    let left = run(Command::new(tool("crane")).args(["ls", "--insecure", &at("dev-local/crane")]));
    assert_eq!(
        String::from_utf8(left.stdout).unwrap(),
        "1\nmutated\npushed\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oras() {
    let mirror = mirror().await;
    let dir = tempfile::tempdir().unwrap();
    let oras = |arguments: &[&str]| {
        let out = run(Command::new(tool("oras"))
            .current_dir(dir.path())
            .env("HOME", dir.path())
            .args(arguments));
        String::from_utf8(out.stdout).unwrap()
    };
    fs::write(dir.path().join("chart.tgz"), "a chart").unwrap();
    fs::write(dir.path().join("sbom.json"), "{}").unwrap();
    let reference = format!("{}/dev-local/charts/app:1", mirror.address());
    // Nothing is refused for what it is.
    oras(&[
        "push",
        "--plain-http",
        "--artifact-type",
        "application/vnd.cncf.helm.config.v1+json",
        &reference,
        "chart.tgz:application/vnd.cncf.helm.chart.content.v1.tar+gzip",
    ]);
    oras(&[
        "attach",
        "--plain-http",
        "--artifact-type",
        "application/spdx+json",
        &reference,
        "sbom.json:application/spdx+json",
    ]);
    let found = oras(&["discover", "--plain-http", "--format", "json", &reference]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(
        found["manifests"][0]["artifactType"], "application/spdx+json",
        "{found}"
    );
    fs::create_dir(dir.path().join("out")).unwrap();
    oras(&["pull", "--plain-http", "-o", "out", &reference]);
    assert_eq!(
        fs::read(dir.path().join("out/chart.tgz")).unwrap(),
        b"a chart"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cosign() {
    let mirror = mirror().await;
    let image = image::small(Flavour::Oci, 1);
    mirror.client().push("dev-local/app", "1", &image).await;
    let dir = tempfile::tempdir().unwrap();
    let cosign = |arguments: &[&str]| {
        run(Command::new(tool("cosign"))
            .current_dir(dir.path())
            .env("HOME", dir.path())
            .env("COSIGN_PASSWORD", "")
            .args(arguments));
    };
    let reference = format!("{}/dev-local/app@{}", mirror.address(), image.digest());
    cosign(&["generate-key-pair"]);
    let key = [
        "--key",
        "cosign.key",
        "--tlog-upload=false",
        "--allow-http-registry",
        "-y",
    ];
    let public = [
        "--key",
        "cosign.pub",
        "--insecure-ignore-tlog=true",
        "--allow-http-registry",
    ];
    fs::write(dir.path().join("predicate.json"), "{}").unwrap();
    let custom = ["--type", "custom"];
    cosign(&[&["sign"][..], &key, &[&reference]].concat());
    cosign(&[&["verify"][..], &public, &[&reference]].concat());
    let predicate = ["--predicate", "predicate.json"];
    cosign(&[&["attest"][..], &key, &custom, &predicate, &[&reference]].concat());
    cosign(&[&["verify-attestation"][..], &public, &custom, &[&reference]].concat());
}

/// Builds, pushes image and cache, and builds again elsewhere out of that cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buildkit() {
    let mirror = mirror().await;
    let host = mirror.address().to_string();
    let context = tempfile::tempdir().unwrap();
    fs::write(context.path().join("file"), "what is in it").unwrap();
    fs::write(
        context.path().join("Dockerfile"),
        "FROM scratch AS one\nCOPY file /file\nFROM scratch\nCOPY --from=one /file /copy\n",
    )
    .unwrap();
    let mut steps = Vec::new();
    for round in ["first", "second"] {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let address = format!("unix://{}", at("sock"));
        let config = format!("[registry.\"{host}\"]\n  http = true\n");
        fs::write(at("buildkitd.toml"), config).unwrap();
        let mut command = Command::new(tool("buildkitd"));
        command.args(["--addr", &address, "--root", &at("root")]);
        command.args(["--config", &at("buildkitd.toml")]);
        command.args(["--containerd-worker=false", "--oci-worker-net=host"]);
        command.arg("--oci-worker-snapshotter=native");
        let mut daemon = Daemon::start(&mut command, dir.path().join("log"));
        let buildctl = |arguments: &[&str]| {
            Command::new(tool("buildctl"))
                .args(["--addr", &address])
                .args(arguments)
                .output()
                .unwrap()
        };
        daemon.wait(|| buildctl(&["debug", "workers"]).status.success());
        let local = format!("context={}", context.path().display());
        let dockerfile = format!("dockerfile={}", context.path().display());
        let output = format!("type=image,name={host}/dev-local/built:{round},push=true");
        let cache = format!("type=registry,ref={host}/dev-local/cache:1");
        let built = buildctl(&[
            "build",
            "--frontend=dockerfile.v0",
            "--progress=plain",
            "--local",
            &local,
            "--local",
            &dockerfile,
            "--output",
            &output,
            "--export-cache",
            &format!("{cache},mode=max"),
            "--import-cache",
            &cache,
        ]);
        let words = String::from_utf8_lossy(&built.stderr).into_owned();
        assert!(built.status.success(), "{words}");
        validated(&format!("{host}/dev-local/built:{round}"));
        steps.push(words.matches(" CACHED").count());
    }
    assert!(steps[0] == 0 && steps[1] >= 2, "cached steps: {steps:?}");
}
