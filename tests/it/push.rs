//! Local repositories: what is pushed is there, whole, for its image alone, until it is deleted.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::disk::{SmallDisk, fill_up};
use crate::support::image::{self, Content, Flavour, OCI_MANIFEST};
use crate::support::push::{location, with};
use crate::support::{Answer, Client, Image, Mirror};

const LOCAL: &str = "[local.dev-local]\n[local.prod-local]\n";

async fn mirror() -> Mirror {
    Mirror::with(&[], LOCAL).await
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.code())
}

async fn tags(client: &Client, name: &str) -> Option<Vec<String>> {
    let answer = client.get(&format!("/v2/{name}/tags/list")).await;
    let list = answer.json()["tags"].clone();
    answer
        .status
        .is_success()
        .then(|| serde_json::from_value(list).unwrap())
}

#[tokio::test]
async fn an_image_is_there_after_kill_and_without_its_index() {
    let mut mirror = mirror().await;
    let images: Vec<Image> = vec![
        image::multi_platform(Flavour::Oci, 1, 30_000),
        image::multi_platform(Flavour::Docker, 2, 30_000),
    ];
    for (image, tag) in images.iter().zip(["oci", "docker"]) {
        mirror.client().push("dev-local/team/app", tag, image).await;
    }
    for round in ["pushed", "killed", "stopped", "index lost"] {
        match round {
            "killed" => {
                mirror.kill();
                mirror.start().await;
            }
            "stopped" => mirror.restart().await,
            "index lost" => {
                mirror.kill();
                for file in mirror.files("") {
                    if file.to_string_lossy().contains("index.sqlite") {
                        std::fs::remove_file(file).unwrap();
                    }
                }
                mirror.start().await;
            }
            _ => {}
        }
        let client = mirror.client();
        for (image, tag) in images.iter().zip(["oci", "docker"]) {
            assert!(
                client.has("dev-local/team/app", tag, image).await,
                "{round}"
            );
        }
        let listed = tags(&client, "dev-local/team/app").await;
        assert_eq!(listed.unwrap(), ["docker", "oci"], "{round}");
        let catalog = client.get("/v2/_catalog").await.json();
        assert_eq!(catalog, json!({"repositories": ["team/app"]}), "{round}");
    }
}

#[tokio::test]
async fn a_torn_journal_costs_nothing_that_was_acknowledged() {
    use std::io::Write as _;

    let mut mirror = mirror().await;
    let image = image::small(Flavour::Oci, 1);
    mirror.client().push("dev-local/a", "1", &image).await;
    mirror.kill();
    let mut journal = std::fs::OpenOptions::new()
        .append(true)
        .open(mirror.data().join("journal"))
        .unwrap();
    journal.write_all(&[7; 33]).unwrap();
    for file in mirror.files("") {
        if file.to_string_lossy().contains("index.sqlite") {
            std::fs::remove_file(file).unwrap();
        }
    }
    mirror.start().await;
    let other = image::small(Flavour::Oci, 2);
    mirror.client().push("dev-local/a", "2", &other).await;
    mirror.restart().await;
    assert!(mirror.client().has("dev-local/a", "1", &image).await);
    assert!(mirror.client().has("dev-local/a", "2", &other).await);
}

#[tokio::test]
async fn uploads_in_chunks_know_where_they_stand() {
    let mut mirror = mirror().await;
    let blob = image::blob(1, 300_000);
    let (one, two, three) = (
        &blob.bytes[..100_000],
        &blob.bytes[100_000..200_000],
        &blob.bytes[200_000..],
    );
    let path = mirror.client().begin_upload("dev-local/a").await;
    let answer = mirror.client().patch(&path, 0, one).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.header("range"), Some("0-99999"));
    let path = location(&answer);
    for (start, bytes) in [(0, one), (200_000, three), (99_999, two), (100_001, two)] {
        let answer = mirror.client().patch(&path, start, bytes).await;
        assert_eq!(answer.status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(answer.header("range"), Some("0-99999"));
    }
    for (name, value) in [
        ("content-range", "5-4"),
        ("content-range", "x"),
        ("content-range", "100000-100009"),
        ("content-range", "100000-9223372036854775808"),
    ] {
        let answer = mirror
            .client()
            .send_body(
                Method::PATCH,
                &path,
                &[(name, value)],
                Bytes::from_static(b"short"),
            )
            .await;
        assert!(
            matches!(answer.status.as_u16(), 400 | 416),
            "{value}: {answer:?}"
        );
    }
    mirror.kill();
    mirror.start().await;
    let client = mirror.client();
    let answer = client.get(&path).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(answer.header("range"), Some("0-99999"));
    assert_eq!(client.patch(&path, 100_000, two).await.status.as_u16(), 202);
    // A wrong end leaves everything as it stood.
    let wrong = with(&path, &format!("digest={}", image::sha256(b"other")));
    let three = Bytes::copy_from_slice(three);
    let answer = client
        .send_body(Method::PUT, &wrong, &[], three.clone())
        .await;
    assert_eq!(code(&answer), (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(client.get(&path).await.header("range"), Some("0-199999"));
    let right = with(&path, &format!("digest={}", blob.digest));
    let answer = client.send_body(Method::PUT, &right, &[], three).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert!(client.get(&location(&answer)).await.is(&blob.bytes));
    assert!(mirror.files("uploads").is_empty());
    assert_eq!(mirror.metric("roadstead_upload_bytes"), 0.0);
}

#[tokio::test]
async fn every_way_to_push_a_blob() {
    let mirror = mirror().await;
    let client = mirror.client();
    let blob = image::blob(1, 2_500_000);
    // At once.
    let path = format!("/v2/dev-local/a/blobs/uploads/?digest={}", blob.digest);
    let answer = client
        .send_body(Method::POST, &path, &[], blob.bytes.clone())
        .await;
    assert_eq!(answer.status, StatusCode::CREATED);
    // By another algorithm, announced or not.
    let sha512 = image::sha512(&blob.bytes);
    for announced in ["", "?digest-algorithm=sha512"] {
        let path = format!("/v2/dev-local/b/blobs/uploads/{announced}");
        let opened = client.send(Method::POST, &path, &[]).await;
        let path = with(&location(&opened), &format!("digest={sha512}"));
        let answer = client
            .send_body(Method::PUT, &path, &[], blob.bytes.clone())
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }
    assert!(client.blob("dev-local/b", &sha512).await.is(&blob.bytes));
    let path = "/v2/dev-local/b/blobs/uploads/?digest-algorithm=md5";
    assert_eq!(
        client.send(Method::POST, path, &[]).await.status.as_u16(),
        400
    );
    // Nothing at all is a blob too.
    let empty = Content::new("application/octet-stream", Bytes::new());
    assert_eq!(
        client
            .push_blob("dev-local/a", &empty)
            .await
            .status
            .as_u16(),
        201
    );
    assert_eq!(
        client
            .blob("dev-local/a", &empty.digest)
            .await
            .status
            .as_u16(),
        200
    );
    // Mounted, from a name and from anywhere; what cannot be mounted is a session.
    for (name, query) in [
        (
            "prod-local/c",
            format!("mount={}&from=dev-local/a", blob.digest),
        ),
        ("prod-local/d", format!("mount={}", blob.digest)),
    ] {
        let path = format!("/v2/{name}/blobs/uploads/?{query}");
        let answer = client.send(Method::POST, &path, &[]).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        assert!(client.blob(name, &blob.digest).await.is(&blob.bytes));
    }
    let absent = image::sha256(b"absent");
    for query in [
        format!("mount={absent}&from=dev-local/a"),
        format!("mount={}&from=dev-local/other", blob.digest),
        format!("mount={}&from=no-such/place", blob.digest),
        format!("mount={absent}"),
    ] {
        let path = format!("/v2/prod-local/e/blobs/uploads/?{query}");
        let answer = client.send(Method::POST, &path, &[]).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{query}");
    }
    // However often it was pushed, it is there once.
    assert_eq!(
        mirror.metric("roadstead_pushed_bytes"),
        2.0 * blob.bytes.len() as f64
    );
}

#[tokio::test]
async fn what_is_no_upload() {
    let mirror = mirror().await;
    let client = mirror.client();
    let blob = image::blob(1, 1000);
    let path = client.begin_upload("dev-local/a").await;
    let id = path.rsplit('/').next().unwrap().to_owned();
    assert!(id.len() >= 32);
    for forged in [
        format!("/v2/dev-local/b/blobs/uploads/{id}"),
        format!("/v2/prod-local/a/blobs/uploads/{id}"),
        format!("/v2/dev-local/a/blobs/uploads/{}", "0".repeat(64)),
        "/v2/dev-local/a/blobs/uploads/x".to_owned(),
        format!("/v2/dev-local/a/blobs/uploads/{id}x"),
    ] {
        for method in [Method::GET, Method::PATCH, Method::DELETE] {
            let answer = client.send(method.clone(), &forged, &[]).await;
            assert_eq!(answer.status.as_u16(), 404, "{method} {forged}");
        }
        let put = with(&forged, &format!("digest={}", blob.digest));
        let answer = client
            .send_body(Method::PUT, &put, &[], blob.bytes.clone())
            .await;
        assert_eq!(code(&answer), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    }
    for bad in ["", "digest=", "digest=md5:00", "digest=sha256:00"] {
        let answer = client
            .send_body(Method::PUT, &with(&path, bad), &[], blob.bytes.clone())
            .await;
        assert_eq!(code(&answer), (400, "DIGEST_INVALID".to_owned()), "{bad}");
    }
    let twice = with(&path, &format!("digest={0}&digest={0}", blob.digest));
    assert_eq!(
        client.send(Method::PUT, &twice, &[]).await.status.as_u16(),
        400
    );
    let put = with(&path, &format!("digest={}", blob.digest));
    let answer = client
        .send_body(Method::PUT, &put, &[], blob.bytes.clone())
        .await;
    assert_eq!(answer.status.as_u16(), 201);
    assert_eq!(client.get(&path).await.status.as_u16(), 404);
    // Cancelled is gone.
    let path = client.begin_upload("dev-local/a").await;
    assert_eq!(client.delete(&path).await.status.as_u16(), 204);
    assert_eq!(client.delete(&path).await.status.as_u16(), 404);
    assert!(mirror.files("uploads").is_empty());
}

#[tokio::test]
async fn a_body_that_breaks_off_and_two_writers() {
    let mirror = mirror().await;
    let client = mirror.client();
    let path = client.begin_upload("dev-local/a").await;
    // Announced as ten bytes, five come.
    let request = format!(
        "PATCH {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\ncontent-range: 0-9\r\n\r\n12345"
    );
    let mut broken = tokio::net::TcpStream::connect(mirror.address())
        .await
        .unwrap();
    broken.write_all(request.as_bytes()).await.unwrap();
    drop(broken);
    // Nothing of it stays, and the upload is free again.
    crate::eventually!(
        client.patch(&path, 7, b"other").await.status == StatusCode::RANGE_NOT_SATISFIABLE
    );
    assert_eq!(client.get(&path).await.header("range"), Some("0-0"));
    // One that is still writing keeps others out; they change nothing.
    let mut slow = tokio::net::TcpStream::connect(mirror.address())
        .await
        .unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nslow!\r\n"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    crate::eventually!(client.patch(&path, 7, b"other").await.status == StatusCode::CONFLICT);
    slow.write_all(b"0\r\n\r\n").await.unwrap();
    crate::eventually!(client.get(&path).await.header("range") == Some("0-4"));
    let put = with(&path, &format!("digest={}", image::sha256(b"slow!")));
    assert_eq!(
        client.send(Method::PUT, &put, &[]).await.status.as_u16(),
        201
    );
}

#[tokio::test]
async fn manifests_that_are_not_taken() {
    let mirror = mirror().await;
    let client = mirror.client();
    let image = image::small(Flavour::Oci, 1);
    let root = &image.root;
    let elsewhere = image::small(Flavour::Oci, 2);
    client.push("dev-local/other", "1", &elsewhere).await;
    let wrong_digest = image::sha256(b"x");
    let v1 = json!({"schemaVersion": 1, "name": "a", "tag": "1", "fsLayers": []});
    let schema1 = Content::json("application/vnd.docker.distribution.manifest.v1+json", &v1);
    let of = |bytes: Vec<u8>| Content::new(OCI_MANIFEST, bytes);
    let trailing = [&root.bytes[..], b"x"].concat();
    let large = vec![b' '; 4 * 1024 * 1024 + 1];
    for (what, reference, manifest, expected) in [
        (
            "blobs missing",
            "1",
            root.clone(),
            (400, "MANIFEST_BLOB_UNKNOWN"),
        ),
        (
            "blobs of another image",
            "1",
            elsewhere.root.clone(),
            (400, "MANIFEST_BLOB_UNKNOWN"),
        ),
        (
            "wrong digest",
            wrong_digest.as_str(),
            root.clone(),
            (400, "DIGEST_INVALID"),
        ),
        ("empty", "1", of(vec![]), (400, "MANIFEST_INVALID")),
        (
            "nothing in it",
            "1",
            of(b"{}".to_vec()),
            (400, "MANIFEST_INVALID"),
        ),
        (
            "trailing bytes",
            "1",
            of(trailing),
            (400, "MANIFEST_INVALID"),
        ),
        ("too large", "1", of(large), (413, "MANIFEST_INVALID")),
        ("schema 1", "1", schema1, (400, "MANIFEST_INVALID")),
        ("bad tag", "-x", root.clone(), (400, "TAG_INVALID")),
    ] {
        let answer = client
            .put_manifest("dev-local/a", reference, &manifest)
            .await;
        assert_eq!(
            code(&answer),
            (expected.0, expected.1.to_owned()),
            "{what}: {answer:?}"
        );
    }
    assert_eq!(tags(&client, "dev-local/a").await, None);
    for blob in &image.blobs {
        client.push_blob("dev-local/a", blob).await;
    }
    let mismatched = Content {
        media_type: image::OCI_INDEX.to_owned(),
        ..root.clone()
    };
    let answer = client.put_manifest("dev-local/a", "1", &mismatched).await;
    assert_eq!(code(&answer), (400, "MANIFEST_INVALID".to_owned()));
    // Many tags at once, each of them told.
    let path = format!("{}?tag=a&tag=b&tag=a", root.digest);
    let answer = client.put_manifest("dev-local/a", &path, root).await;
    assert_eq!(answer.status.as_u16(), 201, "{answer:?}");
    assert_eq!(tags(&client, "dev-local/a").await.unwrap(), ["a", "b"]);
    let many: String = (0..101).map(|n| format!("&tag=t{n}")).collect();
    let path = format!("{}?x=1{many}", root.digest);
    let answer = client.put_manifest("dev-local/a", &path, root).await;
    assert_eq!(answer.status, StatusCode::URI_TOO_LONG);
}

#[tokio::test]
async fn parallel_pushes_of_a_tag_leave_one_of_them() {
    let mirror = mirror().await;
    let client = mirror.client();
    let images: Vec<Image> = (0..20)
        .map(|seed| image::small(Flavour::Oci, seed))
        .collect();
    let all = images
        .iter()
        .map(|image| client.push("dev-local/a", "latest", image));
    futures_util::future::join_all(all).await;
    let answer = client.manifest("dev-local/a", "latest").await;
    let digest = answer.header("docker-content-digest").unwrap().to_owned();
    let winner = images
        .iter()
        .find(|image| *image.digest() == digest)
        .unwrap();
    assert!(answer.is(&winner.root.bytes));
}

#[tokio::test]
async fn what_belongs_to_one_image_is_absent_from_others() {
    let mirror = mirror().await;
    let client = mirror.client();
    let image = image::small(Flavour::Oci, 1);
    client.push("dev-local/a", "1", &image).await;
    let blob = &image.blobs[0];
    for name in ["dev-local/b", "prod-local/a"] {
        let path = format!("/v2/{name}/blobs/{}", blob.digest);
        assert_eq!(client.get(&path).await.status.as_u16(), 404);
        assert_eq!(client.head(&path).await.status.as_u16(), 404);
        assert_eq!(client.range(&path, "bytes=0-1").await.status.as_u16(), 404);
        let path = format!("/v2/{name}/manifests/{}", image.digest());
        assert_eq!(client.get(&path).await.status.as_u16(), 404);
        let path = format!("/v2/{name}/referrers/{}", image.digest());
        assert_eq!(client.get(&path).await.json()["manifests"], json!([]));
    }
}

#[tokio::test]
async fn what_refers_to_a_manifest() {
    let mirror = mirror().await;
    let client = mirror.client();
    let image = image::small(Flavour::Oci, 1);
    let signature = image::artifact(Some(&image.root), "application/vnd.test.signature", b"sig");
    let sbom = image::artifact(Some(&image.root), "application/vnd.test.sbom", b"sbom");
    // A subject need not be there yet.
    for blob in &signature.blobs {
        client.push_blob("dev-local/a", blob).await;
    }
    let answer = client
        .put_manifest("dev-local/a", signature.digest(), &signature.root)
        .await;
    assert_eq!(answer.status.as_u16(), 201, "{answer:?}");
    assert_eq!(answer.header("oci-subject"), Some(image.digest()));
    client.push("dev-local/a", "1", &image).await;
    for blob in &sbom.blobs {
        client.push_blob("dev-local/a", blob).await;
    }
    client
        .put_manifest("dev-local/a", sbom.digest(), &sbom.root)
        .await;
    let path = format!("/v2/dev-local/a/referrers/{}", image.digest());
    let answer = client.get(&path).await;
    assert_eq!(answer.header("content-type"), Some(image::OCI_INDEX));
    let listed = answer.json()["manifests"].as_array().unwrap().len();
    assert_eq!(listed, 2);
    let filtered = client
        .get(&format!("{path}?artifactType=application/vnd.test.sbom"))
        .await;
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    let list = filtered.json()["manifests"].clone();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["digest"], json!(sbom.digest()));
    // What an old client listed under the fallback tag is listed too.
    let old = image::small(Flavour::Oci, 7);
    client.push("dev-local/a", "old-sig", &old).await;
    let fallback = json!({
        "schemaVersion": 2,
        "mediaType": image::OCI_INDEX,
        "manifests": [old.root.descriptor()],
    });
    let tag = image.digest().replace(':', "-");
    let fallback = Content::json(image::OCI_INDEX, &fallback);
    let answer = client.put_manifest("dev-local/a", &tag, &fallback).await;
    assert_eq!(answer.status.as_u16(), 201, "{answer:?}");
    let list = client.get(&path).await.json()["manifests"].clone();
    assert_eq!(list.as_array().unwrap().len(), 3);
    // And page by page, whoever follows the links sees each of them once.
    let (mut next, mut seen) = (format!("{path}?n=1"), Vec::new());
    for _ in 0..3 {
        let page = client.get(&next).await;
        let entries = page.json()["manifests"].clone();
        assert_eq!(entries.as_array().unwrap().len(), 1);
        seen.push(entries[0]["digest"].clone());
        let Some(link) = page.header("link") else {
            break;
        };
        next = link[1..link.find('>').unwrap()].to_owned();
    }
    let mut all: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["digest"].clone())
        .collect();
    all.sort_by_key(ToString::to_string);
    assert_eq!(seen, all);
}

#[tokio::test]
async fn deletes() {
    let mirror = Mirror::with(
        &[],
        "[local.dev-local]\n[local.fixed-local]\ndelete = false\n",
    )
    .await;
    let client = mirror.client();
    let image = image::multi_platform(Flavour::Oci, 1, 1000);
    for name in ["dev-local/a", "fixed-local/a"] {
        client.push(name, "1", &image).await;
        client.push(name, "2", &image).await;
    }
    let manifest = |name: &str, reference: &str| format!("/v2/{name}/manifests/{reference}");
    let blob = |name: &str| format!("/v2/{name}/blobs/{}", image.blobs[0].digest);
    for path in [
        manifest("fixed-local/a", "1"),
        manifest("fixed-local/a", image.digest()),
        blob("fixed-local/a"),
    ] {
        assert_eq!(
            code(&client.delete(&path).await),
            (405, "UNSUPPORTED".to_owned())
        );
    }
    let name = "dev-local/a";
    assert_eq!(
        client.delete(&manifest(name, "1")).await.status.as_u16(),
        202
    );
    assert_eq!(
        client.delete(&manifest(name, "1")).await.status.as_u16(),
        404
    );
    assert_eq!(client.manifest(name, "1").await.status.as_u16(), 404);
    assert!(client.has(name, image.digest(), &image).await);
    assert_eq!(client.delete(&blob(name)).await.status.as_u16(), 405);
    assert_eq!(
        client
            .delete(&manifest(name, image.digest()))
            .await
            .status
            .as_u16(),
        202
    );
    assert_eq!(client.manifest(name, "2").await.status.as_u16(), 404);
    for child in &image.manifests {
        if child.digest != image.root.digest {
            let answer = client.delete(&manifest(name, &child.digest)).await;
            assert_eq!(answer.status.as_u16(), 202);
        }
    }
    assert_eq!(client.delete(&blob(name)).await.status.as_u16(), 202);
    assert_eq!(client.delete(&blob(name)).await.status.as_u16(), 404);
    // What another repository has stays.
    assert!(client.has("fixed-local/a", "2", &image).await);
}

#[tokio::test]
async fn what_no_tag_leads_to_is_collected() {
    let more = "[storage]\nmin_free = \"1MiB\"\ncollect_every = \"50ms\"\ncollect_grace = \"400ms\"\n[local.dev-local]\n";
    let mirror = Mirror::with(&[], more).await;
    let client = mirror.client();
    let (gone, kept) = (
        image::multi_platform(Flavour::Oci, 1, 1000),
        image::multi_platform(Flavour::Oci, 2, 1000),
    );
    let by_digest = image::small(Flavour::Oci, 3);
    client.push("dev-local/a", "gone", &gone).await;
    client.push("dev-local/a", "kept", &kept).await;
    client
        .push("dev-local/a", by_digest.digest(), &by_digest)
        .await;
    let signature = image::artifact(Some(&gone.root), "application/vnd.test.signature", b"sig");
    client
        .push("dev-local/a", signature.digest(), &signature)
        .await;
    // A blob that nothing ever pointed to goes as well.
    let lost = image::blob(9, 1000);
    client.push_blob("dev-local/a", &lost).await;
    let before = mirror.metric("roadstead_pushed_bytes");
    assert_eq!(
        client
            .delete("/v2/dev-local/a/manifests/gone")
            .await
            .status
            .as_u16(),
        202
    );
    crate::eventually!((mirror.metric("roadstead_pushed_bytes") - before).is_sign_negative());
    for digest in [gone.digest(), signature.digest()] {
        crate::eventually!(client.manifest("dev-local/a", digest).await.status.as_u16() == 404);
    }
    // Not asked for meanwhile: whoever is told that a blob is here may count on it for a while.
    crate::eventually!({
        tokio::time::sleep(std::time::Duration::from_millis(800)).await;
        client
            .blob("dev-local/a", &lost.digest)
            .await
            .status
            .as_u16()
            == 404
    });
    assert!(client.has("dev-local/a", "kept", &kept).await);
    assert!(
        client
            .has("dev-local/a", by_digest.digest(), &by_digest)
            .await
    );
    // An image of which nothing is left is not listed.
    for path in ["kept", by_digest.digest()] {
        client
            .delete(&format!("/v2/dev-local/a/manifests/{path}"))
            .await;
    }
    crate::eventually!(client.get("/v2/_catalog").await.json() == json!({"repositories": []}));
    crate::eventually!(mirror.files("blobs").is_empty());
}

#[tokio::test]
async fn tags_that_stay_and_tags_that_go() {
    let more = "[local.dev-local]\nmax_unique_tags = 3\nimmutable_tags = [\"v*\"]\n";
    let mirror = Mirror::with(&[], more).await;
    let client = mirror.client();
    let images: Vec<Image> = (0..6)
        .map(|seed| image::small(Flavour::Oci, seed))
        .collect();
    client.push("dev-local/a", "v1", &images[0]).await;
    let answer = {
        for blob in &images[1].blobs {
            client.push_blob("dev-local/a", blob).await;
        }
        client
            .put_manifest("dev-local/a", "v1", &images[1].root)
            .await
    };
    assert_eq!(code(&answer), (409, "DENIED".to_owned()));
    // The same again is no change; `latest` is a tag like others.
    client.push("dev-local/a", "v1", &images[0]).await;
    for path in ["v1", images[0].digest()] {
        let answer = client
            .delete(&format!("/v2/dev-local/a/manifests/{path}"))
            .await;
        assert_eq!(answer.status, StatusCode::CONFLICT);
    }
    for (tag, image) in ["latest", "b", "c", "d"].iter().zip(&images[2..]) {
        client.push("dev-local/a", tag, image).await;
    }
    assert_eq!(
        tags(&client, "dev-local/a").await.unwrap(),
        ["c", "d", "v1"]
    );
}

#[tokio::test]
async fn a_full_disk_refuses_pushes_and_loses_nothing() {
    let disk = SmallDisk::new("6m");
    let more = format!("[storage]\nmin_free = \"256KiB\"\n{LOCAL}");
    let dir = tempfile::tempdir().unwrap();
    let mirror = Mirror::in_directory(dir, disk.path().join("data"), &[], &more).await;
    let client = mirror.client();
    let image = image::small(Flavour::Oci, 1);
    client.push("dev-local/a", "1", &image).await;
    let large = image::blob(1, 8 << 20);
    let answer = client.push_blob("dev-local/a", &large).await;
    assert_eq!(
        answer.status,
        StatusCode::INSUFFICIENT_STORAGE,
        "{answer:?}"
    );
    let filler = disk.path().join("filler");
    fill_up(&filler);
    let other = image::small(Flavour::Oci, 2);
    for blob in &other.blobs {
        let opened = client
            .send(Method::POST, "/v2/dev-local/a/blobs/uploads/", &[])
            .await;
        let answer = if opened.status == StatusCode::ACCEPTED {
            let path = with(&location(&opened), &format!("digest={}", blob.digest));
            client
                .send_body(Method::PUT, &path, &[], blob.bytes.clone())
                .await
        } else {
            opened
        };
        assert_eq!(
            answer.status,
            StatusCode::INSUFFICIENT_STORAGE,
            "{answer:?}"
        );
    }
    assert!(client.has("dev-local/a", "1", &image).await);
    std::fs::remove_file(filler).unwrap();
    client.push("dev-local/a", "2", &other).await;
    assert!(client.has("dev-local/a", "2", &other).await);
}

#[tokio::test]
async fn writes_are_for_those_who_are_alone() {
    let more = format!("[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n{LOCAL}");
    let mirror = Mirror::with(&[], &more).await;
    let client = mirror.client();
    let answer = client
        .send(Method::POST, "/v2/dev-local/a/blobs/uploads/", &[])
        .await;
    assert_eq!(code(&answer), (403, "DENIED".to_owned()));
    let answer = client.delete("/v2/dev-local/a/manifests/1").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_was_acknowledged_survives_every_kill() {
    let mut mirror = mirror().await;
    let mut acknowledged: Vec<(String, Image)> = Vec::new();
    let kills = std::env::var("ROADSTEAD_KILLS").map_or(30, |kills| kills.parse().unwrap());
    for round in 0..kills {
        let client = mirror.client();
        let pushes: Vec<_> = (0..4)
            .map(|pusher| {
                let image = image::small(Flavour::Oci, round * 100 + pusher);
                let tag = format!("t{round}-{pusher}");
                tokio::spawn(async move {
                    for blob in &image.blobs {
                        let path = format!("/v2/dev-local/a/blobs/uploads/?digest={}", blob.digest);
                        let put = client
                            .try_body(Method::POST, &path, blob.bytes.clone())
                            .await;
                        put.filter(|status| *status == 201)?;
                    }
                    let path = format!("/v2/dev-local/a/manifests/{tag}");
                    let put = client
                        .try_body(Method::PUT, &path, image.root.bytes.clone())
                        .await;
                    put.filter(|status| *status == 201)?;
                    Some((tag, image))
                })
            })
            .collect();
        // Some rounds die early, some late.
        tokio::time::sleep(std::time::Duration::from_millis(round * 7 % 61)).await;
        mirror.kill();
        for push in pushes {
            acknowledged.extend(push.await.unwrap());
        }
        mirror.start().await;
        let client = mirror.client();
        for (tag, image) in acknowledged.iter().rev().take(8) {
            assert!(
                client.has("dev-local/a", tag, image).await,
                "round {round}: {tag}"
            );
        }
    }
    let few = usize::try_from(kills / 3).unwrap();
    assert!(acknowledged.len() > few, "only {}", acknowledged.len());
    for (tag, image) in &acknowledged {
        assert!(
            mirror.client().has("dev-local/a", tag, image).await,
            "{tag}"
        );
    }
    // Half a push is not visible: every listed tag can be pulled.
    for tag in tags(&mirror.client(), "dev-local/a").await.unwrap() {
        let answer = mirror.client().manifest("dev-local/a", &tag).await;
        assert_eq!(answer.status.as_u16(), 200, "{tag}");
    }
    assert!(mirror.files("staging").is_empty());
}

/// Runs a command of the program on the mirror's data; its exit code and what it printed.
fn command(mirror: &Mirror, arguments: &[&str]) -> (Option<i32>, String) {
    let config = mirror.data().parent().unwrap().join("mirror.toml");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(arguments)
        .arg("-c")
        .arg(config)
        .arg("--data")
        .arg(mirror.data())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), printed)
}

#[tokio::test]
async fn housekeeping_while_nobody_runs() {
    let mut mirror = mirror().await;
    let (gone, kept) = (image::small(Flavour::Oci, 1), image::small(Flavour::Oci, 2));
    let client = mirror.client();
    client.push("dev-local/a", "gone", &gone).await;
    client.push("dev-local/a", "kept", &kept).await;
    client.delete("/v2/dev-local/a/manifests/gone").await;
    // A mirror that runs does it itself, all but making its index anew.
    assert_eq!(
        command(&mirror, &["gc"]),
        (Some(0), "0 gone, 0 bytes\n".into())
    );
    assert_eq!(command(&mirror, &["verify"]).0, Some(0));
    assert_eq!(command(&mirror, &["verify", "--index"]).0, Some(1));
    mirror.terminate();
    let (code, printed) = command(&mirror, &["gc", "--dry-run", "--grace", "0"]);
    assert_eq!(code, Some(0));
    let line = format!("dev-local/a@{}\tuntagged", gone.digest());
    assert!(printed.contains(&line), "{printed}");
    // The default grace leaves what was pushed a moment ago.
    assert!(command(&mirror, &["gc"]).1.starts_with("0 gone"));
    assert!(command(&mirror, &["gc", "--grace", "0"]).1.contains(&line));
    let (code, printed) = command(&mirror, &["verify", "--index"]);
    assert_eq!(code, Some(0), "{printed}");
    // A flipped bit is found and moved aside.
    let victim = mirror.data().join(format!(
        "blobs/sha256/{}/{}",
        &kept.blobs[0].digest[7..9],
        &kept.blobs[0].digest[7..]
    ));
    let mut bytes = std::fs::read(&victim).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&victim, bytes).unwrap();
    let (code, printed) = command(&mirror, &["verify"]);
    assert_eq!(code, Some(1));
    assert!(printed.contains(&kept.blobs[0].digest), "{printed}");
    mirror.start().await;
    let client = mirror.client();
    assert!(
        client
            .manifest("dev-local/a", "kept")
            .await
            .is(&kept.root.bytes)
    );
    let path = format!("/v2/dev-local/a/blobs/{}", kept.blobs[0].digest);
    assert_eq!(client.get(&path).await.status.as_u16(), 404);
    // Pushed again it is there again.
    client.push("dev-local/a", "kept", &kept).await;
    assert!(client.has("dev-local/a", "kept", &kept).await);
}
