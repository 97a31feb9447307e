//! What a remote's rules admit: age, names, size and signature; what is served meanwhile.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{Method, StatusCode};
use rcgen::KeyPair;
use serde_json::json;

use crate::support::client::{Answer, Client};
use crate::support::image::{self, Content, Flavour, Image};
use crate::support::{Act, Mirror, Remote, Upstream};

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// A mirror of `upstream` with these rules, with the public half of `key` beside its configuration.
async fn mirror(upstream: &Upstream, rules: &str, key: Option<&KeyPair>, more: &str) -> Mirror {
    let dir = tempfile::tempdir().unwrap();
    if let Some(key) = key {
        std::fs::write(dir.path().join("cosign.pub"), key.public_key_pem()).unwrap();
    }
    let lines = format!("tag_ttl = \"0s\"\nnegative_ttl = \"0s\"\nadmit = {{ {rules} }}");
    let data = dir.path().join("data");
    let remotes = [Remote::hub_with(&upstream.url(), &lines)];
    Mirror::in_directory(dir, data, &remotes, more).await
}

/// Starts it again with other rules.
async fn ruled(mirror: &mut Mirror, from: &str, to: &str) {
    let text = std::fs::read_to_string(mirror.configuration()).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(mirror.configuration(), text.replace(from, to)).unwrap();
    mirror.restart().await;
}

/// A signature by `key` over the statement that an image of this digest is signed.
fn statement(key: &KeyPair, digest: &str) -> (Content, String) {
    let payload = json!({ "critical": {
        "identity": { "docker-reference": "" },
        "image": { "docker-manifest-digest": digest },
        "type": "cosign container image signature",
    }, "optional": null });
    let payload = Content::json(SIMPLE_SIGNING, &payload);
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.serialize_der()).unwrap();
    let signature = pair.sign(&SystemRandom::new(), &payload.bytes).unwrap();
    let signature = BASE64_STANDARD.encode(signature.as_ref());
    (payload, signature)
}

/// What cosign stores for these signatures.
fn signatures(statements: &[(Content, String)], subject: Option<&Content>) -> Image {
    let config = Content::new(image::OCI_CONFIG, "{}");
    let layers: Vec<_> = statements
        .iter()
        .map(|(payload, signature)| {
            let mut layer = payload.descriptor();
            layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature });
            layer
        })
        .collect();
    let mut manifest = json!({ "schemaVersion": 2, "mediaType": image::OCI_MANIFEST,
        "config": config.descriptor(), "layers": layers });
    if let Some(subject) = subject {
        manifest["artifactType"] = json!("application/vnd.dev.cosign.artifact.sig.v1+json");
        manifest["subject"] = subject.descriptor();
    }
    let root = Content::json(image::OCI_MANIFEST, &manifest);
    let mut blobs = vec![config];
    blobs.extend(statements.iter().map(|(payload, _)| payload.clone()));
    Image {
        manifests: vec![root.clone()],
        root,
        blobs,
        platform: serde_json::Value::Null,
    }
}

fn signature_tag(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

fn sign(upstream: &Upstream, name: &str, key: &KeyPair, digest: &str) {
    let signed = signatures(&[statement(key, digest)], None);
    upstream.hold(name, &signature_tag(digest), &signed);
}

fn is_refused(answer: &Answer, rule: &str) -> bool {
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{rule}: {answer:?}");
    assert_eq!(answer.code(), "DENIED");
    let error = &answer.json()["errors"][0];
    let message = error["message"].as_str().unwrap();
    assert_eq!(error["detail"]["rule"], json!(rule), "{message}");
    assert_eq!(
        answer.header("cache-status"),
        Some("roadstead; fwd=uri-miss; detail=not-admitted")
    );
    message.contains(&format!("rule {rule}: "))
}

fn is_held_back(answer: &Answer, old: &Image) -> bool {
    let status = answer.header("cache-status").unwrap_or_default();
    answer.is(&old.root.bytes)
        && status.starts_with("roadstead; fwd=stale")
        && status.ends_with("detail=not-admitted")
        && answer
            .header("warning")
            .is_some_and(|text| text.contains("does not admit"))
}

async fn pin(client: &Client, path: &str, digest: &str) -> Answer {
    let body = json!({ "digest": digest }).to_string();
    client.send_body(Method::PUT, path, &[], body.into()).await
}

#[tokio::test]
async fn a_new_digest_waits_while_the_old_one_is_served() {
    let mut upstream = Upstream::start().await;
    let [one, two] = [1, 2].map(|seed| image::small(Flavour::Oci, seed));
    upstream.hold("library/app", "1", &one);
    let mut mirror = mirror(&upstream, "min_age = \"72h\"", None, "").await;
    let client = mirror.client();
    for _ in 0..2 {
        let refused = client.manifest("app", "1").await;
        assert!(is_refused(&refused, "min_age"), "{refused:?}");
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(
            text.contains(one.digest()) && text.contains("in 72h"),
            "{text}"
        );
        assert!(refused.header("retry-after").is_some());
        let head = client.head("/v2/app/manifests/1").await;
        assert_eq!(head.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(upstream.count("GET", "/manifests/"), 0, "no pull is spent");
    assert!(is_refused(
        &client.manifest("app", one.digest()).await,
        "min_age"
    ));
    let as_blob = client.blob("app", one.digest()).await;
    assert!(is_refused(&as_blob, "min_age"), "{as_blob:?}");
    // Since when it is known outlives the process.
    tokio::time::sleep(Duration::from_secs(1)).await;
    ruled(&mut mirror, "72h", "1s").await;
    assert!(mirror.client().has("app", "1", &one).await);

    ruled(&mut mirror, "\"1s\"", "\"72h\"").await;
    let client = mirror.client();
    upstream.hold("library/app", "1", &two);
    let asked = upstream.count("GET", "/manifests/");
    for _ in 0..3 {
        let old = client.manifest("app", "1").await;
        assert!(is_held_back(&old, &one), "{old:?}");
        let head = client.head("/v2/app/manifests/1").await;
        assert_eq!(head.header("docker-content-digest"), Some(one.digest()));
    }
    assert_eq!(upstream.count("GET", "/manifests/"), asked);
    assert!(client.has("app", one.digest(), &one).await);
    for _ in 0..2 {
        assert!(is_refused(
            &client.manifest("app", two.digest()).await,
            "min_age"
        ));
    }
    let told = client
        .get("/admin/tags/docker-hub/library/app/1")
        .await
        .json();
    assert_eq!(told["digest"], json!(one.digest()), "{told}");
    assert_eq!(told["observed"], json!(two.digest()), "{told}");
    assert_eq!(told["history"].as_array().unwrap().len(), 1);
    let log = mirror.log();
    let said = |line: &&String| line.contains("not admi") && line.contains(two.digest());
    assert_eq!(
        log.iter().filter(said).count(),
        1,
        "once, not for each request"
    );

    upstream.stop().await;
    assert!(client.manifest("app", "1").await.is(&one.root.bytes));
    assert!(mirror.client().manifest("app", two.digest()).await.status != StatusCode::OK);
    upstream.restart().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ruled(&mut mirror, "72h", "1s").await;
    crate::eventually!(
        mirror
            .client()
            .manifest("app", "1")
            .await
            .is(&two.root.bytes)
    );
    assert!(mirror.client().has("app", "1", &two).await);
}

#[tokio::test]
async fn a_refusal_is_over_when_its_time_has_come() {
    let upstream = Upstream::start().await;
    let [one, two] = [1, 2].map(|seed| image::small(Flavour::Docker, seed));
    upstream.hold("library/app", "1", &one);
    let mirror = mirror(&upstream, "min_age = \"1500ms\"", None, "").await;
    let client = mirror.client();
    assert!(is_refused(&client.manifest("app", "1").await, "min_age"));
    crate::eventually!(client.manifest("app", "1").await.is(&one.root.bytes));
    upstream.hold("library/app", "1", &two);
    assert!(is_held_back(&client.manifest("app", "1").await, &one));
    crate::eventually!(client.manifest("app", "1").await.is(&two.root.bytes));
    // What is known under one tag is as old under another.
    upstream.hold("library/app", "2", &two);
    assert!(client.manifest("app", "2").await.is(&two.root.bytes));
}

#[tokio::test]
async fn names_are_allowed_and_denied() {
    let upstream = Upstream::start().await;
    let one = image::small(Flavour::Oci, 1);
    for name in ["library/app", "team/app", "team/secret", "other/app"] {
        upstream.hold(name, "1", &one);
    }
    let rules = "allow = [\"library/*\", \"team/**\"], deny = [\"**/secret\"]";
    let mirror = mirror(&upstream, rules, None, "").await;
    let client = mirror.client();
    for (name, rule) in [("team/secret", "deny"), ("other/app", "allow")] {
        let blob = &one.blobs[0].digest;
        assert!(is_refused(&client.manifest(name, "1").await, rule));
        assert!(is_refused(&client.manifest(name, one.digest()).await, rule));
        assert!(is_refused(&client.blob(name, blob).await, rule));
        let head = client.head(&format!("/v2/{name}/blobs/{blob}")).await;
        assert_eq!(head.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(upstream.count("", "/v2/"), 0, "nobody is asked");
    let log = mirror.log();
    let said = |line: &&String| line.contains("an image is not admitted");
    assert_eq!(log.iter().filter(said).count(), 2, "once for each name");
    assert!(client.has("app", "1", &one).await);
    assert!(client.has("team/app", one.digest(), &one).await);
}

#[tokio::test]
async fn size_is_of_each_platform() {
    let upstream = Upstream::start().await;
    let [small, large] = [1, 2].map(|seed| {
        let size = if seed == 1 { 2_000 } else { 90_000 };
        let layer = image::noise_layer(image::Packing::Gzip, seed, size);
        image::image(
            Flavour::Oci,
            if seed == 1 { "amd64" } else { "arm64" },
            &[layer],
        )
    });
    upstream.hold("library/app", "1", &small);
    upstream.hold("library/app", "2", &large);
    let both = image::index(Flavour::Oci, &[small.clone(), large.clone()]);
    upstream.hold("library/app", "both", &both);
    let mut mirror = mirror(&upstream, "max_size = \"50kB\"", None, "").await;
    let client = mirror.client();
    assert!(client.has("app", "1", &small).await);
    assert!(is_refused(&client.manifest("app", "2").await, "max_size"));
    assert!(client.manifest("app", "both").await.is(&both.root.bytes));
    let refused = client.manifest("app", large.digest()).await;
    assert!(is_refused(&refused, "max_size"), "{refused:?}");
    upstream.hold("library/app", "1", &large);
    let head = client.head("/v2/app/manifests/1").await;
    assert_eq!(head.header("docker-content-digest"), Some(small.digest()));
    assert!(is_held_back(&client.manifest("app", "1").await, &small));
    // Another limit judges anew, what is here too.
    ruled(&mut mirror, "50kB", "1kB").await;
    assert!(is_refused(
        &mirror.client().manifest("app", "1").await,
        "max_size"
    ));
    ruled(&mut mirror, "1kB", "1MB").await;
    assert!(mirror.client().has("app", "1", &large).await);
}

#[tokio::test]
async fn only_what_the_key_signed_is_served() {
    let upstream = Upstream::start().await;
    let [key, other] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let images: Vec<Image> = (0..6)
        .map(|seed| image::small(Flavour::Oci, seed))
        .collect();
    let [good, unsigned, wrong, replayed, both, next] = images.as_slice() else {
        unreachable!();
    };
    for (tag, image) in [("good", good), ("unsigned", unsigned), ("wrong", wrong)] {
        upstream.hold("library/app", tag, image);
    }
    upstream.hold("library/app", "replayed", replayed);
    upstream.hold("library/app", "both", both);
    sign(&upstream, "library/app", &key, good.digest());
    sign(&upstream, "library/app", &other, wrong.digest());
    // A good signature of another image.
    let moved = signatures(&[statement(&key, good.digest())], None);
    upstream.hold("library/app", &signature_tag(replayed.digest()), &moved);
    let two = [&other, &key].map(|key| statement(key, both.digest()));
    let two = signatures(&two, None);
    upstream.hold("library/app", &signature_tag(both.digest()), &two);

    let rules = "cosign_key = \"cosign.pub\"";
    let mut mirror = mirror(&upstream, rules, Some(&key), "").await;
    let client = mirror.client();
    assert!(client.has("app", "good", good).await);
    assert!(client.has("app", "both", both).await);
    for (tag, image) in [
        ("unsigned", unsigned),
        ("wrong", wrong),
        ("replayed", replayed),
    ] {
        assert!(
            is_refused(&client.manifest("app", tag).await, "cosign_key"),
            "{tag}"
        );
        let by_digest = client.manifest("app", image.digest()).await;
        assert!(is_refused(&by_digest, "cosign_key"), "{tag}");
        let head = client.head(&format!("/v2/app/manifests/{tag}")).await;
        assert_eq!(head.status, StatusCode::FORBIDDEN);
    }
    // Clients verify for themselves.
    let signature = signature_tag(good.digest());
    let stored = signatures(&[statement(&key, good.digest())], None);
    let served = client.manifest("app", &signature).await;
    assert_eq!(served.status, StatusCode::OK, "{served:?}");
    let layer = served.json()["layers"][0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(client.blob("app", &layer).await.is(&stored.blobs[1].bytes));
    // But the tag alone makes no signature of what can be run.
    upstream.hold(
        "library/app",
        &signature_tag(&image::sha256(b"x")),
        unsigned,
    );
    let disguised = client
        .manifest("app", &signature_tag(&image::sha256(b"x")))
        .await;
    assert!(is_refused(&disguised, "cosign_key"));
    // Nor does a signature become an image by another tag.
    upstream.hold(
        "library/app",
        "disguised",
        &signatures(&[statement(&key, good.digest())], None),
    );
    assert!(is_refused(
        &client.manifest("app", "disguised").await,
        "cosign_key"
    ));

    upstream.hold("library/app", "good", next);
    assert!(is_held_back(&client.manifest("app", "good").await, good));
    // Nobody can say: that admits nothing.
    sign(&upstream, "library/app", &key, next.digest());
    upstream.script("", &signature_tag(next.digest()), 1000, Act::status(503));
    let still = client.manifest("app", "good").await;
    assert!(still.is(&good.root.bytes), "{still:?}");
    let status = client.manifest("app", next.digest()).await.status;
    assert!(status.is_server_error(), "{status}");
    upstream.unscript();
    crate::eventually!(client.manifest("app", "good").await.is(&next.root.bytes));
    // Another key has everything judged anew, and what an offline mirror cannot judge it does not serve.
    let path = mirror.configuration().with_file_name("cosign.pub");
    std::fs::write(path, other.public_key_pem()).unwrap();
    mirror.restart().await;
    let client = mirror.client();
    assert!(is_refused(
        &client.manifest("app", "good").await,
        "cosign_key"
    ));
    assert!(client.has("app", "wrong", wrong).await);
}

#[tokio::test]
async fn an_index_vouches_for_its_platforms_and_referrers_hold_signatures_too() {
    let upstream = Upstream::start().await;
    let key = KeyPair::generate().unwrap();
    let [signed, bare] = [1, 2].map(|seed| image::multi_platform(Flavour::Oci, seed, 20_000));
    upstream.hold("library/app", "1", &signed);
    upstream.hold("library/app", "bare", &bare);
    sign(&upstream, "library/app", &key, signed.digest());
    let referring = image::small(Flavour::Oci, 7);
    upstream.hold("library/app", "referring", &referring);
    let statements = [statement(&key, referring.digest())];
    let signature = signatures(&statements, Some(&referring.root));
    upstream.hold("library/app", signature.digest(), &signature);
    let mut entry = signature.root.descriptor();
    entry["artifactType"] = json!("application/vnd.dev.cosign.artifact.sig.v1+json");
    let list = json!({ "schemaVersion": 2, "mediaType": image::OCI_INDEX, "manifests": [entry] });
    let list = Content::json(image::OCI_INDEX, &list);
    upstream.hold_path(
        &format!("/v2/library/app/referrers/{}", referring.digest()),
        &list,
    );

    let rules = "cosign_key = \"cosign.pub\"";
    let mut mirror = mirror(&upstream, rules, Some(&key), "").await;
    // Refusals are remembered, but not longer than what they were founded on.
    ruled(&mut mirror, "tag_ttl = \"0s\"", "tag_ttl = \"1h\"").await;
    // Not before what lists it.
    let early = mirror
        .client()
        .manifest("app", &signed.child(0).digest)
        .await;
    assert!(is_refused(&early, "cosign_key"));
    // A client that has the index from before asks for no more than this.
    let head = mirror.client().head("/v2/app/manifests/1").await;
    assert_eq!(head.status, StatusCode::OK);
    let child = signed.child(0);
    let platform = mirror.client().manifest("app", &child.digest).await;
    assert!(platform.is(&child.bytes), "{platform:?}");
    for _ in 0..2 {
        let client = mirror.client();
        assert!(client.has("app", "1", &signed).await);
        assert!(is_refused(
            &client.manifest("app", "bare").await,
            "cosign_key"
        ));
        let child = client.manifest("app", &bare.child(0).digest).await;
        assert!(is_refused(&child, "cosign_key"));
        assert!(client.has("app", "referring", &referring).await);
        let served = client.manifest("app", signature.digest()).await;
        assert!(served.is(&signature.root.bytes), "{served:?}");
        mirror.restart().await;
    }
}

#[tokio::test]
async fn a_pin_is_an_operators_word() {
    let upstream = Upstream::start().await;
    let image = image::multi_platform(Flavour::Oci, 1, 20_000);
    let two = image::small(Flavour::Oci, 2);
    upstream.hold("library/app", "1", &image);
    let mut mirror = mirror(
        &upstream,
        "min_age = \"72h\", deny = [\"**/app\"]",
        None,
        "",
    )
    .await;
    ruled(&mut mirror, "tag_ttl = \"0s\"", "tag_ttl = \"1h\"").await;
    let client = mirror.client();
    assert!(is_refused(&client.manifest("app", "1").await, "deny"));
    let child = &image.child(0).digest;
    assert!(is_refused(&client.manifest("app", child).await, "deny"));
    let path = "/admin/tags/docker-hub/library/app/1";
    let pinned = pin(&client, path, image.digest()).await;
    assert_eq!(pinned.status, StatusCode::OK, "{pinned:?}");
    upstream.hold("library/app", "1", &two);
    for _ in 0..2 {
        let client = mirror.client();
        assert!(client.has("app", "1", &image).await);
        assert!(is_refused(
            &client.manifest("app", two.digest()).await,
            "deny"
        ));
        mirror.restart().await;
    }
}

#[tokio::test]
async fn a_virtual_repository_asks_no_other_for_what_is_refused() {
    let [hub, quay] = [Upstream::start().await, Upstream::start().await];
    let [one, two] = [1, 2].map(|seed| image::small(Flavour::Oci, seed));
    for name in ["team/app", "denied/app"] {
        hub.hold(name, "1", &one);
        quay.hold(name, "1", &two);
    }
    hub.hold("denied/alone", "1", &one);
    let remote = |key, upstream: &Upstream, rules: &str| Remote {
        key,
        url: upstream.url(),
        serves: key,
        more: format!("tag_ttl = \"0s\"\nnegative_ttl = \"0s\"\n{rules}"),
    };
    let remotes = [
        remote(
            "hub-io",
            &hub,
            "admit = { min_age = \"72h\", deny = [\"denied/**\"] }",
        ),
        remote("quay-io", &quay, ""),
    ];
    let tables = "[local.dev-local]\n[virtual.both-virtual]\nmembers = [\"dev-local\", \"hub-io\", \"quay-io\"]\ndeploy_to = \"dev-local\"\n";
    let mirror = Mirror::with(&remotes, tables).await;
    let client = mirror.client();
    let refused = client.manifest("both-virtual/team/app", "1").await;
    assert!(is_refused(&refused, "min_age"), "{refused:?}");
    assert_eq!(quay.count("", "/team/app/"), 0);
    // A name that a member is not asked for is another's, as with patterns of members.
    let other = client.manifest("both-virtual/denied/app", "1").await;
    assert!(other.is(&two.root.bytes), "{other:?}");
    let nobody = client.manifest("both-virtual/denied/alone", "1").await;
    assert!(is_refused(&nobody, "deny"), "{nobody:?}");
    // What is refused can still be pushed under that name.
    client.push("both-virtual/denied/new", "1", &one).await;
    assert!(client.has("both-virtual/denied/new", "1", &one).await);
}

#[tokio::test]
async fn what_is_refused_is_not_promoted() {
    let upstream = Upstream::start().await;
    let key = KeyPair::generate().unwrap();
    let [good, bad] = [1, 2].map(|seed| image::small(Flavour::Oci, seed));
    upstream.hold("library/app", "good", &good);
    upstream.hold("library/app", "bad", &bad);
    sign(&upstream, "library/app", &key, good.digest());
    let rules = "cosign_key = \"cosign.pub\"";
    let mirror = mirror(&upstream, rules, Some(&key), "[local.prod-local]\n").await;
    let client = mirror.client();
    let promote = async |tag: &str| {
        let body = json!({ "targetRepo": "prod-local", "dockerRepository": "library/app",
            "targetDockerRepository": "app", "tag": tag, "copy": true });
        let path = "/artifactory/api/docker/docker-hub/v2/promote";
        let headers = [("content-type", "application/json")];
        client
            .send_body(Method::POST, path, &headers, body.to_string().into())
            .await
    };
    let refused = promote("bad").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    let text = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(
        text.contains("cosign_key") && text.contains(bad.digest()),
        "{text}"
    );
    let absent = client.manifest("prod-local/app", "bad").await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    let done = promote("good").await;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
    assert!(client.has("prod-local/app", "good", &good).await);
    let signature = signature_tag(good.digest());
    let served = client.manifest("prod-local/app", &signature).await;
    assert_eq!(served.status, StatusCode::OK, "its signature goes along");
    // A tag that moved to what is refused is promoted as it is served.
    upstream.hold("library/app", "good", &bad);
    assert_eq!(promote("good").await.status, StatusCode::OK);
    assert!(
        client
            .manifest("prod-local/app", "good")
            .await
            .is(&good.root.bytes)
    );
}
