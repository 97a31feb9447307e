//! Bundles of what is new, in whatever order they come.

use std::collections::BTreeSet;

use super::*;
use crate::support::image::{Flavour, Packing};

/// Images that share a layer with each other.
fn version(seed: u64) -> Image {
    let layer = |seed| image::noise_layer(Packing::Gzip, seed, 50 * KIB);
    image::image(Flavour::Oci, "amd64", &[layer(1000), layer(seed)])
}

fn digests(image: &Image) -> BTreeSet<String> {
    let all = image.manifests.iter().chain(&image.blobs);
    all.map(|one| one.digest.clone()).collect()
}

/// What of these images only the first has.
fn beside(new: &[&Image], old: &[&Image]) -> BTreeSet<String> {
    let old: BTreeSet<String> = old.iter().flat_map(|image| digests(image)).collect();
    let new = new.iter().flat_map(|image| digests(image));
    new.filter(|digest| !old.contains(digest)).collect()
}

fn inventory(mirror: &Mirror, stick: &Stick, name: &str) -> String {
    let path = stick.at(name);
    drop(std::fs::remove_file(&path));
    said(mirror, &["inventory", "-o", &path]);
    path
}

/// What an image waits for, by the report of an import.
fn waits(report: &Value) -> BTreeSet<String> {
    let images = report["images"].as_array().unwrap().iter();
    let pieces = images.flat_map(|one| one["waitsFor"].as_array().unwrap());
    pieces
        .map(|piece| piece["digest"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_carries_what_is_new_and_nothing_else() {
    let upstream = Upstream::start().await;
    let (old, new, added) = (version(1), version(2), image::small(Flavour::Oci, 3));
    upstream.hold("team/app", "1", &old);
    let (here, there) = (connected(&upstream).await, offline().await);
    let stick = Stick::new();
    let (first, second) = (stick.at("first.tar"), stick.at("second.tar"));
    said(&here, &["export", "-o", &first, "team/app:1"]);
    said(&there, &["import", &first]);
    // The tag moves, and an image comes.
    upstream.hold("team/app", "1", &new);
    upstream.hold("team/added", "1", &added);
    let have = inventory(&there, &stick, "inventory");
    let wanted = ["team/app:1", "team/added:1"];
    let mut export = vec!["export", "--json", "--have", &have, "-o", &second];
    export.extend(wanted);
    let done = told(&here, &export);
    let carried: BTreeSet<String> = blobs(second.as_ref()).into_iter().collect();
    assert_eq!(carried, beside(&[&new, &added], &[&old]));
    assert_eq!(done["blobs"], carried.len());
    // The shared layer.
    assert_eq!(done["omittedBlobs"], 1);
    assert_eq!(done["omittedBytes"], new.layers()[0].size());
    let client = there.client();
    assert_pulls(&client, "team/app", "1", &old).await;
    let report = told(&there, &["import", "--json", &second]);
    assert_eq!(report["images"].as_array().unwrap().len(), 2);
    assert_pulls(&client, "team/app", "1", &new).await;
    assert_pulls(&client, "team/added", "1", &added).await;
    // What was there before is not served as the tag any more, and can be let go: one pin a tag.
    assert_eq!(said(&there, &["pins"]).lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_order_and_with_one_lost_what_is_missing_is_told_and_completes_itself() {
    let upstream = Upstream::start().await;
    let (one, two, three) = (version(1), version(2), version(3));
    let (here, mut there) = (connected(&upstream).await, offline().await);
    let stick = Stick::new();
    let base = image::small(Flavour::Oci, 9);
    upstream.hold("team/base", "1", &base);
    let bundle = |name: &str| stick.at(&format!("{name}.tar"));
    // Each side believes that the bundles before it arrived.
    let mut sent: Vec<&Image> = vec![];
    let pretend = connected(&upstream).await;
    for (name, image) in [("one", &one), ("two", &two), ("three", &three)] {
        upstream.hold("team/app", "1", image);
        let have = inventory(&pretend, &stick, "inventory");
        let path = bundle(name);
        said(
            &here,
            &["export", "--have", &have, "-o", &path, "team/app:1"],
        );
        let carried: BTreeSet<String> = blobs(path.as_ref()).into_iter().collect();
        assert_eq!(carried, beside(&[image], &sent), "{name}");
        said(&pretend, &["import", &path]);
        sent.push(image);
    }
    let client = there.client();
    // The last one first.
    let output = run(&there, &["import", "--json", &bundle("three")]);
    assert_eq!(output.status.code(), Some(1), "not everything is there");
    let report = result(&output);
    let shared = one.layers()[0].digest.clone();
    assert_eq!(report["images"][0]["outcome"], "waiting");
    assert_eq!(waits(&report), BTreeSet::from([shared.clone()]), "{report}");
    assert_eq!(
        report["images"][0]["waitsFor"][0]["size"],
        one.layers()[0].size()
    );
    assert_eq!(status(&client, "team/app", "1").await, 404);
    assert_eq!(status(&client, "team/app", three.digest()).await, 404);
    let shown = run(&there, &["import", &bundle("three")]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.contains(&shared) && text.contains("missing: 1 blobs"),
        "{text}"
    );
    let dry = run(&there, &["import", "--dry-run", "--json", &bundle("three")]);
    assert_eq!(dry.status.code(), Some(1));
    assert_eq!(waits(&result(&dry)), BTreeSet::from([shared.clone()]));
    // Another one that waits for the same, over a restart.
    there.restart().await;
    let output = run(&there, &["import", "--json", &bundle("two")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(waits(&result(&output)), BTreeSet::from([shared.clone()]));
    // The one that was lost is found: everything that waited for it is complete, and the tag means what came last.
    let report = told(&there, &["import", "--json", &bundle("one")]);
    let images = report["images"].as_array().unwrap();
    assert!(
        images.iter().all(|one| one["outcome"] == "imported"),
        "{report}"
    );
    for image in [&one, &two, &three] {
        let answer = client.manifest("team/app", image.digest()).await;
        assert!(answer.is(&image.root.bytes), "{}", image.digest());
    }
    let waiting = there.data().join("waiting");
    assert!(names(&waiting).is_empty(), "{:?}", names(&waiting));
    // Applied once more in their order, all is there and the tag is the last.
    for name in ["one", "two", "three"] {
        said(&there, &["import", &bundle(name)]);
    }
    assert_pulls(&client, "team/app", "1", &three).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_bundles_at_once_complete_each_other() {
    let upstream = Upstream::start().await;
    let (one, two) = (version(1), version(2));
    let (here, there) = (connected(&upstream).await, offline().await);
    let stick = Stick::new();
    let (first, second) = (stick.at("first.tar"), stick.at("second.tar"));
    upstream.hold("team/app", "1", &one);
    upstream.hold("team/app", "2", &two);
    said(&here, &["export", "-o", &first, "team/app:1"]);
    let pretend = offline().await;
    said(&pretend, &["import", &first]);
    let have = inventory(&pretend, &stick, "inventory");
    said(
        &here,
        &["export", "--have", &have, "-o", &second, "team/app:2"],
    );
    let would = told(&there, &["import", "--dry-run", "--json", &second, &first]);
    assert!(waits(&would).is_empty(), "{would}");
    said(&there, &["import", &second, &first]);
    let client = there.client();
    assert_pulls(&client, "team/app", "1", &one).await;
    assert_pulls(&client, "team/app", "2", &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inventory_is_signed_and_one_that_was_changed_is_refused() {
    let upstream = Upstream::start().await;
    let app = version(1);
    upstream.hold("team/app", "1", &app);
    let (here, there) = (connected(&upstream).await, offline().await);
    let stick = Stick::new();
    let ((private, public), (_, other)) = (stick.keys("a", "ed25519"), stick.keys("b", "ed25519"));
    let (have, out) = (stick.at("inventory"), stick.at("out.tar"));
    said(&there, &["inventory", "-o", &have, "--sign-key", &private]);
    let export = |key: &str| {
        let arguments = [
            "export",
            "--have",
            &have,
            "--verify-key",
            key,
            "-o",
            &out,
            "team/app:1",
        ];
        run(&here, &arguments)
    };
    assert_eq!(export(&other).status.code(), Some(2));
    let mut bytes = stick.read("inventory");
    *bytes.last_mut().unwrap() ^= 1;
    let good = stick.read("inventory");
    std::fs::write(&have, bytes).unwrap();
    let refused = export(&public);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    std::fs::write(&have, &good).unwrap();
    std::fs::rename(stick.at("inventory.sig"), stick.at("kept.sig")).unwrap();
    assert_eq!(export(&public).status.code(), Some(2), "no signature");
    std::fs::rename(stick.at("kept.sig"), stick.at("inventory.sig")).unwrap();
    assert!(!Path::new(&out).exists());
    assert!(export(&public).status.success());
    assert_eq!(blobs(out.as_ref()).len(), digests(&app).len());
    // Standard output has no place for a signature.
    let told = run(&there, &["inventory", "-o", "-"]);
    assert!(told.status.success() && told.stdout == good);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_is_imported_once_and_takes_no_tag_from_what_came_since() {
    let upstream = Upstream::start().await;
    let (one, two, three) = (version(1), version(2), version(3));
    let (here, there) = (connected(&upstream).await, offline().await);
    let stick = Stick::new();
    let at = |name: &str| stick.at(&format!("{name}.tar"));
    // The far side is said to have the shared layer, and does not.
    upstream.hold("team/app", "1", &one);
    let pretend = connected(&upstream).await;
    said(&pretend, &["export", "team/app:1", "-o", &at("pretend")]);
    let have = inventory(&pretend, &stick, "inventory");
    upstream.hold("team/app", "1", &two);
    said(
        &here,
        &["export", "team/app:1", "--have", &have, "-o", &at("waits")],
    );
    let output = run(&there, &["import", &at("waits")]);
    assert_eq!(output.status.code(), Some(1));
    // Another meaning of the tag comes whole, and with it what the other one waited for.
    upstream.hold("team/app", "1", &three);
    said(&here, &["export", "team/app:1", "-o", &at("whole")]);
    let shown = said(&there, &["import", &at("whole")]);
    assert!(shown.contains("it had waited"), "{shown}");
    let client = there.client();
    assert_pulls(&client, "team/app", "1", &three).await;
    let answer = client.manifest("team/app", two.digest()).await;
    assert!(answer.is(&two.root.bytes));
    assert!(names(&there.data().join("waiting")).is_empty());
    // It is over: nothing of it comes back, and what was let go stays so.
    said(&there, &["unpin", "team/app:1"]);
    let shown = said(&there, &["import", &at("whole")]);
    assert!(!shown.contains("it had waited"), "{shown}");
    assert_pulls(&client, "team/app", "1", &three).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_does_not_trouble_others_and_outlives_its_repository() {
    let upstream = Upstream::start().await;
    let (one, two) = (version(1), version(2));
    upstream.hold("team/app", "1", &one);
    let other = image::small(Flavour::Oci, 7);
    upstream.hold("team/other", "1", &other);
    let (here, there) = (
        connected(&upstream).await,
        offline_with("[local.prod]\n").await,
    );
    let stick = Stick::new();
    let at = |name: &str| stick.at(&format!("{name}.tar"));
    said(&here, &["export", "team/app:1", "-o", &at("first")]);
    let have = inventory(&here, &stick, "inventory");
    upstream.hold("team/app", "1", &two);
    said(
        &here,
        &["export", "team/app:1", "--have", &have, "-o", &at("waits")],
    );
    let output = run(&there, &["import", &at("waits")]);
    assert_eq!(output.status.code(), Some(1));
    said(&here, &["export", "team/other:1", "-o", &at("other")]);
    // Complete by itself, and said so; the stranger is told apart.
    let shown = said(&there, &["import", "--to", "prod", &at("other")]);
    assert!(
        shown.contains("1 images of earlier bundles still wait"),
        "{shown}"
    );
    assert_eq!(names(&there.data().join("waiting")).len(), 1);
    said(&there, &["import", &at("first")]);
    assert!(names(&there.data().join("waiting")).is_empty());
    let answer = there.client().manifest("team/app", two.digest()).await;
    assert!(answer.is(&two.root.bytes));
}
