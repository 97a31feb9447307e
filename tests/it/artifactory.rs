//! Artifactory's API, apart from promotion.

use http::StatusCode;
use serde_json::json;

use crate::support::image::{self, Flavour};
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
        ("dev-local", 400),
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
