use super::support::{Stock, stock};
use crate::bundle::archive::contents::{
    BLOBS_MAX, Blob, CONTENTS_MAX, Contents, ContentsError, IMAGES_MAX, Image, NEEDS_MAX, Omitted,
    PLATFORMS_MAX,
};
use crate::bundle::archive::outlook::outlook;
use crate::bundle::archive::{ImageRef, index};
use crate::oci::{Digest, MediaType};

fn reason(result: Result<Contents, ContentsError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn full_names_are_read_and_written_alike() {
    let digest = Digest::of(b"x");
    for text in [
        "docker.io/library/nginx:1.27".to_owned(),
        "registry.example:5000/team/app:v1".to_owned(),
        "[::1]:5000/a:b".to_owned(),
        "localhost/a/b__c/d:latest".to_owned(),
        format!("ghcr.io/team/app@{digest}"),
    ] {
        assert_eq!(ImageRef::parse(&text).unwrap().to_string(), text);
    }
    for text in [
        "",
        "nginx",
        "nginx:1.27",
        "docker.io/nginx",
        "docker.io/Nginx:1",
        "docker.io/../nginx:1",
        "/nginx:1",
        "a b/nginx:1",
        "-a/nginx:1",
        "host:x/a:1",
        "host:70000/a:1",
        "docker.io/a:-b",
        "docker.io/a@sha256:0",
        "docker.io/a:1@sha256:0",
        "[::1/a:1",
        "[zz]/a:1",
        "..//a:1",
        "../a:1",
    ] {
        assert!(ImageRef::parse(text).is_err(), "{text}");
    }
    for (text, full) in [
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("bitnami/redis:7", "docker.io/bitnami/redis:7"),
        ("index.docker.io/nginx:1", "docker.io/library/nginx:1"),
        ("localhost/a:1", "localhost/a:1"),
        ("ghcr.io/a:1", "ghcr.io/a:1"),
    ] {
        assert_eq!(ImageRef::parse_familiar(text).unwrap().to_string(), full);
    }
    assert!(ImageRef::parse_familiar("latest").is_err());
}

#[test]
fn contents_are_the_same_bytes_in_whatever_order_they_were_told() {
    let stock = stock();
    let contents = stock.contents();
    let bytes = contents.to_json().unwrap();
    assert_eq!(Contents::parse(&bytes).unwrap(), contents);
    let mut other = stock.clone();
    other.images.reverse();
    for image in &mut other.images {
        image.needs.reverse();
        image.needs.push(image.digest.clone());
    }
    let mut blobs = contents.blobs().to_vec();
    blobs.reverse();
    let platforms = vec![
        "linux/arm64".to_owned(),
        "linux/amd64".to_owned(),
        "linux/arm64".to_owned(),
    ];
    let told = Contents::new(other.images, blobs, Vec::new(), platforms).unwrap();
    assert_eq!(told.platforms(), ["linux/amd64", "linux/arm64"]);
    let plain = String::from_utf8(told.to_json().unwrap()).unwrap();
    assert_eq!(
        plain
            .replace("\"linux/amd64\",\"linux/arm64\"", "")
            .into_bytes(),
        bytes
    );
    let media_types: Vec<_> = contents
        .blobs()
        .iter()
        .map(|blob| blob.media_type.is_some())
        .collect();
    assert_eq!(
        media_types[..3],
        [true, true, false],
        "manifests stand first"
    );
    let sizes: u64 = stock.blobs.keys().map(|digest| stock.size(digest)).sum();
    assert_eq!(contents.bytes(), sizes);
}

#[test]
fn only_one_way_to_write_contents_is_read() {
    let bytes = stock().contents().to_json().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let cases = [
        (text.replace("\"version\":1", "\"version\":2"), "version 2"),
        (
            text.replace("\"version\":1", "\"version\":1,\"version\":1"),
            "duplicate field",
        ),
        (
            text.replace("\"version\":1", "\"version\": 1"),
            "not written as Roadstead",
        ),
        (
            text.replace("\"omitted\":[]", "\"omitted\":[],\"more\":1"),
            "unknown field",
        ),
        (
            text.replace("docker.io/library", "docker.io/Library"),
            "full name",
        ),
        (
            text.replace("docker.io/library", "zzz.example/library"),
            "not written as Roadstead",
        ),
        (
            text.replacen("\"needs\":[", "\"needs\":[99,", 1),
            "a place that there is not",
        ),
        (text.replacen("sha256:", "md5:", 1), "digest"),
        (text.replacen("sha256:", "sha256:0", 1), "digest"),
        (format!("\u{feff}{text}"), "no table"),
        (format!("{text}x"), "no table"),
        (String::new(), "no table"),
        ("{}".to_owned(), "version"),
        ("[".repeat(100_000), "no table"),
    ];
    for (case, why) in cases {
        let reason = reason(Contents::parse(case.as_bytes()));
        assert!(reason.contains(why), "{reason}: {why}");
    }
}

#[test]
fn contents_that_contradict_themselves_are_refused() {
    let stock = stock();
    let (images, blobs) = (stock.images.clone(), stock.contents().blobs().to_vec());
    let build = |images: &[Image], blobs: &[Blob], platforms: &[&str]| {
        let platforms = platforms.iter().map(|text| (*text).to_owned()).collect();
        Contents::new(images.to_vec(), blobs.to_vec(), Vec::new(), platforms)
    };
    assert!(build(&images, &blobs, &[]).is_ok());
    let refused = |result, why: &str| {
        let reason = reason(result);
        assert!(reason.contains(why), "{reason}: {why}");
    };
    let layer = Digest::of(b"nginx");
    let without: Vec<_> = blobs
        .iter()
        .filter(|blob| blob.digest != layer)
        .cloned()
        .collect();
    refused(
        build(&images, &without, &[]),
        "neither carried nor declared",
    );
    refused(build(&images[..1], &blobs, &[]), "no image needs");
    refused(
        build(&images, &[&blobs[..], &blobs[..1]].concat(), &[]),
        "stands twice",
    );
    refused(
        build(&[&images[..], &images[..1]].concat(), &blobs, &[]),
        "stands twice",
    );
    for platform in ["linux", "linux/", "linux/a/b/c", "Linux /amd64", "../x"] {
        refused(build(&images, &blobs, &[platform]), "is no platform");
    }
    let mut odd = images.clone();
    odd[0].size += 1;
    refused(build(&odd, &blobs, &[]), "two sizes");
    odd.clone_from(&images);
    odd[0].media_type = MediaType::parse("text/plain").unwrap();
    refused(build(&odd, &blobs, &[]), "no manifest");
    odd.clone_from(&images);
    odd[0].reference = ImageRef::parse(&format!("a.b/c@{layer}")).unwrap();
    refused(build(&odd, &blobs, &[]), "its name denies");
    let mut huge = blobs.clone();
    huge.last_mut().unwrap().size = u64::MAX;
    refused(build(&images, &huge, &[]), "2^53");
    let left_out = vec![Omitted {
        digest: layer,
        size: 5,
    }];
    refused(
        Contents::new(images, blobs, left_out, Vec::new()),
        "stands twice",
    );
}

#[test]
fn every_limit_of_contents_holds() {
    let image = stock().images[0].clone();
    let blob = |number: usize| Blob {
        digest: Digest::of(&number.to_be_bytes()),
        size: 1,
        media_type: None,
    };
    let too_many =
        |images, blobs, platforms| reason(Contents::new(images, blobs, Vec::new(), platforms));
    let slim = Image {
        needs: Vec::new(),
        ..image.clone()
    };
    let images = vec![slim; IMAGES_MAX + 1];
    assert!(too_many(images, Vec::new(), Vec::new()).contains(&format!("{IMAGES_MAX} images")));
    let blobs = (0..=BLOBS_MAX).map(blob).collect();
    assert!(too_many(Vec::new(), blobs, Vec::new()).contains(&format!("{BLOBS_MAX} blobs")));
    let needs = vec![image.digest.clone(); NEEDS_MAX + 1];
    let greedy = vec![Image { needs, ..image }];
    assert!(too_many(greedy, Vec::new(), Vec::new()).contains(&format!("{NEEDS_MAX} blobs of")));
    let platforms = vec!["linux/amd64".to_owned(); PLATFORMS_MAX + 1];
    assert!(too_many(Vec::new(), Vec::new(), platforms).contains("platforms"));
    assert_eq!(
        Contents::parse(&vec![b' '; CONTENTS_MAX + 1]).unwrap_err(),
        ContentsError::TooLong
    );
    let needs = format!(
        "{{\"version\":1,\"platforms\":[],\"images\":[{{\"reference\":\"a.b/c:d\",\"digest\":\"\",\"mediaType\":\"\",\"size\":0,\"needs\":[0{}]}}],\"blobs\":[],\"omitted\":[]}}",
        ",0".repeat(NEEDS_MAX)
    );
    assert!(reason(Contents::parse(needs.as_bytes())).contains(&format!("{NEEDS_MAX} blobs of")));
}

#[test]
fn the_index_names_every_image_for_both_kinds_of_readers() {
    let contents = stock().contents();
    let bytes = index::render(&contents).unwrap();
    let listed = index::parse(&bytes).unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|one| one.reference.as_ref().unwrap().to_string())
        .collect();
    assert_eq!(
        names,
        [
            "docker.io/library/nginx:1.27",
            "registry.example:5000/team/app:v1"
        ]
    );
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let annotations = &value["manifests"][0]["annotations"];
    assert_eq!(annotations["org.opencontainers.image.ref.name"], names[0]);
    assert_eq!(annotations["io.containerd.image.name"], names[0]);
}

#[test]
fn foreign_indexes_are_read_for_what_they_say() {
    let digest = Digest::of(b"x");
    let entry = |more: &str| {
        format!(
            "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"{digest}\",\"size\":3{more}}}]}}"
        )
    };
    let annotated = |text: &str| {
        index::parse(entry(&format!(",\"annotations\":{{{text}}}")).as_bytes())
            .unwrap()
            .remove(0)
    };
    let docker = annotated(
        "\"io.containerd.image.name\":\"docker.io/library/alpine:3\",\"org.opencontainers.image.ref.name\":\"3\",\"x\":\"y\"",
    );
    assert_eq!(
        docker.reference.unwrap().to_string(),
        "docker.io/library/alpine:3"
    );
    let skopeo = annotated("\"org.opencontainers.image.ref.name\":\"latest\"");
    assert_eq!(
        (skopeo.reference, skopeo.said.as_deref()),
        (None, Some("latest"))
    );
    assert_eq!(index::parse(entry("").as_bytes()).unwrap()[0].said, None);
    for (text, why) in [
        (entry(",\"digest\":\"x\""), "duplicate"),
        (
            entry("").replace("\"schemaVersion\":2", "\"schemaVersion\":1"),
            "schemaVersion 2",
        ),
        (
            entry("").replace(
                "{\"schemaVersion\":2",
                "{\"schemaVersion\":2,\"mediaType\":\"x/y\"",
            ),
            "schemaVersion 2",
        ),
        (
            entry("").replace("vnd.oci.image.manifest.v1+json", "json"),
            "something else than a manifest",
        ),
        (
            entry("").replace("\"size\":3", "\"size\":-3"),
            "no image index",
        ),
        (
            entry("").replace("\"size\":3", "\"size\":9007199254740993"),
            "absurd",
        ),
        (entry("").replace("sha256:", "sha256:../"), "digest"),
        ("{}".to_owned(), "no image index"),
    ] {
        let reason = index::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(reason.contains(why), "{reason}: {why}");
    }
    assert!(index::check_layout(index::LAYOUT).is_ok());
    for text in ["{}", "{\"imageLayoutVersion\":\"2.0.0\"}", "x"] {
        assert!(index::check_layout(text.as_bytes()).is_err());
    }
}

#[test]
fn the_outlook_says_what_each_image_waits_for_in_whatever_order() {
    let mut before = Stock::default();
    let shared = vec![7_u8; 70_000];
    before.image("docker.io/library/nginx:1.27", &[&shared, b"nginx"]);
    let mut after = before.clone();
    let app = after.image("registry.example:5000/team/app:v1", &[&shared, b"app"]);
    let known: Vec<&Digest> = before.blobs.keys().collect();
    let full = before.contents();
    let difference = after.contents_without(&known);
    assert_eq!(difference.omitted().len(), known.len());
    assert_eq!(
        difference.blobs().len(),
        3,
        "manifest, config and one layer are new"
    );

    let all = outlook([&difference, &full], |_| false);
    assert_eq!(all, outlook([&full, &difference], |_| false));
    assert!(all.iter().all(super::super::outlook::Outlook::is_complete));

    let alone = outlook([&difference], |_| false);
    let [nginx, waiting] = &alone[..] else {
        panic!("{alone:?}")
    };
    assert_eq!(nginx.waits_for.len(), 4);
    assert_eq!(waiting.digest, app);
    assert_eq!(waiting.waits_for, [(Digest::of(&shared), 70_000)]);
    let there = outlook([&difference], |digest| *digest == Digest::of(&shared));
    assert!(there[1].is_complete() && !there[0].is_complete());
    assert_eq!(there[0].waits_for.len(), 3);
}
