//! `GET /admin/explain`: what it says a pull would do is what the pull then does.

use std::process::Command;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::image::{self, Flavour};
use crate::support::{Act, Client, Mirror, Remote, Upstream};

impl Client {
    async fn explain(&self, image: &str, more: &str) -> Value {
        let answer = self
            .get(&format!("/admin/explain?image={image}{more}"))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.code());
        answer.json()
    }
}

fn member(explained: &Value, number: usize) -> &Value {
    &explained["members"][number]
}

#[tokio::test]
async fn what_it_says_is_what_happens() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    let remote = Remote::hub_with(
        &upstream.url(),
        "tag_ttl = \"1h\"\nnegative_ttl = \"1h\"\nstale_if_error = \"2h\"",
    );
    let mirror = Mirror::with(&[remote], "").await;
    let client = mirror.client();
    // Never seen.
    let before = client.explain("nginx:1", "").await;
    assert_eq!(before["repository"], "docker-hub");
    assert_eq!(before["chosen_by"], "default");
    assert_eq!(before["image"], "library/nginx");
    assert_eq!(member(&before, 0)["then"], "fetch");
    assert_eq!(member(&before, 0)["credential"], "anonymous");
    assert_eq!(before["answers"], "docker-hub");
    assert_eq!(
        before["access"],
        json!({"user": "anonymous", "known": true, "may_pull": true, "rule": null})
    );
    assert_eq!(upstream.log().len(), 0, "nobody is asked");
    client.manifest("nginx", "1").await;
    assert_eq!(upstream.count("GET", "/manifests/"), 1);
    // Fresh, by every name that leads there.
    for (text, more, by) in [
        ("nginx:1", "", "default"),
        ("docker.io/library/nginx:1", "", "host"),
        ("docker-hub/library/nginx:1", "", "key"),
        ("library/nginx:1", "&ns=docker.io", "ns"),
    ] {
        let after = client.explain(text, more).await;
        assert_eq!(after["chosen_by"], by, "{text}");
        let member = member(&after, 0);
        assert_eq!(member["then"], "serve", "{text}");
        assert_eq!(member["digest"], image.digest(), "{text}");
        assert!(member["fresh_seconds"].as_u64().unwrap() > 3000);
        assert_eq!(member["cached"], true);
    }
    let by_digest = client
        .explain(&format!("nginx@{}", image.digest()), "")
        .await;
    assert_eq!(member(&by_digest, 0)["then"], "serve");
    let upstream_before = upstream.log().len();
    client.manifest("nginx", "1").await;
    assert_eq!(upstream.log().len(), upstream_before);
    // Not there, and remembered.
    client.manifest("nginx", "none").await;
    let absent = client.explain("nginx:none", "").await;
    assert_eq!(member(&absent, 0)["then"], "absent");
    assert_eq!(absent["answers"], Value::Null);
    for (text, status) in [
        ("", StatusCode::BAD_REQUEST),
        ("nginx:-", StatusCode::BAD_REQUEST),
        ("Nginx", StatusCode::BAD_REQUEST),
        ("nginx&ns=no.example", StatusCode::NOT_FOUND),
    ] {
        let answer = client.get(&format!("/admin/explain?image={text}")).await;
        assert_eq!(answer.status, status, "{text}");
    }
}

#[tokio::test]
async fn an_outage_and_a_pin_are_explained() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    let mirror = Mirror::of(&upstream.url()).await;
    let client = mirror.client();
    client.manifest("nginx", "1").await;
    let over = client.explain("nginx:1", "").await;
    assert_eq!(member(&over, 0)["then"], "confirm");
    upstream.script("", "/v2/", 100, Act::status(503));
    for number in 0..4 {
        client.manifest(&format!("library/none{number}"), "1").await;
    }
    let down = client.explain("nginx:1", "").await;
    assert_eq!(member(&down, 0)["breaker"], "open");
    let new = client.explain("never:1", "").await;
    assert_eq!(member(&new, 0)["then"], "failing");
    assert_eq!(new["answers"], Value::Null);
    let pulled = client.manifest("never", "1").await;
    assert_eq!(pulled.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        member(&down, 0)["breaker_seconds"].as_u64().unwrap() <= Duration::from_secs(60).as_secs()
    );
    upstream.unscript();
    let pin = json!({ "digest": image.digest() }).to_string();
    let put = client
        .send_body(
            Method::PUT,
            "/admin/tags/docker-hub/library/nginx/1",
            &[],
            pin.into(),
        )
        .await;
    assert_eq!(put.status, StatusCode::OK);
    let pinned = client.explain("nginx:1", "").await;
    assert_eq!(member(&pinned, 0)["pinned"], true);
    assert_eq!(member(&pinned, 0)["then"], "serve");
    assert_eq!(put.json()["explain"]["members"][0]["pinned"], true);
}

#[tokio::test]
async fn members_and_why_they_are_not_asked() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("team/app", "2", &image);
    let more = "[mirror]\ndefault = \"all-virtual\"\n[local.dev-local]\n[local.old-local]\n[virtual.all-virtual]\nmembers = [\"dev-local\", { repository = \"old-local\", exclude = [\"team/**\"] }, \"docker-hub\"]\ndeploy_to = \"dev-local\"\n";
    let remote = Remote {
        serves: "registry.example",
        ..Remote::hub_with(&upstream.url(), "admit = { deny = [\"evil/**\"] }")
    };
    let mirror = Mirror::with(&[remote], more).await;
    let client = mirror.client();
    let before = client.explain("team/app:2", "").await;
    assert_eq!(before["kind"], "virtual");
    assert_eq!(before["answers"], "docker-hub");
    assert_eq!(member(&before, 0)["repository"], "docker-hub");
    let why = |explained: &Value, key: &str| {
        let members = explained["members"].as_array().unwrap();
        let found = members.iter().find(|one| one["repository"] == key).unwrap();
        assert_eq!(found["asked"], false, "{found}");
        found["why"].as_str().unwrap().to_owned()
    };
    assert!(why(&before, "dev-local").contains("no image"));
    assert!(why(&before, "old-local").contains("patterns"));
    client.push("team/app", "1", &image).await;
    let held = client.explain("team/app:2", "").await;
    assert!(why(&held, "docker-hub").contains("local_names"));
    assert_eq!(held["answers"], Value::Null);
    let pushed = client.explain("team/app:1", "").await;
    assert_eq!(pushed["answers"], "dev-local");
    assert_eq!(member(&pushed, 0)["digest"], image.digest());
    let told = client.get("/admin/tags/all-virtual/team/app/1").await;
    assert_eq!(told.json()["digest"], image.digest());
    assert_eq!(told.json()["explain"]["answers"], "dev-local");
    let evil = client.explain("evil/app", "").await;
    let remote = member(&evil, 0);
    assert_eq!(remote["then"], "refuse");
    assert!(remote["refused"].as_str().unwrap().contains("deny"));
    assert_eq!(evil["answers"], Value::Null);
}

#[tokio::test]
async fn the_rule_that_lets_somebody_pull() {
    let upstream = Upstream::start().await;
    let rules = "[server]\nadmin_listen = \"127.0.0.1:0\"\n[auth]\n[[auth.allow]]\nwho = [\"alice\"]\non = [\"docker-hub\"]\nmay = [\"pull\"]\n[[auth.allow]]\nwho = [\"anonymous\"]\non = [\"docker-hub/library/*\", \"*\"]\nmay = [\"pull\", \"admin\"]\n";
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], rules).await;
    let client = mirror.client();
    let anonymous = client.explain("nginx", "").await;
    assert_eq!(anonymous["access"]["rule"], 2);
    let alice = client.explain("nginx", "&user=alice").await;
    assert_eq!(alice["access"]["rule"], 1);
    assert_eq!(alice["access"]["may_pull"], true);
}

#[tokio::test]
async fn on_the_command_line_with_and_without_a_mirror() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    let mut mirror = Mirror::with(&[Remote::hub(&upstream.url())], "").await;
    mirror.client().manifest("nginx", "1").await;
    let run = |mirror: &Mirror, arguments: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .arg("-c")
            .arg(mirror.configuration())
            .args(["explain", "--data"])
            .arg(mirror.data())
            .args(arguments)
            .output()
            .unwrap();
        // Where no mirror runs the log is on standard error.
        let said = if done.status.success() {
            done.stdout
        } else {
            done.stderr
        };
        (done.status.code(), String::from_utf8(said).unwrap())
    };
    for _ in ["running", "stopped"] {
        let (code, said) = run(&mirror, &["docker.io/nginx:1"]);
        assert_eq!(code, Some(0), "{said}");
        for expected in [
            "docker.io/nginx:1 is library/nginx:1 of docker-hub (remote), by the host before it",
            "anybody may pull it",
            image.digest(),
            "a pull gets what docker-hub has",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        let (code, said) = run(&mirror, &["nginx", "--json"]);
        let told: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (code, &told["members"][0]["then"]),
            (Some(0), &json!("fetch"))
        );
        let (code, said) = run(&mirror, &["nginx", "--ns", "no.example"]);
        assert_eq!(code, Some(1));
        assert!(said.contains("namespace"), "{said}");
        mirror.terminate();
    }
}
