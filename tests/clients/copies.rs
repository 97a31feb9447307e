//! `roadstead copy` and `sync --to` push to Debian's `docker-registry`, open and behind a token server, and skopeo finds there what they pushed.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::parts::{Registry, TokenServer, run};
use crate::support::image::{self, Content, Flavour, OCI_INDEX};
use crate::support::{Client, Mirror, Remote, Upstream};

const WRITES: [&str; 3] = ["POST", "PATCH", "PUT"];

/// A command on the mirror's store, with a Docker configuration of its own and a line on standard input.
fn roadstead(mirror: &Mirror, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(arguments)
        .arg("-c")
        .arg(mirror.configuration())
        .arg("--data")
        .arg(mirror.data())
        .env("DOCKER_CONFIG", mirror.configuration().parent().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that is refused does not read it.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

fn result(output: &Output, code: i32) -> Value {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(printed.lines().last().unwrap()).unwrap()
}

fn told(mirror: &Mirror, arguments: &[&str], code: i32) -> Value {
    let mut all = arguments.to_vec();
    all.push("--json");
    result(&roadstead(mirror, &all, ""), code)
}

/// skopeo fetches all of it and compares every digest.
fn fetch(registry: &Registry, image: &str, more: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new("skopeo")
        .args(["copy", "--src-tls-verify=false"])
        .args(more)
        .arg(format!("docker://{}/{image}", registry.host()))
        .arg(format!("oci:{}", dir.path().display())));
}

fn client(registry: &Registry) -> Client {
    Client::new(registry.host().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_copied_once_is_not_sent_again() {
    let upstream = Upstream::start().await;
    let app = image::multi_platform(Flavour::Oci, 1, 9_000_000);
    upstream.hold("library/app", "1", &app);
    upstream.hold("library/twin", "1", &app);
    let registry = Registry::start().await;
    let mirror = Mirror::of(&upstream.url()).await;
    let to = format!("{}/team/app:9", registry.host());
    let first = told(&mirror, &["copy", "app:1", &to], 0);
    let line = &first["images"][0];
    assert_eq!(
        (&line["outcome"], &line["to"], &line["digest"]),
        (&json!("copied"), &json!(to), &json!(app.digest()))
    );
    let bytes: u64 = app
        .manifests
        .iter()
        .chain(&app.blobs)
        .map(Content::size)
        .sum();
    assert_eq!(line["bytes"], bytes);
    fetch(&registry, "team/app:9", &["--all"]);
    // Nothing is kept for its sake.
    let pins = roadstead(&mirror, &["pins", "--json"], "");
    assert_eq!(result(&pins, 0)["pins"], json!([]));

    let written = registry.answered(&WRITES);
    assert!(written > 0);
    let again = told(&mirror, &["copy", "app:1", &to], 0);
    let line = &again["images"][0];
    assert_eq!(
        (&line["outcome"], &line["bytes"], &line["pushed"]),
        (&json!("unchanged"), &json!(0), &json!(0))
    );
    assert_eq!(
        registry.answered(&WRITES),
        written,
        "not a byte, and not a tag"
    );

    // Two images of the same layers: the second takes them from the first.
    let all = format!("{}/mirror", registry.host());
    let synced = told(&mirror, &["sync", "app:1", "twin:1", "--to", &all], 0);
    let lines = synced["images"].as_array().unwrap();
    assert_eq!(lines[1]["mounted"], app.blobs.len(), "{synced}");
    let manifests: u64 = app.manifests.iter().map(Content::size).sum();
    assert_eq!(lines[1]["bytes"], manifests);
    for name in ["app", "twin"] {
        fetch(&registry, &format!("mirror/library/{name}:1"), &["--all"]);
    }
    // A tag that stands for something else moves.
    let next = image::small(Flavour::Docker, 3);
    upstream.hold("library/app", "1", &next);
    let moved = told(&mirror, &["copy", "app:1", &to], 0);
    assert_eq!(moved["images"][0]["digest"], next.digest());
    let there = client(&registry).manifest("team/app", "9").await;
    assert!(there.is(&next.root.bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_and_what_is_about_an_image() {
    let upstream = Upstream::start().await;
    let app = image::multi_platform(Flavour::Oci, 1, 3_000);
    upstream.hold("library/app", "1", &app);
    let sbom = image::artifact(Some(&app.root), "application/spdx+json", b"sbom");
    upstream.hold("library/app", sbom.digest(), &sbom);
    let list = Content::json(
        OCI_INDEX,
        &json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [sbom.root.descriptor()]}),
    );
    upstream.hold_path(
        &format!("/v2/library/app/referrers/{}", app.digest()),
        &list,
    );
    let cosign = image::artifact(None, "application/vnd.cosign", b"signature");
    let plain = app.digest().replace(':', "-");
    upstream.hold("library/app", &format!("{plain}.sig"), &cosign);
    let registry = Registry::start().await;
    let mirror = Mirror::of(&upstream.url()).await;
    let at = |name: &str| format!("{}/{name}", registry.host());

    // One platform is an image by itself; of two there is no whole index.
    let one = told(
        &mirror,
        &[
            "copy",
            "app:1",
            &at("team/one:1"),
            "--platform",
            "linux/arm64",
        ],
        0,
    );
    assert_eq!(one["images"][0]["digest"], app.child(1).digest);
    fetch(&registry, "team/one:1", &["--override-arch", "arm64"]);
    let three = image::index(
        Flavour::Oci,
        &["amd64", "arm64", "s390x"].map(|arch| {
            image::image(
                Flavour::Oci,
                arch,
                &[image::empty_layer(image::Packing::Gzip)],
            )
        }),
    );
    upstream.hold("library/three", "1", &three);
    let arguments = [
        "sync",
        "three:1",
        "--platform",
        "linux/amd64",
        "--platform",
        "linux/arm64",
        "--to",
        &at("some"),
    ];
    let two = told(&mirror, &arguments, 1);
    let error = two["images"][0]["error"].as_str().unwrap();
    assert!(
        error.contains("takes an index only with all of them"),
        "{error}"
    );
    assert_eq!(
        client(&registry)
            .manifest("some/library/three", "1")
            .await
            .status
            .as_u16(),
        404
    );

    // This registry lists no referrers, so the list stands under a tag, with what was in it before.
    let other = image::artifact(Some(&app.root), "application/other", b"other");
    registry.push("team/whole", "first", &app).await;
    registry.push("team/whole", "other", &other).await;
    let listed = Content::json(
        OCI_INDEX,
        &json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [other.root.descriptor()]}),
    );
    let put = client(&registry)
        .put_manifest("team/whole", &plain, &listed)
        .await;
    assert_eq!(put.status.as_u16(), 201, "{put:?}");
    told(
        &mirror,
        &["copy", "app:1", &at("team/whole:1"), "--with-referrers"],
        0,
    );
    let list = client(&registry)
        .manifest("team/whole", &plain)
        .await
        .json();
    let digests: Vec<&str> = list["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["digest"].as_str().unwrap())
        .collect();
    assert_eq!(digests, [other.digest(), sbom.digest()]);
    assert_eq!(
        list["manifests"][1]["artifactType"],
        "application/spdx+json"
    );
    let signature = client(&registry)
        .manifest("team/whole", &format!("{plain}.sig"))
        .await;
    assert!(signature.is(&cosign.root.bytes));
    let written = registry.answered(&WRITES);
    let again = told(
        &mirror,
        &["copy", "app:1", &at("team/whole:1"), "--with-referrers"],
        0,
    );
    assert_eq!(again["images"][0]["outcome"], "unchanged");
    assert_eq!(registry.answered(&WRITES), written);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_login_is_the_remotes_or_named_or_kept_by_docker() {
    let upstream = Upstream::start().await;
    let app = image::small(Flavour::Docker, 1);
    upstream.hold("library/app", "1", &app);
    let mut registry = Registry::start().await;
    let tokens = TokenServer::start();
    registry.protect(&tokens);
    let to = |tag: &str| format!("{}/team/app:{tag}", registry.host());
    let token_host = tokens.host();
    let mirror = Mirror::of(&upstream.url()).await;
    let nobody = told(
        &mirror,
        &["copy", "app:1", &to("nobody"), "--token-host", &token_host],
        1,
    );
    assert_eq!(nobody["images"][0]["outcome"], "failed");
    let named = |tag: &str, password: &str| {
        let to = to(tag);
        let arguments = [
            "copy",
            "app:1",
            &to,
            "--token-host",
            &token_host,
            "--username",
            "admin",
            "--password-stdin",
            "--json",
        ];
        roadstead(&mirror, &arguments, password)
    };
    assert_eq!(
        named("wrong", "wrong-s3cret-canary\n").status.code(),
        Some(1)
    );
    result(&named("named", "admin-s3cret-canary\n"), 0);
    // What `docker login` keeps.
    let config =
        json!({"auths": {registry.host(): {"auth": base64(b"admin:admin-s3cret-canary")}}});
    let kept = mirror.configuration().with_file_name("config.json");
    std::fs::write(&kept, config.to_string()).unwrap();
    told(
        &mirror,
        &["copy", "app:1", &to("kept"), "--token-host", &token_host],
        0,
    );
    std::fs::remove_file(&kept).unwrap();
    drop(mirror);
    // A remote with that host has a login of its own.
    let more = format!(
        "credentials = {{ username = \"admin\", password_file = \"password\" }}\ntoken_hosts = [\"{token_host}\"]\n"
    );
    let there = Remote {
        key: "there",
        url: registry.url(),
        serves: "there.example",
        more,
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), "admin-s3cret-canary\n").unwrap();
    let data = dir.path().join("data");
    let mirror = Mirror::in_directory(dir, data, &[Remote::hub(&upstream.url()), there], "").await;
    told(&mirror, &["copy", "app:1", &to("configured")], 0);
    let login = ["--src-creds", "admin:admin-s3cret-canary"];
    for tag in ["named", "kept", "configured"] {
        fetch(&registry, &format!("team/app:{tag}"), &login);
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}
