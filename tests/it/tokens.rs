//! API tokens: made on the command line, used in every way that clients have, and gone when they are.

use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::access::{basic, guarded, password, token_of};
use crate::eventually;
use crate::support::image::{self, Flavour};
use crate::support::{Answer, Client, Mirror, Upstream};

const MANIFEST: &str = "/v2/dev-local/team/app/manifests/1";

fn command(mirror: &Mirror, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(arguments)
        .arg("-c")
        .arg(mirror.configuration())
        .arg("--data")
        .arg(mirror.data())
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Makes a token; standard output has it and nothing else.
fn create(mirror: &Mirror, arguments: &[&str]) -> String {
    let mut all = vec!["token", "create"];
    all.extend(arguments);
    let output = printed(&command(mirror, &all));
    let token = output.strip_suffix('\n').unwrap();
    assert!(token.starts_with("rst_") && token.len() == 42, "{output}");
    assert!(!token.contains(char::is_whitespace));
    token.to_owned()
}

fn login(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

async fn as_password(client: Client, name: &str, token: &str, method: Method, path: &str) -> u16 {
    let login = login(name, token);
    let headers = [("authorization", login.as_str()), ("accept", "*/*")];
    client.send(method, path, &headers).await.status.as_u16()
}

async fn bearing(client: Client, token: &str, path: &str) -> u16 {
    client
        .bearing(token, Method::GET, path)
        .await
        .status
        .as_u16()
}

async fn form(client: Client, text: &str) -> Answer {
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let body = text.to_owned().into();
    client
        .send_body(Method::POST, "/v2/token", &headers, body)
        .await
}

fn is_nowhere(mirror: &Mirror, secret: &str) {
    for line in mirror.log() {
        assert!(!line.contains(secret), "a secret is in the log: {line}");
    }
    for file in mirror.files("") {
        let bytes = std::fs::read(&file).unwrap();
        let found = bytes
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!found, "a secret is in {}", file.display());
    }
}

/// A mirror with `team/app:1` and `other/app:1` in dev-local, and `team/app:1` in secret-local.
async fn with_images(upstream: &Upstream) -> Mirror {
    let mirror = guarded(upstream).await;
    let image = image::small(Flavour::Oci, 1);
    for name in [
        "dev-local/team/app",
        "dev-local/other/app",
        "secret-local/team/app",
    ] {
        let pushed = mirror.client().push_as("keeper", name, "1", &image).await;
        assert_eq!(pushed, StatusCode::CREATED);
    }
    mirror
}

#[tokio::test]
async fn a_token_gives_what_its_scope_and_its_user_may_in_every_way() {
    let upstream = Upstream::start().await;
    let mirror = with_images(&upstream).await;
    let client = mirror.client();
    let scope = ["--may", "pull,push", "--on", "dev-local/team/**"];
    let token = create(&mirror, &[&["ci", "--user", "keeper"][..], &scope].concat());
    // By password, under two names; directly; and exchanged.
    for name in ["keeper", "token"] {
        assert_eq!(
            as_password(client, name, &token, Method::GET, MANIFEST).await,
            200,
            "{name}"
        );
    }
    assert_eq!(
        as_password(client, "reader", &token, Method::GET, MANIFEST).await,
        401
    );
    assert_eq!(bearing(client, &token, MANIFEST).await, 200);
    assert_eq!(bearing(client, &token, "/v2/").await, 200);
    let asked = "service=roadstead&scope=repository:dev-local/team/app:pull,push,delete\
        &scope=repository:secret-local/team/app:pull&scope=repository:dev-local/other/app:pull&scope=registry:catalog:*";
    let login = login("keeper", &token);
    let path = format!("/v2/token?{asked}");
    let issued = client
        .send(Method::GET, &path, &[("authorization", &login)])
        .await;
    let issued = token_of(&issued);
    let text =
        format!("grant_type=password&username=keeper&password={token}&access_type=offline&{asked}");
    let by_form = form(client, &text).await.json();
    let refresh = by_form["refresh_token"].as_str().unwrap().to_owned();
    let again = form(
        client,
        &format!("grant_type=refresh_token&refresh_token={refresh}&{asked}"),
    )
    .await;
    let again = again.json()["access_token"].as_str().unwrap().to_owned();
    let by_form = by_form["access_token"].as_str().unwrap().to_owned();
    for bearer in [&token, &issued, &by_form, &again] {
        for (path, status) in [
            (MANIFEST, vec![200]),
            ("/v2/dev-local/team/app/tags/list", vec![200]),
            ("/v2/dev-local/other/app/manifests/1", vec![404]),
            ("/v2/secret-local/team/app/manifests/1", vec![404]),
            ("/api/storage/dev-local/team/app", vec![404]),
            ("/admin/audit", vec![403]),
            ("/admin/tokens", vec![403]),
        ] {
            let got = bearing(client, bearer, path).await;
            assert!(status.contains(&got), "{path}: {got}");
        }
        let upload = "/v2/dev-local/team/new/blobs/uploads/";
        let begun = client
            .bearing(bearer, Method::POST, upload)
            .await
            .status
            .as_u16();
        // What was exchanged is for one image.
        assert_eq!(begun, if *bearer == token { 202 } else { 401 });
        let upload = "/v2/dev-local/team/app/blobs/uploads/";
        assert_eq!(
            client.bearing(bearer, Method::POST, upload).await.status,
            StatusCode::ACCEPTED
        );
        let upload = "/v2/secret-local/team/app/blobs/uploads/";
        assert_eq!(
            client.bearing(bearer, Method::POST, upload).await.status,
            StatusCode::NOT_FOUND
        );
        let deleted = client.bearing(bearer, Method::DELETE, MANIFEST).await;
        assert_eq!(deleted.status, StatusCode::FORBIDDEN);
        let listed = client
            .bearing(bearer, Method::GET, "/v2/_catalog")
            .await
            .json();
        assert_eq!(listed["repositories"], json!(["dev-local/team/app"]));
    }
    // A promotion reads where the token may not.
    let body = json!({"targetRepo": "dev-local", "dockerRepository": "team/app", "tag": "1", "copy": true});
    let headers = [("authorization", login.as_str())];
    let promoted = client
        .send_body(
            Method::POST,
            "/api/docker/secret-local/v2/promote",
            &headers,
            body.to_string().into(),
        )
        .await;
    assert_eq!(promoted.status, StatusCode::NOT_FOUND);
    // A user who may less than the token says.
    let wide = create(&mirror, &["wide", "--user", "reader"]);
    assert_eq!(bearing(client, &wide, MANIFEST).await, 200);
    let upload = "/v2/dev-local/team/app/blobs/uploads/";
    assert_eq!(
        client.bearing(&wide, Method::POST, upload).await.status,
        StatusCode::FORBIDDEN
    );
    // Refused to those who may not, or to a token, which would outlive itself.
    let admins = create(&mirror, &["admins", "--user", "root"]);
    assert_eq!(bearing(client, &admins, "/admin/tokens").await, 200);
    for (method, path) in [
        (Method::POST, "/admin/tokens"),
        (Method::DELETE, "/admin/tokens/ci"),
    ] {
        assert_eq!(
            client.bearing(&admins, method, path).await.status,
            StatusCode::FORBIDDEN
        );
    }
    let log = mirror.log();
    assert!(
        log.iter()
            .any(|line| line.contains("\"user\":\"keeper (token ci)\""))
    );
    for secret in [&token, &issued, &by_form, &again, &refresh, &wide, &admins] {
        is_nowhere(&mirror, secret);
    }
}

#[tokio::test]
async fn a_token_that_is_revoked_or_over_or_whose_user_is_gone_is_refused_at_the_next_request() {
    let upstream = Upstream::start().await;
    let mirror = with_images(&upstream).await;
    let client = mirror.client();
    let exchange = async |token: &str| {
        let login = login("token", token);
        let path = "/v2/token?scope=repository:dev-local/team/app:pull";
        token_of(
            &client
                .send(Method::GET, path, &[("authorization", &login)])
                .await,
        )
    };
    let revoked = create(&mirror, &["revoked", "--user", "keeper"]);
    let text =
        format!("grant_type=password&username=keeper&password={revoked}&access_type=offline");
    let refresh = form(client, &text).await.json()["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let issued = exchange(&revoked).await;
    assert_eq!(bearing(client, &issued, MANIFEST).await, 200);
    let done = printed(&command(&mirror, &["token", "revoke", "revoked"]));
    assert_eq!(done, "revoked was revoked\n");
    assert_eq!(bearing(client, &issued, MANIFEST).await, 401);
    assert_eq!(bearing(client, &revoked, MANIFEST).await, 401);
    assert_eq!(
        as_password(client, "keeper", &revoked, Method::GET, "/v2/").await,
        401
    );
    let again = format!("grant_type=refresh_token&refresh_token={refresh}");
    assert_eq!(form(client, &again).await.status, StatusCode::UNAUTHORIZED);
    // Over.
    let short = create(&mirror, &["short", "--user", "keeper", "--expires", "3s"]);
    let issued = exchange(&short).await;
    assert_eq!(bearing(client, &short, MANIFEST).await, 200);
    eventually!(bearing(client, &short, MANIFEST).await == 401);
    assert_eq!(bearing(client, &issued, MANIFEST).await, 401);
    assert!(printed(&command(&mirror, &["token", "list"])).contains("\texpired "));
    // Its user is gone.
    let users = create(
        &mirror,
        &["users", "--user", "builder", "--expires", "never"],
    );
    let issued = exchange(&users).await;
    assert_eq!(bearing(client, &issued, MANIFEST).await, 200);
    let removed = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(["user", "remove", "builder", "-c"])
        .arg(mirror.configuration())
        .output();
    printed(&removed.unwrap());
    assert_eq!(bearing(client, &users, MANIFEST).await, 401);
    assert_eq!(bearing(client, &issued, MANIFEST).await, 401);
    // Passwords go on meanwhile.
    let keeper = client.with("keeper", Method::GET, MANIFEST).await;
    assert_eq!(keeper.status, StatusCode::OK);
    assert!(basic("keeper") != login("keeper", &short));
}

#[tokio::test]
async fn tokens_outlive_restarts_kills_and_the_index() {
    let upstream = Upstream::start().await;
    let mut mirror = with_images(&upstream).await;
    let first = create(&mirror, &["first", "--user", "keeper", "--may", "pull"]);
    // Acknowledged is kept, whatever comes right behind it.
    mirror.kill();
    mirror.start().await;
    assert_eq!(bearing(mirror.client(), &first, MANIFEST).await, 200);
    mirror.terminate();
    for file in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        drop(std::fs::remove_file(mirror.data().join(file)));
    }
    // With no mirror the command does the same by itself.
    let listed = printed(&command(&mirror, &["token", "list"]));
    assert!(
        listed.starts_with("first\tkeeper\tpull on *\tcreated "),
        "{listed}"
    );
    let alone = create(
        &mirror,
        &[
            "alone",
            "--user",
            "reader",
            "--on",
            "dev-local",
            "--expires",
            "12h",
        ],
    );
    let second = command(&mirror, &["token", "create", "alone", "--user", "reader"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("revoke it first"));
    mirror.start().await;
    let client = mirror.client();
    for token in [&first, &alone] {
        assert_eq!(bearing(client, token, MANIFEST).await, 200);
    }
    let told: Value =
        serde_json::from_str(&printed(&command(&mirror, &["token", "list", "--json"]))).unwrap();
    let tokens = told["tokens"].as_array().unwrap();
    let names: Vec<_> = tokens.iter().map(|token| &token["name"]).collect();
    assert_eq!(names, ["alone", "first"]);
    assert_eq!(tokens[0]["on"], json!(["dev-local"]));
    assert!(tokens.iter().all(|token| token["last_used"].is_string()));
    assert_eq!(
        tokens[1].as_object().unwrap().len(),
        8,
        "no hash, no text: {told}"
    );
    // The last use is written down at a stop.
    mirror.terminate();
    let alone_again: Value =
        serde_json::from_str(&printed(&command(&mirror, &["token", "list", "--json"]))).unwrap();
    assert_eq!(alone_again, told);
    printed(&command(&mirror, &["token", "revoke", "first"]));
    mirror.start().await;
    assert_eq!(bearing(mirror.client(), &first, MANIFEST).await, 401);
    mirror.kill();
    mirror.start().await;
    assert_eq!(bearing(mirror.client(), &first, MANIFEST).await, 401);
    assert_eq!(bearing(mirror.client(), &alone, MANIFEST).await, 200);
    is_nowhere(&mirror, &first);
    is_nowhere(&mirror, &alone);
}

#[tokio::test]
async fn tokens_over_http_and_what_is_refused() {
    let upstream = Upstream::start().await;
    let mirror = with_images(&upstream).await;
    let client = mirror.client();
    let post = async |body: Value| {
        let login = basic("root");
        let headers = [("authorization", login.as_str())];
        client
            .send_body(
                Method::POST,
                "/admin/tokens",
                &headers,
                body.to_string().into(),
            )
            .await
    };
    let made =
        post(json!({"name": "web", "user": "reader", "may": ["pull"], "expires_in": 60})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let token = made.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(bearing(client, &token, MANIFEST).await, 200);
    for (body, status, says) in [
        (json!({"name": "web", "user": "reader"}), 409, "already"),
        (json!({"name": "a b", "user": "reader"}), 400, "name:"),
        (
            json!({"name": "x", "user": "nobody"}),
            400,
            "users file has no `nobody`",
        ),
        (
            json!({"name": "x", "user": "reader", "may": ["all"]}),
            400,
            "may:",
        ),
        (
            json!({"name": "x", "user": "reader", "scope": 1}),
            400,
            "unknown field",
        ),
        (json!([]), 400, "JSON object"),
    ] {
        let answer = post(body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains(says), "{body}: {text}");
    }
    for (arguments, code, says) in [
        (&["create", "x"][..], 2, "--user"),
        (&["create", "x", "--user", "nobody"], 1, "has no `nobody`"),
        (
            &["create", "x", "--user", "reader", "--expires", "soon"],
            2,
            "12h, 30d, or never",
        ),
        (
            &["create", "x", "--user", "reader", "--on", "/"],
            1,
            "names no repository",
        ),
        (&["revoke", "x"], 1, "there is no token `x`"),
        (&["revoke", "../audit"], 1, "there is no token"),
    ] {
        let output = command(&mirror, &[&["token"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(
            said.contains(says) && output.stdout.is_empty(),
            "{arguments:?}: {said}"
        );
    }
    let gone = client
        .with("root", Method::DELETE, "/admin/tokens/web")
        .await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(bearing(client, &token, MANIFEST).await, 401);
    let audit = client
        .with("root", Method::GET, "/admin/audit")
        .await
        .json();
    let events = audit["records"].as_array().unwrap();
    let last = &events[events.len() - 1]["event"];
    assert_eq!(
        (&last["action"], &last["who"]),
        (&json!("revoke token"), &json!("root"))
    );
    // Guesses wait like those of passwords, and cost the others at that address as little.
    let wrong = format!("rst_{}", "a".repeat(38));
    let mut waits = 0;
    for _ in 0..20 {
        waits += usize::from(bearing(client, &wrong, MANIFEST).await == 429);
    }
    assert!((5..20).contains(&waits), "{waits} of 20");
    is_nowhere(&mirror, &token);
    is_nowhere(&mirror, &password("root"));
}
