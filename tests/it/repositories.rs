//! Repositories that come, change and go while the mirror runs: by the API, and by SIGHUP.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::image::{self, Flavour};
use crate::support::{Act, Answer, Client, Gate, Mirror, Remote, Upstream, wait_until};

const FILE: &str = "[local.file-local]\n";

impl Client {
    async fn repository(&self, method: Method, key: &str, body: &Value) -> Answer {
        let path = format!("/artifactory/api/repositories/{key}");
        let headers = [("content-type", "application/json")];
        self.send_body(method, &path, &headers, body.to_string().into())
            .await
    }

    async fn create(&self, key: &str, body: &Value) -> Answer {
        let answer = self.repository(Method::PUT, key, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{key}: {answer:?}");
        answer
    }

    async fn remove(&self, key: &str) -> Answer {
        self.repository(Method::DELETE, key, &json!({})).await
    }

    async fn keys(&self, query: &str) -> Vec<String> {
        let path = format!("/artifactory/api/repositories{query}");
        let listed = self.get(&path).await.json();
        let listed = listed.as_array().unwrap().iter();
        listed
            .map(|one| one["key"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn local() -> Value {
    json!({"rclass": "local", "packageType": "docker", "description": "made by a test"})
}

#[tokio::test]
async fn made_used_changed_and_kept_over_restarts() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("team/up", "1", &image);
    let mut mirror = Mirror::with(&[], FILE).await;
    let client = mirror.client();
    client.create("dev-local", &local()).await;
    let remote = json!({
        "key": "up-remote", "rclass": "remote", "packageType": "docker", "url": upstream.url(),
        "retrievalCachePeriodSecs": 0, "missedRetrievalCachePeriodSecs": 0, "proxy": "corporate", "hardFail": true,
    });
    let answer = client.create("up-remote", &remote).await;
    assert_eq!(answer.header("x-roadstead-ignored-fields"), Some("proxy"));
    let several = json!({
        "rclass": "virtual", "packageType": "docker", "repositories": ["up-remote", "dev-local"],
        "defaultDeploymentRepo": "dev-local", "excludesPattern": "secret/**",
    });
    client.create("all-virtual", &several).await;
    client.push("all-virtual/team/app", "1", &image).await;
    for round in 0..4 {
        match round {
            1 => mirror.restart().await,
            2 => {
                mirror.kill();
                mirror.start().await;
            }
            3 => {
                // The journal knows without the index.
                mirror.terminate();
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
        assert!(
            client.has("dev-local/team/app", "1", &image).await,
            "{round}"
        );
        assert!(client.has("all-virtual/team/app", "1", &image).await);
        assert!(client.has("all-virtual/team/up", "1", &image).await);
        let excluded = client.manifest("all-virtual/secret/up", "1").await;
        assert_eq!(excluded.status, StatusCode::NOT_FOUND);
        assert_eq!(upstream.count("", "secret"), 0);
        assert_eq!(
            client.keys("").await,
            ["all-virtual", "dev-local", "file-local", "up-remote"]
        );
        assert_eq!(client.keys("?type=remote").await, ["up-remote"]);
        assert_eq!(client.keys("?packageType=npm").await, [""; 0]);
        let shown = client.get("/api/repositories/up-remote").await;
        assert_eq!(shown.header("x-roadstead-ignored-fields"), Some("proxy"));
        let shown = shown.json();
        assert_eq!(shown["url"], json!(upstream.url()));
        assert_eq!(shown["proxy"], "corporate");
        assert_eq!(shown["assumedOfflinePeriodSecs"], 300);
    }
    let client = mirror.client();
    let offline = client
        .repository(Method::POST, "up-remote", &json!({"offline": true}))
        .await;
    assert_eq!(offline.status, StatusCode::OK, "{offline:?}");
    let asked = upstream.log().len();
    let absent = client.manifest("up-remote/team/other", "1").await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    assert!(client.has("up-remote/team/up", "1", &image).await);
    assert_eq!(upstream.log().len(), asked, "offline asks nobody");
    let log = client.get("/admin/audit").await.json();
    let events = log["records"].as_array().unwrap().iter();
    let actions: Vec<&str> = events
        .filter_map(|event| event["event"]["action"].as_str())
        .filter(|action| action.ends_with("repository"))
        .collect();
    assert_eq!(
        actions,
        [
            "create repository",
            "create repository",
            "create repository",
            "update repository"
        ]
    );
}

#[tokio::test]
async fn removed_with_everything_in_it() {
    let upstream = Upstream::start().await;
    let (pushed, cached) = (image::small(Flavour::Oci, 1), image::small(Flavour::Oci, 2));
    upstream.hold("team/up", "1", &cached);
    let mut mirror = Mirror::with(&[], FILE).await;
    let client = mirror.client();
    client.create("dev-local", &local()).await;
    let remote = json!({"rclass": "remote", "url": upstream.url()});
    client.create("up-remote", &remote).await;
    let several = json!({"rclass": "virtual", "repositories": ["dev-local"]});
    client.create("all-virtual", &several).await;
    client.push("dev-local/team/app", "1", &pushed).await;
    client.push("file-local/team/app", "1", &pushed).await;
    assert!(client.has("up-remote/team/up", "1", &cached).await);
    let used = client.remove("dev-local").await;
    assert_eq!(used.status, StatusCode::CONFLICT);
    let message = used.json()["errors"][0]["message"].to_string();
    assert!(message.contains("all-virtual"), "{message}");
    // An upload that is under way when its repository goes ends nowhere.
    let upload = client.begin_upload("dev-local/team/late").await;
    for key in ["all-virtual", "dev-local", "up-remote"] {
        let answer = client.remove(key).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(client.remove(key).await.status, StatusCode::NOT_FOUND);
    }
    let late = client.patch(&upload, 0, b"late").await;
    assert_eq!(late.status, StatusCode::NOT_FOUND, "{late:?}");
    // Under the same keys there is nothing of what was.
    client.create("dev-local", &local()).await;
    client.create("up-remote", &remote).await;
    let asked = upstream.count("GET", &cached.blobs[0].digest);
    for restarted in [false, true] {
        if restarted {
            mirror.restart().await;
        }
        let client = mirror.client();
        let gone = client.manifest("dev-local/team/app", "1").await;
        assert_eq!(gone.status, StatusCode::NOT_FOUND);
        let blob = format!("/v2/dev-local/team/app/blobs/{}", pushed.blobs[0].digest);
        assert_eq!(client.get(&blob).await.status, StatusCode::NOT_FOUND);
        assert!(client.has("file-local/team/app", "1", &pushed).await);
        let names = client.get("/dev-local/v2/_catalog").await.json();
        assert_eq!(names["repositories"], json!([]));
    }
    assert!(mirror.client().has("up-remote/team/up", "1", &cached).await);
    assert!(upstream.count("GET", &cached.blobs[0].digest) > asked);
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_artifactorys_envelope() {
    let mirror = Mirror::with(&[], FILE).await;
    let client = mirror.client();
    client.create("dev-local", &local()).await;
    let virtually = |members: &[&str], target: &str| json!({"rclass": "virtual", "repositories": members, "defaultDeploymentRepo": target});
    client
        .create("a-virtual", &virtually(&["dev-local"], ""))
        .await;
    client
        .create("b-virtual", &virtually(&["a-virtual"], ""))
        .await;
    let (put, post) = (Method::PUT, Method::POST);
    let table = [
        (&put, "file-local", local(), 409, "configuration file"),
        (&post, "file-local", local(), 409, "configuration file"),
        (
            &Method::DELETE,
            "file-local",
            json!({}),
            409,
            "configuration file",
        ),
        (&put, "dev-local", local(), 400, "already"),
        (&post, "none-local", json!({}), 404, "none-local"),
        (&Method::DELETE, "none-local", json!({}), 404, "none-local"),
        (&Method::GET, "none-local", json!({}), 400, "none-local"),
        (&put, "Big", local(), 400, "lower-case"),
        (&put, "v2", local(), 400, "reserved"),
        (&put, "x-cache", local(), 400, "reserved"),
        (&put, "x-local", json!([]), 400, "JSON object"),
        (&put, "x-local", json!({}), 400, "rclass"),
        (
            &put,
            "x-local",
            json!({"rclass": "local", "packageType": "npm"}),
            400,
            "packageType",
        ),
        (&put, "x-remote", json!({"rclass": "remote"}), 400, "url"),
        (&put, "x-virtual", virtually(&[], ""), 400, "repositories"),
        (
            &put,
            "x-virtual",
            virtually(&["none-local"], ""),
            400,
            "none-local",
        ),
        (
            &put,
            "x-virtual",
            virtually(&["dev-local"], "none-local"),
            400,
            "defaultDeploymentRepo",
        ),
        (
            &put,
            "x-virtual",
            virtually(&["dev-local"], "file-local"),
            400,
            "defaultDeploymentRepo",
        ),
        (
            &post,
            "a-virtual",
            virtually(&["b-virtual"], ""),
            400,
            "contain each other",
        ),
        (
            &post,
            "dev-local",
            json!({"rclass": "remote"}),
            400,
            "rclass",
        ),
        (&Method::PATCH, "dev-local", json!({}), 405, "method"),
    ];
    for (method, key, body, status, says) in table {
        let answer = client.repository(method.clone(), key, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {key} {answer:?}");
        let error = &answer.json()["errors"][0];
        assert_eq!(error["status"], status, "{method} {key}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(says), "{method} {key}: {message}");
    }
    assert_eq!(
        client.keys("").await,
        ["a-virtual", "b-virtual", "dev-local", "file-local"]
    );
    let large = "x".repeat(300 * 1024);
    let answer = client
        .repository(
            Method::PUT,
            "x-local",
            &json!({"rclass": "local", "notes": large}),
        )
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
}

#[tokio::test]
async fn a_password_is_used_and_never_shown() {
    let upstream = Upstream::start().await;
    upstream.want_token(Some("robot:s3cret-canary-word"), None);
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("team/up", "1", &image);
    let mut mirror = Mirror::with(&[], FILE).await;
    let client = mirror.client();
    let remote = json!({
        "rclass": "remote", "url": upstream.url(), "username": "robot", "password": "s3cret-canary-word",
    });
    client.create("up-remote", &remote).await;
    let described = json!({"description": "told twice"});
    client
        .repository(Method::POST, "up-remote", &described)
        .await;
    mirror.restart().await;
    let client = mirror.client();
    assert!(client.has("up-remote/team/up", "1", &image).await);
    for path in [
        "/api/repositories",
        "/api/repositories/up-remote",
        "/admin/audit",
        "/metrics",
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(!String::from_utf8_lossy(&answer.body).contains("s3cret-canary"));
    }
    assert!(
        mirror
            .log()
            .iter()
            .all(|line| !line.contains("s3cret-canary"))
    );
    let mode = |path: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o077
    };
    let mut holders = 0;
    for file in mirror.files("") {
        let bytes = std::fs::read(&file).unwrap();
        if bytes.windows(18).any(|part| part == b"s3cret-canary-word") {
            holders += 1;
            let is_private = file.ancestors().take(3).any(|path| mode(path) == 0);
            assert!(is_private, "{} is for its owner alone", file.display());
        }
    }
    assert!(holders > 0, "it is kept somewhere");
}

#[tokio::test]
async fn sighup_takes_what_the_file_says_now() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let image = image::small(Flavour::Oci, 1);
    for upstream in [&one, &two] {
        upstream.hold("team/up", "1", &image);
    }
    let hub = Remote::hub(&one.url());
    let mirror = Mirror::with(&[hub], "[local.old-local]\n").await;
    let client = mirror.client();
    client.create("made-local", &local()).await;
    client.push("old-local/app", "1", &image).await;
    client.push("made-local/app", "1", &image).await;
    let file = mirror.configuration();
    let before = std::fs::read_to_string(&file).unwrap();
    let hang_up = |text: &str, says: &str| {
        std::fs::write(&file, text).unwrap();
        let lines = mirror.log().len();
        mirror.hang_up();
        let said = || {
            let log = mirror.log();
            log.iter().skip(lines).any(|line| line.contains(says))
        };
        assert!(wait_until(said), "the log says `{says}`");
    };
    let after = before
        .replace("old-local", "new-local")
        .replace(&one.url(), &two.url());
    hang_up(&after, "repositories of the configuration were read again");
    assert_eq!(
        client.keys("").await,
        ["docker-hub", "made-local", "new-local"]
    );
    client.push("new-local/app", "1", &image).await;
    assert!(client.has("made-local/app", "1", &image).await);
    let gone = client.manifest("old-local/app", "1").await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert!(client.has("docker-hub/team/up", "1", &image).await);
    assert_eq!(
        (one.log().len(), two.count("GET", "team/up") > 0),
        (0, true)
    );
    // What is broken changes nothing, and is named.
    hang_up(&format!("{after}\n[local.X]\n"), "cannot be used");
    assert_eq!(
        client.keys("").await,
        ["docker-hub", "made-local", "new-local"]
    );
    hang_up(
        &format!("{after}\n[server]\nexternal_url = \"https://other.example\"\n"),
        "needs a restart",
    );
    // What came back has what it had.
    hang_up(&before, "repositories of the configuration were read again");
    assert!(client.has("old-local/app", "1", &image).await);
}

#[tokio::test]
async fn a_repository_of_the_file_wins_over_one_that_was_made() {
    let mut mirror = Mirror::with(&[], FILE).await;
    let client = mirror.client();
    client.create("dev-local", &local()).await;
    client.create("more-local", &local()).await;
    let members = json!({"rclass": "virtual", "repositories": ["more-local", "file-local"]});
    client.create("all-virtual", &members).await;
    mirror.terminate();
    let file = mirror.configuration();
    std::fs::write(
        &file,
        "[storage]\nmin_free = \"1MiB\"\n[local.dev-local]\ndelete = false\n",
    )
    .unwrap();
    mirror.start().await;
    let client = mirror.client();
    assert_eq!(
        client.keys("").await,
        ["dev-local", "more-local"],
        "a virtual one without all its members is left out"
    );
    let answer = client.remove("dev-local").await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    let says = |text: &str| mirror.log().iter().any(|line| line.contains(text));
    assert!(says("the file counts") && says("it is left out"));
}

#[tokio::test]
async fn another_upstream_is_another_cache() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let (old, new) = (image::small(Flavour::Oci, 1), image::small(Flavour::Oci, 2));
    one.hold("team/app", "1", &old);
    one.hold("team/only", "1", &old);
    two.hold("team/app", "1", &new);
    let mut mirror = Mirror::with(&[Remote::hub_with(&one.url(), "tag_ttl = \"1h\"")], FILE).await;
    let client = mirror.client();
    let remote = |upstream: &Upstream| json!({"rclass": "remote", "url": upstream.url()});
    client.create("up-remote", &remote(&one)).await;
    for name in [
        "up-remote/team/app",
        "up-remote/team/only",
        "docker-hub/team/app",
    ] {
        assert!(client.has(name, "1", &old).await, "{name}");
    }
    let moved = client
        .repository(Method::POST, "up-remote", &remote(&two))
        .await;
    assert_eq!(moved.status, StatusCode::OK, "{moved:?}");
    let text = std::fs::read_to_string(mirror.configuration()).unwrap();
    std::fs::write(mirror.configuration(), text.replace(&one.url(), &two.url())).unwrap();
    let lines = mirror.log().len();
    mirror.hang_up();
    let says = "repositories of the configuration were read again";
    assert!(wait_until(|| {
        let log = mirror.log();
        log.iter().skip(lines).any(|line| line.contains(says))
    }));
    for restarted in [false, true] {
        if restarted {
            mirror.restart().await;
        }
        let client = mirror.client();
        for name in ["up-remote/team/app", "docker-hub/team/app"] {
            assert!(client.has(name, "1", &new).await, "{name} {restarted}");
            let blob = format!("/v2/{name}/blobs/{}", old.blobs[0].digest);
            assert_eq!(client.get(&blob).await.status, StatusCode::NOT_FOUND);
        }
        let only = client.manifest("up-remote/team/only", "1").await;
        assert_eq!(only.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_pull_under_way_brings_nothing_into_the_next_repository_of_its_key() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("team/app", "1", &image);
    let gate = Gate::closed();
    upstream.script(
        "GET",
        "/manifests/1",
        1,
        Act {
            gate: Some((10, gate.clone())),
            ..Act::default()
        },
    );
    let mirror = Mirror::with(&[], FILE).await;
    let client = mirror.client();
    let remote = json!({"rclass": "remote", "url": upstream.url()});
    client.create("x-repo", &remote).await;
    let (_pulled, ()) = tokio::join!(client.manifest("x-repo/team/app", "1"), async {
        crate::eventually!(upstream.count("GET", "/manifests/1") == 1);
        assert_eq!(client.remove("x-repo").await.status, StatusCode::OK);
        client.create("x-repo", &local()).await;
        gate.open();
    });
    let tags = client.get("/v2/x-repo/team/app/tags/list").await;
    assert_eq!(tags.status, StatusCode::NOT_FOUND, "{tags:?}");
    let names = client.get("/x-repo/v2/_catalog").await.json();
    assert_eq!(names["repositories"], json!([]));
}

#[tokio::test]
async fn what_was_pushed_under_a_key_is_nobody_elses() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    let mut mirror = Mirror::with(&[], "[local.file-local]\n[local.old-local]\n").await;
    let client = mirror.client();
    client.push("old-local/secret/app", "1", &image).await;
    let file = mirror.configuration();
    let before = std::fs::read_to_string(&file).unwrap();
    let remote = format!("[remote.old-local]\nurl = \"{}\"\n", upstream.url());
    for (text, says) in [
        (
            before.replace("[local.old-local]\n", &remote),
            "these repositories cannot be used",
        ),
        (before.replace("[local.old-local]\n", ""), "were read again"),
    ] {
        std::fs::write(&file, text).unwrap();
        let lines = mirror.log().len();
        mirror.hang_up();
        assert!(wait_until(|| {
            let log = mirror.log();
            log.iter().skip(lines).any(|line| line.contains(says))
        }));
    }
    for body in [local(), json!({"rclass": "remote", "url": upstream.url()})] {
        let answer = client.repository(Method::PUT, "old-local", &body).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{answer:?}");
    }
    std::fs::write(&file, before).unwrap();
    mirror.restart().await;
    assert!(
        mirror
            .client()
            .has("old-local/secret/app", "1", &image)
            .await
    );
}

#[tokio::test]
async fn what_is_left_out_is_not_looked_for_elsewhere() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("all-virtual/team/app", "1", &image);
    let hub = Remote::hub(&upstream.url());
    let mut mirror = Mirror::with(&[hub], "[local.file-local]\n").await;
    let members = json!({"rclass": "virtual", "repositories": ["file-local", "docker-hub"]});
    mirror.client().create("all-virtual", &members).await;
    let file = mirror.configuration();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("[local.file-local]\n", "")).unwrap();
    mirror.restart().await;
    let answer = mirror.client().manifest("all-virtual/team/app", "1").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert_eq!(upstream.count("", "/manifests/"), 0);
    // It is there again as soon as the file has it again.
    std::fs::write(&file, text).unwrap();
    mirror.restart().await;
    assert!(
        mirror
            .client()
            .has("all-virtual/all-virtual/team/app", "1", &image)
            .await
    );
}

#[tokio::test]
async fn an_update_that_means_nothing_loses_nothing() {
    let mut mirror = Mirror::with(&[], FILE).await;
    let client = mirror.client();
    let image = image::small(Flavour::Oci, 1);
    client.create("dev-local", &local()).await;
    client.push("dev-local/app", "1", &image).await;
    for body in [
        json!({"rclass": ""}),
        json!({"rclass": null, "packageType": "", "key": null}),
    ] {
        let answer = client.repository(Method::POST, "dev-local", &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    mirror.restart().await;
    assert!(mirror.client().has("dev-local/app", "1", &image).await);
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let mirror = Mirror::with(&[], FILE).await;
    let client = mirror.client();
    let path = "/artifactory/api/repositories/x-local";
    let send = |header: (&'static str, String)| async move {
        let headers = [("content-type", "text/plain"), (header.0, &*header.1)];
        let body = local().to_string().into();
        client.send_body(Method::PUT, path, &headers, body).await
    };
    for header in [
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let answer = send((header.0, header.1.to_owned())).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{header:?}");
    }
    assert_eq!(client.keys("").await, ["file-local"]);
    let own = format!("http://{}", mirror.address());
    assert_eq!(send(("origin", own)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_search_finds_nothing_of_a_repository_that_is_gone() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("team/app", "1", &image);
    let mut mirror = Mirror::with(&[Remote::hub(&upstream.url())], "[local.old-local]\n").await;
    let client = mirror.client();
    assert!(client.has("docker-hub/team/app", "1", &image).await);
    client.push("old-local/team/app", "1", &image).await;
    let layer = image.layers()[0].digest[7..].to_owned();
    let questions = [
        "prop?docker.repoName=team/app".to_owned(),
        "artifact?name=app".to_owned(),
        format!("checksum?sha256={layer}"),
    ];
    let found = async |client: &Client, question: &str| {
        let path = format!("/artifactory/api/search/{question}");
        let found = client.get(&path).await.json();
        found["results"].as_array().unwrap().len()
    };
    for question in &questions {
        assert_eq!(found(&client, question).await, 2, "{question}");
    }
    mirror.terminate();
    let without = "[storage]\nmin_free = \"1MiB\"\n[local.new-local]\n";
    std::fs::write(mirror.configuration(), without).unwrap();
    mirror.start().await;
    let client = mirror.client();
    for question in &questions {
        assert_eq!(found(&client, question).await, 0, "{question}");
    }
}

/// What is wrong at the end of a reload leaves what stands at its beginning as it was.
#[tokio::test]
async fn a_reload_that_fails_leaves_the_rules() {
    let upstream = Upstream::start().await;
    let rules = "[local.secret-local]\n[auth]\n[[auth.allow]]\nwho = [\"anonymous\"]\non = [\"docker-hub\"]\nmay = [\"pull\"]\n";
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], rules).await;
    let path = "/v2/secret-local/a/tags/list";
    assert_eq!(mirror.client().get(path).await.status.as_u16(), 401);
    // Rules that open it, with a member that is no repository.
    let text = std::fs::read_to_string(mirror.configuration()).unwrap();
    let open = text.replace("on = [\"docker-hub\"]", "on = [\"*\"]");
    let broken = open.replace(
        "[remote.docker-hub]",
        "[remote.secret-local]\nurl = \"http://127.0.0.1:9\"\nca = \"no-such.pem\"\n[remote.docker-hub]",
    );
    std::fs::write(
        mirror.configuration(),
        broken.replace("[local.secret-local]\n", ""),
    )
    .unwrap();
    mirror.hang_up();
    assert!(wait_until(|| mirror.log().iter().any(
        |line| line.contains("SIGHUP: these repositories cannot be used")
    )));
    assert_eq!(mirror.client().get(path).await.status.as_u16(), 401);
}
