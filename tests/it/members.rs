//! A virtual repository of ten members: what a local one holds costs nothing upstream. Counted at the upstreams.

use http::StatusCode;
use serde_json::json;

use crate::support::image::{self, Content, Flavour};
use crate::support::{Mirror, Remote, Upstream};

const REMOTES: [&str; 9] = [
    "remote-1", "remote-2", "remote-3", "remote-4", "remote-5", "remote-6", "remote-7", "remote-8",
    "remote-9",
];

fn remote(key: &'static str, upstream: &Upstream) -> Remote {
    Remote {
        key,
        url: upstream.url(),
        serves: key,
        more: "tag_ttl = \"0s\"\nnegative_ttl = \"0s\"".to_owned(),
    }
}

fn over(members: &[&str], more: &str) -> String {
    let locals = members.iter().filter(|member| member.ends_with("-local"));
    let tables: String = locals.map(|key| format!("[local.{key}]\n")).collect();
    format!(
        "{tables}[virtual.over-all]\nmembers = {}\n{more}\n",
        json!(members)
    )
}

fn asked(upstreams: &[Upstream]) -> usize {
    upstreams.iter().map(|upstream| upstream.log().len()).sum()
}

/// Everything that is read of an image, by tag and by digest, with GET and HEAD.
async fn read_all(mirror: &Mirror, name: &str, image: &image::Image) {
    let client = mirror.client();
    let mut paths = vec![
        (format!("/v2/{name}/manifests/1"), image.root.bytes.clone()),
        (
            format!("/v2/{name}/manifests/{}", image.digest()),
            image.root.bytes.clone(),
        ),
    ];
    for blob in &image.blobs {
        paths.push((
            format!("/v2/{name}/blobs/{}", blob.digest),
            blob.bytes.clone(),
        ));
    }
    for (path, bytes) in paths {
        let head = client.head(&path).await;
        assert_eq!(head.status, StatusCode::OK, "{path}");
        assert_eq!(
            head.header("content-length"),
            Some(bytes.len().to_string().as_str())
        );
        let got = client.get(&path).await;
        assert!(got.is(&bytes), "{path} {got:?}");
    }
}

#[tokio::test]
async fn one_local_member_among_nine_remotes_asks_nobody() {
    let mut upstreams = Vec::new();
    for _ in REMOTES {
        upstreams.push(Upstream::start().await);
    }
    let remotes: Vec<Remote> = REMOTES
        .iter()
        .zip(&upstreams)
        .map(|(key, upstream)| remote(key, upstream))
        .collect();
    let [mine, theirs] = [1, 2].map(|seed| image::small(Flavour::Oci, seed));
    for upstream in &upstreams {
        upstream.hold("team/app", "1", &theirs);
        upstream.hold("library/app", "1", &theirs);
        let list = json!({"name": "library/app", "tags": ["1", "2"]});
        upstream.hold_path(
            "/v2/library/app/tags/list",
            &Content::json("application/json", &list),
        );
    }
    let mut members = REMOTES.to_vec();
    // In the middle: its place among the remotes must not matter for a name that it holds.
    members.insert(4, "dev-local");
    let mut mirror = Mirror::with(&remotes, &over(&members, "")).await;
    mirror.client().push("dev-local/team/app", "1", &mine).await;
    for _ in 0..2 {
        read_all(&mirror, "over-all/team/app", &mine).await;
        let client = mirror.client();
        let tags = client.get("/v2/over-all/team/app/tags/list").await;
        assert_eq!(tags.json()["tags"], json!(["1"]));
        // Nor is what it does not have.
        let none = client.manifest("over-all/team/app", "none").await;
        assert_eq!(none.status, StatusCode::NOT_FOUND);
        mirror.restart().await;
    }
    assert_eq!(asked(&upstreams), 0);

    // Of Docker's own names what stands first in the order is served without asking; a list of tags is everybody's.
    let mut members = REMOTES.to_vec();
    members.insert(0, "dev-local");
    let mirror = Mirror::with(&remotes, &over(&members, "")).await;
    let client = mirror.client();
    client.push("dev-local/library/app", "1", &mine).await;
    read_all(&mirror, "over-all/library/app", &mine).await;
    assert_eq!(asked(&upstreams), 0);
    let tags = client.get("/v2/over-all/library/app/tags/list").await;
    assert_eq!(tags.json()["tags"], json!(["1", "2"]));
    for upstream in &upstreams {
        assert_eq!(upstream.log().len(), 1, "{:?}", upstream.log());
        assert_eq!(upstream.count("GET", "/tags/list"), 1);
    }
}

#[tokio::test]
async fn nine_local_members_and_a_remote_ask_nobody() {
    let upstream = Upstream::start().await;
    let theirs = image::small(Flavour::Oci, 100);
    let locals: Vec<String> = (1..10).map(|n| format!("team-{n}-local")).collect();
    let mut members: Vec<&str> = vec!["remote-1"];
    members.extend(locals.iter().map(String::as_str));
    let mirror = Mirror::with(&[remote("remote-1", &upstream)], &over(&members, "")).await;
    let client = mirror.client();
    for (number, local) in (1..).zip(&locals) {
        let name = format!("team-{number}/app");
        upstream.hold(&name, "1", &theirs);
        let image = image::small(Flavour::Oci, number);
        client.push(&format!("{local}/{name}"), "1", &image).await;
        read_all(&mirror, &format!("over-all/{name}"), &image).await;
    }
    // A name that two of them hold is the first one's, with what only the second has.
    let [first, second] = [50, 51].map(|seed| image::small(Flavour::Oci, seed));
    client.push("team-2-local/both/app", "1", &first).await;
    client.push("team-8-local/both/app", "1", &second).await;
    client.push("team-8-local/both/app", "2", &second).await;
    read_all(&mirror, "over-all/both/app", &first).await;
    assert!(client.has("over-all/both/app", "2", &second).await);
    assert_eq!(upstream.log().len(), 0, "{:?}", upstream.log());
    // What nobody here holds is asked for once.
    upstream.hold("other/app", "1", &theirs);
    assert!(
        client
            .manifest("over-all/other/app", theirs.digest())
            .await
            .is(&theirs.root.bytes)
    );
    assert_eq!(upstream.count("", "/manifests/"), 1, "{:?}", upstream.log());
}
