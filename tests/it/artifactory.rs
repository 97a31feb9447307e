//! Artifactory's API, apart from promotion.

use http::StatusCode;
use serde_json::json;

use crate::support::image::{self, Flavour, labelled, plain_hex as hex};
use crate::support::{Mirror, Remote, Upstream};

#[tokio::test]
async fn deletion_by_path_in_a_local_repository() {
    let tables = "[local.dev-local]\n[local.prod-local]\nimmutable_tags = [\"v*\"]\n[local.fixed-local]\ndelete = false\n\
        [virtual.all-of-it]\nmembers = [\"dev-local\"]\ndeploy_to = \"dev-local\"\n";
    let mut mirror = Mirror::with(&[], tables).await;
    let client = mirror.client();
    let image = image::small(Flavour::Oci, 1);
    for (name, tag) in [
        ("dev-local/team/app", "1"),
        ("dev-local/team/app", "2"),
        ("dev-local/team/app/sub", "1"),
        ("dev-local/teams/other", "1"),
        ("prod-local/app", "v1"),
        ("fixed-local/app", "1"),
    ] {
        client.push(name, tag, &image).await;
    }
    let table = [
        ("dev-local/team/app/1", 204),
        ("dev-local/team/app/1", 404),
        ("dev-local/team/none", 404),
        ("dev-local/team/app/2/list.manifest.json", 404),
        ("dev-local/team/app/3/manifest.json", 404),
        ("dev-local/team/app/3/sha256__00", 404),
        ("dev-local", 400),
        ("dev-local/", 400),
        ("dev-local//", 400),
        ("nowhere/app", 404),
        ("dev-local-cache/team/app", 404),
        ("prod-local/app/v1", 409),
        ("prod-local/app", 409),
        ("fixed-local/app", 405),
    ];
    for (path, status) in table {
        let answer = client.delete(&format!("/artifactory/{path}")).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {answer:?}");
        if status != 204 {
            assert_eq!(
                answer.json()["errors"][0]["status"],
                json!(status),
                "{path}"
            );
        }
    }
    assert!(client.has("dev-local/team/app", "2", &image).await);
    assert!(client.has("prod-local/app", "v1", &image).await);
    // A folder, through a virtual repository: what is below it goes, what only begins alike stays.
    let answer = client.delete("/artifactory/all-of-it/team/").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    for _ in 0..2 {
        let client = mirror.client();
        let names = client.get("/dev-local/v2/_catalog").await.json();
        assert_eq!(names["repositories"], json!(["teams/other"]));
        let blob = format!("/v2/dev-local/team/app/blobs/{}", image.blobs[0].digest);
        assert_eq!(client.get(&blob).await.status, StatusCode::NOT_FOUND);
        assert!(client.has("dev-local/teams/other", "1", &image).await);
        mirror.restart().await;
    }
    let answer = mirror
        .client()
        .get("/artifactory/dev-local/teams/other")
        .await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn deletion_by_path_empties_the_cache_of_a_remote() {
    let mut upstream = Upstream::start().await;
    let [one, two] = [1, 2].map(|seed| image::small(Flavour::Docker, seed));
    upstream.hold("library/one", "1", &one);
    upstream.hold("library/one", "2", &two);
    upstream.hold("library/two", "1", &two);
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], "").await;
    let client = mirror.client();
    let all = async || {
        client.has("one", "1", &one).await
            && client.has("one", "2", &two).await
            && client.has("two", "1", &two).await
    };
    assert!(all().await);
    let answer = client
        .delete("/artifactory/docker-hub-cache/library/one/2")
        .await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    let before = upstream.log().len();
    assert!(client.has("one", "1", &one).await);
    let answer = client.delete("/artifactory/docker-hub/library/one").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    // What another image has stays; what only this one had is off the disk.
    let names = client.get("/v2/_catalog").await.json();
    assert_eq!(names["repositories"], json!(["library/two"]));
    assert_eq!(
        mirror.files("blobs").len(),
        two.blobs.len() + two.manifests.len()
    );
    assert!(
        upstream.log().len() <= before + 2,
        "nothing was fetched for it"
    );
    // And all of it is fetched again.
    assert!(all().await);
    upstream.stop().await;
    assert!(client.has("one", "2", &two).await);
    let again = client.delete("/artifactory/docker-hub/library/one").await;
    assert_eq!(again.status, StatusCode::NO_CONTENT);
    assert!(client.manifest("one", "1").await.status.is_server_error());
    assert!(client.has("two", "1", &two).await);
}

#[tokio::test]
async fn files_folders_and_properties() {
    let tables = "[local.dev-local]\n[local.prod-local]\n";
    let mut mirror = Mirror::with(&[], tables).await;
    let client = mirror.client();
    let image = labelled(1, &json!({"org.team": "blue", "commit": "abc"}));
    client.push("dev-local/team/app", "1", &image).await;
    client.push("dev-local/team/app", "2", &image).await;
    client.push("dev-local/team/app/sub", "x", &image).await;
    let at = "/artifactory/api/storage/dev-local";
    let told = client.get(&format!("{at}/team/app")).await.json();
    assert_eq!(
        (&told["repo"], &told["path"]),
        (&json!("dev-local"), &json!("/team/app"))
    );
    let children = |told: &serde_json::Value| -> Vec<String> {
        let list = told["children"].as_array().unwrap();
        list.iter()
            .map(|child| child["uri"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(children(&told), ["/1", "/2", "/sub"]);
    assert_eq!(told["uri"], json!(format!("{}{at}/team/app", mirror.url())));
    assert_eq!(children(&client.get(at).await.json()), ["/team"]);
    let told = client.get(&format!("{at}/team/app/1")).await.json();
    assert_eq!(children(&told)[0], "/manifest.json");
    assert_eq!(children(&told).len(), 3);
    let file = client
        .get("/api/storage/dev-local/team/app/1/manifest.json")
        .await
        .json();
    assert_eq!(file["checksums"]["sha256"], json!(hex(image.digest())));
    assert_eq!(file["size"], json!(image.root.size().to_string()));
    let layer = image.layers()[0];
    let file = client
        .get(&format!("{at}/team/app/1/sha256__{}", hex(&layer.digest)))
        .await
        .json();
    assert_eq!(file["size"], json!(layer.size().to_string()));

    // What follows from the image, and what somebody sets.
    let properties = format!("{at}/team/app/1/manifest.json?properties");
    let told = client.get(&properties).await.json()["properties"].clone();
    for (key, value) in [
        ("docker.manifest", "1"),
        ("docker.manifest.digest", image.digest()),
        ("docker.repoName", "team/app"),
        ("docker.label.org.team", "blue"),
        ("docker.label.commit", "abc"),
        ("sha256", hex(image.digest())),
    ] {
        assert_eq!(told[key], json!([value]), "{key}");
    }
    let set = async |method: http::Method, path: &str| {
        client
            .send(method, &format!("{at}/{path}"), &[])
            .await
            .status
            .as_u16()
    };
    assert_eq!(
        set(
            http::Method::PUT,
            "team/app/1?properties=qa=passed,signed;by=me"
        )
        .await,
        204
    );
    assert_eq!(
        set(http::Method::PUT, "team/app/sub?properties=all=yes").await,
        204
    );
    assert_eq!(
        set(http::Method::DELETE, "team/app/1?properties=by").await,
        204
    );
    let table = [
        ("team/app/1?properties=docker.manifest=2", 400),
        ("team/app/1?properties=", 400),
        ("team/app/1?properties=a", 400),
        ("team/app/1", 400),
        ("team/none/1?properties=a=1", 404),
    ];
    for (path, status) in table {
        assert_eq!(set(http::Method::PUT, path).await, status, "{path}");
    }
    for (path, status) in [
        ("dev-local/team/none", 404),
        ("nowhere", 404),
        ("dev-local/team/app?properties", 404),
        ("dev-local/team/app/1/list.manifest.json", 404),
    ] {
        let answer = client.get(&format!("/api/storage/{path}")).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {answer:?}");
        assert_eq!(answer.json()["errors"][0]["status"], json!(status));
    }
    // They go along when the image moves, and stand after a start and a lost index.
    let body = json!({"targetRepo": "prod-local", "dockerRepository": "team/app", "tag": "1"});
    let promoted = client
        .send_body(
            http::Method::POST,
            "/api/docker/dev-local/v2/promote",
            &[],
            body.to_string().into(),
        )
        .await;
    assert_eq!(promoted.status, StatusCode::OK, "{promoted:?}");
    mirror.terminate();
    for file in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        drop(std::fs::remove_file(mirror.data().join(file)));
    }
    mirror.start().await;
    let client = mirror.client();
    let told = client
        .get("/api/storage/prod-local/team/app/1?properties")
        .await
        .json();
    assert_eq!(
        told["properties"]["qa"],
        json!(["passed", "signed"]),
        "{told}"
    );
    assert_eq!(told["properties"]["docker.label.org.team"], json!(["blue"]));
    assert!(told["properties"].get("by").is_none());
    let only = client
        .get("/api/storage/prod-local/team/app/1?properties=qa,none")
        .await
        .json();
    assert_eq!(only["properties"].as_object().unwrap().len(), 1);
    // Another image under the tag has none of them.
    client
        .push("prod-local/team/app", "1", &labelled(2, &json!({})))
        .await;
    let told = client
        .get("/api/storage/prod-local/team/app/1?properties")
        .await
        .json();
    assert!(told["properties"].get("qa").is_none(), "{told}");
}

#[tokio::test]
async fn images_are_found_by_what_they_have() {
    let upstream = Upstream::start().await;
    let [one, two, theirs] = [1, 2, 3].map(|seed| {
        let team = if seed == 1 { "blue" } else { "red" };
        labelled(seed, &json!({"org.team": team, "n": seed.to_string()}))
    });
    upstream.hold("library/app", "1", &theirs);
    let tables = "[local.dev-local]\n[local.prod-local]\n[virtual.all-of-it]\nmembers = [\"dev-local\", \"docker-hub\"]\n";
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], tables).await;
    let client = mirror.client();
    client.push("dev-local/team/app", "1.0", &one).await;
    client.push("dev-local/team/app", "1.1", &two).await;
    client.push("prod-local/team/app", "1.0", &one).await;
    // A remote's images are found once their configuration is here.
    assert!(client.has("docker-hub/app", "1", &theirs).await);
    let set = "/api/storage/dev-local/team/app/1.1?properties=qa=passed";
    assert_eq!(
        client
            .send(http::Method::PUT, set, &[])
            .await
            .status
            .as_u16(),
        204
    );
    let base = format!("{}/artifactory/api/storage/", mirror.url());
    let found = async |query: &str| -> Vec<String> {
        let answer = client
            .get(&format!("/artifactory/api/search/{query}"))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{query} {answer:?}");
        let uri = |result: &serde_json::Value| result["uri"].as_str().unwrap().to_owned();
        let results = answer.json()["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(uri)
            .collect::<Vec<_>>();
        results
            .iter()
            .map(|uri| {
                uri.strip_prefix(&base)
                    .unwrap()
                    .strip_suffix("/manifest.json")
                    .unwrap()
                    .to_owned()
            })
            .collect()
    };
    let (dev0, dev1, prod, hub) = (
        "dev-local/team/app/1.0",
        "dev-local/team/app/1.1",
        "prod-local/team/app/1.0",
        "docker-hub-cache/library/app/1",
    );
    let layer = hex(&one.layers()[0].digest).to_owned();
    let manifest = hex(two.digest()).to_owned();
    let table: [(&str, &[&str]); 14] = [
        ("prop?docker.repoName=team/app", &[dev0, dev1, prod]),
        (
            "prop?docker.repoName=team/app&docker.manifest=1.0,1.1&repos=dev-local",
            &[dev0, dev1],
        ),
        ("prop?docker.repoName=*/app&docker.manifest=1", &[hub]),
        ("prop?docker.label.org.team=blue", &[dev0, prod]),
        ("prop?docker.label.org.team=r*", &[dev1, hub]),
        (
            "prop?docker.label.org.team=red&repos=docker-hub-cache",
            &[hub],
        ),
        ("prop?docker.label.n&repos=all-of-it", &[dev0, dev1, hub]),
        ("prop?qa=*", &[dev1]),
        ("prop?qa=failed", &[]),
        ("prop?docker.repoName=[a-z]*", &[]),
        ("prop?docker.repoName=x'%20OR%201=1%20--", &[]),
        ("artifact?name=app&repos=prod-local", &[prod]),
        (&format!("checksum?sha256={layer}"), &[dev0, prod]),
        (&format!("checksum?sha256={manifest}"), &[dev1]),
    ];
    crate::eventually!(found("prop?docker.label.n&repos=docker-hub").await == [hub]);
    for (query, expected) in table {
        assert_eq!(found(query).await, expected, "{query}");
    }
    let detailed = client
        .send(
            http::Method::GET,
            "/api/search/prop?qa=passed",
            &[("x-result-detail", "info, properties")],
        )
        .await
        .json();
    let result = &detailed["results"][0];
    assert_eq!(result["properties"]["qa"], json!(["passed"]));
    assert_eq!(result["repo"], json!("dev-local"));
    for bad in [
        "prop",
        "checksum?sha256=1",
        "artifact?x=1",
        "prop?a=1&repos=nowhere",
        "none?a=1",
    ] {
        let answer = client.get(&format!("/api/search/{bad}")).await;
        assert!(answer.status.is_client_error(), "{bad} {answer:?}");
        assert!(answer.json()["errors"][0]["message"].is_string());
    }
}
