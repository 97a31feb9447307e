//! Virtual repositories: one name over several, counted at the upstreams.

use http::StatusCode;
use serde_json::json;

use crate::support::image::{self, Content, Flavour};
use crate::support::{Mirror, Remote, Upstream};

/// The tables of `docker-virtual` over `dev-local` and `hub`; `more` goes into it.
fn over(more: &str) -> String {
    format!(
        "[local.dev-local]\n[virtual.docker-virtual]\nmembers = [\"dev-local\", \"hub-io\"]\ndeploy_to = \"dev-local\"\nserves = [\"docker.io\"]\n{more}\n"
    )
}

fn remote(key: &'static str, upstream: &Upstream) -> Remote {
    Remote {
        key,
        url: upstream.url(),
        serves: key,
        more: "tag_ttl = \"0s\"\nnegative_ttl = \"0s\"".to_owned(),
    }
}

fn hold_tags(upstream: &Upstream, name: &str, tags: &[&str]) {
    let list = Content::json("application/json", &json!({"name": name, "tags": tags}));
    upstream.hold_path(&format!("/v2/{name}/tags/list"), &list);
}

#[tokio::test]
async fn a_push_lands_in_the_overlay_shadows_upstream_and_goes_again() {
    let hub = Upstream::start().await;
    let [mine, theirs] = [1, 2].map(|seed| image::small(Flavour::Docker, seed));
    hub.hold("team/app", "1", &theirs);
    hub.hold("library/nginx", "1", &theirs);
    hub.hold("library/nginx", "2", &theirs);
    let mirror = Mirror::with(&[remote("hub-io", &hub)], &over("")).await;
    let client = mirror.client();
    let found = client.manifest("team/app", "1").await;
    assert!(found.is(&theirs.root.bytes));
    assert_eq!(found.header("roadstead-member"), Some("hub-io"));
    // Pushed under the same name, with the short one of Docker's too.
    client.push("team/app", "1", &mine).await;
    client.push("nginx", "1", &mine).await;
    for (name, local) in [("team/app", "team/app"), ("nginx", "library/nginx")] {
        let found = client.manifest(name, "1").await;
        assert!(found.is(&mine.root.bytes), "{name}");
        assert_eq!(found.header("roadstead-member"), Some("dev-local"));
        assert!(client.has(name, "1", &mine).await);
        let direct = format!("dev-local/{local}");
        assert!(client.manifest(&direct, "1").await.is(&mine.root.bytes));
    }
    // Of Docker's own names single tags are shadowed.
    assert!(client.manifest("nginx", "2").await.is(&theirs.root.bytes));
    for name in ["team/app", "nginx"] {
        let gone = client.delete(&format!("/v2/{name}/manifests/1")).await;
        assert_eq!(gone.status, StatusCode::ACCEPTED);
        assert!(
            client.manifest(name, "1").await.is(&theirs.root.bytes),
            "{name}"
        );
        // What only a remote has is not deleted.
        let refused = client.delete(&format!("/v2/{name}/manifests/1")).await;
        assert_eq!(
            refused.status,
            StatusCode::METHOD_NOT_ALLOWED,
            "{refused:?}"
        );
    }
    let log = mirror.log();
    assert!(
        log.iter()
            .any(|line| line.contains("\"member\":\"dev-local\""))
    );
}

#[tokio::test]
async fn a_name_that_is_held_here_is_never_asked_for_upstream() {
    let hub = Upstream::start().await;
    let [mine, theirs] = [1, 2].map(|seed| image::small(Flavour::Oci, seed));
    hub.hold("team/app", "2", &theirs);
    hold_tags(&hub, "team/app", &["2"]);
    let mirror = Mirror::with(&[remote("hub-io", &hub)], &over("")).await;
    let client = mirror.client();
    client.push("team/app", "1", &mine).await;
    let before = hub.log().len();
    let paths = [
        "/v2/team/app/manifests/2".to_owned(),
        format!("/v2/team/app/manifests/{}", theirs.digest()),
        format!("/v2/team/app/blobs/{}", theirs.blobs[0].digest),
        "/v2/team/app/manifests/2?ns=docker.io".to_owned(),
        "/docker-virtual/v2/team/app/manifests/2".to_owned(),
        "/v2/docker.io/team/app/manifests/2".to_owned(),
    ];
    for path in &paths {
        assert_eq!(
            client.get(path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
        assert_eq!(
            client.head(path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    let tags = client.get("/v2/team/app/tags/list").await;
    assert_eq!(tags.json()["tags"], json!(["1"]));
    let referrers = client
        .get(&format!("/v2/team/app/referrers/{}", mine.digest()))
        .await;
    assert_eq!(referrers.status, StatusCode::OK);
    assert_eq!(hub.log().len(), before, "{:?}", hub.log());
    // The remote under its own name is another matter.
    assert!(
        client
            .manifest("hub-io/team/app", "2")
            .await
            .is(&theirs.root.bytes)
    );

    let shared = Mirror::with(&[remote("hub-io", &hub)], &over("local_names = \"shared\"")).await;
    let client = shared.client();
    client.push("team/app", "1", &mine).await;
    assert!(
        client
            .manifest("team/app", "2")
            .await
            .is(&theirs.root.bytes)
    );
    let tags = client.get("/v2/team/app/tags/list").await;
    assert_eq!(tags.json()["tags"], json!(["1", "2"]));
}

#[tokio::test]
async fn patterns_keep_names_from_members() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let [first, second] = [1, 2].map(|seed| image::small(Flavour::Oci, seed));
    for name in ["team/app", "team/secret", "other/app"] {
        one.hold(name, "1", &first);
        two.hold(name, "1", &second);
    }
    let tables = "[virtual.both]\nmembers = [{ repository = \"one\", include = [\"team/**\"], exclude = [\"team/secret\"] }, \"inner\"]\n\
        [virtual.inner]\nmembers = [{ repository = \"two\", exclude = [\"nobody/**\"] }]\n";
    let mirror = Mirror::with(&[remote("one", &one), remote("two", &two)], tables).await;
    let client = mirror.client();
    for (name, expected) in [
        ("team/app", &first),
        ("team/secret", &second),
        ("other/app", &second),
    ] {
        let found = client.manifest(&format!("both/{name}"), "1").await;
        assert!(found.is(&expected.root.bytes), "{name}");
    }
    assert_eq!(one.count("", "secret") + one.count("", "other"), 0);
    for path in [
        "manifests/1",
        "tags/list",
        &format!("blobs/{}", first.blobs[0].digest),
    ] {
        let path = format!("/v2/both/nobody/app/{path}");
        assert_eq!(
            client.get(&path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    assert_eq!(one.count("", "nobody") + two.count("", "nobody"), 0);
    let names = client.get("/both/v2/_catalog").await;
    assert_eq!(
        names.json()["repositories"],
        json!(["other/app", "team/app", "team/secret"])
    );
    // What is pushed nowhere is said so.
    let refused = client.try_body(http::Method::POST, "/v2/both/a/b/blobs/uploads/", "".into());
    assert_eq!(refused.await, Some(405));
}

#[tokio::test]
async fn an_outage_of_a_member_is_not_absence() {
    let (mut one, two) = (Upstream::start().await, Upstream::start().await);
    let [first, second, pushed] = [1, 2, 3].map(|seed| image::small(Flavour::Oci, seed));
    one.hold("library/app", "cached", &first);
    two.hold("library/app", "elsewhere", &second);
    hold_tags(&two, "library/app", &["elsewhere"]);
    let tables = "[local.dev-local]\n[virtual.all-of-it]\nmembers = [\"dev-local\", \"one\", \"two\"]\ndeploy_to = \"dev-local\"\n";
    let mirror = Mirror::with(&[remote("one", &one), remote("two", &two)], tables).await;
    let client = mirror.client();
    let name = "all-of-it/library/app";
    client.push(name, "pushed", &pushed).await;
    assert!(client.has(name, "cached", &first).await);
    one.stop().await;
    assert!(client.has(name, "pushed", &pushed).await);
    let stale = client.manifest(name, "cached").await;
    assert!(stale.is(&first.root.bytes) && stale.header("warning").is_some());
    // Another member has it: that is an answer.
    assert!(client.has(name, "elsewhere", &second).await);
    let tags = client.get(&format!("/v2/{name}/tags/list")).await;
    assert_eq!(
        tags.json()["tags"],
        json!(["cached", "elsewhere", "pushed"])
    );
    // Nobody else has these: whether the one that is down has is unknown.
    for n in 0..50 {
        let unknown = client.manifest(name, &format!("v{n}")).await;
        assert!(unknown.status.is_server_error(), "{unknown:?}");
    }
    let nothing = image::blob(9, 10);
    assert!(
        client
            .blob(name, &nothing.digest)
            .await
            .status
            .is_server_error()
    );
}

#[tokio::test]
async fn upstream_says_denied_of_what_does_not_exist() {
    let hub = Upstream::start().await;
    hub.script("", "/v2/", 99, crate::support::Act::status(403));
    let mirror = Mirror::with(&[remote("hub-io", &hub)], &over("")).await;
    let answer = mirror.client().manifest("team/nothing", "1").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{answer:?}");
}

#[tokio::test]
async fn the_newest_tag_wins_where_that_is_asked_for() {
    let hub = Upstream::start().await;
    let [mine, theirs, newer] = [1, 2, 3].map(|seed| image::small(Flavour::Oci, seed));
    hub.hold("team/app", "1", &theirs);
    let more = "resolve_tags_by_timestamp = true\nlocal_names = \"shared\"";
    let mirror = Mirror::with(&[remote("hub-io", &hub)], &over(more)).await;
    let client = mirror.client();
    assert!(
        client
            .manifest("team/app", "1")
            .await
            .is(&theirs.root.bytes)
    );
    client.push("team/app", "1", &mine).await;
    assert!(client.manifest("team/app", "1").await.is(&mine.root.bytes));
    hub.hold("team/app", "1", &newer);
    assert!(client.manifest("team/app", "1").await.is(&newer.root.bytes));
    client.push("team/app", "1", &mine).await;
    assert!(client.manifest("team/app", "1").await.is(&mine.root.bytes));
    // What is known to one member is read by digest whoever is newest.
    assert!(
        client
            .manifest("team/app", theirs.digest())
            .await
            .is(&theirs.root.bytes)
    );
}

#[tokio::test]
async fn signatures_of_all_members_are_listed() {
    let hub = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    hub.hold("library/app", "1", &image);
    let theirs = image::artifact(Some(&image.root), "application/vnd.theirs", b"x");
    hub.hold("library/app", "signature", &theirs);
    let list = json!({"schemaVersion": 2, "mediaType": image::OCI_INDEX, "manifests": [theirs.root.descriptor()]});
    let path = format!("/v2/library/app/referrers/{}", image.digest());
    hub.hold_path(&path, &Content::json(image::OCI_INDEX, &list));
    let mirror = Mirror::with(&[remote("hub-io", &hub)], &over("")).await;
    let client = mirror.client();
    let mine = image::artifact(Some(&image.root), "application/vnd.mine", b"y");
    for blob in &mine.blobs {
        client.push_blob("app", blob).await;
    }
    let answer = client.put_manifest("app", mine.digest(), &mine.root).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let listed = client
        .get(&format!("/v2/app/referrers/{}", image.digest()))
        .await;
    let mut kinds: Vec<String> = listed.json()["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["digest"].as_str().unwrap().to_owned())
        .collect();
    kinds.sort();
    let mut expected = [mine.digest().to_owned(), theirs.digest().to_owned()];
    expected.sort();
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn an_image_out_of_upstreams_layers_is_pushed_whole() {
    let hub = Upstream::start().await;
    let base = image::multi_platform(Flavour::Oci, 1, 20_000);
    hub.hold("library/base", "1", &base);
    let mirror = Mirror::with(&[remote("hub-io", &hub)], &over("")).await;
    let client = mirror.client();
    // The client was told that all of it is there, and sends the index alone.
    for blob in &base.blobs {
        let path = format!("/v2/base/blobs/{}", blob.digest);
        assert_eq!(client.head(&path).await.status, StatusCode::OK);
    }
    let answer = client.put_manifest("base", "mine", &base.root).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert!(client.has("dev-local/library/base", "mine", &base).await);
    // A name reaches only what is there under that name.
    let refused = client.put_manifest("team/other", "1", &base.root).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN")
    );
}

#[tokio::test]
async fn what_a_virtual_repository_would_not_show_is_not_pushed_through_it() {
    let hub = Upstream::start().await;
    let [mine, theirs] = [1, 2].map(|seed| image::small(Flavour::Oci, seed));
    hub.hold("other/app", "1", &theirs);
    let tables = "[local.dev-local]\n[virtual.docker-virtual]\ndeploy_to = \"dev-local\"\n\
        members = [{ repository = \"dev-local\", include = [\"team/**\"] }, \"hub-io\"]\n";
    let mirror = Mirror::with(&[remote("hub-io", &hub)], tables).await;
    let client = mirror.client();
    let refused = client.try_body(
        http::Method::POST,
        "/v2/other/app/blobs/uploads/",
        "".into(),
    );
    assert_eq!(refused.await, Some(405));
    // Held by its own name, it is nobody else's to fill, and nobody mounts out of it.
    client.push("dev-local/other/app", "mine", &mine).await;
    let asked = hub.log().len();
    assert_eq!(
        client.manifest("other/app", "1").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(hub.log().len(), asked);
    let blob = &mine.blobs[0].digest;
    let path = format!("/v2/team/app/blobs/uploads/?mount={blob}&from=other/app");
    let mounted = client.try_body(http::Method::POST, &path, "".into());
    assert_eq!(mounted.await, Some(202));
}

#[tokio::test]
async fn a_deleted_tag_gives_the_name_back_even_after_it_had_moved() {
    let hub = Upstream::start().await;
    let [one, two, theirs] = [1, 2, 3].map(|seed| image::small(Flavour::Oci, seed));
    hub.hold("team/app", "1", &theirs);
    let mirror = Mirror::with(&[remote("hub-io", &hub)], &over("")).await;
    let client = mirror.client();
    client.push("team/app", "1", &one).await;
    client.push("team/app", "1", &two).await;
    let deleted = client.delete("/v2/team/app/manifests/1").await;
    assert_eq!(deleted.status, StatusCode::ACCEPTED);
    assert!(
        client
            .manifest("team/app", "1")
            .await
            .is(&theirs.root.bytes)
    );
    // What was deployed by digest is still there, and a manifest pushed by digest alone holds the name.
    assert!(client.has("dev-local/team/app", one.digest(), &one).await);
    let pushed = client
        .put_manifest("dev-local/team/app", two.digest(), &two.root)
        .await;
    assert_eq!(pushed.status, StatusCode::CREATED);
    assert_eq!(
        client.manifest("team/app", "1").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_child_that_upstream_has_only_half_is_not_taken_over() {
    let hub = Upstream::start().await;
    let base = image::multi_platform(Flavour::Oci, 1, 20_000);
    hub.hold("library/base", "1", &base);
    let layer = base.layers()[0].digest.clone();
    hub.script("", &layer, 99, crate::support::Act::status(404));
    let mirror = Mirror::with(&[remote("hub-io", &hub)], &over("")).await;
    let client = mirror.client();
    let refused = client.put_manifest("base", "mine", &base.root).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    let nothing = client.manifest("dev-local/library/base", "mine").await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND);
    // While upstream is down, whether it has what is missing nobody can say.
    let mut hub = hub;
    hub.stop().await;
    let other = image::multi_platform(Flavour::Oci, 5, 100);
    let failed = client.put_manifest("base", "other", &other.root).await;
    assert!(failed.status.is_server_error(), "{failed:?}");
    let failed = client.delete("/v2/base/manifests/unknown").await;
    assert!(failed.status.is_server_error(), "{failed:?}");
}

#[tokio::test]
async fn a_push_goes_on_while_upstream_is_down() {
    let mut hub = Upstream::start().await;
    let mirror = Mirror::with(&[remote("hub-io", &hub)], &over("")).await;
    hub.stop().await;
    let client = mirror.client();
    let image = image::small(Flavour::Docker, 1);
    for blob in &image.blobs {
        let path = format!("/v2/team/app/blobs/{}", blob.digest);
        assert_eq!(client.head(&path).await.status, StatusCode::NOT_FOUND);
        assert!(client.get(&path).await.status.is_server_error());
    }
    let path = "/v2/team/app/manifests/1";
    assert!(client.head(path).await.status.is_server_error());
    client.push("team/app", "1", &image).await;
    assert!(client.has("team/app", "1", &image).await);
    // Where nothing can be pushed it is no such question.
    let path = format!("/v2/hub-io/team/app/blobs/{}", image.blobs[0].digest);
    assert!(client.head(&path).await.status.is_server_error());
}
