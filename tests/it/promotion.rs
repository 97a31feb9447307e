//! Promotion: images move between repositories, digests and all.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::image::{self, Content, Flavour, Image};
use crate::support::{Mirror, Remote, Upstream};

const TABLES: &str = "[local.dev-local]\n[local.prod-local]\nimmutable_tags = [\"v*\"]\n";
const FROM_DEV: &str = "/artifactory/api/docker/dev-local/v2/promote";

async fn promote(client: &Client, path: &str, body: Value) -> Answer {
    client
        .send_body(
            Method::POST,
            path,
            &[("content-type", "application/json")],
            body.to_string().into(),
        )
        .await
}

/// Promotes and has it done.
async fn promoted(client: &Client, path: &str, body: Value) {
    let answer = promote(client, path, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.body, "Promotion ended successfully");
}

async fn is_gone(client: &Client, name: &str, reference: &str) -> bool {
    client.manifest(name, reference).await.status == StatusCode::NOT_FOUND
}

async fn push_artifact(client: &Client, name: &str, reference: &str, artifact: &Image) {
    for blob in &artifact.blobs {
        client.push_blob(name, blob).await;
    }
    let answer = client.put_manifest(name, reference, &artifact.root).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
}

#[tokio::test]
async fn an_index_goes_with_everything_that_is_about_it() {
    let mut mirror = Mirror::with(&[], TABLES).await;
    let client = mirror.client();
    let image = image::multi_platform(Flavour::Oci, 1, 20_000);
    client.push("dev-local/team/app", "1.4-rc2", &image).await;
    let sbom = image::artifact(Some(&image.root), "application/spdx+json", b"{}");
    push_artifact(&client, "dev-local/team/app", sbom.digest(), &sbom).await;
    // A signature of the SBOM, one of a platform, and what cosign keeps behind a tag.
    let of_sbom = image::artifact(Some(&sbom.root), "application/vnd.sig", b"1");
    push_artifact(&client, "dev-local/team/app", of_sbom.digest(), &of_sbom).await;
    let of_child = image::artifact(Some(image.child(0)), "application/vnd.sig", b"2");
    push_artifact(&client, "dev-local/team/app", of_child.digest(), &of_child).await;
    let cosign = image::artifact(None, "application/vnd.cosign", b"3");
    let cosign_tag = format!("{}.sig", image.digest().replace(':', "-"));
    push_artifact(&client, "dev-local/team/app", &cosign_tag, &cosign).await;

    let body = json!({"targetRepo": "prod-local", "dockerRepository": "team/app", "targetDockerRepository": "",
        "tag": "1.4-rc2", "targetTag": "1.4", "copy": true});
    let mut dry = body.clone();
    dry["dry_run"] = json!(true);
    let would = promote(&client, FROM_DEV, dry).await.json();
    assert_eq!(would["tags"][0]["targetTag"], json!("1.4"), "{would}");
    assert_eq!(would["tags"][0]["digest"], json!(image.digest()));
    // The index, its platforms, and four artifacts.
    let manifests = would["manifests"].as_array().unwrap().len();
    assert_eq!(manifests, image.manifests.len() + 4, "{would}");
    assert!(is_gone(&client, "prod-local/team/app", "1.4").await);

    promoted(&client, FROM_DEV, body).await;
    let all = async |client: &Client, name: &str, tag: &str| {
        assert!(client.has(name, tag, &image).await);
        for (reference, artifact) in [
            (sbom.digest(), &sbom),
            (of_sbom.digest(), &of_sbom),
            (of_child.digest(), &of_child),
            (cosign_tag.as_str(), &cosign),
        ] {
            assert!(client.has(name, reference, artifact).await, "{reference}");
        }
        let path = format!("/v2/{name}/referrers/{}", image.digest());
        let listed = client.get(&path).await.json();
        assert_eq!(listed["manifests"][0]["digest"], json!(sbom.digest()));
    };
    all(&client, "dev-local/team/app", "1.4-rc2").await;
    all(&client, "prod-local/team/app", "1.4").await;

    // Moved: the source has nothing of it any more, now and after a start.
    let body = json!({"targetRepo": "prod-local", "dockerRepository": "team/app", "targetDockerRepository": "moved/app", "tag": "1.4-rc2"});
    promoted(&client, "/api/docker/dev-local/v2/promote", body).await;
    for _ in 0..2 {
        let client = mirror.client();
        all(&client, "prod-local/moved/app", "1.4-rc2").await;
        for gone in [
            "1.4-rc2",
            image.digest(),
            sbom.digest(),
            of_child.digest(),
            &cosign_tag,
        ] {
            assert!(is_gone(&client, "dev-local/team/app", gone).await, "{gone}");
        }
        mirror.restart().await;
    }
    let audit = mirror.client().get("/admin/audit").await.json();
    let records = audit["records"].as_array().unwrap();
    assert_eq!(records.len(), 2, "{audit}");
    let event = &records[0]["event"];
    assert_eq!(
        event["to"],
        json!({"repository": "prod-local", "image": "team/app"})
    );
    assert_eq!(
        event["from"],
        json!({"repository": "dev-local", "image": "team/app"})
    );
    assert_eq!(event["tags"][0]["digest"], json!(image.digest()));
    assert_eq!(
        (&event["copy"], &event["who"]),
        (&json!(true), &json!("anonymous"))
    );
    let next = mirror.client().get("/admin/audit?n=1").await;
    assert!(next.header("link").unwrap().contains("last=1"));
}

#[tokio::test]
async fn all_tags_go_where_none_is_named() {
    let mirror = Mirror::with(&[], TABLES).await;
    let client = mirror.client();
    let images = [1, 2, 3].map(|seed| image::small(Flavour::Docker, seed));
    for (n, image) in images.iter().enumerate() {
        client.push("dev-local/app", &format!("t{n}"), image).await;
    }
    client.push("dev-local/app", "again", &images[0]).await;
    let body = json!({"targetRepo": "prod-local", "dockerRepository": "app"});
    promoted(&client, FROM_DEV, body.clone()).await;
    let tags = client.get("/v2/prod-local/app/tags/list").await.json();
    assert_eq!(tags["tags"], json!(["again", "t0", "t1", "t2"]));
    assert!(client.has("prod-local/app", "t1", &images[1]).await);
    // There is nothing left to promote.
    let again = promote(&client, FROM_DEV, body).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND, "{again:?}");
}

#[tokio::test]
async fn what_is_still_in_use_at_the_source_stays() {
    let mirror = Mirror::with(&[], TABLES).await;
    let client = mirror.client();
    let image = image::small(Flavour::Oci, 1);
    client.push("dev-local/app", "one", &image).await;
    client.push("dev-local/app", "two", &image).await;
    let body = json!({"targetRepo": "prod-local", "dockerRepository": "app", "tag": "one"});
    promoted(&client, FROM_DEV, body).await;
    assert!(is_gone(&client, "dev-local/app", "one").await);
    assert!(client.has("dev-local/app", "two", &image).await);
    // Retagged in place; then onto itself, which changes nothing.
    for (tag, target) in [("two", "three"), ("three", "three")] {
        let body = json!({"targetRepo": "dev-local", "dockerRepository": "app", "tag": tag, "targetTag": target});
        promoted(&client, FROM_DEV, body).await;
        assert!(client.has("dev-local/app", "three", &image).await);
    }
    let tags = client.get("/v2/dev-local/app/tags/list").await.json();
    assert_eq!(tags["tags"], json!(["three"]));
}

#[tokio::test]
async fn immutable_targets_and_nonsense_are_refused_and_change_nothing() {
    let upstream = Upstream::start().await;
    let tables =
        format!("{TABLES}[virtual.all-of-it]\nmembers = [\"dev-local\", \"docker-hub\"]\n");
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], &tables).await;
    let client = mirror.client();
    let [one, two] = [1, 2].map(|seed| image::small(Flavour::Oci, seed));
    client.push("dev-local/app", "one", &one).await;
    client.push("prod-local/app", "v1", &two).await;
    let wanted = |more: Value| {
        let mut body = json!({"targetRepo": "prod-local", "dockerRepository": "app", "tag": "one"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    let table = [
        (wanted(json!({"targetTag": "v1"})), 409, "immutable"),
        (wanted(json!({"targetTag": "-x"})), 400, "targetTag"),
        (
            wanted(json!({"tag": "", "targetTag": "x"})),
            400,
            "targetTag",
        ),
        (wanted(json!({"tag": "none"})), 404, ""),
        (
            wanted(json!({"dockerRepository": "nothing", "tag": ""})),
            404,
            "",
        ),
        (
            wanted(json!({"dockerRepository": "A"})),
            400,
            "dockerRepository",
        ),
        (
            wanted(json!({"targetDockerRepository": "../x"})),
            400,
            "targetDockerRepository",
        ),
        (wanted(json!({"targetRepo": "nowhere"})), 404, "nowhere"),
        (
            wanted(json!({"targetRepo": "docker-hub"})),
            400,
            "targetRepo",
        ),
        (wanted(json!({"targetRepo": "all-of-it"})), 400, "virtual"),
        (json!({"tag": "one"}), 400, "targetRepo"),
    ];
    for (body, status, word) in table {
        let answer = promote(&client, FROM_DEV, body.clone()).await;
        let told = answer.json()["errors"][0].clone();
        assert_eq!(answer.status.as_u16(), status, "{body} {answer:?}");
        assert_eq!(told["status"], json!(status));
        assert!(told["message"].as_str().unwrap().contains(word), "{told}");
    }
    // By the registry's own paths in the registry's envelope.
    let answer = promote(&client, "/dev-local/v2/promote", json!({})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (400, "UNSUPPORTED")
    );
    let answer = promote(&client, "/v2/promote", wanted(json!({}))).await;
    assert_eq!(answer.status.as_u16(), 400);
    let answer = promote(
        &client,
        "/api/docker/all-of-it/v2/promote",
        wanted(json!({})),
    )
    .await;
    assert_eq!(answer.status.as_u16(), 400);
    let answer = client.get(FROM_DEV).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(client.has("dev-local/app", "one", &one).await);
    assert!(client.has("prod-local/app", "v1", &two).await);
    assert!(is_gone(&client, "prod-local/app", "one").await);
    assert_eq!(
        client.get("/admin/audit").await.json()["records"],
        json!([])
    );
}

#[tokio::test]
async fn from_a_remote_cold_and_cached_and_what_then_goes_at_the_source() {
    let mut upstream = Upstream::start().await;
    let [cold, cached, lost] =
        [1, 2, 3].map(|seed| image::multi_platform(Flavour::Docker, seed, 30_000));
    upstream.hold("library/app", "cold", &cold);
    upstream.hold("library/app", "cached", &cached);
    upstream.hold("library/app", "lost", &lost);
    let tables = format!("[storage]\nmin_free = \"1MiB\"\nmax_size = \"300KiB\"\n{TABLES}");
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], &tables).await;
    let client = mirror.client();
    assert!(client.has("docker-hub/app", "cached", &cached).await);
    let path = "/artifactory/api/docker/docker-hub/v2/promote";
    // Docker Hub's short names are short here too.
    let wanted = |tag: &str| json!({"targetRepo": "prod-local", "dockerRepository": "app", "targetDockerRepository": "base/app", "tag": tag});
    let before = upstream.count("GET", "/blobs/");
    promoted(&client, path, wanted("cached")).await;
    assert_eq!(upstream.count("GET", "/blobs/"), before, "it was here");
    promoted(&client, path, wanted("cold")).await;
    // A platform is missing upstream: nothing of it is promoted.
    let child = lost.child(1).digest.clone();
    upstream.script("", &child, 99, crate::support::Act::status(404));
    let refused = promote(&client, path, wanted("lost")).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");
    assert!(is_gone(&client, "prod-local/base/app", "lost").await);
    assert!(is_gone(&client, "prod-local/base/app", lost.digest()).await);
    // The cache may lose everything: what was promoted is not evicted.
    for seed in 10..20 {
        let filler = image::blob(seed, 100_000);
        upstream.hold_blob(&filler);
        assert!(
            client
                .blob("docker-hub/filler", &filler.digest)
                .await
                .is(&filler.bytes)
        );
    }
    upstream.stop().await;
    assert!(client.has("prod-local/base/app", "cached", &cached).await);
    assert!(client.has("prod-local/base/app", "cold", &cold).await);
    // What is not here cannot be promoted while nobody can say.
    let outage = promote(&client, path, wanted("other")).await;
    assert!(outage.status.is_server_error(), "{outage:?}");
}

#[tokio::test]
async fn many_promotions_at_once_leave_one_whole_image() {
    let mirror = Mirror::with(&[], "[local.dev-local]\n[local.prod-local]\n").await;
    let client = mirror.client();
    let images: Vec<Image> = (0..8)
        .map(|seed| image::small(Flavour::Oci, seed))
        .collect();
    for (n, image) in images.iter().enumerate() {
        client.push("dev-local/app", &format!("t{n}"), image).await;
    }
    let mut running = Vec::new();
    for n in 0..96 {
        let client = mirror.client();
        running.push(tokio::spawn(async move {
            let body = json!({"targetRepo": "prod-local", "dockerRepository": "app", "tag": format!("t{}", n % 8), "targetTag": "latest", "copy": true});
            promoted(&client, FROM_DEV, body).await;
        }));
    }
    for one in running {
        one.await.unwrap();
    }
    let found = client.manifest("prod-local/app", "latest").await;
    let whole = images
        .iter()
        .find(|image| found.is(&image.root.bytes))
        .unwrap();
    assert!(client.has("prod-local/app", "latest", whole).await);
}

#[tokio::test]
async fn a_layer_that_old_and_new_share_stays() {
    let mirror = Mirror::with(&[], "[storage]\nmin_free = \"1MiB\"\ncollect_every = \"100ms\"\ncollect_grace = \"3s\"\n[local.dev-local]\n[local.prod-local]\n").await;
    let client = mirror.client();
    let shared = image::noise_layer(image::Packing::Gzip, 7, 5_000);
    let [old, new] = [1, 2].map(|seed| {
        let own = image::noise_layer(image::Packing::Gzip, seed, 5_000);
        image::image(Flavour::Oci, "amd64", &[shared.clone(), own])
    });
    client.push("prod-local/app", "latest", &old).await;
    client.push("dev-local/app", "1", &new).await;
    let body = json!({"targetRepo": "prod-local", "dockerRepository": "app", "tag": "1", "targetTag": "latest"});
    promoted(&client, FROM_DEV, body).await;
    let deleted = client
        .delete(&format!("/v2/prod-local/app/manifests/{}", old.digest()))
        .await;
    assert_eq!(deleted.status, StatusCode::ACCEPTED);
    // The layer that only the old one had goes, and so does the source. Nobody asks meanwhile: what is asked for stays.
    for repository in ["prod-local", "dev-local"] {
        let line = format!("\"repository\":\"{repository}\"");
        let collected = |text: &String| text.contains("collected what") && text.contains(&line);
        crate::eventually!(mirror.log().iter().any(collected));
    }
    let only_old: &Content = old.layers()[1];
    let gone = client.blob("prod-local/app", &only_old.digest).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    let source = client.get("/v2/dev-local/app/tags/list").await;
    assert_eq!(source.status, StatusCode::NOT_FOUND);
    assert!(client.has("prod-local/app", "latest", &new).await);
}

#[tokio::test]
async fn what_another_tag_still_needs_is_not_moved_away() {
    let tables = "[local.dev-local]\n[local.prod-local]\n[local.fixed-local]\ndelete = false\n";
    let mirror = Mirror::with(&[], tables).await;
    let client = mirror.client();
    let image = image::small(Flavour::Oci, 1);
    for (name, tag) in [
        ("dev-local/app", "1"),
        ("dev-local/app", "latest"),
        ("fixed-local/app", "1"),
    ] {
        client.push(name, tag, &image).await;
    }
    let cosign = image::artifact(None, "application/vnd.cosign", b"3");
    let signature = format!("{}.sig", image.digest().replace(':', "-"));
    push_artifact(&client, "dev-local/app", &signature, &cosign).await;
    let wanted =
        |tag: &str| json!({"targetRepo": "prod-local", "dockerRepository": "app", "tag": tag});
    promoted(&client, FROM_DEV, wanted("1")).await;
    for name in ["dev-local/app", "prod-local/app"] {
        assert!(client.has(name, &signature, &cosign).await, "{name}");
    }
    promoted(&client, FROM_DEV, wanted("latest")).await;
    assert!(is_gone(&client, "dev-local/app", &signature).await);
    // What may not be deleted is copied and not moved.
    let path = "/api/docker/fixed-local/v2/promote";
    let refused = promote(&client, path, wanted("1")).await;
    assert_eq!(
        refused.status,
        StatusCode::METHOD_NOT_ALLOWED,
        "{refused:?}"
    );
    let mut copy = wanted("1");
    copy["copy"] = json!(true);
    promoted(&client, path, copy).await;
    assert!(client.has("fixed-local/app", "1", &image).await);
}

#[tokio::test]
async fn indexes_of_indexes_without_end_are_refused() {
    let mirror = Mirror::with(&[], TABLES).await;
    let client = mirror.client();
    let mut below = image::small(Flavour::Oci, 1).root;
    client
        .push("dev-local/app", "0", &image::small(Flavour::Oci, 1))
        .await;
    for n in 1..200 {
        let index = json!({"schemaVersion": 2, "mediaType": image::OCI_INDEX, "manifests": [below.descriptor()], "annotations": {"n": n.to_string()}});
        below = Content::json(image::OCI_INDEX, &index);
        let answer = client
            .put_manifest("dev-local/app", &n.to_string(), &below)
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }
    let wanted = |tag: &str| json!({"targetRepo": "prod-local", "dockerRepository": "app", "tag": tag, "copy": true});
    let refused = promote(&client, FROM_DEV, wanted("199")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    promoted(&client, FROM_DEV, wanted("3")).await;
}

#[tokio::test]
async fn fallback_lists_of_both_sides_are_put_together() {
    let mirror = Mirror::with(&[], TABLES).await;
    let client = mirror.client();
    let image = image::small(Flavour::Oci, 1);
    let tag = image.digest().replace(':', "-");
    let mut expected = Vec::new();
    for (seed, key) in [(2, "dev-local"), (3, "prod-local")] {
        let name = format!("{key}/app");
        client.push(&name, "1", &image).await;
        // As clients did before there was a subject.
        let signature = image::small(Flavour::Oci, seed);
        client.push(&name, "signature", &signature).await;
        let list = json!({"schemaVersion": 2, "mediaType": image::OCI_INDEX, "manifests": [signature.root.descriptor()]});
        let list = Content::json(image::OCI_INDEX, &list);
        let answer = client.put_manifest(&name, &tag, &list).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        expected.push(signature.digest().to_owned());
    }
    let body = json!({"targetRepo": "prod-local", "dockerRepository": "app", "tag": "1"});
    promoted(&client, FROM_DEV, body).await;
    let path = format!("/v2/prod-local/app/referrers/{}", image.digest());
    let listed = client.get(&path).await.json();
    let mut listed: Vec<_> = listed["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["digest"].clone())
        .collect();
    listed.sort_by_key(ToString::to_string);
    expected.sort();
    assert_eq!(listed, expected);
    assert!(is_gone(&client, "dev-local/app", &tag).await);
}
