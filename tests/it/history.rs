//! What tags meant over time; rolling back, pinning.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::image::{self, Flavour};
use crate::support::{Mirror, Upstream};

async fn put(client: &Client, path: &str, digest: &str) -> Answer {
    let body = json!({ "digest": digest }).to_string();
    client.send_body(Method::PUT, path, &[], body.into()).await
}

fn causes(told: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    told["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (text(&entry["digest"]), text(&entry["cause"])))
        .collect()
}

#[tokio::test]
async fn a_local_tag_is_rolled_back() {
    let tables = "[local.dev-local]\n[local.prod-local]\nimmutable_tags = [\"v*\"]\n";
    let mut mirror = Mirror::with(&[], tables).await;
    let client = mirror.client();
    let [one, two] = [1, 2].map(|seed| image::small(Flavour::Oci, seed));
    client.push("dev-local/team/app", "latest", &one).await;
    client.push("dev-local/team/app", "latest", &two).await;
    let path = "/admin/tags/dev-local/team/app/latest";
    let told = client.get(path).await.json();
    assert_eq!(told["digest"], json!(two.digest()));
    let expected = [&two, &one].map(|image| (image.digest().to_owned(), "pushed".to_owned()));
    assert_eq!(causes(&told), expected);
    let told = put(&client, path, one.digest()).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    assert_eq!(
        causes(&told.json())[0],
        (one.digest().to_owned(), "rolled back".to_owned())
    );
    for _ in 0..2 {
        let client = mirror.client();
        assert!(client.has("dev-local/team/app", "latest", &one).await);
        // What it meant before is still there to go back to.
        assert!(client.has("dev-local/team/app", two.digest(), &two).await);
        assert_eq!(causes(&client.get(path).await.json()).len(), 3);
        mirror.restart().await;
    }
    let client = mirror.client();
    client.push("prod-local/app", "v1", &one).await;
    client.push("prod-local/app", "w", &two).await;
    let unknown = image::blob(1, 10).digest;
    for (path, digest, status) in [
        ("/admin/tags/prod-local/app/v1", two.digest(), 409),
        ("/admin/tags/prod-local/app/w", unknown.as_str(), 404),
        ("/admin/tags/prod-local/app/w", "sha256:0", 400),
        ("/admin/tags/prod-local/app/-w", two.digest(), 400),
        ("/admin/tags/prod-local/app", two.digest(), 400),
        ("/admin/tags/nowhere/app/w", two.digest(), 404),
    ] {
        let answer = put(&client, path, digest).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {answer:?}");
    }
    assert_eq!(
        client.get("/admin/tags/prod-local/app/none").await.status,
        StatusCode::NOT_FOUND
    );
    let deleted = client.delete("/admin/tags/prod-local/app/w").await;
    assert_eq!(deleted.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_remote_tag_is_followed_and_pinned() {
    let mut upstream = Upstream::start().await;
    let [one, two] = [1, 2].map(|seed| image::small(Flavour::Docker, seed));
    upstream.hold("library/app", "1", &one);
    let mut mirror = Mirror::of(&upstream.url()).await;
    let client = mirror.client();
    assert!(client.manifest("app", "1").await.is(&one.root.bytes));
    upstream.hold("library/app", "1", &two);
    crate::eventually!(client.manifest("app", "1").await.is(&two.root.bytes));
    let path = "/admin/tags/docker-hub/app/1";
    let told = client.get(path).await.json();
    let expected = [&two, &one].map(|image| (image.digest().to_owned(), "upstream".to_owned()));
    assert_eq!(causes(&told), expected);
    assert_eq!(told["pinned"], json!(false));
    let told = put(&client, path, one.digest()).await;
    assert_eq!(
        (told.status, &told.json()["pinned"]),
        (StatusCode::OK, &json!(true))
    );
    let asked = upstream.log().len();
    for _ in 0..2 {
        let pinned = mirror.client().manifest("app", "1").await;
        assert!(pinned.is(&one.root.bytes));
        assert_eq!(
            pinned.header("cache-status"),
            Some("roadstead; hit; detail=pinned")
        );
        mirror.restart().await;
    }
    assert_eq!(upstream.log().len(), asked, "nobody is asked what it means");
    let client = mirror.client();
    let let_go = client.delete(path).await;
    assert_eq!(let_go.status, StatusCode::NO_CONTENT, "{let_go:?}");
    assert_eq!(client.delete(path).await.status, StatusCode::NOT_FOUND);
    assert!(client.manifest("app", "1").await.is(&two.root.bytes));
    let actions: Vec<Value> = client.get("/admin/audit").await.json()["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["event"]["action"].clone())
        .collect();
    assert_eq!(actions, ["pin", "unpin"]);
    // What is not there cannot be pinned; while nobody can say, that is said.
    let unknown = image::blob(1, 10).digest;
    assert_eq!(
        put(&client, path, &unknown).await.status,
        StatusCode::NOT_FOUND
    );
    upstream.stop().await;
    let unknown = image::blob(2, 10).digest;
    assert!(put(&client, path, &unknown).await.status.is_server_error());
}
