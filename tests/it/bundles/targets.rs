//! Where images come from and where they go: local repositories, with tags that stay.

use serde_json::json;

use super::*;
use crate::support::image::Flavour;

const LOCALS: &str = "[local.dev-local]\n[local.prod]\nimmutable_tags = [\"v*\"]\n[local.stage]\n";

#[tokio::test(flavor = "multi_thread")]
async fn from_a_local_repository_into_another_with_tags_that_stay() {
    let upstream = Upstream::start().await;
    let here = Mirror::with(&[Remote::hub(&upstream.url())], LOCALS).await;
    let there = offline_with(LOCALS).await;
    let (one, two) = (several(1), several(5));
    let stick = Stick::new();
    let (first, second) = (stick.at("first.tar"), stick.at("second.tar"));
    here.client().push("dev-local/team/app", "v1", &one).await;
    here.client()
        .push("dev-local/team/app", "latest", &one)
        .await;
    let names = ["dev-local/team/app:v1", "dev-local/team/app:latest"];
    let mut export = vec!["export", "-o", &first];
    export.extend(names);
    said(&here, &export);
    let client = there.client();
    let report = told(&there, &["import", "--json", "--to", "prod", &first]);
    assert_eq!(report["images"][0]["repository"], "prod");
    assert_pulls(&client, "prod/team/app", "v1", &one).await;
    assert_pulls(&client, "prod/team/app", "latest", &one).await;
    assert_eq!(status(&client, "dev-local/team/app", "v1").await, 404);
    let report = told(&there, &["import", "--json", "--to", "prod", &first]);
    for (_, outcome) in outcomes(&report) {
        assert_eq!(outcome, "unchanged");
    }

    // Both tags mean something else.
    here.client().push("dev-local/team/app", "v1", &two).await;
    here.client()
        .push("dev-local/team/app", "latest", &two)
        .await;
    let mut export = vec!["export", "-o", &second];
    export.extend(names);
    said(&here, &export);
    let report = told(
        &there,
        &["import", "--json", "--keep-tags", "--to", "prod", &second],
    );
    for (_, outcome) in outcomes(&report) {
        assert_eq!(outcome, "kept");
    }
    assert_pulls(&client, "prod/team/app", "latest", &one).await;
    // The one that may move moves, the other is refused by itself.
    let output = run(&there, &["import", "--json", "--to", "prod", &second]);
    assert_eq!(output.status.code(), Some(1));
    let outcomes = outcomes(&result(&output));
    assert_eq!(outcomes["dev-local/team/app:v1"], "failed");
    assert_eq!(outcomes["dev-local/team/app:latest"], "imported");
    let shown = run(&there, &["import", "--to", "prod", &second]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("v1") && text.contains("failed: "), "{text}");
    assert_pulls(&client, "prod/team/app", "latest", &two).await;
    assert_pulls(&client, "prod/team/app", "v1", &one).await;
    // Nothing here has that key, and nothing is imported then.
    let words = complaint(&there, &["import", "--to", "nowhere", &second]);
    assert!(
        words.contains("nowhere") && words.contains("--to KEY"),
        "{words}"
    );
    // By its own key an image of a local repository goes where that key is.
    said(&there, &["import", &first]);
    assert_pulls(&client, "dev-local/team/app", "v1", &one).await;
    // What was imported is not the cache's: it is not pinned, and no tag less than pushed.
    assert_eq!(said(&there, &["pins"]), "");
    said(&there, &["gc", "--grace", "0"]);
    assert_pulls(&client, "prod/team/app", "latest", &two).await;
    let audit = client.get("/admin/audit").await.json();
    let records = audit["records"].as_array().unwrap();
    let imported = records
        .iter()
        .find(|one| one["event"]["action"] == "import");
    let event = &imported.unwrap()["event"];
    assert_eq!(event["who"], "(owner)");
    assert_eq!(
        event["to"],
        json!({"repository": "prod", "image": "team/app"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_with_platforms_left_out_goes_into_a_local_repository() {
    let upstream = Upstream::start().await;
    let nginx = several(1);
    upstream.hold("library/nginx", "1", &nginx);
    let (here, mut there) = (connected(&upstream).await, offline_with(LOCALS).await);
    let stick = Stick::new();
    let (one, all) = (stick.at("one.tar"), stick.at("all.tar"));
    let platform = ["--platform", "linux/amd64"];
    said(
        &here,
        &["export", platform[0], platform[1], "-o", &one, "nginx:1"],
    );
    said(&there, &["import", "--to", "prod", &one]);
    for _round in 0..2 {
        let client = there.client();
        assert!(
            client
                .manifest("prod/library/nginx", "1")
                .await
                .is(&nginx.root.bytes)
        );
        let (amd64, arm64) = (nginx.child(0), nginx.child(1));
        assert!(
            client
                .manifest("prod/library/nginx", &amd64.digest)
                .await
                .is(&amd64.bytes)
        );
        assert_eq!(
            status(&client, "prod/library/nginx", &arm64.digest).await,
            404
        );
        said(&there, &["gc", "--grace", "0"]);
        there.restart().await;
    }
    said(&here, &["export", "-o", &all, "nginx:1"]);
    let report = told(&there, &["import", "--json", "--to", "prod", &all]);
    assert_eq!(report["images"][0]["outcome"], "imported");
    assert_pulls(&there.client(), "prod/library/nginx", "1", &nginx).await;
    said(&there, &["import", "--to", "prod", &one]);
    assert_pulls(&there.client(), "prod/library/nginx", "1", &nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_local_repository_outlives_a_collection() {
    let upstream = Upstream::start().await;
    let (one, two) = (several(1), several(2));
    upstream.hold("team/app", "1", &one);
    upstream.hold("team/app", "2", &two);
    let (here, there, pretend) = (
        connected(&upstream).await,
        offline_with(LOCALS).await,
        offline().await,
    );
    let stick = Stick::new();
    let (first, second, have) = (
        stick.at("first.tar"),
        stick.at("second.tar"),
        stick.at("inventory"),
    );
    said(&here, &["export", "-o", &first, "team/app:1"]);
    said(&pretend, &["import", &first]);
    said(&pretend, &["inventory", "-o", &have]);
    said(
        &here,
        &["export", "--have", &have, "-o", &second, "team/app:2"],
    );
    let output = run(&there, &["import", "--json", "--to", "stage", &second]);
    assert_eq!(output.status.code(), Some(1));
    // Where it was to go is remembered with it.
    said(&there, &["gc", "--grace", "0"]);
    let report = told(&there, &["import", "--json", "--to", "stage", &first]);
    let all = outcomes(&report);
    assert_eq!(all["docker.io/team/app:2"], "imported", "{report}");
    assert_pulls(&there.client(), "stage/team/app", "2", &two).await;
    assert_pulls(&there.client(), "stage/team/app", "1", &one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_by_digest_stays_one_by_digest() {
    let upstream = Upstream::start().await;
    let app = image::small(Flavour::Docker, 1);
    upstream.hold("team/app", "1", &app);
    let (here, there) = (connected(&upstream).await, offline_with(LOCALS).await);
    let stick = Stick::new();
    let bundle = stick.at("bundle.tar");
    let name = format!("team/app@{}", app.digest());
    said(&here, &["export", "-o", &bundle, &name]);
    said(&there, &["import", &bundle]);
    said(&there, &["import", "--to", "stage", &bundle]);
    let client = there.client();
    for name in ["team/app", "stage/team/app"] {
        let answer = client.manifest(name, app.digest()).await;
        assert!(answer.is(&app.root.bytes), "{name}");
        assert_eq!(status(&client, name, "1").await, 404, "{name}");
    }
    said(&there, &["gc", "--grace", "0"]);
    let answer = client.manifest("stage/team/app", app.digest()).await;
    assert!(answer.is(&app.root.bytes), "{}", answer.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_moves_no_tag_of_a_local_repository_that_nobody_named() {
    let upstream = Upstream::start().await;
    let (one, two) = (image::small(Flavour::Oci, 1), image::small(Flavour::Oci, 2));
    let local = "[local.lib]\n";
    let (here, there) = (offline_with(local).await, offline_with(local).await);
    let stick = Stick::new();
    let (first, second) = (stick.at("first.tar"), stick.at("second.tar"));
    here.client().push("lib/team/app", "v1", &one).await;
    said(&here, &["export", "lib/team/app:v1", "-o", &first]);
    here.client().push("lib/team/app", "v1", &two).await;
    said(&here, &["export", "lib/team/app:v1", "-o", &second]);
    said(&there, &["import", &first]);
    let client = there.client();
    assert_pulls(&client, "lib/team/app", "v1", &one).await;
    let output = run(&there, &["import", &second]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("--to lib if the tag is to move"), "{text}");
    assert_pulls(&client, "lib/team/app", "v1", &one).await;
    said(&there, &["import", "--to", "lib", &second]);
    assert_pulls(&client, "lib/team/app", "v1", &two).await;
    drop(upstream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_means_what_an_import_says_or_the_report_says_otherwise() {
    let upstream = Upstream::start().await;
    let (one, two) = (image::small(Flavour::Oci, 1), image::small(Flavour::Oci, 2));
    upstream.hold("team/app", "1", &one);
    let (here, there) = (connected(&upstream).await, connected(&upstream).await);
    let stick = Stick::new();
    let bundle = stick.at("bundle.tar");
    said(&here, &["export", "team/app:1", "-o", &bundle]);
    // It was pulled there since, as something else.
    upstream.hold("team/app", "1", &two);
    let client = there.client();
    assert_pulls(&client, "team/app", "1", &two).await;
    let report = told(&there, &["import", "--json", "--keep-tags", &bundle]);
    assert_eq!(outcomes(&report)["docker.io/team/app:1"], "kept");
    assert_pulls(&client, "team/app", "1", &two).await;
    // Upstream is asked at each pull here, and gives the tag back its meaning: what is kept by it is not what it means, and is not reported as that.
    for _round in 0..2 {
        let report = told(&there, &["import", "--json", &bundle]);
        assert_eq!(outcomes(&report)["docker.io/team/app:1"], "imported");
        let report = told(&there, &["import", "--json", &bundle]);
        assert_eq!(outcomes(&report)["docker.io/team/app:1"], "unchanged");
        let answer = client.manifest("team/app", one.digest()).await;
        assert!(answer.is(&one.root.bytes));
        assert_pulls(&client, "team/app", "1", &two).await;
    }
}
