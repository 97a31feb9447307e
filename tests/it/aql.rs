//! The Artifactory Query Language: items by what they are.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::image::{self, Flavour, labelled, plain_hex as hex};
use crate::support::{Answer, Client, Mirror, Remote, Upstream};

async fn ask(client: &Client, question: &str) -> Answer {
    let path = "/artifactory/api/search/aql";
    let headers = [("content-type", "text/plain")];
    let body = question.to_owned().into();
    client.send_body(Method::POST, path, &headers, body).await
}

async fn results(client: &Client, question: &str) -> Value {
    let answer = ask(client, question).await;
    assert_eq!(answer.status, StatusCode::OK, "{question} {answer:?}");
    answer.json()
}

/// `repo/path/name` of what is found, in its order.
fn items(told: &Value) -> Vec<String> {
    let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    let item = |item: &Value| {
        ["repo", "path", "name"]
            .map(|key| text(item, key))
            .join("/")
    };
    told["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(item)
        .collect()
}

#[tokio::test]
async fn items_are_found_by_what_they_are() {
    let upstream = Upstream::start().await;
    let [one, two, theirs] = [1, 2, 3].map(|seed| {
        let team = if seed == 1 { "blue" } else { "red" };
        labelled(seed, &json!({"org.team": team}))
    });
    let several = image::multi_platform(Flavour::Oci, 4, 1000);
    upstream.hold("library/app", "1", &theirs);
    let tables = "[local.dev-local]\n[local.prod-local]\n[virtual.all-of-it]\nmembers = [\"dev-local\", \"docker-hub\"]\n";
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], tables).await;
    let client = mirror.client();
    client.push("dev-local/team/app", "1.0", &one).await;
    client.push("dev-local/team/app", "1.1", &two).await;
    client.push("dev-local/team/list", "x", &several).await;
    client.push("prod-local/team/app", "1.0", &one).await;
    assert!(client.has("docker-hub/app", "1", &theirs).await);
    let asked = upstream.log().len();
    let set = "/api/storage/dev-local/team/app/1.1?properties=qa=passed,signed";
    let set = client.send(Method::PUT, set, &[]).await;
    assert_eq!(set.status, StatusCode::NO_CONTENT);

    let [dev0, dev1, list, prod, hub] = [
        "dev-local/team/app/1.0/manifest.json",
        "dev-local/team/app/1.1/manifest.json",
        "dev-local/team/list/x/list.manifest.json",
        "prod-local/team/app/1.0/manifest.json",
        "docker-hub-cache/library/app/1/manifest.json",
    ];
    let layer = format!("sha256__{}", hex(&one.layers()[0].digest));
    let blob = |at: &str| format!("{at}/{layer}");
    let (in_dev, in_prod) = (
        blob("dev-local/team/app/1.0"),
        blob("prod-local/team/app/1.0"),
    );
    let table: Vec<(String, Vec<&str>)> = [
        (r#"{"repo":"dev-local","name":"manifest.json","@docker.repoName":{"$match":"team/*"}}"#, vec![dev0, dev1]),
        (r#"{"repo":{"$eq":"dev-local"},"name":{"$match":"*manifest.json"}}"#, vec![dev0, dev1, list]),
        (r#"{"repo":{"$match":"*-local"},"@docker.label.org.team":"blue"}"#, vec![dev0, prod]),
        (r#"{"@docker.label.org.team":{"$match":"r*"}}"#, vec![dev1, hub]),
        (r#"{"@docker.label.org.team":{"$ne":"red"},"name":{"$match":"*manifest.json"}}"#, vec![dev0, list, prod]),
        (r#"{"@qa":"signed"}"#, vec![dev1]),
        (r#"{"@qa":{"$match":"*"}}"#, vec![dev1]),
        (r#"{"@qa":{"$ne":"passed"},"name":"manifest.json","repo":"dev-local"}"#, vec![dev0]),
        (r#"{"$or":[{"@qa":"passed"},{"repo":"prod-local"}],"name":{"$ne":"x"},"path":{"$match":"team/*"},"@docker.manifest":{"$gte":"1"}}"#, vec![dev1, prod]),
        (r#"{"$or":[{"$and":[{"repo":"prod-local"},{"@docker.manifest":"1.0"}]},{"@docker.manifest":"1.1"}]}"#, vec![dev1, prod]),
        // A remote by the name of its cache; a virtual repository is its members.
        (r#"{"repo":"docker-hub-cache","name":"manifest.json"}"#, vec![hub]),
        (r#"{"repo":"all-of-it","name":"manifest.json"}"#, vec![dev0, dev1, hub]),
        (r#"{"repo":{"$ne":"all-of-it"},"name":"manifest.json"}"#, vec![prod]),
        (r#"{"repo":"nowhere"}"#, vec![]),
        // Layers.
        (&format!(r#"{{"name":"{layer}"}}"#), vec![&in_dev, &in_prod]),
        (&format!(r#"{{"sha256":"{}","repo":"prod-local"}}"#, &layer[8..]), vec![&in_prod]),
        (&format!(r#"{{"name":{{"$match":"{}*"}},"repo":"dev-local"}}"#, &layer[..20]), vec![&in_dev]),
        (&format!(r#"{{"@docker.manifest.digest":"{}"}}"#, two.digest()), vec![dev1]),
        (r#"{"type":"folder","path":"team/app"}"#, vec!["dev-local/team/app/1.0", "dev-local/team/app/1.1", "prod-local/team/app/1.0"]),
        // Times and sizes.
        (r#"{"created":{"$gt":"2000-01-01T00:00:00.000Z","$last":"1d"},"repo":"prod-local","name":"manifest.json"}"#, vec![prod]),
        (r#"{"created":{"$before":"1d"}}"#, vec![]),
        (r#"{"modified":{"$lt":"2000-01-01"}}"#, vec![]),
        (r#"{"size":{"$gt":100000000}}"#, vec![]),
        // What is no question but text.
        (r#"{"repo":"x' OR '1'='1"}"#, vec![]),
        (r#"{"@x') OR 1=1 --":"y"}"#, vec![]),
        (r#"{"name":{"$match":"*' UNION SELECT * FROM blob --"}}"#, vec![]),
        (r#"{"@docker.repoName":{"$match":"[a-z]*"}}"#, vec![]),
    ]
    .map(|(find, found)| (find.to_owned(), found))
    .to_vec();
    crate::eventually!(
        items(
            &results(
                &client,
                r#"items.find({"@docker.label.org.team":"red","repo":"docker-hub-cache"})"#
            )
            .await
        ) == [hub]
    );
    for (find, expected) in table {
        let told = results(&client, &format!("items.find({find})")).await;
        let mut found = items(&told);
        found.sort_unstable();
        let mut wanted = expected.clone();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{find}");
        assert_eq!(told["range"]["total"], json!(expected.len()), "{find}");
    }
    assert_eq!(upstream.log().len(), asked, "a search asks nobody");
}

#[tokio::test]
async fn what_is_shown_in_which_order_and_how_much() {
    let mirror = Mirror::with(&[], "[local.dev-local]\n").await;
    let client = mirror.client();
    let image = labelled(1, &json!({"org.team": "blue"}));
    for tag in ["a", "b", "c"] {
        client.push("dev-local/app", tag, &image).await;
    }
    let find = r#"items.find({"repo":"dev-local","name":"manifest.json"})"#;
    let told = results(&client, find).await;
    let item = told["results"][0].as_object().unwrap();
    let keys: Vec<&str> = item.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "created",
            "created_by",
            "modified",
            "modified_by",
            "name",
            "path",
            "repo",
            "size",
            "type",
            "updated"
        ]
    );
    assert_eq!(item["size"], json!(image.root.size()));
    assert_eq!(item["type"], json!("file"));
    let created = item["created"].as_str().unwrap();
    assert!(created.len() == 24 && created.ends_with('Z'), "{created}");
    assert_eq!(
        told["range"],
        json!({"start_pos": 0, "end_pos": 3, "total": 3, "limit": 10000})
    );
    // What one answer says of a time, the next question finds by it.
    let at =
        format!(r#"items.find({{"created":"{created}","name":"manifest.json"}}).include("path")"#);
    assert_eq!(
        results(&client, &at).await["results"],
        json!([{"path": "app/a"}])
    );

    let page = r#"{find}.include("path").sort({"$desc":["created"]}).offset(1).limit(1)"#;
    let told = results(&client, &page.replace("{find}", find)).await;
    assert_eq!(
        told,
        json!({
            "results": [{"path": "app/b"}],
            "range": {"start_pos": 1, "end_pos": 2, "total": 3, "limit": 1},
        })
    );
    let none = results(&client, &format!("{find}.limit(0)")).await;
    assert_eq!(none["range"]["total"], json!(3));

    let told = results(
        &client,
        &format!(r#"{find}.include("name","sha256","property").limit(1)"#),
    )
    .await;
    let item = &told["results"][0];
    assert_eq!(item["sha256"], json!(hex(image.digest())));
    let properties = item["properties"].as_array().unwrap();
    for (key, value) in [
        ("docker.manifest", "a"),
        ("docker.manifest.digest", image.digest()),
        ("docker.label.org.team", "blue"),
    ] {
        let pair = json!({"key": key, "value": value});
        assert!(properties.contains(&pair), "{pair} {properties:?}");
    }
    // A property alone comes with the usual fields.
    let told = results(
        &client,
        &format!(r#"{find}.include("@docker.manifest").limit(1)"#),
    )
    .await;
    let item = &told["results"][0];
    assert_eq!(
        item["properties"],
        json!([{"key": "docker.manifest", "value": "a"}])
    );
    assert_eq!(item["repo"], json!("dev-local"));
}

#[tokio::test]
async fn questions_that_are_refused_say_why() {
    let mirror = Mirror::with(&[], "[local.dev-local]\n").await;
    let client = mirror.client();
    let table = [
        ("builds.find({})", "`builds` is not searched here"),
        (
            r#"items.find({"archive.name":"x"})"#,
            "`archive.name` is no field here; there are repo",
        ),
        (
            r#"items.find({"repo":{"$regex":"x"}})"#,
            "`$regex` is no operator here; there are $eq",
        ),
        (
            "items.find({\n\"repo\" \"x\"})",
            "line 2, column 8: a ':' is wanted",
        ),
        ("", "a word is wanted"),
        (
            &format!("items.find({}", "{\"$or\":[".repeat(5000)),
            "nest at most 16 deep",
        ),
        (&" ".repeat(70_000), "more than 65536 bytes"),
    ];
    for (question, expected) in table {
        let answer = ask(&client, question).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        let error = &answer.json()["errors"][0];
        assert_eq!(error["status"], json!(400));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    }
    let answer = client.get("/api/search/aql").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.header("allow"), Some("POST"));
    let bytes = bytes::Bytes::from_static(b"items.find(\xff)");
    let answer = client
        .send_body(Method::POST, "/api/search/aql", &[], bytes)
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}
