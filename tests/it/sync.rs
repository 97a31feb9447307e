//! `roadstead lock` and `sync`: what lists name is found, written down, fetched once, kept; and what fails says where it was asked for.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use http::StatusCode;
use serde_json::{Value, json};

use crate::eventually;
use crate::support::image::{self, Content, Flavour, Image, OCI_INDEX};
use crate::support::{Act, Gate, Mirror, Remote, Upstream};

const MIB: usize = 1 << 20;

/// A command on the store in `data`, with the mirror's configuration.
fn command(mirror: &Mirror, data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
    command
        .args(arguments)
        .arg("-c")
        .arg(mirror.configuration())
        .arg("--data")
        .arg(data);
    command
}

fn run(mirror: &Mirror, arguments: &[&str]) -> Output {
    let mut command = command(mirror, mirror.data(), arguments);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a command prints that ends with `code`; the last line as JSON.
fn result(output: &Output, code: i32) -> Value {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let printed = text(&output.stdout);
    serde_json::from_str(printed.lines().last().unwrap()).unwrap()
}

fn sync(mirror: &Mirror, arguments: &[&str], code: i32) -> Value {
    let all: Vec<&str> = ["sync", "--json"]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    result(&run(mirror, &all), code)
}

/// A file beside the mirror's configuration.
fn beside(mirror: &Mirror, name: &str) -> PathBuf {
    mirror.configuration().with_file_name(name)
}

fn write(mirror: &Mirror, name: &str, text: &str) -> String {
    let path = beside(mirror, name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn bytes_of(image: &Image) -> u64 {
    image.blobs.iter().map(Content::size).sum()
}

fn layer_of(image: &Image) -> &Content {
    image.blobs.iter().max_by_key(|blob| blob.size()).unwrap()
}

fn outcomes(result: &Value) -> Vec<(&str, &str)> {
    let images = result["images"].as_array().unwrap().iter();
    let mut all: Vec<(&str, &str)> = images
        .map(|line| {
            let image = line["image"].as_str().unwrap();
            (image, line["outcome"].as_str().unwrap())
        })
        .collect();
    all.sort_unstable();
    all
}

fn pins(mirror: &Mirror) -> Vec<(String, String)> {
    let told = result(&run(mirror, &["pins", "--json"]), 0);
    let pins = told["pins"].as_array().unwrap().iter();
    pins.map(|pin| {
        let image = format!(
            "{}:{}",
            pin["image"].as_str().unwrap(),
            pin["reference"].as_str().unwrap()
        );
        (image, pin["digest"].as_str().unwrap().to_owned())
    })
    .collect()
}

/// A list of referrers as upstream tells it.
fn referrers(upstream: &Upstream, subject: &str, list: &[&Image]) {
    let manifests: Vec<Value> = list.iter().map(|one| one.root.descriptor()).collect();
    let list = Content::json(
        OCI_INDEX,
        &json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}),
    );
    upstream.hold_path(&format!("/v2/library/app/referrers/{subject}"), &list);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_what_another_store_gets_whatever_upstream_has_meanwhile() {
    let upstream = Upstream::start().await;
    let app = image::multi_platform(Flavour::Oci, 1, 3000);
    upstream.hold("library/app", "1", &app);
    let sbom = image::artifact(Some(&app.root), "application/spdx+json", b"sbom");
    upstream.hold("library/app", sbom.digest(), &sbom);
    referrers(&upstream, app.digest(), &[&sbom]);
    let signature = image::artifact(None, "application/vnd.cosign", b"signature");
    let signed = format!("{}.sig", app.digest().replace(':', "-"));
    upstream.hold("library/app", &signed, &signature);
    let mirror = Mirror::of(&upstream.url()).await;
    let list = write(&mirror, "images.txt", "app:1\n");
    let lock = beside(&mirror, "images.lock").display().to_string();
    let output = run(
        &mirror,
        &["lock", "-f", &list, "--with-referrers", "-o", &lock],
    );
    assert!(output.status.success(), "{output:?}");
    let first = std::fs::read_to_string(&lock).unwrap();
    for expected in [
        "reference = \"docker.io/library/app:1\"",
        app.digest(),
        sbom.digest(),
        &signed,
        signature.digest(),
    ] {
        assert!(first.contains(expected), "{expected}: {first}");
    }
    assert_eq!(upstream.count("GET", "/blobs/"), 0, "{:?}", upstream.log());
    // To standard output it is the same.
    let output = run(
        &mirror,
        &["lock", "-f", &list, "--with-referrers", "-o", "-"],
    );
    assert_eq!(text(&output.stdout), first);

    // Upstream goes on.
    let next = image::small(Flavour::Oci, 7);
    upstream.hold("library/app", "1", &next);
    let late = image::artifact(Some(&app.root), "application/spdx+json", b"late");
    upstream.hold("library/app", late.digest(), &late);
    referrers(&upstream, app.digest(), &[&sbom, &late]);
    let (lists, tags) = (
        upstream.count("", "/referrers/"),
        upstream.count("", "/manifests/1"),
    );
    let second = beside(&mirror, "second");
    let arguments = ["sync", "--json", "--locked", "-f", &lock];
    let output = command(&mirror, &second, &arguments).output().unwrap();
    let told = result(&output, 0);
    assert_eq!(told["images"][0]["digest"], app.digest());
    assert_eq!(told["images"][0]["image"], "docker.io/library/app:1");
    // Exactly that: nobody was asked what there is now.
    assert_eq!(upstream.count("", "/referrers/"), lists);
    assert_eq!(upstream.count("", "/manifests/1"), tags);
    assert_eq!(upstream.count("", late.digest()), 0);
    let found = |digest: &str| {
        second
            .join("blobs/sha256")
            .join(&digest[7..9])
            .join(&digest[7..])
            .exists()
    };
    let all = [&app, &sbom, &signature];
    for content in all
        .iter()
        .flat_map(|one| one.manifests.iter().chain(&one.blobs))
    {
        assert!(found(&content.digest), "{}", content.media_type);
    }

    // Locked anew, people see what changed; the same again changes nothing.
    let output = run(&mirror, &["lock", "-f", &list, "-o", &lock]);
    let said = text(&output.stdout);
    assert!(
        said.contains("~ docker.io/library/app:1: ") && said.contains("is now"),
        "{said}"
    );
    assert!(said.ends_with("1 images, 1 changed\n"), "{said}");
    let output = run(&mirror, &["lock", "-f", &list, "-o", &lock]);
    assert!(
        text(&output.stdout).ends_with("1 images, 0 changed\n"),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_told_with_its_line_and_nothing_is_locked() {
    let upstream = Upstream::start().await;
    let app = image::multi_platform(Flavour::Docker, 1, 3000);
    upstream.hold("library/app", "1", &app);
    upstream.hold("library/app", "2", &app);
    upstream.hold_path(
        "/v2/library/app/tags/list",
        &Content::json(
            "application/json",
            &json!({"name": "library/app", "tags": ["1", "2"]}),
        ),
    );
    let mirror = Mirror::of(&upstream.url()).await;
    let list = write(
        &mirror,
        "images.yaml",
        "- app:1\n\
         - image: app\n  tags: \"v*\"\n\
         - gone:1\n\
         - image: app:2\n  platforms: [linux/s390x]\n\
         - nowhere.example/a:1\n",
    );
    let lock = beside(&mirror, "images.lock");
    let shown = lock.display().to_string();
    let output = run(&mirror, &["lock", "-f", &list, "-o", &shown]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for expected in [
        "images.yaml:2: app: ",
        "images.yaml:4: docker.io/library/gone:1: ",
        "images.yaml:5: docker.io/library/app:2: it is not there for linux/s390x; it is there for linux/amd64, linux/arm64",
        "images.yaml:7: nowhere.example/a: no repository of this mirror",
        "4 of the images cannot be had, so nothing was locked",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!lock.exists());
    // What is no lock is not written over; what makes no sense is not begun.
    std::fs::write(&lock, "precious\n").unwrap();
    for arguments in [
        &["lock", "app:1", "-o", &shown][..],
        &["lock", "--locked", "-f", &shown, "-o", "-"],
        &["lock", "-o", "-"],
        &["sync"],
    ] {
        let output = run(&mirror, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
    assert_eq!(std::fs::read_to_string(&lock).unwrap(), "precious\n");
    // The others come all the same.
    let told = sync(&mirror, &["-f", &list], 1);
    let expected = [
        ("app", "failed"),
        ("docker.io/library/app:1", "fetched"),
        ("docker.io/library/app:2", "failed"),
        ("docker.io/library/gone:1", "failed"),
        ("nowhere.example/a", "failed"),
    ];
    assert_eq!(outcomes(&told), expected);
    // Over HTTP there is no such thing, whoever asks.
    for path in ["/admin/lock", "/admin/sync"] {
        let client = mirror.client();
        let answer = client
            .send_body(http::Method::POST, path, &[], "{}".into())
            .await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_what_comes_and_the_next_run_fetches_nothing() {
    let upstream = Upstream::start().await;
    upstream.grant(100);
    let app = image::multi_platform(Flavour::Oci, 1, 300_000);
    let tool = image::small(Flavour::Docker, 2);
    upstream.hold("library/app", "1", &app);
    upstream.hold("library/tool", "1", &tool);
    let mirror = Mirror::with(
        &[Remote::hub_with(&upstream.url(), "tag_ttl = \"0s\"")],
        "[local.dev-local]\n",
    )
    .await;
    let pushed = image::small(Flavour::Oci, 3);
    mirror.client().push("dev-local/mine", "1", &pushed).await;
    let images = ["app:1", "tool:1", "dev-local/mine:1"];
    let with = |more: &[&'static str]| -> Vec<&'static str> {
        images.iter().chain(more).copied().collect()
    };
    let outlook = sync(&mirror, &with(&["--dry-run"]), 0);
    assert_eq!(upstream.count("GET", "/blobs/"), 0);
    assert!(pins(&mirror).is_empty());
    let blobs: Vec<&Content> = app.blobs.iter().chain(&tool.blobs).collect();
    assert_eq!(outlook["blobs"], blobs.len());
    assert_eq!(outlook["bytes"], bytes_of(&app) + bytes_of(&tool));
    let hub = outlook["upstreams"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["repository"] == "docker-hub")
        .unwrap();
    let manifests = app.manifests.len() + tool.manifests.len();
    assert_eq!(hub["pulls"], manifests);
    assert_eq!(upstream.used("anonymous"), manifests as u64);
    assert_eq!(hub["quotas"][0]["remaining"], 100 - manifests);

    let done = sync(&mirror, &with(&[]), 0);
    assert_eq!(
        (&done["blobs"], &done["bytes"]),
        (&outlook["blobs"], &outlook["bytes"])
    );
    for key in ["image", "outcome", "fetched", "digest", "bytes"] {
        let of = |told: &Value| -> Vec<Value> {
            told["images"]
                .as_array()
                .unwrap()
                .iter()
                .map(|line| line[key].clone())
                .collect()
        };
        assert_eq!(of(&done), of(&outlook), "{key}");
    }
    let expected = [
        ("dev-local/mine:1", "unchanged"),
        ("docker.io/library/app:1", "fetched"),
        ("docker.io/library/tool:1", "fetched"),
    ];
    assert_eq!(outcomes(&done), expected);
    for blob in blobs {
        assert_eq!(
            upstream.count("GET", &blob.digest),
            1,
            "{}",
            blob.media_type
        );
    }
    let expected = [
        ("library/app:1".to_owned(), app.digest().to_owned()),
        ("library/tool:1".to_owned(), tool.digest().to_owned()),
    ];
    assert_eq!(pins(&mirror), expected);

    // Once more: tags are looked at, and nothing else is asked for.
    let before = upstream.log().len();
    let again = sync(&mirror, &with(&[]), 0);
    let journal = || {
        mirror
            .files("journal")
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .sum::<u64>()
    };
    let written = journal();
    assert_eq!((&again["blobs"], &again["bytes"]), (&json!(0), &json!(0)));
    assert!(
        outcomes(&again)
            .iter()
            .all(|(_, outcome)| *outcome == "unchanged"),
        "{again}"
    );
    let log = upstream.log();
    let asked: Vec<(&str, &str)> = log[before..]
        .iter()
        .map(|seen| (seen.method.as_str(), seen.path.as_str()))
        .collect();
    assert!(
        asked
            .iter()
            .all(|(method, path)| *method == "HEAD" && path.ends_with("/manifests/1")),
        "{asked:?}"
    );
    assert_eq!(upstream.used("anonymous"), manifests as u64);
    sync(&mirror, &with(&[]), 0);
    assert_eq!(
        journal(),
        written,
        "what is kept just so is not written down again"
    );

    // A tag that moved takes its pin along.
    let next = image::small(Flavour::Docker, 9);
    upstream.hold("library/tool", "1", &next);
    let moved = sync(&mirror, &["tool:1"], 0);
    assert_eq!(outcomes(&moved), [("docker.io/library/tool:1", "fetched")]);
    assert_eq!(pins(&mirror)[1].1, next.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_goes_on_where_it_stopped() {
    let upstream = Upstream::start().await;
    let app = image::image(
        Flavour::Docker,
        "amd64",
        &[image::noise_layer(image::Packing::Gzip, 1, 4 * MIB)],
    );
    upstream.hold("library/app", "1", &app);
    let layer = layer_of(&app);
    let gate = Gate::closed();
    let act = Act {
        gate: Some((2 * MIB, gate.clone())),
        ..Act::default()
    };
    upstream.script("GET", &layer.digest, 1, act);
    let mut mirror = Mirror::patient(&upstream.url()).await;
    mirror.parts_may_stay = true;
    let waiting = |mirror: &Mirror| -> Child {
        let mut command = command(mirror, mirror.data(), &["sync", "app:1"]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut command = waiting(&mirror);
    let part = |mirror: &Mirror| -> u64 {
        let parts = mirror.files("staging");
        parts
            .iter()
            .map(|file| file.metadata().map_or(0, |one| one.len()))
            .sum()
    };
    eventually!(part(&mirror) >= MIB as u64);
    mirror.kill();
    assert!(!command.wait().unwrap().success());
    gate.open();
    mirror.start().await;
    let told = sync(&mirror, &["app:1"], 0);
    assert_eq!(told["images"][0]["outcome"], "fetched");
    let log = upstream.log();
    let asked: Vec<_> = log
        .iter()
        .filter(|seen| seen.method == "GET" && seen.path.contains(&layer.digest))
        .collect();
    assert_eq!(asked.len(), 2);
    let range = asked[1].header("range").unwrap();
    let from: u64 = range
        .strip_prefix("bytes=")
        .unwrap()
        .trim_end_matches('-')
        .split('-')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(from >= MIB as u64, "{range}");
    assert_eq!(pins(&mirror).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_image_that_fails_stops_no_other() {
    let upstream = Upstream::start().await;
    let images: Vec<Image> = (1..=3)
        .map(|seed| image::small(Flavour::Oci, seed))
        .collect();
    for (number, one) in images.iter().enumerate() {
        upstream.hold(&format!("library/app{number}"), "1", one);
    }
    let bad = layer_of(&images[1]);
    upstream.script("", &bad.digest, 100, Act::status(404));
    let mirror = Mirror::of(&upstream.url()).await;
    let list = write(&mirror, "images.txt", "app0:1\napp1:1\napp2:1\n");
    let told = sync(&mirror, &["-f", &list], 1);
    let expected = [
        ("docker.io/library/app0:1", "fetched"),
        ("docker.io/library/app1:1", "failed"),
        ("docker.io/library/app2:1", "fetched"),
    ];
    assert_eq!(outcomes(&told), expected);
    let failed = told["images"]
        .as_array()
        .unwrap()
        .iter()
        .find(|line| line["outcome"] == "failed")
        .unwrap();
    assert!(
        failed["source"].as_str().unwrap().ends_with("images.txt:2"),
        "{failed}"
    );
    assert!(
        failed["error"].as_str().unwrap().contains(&bad.digest),
        "{failed}"
    );
    assert_eq!(pins(&mirror).len(), 2);
    // It says so to people, too.
    let output = run(&mirror, &["sync", "-f", &list]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("images.txt:2: docker.io/library/app1:1: "),
        "{output:?}"
    );
    assert!(
        text(&output.stdout).ends_with("3 images: 0 fetched, 2 unchanged, 1 failed; 0 B came\n"),
        "{output:?}"
    );
    // Mended upstream, it comes, and the others are left alone.
    upstream.unscript();
    let told = sync(&mirror, &["-f", &list], 0);
    assert_eq!(outcomes(&told)[1].1, "fetched");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_share_layers_and_an_upstream_that_wants_few_requests() {
    // A quarter of the places is not for blobs; and six are fetched at a time at most.
    for (places, expected) in [(4, 3), (16, 6)] {
        shared_layers(places, expected).await;
    }
}

async fn shared_layers(places: usize, expected: usize) {
    let upstream = Upstream::start().await;
    let base = image::noise_layer(image::Packing::Gzip, 1, 200_000);
    let images: Vec<Image> = (1..=6)
        .map(|seed| {
            let own = image::noise_layer(image::Packing::Gzip, seed + 10, 100_000);
            image::image(Flavour::Docker, "amd64", &[base.clone(), own])
        })
        .collect();
    for (number, one) in images.iter().enumerate() {
        upstream.hold(&format!("library/app{number}"), "1", one);
    }
    let gate = Gate::closed();
    let act = Act {
        gate: Some((10, gate.clone())),
        ..Act::default()
    };
    upstream.script("GET", "/blobs/", 1000, act);
    let remote = Remote {
        key: "docker-hub",
        url: upstream.url(),
        serves: "docker.io",
        more: format!("limits = {{ concurrent = {places} }}\n"),
    };
    let mirror = Mirror::with(&[remote], "").await;
    let names: Vec<String> = (0..6).map(|number| format!("app{number}:1")).collect();
    let arguments: Vec<&str> = ["sync", "--json"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let mut command = command(&mirror, mirror.data(), &arguments);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually!(upstream.count("GET", "/blobs/") == expected);
    // While those stand, the mirror answers others and asks for no more.
    for _ in 0..20 {
        assert_eq!(mirror.client().get("/livez").await.status, StatusCode::OK);
    }
    assert_eq!(upstream.count("GET", "/blobs/"), expected);
    gate.open();
    let told = result(&child.wait_with_output().unwrap(), 0);
    assert!(
        outcomes(&told)
            .iter()
            .all(|(_, outcome)| *outcome == "fetched"),
        "{told}"
    );
    let shared = images[0].layers()[0];
    assert_eq!(
        upstream.count("GET", &shared.digest),
        1,
        "each byte comes once"
    );
    let mut once: Vec<&Content> = images.iter().flat_map(|one| &one.blobs).collect();
    once.sort_by_key(|blob| &blob.digest);
    once.dedup_by_key(|blob| &blob.digest);
    assert_eq!(
        told["bytes"],
        once.iter().map(|blob| blob.size()).sum::<u64>()
    );
    let fetched: u64 = told["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["fetched"].as_u64().unwrap())
        .sum();
    assert_eq!(told["bytes"], fetched);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pulls_that_are_kept_are_not_for_the_background() {
    let upstream = Upstream::start().await;
    upstream.grant(10);
    let first = image::small(Flavour::Docker, 1);
    let many = image::multi_platform(Flavour::Docker, 2, 3000);
    upstream.hold("library/first", "1", &first);
    upstream.hold("library/many", "1", &many);
    let more = "tag_ttl = \"0s\"\nlimits = { keep_quota = 8 }\n";
    let mirror = Mirror::with(&[Remote::hub_with(&upstream.url(), more)], "").await;
    let told = sync(&mirror, &["first:1", "many:1"], 1);
    assert!(
        upstream.used("anonymous") <= 2,
        "{}",
        upstream.used("anonymous")
    );
    let failed = told["images"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["outcome"] == "failed");
    let errors: Vec<&str> = failed.map(|line| line["error"].as_str().unwrap()).collect();
    assert!(
        !errors.is_empty() && errors.iter().all(|error| error.contains("quota")),
        "{errors:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_not_begun_and_a_pause_is_told() {
    let upstream = Upstream::start().await;
    let big = image::image(
        Flavour::Docker,
        "amd64",
        &[image::noise_layer(image::Packing::Gzip, 1, 3 * MIB)],
    );
    let tool = image::small(Flavour::Docker, 2);
    upstream.hold("library/big", "1", &big);
    upstream.hold("library/tool", "1", &tool);
    let more = "[storage]\nmax_size = \"2MiB\"\nmin_free = \"1MiB\"\n";
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], more).await;
    let output = run(&mirror, &["sync", "big:1", "tool:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("there is no room to keep this"),
        "{output:?}"
    );
    assert_eq!(upstream.count("GET", "/blobs/"), 0);
    let wait = Act {
        headers: vec![("Retry-After".to_owned(), "1".to_owned())],
        ..Act::status(429)
    };
    upstream.script("GET", layer_of(&tool).digest.as_str(), 1, wait);
    let output = run(&mirror, &["sync", "--json", "tool:1"]);
    let told = result(&output, 0);
    assert_eq!(outcomes(&told), [("docker.io/library/tool:1", "fetched")]);
    let events: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<&str> = events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect();
    for kind in ["looking", "plan", "waiting", "image"] {
        assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
    }
    // A long one is left to whoever runs it again.
    let late = image::small(Flavour::Docker, 3);
    upstream.hold("library/late", "1", &late);
    let wait = Act {
        headers: vec![("Retry-After".to_owned(), "61".to_owned())],
        ..Act::status(429)
    };
    upstream.script("GET", layer_of(&late).digest.as_str(), 1, wait);
    let output = run(&mirror, &["sync", "--json", "late:1"]);
    assert_eq!(
        outcomes(&result(&output, 1)),
        [("docker.io/library/late:1", "failed")]
    );
    assert!(!text(&output.stdout).contains("\"waiting\""), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pulled_is_locked_as_it_was_then() {
    let upstream = Upstream::start().await;
    let app = image::multi_platform(Flavour::Oci, 1, 3000);
    upstream.hold("library/app", "1", &app);
    let mirror = Mirror::of(&upstream.url()).await;
    let client = mirror.client();
    assert_eq!(
        client.manifest("library/app", "1").await.status,
        StatusCode::OK
    );
    let child = app.child(1);
    assert!(
        client
            .manifest("library/app", &child.digest)
            .await
            .is(&child.bytes)
    );
    // The tag moves, and nobody pulls it since.
    upstream.hold("library/app", "1", &image::small(Flavour::Oci, 2));
    let output = run(&mirror, &["lock", "--pulled-since", "1h", "-o", "-"]);
    assert!(output.status.success(), "{output:?}");
    let lock = text(&output.stdout);
    for expected in ["docker.io/library/app:1\"", app.digest(), &child.digest] {
        assert!(lock.contains(expected), "{expected}: {lock}");
    }
    assert!(
        !lock.contains(&app.child(0).digest),
        "nobody took that platform: {lock}"
    );
    let output = run(&mirror, &["sync", "--pulled-by", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("nothing was pulled"),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_the_configuration_are_brought_in_the_background() {
    let upstream = Upstream::start().await;
    for (seed, name) in [(1, "app"), (2, "tool"), (3, "late")] {
        upstream.hold(
            &format!("library/{name}"),
            "1",
            &image::small(Flavour::Oci, seed),
        );
    }
    let more = "[[sync]]\nname = \"base\"\nlists = [\"images.txt\"]\nimages = [\"tool:1\"]\n";
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("images.txt"), "app:1\ngone:1\n").unwrap();
    let data = dir.path().join("data");
    let mirror = Mirror::in_directory(dir, data, &[Remote::hub(&upstream.url())], more).await;
    let told = async || mirror.client().get("/admin/sync").await.json();
    eventually!(told().await["syncs"][0]["result"] != Value::Null);
    let run = told().await;
    let one = &run["syncs"][0];
    let expected = [
        ("docker.io/library/app:1", "fetched"),
        ("docker.io/library/gone:1", "failed"),
        ("docker.io/library/tool:1", "fetched"),
    ];
    assert_eq!(outcomes(&one["result"]), expected);
    assert_eq!(
        (&one["name"], &one["every_seconds"], &one["succeeded"]),
        (&json!("base"), &json!(21_600), &Value::Null)
    );
    assert_eq!(pins(&mirror).len(), 2);
    let warned = |line: &String| {
        line.contains("an image could not be brought") && line.contains("images.txt:2")
    };
    assert!(mirror.log().iter().any(warned));
    let count = |outcome: &str| {
        mirror.metric(&format!(
            "roadstead_sync_images_total{{name=\"base\",outcome=\"{outcome}\"}}"
        ))
    };
    assert_eq!((count("fetched"), count("failed")), (2.0, 1.0));
    // A hangup takes others, and leaves those out that are not there any more.
    let file = std::fs::read_to_string(mirror.configuration()).unwrap();
    let file = file.replace(
        "name = \"base\"\nlists = [\"images.txt\"]\nimages = [\"tool:1\"]",
        "name = \"other\"\nimages = [\"late:1\"]",
    );
    std::fs::write(mirror.configuration(), file).unwrap();
    mirror.hang_up();
    eventually!(told().await["syncs"][0]["succeeded"] != Value::Null);
    let run = told().await;
    assert_eq!(run["syncs"].as_array().unwrap().len(), 1);
    assert_eq!(run["syncs"][0]["name"], "other");
    assert_eq!(pins(&mirror).len(), 3);
    assert!(mirror.metric("roadstead_sync_last_success_seconds{name=\"other\"}") > 1e9);
    // A command on a store of its own does not begin them.
    let before = upstream.log().len();
    let second = beside(&mirror, "second");
    let output = command(&mirror, &second, &["pins"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(upstream.log().len(), before);
}
