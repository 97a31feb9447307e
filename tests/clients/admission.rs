//! Images that the real cosign signed, did not sign, or signed with another key, behind a remote that wants a signature.

use std::path::Path;
use std::process::Command;

use http::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;

use crate::parts::{run, tool};
use crate::support::image::{self, Flavour, Image};
use crate::support::{Mirror, Remote};

fn cosign(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool("cosign"));
    command
        .current_dir(dir)
        .env("HOME", dir)
        .env("COSIGN_PASSWORD", "")
        .env("COSIGN_EXPERIMENTAL", "1")
        .args(arguments);
    command
}

fn key_pair() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    run(&mut cosign(dir.path(), &["generate-key-pair"]));
    dir
}

fn sign(key: &TempDir, reference: &str, more: &[&str]) {
    let arguments = [
        "sign",
        "--key",
        "cosign.key",
        "--tlog-upload=false",
        "--allow-http-registry",
        "-y",
    ];
    run(&mut cosign(
        key.path(),
        &[&arguments[..], more, &[reference]].concat(),
    ));
}

fn crane(arguments: &[&str]) -> Command {
    let mut command = Command::new(tool("crane"));
    command.arg("--insecure").args(arguments);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_cosign_signed_with_the_key_is_admitted() {
    let origin = Mirror::with(&[], "[local.dev-local]\n").await;
    let client = origin.client();
    let [good, referring, unsigned, wrong] =
        [1, 2, 3, 4].map(|seed| image::small(Flavour::Oci, seed));
    let both = image::multi_platform(Flavour::Docker, 5, 50_000);
    let tagged: [(&str, &Image); 5] = [
        ("good", &good),
        ("referring", &referring),
        ("unsigned", &unsigned),
        ("wrong", &wrong),
        ("both", &both),
    ];
    for (tag, image) in tagged {
        client.push("dev-local/team/app", tag, image).await;
    }
    let (key, other) = (key_pair(), key_pair());
    let at = |image: &Image| format!("{}/dev-local/team/app@{}", origin.address(), image.digest());
    sign(&key, &at(&good), &[]);
    sign(&key, &at(&both), &[]);
    sign(
        &key,
        &at(&referring),
        &["--registry-referrers-mode=oci-1-1"],
    );
    sign(&other, &at(&wrong), &[]);

    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(key.path().join("cosign.pub"), dir.path().join("cosign.pub")).unwrap();
    let data = dir.path().join("data");
    let remote = Remote {
        key: "signed-io",
        url: format!("{}/dev-local", origin.url()),
        serves: "signed.io",
        more: "tag_ttl = \"0s\"\nnegative_ttl = \"0s\"\nadmit = { cosign_key = \"cosign.pub\" }"
            .to_owned(),
    };
    let mirror = Mirror::in_directory(dir, data, &[remote], "[local.prod-local]\n").await;
    let pulled = |reference: &str| format!("{}/signed-io/team/app{reference}", mirror.address());
    for (tag, image) in tagged {
        let is_good = matches!(tag, "good" | "both" | "referring");
        for reference in [format!(":{tag}"), format!("@{}", image.digest())] {
            let validated = crane(&["validate", "--remote", &pulled(&reference)])
                .output()
                .unwrap();
            let words = String::from_utf8_lossy(&validated.stderr).into_owned();
            assert_eq!(validated.status.success(), is_good, "{reference} {words}");
            assert!(is_good || words.contains("DENIED"), "{words}");
        }
        let body = json!({ "targetRepo": "prod-local", "dockerRepository": "team/app",
            "tag": tag, "copy": true });
        let path = "/artifactory/api/docker/signed-io/v2/promote";
        let headers = [("content-type", "application/json")];
        let promoted = mirror
            .client()
            .send_body(Method::POST, path, &headers, body.to_string().into())
            .await;
        let expected = if is_good {
            StatusCode::OK
        } else {
            StatusCode::FORBIDDEN
        };
        assert_eq!(promoted.status, expected, "{tag} {promoted:?}");
    }
    // Who pulls through it can verify too, and so can who pulls what was promoted.
    let promoted = format!("{}/prod-local/team/app:good", mirror.address());
    for reference in [pulled(":good"), pulled(":both"), promoted] {
        let arguments = [
            "verify",
            "--key",
            "cosign.pub",
            "--insecure-ignore-tlog=true",
            "--allow-http-registry",
            &reference,
        ];
        run(&mut cosign(key.path(), &arguments));
    }
    // A tag that moves to what nobody signed goes on meaning what was signed; once that is signed, it moves.
    client.push("dev-local/team/app", "good", &unsigned).await;
    let digest = || {
        let out = run(&mut crane(&["digest", &pulled(":good")]));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(digest(), good.digest());
    sign(&key, &at(&unsigned), &[]);
    assert_eq!(digest(), unsigned.digest());
}
