//! What was carried is there: by tag and digest, with all platforms or some, with signatures, offline, whoever has the store meanwhile.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::support::image::{Content, Flavour, OCI_INDEX, OCI_MANIFEST};

#[tokio::test(flavor = "multi_thread")]
async fn an_index_pulls_offline_as_upstream_had_it_and_again_is_nothing_new() {
    let upstream = Upstream::start().await;
    let (nginx, app) = (several(1), image::small(Flavour::Docker, 2));
    upstream.hold("library/nginx", "1", &nginx);
    upstream.hold("team/app", "v1", &app);
    let (here, there) = (connected(&upstream).await, offline().await);
    let stick = Stick::new();
    let bundle = stick.at("bundle.tar");
    let wanted = ["nginx:1", "docker.io/team/app:v1"];
    // Nothing is written by a rehearsal, and what it says is what comes.
    let mut dry = vec!["export", "--dry-run", "--json", "-o", &bundle];
    dry.extend(wanted);
    let dry = told(&here, &dry);
    assert!(stick.names().is_empty(), "{:?}", stick.names());
    let mut export = vec!["export", "--json", "-o", &bundle];
    export.extend(wanted);
    let done = told(&here, &export);
    assert_eq!(done["files"], json!([bundle]));
    for key in ["images", "blobs", "bytes", "bundleBytes", "omittedBlobs"] {
        assert_eq!(dry[key], done[key], "{key}");
    }
    let count = nginx.manifests.len() + nginx.blobs.len() + app.manifests.len() + app.blobs.len();
    assert_eq!(done["blobs"], count);
    assert_eq!(done["bytes"], size(&nginx) + size(&app));
    assert_eq!(
        done["bundleBytes"],
        std::fs::metadata(&bundle).unwrap().len()
    );
    for blob in &nginx.blobs {
        assert_eq!(upstream.count("GET", &blob.digest), 1, "asked for once");
    }
    // What is there is not written over.
    let again = complaint_2(&here, &["export", "-o", &bundle, "nginx:1"]);
    assert!(again.contains("is there already"), "{again}");

    let client = there.client();
    let would = told(&there, &["import", "--dry-run", "--json", &bundle]);
    assert_eq!(would["wanted"].as_array().unwrap().len(), count);
    assert_eq!(status(&client, "library/nginx", "1").await, 404);
    assert!(there.files("blobs").is_empty());
    let report = told(&there, &["import", "--json", &bundle]);
    let expected = |outcome: &str| {
        let names = ["docker.io/library/nginx:1", "docker.io/team/app:v1"];
        BTreeMap::from(names.map(|name| (name.to_owned(), outcome.to_owned())))
    };
    assert_eq!(outcomes(&report), expected("imported"));
    assert_pulls(&client, "library/nginx", "1", &nginx).await;
    assert_pulls(&client, "team/app", "v1", &app).await;
    // The same again brings nothing and changes nothing.
    let audited = |audit: &Value| audit["records"].as_array().unwrap().len();
    let before = audited(&client.get("/admin/audit").await.json());
    let report = told(&there, &["import", "--json", &bundle]);
    assert_eq!(outcomes(&report), expected("unchanged"));
    let after = client.get("/admin/audit").await.json();
    assert_eq!(audited(&after), before, "{after}");
    assert_eq!(
        said(&there, &["pins"]).lines().count(),
        2,
        "what was imported into a remote stays"
    );
}

/// What a command complains of that was asked for in the wrong way.
fn complaint_2(mirror: &Mirror, arguments: &[&str]) -> String {
    let output = run(mirror, arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_platform_of_an_index_is_carried_alone_and_the_rest_can_follow() {
    let upstream = Upstream::start().await;
    let nginx = several(1);
    upstream.hold("library/nginx", "1", &nginx);
    let (here, there) = (connected(&upstream).await, offline().await);
    let stick = Stick::new();
    let (one, all) = (stick.at("one.tar"), stick.at("all.tar"));
    said(
        &here,
        &["export", "--platform", "linux/arm64", "-o", &one, "nginx:1"],
    );
    let (amd64, arm64) = (nginx.child(0), nginx.child(1));
    let carried = blobs(one.as_ref());
    assert!(carried.contains(&arm64.digest) && carried.contains(&nginx.root.digest));
    assert!(!carried.contains(&amd64.digest));
    for blob in &nginx.layers()[..1] {
        assert_eq!(
            upstream.count("GET", &blob.digest),
            0,
            "what is not carried is not fetched"
        );
    }
    let client = there.client();
    said(&there, &["import", &one]);
    let answer = client.manifest("library/nginx", "1").await;
    assert!(answer.is(&nginx.root.bytes), "the index is as it was");
    assert!(
        client
            .manifest("library/nginx", &arm64.digest)
            .await
            .is(&arm64.bytes)
    );
    assert_eq!(status(&client, "library/nginx", &amd64.digest).await, 404);
    // One that does not exist is said with what does.
    let words = complaint(
        &here,
        &["export", "--platform", "linux/s390x", "-o", &all, "nginx:1"],
    );
    assert!(
        words.contains("linux/s390x") && words.contains("linux/amd64"),
        "{words}"
    );
    assert_eq!(stick.names(), ["one.tar"]);
    said(&here, &["export", "-o", &all, "nginx:1"]);
    let report = told(&there, &["import", "--json", &all]);
    assert_eq!(
        report["images"][0]["outcome"], "imported",
        "it is more than it was"
    );
    assert_pulls(&client, "library/nginx", "1", &nginx).await;
    // The smaller one again takes nothing away.
    said(&there, &["import", &one]);
    assert_pulls(&client, "library/nginx", "1", &nginx).await;
}

/// Holds what is about an image: a signature as cosign tags it, and one that refers to it.
fn hold_about(upstream: &Upstream, name: &str, image: &Image) -> (Image, String, Image) {
    let signature = image::artifact(
        None,
        "application/vnd.dev.cosign.artifact.sig.v1+json",
        b"sig",
    );
    let tag = format!("sha256-{}.sig", image::plain_hex(image.digest()));
    upstream.hold(name, &tag, &signature);
    let sbom = image::artifact(Some(&image.root), "application/spdx+json", b"{}sbom");
    upstream.hold(name, sbom.digest(), &sbom);
    let mut descriptor = sbom.root.descriptor();
    descriptor["artifactType"] = "application/spdx+json".into();
    let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor]});
    let path = format!("/v2/{name}/referrers/{}", image.digest());
    upstream.hold_path(&path, &Content::json(OCI_INDEX, &list));
    (signature, tag, sbom)
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_and_referrers_come_along_where_that_is_wanted() {
    let upstream = Upstream::start().await;
    let nginx = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &nginx);
    let (signature, tag, sbom) = hold_about(&upstream, "library/nginx", &nginx);
    let (here, there) = (connected(&upstream).await, offline().await);
    let stick = Stick::new();
    let (with, without) = (stick.at("with.tar"), stick.at("without.tar"));
    said(&here, &["export", "-o", &without, "nginx:1"]);
    said(
        &here,
        &["export", "--with-referrers", "-o", &with, "nginx:1"],
    );
    let carried = blobs(without.as_ref());
    assert!(!carried.contains(&signature.root.digest) && !carried.contains(&sbom.root.digest));
    let client = there.client();
    said(&there, &["import", &without]);
    assert_eq!(status(&client, "library/nginx", &tag).await, 404);
    said(&there, &["import", &with]);
    assert_pulls(&client, "library/nginx", "1", &nginx).await;
    assert_pulls(&client, "library/nginx", &tag, &signature).await;
    let list = client
        .get(&format!("/v2/library/nginx/referrers/{}", nginx.digest()))
        .await;
    assert_eq!(list.status.as_u16(), 200);
    assert_eq!(list.header("content-type"), Some(OCI_INDEX));
    let found = list.json();
    let listed = found["manifests"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "{found}");
    assert_eq!(listed[0]["digest"], sbom.digest());
    assert_eq!(listed[0]["artifactType"], "application/spdx+json");
    assert!(
        client
            .manifest("library/nginx", sbom.digest())
            .await
            .is(&sbom.root.bytes)
    );
    for blob in &sbom.blobs {
        assert!(
            client
                .blob("library/nginx", &blob.digest)
                .await
                .is(&blob.bytes)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_default_repositories_docker_io_goes_through_the_virtual_one() {
    let upstream = Upstream::start().await;
    let (nginx, own) = (several(1), image::small(Flavour::Oci, 2));
    upstream.hold("library/nginx", "1", &nginx);
    let more = |offline: bool| {
        format!(
            "[mirror]\ndefault = \"docker-virtual\"\noffline = {offline}\n[local.dev-local]\n[local.prod-local]\n[virtual.docker-virtual]\nmembers = [\"dev-local\", \"docker-hub\"]\ndeploy_to = \"dev-local\"\nserves = [\"docker.io\"]\n"
        )
    };
    let hub = |url: &str| Remote {
        key: "docker-hub",
        url: url.to_owned(),
        // As in the built-in configuration, the virtual one has it.
        serves: "hub.invalid",
        more: String::new(),
    };
    let here = Mirror::with(&[hub(&upstream.url())], &more(false)).await;
    let there = Mirror::with(&[hub("http://127.0.0.1:9")], &more(true)).await;
    here.client().push("team/own", "v1", &own).await;
    let stick = Stick::new();
    let bundle = stick.at("bundle.tar");
    said(
        &here,
        &[
            "export",
            "-o",
            &bundle,
            "nginx:1",
            "docker.io/team/own:v1",
            "dev-local/team/own:v1",
        ],
    );
    // A key means the same only here; whoever serves one of that name on the other side gets it there.
    let table: Value = serde_json::from_slice(&entry(bundle.as_ref(), "roadstead.json")).unwrap();
    let text = table.to_string();
    assert!(
        text.contains("docker.io/team/own:v1") && text.contains("dev-local/team/own:v1"),
        "{text}"
    );
    let report = told(&there, &["import", "--json", &bundle]);
    let places: Vec<(String, String)> = report["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let text = |key: &str| one[key].as_str().unwrap().to_owned();
            (text("image"), text("repository"))
        })
        .collect();
    let place = |image: &str, key: &str| (image.to_owned(), key.to_owned());
    assert_eq!(
        places,
        [
            place("dev-local/team/own:v1", "dev-local"),
            place("docker.io/library/nginx:1", "docker-hub"),
            place("docker.io/team/own:v1", "docker-hub"),
        ]
    );
    let client = there.client();
    assert_pulls(&client, "library/nginx", "1", &nginx).await;
    assert_pulls(&client, "docker.io/library/nginx", "1", &nginx).await;
    assert_pulls(&client, "team/own", "v1", &own).await;
    assert_pulls(&client, "dev-local/team/own", "v1", &own).await;

    // A name that is held here: nobody would be given what is imported beside it, and that is said; the rest comes.
    let next = stick.at("next.tar");
    let other = image::small(Flavour::Oci, 3);
    upstream.hold("team/own", "v2", &other);
    upstream.hold("library/nginx", "2", &other);
    let own = connected(&upstream).await;
    said(&own, &["export", "-o", &next, "team/own:v2", "nginx:2"]);
    for more in [vec!["--dry-run"], vec![]] {
        let output = run(&there, &[&["import", "--json", &next][..], &more].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let report = result(&output);
        assert_eq!(outcomes(&report)["docker.io/team/own:v2"], "failed");
        let images = report["images"].as_array().unwrap();
        let error = images.iter().find_map(|one| one["error"].as_str());
        assert!(error.unwrap().contains("`dev-local` holds this name"));
    }
    assert_pulls(&client, "library/nginx", "2", &other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn export_and_import_work_where_no_mirror_runs() {
    let upstream = Upstream::start().await;
    let nginx = several(1);
    upstream.hold("library/nginx", "1", &nginx);
    let (mut here, mut there) = (connected(&upstream).await, offline().await);
    here.terminate();
    there.terminate();
    let stick = Stick::new();
    let (bundle, inventory) = (stick.at("bundle.tar"), stick.at("inventory"));
    said(&here, &["export", "-o", &bundle, "nginx:1"]);
    said(&there, &["import", "--dry-run", &bundle]);
    said(&there, &["import", &bundle]);
    let listed = said(&there, &["inventory", "-o", &inventory]);
    let count = nginx.manifests.len() + nginx.blobs.len();
    assert!(listed.contains(&format!("\t{count} blobs, ")), "{listed}");
    let next = stick.at("next.tar");
    let left = told(
        &here,
        &[
            "export", "--json", "--have", &inventory, "-o", &next, "nginx:1",
        ],
    );
    assert_eq!(left["blobs"], 0, "{left}");
    assert_eq!(left["omittedBlobs"], count);
    there.start().await;
    assert_pulls(&there.client(), "library/nginx", "1", &nginx).await;
    // Killed, the index lost: the pins bring it back.
    there.kill();
    for name in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        drop(std::fs::remove_file(there.data().join(name)));
    }
    there.start().await;
    assert_pulls(&there.client(), "library/nginx", "1", &nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_refuse_is_not_exported_and_an_import_is_the_operators_word() {
    let upstream = Upstream::start().await;
    let (evil, good) = (image::small(Flavour::Oci, 1), image::small(Flavour::Oci, 2));
    upstream.hold("evil/app", "1", &evil);
    upstream.hold("good/app", "1", &good);
    let rules = "admit = { deny = [\"evil/**\"], min_age = \"72h\" }\n";
    let strict = |url: &str| Remote::hub_with(url, rules);
    let here = Mirror::with(&[strict(&upstream.url())], "").await;
    let stick = Stick::new();
    let bundle = stick.at("bundle.tar");
    for (name, why) in [("evil/app:1", "deny"), ("good/app:1", "min_age")] {
        let words = complaint(&here, &["export", "-o", &bundle, name]);
        assert!(
            words.contains(name) && words.contains(why),
            "{name}: {words}"
        );
    }
    let words = complaint(
        &here,
        &["export", "-o", &bundle, "evil/app:1", "good/app:1"],
    );
    assert!(words.contains("2 of the images"), "{words}");
    assert!(stick.names().is_empty(), "{:?}", stick.names());

    let open = connected(&upstream).await;
    said(&open, &["export", "-o", &bundle, "good/app:1"]);
    let there = Mirror::with(
        &[strict("http://127.0.0.1:9")],
        "[mirror]\noffline = true\n",
    )
    .await;
    said(&there, &["import", &bundle]);
    assert_pulls(&there.client(), "good/app", "1", &good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_carries() {
    let upstream = Upstream::start().await;
    let nginx = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &nginx);
    let hash = roadstead::auth::hash("s3cret-canary").unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("users.htpasswd"), format!("root:{hash}\n")).unwrap();
    let data = dir.path().join("data");
    let rules = "[auth]\nusers = \"users.htpasswd\"\n[[auth.allow]]\nwho = [\"root\"]\non = [\"*\"]\nmay = [\"pull\", \"push\", \"admin\"]\n";
    let guarded = Mirror::in_directory(dir, data, &[Remote::hub(&upstream.url())], rules).await;
    let open = connected(&upstream).await;
    let login = format!("Basic {}", STANDARD.encode("root:s3cret-canary"));
    let content = format!("/admin/content/{}", nginx.blobs[0].digest);
    for (mirror, headers) in [
        (&guarded, vec![("authorization", login.as_str())]),
        (&open, Vec::new()),
    ] {
        let client = mirror.client();
        let admin = client
            .send(http::Method::GET, "/admin/pins", &headers)
            .await;
        assert_eq!(admin.status.as_u16(), 200, "an administrator");
        for (method, path) in [
            (http::Method::POST, "/admin/export"),
            (http::Method::POST, "/admin/import"),
            (http::Method::POST, "/admin/import/commit"),
            (http::Method::GET, "/admin/inventory"),
            (http::Method::GET, content.as_str()),
            (http::Method::PUT, content.as_str()),
        ] {
            let answer = client.send(method.clone(), path, &headers).await;
            assert_eq!(answer.status.as_u16(), 404, "{method} {path}");
        }
    }
    // The owner needs no login.
    let stick = Stick::new();
    let bundle = stick.at("bundle.tar");
    said(&guarded, &["export", "-o", &bundle, "nginx:1"]);
    let manifest = Content::new(OCI_MANIFEST, nginx.root.bytes.clone());
    assert!(blobs(bundle.as_ref()).contains(&manifest.digest));
}
