//! Each client pushes over TLS, with an authority that only the client was told of.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::conformance::conforms;
use crate::parts::{run, tool};
use crate::pulls::{Docker, Podman};
use crate::support::Secure;
use crate::support::image::{self, Flavour};
use crate::support::tls::Authority;

struct Site {
    dir: TempDir,
    mirror: Secure,
    certificates: PathBuf,
    /// The authority's certificate.
    ca: PathBuf,
}

impl Site {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        authority.localhost().write(dir.path(), "mirror");
        let mirror = Secure::start(dir.path(), "[local.dev-local]\n");
        crate::eventually!(mirror.ask(&authority).await.is_some());
        let certificates = dir.path().join("certs");
        fs::create_dir(&certificates).unwrap();
        let ca = authority.write(&certificates);
        Self {
            dir,
            mirror,
            certificates,
            ca,
        }
    }

    fn at(&self, name: &str) -> String {
        format!("{}/dev-local/{name}", self.mirror.host())
    }

    /// A tool of ours that trusts the authority as Go programs do.
    fn go(&self, name: &str, arguments: &[&str]) -> String {
        let out = run(Command::new(tool(name))
            .current_dir(self.dir.path())
            .env("SSL_CERT_FILE", &self.ca)
            .env("HOME", self.dir.path())
            .env("COSIGN_PASSWORD", "")
            .args(arguments));
        String::from_utf8(out.stdout).unwrap()
    }

    /// An image out of nothing but a layer, pushed by crane.
    fn push(&self, name: &str) -> String {
        let packed = [image::noise_layer(image::Packing::Plain, 1, 100_000)];
        let packed = image::image(Flavour::Oci, "amd64", &packed);
        fs::write(self.dir.path().join("layer.tar"), &packed.layers()[0].bytes).unwrap();
        let target = self.at(name);
        self.go("crane", &["append", "-f", "layer.tar", "-t", &target]);
        self.validated(name);
        target
    }

    fn validated(&self, name: &str) {
        self.go("crane", &["validate", "--remote", &self.at(name)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crane_skopeo_oras_and_cosign() {
    let site = Site::start().await;
    let reference = site.push("app:1");
    let policy = site.dir.path().join("policy.json");
    let anything = "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}";
    fs::write(&policy, anything).unwrap();
    let directory = format!("dir:{}", site.dir.path().join("image").display());
    for (from, to) in [
        (format!("docker://{reference}"), directory.clone()),
        (directory, format!("docker://{}", site.at("skopeo:1"))),
    ] {
        let mut skopeo = Command::new("skopeo");
        skopeo.arg("--policy").arg(&policy).arg("copy");
        for side in ["--src-cert-dir", "--dest-cert-dir"] {
            skopeo.arg(side).arg(&site.certificates);
        }
        run(skopeo.args([from, to]));
    }
    site.validated("skopeo:1");
    fs::write(site.dir.path().join("sbom.json"), "{}").unwrap();
    let kind = ["--artifact-type", "application/spdx+json"];
    site.go(
        "oras",
        &[&["attach"][..], &kind, &[&reference, "sbom.json"]].concat(),
    );
    let found = site.go("oras", &["discover", "--format", "json", &reference]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(
        found["manifests"][0]["artifactType"],
        "application/spdx+json"
    );
    let digest = site.go("crane", &["digest", &reference]);
    let reference = format!("{}@{}", site.at("app"), digest.trim());
    site.go("cosign", &["generate-key-pair"]);
    let sign = ["sign", "--key", "cosign.key", "--tlog-upload=false", "-y"];
    site.go("cosign", &[&sign[..], &[&reference]].concat());
    let verify = [
        "verify",
        "--key",
        "cosign.pub",
        "--insecure-ignore-tlog=true",
    ];
    site.go("cosign", &[&verify[..], &[&reference]].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker() {
    let site = Site::start().await;
    let source = site.push("app:1");
    let docker = Docker::start(&site.mirror.host());
    run(docker.command().args(["pull", &source]));
    run(docker
        .command()
        .args(["tag", &source, &site.at("docker:1")]));
    run(docker.command().args(["push", &site.at("docker:1")]));
    site.validated("docker:1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn podman_and_buildah() {
    let site = Site::start().await;
    let source = site.push("app:1");
    let certificates = site.certificates.display().to_string();
    let podman = Podman::start(&site.mirror.host());
    let trusting = ["--cert-dir", &certificates];
    run(podman.command().arg("pull").args(trusting).arg(&source));
    let target = site.at("podman:1");
    run(podman
        .command()
        .arg("push")
        .args(trusting)
        .args([&source, &target]));
    site.validated("podman:1");
    let buildah = |arguments: &[&str]| {
        run(Command::new("buildah")
            .env("TMPDIR", site.dir.path())
            .arg("--root")
            .arg(site.dir.path().join("root"))
            .arg("--runroot")
            .arg(site.dir.path().join("run"))
            .args(["--storage-driver", "vfs"])
            .args(arguments));
    };
    fs::write(
        site.dir.path().join("Containerfile"),
        "FROM scratch\nCOPY layer.tar /\n",
    )
    .unwrap();
    let context = site.dir.path().display().to_string();
    buildah(&["build", "--isolation", "chroot", "-t", "built", &context]);
    let target = format!("docker://{}", site.at("buildah:1"));
    buildah(&[&["push"][..], &trusting, &["built", &target]].concat());
    site.validated("buildah:1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_conformance_suite() {
    let site = Site::start().await;
    conforms(
        &format!("https://{}", site.mirror.host()),
        "dev-local",
        "tls",
        Some(&site.ca),
    );
}

const RULES: &str = r#"
[local.dev-local]
[auth]
[[auth.allow]]
who = ["builder"]
on = ["dev-local"]
may = ["pull", "push"]
"#;

/// The client's certificate is the only login that there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_podman_and_curl_with_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, clients) = (Authority::new(), Authority::new());
    authority.localhost().write(dir.path(), "mirror");
    clients.write(dir.path());
    let mirror = Secure::start_with(dir.path(), ", client_ca = \"ca.crt\"", RULES);
    crate::eventually!(mirror.ask(&authority).await.is_some());
    let show = |name: &str, user: &str| {
        let certificates = dir.path().join(name);
        fs::create_dir(&certificates).unwrap();
        authority.write(&certificates);
        let shown = clients.client(user);
        fs::write(certificates.join("client.cert"), shown.certificate).unwrap();
        fs::write(certificates.join("client.key"), shown.key).unwrap();
        certificates
    };
    let (builder, stranger) = (show("builder", "builder"), show("stranger", "stranger"));
    let policy = dir.path().join("policy.json");
    let anything = "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}";
    fs::write(&policy, anything).unwrap();

    // Something to push, by a mirror without rules.
    let source = Site::start().await;
    let image = source.push("app:1");
    let push = |certificates: &PathBuf| {
        let mut command = Command::new("skopeo");
        command.arg("--policy").arg(&policy).arg("copy");
        command.arg("--src-cert-dir").arg(&source.certificates);
        command.arg("--dest-cert-dir").arg(certificates);
        command.arg(format!("docker://{image}"));
        command.arg(format!("docker://{}/dev-local/app:1", mirror.host()));
        command
    };
    assert!(!push(&stranger).output().unwrap().status.success());
    run(&mut push(&builder));
    let podman = Podman::start(&mirror.host());
    let name = format!("{}/dev-local/app:1", mirror.host());
    run(podman
        .command()
        .arg("pull")
        .arg("--cert-dir")
        .arg(&builder)
        .arg(&name));

    // By hand, at the token endpoint.
    let mut curl = Command::new("curl");
    curl.args(["-sf", "--cert"])
        .arg(builder.join("client.cert"));
    curl.arg("--key").arg(builder.join("client.key"));
    curl.arg("--cacert").arg(builder.join("ca.crt"));
    let url = format!(
        "https://{}/v2/token?scope=repository:dev-local/app:pull",
        mirror.host()
    );
    let answer = run(curl.arg(url));
    assert!(
        String::from_utf8(answer.stdout)
            .unwrap()
            .contains("\"token\"")
    );
}
