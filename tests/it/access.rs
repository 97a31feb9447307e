//! Users, rules, tokens: who may do what, and what the others are told.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::image::{self, Flavour};
use crate::support::{Answer, Client, Image, Mirror, Remote, Upstream, secrets};

pub const RULES: &str = r#"
[local.dev-local]
[local.secret-local]
[virtual.all-virtual]
members = ["dev-local", "secret-local", "docker-hub"]
deploy_to = "dev-local"
[auth]
users = "users.htpasswd"
[auth.groups]
ci = ["builder"]
[[auth.allow]]
who = ["anonymous"]
on = ["docker-hub/library/**"]
may = ["pull"]
[[auth.allow]]
who = ["reader"]
on = ["dev-local", "all-virtual"]
may = ["pull"]
[[auth.allow]]
who = ["@ci"]
on = ["dev-local/team/**"]
may = ["pull", "push"]
[[auth.allow]]
who = ["keeper"]
on = ["dev-local", "secret-local"]
may = ["pull", "push", "delete", "promote"]
[[auth.allow]]
who = ["root"]
on = ["*"]
may = ["pull", "push", "delete", "promote", "admin"]
"#;

const USERS: [&str; 5] = ["reader", "builder", "keeper", "root", "stranger"];

pub fn roadstead(mirror: &Mirror, arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .arg("-c")
        .arg(mirror.configuration())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Some end before they have read it.
    let _broken = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert_eq!(secrets::secret_in(&said), None, "a secret on the terminal");
    (done.status.success(), String::from_utf8(said).unwrap())
}

pub fn password(user: &str) -> String {
    secrets::of(user)
}

pub fn basic(user: &str) -> String {
    let text = format!("{user}:{}", password(user));
    format!("Basic {}", STANDARD.encode(text))
}

/// A mirror with these users and rules; docker-hub's upstream is `upstream`.
pub async fn guarded(upstream: &Upstream) -> Mirror {
    guarded_with(upstream, "").await
}

/// The same, with more tables before the rules.
pub async fn guarded_with(upstream: &Upstream, before: &str) -> Mirror {
    let dir = tempfile::tempdir().unwrap();
    // The users are there before the mirror starts, as `user add` makes them.
    let file = dir.path().join("mirror.toml");
    std::fs::write(
        &file,
        format!("[storage]\n{RULES}[remote.docker-hub]\nurl = \"http://x\"\n"),
    )
    .unwrap();
    for user in USERS {
        let mut child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .arg("-c")
            .arg(&file)
            .args(["user", "add", user])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let typed = format!("{}\n", password(user));
        child
            .stdin
            .take()
            .unwrap()
            .write_all(typed.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success());
    }
    let data = dir.path().join("data");
    let more = format!("{before}{RULES}");
    Mirror::in_directory(dir, data, &[Remote::hub(&upstream.url())], &more).await
}

impl Client {
    pub async fn with(&self, user: &str, method: Method, path: &str) -> Answer {
        let login = basic(user);
        let headers = [("authorization", login.as_str()), ("accept", "*/*")];
        let headers = if user.is_empty() {
            &headers[1..]
        } else {
            &headers[..]
        };
        self.send(method, path, headers).await
    }

    pub async fn push_as(&self, user: &str, name: &str, tag: &str, image: &Image) -> StatusCode {
        let login = basic(user);
        let login = ("authorization", login.as_str());
        for blob in &image.blobs {
            let path = format!("/v2/{name}/blobs/uploads/?digest={}", blob.digest);
            let put = self
                .send_body(Method::POST, &path, &[login], blob.bytes.clone())
                .await;
            if put.status != StatusCode::CREATED {
                return put.status;
            }
        }
        let path = format!("/v2/{name}/manifests/{tag}");
        let headers = [login, ("content-type", image.root.media_type.as_str())];
        let put = self
            .send_body(Method::PUT, &path, &headers, image.root.bytes.clone())
            .await;
        put.status
    }

    pub async fn token(&self, user: &str, query: &str) -> Answer {
        self.with(user, Method::GET, &format!("/v2/token?{query}"))
            .await
    }

    pub async fn bearing(&self, token: &str, method: Method, path: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.send(
            method,
            path,
            &[("authorization", &bearer), ("accept", "*/*")],
        )
        .await
    }
}

pub fn challenges(answer: &Answer) -> Vec<String> {
    let lines = answer.headers.get_all("www-authenticate").iter();
    lines
        .map(|line| line.to_str().unwrap().to_owned())
        .collect()
}

pub fn token_of(answer: &Answer) -> String {
    answer.json()["token"].as_str().unwrap().to_owned()
}

/// Every route, by every role, for what is there and what is not: who may not is told the same of both (P32).
#[tokio::test]
async fn every_route_by_every_role() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    upstream.hold("team/private", "1", &image);
    let mirror = guarded(&upstream).await;
    let client = mirror.client();
    for name in ["dev-local/team/app", "secret-local/team/app"] {
        assert_eq!(
            client.push_as("keeper", name, "1", &image).await,
            StatusCode::CREATED
        );
    }
    let blob = &image.blobs[0].digest;
    let other = image::sha256(b"other");
    let digest = image.digest();
    // Path with what is there, the same with what is not, method; then what reader, builder, keeper, root and stranger get of what is there.
    let (get, head, put, post, delete) = (
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::POST,
        Method::DELETE,
    );
    let there = |path: &str| {
        path.replace("DIGEST", digest)
            .replace("BLOB", blob)
            .replace("NAME", "team/app")
            .replace("TAG", "1")
    };
    let absent = |path: &str| {
        path.replace("DIGEST", &other)
            .replace("BLOB", &other)
            .replace("NAME", "team/none")
            .replace("TAG", "9")
    };
    for (key, reader, builder) in [("dev-local", true, true), ("secret-local", false, false)] {
        for (method, path, right) in [
            (&get, "/v2/KEY/NAME/manifests/TAG", "pull"),
            (&head, "/v2/KEY/NAME/manifests/TAG", "pull"),
            (&get, "/v2/KEY/NAME/manifests/DIGEST", "pull"),
            (&get, "/v2/KEY/NAME/blobs/BLOB", "pull"),
            (&head, "/v2/KEY/NAME/blobs/BLOB", "pull"),
            (&get, "/v2/KEY/NAME/tags/list", "pull"),
            (&get, "/v2/KEY/NAME/referrers/DIGEST", "pull"),
            (&get, "/KEY/v2/NAME/manifests/TAG", "pull"),
            (&get, "/api/docker/KEY/v2/NAME/manifests/TAG", "pull"),
            (
                &get,
                "/artifactory/api/docker/KEY/v2/NAME/tags/list",
                "pull",
            ),
            (&post, "/v2/KEY/NAME/blobs/uploads/", "push"),
            (&get, "/v2/KEY/NAME/blobs/uploads/00", "push"),
            (&Method::PATCH, "/v2/KEY/NAME/blobs/uploads/00", "push"),
            (&put, "/v2/KEY/NAME/manifests/TAG", "push"),
            (&delete, "/v2/KEY/NAME/manifests/9", "delete"),
            (&delete, "/v2/KEY/NAME/blobs/BLOB", "delete"),
            (&get, "/artifactory/api/storage/KEY/NAME", "all pull"),
            (&put, "/api/storage/KEY/NAME/TAG?properties=a=b", "all push"),
            (&delete, "/artifactory/KEY/none/NAME", "all delete"),
            (&get, "/admin/tags/KEY/NAME/TAG", "admin"),
        ] {
            let path = path.replace("KEY", key);
            for user in ["", "reader", "builder", "keeper", "root", "stranger"] {
                let (one, two) = (
                    client.with(user, method.clone(), &there(&path)).await,
                    client.with(user, method.clone(), &absent(&path)).await,
                );
                let may = match (user, right) {
                    ("root", _) => true,
                    ("keeper", right) => right != "admin",
                    ("reader", "pull" | "all pull") => reader,
                    ("builder", "pull" | "push") => builder,
                    _ => false,
                };
                let sees =
                    user == "keeper" || user == "reader" && reader || user == "builder" && builder;
                let at = format!("{user} {method} {path}: {} {}", one.status, two.status);
                if may {
                    let refused = [401, 403].contains(&one.status.as_u16());
                    assert!(!refused, "{at}");
                    continue;
                }
                // Headers that differ by request, and lengths of what has the path in it.
                assert_eq!(one.status, two.status, "{at}");
                if user.is_empty() {
                    assert_eq!(one.status, StatusCode::UNAUTHORIZED, "{at}");
                    assert_eq!(challenges(&one).len(), 2, "{at}");
                } else {
                    let expected = if sees
                        && !right.contains("pull")
                        && !(user == "builder" && right.contains("all"))
                    {
                        StatusCode::FORBIDDEN
                    } else {
                        StatusCode::NOT_FOUND
                    };
                    assert_eq!(one.status, expected, "{at}");
                    if expected == StatusCode::NOT_FOUND && *method != head {
                        assert_eq!(one.body, two.body, "{at}");
                    }
                }
                assert!(one.header("docker-content-digest").is_none(), "{at}");
                assert!(one.header("cache-status").is_none(), "{at}");
            }
        }
    }
    // What nobody may read is not asked for upstream either.
    let private = client
        .with("stranger", Method::GET, "/v2/team/private/manifests/1")
        .await;
    assert_eq!(private.status, StatusCode::NOT_FOUND);
    assert_eq!(upstream.log().len(), 0);
    for path in [
        "/admin/audit",
        "/admin/quota",
        "/admin/explain?image=dev-local/team/app:1",
        "/api/repositories",
        "/api/repositories/dev-local",
    ] {
        for (user, status) in [("", 401), ("reader", 403), ("keeper", 403), ("root", 200)] {
            let answer = client.with(user, Method::GET, path).await;
            assert_eq!(answer.status.as_u16(), status, "{user} {path}");
        }
    }
    for (method, path, done) in [
        (&get, "/admin/tokens", 200),
        (&post, "/admin/tokens", 400),
        (&delete, "/admin/tokens/none", 404),
    ] {
        for (user, status) in [("", 401), ("reader", 403), ("keeper", 403), ("root", done)] {
            let answer = client.with(user, method.clone(), path).await;
            assert_eq!(answer.status.as_u16(), status, "{user} {path}");
        }
    }
    for path in ["/admin/gc?dry_run=true", "/admin/verify"] {
        for (user, status) in [("", 401), ("reader", 403), ("keeper", 403), ("root", 200)] {
            let answer = client.with(user, Method::POST, path).await;
            assert_eq!(answer.status.as_u16(), status, "{user} {path}");
        }
    }
    for (path, anonymous) in [
        ("/metrics", 401),
        ("/livez", 200),
        ("/readyz", 200),
        ("/artifactory/api/system/ping", 200),
    ] {
        assert_eq!(
            client.with("", Method::GET, path).await.status.as_u16(),
            anonymous,
            "{path}"
        );
        assert_eq!(
            client.with("stranger", Method::GET, path).await.status,
            StatusCode::OK,
            "{path}"
        );
    }
}

#[tokio::test]
async fn lists_name_what_may_be_read() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    let mirror = guarded(&upstream).await;
    let client = mirror.client();
    for name in [
        "dev-local/team/app",
        "dev-local/other/app",
        "secret-local/team/app",
    ] {
        client.push_as("keeper", name, "1", &image).await;
    }
    let pulled = client
        .with("", Method::GET, "/v2/docker-hub/library/nginx/manifests/1")
        .await;
    assert_eq!(pulled.status, StatusCode::OK);
    for (user, expected) in [
        ("", json!(["library/nginx"])),
        ("builder", json!(["dev-local/team/app", "library/nginx"])),
        (
            "reader",
            json!([
                "all-virtual/library/nginx",
                "all-virtual/other/app",
                "all-virtual/team/app",
                "dev-local/other/app",
                "dev-local/team/app",
                "library/nginx"
            ]),
        ),
        ("stranger", json!(["library/nginx"])),
    ] {
        let listed = client.with(user, Method::GET, "/v2/_catalog").await.json();
        let mut names: Vec<Value> = listed["repositories"].as_array().unwrap().clone();
        for name in &mut names {
            let plain = name.as_str().unwrap().trim_start_matches("docker-hub/");
            *name = json!(plain);
        }
        names.sort_by_key(ToString::to_string);
        assert_eq!(json!(names), expected, "{user}");
    }
    let found = |user: &'static str| {
        let path = "/api/search/prop?docker.repoName=*";
        async move {
            let answer = client.with(user, Method::GET, path).await;
            let mut found: Vec<String> = answer.json()["results"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| {
                    one["uri"]
                        .as_str()
                        .unwrap()
                        .split("/storage/")
                        .nth(1)
                        .unwrap()
                        .to_owned()
                })
                .collect();
            found.sort();
            found
        }
    };
    assert_eq!(
        found("builder").await,
        [
            "dev-local/team/app/1/manifest.json",
            "docker-hub-cache/library/nginx/1/manifest.json"
        ]
    );
    assert_eq!(
        found("stranger").await,
        ["docker-hub-cache/library/nginx/1/manifest.json"]
    );
    let login = basic("builder");
    let aql = client
        .send_body(
            Method::POST,
            "/api/search/aql",
            &[("authorization", &login)],
            "items.find({\"name\":\"manifest.json\"})".into(),
        )
        .await;
    assert_eq!(
        aql.json()["results"],
        json!([]),
        "builder reads no repository as a whole"
    );
    // Where a virtual repository found it is told to those who may read that.
    for (user, told) in [("reader", Some("dev-local")), ("root", Some("dev-local"))] {
        let answer = client
            .with(user, Method::GET, "/v2/all-virtual/team/app/manifests/1")
            .await;
        assert_eq!(answer.header("roadstead-member"), told, "{user}");
    }
}

#[tokio::test]
async fn tokens_for_clients() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    let mirror = guarded(&upstream).await;
    let client = mirror.client();
    client
        .push_as("keeper", "dev-local/team/app", "1", &image)
        .await;
    let base = client.get("/v2/").await;
    assert_eq!(base.status, StatusCode::UNAUTHORIZED);
    let realm = format!(
        "Bearer realm=\"{}/v2/token\",service=\"roadstead\"",
        mirror.url()
    );
    assert_eq!(challenges(&base), [realm], "ADR 9");
    let manifest = "/v2/dev-local/team/app/manifests/1";
    let wanted = client.get(manifest).await;
    assert!(
        challenges(&wanted)[0].ends_with(",scope=\"repository:dev-local/team/app:pull\""),
        "{wanted:?}"
    );
    let below = client
        .get("/artifactory/api/docker/dev-local/v2/team/app/manifests/1")
        .await;
    let realm = format!(
        "realm=\"{}/artifactory/api/docker/dev-local/v2/token\"",
        mirror.url()
    );
    assert!(challenges(&below)[0].contains(&realm), "{below:?}");
    let scope = "service=roadstead&scope=repository:dev-local/team/app:pull,push";
    // For everybody what everybody may: nothing of this.
    for user in ["", "stranger", "nobody"] {
        let token = token_of(&client.token(user, scope).await);
        let answer = client.bearing(&token, Method::GET, manifest).await;
        let expected = if user == "stranger" { 404 } else { 401 };
        assert_eq!(answer.status.as_u16(), expected, "{user}");
        assert_eq!(
            client.bearing(&token, Method::GET, "/v2/").await.status,
            StatusCode::OK
        );
    }
    assert_eq!(
        client.token("nobody", "service=roadstead").await.status,
        StatusCode::UNAUTHORIZED
    );
    let nginx = token_of(
        &client
            .token("", "scope=repository:library/nginx:pull")
            .await,
    );
    // What is granted is the image by whatever name, and nothing else.
    for (path, status) in [
        ("/v2/library/nginx/manifests/1", 200),
        ("/v2/docker-hub/library/nginx/manifests/1", 200),
        ("/v2/nginx/manifests/1", 200),
        ("/v2/docker-hub/library/other/manifests/1", 401),
        (manifest, 401),
    ] {
        let answer = client.bearing(&nginx, Method::GET, path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
    }
    // Rights are an intersection.
    let reader = token_of(&client.token("reader", scope).await);
    assert_eq!(
        client.bearing(&reader, Method::GET, manifest).await.status,
        StatusCode::OK
    );
    let upload = client
        .bearing(
            &reader,
            Method::POST,
            "/v2/dev-local/team/app/blobs/uploads/",
        )
        .await;
    assert_eq!(upload.status, StatusCode::FORBIDDEN);
    let builder = token_of(
        &client
            .token("builder", "scope=repository:dev-local/team/app:pull")
            .await,
    );
    let upload = client
        .bearing(
            &builder,
            Method::POST,
            "/v2/dev-local/team/app/blobs/uploads/",
        )
        .await;
    assert_eq!(
        upload.status,
        StatusCode::UNAUTHORIZED,
        "the token lacks what its user may"
    );
    assert!(
        challenges(&upload)[0].contains("error=\"insufficient_scope\""),
        "{upload:?}"
    );
    // A token for one image is none for the repository, whatever its user may.
    let root = token_of(
        &client
            .token("root", "scope=repository:dev-local/team/app:*")
            .await,
    );
    for (method, path) in [
        (Method::GET, "/api/storage/dev-local"),
        (Method::DELETE, "/artifactory/dev-local/team/other"),
        (Method::GET, "/admin/audit"),
        (Method::GET, "/api/repositories"),
    ] {
        let answer = client.bearing(&root, method, path).await;
        assert_ne!(answer.status, StatusCode::OK, "{path}");
        assert!(answer.status.is_client_error(), "{path} {answer:?}");
    }
    // OAuth 2, and tokens that get others.
    let form = |text: String| {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        async move {
            client
                .send_body(Method::POST, "/v2/token", &headers, text.into())
                .await
        }
    };
    let asked = format!(
        "grant_type=password&username=reader&password={}&service=roadstead&client_id=x&access_type=offline&{scope}",
        password("reader")
    );
    let first = form(asked).await;
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let refresh = first.json()["refresh_token"].as_str().unwrap().to_owned();
    let again = format!("grant_type=refresh_token&refresh_token={refresh}&{scope}");
    let second = form(again.clone()).await;
    let access = second.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(
        client.bearing(&access, Method::GET, manifest).await.status,
        StatusCode::OK
    );
    assert_eq!(
        client.bearing(&refresh, Method::GET, manifest).await.status,
        StatusCode::UNAUTHORIZED
    );
    for (text, status) in [
        (
            "grant_type=password&username=reader&password=wrong".to_owned(),
            401,
        ),
        ("grant_type=other".to_owned(), 400),
        ("grant_type=refresh_token&refresh_token=x".to_owned(), 401),
        (
            format!("grant_type=refresh_token&refresh_token={access}"),
            401,
        ),
        (format!("{again}&service=other"), 400),
    ] {
        assert_eq!(form(text.clone()).await.status.as_u16(), status, "{text}");
    }
    for (query, status) in [
        ("service=other".to_owned(), 400),
        ("scope=a".to_owned(), 200),
        (
            "scope=repository:*:*&scope=a:b:c:d&scope=:&scope=registry:catalog:*".to_owned(),
            200,
        ),
        (vec!["scope=repository:a/b:pull"; 17].join("&"), 400),
        (format!("scope=repository:{}:pull", "a".repeat(5000)), 400),
    ] {
        assert_eq!(
            client.token("reader", &query).await.status.as_u16(),
            status,
            "{query}"
        );
    }
    // A user who is gone is gone at the next request, with every token.
    let (done, said) = roadstead(&mirror, &["user", "remove", "reader"], "");
    assert!(done, "{said}");
    for token in [&reader, &access] {
        let answer = client.bearing(token, Method::GET, manifest).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(challenges(&answer)[0].contains("error=\"invalid_token\""));
    }
    assert_eq!(form(again).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        client.with("reader", Method::GET, manifest).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn writing_needs_the_right_to_all_of_it() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    let mirror = guarded(&upstream).await;
    let client = mirror.client();
    for (user, name, status) in [
        ("builder", "dev-local/team/app", 201),
        ("builder", "dev-local/other/app", 404),
        ("builder", "secret-local/team/app", 404),
        ("builder", "all-virtual/team/app", 404),
        ("reader", "dev-local/team/app", 403),
        ("keeper", "secret-local/team/app", 201),
        ("root", "all-virtual/team/more", 201),
    ] {
        let pushed = client.push_as(user, name, "1", &image).await;
        assert_eq!(pushed.as_u16(), status, "{user} {name}");
    }
    // A blob is mounted from where its reader may read it, else it is sent.
    let blob = &image.blobs[0].digest;
    for (user, from, status) in [
        ("builder", "secret-local/team/app", 202),
        ("builder", "dev-local/team/app", 201),
        ("keeper", "secret-local/team/app", 201),
    ] {
        let path = format!("/v2/dev-local/team/new/blobs/uploads/?mount={blob}&from={from}");
        let mounted = client.with(user, Method::POST, &path).await;
        assert_eq!(mounted.status.as_u16(), status, "{user} {from}");
    }
    // An upload is its user's.
    let begun = client
        .with(
            "builder",
            Method::POST,
            "/v2/dev-local/team/app/blobs/uploads/",
        )
        .await;
    let location = crate::support::push::location(&begun);
    for (user, status) in [("keeper", 404), ("builder", 204)] {
        assert_eq!(
            client
                .with(user, Method::GET, &location)
                .await
                .status
                .as_u16(),
            status,
            "{user}"
        );
    }
    // Promotion: read there, promote here, and delete there unless it is a copy.
    for (user, copy, status) in [
        ("", true, 401),
        ("builder", true, 404),
        ("reader", true, 404),
        ("keeper", true, 200),
    ] {
        let body = json!({"targetRepo": "secret-local", "dockerRepository": "team/app", "targetDockerRepository": "team/promoted", "tag": "1", "copy": copy});
        let login = basic(user);
        let headers = [("authorization", login.as_str())];
        let headers = if user.is_empty() {
            &headers[..0]
        } else {
            &headers[..]
        };
        let path = "/api/docker/dev-local/v2/promote";
        let answer = client
            .send_body(Method::POST, path, headers, body.to_string().into())
            .await;
        assert_eq!(answer.status.as_u16(), status, "{user} {answer:?}");
    }
    let audit = client
        .with("root", Method::GET, "/admin/audit")
        .await
        .json();
    assert_eq!(audit["records"][0]["event"]["who"], "keeper", "{audit}");
}

#[tokio::test]
async fn users_by_the_command_line() {
    let upstream = Upstream::start().await;
    let mirror = guarded(&upstream).await;
    let client = mirror.client();
    let run = |arguments: &[&str], input: &str| roadstead(&mirror, arguments, input);
    let (done, said) = run(&["user", "list"], "");
    assert!(
        done && said == "builder\nkeeper\nreader\nroot\nstranger\n",
        "{said}"
    );
    for (arguments, input, says) in [
        (&["user", "add", "new"][..], "short\n", "at least 8"),
        (&["user", "add", "new"], "", "at least 8"),
        (&["user", "add", "a b"], "long-enough\n", "no user name"),
        (
            &["user", "add", "anonymous"],
            "long-enough\n",
            "no user name",
        ),
        (&["user", "remove", "nobody"], "", "no user nobody"),
    ] {
        let (done, said) = run(arguments, input);
        assert!(!done && said.contains(says), "{arguments:?}: {said}");
    }
    let (done, said) = run(&["user", "add", "reader"], "another-s3cret-canary\n");
    assert!(done && said.contains("another password"), "{said}");
    assert_eq!(
        client.with("reader", Method::GET, "/v2/").await.status,
        StatusCode::UNAUTHORIZED
    );
}

/// Whether there is a repository of some key is told to nobody who may do nothing with it.
#[tokio::test]
async fn a_repository_that_is_denied_looks_like_none() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    let mirror = guarded(&upstream).await;
    let client = mirror.client();
    let pushed = client
        .push_as("keeper", "secret-local/team/app", "1", &image)
        .await;
    assert_eq!(pushed, StatusCode::CREATED);
    let digest = image.digest();
    let (get, put, post, delete) = (Method::GET, Method::PUT, Method::POST, Method::DELETE);
    for (method, path) in [
        (&get, "/v2/KEY/team/app/manifests/1".to_owned()),
        (&get, "/KEY/v2/".to_owned()),
        (&get, "/KEY/v2/_catalog".to_owned()),
        (&get, "/KEY/v2/team/app/manifests/1".to_owned()),
        (&get, format!("/KEY/v2/team/app/blobs/{digest}")),
        (&get, "/KEY/v2/team/app/tags/list".to_owned()),
        (&put, "/KEY/v2/team/app/manifests/1".to_owned()),
        (&post, "/KEY/v2/team/app/blobs/uploads/".to_owned()),
        (
            &get,
            "/artifactory/api/docker/KEY/v2/team/app/tags/list".to_owned(),
        ),
        (&get, "/api/storage/KEY/team/app".to_owned()),
        (&get, "/api/storage/KEY".to_owned()),
        (
            &put,
            "/api/storage/KEY/team/app/1?properties=a=b".to_owned(),
        ),
        (&delete, "/artifactory/KEY/team/app".to_owned()),
        (&get, "/admin/tags/KEY/team/app/1".to_owned()),
        (&get, "/admin/tags/KEY/Not-A-Name/1".to_owned()),
        (
            &get,
            "/api/search/prop?docker.repoName=*&repos=KEY".to_owned(),
        ),
        (&get, "/KEY/v2/token?service=roadstead".to_owned()),
        (&get, "/api/repositories/KEY".to_owned()),
    ] {
        for user in ["", "reader", "builder", "stranger"] {
            let ask = async |key: &str| {
                let path = path.replace("KEY", key);
                client.with(user, method.clone(), &path).await
            };
            let (denied, absent) = (ask("secret-local").await, ask("nosuch-local").await);
            let at = format!("{user} {method} {path}");
            assert_eq!(denied.status, absent.status, "{at}");
            assert_eq!(denied.code(), absent.code(), "{at}");
            let told = |answer: &Answer| {
                let body = String::from_utf8(answer.body.to_vec()).unwrap();
                let all = format!("{body} {:?}", challenges(answer));
                all.replace("secret-local", "KEY")
                    .replace("nosuch-local", "KEY")
            };
            // Tokens are random.
            if !path.contains("/token") {
                assert_eq!(told(&denied), told(&absent), "{at}");
            }
        }
    }
    // Those who may are told the truth.
    let answer = client
        .with("root", Method::GET, "/nosuch-local/v2/a/manifests/1")
        .await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.code(), "NAME_UNKNOWN");
}

#[tokio::test]
async fn a_refresh_token_begets_no_other() {
    let upstream = Upstream::start().await;
    let mirror = guarded(&upstream).await;
    let client = mirror.client();
    let first = client
        .token("reader", "service=roadstead&offline_token=true")
        .await;
    let refresh = first.json()["refresh_token"].as_str().unwrap().to_owned();
    let form = format!(
        "grant_type=refresh_token&refresh_token={refresh}&service=roadstead&client_id=x&access_type=offline"
    );
    let second = client
        .send_body(Method::POST, "/v2/token", &[], form.into())
        .await;
    assert_eq!(second.status, StatusCode::OK);
    assert!(second.json()["access_token"].is_string());
    assert!(second.json()["refresh_token"].is_null());
    let third = client
        .bearing(&refresh, Method::GET, "/v2/token?offline_token=true")
        .await;
    assert_eq!(third.status, StatusCode::OK);
    assert!(third.json()["refresh_token"].is_null());
}

#[tokio::test]
async fn users_who_are_added_at_once_are_all_there() {
    let upstream = Upstream::start().await;
    let mirror = guarded(&upstream).await;
    let file = mirror
        .configuration()
        .parent()
        .unwrap()
        .join("users.htpasswd");
    let before = std::fs::metadata(&file).unwrap();
    std::os::unix::fs::chown(&file, Some(65534), Some(65534)).unwrap();
    let mirror = &mirror;
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let (done, said) = roadstead(
                    mirror,
                    &["user", "add", &format!("u{number}")],
                    "long enough\n",
                );
                assert!(done, "{said}");
            });
        }
    });
    let (_, users) = roadstead(mirror, &["user", "list"], "");
    assert_eq!(users.lines().count(), USERS.len() + 8, "{users}");
    // The file is still whose it was.
    let after = std::fs::metadata(&file).unwrap();
    let owner = |found: &std::fs::Metadata| std::os::unix::fs::MetadataExt::uid(found);
    assert_eq!(owner(&after), 65534);
    assert_eq!(after.permissions(), before.permissions());
}

#[tokio::test]
async fn a_challenge_names_where_the_same_repository_is_meant() {
    let upstream = Upstream::start().await;
    let more = format!(
        "[server]\nexternal_url = \"https://mirror.example\"\n[[server.bind]]\nhost = \"bound.example\"\nrepository = \"dev-local\"\n{}",
        RULES.replace("users = \"users.htpasswd\"\n", "")
    );
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], &more).await;
    for (host, realm) in [
        ("127.0.0.1:5000", "https://mirror.example/v2/token"),
        ("bound.example", "http://bound.example/v2/token"),
        ("bound.example:5000", "http://bound.example:5000/v2/token"),
    ] {
        let path = "/v2/team/app/manifests/1";
        let answer = mirror
            .client()
            .send(Method::GET, path, &[("host", host)])
            .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        let bearer = &challenges(&answer)[0];
        assert!(
            bearer.contains(&format!("realm=\"{realm}\"")),
            "{host}: {bearer}"
        );
    }
}

/// Metrics are for whoever is logged in; which repositories there are is for those who may know of them.
#[tokio::test]
async fn metrics_name_what_the_one_who_asks_may_know_of() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    let mirror = guarded(&upstream).await;
    let client = mirror.client();
    for name in ["dev-local/team/app", "secret-local/team/app"] {
        let pushed = client.push_as("keeper", name, "1", &image).await;
        assert_eq!(pushed, StatusCode::CREATED);
    }
    for (user, knows) in [("reader", false), ("keeper", true), ("root", true)] {
        let page = client.with(user, Method::GET, "/metrics").await;
        let page = String::from_utf8(page.body.to_vec()).unwrap();
        assert!(page.contains("repository=\"dev-local\""), "{user}");
        assert_eq!(page.contains("secret-local"), knows, "{user}");
        assert!(page.contains("roadstead_cached_bytes") && page.ends_with("# EOF\n"));
    }
}

/// A name that somebody else gets later has none of the tokens that it had.
#[tokio::test]
async fn tokens_go_with_their_user() {
    let upstream = Upstream::start().await;
    let mirror = guarded(&upstream).await;
    let client = mirror.client();
    let (done, said) = roadstead(
        &mirror,
        &[
            "token",
            "create",
            "ci",
            "--user",
            "reader",
            "--data",
            mirror.data().to_str().unwrap(),
        ],
        "",
    );
    assert!(done, "{said}");
    let token = said
        .lines()
        .find(|line| line.starts_with("rst_"))
        .unwrap()
        .to_owned();
    let list = "/v2/dev-local/team/app/tags/list";
    let refused = StatusCode::UNAUTHORIZED;
    assert_ne!(
        client.bearing(&token, Method::GET, list).await.status,
        refused
    );
    let (done, said) = roadstead(&mirror, &["user", "remove", "reader"], "");
    assert!(done && said.contains("ci was revoked"), "{said}");
    assert_eq!(
        client.bearing(&token, Method::GET, list).await.status,
        refused
    );
    let (done, said) = roadstead(
        &mirror,
        &["user", "add", "reader"],
        &format!("{}\n", password("other")),
    );
    assert!(done, "{said}");
    assert_eq!(
        client.bearing(&token, Method::GET, list).await.status,
        refused
    );
}
