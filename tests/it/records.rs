//! What was pulled and by whom, and what was asked for and could not be had.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use roadstead::bundle::list::{self, Pick};
use serde_json::Value;

use crate::eventually;
use crate::support::client::ACCEPT_ALL;
use crate::support::image::{self, Flavour, Image};
use crate::support::{Answer, Client, Mirror, Remote, Upstream};

const PASSWORD: &str = "s3cret-canary";

const RULES: &str = r#"
[auth]
users = "users.htpasswd"
[auth.groups]
ci = ["bob", "carol"]
[[auth.allow]]
who = ["*"]
on = ["docker-hub"]
may = ["pull"]
[[auth.allow]]
who = ["root"]
on = ["*"]
may = ["admin"]
"#;

async fn guarded(upstream: &Upstream) -> Mirror {
    let dir = tempfile::tempdir().unwrap();
    let hash = roadstead::auth::hash(PASSWORD).unwrap();
    let users = ["ada", "bob", "root"].map(|user| format!("{user}:{hash}\n"));
    std::fs::write(dir.path().join("users.htpasswd"), users.concat()).unwrap();
    let data = dir.path().join("data");
    Mirror::in_directory(dir, data, &[Remote::hub(&upstream.url())], RULES).await
}

async fn ask(client: Client, user: &str, method: Method, path: &str) -> Answer {
    let login = format!("Basic {}", STANDARD.encode(format!("{user}:{PASSWORD}")));
    let headers = [("authorization", login.as_str()), ("accept", ACCEPT_ALL)];
    client.send(method, path, &headers).await
}

async fn manifest(mirror: &Mirror, user: &str, method: Method, reference: &str) -> Answer {
    let path = format!("/v2/library/nginx/manifests/{reference}");
    let answer = ask(mirror.client(), user, method, &path).await;
    assert_eq!(answer.status, StatusCode::OK, "{user} {reference}");
    answer
}

/// What `/admin/pulls` tells: reference, digest, by whom, how often, on what.
type Told = (String, String, Vec<String>, u64, String);

async fn pulls(mirror: &Mirror, query: &str) -> Vec<Told> {
    let path = format!("/admin/pulls{query}");
    let answer = ask(mirror.client(), "root", Method::GET, &path).await;
    assert_eq!(answer.status, StatusCode::OK, "{query}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let told = answer.json()["pulls"].as_array().unwrap().clone();
    let told = told.iter().map(|pull| {
        assert_eq!(pull["repository"], "docker-hub");
        assert_eq!(pull["image"], "library/nginx");
        assert!(text(&pull["first"]) <= text(&pull["last"]));
        assert!(text(&pull["mediaType"]).starts_with("application/vnd."));
        let by = pull["by"].as_array().unwrap().iter().map(text).collect();
        (
            text(&pull["reference"]),
            text(&pull["digest"]),
            by,
            pull["count"].as_u64().unwrap(),
            text(&pull["platform"]),
        )
    });
    told.collect()
}

fn told(reference: &str, digest: &str, by: &[&str], count: u64, platform: &str) -> Told {
    let by = by.iter().map(|one| (*one).to_owned()).collect();
    (
        reference.to_owned(),
        digest.to_owned(),
        by,
        count,
        platform.to_owned(),
    )
}

/// What stands in the index of a mirror, whether or not it runs.
fn written(data: &Path) -> i64 {
    let index = rusqlite::Connection::open_with_flags(
        data.join("index.sqlite"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
    );
    let count = "SELECT coalesce(sum(count), 0) FROM pull";
    index
        .unwrap()
        .query_row(count, [], |row| row.get(0))
        .unwrap()
}

#[tokio::test]
async fn pulls_are_told_by_user_and_by_group_and_outlive_the_mirror() {
    let upstream = Upstream::start().await;
    let image = image::multi_platform(Flavour::Oci, 1, 1000);
    let plain = image::small(Flavour::Docker, 2);
    upstream.hold("library/nginx", "1", &image);
    upstream.hold("library/nginx", "2", &plain);
    let mut mirror = guarded(&upstream).await;
    let (amd64, arm64) = (image.child(0).digest.clone(), image.child(1).digest.clone());
    // As podman: by tag, then one platform.
    manifest(&mirror, "ada", Method::GET, "1").await;
    manifest(&mirror, "ada", Method::GET, &amd64).await;
    // As docker: a look by tag, the rest by digest, which is a pull of the tag. The next time it means the digest.
    manifest(&mirror, "bob", Method::HEAD, "1").await;
    manifest(&mirror, "bob", Method::GET, image.digest()).await;
    manifest(&mirror, "bob", Method::GET, &arm64).await;
    manifest(&mirror, "bob", Method::GET, image.digest()).await;
    // Whoever only looks, or has it already, pulls nothing.
    manifest(&mirror, "bob", Method::HEAD, "2").await;
    let login = format!("Basic {}", STANDARD.encode(format!("ada:{PASSWORD}")));
    let unchanged = mirror
        .client()
        .send(
            Method::GET,
            "/v2/library/nginx/manifests/2",
            &[("authorization", &login), ("if-none-match", plain.digest())],
        )
        .await;
    assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED);
    // What is nobody's platform is asked for by digest alone.
    manifest(&mirror, "ada", Method::GET, plain.digest()).await;

    let tag = |by: &[&str], count| told("1", image.digest(), by, count, "");
    let platform = |digest: &str, by: &[&str], count, on| told(digest, digest, by, count, on);
    let mut all = vec![
        tag(&["ada", "bob"], 2),
        platform(&amd64, &["ada"], 1, "linux/amd64"),
        platform(&arm64, &["bob"], 1, "linux/arm64"),
        platform(image.digest(), &["bob"], 1, ""),
        platform(plain.digest(), &["ada"], 1, ""),
    ];
    all.sort();
    assert_eq!(pulls(&mirror, "").await, all);
    assert_eq!(pulls(&mirror, "?since=1h&repository=docker-hub").await, all);
    assert!(pulls(&mirror, "?repository=ghcr-io").await.is_empty());
    assert!(pulls(&mirror, "?since=2100-01-01").await.is_empty());
    let mut of_bob = vec![
        tag(&["bob"], 1),
        platform(&arm64, &["bob"], 1, "linux/arm64"),
        platform(image.digest(), &["bob"], 1, ""),
    ];
    of_bob.sort();
    for by in ["bob", "ci", "@ci"] {
        assert_eq!(pulls(&mirror, &format!("?by={by}")).await, of_bob, "{by}");
    }
    assert!(pulls(&mirror, "?by=carol").await.is_empty());
    let wrong = |path: &'static str| ask(mirror.client(), "root", Method::GET, path);
    for path in [
        "/admin/pulls?by=@nobody",
        "/admin/pulls?since=soon",
        "/admin/pulls?last=x",
        "/admin/missing?format=xml",
    ] {
        assert_eq!(wrong(path).await.status, StatusCode::BAD_REQUEST, "{path}");
    }
    for path in ["/admin/pulls", "/admin/missing"] {
        let stranger = ask(mirror.client(), "ada", Method::GET, path).await;
        assert_eq!(stranger.status, StatusCode::FORBIDDEN, "{path}");
    }
    // Page by page.
    let (mut next, mut seen) = (Some("/admin/pulls?n=2".to_owned()), 0);
    while let Some(path) = next {
        let page = ask(mirror.client(), "root", Method::GET, &path).await;
        seen += page.json()["pulls"].as_array().unwrap().len();
        let link = page.header("link");
        next = link.map(|link| link[1..link.find('>').unwrap()].to_owned());
    }
    assert_eq!(seen, all.len());

    // A stop loses nothing.
    manifest(&mirror, "ada", Method::GET, "1").await;
    mirror.restart().await;
    let counted = |rows: Vec<Told>| rows.into_iter().map(|row| row.3).sum::<u64>();
    assert_eq!(counted(pulls(&mirror, "").await), 7);
    // A crash loses what came in the last seconds: not what is written by then without anybody asking.
    manifest(&mirror, "ada", Method::GET, "1").await;
    let data = mirror.data().to_owned();
    eventually!(written(&data) == 8);
    mirror.kill();
    mirror.start().await;
    assert_eq!(counted(pulls(&mirror, "").await), 8);
    // Users are named; where they are is not.
    let page = ask(mirror.client(), "root", Method::GET, "/admin/pulls").await;
    assert!(!String::from_utf8_lossy(&page.body).contains("127.0.0.1"));
}

const VIRTUAL: &str = r#"
[storage]
min_free = "1MiB"
[mirror]
offline = false
default = "docker-virtual"
[local.dev-local]
[virtual.docker-virtual]
members = ["dev-local", "docker-hub"]
deploy_to = "dev-local"
serves = ["docker.io"]
"#;

/// A mirror whose names lead through a virtual repository.
async fn several(upstream: &Upstream) -> Mirror {
    let hub = Remote {
        serves: "hub.example",
        ..Remote::hub_with(&upstream.url(), "tag_ttl = \"0s\"\nnegative_ttl = \"0s\"")
    };
    Mirror::with(&[hub], VIRTUAL).await
}

async fn set_offline(mirror: &mut Mirror, offline: bool) {
    let text = std::fs::read_to_string(mirror.configuration()).unwrap();
    let before = format!("offline = {}", !offline);
    assert!(text.contains(&before));
    let text = text.replace(&before, &format!("offline = {offline}"));
    std::fs::write(mirror.configuration(), text).unwrap();
    mirror.restart().await;
}

/// What `/admin/missing` tells: the kind and why, by reference.
async fn missing(mirror: &Mirror) -> BTreeMap<String, (String, String)> {
    let answer = mirror.client().get("/admin/missing").await;
    assert_eq!(answer.status, StatusCode::OK);
    let all = answer.json();
    let rows = all["missing"].as_array().unwrap();
    assert_eq!(all["total"].as_u64().unwrap(), rows.len() as u64);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let row = |row: &Value| {
        assert_eq!(row["who"], "anonymous");
        let key = text(&row["reference"]);
        (key, (text(&row["kind"]), text(&row["why"])))
    };
    rows.iter().map(row).collect()
}

fn command(mirror: &Mirror, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
    command
        .args(arguments)
        .arg("-c")
        .arg(mirror.configuration());
    if arguments[0] != "check" {
        command.arg("--data").arg(mirror.data());
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A list as bundles are made from it, in full again.
fn images(list: &[u8]) -> Vec<String> {
    let wanted = list::from_file("missing.txt", list).unwrap();
    let line = |one: list::Wanted| match one.pick {
        Pick::Tags(tags) => format!("{}:{}", one.image, tags[0]),
        Pick::Digest { digest, tag: None } => format!("{}@{digest}", one.image),
        other => panic!("{other:?}"),
    };
    wanted.into_iter().map(line).collect()
}

async fn pull_all(client: Client, name: &str, tag: &str, image: &Image) {
    assert_eq!(client.manifest(name, tag).await.status, StatusCode::OK);
    for content in &image.manifests {
        let answer = client.manifest(name, &content.digest).await;
        assert_eq!(answer.status, StatusCode::OK, "{content:?}");
    }
    for blob in &image.blobs {
        assert_eq!(client.blob(name, &blob.digest).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn what_an_offline_mirror_lacks_is_listed_until_it_is_here() {
    let upstream = Upstream::start().await;
    let image = image::multi_platform(Flavour::Oci, 1, 1000);
    let (other, third) = (image::small(Flavour::Oci, 2), image::small(Flavour::Oci, 3));
    upstream.hold("library/nginx", "1", &image);
    upstream.hold("library/nginx", "2", &other);
    upstream.hold("team/app", "3", &third);
    upstream.hold("team/app", "4", &third);
    let mut mirror = several(&upstream).await;
    let client = mirror.client();
    // A local image of that name, which has none of its tags.
    client
        .push(
            "dev-local/library/nginx",
            "own",
            &image::small(Flavour::Oci, 9),
        )
        .await;
    let (amd64, arm64) = (image.child(0).digest.clone(), image.child(1).digest.clone());
    assert_eq!(client.manifest("nginx", "1").await.status, StatusCode::OK);
    assert_eq!(
        client.manifest("nginx", &amd64).await.status,
        StatusCode::OK
    );
    // Upstream itself says so.
    assert_eq!(
        client.manifest("nginx", "nowhere").await.status,
        StatusCode::NOT_FOUND
    );
    assert!(missing(&mirror).await.is_empty());
    set_offline(&mut mirror, true).await;
    let client = mirror.client();
    let layer = image.layers()[0].digest.clone();
    let unknown = image::blob(77, 100).digest;
    let gone = [
        client.manifest("nginx", "2").await,
        client.manifest("nginx", "2").await,
        client.manifest("nginx", &arm64).await,
        client.manifest("nginx", other.digest()).await,
        client.blob("nginx", &layer).await,
        client.blob("nginx", &unknown).await,
        client.head("/v2/team/app/manifests/3").await,
        // As docker asks before it pushes: nobody lacks that.
        client.head(&format!("/v2/team/new/blobs/{unknown}")).await,
    ];
    for answer in gone {
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{answer:?}");
    }
    // What is here is not missing.
    assert_eq!(client.manifest("nginx", "own").await.status, StatusCode::OK);
    assert_eq!(
        client.manifest("nginx", &amd64).await.status,
        StatusCode::OK
    );
    let offline = |kind: &str| (kind.to_owned(), "offline".to_owned());
    let lacking = BTreeMap::from([
        ("2".to_owned(), offline("manifest")),
        (arm64.clone(), offline("manifest")),
        (other.digest().to_owned(), offline("manifest")),
        (layer.clone(), offline("blob")),
        (unknown.clone(), offline("blob")),
        ("3".to_owned(), offline("manifest")),
    ]);
    assert_eq!(missing(&mirror).await, lacking);
    assert!(
        (mirror.metric("roadstead_missing_total{repository=\"docker-virtual\"}") - 7.0).abs() < 0.5
    );
    let expected = vec![
        "docker.io/library/nginx:1".to_owned(),
        "docker.io/library/nginx:2".to_owned(),
        format!("docker.io/library/nginx@{}", other.digest()),
        "docker.io/team/app:3".to_owned(),
    ];
    let answer = client.get("/admin/missing?format=list").await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(answer.body.starts_with(b"# "));
    assert_eq!(images(&answer.body), expected);
    let file = mirror.data().join("../missing.txt");
    assert_eq!(
        command(&mirror, &["missing", "-o", file.to_str().unwrap()]),
        ""
    );
    assert_eq!(images(&std::fs::read(&file).unwrap()), expected);
    // It stays known over a stop, and a command on a mirror that does not run knows it too.
    mirror.terminate();
    assert_eq!(images(command(&mirror, &["missing"]).as_bytes()), expected);

    set_offline_and_start(&mut mirror).await;
    // By any key that leads there, and by what the tag is.
    let client = mirror.client();
    pull_all(client, "nginx", "1", &image).await;
    pull_all(client, "docker-hub/library/nginx", "2", &other).await;
    let head = client.head("/v2/team/app/manifests/3").await;
    assert_eq!(head.status, StatusCode::OK);
    let left = missing(&mirror).await;
    assert_eq!(left.keys().collect::<Vec<_>>(), ["3", unknown.as_str()]);
    assert_eq!(
        client.manifest("team/app", third.digest()).await.status,
        StatusCode::OK
    );
    assert_eq!(
        missing(&mirror).await.keys().collect::<Vec<_>>(),
        [&unknown]
    );
    let list = command(&mirror, &["missing", "--clear"]);
    assert!(
        images(list.as_bytes()).is_empty() && list.contains("1 parts"),
        "{list}"
    );
    assert!(missing(&mirror).await.is_empty());
    let deleted = client.send(Method::DELETE, "/admin/missing", &[]).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    let refused = client
        .send_body(Method::POST, "/admin/missing", &[], Bytes::new())
        .await;
    assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
}

async fn set_offline_and_start(mirror: &mut Mirror) {
    let text = std::fs::read_to_string(mirror.configuration()).unwrap();
    let text = text.replace("offline = true", "offline = false");
    std::fs::write(mirror.configuration(), text).unwrap();
    mirror.start().await;
}

#[tokio::test]
async fn what_an_upstream_that_is_down_does_not_give_is_missing() {
    let mut upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    let remote = Remote::hub_with(&upstream.url(), "tag_ttl = \"0s\"\nnegative_ttl = \"0s\"");
    let mirror = Mirror::with(&[remote], "").await;
    let client = mirror.client();
    upstream.stop().await;
    let layer = image.layers()[0].digest.clone();
    for answer in [
        client.manifest("nginx", "1").await,
        client.blob("nginx", &layer).await,
    ] {
        assert!(answer.status.is_server_error(), "{answer:?}");
    }
    let unreachable = |kind: &str| (kind.to_owned(), "unreachable".to_owned());
    let lacking = BTreeMap::from([
        ("1".to_owned(), unreachable("manifest")),
        (layer.clone(), unreachable("blob")),
    ]);
    assert_eq!(missing(&mirror).await, lacking);
    let list = client.get("/admin/missing?format=list").await;
    assert_eq!(images(&list.body), ["docker.io/library/nginx:1"]);
    upstream.restart().await;
    // The breaker opens again by itself.
    eventually!(client.manifest("nginx", "1").await.status == StatusCode::OK);
    eventually!(client.blob("nginx", &layer).await.status == StatusCode::OK);
    assert!(missing(&mirror).await.is_empty());
}

#[tokio::test]
async fn check_says_how_much_is_missing_where_a_mirror_runs() {
    let upstream = Upstream::start().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let more = "[storage]\npath = \"data\"\nmin_free = \"1MiB\"\n[mirror]\noffline = true\n";
    let remotes = [Remote::hub(&upstream.url())];
    let mut mirror = Mirror::in_directory(dir, data, &remotes, more).await;
    assert!(!command(&mirror, &["check"]).contains("missing"));
    let answer = mirror.client().manifest("nginx", "1").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let printed = command(&mirror, &["check"]);
    assert!(
        printed.contains("missing: 1 of what clients asked for"),
        "{printed}"
    );
    mirror.terminate();
    assert!(!command(&mirror, &["check"]).contains("missing"));
}
